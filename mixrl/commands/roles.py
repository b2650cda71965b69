"""``mixrl roles``: learn what stems are from their sound; ``mixrl evaluate roles``: how well that is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

VERSION = 1


def roles(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Sessions whose stems' names tell what they are, or data sets.", show_default=False),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where it goes (.safetensors).", show_default=False)
    ],
    cache: Annotated[Path | None, typer.Option(help="Folder that remembers sessions listened to [none].")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Sessions to listen to at a time.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Learn what stems are from their sound (needs scikit-learn: the train extra).

    What they are is told by their names, or by mixrl.toml; stems of which neither tells are left out. Of data sets,
    training and validation sessions are learned from, never test sessions.
    """
    from importlib.metadata import version
    from importlib.util import find_spec
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from mixrl import __version__
    from mixrl.agent.material import load_material, session_folders
    from mixrl.commands.outputs import check_outputs
    from mixrl.commands.progress import sessions_bar
    from mixrl.commands.train import command_line
    from mixrl.errors import InputError
    from mixrl.role_learning import labelled, learn

    if find_spec("sklearn") is None:
        raise InputError('learning roles needs scikit-learn: install it with pip install "mixrl[train]"')
    check_outputs((output,), (), folders[0], force)
    found = [*session_folders(folders, "train"), *session_folders(folders, "validation")]
    with TemporaryDirectory() as temporary, sessions_bar(len(found)) as done:
        material = load_material(found, cache or Path(temporary), jobs, done)
    songs = [song for one in material if len((song := labelled(one.scene, one.real)).known)]
    stems = sum(len(song.known) for song in songs)
    made_by = {"command": command_line(), "mixrl": __version__, "scikit-learn": version("scikit-learn")}
    made_by |= {"songs": str(len(songs)), "real songs": str(sum(song.real for song in songs)), "stems": str(stems)}
    try:
        classifier = learn(songs, made_by)
    except ValueError as error:
        raise InputError(f"{folders[0]}: {error}: give more sessions") from None
    classifier.save(output)
    console = Console(stderr=True, highlight=False)
    console.print(f"wrote {output}, learned from {stems} stems of {len(songs)} songs", soft_wrap=True, markup=False)


def evaluate_roles(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Sessions whose stems' names tell what they are, or data sets.", show_default=False),
    ],
    leave_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out",
            help="Learn anew for each session, from the others and --learn (default: the classifier that ships).",
        ),
    ] = False,
    learn_from: Annotated[
        list[Path],
        typer.Option(
            "--learn",
            help="Sessions, or the train and validation parts of data sets, to learn from too; not those named like "
            "one that is evaluated.",
        ),
    ] = [],  # noqa: B006  (Typer's way to say "none")
    part: Annotated[str, typer.Option(help="Part of a data set: test, validation or train.")] = "test",
    jobs: Annotated[int, typer.Option(min=1, help="Sessions to listen to at a time.")] = 1,
    cache: Annotated[Path | None, typer.Option(help="Folder that remembers sessions listened to [none].")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write every stem and the summary (JSON).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Compare what stems sound like with what their names tell they are.

    Names of parts rendered from MIDI were made from their programs, and are true; those of real stems are what people
    called them, and there is no other truth. named: stems whose names tell a role. best: how often the most probable
    role by sound, and its group, is that of the name; said: how often it is sure enough to be said, and right then.
    names, both: with 30 % of the names lost, how often role and group are right by the names that are left, and by
    these and sound. The classifier that ships knows the training and validation parts of its data set.
    """
    import json as serialise
    from importlib.util import find_spec
    from tempfile import TemporaryDirectory

    from mixrl import __version__
    from mixrl.agent.material import load_material, session_folders
    from mixrl.audio import atomic_path
    from mixrl.commands.outputs import check_outputs
    from mixrl.commands.progress import sessions_bar
    from mixrl.commands.train import command_line
    from mixrl.contest import sessions_of
    from mixrl.errors import InputError
    from mixrl.role_learning import DROPPED, judged, labelled, learn, summary
    from mixrl.songs import PARTS
    from mixrl.sound_roles import default_classifier

    if part not in PARTS:
        raise InputError(f"no part {part!r}: there are {', '.join(PARTS)}")
    check_outputs((json,), (), folders[0], force)
    if leave_out and find_spec("sklearn") is None:
        raise InputError('--leave-one-out needs scikit-learn: pip install "mixrl[evaluate]", or do without')
    if learn_from and not leave_out:
        raise InputError("--learn is for --leave-one-out: add that, or leave it away")
    sessions = sessions_of(folders, part)
    evaluated = {folder.resolve().name for folder in sessions.values()}
    others = [*session_folders(learn_from, "train"), *session_folders(learn_from, "validation")]
    others = [folder for folder in others if folder.resolve().name not in evaluated]
    with TemporaryDirectory() as temporary, sessions_bar(len(sessions) + len(others)) as done:
        material = load_material([*sessions.values(), *others], cache or Path(temporary), jobs, done)
    songs = [labelled(one.scene, one.real) for one in material]
    records: list[dict[str, Any]] = []
    for number, (name, song) in enumerate(zip(sessions, songs[: len(sessions)], strict=True)):
        try:
            rest = [other for index, other in enumerate(songs) if index != number]
            classifier = learn(rest) if leave_out else default_classifier()
        except ValueError as error:
            raise InputError(f"{folders[0]}: {error}: give more sessions, or --learn") from None
        rows = judged(song, classifier, seed=list(name.encode()))
        records += [{"session": name, "real": song.real, **row} for row in rows]
    found = {
        kind: summary(rows)
        for kind, real in (("real", True), ("midi", False))
        if (rows := [row for row in records if row["real"] == real])
    }
    if json is not None:
        made = {
            "version": VERSION, "mixrl": __version__, "command": command_line(), "leave_one_out": leave_out,
            "names_lost": DROPPED, "stems": records, "summary": found,
        }  # fmt: skip
        with atomic_path(json, force) as written:
            Path(written).write_text(serialise.dumps(made, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    _show(found)


_HEADINGS = {
    "named": "named", "best_role": "best role", "best_group": "group", "said": "said", "right_role": "right role",
    "right_group": "group", "centred": "centred", "right_centred": "right", "names_role": "names role",
    "names_group": "group", "both_role": "both role", "both_group": "group", "unnamed_said": "unnamed said",
}  # fmt: skip


def _show(found: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    wide = console if console.is_terminal else Console(highlight=False, width=max(console.width, 140))
    whole = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("songs", "stems", *_HEADINGS.values()):
        whole.add_column(heading, justify="right", no_wrap=True)
    for kind, figures in found.items():
        whole.add_row(kind, str(figures["stems"]), *(_percent(figures[name]) for name in _HEADINGS))
    wide.print(whole)
    for kind, figures in found.items():
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for heading in (f"{kind} songs", "stems", "found", "said", "of these right"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, row in (*figures["groups"].items(), *figures["roles"].items()):
            if row["stems"] or row["said"]:
                table.add_row(name, str(row["stems"]), _percent(row["found"]), str(row["said"]), str(row["right"]))
        wide.print(table)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
