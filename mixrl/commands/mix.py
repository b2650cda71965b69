"""``mixrl mix``: a folder of stems in, a finished mix out."""

from __future__ import annotations

from pathlib import Path
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
    from mixrl.delivery import Delivery
    from mixrl.mixer import Mix


def mix(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of stems; sub-folders are groups; its mixrl.toml is heeded.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Output file, .wav or .flac (default: the folder's name, .wav)."),
    ] = None,
    target: Target = None,
    preset: Preset = None,
    ceiling: Ceiling = None,
    bpm: Bpm = None,
    lock: Annotated[list[str] | None, typer.Option(help="Stem (or glob) to leave as it is; repeatable.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Take back a file that would be left out (click, mixdown); repeatable.")
    ] = None,
    strength: Strength = None,
    steps: Steps = None,
    polish: Polish = None,
    encoding: Annotated[
        str | None, typer.Option(help="wav16, wav24, wav32f, flac16, flac24 (default: 24 bits).", show_default=False)
    ] = None,
    seed: Seed = 0,
    recipe: Annotated[Path | None, typer.Option(help="Write the mix's settings and moves (JSON).")] = None,
    stems: Annotated[Path | None, typer.Option(help="Write the processed stems into this folder.")] = None,
    ab: Annotated[
        Path | None, typer.Option(help="Write all candidates, loudness-matched, into this folder for listening.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    json: Json = False,
) -> None:
    """Mix a folder of stems into a finished file.

    The deep Q-network's mix competes with a rule mix and with the stems as they are, loudness-matched and on rendered
    audio; the best one is written, at the target loudness and under the true-peak ceiling.
    """
    import json as serialise

    from mixrl.audio import encoding_for
    from mixrl.commands.outputs import check_no_stem, check_outputs, inside
    from mixrl.commands.progress import progress_bar
    from mixrl.mixer import POLISH, write_candidates, write_stems
    from mixrl.mixer import mix as mix_folder

    target_lufs, ceiling_dbtp = loudness_of(target, preset, ceiling)
    output = Path(f"{folder.resolve().name or 'mix'}.wav") if output is None else output
    encoding_for(output, encoding)
    check_outputs((output, recipe), (stems, ab), folder, force)
    with progress_bar(quiet=json) as progress:
        made = mix_folder(
            folder,
            target=target_lufs,
            ceiling=ceiling_dbtp,
            bpm=bpm,
            locked=lock or (),
            strength=strengths_of(strength),
            steps=steps,
            polish=POLISH if polish is None else polish,
            seed=seed,
            include=include or (),
            progress=progress,
        )
        check_no_stem(output, made.session)
        progress("writing", 0.0)
        delivery = made.write(output, encoding=encoding, force=force)
        if recipe is not None:
            made.write_recipe(recipe, force)
        if stems is not None:
            write_stems(made.session, made.settings, stems, delivery.gain_db, force)
        if ab is not None:
            write_candidates(made, ab, force)
    warnings = (*made.warnings, *delivery.warnings, *inside(output, folder))
    if json:
        typer.echo(serialise.dumps(_object(made, delivery, output, recipe, warnings), indent=2))
    else:
        _show(made, delivery, output, warnings)


def _object(
    made: Mix, delivery: Delivery, output: Path, recipe: Path | None, warnings: tuple[str, ...]
) -> dict[str, object]:
    from dataclasses import asdict

    from mixrl.commands.outputs import delivered

    return {
        **delivered(output, delivery),
        "score_before": made.score_before,
        "score_after": made.score_after,
        "winner": made.winner,
        "candidates": {
            c.name: {"score": c.score, "predicted": c.predicted, "balance_db": c.balance_db} for c in made.candidates
        },
        "moves": [asdict(move) for move in made.moves],
        "roles": [asdict(one) for one in made.known],
        "warnings": list(warnings),
        "recipe_file": None if recipe is None else str(recipe),
        "recipe": made.recipe.to_dict(),
    }


def _show(made: Mix, delivery: Delivery, output: Path, warnings: tuple[str, ...]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mixrl.commands.outputs import delivered_line, printable

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    if made.moves:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("", "what", "setting", "before", "after", "score", "why"):
            table.add_column(heading, overflow="fold")
        for move in made.moves:
            what = printable(f"{move.name} (group)" if move.target == "group" else move.name)
            cells = (str(move.step), what, move.setting, move.before, move.after, f"{move.score_change:+.3f}")
            table.add_row(*map(Text, (*cells, move.reason)))  # a name may look like markup
        console.print(table)
    heard = ", ".join(f"{one.stem} {one.role}" for one in made.known if one.by == "sound")
    if heard:
        console.print(printable(f"by sound: {heard}"), markup=False, soft_wrap=True)
    for candidate in made.candidates:
        mark = " <- the mix" if candidate.name == made.winner else ""
        risk = candidate.balance_db
        near = "" if risk is None else f"  balance probably {risk:.1f} dB from people's"
        console.print(f"{candidate.name:10s} score {candidate.score:+.3f}{near}{mark}")
    for warning in warnings:
        errors.print(printable(f"warning: {warning}"), style="yellow", markup=False, soft_wrap=True)
    console.print(printable(delivered_line(output, delivery)), markup=False, soft_wrap=True)
