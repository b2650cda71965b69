"""What the network sees."""

from __future__ import annotations

import numpy as np

from mixrl import state
from mixrl.knobs import GAIN, joined, neutral_knobs
from mixrl.peaks import OCTAVES
from mixrl.scene import Scene
from mixrl.score import terms


def test_pulls_say_what_a_little_more_of_a_stem_would_bring(small_scene: Scene):
    """To first order: spectrum, balance and audibility after half a dB, against the closed form."""
    facts = small_scene.facts
    said, done = [], []
    rng = np.random.default_rng(0)
    for _ in range(10):
        knobs = neutral_knobs(facts)
        knobs.strips[:, GAIN] = rng.uniform(-10.0, 10.0, len(facts.names))
        seen, _ = state.observe(small_scene, knobs, 1.0, gains=False)
        pulls = seen.stems[:, -state._PULLS :] / state._PULL_SCALE
        octaves = pulls[:, 3:].reshape(-1, OCTAVES, 3).sum(axis=1)
        said.append(np.stack([octaves[:, 0], 2.0 * pulls[:, 0], octaves[:, 1]], axis=1)[facts.audible])
        for stem in np.flatnonzero(facts.audible):
            less, more = knobs.copy(), knobs.copy()
            less.strips[stem, GAIN] -= 0.25
            more.strips[stem, GAIN] += 0.25
            found = terms(small_scene.evaluate(joined([less, more])), facts)
            done.append([2.0 * (found[name][0] - found[name][1]) for name in ("spectrum", "balance", "audibility")])
    predicted, real = np.concatenate(said), np.array(done)
    for index in range(3):
        assert np.abs(real[:, index]).max() > 0.003
        assert np.corrcoef(predicted[:, index], real[:, index])[0, 1] > 0.9
    assert np.abs(predicted - real).mean() < 0.15 * np.abs(real).mean()


def test_the_state_is_finite_and_bounded(small_scene: Scene):
    knobs = neutral_knobs(small_scene.facts)
    for gain in (-60.0, 0.0, 60.0):
        knobs.strips[0, GAIN] = gain
        seen, measures = state.observe(small_scene, knobs.copy(), 0.5, gains=False)
        for values in (seen.stems, seen.groups, seen.mix):
            assert np.isfinite(values).all()
            assert np.abs(values).max() <= 3.0
        assert seen.stems.shape == (len(small_scene.facts.names), state.STEM_FEATURES)
        assert np.isclose(seen.score, small_scene.scores(knobs[None])[0], atol=1e-5)
        assert np.isfinite(measures.integrated_lufs)
