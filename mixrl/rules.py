"""Mixes without learning: the raw sum, equal loudness and a rule mix. What the agent has to beat."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from mixrl.knobs import GAIN, HIGHPASS, PAN, Knobs, joined, neutral_knobs, to_knobs
from mixrl.measures import Array
from mixrl.moves import GAIN_LIMITS_DB, HIGHPASS_HZ, KINDS
from mixrl.scene import Scene
from mixrl.score import CENTRED_ROLES, level_corridor
from mixrl.settings import MixSettings

_WIDE_PAN = 0.3  # about 20 degrees: support instruments (design of panning studies: 15 to 30 degrees)
_HIGHPASS_HZ = {"vocal": 80.0, "backing": 100.0, "guitar": 80.0, "hats": 150.0, "cymbals": 150.0}


def equal_loudness(scene: Scene) -> MixSettings:
    """Every stem at the same gated loudness."""
    return at_levels(scene, np.zeros(len(scene.facts.names)))


def rule_mix(scene: Scene) -> MixSettings:
    """Each role at its published mean level (``roles.LEVELS``), a high-pass where the role has no bass, and mono
    support stems spread to alternate sides."""
    facts = scene.facts
    settings = at_levels(scene, level_corridor(facts.known_roles, tuple(bool(a) for a in facts.audible))[:, 0])
    side = -1.0
    strips = {}
    for index, name in enumerate(facts.names):
        strip = settings.strip(name)
        role = facts.known_roles[index]
        if facts.audible[index]:
            if role in _HIGHPASS_HZ:
                strip = replace(strip, highpass_hz=_HIGHPASS_HZ[role])
            if role is not None and role not in CENTRED_ROLES | {"drums"} and scene.analysis.channels[index] == 1:
                strip = replace(strip, pan=side * _WIDE_PAN)
                side = -side
        strips[name] = strip
    return replace(settings, stems=strips)


def expected_mix(scene: Scene) -> MixSettings:
    """Each stem at the level that people would give it (``Facts.expected``), all else as it came. ValueError where
    nobody asked for that (see ``people.informed``)."""
    if scene.facts.expected is None:
        raise ValueError("nothing is known of what people would do with this scene: inform it first")
    return at_levels(scene, scene.facts.expected.level_lufs)


def starting_mix(
    scene: Scene,
    locked: Collection[str] = (),
    kinds: Collection[str] = KINDS,
    scores: Callable[[Knobs], Array] | None = None,
) -> Knobs:
    """Where searches and the agent begin: the better of no change and what people would do or, where nobody knows that,
    the rule mix, within the limits of the moves. Locked stems and kinds of move that are not allowed stay as they are.

    scores: what scores the mixes; the scene itself if None. How loud the stems are is known from the first.
    """
    neutral = neutral_knobs(scene.facts)
    held = np.array([name in locked for name in scene.facts.names], dtype=bool)
    knobs = to_knobs(rule_mix(scene) if scene.facts.expected is None else expected_mix(scene), scene.facts)
    knobs.strips[:, GAIN] = np.round(np.clip(knobs.strips[:, GAIN], *GAIN_LIMITS_DB), 1)
    knobs.strips[:, HIGHPASS] = [_nearest_corner(hz) for hz in knobs.strips[:, HIGHPASS]]
    knobs.strips[held] = neutral.strips[held]
    for column, kind in ((GAIN, "gain"), (PAN, "pan"), (HIGHPASS, "highpass")):
        if kind not in kinds:
            knobs.strips[:, column] = neutral.strips[:, column]
    mixes = [neutral, knobs]
    return mixes[int(np.argmax((scores or scene.scores)(joined(mixes))))]


def _nearest_corner(frequency_hz: float) -> float:
    return min((corner or 0.0 for corner in HIGHPASS_HZ), key=lambda corner: abs(corner - frequency_hz))


def at_levels(scene: Scene, levels: Array) -> MixSettings:
    """Neutral settings but for faders that bring each stem to a relative loudness (LU, (N,)); their median is 0 dB."""
    facts = scene.facts
    settings = scene.neutral()
    measured = scene.measures(settings).stem_lufs
    wanted = levels - measured
    if not facts.audible.any():
        return settings
    gains = np.clip(wanted - np.median(wanted[facts.audible]), -40.0, 30.0)
    strips = {
        name: replace(settings.strip(name), gain_db=round(float(gain), 2)) if on else settings.strip(name)
        for name, gain, on in zip(facts.names, gains, facts.audible, strict=True)
    }
    return replace(settings, stems=strips)
