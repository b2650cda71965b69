"""``mixrl evaluate balance``: whether what mixes finds the levels that people left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

VERSION = 1


def balance(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Sessions whose stems are at people's levels, or data sets.", show_default=False),
    ],
    starts: Annotated[int, typer.Option(min=1, help="Copies with random faders of each session.")] = 5,
    spread: Annotated[float, typer.Option(min=0.0, max=24.0, help="How far faders are off at the most, dB.")] = 12.0,
    names: Annotated[bool, typer.Option(help="Tell the methods what the stems are called.")] = True,
    methods: Annotated[
        str | None,
        typer.Option(
            help="a,b,c of raw, equal, rule, means, regressor, random, greedy, pattern, cma, tabular, dqn, shortlist, "
            "polish [all].",
            show_default=False,
        ),
    ] = None,
    learn: Annotated[
        list[Path],
        typer.Option(
            help="Sessions, or the train part of data sets, that means and regressor learn from too; not those named "
            "like one that is evaluated."
        ),
    ] = [],  # noqa: B006  (Typer's way to say "none")
    policy: Annotated[
        list[Path],
        typer.Option(help="Policy or table to play; repeatable (default: the one that ships).", show_default=False),
    ] = [],  # noqa: B006  (Typer's way to say "none")
    budget: Annotated[int, typer.Option(min=10, help="Evaluations of each method at the most.")] = 1000,
    part: Annotated[str, typer.Option(help="Part of a data set: test, validation or train.")] = "test",
    render: Annotated[bool, typer.Option(help="Render each mix and compare its sound with people's.")] = True,
    jobs: Annotated[int, typer.Option(min=1, help="Sessions to work on at a time.")] = 1,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that remembers sessions of --learn (default: none).")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write every run and the summary (JSON).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Compare how well methods find the balance that people left.

    Of each session the 30 s in which most stems play are taken, every fader is put off at random, and each method mixes
    that. The error is the mean absolute difference to people's levels over the stems within 30 LU of the loudest, its
    median taken off. raw: faders as they are; means: each role at its mean level in the other songs; regressor: trees
    that learned levels from the sound of the other songs' stems. Sessions of fewer than five stems that are heard are
    left out.
    """
    import json as serialise
    from importlib.util import find_spec
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from mixrl import __version__
    from mixrl.agent.material import load_material, session_folders
    from mixrl.audio import atomic_path
    from mixrl.commands.outputs import check_outputs
    from mixrl.commands.progress import sessions_bar
    from mixrl.commands.train import command_line
    from mixrl.contest import contest_of, sessions_of
    from mixrl.errors import InputError
    from mixrl.recovery import REGRESSOR, RIVALS, Recovery, balance_of, recover, summary
    from mixrl.songs import PARTS

    if part not in PARTS:
        raise InputError(f"no part {part!r}: there are {', '.join(PARTS)}")
    check_outputs((json,), (), folders[0], force)
    wanted = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    if wanted == []:
        raise InputError("--methods names none: write them like equal,rule,dqn")
    rivals = tuple(name for name in RIVALS if wanted is None or name in wanted)
    if REGRESSOR in rivals and find_spec("sklearn") is None:
        raise InputError('regressor needs a package: pip install "mixrl[evaluate]", or leave it out of --methods')
    sessions = sessions_of(folders, part)
    evaluated = {folder.resolve().name for folder in sessions.values()}
    others = session_folders(learn, "train") if rivals else []
    others = [folder for folder in others if folder.resolve().name not in evaluated]
    searching = None if wanted is None else [name for name in wanted if name not in RIVALS]
    contest = contest_of(searching, policy, budget, render=render)
    with TemporaryDirectory() as temporary:
        material = load_material(others, cache or Path(temporary), jobs)
    learned = [song for one in material if (song := balance_of(one.scene, one.real)) is not None]
    with sessions_bar(len(sessions)) as done:
        recovery = Recovery(contest, starts, spread, names, rivals)
        about, results, failed = recover(recovery, sessions, jobs, done, learned)
    found = summary(about, results)
    if not found:
        raise InputError("; ".join(f"{one['name']}: {one['skipped']}" for one in about) + ": give other sessions")
    if json is not None:
        made = {
            "version": VERSION, "mixrl": __version__, "command": command_line(), "starts": starts, "spread_db": spread,
            "names": names, "budget": budget, "sessions": about, "results": results, "failed": failed,
            "summary": found,
        }  # fmt: skip
        with atomic_path(json, force) as written:
            Path(written).write_text(serialise.dumps(made, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for kind, figures in found.items():
        _show(kind, figures)
    console = Console(stderr=True, highlight=False)
    for one in about:
        if "skipped" in one:
            console.print(f"left out: {one['name']}: {one['skipped']}", soft_wrap=True, markup=False)
    for name, reason in failed.items():
        console.print(f"failed: {name}: {reason}", soft_wrap=True, markup=False)
    if failed:
        raise typer.Exit(1)


_HEADINGS = {
    "mr_stft": "STFT", "crest_db": "crest dB", "width": "width", "imbalance": "imbal.", "bark_mid_db": "Bark mid dB",
    "bark_side_db": "side dB", "features": "features",
}  # fmt: skip


def _show(kind: str, figures: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    heard = [name for name in _HEADINGS if any(row[name] is not None for row in figures.values())]
    sound = ", and distances of the sound" if heard else ""
    console.print(f"{kind} songs: error against people's levels{sound}", soft_wrap=True)
    headings = ("songs", "dB", "of equal", "95%", "better", "in range", *(_HEADINGS[name] for name in heard))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for method, row in figures.items():
        table.add_row(
            method, str(row["songs"]), f"{row['mae_db']:.2f}", _or_none(row["ratio"], "{:.2f}"),
            _or_none(row["interval"], "{0[0]:.2f}..{0[1]:.2f}"), _or_none(row["better"], "{:.0%}"),
            _or_none(row["inside"], "{:.0%}"), *(_or_none(row[name], "{:.2f}") for name in heard),
        )  # fmt: skip
    # whole where nobody looks at a terminal
    wide = console if console.is_terminal else Console(highlight=False, width=max(console.width, 160))
    wide.print(table)


def _or_none(value: float | Sequence[float] | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
