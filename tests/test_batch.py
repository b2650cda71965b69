"""Mix many sessions: which folders are sessions, what is written of them, what is mixed again and what is not."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stems import RATE, band, beat, libebur128, mixrl, write

from mixrl import InputError, ProcessingError, read_recipe
from mixrl.batching import batch
from mixrl.finding import find_sessions, sessions_among
from mixrl.records import read_record
from mixrl.storage import Folder
from mixrl.worker import How, Task, work_on

QUICK = ("--polish", "0", "--steps", "0")
FAST = {"polish": 0, "steps": 0}


def songs(root: Path, *names: str) -> Path:
    """Sessions of two stems, each at a tempo of its own."""
    for index, name in enumerate(names):
        write(root / name, {"kick": beat(2, 100 + 10 * index), "bass": band(2)["bass"]})
    return root


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def identity(path: Path) -> tuple[int, int]:
    """Other once a file was written anew."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def found(root: Path, out: Path | None = None) -> list[str]:
    return list(find_sessions(Folder(str(root)), Folder(str(out or root.parent / "out")))[0])


def record_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def one(root: Path, out: Path, name: str = "a", **options):
    """Mix one session in this process."""
    how = How(**FAST, **options.pop("how", {}))
    task = Task(name, Folder(str(root / name)), Folder(str(out / name)), how, how.settings(), **options)
    return work_on(task)


# ----------------------------------------------------------------------------------------------- what is a session


@pytest.mark.parametrize(
    ("files", "names", "loose"),
    [
        (["b/kick.wav", "a/drums/kick.flac", "c/notes.txt"], ["a", "b"], {}),
        (["kick.wav", "a/kick.wav"], ["a"], {"": 1}),
        (["album/song/mixrl.toml", "album/song/kick.wav"], ["album/song"], {}),
        (["a/b/c/mixrl.toml", "a/b/c/kick.wav", "a/d/kick.wav"], ["a/b/c", "a/d"], {}),
        (["album/song/mixrl.toml", "album/old.wav", "album/older.wav"], ["album/song"], {"album": 2}),
        (["song/mixrl.toml", "song/kick.wav", "song/drums/mixrl.toml"], ["song"], {}),
        (["empty/mixrl.toml"], ["empty"], {}),
        (["mixrl.toml", "a/kick.wav"], ["a"], {}),
        (["a.wav/kick.WAV"], ["a.wav"], {}),
    ],
)
def test_which_folders_are_sessions(files, names, loose):
    assert sessions_among(files) == (tuple(names), loose)


def test_what_is_hidden_and_the_output_are_not_looked_at(tmp_path):
    root = tmp_path / "songs"
    for name in ("song/kick.wav", ".trash/kick.wav", "__MACOSX/kick.wav", "late/._kick.wav", "mixes/song/mix.wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert found(root) == ["mixes", "song"]
    assert found(root, root / "mixes") == ["song"]
    assert found(root, root / "made" / "mixes") == ["mixes", "song"]


def test_links_lead_to_sessions_but_not_in_circles(tmp_path):
    root = tmp_path / "songs"
    for folder in (root / "song" / "drums", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
        (folder / "kick.wav").touch()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "song")
    (root / "self").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "song" / "drums" / "round").symlink_to(root)
    assert found(root) == ["linked", "song"]


def test_no_sessions_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        found(tmp_path / "songs")
    (tmp_path / "songs").mkdir()
    with pytest.raises(InputError, match="no sessions in it: give a folder of session folders"):
        found(tmp_path / "songs")
    (tmp_path / "songs" / "kick.wav").touch()
    with pytest.raises(InputError, match="mix it with `mixrl mix`"):
        found(tmp_path / "songs")
    with pytest.raises(InputError, match="is a file"):
        found(tmp_path / "songs" / "kick.wav")


