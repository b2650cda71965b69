"""The command line as a person and as a program use it: mix, render, explain, check."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stems import RATE, band, beat, libebur128, mixrl, write

from mixrl import read_recipe
from mixrl.presets import PRESETS

ROOT = Path(__file__).parent.parent
KEYS = "output integrated_lufs true_peak_dbtp score_before score_after winner moves recipe"


def script(*arguments, cwd=None, **environment):
    """``python cli.py ARGUMENTS`` as a process of its own."""
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a session "song" and all that one `mixrl mix` can write of it."""
    work = tmp_path_factory.mktemp("work")
    write(work / "song", band(4))
    command = ["mix", work / "song", "-o", work / "mix.wav", "--recipe", work / "mix.json", "--stems", work / "stems"]
    code, out, err = mixrl(*command, "--ab", work / "ab", "--steps", 8, "--json")
    assert (code, err) == (0, "")
    (work / "mix.out").write_text(out, encoding="utf-8")
    return work


@pytest.fixture(scope="module")
def printed(work):
    return json.loads((work / "mix.out").read_text(encoding="utf-8"))


# ----------------------------------------------------------------------------------------------- mix


def test_json_has_the_promised_keys_and_is_true(work, printed):
    assert set(KEYS.split()) <= set(printed)
    assert printed["output"] == str(work / "mix.wav")
    loudness, peak = libebur128(work / "mix.wav")
    assert printed["integrated_lufs"] == pytest.approx(loudness, abs=0.1)
    assert printed["true_peak_dbtp"] == pytest.approx(peak, abs=0.1)
    assert loudness == pytest.approx(-14.0, abs=0.1)
    assert peak <= -1.0
    assert printed["target_reached"] is True
    assert printed["score_after"] == printed["candidates"][printed["winner"]]["score"]
    assert printed["score_after"] == max(c["score"] for c in printed["candidates"].values())
    assert printed["score_before"] == printed["candidates"]["no change"]["score"]
    assert printed["recipe"]["moves"] == printed["moves"]
    recipe, folder = read_recipe(work / "mix.json")
    assert recipe.settings.to_dict() == printed["recipe"]["settings"]
    assert folder == work / "song"


def test_the_files_are_those_that_were_asked_for(work):
    assert sorted(p.name for p in work.iterdir()) == [
        "ab", "mix.json", "mix.out", "mix.wav", "song", "stems",
    ]  # fmt: skip
    assert sorted(p.name for p in (work / "song").iterdir()) == ["bass.wav", "keys.wav", "kick.wav", "vocal.wav"]
    assert sorted(p.name for p in (work / "stems").iterdir()) == ["bass.wav", "keys.wav", "kick.wav", "vocal.wav"]
    loudness = [libebur128(path)[0] for path in (work / "ab").iterdir()]
    assert len(loudness) == 3
    assert max(loudness) - min(loudness) <= 0.1
    assert soundfile.info(work / "mix.wav").subtype == "PCM_24"


def test_a_person_reads_the_moves_the_scores_and_what_was_written(work, tmp_path):
    folder = write(tmp_path / "song", {"kick [in]": beat(3), "bass [/x] ü": band(3)["bass"], "vocal": band(3)["vocal"]})
    code, out, err = mixrl("mix", folder, "-o", tmp_path / "a.wav", "--steps", 6, "--target", "-20")
    assert code == 0
    assert not err
    assert "no change" in out
    assert "<- the mix" in out
    *_, last = out.strip().splitlines()
    assert last.startswith(f"{tmp_path / 'a.wav'}: -20.0 LUFS")  # one line, however long the path


