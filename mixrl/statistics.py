"""What many sessions and seeds say together: interquartile means and how sure they are.

The interquartile mean throws away the lowest and the highest quarter of all runs: a few odd sessions do not decide it,
as they would the mean, and it needs fewer runs than the median (R. Agarwal et al., "Deep reinforcement learning at the
edge of the statistical precipice", NeurIPS 2021). Intervals are percentile bootstraps in two stages: sessions are drawn
again, real ones among real ones and so on for each stratum, then the seeds of each.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
DRAWS = 2000


def iqm(values: ArrayLike) -> Array:
    """Interquartile mean over the last axis, of one value at least; as ``scipy.stats.trim_mean(..., 0.25)``."""
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(-1))


def worst_tenth(values: ArrayLike) -> float:
    """The mean of the lowest tenth of all values, of one value at least."""
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    return float(ordered[: max(len(ordered) // 10, 1)].mean())


def iqm_interval(
    values: Array,
    strata: Sequence[Hashable] | None = None,
    *,
    other: Array | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of the interquartile mean of values (sessions, seeds).

    strata: what kind each session is of (None: all of one). other: (sessions, its own seeds); then the interval is that
    of the difference, values less other, on the same sessions.
    """
    rng = np.random.default_rng(seed)
    sessions = _redrawn(values.shape[0], strata, draws, rng)
    found = iqm(_runs(values, sessions, rng))
    if other is not None:
        found = found - iqm(_runs(other, sessions, rng))
    low, high = np.quantile(found, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def ratio_interval(
    values: ArrayLike, other: ArrayLike, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the ratio of two means over the same sessions: values over other, (sessions,) each."""
    ours, theirs = np.asarray(values, dtype=np.float64), np.asarray(other, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(ours), size=(draws, len(ours)))
    low, high = np.quantile(
        ours[drawn].mean(1) / theirs[drawn].mean(1), [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    )
    return float(low), float(high)


def _redrawn(
    count: int, strata: Sequence[Hashable] | None, draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(draws, sessions) numbers of sessions, each drawn from its own stratum."""
    kinds = [0] * count if strata is None else list(strata)
    sessions = np.empty((draws, count), dtype=np.int64)
    for kind in dict.fromkeys(kinds):
        members = np.array([index for index, its in enumerate(kinds) if its == kind])
        sessions[:, members] = rng.choice(members, (draws, len(members)))
    return sessions


def _runs(values: Array, sessions: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """(draws, sessions * seeds) values of the sessions, their seeds drawn again."""
    seeds = rng.integers(values.shape[1], size=(*sessions.shape, values.shape[1]))
    return np.asarray(values[sessions[:, :, None], seeds].reshape(len(sessions), -1))
