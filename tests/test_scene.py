"""The closed form against mixes that were really rendered, and against what is plain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from alike import STEPS, arrays, assert_moves_are_outcomes, assert_same, random_mixes
from conftest import RATE, random_settings, small_stems, third_octaves

from mixrl import rendered
from mixrl.audio import read
from mixrl.knobs import INVERT, neutral_knobs
from mixrl.measures import CENTRES_HZ, decibels
from mixrl.meters import measure_array
from mixrl.moves import Layout, legal
from mixrl.render import SumSource
from mixrl.rendered import Rendered
from mixrl.scene import Scene
from mixrl.session import Session
from mixrl.settings import EqBand, StripSettings

# ---- against audio ----------------------------------------------------------------------------------------------


def compare(session, scene, settings):
    """How far the closed form is from the meters on the rendered sum: integrated and short-term loudness and loudness
    range in LU, and the 95th percentile of the third-octaves in dB."""
    predicted = scene.measures(settings)
    mix = read(SumSource(session, settings))
    metered = measure_array(mix, session.sample_rate)
    off = np.abs(predicted.spectrum_db - decibels(third_octaves(mix, session.sample_rate)))
    judged = scene.facts.counted & (CENTRES_HZ > 60.0)  # below, a window of 0.7 s blurs the narrow bands
    return (
        abs(float(predicted.integrated_lufs) - metered.integrated_lufs),
        abs(float(predicted.short_term_lufs) - metered.max_short_term_lufs),
        abs(float(predicted.loudness_range_lu) - metered.loudness_range_lu),
        float(np.percentile(off[judged], 95)),
    )


def test_stems_that_are_only_turned_and_panned_are_measured_without_another_analysis(
    small, small_scene, monkeypatch
):
    settings = random_settings(small_scene, 3, presets=False)
    strips = {name: StripSettings(strip.gain_db, strip.pan, strip.invert) for name, strip in settings.stems.items()}
    settings = replace(settings, stems=strips)
    quick = Rendered(small, small_scene).measures(settings)
    monkeypatch.setattr(rendered, "_only_scales", lambda settings: False)
    whole = Rendered(small, small_scene).measures(settings)
    for name in ("spectrum_db", "side_mid_db", "stem_lufs", "audibility_db", "integrated_lufs", "peak_dbfs", "psr_db"):
        np.testing.assert_allclose(getattr(quick, name), getattr(whole, name), atol=0.02, err_msg=name)


@pytest.mark.parametrize("seed", range(4))
def test_linear_mixes_are_predicted(small, small_scene, seed):
    integrated, short_term, loudness_range, spectrum = compare(
        small, small_scene, random_settings(small_scene, seed, presets=False)
    )
    assert integrated < 0.1
    assert short_term < 0.2
    assert loudness_range < 0.5
    assert spectrum < 0.3


def test_compressed_mixes_at_another_rate_are_predicted():
    session = Session.from_arrays(small_stems(48_000, 10.0, 3), 48_000)
    scene = Scene.of(session)
    errors = np.array([compare(session, scene, random_settings(scene, seed)) for seed in (0, 1, 3)])
    # a sparse drum that leads the mix puts blocks right at the relative gate
    assert np.median(errors[:, 0]) < 0.05
    assert (errors.max(axis=0) < (0.2, 0.2, 0.5, 0.3)).all(), errors


@pytest.mark.parametrize("presets", [False, True])
def test_real_sessions_are_predicted(sample, presets):
    session, scene = sample
    errors = np.array([compare(session, scene, random_settings(scene, seed, presets=presets)) for seed in range(5)])
    aims = np.array([0.1, 0.2, 0.5, 0.3])  # of the 95th percentile
    assert ((errors < aims).sum(axis=0) >= 4).all(), errors
    assert (errors < 1.5 * aims).all(), errors


def test_rendered_measures_of_the_parts_agree_too(small, small_scene):
    settings = random_settings(small_scene, 5)
    predicted, rendered = small_scene.measures(settings), Rendered(small, small_scene).measures(settings)
    heard = small_scene.facts.audible
    np.testing.assert_allclose(predicted.stem_lufs[heard], rendered.stem_lufs[heard], atol=0.2)
    np.testing.assert_allclose(predicted.position[heard], rendered.position[heard], atol=0.02)
    np.testing.assert_allclose(predicted.imbalance_db, rendered.imbalance_db, atol=0.2)
    np.testing.assert_allclose(predicted.audibility_db[heard], rendered.audibility_db[heard], atol=1.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("presets", [False, True])
def test_one_source_under_two_microphones_is_predicted(microphones, seed, presets):
    """Delays and filters make a comb of the sum; loudness has the gate right even so."""
    session, scene = microphones
    assert scene.facts.names == ("bass", "guitar_close", "guitar_far", "snare_bottom", "snare_top")
    assert {(1, 2), (3, 4), (2, 4)} <= set(map(tuple, scene.analysis.pairs.tolist()))
    errors = compare(session, scene, random_settings(scene, seed, presets=presets))
    assert (np.array(errors[:3]) < (0.1, 0.1, 0.5)).all(), errors
    assert errors[3] < (0.6 if presets else 0.3)  # compressors are taken to keep the comb, which they nearly do


def test_shapes_of_the_eq_are_rendered_as_predicted(small, small_scene):
    """Other kinds, frequencies and Q than neutral's, on two of the stems."""
    settings = random_settings(small_scene, 3, presets=False)
    other = (
        EqBand("low_shelf", 300.0, -8.0, 0.5), EqBand("peak", 600.0, 9.0, 4.0), EqBand("peak", 1500.0, -6.0, 2.0),
        EqBand("high_shelf", 2500.0, 5.0, 0.9), EqBand("peak", 9000.0, -7.0, 0.4),
    )  # fmt: skip
    for name in ("keys", "guitar_room"):
        settings = settings.with_strip(name, replace(settings.stems[name], eq=other))
    errors = compare(small, small_scene, settings)
    assert (np.array(errors) < (0.1, 0.2, 0.5, 0.4)).all(), errors


