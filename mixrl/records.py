"""What is written down of each session of a batch, ``result.json``: what it was made from, and what came of it.

A record holds no times and no places, so that the same work leaves the same bytes, however often it was interrupted:

    session       its name: where it lies below ROOT
    status        "mixed" or "failed"; "listened" or "planned" for a song of an album that is on its way
    error         why it failed, in a line; null
    inputs        by file: what it holds, "blake2b:" and 64 hexadecimal digits
    versions      by file: what the storage calls its version; only of sessions in a storage
    settings      all else that a mix depends on
    outputs       by file: what it holds, as of inputs
    sizes         by file: bytes
    integrated_lufs, true_peak_dbtp, target_reached, winner, score_before, score_after, warnings
    album         of a song of an album: tone_db (its own), shared_tone_db; premaster_lufs and reached_lufs, of its mix
                  before the master and brought to the target by itself; warnings, of its plan; offset_db, the album's
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from importlib.resources import files
from typing import Any

from mixrl.errors import MixrlError
from mixrl.headers import FFMPEG_SUFFIXES, SUFFIXES
from mixrl.storage import Folder
from mixrl.wishes import FILE

RESULT = "result.json"
FORMAT = "mixrl-result"
VERSION = 1
MIXED, FAILED, LISTENED, PLANNED = "mixed", "failed", "listened", "planned"
OUTPUTS = ("mix.wav", "mix.flac", "recipe.json")


@dataclass(frozen=True)
class Record:
    """See the module. Loudness and scores are None where there is none."""

    session: str
    status: str
    error: str | None
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    integrated_lufs: float | None = None
    true_peak_dbtp: float | None = None
    target_reached: bool | None = None
    winner: str | None = None
    score_before: float | None = None
    score_after: float | None = None
    warnings: Sequence[str] = ()
    album: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"format": FORMAT, "version": VERSION, **asdict(self), "warnings": list(self.warnings)}


@dataclass(frozen=True)
class Inputs:
    """What a session is made from, by file. hashes: of the contents; versions: of a session in a storage."""

    hashes: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def are_those_of(self, record: Record) -> bool:
        """Whether the record's session was made from the same, as far as is known."""
        if self.hashes:
            return dict(self.hashes) == dict(record.inputs)
        return bool(self.versions) and dict(self.versions) == dict(record.versions)


def is_input(name: str) -> bool:
    """Whether a mix may depend on a file of this name."""
    last = name.rpartition("/")[2]
    return last == FILE or is_audio(last)


def is_audio(name: str) -> bool:
    """Whether a file of this name is taken for a stem."""
    _, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix}".lower() in SUFFIXES | FFMPEG_SUFFIXES


def hashed(folder: Folder) -> Inputs:
    """What a session on this machine is made from. OSError where it cannot be read."""
    return Inputs({name: folder.digest(name) for name in folder.files() if is_input(name)})


def versioned(folder: Folder) -> Inputs:
    """What a session in a storage is made from, without reading it."""
    return Inputs(versions={name: folder.version(name) for name in folder.files() if is_input(name)})


@lru_cache(maxsize=1)
def installation() -> dict[str, Any]:
    """The version of mixrl and, by file, what was learned and ships with it: the same session and settings may be mixed
    otherwise by others."""
    from mixrl import __version__

    data = files("mixrl") / "data"
    names = sorted(entry.name for entry in data.iterdir() if entry.is_file())
    return {"mixrl": __version__, "data": {name: _digest(data.joinpath(name).read_bytes()) for name in names}}


def read_record(out: Folder) -> Record | None:
    """The record in a session's output folder; None where there is none, or what is there is none."""
    try:
        said = json.loads(out.read(RESULT) or b"")
        if (said.pop("format"), said.pop("version")) != (FORMAT, VERSION):
            return None
        record = Record(**said)
        maps = record.inputs, record.versions, record.settings, record.outputs, record.sizes, record.album
        sound = all(isinstance(value, dict) for value in maps) and isinstance(record.warnings, list)
        return record if sound and set(said) == {one.name for one in fields(Record)} else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def write_record(record: Record, out: Folder) -> None:
    """Write it into a session's output folder, which is made where it is missing."""
    out.write(RESULT, as_json(record.to_dict(), indent=1))


def as_json(value: object, indent: int | None = None) -> bytes:
    """A line of JSON, or several; a name that is no valid text goes through escapes."""
    try:
        return (json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


def is_whole(record: Record, out: Folder, names: Sequence[str] | None = None) -> bool:
    """Whether the files that the record lists, or some of them, are there and hold what they held; in a storage, are as
    long as they were."""
    for name in record.outputs if names is None else names:
        digest = record.outputs.get(name)
        if out.size(name) != record.sizes.get(name) or (not out.remote and out.digest(name) != digest):
            return False
    return bool(record.outputs)


def remove_others(out: Folder, kept: Iterable[str]) -> None:
    """Remove the outputs of former runs that do not belong to this one."""
    for name in OUTPUTS:
        if name not in kept:
            out.remove(name)


def cause(error: BaseException) -> str:
    """Why something failed, in a line."""
    if isinstance(error, MixrlError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "out of memory: run fewer jobs at a time, or mix fewer stems at once"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = f"unexpected {type(error).__name__}: {error}".removesuffix(": ")
    return " ".join(text.split())


def placeless(text: str, places: Mapping[str, str]) -> str:
    """A message with names instead of the paths of folders, which are not the same on every machine; a file in one of
    these folders is named from there."""
    for place, name in places.items():
        for separator in ("/", "\\"):
            text = text.replace(f"{place}{separator}", "")
        text = text.replace(place, name)
    return text


def _digest(data: bytes) -> str:
    import hashlib

    return f"blake2b:{hashlib.blake2b(data, digest_size=32).hexdigest()}"
