"""``mixrl evaluate balance``: whether what mixes finds the levels that people left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

VERSION = 2


def balance(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Sessions whose stems are at people's levels, or data sets.", show_default=False),
    ],
    starts: Annotated[int, typer.Option(min=1, help="Copies with random faders of each session.")] = 5,
    spread: Annotated[
        str, typer.Option(help="How far faders are off at the most, dB; several as a,b,c. 0: as people left them.")
    ] = "12",
    names: Annotated[bool, typer.Option(help="Tell the methods what the stems are called.")] = True,
    methods: Annotated[
        str | None,
        typer.Option(
            help="a,b,c of raw, equal, rule, means, regressor, expected, random, greedy, pattern, cma, tabular, dqn, "
            "shortlist, polish, mixer [all].",
            show_default=False,
        ),
    ] = None,
    leave_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out",
            help="Learn levels anew for each session, from the others and --learn (default: those that ship).",
        ),
    ] = False,
    learn: Annotated[
        list[Path],
        typer.Option(
            help="Sessions, or the train and validation parts of data sets, to learn levels from too; not those named "
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
    cache: Annotated[Path | None, typer.Option(help="Folder that remembers sessions listened to [none].")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write every run and the summary (JSON).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Compare how well methods find the balance that people left.

    Of each session the 30 s in which most stems play are taken, every fader is put off at random, and each method mixes
    that. The error is the mean absolute difference to people's levels over the stems within 30 LU of the loudest, its
    median taken off. raw: faders as they are; means: each role at its mean level in the other songs; regressor: levels
    learned from the sound of other songs' stems; expected: these weighed against the faders as they are; mixer: what
    `mixrl mix` does with the DQN. Sessions of fewer than five stems that are heard, and those of a data set that are
    not at people's levels, are left out.
    """
    import json as serialise
    from importlib.util import find_spec
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from mixrl import __version__
    from mixrl.agent.material import has_balance, load_material, session_folders
    from mixrl.audio import atomic_path
    from mixrl.commands.outputs import check_outputs
    from mixrl.commands.progress import sessions_bar
    from mixrl.commands.train import command_line
    from mixrl.contest import contest_of, sessions_of
    from mixrl.errors import InputError
    from mixrl.recovery import MEANS, Recovery, competition, recover, summary
    from mixrl.regressor import balance_of
    from mixrl.songs import PARTS

    if part not in PARTS:
        raise InputError(f"no part {part!r}: there are {', '.join(PARTS)}")
    check_outputs((json,), (), folders[0], force)
    wanted = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    if wanted == []:
        raise InputError("--methods names none: write them like equal,rule,dqn")
    if leave_out and find_spec("sklearn") is None:
        raise InputError('--leave-one-out needs scikit-learn: pip install "mixrl[evaluate]", or do without')
    spreads = _spreads(spread)
    sessions = sessions_of(folders, part)
    unknown = [name for name, folder in sessions.items() if not has_balance(folder)]
    sessions = {name: folder for name, folder in sessions.items() if name not in unknown}
    evaluated = {folder.resolve().name for folder in sessions.values()}
    others = [*session_folders(learn, "train"), *session_folders(learn, "validation")]
    others = [folder for folder in others if folder.resolve().name not in evaluated and has_balance(folder)]
    searching = None if wanted is None else [name for name in wanted if name != MEANS]
    contest = contest_of(searching, policy, budget, render=render)
    with TemporaryDirectory() as temporary:
        scenes = cache or Path(temporary)
        material = load_material(others, scenes, jobs)
        learned = [song for one in material if (song := balance_of(one.scene, one.real)) is not None]
        with sessions_bar(2 * len(sessions)) as done:
            recovery = Recovery(contest, starts, spreads, names, wanted is None or MEANS in wanted, leave_out)
            about, results, failed = recover(recovery, sessions, scenes, jobs, done, learned)
    by_spread = {
        f"{off:g}": summary(about, [row for row in results if row["spread_db"] == off]) for off in spreads
    }
    if not any(by_spread.values()):
        raise InputError("; ".join(f"{one['name']}: {one['skipped']}" for one in about) + ": give other sessions")
    contests = competition(about, results)
    if json is not None:
        made = {
            "version": VERSION, "mixrl": __version__, "command": command_line(), "starts": starts,
            "spreads_db": spreads, "names": names, "budget": budget, "leave_one_out": leave_out, "sessions": about,
            "results": results, "failed": failed, "summary": by_spread, "competition": contests,
        }  # fmt: skip
        with atomic_path(json, force) as written:
            Path(written).write_text(serialise.dumps(made, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for off, found in by_spread.items():
        for kind, figures in found.items():
            _show(f"{kind} songs, faders off by up to {off} dB", figures)
    for kind, rounds in contests.items():
        _show_contest(kind, rounds)
    console = Console(stderr=True, highlight=False)
    for one in about:
        if "skipped" in one:
            console.print(f"left out: {one['name']}: {one['skipped']}", soft_wrap=True, markup=False)
    for name in unknown:
        console.print(f"left out: {name}: its levels are not people's", soft_wrap=True, markup=False)
    for name, reason in failed.items():
        console.print(f"failed: {name}: {reason}", soft_wrap=True, markup=False)
    if failed:
        raise typer.Exit(1)


def _spreads(text: str) -> tuple[float, ...]:
    """Numbers of a list. Raises InputError for what is none, or out of range."""
    from mixrl.errors import InputError

    try:
        found = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        found = ()
    if not found or not all(0.0 <= off <= 24.0 for off in found):
        raise InputError(f"--spread {text}: give numbers from 0 to 24, like 12 or 0,3,6,12")
    return found


_HEADINGS = {
    "mr_stft": "STFT", "crest_db": "crest dB", "width": "width", "imbalance": "imbal.", "bark_mid_db": "Bark mid dB",
    "bark_side_db": "side dB", "features": "features",
}  # fmt: skip


def _show(what: str, figures: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    heard = [name for name in _HEADINGS if any(row[name] is not None for row in figures.values())]
    sound = ", and distances of the sound" if heard else ""
    console.print(f"{what}: error against people's levels{sound}", soft_wrap=True)
    headings = ("songs", "dB", "of equal", "95%", "better", "moved dB", "in range")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    for heading in (*headings, *(_HEADINGS[name] for name in heard)):
        table.add_column(heading, justify="right", no_wrap=True)
    for method, row in figures.items():
        table.add_row(
            method, str(row["songs"]), f"{row['mae_db']:.2f}", _or_none(row["ratio"], "{:.2f}"),
            _or_none(row["interval"], "{0[0]:.2f}..{0[1]:.2f}"), _or_none(row["better"], "{:.0%}"),
            _or_none(row["change_db"], "{:.2f}"), _or_none(row["inside"], "{:.0%}"),
            *(_or_none(row[name], "{:.2f}") for name in heard),
        )  # fmt: skip
    _print_whole(table)


def _show_contest(kind: str, rounds: Mapping[str, Mapping[str, float]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    Console(highlight=False).print(f"{kind} songs: no change, rule mix and DQN in competition", soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    headings = {
        "starts": "starts", "mae_db": "winner dB", "nearest": "nearest", "always_dqn": "always DQN",
        "strictly": "strictly", "always_dqn_strictly": "always DQN", "away": "polish away", "improved": "improved",
    }  # fmt: skip
    for heading in ("faders off", *headings.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    for spread, row in rounds.items():
        shares = (f"{row[name]:.0%}" for name in list(headings)[2:])
        table.add_row(spread, f"{row['starts']:.0f}", f"{row['mae_db']:.2f}", *shares)
    _print_whole(table)


def _print_whole(table: Table) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    # whole where nobody looks at a terminal
    wide = console if console.is_terminal else Console(highlight=False, width=max(console.width, 160))
    wide.print(table)


def _or_none(value: float | Sequence[float] | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
