"""Work on many sessions, a process each, where one that fails does not stop the others."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import TypeVar

from mixrl.errors import InputError, MixrlError

_T = TypeVar("_T")


def each_session(
    work: Callable[[str, Path], _T],
    sessions: Mapping[str, Path],
    jobs: int = 1,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[dict[str, _T], dict[str, str]]:
    """What ``work(name, folder)`` makes of each session, ``jobs`` at a time, in the order of the sessions; and by name
    why some failed. progress: called with the name of each session that is done, or has failed.

    Raises InputError with the first reason where all fail. With more than one job, ``work`` has to be picklable.
    """
    made: dict[str, _T] = {}
    failed: dict[str, str] = {}

    def finish(name: str, result: Callable[[], _T]) -> None:
        try:
            made[name] = result()
        except MixrlError as error:
            failed[name] = str(error)
        progress(name)

    if jobs > 1 and len(sessions) > 1:
        spawn = multiprocessing.get_context("spawn")  # not forked: numpy and numba have threads
        with ProcessPoolExecutor(min(jobs, len(sessions)), spawn) as pool:
            waiting = {pool.submit(work, name, folder): name for name, folder in sessions.items()}
            try:
                for done in as_completed(waiting):
                    finish(waiting[done], done.result)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    else:
        for name, folder in sessions.items():
            finish(name, partial(work, name, folder))
    failed = {name: failed[name] for name in sessions if name in failed}
    if not made:
        raise InputError(next(iter(failed.values()), "no sessions"))
    return {name: made[name] for name in sessions if name in made}, failed
