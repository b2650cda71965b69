"""Scene + knobs -> the state that the Q-network sees.

One row of features per stem and per group and one for the mix, each roughly of unit size. What would give an answer
away is left out: no absolute level or peak, nothing of how the files were made. ``gains`` holds each move's exact
one-step reward, from the closed form: a feature to weigh, not an order to follow.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixrl.compiled import compiled
from mixrl.hearing import TINY, decibels
from mixrl.knobs import COMPRESSOR, EQ, GAIN, HIGHPASS, INVERT, PAN, Knobs
from mixrl.measures import CENTRES_HZ, Array, Measures
from mixrl.moves import HIGHPASS_HZ, KINDS, MOVE_COST, Layout, legal
from mixrl.peaks import OCTAVES
from mixrl.roles import ROLES
from mixrl.scene import Scene
from mixrl.score import TERMS, penalties, pull, scored
from mixrl.settings import EQ_BANDS

Float = NDArray[np.float32]

STEM_FEATURES = 25 + len(ROLES) + 5 * OCTAVES
GROUP_FEATURES = 4
MIX_FEATURES = len(CENTRES_HZ) + OCTAVES + len(TERMS) + 6


@dataclass(frozen=True)
class State:
    """What the network sees of one moment.

    stems (N, STEM_FEATURES), groups (G, GROUP_FEATURES), mix (MIX_FEATURES,); members (N,) index of each stem's group;
    gains (actions,) reward of each legal move, 0 elsewhere or when not looked at; mask (actions,) bool. score: of the
    mix; the network does not see it by itself.
    """

    stems: Float
    groups: Float
    mix: Float
    members: NDArray[np.int64]
    gains: Float
    mask: NDArray[np.bool_]
    score: float = 0.0


class Worth(Protocol):
    """What a mix is worth besides its score; see ``closeness.Goal``."""

    def now(self, scene: Scene, measures: Measures) -> float: ...
    def after(self, scene: Scene, actions: NDArray[np.int64], measures: Measures) -> Array: ...


def observe(
    scene: Scene,
    knobs: Knobs,
    time_left: float,
    locked: Collection[str] = (),
    kinds: Collection[str] = KINDS,
    gains: bool = True,
    worth: Worth | None = None,
) -> tuple[State, Measures]:
    """The state of a mix, and its measures. time_left: share of the steps that remain, 0..1. gains: whether to look at
    every successor; without, the state's gains are all 0 and it costs a tenth. worth: what else successors earn, in
    training; only for a network that does not see the gains."""
    facts = scene.facts
    measures = scene.current(knobs)
    by = scene.yardstick
    found, now = penalties(measures, by), float(scored(measures, by))
    mask = legal(knobs, facts, locked, kinds)
    rewards = np.zeros(len(mask), dtype=np.float32)
    if gains and time_left > 0.0:
        actions, after = scene.deltas(knobs)
        rewards[actions] = scored(after, by) - now - MOVE_COST
        if worth is not None:
            rewards[actions] += worth.after(scene, actions, after) - worth.now(scene, measures)
        rewards[~mask] = 0.0
    members, roles = _members(facts.members), _role_columns(facts.roles)
    m = measures
    stems = np.empty((len(facts.names), STEM_FEATURES), dtype=np.float32)
    groups = np.empty((len(facts.groups), GROUP_FEATURES), dtype=np.float32)
    mix = np.empty(MIX_FEATURES, dtype=np.float32)
    own = scene.own_power(knobs)
    levels = (float(m.integrated_lufs), float(m.imbalance_db), float(m.limiting_db), float(m.psr_db))
    per_stem = (m.stem_lufs, m.audibility_db, m.position, m.eq_change_db, m.gain_reduction_db)
    _stem_rows(own, np.ascontiguousarray(knobs.strips), facts.activity, roles, by.corridor, levels[0], per_stem, stems)
    part = facts.activity * 10.0 ** ((m.stem_lufs - levels[0]) / 10.0)
    _pulls(own, pull(m, by), part / max(float(part.sum()), TINY), stems[:, STEM_FEATURES - _PULLS :])
    _group_rows(own, knobs.groups, members, groups)
    bands = (m.spectrum_db, m.side_mid_db, facts.counted.astype(np.float64))
    _mix_row(bands, by, found, levels, now, len(facts.names), time_left, mix)
    return State(stems, groups, mix, members, rewards, mask, now), measures


@lru_cache(maxsize=256)
def _members(members: tuple[str, ...]) -> NDArray[np.int64]:
    """(N,) index of each stem's group."""
    groups = sorted(set(members))
    return np.array([groups.index(member) for member in members], dtype=np.int64)


@lru_cache(maxsize=256)
def _role_columns(roles: tuple[str | None, ...]) -> Array:
    """(N, 1 + ROLES): unknown, then one column a role."""
    return np.array([[0.0 if role else 1.0, *(float(role == r) for r in ROLES)] for role in roles])


_PULLS = 3 + 3 * OCTAVES
_PULL_SCALE = 100.0  # a dB is worth hundredths of score at the most
_CORNERS = np.array([corner or 0.0 for corner in HIGHPASS_HZ])


@compiled
def _put(row, at, value):  # type: ignore[no-untyped-def]
    """Write a feature, inside -3..3; returns where the next one goes."""
    row[at] = min(max(value, -3.0), 3.0)
    return at + 1


@compiled
def _octave(thirds, number):  # type: ignore[no-untyped-def]
    """The sum of (31,) values over an octave; the last takes the rest."""
    total = 0.0
    for t in range(3 * number, len(thirds) if number == OCTAVES - 1 else 3 * number + 3):
        total += thirds[t]
    return total


