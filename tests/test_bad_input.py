"""What cannot be mixed: one line that names the file and the mend, the right exit code, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stems import RATE, band, beat, mixrl, write

from mixrl import Mixer, MixSettings, ProcessingError, Recipe, Session, write_recipe

ROOT = Path(__file__).parent.parent


def empty(folder):
    return folder


def no_audio(folder):
    (folder / "notes.txt").write_text("verse, chorus")
    return folder


def text_as_audio(folder):
    (folder / "kick.wav").write_text("this is no audio, whatever its name says\n" * 20)
    return folder / "kick.wav"


def zero_length(folder):
    (folder / "kick.wav").touch()
    return folder / "kick.wav"


def no_samples(folder):
    soundfile.write(folder / "kick.wav", np.zeros((0, 1)), RATE)
    return folder / "kick.wav"


def truncated_flac(folder):
    soundfile.write(folder / "kick.flac", np.random.default_rng(0).uniform(-0.5, 0.5, RATE), RATE)
    data = (folder / "kick.flac").read_bytes()
    (folder / "kick.flac").write_bytes(data[: len(data) // 2])
    return folder / "kick.flac"


def truncated_wav(folder):
    soundfile.write(folder / "kick.wav", beat(1), RATE, subtype="PCM_24")
    data = (folder / "kick.wav").read_bytes()
    (folder / "kick.wav").write_bytes(data[:30])
    return folder / "kick.wav"


def nan_samples(folder):
    audio = beat(1)
    audio[1000] = np.nan
    soundfile.write(folder / "kick.wav", audio, RATE, subtype="FLOAT")
    return folder / "kick.wav"


def infinite_samples(folder):
    audio = beat(1)
    audio[1000] = -np.inf
    soundfile.write(folder / "kick.wav", audio, RATE, subtype="FLOAT")
    return folder / "kick.wav"


def surround(folder):
    soundfile.write(folder / "kick.wav", np.zeros((RATE, 6)), RATE)
    return folder / "kick.wav"


def only_a_click(folder):
    soundfile.write(folder / "click.wav", beat(1), RATE)
    return folder


def missing(folder):
    folder.rmdir()
    return folder


def a_file(folder):
    folder.rmdir()
    soundfile.write(folder.with_suffix(".wav"), beat(1), RATE)
    folder.with_suffix(".wav").rename(folder)
    return folder


def unreadable_folder(folder):
    folder.chmod(0)
    return folder


def unreadable_file(folder):
    soundfile.write(folder / "kick.wav", beat(1), RATE)
    (folder / "kick.wav").chmod(0)
    return folder / "kick.wav"


def a_folder_called_audio(folder):
    (folder / "kick.wav").mkdir()
    return folder


CASES = (
    empty, no_audio, text_as_audio, zero_length, no_samples, truncated_flac, truncated_wav, nan_samples,
    infinite_samples, surround, only_a_click, missing, a_file, unreadable_folder, unreadable_file,
    a_folder_called_audio,
)  # fmt: skip
BESIDE_GOOD_ONES = (text_as_audio, zero_length, truncated_flac, nan_samples)


def assert_refused(result, named, code=2):
    status, out, err = result
    assert (status, out) == (code, "")
    assert err.startswith("mixrl: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    assert str(named) in err
    assert ": " in err.removeprefix(f"mixrl: {named}: ")  # what is wrong, then the mend
    assert "unexpected" not in err


@pytest.mark.usefixtures("permissions_bite")
@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_session_that_cannot_be_mixed(make, tmp_path):
    (tmp_path / "song").mkdir()
    named = make(tmp_path / "song")
    (tmp_path / "out").mkdir()
    recipe = Recipe(MixSettings.neutral(["kick"]), folder=str(tmp_path / "song"))
    write_recipe(recipe, tmp_path / "mix.json")
    for machine in ([], ["--json"]):
        assert_refused(mixrl("mix", tmp_path / "song", "-o", tmp_path / "out" / "a.wav", *machine), named)
        assert_refused(mixrl("check", tmp_path / "song", *machine), named)
        assert_refused(mixrl("render", tmp_path / "mix.json", "-o", tmp_path / "out" / "a.wav", *machine), named)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("make", BESIDE_GOOD_ONES, ids=lambda make: make.__name__)
def test_one_bad_file_among_good_ones(make, tmp_path):
    song = write(tmp_path / "song", {"bass": band(1)["bass"], "vocal": band(1)["vocal"]})
    named = make(song)
    (tmp_path / "out").mkdir()
    assert_refused(mixrl("mix", song, "-o", tmp_path / "out" / "a.wav"), named)
    assert not list((tmp_path / "out").iterdir())


def test_arrays_that_cannot_be_mixed():
    from mixrl import InputError

    audio = beat(1)
    audio[5] = np.nan
    with pytest.raises(InputError, match="kick: NaN"):
        Session.from_arrays({"kick": audio}, RATE)


# ----------------------------------------------------------------------------------------------- failures


@pytest.fixture
def song(tmp_path):
    """A session with a recipe that renders quickly, and an empty folder to write into."""
    write(tmp_path / "song", band(3))
    write_recipe(Recipe(MixSettings.neutral(band(1)), folder=str(tmp_path / "song")), tmp_path / "mix.json")
    (tmp_path / "out").mkdir()
    return tmp_path


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_disk_that_fills_up_while_writing(suffix, song, monkeypatch):
    from mixrl import audio

    if suffix == ".wav":
        monkeypatch.setattr(audio._Wav, "write", full)
    else:
        monkeypatch.setattr(audio._Flac, "write", full)
    output = song / "out" / f"a{suffix}"
    for machine in ([], ["--json"]):
        assert_refused(mixrl("render", song / "mix.json", "-o", output, *machine), output, code=1)
        assert_refused(mixrl("mix", song / "song", "-o", output, "--steps", 0, *machine), output, code=1)
    assert not list((song / "out").iterdir())


def test_a_disk_that_fills_up_keeps_the_old_file(song, monkeypatch):
    from mixrl import audio

    (song / "out" / "a.wav").write_text("mine")
    monkeypatch.setattr(audio._Wav, "write", full)
    result = mixrl("render", song / "mix.json", "-o", song / "out" / "a.wav", "--force")
    assert_refused(result, song / "out" / "a.wav", code=1)
    assert [(p.name, p.read_text()) for p in (song / "out").iterdir()] == [("a.wav", "mine")]


def test_a_disk_that_fills_up_while_stems_are_written(song, monkeypatch):
    from mixrl import audio

    whole, written = audio.Writer.write, []

    def third_file(writer, block):
        written.append(writer.path)
        if len(dict.fromkeys(written)) > 2:
            full()
        whole(writer, block)

    monkeypatch.setattr(audio.Writer, "write", third_file)
    session = Session.from_arrays(band(1), RATE)
    from mixrl.mixer import write_stems

    with pytest.raises(ProcessingError, match="cannot be written"):
        write_stems(session, MixSettings.neutral(session.names), song / "out" / "stems", 0.0)
    left = list((song / "out" / "stems").iterdir())
    assert len(left) == 2
    assert all(soundfile.info(path).frames == RATE for path in left)  # whole files only


def process(command, **environment):
    environment = {**os.environ, **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def on_a_tiny_disk(folder, size, command, **environment):
    """Run a command while ``folder`` is a file system of that size, seen by nobody else; and what it left there."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    script = f'mount -t tmpfs -o size={size} tmpfs "$1" || exit 99; d="$1"; shift; "$@"; e=$?; ls -A "$d" >&3; exit $e'
    listing = folder.with_name("listing.txt")
    shell = f"exec 3> '{listing}'; {script}"
    result = process(["unshare", "-rm", "sh", "-c", shell, "sh", str(folder), *map(str, command)], **environment)
    if result[0] == 99 or "unshare" in result[2]:
        pytest.skip("may not mount a file system of its own")
    return result, listing.read_text().split()


