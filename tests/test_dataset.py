"""Sessions to learn from: levels, splits, resuming, and what one bad source does to the others."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from mixrl import dataset
from mixrl.agent.material import has_balance
from mixrl.audio import Writer
from mixrl.dataset import MANIFEST, Built, build
from mixrl.errors import InputError
from mixrl.session import load_session
from mixrl.songs import PARTS, SHARES, Song, assign, find_songs, part_of_hash, read_split
from tests.stems import RATE, band, mixrl, write

SPLIT = Path(__file__).parent.parent / "benchmarks" / "split.json"


def split_file(path: Path, **parts: list[str]) -> Path:
    path.write_text(json.dumps({"about": "who may learn", **parts}), encoding="utf-8")
    return path


def song(folder: Path, scale: float = 1.0, seconds: float = 3.0) -> Path:
    return write(folder, {name: scale * audio for name, audio in band(seconds).items()})


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def outcome(report: dataset.Report) -> dict[str, str]:
    return {built.name: built.status for built in report.sessions}


# ------------------------------------------------------------------------------------------------------- levels


def test_stems_keep_their_relative_levels_and_nothing_clips(tmp_path: Path) -> None:
    stems = band(3.0)
    hot = {f"drums/{name}" if name == "kick" else name: 3.0 * audio for name, audio in stems.items()}
    for name, audio in hot.items():
        path = tmp_path / "hot" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, audio.T, RATE, subtype="FLOAT")
    report = build([tmp_path / "hot"], tmp_path / "out", split_file(tmp_path / "s.json", test=["hot"]))
    assert outcome(report) == {"hot": "built"}
    folder = tmp_path / "out" / "test" / "hot"
    manifest = json.loads((folder / MANIFEST).read_text())
    gain = 10 ** (manifest["gain_db"] / 20)
    assert manifest["gain_db"] < -6.0
    assert (manifest["kind"], manifest["source"], manifest["seconds"]) == ("real", "hot", 3.0)
    highest = 0.0
    for name, audio in hot.items():
        got, rate = soundfile.read(folder / f"{name}.flac", dtype="float32", always_2d=True)
        assert rate == RATE
        assert soundfile.info(folder / f"{name}.flac").subtype == "PCM_16"
        np.testing.assert_allclose(got.T, np.atleast_2d(audio) * gain, atol=3.1 / 2**16)  # 16 bits and their dither
        highest = max(highest, float(np.abs(got).max()))
    assert 20 * np.log10(highest) == pytest.approx(dataset.PEAK_DB, abs=0.02)
    assert {row["file"]: row["role"] for row in manifest["stems"]} == {
        "bass.flac": "bass", "drums/kick.flac": "kick", "keys.flac": "keys", "vocal.flac": "vocal",
    }  # fmt: skip
    assert load_session(folder).names == load_session(tmp_path / "hot").names


def test_stems_that_are_not_too_hot_are_not_touched(tmp_path: Path) -> None:
    song(tmp_path / "calm", 0.5)
    build([tmp_path / "calm"], tmp_path / "out", split_file(tmp_path / "s.json", train=["calm"]))
    assert json.loads((tmp_path / "out/train/calm" / MANIFEST).read_text())["gain_db"] == 0.0


def test_silent_stems_are_dropped_and_too_few_make_no_session(tmp_path: Path) -> None:
    stems = band(3.0)
    quiet = np.zeros_like(stems["kick"])
    write(tmp_path / "in" / "full", {**stems, "choir": quiet})
    write(tmp_path / "in" / "bare", {"kick": stems["kick"], "choir": quiet})
    report = build([tmp_path / "in"], tmp_path / "out", jobs=1)
    by_name = {built.name: built for built in report.sessions}
    assert (by_name["full"].status, by_name["full"].stems) == ("built", 4)
    assert by_name["bare"].status == "skipped"
    assert "only 1 of its 2 stems" in by_name["bare"].reason
    assert not list((tmp_path / "out").rglob("choir*"))
    assert not list((tmp_path / "out").rglob("bare"))
    assert not report.failed


def test_long_songs_become_the_excerpt_where_most_stems_play(tmp_path: Path) -> None:
    rate, seconds = 8000, 60
    rng = np.random.default_rng(0)

    def noise(start: int, stop: int) -> NDArray[np.float32]:
        audio = np.zeros(rate * seconds, np.float32)
        audio[start * rate : stop * rate] = 0.1 * rng.standard_normal((stop - start) * rate)
        return audio

    write(tmp_path / "long", {"bass": noise(0, 60), "kick": noise(25, 50), "vox": noise(30, 50)}, rate)
    build([tmp_path / "long"], tmp_path / "out", split_file(tmp_path / "s.json", train=["long"]))
    folder = tmp_path / "out/train/long"
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["excerpt_s"] == [[30.0, 50.0]]
    vox, _ = soundfile.read(folder / "vox.flac")
    original, _ = soundfile.read(tmp_path / "long/vox.wav")
    np.testing.assert_allclose(vox, original[30 * rate : 50 * rate], atol=3.1 / 2**16)


# -------------------------------------------------------------------------------------------------------- split


def test_the_split_decides_and_other_songs_are_placed_by_their_music(tmp_path: Path) -> None:
    song(tmp_path / "in" / "one")
    song(tmp_path / "in" / "two", 0.9)
    shutil.copytree(tmp_path / "in" / "one", tmp_path / "in" / "copy of one")
    song(tmp_path / "in" / "free", 0.8)
    split = split_file(tmp_path / "s.json", validation=["one"], test=["two"])
    report = build([tmp_path / "in"], tmp_path / "out", split, jobs=1)
    parts = {built.name: built.part for built in report.sessions}
    assert (parts["one"], parts["two"]) == ("validation", "test")
    assert parts["copy of one"] == "validation"
    assert sorted(built.status for built in report.sessions) == ["built", "built", "built", "skipped"]
    renamed = (tmp_path / "in" / "free").rename(tmp_path / "other name")
    (renamed / "bass.wav").rename(renamed / "zbass.wav")
    again = build([renamed], tmp_path / "out2")
    assert again.sessions[0].part == parts["free"], "a song's place must not depend on names"
    assert (tmp_path / "out2" / parts["free"] / "other name").is_dir()


def test_a_session_says_when_its_levels_are_nobodys(tmp_path: Path) -> None:
    song(tmp_path / "in" / "one")
    song(tmp_path / "in" / "two", 0.9)
    split = tmp_path / "s.json"
    split.write_text(json.dumps({"train": ["one", "two"], "no_balance": ["two"]}))
    build([tmp_path / "in"], tmp_path / "out", split, jobs=1)
    assert [has_balance(tmp_path / "out/train" / name) for name in ("one", "two")] == [True, False]
    split.write_text(json.dumps({"train": ["one", "two"], "no_balance": "two"}))
    with pytest.raises(InputError, match="no_balance"):
        build([tmp_path / "in"], tmp_path / "out", split, jobs=1)


def test_the_same_music_in_two_parts_is_refused(tmp_path: Path) -> None:
    song(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    split = split_file(tmp_path / "s.json", train=["one"], test=["two"])
    with pytest.raises(InputError, match="one and two are the same music"):
        build([tmp_path / "one", tmp_path / "two"], tmp_path / "out", split)


def test_hashes_are_shared_out_as_promised() -> None:
    counts = Counter(part_of_hash(f"{i:064x}") for i in range(4000))
    for part, share in zip(PARTS, SHARES, strict=True):
        assert counts[part] / 4000 == pytest.approx(share, abs=0.03)
    assert part_of_hash("ab" * 32) == part_of_hash("ab" * 32)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"train": "one"}', '{"train": [1]}', '{"train": ["a"], "test": ["a"]}'],
)
def test_a_bad_split_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(InputError, match=r"s\.json") as caught:
        read_split(tmp_path / "s.json")
    assert "\n" not in str(caught.value)


def test_the_projects_own_split_keeps_its_promises() -> None:
    named = read_split(SPLIT)
    counts = Counter(named.values())
    real = {  # what a policy has never been trained on, and must not be
        "1.Hydrogen", "6.Caesium", "CapDan-ReggaeTry", "Skiessi-Onion", "Oglsdl-Dr8v2", "mdn-multitrack",
    }  # fmt: skip
    assert {named[name] for name in real} == {"test"}
    assert {named[name] for name in ("TameAnderson-MakeMe", "CapDan-ReggaetonTry")} == {"validation"}
    assert named["freedoom1_D_E1M5"] == named["freedoom1_D_E2M6"], "they are the same piece"
    assert counts["train"] >= 48 + 7
    assert counts["test"] >= 24 + 6
    assert counts["validation"] >= 14 + 2


def test_songs_are_found_in_folders_of_folders(tmp_path: Path) -> None:
    song(tmp_path / "in" / "album" / "one")
    song(tmp_path / "in" / "grouped" / "drums")
    (tmp_path / "in" / "two.mid").write_bytes(b"MThd")
    (tmp_path / "in" / "album" / "one" / "notes.mid").write_bytes(b"MThd")  # goes with the stems
    (tmp_path / "in" / "notes.txt").write_text("hello")
    song(tmp_path / "in" / ".hidden")
    assert [(s.name, s.kind) for s in find_songs([tmp_path / "in"])] == [
        ("drums", "real"), ("one", "real"), ("two", "midi"),
    ]  # fmt: skip
    named = find_songs([tmp_path / "in"], {"grouped": "train"})
    assert [s.name for s in named] == ["grouped", "one", "two"]
    twice = find_songs([tmp_path / "in", tmp_path / "in" / "album" / "one"])
    assert [s.name for s in twice] == ["drums", "one", "two"]
    song(tmp_path / "elsewhere" / "one")
    with pytest.raises(InputError, match="same name"):
        find_songs([tmp_path / "in", tmp_path / "elsewhere"])


# ----------------------------------------------------------------------------------------------------- resuming


def test_two_builds_are_the_same_bytes_whatever_the_number_of_jobs(tmp_path: Path) -> None:
    for i, scale in enumerate((1.0, 0.9, 0.7)):
        song(tmp_path / "in" / f"song{i}", scale)
    build([tmp_path / "in"], tmp_path / "a", jobs=1)
    build([tmp_path / "in"], tmp_path / "b", jobs=2)
    first = contents(tmp_path / "a")
    assert len(first) == 3 * 5
    assert first == contents(tmp_path / "b")


def test_finished_sessions_are_kept_and_changed_ones_wait_for_force(tmp_path: Path) -> None:
    song(tmp_path / "in" / "one")
    song(tmp_path / "in" / "two", 0.9)
    split = split_file(tmp_path / "s.json", train=["one", "two"])
    arguments = [tmp_path / "in"], tmp_path / "out", split
    build(*arguments, jobs=1)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.flac")}
    assert outcome(build(*arguments, jobs=1)) == {"one": "kept", "two": "kept"}
    assert outcome(build(*arguments, jobs=1, force=True)) == {"one": "kept", "two": "kept"}
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.flac")} == before
    song(tmp_path / "in" / "one", 0.5)
    report = build(*arguments, jobs=1)
    assert outcome(report) == {"one": "failed", "two": "kept"}
    assert "--force" in report.failed[0].reason
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.flac")} == before
    assert outcome(build(*arguments, jobs=1, force=True)) == {"one": "built", "two": "kept"}
    (tmp_path / "out/train/two/bass.flac").unlink()  # somebody removed a stem: not finished any more
    assert outcome(build(*arguments, jobs=1, force=True)) == {"one": "kept", "two": "built"}


def test_a_song_that_moved_to_another_part_is_never_in_both(tmp_path: Path) -> None:
    song(tmp_path / "one")
    build([tmp_path / "one"], tmp_path / "out", split_file(tmp_path / "s.json", train=["one"]))
    moved = split_file(tmp_path / "t.json", test=["one"])
    assert outcome(build([tmp_path / "one"], tmp_path / "out", moved)) == {"one": "failed"}
    assert outcome(build([tmp_path / "one"], tmp_path / "out", moved, force=True)) == {"one": "built"}
    assert [p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/*/*")] == ["test/one"]


def test_interrupted_in_the_middle_it_leaves_no_half_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, scale in enumerate((1.0, 0.9, 0.7)):
        song(tmp_path / "in" / f"song{i}", scale)
    split = split_file(tmp_path / "s.json", train=["song0", "song1", "song2"])
    build([tmp_path / "in"], tmp_path / "whole", split, jobs=1)
    written: set[Path] = set()
    real_write = Writer.write

    def dies(self: Writer, block: NDArray[np.float32]) -> None:
        written.add(self.path)
        if len(written) > 6:  # the third stem of the second session
            raise KeyboardInterrupt
        real_write(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            build([tmp_path / "in"], tmp_path / "out", split, jobs=1)
    assert [p.name for p in (tmp_path / "out/train").iterdir()] == ["song0"]
    report = build([tmp_path / "in"], tmp_path / "out", split, jobs=1)
    assert outcome(report) == {"song0": "kept", "song1": "built", "song2": "built"}
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_process_that_dies_costs_one_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, scale in enumerate((1.0, 0.9, 0.7)):
        song(tmp_path / "in" / f"song{i}", scale)
    tasks = [dataset._Task(s, tmp_path / "out", None, "", False) for s in find_songs([tmp_path / "in"])]
    done: list[Built] = []
    monkeypatch.setattr(dataset, "_make", dies_on_song1)
    lost = dataset._in_pool(tasks, 1, done.append)
    assert "song1" in {task.song.name for task in lost}
    for task in lost:
        if dataset._in_pool([task], 1, done.append):
            assert task.song.name == "song1"
    assert {built.name for built in done} == {"song0", "song2"}


def dies_on_song1(task: dataset._Task) -> Built:
    import os

    if task.song.name == "song1":
        os._exit(9)
    return Built(task.song.name, "real", "train", "built")


# -------------------------------------------------------------------------------------------------- bad sources


def test_one_bad_source_does_not_stop_the_others(tmp_path: Path) -> None:
    pytest.importorskip("mido", reason="needs the train extra")
    song(tmp_path / "in" / "good")
    song(tmp_path / "in" / "cut")
    whole = (tmp_path / "in/cut/bass.wav").read_bytes()
    (tmp_path / "in/cut/bass.wav").write_bytes(whole[: len(whole) // 3])
    code, out, _ = mixrl("dataset", tmp_path / "in", "-o", tmp_path / "out", "--jobs", 1)
    assert code == 1
    assert "good" in out
    assert "failed: cut" in out
    assert "bass.wav" in out.replace("\n", "")
    assert len(list(tmp_path.glob("out/*/good"))) == 1
    assert not list(tmp_path.glob("out/*/cut"))
    assert not list(tmp_path.glob("out/.*"))


def test_the_command_line_counts_and_refuses(tmp_path: Path) -> None:
    song(tmp_path / "one")
    split = split_file(tmp_path / "s.json", train=["one"])
    code, out, _ = mixrl("dataset", tmp_path / "one", "-o", tmp_path / "out", "--split", split, "--json")
    assert code == 0
    data = json.loads(out)
    assert data["counts"] == {"train": {"real": 1, "midi": 0}, "validation": {"real": 0, "midi": 0},
                              "test": {"real": 0, "midi": 0}}  # fmt: skip
    assert (data["sessions"][0]["name"], data["sessions"][0]["stems"]) == ("one", 4)
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.txt").write_text("x")
    for source in (tmp_path / "none", tmp_path / "empty", tmp_path / "x.txt"):
        code, _, err = mixrl("dataset", source, "-o", tmp_path / "new")
        assert (code, err.strip().count("\n")) == (2, 0)
        assert source.name in err
        assert not (tmp_path / "new").exists()
    code, _, err = mixrl("dataset", tmp_path / "one", "-o", tmp_path / "new", "--split", tmp_path / "x.txt")
    assert (code, err.strip().count("\n")) == (2, 0)


# --------------------------------------------------------------------------------------------------------- MIDI


def write_midi(path: Path, channels: int, offset: int = 0) -> Path:
    mido = pytest.importorskip("mido", reason="needs the train extra")
    track = mido.MidiTrack([mido.Message("program_change", channel=c, program=8 * c) for c in range(channels)])
    for beat in range(8):
        for channel in range(channels):
            track.append(mido.Message("note_on", channel=channel, note=50 + channel + offset + beat % 3, velocity=90))
        track.append(mido.Message("note_off", channel=0, note=50 + offset + beat % 3, time=480))
    file = mido.MidiFile(type=0, ticks_per_beat=480)
    file.tracks.append(track)
    file.save(path)
    return path


@pytest.fixture
def soundfont(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SoundFont by its header, and a program called fluidsynth that plays a tone for every channel of a file."""
    if sys.platform == "win32":
        pytest.skip("needs a POSIX shell")
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "fluidsynth"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys, mido, numpy as np, soundfile\n"
        "out = sys.argv[sys.argv.index('-F') + 1]\n"
        "file = mido.MidiFile(sys.argv[-1])\n"
        "n = round(file.length * 44100)\n"
        "channel = next((m.channel for m in file.tracks[0] if m.type == 'note_on'), 0)\n"
        "tone = 0.05 / (1 + channel) * np.sin(np.arange(n) * 0.02 * (1 + channel))\n"
        "sides = [tone, tone if channel else 0.5 * tone]\n"
        "soundfile.write(out, np.array(sides, np.float32).T, 44100, subtype='FLOAT', format='WAV')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    font = tmp_path / "Tiny.sf2"
    font.write_bytes(b"RIFF\0\0\0\0sfbk")
    return font


