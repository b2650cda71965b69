"""Progress on stderr for the commands that take a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
