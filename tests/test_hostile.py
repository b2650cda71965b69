"""Stems, names and folders as nobody should hand them in: mixed all the same where that makes sense, else refused in a
line. What else is refused: ``test_bad_input``."""

from __future__ import annotations

import json
import os
import signal
import struct

import numpy as np
import pytest
import soundfile
from stems import RATE, band, beat, mixrl, write
from test_bad_input import assert_refused

from mixrl import InputError, Mixer, load_policy
from mixrl.audio import FileSource, atomic_path, read
from mixrl.headers import probe
from mixrl.session import load_session

QUICK = ("--steps", 0, "--polish", 0)
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


def put(folder, name="kick", audio=None, rate=RATE, subtype="FLOAT"):
    path = os.path.join(os.fsencode(folder), os.fsencode(name) + b".wav")  # soundfile itself takes no odd names
    os.makedirs(os.path.dirname(path), exist_ok=True)
    soundfile.write(path, beat(1) if audio is None else np.asarray(audio, np.float32).T, rate, subtype=subtype)
    return folder


def good(folder):
    return write(folder, {name: band(1)[name] for name in ("bass", "vocal")})


def mixed(folder, *options):
    """Mix it, check it, measure its files; the mix, and the lines on stderr."""
    out = folder.parent / "out.wav"
    code, _, err = mixrl("mix", folder, "-o", out, *(options or QUICK))
    assert code == 0, err
    assert mixrl("check", folder)[0] == 0
    assert mixrl("measure", *folder.rglob("*.wav"))[0] == 0
    audio, rate = soundfile.read(out, always_2d=True)
    assert np.isfinite(audio).all()
    return audio, rate, err


@pytest.fixture
def in_time():
    """What waits for ever is a failure, not a test run that never ends."""

    def late(*_):
        raise AssertionError("waited")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# ----------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("samples", [1, 17])
def test_a_stem_of_a_few_samples(samples, tmp_path):
    audio, _, err = mixed(put(tmp_path / "alone", audio=np.full(samples, 0.5)))
    assert len(audio) == samples
    assert "shorter than 0.4 s" in err
    (tmp_path / "out.wav").unlink()
    audio, _, err = mixed(put(good(tmp_path / "beside"), audio=np.full(samples, 0.5)))
    assert len(audio) == RATE
    assert not err


@pytest.mark.parametrize("rate", [8000, 11025, 12_345, 16000, 192_000])
def test_rates_from_telephone_to_laboratory(rate, tmp_path):
    folder = write(tmp_path / "song", band(1, rate), rate)
    audio, same, err = mixed(folder, "--steps", 4, "--polish", 5)
    assert (len(audio), same, err) == (rate, rate, "")
    assert np.abs(audio).max() > 0.1


def test_rates_as_far_apart_as_can_be(tmp_path):
    folder = put(put(tmp_path / "song", audio=beat(1, rate=8000), rate=8000), "hat", beat(1, rate=384_000), 384_000)
    audio, rate, err = mixed(folder)
    assert (len(audio), rate) == (384_000, 384_000)
    assert "resampled to 384000 Hz, the rate of most stems: kick (8000 Hz)" in err


@pytest.mark.parametrize("rate", [1, 4000, 768_000, 10**9])
def test_rates_that_cannot_be_meant(rate, tmp_path):
    put(tmp_path / "alone", rate=rate)
    put(good(tmp_path / "beside"), rate=rate)
    for folder in (tmp_path / "alone", tmp_path / "beside"):
        result = mixrl("mix", folder, "-o", tmp_path / "a.wav")
        assert_refused(result, folder / "kick.wav")
        assert f"has a sample rate of {rate} Hz: resample it" in result[2]
    assert not (tmp_path / "a.wav").exists()


def test_subnormal_samples_are_silence(tmp_path):
    audio, _, err = mixed(put(tmp_path / "song", audio=np.full(RATE, 1e-40)))
    assert not audio.any()
    assert "kick: is silent" in err
    assert "the mix is silent: written as silence" in err


def test_a_square_wave_at_full_scale(tmp_path):
    square = np.sign(np.sin(2 * np.pi * 100 * (np.arange(RATE) + 0.5) / RATE))
    audio, _, _ = mixed(put(tmp_path / "song", audio=square))
    assert 0.05 < np.abs(audio).max() < 10 ** (-1 / 20)
    assert "clips 200 times" in mixrl("check", tmp_path / "song")[1]


