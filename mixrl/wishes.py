"""What a folder of stems says of itself in its ``mixrl.toml``: roles, groups, locks, and how it is to be delivered.

    target = -16.0              # LUFS; or preset = "spotify"
    ceiling = -1.0              # dBTP
    bpm = 120
    lock = ["vox*"]             # stems that no move may touch
    include = ["Rough Mix"]     # files that would be left out

    [roles]                     # what stems are: names or globs
    "track07" = "vocal"

    [groups]                    # which stems are mixed as one
    "gtr*" = "guitars"
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mixrl.errors import InputError
from mixrl.files import read_text, refuse_special
from mixrl.presets import PRESETS
from mixrl.roles import ROLES
from mixrl.settings import BPM_RANGE, CEILING_RANGE_DBTP, TARGET_RANGE_LUFS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "mixrl.toml"
MOST_BYTES = 256 << 10  # of a thousand stems, each with a role, a group and a lock
_MOST_DOTS = 1000  # in a line: tomllib takes the square of the time for a key of so many parts
_RANGES = {"target": TARGET_RANGE_LUFS, "ceiling": CEILING_RANGE_DBTP, "bpm": BPM_RANGE}
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Wishes:
    """Of a session. target: integrated loudness, LUFS; ceiling: true peak, dBTP; bpm: tempo; None where nothing is
    said. locked, include: names or globs of stems and files. roles, groups: by name or glob of a stem."""

    target: float | None = None
    ceiling: float | None = None
    bpm: float | None = None
    locked: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=lambda: _NONE)
    groups: Mapping[str, str] = field(default_factory=lambda: _NONE)


def read_wishes(folder: Path) -> Wishes:
    """What the folder says; nothing where it has no ``mixrl.toml``. Raises InputError naming the file and the mend for
    one that cannot be read, and for what it says that means nothing."""
    path = folder / FILE
    try:
        refuse_special(path)
        text = read_text(path, MOST_BYTES)
        if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
            raise ValueError(f"over {_MOST_DOTS} dots in a line")
        said = tomllib.loads(text)
    except FileNotFoundError:
        return Wishes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): check its permissions") from None
    except RecursionError:
        raise InputError(f"{path}: is no TOML (too deeply nested): mend it") from None
    except ValueError as error:  # no UTF-8, no TOML, or a number of thousands of digits
        raise InputError(f"{path}: is no TOML ({error}): mend it") from None
    known = {"target", "preset", "ceiling", "bpm", "lock", "include", "roles", "groups"}
    for key in said:
        if key not in known:
            raise InputError(f"{path}: nothing is called {key!r:.60} there: use {', '.join(sorted(known))}")
    target, ceiling = (_number(path, said, key) for key in ("target", "ceiling"))
    if "preset" in said:
        preset = said["preset"] if isinstance(said["preset"], str) else ""
        if preset not in PRESETS:
            raise InputError(f"{path}: no preset {preset!r:.60}: there are {', '.join(PRESETS)}")
        if target is not None:
            raise InputError(f"{path}: give target or preset, not both")
        target, of_preset = PRESETS[preset]
        ceiling = of_preset if ceiling is None else ceiling
    roles = _table(path, said, "roles")
    for name, role in roles.items():
        if role not in ROLES:
            raise InputError(f"{path}: {name}: no role {role!r}: there are {', '.join(ROLES)}")
    return Wishes(
        target, ceiling, _number(path, said, "bpm"), _list(path, said, "lock"), _list(path, said, "include"),
        roles, _table(path, said, "groups"),
    )  # fmt: skip


def asked_of(asked: Mapping[str, str], names: Sequence[str], path: Path) -> dict[str, str]:
    """What is asked of each of these stems, by name: what names the stem itself goes before globs, and of these the
    first before the others. InputError for one that matches no stem."""
    found: dict[str, str] = {}
    exact = {name: value for name, value in asked.items() if name in names}
    for pattern, value in [*exact.items(), *((p, v) for p, v in asked.items() if p not in exact)]:
        hits = [name for name in names if name == pattern or fnmatchcase(name.casefold(), pattern.casefold())]
        if not hits:
            raise InputError(f"{path}: {pattern!r} is no stem of it: there are {', '.join(names)}")
        for name in hits:
            found.setdefault(name, value)
    return found


def _number(path: Path, said: Mapping[str, Any], key: str) -> float | None:
    value = said.get(key)
    if value is None:
        return None
    low, high = _RANGES[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{path}: {key} is no number: write it like {key} = {low / 4 + high * 3 / 4:.1f}")
    if not low <= value <= high:  # also for NaN; a whole number may be larger than any float
        raise InputError(f"{path}: {key} is out of range: give {low:g} to {high:g}")
    return float(value)


def _list(path: Path, said: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = said.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f'{path}: {key} is no list of names: write it like {key} = ["vox"]')
    return tuple(values)


def _table(path: Path, said: Mapping[str, Any], key: str) -> Mapping[str, str]:
    values = said.get(key, {})
    if not isinstance(values, dict) or not all(isinstance(value, str) and value for value in values.values()):
        raise InputError(f'{path}: [{key}] is no table of names: write lines like "track07" = "vocal"')
    return values