def peaks(folder: Path) -> Mapping[str, float]:
    return {p.stem: float(np.abs(soundfile.read(p, always_2d=True)[0]).max()) for p in folder.glob("*.flac")}


def test_midi_becomes_sessions_with_one_gain_for_all_stems(tmp_path: Path, soundfont: Path) -> None:
    (tmp_path / "in").mkdir()
    write_midi(tmp_path / "in" / "trio.mid", 3)
    write_midi(tmp_path / "in" / "duo.mid", 2, offset=5)
    (tmp_path / "in" / "broken.mid").write_bytes(b"MThd\0\0")
    split = split_file(tmp_path / "s.json", train=["trio", "duo", "broken"])
    report = build([tmp_path / "in"], tmp_path / "out", split, soundfont=soundfont, jobs=1)
    assert outcome(report) == {"trio": "built", "duo": "skipped", "broken": "failed"}
    folder = tmp_path / "out/train/trio"
    got = peaks(folder)
    assert set(got) == {"01_keys_Grand Piano", "02_keys_Celesta", "03_keys_Drawbar Organ"}
    highest = 10 ** (dataset.PEAK_DB / 20)
    for i, name in enumerate(sorted(got)):
        assert got[name] == pytest.approx(highest / (1 + i), abs=2e-4)
    manifest = json.loads((folder / MANIFEST).read_text())
    assert (manifest["kind"], manifest["soundfont"], manifest["source"]) == ("midi", "Tiny.sf2", "trio.mid")
    assert [row["channels"] for row in manifest["stems"]] == [2, 1, 1], "what is the same on both sides is mono"
    assert str(tmp_path) not in (folder / MANIFEST).read_text()
    again = build([tmp_path / "in" / "trio.mid"], tmp_path / "out", split, soundfont=soundfont, jobs=1)
    assert outcome(again) == {"trio": "kept"}
    soundfont.write_bytes(b"RIFF\0\0\0\0sfbkother")
    other = build([tmp_path / "in" / "trio.mid"], tmp_path / "out", split, soundfont=soundfont, jobs=1)
    assert outcome(other) == {"trio": "failed"}, "another SoundFont makes another session"


def test_midi_without_a_soundfont_or_synthesiser_is_refused(
    tmp_path: Path, soundfont: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_midi(tmp_path / "trio.mid", 3)
    code, _, err = mixrl("dataset", path, "-o", tmp_path / "out", "--soundfont", tmp_path / "none.sf2")
    assert (code, err.strip().count("\n")) == (2, 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = mixrl("dataset", path, "-o", tmp_path / "out", "--soundfont", soundfont)
    assert (code, err.strip().count("\n")) == (1, 0)
    assert "fluidsynth" in err


def test_assigning_gives_every_song_a_part(tmp_path: Path) -> None:
    songs = [Song(f"s{i}", tmp_path, "midi", music=f"{i // 2:064x}") for i in range(6)]
    placed = assign(songs, {"s3": "test"})
    assert [s.part for s in placed[2:4]] == ["test", "test"]
    assert all(s.part in PARTS for s in placed)
    assert placed[0].part == placed[1].part
