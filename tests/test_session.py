"""A folder becomes a session: what is found, joined, placed, resampled, refused and left out."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from mixrl.audio import FloatArray, read
from mixrl.errors import InputError
from mixrl.session import Session, Stem, load_session

RATE = 44100


def tone(seconds: float = 3.0, channels: int = 1, seed: int = 0, rate: int = RATE) -> FloatArray:
    """Noise in a band of its own with a beat: no two seeds are alike."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    beat = 0.6 + 0.4 * np.sin(2 * np.pi * (0.5 + seed / 7) * t)
    parts = [np.sin(2 * np.pi * (120 * 1.4**seed + 37 * k) * t + random.uniform(0, 6)) for k in range(12)]
    sides = [sum(parts[c::channels]) for c in range(channels)]
    return (0.05 * beat * np.stack(sides) + 0.002 * random.standard_normal((channels, len(t)))).astype(np.float32)


def put(path: Path, x: FloatArray, rate: int = RATE, subtype: str = "PCM_24", reference: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, x.T, rate, subtype=subtype)
    if reference is not None:
        body = bytes(338) + struct.pack("<Q", reference) + bytes(256)
        path.write_bytes(path.read_bytes() + struct.pack("<4sI", b"bext", len(body)) + body)


def song(folder: Path, names: str = "kick bass gtr vox keys") -> FloatArray:
    """A few stems; returns their sum in stereo."""
    total = np.zeros((2, 3 * RATE), np.float32)
    for seed, name in enumerate(names.split()):
        x = tone(channels=1 + seed % 2, seed=seed)
        put(folder / f"{name}.wav", x)
        total += x
    return total


# ----------------------------------------------------------------------------------------------- finding the stems


def test_folders_are_groups_and_what_is_no_audio_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "drums" / "kick.wav", tone(seed=1))
    put(tmp_path / "drums" / "top" / "oh.flac", tone(channels=2, seed=2))
    put(tmp_path / "vox.aiff", tone(seed=3))
    put(tmp_path / "__MACOSX" / "vox.wav", tone(seed=4))
    put(tmp_path / ".trash" / "old.wav", tone(seed=5))
    for name in ("notes.txt", "song.rpp", "song.mid", "cover.png", "vox.aiff.asd", "._vox.wav", ".DS_Store", "kick"):
        (tmp_path / name).write_bytes(b"no audio")
    session = load_session(tmp_path)
    assert session.names == ("drums/kick", "drums/top/oh", "vox")
    assert [stem.group for stem in session.stems] == ["drums", "drums", None]
    assert [stem.channels for stem in session.stems] == [1, 2, 1]
    assert (session.name, session.folder, session.sample_rate) == (tmp_path.name, tmp_path, RATE)
    assert not session.warnings
    assert not session.left_out
    assert session.stem("vox").files == (tmp_path / "vox.aiff",)


def test_a_folder_around_the_folder_is_passed_through(tmp_path: Path) -> None:
    song(tmp_path / "My Song" / "Stems", "kick vox")
    session = load_session(tmp_path)
    assert session.names == ("kick", "vox")
    assert session.name == "Stems"
    assert {stem.group for stem in session.stems} == {None}


def test_links_to_files_are_followed_and_folders_do_not_loop(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "vox.wav", tone(seed=1))
    put(tmp_path / "session" / "sub" / "kick.wav", tone(seed=2))
    put(tmp_path / "session" / "bass.wav", tone(seed=3))
    (tmp_path / "session" / "vox.wav").symlink_to(tmp_path / "elsewhere" / "vox.wav")
    (tmp_path / "session" / "sub" / "loop").symlink_to(tmp_path / "session", target_is_directory=True)
    assert load_session(tmp_path / "session").names == ("bass", "sub/kick", "vox")


def test_two_formats_of_one_name_stay_apart(tmp_path: Path) -> None:
    put(tmp_path / "vox.wav", tone(seed=1))
    put(tmp_path / "vox.flac", tone(seed=2))
    assert load_session(tmp_path).names == ("vox.flac", "vox.wav")


