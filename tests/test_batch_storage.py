"""Batches from and to storages that fsspec knows, and on a Dask cluster."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

import pytest
from test_batch import identity, one, songs, tree

from mixrl import InputError
from mixrl.batching import batch
from mixrl.finding import find_sessions
from mixrl.records import read_record
from mixrl.storage import Folder
from mixrl.worker import How, Task, work_on

FAST = {"polish": 0, "steps": 0}


# ----------------------------------------------------------------------------------------------- storages


@pytest.fixture
def fsspec():
    return pytest.importorskip("fsspec", reason="needs the cluster extra")


@pytest.fixture
def memory(fsspec):
    """An empty storage in the memory of this process."""
    storage = fsspec.filesystem("memory")
    storage.rm("/", recursive=True) if storage.ls("/") else None
    yield storage
    storage.store.clear()


def sent(storage, folder, url: str) -> None:
    storage.put(f"{folder}/", url.removeprefix("memory:/"), recursive=True)


def remote_task(**options) -> Task:
    how = How(**FAST)
    return Task("a", Folder("memory://songs/a"), Folder("memory://mixes/a"), how, how.settings(), **options)


def test_a_session_in_a_storage_is_mixed_and_then_neither_read_nor_mixed_again(memory, tmp_path, monkeypatch):
    songs(tmp_path / "songs", "a")
    sent(memory, tmp_path / "songs", "memory://songs")
    assert find_sessions(Folder("memory://songs"), Folder("memory://songs/out"))[0] == ("a",)
    assert work_on(remote_task(scratch=tmp_path)).status == "mixed"
    assert [path.name for path in tmp_path.iterdir()] == ["songs"]  # no copy is left
    here = one(tmp_path / "songs", tmp_path / "out").record
    there = read_record(Folder("memory://mixes/a"))
    assert (there.inputs, there.outputs["mix.wav"]) == (here.inputs, here.outputs["mix.wav"])
    assert set(there.versions) == set(there.inputs)
    assert memory.cat("/mixes/a/mix.wav") == (tmp_path / "out/a/mix.wav").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "fetch", None)
        assert work_on(remote_task(resume=True)).status == "skipped"
    memory.pipe("/mixes/a/mix.wav", memory.cat("/mixes/a/mix.wav")[:-1])
    assert work_on(remote_task(resume=True)).status == "mixed"


def test_what_was_sent_again_is_compared_and_what_is_new_is_mixed(memory, tmp_path):
    songs(tmp_path / "songs", "a")
    sent(memory, tmp_path / "songs", "memory://songs")
    assert work_on(remote_task()).status == "mixed"
    before = read_record(Folder("memory://mixes/a")).versions
    time.sleep(0.01)
    memory.pipe("/songs/a/kick.wav", memory.cat("/songs/a/kick.wav"))
    assert work_on(remote_task(resume=True)).status == "skipped"
    after = read_record(Folder("memory://mixes/a")).versions
    assert after["bass.wav"] == before["bass.wav"]
    assert after["kick.wav"] != before["kick.wav"]
    memory.pipe("/songs/a/kick.wav", memory.cat("/songs/a/kick.wav")[:-300] + bytes(300))
    assert work_on(remote_task(resume=True)).status == "mixed"
    memory.pipe("/songs/a/kick.wav", b"")
    made = work_on(remote_task(resume=True))
    assert (made.status, made.error.split(":")[0]) == ("failed", "kick.wav")
    assert memory.ls("/mixes/a", detail=False) == ["/mixes/a/result.json"]


@pytest.mark.parametrize(("scheme_in", "scheme_out"), [("file://", "file://"), ("", "file://"), ("file://", "")])
def test_a_batch_from_and_to_urls(scheme_in, scheme_out, fsspec, tmp_path):
    songs(tmp_path / "songs", "a", "shelf/b")
    (tmp_path / "songs/shelf/b/mixrl.toml").write_text("target = -16\n")
    root, out = f"{scheme_in}{tmp_path / 'songs'}", f"{scheme_out}{tmp_path / 'out'}"
    made = batch(root, out, jobs=2, **FAST)
    assert [(result.session, result.status) for result in made.results] == [("a", "mixed"), ("shelf/b", "mixed")]
    files = {f"{name}/{file}" for name in ("a", "shelf/b") for file in ("mix.wav", "recipe.json", "result.json")}
    assert set(tree(tmp_path / "out")) == {*files, "batch.jsonl"}
    with pytest.raises(InputError, match="holds results already"):
        batch(root, out, **FAST)
    before = tree(tmp_path / "out"), identity(tmp_path / "out/a/mix.wav")
    (tmp_path / "out/a/.mix.0123abcd.part.wav").touch()
    made = batch(root, out, jobs=2, resume=True, **FAST)
    assert [result.status for result in made.results] == ["skipped", "skipped"]
    assert (tree(tmp_path / "out"), identity(tmp_path / "out/a/mix.wav")) == before


def test_urls_that_lead_nowhere_are_errors(fsspec, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such storage"):
        batch("nowhere://songs", tmp_path / "out")
    with pytest.raises(InputError, match="no sessions in it"):
        batch(f"file://{tmp_path}/songs", tmp_path / "out")
    songs(tmp_path / "songs", "a")
    with pytest.raises(InputError, match="would end up among stems"):
        batch(f"file://{tmp_path}/songs", f"file://{tmp_path}/songs/a/out")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match=r'needs fsspec: pip install "mixrl\[cluster\]"'):
        batch("s3://bucket/songs", tmp_path / "out")


def test_paths_on_this_machine_need_no_fsspec(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    songs(tmp_path / "songs", "a")
    assert one(tmp_path / "songs", tmp_path / "out").status == "mixed"


# ----------------------------------------------------------------------------------------------- Dask


def test_a_cluster_that_loses_a_worker_mixes_all(tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the cluster extra")
    root = songs(tmp_path / "songs", "song 0")
    for number in range(1, 20):
        shutil.copytree(root / "song 0", root / f"song {number}")
        (root / f"song {number}" / "mixrl.toml").write_text(f"target = {-14 - number / 4}\n")
    killed = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        engine = cluster.scheduler_address.replace("tcp://", "dask://")

        def kill(result, done: int, total: int) -> None:
            if done == 4:
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)

        made = batch(root, tmp_path / "out", engine=engine, progress=kill, **FAST)
    assert killed
    assert [result.status for result in made.results] == ["mixed"] * 20
    for result in made.results:
        number = int(result.session.split()[1])
        assert result.record.integrated_lufs == pytest.approx(-14 - number / 4, abs=0.1)
    assert not [name for name in tree(tmp_path / "out") if ".part" in name]
    again = batch(root, tmp_path / "out", resume=True, **FAST)  # here: nothing to do
    assert [result.status for result in again.results] == ["skipped"] * 20


def test_no_scheduler_is_an_error(tmp_path):
    pytest.importorskip("distributed", reason="needs the cluster extra")
    songs(tmp_path / "songs", "a")
    with pytest.raises(InputError, match="no Dask scheduler answers there"):
        batch(tmp_path / "songs", tmp_path / "out", engine="dask://127.0.0.1:1", **FAST)
    assert not (tmp_path / "out").exists()
