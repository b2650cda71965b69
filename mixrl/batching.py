"""Mix every session below a folder, several at a time; a batch that was interrupted goes on where it was.

Which folders are sessions: see ``finding``. What is written: OUT/SESSION/mix.wav (or .flac) and recipe.json, then
result.json (see ``records``), each whole or not at all; in the end OUT/batch.jsonl, which gathers the results. What
becomes of former outputs: see ``worker``.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp

from mixrl.album import album_offset_db, shared_tone
from mixrl.engines import LOCAL, Crew, Killed, check_engine, crew, run
from mixrl.errors import InputError, ProcessingError
from mixrl.finding import find_sessions
from mixrl.mixer import POLISH, UNSAID, Mixer, Unsaid
from mixrl.records import FAILED, MIXED, OUTPUTS, RESULT, as_json, cause
from mixrl.storage import Folder, check_storage
from mixrl.worker import DELIVER, LISTEN, PLAN, How, Result, Task, killed, work_on

ALL = "batch.jsonl"
_WATCHED_S = 0.3

Progress = Callable[[Result, int, int], None]


@dataclass(frozen=True)
class Batch:
    """All sessions in order of their names. seconds: from start to end. warnings: audio that is in no session.
    offsets_db: by folder of songs that are an album ("" for ROOT), by how much all of its mixes were turned up; None
    where none of them has a loudness."""

    results: tuple[Result, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    offsets_db: Mapping[str, float | None] = field(default_factory=dict)

    def of_status(self, status: str) -> tuple[Result, ...]:
        """The sessions that are "mixed", "skipped" or "failed"."""
        return tuple(result for result in self.results if result.status == status)

    @property
    def failed(self) -> tuple[Result, ...]:
        return self.of_status(FAILED)

    @property
    def core_hours_per_1000(self) -> float | None:
        """What a thousand such sessions would take, from those that were mixed; None where none was."""
        mixed = self.of_status(MIXED)
        return sum(result.cpu_seconds for result in mixed) / len(mixed) / 3.6 if mixed else None


def batch(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    engine: str = LOCAL,
    resume: bool = False,
    force: bool = False,
    target: float | Unsaid | None = UNSAID,
    ceiling: float | Unsaid = UNSAID,
    bpm: float | None = None,
    strength: Mapping[str, float] | None = None,
    steps: int | None = None,
    polish: int = POLISH,
    seed: int = 0,
    encoding: str = "wav24",
    album: bool = False,
    progress: Progress = lambda result, done, total: None,
    stages: Callable[[Mapping[str, str]], None] | None = None,
) -> Batch:
    """Mix every session below ``root`` into a folder of its own below ``out``: ``mixrl.batch("songs", "mixes")``.

    root, out: folders, or URLs that fsspec knows ("s3://bucket/songs"). jobs: sessions at a time (None: one for each
    core). engine: "local", or "dask://HOST:PORT" of a scheduler, whose workers see the same folders. resume: skip what
    was mixed from the same files with the same settings and is still there. force: mix all anew. The other arguments
    are those of ``mixrl.mix``; encoding: wav16, wav24, wav32f, flac16 or flac24.

    album: the songs of a folder are one album (see ``album``): the loudest is at the target (-14 LUFS; no song's own
    target counts), and the others are as far below as their mixes are. Each song is worked on three times, since what
    they have in common is known only then: listened to, planned, delivered. What fails does not count.

    progress: called with each finished session, the number done and the number of all (three times as many for albums:
    each step counts). stages: called a few times a second, from a thread, with what is
    being done by session (not on Dask). Scripts that call this need the usual ``if __name__ == "__main__"``.

    What goes wrong with a session is in its result, and stops no other. Raises InputError for values that cannot be
    used, no sessions, an ``out`` that holds results already where neither resume nor force is given, and one that
    another batch is writing to, as far as that can be told (folders on Linux and macOS, not URLs).
    """
    started = time.perf_counter()
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs {jobs} is out of range: give 1 or more")
    if resume and force:
        raise InputError("give --resume or --force, not both: the one keeps what the other makes anew")
    if album and target is None:
        raise InputError("an album has a loudness that its loudest song is brought to: give a target")
    how = How(target, ceiling, bpm, dict(strength or {}), steps, polish, seed, encoding, album)
    _check(how)
    check_engine(engine)
    source, mixes = _folder(root), _folder(out)
    names, warnings = find_sessions(source, mixes)
    _check_places(source, mixes, names)
    _check_results(mixes, names, resume or force)
    settings = how.settings()
    offsets: dict[str, float | None] = {}
    with _scratch() as scratch, crew(engine, jobs) as by, _taken(mixes):
        tasks = {
            name: Task(
                name, source.below(name), mixes.below(name), how, settings, resume, force,
                scratch if by.local else None, scratch / f"{number}.stage" if by.local and stages else None,
            )
            for number, name in enumerate(names)
        }  # fmt: skip
        _sweep(mixes, tasks.values())
        try:
            with _watched(tasks, stages):
                if album:
                    results, offsets = _albums(tasks, by, progress)
                else:
                    results = _worked_on(tasks, by, progress)
        finally:
            _sweep(mixes, tasks.values())
        done = tuple(results[name] for name in names)
        mixes.write(ALL, b"".join(as_json(result.record.to_dict()) for result in done))
    return Batch(done, time.perf_counter() - started, warnings, offsets)


def _worked_on(
    tasks: Mapping[str, Task], by: Crew, progress: Progress, before: int = 0, total: int | None = None
) -> dict[str, Result]:
    """What comes of the tasks. before: how many were done already, of a total."""
    results: dict[str, Result] = {}
    with closing(run(work_on, tasks, by)) as finished:
        for name, made in finished:
            results[name] = killed(tasks[name], made) if isinstance(made, Killed) else made
            progress(results[name], before + len(results), len(tasks) if total is None else total)
    return results


def _albums(
    tasks: Mapping[str, Task], by: Crew, progress: Progress
) -> tuple[dict[str, Result], dict[str, float | None]]:
    """What comes of sessions that are the songs of albums, and the albums' offsets. What failed in one step is not in
    the next, and plays no part in what the others have in common."""
    results: dict[str, Result] = {}
    done = 0

    def step(asked: Mapping[str, Task], steps_left: int) -> None:
        nonlocal done
        found = _worked_on(asked, by, progress, done, done + steps_left * len(asked))
        done += len(asked)
        for name, result in found.items():
            before = results.get(name, Result(name, result.status, result.record))
            seconds, cpu_seconds = before.seconds + result.seconds, before.cpu_seconds + result.cpu_seconds
            results[name] = replace(result, seconds=seconds, cpu_seconds=cpu_seconds)

    def songs() -> dict[str, list[str]]:
        by_folder: dict[str, list[str]] = defaultdict(list)
        for name, result in results.items():
            if result.error is None:
                by_folder[name.rpartition("/")[0]].append(name)
        return {folder: sorted(names) for folder, names in sorted(by_folder.items())}

    step({name: replace(task, step=LISTEN) for name, task in tasks.items()}, 3)
    asked: dict[str, Task] = {}
    offsets: dict[str, float | None] = {}
    for names in songs().values():
        tone = shared_tone(results[name].record.album["tone_db"] for name in names)
        asked |= {name: replace(tasks[name], step=PLAN, tone=tone) for name in names}
    step(asked, 2)
    asked = {}
    for folder, names in songs().items():
        albums = [results[name].record.album for name in names]
        offsets[folder] = album_offset_db((one["premaster_lufs"], one["reached_lufs"]) for one in albums)
        asked |= {name: replace(tasks[name], step=DELIVER, offset_db=offsets[folder]) for name in names}
    step(asked, 1)
    return results, offsets


# -------------------------------------------------------------------------------------------------- what is asked


def _check(how: How) -> None:
    """InputError for values that no session could be mixed with."""
    from mixrl.audio import Encoding

    if how.encoding not in [kind.value for kind in Encoding]:
        raise InputError(f"no encoding {how.encoding!r}: there are {', '.join(kind.value for kind in Encoding)}")
    Mixer(
        target=-14.0 if isinstance(how.target, Unsaid) else how.target,
        ceiling=-1.0 if isinstance(how.ceiling, Unsaid) else how.ceiling,
        bpm=how.bpm, strength=how.strength, steps=how.steps, seed=how.seed, polish=how.polish,
    )  # fmt: skip


def _folder(place: str | os.PathLike[str]) -> Folder:
    """InputError for a storage that is not known."""
    text = os.fspath(place)
    check_storage(text)
    return Folder(text.rstrip("/") if "://" in text else os.path.abspath(text))


def _check_places(root: Folder, out: Folder, names: Sequence[str]) -> None:
    """InputError where mixes would end up among stems, or have no place."""
    if ALL in names:
        raise InputError(f"{root.below(ALL).address}: has the name that the list of results gets: rename it")
    if not out.remote and out.path.exists() and not out.path.is_dir():
        raise InputError(f"{out.address}: is a file: give a folder for the mixes")
    if root.remote != out.remote:
        return
    if root.remote:
        home, place = root.address, out.address
        among = place == home or any(f"{place}/".startswith(f"{home}/{name}/") for name in names)
    else:
        home_path, place_path = root.path.resolve(), out.path.resolve()
        among = place_path == home_path
        for name in names:
            session, mixed = (root.path / name).resolve(), place_path / name
            among |= session in (place_path, *place_path.parents, mixed, *mixed.parents)
            among |= home_path in (mixed, *mixed.parents) and home_path not in place_path.parents
    if among:
        raise InputError(f"{out.address}: mixes would end up among stems there: give a folder elsewhere")


def _check_results(out: Folder, names: Iterable[str], may_be: bool) -> None:
    """InputError for results of a former batch, unless it was said what is to become of them."""
    if may_be:
        return
    there = set(out.files()) if out.remote else set()
    made = (ALL, *(f"{name}/{file}" for name in names for file in (RESULT, *OUTPUTS)))
    found = [name for name in made if (name in there if out.remote else (out.path / name).exists())]
    if found:
        mend = "go on from them with --resume, or make all anew with --force"
        raise InputError(f"{out.address}: holds results already ({found[0]}): {mend}")


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for temporary files, which is gone in the end, whatever became of the processes that used it."""
    from mixrl.audio import temporary_folder

    folder = Path(mkdtemp(prefix="mixrl-", dir=temporary_folder()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _taken(out: Folder) -> Iterator[None]:
    """The folder for the mixes, made if it was not there and kept from other batches. What gathers former results is
    about to change, and is removed."""
    with ExitStack() as lock:
        try:
            if not out.remote:
                out.path.mkdir(parents=True, exist_ok=True)
                lock.enter_context(_locked(out.path))
            out.remove(ALL)
        except InputError:
            raise
        except Exception as error:  # a storage has errors of its own
            text = f"{out.address}: cannot be written to ({cause(error)}): give another folder"
            raise ProcessingError(text) from None
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A folder that no other batch may write to. InputError where one does; its lock ends with it, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                mend = "wait until it has ended, or give another folder"
                raise InputError(f"{folder}: another batch is writing to it: {mend}") from None
        yield
    finally:
        os.close(handle)


def _sweep(out: Folder, tasks: Iterable[Task]) -> None:
    for folder in (out, *(task.out for task in tasks)):
        with suppress(Exception):  # where nothing can be removed nothing can be written: the session will say so
            folder.sweep()


@contextmanager
def _watched(tasks: Mapping[str, Task], stages: Callable[[Mapping[str, str]], None] | None) -> Iterator[None]:
    """Calls ``stages`` now and then. What is being done is told by files: these outlive a process that is killed."""
    if stages is None:
        yield
        return
    over = threading.Event()
    said = {str(task.stage): name for name, task in tasks.items() if task.stage is not None}

    def watch() -> None:
        while not over.wait(_WATCHED_S):
            found = {}
            for path in said:
                with suppress(OSError):  # not begun, or done
                    found[said[path]] = Path(path).read_text(encoding="utf-8")
            stages(found)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
