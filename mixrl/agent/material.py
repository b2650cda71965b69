"""Sessions to train on: found, listened to in parallel, and remembered on disk.

Listening takes seconds a session. What comes of it is kept in a cache, by the content of the stems, so that a second
run, or the next seed, starts at once.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixrl import __version__
from mixrl.errors import InputError
from mixrl.scene import Scene
from mixrl.songs import digest_of, hash_of

SIDECAR = "source.json"  # what `mixrl dataset` says of a session


@dataclass(frozen=True)
class Material:
    """A session to train or validate on. real: played by people and not rendered from MIDI. key: of its content. human:
    whether its levels are those that people left it at."""

    name: str
    scene: Scene
    real: bool
    key: str
    human: bool = True


def session_folders(folders: Sequence[Path], part: str) -> list[Path]:
    """The session folders among ``folders``: each is a session itself, or a data set as `mixrl dataset` makes them, of
    which only ``part`` ("train" or "validation") is taken. Raises InputError where there is none."""
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: is no folder: give session folders or a folder made by `mixrl dataset`")
        if (folder / "train").is_dir():
            inside = folder / part
            there = inside.iterdir() if inside.is_dir() else ()
            sessions = sorted(p for p in there if p.is_dir() and not p.name.startswith("."))
            if not sessions and part == "train":
                raise InputError(f"{inside}: no sessions in it: build the data set with `mixrl dataset`")
            found += sessions
        elif part == "train":
            found.append(folder)
    return found


def load_material(
    folders: Sequence[Path],
    cache: Path,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Material]:
    """Listen to sessions, ``jobs`` at a time, or read what the cache knows of them; in the order of the folders.

    progress: called with the name of each session as it is there. Raises InputError for a session that cannot be read
    or has fewer than two stems that sound.
    """
    cache.mkdir(parents=True, exist_ok=True)
    keys = [_key(folder) for folder in folders]
    paths = [cache / f"{key[:24]}.npz" for key in keys]
    scenes = {path: _remembered(path) for path in paths}
    missing = [(folder, path) for folder, path in zip(folders, paths, strict=True) if scenes[path] is None]
    for folder, path in zip(folders, paths, strict=True):
        if scenes[path] is not None:
            progress(folder.name)
    if len(missing) > 1 and jobs > 1:
        spawn = multiprocessing.get_context("spawn")  # not forked: numpy and torch have threads
        with ProcessPoolExecutor(min(jobs, len(missing)), spawn) as pool:
            try:
                for (folder, _), _ in zip(missing, pool.map(_listen, *zip(*missing, strict=True)), strict=True):
                    progress(folder.name)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    else:
        for folder, path in missing:
            _listen(folder, path)
            progress(folder.name)
    made = []
    for folder, path, key in zip(folders, paths, keys, strict=True):
        scene = scenes[path] or Scene.load(path)
        if scene.facts.audible.sum() < 2:
            raise InputError(f"{folder}: fewer than two stems that sound: leave it out")
        made.append(Material(folder.name, scene, is_real(folder), key, has_balance(folder)))
    return made


def busiest_scene(folder: Path, seconds: int, cache: Path) -> Scene:
    """The seconds of a session in which most stems play, listened to or as the cache knows them. Raises InputError for
    a session that cannot be read."""
    from mixrl.excerpt import busiest
    from mixrl.session import load_session

    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{hash_of([_key(folder), f'busiest {seconds} s'])[:24]}.npz"
    if (scene := _remembered(path)) is None:
        Scene.of(busiest(load_session(folder), seconds)).save(path)
        scene = Scene.load(path)
    return scene


def _remembered(path: Path) -> Scene | None:
    """A scene from the cache; None where there is none, or one of another version."""
    try:
        return Scene.load(path) if path.exists() else None
    except InputError:
        return None


def _listen(folder: Path, path: Path) -> None:
    """Listen to a session, its compressed variants too, and write what comes of it."""
    from mixrl.excerpt import excerpt
    from mixrl.session import load_session

    Scene.of(excerpt(load_session(folder))).save(path)


def _key(folder: Path) -> str:
    """A hash of the names and contents of a session's files but for what is said of them, and of the version that
    listens."""
    inside = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    files = sorted(path for path in inside if path.name != SIDECAR)
    return hash_of([__version__, *([path.relative_to(folder).as_posix(), digest_of(path)] for path in files)])


def is_real(folder: Path) -> bool:
    """Whether a session was played by people, as far as its folder tells."""
    return bool(_about(folder).get("kind") != "midi")


def has_balance(folder: Path) -> bool:
    """Whether a session's stems are at the levels that people left: unless its folder says that nobody knows."""
    return bool(_about(folder).get("human_balance", True))


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
