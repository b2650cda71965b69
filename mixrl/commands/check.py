"""``mixrl check``: what is wrong with a session's files before it is mixed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    folder: Annotated[Path, typer.Argument(help="Folder of stems.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print one object for machines.")] = False,
) -> None:
    """Check a session: clipping, silence, DC, polarity, duplicates, misalignment, mixed sample rates, ..."""
    import json as serialise
    from dataclasses import asdict

    from mixrl.check import check as look
    from mixrl.commands.progress import progress_bar
    from mixrl.session import load_session

    with progress_bar(quiet=json) as progress:
        progress("loading", 0.0)
        session = load_session(folder)
        progress("checking", 0.5)
        findings = look(session)
    if json:
        found = {
            "session": session.name,
            "sample_rate": session.sample_rate,
            "duration_s": session.duration_s,
            "stems": list(session.names),
            "left_out": [{"name": x.name, "file": str(x.file), "reason": x.reason} for x in session.left_out],
            "warnings": list(session.warnings),
            "findings": [asdict(finding) for finding in findings],
        }
        typer.echo(serialise.dumps(found, indent=2))
        return
    minutes, seconds = divmod(round(session.duration_s), 60)
    typer.echo(f"{session.name}: {len(session.stems)} stems, {minutes}:{seconds:02d}, {session.sample_rate} Hz")
    for warning in session.warnings:
        typer.echo(f"warning: {warning}")
    for finding in findings:
        typer.echo(f"{finding.severity}: {finding.stem + ': ' if finding.stem else ''}{finding.message}")
    if not findings and not session.warnings:
        typer.echo("nothing to remark")