def test_a_warning_goes_to_stderr(tmp_path):
    clicks = np.zeros(3 * RATE, np.float32)
    clicks[:: RATE // 2] = 1.0
    folder = write(tmp_path / "song", {"clave": clicks, "empty": 0 * clicks})
    options = ["-o", tmp_path / "a.wav", "--target", "-6", "--steps", 1]
    code, out, err = mixrl("mix", folder, *options)
    assert code == 0
    assert "warning: empty: is silent" in err
    assert "not -6.0 LUFS" in err
    assert "warning:" not in out
    code, out, err = mixrl("mix", folder, *options, "--force", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["target_reached"] is False
    assert found["true_peak_dbtp"] <= -1.0
    assert len(found["warnings"]) == 2


@pytest.mark.parametrize("preset", ["apple-music", "netflix-dialogue"])
def test_presets(preset, work, tmp_path):
    code, out, _ = mixrl("mix", work / "song", "-o", tmp_path / "a.flac", "--preset", preset, "--steps", 0, "--json")
    assert code == 0
    loudness, peak = libebur128(tmp_path / "a.flac")
    assert loudness == pytest.approx(PRESETS[preset][0], abs=0.1)
    assert peak <= PRESETS[preset][1]
    assert json.loads(out)["target_lufs"] == PRESETS[preset][0]


def test_locks_and_strengths(work, tmp_path):
    options = ["--lock", "vocal", "--lock", "k*", "--strength", "eq=0, pan=0.5", "--steps", 6, "--json"]
    code, out, _ = mixrl("mix", work / "song", "-o", tmp_path / "a.wav", *options)
    assert code == 0
    stems = json.loads(out)["recipe"]["settings"]["stems"]
    for name in ("vocal", "kick", "keys"):
        assert (stems[name]["gain_db"], stems[name]["pan"], stems[name]["highpass_hz"]) == (0.0, 0.0, None)
    assert all(band["gain_db"] == 0.0 for strip in stems.values() for band in strip["eq"])


def test_a_tempo_is_asked_for(tmp_path):
    folder = write(tmp_path / "loop", {"kick": beat(6), "hat": beat(6, hat=True)})
    code, out, _ = mixrl("mix", folder, "-o", tmp_path / "a.wav", "--bpm", 132, "--steps", 2, "--json")
    assert code == 0
    for strip in json.loads(out)["recipe"]["settings"]["stems"].values():
        assert strip["tempo_ratio"] == pytest.approx(1.1, rel=2e-3)
    assert soundfile.info(tmp_path / "a.wav").duration == pytest.approx(6 / 1.1, rel=2e-3)


def test_what_is_left_out_can_be_taken_back_and_the_recipe_knows(tmp_path):
    folder = write(tmp_path / "song", {"kick": beat(2), "click track": beat(2, hat=True)})
    command = ["mix", folder, "-o", tmp_path / "a.wav", "--recipe", tmp_path / "a.json", "--steps", 0, "--force"]
    code, out, err = mixrl(*command)
    assert code == 0
    assert '--include "click track" takes it back' in err
    code, out, _ = mixrl(*command, "--json", "--include", "click*")
    assert set(json.loads(out)["recipe"]["settings"]["stems"]) == {"kick", "click track"}
    assert mixrl("render", tmp_path / "a.json", "-o", tmp_path / "b.wav")[0] == 0
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_names_of_every_kind(tmp_path):
    names = ["lead vox (take 2)", 'gtr "DI" [L]', "bässe/große – trommel", "it's 100%"]
    folder = write(tmp_path / "my song's", {name: beat(2, 60 * (i + 1)) for i, name in enumerate(names)})
    command = ["mix", folder, "-o", tmp_path / "ü [x].wav", "--recipe", tmp_path / "r.json", "--stems", tmp_path / "s"]
    code, out, _ = mixrl(*command, "--steps", 2, "--json", "--lock", 'gtr "DI" [L]')
    assert code == 0
    assert set(json.loads(out)["recipe"]["settings"]["stems"]) == set(names)
    assert len(list((tmp_path / "s").iterdir())) == 4
    code, out, _ = mixrl("render", tmp_path / "r.json", "-o", tmp_path / "b.wav")
    assert code == 0
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "ü [x].wav").read_bytes()


def test_the_output_has_the_folders_name_unless_given_one(work, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert mixrl("mix", work / "song", "--steps", 0)[0] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["song.wav"]


def test_a_mix_among_its_stems_is_warned_of(tmp_path, monkeypatch):
    song = write(tmp_path / "song", {"kick": beat(3), "vocal": band(3)["vocal"], "bass": band(3)["bass"]})
    monkeypatch.chdir(song)
    code, _, err = mixrl("mix", ".", "--steps", 2, "--recipe", "mix.json")
    assert code == 0
    assert "song.wav lies in the session's folder" in err
    code, _, err = mixrl("render", "mix.json", "-o", tmp_path / "again.wav")  # the mix is not taken for a stem
    assert code == 0
    assert (tmp_path / "again.wav").read_bytes() == (song / "song.wav").read_bytes()


# ----------------------------------------------------------------------------------------------- what is in the way


@pytest.mark.parametrize("option", ["--output", "--recipe", "--stems", "--ab"])
def test_what_exists_is_not_touched(option, work, tmp_path):
    targets = {"--output": "a.wav", "--recipe": "a.json", "--stems": "stems", "--ab": "ab"}
    mine = tmp_path / targets[option]
    if option in ("--stems", "--ab"):
        mine.mkdir()
        mine = mine / "kick.wav"
    mine.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    options = [part for name, path in targets.items() for part in (name, tmp_path / path)]
    code, out, err = mixrl("mix", work / "song", *options, "--steps", 0)
    assert (code, out) == (2, "")
    assert "--force" in err
    assert err.count("\n") == 1
    assert mine.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == before


def test_force_overwrites(work, tmp_path):
    for name in ("a.wav", "a.json"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "stems").mkdir()
    (tmp_path / "stems" / "kick.wav").write_text("mine")
    options = ["--recipe", tmp_path / "a.json", "--stems", tmp_path / "stems", "--steps", 0, "--force"]
    assert mixrl("mix", work / "song", "-o", tmp_path / "a.wav", *options)[0] == 0
    assert soundfile.info(tmp_path / "a.wav").frames == soundfile.info(tmp_path / "stems" / "kick.wav").frames
    assert read_recipe(tmp_path / "a.json")[0].winner


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "{}/no/a.wav"], "no/a.wav: there is no folder"),
        (["-o", "{}"], "cannot write"),
        (["-o", "{}/a.mp3"], "cannot write .mp3: name it .wav or .flac"),
        (["-o", "{}/a.wav", "--encoding", "flac24"], "choose from wav16, wav24, wav32f"),
        (["-o", "{}/a.wav", "--recipe", "{}/a.wav"], "is asked for twice"),
        (["-o", "{}/a.wav", "--stems", "{}/s", "--ab", "{}/s"], "is asked for twice"),
        (["-o", "{}/a.wav", "--stems", "{}/no/s"], "no/s: there is no folder"),
        (["-o", "{}/a.wav", "--stems", "SONG/stems"], "is inside the session"),
        (["-o", "SONG/kick.wav", "--force", "--steps", "0"], "kick.wav: is a stem of this session"),
        (["-o", "{}/a.wav", "--preset", "vinyl"], "no preset 'vinyl': there are spotify"),
        (["-o", "{}/a.wav", "--preset", "spotify", "--target", "-9"], "--target or --preset, not both"),
        (["-o", "{}/a.wav", "--target", "3"], "target 3 is out of range"),
        (["-o", "{}/a.wav", "--ceiling", "1"], "ceiling 1 is out of range"),
        (["-o", "{}/a.wav", "--bpm", "1"], "bpm 1 is out of range"),
        (["-o", "{}/a.wav", "--bpm", "fast"], "Invalid value for '--bpm'"),
        (["-o", "{}/a.wav", "--strength", "eq"], "--strength 'eq': write it like gain=1,eq=0.5"),
        (["-o", "{}/a.wav", "--strength", "eq=much"], "--strength 'eq=much'"),
        (["-o", "{}/a.wav", "--strength", "eq=2"], "eq=2 is out of range: give 0 to 1"),
        (["-o", "{}/a.wav", "--strength", "reverb=1"], "no kind of move 'reverb'"),
        (["-o", "{}/a.wav", "--lock", "piano"], "no stem is called 'piano': there are bass, keys, kick, vocal"),
        (["-o", "{}/a.wav", "--include", "piano"], "--include piano: matches no file"),
        (["-o", "{}/a.wav", "--steps", "-1"], "--steps"),
        (["-o", "{}/a.wav", "--louder"], "No such option: --louder"),
    ],
)
@pytest.mark.parametrize("machine", [[], ["--json"]])
def test_bad_usage_is_one_line_and_exit_code_2(options, message, machine, work, tmp_path):
    given = [option.replace("{}", str(tmp_path)).replace("SONG", str(work / "song")) for option in options]
    kick = (work / "song" / "kick.wav").read_bytes()
    code, out, err = mixrl("mix", work / "song", *given, *machine)
    assert (code, out) == (2, "")
    assert err.startswith("mixrl: ")
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.iterdir())
    assert (work / "song" / "kick.wav").read_bytes() == kick


