"""The command line. Each command has a file of its own, which imports what it needs when it runs."""

from __future__ import annotations

import atexit
import errno
import gc
import io
import os
import sys
from typing import Annotated

import typer

# numpy's matrix products here are small: more threads only fight over the cores, and sums would depend on their number.
# Set before a command imports numpy; a user's own setting stands.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mixrl.commands.balance import balance
from mixrl.commands.batch import batch
from mixrl.commands.check import check
from mixrl.commands.dataset import dataset
from mixrl.commands.evaluate import evaluate
from mixrl.commands.explain import explain
from mixrl.commands.levels import levels
from mixrl.commands.measure import measure
from mixrl.commands.mix import mix
from mixrl.commands.render import render
from mixrl.commands.roles import evaluate_roles, roles
from mixrl.commands.train import train
from mixrl.errors import MixrlError

_LONGEST_LINE = 4000  # of an error; a path alone may have as many characters

app = typer.Typer(
    name="mixrl",
    help="Mix a folder of stems: a deep Q-network chooses the moves, every move is explained, loudness is delivered.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is quicker: no rich behind it
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (mix, batch, render, measure, check, explain, train, levels, roles, dataset):
    app.command()(command)
evaluate.command()(balance)
evaluate.command("roles")(evaluate_roles)
app.add_typer(evaluate)


def _print_version(wanted: bool) -> None:
    if wanted:
        from mixrl import __version__

        typer.echo(f"mixrl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that come before the command."""


def main() -> None:
    """Run the command line. Exit code 0 on success, 2 for bad usage or input, 1 for a failure, 130 for Ctrl-C."""
    debug = "--debug" in sys.argv[1:2]
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # stems have threads of their own; numpy's would only spin
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        # not standalone: Typer would print a usage error as a box of several lines
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        if code == 130:
            _fail("interrupted", 130)
        sys.exit((code or 0) if sys.argv[1:] else 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        # the reader of our output has gone; keep Python from complaining when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, MixrlError):
            _fail(str(error), error.exit_code)
        if type(error).__name__ == "Abort":  # what older Typer makes of Ctrl-C
            _fail("interrupted", 130)
        if hasattr(error, "format_message"):  # a usage error; its class is click's or Typer's own, by version
            command = getattr(getattr(error, "ctx", None), "command_path", "mixrl")
            _fail(f"{str(error.format_message()).rstrip('.')}: see {command} --help", 2)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail("the disk is full: free some space, or set TMPDIR to another disk", 1)
        if isinstance(error, OSError) and error.filename:  # nobody asked for it to be opened, but its path is the cause
            _fail(f"{error.filename}: cannot be used ({error.strerror}): check the path and its permissions", 2)
        if isinstance(error, MemoryError):
            _fail("out of memory: close other programs, or mix fewer stems at once", 1)
        _fail(f"unexpected {type(error).__name__}: {error} (mixrl --debug shows where; please report it)", 1)


def script() -> None:
    """``main`` as a process of its own, which ends at once: to take down what the compiler holds takes longer than many
    a command."""
    gc.set_threshold(50_000)  # what imports leave behind is not garbage, and is looked through again and again
    code: object = 1
    try:
        main()
    except SystemExit as end:
        code = end.code
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = 1
    if "joblib" in sys.modules:  # what its processes shared would be left to others to clear away
        atexit._run_exitfuncs()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _fail(message: str, code: int) -> None:
    from mixrl.commands.outputs import printable

    line = printable(" ".join(message.split()))
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"
    typer.echo(f"mixrl: {line}", err=True)
    sys.exit(code)