def test_nothing_but_an_offset(tmp_path):
    audio, _, err = mixed(put(tmp_path / "song", audio=np.full(RATE, 0.5)))
    assert np.abs(audio).max() < 10 ** (-1 / 20)
    assert "not -14.0 LUFS" in err  # what cannot be heard cannot be made louder
    assert "DC offset of +50.00 %" in mixrl("check", tmp_path / "song")[1]


# ----------------------------------------------------------------------------------------------- sessions


def test_one_stem_and_all_the_same_ones(tmp_path):
    audio, _, err = mixed(put(tmp_path / "one"))
    assert np.abs(audio).max() > 0.1
    assert not err
    (tmp_path / "out.wav").unlink()
    for name in ("kick", "snare", "bass", "vox"):
        put(tmp_path / "same", name)
    audio, _, err = mixed(tmp_path / "same")
    assert np.abs(audio).max() > 0.1
    assert "hold the same audio" in mixrl("check", tmp_path / "same")[1]


def test_all_stems_are_silent(tmp_path):
    put(put(tmp_path / "song", audio=np.zeros(RATE)), "bass", np.zeros(RATE))
    audio, _, err = mixed(tmp_path / "song", "--steps", 3, "--polish", 5)
    assert not audio.any()
    assert err.count("is silent") == 3


def test_stems_that_cancel_out(tmp_path):
    put(put(tmp_path / "song", audio=beat(1)), "snare", -beat(1))
    audio, _, err = mixed(tmp_path / "song")
    assert not audio.any()
    assert "the mix is silent: written as silence" in err
    assert "error: kick + snare: hold the same audio, inverted" in mixrl("check", tmp_path / "song")[1]


@pytest.mark.filterwarnings("error")  # which a user would see
def test_two_hundred_stems(tmp_path):
    random = np.random.default_rng(0)
    for number in range(200):
        put(tmp_path / "song", f"stem {number}", random.uniform(-0.01, 0.01, 2000))
    code, out, err = mixrl("mix", tmp_path / "song", "-o", tmp_path / "out.wav", *QUICK, "--json")
    assert (code, err) == (0, "")
    assert len(json.loads(out)["recipe"]["settings"]["stems"]) == 200
    assert soundfile.info(tmp_path / "out.wav").frames == 2000


# ----------------------------------------------------------------------------------------------- names

NAMES = [b"a b", b"it's \"x\"", b"new\nline", "\U0001f941 drum".encode(), b"[red]bold[/red]", b"[/x]", b"caf\xe9",
         b"\x1b[31m", b"-o", b"a\\b", b" ", b"k" * 251]  # fmt: skip


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="not all of these can be named here")
def test_names_of_any_bytes(tmp_path):
    song = tmp_path / "s\n[bold]"
    for number, name in enumerate(NAMES):
        put(song, name, beat(1, 60 + 20 * number))
    out = tmp_path / os.fsdecode(b"out [bold] \xff")
    out.mkdir()
    assert out.is_dir()
    asked = ["-o", out / "a.wav", "--recipe", out / "r.json", "--stems", out / "s", "--ab", out / "ab"]
    results = [
        mixrl("mix", song, *asked, "--steps", 3, "--polish", 0),
        mixrl("mix", song, "-o", out / "b.wav", *QUICK, "--json"),
        mixrl("render", out / "r.json", "-o", out / "c.wav"),
        mixrl("explain", out / "r.json"),
        mixrl("check", song),
        mixrl("measure", *song.rglob("*.wav")),
    ]
    assert [code for code, _, _ in results] == [0] * 6
    assert all("\x1b" not in shown + err for _, shown, err in results)  # no name steers the terminal
    assert set(json.loads(results[1][1])["recipe"]["settings"]["stems"]) == {os.fsdecode(name) for name in NAMES}
    assert (out / "a.wav").read_bytes() == (out / "c.wav").read_bytes()
    assert len(list((out / "s").rglob("*.wav"))) == len(NAMES)


