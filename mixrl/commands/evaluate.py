"""``mixrl evaluate``: how good what mixes is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

evaluate = typer.Typer(
    name="evaluate",
    help="Compare what mixes: search by scores against evaluations, balance by what people left.",
    rich_markup_mode=None,
    no_args_is_help=False,
)
VERSION = 1


@evaluate.callback()
def _evaluate() -> None:
    """Compare what mixes."""


@evaluate.command()
def search(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Session folders, or data sets made by `mixrl dataset`.", show_default=False),
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            help="a,b,c of raw, equal, rule, random, greedy, pattern, cma, tabular, dqn, shortlist, polish [all].",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        list[Path],
        typer.Option(help="Policy or table to play; repeatable (default: the one that ships).", show_default=False),
    ] = [],  # noqa: B006  (Typer's way to say "none")
    budget: Annotated[int, typer.Option(min=10, help="Evaluations of each method at the most.")] = 2500,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method that draws lots.")] = 1,
    part: Annotated[str, typer.Option(help="Part of a data set: test, validation or train.")] = "test",
    render: Annotated[bool, typer.Option(help="Score each method's mix on rendered audio too.")] = True,
    rules: Annotated[
        bool, typer.Option("--rules", help="Score balance by published levels of roles, not by what people would do.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Sessions to work on at a time; times are best taken with 1.")] = 1,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that remembers sessions listened to (default: none).")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write every run and the summary (JSON).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw scores against evaluations (PNG).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Compare search methods on sessions, a user's own too, by score against evaluations.

    One mix scored is one evaluation, whoever asks: a look ahead at all moves costs as many as there are. All searches
    begin at people's probable levels (with --rules at the rule mix), or the raw mix where that is better. polish is a
    policy's mix, searched on from by patterns.
    Several policies of one kind count as training seeds of it. A session that fails is named, and the others go on; the
    exit code is then 1.
    """
    import json as serialise
    from importlib.util import find_spec
    from tempfile import TemporaryDirectory

    from mixrl.commands.outputs import check_outputs
    from mixrl.contest import contest_of, hold, sessions_of
    from mixrl.errors import InputError
    from mixrl.songs import PARTS

    if part not in PARTS:
        raise InputError(f"no part {part!r}: there are {', '.join(PARTS)}")
    check_outputs((json, plot), (), folders[0], force)
    if plot is not None and find_spec("matplotlib") is None:
        raise InputError('--plot needs matplotlib: install it with pip install "mixrl[evaluate]"')
    wanted = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    if wanted == []:
        raise InputError("--methods names none: write them like greedy,cma,dqn")
    sessions = sessions_of(folders, part)
    contest = contest_of(wanted, policy, budget, seeds, render, rules)

    from rich.console import Console

    from mixrl import __version__
    from mixrl.audio import atomic_path
    from mixrl.commands.progress import sessions_bar
    from mixrl.commands.train import command_line
    from mixrl.standings import Standings

    with TemporaryDirectory() as temporary, sessions_bar(len(sessions)) as done:
        about, results, failed = hold(contest, sessions, cache or Path(temporary), jobs, done)
    standings = Standings(about, results, budget)
    summary, comparisons = standings.summary(), standings.comparisons()
    if json is not None:
        made = {
            "version": VERSION, "mixrl": __version__, "command": command_line(), "budget": budget, "rules": rules,
            "sessions": about, "results": results, "failed": failed, "summary": summary, "comparisons": comparisons,
        }  # fmt: skip
        with atomic_path(json, force) as written:
            Path(written).write_text(serialise.dumps(made, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if plot is not None:
        standings.plot(plot)
    _show(summary, comparisons)
    console = Console(stderr=True, highlight=False)
    for name, reason in failed.items():
        console.print(f"failed: {name}: {reason}", soft_wrap=True, markup=False)
    if failed:
        raise typer.Exit(1)


def _show(summary: Mapping[str, Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    kinds = list(next(iter(summary.values()))["kinds"])
    marks = list(next(iter(summary.values()))["at"])
    rendered = [figures["rendered"] for figures in summary.values()]
    columns = ("runs", "score", "95%", "regret", "worst 10%", "of best", "rendered", "evaluations", "s")
    rows = [
        [
            str(figures["runs"]), f"{figures['iqm']:+.4f}", _interval(figures["interval"]),
            f"{figures['regret_iqm']:.4f}", f"{figures['worst_tenth']:.4f}", f"{figures['improvement_share']:.1%}",
            "-" if heard is None else f"{heard['iqm']:+.4f}",
            f"{figures['evaluations']:.0f}", f"{figures['seconds']:.2f}",
        ]
        for figures, heard in zip(summary.values(), rendered, strict=True)
    ]  # fmt: skip
    more = [
        [f"{figures['kinds'][kind]['iqm']:+.4f}" for kind in kinds]
        + [f"{figures['at'][mark]['iqm']:+.4f}" for mark in marks]
        for figures in summary.values()
    ]
    for headings, cells in ((columns, rows), ([*kinds, *(f"at {mark}" for mark in marks)], more)):
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("method", no_wrap=True)
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
        for method, values in zip(summary, cells, strict=True):
            table.add_row(method, *values)
        # whole where nobody looks at a terminal
        wide = console if console.is_terminal else Console(highlight=False, width=max(console.width, 120))
        wide.print(table)
    for row in comparisons:
        console.print(_line(row), soft_wrap=True, markup=False)
    if all(heard is not None for heard in rendered):
        order = sorted(summary, key=lambda method: -summary[method]["rendered"]["iqm"])
        console.print(f"after rendering: {' > '.join(order)}", soft_wrap=True, markup=False)


def _interval(interval: Sequence[float]) -> str:
    return f"{interval[0]:+.3f}..{interval[1]:+.3f}"


def _line(row: Mapping[str, Any]) -> str:
    """A comparison in words."""
    ours = "" if row["evaluations"] is None else f" at {row['evaluations']}"
    theirs = "its number of evaluations" if row["evaluations_against"] is None else row["evaluations_against"]
    line = (
        f"{row['method']}{ours} against {row['against']} at {theirs}: better on {row['won']:.0%} of {row['sessions']}, "
        f"worse on {row['lost']:.0%}, by {row['difference']:+.4f} ({_interval(row['interval'])})"
    )
    if "share_mean" in row:
        line += f"; {row['share_mean']:.1%} of its improvement on average, {row['share_iqm']:.1%} IQM"
    if "seconds_ratio" in row:
        line += f"; {row['seconds_ratio']:.2f} of its time"
    return line
