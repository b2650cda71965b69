"""Songs to make sessions of: found in folders, told apart by what they play, and split into parts by song."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixrl.errors import InputError, MixrlError
from mixrl.headers import FFMPEG_SUFFIXES, SUFFIXES

PARTS = ("train", "validation", "test")
SHARES = (0.60, 0.15, 0.25)  # of songs that the split does not name


@dataclass(frozen=True)
class Song:
    """A source, and what is to become of it."""

    name: str
    path: Path
    kind: str  # "real" or "midi"
    part: str = ""  # one of PARTS
    inputs: str = ""  # hash of names and contents of the files
    music: str = ""  # hash of what is played: equal for two sources of the same music
    trouble: str = ""  # why it cannot be read
    human_balance: bool = True  # whether its levels are those that people left it at


def read_split(path: str | os.PathLike[str]) -> dict[str, str]:
    """Song name -> part of a split file. InputError for what is no split, or a song that is in two parts."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): give a JSON file with the split") from None
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}): mend it") from None
    named: dict[str, str] = {}
    for part in PARTS:
        names = data.get(part, []) if isinstance(data, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f'{path}: is no split: give lists of names under "train", "validation" and "test"')
        for name in names:
            if named.setdefault(name, part) != part:
                raise InputError(f"{path}: {name} is in {named[name]} and in {part}: leave it in one of them")
    return named


def read_unbalanced(path: str | os.PathLike[str]) -> frozenset[str]:
    """The songs of a split file that are not at levels that people left them at, as far as anybody knows. InputError
    where "no_balance" is no list of names."""
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    names = data.get("no_balance", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f'{path}: "no_balance" is no list of names: mend it')
    return frozenset(names)


def find_songs(sources: Iterable[str | os.PathLike[str]], named: Mapping[str, str] | None = None) -> list[Song]:
    """The songs that files and folders hold, sorted by name.

    A folder with audio in it, or whose name is in the split, is one song; otherwise its MIDI files and sub-folders
    are looked at. InputError for what does not exist, is neither, holds nothing, and for two songs of one name.
    """
    found: dict[str, Song] = {}
    for source in map(Path, sources):
        songs = list(_songs_in(source.resolve() if source.name in ("", "..") else source, named or {}))
        if not songs:
            raise InputError(f"{source}: no stems and no MIDI files in it: give stem folders or .mid files")
        for song in songs:
            other = found.setdefault(song.name, song)
            if other.path.resolve() != song.path.resolve():
                raise InputError(f"{song.path}: has the same name as {other.path}: rename one of them")
    return [found[name] for name in sorted(found)]


def _songs_in(path: Path, named: Mapping[str, str]) -> Iterable[Song]:
    from mixrl.midi import SUFFIXES as MIDI_SUFFIXES

    if path.is_file():
        if path.suffix.lower() not in MIDI_SUFFIXES:
            raise InputError(f"{path}: is no MIDI file: give stem folders or .mid files")
        yield Song(path.stem, path, "midi")
        return
    if not path.is_dir():
        raise InputError(f"{path}: does not exist: check the path")
    try:
        inside = sorted(p for p in path.iterdir() if not p.name.startswith(".") and p.name != "__MACOSX")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check its permissions") from None
    if path.name in named or any(map(_is_audio, inside)):
        if _audio_below(path):
            yield Song(path.name, path, "real")
        return
    for below in inside:
        if below.is_dir() or below.suffix.lower() in MIDI_SUFFIXES:
            yield from _songs_in(below, named)


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES | FFMPEG_SUFFIXES and path.is_file()


def _audio_below(folder: Path) -> list[Path]:
    """The files that `mixrl.session.load_session` would find."""
    found = []
    for at, below, files in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "__MACOSX")
        found += [Path(at, name) for name in sorted(files) if not name.startswith(".") and _is_audio(Path(at, name))]
    return found


def identified(song: Song) -> Song:
    """The song with its hashes, or with what is the trouble with it."""
    from mixrl.midi import read_midi

    try:
        if song.kind == "midi":
            return replace(song, inputs=digest_of(song.path), music=read_midi(song.path).fingerprint)
        each = [(path.relative_to(song.path).as_posix(), digest_of(path)) for path in _audio_below(song.path)]
    except OSError as error:
        return replace(song, trouble=f"{song.path}: cannot be read ({error.strerror}): check its permissions")
    except MixrlError as error:
        return replace(song, trouble=str(error))
    # names and order of the files do not make it other music
    return replace(song, inputs=hash_of(each), music=hash_of(sorted(digest for _, digest in each)))


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def assign(songs: Sequence[Song], named: Mapping[str, str]) -> list[Song]:
    """The songs with their parts. InputError where the split puts sources of the same music into different parts."""
    of_music: dict[str, Song] = {}
    for song in songs:
        if song.name in named:
            other = of_music.setdefault(song.music, song)
            if named[other.name] != named[song.name]:
                where = f"the split has them in {named[other.name]} and {named[song.name]}"
                raise InputError(f"{other.name} and {song.name} are the same music, but {where}: put both into one")
    placed = []
    for song in songs:
        known = of_music.get(song.music)
        placed.append(replace(song, part=named[known.name] if known else part_of_hash(song.music)))
    return placed


def part_of_hash(music: str) -> str:
    """The part for music that no split names: the same for the same hash (hexadecimal), in proportion to SHARES."""
    place = int(hashlib.sha256(f"mixrl split {music}".encode()).hexdigest()[:12], 16) / 16.0**12
    return PARTS[int(np.searchsorted(np.cumsum(SHARES)[:-1], place, side="right"))]