@pytest.mark.parametrize("name", ["o" * 251, "\u00fc" * 125 + "o", "\U0001f941" * 62 + "ooo"])
def test_an_output_s_name_of_255_bytes(name, tmp_path):
    put(tmp_path / "song")
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / f"{name}.wav"
    assert mixrl("mix", tmp_path / "song", "-o", path, *QUICK)[0] == 0
    assert os.listdir(tmp_path / "out") == [path.name]
    with atomic_path(tmp_path / f"a.{'x' * 253}") as part:  # a suffix as long as a name
        part.write_text("whole")
    assert (tmp_path / f"a.{'x' * 253}").read_text() == "whole"
    result = mixrl("mix", tmp_path / "song", "-o", path.with_stem(f"{name}o"), *QUICK)
    assert_refused(result, path.parent)
    assert os.listdir(tmp_path / "out") == [path.name]
    with pytest.raises(InputError, match="cannot be written"), atomic_path(path.with_stem(f"{name}o")):
        pass


@pytest.mark.parametrize("path", ["x" * 300, "x/" * 3000])
def test_paths_that_are_too_long_to_ask(path, tmp_path):
    write(tmp_path / "song", {"kick": beat(1)})
    recipe = tmp_path / "mix.json"
    assert mixrl("mix", tmp_path / "song", "-o", tmp_path / "a.wav", "--recipe", recipe, *QUICK)[0] == 0
    recipe.write_text(json.dumps({**json.loads(recipe.read_text()), "folder": path}))
    for command in (["mix", path, "-o", tmp_path / "b.wav"], ["render", recipe, "-o", tmp_path / "b.wav"],
                    ["mix", tmp_path / "song", "-o", tmp_path / path / "b.wav"], ["measure", path]):  # fmt: skip
        code, out, err = mixrl(*command)
        assert (code, out) == (2, "")
        assert "File name too long" in err or "there is no folder" in err
        assert err.count("\n") == 1
        assert len(err) < 4200
    assert not (tmp_path / "b.wav").exists()


# ----------------------------------------------------------------------------------------------- what is no file


@needs_pipes
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, in_time):
    song, pipe = good(tmp_path / "song"), tmp_path / "song" / "x.wav"
    os.mkfifo(pipe)
    assert_refused(mixrl("mix", song, "-o", tmp_path / "a.wav"), pipe)
    assert_refused(mixrl("check", song), pipe)
    assert_refused(mixrl("measure", pipe), pipe)
    with pytest.raises(InputError, match="is no file but a pipe"):
        load_policy(pipe)
    pipe.unlink()
    os.mkfifo(song / "mixrl.toml")
    assert_refused(mixrl("mix", song, "-o", tmp_path / "a.wav"), song / "mixrl.toml")
    (song / "mixrl.toml").unlink()
    os.mkfifo(tmp_path / "a.wav")
    assert_refused(mixrl("mix", song, "-o", tmp_path / "a.wav", "--force"), tmp_path / "a.wav")
    assert (tmp_path / "a.wav").is_fifo()  # not replaced


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no devices here")
def test_a_device_is_refused(tmp_path, in_time):
    good(tmp_path / "song")
    (tmp_path / "song" / "x.wav").symlink_to("/dev/zero")
    assert_refused(mixrl("mix", tmp_path / "song", "-o", tmp_path / "a.wav"), "x.wav")
    result = mixrl("render", "/dev/zero", "-o", tmp_path / "a.wav")
    assert_refused(result, "/dev/zero")
    assert "is larger than 16384 KB" in result[2]


@pytest.mark.parametrize("target", ["x.wav", "gone.wav"])
def test_links_that_lead_round_or_nowhere(target, tmp_path):
    song = good(tmp_path / "song")
    (song / "x.wav").symlink_to(song / target)
    assert_refused(mixrl("mix", song, "-o", tmp_path / "a.wav"), song / "x.wav")


def test_what_is_no_stem_by_its_kind_or_name_is_passed_over(tmp_path):
    song = good(tmp_path / "song")
    (song / "folder.wav").mkdir()
    (song / ".wav").write_text("a text")
    (song / "round").symlink_to(song, target_is_directory=True)
    assert load_session(song).names == ("bass", "vocal")


def test_an_mp3_that_is_called_wav(tmp_path):
    good(tmp_path / "song")
    soundfile.write(tmp_path / "song" / "kick.wav", beat(1), RATE, format="MP3")
    assert mixed(tmp_path / "song")[0].any()


