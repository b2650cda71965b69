"""``mixrl explain``: what a recipe does and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def explain(
    recipe: Annotated[Path, typer.Argument(help="Recipe that mixrl mix wrote.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print a list of moves for machines.")] = False,
) -> None:
    """List every move of a recipe with its reason."""
    import json as serialise
    from dataclasses import asdict

    from mixrl.commands.outputs import printable
    from mixrl.recipe import read_recipe

    made, _ = read_recipe(recipe)
    if json:
        typer.echo(serialise.dumps([asdict(move) for move in made.moves], indent=2))
        return
    if made.winner:
        scores = ", ".join(f"{name} {value:+.3f}" for name, value in made.scores.items())
        typer.echo(printable(f"{made.winner} won ({scores})"))
    for move in made.moves:
        typer.echo(printable(f"{move.step:3d}  {move}"))
    if not made.moves:
        typer.echo("no moves: the settings were not made by the DQN")
