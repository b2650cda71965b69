"""Features of stems: whatever their level, in any order, of what they sound like."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import RATE, band_noise, small_stems

from mixrl.recovery import broken
from mixrl.roles import ROLES
from mixrl.scene import Scene
from mixrl.session import Session
from mixrl.stem_features import FEATURES, NAMES, role_features, stem_features


def column(features, name):
    return features[:, NAMES.index(name)]


def test_a_row_for_every_stem_and_none_for_silence(small_scene):
    found = stem_features(small_scene)
    assert found.shape == (len(small_scene.facts.names), FEATURES)
    assert np.isfinite(found).all()
    assert (found.any(axis=1) == small_scene.facts.audible).all()
    assert not small_scene.facts.audible.all()


def test_faders_do_not_show(small_scene):
    rng = np.random.default_rng(0)
    copy = broken(small_scene, rng.uniform(-12, 12, len(small_scene.facts.names)))
    assert stem_features(copy) == pytest.approx(stem_features(small_scene))
    stems = small_stems()
    louder = {name: np.float32(10.0 ** (rng.uniform(-12, 12) / 20.0)) * audio for name, audio in stems.items()}
    again = stem_features(Scene.of(Session.from_arrays(louder, RATE)))
    peak = NAMES.index("peak to RMS")  # what instants are watched depends on the balance
    others = [i for i in range(FEATURES) if i not in (peak, len(NAMES) + peak)]
    assert again[:, others] == pytest.approx(stem_features(small_scene)[:, others], abs=0.05)
    assert again[:, peak] == pytest.approx(stem_features(small_scene)[:, peak], abs=1.5)


def test_the_order_of_the_stems_does_not_matter(small_scene):
    order = np.random.default_rng(1).permutation(len(small_scene.facts.names))
    assert stem_features(small_scene.subset(order)) == pytest.approx(stem_features(small_scene)[order], abs=1e-4)


def test_features_say_what_a_stem_sounds_like():
    rng, n = np.random.default_rng(2), 6 * RATE
    time = np.arange(n) / RATE
    low, high = band_noise(rng, n, RATE, 40.0, 120.0), band_noise(rng, n, RATE, 3000.0, 9000.0)
    stems = {
        "low": low,
        "high": high,
        "clicks": high * (time % 0.5 < 0.02),
        "rests": low * (time < 1.5),
        "wide": np.stack([high, np.roll(high, 3000)]),
        "left": np.stack([low, 0.1 * low]),
    }
    scene = Scene.of(Session.from_arrays({k: (0.1 * v).astype(np.float32) for k, v in stems.items()}, RATE))
    found = dict(zip(scene.facts.names, range(len(stems)), strict=True))

    def of(feature, stem):
        return column(stem_features(scene), feature)[found[stem]]

    assert of("centroid", "high") > of("centroid", "low") + 10
    assert of("octave 1", "low") > -6.0 > of("octave 1", "high")
    assert of("variation", "clicks") > of("variation", "high") + 5.0
    assert of("onsets", "clicks") > 0.1 > of("onsets", "high")
    assert of("peak to RMS", "clicks") > of("peak to RMS", "high") + 6.0
    assert of("activity", "rests") == pytest.approx(0.25, abs=0.03)
    assert of("activity", "low") == 1.0
    assert of("width", "wide") > -3.0
    assert of("width", "low") == -60.0
    assert of("off centre", "left") > 0.9
    assert of("off centre", "wide") < 0.1
    assert of("loudness to power", "high") > of("loudness to power", "low") + 6.0
    assert of("audibility", "left") < -3.0  # others are low, too


def test_against_the_session_features_have_no_mean(small_scene):
    found = stem_features(small_scene)[small_scene.facts.audible]
    assert found[:, len(NAMES) : 2 * len(NAMES)].mean(axis=0) == pytest.approx(0.0, abs=1e-9)
    assert (found[:, -1] == small_scene.facts.audible.sum()).all()


def test_a_name_tells_the_role_and_who_shares_it():
    found = role_features(("kick", None, "vocal", "kick"))
    assert found.shape == (4, 2 * len(ROLES) + 2)
    kick = ROLES.index("kick")
    assert found[:, kick].tolist() == [1, 0, 0, 1]
    assert found[:, len(ROLES)].tolist() == [0, 1, 0, 0]
    assert found[:, len(ROLES) + 1].tolist() == [2, 1, 1, 2]
    assert (found[:, len(ROLES) + 2 + kick] == 2).all()
