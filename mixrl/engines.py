"""Run tasks in processes, on this machine or on a Dask cluster; one that kills its process does not stop the others."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
import warnings
from asyncio import CancelledError as TaskCancelled
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

from mixrl.errors import InputError, ProcessingError
from mixrl.threads import LIMIT

LOCAL = "local"
CLUSTER = "dask://"
STRIKES = 2
"""So often may a task be at work when a process dies before it has to run alone."""

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Killed:
    """What comes of a task that killed its process though nothing else was at work. how: the signal, as far as known,
    "SIGKILL(-9)"."""

    how: str = ""


def check_engine(engine: str) -> None:
    """InputError for an engine that is none, or that needs what is not installed."""
    if engine == LOCAL:
        return
    if not re.fullmatch(r"dask://[^/]+:\d+", engine):
        raise InputError(f"no engine {engine!r}: give local, or dask://HOST:PORT of a Dask scheduler")
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise InputError(f'{engine}: needs Dask: pip install "mixrl[cluster]"') from None


@dataclass(frozen=True)
class Crew:
    """Processes that wait for work. at_once: so many tasks are given at a time; threads: so many each may use."""

    at_once: int
    local: bool = True
    threads: int = 1


@contextmanager
def crew(engine: str = LOCAL, jobs: int | None = None) -> Iterator[Crew]:
    """The processes of an engine, ``jobs`` of them (None: one for each core that this process may use, or for each
    thread of a cluster's workers). Raises InputError for an engine that does not answer."""
    from joblib import cpu_count, parallel_config

    check_engine(engine)
    if engine == LOCAL:
        # one thread for BLAS: sums depend on their number
        try:
            with parallel_config(backend="loky", inner_max_num_threads=1), warnings.catch_warnings():
                # joblib replaces processes that have come to hold much memory: long sessions, no leak
                warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")
                cores = int(cpu_count())
                yield Crew(cores if jobs is None else jobs, threads=max(1, cores // (jobs or cores)))
        finally:
            _dismiss()
        return
    import distributed
    from distributed.comm.core import CommClosedError

    connect: Any = distributed.Client
    address = engine.removeprefix(CLUSTER)
    try:
        client = connect(f"tcp://{address}", timeout=10)
    except (OSError, TimeoutError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{engine}: no Dask scheduler answers there ({why}): check host and port") from None
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise InputError(f"{engine}: the scheduler has no workers: start some with `dask worker {address}`")
        try:
            with parallel_config(backend="dask", client=client):
                yield Crew(threads if jobs is None else jobs, local=False)
        except (TaskCancelled, CancelledError, CommClosedError):
            mend = "start it again, and go on with --resume"
            raise ProcessingError(f"{engine}: the Dask scheduler was lost: {mend}") from None


def run(
    work: Callable[[_T], _R], tasks: Mapping[str, _T], by: Crew
) -> Generator[tuple[str, _R | Killed], None, None]:
    """The name and ``work(task)`` of each task as it is done.

    ``work`` and the tasks have to be picklable, and ``work`` has to be fit to be run again. A dying process takes along
    what else is at work on this machine, so all of that is run again, and alone once it was there twice; what kills its
    process even then comes as ``Killed``. It is always a process of its own, also for one task. What ``work`` raises
    ends the run.
    """
    waiting, strikes = dict(tasks), Counter[str]()
    while waiting:
        together = [name for name in waiting if strikes[name] < STRIKES]
        names = together or [next(iter(waiting))]
        at_once = min(by.at_once, len(names))
        handed: list[str] = []
        ended = None
        try:
            given = {name: waiting[name] for name in names}
            for name, result in _started(work, given, handed, replace(by, at_once=at_once)):
                del waiting[name]
                yield name, result
        except _deaths() as error:
            ended = str(error)
        if ended is None:
            continue
        if together:
            # first come, first served: the rest of what was handed out had not begun
            lost = [name for name in handed if name in waiting][:at_once]
            strikes.update(lost or names[:at_once])
        elif names[0] in waiting:
            del waiting[names[0]]
            signals = re.search(r"\bSIG[A-Z]+\(-\d+\)", ended)
            yield names[0], Killed(signals[0] if signals else "")


def _started(
    work: Callable[[_T], _R], tasks: Mapping[str, _T], handed: list[str], by: Crew
) -> Iterator[tuple[str, _R]]:
    """Results as they are done; ``handed`` grows by the name of each task that joblib has taken."""
    from joblib import Parallel, delayed

    parent = os.getpid() if by.local else None

    def calls() -> Iterator[Any]:
        for name, task in tasks.items():
            handed.append(name)
            yield delayed(_called)(work, name, task, parent, by.threads)

    # with one job joblib would do without processes: there is a second one then, but one task at a time
    parallel: Any = Parallel(
        n_jobs=max(2, by.at_once), return_as="generator_unordered", batch_size=1, pre_dispatch=by.at_once,
        max_nbytes=None,
    )  # fmt: skip
    with _interrupts_held():
        results = parallel(calls())
    try:
        yield from results
    finally:
        results.close()


def _dismiss() -> None:
    """End joblib's processes, which would wait for more work with all that they have loaded."""
    from joblib.externals.loky import get_reusable_executor

    executor = get_reusable_executor(reuse=True)
    end = getattr(executor, "terminate", executor.shutdown)  # joblib's own, which knows its temporary folder too
    end(kill_workers=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started now do not hear of Ctrl-C: the one that started them ends them, without tracebacks."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _called(work: Callable[[_T], _R], name: str, task: _T, parent: int | None, threads: int) -> tuple[str, _R]:
    os.environ.setdefault(LIMIT, str(threads))  # the user's own setting stands
    if parent is not None:
        _end_with(parent)
    return name, work(task)


@lru_cache(maxsize=1)
def _end_with(parent: int) -> None:
    """A process whose parent was killed would write on beside the run that takes up its work. Ctrl-C is not for it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    if os.getppid() != parent:  # the task runs in the same process after all
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _deaths() -> tuple[type[BaseException], ...]:
    """What is raised where a process died."""
    scheduler = sys.modules.get("distributed.scheduler")
    return (BrokenProcessPool,) if scheduler is None else (BrokenProcessPool, scheduler.KilledWorker)
