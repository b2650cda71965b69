"""Batches from and to object storage, over the network as S3 speaks it: a server of that kind runs beside the tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from test_batch import songs, tree
from test_batch_engines import clear_away, command

from mixrl.batching import batch
from mixrl.records import read_record
from mixrl.storage import Folder

pytest.importorskip("s3fs", reason="needs the test extra")
moto = pytest.importorskip("moto.server", reason="needs the test extra")

FAST = {"polish": 0, "steps": 0}
ROOT, OUT = "s3://music/songs", "s3://music/mixes/first"


@pytest.fixture(scope="module")
def server():
    """Where a storage answers that any process on this machine may use."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(300):
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    started.kill()
    started.wait()


@pytest.fixture
def s3(server, monkeypatch):
    """An empty bucket, "music"."""
    import fsspec

    for name, value in {
        "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    storage = fsspec.filesystem("s3", skip_instance_cache=True)
    storage.mkdir("music")
    yield storage
    storage.rm("music", recursive=True)


def statuses(made) -> dict[str, str]:
    return {result.session: result.status for result in made.results}


def test_a_batch_from_and_to_a_bucket(s3, tmp_path):
    songs(tmp_path / "songs", "a", "shelf/b", "bad")
    (tmp_path / "songs/shelf/b/mixrl.toml").write_text("target = -16\n")
    (tmp_path / "songs/bad/kick.wav").write_bytes(b"no audio")
    s3.put(f"{tmp_path / 'songs'}/", "music/songs/", recursive=True)
    made = batch(ROOT, OUT, jobs=2, **FAST)
    assert statuses(made) == {"a": "mixed", "bad": "failed", "shelf/b": "mixed"}
    files = {f"{name}/{file}" for name in ("a", "shelf/b") for file in ("mix.wav", "recipe.json", "result.json")}
    assert set(Folder(OUT).files()) == {*files, "bad/result.json", "batch.jsonl"}

    shutil.rmtree(tmp_path / "songs/bad")
    here = batch(tmp_path / "songs", tmp_path / "out", jobs=2, **FAST)
    assert [result.record.outputs["mix.wav"] for result in here.results] == [
        read_record(Folder(OUT).below(name)).outputs["mix.wav"] for name in ("a", "shelf/b")
    ]
    s3.get(f"{OUT}/", f"{tmp_path}/fetched/", recursive=True)
    assert tree(tmp_path / "fetched")["a/mix.wav"] == tree(tmp_path / "out")["a/mix.wav"]

    # mended, changed and sent again: what has to be done is done, and nothing else
    s3.put_file(f"{tmp_path}/songs/a/kick.wav", "music/songs/bad/kick.wav")
    s3.put_file(f"{tmp_path}/songs/a/bass.wav", "music/songs/a/kick.wav")
    before = s3.info("music/mixes/first/shelf/b/mix.wav")["LastModified"]
    again = batch(ROOT, OUT, jobs=2, resume=True, **FAST)
    assert statuses(again) == {"a": "mixed", "bad": "mixed", "shelf/b": "skipped"}
    s3.invalidate_cache()
    assert s3.info("music/mixes/first/shelf/b/mix.wav")["LastModified"] == before
    assert set(statuses(batch(ROOT, OUT, jobs=2, resume=True, **FAST)).values()) == {"skipped"}


def test_an_album_in_a_bucket_is_the_one_on_this_machine(s3, tmp_path):
    songs(tmp_path / "songs", "a", "b")
    s3.put(f"{tmp_path / 'songs'}/", "music/songs/", recursive=True)
    there = batch(ROOT, OUT, jobs=2, album=True, **FAST)
    here = batch(tmp_path / "songs", tmp_path / "out", jobs=2, album=True, **FAST)
    assert there.offsets_db == here.offsets_db
    assert [result.record.outputs["mix.wav"] for result in there.results] == [
        result.record.outputs["mix.wav"] for result in here.results
    ]


def contents(url: str) -> dict[str, bytes]:
    folder = Folder(url)
    return {name: folder.read(name) for name in folder.files()}


def test_a_batch_of_a_bucket_that_is_killed_ends_as_if_it_never_was(s3, tmp_path):
    songs(tmp_path / "songs", *(f"song {number}" for number in range(6)))
    s3.put(f"{tmp_path / 'songs'}/", "music/songs/", recursive=True)
    started = time.monotonic()
    assert subprocess.run(command(ROOT, "s3://music/calm"), capture_output=True).returncode == 0
    whole = time.monotonic() - started
    calm = contents("s3://music/calm")
    assert len(calm) == 6 * 3 + 1
    cut = 0
    for share in (0.4, 0.6, 0.6):  # each goes on from where the one before was
        process = subprocess.Popen(
            command(ROOT, OUT), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(share * whole)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            clear_away(process.pid)
            cut += 1
            there = contents(OUT)
            assert {name: calm[name] for name in there} == there  # whole, or not there
    assert cut
    ended = subprocess.run(command(ROOT, OUT), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert contents(OUT) == calm


def test_a_bucket_that_is_not_there_is_a_line(s3, tmp_path):
    from stems import mixrl

    code, out, err = mixrl("batch", "s3://nothing-of-the-kind/songs", "-o", tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("mixrl: s3://nothing-of-the-kind/songs: ")
    assert not (tmp_path / "out").exists()