@pytest.mark.parametrize(
    ("left", "right", "name"),
    [
        ("OH.L", "OH.R", "OH"),
        ("OH_L", "OH_R", "OH"),
        ("OH-l", "OH-r", "OH"),
        ("gtr L", "gtr R", "gtr"),
        ("Piano Left", "Piano Right", "Piano"),
        ("Room (L)", "Room (R)", "Room"),
        ("OH_L_01", "OH_R_01", "OH_01"),
        ("03_OH L", "04_OH R", "03_OH"),
        ("drums/OH.L", "drums/OH.R", "drums/OH"),
    ],
)
def test_split_mono_pairs_are_joined(tmp_path: Path, left: str, right: str, name: str) -> None:
    a, b = tone(2.0, seed=1), tone(3.0, seed=2)
    put(tmp_path / f"{left}.wav", a)
    put(tmp_path / f"{right}.wav", b)
    put(tmp_path / "vox.wav", tone(seed=3))
    session = load_session(tmp_path)
    assert session.names == tuple(sorted((name, "vox")))
    stem = session.stem(name)
    assert [file.stem for file in stem.files] == [Path(left).name, Path(right).name]
    x = session.read(name)
    assert x.shape == (2, 3 * RATE)
    np.testing.assert_allclose(x[0], np.pad(a[0], (0, RATE)), atol=2**-22)
    np.testing.assert_allclose(x[1], b[0], atol=2**-22)


def test_what_is_no_pair_is_not_joined(tmp_path: Path) -> None:
    put(tmp_path / "gtr L.wav", tone(channels=2, seed=1))  # stereo
    put(tmp_path / "gtr R.wav", tone(channels=2, seed=2))
    put(tmp_path / "oh L.wav", tone(seed=3))  # no right
    put(tmp_path / "key_L.wav", tone(seed=4))  # other rates
    put(tmp_path / "key_R.wav", tone(seed=5, rate=48000), 48000)
    put(tmp_path / "1_tom L.wav", tone(seed=6))  # numbers that cannot be told apart
    put(tmp_path / "2_tom R.wav", tone(seed=7))
    put(tmp_path / "3_tom L.wav", tone(seed=8))
    assert len(load_session(tmp_path).names) == 8


# ---------------------------------------------------------------------------------------------------- the time line


def test_unequal_lengths_are_padded_at_the_end(tmp_path: Path) -> None:
    x = tone(2.5, seed=1)
    put(tmp_path / "short.wav", x)
    put(tmp_path / "long.wav", tone(4.0, seed=2))
    session = load_session(tmp_path)
    assert session.frames == 4 * RATE
    assert session.duration_s == 4.0
    y = session.read("short")
    assert y.shape == (1, 4 * RATE)
    np.testing.assert_allclose(y[:, : x.shape[1]], x, atol=2**-22)
    assert not y[:, x.shape[1] :].any()


def test_time_references_place_the_stems(tmp_path: Path) -> None:
    hour = 3600 * RATE
    a, b = tone(2.0, seed=1), tone(2.0, seed=2)
    put(tmp_path / "a.wav", a, reference=hour)
    put(tmp_path / "b.wav", b, reference=hour + 30_000)
    session = load_session(tmp_path)
    assert not session.warnings
    assert [stem.offset for stem in session.stems] == [0, 30_000]
    assert session.frames == 2 * RATE + 30_000
    whole = session.read("b")
    assert not whole[:, :30_000].any()
    np.testing.assert_allclose(whole[:, 30_000:], b, atol=2**-22)
    for start, stop, size in ((0, None, 1000), (29_990, 30_500, 64), (29_990, 30_010, 65536), (31_000, 99_999, 7001)):
        blocks = list(session.blocks("b", start, stop, size))
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole[:, start:stop])
        assert all(block.shape == (1, size) for block in blocks[:-1])


