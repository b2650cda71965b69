"""The discrete moves: what they are, which are legal, and what they do to settings.

Every stem has the same list of moves (``STEM_MOVES``), every group another (``GROUP_MOVES``) and the mix a third
(``MIX_MOVES``). A session of N stems and G groups therefore has N * len(STEM_MOVES) + G * len(GROUP_MOVES) +
len(MIX_MOVES) actions, numbered in that order: that is the environment's action space and the layout of Q-values.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixrl.compiled import compiled
from mixrl.knobs import COMPRESSOR, EQ, GAIN, HIGHPASS, INVERT, NEUTRAL_SHAPE, PAN, TEMPO, Knobs, Shape
from mixrl.measures import Array, Facts
from mixrl.settings import COMPRESSORS

GAIN_LIMITS_DB = (-24.0, 18.0)
GROUP_LIMITS_DB = (-12.0, 12.0)
EQ_LIMITS_DB = (-9.0, 6.0)  # cuts may go deeper than boosts
HIGHPASS_HZ: tuple[float | None, ...] = (None, 30.0, 60.0, 100.0, 150.0)
MOVE_COST = 0.001  # of score: what a move must at least bring, so that nothing is touched for nothing
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


@lru_cache(maxsize=1024)
def padded_columns(stems: int, groups: int, most_stems: int, most_groups: int) -> NDArray[np.int64]:
    """Where the actions of a session of (stems, groups) lie in the layout of a larger one, (actions,), rising."""
    own, large = Layout(stems, groups), Layout(most_stems, most_groups)
    return np.concatenate([
        np.arange(own.group_start),
        np.arange(large.group_start, large.group_start + own.mix_start - own.group_start),
        np.arange(large.mix_start, large.size),
    ])  # fmt: skip


_STEM_KINDS = tuple(move.kind for move in STEM_MOVES)
_GROUP_AMOUNTS = np.array([move.amount for move in GROUP_MOVES])
_KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
_MOVES = np.array([(_KIND_NUMBERS[move.kind], move.amount, move.band) for move in STEM_MOVES])
_PRESETS = len(COMPRESSORS)
_HIGHPASS = np.array([corner or 0.0 for corner in HIGHPASS_HZ])
# what a move must change at the least: not a rest before the limit
_LEAST_GAIN, _LEAST_PAN, _LEAST_EQ = 0.25, 0.05, 0.5


@lru_cache(maxsize=1024)
def band_tops(shape: Shape) -> Array:
    """(EQ_BANDS,) frequency in Hz that a stem must reach for a boost of each band to raise more than noise."""
    return np.array([hz if kind == "high_shelf" else hz / 1.5 for kind, hz, _ in shape])


def after_moves(strips: Array, bandwidth_hz: Array, tops: Array) -> tuple[Array, NDArray[np.bool_]]:
    """What each of ``STEM_MOVES`` makes of strips, (N, moves, COLUMNS), and which moves are legal, (N, moves).

    A move is illegal that would change nothing or leave the limits, and a boost of a band above the stem's bandwidth:
    it would only raise noise. An illegal move's strip is the strip as it is. strips: (N, COLUMNS); bandwidth_hz: (N,);
    tops: ``band_tops``, (N or 1, EQ_BANDS).
    """
    after = np.repeat(strips[:, None], len(STEM_MOVES), axis=1)
    allowed = np.zeros(after.shape[:2], dtype=bool)
    _make_moves(np.ascontiguousarray(strips), bandwidth_hz, tops, _MOVES, _HIGHPASS, after, allowed)
    return after, allowed


@compiled
def _stepped(value, amount, low, high, least):  # type: ignore[no-untyped-def]
    """A value moved by an amount inside limits, and whether that moves it as far as it should, the way it should."""
    after = round(min(max(value + amount, low), high), 6)
    return after, (after - value) * (1.0 if amount > 0.0 else -1.0) >= least


@compiled
def _make_moves(strips, bandwidth, tops, moves, corners, after, allowed):  # type: ignore[no-untyped-def]
    """Fill after (N, moves, COLUMNS), which holds copies of the strips, and allowed (N, moves)."""
    for n in range(strips.shape[0]):
        for k in range(moves.shape[0]):
            kind, amount = int(moves[k, 0]), moves[k, 1]
            column, value, legal = GAIN, 0.0, False
            if kind == 0:
                value, legal = _stepped(strips[n, GAIN], amount, GAIN_LIMITS_DB[0], GAIN_LIMITS_DB[1], _LEAST_GAIN)
            elif kind == 1:
                column = PAN
                value, legal = _stepped(strips[n, PAN], amount, -1.0, 1.0, _LEAST_PAN)
            elif kind == 2:
                band = int(moves[k, 2])
                column = EQ + band
                value, legal = _stepped(strips[n, column], amount, EQ_LIMITS_DB[0], EQ_LIMITS_DB[1], _LEAST_EQ)
                if value > 0.0 and amount > 0.0 and tops[min(n, tops.shape[0] - 1), band] > bandwidth[n]:
                    legal = False
            elif kind == 3:
                column = HIGHPASS
                # a corner from elsewhere (a user's recipe) counts as the nearest step below it
                step = np.searchsorted(corners, strips[n, HIGHPASS], side="right") - 1 + int(amount)
                legal = 0 <= step < corners.shape[0]
                value = corners[step] if legal else 0.0
            elif kind == 4:
                column = COMPRESSOR
                value = strips[n, COMPRESSOR] + amount
                legal = 0.0 <= value < _PRESETS
            else:
                column = INVERT
                value, legal = 1.0 - strips[n, INVERT], True
            if legal:
                after[n, k, column] = value
                allowed[n, k] = True


def tops_of(knobs: Knobs) -> Array:
    """``band_tops`` of the mix's stems, (N, EQ_BANDS), or (1, EQ_BANDS) where all are neutral's."""
    return np.stack([band_tops(shape) for shape in knobs.shapes or (NEUTRAL_SHAPE,)])


def apply(knobs: Knobs, facts: Facts, action: int) -> Knobs:
    """One mix after an action; stop returns it unchanged. Raises ValueError when the action would change nothing
    or leave the limits; what is locked or silent is the business of ``legal``."""
    kind, index, move = Layout(len(facts.names), len(facts.groups)).decode(action)
    if move.kind == "stop":
        return knobs
    after = knobs.copy()
    if kind == "stem":
        one = slice(index, index + 1)
        tops = tops_of(knobs)
        rows, allowed = after_moves(knobs.strips[one], facts.bandwidth_hz[one], tops[one] if len(tops) > 1 else tops)
        number = action % len(STEM_MOVES)
        if not allowed[0, number]:
            raise ValueError(f"{move} is illegal on {facts.names[index]!r}")
        after.strips[index] = rows[0, number]
    elif kind == "group":
        gains, moves = group_gains(knobs)
        number = GROUP_MOVES.index(move)
        if not moves[index, number]:
            raise ValueError(f"{move} is illegal on the group {facts.groups[index]!r}")
        after.groups[index] = gains[index, number]
    else:
        after = to_tempo(knobs, facts, move.amount)
        if (after.strips == knobs.strips).all():
            raise ValueError(f"{move} is illegal: it changes no stem")
    return after


def to_tempo(knobs: Knobs, facts: Facts, part: float) -> Knobs:
    """A mix with every stem that may be stretched ``part`` of the way (0..1) to its wanted tempo ratio."""
    after = knobs.copy()
    wanted = facts.tempo_target != 1.0
    after.strips[wanted, TEMPO] = np.round(facts.tempo_target[wanted] ** part, 6)
    return after


def group_gains(knobs: Knobs) -> tuple[Array, NDArray[np.bool_]]:
    """What each of ``GROUP_MOVES`` makes of the groups' gains in dB, and which moves are legal, (G, moves) each."""
    gains = np.empty((len(knobs.groups), len(GROUP_MOVES)))
    allowed = np.zeros(gains.shape, dtype=bool)
    _make_group_moves(np.ascontiguousarray(knobs.groups), _GROUP_AMOUNTS, gains, allowed)
    return gains, allowed


