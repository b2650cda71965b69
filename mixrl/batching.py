"""Mix every session below a folder, several at a time; a batch that was interrupted goes on where it was.

Which folders are sessions: each direct sub-folder of ROOT with audio in or below it. A folder that holds, at any depth,
folders with a ``mixrl.toml`` is looked at as ROOT is: each of these is a session, and so is each other sub-folder with
audio. Audio that lies beside them is left out with a warning, for a session is all that is in and below its folder.
What is below a folder with a ``mixrl.toml`` belongs to it, whatever is found there. Hidden folders are not looked at,
nor is OUT. A direct sub-folder may be a link, but not one that leads back into ROOT; links to folders further down are
not followed.

What is written: OUT/SESSION/mix.wav (or .flac) and recipe.json, then result.json (see ``records``), each whole or not
at all; in the end OUT/batch.jsonl, which gathers the results.

What becomes of former outputs: a mix is replaced when the new one is there. Where a session fails, its result says so
and lists no outputs. Its former mix is removed then if it was made from other input or settings, or if all was to be
made anew (force); it stays if it is what would have been made again.
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
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

from mixrl.engines import LOCAL, Killed, check_engine, crew, run
from mixrl.errors import InputError, ProcessingError
from mixrl.mixer import POLISH, UNSAID, Mix, Mixer, Unsaid, mix
from mixrl.recipe import write_recipe
from mixrl.records import (
    FAILED,
    MIXED,
    OUTPUTS,
    RESULT,
    Inputs,
    Record,
    as_json,
    cause,
    hashed,
    installation,
    is_audio,
    is_input,
    is_whole,
    placeless,
    read_record,
    remove_others,
    versioned,
    write_record,
)
from mixrl.storage import Folder, check_storage, copy_of, skipped
from mixrl.wishes import FILE

if TYPE_CHECKING:
    from mixrl.delivery import Delivery

SKIPPED = "skipped"
ALL = "batch.jsonl"
RECIPE = "recipe.json"
_WATCHED_S = 0.3

Stage = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What became of a session. status: "mixed", "skipped" (it was there already) or "failed". record: what its
    ``result.json`` says. seconds: from start to end; cpu_seconds: of all cores."""

    session: str
    status: str
    record: Record
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def error(self) -> str | None:
        """Why it failed, in a line."""
        return self.record.error


@dataclass(frozen=True)
class Batch:
    """All sessions in order of their names. seconds: from start to end. warnings: audio that is in no session."""

    results: tuple[Result, ...]
    seconds: float
    warnings: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class How:
    """How each session is mixed: see ``mixer.mix``. encoding: of the mix, "wav24"."""

    target: float | Unsaid | None = UNSAID
    ceiling: float | Unsaid = UNSAID
    bpm: float | None = None
    strength: Mapping[str, float] = field(default_factory=dict)
    steps: int | None = None
    polish: int = POLISH
    seed: int = 0
    encoding: str = "wav24"

    @property
    def file(self) -> str:
        """The name of a mix."""
        return f"mix{'.flac' if self.encoding.startswith('flac') else '.wav'}"

    def settings(self) -> dict[str, Any]:
        """All that a mix depends on but its session; what is left to the session's ``mixrl.toml`` is not there."""
        said = {"target": self.target, "ceiling": self.ceiling}
        return {
            **{name: _float(value) for name, value in said.items() if not isinstance(value, Unsaid)},
            "bpm": _float(self.bpm),
            "strength": {kind: float(self.strength[kind]) for kind in sorted(self.strength)},
            "steps": self.steps,
            "polish": self.polish,
            "seed": self.seed,
            "encoding": self.encoding,
            **installation(),
        }


