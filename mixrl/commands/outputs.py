"""What a command was asked to write: checked before the work starts, not after minutes of it, and told when done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mixrl.errors import InputError

if TYPE_CHECKING:
    from mixrl.delivery import Delivery
    from mixrl.session import Session


def printable(text: str) -> str:
    """The text in one line, with escapes for what would steer a terminal: a file may be called anything."""
    return "".join(c if c >= " " and not "\x7f" <= c < "\xa0" else repr(c)[1:-1] for c in text)


def check_outputs(files: Iterable[Path | None], folders: Iterable[Path | None], session: Path, force: bool) -> None:
    """InputError for an output that could not be written, or would end up among the session's stems.

    files, folders: None for what was not asked for. session: the folder of stems.
    """
    wanted_files, wanted_folders = ([path for path in paths if path is not None] for paths in (files, folders))
    try:
        _check(wanted_files, wanted_folders, session, force)
    except OSError as error:  # a path that is too long, or goes round in links
        raise InputError(f"{error.filename}: cannot be used ({error.strerror}): give another name") from None


def _check(wanted_files: Sequence[Path], wanted_folders: Sequence[Path], session: Path, force: bool) -> None:
    wanted = [*wanted_files, *wanted_folders]
    for index, path in enumerate(wanted):
        if path.resolve() in [other.resolve() for other in wanted[:index]]:
            raise InputError(f"{path}: is asked for twice: give each output a name of its own")
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}: make it first, or give another one")
    for path in wanted_files:
        if path.is_dir():
            raise InputError(f"{path}: is a folder: give the name of a file")
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is a pipe or a device: give the name of a file")
        if path.exists() and not force:
            raise InputError(f"{path}: exists already: use --force to overwrite it, or give another name")
    for path in wanted_folders:
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file: give the name of a folder")
        if session.resolve() in (path.resolve(), *path.resolve().parents):
            raise InputError(f"{path}: is inside the session, whose stems would double: give a folder elsewhere")
        if not force and path.is_dir() and any(path.glob("*.wav")):
            raise InputError(f"{path}: holds audio already: use --force to overwrite, or give another folder")


def inside(output: Path, session: Path) -> tuple[str, ...]:
    """A warning for a mix that was written among the stems."""
    if session.resolve() not in output.resolve().parents:
        return ()
    return (f"{output} lies in the session's folder and may be taken for a stem next time: keep it elsewhere",)


def check_no_stem(output: Path, session: Session) -> None:
    """InputError when the mix would overwrite one of the stems that it is made of."""
    if output.resolve() in (file.resolve() for stem in session.stems for file in stem.files):
        raise InputError(f"{output}: is a stem of this session: give the mix another name")


def delivered(output: Path, delivery: Delivery) -> dict[str, object]:
    """What was written, for machines."""
    measured = delivery.measurement
    return {
        "output": str(output),
        "integrated_lufs": measured.integrated_lufs,
        "true_peak_dbtp": measured.true_peak_dbtp,
        "target_lufs": delivery.target_lufs,
        "target_reached": delivery.target_reached,
        "limiting_db": delivery.limiting_db,
    }


def delivered_line(output: Path, delivery: Delivery) -> str:
    """What was written, in a line."""
    measured = delivery.measurement
    loudness = "-" if measured.integrated_lufs is None else f"{measured.integrated_lufs:.1f} LUFS"
    peak = "-" if measured.true_peak_dbtp is None else f"{measured.true_peak_dbtp:.1f} dBTP"
    return f"{output}: {loudness}, {peak}, limiting {delivery.limiting_db:.1f} dB"
