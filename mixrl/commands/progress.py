"""Progress on stderr for the commands that take a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixrl.worker import Result


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Callable[[str, float], None]]:
    """Yields ``report(what, share)``; nothing is shown when quiet or when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda what, share: None
        return
    columns = (TextColumn("{task.description:10s}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


@contextmanager
def sessions_bar(count: int) -> Iterator[Callable[[str], None]]:
    """Yields ``done(name)``, to be called for each of so many sessions; where stderr is no terminal it is a line
    each."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=count)

        def done(name: str) -> None:
            bar.update(task, advance=1, description=f"done with {name}")
            if not console.is_terminal:  # a log has no bar
                made = int(bar.tasks[0].completed)
                console.print(f"{made}/{count} done with {name}", soft_wrap=True, markup=False)

        yield done


@contextmanager
def batch_bar(
    quiet: bool = False,
) -> Iterator[tuple[Callable[[Result, int, int], None], Callable[[Mapping[str, str]], None]]]:
    """Yields what ``mixrl.batch`` calls: with each finished session, and with what is being done by session. On a
    terminal that is a bar and a line for each session at work; where stderr is none, a line for each finished one."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    from mixrl.commands.outputs import printable

    console = Console(stderr=True, highlight=False)
    if quiet:
        yield lambda result, done, total: None, lambda stages: None
        return
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    bar = Progress(*columns, console=console)
    task = bar.add_task("", total=None)
    now: Mapping[str, str] = {}
    started, mixed = time.monotonic(), 0

    def finished(result: Result, done: int, total: int) -> None:
        nonlocal mixed
        mixed += result.status != "skipped"
        left = (time.monotonic() - started) / mixed * (total - done) if mixed and done < total else None
        estimate = "" if left is None else f"about {duration(left)} left"
        bar.update(task, completed=done, total=total, description=estimate)
        if not console.is_terminal or result.error:
            said = f"{done}/{total} {_outcome(result)}"
            line = f"{said}, {estimate}" if estimate and not console.is_terminal else said
            console.print(line, soft_wrap=True, markup=False)

    def at_work(stages: Mapping[str, str]) -> None:
        nonlocal now
        now = stages

    def view() -> Group:
        return Group(bar, *(Text(printable(f"{name}: {stage}")) for name, stage in sorted(now.items())))

    if not console.is_terminal:
        yield finished, at_work
        return
    live: Live | None = None

    def shown(stages: Mapping[str, str]) -> None:
        nonlocal live
        if live is None:  # only now, so that bad usage is one line
            live = Live(get_renderable=view, console=console, transient=True, refresh_per_second=4)
            live.start()
        at_work(stages)

    try:
        yield finished, shown
    finally:
        if live is not None:
            live.stop()


def duration(seconds: float) -> str:
    """ "40 s", "7 min", "2 h 10 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60.0)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _outcome(result: Result) -> str:
    from mixrl.commands.outputs import printable

    record = result.record
    if result.error is not None:
        return printable(f"{result.session}: failed: {result.error}")
    if result.status in ("listened", "planned"):
        return printable(f"{result.session}: {result.status}, {result.seconds:.1f} s")
    loudness = "silent" if record.integrated_lufs is None else f"{record.integrated_lufs:.1f} LUFS"
    took = "skipped" if result.status == "skipped" else f"{result.seconds:.1f} s"
    return printable(f"{result.session}: {loudness}, {record.winner}, {took}")
