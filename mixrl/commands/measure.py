"""``mixrl measure``: loudness and peaks of audio files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mixrl.audio import Source
    from mixrl.meters import Measurement

_JSON_KEYS = (
    "integrated_lufs", "max_momentary_lufs", "max_short_term_lufs", "loudness_range_lu", "true_peak_dbtp",
    "sample_peak_dbfs", "duration_s", "sample_rate", "channels",
)  # fmt: skip
_COLUMNS = {
    "I\nLUFS": "integrated_lufs",
    "max M\nLUFS": "max_momentary_lufs",
    "max S\nLUFS": "max_short_term_lufs",
    "LRA\nLU": "loudness_range_lu",
    "true pk\ndBTP": "true_peak_dbtp",
    "peak\ndBFS": "sample_peak_dbfs",
    "PLR\ndB": "plr_db",
}


def measure(
    files: Annotated[list[Path], typer.Argument(help="Audio files.", show_default=False)],
    cross_check: Annotated[bool, typer.Option("--cross-check", help="Show pyloudnorm's reading beside ours.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a list of objects for machines.")] = False,
) -> None:
    """Measure loudness (ITU-R BS.1770, EBU R 128) and peaks. A mono file counts as dual mono."""
    import json as serialise

    from rich.console import Console
    from rich.text import Text

    from mixrl.audio import FileSource
    from mixrl.commands.outputs import printable
    from mixrl.errors import InputError
    from mixrl.meters import measure as read

    rows: list[tuple[Path, Measurement, float | None]] = []
    with Console(stderr=True).status("") as status:
        for path in files:
            status.update(Text(f"measuring {printable(path.name)}"))  # a name may look like markup
            source = FileSource(path)
            try:
                measurement = read(source, spectrum=False)
            except InputError as error:
                if str(path) in str(error):
                    raise
                raise InputError(f"{path}: {error}") from error
            rows.append((path, measurement, _pyloudnorm(source) if cross_check else None))
    if not json:
        Console().print(_table(rows, cross_check))
        return
    objects = []
    for path, measurement, other in rows:
        fields = {"file": str(path)} | {key: getattr(measurement, key) for key in _JSON_KEYS}
        objects.append(fields | ({"pyloudnorm_lufs": other} if cross_check else {}))
    typer.echo(serialise.dumps(objects, indent=2))


def _table(rows: list[tuple[Path, Measurement, float | None]], cross_check: bool) -> object:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from mixrl.commands.outputs import printable

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)  # fits 80 columns
    table.add_column("file", overflow="fold")
    for heading in [*_COLUMNS, *(["pyloud-\nnorm"] if cross_check else [])]:
        table.add_column(heading, justify="right", no_wrap=True)
    for path, measurement, other in rows:
        values = [getattr(measurement, name) for name in _COLUMNS.values()] + ([other] if cross_check else [])
        table.add_row(Text(printable(path.name)), *("-" if value is None else f"{value:.2f}" for value in values))
    return table


def _pyloudnorm(source: Source) -> float | None:
    """pyloudnorm's integrated loudness by its exact filter, with our conventions; reads the whole file at once."""
    import numpy as np
    import pyloudnorm

    from mixrl.audio import read

    x = read(source)
    if x.shape[1] < 0.4 * source.sample_rate:
        return None
    if source.channels == 6:
        x = np.delete(x, 3, axis=0)  # it knows no LFE
    with np.errstate(all="ignore"):
        lufs = pyloudnorm.Meter(source.sample_rate, filter_class="DeMan").integrated_loudness(x.T.astype(np.float64))
    if not np.isfinite(lufs):
        return None
    return float(lufs) + (10.0 * float(np.log10(2.0)) if source.channels == 1 else 0.0)
