"""Which part of a song to listen to: where most stems play, and a little of every stem that rests there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAIN_S = 20
EXTRA_S = 5
WHOLE_S = 40  # shorter sessions are taken whole
MOST_S = 60
ENOUGH_S = 3  # a stem heard for this long needs no extra piece
ACTIVE_DB = -30.0  # relative to the stem's loudest second


def active_seconds(activity: Sequence[NDArray[np.floating]]) -> NDArray[np.bool_]:
    """(N, seconds) bool: where each stem plays, from its mean square per second."""
    power = np.stack([np.asarray(a, dtype=np.float64) for a in activity])
    return power > np.maximum(power.max(axis=1, keepdims=True) * 10.0 ** (ACTIVE_DB / 10.0), 1e-10)


def choose(active: NDArray[np.bool_], seconds: float) -> tuple[tuple[int, int], ...]:
    """Pieces (start, stop) in whole seconds, in order and apart, that stand for a session.

    active: (N, S) from ``active_seconds``. Sessions up to ``WHOLE_S`` are taken whole. Otherwise the ``MAIN_S`` seconds
    in which the most stems play, then pieces of ``EXTRA_S`` that hold the most stems not yet heard for ``ENOUGH_S``,
    until all are heard or ``MOST_S`` is reached.
    """
    total = active.shape[1]
    if seconds <= WHOLE_S:
        return ((0, total),)
    sums = np.concatenate([np.zeros((len(active), 1)), np.cumsum(active, axis=1)], axis=1)
    main = int((sums[:, MAIN_S:] - sums[:, :-MAIN_S]).sum(axis=0).argmax())
    taken = np.zeros(total, dtype=bool)
    taken[main : main + MAIN_S] = True
    while taken.sum() + EXTRA_S <= MOST_S:
        heard = (active & taken).sum(axis=1)
        missing = np.flatnonzero((heard < ENOUGH_S) & (active & ~taken).any(axis=1))
        if not len(missing):
            break
        fresh = active[missing] & ~taken
        gain = np.concatenate([np.zeros((len(missing), 1)), np.cumsum(fresh, axis=1)], axis=1)
        value = (gain[:, EXTRA_S:] - gain[:, :-EXTRA_S]).sum(axis=0)
        at = int(value.argmax())
        taken[at : at + EXTRA_S] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], taken.astype(int), [0]])))
    return tuple((int(a), int(b)) for a, b in edges.reshape(-1, 2))
