"""Variants: a stem after its tempo and its compressor, before everything linear.

Dynamics come before EQ and take their threshold from the whole stem's loudness, so each compressor preset
(and tempo) of a stem is audio that can be rendered once; all that follows is linear. A variant is rendered
when it is first asked for, into a temporary file that lives as long as the session object.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixrl.audio import BLOCK, Source, TemporaryAudio
from mixrl.errors import InputError
from mixrl.session import Session, Stem
from mixrl.settings import COMPRESSORS, TEMPO_RATIO_RANGE

_T = TypeVar("_T")


@dataclass(frozen=True)
class Variant:
    """source: the stem on the session's time line (at another tempo: on that line stretched), make-up applied.
    gain_reduction_db: mean over the hops in which the stem is active. makeup_db: the gain that brought its
    integrated loudness back to the dry stem's."""

    source: Source
    gain_reduction_db: float = 0.0
    makeup_db: float = 0.0


def variant(session: Session, stem: Stem | str, compressor: str = "off", tempo_ratio: float = 1.0) -> Variant:
    """A stem at a tempo ratio (above 1 is faster) through a compressor preset; rendered once, thread-safe.

    A stem with no loudness (silent, or under 0.4 s) is not compressed. Raises InputError for an unknown
    stem, preset, or a ratio out of range.
    """
    stem = session.stem(stem if isinstance(stem, str) else stem.name)
    if compressor not in COMPRESSORS:
        raise InputError(f"no compressor preset {compressor!r}; there are: {', '.join(COMPRESSORS)}")
    if not TEMPO_RATIO_RANGE[0] <= tempo_ratio <= TEMPO_RATIO_RANGE[1]:
        raise InputError(f"tempo ratio {tempo_ratio!r} of {stem.name!r} is out of range: give 0.5 to 2")
    name, rendered = stem.name, _Rendered(stem.source)
    if (compressor, tempo_ratio) != ("off", 1.0):
        key = (name, compressor, tempo_ratio)
        rendered = _once(session, key, lambda: _render(session, stem, compressor, tempo_ratio))
    line = session if tempo_ratio == 1.0 else replace(session, frames=round(session.frames / tempo_ratio))
    placed = replace(stem, source=rendered.source, offset=round(stem.offset / tempo_ratio))
    return Variant(line.source(placed), rendered.gain_reduction_db, rendered.makeup_db)


def loudness(session: Session, stem: Stem) -> float | None:
    """Integrated loudness (LUFS) of a whole stem, measured once; None if silent or under 0.4 s."""
    if stem.silent:
        return None
    from mixrl.meters import integrated

    source = stem.source
    key = (stem.name, "loudness")
    return _once(session, key, lambda: integrated(source.blocks(), source.sample_rate, source.channels))


@dataclass(frozen=True)
class _Rendered:
    """A variant before it is placed: it must not refer to the session, whose cache holds it."""

    source: Source
    gain_reduction_db: float = 0.0
    makeup_db: float = 0.0


@dataclass(frozen=True)
class _Scaled:
    """A source times a gain (linear)."""

    inner: Source
    gain: float

    @property
    def sample_rate(self) -> int:
        return self.inner.sample_rate

    @property
    def channels(self) -> int:
        return self.inner.channels

    @property
    def frames(self) -> int:
        return self.inner.frames

    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[NDArray[np.float32]]:
        gain = np.float32(self.gain)
        for block in self.inner.blocks(start, stop, size):
            yield block * gain


def _render(session: Session, stem: Stem, compressor: str, tempo_ratio: float) -> _Rendered:
    from mixrl.meters import hop_powers

    dry = loudness(session, stem)
    source = stem.source
    if tempo_ratio != 1.0:
        if compressor != "off":  # the stretch is the slow part: all presets share it
            key = (stem.name, "off", tempo_ratio)
            source = _once(session, key, lambda: _render(session, stem, "off", tempo_ratio)).source
        else:
            from mixrl.tempo import stretch

            source = stretch(source, tempo_ratio)
    if dry is None:
        return _Rendered(source)
    blocks, wet, unit = source.blocks(), None, None
    if compressor != "off":
        from mixrl.compressor import PRESETS, Compressor

        unit = Compressor(source.sample_rate, source.channels, PRESETS[compressor], dry)
        wet = TemporaryAudio(source.sample_rate, source.channels)
        blocks = _kept(map(unit.process, blocks), wet)
    powers = hop_powers(blocks, source.sample_rate, source.channels)
    makeup = _makeup(powers, dry)
    return _Rendered(
        _Scaled(wet.source() if wet else source, 10 ** (makeup / 20)),
        unit.gain_reduction_db if unit else 0.0,
        makeup,
    )


def _kept(blocks: Iterable[NDArray[np.float32]], audio: TemporaryAudio) -> Iterator[NDArray[np.float32]]:
    """The blocks as they come, written on the way."""
    for block in blocks:
        audio.write(block)
        yield block


def _makeup(hop_powers: NDArray[np.float64], loudness_lufs: float) -> float:
    """The gain (dB) that brings audio of these K-weighted powers per 100 ms to a loudness. It is iterated
    because the gate at -70 LUFS stays where it is when the gain moves, which shows on very quiet stems."""
    from mixrl.meters import gated_loudness

    gain = 0.0
    if len(hop_powers) < 4:
        return gain
    blocks = np.lib.stride_tricks.sliding_window_view(hop_powers, 4).mean(axis=1)
    best = (math.inf, gain)
    for _ in range(20):
        reached = gated_loudness(blocks * 10 ** (gain / 10))
        step = 3.0 if reached is None else loudness_lufs - reached
        if reached is not None:
            best = min(best, (abs(step), gain))
        if abs(step) < 1e-4:
            break
        gain += step
    return best[1]


_lock = threading.Lock()
_caches: dict[int, dict[tuple[Any, ...], Future[Any]]] = {}


def _once(session: Session, key: tuple[Any, ...], make: Callable[[], _T]) -> _T:
    """The cached value; whichever thread asks first makes it, the others wait. Failures are not kept.

    Kept per session object, by identity: sessions are compared by value, arrays and all.
    """
    with _lock:
        if id(session) not in _caches:
            _caches[id(session)] = {}
            weakref.finalize(session, _caches.pop, id(session), None)
        cache = _caches[id(session)]
        future: Future[_T] | None = cache.get(key)
        mine = future is None
        if future is None:
            future = cache[key] = Future()
    if mine:
        try:
            future.set_result(make())
        except BaseException as error:
            with _lock:
                cache.pop(key, None)
            future.set_exception(error)
    return future.result()
