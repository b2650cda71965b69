"""``mixrl mix``: a folder of stems in, a finished mix out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixrl.presets import PRESETS

if TYPE_CHECKING:
    from mixrl.delivery import Delivery
    from mixrl.mixer import Mix, Unsaid


def mix(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of stems; sub-folders are groups; its mixrl.toml is heeded.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Output file, .wav or .flac (default: the folder's name, .wav)."),
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Integrated loudness, LUFS (mixrl.toml's, or -14).", show_default=False)
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"Loudness and ceiling of a platform: {', '.join(PRESETS)}.", show_default=False)
    ] = None,
    ceiling: Annotated[
        float | None, typer.Option(help="True-peak ceiling, dBTP (mixrl.toml's, or -1).", show_default=False)
    ] = None,
    bpm: Annotated[float | None, typer.Option(help="Bring the mix to this tempo.", show_default=False)] = None,
    lock: Annotated[list[str] | None, typer.Option(help="Stem (or glob) to leave as it is; repeatable.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="Take back a file that would be left out (click, mixdown); repeatable.")
    ] = None,
    strength: Annotated[
        str | None,
        typer.Option(help="How much of each kind of move to keep, 0 to 1: gain=1,eq=0.5,pan=0.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=0, help="Settings to change at the most (default: any number).", show_default=False),
    ] = None,
    polish: Annotated[
        int | None,
        typer.Option(min=0, help="Mixes to try around the policy's (default: 1000; 0: none).", show_default=False),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="wav16, wav24, wav32f, flac16, flac24 (default: 24 bits).", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the dither.")] = 0,
    recipe: Annotated[Path | None, typer.Option(help="Write the mix's settings and moves (JSON).")] = None,
    stems: Annotated[Path | None, typer.Option(help="Write the processed stems into this folder.")] = None,
    ab: Annotated[
        Path | None, typer.Option(help="Write all candidates, loudness-matched, into this folder for listening.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one object for machines.")] = False,
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


def loudness_of(
    target: float | None, preset: str | None, ceiling: float | None
) -> tuple[float | Unsaid, float | Unsaid]:
    """Target (LUFS) and ceiling (dBTP), as far as they were asked for. InputError for no preset, and for a target
    beside one."""
    from mixrl.errors import InputError
    from mixrl.mixer import UNSAID

    if preset is not None:
        if preset not in PRESETS:
            raise InputError(f"no preset {preset!r}: there are {', '.join(PRESETS)}")
        if target is not None:
            raise InputError("give --target or --preset, not both")
        target, preset_ceiling = PRESETS[preset]
        ceiling = preset_ceiling if ceiling is None else ceiling
    return UNSAID if target is None else target, UNSAID if ceiling is None else ceiling


def strengths_of(text: str | None) -> dict[str, float]:
    """How much of each kind of move to keep, from "gain=1,eq=0.5". InputError for what is not written like that."""
    from mixrl.errors import InputError

    found = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        kind, _, value = part.partition("=")
        try:
            found[kind.strip()] = float(value)
        except ValueError:
            raise InputError(f"--strength {part.strip()!r}: write it like gain=1,eq=0.5") from None
    return found


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
