"""``mixrl dataset``: sessions to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mixrl.dataset import Built, Report


def dataset(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Stem folders, MIDI files, or folders that hold such.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the sessions.", show_default=False)],
    split: Annotated[
        Path | None, typer.Option(help='JSON: names of songs under "train", "validation", "test".')
    ] = None,
    soundfont: Annotated[Path | None, typer.Option(help="SoundFont for MIDI files; without it, the system's.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Sources to work on at a time.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Replace sessions made from other input or settings.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print an object for machines.")] = False,
) -> None:
    """Build training, validation and test sessions, split by song (needs the train extra, and FluidSynth for MIDI).

    Each session is the excerpt in which most stems play. MIDI files are rendered part by part, drums by instrument.
    Songs that the split does not name are placed by what they play. Run it again and it goes on where it was.
    A folder with audio in it is one session; other folders are searched for sessions and MIDI files.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from mixrl.dataset import as_json, build

    console = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    bar = Progress(*columns, console=console)
    task = bar.add_task("")

    def finished(built: Built, done: int, total: int) -> None:
        bar.start()  # only now, so that bad usage is one line
        bar.update(task, completed=done, total=total, description=f"{built.name}: {built.status}")

    try:
        report = build(sources, output, split, soundfont=soundfont, jobs=jobs, force=force, progress=finished)
    finally:
        bar.stop()
    if json:
        typer.echo(as_json(report))
    else:
        _show(report)
    if report.failed:
        raise typer.Exit(1)


def _show(report: Report) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("session", "part", "kind", "status"):
        table.add_column(heading, overflow="fold")
    for heading in ("stems", "s", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.sessions:
        numbers = (str(row.stems), f"{row.seconds:.0f}", f"{row.megabytes:.1f}") if row.stems else ("-", "-", "-")
        table.add_row(escape(row.name), row.part or "-", row.kind, row.status, *numbers)
    console = Console()
    console.print(table)
    for row in report.sessions:
        if row.reason:
            console.print(f"{row.status}: {escape(row.name)}: {escape(row.reason)}", soft_wrap=True, highlight=False)
    for part, kinds in report.counts().items():
        console.print(f"{part}: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()), highlight=False)
