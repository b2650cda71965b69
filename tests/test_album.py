"""Albums: one offset in level and one in tone for all songs of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from stems import RATE, band, beat, libebur128, mixrl, write

from mixrl import InputError, load_session, read_recipe
from mixrl.album import album_offset_db, shared_tone, tone_of
from mixrl.batching import batch
from mixrl.facts import Facts
from mixrl.measures import CENTRES_HZ
from mixrl.meters import measure_array
from mixrl.score import TRUST, own_tone, reference, yardstick

FAST = {"polish": 0, "steps": 0, "jobs": 2}


def songs(root: Path, **gains: float) -> Path:
    """Songs of three stems that are alike but for a gain, and somewhat in their tempo."""
    for index, (name, gain) in enumerate(gains.items()):
        stems = {"kick": beat(3, 100 + 10 * index), **band(3)}
        write(root / name, {stem: np.float32(gain) * audio for stem, audio in stems.items()})
    return root


def loudness(path: Path) -> float:
    return libebur128(path)[0]


def record_of(out: Path, name: str) -> dict:
    return json.loads((out / name / "result.json").read_text(encoding="utf-8"))


# ---- what songs have in common -----------------------------------------------------------------------------------


def test_the_shared_tone_is_the_mean_of_what_is_known():
    assert shared_tone([(1.0, None, -2.0), (4.0, None, None)]) == (2.5, 0.0, -2.0)
    assert shared_tone([(1.0,)]) == (1.0,)


def test_the_offset_brings_the_loudest_to_the_target_unless_one_cannot_go_along():
    assert album_offset_db([(-20.0, -14.0), (-26.0, -14.0)]) == 6.0
    assert album_offset_db([(-20.0, -14.0), (-26.0, -22.0)]) == 4.0  # the softer one has peaks that would be crushed
    assert album_offset_db([(None, None), (-20.0, -14.0)]) == 6.0
    assert album_offset_db([(None, None)]) is None
    assert album_offset_db([]) is None


def test_alone_a_song_is_brought_nearer_to_others_and_on_an_album_as_all_of_its_songs(small_scene):
    from dataclasses import replace

    from mixrl.people import informed

    facts: Facts = informed(small_scene).facts
    own, judged = own_tone(facts)
    assert judged.sum() > 10
    assert np.abs(own[judged]).max() > 1.0
    alone = yardstick(facts).level - reference().level_db
    np.testing.assert_allclose(alone[judged], TRUST * own[judged])
    tone = np.where(np.arange(31) < 15, 4.0, -4.0)
    shared = yardstick(replace(facts, album_tone_db=tone)).level - reference().level_db
    np.testing.assert_allclose(shared[judged], (own - (1.0 - TRUST) * tone)[judged])
    other = replace(facts, album_tone_db=own)  # an album of this one song
    np.testing.assert_allclose(yardstick(other).level, yardstick(facts).level)


def test_the_tone_of_a_song(tmp_path):
    write(tmp_path / "song", band(3))
    found = tone_of(load_session(tmp_path / "song"))
    assert len(found) == len(CENTRES_HZ)
    assert found[0] is None  # nobody judges 20 Hz
    known = [value for value in found if value is not None]
    assert len(known) > 5
    assert max(map(abs, known)) <= 10.0
    assert max(known) - min(known) > 3.0  # a few test tones are no finished song


# ---- albums -------------------------------------------------------------------------------------------------------


def test_the_loudest_song_is_at_the_target_and_the_others_are_as_far_below_as_they_were(tmp_path):
    root, out = songs(tmp_path / "album", loud=0.5, soft=0.2, middle=0.3), tmp_path / "out"
    (root / "soft" / "mixrl.toml").write_text("target = -9.0\n", encoding="utf-8")
    made = batch(root, out, target=-18.0, album=True, **FAST)
    assert [(result.session, result.status) for result in made.results] == [
        ("loud", "mixed"), ("middle", "mixed"), ("soft", "mixed"),
    ]  # fmt: skip
    levels = {name: loudness(out / name / "mix.wav") for name in ("loud", "middle", "soft")}
    premaster = {name: record_of(out, name)["album"]["premaster_lufs"] for name in levels}
    (offset,) = made.offsets_db.values()
    assert max(levels.values()) == pytest.approx(-18.0, abs=0.1)
    for name, level in levels.items():
        assert level == pytest.approx(premaster[name] + offset, abs=0.1)
        recipe, _ = read_recipe(out / name / "recipe.json")
        assert recipe.settings.master.target_lufs == pytest.approx(premaster[name] + offset, abs=0.01)
    assert levels["loud"] - levels["soft"] == pytest.approx(8.0, abs=1.5)  # 20 log (0.5 / 0.2), but for the tempo


def test_a_recipe_of_an_album_renders_the_same_song(tmp_path):
    root, out = songs(tmp_path / "album", a=0.5, b=0.25), tmp_path / "out"
    batch(root, out, album=True, **FAST)
    again = tmp_path / "again.wav"
    mixrl("render", out / "b" / "recipe.json", "-o", again)
    assert again.read_bytes() == (out / "b" / "mix.wav").read_bytes()


def test_songs_that_fail_do_not_count_and_once_mended_they_do(tmp_path):
    """The loudest song fails at first: when it is there, all others go down."""
    root, out = songs(tmp_path / "album", loud=0.6, soft=0.2), tmp_path / "out"
    good = (root / "loud" / "kick.wav").read_bytes()
    (root / "loud" / "kick.wav").write_bytes(b"no audio")
    first = batch(root, out, album=True, **FAST)
    assert [result.status for result in first.results] == ["failed", "mixed"]
    assert loudness(out / "soft" / "mix.wav") == pytest.approx(-14.0, abs=0.1)
    assert not (out / "loud" / "mix.wav").exists()
    (root / "loud" / "kick.wav").write_bytes(good)
    second = batch(root, out, album=True, resume=True, **FAST)
    assert [result.status for result in second.results] == ["mixed", "mixed"]
    assert loudness(out / "loud" / "mix.wav") == pytest.approx(-14.0, abs=0.1)
    assert loudness(out / "soft" / "mix.wav") < -20.0
    undisturbed = batch(root, tmp_path / "other", album=True, **FAST)
    assert [result.record for result in undisturbed.results] == [result.record for result in second.results]
    third = batch(root, out, album=True, resume=True, **FAST)
    assert [result.status for result in third.results] == ["skipped", "skipped"]
    for name in ("loud", "soft"):
        assert (out / name / "mix.wav").read_bytes() == (tmp_path / "other" / name / "mix.wav").read_bytes()


def test_each_folder_of_songs_is_an_album(tmp_path):
    root = tmp_path / "albums"
    for album in ("first", "second"):
        songs(root / album, a=0.5, b=0.25)
        for song in ("a", "b"):
            (root / album / song / "mixrl.toml").touch()
    made = batch(root, tmp_path / "out", album=True, **FAST)
    assert list(made.offsets_db) == ["first", "second"]
    for album in ("first", "second"):
        levels = [loudness(tmp_path / "out" / album / song / "mix.wav") for song in ("a", "b")]
        assert max(levels) == pytest.approx(-14.0, abs=0.1)


def test_what_was_an_album_is_no_result_of_songs_alone(tmp_path):
    root, out = songs(tmp_path / "album", a=0.5), tmp_path / "out"
    batch(root, out, album=True, **FAST)
    assert batch(root, out, resume=True, **FAST).results[0].status == "mixed"
    assert batch(root, out, resume=True, **FAST).results[0].status == "skipped"
    with pytest.raises(InputError, match="give a target"):
        batch(root, out, resume=True, album=True, target=None, **FAST)


def test_the_command_tells_the_offset(tmp_path):
    root = songs(tmp_path / "album", a=0.5, b=0.25)
    code, said, _ = mixrl("batch", root, "-o", tmp_path / "out", "--album", "--polish", "0", "--steps", "0")
    assert code == 0
    assert "all songs of the album" in said


def test_meters_of_a_song_before_the_master(tmp_path):
    """What the offset is worked out from is the loudness of the mix as it leaves the faders."""
    from mixrl.audio import ArraySource
    from mixrl.delivery import master_gain
    from mixrl.settings import MasterSettings

    audio = np.stack([beat(4, 120)] * 2)
    _, found = master_gain(ArraySource(audio, RATE), MasterSettings(target_lufs=-20.0))
    assert found.premaster_lufs == pytest.approx(measure_array(audio, RATE).integrated_lufs, abs=0.01)
    assert found.integrated_lufs == pytest.approx(-20.0, abs=0.1)
