"""The closed form against itself: successors, batches and what is kept from one mix to the next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from alike import arrays, assert_identical, assert_moves_are_outcomes, assert_same, random_mixes, rows_of
from conftest import random_settings

from mixrl.knobs import COMPRESSOR, GAIN, joined, neutral_knobs, to_settings
from mixrl.measures import decibels
from mixrl.moves import Layout, apply, legal
from mixrl.scene import Scene
from mixrl.score import score


def regrouped(scene):
    """One guitar heard in two groups, a silent stem in a group of three, and stems that want other tempos."""
    members = {"guitar_close": "a", "guitar_room": "b", "keys": "b", "kick": "a", "shaker": "a", "vocal": "a"}
    facts = replace(
        scene.facts,
        members=tuple(members[name] for name in scene.facts.names),
        tempo_target=np.array([1.0, 1.0, 1.0, 1.25, 1.0, 0.8]),
        tempo_weight=np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.5]),
    )
    return Scene(facts, scene.analysis, scene.variant)


def shaped(scene, knobs):
    """The same knobs on EQ bands of other shapes."""
    settings = to_settings(knobs, scene.facts)
    for name, hz in (("keys", 700.0), ("vocal", 4000.0)):
        strip = settings.stems[name].with_band(2, frequency_hz=hz, q=3.0).with_band(0, kind="peak")
        settings = settings.with_strip(name, strip)
    return scene.knobs(settings)


def quiet(knobs):
    """Everything turned down so far that blocks fall below the absolute gate of loudness."""
    found = knobs.copy()
    found.strips[:, GAIN] = np.linspace(-50.0, -20.0, len(found.strips))
    return found


@pytest.mark.parametrize("groups", ["of their kind", "across a pair"])
@pytest.mark.parametrize("start", ["neutral", "random", "shaped", "quiet"])
def test_every_move_is_predicted_as_its_outcome(small_scene, groups, start):
    """All successors at once, against one by one: every measure, every kind of move."""
    scene = small_scene if groups == "of their kind" else regrouped(small_scene)
    facts = scene.facts
    knobs = neutral_knobs(facts) if start == "neutral" else random_mixes(scene, [7])[0]
    knobs = {"shaped": shaped(scene, knobs), "quiet": quiet(knobs)}.get(start, knobs)
    each = assert_moves_are_outcomes(scene, knobs)
    actions, scores = scene.successor_scores(knobs)
    np.testing.assert_array_equal(actions, scene.deltas(knobs)[0])
    mask, layout = legal(knobs, facts), Layout(len(facts.names), len(facts.groups))
    assert len(set(actions.tolist())) == len(actions)
    assert set(np.flatnonzero(mask).tolist()) - {layout.mix_start} <= set(actions.tolist())
    kinds = {layout.decode(int(action))[2].kind for action in actions}
    assert kinds >= {"gain", "pan", "eq", "highpass", "compressor", "polarity"}
    assert ("tempo" in kinds) == (groups == "across a pair")
    np.testing.assert_allclose(scores[mask[actions]], score(each, facts), atol=2e-3)


def test_moves_of_a_real_session_are_predicted_as_their_outcomes(sample):
    _, scene = sample
    assert_moves_are_outcomes(scene, random_mixes(scene, [9], presets=False)[0], most=60)


def test_two_microphones_move_as_their_outcomes(microphones):
    _, scene = microphones
    assert_moves_are_outcomes(scene, random_mixes(scene, [1])[0])


def test_a_walk_of_moves_stays_exact(small_scene):
    """What is kept from one mix to the next does not show: not in its measures, nor in those of its successors."""
    fresh = Scene(small_scene.facts, small_scene.analysis, small_scene.variant)
    scene = regrouped(small_scene)
    rng = np.random.default_rng(5)
    knobs = neutral_knobs(scene.facts)
    for _ in range(12):
        mask = legal(knobs, scene.facts)
        knobs = apply(knobs, scene.facts, int(rng.choice(np.flatnonzero(mask))))
        now = scene.current(knobs)
        assert_same(now, scene.evaluate(knobs[None]).at(0))
        scene.deltas(knobs)
    again = Scene(scene.facts, fresh.analysis, fresh.variant)
    assert_identical(now, again.current(knobs))
    assert_identical(scene.deltas(knobs)[1], again.deltas(knobs)[1])


def test_eq_shapes_do_not_stick(small_scene):
    """The same knobs on other shapes and back, for a mix and its successors."""
    plain = random_mixes(small_scene, [4])[0]
    other = shaped(small_scene, plain)
    np.testing.assert_array_equal(plain.strips, other.strips)
    seen = [
        (small_scene.current(mix), small_scene.deltas(mix)[1], small_scene.evaluate(mix[None]).at(0))
        for mix in (plain, other, plain.copy(), other.copy())
    ]
    for now, after, whole in seen:
        assert_same(now, whole)
        assert len(after.integrated_lufs) > 100
    for one, two in ((0, 2), (1, 3)):
        for found, wanted in zip(seen[two][:2], seen[one][:2], strict=True):
            assert_identical(found, wanted)
    assert abs(seen[0][0].spectrum_db - seen[1][0].spectrum_db).max() > 0.5


def test_many_mixes_are_the_mixes_one_by_one(small_scene):
    """More than are worked on at once."""
    knobs = random_mixes(small_scene, range(20))
    knobs = joined([knobs[i % 20] for i in range(130)])
    together = small_scene.evaluate(knobs)
    assert together.integrated_lufs.shape == (130,)
    for index in (0, 1, 19, 63, 64, 127, 128, 129):
        alone = small_scene.evaluate(knobs[index : index + 1])
        for name, value in arrays(rows_of(together, [index])).items():
            np.testing.assert_allclose(getattr(alone, name), value, atol=1e-9, err_msg=name)
    for name, value in arrays(together).items():
        np.testing.assert_array_equal(value[20:40], value[:20], err_msg=name)  # wherever in the batch
    np.testing.assert_array_equal(small_scene.scores(knobs), score(together, small_scene.facts))
    assert_same(small_scene.measures(random_settings(small_scene, 3)), together.at(3))


def test_no_mix_at_all_has_no_measures(small_scene):
    none = small_scene.evaluate(random_mixes(small_scene, [0])[:0])
    assert none.integrated_lufs.shape == (0,)
    assert none.spectrum_db.shape == (0, 31)
    assert none.stem_lufs.shape == (0, 6)
    assert small_scene.scores(random_mixes(small_scene, [0])[:0]).shape == (0,)


def test_own_power_is_that_of_the_stem_alone(small_scene):
    knobs = random_mixes(small_scene, [6])[0]
    own = small_scene.own_power(knobs)
    for index in range(len(small_scene.facts.names)):
        alone = small_scene.subset([index])
        here = knobs.copy()
        strips, group = here.strips[[index]], here.groups[small_scene.facts.groups.index(alone.facts.members[0])]
        spectrum = alone.measures(to_settings(type(here)(strips, np.array([group])), alone.facts)).spectrum_db
        np.testing.assert_allclose(decibels(own[index]), spectrum, atol=1e-3)


def test_a_variant_that_cannot_be_rendered_leaves_nothing_behind(small_scene):
    """The error comes through, and what is asked next is right."""
    failing = [True]

    def load(stem, compressor):
        if failing[0]:
            raise OSError("no space left")
        return small_scene.variant(stem, compressor)

    scene = Scene(small_scene.facts, small_scene.analysis, load)
    knobs = neutral_knobs(scene.facts)
    scene.current(knobs)
    wanted = knobs.copy()
    wanted.strips[2, [GAIN, COMPRESSOR]] = -9.0, 1.0
    for asked in (scene.current, scene.deltas, lambda mix: scene.evaluate(mix[None])):
        with pytest.raises(OSError, match="no space"):
            asked(wanted)
    failing[0] = False
    assert_same(scene.current(wanted), small_scene.evaluate(wanted[None]).at(0))
    assert_identical(scene.deltas(wanted)[1], small_scene.deltas(wanted)[1])


def test_the_same_session_gives_the_same_scene(small, small_scene):
    again = Scene.of(small)
    settings = random_settings(small_scene, 2)
    knobs = small_scene.knobs(settings)
    small_scene.measures(small_scene.neutral())  # caches must not show
    for one, other in (
        (again.measures(settings), small_scene.measures(settings)),
        (again.deltas(knobs)[1], small_scene.deltas(knobs)[1]),
    ):
        assert_identical(one, other)