# ---- plain facts ------------------------------------------------------------------------------------------------


def test_gain_alone_shifts_everything_by_itself(small_scene):
    """All stems 6 dB up: levels by 6 dB, and nothing that is relative."""
    base = random_mixes(small_scene, [8])[0]
    louder = base.copy()
    louder.groups[:] += 6.0
    low, high = small_scene.evaluate(base[None]).at(0), small_scene.evaluate(louder[None]).at(0)
    for name in ("integrated_lufs", "short_term_lufs", "peak_dbfs"):
        assert float(getattr(high, name) - getattr(low, name)) == pytest.approx(6.0, abs=1e-3)
    for name in ("crest_db", "limiting_db", "psr_db", "cancellation_db", "audibility_db", "position", "imbalance_db"):
        np.testing.assert_allclose(
            getattr(high, name), getattr(low, name), atol=max(1e-3, STEPS.get(name, 0.0)), err_msg=name
        )


def test_polarity_cancels_a_stem_heard_twice(small_scene):
    names = small_scene.facts.names
    settings = small_scene.neutral()
    close = replace(settings.stems["guitar_close"], invert=True)
    before, after = small_scene.measures(settings), small_scene.measures(settings.with_strip("guitar_close", close))
    guitars = [names.index("guitar_close"), names.index("guitar_room")]
    assert (after.audibility_db[guitars] < before.audibility_db[guitars]).all()
    assert after.cancellation_db.min() < before.cancellation_db.min() - 1.0