CLI = (sys.executable, ROOT / "cli.py")


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_full_disk(name, song):
    output = song / "out" / name
    result, left = on_a_tiny_disk(song / "out", "64k", [*CLI, "render", song / "mix.json", "-o", output])
    assert_refused(result, output, code=1)
    assert "No space left" in result[2]
    assert not left


def test_a_full_temporary_folder(song):
    (song / "tmp").mkdir()
    command = [*CLI, "mix", song / "song", "-o", song / "out" / "a.wav", "--steps", "0", "--json"]
    result, left = on_a_tiny_disk(song / "tmp", "64k", command, TMPDIR=str(song / "tmp"))
    assert_refused(result, song / "tmp", code=1)
    assert "TMPDIR" in result[2]
    assert not left
    assert not list((song / "out").iterdir())


def test_a_limit_on_the_size_of_files(song):
    resource = pytest.importorskip("resource")
    done = subprocess.run(
        [*CLI, "render", song / "mix.json", "-o", song / "out" / "a.wav"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("mixrl: ")
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert not list((song / "out").iterdir())


@pytest.mark.usefixtures("permissions_bite")
def test_a_folder_that_may_not_be_written(song):
    (song / "out").chmod(0o500)
    result = mixrl("render", song / "mix.json", "-o", song / "out" / "a.wav")
    (song / "out").chmod(0o700)
    assert_refused(result, song / "out" / "a.wav", code=1)


def test_what_nobody_foresaw_is_still_one_line(song, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("line one\nline two")

    monkeypatch.setattr("mixrl.session.load_session", broken)
    code, out, err = mixrl("check", song / "song")
    assert (code, out) == (1, "")
    assert err == "mixrl: unexpected RuntimeError: line one line two (mixrl --debug shows where; please report it)\n"
    with pytest.raises(RuntimeError):
        mixrl("--debug", "check", song / "song")


def test_ctrl_c(song, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mixrl.session.load_session", interrupted)
    assert mixrl("check", song / "song") == (130, "", "mixrl: interrupted\n")


def test_a_policy_that_is_none(tmp_path):
    from mixrl import InputError, load_policy

    (tmp_path / "policy.safetensors").write_text(json.dumps({}))
    with pytest.raises(InputError, match=r"policy\.safetensors: not a readable policy file"):
        load_policy(tmp_path / "policy.safetensors")
    with pytest.raises(InputError, match="lock: no stem"):
        Mixer(locked=["x"]).mix(Session.from_arrays({"kick": beat(1)}, RATE))