@compiled
def _make_group_moves(groups, amounts, gains, allowed):  # type: ignore[no-untyped-def]
    """Fill gains and allowed, (G, moves) each."""
    for n in range(groups.shape[0]):
        for k in range(amounts.shape[0]):
            found = _stepped(groups[n], amounts[k], GROUP_LIMITS_DB[0], GROUP_LIMITS_DB[1], _LEAST_GAIN)
            gains[n, k], allowed[n, k] = found


def legal(
    knobs: Knobs, facts: Facts, locked: Collection[str] = (), kinds: Collection[str] = KINDS
) -> NDArray[np.bool_]:
    """(actions,) bool: the moves that are legal now; stop always is.

    locked: stems that no move may touch (a group with a locked member does not move either). kinds: the kinds of
    move that are allowed at all. Silent stems have no moves; a group moves only if it has two members or more and
    is not the only group.
    """
    layout = Layout(len(facts.names), len(facts.groups))
    mask = np.zeros(layout.size, dtype=bool)
    held = _are(frozenset(locked), facts.names)
    _, allowed = after_moves(knobs.strips, facts.bandwidth_hz, tops_of(knobs))
    wanted = _are(frozenset(kinds), _STEM_KINDS)
    mask[: layout.group_start] = (allowed & (facts.audible & ~held)[:, None] & wanted).ravel()
    if "gain" in kinds and layout.groups > 1:
        inside = _inside(facts.members) & facts.audible
        movable = (inside.sum(axis=1) >= 2) & ~(inside & held).any(axis=1)
        mask[layout.group_start : layout.mix_start] = (group_gains(knobs)[1] & movable[:, None]).ravel()
    mask[layout.mix_start] = True
    stretched = facts.tempo_target != 1.0
    if "tempo" in kinds and stretched.any() and not (stretched & held).any():
        for offset, move in enumerate(MIX_MOVES):
            if move.kind == "tempo":
                after = to_tempo(knobs, facts, move.amount)
                mask[layout.mix_start + offset] = (after.strips != knobs.strips).any()
    return mask


@lru_cache(maxsize=1024)
def _are(wanted: frozenset[str], names: tuple[str, ...]) -> NDArray[np.bool_]:
    return np.array([name in wanted for name in names], dtype=bool)


@lru_cache(maxsize=1024)
def _inside(members: tuple[str, ...]) -> NDArray[np.bool_]:
    """(G, N) which stems are in which group, the groups sorted by name."""
    return np.array([[member == group for member in members] for group in sorted(set(members))])
