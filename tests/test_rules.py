"""Mixes without learning, and where searches and the agent begin."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import random_settings

from mixrl.knobs import GAIN, HIGHPASS, PAN, joined, neutral_knobs
from mixrl.moves import GAIN_LIMITS_DB, HIGHPASS_HZ, legal
from mixrl.rules import equal_loudness, rule_mix, starting_mix
from mixrl.scene import Scene


def test_equal_loudness_makes_stems_equally_loud(small_scene: Scene):
    loudness = small_scene.measures(equal_loudness(small_scene)).stem_lufs[small_scene.facts.audible]
    assert np.ptp(loudness) < 0.05


def test_the_start_is_the_better_of_rule_mix_and_no_change(small_scene: Scene):
    """Whatever was done to the stems before; and every move from there is one within the limits."""
    facts = small_scene.facts
    chosen = set()
    for seed in range(6):
        damage = small_scene.knobs(random_settings(small_scene, seed)).strips
        damage[:, [4, 5]] = 0.0, 1.0  # what cannot be baked in
        scene = small_scene.subset(range(len(facts.names)), damage) if seed else small_scene
        start = starting_mix(scene)
        neutral = neutral_knobs(facts)
        rules = scene.knobs(rule_mix(scene))
        assert scene.scores(start[None])[0] >= scene.scores(neutral[None])[0]
        chosen.add(bool((start.strips == neutral.strips).all()))
        if (start.strips != neutral.strips).any():
            assert start.strips[:, GAIN] == pytest.approx(
                np.clip(rules.strips[:, GAIN], *GAIN_LIMITS_DB), abs=0.051
            )
            assert set(start.strips[:, HIGHPASS]) <= {corner or 0.0 for corner in HIGHPASS_HZ}
        assert legal(start, facts).any()
    good = starting_mix(small_scene)
    baked = small_scene.subset(range(len(facts.names)), good.strips)
    again = starting_mix(baked)
    assert baked.scores(joined([again]))[0] >= baked.scores(joined([neutral_knobs(facts)]))[0]
    assert False in chosen


def test_the_start_leaves_alone_what_is_locked_or_not_allowed(small_scene: Scene):
    facts = small_scene.facts
    neutral = neutral_knobs(facts)
    free = starting_mix(small_scene)
    moved = np.flatnonzero((free.strips != neutral.strips).any(axis=1))
    assert len(moved) > 1
    locked = facts.names[moved[0]]
    held = starting_mix(small_scene, [locked])
    assert (held.strips[moved[0]] == neutral.strips[moved[0]]).all()
    still = starting_mix(small_scene, kinds=("pan", "eq"))
    assert (still.strips[:, GAIN] == 0.0).all()
    assert (still.strips[:, HIGHPASS] == 0.0).all()
    assert (starting_mix(small_scene, kinds=("gain",)).strips[:, PAN] == 0.0).all()
