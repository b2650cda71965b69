"""Measures of mixes compared with each other, and random mixes to compare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np
from conftest import random_settings
from numpy.typing import NDArray

from mixrl.knobs import Knobs, joined
from mixrl.measures import Measures
from mixrl.moves import apply, legal
from mixrl.scene import Scene

# read off in steps: of the histogram of short-term loudness, and of the search for the threshold
STEPS = {"loudness_range_lu": 0.048, "limiting_db": 0.036}


def arrays(measures: Measures) -> dict[str, NDArray[Any]]:
    """Every measure by its name."""
    return {f.name: np.asarray(getattr(measures, f.name)) for f in fields(measures)}


def assert_same(found: Measures, expected: Measures, tolerance: float = 1e-4) -> None:
    """Equal measures, to single precision."""
    for name, value in arrays(expected).items():
        # a centred bass has no side power, a mono stem hard left no right: what rounding leaves of them is no measure
        floor, atol = (-40.0, max(tolerance, 0.01)) if name == "side_mid_db" else (-120.0, tolerance)
        np.testing.assert_allclose(
            np.clip(getattr(found, name), floor, 100.0), np.clip(value, floor, 100.0), rtol=0.0,
            atol=max(atol, STEPS.get(name, 0.0)), err_msg=name,
        )  # fmt: skip


def assert_identical(found: Measures, expected: Measures) -> None:
    """Equal measures, to the last bit."""
    for name, value in arrays(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


def rows_of(batch: Measures, index: Any) -> Measures:
    """Some mixes of a batch of measures."""
    return Measures(**{name: value[index] for name, value in arrays(batch).items()})


def random_mixes(scene: Scene, seeds: Iterable[int], **options: bool) -> Knobs:
    """A batch of random knobs; options as for ``random_settings``."""
    return joined([scene.knobs(random_settings(scene, seed, **options)) for seed in seeds])


def assert_moves_are_outcomes(scene: Scene, knobs: Knobs, most: int | None = None) -> Measures:
    """All successors of a mix at once are what its legal moves, one by one, make of it: every measure. most: of them
    are looked at, chosen at random. Returns the measures of those."""
    actions, after = scene.deltas(knobs)
    judged = np.flatnonzero(legal(knobs, scene.facts)[actions])
    if most is not None:
        judged = np.random.default_rng(0).choice(judged, most, replace=False)
    each = scene.evaluate(joined([apply(knobs, scene.facts, int(action)) for action in actions[judged]]))
    assert_same(rows_of(after, judged), each)
    return each