@compiled
def _stem_rows(own, strips, activity, roles, corridor, integrated, per_stem, found):  # type: ignore[no-untyped-def]
    """found (N, STEM_FEATURES). own (N, 31): power; per_stem: five of ``Measures``, (N,) each."""
    lufs, audibility, position, eq_change, reduction = per_stem
    octaves = np.zeros((len(own), OCTAVES))
    whole = np.zeros(OCTAVES)
    for i in range(len(own)):
        for o in range(OCTAVES):
            octaves[i, o] = _octave(own[i], o)
            whole[o] += octaves[i, o]
    for i in range(len(own)):
        row, strip, level = found[i], strips[i], lufs[i] - integrated
        at = _put(row, 0, 1.0 if activity[i] > 0.0 else 0.0)
        at = _put(row, at, activity[i])
        at = _put(row, at, roles[i, 0])
        at = _put(row, at, level / 10.0)
        for k in range(3):
            at = _put(row, at, (level - corridor[i, k]) / 10.0)
        at = _put(row, at, audibility[i] / 10.0)
        at = _put(row, at, position[i])
        at = _put(row, at, abs(position[i]))
        at = _put(row, at, strip[GAIN] / 12.0)
        at = _put(row, at, strip[PAN])
        at = _put(row, at, strip[INVERT])
        at = _put(row, at, (np.searchsorted(_CORNERS, strip[HIGHPASS], side="right") - 1) / 4.0)
        at = _put(row, at, strip[COMPRESSOR] / 3.0)
        at = _put(row, at, eq_change[i] / 4.0)
        at = _put(row, at, reduction[i] / 4.0)
        for band in range(EQ_BANDS):
            at = _put(row, at, strip[EQ + band] / 6.0)
        for role in range(1, roles.shape[1]):
            at = _put(row, at, roles[i, role])
        total = max(octaves[i].sum(), TINY)
        for o in range(OCTAVES):
            at = _put(row, at, decibels(octaves[i, o] / total) / 20.0)
        for o in range(OCTAVES):
            at = _put(row, at, decibels(octaves[i, o] / max(whole[o], TINY)) / 20.0)


@compiled
def _pulls(own, pull, part, found):  # type: ignore[no-untyped-def]
    """found (N, _PULLS): what the score would gain, to first order, from a dB more of a stem: through its level and the
    mix's, the mix's imbalance, its own position; in each octave through the mix's spectrum, through its own and the
    others' audibility, and how much the octave's side/mid matters. own (N, 31) power, as if stems added up by power;
    part (N,) of the mix's loudness."""
    whole = np.zeros(own.shape[1])
    for i in range(len(own)):
        whole += own[i]
    share = own / np.maximum(whole, TINY)
    # heard (N, 31): where each stem's audibility lies, times what it is worth
    heard = np.zeros(own.shape)
    for i in range(len(own)):
        there = own[i] * share[i]
        heard[i] = pull.audibility[i] * there / max(there.sum(), TINY)
    masked = np.zeros(own.shape[1])
    for i in range(len(own)):
        masked += heard[i]
    levels = pull.level.sum()
    for i in range(len(own)):
        at = _put(found[i], 0, 0.5 * _PULL_SCALE * (pull.level[i] - part[i] * levels))
        at = _put(found[i], at, 0.1 * _PULL_SCALE * part[i] * pull.imbalance[0])
        at = _put(found[i], at, pull.position[i])
        spectrum = pull.spectrum * share[i]
        audibility = heard[i] - share[i] * masked
        side = pull.side_mid * share[i]
        for o in range(OCTAVES):
            at = _put(found[i], at, _PULL_SCALE * _octave(spectrum, o))
            at = _put(found[i], at, _PULL_SCALE * _octave(audibility, o))
            at = _put(found[i], at, _PULL_SCALE * _octave(side, o))


@compiled
def _group_rows(own, gains, members, found):  # type: ignore[no-untyped-def]
    """found (G, GROUP_FEATURES)"""
    power, count = np.zeros(len(gains)), np.zeros(len(gains))
    for i in range(len(own)):
        power[members[i]] += own[i].sum()
        count[members[i]] += 1.0
    for g in range(len(gains)):
        at = _put(found[g], 0, decibels(power[g] / max(power.sum(), TINY)) / 10.0)
        at = _put(found[g], at, count[g] / 8.0)
        at = _put(found[g], at, gains[g] / 12.0)
        _put(found[g], at, 1.0)


@compiled
def _mix_row(bands, by, terms, levels, now, stems, time_left, found):  # type: ignore[no-untyped-def]
    """found (MIX_FEATURES,). bands: spectrum, side/mid and which bands count, (31,) each; by: ``Yardstick``."""
    spectrum, side_mid, counted = bands
    _, imbalance, limiting, psr = levels
    mean = ((spectrum - by.level) * counted).sum() / max(counted.sum(), 1.0)
    width = (side_mid - by.side) * counted
    at = 0
    for t in range(len(counted)):
        at = _put(found, at, (spectrum[t] - by.level[t] - mean) * counted[t] / 10.0)
    for o in range(OCTAVES):
        at = _put(found, at, _octave(width, o) / (4.0 if o == OCTAVES - 1 else 3.0) / 10.0)
    for k in range(len(terms)):
        at = _put(found, at, terms[k])
    at = _put(found, at, imbalance / 6.0)
    at = _put(found, at, limiting / 6.0)
    at = _put(found, at, psr / 10.0)
    at = _put(found, at, now / 4.0)
    at = _put(found, at, stems / 16.0)
    _put(found, at, time_left)


def layout_of(state: State) -> Layout:
    """The action layout that a state belongs to."""
    return Layout(len(state.stems), len(state.groups))
