"""``mixrl render``: a recipe back into audio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def render(
    recipe: Annotated[Path, typer.Argument(help="Recipe that mixrl mix wrote.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output file, .wav or .flac.", show_default=False)],
    session: Annotated[
        Path | None, typer.Option(help="Folder of stems (default: the one that the recipe names).", show_default=False)
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="wav16, wav24, wav32f, flac16, flac24 (default: 24 bits).", show_default=False)
    ] = None,
    stems: Annotated[Path | None, typer.Option(help="Write the processed stems into this folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one object for machines.")] = False,
) -> None:
    """Render a recipe. The same recipe and stems give the same samples, bit for bit."""
    import json as serialise

    from mixrl.audio import encoding_for
    from mixrl.commands.outputs import check_no_stem, check_outputs, delivered, delivered_line, printable
    from mixrl.commands.progress import progress_bar
    from mixrl.errors import InputError
    from mixrl.mixer import deliver_mix, write_stems
    from mixrl.recipe import read_recipe
    from mixrl.session import load_session

    made, folder = read_recipe(recipe)
    folder = session or folder
    if folder is None:
        raise InputError(f"{recipe}: names no session: give its folder with --session")
    if not folder.is_dir():
        raise InputError(f"{folder}: the recipe's session is not there: give its folder with --session")
    encoding_for(output, encoding)
    check_outputs((output,), (stems,), folder, force)
    with progress_bar(quiet=json) as progress:
        progress("loading", 0.0)
        loaded = load_session(folder, include=made.include)
        check_no_stem(output, loaded)
        progress("writing", 0.5)
        delivery = deliver_mix(loaded, made.settings, output, encoding=encoding, force=force, seed=made.seed)
        if stems is not None:
            write_stems(loaded, made.settings, stems, delivery.gain_db, force)
    if json:
        found = {
            **delivered(output, delivery),
            "warnings": [*loaded.warnings, *delivery.warnings],
        }
        typer.echo(serialise.dumps(found, indent=2))
        return
    for warning in (*loaded.warnings, *delivery.warnings):
        typer.echo(printable(f"warning: {warning}"), err=True)
    typer.echo(printable(delivered_line(output, delivery)))
