"""``mixrl batch``: a folder of sessions in, a finished mix of each out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mixrl.commands.mixing import (
    Bpm,
    Ceiling,
    Json,
    Polish,
    Preset,
    Seed,
    Steps,
    Strength,
    Target,
    loudness_of,
    strengths_of,
)

if TYPE_CHECKING:
    from mixrl.batching import Batch
    from mixrl.worker import Result


def batch(
    root: Annotated[
        str,
        typer.Argument(
            help="Folder of session folders, or a URL (s3://bucket/songs); sub-folders with audio, and folders with a "
            "mixrl.toml at any depth, are sessions.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Folder for the mixes, or a URL; made if missing.", show_default=False),
    ],
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Sessions at a time (default: one for each core).", show_default=False)
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, or dask://HOST:PORT of a scheduler whose workers see the same folders.")
    ] = "local",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on: skip what was mixed from the same files and settings.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Mix all anew, over former results.")] = False,
    target: Target = None,
    preset: Preset = None,
    ceiling: Ceiling = None,
    bpm: Bpm = None,
    strength: Strength = None,
    steps: Steps = None,
    polish: Polish = None,
    encoding: Annotated[str, typer.Option(help="wav16, wav24, wav32f, flac16, flac24.")] = "wav24",
    album: Annotated[
        bool, typer.Option("--album", help="The songs of a folder are an album: one offset in level and tone for all.")
    ] = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Mix every session below a folder, several at a time.

    Writes OUT/SESSION/mix.wav, recipe.json and result.json, and in the end OUT/batch.jsonl. A session that fails stops
    no other; the exit code is 1 then. What was interrupted, however roughly, goes on with --resume.
    """
    from mixrl.batching import batch as mix_all
    from mixrl.commands.progress import batch_bar
    from mixrl.mixer import POLISH

    target_lufs, ceiling_dbtp = loudness_of(target, preset, ceiling)
    done = 0
    try:
        with batch_bar(quiet=json) as (finished, stages):

            def count(result: Result, number: int, total: int) -> None:
                nonlocal done
                done = number
                finished(result, number, total)

            made = mix_all(
                root,
                output,
                jobs=jobs,
                engine=engine,
                resume=resume,
                force=force,
                target=target_lufs,
                ceiling=ceiling_dbtp,
                bpm=bpm,
                strength=strengths_of(strength),
                steps=steps,
                polish=POLISH if polish is None else polish,
                seed=seed,
                encoding=encoding,
                album=album,
                progress=count,
                stages=stages,
            )
    except KeyboardInterrupt:
        typer.echo(f"finished sessions stay ({done} so far): go on with --resume", err=True)
        raise
    if json:
        _print_object(made)
    else:
        _show(made)
    if made.failed:
        raise typer.Exit(1)


def _print_object(made: Batch) -> None:
    import json

    sessions = [
        {
            **result.record.to_dict(),
            "status": result.status,
            "seconds": round(result.seconds, 3),
            "cpu_seconds": round(result.cpu_seconds, 3),
        }
        for result in made.results
    ]
    found = {
        "sessions": sessions,
        **{status: len(made.of_status(status)) for status in ("mixed", "failed", "skipped")},
        "seconds": round(made.seconds, 3),
        "core_hours_per_1000": made.core_hours_per_1000,
        "album_offsets_db": dict(made.offsets_db),
        "warnings": list(made.warnings),
    }
    typer.echo(json.dumps(found, indent=2))


def _show(made: Batch) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mixrl.commands.outputs import printable
    from mixrl.commands.progress import duration

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("session", overflow="fold")
    table.add_column("result", overflow="fold")
    for heading in ("LUFS", "dBTP"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("winner", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    for result in made.results:
        record = result.record
        what = result.status if result.error is None else f"failed: {result.error}"
        if result.error is None and record.target_reached is False:
            what += ", target not reached"
        if record.warnings:
            what += f", {len(record.warnings)} warning{'s'[: len(record.warnings) > 1]}"
        levels = ("-" if x is None else f"{x:.1f}" for x in (record.integrated_lufs, record.true_peak_dbtp))
        cells = (result.session, what, *levels, record.winner or "-", f"{result.seconds:.1f}")
        table.add_row(*(Text(printable(cell)) for cell in cells))  # a name may look like markup
    console.print(table)
    for warning in made.warnings:
        errors.print(printable(f"warning: {warning}"), style="yellow", markup=False, soft_wrap=True)
    for folder, offset in made.offsets_db.items():
        if offset is not None:
            which = f"{folder}: " if folder else ""
            console.print(printable(f"{which}all songs of the album {offset:+.1f} dB"), markup=False, soft_wrap=True)
    counts = ", ".join(f"{len(made.of_status(status))} {status}" for status in ("mixed", "failed", "skipped"))
    hours = made.core_hours_per_1000
    cost = "" if hours is None else f"; 1,000 sessions like these would take {hours:.2f} core-hours"
    console.print(f"{counts} in {duration(made.seconds)}{cost}", soft_wrap=True)