def layer_1():
    """What libmpg123 takes for MPEG audio of layer I, and has much to say about."""
    return (b"\xff\xfe" + b"U\0T\0F\0-\0001\0006\0\n\0\0\1") * 500


@pytest.mark.parametrize("data", [("UTF-16\n" * 500).encode("utf-16"), bytes(10_000), layer_1()])
def test_libraries_do_not_talk_in_between(data, tmp_path, capfd):
    good(tmp_path / "song")
    (tmp_path / "song" / "x.mp3").write_bytes(data)
    assert_refused(mixrl("mix", tmp_path / "song", "-o", tmp_path / "a.wav"), "x.mp3")
    os.write(2, b"ours")
    assert capfd.readouterr() == ("", "ours")


# ----------------------------------------------------------------------------------------------- headers


def with_sizes(path, riff, data):
    """A WAV file of a second whose size fields say something else."""
    put(path.parent, path.stem, subtype="PCM_16")
    whole = bytearray(path.read_bytes())
    struct.pack_into("<I", whole, 4, riff)
    struct.pack_into("<I", whole, whole.index(b"data") + 4, data)
    path.write_bytes(whole)
    return path


def test_size_fields_that_were_never_filled_in(tmp_path):
    for riff in (0, 5, 0xFFFFFFFF):
        assert read(FileSource(with_sizes(tmp_path / "kick.wav", riff, 0xFFFFFFFF))).shape == (1, RATE)
    with pytest.raises(InputError, match="zero length"):
        probe(with_sizes(tmp_path / "kick.wav", 0, 0))
    with pytest.raises(InputError, match="cut short"):
        probe(with_sizes(tmp_path / "kick.wav", 0, 0x80000000))


@pytest.mark.parametrize("length", [2**62, 2**63 + 5, 2**64 - 1])
def test_a_length_that_no_file_can_have(length, tmp_path):
    start = struct.pack("<4sI4s4sIQQQI", b"RF64", 0xFFFFFFFF, b"WAVE", b"ds64", 28, length, length, length // 2, 0)
    start += struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    (tmp_path / "x.wav").write_bytes(start + struct.pack("<4sI", b"data", 0xFFFFFFFF) + bytes(1000))
    with pytest.raises(InputError, match=r"x\.wav: "):
        FileSource(tmp_path / "x.wav")


@pytest.mark.parametrize("after", [b"", b"LIST\0\0\0\0" * 20_000])
def test_gigabytes_behind_the_samples_are_not_gone_through(after, tmp_path, in_time):
    put(tmp_path, subtype="PCM_16")
    with (tmp_path / "kick.wav").open("ab") as file:
        file.write(after)
        file.truncate(3 << 30)  # a hole: takes no room
    assert FileSource(tmp_path / "kick.wav").frames == RATE


# ----------------------------------------------------------------------------------------------- changes meanwhile


def grow(path):
    with path.open("ab") as file:
        file.write(bytes(1000))


def shrink(path):
    os.truncate(path, path.stat().st_size // 2)


def rewrite(path):
    os.utime(path, ns=(0, 0))  # a clock may be too coarse to tell
    path.write_bytes(path.read_bytes())


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
@pytest.mark.parametrize(
    ("change", "says"),
    [(grow, "changed while"), (shrink, "changed while"), (rewrite, "changed while"), (os.unlink, "moved or deleted")],
)
def test_a_file_that_changes_while_it_is_read(change, says, suffix, tmp_path):
    path = tmp_path / f"kick{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 4 * RATE), RATE)
    source = FileSource(path)
    blocks = source.blocks(size=1000)
    if suffix != ".mp3":  # which is decoded whole at the first block, and then no longer needed
        next(blocks)
    change(path)
    with pytest.raises(InputError, match=rf"kick\{suffix}: (was |){says}"):
        list(blocks)


def test_a_stem_that_is_exported_anew_during_the_mix(tmp_path):
    folder = write(tmp_path / "song", band(1))
    session = load_session(folder)
    put(folder, "kick", 0.1 * beat(1), subtype="PCM_24")
    with pytest.raises(InputError, match=r"kick\.wav: changed while it was read: mix again"):
        Mixer(steps=0, polish=0).mix(session)
