"""Scenes on disk: what comes back is the same to the last bit, and what is damaged is refused in one line."""

from __future__ import annotations

import pickle
import random
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest
from conftest import RATE, random_settings, small_stems

from mixrl.errors import InputError
from mixrl.knobs import COMPRESSOR, GAIN, TEMPO, joined, neutral_knobs
from mixrl.measures import Facts
from mixrl.scene import Scene
from mixrl.session import Session
from mixrl.settings import COMPRESSORS


@pytest.fixture(scope="module")
def scene():
    """Six stems of three seconds, two of them coherent and one silent, and one that wants another tempo."""
    made = Scene.of(Session.from_arrays(small_stems(seconds=3.0), RATE), target_lufs=-16.5, ceiling_dbtp=-1.5)
    facts = replace(made.facts, tempo_target=np.array([1.0, 1.0, 1.0, 1.2, 1.0, 1.0]))
    return Scene(facts, made.analysis, made.variant)


@pytest.fixture(scope="module")
def saved(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "song.scene.npz"
    scene.save(path)
    return path


def assert_bit_equal(found, wanted):
    for field in fields(wanted):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(wanted, field.name), err_msg=field.name)


def mixes(scene, seeds):
    """Random mixes, compressors and the silent stem among what is turned, as a batch."""
    return joined([scene.knobs(random_settings(scene, seed)) for seed in seeds])


def test_every_measure_comes_back_to_the_last_bit(scene, saved):
    loaded = Scene.load(saved)
    knobs = mixes(scene, range(6))
    assert (knobs.strips[:, scene.facts.names.index("shaker"), COMPRESSOR] > 0.0).any()
    assert_bit_equal(loaded.evaluate(knobs), scene.evaluate(knobs))
    for mix in (knobs[0], neutral_knobs(scene.facts)):
        actions, after = loaded.deltas(mix)
        wanted, expected = scene.deltas(mix)
        np.testing.assert_array_equal(actions, wanted)
        assert_bit_equal(after, expected)
        assert_bit_equal(loaded.current(mix), scene.current(mix))


def test_what_is_known_of_the_session_comes_back(scene, saved):
    loaded = Scene.load(saved)
    for field in fields(Facts):
        found, wanted = getattr(loaded.facts, field.name), getattr(scene.facts, field.name)
        assert type(found) is type(wanted) or isinstance(wanted, float), field.name
        np.testing.assert_array_equal(found, wanted, err_msg=field.name)
    assert (loaded.facts.target_lufs, loaded.facts.ceiling_dbtp) == (-16.5, -1.5)
    assert loaded.analysis.pairs.tolist() == scene.analysis.pairs.tolist() == [[0, 1]]
    for field in fields(scene.analysis):
        if field.name != "stems":
            np.testing.assert_array_equal(getattr(loaded.analysis, field.name), getattr(scene.analysis, field.name))
    assert loaded.neutral() == scene.neutral()


def test_subsets_of_a_loaded_scene_are_those_of_the_scene(scene, saved):
    rows = [5, 1, 0]
    strips = np.zeros((3, scene.knobs(scene.neutral()).strips.shape[1]))
    strips[:, TEMPO], strips[:, GAIN] = 1.0, (-3.0, 4.0, 1.5)
    knobs = mixes(scene.subset(rows), range(3))
    assert_bit_equal(Scene.load(saved).subset(rows, strips).evaluate(knobs), scene.subset(rows, strips).evaluate(knobs))


def test_variants_that_were_never_asked_for_are_saved_too(saved):
    loaded = Scene.load(saved)
    for stem, name in enumerate(loaded.facts.names):
        reductions = [loaded.variant(stem, compressor).gain_reduction_db for compressor in COMPRESSORS]
        assert reductions[0] == 0.0
        assert name == "shaker" or reductions[3] > reductions[1] > 0.0, (name, reductions)


