"""What a process of a batch does with one session: mix it or skip it, and write down what came of it.

A song of an album is worked on in three steps, since what is done to all songs alike is known only once all have got
so far: it is listened to, planned, and delivered. What a step has found out is in the record, where the next one takes
it from, in this run or in one that goes on with it.

What becomes of former outputs: a mix is replaced when the new one is there. Where a session fails, its result says so
and lists no outputs. Its former mix is removed then if it was made from other input or settings, or if all was to be
made anew (force); it stays if it is what would have been made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mixrl.engines import Killed
from mixrl.errors import InputError, ProcessingError
from mixrl.mixer import POLISH, UNSAID, Mix, Unsaid, deliver_mix, mix
from mixrl.recipe import read_recipe, write_recipe
from mixrl.records import (
    FAILED,
    LISTENED,
    MIXED,
    PLANNED,
    Inputs,
    Record,
    cause,
    hashed,
    installation,
    is_whole,
    placeless,
    read_record,
    remove_others,
    versioned,
    write_record,
)
from mixrl.session import load_session
from mixrl.settings import TARGET_RANGE_LUFS
from mixrl.storage import Folder, copy_of

if TYPE_CHECKING:
    from mixrl.delivery import Delivery

SKIPPED = "skipped"
RECIPE = "recipe.json"
MIX, LISTEN, PLAN, DELIVER = "mix", "listen", "plan", "deliver"
ALBUM_TARGET_LUFS = -14.0

Stage = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What became of a session. status: "mixed", "skipped" (it was there already) or "failed"; of a song of an album
    that is not done yet, "listened" or "planned". record: what its ``result.json`` says. seconds: from start to end;
    cpu_seconds: of all cores."""

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
class How:
    """How each session is mixed: see ``mixer.mix``. encoding: of the mix, "wav24". album: whether the songs of a folder
    are one."""

    target: float | Unsaid | None = UNSAID
    ceiling: float | Unsaid = UNSAID
    bpm: float | None = None
    strength: Mapping[str, float] = field(default_factory=dict)
    steps: int | None = None
    polish: int = POLISH
    seed: int = 0
    encoding: str = "wav24"
    album: bool = False

    @property
    def file(self) -> str:
        """The name of a mix."""
        return f"mix{'.flac' if self.encoding.startswith('flac') else '.wav'}"

    def settings(self) -> dict[str, Any]:
        """All that a mix depends on but its session and its album; what is left to the session's ``mixrl.toml`` is not
        there."""
        said = {"target": self.target, "ceiling": self.ceiling}
        return {
            **{name: _float(value) for name, value in said.items() if not isinstance(value, Unsaid)},
            "bpm": _float(self.bpm),
            "strength": {kind: float(self.strength[kind]) for kind in sorted(self.strength)},
            "steps": self.steps,
            "polish": self.polish,
            "seed": self.seed,
            "encoding": self.encoding,
            "album": self.album,
            **installation(),
        }


@dataclass(frozen=True)
class Task:
    """A session to be worked on. settings: those of the installation that the batch was started from. scratch: a folder
    for temporary files, None for one of the process's own. stage: a file that is to say what is being done. step: how
    far to go; tone, offset_db: of the album, where that is known by then."""

    session: str
    source: Folder
    out: Folder
    how: How
    settings: Mapping[str, Any]
    resume: bool = False
    force: bool = False
    scratch: Path | None = None
    stage: Path | None = None
    step: str = MIX
    tone: tuple[float, ...] | None = None
    offset_db: float | None = None


@dataclass(frozen=True)
class _Work:
    """Where a task's files are on this machine. folder: the session; place: what is made. known: the record that the
    step before has left."""

    task: Task
    folder: Path
    place: Path
    inputs: Inputs
    known: Record | None
    stage: Stage
    places: Mapping[str, str]


def work_on(task: Task) -> Result:
    """Do what a task asks for, or skip it, and write down what came of it. Nothing is raised but interrupts: whoever
    gave the task is in another process."""
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
            record = _STEPS[task.step](_Work(task, folder, place, inputs, old, stage, places))
            return result(record.status, record)
    except Exception as error:
        return result(FAILED, _failed(task, old, inputs, placeless(cause(error), places)))


def _kept(task: Task, old: Record | None, inputs: Inputs) -> Record | None:
    """The record of a session that need not be worked on again."""
    if old is None or old.status == FAILED or old.session != task.session or old.settings != task.settings:
        return None
    if not inputs.are_those_of(old):
        return None
    if task.step == LISTEN:
        return old
    if task.step == PLAN:
        same = old.album.get("shared_tone_db") == list(task.tone or ())
        return old if same and is_whole(old, task.out, (RECIPE,)) else None
    if old.status != MIXED or old.album.get("offset_db") != task.offset_db or not is_whole(old, task.out):
        return None
    remove_others(task.out, old.outputs)
    return old


# ------------------------------------------------------------------------------------------------------- the steps


def _mix(work: _Work) -> Record:
    """Mix a session."""
    made = _planned(work)
    work.stage("writing")
    work.place.mkdir(parents=True, exist_ok=True)
    path, how = work.place / work.task.how.file, work.task.how
    delivery = made.write(path, encoding=how.encoding, force=True)
    write_recipe(_recipe(made, work), work.place / RECIPE, force=True)
    return _ended(replace(_of_plan(made, work), status=MIXED), delivery, made.warnings, work)


def _listen(work: _Work) -> Record:
    """Find out what tone a song has by itself."""
    from mixrl.album import tone_of

    work.stage("listening")
    tone = tone_of(load_session(work.folder))
    record = Record(
        work.task.session, LISTENED, None, work.inputs.hashes, work.task.settings, work.inputs.versions,
        album={"tone_db": list(tone)},
    )  # fmt: skip
    write_record(record, work.task.out)
    return record