# ----------------------------------------------------------------------------------------------- render


def test_render_gives_the_same_bytes_from_anywhere(work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = mixrl("render", work / "mix.json", "-o", "again.wav", "--json", "--stems", "stems")
    assert code == 0
    assert (tmp_path / "again.wav").read_bytes() == (work / "mix.wav").read_bytes()
    assert json.loads(out)["integrated_lufs"] == pytest.approx(-14.0, abs=0.1)
    for path in (work / "stems").iterdir():
        assert (tmp_path / "stems" / path.name).read_bytes() == path.read_bytes()


def test_render_after_the_recipe_moved_with_its_session(work, tmp_path, monkeypatch):
    shutil.copytree(work / "song", tmp_path / "elsewhere" / "song")
    shutil.copy(work / "mix.json", tmp_path / "elsewhere" / "mix.json")
    monkeypatch.chdir(tmp_path / "elsewhere" / "song")
    assert mixrl("render", "../mix.json", "-o", tmp_path / "again.wav")[0] == 0
    assert (tmp_path / "again.wav").read_bytes() == (work / "mix.wav").read_bytes()


def test_render_of_a_recipe_that_lost_its_session(work, tmp_path):
    shutil.copy(work / "mix.json", tmp_path / "mix.json")
    code, _, err = mixrl("render", tmp_path / "mix.json", "-o", tmp_path / "again.wav")
    assert code == 2
    assert "--session" in err
    options = ["--session", work / "song", "-o", tmp_path / "again.wav"]
    code, _, _ = mixrl("render", tmp_path / "mix.json", *options)
    assert code == 0
    assert (tmp_path / "again.wav").read_bytes() == (work / "mix.wav").read_bytes()
    code, _, err = mixrl("render", tmp_path / "mix.json", *options)
    assert code == 2
    assert "exists already" in err


def test_render_with_the_wrong_session(work, tmp_path):
    other = write(tmp_path / "other", {"kick": beat(1), "flute": beat(1)})
    code, out, err = mixrl("render", work / "mix.json", "--session", other, "-o", tmp_path / "a.wav")
    assert (code, out) == (2, "")
    assert "'flute'" in err or "'bass'" in err
    assert "give the folder that they were made for" in err
    assert not (tmp_path / "a.wav").exists()


def test_an_edited_recipe_is_what_is_rendered(work, tmp_path):
    data = json.loads((work / "mix.json").read_text(encoding="utf-8"))
    data["folder"] = str(work / "song")
    data["settings"]["master"] = {"ceiling_dbtp": -3.0, "target_lufs": -20.0}
    (tmp_path / "edited.json").write_text(json.dumps(data), encoding="utf-8")
    assert mixrl("render", tmp_path / "edited.json", "-o", tmp_path / "a.flac", "--encoding", "flac16")[0] == 0
    loudness, peak = libebur128(tmp_path / "a.flac")
    assert loudness == pytest.approx(-20.0, abs=0.1)
    assert peak <= -3.0


# ----------------------------------------------------------------------------------------------- explain, check


def test_explain(work, printed):
    code, out, err = mixrl("explain", work / "mix.json")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(f"{printed['winner']} won")
    for move in printed["moves"]:
        assert f"{move['before']} -> {move['after']}" in out
        assert move["reason"] in out
    code, out, _ = mixrl("explain", work / "mix.json", "--json")
    assert code == 0
    assert json.loads(out) == printed["moves"]
    code, _, err = mixrl("explain", work / "mix.wav")
    assert code == 2
    assert "not a text file" in err


def test_check(work, tmp_path):
    code, out, err = mixrl("check", work / "song")
    assert (code, err) == (0, "")
    assert out.startswith("song: 4 stems, 0:04, 22050 Hz")
    kick = beat(3)
    faulty = {"kick": kick, "copy": kick, "hot": np.clip(4 * kick, -1, 1), "nothing": 0 * kick}
    folder = write(tmp_path / "song", faulty)
    code, out, _ = mixrl("check", folder, "--json")
    assert code == 0
    found = json.loads(out)
    assert set(found) == {
        "session", "sample_rate", "duration_s", "stems", "roles", "left_out", "warnings", "findings",
    }  # fmt: skip
    assert {"clipping", "silence"} <= {finding["kind"] for finding in found["findings"]}
    assert all(finding["message"] for finding in found["findings"])


# ----------------------------------------------------------------------------------------------- as a process


def test_a_sample_session_from_the_command_line(tmp_path):
    options = ["--steps", 6, "--recipe", "hydrogen.json", "--json"]
    done = script("mix", ROOT / "audio_samples" / "hydrogen", *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert printed["output"] == "hydrogen.wav"
    loudness, peak = libebur128(tmp_path / "hydrogen.wav")
    assert loudness == pytest.approx(-14.0, abs=0.1)
    assert peak <= -1.0
    assert printed["score_after"] >= printed["score_before"]
    done = script("render", "hydrogen.json", "-o", "again.wav", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "hydrogen.wav").read_bytes()


def test_exit_codes_and_streams_of_the_process(tmp_path):
    done = script("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("mixrl ")
    done = script()
    assert done.returncode == 2
    assert "Commands" in done.stdout
    done = script("mix", tmp_path / "nothing")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"mixrl: {tmp_path / 'nothing'}: cannot be read")
    done = script("--debug", "mix", tmp_path / "nothing")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_terminal_that_cannot_show_every_name(tmp_path):
    folder = write(tmp_path / "\u4e2d", {"kick": beat(1)})
    done = script("check", folder, PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u4e2d: 1 stems" in done.stdout


def test_help_says_the_defaults():
    code, out, _ = mixrl("mix", "--help")
    assert code == 0
    for words in ("default -14", "default -1", "folder's name", "4 a stem"):
        assert words.split()[-1] in out, words
