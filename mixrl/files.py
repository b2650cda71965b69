"""Files that people give: what is no plain file is refused unopened, and no more is read than can be meant."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mixrl.errors import InputError


def refuse_special(path: Path) -> None:
    """InputError for a pipe, a device or a socket: to open one may wait for ever, and to read one may never end.

    Raises OSError for what is not there."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a folder, opening says that it is one
        raise InputError(f"{path}: is no file but a pipe or a device: move it away, or give a file")


def read_text(path: Path, most: int) -> str:
    """A text of UTF-8, with or without a byte order mark. Raises InputError for one that is longer than ``most`` bytes,
    and OSError and UnicodeDecodeError as reading does."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InputError(f"{path}: is larger than {most // 1024} KB, as none that is meant is: give another file")
    return data.decode("utf-8-sig")


def beside(path: Path, mark: str) -> Path:
    """A path in the same folder until ``path`` is complete: hidden, with the same suffix, and no longer than the 255
    bytes that file systems take."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= 20 else ""
    start = os.fsencode(path.stem)[:200].decode("utf-8", "ignore")  # no character is cut in two
    return path.with_name(f".{start}.{mark}.part{suffix}")
