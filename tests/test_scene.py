"""The closed form against mixes that were really rendered, and against itself."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from conftest import RATE, random_settings, small_stems, third_octaves

from mixrl.audio import read
from mixrl.measures import CENTRES_HZ, decibels
from mixrl.moves import Layout, apply, legal
from mixrl.render import SumSource
from mixrl.rendered import Rendered
from mixrl.scene import Scene
from mixrl.session import Session

# watched at a few instants only, chosen from the mixes that a scene was made with
PEAKS = ("peak_dbfs", "limiting_db", "psr_db")


def arrays(measures):
    return {f.name: np.asarray(getattr(measures, f.name)) for f in fields(measures)}


def assert_same(found, expected, tolerance=0.03, leave_out=()):
    for name, value in arrays(expected).items():
        if name not in leave_out:
            # a centred bass has no side power: what rounding leaves of it is no measure
            floor = -45.0 if name == "side_mid_db" else -120.0
            # rounding can put a block on the other side of the relative gate
            atol = 0.05 if name in ("integrated_lufs", "limiting_db", "psr_db") else tolerance
            np.testing.assert_allclose(
                np.maximum(getattr(found, name), floor), np.maximum(value, floor), rtol=0.0, atol=atol, err_msg=name
            )


def compare(session, scene, settings):
    """Errors of the closed form: integrated (LU), short-term (LU), 95th percentile of the third-octaves (dB)."""
    predicted, rendered = scene.measures(settings), Rendered(session, scene).measures(settings)
    mix = read(SumSource(session, settings))
    off = np.abs(predicted.spectrum_db - decibels(third_octaves(mix, session.sample_rate)))
    judged = scene.facts.counted & (CENTRES_HZ > 60.0)
    return (
        abs(float(predicted.integrated_lufs - rendered.integrated_lufs)),
        abs(float(predicted.short_term_lufs - rendered.short_term_lufs)),
        float(np.percentile(off[judged], 95)),
    )


@pytest.mark.parametrize("seed", range(3))
def test_linear_mixes_are_predicted(small, small_scene, seed):
    settings = random_settings(small_scene, seed, presets=False)
    integrated, short_term, spectrum = compare(small, small_scene, settings)
    assert integrated < 0.1
    assert short_term < 0.2
    assert spectrum < 0.5


def test_compressed_mixes_at_another_rate_are_predicted():
    session = Session.from_arrays(small_stems(48_000, 10.0, 3), 48_000)
    scene = Scene.of(session)
    errors = np.array([compare(session, scene, random_settings(scene, seed)) for seed in (0, 1, 3)])
    # a sparse drum that leads the mix puts blocks right at the relative gate
    assert np.median(errors[:, 0]) < 0.05
    assert errors[:, 0].max() < 0.2
    assert errors[:, 1].max() < 0.2
    assert errors[:, 2].max() < 0.5


def test_real_sessions_are_predicted(sample):
    session, scene = sample
    integrated, short_term, spectrum = compare(session, scene, random_settings(scene, 2))
    assert integrated < 0.1
    assert short_term < 0.2
    assert spectrum < 0.5


def test_rendered_measures_of_the_parts_agree_too(small, small_scene):
    settings = random_settings(small_scene, 5)
    predicted, rendered = small_scene.measures(settings), Rendered(small, small_scene).measures(settings)
    heard = small_scene.facts.audible
    np.testing.assert_allclose(predicted.stem_lufs[heard], rendered.stem_lufs[heard], atol=0.2)
    np.testing.assert_allclose(predicted.position[heard], rendered.position[heard], atol=0.02)
    np.testing.assert_allclose(predicted.imbalance_db, rendered.imbalance_db, atol=0.2)
    np.testing.assert_allclose(predicted.audibility_db[heard], rendered.audibility_db[heard], atol=1.0)


def test_a_plain_mix_peaks_where_it_is_predicted(small, small_scene):
    peak = np.abs(read(SumSource(small, small_scene.neutral()))).max()
    assert float(small_scene.measures(small_scene.neutral()).peak_dbfs) == pytest.approx(20 * np.log10(peak), abs=0.1)


def test_every_move_is_predicted_as_its_outcome(small_scene):
    """All successors at once, one by one: neutral, and settings with everything moved."""
    facts = small_scene.facts
    for settings in (small_scene.neutral(), random_settings(small_scene, 7)):
        actions, after = small_scene.deltas(settings)
        mask = legal(settings, facts)
        layout = Layout(len(facts.names), len(facts.groups))
        wanted = set(np.flatnonzero(mask).tolist()) - {layout.mix_start}
        assert wanted <= set(actions.tolist())
        for row, action in enumerate(actions):
            if mask[action]:
                assert_same(after.at(row), small_scene.measures(apply(settings, facts, int(action))))


def test_moves_of_a_real_session_are_predicted_as_their_outcomes(sample):
    _, scene = sample
    settings = random_settings(scene, 9, presets=False)
    actions, after = scene.deltas(settings)
    mask = legal(settings, scene.facts)
    rng = np.random.default_rng(0)
    for row in rng.choice(np.flatnonzero(mask[actions]), 20, replace=False):
        action = int(actions[row])
        assert_same(after.at(row), scene.measures(apply(settings, scene.facts, action)))


def test_a_group_that_shares_its_voice_with_another_is_predicted_but_for_audibility(small_scene):
    """One guitar heard in two groups: a group's move counts audibility as if the other group came along."""
    members = {"guitar_close": "a", "guitar_room": "b", "keys": "b", "kick": "a", "shaker": "a", "vocal": "a"}
    facts = replace(small_scene.facts, members=tuple(members[name] for name in small_scene.facts.names))
    scene = Scene(facts, small_scene.analysis, small_scene.variant)
    settings = scene.neutral()
    actions, after = scene.deltas(settings)
    layout = Layout(len(facts.names), len(facts.groups))
    for row, action in enumerate(actions):
        if layout.decode(int(action))[0] == "group":
            exact = scene.measures(apply(settings, facts, int(action)))
            assert_same(after.at(row), exact, leave_out=("audibility_db",))
            np.testing.assert_allclose(after.at(row).audibility_db, exact.audibility_db, atol=3.5)


