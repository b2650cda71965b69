"""The discrete moves: what they are, which are legal, and what they do to settings.

Every stem has the same list of moves (``STEM_MOVES``), every group another (``GROUP_MOVES``) and the mix a third
(``MIX_MOVES``). A session of N stems and G groups therefore has N * len(STEM_MOVES) + G * len(GROUP_MOVES) +
len(MIX_MOVES) actions, numbered in that order: that is the environment's action space and the layout of Q-values.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixrl.measures import Facts
from mixrl.settings import COMPRESSORS, MixSettings, StripSettings

GAIN_LIMITS_DB = (-24.0, 18.0)
GROUP_LIMITS_DB = (-12.0, 12.0)
EQ_LIMITS_DB = (-9.0, 6.0)  # cuts may go deeper than boosts
HIGHPASS_HZ: tuple[float | None, ...] = (None, 30.0, 60.0, 100.0, 150.0)
MOVE_COST = 0.003  # of score: what a move must at least bring, so that nothing is touched for nothing
SIZES_DB = (0.5, 2.0, 6.0)
EQ_SIZES_DB = (1.0, 3.0)
PAN_SIZES = (0.1, 0.3)


@dataclass(frozen=True)
class Move:
    """One discrete move: ``kind`` is gain, pan, eq, highpass, compressor, polarity, tempo or stop.

    amount: dB for gain and eq, -1..1 for pan, steps for highpass and compressor; for tempo the part of the way to
    the wanted ratio (0.5, 1) or 0 to go back to the original speed. band: EQ band, 0..4.
    """

    kind: str
    amount: float = 0.0
    band: int = -1


def _signed(sizes: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sign * size for size in sizes for sign in (-1.0, 1.0))


STEM_MOVES: tuple[Move, ...] = (
    *(Move("gain", amount) for amount in _signed(SIZES_DB)),
    *(Move("pan", amount) for amount in _signed(PAN_SIZES)),
    *(Move("eq", amount, band) for band in range(5) for amount in _signed(EQ_SIZES_DB)),
    *(Move("highpass", step) for step in (-1.0, 1.0)),
    *(Move("compressor", step) for step in (-1.0, 1.0)),
    Move("polarity"),
)
GROUP_MOVES: tuple[Move, ...] = tuple(Move("gain", amount) for amount in _signed(SIZES_DB))
# tempo is a move on the mix: stems of one recording, and all stems when a tempo is asked for, stretch together
MIX_MOVES: tuple[Move, ...] = (Move("stop"), *(Move("tempo", part) for part in (0.0, 0.5, 1.0)))
KINDS = ("gain", "pan", "eq", "highpass", "compressor", "polarity", "tempo")


def step_limit(stems: int) -> int:
    """Moves in an episode at the most: 64, or four a stem."""
    return max(64, 4 * stems)


@dataclass(frozen=True)
class Layout:
    """How the actions of a session of ``stems`` stems and ``groups`` groups are numbered."""

    stems: int
    groups: int

    @property
    def size(self) -> int:
        """Number of actions."""
        return self.stems * len(STEM_MOVES) + self.groups * len(GROUP_MOVES) + len(MIX_MOVES)

    @property
    def group_start(self) -> int:
        """First action on a group."""
        return self.stems * len(STEM_MOVES)

    @property
    def mix_start(self) -> int:
        """First action on the whole mix: stop."""
        return self.group_start + self.groups * len(GROUP_MOVES)

    def decode(self, action: int) -> tuple[str, int, Move]:
        """("stem" | "group" | "mix", index, move) of an action number; IndexError when out of range."""
        if not 0 <= action < self.size:
            raise IndexError(f"action {action} of {self.size}")
        if action < self.group_start:
            return "stem", action // len(STEM_MOVES), STEM_MOVES[action % len(STEM_MOVES)]
        if action < self.mix_start:
            index, move = divmod(action - self.group_start, len(GROUP_MOVES))
            return "group", index, GROUP_MOVES[move]
        return "mix", 0, MIX_MOVES[action - self.mix_start]


def _clamped(value: float, low: float, high: float) -> float:
    return round(min(max(value, low), high), 6)


def _band_top_hz(frequency_hz: float, kind: str) -> float:
    return frequency_hz if kind == "high_shelf" else frequency_hz / 1.5


def moved(strip: StripSettings, move: Move, bandwidth_hz: float = 1e9) -> StripSettings | None:
    """The strip after a move, or None when the move is illegal: it would change nothing or leave the limits.

    A boost of a band above the stem's bandwidth is illegal: it would only raise noise.
    """
    if move.kind == "gain":
        gain = _clamped(strip.gain_db + move.amount, *GAIN_LIMITS_DB)
        return None if abs(gain - strip.gain_db) < 0.25 else replace(strip, gain_db=gain)
    if move.kind == "pan":
        pan = _clamped(strip.pan + move.amount, -1.0, 1.0)
        return None if abs(pan - strip.pan) < 0.05 else replace(strip, pan=pan)
    if move.kind == "eq":
        band = strip.eq[move.band]
        gain = _clamped(band.gain_db + move.amount, *EQ_LIMITS_DB)
        if abs(gain - band.gain_db) < 0.5 or (
            gain > 0.0 and move.amount > 0.0 and _band_top_hz(band.frequency_hz, band.kind) > bandwidth_hz
        ):
            return None
        return strip.with_band(move.band, gain_db=gain)
    if move.kind == "highpass":
        # a corner from elsewhere (a user's recipe) counts as the nearest step below it
        below = [i for i, corner in enumerate(HIGHPASS_HZ) if (corner or 0.0) <= (strip.highpass_hz or 0.0)]
        step = below[-1] + int(move.amount)
        return replace(strip, highpass_hz=HIGHPASS_HZ[step]) if 0 <= step < len(HIGHPASS_HZ) else None
    if move.kind == "compressor":
        step = COMPRESSORS.index(strip.compressor) + int(move.amount)
        return replace(strip, compressor=COMPRESSORS[step]) if 0 <= step < len(COMPRESSORS) else None
    if move.kind == "polarity":
        return replace(strip, invert=not strip.invert)
    raise ValueError(f"{move.kind} is no move of a stem")


@lru_cache(maxsize=65_536)
def successors(strip: StripSettings, bandwidth_hz: float) -> tuple[StripSettings | None, ...]:
    """What each of ``STEM_MOVES`` makes of a strip; None where the move is illegal."""
    return tuple(moved(strip, move, bandwidth_hz) for move in STEM_MOVES)


def apply(settings: MixSettings, facts: Facts, action: int) -> MixSettings:
    """Settings after an action; stop returns them unchanged. Raises ValueError when the action would change nothing
    or leave the limits; what is locked or silent is the business of ``legal``."""
    kind, index, move = Layout(len(facts.names), len(facts.groups)).decode(action)
    if kind == "stem":
        name = facts.names[index]
        strip = moved(settings.strip(name), move, float(facts.bandwidth_hz[index]))
        if strip is None:
            raise ValueError(f"{move} is illegal on {name!r}")
        return settings.with_strip(name, strip)
    if kind == "group":
        group = facts.groups[index]
        gain = _clamped(settings.groups[group] + move.amount, *GROUP_LIMITS_DB)
        if abs(gain - settings.groups[group]) < 0.25:
            raise ValueError(f"{move} is illegal on the group {group!r}")
        return settings.with_group(group, gain)
    if move.kind == "stop":
        return settings
    after = to_tempo(settings, facts, move.amount)
    if after == settings:
        raise ValueError(f"{move} is illegal: it changes no stem")
    return after


def to_tempo(settings: MixSettings, facts: Facts, part: float) -> MixSettings:
    """Settings with every stem that may be stretched ``part`` of the way (0..1) to its wanted tempo ratio."""
    strips = {
        name: replace(settings.strip(name), tempo_ratio=round(float(target) ** part, 6))
        for name, target in zip(facts.names, facts.tempo_target, strict=True)
        if target != 1.0
    }
    return replace(settings, stems={**settings.stems, **strips})


def legal(
    settings: MixSettings, facts: Facts, locked: Collection[str] = (), kinds: Collection[str] = KINDS
) -> NDArray[np.bool_]:
    """(actions,) bool: the moves that are legal now; stop always is.

    locked: stems that no move may touch (a group with a locked member does not move either). kinds: the kinds of
    move that are allowed at all. Silent stems have no moves; a group moves only if it has two members or more and
    is not the only group.
    """
    layout = Layout(len(facts.names), len(facts.groups))
    mask = np.zeros(layout.size, dtype=bool)
    allowed = np.array([move.kind in kinds for move in STEM_MOVES])
    for index, name in enumerate(facts.names):
        if name in locked or facts.activity[index] == 0.0:
            continue
        after = successors(settings.strip(name), float(facts.bandwidth_hz[index]))
        start = index * len(STEM_MOVES)
        mask[start : start + len(STEM_MOVES)] = allowed & [strip is not None for strip in after]
    if "gain" in kinds and len(facts.groups) > 1:
        for index, group in enumerate(facts.groups):
            members = [n for n, m, a in zip(facts.names, facts.members, facts.audible, strict=True) if m == group and a]
            if len(members) < 2 or any(name in locked for name in members):
                continue
            start = layout.group_start + index * len(GROUP_MOVES)
            for offset, move in enumerate(GROUP_MOVES):
                gain = _clamped(settings.groups[group] + move.amount, *GROUP_LIMITS_DB)
                mask[start + offset] = abs(gain - settings.groups[group]) >= 0.25
    mask[layout.mix_start] = True
    stretched = [name for name, target in zip(facts.names, facts.tempo_target, strict=True) if target != 1.0]
    if stretched and "tempo" in kinds and not any(name in locked for name in stretched):
        for offset, move in enumerate(MIX_MOVES):
            if move.kind == "tempo":
                mask[layout.mix_start + offset] = to_tempo(settings, facts, move.amount) != settings
    return mask