@dataclass(frozen=True)
class Task:
    """A session to be mixed. settings: those of the installation that the batch was started from. scratch: a folder for
    temporary files, None for one of the process's own. stage: a file that is to say what is being done."""

    session: str
    source: Folder
    out: Folder
    how: How
    settings: Mapping[str, Any]
    resume: bool = False
    force: bool = False
    scratch: Path | None = None
    stage: Path | None = None


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
    progress: Callable[[Result, int, int], None] = lambda result, done, total: None,
    stages: Callable[[Mapping[str, str]], None] | None = None,
) -> Batch:
    """Mix every session below ``root`` into a folder of its own below ``out``: ``mixrl.batch("songs", "mixes")``.

    root, out: folders, or URLs that fsspec knows ("s3://bucket/songs"). jobs: sessions at a time (None: one for each
    core). engine: "local", or "dask://HOST:PORT" of a scheduler, whose workers see the same folders. resume: skip what
    was mixed from the same files with the same settings and is still there. force: mix all anew. The other arguments
    are those of ``mixrl.mix``; encoding: wav16, wav24, wav32f, flac16 or flac24. progress: called with each finished
    session, the number done and the number of all. stages: called a few times a second, from a thread, with what is
    being done by session (not on Dask). One batch at a time may write to ``out``; scripts that call this need the usual
    ``if __name__ == "__main__"``.

    What goes wrong with a session is in its result, and stops no other. Raises InputError for values that cannot be
    used, no sessions, and an ``out`` that holds results already where neither resume nor force is given.
    """
    started = time.perf_counter()
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs {jobs} is out of range: give 1 or more")
    if resume and force:
        raise InputError("give --resume or --force, not both: the one keeps what the other makes anew")
    how = How(target, ceiling, bpm, dict(strength or {}), steps, polish, seed, encoding)
    _check(how)
    check_engine(engine)
    source, mixes = _folder(root), _folder(out)
    names, warnings = find_sessions(source, mixes)
    _check_places(source, mixes, names)
    _check_results(mixes, names, resume or force)
    settings = how.settings()
    results: dict[str, Result] = {}
    with _scratch() as scratch, crew(engine, jobs) as by:
        tasks = {
            name: Task(
                name, source.below(name), mixes.below(name), how, settings, resume, force,
                scratch if by.local else None, scratch / f"{number}.stage" if by.local and stages else None,
            )
            for number, name in enumerate(names)
        }  # fmt: skip
        _begin(mixes)
        _sweep(mixes, tasks.values())
        try:
            with _watched(tasks, stages), closing(run(mix_session, tasks, by)) as finished:
                for name, made in finished:
                    results[name] = _killed(tasks[name], made) if isinstance(made, Killed) else made
                    progress(results[name], len(results), len(tasks))
        finally:
            _sweep(mixes, tasks.values())
    done = tuple(results[name] for name in names)
    mixes.write(ALL, b"".join(as_json(result.record.to_dict()) for result in done))
    return Batch(done, time.perf_counter() - started, warnings)


# ---------------------------------------------------------------------------------------------- finding sessions


