"""Which part of a song to listen to: where most stems play, and a little of every stem that rests there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixrl.audio import BLOCK, Source, spooled
from mixrl.session import Session

MAIN_S = 20
EXTRA_S = 5
LEAST_S = 30
WHOLE_S = 40  # shorter sessions are taken whole
MOST_S = 60
ENOUGH_S = 3  # a stem heard for this long needs no extra piece
ACTIVE_DB = -30.0  # relative to the stem's loudest second


def active_seconds(activity: Sequence[NDArray[np.floating]]) -> NDArray[np.bool_]:
    """(N, seconds) bool: where each stem plays, from its mean square per second."""
    power = np.stack([np.asarray(a, dtype=np.float64) for a in activity])
    return power > np.maximum(power.max(axis=1, keepdims=True) * 10.0 ** (ACTIVE_DB / 10.0), 1e-10)


def choose(active: NDArray[np.bool_], seconds: float, least_s: int = LEAST_S) -> tuple[tuple[int, int], ...]:
    """Pieces (start, stop) in whole seconds, in order and apart, that stand for a session.

    active: (N, S) from ``active_seconds``. Sessions up to ``WHOLE_S`` are taken whole. Otherwise the ``MAIN_S`` seconds
    in which the most stems play, then pieces of ``EXTRA_S`` that hold the most stems not yet heard for ``ENOUGH_S``,
    until all are heard or ``MOST_S`` is reached; then, up to ``least_s``, such pieces of the longest stretches unheard
    in which the most stems play, for they may sound otherwise there.
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
        if len(missing):
            at = int(_sums((active[missing] & ~taken).sum(axis=0)).argmax())
        elif taken.sum() + EXTRA_S <= least_s:
            start, stop = max(_runs(~taken), key=lambda run: run[1] - run[0])
            if stop - start < EXTRA_S:
                break
            sums = _sums(active[:, start:stop].sum(axis=0))
            best = np.flatnonzero(sums == sums.max())
            at = start + int(best[np.abs(2 * best - (len(sums) - 1)).argmin()])  # nearest the middle
        else:
            break
        taken[at : at + EXTRA_S] = True
    return tuple(_runs(taken))


def _sums(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of the ``EXTRA_S`` from each second on."""
    sums = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(sums[EXTRA_S:] - sums[:-EXTRA_S])


def _runs(chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, stop) of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def excerpt(session: Session, least_s: int = LEAST_S) -> Session:
    """The part of a session that stands for it, as a session of its own; a short one is returned as it is. least_s: as
    for ``choose``.

    Planning listens to this, so its time, memory and temporary files do not grow with the length of the song.
    """
    if session.duration_s <= WHOLE_S:
        return session
    return _cut(session, choose(active_seconds([stem.activity for stem in session.stems]), session.duration_s, least_s))


def busiest(session: Session, seconds: int) -> Session:
    """The seconds on end in which the most stems play, as a session of its own; a shorter one is returned as it is."""
    if session.duration_s <= seconds:
        return session
    active = active_seconds([stem.activity for stem in session.stems])
    sums = np.concatenate([[0], np.cumsum(active.sum(axis=0))])
    last = session.frames // session.sample_rate - seconds  # a window that is whole
    start = int((sums[seconds : seconds + last + 1] - sums[: last + 1]).argmax())
    return _cut(session, [(start, start + seconds)])


def _cut(session: Session, seconds: Sequence[tuple[int, int]]) -> Session:
    """Pieces of whole seconds, one after the other."""
    rate = session.sample_rate
    pieces = tuple((start * rate, min(stop * rate, session.frames)) for start, stop in seconds)
    stems = tuple(
        replace(
            stem,
            source=spooled(_Joined(session.source(stem), pieces)),  # it is read again for every mix that competes
            offset=0,
            activity=np.concatenate([stem.activity[start:stop] for start, stop in seconds]),
        )
        for stem in session.stems
    )
    return replace(session, stems=stems, frames=sum(stop - start for start, stop in pieces))


@dataclass(frozen=True)
class _Joined:
    """Pieces (start, stop) of a source, one after the other."""

    inner: Source
    pieces: tuple[tuple[int, int], ...]

    @property
    def sample_rate(self) -> int:
        return self.inner.sample_rate

    @property
    def channels(self) -> int:
        return self.inner.channels

    @property
    def frames(self) -> int:
        return sum(stop - start for start, stop in self.pieces)

    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[NDArray[np.float32]]:
        stop = self.frames if stop is None else min(stop, self.frames)
        parts = self._parts(start, stop, size)
        held = np.zeros((self.channels, 0), np.float32)
        for at in range(start, stop, size):
            wanted = min(size, stop - at)
            while held.shape[1] < wanted:
                held = np.concatenate([held, next(parts)], axis=1)
            yield np.ascontiguousarray(held[:, :wanted])
            held = held[:, wanted:]

    def _parts(self, start: int, stop: int, size: int) -> Iterator[NDArray[np.float32]]:
        edges = np.concatenate([[0], np.cumsum([b - a for a, b in self.pieces])])
        for (begin, _), (low, high) in zip(self.pieces, pairwise(int(e) for e in edges), strict=True):
            first, last = max(start, low), min(stop, high)
            if first < last:
                yield from self.inner.blocks(begin + first - low, begin + last - low, size)
