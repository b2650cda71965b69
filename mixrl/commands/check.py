"""``mixrl check``: what is wrong with a session's files before it is mixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mixrl.roles import Known


def check(
    folder: Annotated[Path, typer.Argument(help="Folder of stems.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print one object for machines.")] = False,
) -> None:
    """Check a session: clipping, silence, DC, polarity, duplicates, misalignment, mixed sample rates, ...; and tell
    what its stems are taken for, by mixrl.toml, by name, or by sound where these say nothing."""
    import json as serialise
    from dataclasses import asdict

    from mixrl.check import check as look
    from mixrl.commands.outputs import printable
    from mixrl.commands.progress import progress_bar
    from mixrl.roles import known_of
    from mixrl.session import load_session

    with progress_bar(quiet=json) as progress:
        progress("loading", 0.0)
        session = load_session(folder)
        progress("checking", 0.3)
        findings = look(session)
        known = known_of(session)
        if any(one.role is None and not session.stem(one.stem).silent for one in known):  # listening takes seconds
            from mixrl.excerpt import excerpt
            from mixrl.scene import Scene
            from mixrl.sound_roles import guessed

            progress("listening", 0.5)
            known = known_of(session, guessed(Scene.of(excerpt(session))).facts.guesses)
    if json:
        found = {
            "session": session.name,
            "sample_rate": session.sample_rate,
            "duration_s": session.duration_s,
            "stems": list(session.names),
            "roles": [asdict(one) for one in known],
            "left_out": [{"name": x.name, "file": str(x.file), "reason": x.reason} for x in session.left_out],
            "warnings": list(session.warnings),
            "findings": [asdict(finding) for finding in findings],
        }
        typer.echo(serialise.dumps(found, indent=2))
        return
    minutes, seconds = divmod(round(session.duration_s), 60)
    length = f"{minutes}:{seconds:02d}"
    typer.echo(f"{printable(session.name)}: {len(session.stems)} stems, {length}, {session.sample_rate} Hz")
    _show(known)
    for warning in session.warnings:
        typer.echo(printable(f"warning: {warning}"))
    for finding in findings:
        about = f"{finding.stem}: " if finding.stem else ""
        typer.echo(printable(f"{finding.severity}: {about}{finding.message}"))
    if not findings and not session.warnings:
        typer.echo("nothing to remark")


def _show(known: Sequence[Known]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mixrl.commands.outputs import printable

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("stem", "role", "by", "group"):
        table.add_column(heading, overflow="fold")
    for one in known:
        table.add_row(*map(Text, (printable(one.stem), one.role or "-", one.by or "-", printable(one.group))))
    Console(highlight=False).print(table)