def find_sessions(root: Folder, out: Folder) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the sessions below ``root`` in order, and warnings of audio that is in none. InputError where there
    are none, or ``root`` cannot be read."""
    try:
        files = list(_inputs_below(root, out))
    except InputError:
        raise
    except Exception as error:
        # a storage has errors of its own
        raise InputError(f"{root.address}: cannot be listed ({cause(error)}): check it and its permissions") from None
    names, loose = sessions_among(files)
    if not names:
        mend = "mix it with `mixrl mix`, or give the folder above" if loose else "give a folder of session folders"
        raise InputError(f"{root.address}: no sessions in it: {mend}")
    warnings = []
    for folder, count in loose.items():
        where = folder or root.address
        warnings.append(f"{where}: {count} audio file{'s'[: count > 1]} beside its sessions left out")
    return names, tuple(warnings)


def sessions_among(files: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """The sessions among stems and ``mixrl.toml`` files, named by their paths below ROOT, in order; and by folder (""
    for ROOT) how many audio files lie beside sessions."""
    names: list[str] = []
    loose: dict[str, int] = {}

    def look(folder: str, paths: Sequence[str]) -> None:
        below: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            first, _, rest = path.partition("/")
            if rest:
                below[first].append(rest)
        if beside := sum("/" not in path and is_audio(path) for path in paths):
            loose[folder] = beside
        for first, inside in below.items():
            name = f"{folder}/{first}" if folder else first
            if FILE in inside:
                names.append(name)
            elif any(path.endswith(f"/{FILE}") for path in inside):
                look(name, inside)
            elif any(map(is_audio, inside)):
                names.append(name)

    look("", list(files))
    return tuple(sorted(names)), loose


def _inputs_below(root: Folder, out: Folder) -> Iterator[str]:
    """The files that matter, by their paths below ``root``, without those in ``out``."""
    if root.remote:
        skip = f"{out.address.rstrip('/')}/"
        for name in root.files():
            if is_input(name) and not f"{root.address.rstrip('/')}/{name}".startswith(skip):
                yield name
        return
    if not root.path.is_dir():
        what = "is a file" if root.path.exists() else "does not exist"
        raise InputError(f"{root.address}: {what}: give a folder of session folders")
    home = root.path.resolve()
    results = None if out.remote else out.path.resolve()
    for entry in sorted(root.path.iterdir()):
        if skipped(entry.name):
            continue
        if not entry.is_dir():
            if is_input(entry.name):
                yield entry.name
            continue
        place = entry.resolve()
        # a link into ROOT leads to what is found there anyway, one to a folder above it back to where we are
        if place == results or (entry.is_symlink() and (home in (place, *place.parents) or place in home.parents)):
            continue
        try:
            found = Folder(str(entry)).files()
        except OSError:
            yield f"{entry.name}/{FILE}"  # what cannot be looked into is a session that fails, and says why
            continue
        around = results is not None and place in results.parents
        for name in found:
            if is_input(name) and not (around and results in (place / name).parents):
                yield f"{entry.name}/{name}"


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


def _begin(out: Folder) -> None:
    """Make the folder for the mixes; what gathers former results is about to change, and is removed."""
    try:
        if not out.remote:
            out.path.mkdir(parents=True, exist_ok=True)
        out.remove(ALL)
    except Exception as error:  # a storage has errors of its own
        raise ProcessingError(f"{out.address}: cannot be written to ({cause(error)}): give another folder") from None


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


# ---------------------------------------------------------------------------------------------------- one session


def mix_session(task: Task) -> Result:
    """Mix a session, or skip it, and write down what came of it: in a process of its own, so it raises nothing but
    interrupts."""
    started, cpu = time.perf_counter(), time.process_time()

    def result(status: str, record: Record) -> Result:
        return Result(task.session, status, record, time.perf_counter() - started, time.process_time() - cpu)

    inputs, places = Inputs(), {task.source.address: task.session, task.out.address: task.session}
    old: Record | None = None
    try:
        with ExitStack() as stack, _said(task.stage) as stage:
            stage("checking")
            if dict(task.settings) != task.how.settings():
                raise ProcessingError("the worker has another version of mixrl: install the same one on all of them")
            old = read_record(task.out)
            inputs = versioned(task.source) if task.source.remote else hashed(task.source)
            if task.resume and (kept := _kept(task, old, inputs)):
                return result(SKIPPED, kept)
            folder = task.source.path if not task.source.remote else None
            if folder is None:
                stage("fetching")
                scratch = stack.enter_context(_own_scratch(task.scratch))
                folder = copy_of(task.source, inputs.versions, scratch)
                places = {str(folder): task.session, **places}
                inputs = replace(hashed(Folder(str(folder))), versions=inputs.versions)
                if task.resume and (kept := _kept(task, old, inputs)):  # sent again, but the same
                    kept = replace(kept, versions=inputs.versions)
                    write_record(kept, task.out)
                    return result(SKIPPED, kept)
            place = task.out.path if not task.out.remote else stack.enter_context(_own_scratch(task.scratch))
            places = {str(place): task.session, **places}
            return result(MIXED, _made(task, folder, place, inputs, places, stage))
    except Exception as error:
        return result(FAILED, _failed(task, old, inputs, placeless(cause(error), places)))


def _kept(task: Task, old: Record | None, inputs: Inputs) -> Record | None:
    """The record of a session that need not be mixed again."""
    if old is None or old.status != MIXED or old.session != task.session or old.settings != task.settings:
        return None
    if not inputs.are_those_of(old) or not is_whole(old, task.out):
        return None
    remove_others(task.out, old.outputs)
    return old


def _made(
    task: Task, folder: Path, place: Path, inputs: Inputs, places: Mapping[str, str], stage: Stage
) -> Record:
    """Mix a session that lies in ``folder``, its files being made in ``place``; the record, which is written last."""
    made = _planned(task.how, folder, stage)
    stage("writing")
    place.mkdir(parents=True, exist_ok=True)
    delivery = _delivered(made, place / task.how.file, task.how)
    here = not (task.source.remote or task.out.remote)  # elsewhere the recipe has to be told where its session is
    recipe = made.recipe if here else replace(made.recipe, folder=None)
    write_recipe(recipe, place / RECIPE, force=True)
    names = (task.how.file, RECIPE)
    if task.out.remote:
        stage("sending")
        for name in names:
            task.out.put(place / name, name)
    task.out.settle(names)
    measured = delivery.measurement
    record = Record(
        session=task.session,
        status=MIXED,
        error=None,
        inputs=inputs.hashes,
        versions=inputs.versions,
        settings=task.settings,
        outputs={name: Folder(str(place)).digest(name) for name in names},
        sizes={name: (place / name).stat().st_size for name in names},
        integrated_lufs=_rounded(measured.integrated_lufs, 3),
        true_peak_dbtp=_rounded(measured.true_peak_dbtp, 3),
        target_reached=delivery.target_reached,
        winner=made.winner,
        score_before=_rounded(made.score_before, 6),
        score_after=_rounded(made.score_after, 6),
        warnings=[placeless(text, places) for text in (*made.warnings, *delivery.warnings)],
    )
    write_record(record, task.out)
    remove_others(task.out, names)
    return record


def _planned(how: How, folder: Path, stage: Stage) -> Mix:
    return mix(
        folder, target=how.target, ceiling=how.ceiling, bpm=how.bpm, strength=how.strength, steps=how.steps,
        polish=how.polish, seed=how.seed, progress=lambda what, share: stage(what),
    )  # fmt: skip


def _delivered(made: Mix, path: Path, how: How) -> Delivery:
    return made.write(path, encoding=how.encoding, force=True)


def _float(value: float | None) -> float | None:
    """The same text for 1 and 1.0."""
    return None if value is None else float(value)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _failed(task: Task, old: Record | None, inputs: Inputs, error: str) -> Record:
    """Write down that a session failed, as far as that is possible, and remove what would look as if it had not."""
    record = Record(task.session, FAILED, error, inputs.hashes, task.settings, inputs.versions)
    same = old is not None and old.settings == task.settings and inputs.are_those_of(old)
    with suppress(Exception):  # a full disk, say: the result is told all the same
        write_record(record, task.out)
        if task.force or not same:
            remove_others(task.out, ())
    return record


def _killed(task: Task, killed: Killed) -> Result:
    """The result of a session that cannot tell any more itself."""
    if task.stage is not None:
        task.stage.unlink(missing_ok=True)
    how = f" by {killed.how}" if killed.how else ""
    error = f"the process that mixed it was killed{how} (out of memory?): free some memory, or mix fewer stems at once"
    try:
        old = read_record(task.out)
        inputs = versioned(task.source) if task.source.remote else hashed(task.source)
    except Exception:
        old, inputs = None, Inputs()
    return Result(task.session, FAILED, _failed(task, old, inputs, error))


@contextmanager
def _own_scratch(scratch: Path | None) -> Iterator[Path]:
    from mixrl.audio import temporary_folder

    with TemporaryDirectory(prefix="mixrl-", dir=scratch or temporary_folder()) as folder:
        yield Path(folder)


@contextmanager
def _said(file: Path | None) -> Iterator[Stage]:
    """Yields ``stage(what)``, which writes into the file what is being done; it is there until that is done."""
    last = ""

    def stage(what: str) -> None:
        nonlocal last
        if file is not None and what != last:
            with suppress(OSError):  # nobody will see it then
                file.write_text(what, encoding="utf-8")
            last = what

    try:
        yield stage
    finally:
        if file is not None:
            file.unlink(missing_ok=True)
