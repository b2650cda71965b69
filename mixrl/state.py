"""Scene + settings -> the state that the Q-network sees.

One row of features per stem and per group and one for the mix, each roughly of unit size. What would give an answer
away is left out: no absolute level or peak, nothing of how the files were made. ``gains`` holds each move's exact
one-step reward, from the closed form: a feature to weigh, not an order to follow.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixrl.analysis import OCTAVES
from mixrl.measures import CENTRES_HZ, Array, Facts, Measures, decibels
from mixrl.moves import HIGHPASS_HZ, KINDS, MOVE_COST, Layout, legal
from mixrl.roles import ROLES
from mixrl.scene import Scene
from mixrl.score import TERMS, level_corridor, reference, score, terms
from mixrl.settings import COMPRESSORS, MixSettings

Float = NDArray[np.float32]

STEM_FEATURES = 22 + len(ROLES) + 2 * OCTAVES
GROUP_FEATURES = 4
MIX_FEATURES = len(CENTRES_HZ) + OCTAVES + len(TERMS) + 6


@dataclass(frozen=True)
class State:
    """What the network sees of one moment.

    stems (N, STEM_FEATURES), groups (G, GROUP_FEATURES), mix (MIX_FEATURES,); members (N,) index of each stem's group;
    gains (actions,) reward of each legal move, 0 elsewhere; mask (actions,) bool.
    """

    stems: Float
    groups: Float
    mix: Float
    members: NDArray[np.int64]
    gains: Float
    mask: NDArray[np.bool_]


def observe(
    scene: Scene,
    settings: MixSettings,
    time_left: float,
    locked: Collection[str] = (),
    kinds: Collection[str] = KINDS,
) -> tuple[State, Measures]:
    """The state of a mix, and its measures. time_left: share of the steps that remain, 0..1."""
    facts = scene.facts
    measures = scene.measures(settings)
    now = float(score(measures, facts))
    mask = legal(settings, facts, locked, kinds)
    gains = np.zeros(len(mask), dtype=np.float32)
    if time_left > 0.0:
        actions, after = scene.deltas(settings)
        gains[actions] = score(after, facts) - now - MOVE_COST
    gains[~mask] = 0.0
    own = scene.own_power(settings)
    group_index = {name: i for i, name in enumerate(facts.groups)}
    members = np.array([group_index[m] for m in facts.members], dtype=np.int64)
    state = State(
        stems=_stem_rows(facts, settings, measures, own),
        groups=_group_rows(facts, settings, own, members),
        mix=_mix_row(facts, measures, time_left, now),
        members=members,
        gains=gains,
        mask=mask,
    )
    return state, measures


def _octaves(thirds: Array) -> Array:
    """(..., 31) powers summed into (..., OCTAVES)."""
    starts = np.arange(0, 3 * OCTAVES, 3)
    return np.asarray(np.add.reduceat(thirds, starts, axis=-1))


def _clip(values: Array) -> Array:
    return np.clip(values, -3.0, 3.0)


def _stem_rows(facts: Facts, settings: MixSettings, m: Measures, own: Array) -> Float:
    corridor = level_corridor(facts.roles, tuple(bool(a) for a in facts.audible))
    level = m.stem_lufs - m.integrated_lufs
    octaves = _octaves(own)
    shape = decibels(octaves / np.maximum(octaves.sum(-1, keepdims=True), 1e-20))
    share = decibels(octaves / np.maximum(octaves.sum(0), 1e-20))
    rows = []
    for i, name in enumerate(facts.names):
        strip = settings.strip(name)
        role = [1.0 if facts.roles[i] == r else 0.0 for r in ROLES]
        corner = [k for k, hz in enumerate(HIGHPASS_HZ) if (hz or 0.0) <= (strip.highpass_hz or 0.0)][-1]
        rows.append(
            np.concatenate([
                [
                    float(facts.activity[i] > 0.0), facts.activity[i], 0.0 if facts.roles[i] else 1.0, level[i] / 10.0,
                    (level[i] - corridor[i, 0]) / 10.0, (level[i] - corridor[i, 1]) / 10.0,
                    (level[i] - corridor[i, 2]) / 10.0, m.audibility_db[i] / 10.0, m.position[i],
                    abs(m.position[i]), strip.gain_db / 12.0, strip.pan, float(strip.invert), corner / 4.0,
                    COMPRESSORS.index(strip.compressor) / 3.0, m.eq_change_db[i] / 4.0, m.gain_reduction_db[i] / 4.0,
                ],
                [band.gain_db / 6.0 for band in strip.eq],
                role,
                shape[i] / 20.0,
                share[i] / 20.0,
            ])
        )  # fmt: skip
    return _clip(np.stack(rows)).astype(np.float32)


def _group_rows(facts: Facts, settings: MixSettings, own: Array, members: NDArray[np.int64]) -> Float:
    power = own.sum(-1)
    whole = max(float(power.sum()), 1e-20)
    rows = [
        [
            float(decibels(power[members == g].sum() / whole)) / 10.0,
            float((members == g).sum()) / 8.0,
            settings.groups.get(name, 0.0) / 12.0,
            1.0,
        ]
        for g, name in enumerate(facts.groups)
    ]
    return _clip(np.array(rows)).astype(np.float32)


def _mix_row(facts: Facts, m: Measures, time_left: float, now: float) -> Float:
    ref = reference()
    counted = facts.counted.astype(np.float64)
    off = m.spectrum_db - ref.level_db
    off = (off - (off * counted).sum() / max(counted.sum(), 1.0)) * counted
    width = np.array([chunk.mean() for chunk in np.array_split((m.side_mid_db - ref.side_mid_db) * counted, OCTAVES)])
    found = terms(m, facts)
    return _clip(
        np.concatenate([
            off / 10.0, width / 10.0, [float(found[name]) for name in TERMS],
            [m.imbalance_db / 6.0, m.limiting_db / 6.0, m.psr_db / 10.0, now / 4.0, len(facts.names) / 16.0, time_left],
        ])
    ).astype(np.float32)  # fmt: skip


def layout_of(state: State) -> Layout:
    """The action layout that a state belongs to."""
    return Layout(len(state.stems), len(state.groups))
