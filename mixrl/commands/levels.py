"""``mixrl levels``: learn from people's sessions how loud stems of what sound are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def levels(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Sessions whose stems are at people's levels, or data sets.", show_default=False),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where they go (.safetensors).", show_default=False)
    ],
    cache: Annotated[Path | None, typer.Option(help="Folder that remembers sessions listened to [none].")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Sessions to listen to at a time.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Learn how loud people leave stems, from what these sound like (needs scikit-learn: the train extra).

    Of data sets, training and validation sessions are learned from, never test sessions; sessions without people's
    levels and those of fewer than five stems that are heard are left out.
    """
    from importlib.metadata import version
    from importlib.util import find_spec
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from mixrl import __version__
    from mixrl.agent.material import has_balance, load_material, session_folders
    from mixrl.commands.outputs import check_outputs
    from mixrl.commands.progress import sessions_bar
    from mixrl.commands.train import command_line
    from mixrl.errors import InputError
    from mixrl.regressor import balance_of, learn

    if find_spec("sklearn") is None:
        raise InputError('learning levels needs scikit-learn: install it with pip install "mixrl[train]"')
    check_outputs((output,), (), folders[0], force)
    found = [*session_folders(folders, "train"), *session_folders(folders, "validation")]
    found = [folder for folder in found if has_balance(folder)]
    with TemporaryDirectory() as temporary, sessions_bar(len(found)) as done:
        material = load_material(found, cache or Path(temporary), jobs, done)
    songs = [song for one in material if (song := balance_of(one.scene, one.real)) is not None]
    if len(songs) < 2:
        raise InputError(f"{folders[0]}: levels are learned from two songs or more, of five stems that are heard")
    made_by = {"command": command_line(), "mixrl": __version__, "scikit-learn": version("scikit-learn")}
    made_by |= {"songs": str(len(songs)), "real songs": str(sum(song.real for song in songs))}
    learn(songs, made_by).save(output)
    stems = sum(int(song.heard.sum()) for song in songs)
    console = Console(stderr=True, highlight=False)
    console.print(f"wrote {output}, learned from {stems} stems of {len(songs)} songs", soft_wrap=True)
