"""mixrl.toml: what a folder says of its stems, and that it is heeded."""

from __future__ import annotations

import json

import pytest
from stems import RATE, band, mixrl, write

import mixrl as package
from mixrl import InputError, Mixer
from mixrl.scene import Scene
from mixrl.session import load_session
from mixrl.wishes import Wishes, asked_of, read_wishes


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "song", band(3.0), RATE)


def say(folder, text):
    (folder / "mixrl.toml").write_text(text)
    return folder


def test_nothing_is_said_where_there_is_no_file(folder):
    assert read_wishes(folder) == Wishes()
    assert load_session(folder).wishes == Wishes()


def test_roles_and_groups_are_as_the_file_says(folder):
    say(folder, '[roles]\n"keys" = "guitar"\n[groups]\n"KE*" = "strummed"\n"*" = "all the rest"\n')
    facts = Scene.of(load_session(folder)).facts
    of = dict(zip(facts.names, zip(facts.roles, facts.members, strict=True), strict=True))
    assert of == {
        "bass": ("bass", "all the rest"), "keys": ("guitar", "strummed"), "kick": ("kick", "all the rest"),
        "vocal": ("vocal", "all the rest"),
    }  # fmt: skip


def test_a_stem_s_own_name_goes_before_globs(tmp_path):
    asked = {"v*": "backing", "vox": "vocal", "*x": "fx"}
    assert asked_of(asked, ["vox", "vax", "fox"], tmp_path) == {"vox": "vocal", "vax": "backing", "fox": "fx"}


def test_target_ceiling_and_locks_are_heeded_and_arguments_go_before(folder):
    say(folder, 'target = -20.0\nceiling = -3.0\nlock = ["voc*"]\n')
    quick = {"polish": 0, "steps": 3}
    made = package.mix(folder, **quick)
    assert made.settings.master.target_lufs == -20.0
    assert made.settings.master.ceiling_dbtp == -3.0
    untouched = made.candidate("no change").settings.strip("vocal")
    assert all(c.settings.strip("vocal") == untouched for c in made.candidates)
    given = package.mix(folder, target=-16.0, ceiling=-1.0, **quick)
    assert (given.settings.master.target_lufs, given.settings.master.ceiling_dbtp) == (-16.0, -1.0)
    assert package.mix(folder, target=None, **quick).settings.master.target_lufs is None
    own = Mixer(polish=0, steps=3).mix(load_session(folder))
    assert own.settings.master.target_lufs == -14.0  # who makes a mixer says what it is to do
    assert all(c.settings.strip("vocal").gain_db == 0.0 for c in own.candidates)


def test_a_preset_stands_for_its_target_and_ceiling(folder):
    assert read_wishes(say(folder, 'preset = "ebu-r128"')) == Wishes(-23.0, -1.0)
    assert read_wishes(say(folder, 'preset = "ebu-r128"\nceiling = -2')) == Wishes(-23.0, -2.0)


def test_the_command_heeds_it(folder, tmp_path):
    say(folder, "target = -20.0\n")
    out = tmp_path / "mix.wav"
    code, shown, _ = mixrl("mix", folder, "-o", out, "--polish", 0, "--steps", 2, "--json")
    assert code == 0
    assert json.loads(shown)["integrated_lufs"] == pytest.approx(-20.0, abs=0.1)


def test_files_that_would_be_left_out_are_taken_back(folder):
    write(folder, {"click": band(3.0)["kick"]}, RATE)
    assert "click" not in load_session(folder).names
    assert "click" in load_session(say(folder, 'include = ["click"]')).names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("target = ", "is no TOML"),
        ("a = " + "[" * 5000, "is no TOML (too deeply nested)"),
        ("a" + ".a" * 100_000 + " = 1", "is no TOML (over 1000 dots in a line)"),
        ("bpm = " + "9" * 5000, "is no TOML"),
        ("bpm = 0x" + "f" * 500, "bpm is out of range: give 20 to 400"),
        ("bpm = inf", "bpm is out of range"),
        ("target = nan", "target is out of range: give -60 to 0"),
        ("ceiling = 5", "ceiling is out of range: give -20 to 0"),
        ("target = [1]", "target is no number"),
        ("target = 1979-05-27", "target is no number"),
        ('preset = ["spotify"]', "no preset"),
        ("preset = {a = 1}", "no preset"),
        ('include = ["piano"]', "mixrl.toml: include piano: matches no file"),
        ("# " + "a" * 300_000, "is larger than 256 KB"),
        ('target = "loud"', "is no number"),
        ("target = true", "is no number"),
        ("volume = 11", "'volume'"),
        ('preset = "vinyl"', "no preset 'vinyl'"),
        ('preset = "spotify"\ntarget = -9', "not both"),
        ('lock = "vocal"', "is no list"),
        ("include = [1]", "is no list"),
        ('roles = "vocal"', "is no table"),
        ("[groups]\nkick = 1", "is no table"),
        ('[roles]\nkick = "trumpet solo"', "no role 'trumpet solo'"),
        ('[roles]\nkik = "kick"', "'kik' is no stem"),
    ],
)
def test_what_means_nothing_is_a_line_and_exit_code_2(folder, tmp_path, text, words):
    say(folder, text)
    code, _, error = mixrl("mix", folder, "-o", tmp_path / "mix.wav")
    assert code == 2
    assert words in error
    assert "mixrl.toml" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "mix.wav").exists()


def test_a_lock_that_matches_nothing_is_refused(folder):
    with pytest.raises(InputError, match="no stem is called 'guitar'"):
        package.mix(say(folder, 'lock = ["guitar"]'))


def test_a_byte_order_mark_is_read_over(folder):
    (folder / "mixrl.toml").write_text("target = -20", encoding="utf-8-sig")
    assert read_wishes(folder) == Wishes(-20.0)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / "mixrl.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is no TOML"):
        load_session(folder)