def _plan(work: _Work) -> Record:
    """Plan a song with the tone that the album has, and find out how loud its mix is and can be."""
    from mixrl.delivery import master_gain
    from mixrl.render import SumSource

    known = _known(work, (LISTENED, PLANNED, MIXED))
    made = _planned(work)
    work.stage("measuring")
    _, found = master_gain(SumSource(made.session, made.settings), made.settings.master)
    work.place.mkdir(parents=True, exist_ok=True)
    write_recipe(_recipe(made, work), work.place / RECIPE, force=True)
    album = {
        "tone_db": known.album["tone_db"],
        "shared_tone_db": list(work.task.tone or ()),
        "premaster_lufs": _rounded(found.premaster_lufs, 3),
        "reached_lufs": _rounded(found.integrated_lufs, 3),
        "warnings": [placeless(text, work.places) for text in made.warnings],
    }
    return _settled(replace(_of_plan(made, work), album=album), (RECIPE,), work)


def _deliver(work: _Work) -> Record:
    """Write a planned song as loud as it is to be on its album."""
    known = _known(work, (PLANNED, MIXED))
    work.stage("writing")
    work.place.mkdir(parents=True, exist_ok=True)
    if work.task.out.remote:
        (work.place / RECIPE).write_bytes(work.task.out.read(RECIPE) or b"")
    recipe, _ = read_recipe(work.place / RECIPE)
    before, offset, how = known.album["premaster_lufs"], work.task.offset_db, work.task.how
    if before is not None and offset is not None:
        low, high = TARGET_RANGE_LUFS
        target = round(min(max(before + offset, low), high), 3)
        master = replace(recipe.settings.master, target_lufs=target)
        recipe = replace(recipe, settings=replace(recipe.settings, master=master))
    path = work.place / how.file
    session = load_session(work.folder)
    delivery = deliver_mix(session, recipe.settings, path, encoding=how.encoding, force=True, seed=how.seed)
    write_recipe(recipe, work.place / RECIPE, force=True)
    record = replace(known, status=MIXED, album={**known.album, "offset_db": offset})
    return _ended(record, delivery, known.album["warnings"], work)


_STEPS = {MIX: _mix, LISTEN: _listen, PLAN: _plan, DELIVER: _deliver}


def _planned(work: _Work) -> Mix:
    how, target = work.task.how, work.task.how.target
    if how.album and isinstance(target, Unsaid):
        target = ALBUM_TARGET_LUFS  # no song's own
    return mix(
        work.folder, target=target, ceiling=how.ceiling, bpm=how.bpm, strength=how.strength, steps=how.steps,
        polish=how.polish, seed=how.seed, album_tone=work.task.tone, progress=lambda what, share: work.stage(what),
    )  # fmt: skip


def _recipe(made: Mix, work: _Work) -> Any:
    here = not (work.task.source.remote or work.task.out.remote)
    return made.recipe if here else replace(made.recipe, folder=None)  # it has to be told where its session is


def _of_plan(made: Mix, work: _Work) -> Record:
    return Record(
        session=work.task.session,
        status=PLANNED,
        error=None,
        inputs=work.inputs.hashes,
        versions=work.inputs.versions,
        settings=work.task.settings,
        winner=made.winner,
        score_before=_rounded(made.score_before, 6),
        score_after=_rounded(made.score_after, 6),
    )


def _known(work: _Work, statuses: Sequence[str]) -> Record:
    """What the step before has left. InputError where it is not of this session as it is now."""
    known, task = work.known, work.task
    if known is None or known.status not in statuses or not work.inputs.are_those_of(known):
        raise InputError(f"{task.session}: changed while the album was being made: go on with --resume")
    return known


def _ended(record: Record, delivery: Delivery, warnings: Sequence[str], work: _Work) -> Record:
    """The record of a finished mix, which is written last."""
    measured = delivery.measurement
    record = replace(
        record,
        integrated_lufs=_rounded(measured.integrated_lufs, 3),
        true_peak_dbtp=_rounded(measured.true_peak_dbtp, 3),
        target_reached=delivery.target_reached,
        warnings=[placeless(text, work.places) for text in (*warnings, *delivery.warnings)],
    )
    names = (work.task.how.file, RECIPE)
    record = _settled(record, names, work)
    remove_others(work.task.out, names)
    return record


def _settled(record: Record, names: Sequence[str], work: _Work) -> Record:
    """Bring what was made to where it belongs, and write the record of it."""
    out = work.task.out
    if out.remote:
        work.stage("sending")
        for name in names:
            out.put(work.place / name, name)
    out.settle(names)
    made = Folder(str(work.place))
    record = replace(
        record,
        outputs={name: made.digest(name) for name in names},
        sizes={name: (work.place / name).stat().st_size for name in names},
    )
    write_record(record, out)
    return record


# ---------------------------------------------------------------------------------------------------- what failed


def _failed(task: Task, old: Record | None, inputs: Inputs, error: str) -> Record:
    """Write down that a session failed, as far as that is possible, and remove what would look as if it had not."""
    record = Record(task.session, FAILED, error, inputs.hashes, task.settings, inputs.versions)
    same = old is not None and old.settings == task.settings and inputs.are_those_of(old)
    with suppress(Exception):  # a full disk, say: the result is told all the same
        write_record(record, task.out)
        if task.force or not same:
            remove_others(task.out, ())
    return record


def killed(task: Task, by: Killed) -> Result:
    """The result of a session that cannot tell any more itself."""
    if task.stage is not None:
        task.stage.unlink(missing_ok=True)
    how = f" by {by.how}" if by.how else ""
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


def _float(value: float | None) -> float | None:
    """The same text for 1 and 1.0."""
    return None if value is None else float(value)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
