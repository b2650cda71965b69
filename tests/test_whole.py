"""What an excerpt tells of the whole song."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import RATE, small_stems

from mixrl import Mixer
from mixrl.audio import read
from mixrl.excerpt import excerpt
from mixrl.meters import measure_array
from mixrl.render import SumSource
from mixrl.scene import Scene
from mixrl.session import Session
from mixrl.whole import whole


@pytest.fixture(scope="module")
def song():
    """72 s, of which the keys play softly in the first third, the vocal in the last third only, and the kick in the
    middle is half as loud."""
    stems = {}
    for name, audio in small_stems(seconds=8.0, seed=3).items():
        long = np.tile(np.atleast_2d(audio), (1, 9))
        third = 24 * RATE
        if name == "keys":
            long[:, :third] *= 0.2
        if name == "vocal":
            long[:, : 2 * third] = 0.0
        if name == "kick":
            long[:, third : 2 * third] *= 0.5
        stems[name] = long
    return Session.from_arrays(stems, RATE)


@pytest.fixture(scope="module")
def heard(song):
    return excerpt(song)


@pytest.fixture(scope="module")
def scene(heard):
    return Scene.of(heard)


def turned(scene, **gains_db):
    settings = scene.neutral()
    for name, gain_db in gains_db.items():
        settings = settings.with_strip(name, replace(settings.strip(name), gain_db=gain_db).with_band(2, gain_db=4.0))
    return settings


@pytest.mark.parametrize("gains_db", [{}, {"kick": -9.0}, {"vocal": 9.0, "keys": -6.0}])
def test_loudness_and_spectrum_of_the_song_follow_from_the_excerpt(song, heard, scene, gains_db):
    settings = turned(scene, **gains_db)
    real = measure_array(read(SumSource(song, settings)), RATE)
    here, found = scene.measures(settings), whole(song, heard, scene, settings)
    assert found.integrated_lufs == pytest.approx(real.integrated_lufs, abs=0.3)
    assert found.integrated_lufs + found.louder_lu == pytest.approx(float(here.integrated_lufs))
    counted = real.spectrum_db > real.spectrum_db.max() - 40.0
    assert counted.sum() > 10
    off = np.abs(found.spectrum_db - real.spectrum_db)[counted]
    assert np.percentile(off, 95.0) < 1.0
    assert np.mean(off) < 0.5 * np.mean(np.abs(here.spectrum_db - real.spectrum_db)[counted])


def test_a_song_that_is_heard_whole_tells_of_itself(small, small_scene):
    settings = small_scene.neutral()
    found, here = whole(small, small, small_scene, settings), small_scene.measures(settings)
    assert found.louder_lu == 0.0
    np.testing.assert_allclose(found.spectrum_db, here.spectrum_db)


def test_other_facts_of_a_scene_change_what_its_target_takes(small_scene):
    """And leave the scene itself alone."""
    settings = small_scene.neutral()
    before = float(small_scene.measures(settings).limiting_db)
    loud = small_scene.with_facts(replace(small_scene.facts, target_lufs=small_scene.facts.target_lufs + 6.0))
    assert float(loud.measures(settings).limiting_db) > before + 2.0
    assert float(small_scene.measures(settings).limiting_db) == before


def test_mixes_compete_at_the_loudness_that_the_excerpt_will_have(song, scene, monkeypatch):
    """The song is to be at the target, so its excerpt is above; what is delivered is asked for as it was."""
    from mixrl import rendered

    seen = []
    of = rendered.Rendered.measures

    def measures(self, settings):
        seen.append(self.scene.facts.target_lufs)
        return of(self, settings)

    monkeypatch.setattr(rendered.Rendered, "measures", measures)
    mix = Mixer(target=-16.0, polish=0, steps=0).mix(song)
    above = whole(song, excerpt(song), scene, scene.neutral()).louder_lu
    assert above > 0.5
    assert seen == [pytest.approx(-16.0 + above, abs=1e-6)] * 3
    assert mix.settings.master.target_lufs == -16.0
    assert {candidate.settings.master.target_lufs for candidate in mix.candidates} == {-16.0}
