"""The options that ``mixrl mix`` and ``mixrl batch`` share, and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mixrl.presets import PRESETS

if TYPE_CHECKING:
    from mixrl.mixer import Unsaid

Target = Annotated[
    float | None, typer.Option(help="Integrated loudness, LUFS (mixrl.toml's, or -14).", show_default=False)
]
Preset = Annotated[
    str | None,
    typer.Option(help=f"Loudness and ceiling of a platform: {', '.join(PRESETS)}.", show_default=False),
]
Ceiling = Annotated[
    float | None, typer.Option(help="True-peak ceiling, dBTP (mixrl.toml's, or -1).", show_default=False)
]
Bpm = Annotated[float | None, typer.Option(help="Bring the mix to this tempo.", show_default=False)]
Strength = Annotated[
    str | None,
    typer.Option(help="How much of each kind of move to keep, 0 to 1: gain=1,eq=0.5,pan=0.", show_default=False),
]
Steps = Annotated[
    int | None,
    typer.Option(min=0, help="Settings to change at the most (default: any number).", show_default=False),
]
Polish = Annotated[
    int | None,
    typer.Option(min=0, help="Mixes to try around the policy's (default: 1000; 0: none).", show_default=False),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the dither.")]
Json = Annotated[bool, typer.Option("--json", help="Print one object for machines.")]


def loudness_of(
    target: float | None, preset: str | None, ceiling: float | None
) -> tuple[float | Unsaid, float | Unsaid]:
    """Target (LUFS) and ceiling (dBTP), as far as they were asked for. InputError for no preset, and for a target
    beside one."""
    from mixrl.errors import InputError
    from mixrl.mixer import UNSAID

    if preset is not None:
        if preset not in PRESETS:
            raise InputError(f"no preset {preset!r}: there are {', '.join(PRESETS)}")
        if target is not None:
            raise InputError("give --target or --preset, not both")
        target, preset_ceiling = PRESETS[preset]
        ceiling = preset_ceiling if ceiling is None else ceiling
    return UNSAID if target is None else target, UNSAID if ceiling is None else ceiling


def strengths_of(text: str | None) -> dict[str, float]:
    """How much of each kind of move to keep, from "gain=1,eq=0.5". InputError for what is not written like that."""
    from mixrl.errors import InputError

    found = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        kind, _, value = part.partition("=")
        try:
            found[kind.strip()] = float(value)
        except ValueError:
            raise InputError(f"--strength {part.strip()!r}: write it like gain=1,eq=0.5") from None
    return found
