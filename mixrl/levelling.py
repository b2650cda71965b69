"""Faders that bring stems to given loudness, whatever else their strips do: a make-up gain for EQ and pan.

Balance is people's, all else is the score's: so when search has gone on from a mix by what the score says, its stems go
back to the loudness that they had before; where people would hardly move the faders, to that which they came with.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mixrl.knobs import GAIN, Knobs
from mixrl.measures import Array
from mixrl.moves import GAIN_LIMITS_DB, MOVE_COST
from mixrl.scene import Scene
from mixrl.search import LISTED, Objective, Space, trimmed

_LOOKS = 2
_GRID_DB = 0.1  # what a person would write down
_NEAR_DB = 0.15  # a stem that is off by less is left alone


def levelled(scene: Scene, knobs: Knobs, stem_lufs: Array, locked: Collection[str] = ()) -> Knobs:
    """The mix with the faders of all audible stems that are not locked set so that these have the gated loudness
    stem_lufs (N,), LUFS, within the limits of the moves."""
    found = knobs.copy()
    free = scene.facts.audible & np.array([name not in locked for name in scene.facts.names], dtype=bool)
    for _ in range(_LOOKS):  # the gate moves a little with the level: the second time finds what is left
        apart = stem_lufs - scene.evaluate(found[None]).stem_lufs[0]
        gains = np.round((found.strips[:, GAIN] + apart) / _GRID_DB) * _GRID_DB
        off = free & (np.abs(apart) > _NEAR_DB)
        found.strips[off, GAIN] = np.clip(gains, *GAIN_LIMITS_DB)[off]
    return found


def kept_levels(scene: Scene, knobs: Knobs) -> Array:
    """(N,) the loudness at which search that goes on from a mix should leave its stems, LUFS: as it is there; as they
    were delivered, where faders had better stay (``Expected.held``)."""
    expected = scene.facts.expected
    if expected is not None and expected.held:
        return expected.level_lufs
    return scene.evaluate(knobs[None]).stem_lufs[0]


def tidied(
    objective: Objective,
    space: Space,
    knobs: Knobs,
    before: float,
    levels: Array | None = None,
    locked: Collection[str] = (),
) -> tuple[Array, Array]:
    """A mix as a point of a space, (D,), without the settings that bring next to nothing, its stems at these levels
    (N,), LUFS, if there are any; and what each setting brings, (D,). Where that does not leave the score above
    ``before``, less is put back."""
    for least in (LISTED, MOVE_COST, 0.0):
        point, brought = trimmed(objective, space, space.point(knobs), least)
        if levels is not None:
            point = space.point(levelled(objective.scene, space.knobs(point[None])[0], levels, locked))
        if float(objective(space.knobs(point[None]))[0]) > before:
            break
    return point, brought