def test_what_two_compressed_stems_share_swells_as_they_do():
    """The same stem twice, each compressed: hop by hop that is the compressed stem, 6 dB up."""
    kick = small_stems(seconds=8.0)["kick"] * (0.1 + (np.arange(8 * RATE) // (2 * RATE) == 1)).astype(np.float32)
    scene = Scene.of(Session.from_arrays({"a": kick, "b": kick}, RATE))
    firm = scene.neutral()
    for name in ("a", "b"):
        firm = firm.with_strip(name, replace(firm.strip(name), compressor="firm"))
    alone = Scene.of(Session.from_arrays({"a": kick}, RATE))
    one = alone.measures(alone.neutral().with_strip("a", firm.strip("a")))
    both = scene.measures(firm)
    twice = 20.0 * np.log10(2.0)
    assert float(both.short_term_lufs) == pytest.approx(float(one.short_term_lufs) + twice, abs=0.01)
    assert float(both.loudness_range_lu) == pytest.approx(float(one.loudness_range_lu), abs=0.06)  # its step
    assert float(one.gain_reduction_db[0]) > 1.0


def test_the_polarity_of_everything_is_not_heard(small_scene):
    knobs = random_mixes(small_scene, [10])[0]
    turned = knobs.copy()
    turned.strips[:, INVERT] = 1.0 - turned.strips[:, INVERT]
    assert_same(small_scene.evaluate(turned[None]), small_scene.evaluate(knobs[None]), 1e-5)


def test_a_silent_stem_changes_nothing(small_scene):
    index = small_scene.facts.names.index("shaker")
    assert not small_scene.facts.audible[index]
    assert small_scene.facts.bandwidth_hz[index] == 0.0
    settings = small_scene.neutral()
    loud = replace(settings.stems["shaker"], gain_db=12.0, pan=1.0, compressor="firm", highpass_hz=100.0, invert=True)
    found, wanted = small_scene.measures(settings.with_strip("shaker", loud)), small_scene.measures(settings)
    assert_same(found, wanted, 1e-6)
    assert (found.stem_lufs[index], found.position[index], found.gain_reduction_db[index]) == (-120.0, 0.0, 0.0)
    layout = Layout(len(small_scene.facts.names), len(small_scene.facts.groups))
    decoded = [layout.decode(int(action)) for action in small_scene.deltas(small_scene.knobs(settings))[0]]
    assert not [move for move in decoded if move[:2] == ("stem", index)]


def test_a_session_of_silence_has_measures():
    session = Session.from_arrays({"a": np.zeros(44_100, np.float32), "b": np.zeros((2, 44_100), np.float32)}, 44_100)
    scene = Scene.of(session)
    measures = scene.measures(scene.neutral())
    assert float(measures.integrated_lufs) <= -70.0
    assert all(np.isfinite(value).all() for value in arrays(measures).values())
    actions, after = scene.deltas(neutral_knobs(scene.facts))
    assert not legal(neutral_knobs(scene.facts), scene.facts)[actions].any()
    assert all(np.isfinite(value).all() for value in arrays(after).values())


def test_a_single_stem_is_a_session(small, small_scene):
    session = Session.from_arrays({"vocal": small.read("vocal")}, RATE)
    scene = Scene.of(session)
    each = assert_moves_are_outcomes(scene, random_mixes(scene, [1])[0])
    np.testing.assert_allclose(each.audibility_db, 0.0, atol=1e-3)  # it is alone
    np.testing.assert_allclose(each.stem_lufs[:, 0], each.integrated_lufs, atol=1e-3)


def test_a_fraction_of_a_second_has_measures():
    """Shorter than a block of loudness, and than the window of short-term loudness."""
    noise = (0.1 * np.random.default_rng(0).standard_normal(2205)).astype(np.float32)
    scene = Scene.of(Session.from_arrays({"click": noise, "clack": noise[::-1].copy()}, RATE))
    for value in (scene.measures(scene.neutral()), scene.deltas(neutral_knobs(scene.facts))[1]):
        assert all(np.isfinite(part).all() for part in arrays(value).values())