def test_a_mix_without_a_time_reference_leaves_the_others_theirs(tmp_path: Path) -> None:
    a, b, c = (tone(2.0, seed=seed) for seed in range(3))
    for name, x, reference in (("a", a, 7000), ("b", b, 9000), ("c", c, 7000)):
        put(tmp_path / f"{name}.wav", x, reference=reference)
    total = np.pad(a + c, ((0, 0), (0, 2000))) + np.pad(b, ((0, 0), (2000, 0)))
    put(tmp_path / "Mix 1.wav", 0.5 * total)
    session = load_session(tmp_path)
    assert [stem.offset for stem in session.stems] == [0, 2000, 0]
    assert [left.name for left in session.left_out] == ["Mix 1"]


@pytest.mark.parametrize(
    ("references", "says"),
    [((0, 90_000 * RATE), "start 90000 s late"), ((5000, None), "have none: b"), ((0, 3600 * RATE), "3600 s late")],
)
def test_time_references_that_make_no_sense_are_ignored(
    tmp_path: Path, references: tuple[int | None, ...], says: str
) -> None:
    for name, reference in zip("ab", references, strict=True):
        put(tmp_path / f"{name}.wav", tone(seed=ord(name) % 5), reference=reference)
    session = load_session(tmp_path)
    assert [stem.offset for stem in session.stems] == [0, 0]
    assert len(session.warnings) == 1
    assert "time references ignored" in session.warnings[0]
    assert says in session.warnings[0]


def test_the_most_common_rate_wins_and_time_is_kept(tmp_path: Path) -> None:
    click = np.zeros((1, 2 * 48000), np.float32)
    click[0, 48000] = 0.5
    put(tmp_path / "a.wav", tone(seed=1))
    put(tmp_path / "b.wav", tone(seed=2))
    put(tmp_path / "tick.wav", click, 48000)
    session = load_session(tmp_path)
    assert session.sample_rate == RATE
    assert session.warnings == ("resampled to 44100 Hz, the rate of most stems: tick (48000 Hz)",)
    x = session.read("tick")
    assert x.shape[1] == 3 * RATE
    assert int(np.argmax(np.abs(x))) == RATE
    (tmp_path / "b.wav").unlink()
    assert load_session(tmp_path).sample_rate == 48000  # of two as common, the higher


