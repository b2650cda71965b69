"""Scenes of some of the stems, with settings baked into them: as if the session had been recorded so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from alike import STEPS, arrays, assert_moves_are_outcomes, assert_same, random_mixes
from conftest import RATE, random_settings

from mixrl.analysis import analyse_variant
from mixrl.knobs import COLUMNS, COMPRESSOR, EQ, GAIN, HIGHPASS, INVERT, PAN, TEMPO, joined, neutral_knobs, to_settings
from mixrl.measures import CENTRES_HZ
from mixrl.render import render_stem
from mixrl.scene import Scene, reader
from mixrl.session import Session

PEAKS = ("peak_dbfs", "crest_db", "limiting_db", "psr_db")


def strips_of(**stems):
    """(stems, COLUMNS) neutral strips but for the columns given by stem."""
    found = np.zeros((len(stems), COLUMNS))
    found[:, TEMPO] = 1.0
    for row, columns in zip(found, stems.values(), strict=True):
        for column, value in columns.items():
            row[column] = value
    return found


LEVELS = strips_of(
    guitar_close={GAIN: -7.0, PAN: -0.4}, guitar_room={GAIN: 4.0, INVERT: 1.0}, keys={GAIN: 11.0, PAN: 0.7}, vocal={}
)
FILTERS = strips_of(
    guitar_close={GAIN: 2.0, HIGHPASS: 100.0, EQ + 1: -6.0, EQ + 3: 5.0, INVERT: 1.0},
    guitar_room={EQ: 4.0, EQ + 4: -5.0},
    keys={GAIN: -5.0, PAN: -0.5, EQ + 2: -8.5},
    vocal={HIGHPASS: 60.0, EQ + 3: 6.0, PAN: 1.0},
)
SOME = ("guitar_close", "guitar_room", "keys", "vocal")


@pytest.fixture(scope="module", params=["levels", "filters"])
def recorded(request, small, small_scene):
    """A subset with strips baked in, and the scene of a session that was really recorded so, through the renderer."""
    strips = LEVELS if request.param == "levels" else FILTERS
    rows = [small_scene.facts.names.index(name) for name in SOME]
    knobs = neutral_knobs(small_scene.facts)
    knobs.strips[rows] = strips
    settings = to_settings(knobs, small_scene.facts)
    audio = {}
    for name, row in zip(SOME, strips, strict=True):
        blocks = np.concatenate(list(render_stem(small, settings, name)), axis=1)
        mono = small.stem(name).channels == 1 and row[PAN] == 0.0
        audio[name] = blocks[0] if mono else blocks
    session = Session.from_arrays(audio, RATE)
    return small_scene.subset(rows, strips), Scene.of(session), session, request.param


def at_places_of(made, session, places_of):
    """A scene that watches the instants of another."""
    places = replace(made.analysis, places=places_of.analysis.places)
    stems = tuple(analyse_variant(reader(session.source(stem)), places) for stem in session.stems)
    return Scene(made.facts, replace(places, stems=stems), lambda stem, compressor: made.variant(stem, compressor))


def test_a_subset_with_strips_is_the_session_recorded_so(recorded):
    """Everything but where peaks are looked for and what the parent said of its stems."""
    subset, made, session, kind = recorded
    assert subset.facts.names == made.facts.names == SOME
    assert subset.facts.members == made.facts.members
    assert subset.analysis.channels == made.analysis.channels
    mixes = random_mixes(subset, range(5), presets=False)
    mixes = joined([neutral_knobs(subset.facts), *(mixes[i] for i in range(5))])
    found, wanted = subset.evaluate(mixes), made.evaluate(mixes)
    placed = at_places_of(made, session, subset).evaluate(mixes)  # at the same instants the peaks are the same
    # an EQ that is baked in bends within a twelfth-octave, where the subset takes it to be flat
    broad, narrow, peaks = (1e-3, 1e-3, 2e-3) if kind == "levels" else (0.02, 0.25, 0.5)
    strong = (wanted.spectrum_db > wanted.spectrum_db.max(1, keepdims=True) - 45.0) & (CENTRES_HZ > 60.0)
    assert strong.sum(axis=1).min() > 15
    for name, value in arrays(wanted).items():
        expected, judged = (getattr(placed, name), ...) if name in PEAKS else (value, ...)
        atol = max(peaks if name in PEAKS else broad, STEPS.get(name, 0.0))
        if value.shape == strong.shape:
            judged, atol = strong, narrow
        if name == "eq_change_db":  # weighted by what the stem holds on both sides, before it was panned
            atol = max(broad, 0.01)
        np.testing.assert_allclose(getattr(found, name)[judged], expected[judged], rtol=0.0, atol=atol, err_msg=name)


def test_a_subset_keeps_what_its_parent_says_of_the_stems(recorded, small_scene):
    """Bandwidth and what is judged are of the stems before anything was baked into them; peaks are looked for where
    the parent's mixes have them."""
    subset, *_ = recorded
    rows = [small_scene.facts.names.index(name) for name in SOME]
    for name in ("activity", "bandwidth_hz", "tempo_target"):
        np.testing.assert_array_equal(getattr(subset.facts, name), getattr(small_scene.facts, name)[rows])
    np.testing.assert_array_equal(subset.facts.counted, small_scene.facts.counted)
    np.testing.assert_array_equal(subset.analysis.places, small_scene.analysis.places)
    assert subset.knobs(subset.neutral()).strips[:, GAIN].tolist() == [0.0] * 4


def test_baked_twice_is_baked_once(small_scene):
    rows = [small_scene.facts.names.index(name) for name in SOME]
    free = {"guitar_close": EQ + 2, "guitar_room": EQ + 2, "keys": EQ, "vocal": EQ}  # bands that FILTERS leaves alone
    one, two = strips_of(**{name: {GAIN: 3.0, free[name]: -4.0} for name in SOME}), FILTERS
    both = FILTERS + one
    both[:, TEMPO] = 1.0
    mixes = random_mixes(small_scene.subset(rows), range(3))
    twice, once = small_scene.subset(rows, one).subset(range(4), two), small_scene.subset(rows, both)
    assert_same(twice.evaluate(mixes), once.evaluate(mixes))


def test_a_subset_moves_as_its_outcomes(recorded):
    subset, *_ = recorded
    assert_moves_are_outcomes(subset, random_mixes(subset, [2], presets=False)[0])


def test_dynamics_and_tempo_cannot_be_baked_in(small_scene):
    for column, value in ((COMPRESSOR, 1.0), (TEMPO, 1.1)):
        strips = neutral_knobs(small_scene.facts).strips
        strips[1, column] = value
        with pytest.raises(ValueError, match="baked"):
            small_scene.subset(range(6), strips)


def test_the_order_of_the_stems_does_not_matter(small_scene):
    count = len(small_scene.facts.names)
    order = np.random.default_rng(1).permutation(count)
    shuffled = small_scene.subset(order.tolist())
    settings = random_settings(small_scene, 11)
    straight, mixed = small_scene.measures(settings), shuffled.measures(settings)
    for name, value in arrays(straight).items():
        wanted = value[order] if value.ndim == 1 and len(value) == count else value
        np.testing.assert_allclose(getattr(mixed, name), wanted, atol=max(1e-3, STEPS.get(name, 0.0)), err_msg=name)
    assert_moves_are_outcomes(shuffled, shuffled.knobs(settings))
