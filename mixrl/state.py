"""Scene + knobs -> the state that the Q-network sees.

One row of features per stem and per group and one for the mix, each roughly of unit size. What would give an answer
away is left out: no absolute level or peak, nothing of how the files were made. ``gains`` holds each move's exact
one-step reward, from the closed form: a feature to weigh, not an order to follow.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixrl.knobs import COMPRESSOR, EQ, GAIN, HIGHPASS, INVERT, PAN, Knobs
from mixrl.measures import CENTRES_HZ, Array, Facts, Measures, decibels
from mixrl.moves import HIGHPASS_HZ, KINDS, MOVE_COST, Layout, legal
from mixrl.peaks import OCTAVES
from mixrl.roles import ROLES
from mixrl.scene import Scene
from mixrl.score import TERMS, WEIGHTS, level_corridor, reference, terms

Float = NDArray[np.float32]

STEM_FEATURES = 22 + len(ROLES) + 2 * OCTAVES
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


def observe(
    scene: Scene,
    knobs: Knobs,
    time_left: float,
    locked: Collection[str] = (),
    kinds: Collection[str] = KINDS,
    gains: bool = True,
) -> tuple[State, Measures]:
    """The state of a mix, and its measures. time_left: share of the steps that remain, 0..1. gains: whether to look at
    every successor; without, the state's gains are all 0 and it costs a tenth."""
    facts = scene.facts
    measures = scene.current(knobs)
    found = terms(measures, facts)
    now = -sum(WEIGHTS[name] * float(value) for name, value in found.items())
    mask = legal(knobs, facts, locked, kinds)
    rewards = np.zeros(len(mask), dtype=np.float32)
    if gains and time_left > 0.0:
        actions, after = scene.successor_scores(knobs)
        rewards[actions] = after - now - MOVE_COST
        rewards[~mask] = 0.0
    own = scene.own_power(knobs)
    groups = facts.groups
    members = np.array([groups.index(m) for m in facts.members], dtype=np.int64)
    state = State(
        stems=_stem_rows(facts, knobs, measures, own),
        groups=_group_rows(knobs, own, members),
        mix=_mix_row(facts, measures, found, time_left, now),
        members=members,
        gains=rewards,
        mask=mask,
        score=now,
    )
    return state, measures


def _octaves(thirds: Array) -> Array:
    """(..., 31) powers summed into (..., OCTAVES)."""
    starts = np.arange(0, 3 * OCTAVES, 3)
    return np.asarray(np.add.reduceat(thirds, starts, axis=-1))


def _clip(values: Array) -> Float:
    return np.clip(values, -3.0, 3.0).astype(np.float32)


@lru_cache(maxsize=256)
def _role_columns(roles: tuple[str | None, ...]) -> Array:
    """(N, 1 + ROLES): unknown, then one column a role."""
    return np.array([[0.0 if role else 1.0, *(float(role == r) for r in ROLES)] for role in roles])


def _stem_rows(facts: Facts, knobs: Knobs, m: Measures, own: Array) -> Float:
    corridor = level_corridor(facts.roles, tuple(facts.audible.tolist()))
    level = m.stem_lufs - m.integrated_lufs
    octaves = _octaves(own)
    shape = decibels(octaves / np.maximum(octaves.sum(-1, keepdims=True), 1e-20))
    share = decibels(octaves / np.maximum(octaves.sum(0), 1e-20))
    strips = knobs.strips
    roles = _role_columns(facts.roles)
    corner = np.searchsorted(_CORNERS, strips[:, HIGHPASS], side="right") - 1
    plain = np.stack(
        [
            facts.audible, facts.activity, roles[:, 0], level / 10.0, (level - corridor[:, 0]) / 10.0,
            (level - corridor[:, 1]) / 10.0, (level - corridor[:, 2]) / 10.0, m.audibility_db / 10.0, m.position,
            np.abs(m.position), strips[:, GAIN] / 12.0, strips[:, PAN], strips[:, INVERT], corner / 4.0,
            strips[:, COMPRESSOR] / 3.0, m.eq_change_db / 4.0, m.gain_reduction_db / 4.0,
        ],
        axis=1,
    )  # fmt: skip
    return _clip(np.concatenate([plain, strips[:, EQ:] / 6.0, roles[:, 1:], shape / 20.0, share / 20.0], axis=1))


def _group_rows(knobs: Knobs, own: Array, members: NDArray[np.int64]) -> Float:
    power = np.bincount(members, own.sum(-1), len(knobs.groups))
    share = decibels(power / max(float(power.sum()), 1e-20))
    count = np.bincount(members, minlength=len(knobs.groups))
    return _clip(np.stack([share / 10.0, count / 8.0, knobs.groups / 12.0, np.ones(len(count))], axis=1))


def _mix_row(facts: Facts, m: Measures, found: dict[str, Array], time_left: float, now: float) -> Float:
    ref = reference()
    counted = facts.counted.astype(np.float64)
    off = m.spectrum_db - ref.level_db
    off = (off - (off * counted).sum() / max(counted.sum(), 1.0)) * counted
    width = _octaves((m.side_mid_db - ref.side_mid_db) * counted) / _WIDTHS
    return _clip(
        np.concatenate([
            off / 10.0, width / 10.0, [float(found[name]) for name in TERMS],
            [m.imbalance_db / 6.0, m.limiting_db / 6.0, m.psr_db / 10.0, now / 4.0, len(facts.names) / 16.0, time_left],
        ])
    )  # fmt: skip


_CORNERS = np.array([corner or 0.0 for corner in HIGHPASS_HZ])
_WIDTHS = _octaves(np.ones(len(CENTRES_HZ)))


def layout_of(state: State) -> Layout:
    """The action layout that a state belongs to."""
    return Layout(len(state.stems), len(state.groups))