def test_peak_activity_and_silence(tmp_path: Path) -> None:
    x = tone(3.0, channels=2, seed=1)
    x[:, RATE : 2 * RATE] = 0.0
    put(tmp_path / "a.wav", x, reference=0)
    put(tmp_path / "b.wav", tone(3.5, seed=2), reference=RATE // 2)
    hiss = np.random.default_rng(0).uniform(-5e-5, 5e-5, (1, RATE)).astype(np.float32)
    put(tmp_path / "nothing.wav", hiss, reference=0)
    session = load_session(tmp_path)
    a, b, nothing = session.stems
    assert (a.silent, b.silent, nothing.silent) == (False, False, True)
    assert session.warnings == ("nothing: is silent; it is kept and never amplified",)
    assert a.peak == pytest.approx(np.abs(x).max(), abs=1e-6)
    for stem in (a, b):
        padded = np.pad(session.read(stem), ((0, 0), (0, 4 * RATE - session.frames)))
        expected = np.square(padded, dtype=np.float64).reshape(stem.channels, 4, RATE).mean(axis=(0, 2))
        np.testing.assert_allclose(stem.activity, expected, rtol=1e-4, atol=1e-12)
    assert session.frames == 4 * RATE


# ---------------------------------------------------------------------------------------------------- left out


def test_clicks_and_guides_are_left_out_and_taken_back(tmp_path: Path) -> None:
    song(tmp_path, "kick vox")
    names = ["Click Track", "metronome 120", "Guide Vox", "kick click", "count in"]
    for seed, name in enumerate(names):
        put(tmp_path / f"{name}.wav", tone(seed=seed))
    session = load_session(tmp_path)
    assert session.names == ("kick", "kick click", "vox")
    assert {(left.name, left.reason) for left in session.left_out} == {
        ("Click Track", "click"),
        ("count in", "click"),
        ("metronome 120", "click"),
        ("Guide Vox", "guide"),
    }
    assert len(session.warnings) == 4
    assert any("Guide Vox: left out" in w and '--include "Guide Vox"' in w for w in session.warnings)
    for include in ("Guide Vox", "guide vox.wav", "guide*", str(tmp_path / "Guide Vox.wav")):
        assert "Guide Vox" in load_session(tmp_path, include=[include]).names
    with pytest.raises(InputError, match="drumz"):
        load_session(tmp_path, include=["drumz"])


@pytest.mark.parametrize("name", ["Rough Mix", "take 7"])
def test_a_file_that_nulls_is_the_mix_whatever_its_name(tmp_path: Path, name: str) -> None:
    put(tmp_path / f"{name}.wav", 0.37 * song(tmp_path), subtype="PCM_16")
    session = load_session(tmp_path)
    assert [(left.name, left.reason) for left in session.left_out] == [(name, "mix")]
    assert len(session.stems) == 5
    assert any(name in warning and "is the mix of the others" in warning for warning in session.warnings)
    assert name in load_session(tmp_path, include=[name]).names


def test_a_name_alone_makes_no_mix(tmp_path: Path) -> None:
    total = song(tmp_path, "kick snare oh bass vox")
    drums = np.zeros_like(total)
    for name in ("kick", "snare", "oh"):
        drums += sf.read(tmp_path / f"{name}.wav", always_2d=True, dtype="float32")[0].T
    put(tmp_path / "Drum Mix.wav", drums)
    put(tmp_path / "Master.wav", tone(3.0, channels=2, seed=9))
    session = load_session(tmp_path)
    assert not session.left_out
    assert len(session.stems) == 7


def test_a_master_is_known_by_its_name_and_its_sound(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    stems = {name: random.standard_normal(12 * RATE).astype(np.float32) * 0.1 for name in ("kick", "bass", "vox")}
    for name, x in stems.items():
        put(tmp_path / f"{name}.wav", x[np.newaxis])
    mastered = np.tanh(6.0 * sum(stems.values()))
    late = np.concatenate([0.1 * random.standard_normal(20_000), mastered]).astype(np.float32)[np.newaxis]
    put(tmp_path / "My Song MASTER.wav", late)
    assert [left.reason for left in load_session(tmp_path).left_out] == ["mix"]
    (tmp_path / "My Song MASTER.wav").rename(tmp_path / "gtr.wav")  # by its sound alone it stays
    assert not load_session(tmp_path).left_out


def test_two_mixes_beside_each_other_both_go(tmp_path: Path) -> None:
    total = song(tmp_path)
    put(tmp_path / "mix.wav", 0.4 * total)
    put(tmp_path / "bounce.flac", np.tanh(2 * total))
    assert {left.name for left in load_session(tmp_path).left_out} == {"mix", "bounce"}


def test_doubles_and_pairs_are_no_mixes(tmp_path: Path) -> None:
    x = tone(seed=1)
    put(tmp_path / "kick in.wav", x)
    put(tmp_path / "kick out.wav", 0.5 * x)
    put(tmp_path / "vox.wav", 0.003 * tone(seed=2))
    assert not load_session(tmp_path).left_out
    (tmp_path / "vox.wav").unlink()
    assert not load_session(tmp_path).left_out


# ---------------------------------------------------------------------------------------------------- wrong input


def test_wrong_folders_and_files_are_refused_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "readme.txt").write_text("hello")
    song(tmp_path / "fake", "vox")
    (tmp_path / "fake" / "kick.wav").write_text("I am a kick\n" * 99)
    song(tmp_path / "cut", "vox")
    put(tmp_path / "cut" / "kick.flac", tone(10.0, seed=1))
    data = (tmp_path / "cut" / "kick.flac").read_bytes()
    (tmp_path / "cut" / "kick.flac").write_bytes(data[: len(data) // 2])
    song(tmp_path / "nan", "vox")
    put(tmp_path / "nan" / "kick.wav", np.full((1, 100), np.nan, np.float32), subtype="FLOAT")
    song(tmp_path / "zero", "vox")
    (tmp_path / "zero" / "kick.wav").touch()
    song(tmp_path / "wide", "vox")
    put(tmp_path / "wide" / "kick.wav", tone(channels=6))
    put(tmp_path / "clicks" / "click.wav", tone())
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "kick.wav").symlink_to(tmp_path / "gone.wav")
    for folder, says in {
        "empty": "no audio files in it",
        "text": "no audio files in it",
        "nowhere": "cannot be read",
        "text/readme.txt": "is a file: give the folder",
        "fake": r"kick\.wav: is a text file",
        "cut": r"kick\.flac: is damaged or cut short",
        "nan": r"kick\.wav: holds a NaN",
        "zero": r"kick\.wav: the file is empty",
        "wide": r"kick\.wav: has 6 channels: split it",
        "clicks": "only click or guide tracks",
        "links": r"kick\.wav: cannot be read",
    }.items():
        with pytest.raises(InputError, match=says) as caught:
            load_session(tmp_path / folder)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("permissions_bite")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    song(tmp_path, "kick vox")
    (tmp_path / "kick.wav").chmod(0)
    with pytest.raises(InputError, match=r"kick\.wav: cannot be read"):
        load_session(tmp_path)
    (tmp_path / "sub").mkdir(mode=0)
    with pytest.raises(InputError, match="sub: cannot be read"):
        load_session(tmp_path)


# ---------------------------------------------------------------------------------------------------- from arrays


def test_from_arrays() -> None:
    mono, stereo = tone(1.0)[0], tone(2.5, channels=2, seed=1)
    session = Session.from_arrays({"vox": mono, "drums/oh": stereo.astype(np.float64)}, RATE, name="mine")
    assert (session.name, session.names, session.frames) == ("mine", ("drums/oh", "vox"), stereo.shape[1])
    assert isinstance(session.stems[0], Stem)
    assert [stem.group for stem in session.stems] == ["drums", None]
    np.testing.assert_array_equal(session.read("vox")[0, : len(mono)], mono)
    np.testing.assert_array_equal(read(session.source("drums/oh")), stereo)
    with pytest.raises(InputError, match="no such stem"):
        session.stem("bass")


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"a": np.zeros((100, 2), np.float32)},
        {"a": np.zeros((2, 2, 2), np.float32)},
        {"a": np.zeros(0, np.float32)},
        {"a": np.zeros(100, np.int16)},
        {"a": np.array([0.0, np.nan], np.float32)},
        {"a": np.array([0.0, 1e7], np.float32)},
    ],
)
def test_from_arrays_refuses(arrays: dict[str, FloatArray]) -> None:
    with pytest.raises(InputError):
        Session.from_arrays(arrays, RATE)


