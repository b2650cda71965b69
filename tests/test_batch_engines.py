"""Tasks in processes that may die, here and on a Dask cluster; batches that are killed at any moment."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_batch import songs, tree

from mixrl import InputError
from mixrl.batching import ALL, batch
from mixrl.engines import Killed, check_engine, crew, run
from mixrl.worker import SKIPPED

ROOT = Path(__file__).parent.parent
FAST = {"polish": 0, "steps": 0}


def shout(word: str) -> str:
    """Work that kills its process for some words."""
    if word.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return f"{word.upper()} {os.getpid()}"


def done_by(jobs: int, *words: str) -> dict[str, str | Killed]:
    with crew("local", jobs) as by:
        pairs = list(run(shout, {word: word for word in words}, by))
    assert sorted(name for name, _ in pairs) == sorted(words)
    return {name: made if isinstance(made, Killed) else made.split()[0] for name, made in pairs}


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_a_task_that_kills_its_process_is_told_and_the_others_are_done(jobs):
    killed = Killed("SIGKILL(-9)")
    made = done_by(jobs, "a", "die", "b", "c", "die too", "d")
    assert made == {"a": "A", "die": killed, "b": "B", "c": "C", "die too": killed, "d": "D"}


def test_even_one_task_has_a_process_of_its_own():
    with crew("local", 1) as by:
        ((_, made),) = run(shout, {"a": "a"}, by)
    assert made.split()[1] != str(os.getpid())
    assert done_by(1, "die") == {"die": Killed("SIGKILL(-9)")}


@pytest.mark.parametrize("engine", ["", "dask", "dask://", "dask://host", "dask://host:port", "ray://a:1"])
def test_what_is_no_engine_is_an_error(engine):
    with pytest.raises(InputError, match=r"give local, or dask://HOST:PORT"):
        check_engine(engine)


def test_without_dask_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r'pip install "mixrl\[cluster\]"'):
        check_engine("dask://127.0.0.1:8786")


def test_a_session_whose_process_is_killed_is_recorded(tmp_path, monkeypatch):
    songs(tmp_path / "songs", "a", "b")
    monkeypatch.setattr("mixrl.batching.work_on", kill_for_a)
    made = batch(tmp_path / "songs", tmp_path / "out", jobs=2, **FAST)
    assert [result.status for result in made.results] == ["failed", "mixed"]
    assert made.results[0].error.startswith("the process that mixed it was killed by SIGKILL(-9) (out of memory?)")
    assert (tmp_path / "out" / "a" / "result.json").exists()
    monkeypatch.undo()
    made = batch(tmp_path / "songs", tmp_path / "out", jobs=2, resume=True, **FAST)
    assert [result.status for result in made.results] == ["mixed", SKIPPED]


def kill_for_a(task):
    from mixrl.worker import work_on

    if task.session == "a":
        os.kill(os.getpid(), signal.SIGKILL)
    return work_on(task)


# ----------------------------------------------------------------------------------------------- killed batches


def command(root: Path | str, out: Path | str, *more: str) -> list[str]:
    options = ["--polish", "0", "--steps", "0", "--jobs", "2", "--resume", *more]
    return [sys.executable, str(ROOT / "cli.py"), "batch", str(root), "-o", str(out), *options]


@pytest.mark.parametrize("more", [(), ("--album",)], ids=["songs", "album"])
def test_a_batch_that_is_killed_again_and_again_ends_as_if_it_never_was(more, tmp_path):
    """MIXRL_KILLS: how often (6)."""
    kills = int(os.environ.get("MIXRL_KILLS", "6"))
    root = songs(tmp_path / "songs", *(f"song {number}" for number in range(6)))
    for out in ("first", "calm"):  # the first may have to compile
        started = time.monotonic()
        assert subprocess.run(command(root, tmp_path / out, *more), capture_output=True).returncode == 0
        whole = time.monotonic() - started
    assert tree(tmp_path / "first") == tree(tmp_path / "calm")
    rng = random.Random(7)
    cut, midway = 0, 0
    while cut < kills:
        process = subprocess.Popen(
            command(root, tmp_path / "out", *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(rng.uniform(0.2, 1.0) * whole)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            clear_away(process.pid)
            cut += 1
            midway += (tmp_path / "out").exists() and tree(tmp_path / "out") != tree(tmp_path / "calm")
        else:
            assert code == 0  # it was done before: begin anew
            assert tree(tmp_path / "out") == tree(tmp_path / "calm")
            shutil.rmtree(tmp_path / "out")
    assert midway >= kills // 4  # or nothing was tried
    ended = subprocess.run(command(root, tmp_path / "out", *more), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert tree(tmp_path / "out") == tree(tmp_path / "calm")


def clear_away(pid: int) -> None:
    """What joblib's processes shared, which those of them that would see to it could not."""
    for path in Path("/dev/shm").glob(f"*loky-{pid}-*"):
        path.unlink()
    for path in Path("/dev/shm").glob(f"joblib_memmapping_folder_{pid}_*"):
        shutil.rmtree(path)


def test_processes_end_with_the_one_that_started_them(tmp_path):
    """Only that one is killed: nobody may write on beside the run that takes up its work."""
    code = f"from test_batch_engines import sleep_on; sleep_on({str(tmp_path)!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    until = time.monotonic() + 60.0
    while not (found := list(tmp_path.iterdir())) and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.wait()
    (worker,) = (int(path.name) for path in found)
    while time.monotonic() < until:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").exists() and Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":
            return  # nobody waits for it where there is no init
        time.sleep(0.05)
    pytest.fail("it lives on")


def sleep_on(folder: str) -> None:
    with crew("local", 1) as by:
        list(run(mark_and_sleep, {"a": folder}, by))


def mark_and_sleep(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(300)


def heed_interrupts() -> None:
    """What is started in the background of a shell ignores Ctrl-C, and all that it starts does, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_it_at_once_and_finished_sessions_stay(tmp_path):
    root = songs(tmp_path / "songs", *(f"song {number}" for number in range(30)))
    process = subprocess.Popen(
        command(root, tmp_path / "out"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert process.stderr is not None
    first = process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    asked = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - asked < 5.0
    assert process.returncode == 130
    assert first.startswith("1/30 song")
    assert "go on with --resume" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out" / ALL).exists()
    assert not [name for name in tree(tmp_path / "out") if ".part" in name]
    mixed = [name for name in tree(tmp_path / "out") if name.endswith("result.json")]
    assert 1 <= len(mixed) < 30