def test_a_subset_is_saved_as_a_scene_of_its_own_but_not_what_was_baked_into_it(scene, tmp_path):
    part = scene.subset([3, 5])
    path = tmp_path / "part.npz"
    part.save(path)
    knobs = mixes(part, range(2))
    assert_bit_equal(Scene.load(path).evaluate(knobs), part.evaluate(knobs))
    strips = neutral_knobs(part.facts).strips
    strips[0, GAIN] = -6.0
    with pytest.raises(ValueError, match="baked"):
        part.subset([0, 1], strips).save(tmp_path / "baked.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["part.npz"]


def test_names_that_are_no_text_and_roles_that_are_unknown_come_back(tmp_path):
    """A file name of bytes that are not UTF-8 is a name all the same."""
    noise = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    made = Scene.of(Session.from_arrays({"b\udce9at": noise, "Gesang \u266a": noise[::-1].copy()}, RATE))
    made.save(tmp_path / "odd.npz")
    loaded = Scene.load(tmp_path / "odd.npz")
    assert loaded.facts.names == made.facts.names
    assert loaded.facts.roles == made.facts.roles
    assert None in loaded.facts.roles


def test_saving_overwrites_whole_files_only(scene, saved, tmp_path):
    path = tmp_path / "song.npz"
    path.write_bytes(b"what was there before")
    scene.save(path)
    assert zipfile.is_zipfile(path)
    assert [file.name for file in tmp_path.iterdir()] == ["song.npz"]
    # nothing in a file depends on when it was made, or on what was asked of the scene
    assert {n: v.tobytes() for n, v in np.load(path).items()} == {n: v.tobytes() for n, v in np.load(saved).items()}


# ---- files that are no scenes -----------------------------------------------------------------------------------


def refused(path, data=None):
    """Loading says in one line, with the file's name, what is wrong."""
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        Scene.load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "anew" in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_what_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "absent.npz")
    refused(tmp_path)


@pytest.mark.parametrize("what", ["nothing", "text", "a pickle", "an array", "other arrays", "a zip"])
def test_other_files_are_refused(tmp_path, what):
    path = tmp_path / "x.npz"
    with path.open("wb") as file:
        if what == "text":
            file.write(b"hello\n" * 100)
        elif what == "a pickle":
            pickle.dump({"format": 1}, file)
        elif what == "an array":
            np.save(file, np.zeros(3))
        elif what == "other arrays":
            np.savez(file, a=np.zeros(3), format=np.array("one"))
        elif what == "a zip":
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("format", "1")
    refused(path)


@pytest.mark.parametrize("change", ["another version", "a stem missing", "a part missing", "objects"])
def test_scenes_that_are_not_as_they_should_be_are_refused(saved, tmp_path, change):
    held = dict(np.load(saved).items())
    if change == "another version":
        held["format"] = held["format"] + 1
    elif change == "a stem missing":
        del held["own/1/off"]
    elif change == "a part missing":
        del held["analysis/places"]
    else:
        held["facts/names"] = np.array([1, "a"], dtype=object)
    path = tmp_path / "x.npz"
    np.savez(path, **held)
    refused(path)


def test_damaged_scenes_are_refused_or_whole(scene, saved, tmp_path):
    """Cut off anywhere, or with bits turned over in contents and headers."""
    data, path = saved.read_bytes(), tmp_path / "x.npz"
    rng = random.Random(0)
    for _ in range(20):
        refused(path, data[: rng.randrange(len(data))])
    headers = [at for mark in (b"PK\x01\x02", b"PK\x03\x04", b"NUMPY") for at in _all(data, mark)]
    survived = 0
    for number in range(120):
        broken = bytearray(data)
        at = rng.randrange(len(data)) if number % 4 == 0 else rng.choice(headers) + rng.randrange(60)
        broken[at] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            loaded = Scene.load(path)
        except InputError:
            continue
        survived += 1  # a bit that means nothing, such as a time stamp
        np.testing.assert_array_equal(loaded.analysis.cross, scene.analysis.cross)
        np.testing.assert_array_equal(loaded.analysis.stems[0].hops, scene.analysis.stems[0].hops)
    assert survived < 60


def _all(data, mark):
    at = data.find(mark)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)