# ---------------------------------------------------------------------------------------------------- real sessions

REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real sessions are not on this machine")
def test_no_real_stem_is_taken_for_the_mix() -> None:
    for folder in ("mdn-multitrack", "lmms-demos/CapDan-ReggaeTry"):
        assert not load_session(REAL / folder).left_out


@pytest.mark.skipif(not REAL.is_dir() or shutil.which("ffmpeg") is None, reason="no real sessions, or no ffmpeg")
def test_a_real_low_rate_master_and_a_lossy_mix_are_left_out(tmp_path: Path) -> None:
    caesium = load_session(REAL / "everything-is-free" / "6.Caesium")
    assert [left.name for left in caesium.left_out] == ["human_master_lowbitrate"]
    assert caesium.duration_s == 60.0
    reggae = load_session(REAL / "lmms-demos" / "CapDan-ReggaeTry")
    total = np.zeros((2, reggae.frames), np.float32)
    for stem in reggae.stems:
        (tmp_path / stem.files[0].name).symlink_to(stem.files[0])
        total += reggae.read(stem)
    sf.write(tmp_path / "x.wav", total.T / (1.1 * np.abs(total).max()), reggae.sample_rate)
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "x.wav"), "-b:a", "128k", str(tmp_path / "take.mp3")]
    subprocess.run(command, check=True)
    (tmp_path / "x.wav").unlink()
    assert [left.name for left in load_session(tmp_path).left_out] == ["take"]