def test_a_subset_with_faders_is_the_session_recorded_so(small, small_scene):
    names = ("guitar_close", "guitar_room", "keys", "vocal")
    rows = [small_scene.facts.names.index(name) for name in names]
    gains_db = [-7.0, 4.0, 11.0, -3.0]
    stems = small_stems()
    louder = {n: (stems[n] * 10.0 ** (g / 20.0)).astype(np.float32) for n, g in zip(names, gains_db, strict=True)}
    made = Scene.of(Session.from_arrays(louder, RATE))
    subset = small_scene.subset(rows, gains_db)
    assert subset.facts.names == names
    assert subset.facts.members == made.facts.members
    np.testing.assert_allclose(subset.facts.bandwidth_hz, made.facts.bandwidth_hz)
    for settings in (subset.neutral(), random_settings(subset, 3), random_settings(subset, 4)):
        assert_same(subset.measures(settings), made.measures(settings), 0.02, leave_out=PEAKS)
        assert float(subset.measures(settings).peak_dbfs) == pytest.approx(
            float(made.measures(settings).peak_dbfs), abs=6.0
        )


def test_the_order_of_the_stems_does_not_matter(small_scene):
    count = len(small_scene.facts.names)
    order = np.random.default_rng(1).permutation(count)
    shuffled = small_scene.subset(order.tolist(), [0.0] * count)
    settings = random_settings(small_scene, 11)
    straight, mixed = small_scene.measures(settings), shuffled.measures(settings)
    for name, value in arrays(straight).items():
        per_stem = value.ndim == 1 and len(value) == count
        np.testing.assert_allclose(getattr(mixed, name), value[order] if per_stem else value, atol=0.01, err_msg=name)


def test_polarity_cancels_a_stem_heard_twice(small_scene):
    names = small_scene.facts.names
    settings = small_scene.neutral()
    close = replace(settings.strip("guitar_close"), invert=True)
    before, after = small_scene.measures(settings), small_scene.measures(settings.with_strip("guitar_close", close))
    guitars = [names.index("guitar_close"), names.index("guitar_room")]
    assert (after.audibility_db[guitars] < before.audibility_db[guitars]).all()
    assert after.cancellation_db.min() < before.cancellation_db.min() - 1.0


def test_a_silent_stem_changes_nothing(small_scene):
    index = small_scene.facts.names.index("shaker")
    assert not small_scene.facts.audible[index]
    assert small_scene.facts.bandwidth_hz[index] == 0.0
    settings = small_scene.neutral()
    loud = settings.with_strip("shaker", replace(settings.strip("shaker"), gain_db=12.0, pan=1.0))
    assert_same(small_scene.measures(loud), small_scene.measures(settings), 1e-6, leave_out=("stem_lufs", "position"))
    layout = Layout(len(small_scene.facts.names), len(small_scene.facts.groups))
    decoded = [layout.decode(int(action)) for action in small_scene.deltas(settings)[0]]
    assert not [move for move in decoded if move[:2] == ("stem", index)]


def test_a_session_of_silence_has_measures():
    session = Session.from_arrays({"a": np.zeros(44_100, np.float32), "b": np.zeros((2, 44_100), np.float32)}, 44_100)
    scene = Scene.of(session)
    measures = scene.measures(scene.neutral())
    assert float(measures.integrated_lufs) <= -70.0
    assert all(np.isfinite(value).all() for value in arrays(measures).values())


def test_the_same_session_gives_the_same_scene(small, small_scene):
    again = Scene.of(small)
    settings = random_settings(small_scene, 2)
    small_scene.measures(small_scene.neutral())  # caches must not show
    for one, other in (
        (again.measures(settings), small_scene.measures(settings)),
        (again.deltas(settings)[1], small_scene.deltas(settings)[1]),
    ):
        for name, value in arrays(one).items():
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