# ----------------------------------------------------------------------------------------------- what is written


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder of sessions, two good ones and two that cannot be mixed, and what `mixrl batch` makes of them."""
    work = tmp_path_factory.mktemp("batch")
    root = songs(work / "songs", "album/first", "second")
    (root / "album" / "first" / "mixrl.toml").write_text("target = -20.0\n")
    broken = np.zeros(RATE, np.float32)
    broken[999] = np.nan
    for name in ("nan", "empty"):
        write(root / name, {"kick": beat(1)})
    soundfile.write(root / "nan" / "vox.wav", broken, RATE, subtype="FLOAT")
    (root / "empty" / "vox.wav").write_bytes(b"")
    code, printed, err = mixrl("batch", root, "-o", work / "out", *QUICK, "--jobs", 2)
    (work / "printed").write_text(printed, encoding="utf-8")
    (work / "err").write_text(err, encoding="utf-8")
    assert code == 1
    return work


def test_each_session_gets_its_files(work):
    names = ("mix.wav", "recipe.json", "result.json")
    expected = {f"{session}/{name}" for session in ("album/first", "second") for name in names}
    assert set(tree(work / "out")) == {*expected, "nan/result.json", "empty/result.json", "batch.jsonl"}


def test_mixes_are_what_was_asked_for_and_recipes_give_them_again(work, tmp_path):
    for name, target in (("album/first", -20.0), ("second", -14.0)):
        assert libebur128(work / "out" / name / "mix.wav")[0] == pytest.approx(target, abs=0.1)
        assert read_recipe(work / "out" / name / "recipe.json")[1] == work / "songs" / name
    assert mixrl("render", work / "out" / "album/first/recipe.json", "-o", tmp_path / "a.wav")[0] == 0
    assert (tmp_path / "a.wav").read_bytes() == (work / "out/album/first/mix.wav").read_bytes()


def test_records_say_what_a_mix_was_made_from(work):
    record = record_of(work / "out" / "album" / "first")
    assert (record["session"], record["status"], record["error"]) == ("album/first", "mixed", None)
    assert set(record["inputs"]) == {"kick.wav", "bass.wav", "mixrl.toml"}
    folder = Folder(str(work / "out" / "album" / "first"))
    assert record["outputs"] == {name: folder.digest(name) for name in ("mix.wav", "recipe.json")}
    assert record["settings"]["encoding"] == "wav24"
    assert "policy.safetensors" in record["settings"]["data"]
    assert "target" not in record["settings"]  # is mixrl.toml's
    assert record["integrated_lufs"] == pytest.approx(-20.0, abs=0.1)
    assert record["true_peak_dbtp"] <= -1.0
    assert record["target_reached"] is True
    assert record["winner"]
    assert record["score_after"] >= record["score_before"]


def test_records_of_what_failed_name_the_file_but_not_the_place(work):
    nan, empty = (record_of(work / "out" / name) for name in ("nan", "empty"))
    assert nan["error"].startswith("vox.wav: holds a NaN")
    assert empty["error"].startswith("vox.wav: the file is empty")
    for record in (nan, empty):
        assert record["status"] == "failed"
        assert record["outputs"] == {}
        assert "vox.wav" in record["inputs"]
    assert not [name for name, data in tree(work / "out").items() if str(work).encode() in data]


def test_results_are_gathered_in_order(work):
    lines = (work / "out" / "batch.jsonl").read_text(encoding="utf-8").splitlines()
    names = ["album/first", "empty", "nan", "second"]
    assert [json.loads(line) for line in lines] == [record_of(work / "out" / name) for name in names]


def test_a_person_reads_what_came_of_each(work):
    printed, err = ((work / name).read_text(encoding="utf-8") for name in ("printed", "err"))
    assert len(err.splitlines()) == 4
    assert any(line.split("/4 ")[1].startswith("second: -14.0 LUFS, ") for line in err.splitlines())
    assert "left" in err
    assert "2 mixed, 2 failed, 0 skipped" in printed
    assert "core-hours" in printed
    assert "failed: vox.wav" in printed


def test_bad_usage_is_one_line_and_writes_nothing(work, tmp_path):
    root = work / "songs"
    for options, message in (
        (["-o", work / "out"], "holds results already (batch.jsonl): go on from them with --resume"),
        (["-o", tmp_path / "o", "--resume", "--force"], "not both"),
        (["-o", root], "would end up among stems"),
        (["-o", root / "second" / "mixes"], "would end up among stems"),
        (["-o", tmp_path / "o", "--encoding", "mp3"], "no encoding 'mp3': there are wav16"),
        (["-o", tmp_path / "o", "--target", "3"], "target 3 is out of range"),
        (["-o", tmp_path / "o", "--engine", "slurm"], "no engine 'slurm': give local, or dask://HOST:PORT"),
        (["-o", tmp_path / "o", "--jobs", "0"], "--jobs"),
        (["-o", tmp_path / "o", "--preset", "vinyl"], "no preset 'vinyl'"),
        (["-o", "nowhere://mixes"], "nowhere://mixes: no such storage"),
    ):
        before = tree(work)
        code, out, err = mixrl("batch", root, *options)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
        assert tree(work) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no locks on folders")
def test_two_batches_do_not_write_to_one_folder(tmp_path):
    songs(tmp_path / "songs", "a")
    seen = []

    def another(*_: object) -> None:
        if not seen:
            code, out, err = mixrl("batch", tmp_path / "songs", "-o", tmp_path / "out", "--force", *QUICK)
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert err.startswith(f"mixrl: {tmp_path / 'out'}: another batch is writing to it: wait")
            seen.append(err)

    made = batch(tmp_path / "songs", tmp_path / "out", jobs=1, progress=another, **FAST)
    assert ([result.status for result in made.results], len(seen)) == (["mixed"], 1)
    assert batch(tmp_path / "songs", tmp_path / "out", jobs=1, resume=True, **FAST).results[0].status == "skipped"


def test_an_output_around_the_sessions_may_not_meet_them(tmp_path):
    songs(tmp_path / "songs", "songs/a")
    with pytest.raises(InputError, match="among stems"):
        batch(tmp_path / "songs", tmp_path)


# ----------------------------------------------------------------------------------------------- going on


def test_resume_mixes_only_what_is_not_there(work, tmp_path):
    root, out = shutil.copytree(work / "songs", tmp_path / "songs"), tmp_path / "out"
    shutil.copytree(work / "out", out)
    before = {name: identity(out / name / "mix.wav") for name in ("album/first", "second")}
    write(root / "second", {"kick": beat(2, 90)})
    write(root / "nan", {"vox": beat(1, hat=True)})
    (out / "album" / "first" / ".mix.0123abcd.part.wav").touch()
    (out / "album" / "first" / "..mix.0123abcd.part.0123abcd.part.wav").touch()
    (out / ".batch.0123abcd.part.jsonl").touch()
    code, printed, err = mixrl("batch", root, "-o", out, *QUICK, "--resume", "--json")
    assert (code, err) == (1, "")
    said = json.loads(printed)
    status = {session["session"]: session["status"] for session in said["sessions"]}
    assert status == {"album/first": "skipped", "empty": "failed", "nan": "mixed", "second": "mixed"}
    assert (said["mixed"], said["failed"], said["skipped"]) == (2, 1, 1)
    assert identity(out / "album/first/mix.wav") == before["album/first"]
    assert identity(out / "second/mix.wav") != before["second"]
    assert not [name for name in tree(out) if ".part" in name]
    # as if nothing had been there before
    assert mixrl("batch", root, "-o", tmp_path / "new", *QUICK)[0] == 1
    assert tree(out) == tree(tmp_path / "new")


@pytest.fixture
def mixed(tmp_path):
    """A session "a" below songs, and its mix below out."""
    songs(tmp_path / "songs", "a")
    assert one(tmp_path / "songs", tmp_path / "out").status == "mixed"
    return tmp_path


def test_what_is_the_same_is_skipped(mixed):
    before = {path: identity(path) for path in (mixed / "out" / "a").iterdir()}
    os.utime(mixed / "songs" / "a" / "kick.wav")  # its contents count, not its age
    assert one(mixed / "songs", mixed / "out", resume=True).status == "skipped"
    assert {path: identity(path) for path in (mixed / "out" / "a").iterdir()} == before
    assert one(mixed / "songs", mixed / "out", force=True).status == "mixed"
    assert {path: identity(path) for path in (mixed / "out" / "a").iterdir()} != before


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def claim_nothing(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "outputs": {}}))


@pytest.mark.parametrize(
    "change",
    [
        lambda at: damage(at / "songs/a/kick.wav"),
        lambda at: write(at / "songs/a", {"hat": beat(2, hat=True)}),
        lambda at: (at / "songs/a/mixrl.toml").write_text("target = -16\n"),
        lambda at: damage(at / "out/a/mix.wav"),
        lambda at: (at / "out/a/mix.wav").unlink(),
        lambda at: (at / "out/a/recipe.json").write_text("{}"),
        lambda at: (at / "out/a/result.json").unlink(),
        lambda at: (at / "out/a/result.json").write_bytes((at / "out/a/result.json").read_bytes()[:200]),
        lambda at: (at / "out/a/result.json").write_text('{"format": "other", "version": 1}'),
        lambda at: (at / "out/a/result.json").write_text("[]"),
        lambda at: claim_nothing(at / "out/a/result.json"),
        lambda at: (at / "out/a/result.json").write_bytes(b"\xff\xfe\x00"),
    ],
)
def test_what_has_changed_is_mixed_again(change, mixed):
    change(mixed)
    made = one(mixed / "songs", mixed / "out", resume=True)
    assert made.status == "mixed"
    fresh = mixed / "fresh"
    assert one(mixed / "songs", fresh).record == made.record
    assert tree(fresh) == tree(mixed / "out")
    assert one(mixed / "songs", mixed / "out", resume=True).status == "skipped"


@pytest.mark.parametrize(
    "how", [{"target": -16.0}, {"seed": 1}, {"encoding": "wav16"}, {"ceiling": -2.0}, {"strength": {"eq": 0.5}}]
)
def test_other_settings_are_mixed_again(how, mixed):
    assert one(mixed / "songs", mixed / "out", resume=True, how=how).status == "mixed"
    assert one(mixed / "songs", mixed / "out", resume=True, how=how).status == "skipped"
    assert one(mixed / "songs", mixed / "out", resume=True).status == "mixed"


def test_a_mix_of_another_kind_takes_the_place_of_the_old_one(mixed):
    assert one(mixed / "songs", mixed / "out", resume=True, how={"encoding": "flac16"}).status == "mixed"
    assert {path.name for path in (mixed / "out" / "a").iterdir()} == {"mix.flac", "recipe.json", "result.json"}
    (mixed / "out" / "a" / "mix.wav").touch()  # as if it had been killed before the old one was removed
    assert one(mixed / "songs", mixed / "out", resume=True, how={"encoding": "flac16"}).status == "skipped"
    assert not (mixed / "out" / "a" / "mix.wav").exists()


def test_a_session_that_fails_now_keeps_no_mix_that_looks_fresh(mixed):
    (mixed / "songs" / "a" / "kick.wav").write_bytes(b"")
    made = one(mixed / "songs", mixed / "out", resume=True)
    assert (made.status, made.record.outputs) == ("failed", {})
    assert [path.name for path in (mixed / "out" / "a").iterdir()] == ["result.json"]


def test_a_mix_stays_where_only_making_it_again_failed(mixed, monkeypatch):
    def full(*arguments):
        raise MemoryError

    (mixed / "out" / "a" / "recipe.json").unlink()
    monkeypatch.setattr("mixrl.worker._planned", full)
    made = one(mixed / "songs", mixed / "out", resume=True)
    assert (made.status, made.record.outputs) == ("failed", {})
    assert made.error.startswith("out of memory")
    assert (mixed / "out" / "a" / "mix.wav").exists()
    assert one(mixed / "songs", mixed / "out", force=True).status == "failed"
    assert not (mixed / "out" / "a" / "mix.wav").exists()
    monkeypatch.undo()
    assert one(mixed / "songs", mixed / "out", resume=True).status == "mixed"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (lambda folder: ValueError(f"what\nis {folder}?"), "unexpected ValueError: what is a?"),
        (lambda folder: OSError(5, "Input/output error", str(folder / "kick.wav")), "kick.wav: Input/output error"),
        (lambda folder: AssertionError, "unexpected AssertionError"),
    ],
)
def test_any_error_is_a_line_without_places(error, said, mixed, monkeypatch):
    def broken(work):
        raise error(work.folder)

    monkeypatch.setattr("mixrl.worker._planned", broken)
    assert one(mixed / "songs", mixed / "out", force=True).error == said


def test_a_worker_of_another_version_does_not_mix(mixed):
    how = How(**FAST)
    other = {**how.settings(), "mixrl": "9"}
    made = work_on(Task("a", Folder(str(mixed / "songs/a")), Folder(str(mixed / "new/a")), how, other))
    assert made.status == "failed"
    assert "another version of mixrl" in made.error


def test_names_of_every_kind(tmp_path):
    name = "it's [100%] – ü"
    songs(tmp_path / "my songs", name)
    assert one(tmp_path / "my songs", tmp_path / "out", name).status == "mixed"
    assert read_record(Folder(str(tmp_path / "out" / name))).session == name
    assert one(tmp_path / "my songs", tmp_path / "out", name, resume=True).status == "skipped"


def test_from_python(tmp_path):
    songs(tmp_path / "songs", "a")
    told, stages = [], []
    made = batch(
        tmp_path / "songs", tmp_path / "out", jobs=1, **FAST, target=None, encoding="flac16",
        progress=lambda result, done, total: told.append((result.session, done, total)), stages=stages.append,
    )  # fmt: skip
    assert told == [("a", 1, 1)]
    assert [result.status for result in made.results] == ["mixed"]
    assert made.failed == ()
    assert made.core_hours_per_1000 > 0.0
    assert record_of(tmp_path / "out" / "a")["settings"]["target"] is None
    assert {name for stage in stages for name in stage} == {"a"}
    with pytest.raises(InputError, match="--resume"):
        batch(tmp_path / "songs", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(ProcessingError, match="cannot be written to"):
        batch(tmp_path / "songs", tmp_path / "file" / "out")
