"""The recipe: a finished mix as a JSON file that can be read, edited, explained and rendered again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mixrl.errors import InputError
from mixrl.files import read_text
from mixrl.settings import MixSettings, parse_json

FORMAT = "mixrl-recipe"
VERSION = 1
MOST_BYTES = 16 << 20  # a thousand stems take two million


@dataclass(frozen=True)
class LoggedMove:
    """One move of a mix: what it changed and why.

    target: "stem", "group" or "mix"; name: which one; setting: what was changed, e.g. "gain", "EQ 3500 Hz peak".
    before, after: values with their unit. score_change: how much the predicted score rose. reason: the score term
    that improved most, in words.
    """

    step: int
    target: str
    name: str
    setting: str
    before: str
    after: str
    score_change: float
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.setting} {self.before} -> {self.after}  ({self.score_change:+.3f}: {self.reason})"


@dataclass(frozen=True)
class Recipe:
    """Settings with where they came from.

    folder: the session's folder, None for arrays; include: left-out files that were taken back; winner: which
    candidate the settings are ("no change", "rule mix", "dqn"); scores: rendered score by candidate; moves: the DQN's,
    when it won; seed: of the dither.
    """

    settings: MixSettings
    folder: str | None = None
    include: tuple[str, ...] = ()
    winner: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    moves: tuple[LoggedMove, ...] = ()
    seed: int = 0
    made_with: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "made_with": self.made_with,
            "folder": self.folder,
            "include": list(self.include),
            "winner": self.winner,
            "scores": dict(self.scores),
            "moves": [asdict(move) for move in self.moves],
            "seed": self.seed,
            "settings": self.settings.to_dict(),
        }

    def to_json(self) -> str:
        """Indented JSON that ``from_json`` reads back to an equal recipe."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            text.encode()
        except UnicodeEncodeError:  # a file name that is no valid text goes through escapes
            return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        return text

    @classmethod
    def from_json(cls, text: str, what: str = "recipe") -> Recipe:
        """Read a recipe; also bare settings (``MixSettings.to_json``). Raises InputError on anything else."""
        data = parse_json(text, what)
        if isinstance(data, dict) and "format" not in data and "stems" in data:
            return cls(_settings(data, what))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"{what}: not a mixrl recipe: give a file that `mixrl mix --recipe` wrote")
        version = data.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
            raise InputError(f"{what}: recipe version {version!r:.40}, this mixrl reads up to {VERSION}: update mixrl")
        known = {f.name for f in fields(cls)} | {"format", "version"}
        unknown = sorted(set(data) - known)
        if unknown:
            raise InputError(f"{what}: unknown key {unknown[0]!r:.60} in the recipe: remove it")
        if "settings" not in data:
            raise InputError(f"{what}: the recipe has no settings: write it again with `mixrl mix --recipe`")
        return cls(
            settings=_settings(data["settings"], what),
            folder=_typed(data, "folder", (str, type(None)), None, what),
            include=tuple(_typed(item, None, str, "", what) for item in _typed(data, "include", list, [], what)),
            winner=_typed(data, "winner", str, "", what),
            scores={
                str(k): _finite(v, what) for k, v in _typed(data, "scores", dict, {}, what).items()
            },
            moves=tuple(_move(item, what) for item in _typed(data, "moves", list, [], what)),
            seed=_seed(_typed(data, "seed", int, 0, what), what),
            made_with=_typed(data, "made_with", str, "", what),
        )


def _typed(data: Any, key: str | None, kind: Any, default: Any, what: str) -> Any:
    value = data if key is None else data.get(key, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{what}: {key or 'a value'} has the wrong type in the recipe: {value!r:.60}")
    return value


def _settings(data: Any, what: str) -> MixSettings:
    try:
        return MixSettings.from_dict(data)
    except InputError as error:
        raise InputError(f"{what}: {error}") from None


def _finite(value: Any, what: str) -> float:
    number = _typed(value, None, (int, float), 0.0, what)
    if not -1e9 < number < 1e9:  # 1e999 reads as infinity, and a long integer fits no float
        raise InputError(f"{what}: a score is out of range in the recipe: {str(number)[:20]}")
    return float(number)


def _seed(value: int, what: str) -> int:
    if value < 0:
        raise InputError(f"{what}: seed {value!r:.20} is out of range: give 0 or more")
    return value


def _move(data: Any, what: str) -> LoggedMove:
    row = _typed(data, None, dict, {}, what)
    kinds = {"step": int, "score_change": (int, float)}
    names = [f.name for f in fields(LoggedMove)]
    if set(row) != set(names):
        raise InputError(f"{what}: a move must have the keys {', '.join(names)}")
    move = LoggedMove(**{name: _typed(row, name, kinds.get(name, str), None, what) for name in names})
    return replace(move, score_change=_finite(move.score_change, what))


def write_recipe(recipe: Recipe, path: str | os.PathLike[str], force: bool = False) -> None:
    """Write a recipe atomically. The session's folder is stored relative to the recipe where that is possible.

    Raises InputError (exists and not force, folder missing), ProcessingError (disk full).
    """
    from mixrl.audio import atomic_path

    path = Path(path)
    if recipe.folder is not None:
        try:
            folder = os.path.relpath(recipe.folder, path.resolve().parent)
        except ValueError:  # another drive
            folder = os.path.abspath(recipe.folder)
        recipe = replace(recipe, folder=Path(folder).as_posix())
    with atomic_path(path, force) as temporary:
        Path(temporary).write_text(recipe.to_json(), encoding="utf-8")


def read_recipe(path: str | os.PathLike[str]) -> tuple[Recipe, Path | None]:
    """A recipe and its session's folder, made absolute: it is written relative to the recipe.

    Raises InputError naming the file.
    """
    path = Path(path)
    try:
        text = read_text(path, MOST_BYTES)
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file: give a recipe that `mixrl mix --recipe` wrote") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): give a recipe file") from None
    recipe = Recipe.from_json(text, str(path))
    if recipe.folder is None:
        return recipe, None
    folder = Path(os.path.normpath(path.resolve().parent / recipe.folder))
    return replace(recipe, folder=str(folder)), folder
