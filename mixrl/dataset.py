"""Sessions to learn from: stem folders and General MIDI files -> OUT/{train,validation,test}/NAME, split by song.

Each session is an excerpt in which most stems play: 16-bit FLAC stems at their own relative levels and a
`source.json` that says where it comes from. A finished session is never made twice; a half-made one never has a name.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixrl.errors import InputError, MixrlError
from mixrl.songs import PARTS, Song, assign, digest_of, find_songs, hash_of, identified, read_split, read_unbalanced

if TYPE_CHECKING:
    from mixrl.audio import Source
    from mixrl.fluidsynth import Synth

FORMAT = 1
MANIFEST = "source.json"
PEAK_DB = -1.0  # the highest sample of a session, dBFS; real ones are never turned up
FEWEST = {"real": 2, "midi": 3}  # sounding stems that make a session
_WORK = ".part"


@dataclass(frozen=True)
class Built:
    """What became of one source. `status`: "built", "kept" (was there already), "skipped", "failed" (see `reason`)."""

    name: str
    kind: str
    part: str
    status: str
    stems: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """All sources in order of part and name."""

    sessions: tuple[Built, ...] = field(default=())

    @property
    def failed(self) -> tuple[Built, ...]:
        return tuple(s for s in self.sessions if s.status == "failed")

    def counts(self) -> dict[str, dict[str, int]]:
        """Finished sessions by part and kind."""
        done = Counter((s.part, s.kind) for s in self.sessions if s.status in ("built", "kept"))
        return {part: {kind: done[part, kind] for kind in FEWEST} for part in PARTS}


def build(
    sources: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    split: str | os.PathLike[str] | None = None,
    *,
    soundfont: str | os.PathLike[str] | None = None,
    jobs: int = 2,
    force: bool = False,
    progress: Callable[[Built, int, int], None] | None = None,
) -> Report:
    """Make sessions from stem folders, MIDI files and folders that hold such; finished ones are kept.

    split: JSON file with lists of names under "train", "validation" and "test", and under "no_balance" of those whose
    stems are not at levels that people left them at, which their ``source.json`` then says. A song that it does
    not name goes where its music's hash says (about 60, 15 and 25%), or where another source of the same music is.
    force: replace sessions that were made from other input or other settings. progress: called with every finished
    source, the number done and the number of all. One build at a time may write to `out`; with more than one job,
    scripts that call this need the usual `if __name__ == "__main__"`.

    Raises InputError for sources that do not exist or hold nothing, a bad split, a split that parts the same music,
    and for MIDI without mido or a SoundFont; ProcessingError for MIDI without FluidSynth. What else goes wrong with a
    source is in the report.
    """
    from mixrl.fluidsynth import find_synth
    from mixrl.midi import load_mido

    named = read_split(split) if split is not None else {}
    songs = find_songs(sources, named)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file: name a folder for the sessions")
    synth, sound = None, ""
    if any(song.kind == "midi" for song in songs):
        load_mido()
        synth = find_synth(Path(soundfont) if soundfont is not None else None)
        sound = digest_of(synth.soundfont)
    unbalanced = read_unbalanced(split) if split is not None else frozenset()
    looked = [replace(identified(song), human_balance=song.name not in unbalanced) for song in songs]
    placed = assign([song for song in looked if not song.trouble], named)
    out.mkdir(parents=True, exist_ok=True)
    done: list[Built] = []

    def finished(result: Built) -> None:
        done.append(result)
        if progress:
            progress(result, len(done), len(songs))

    for song in looked:
        if song.trouble:
            finished(Built(song.name, song.kind, named.get(song.name, ""), "failed", reason=song.trouble))
    first_of: dict[str, Song] = {}
    for song in placed:
        if (other := first_of.setdefault(song.music, song)) is not song:
            finished(Built(song.name, song.kind, song.part, "skipped", reason=f"the same music as {other.name}"))
    tasks = [_Task(song, out, synth, sound, force) for song in first_of.values()]
    if jobs <= 1 or len(tasks) <= 1:
        for task in tasks:
            finished(_make(task))
    else:
        for task in _in_pool(tasks, jobs, finished):
            for _ in _in_pool([task], 1, finished):
                why = "its process was killed (out of memory?): try again with --jobs 1"
                finished(Built(task.song.name, task.song.kind, task.song.part, "failed", reason=why))
    shutil.rmtree(out / _WORK, ignore_errors=True)
    order = {part: i for i, part in enumerate((*PARTS, ""))}
    return Report(tuple(sorted(done, key=lambda built: (order[built.part], built.kind, built.name))))


def _in_pool(tasks: Sequence[_Task], jobs: int, finished: Callable[[Built], None]) -> list[_Task]:
    """Run the tasks in processes of their own; those that a dying process took along are returned, not done."""
    lost = []
    spawn = multiprocessing.get_context("spawn")  # not forked: the caller may have threads
    with ProcessPoolExecutor(min(jobs, len(tasks)), spawn, initializer=_end_with_parent) as pool:
        futures = {pool.submit(_make, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                if isinstance(future.exception(), BrokenProcessPool):
                    lost.append(futures[future])
                else:
                    finished(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return lost


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch(sentinel: int = parent.sentinel) -> None:
            wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


# --------------------------------------------------------------------------------------------------- one session


@dataclass(frozen=True)
class _Task:
    song: Song
    out: Path
    synth: Synth | None
    sound: str  # hash of the SoundFont
    force: bool


@dataclass(frozen=True)
class _Material:
    """The stems of an excerpt, before gain and choice."""

    title: str
    stems: tuple[tuple[str, Source], ...]  # by name, all of one rate and length
    excerpt: tuple[tuple[float, float], ...]  # seconds of the song, piece by piece
    done: tuple[str, ...]
    notes: tuple[str, ...] = ()


def _make(task: _Task) -> Built:
    """Make one session, or keep it if it is there: in a process of its own, so it raises nothing but interrupts."""
    song = task.song
    settings: dict[str, Any] = {"format": FORMAT, "inputs": song.inputs, "part": song.part, "kind": song.kind}
    if task.synth and song.kind == "midi":
        settings |= {"soundfont": task.synth.soundfont.name, "soundfont_hash": task.sound}
    if not song.human_balance:
        settings["human_balance"] = False
    key = hash_of(settings)
    folder = task.out / song.part / song.name
    try:
        if kept := _kept(folder, key, song):
            return kept
        for part in PARTS:
            if (there := task.out / part / song.name).exists() and not task.force:
                raise InputError(f"{there}: made from other input or settings: add --force to replace it")
        work = task.out / _WORK / song.name
        shutil.rmtree(work, ignore_errors=True)
        stems = work / "session"
        stems.mkdir(parents=True)
        material = _from_midi(task, work) if song.kind == "midi" else _from_stems(song.path)
        manifest = _write(material, stems, song)
        if isinstance(manifest, str):
            return Built(song.name, song.kind, song.part, "skipped", reason=manifest)
        manifest = {"key": key} | settings | manifest
        (stems / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        folder.parent.mkdir(exist_ok=True)
        for part in PARTS:
            if (there := task.out / part / song.name).exists():
                there.rename(work / f"old-{part}")
        stems.rename(folder)
        shutil.rmtree(work, ignore_errors=True)
        return _built(folder, song, "built", manifest)
    except (MixrlError, OSError, MemoryError, ValueError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        return Built(song.name, song.kind, song.part, "failed", reason=words)


def _kept(folder: Path, key: str, song: Song) -> Built | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["key"] != key or not all((folder / stem["file"]).is_file() for stem in manifest["stems"]):
            return None
        return _built(folder, song, "kept", manifest)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _built(folder: Path, song: Song, status: str, manifest: Mapping[str, Any]) -> Built:
    size = sum((folder / stem["file"]).stat().st_size for stem in manifest["stems"]) / 1e6
    return Built(song.name, song.kind, song.part, status, len(manifest["stems"]), manifest["seconds"], round(size, 3))


def _from_stems(path: Path) -> _Material:
    from mixrl.excerpt import WHOLE_S, active_seconds, choose, excerpt
    from mixrl.session import load_session

    session = load_session(path)
    whole: tuple[tuple[float, float], ...] = ((0.0, session.duration_s),)
    if session.duration_s > WHOLE_S:
        pieces = choose(active_seconds([stem.activity for stem in session.stems]), session.duration_s, least_s=0)
        whole = tuple((float(start), min(float(stop), session.duration_s)) for start, stop in pieces)
    part = excerpt(session, least_s=0)  # it is a song to learn from, and need not stand for the whole of it
    stems = tuple((stem.name, part.source(stem)) for stem in part.stems)
    return _Material(path.name, stems, whole, ("excerpt in which most stems play",), session.warnings)


def _from_midi(task: _Task, work: Path) -> _Material:
    from mixrl.audio import ArraySource
    from mixrl.fluidsynth import RATE
    from mixrl.midi import parts_within, read_midi, render_part, window

    assert task.synth is not None
    song = read_midi(task.song.path)
    span = window(song)
    stems = []
    for number, part in enumerate(parts_within(song, span), 1):
        audio = render_part(song, part, span, task.synth, work)
        # what is the same on both sides is a mono stem, as a studio would have it
        audio = audio[:1] if np.array_equal(audio[0], audio[1]) else audio
        stems.append((f"{number:02d}_{part.stem_name}", ArraySource(audio, RATE)))
    done = ("excerpt in which most parts play", "rendered part by part with FluidSynth, without reverb and chorus")
    return _Material(song.title, tuple(stems), (span,), done)


def _write(material: _Material, folder: Path, song: Song) -> dict[str, Any] | str:
    """Write the stems that sound, with one gain for all. The manifest, or why this makes no session."""
    from mixrl.audio import Encoding, Writer
    from mixrl.roles import role_of
    from mixrl.session import SILENT_PEAK

    peaks = [max(float(np.abs(block).max()) for block in source.blocks()) for _, source in material.stems]
    highest = max(peaks, default=0.0)
    gain_db = PEAK_DB - 20.0 * float(np.log10(max(highest, 1e-9)))
    if song.kind == "real":
        gain_db = min(0.0, gain_db)
    gain_db = round(gain_db, 3)
    gain = 10.0 ** (gain_db / 20.0)
    sounding = [peak * gain > SILENT_PEAK and peak > 1e-7 for peak in peaks]
    if sum(sounding) < FEWEST[song.kind]:
        return f"only {sum(sounding)} of its {len(peaks)} stems sound in the excerpt, {FEWEST[song.kind]} are needed"
    rows = []
    for seed, ((name, source), peak) in enumerate(zip(material.stems, peaks, strict=True)):
        if not sounding[seed]:
            continue
        path = folder / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        # a seed of its own: the same dither on every stem would add up
        with Writer(path, source.sample_rate, source.channels, Encoding.FLAC16, seed=seed) as writer:
            for block in source.blocks():
                writer.write(block * np.float32(gain))
        level = 20.0 * float(np.log10(peak * gain))
        file = path.relative_to(folder).as_posix()
        rows.append({"file": file, "role": role_of(name), "channels": source.channels, "peak_dbfs": round(level, 2)})
    first = material.stems[0][1]
    return {
        "name": song.name,
        "title": material.title,
        "source": song.path.name,
        "done": [*material.done, f"one gain of {gain_db:+.2f} dB for all stems"],
        "gain_db": gain_db,
        "sample_rate": first.sample_rate,
        "seconds": round(first.frames / first.sample_rate, 3),
        "excerpt_s": [[round(a, 3), round(b, 3)] for a, b in material.excerpt],
        "stems": rows,
        "silent": [name for (name, _), sounds in zip(material.stems, sounding, strict=True) if not sounds],
        "notes": list(material.notes),
    }


def as_json(report: Report) -> str:
    """The report for machines."""
    return json.dumps({"counts": report.counts(), "sessions": [asdict(s) for s in report.sessions]}, indent=2)
