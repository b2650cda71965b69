"""Session and settings in, audio out: the strips run in threads, block by block, in constant memory.

Every stem: variant (tempo, compressor), high-pass and EQ by pedalboard, then gain, polarity and pan into
stereo. Blocks are added up in the order of the stems' names, so the result does not depend on timing.
The master (gain, limiter) is not applied here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mixrl.audio import BLOCK, Source
from mixrl.errors import InputError
from mixrl.pcm import flush
from mixrl.session import Session
from mixrl.settings import MixSettings
from mixrl.strip import board, pan_gains, sections
from mixrl.threads import threads
from mixrl.variants import variant

FloatArray = NDArray[np.float32]

PREROLL_S = 0.5
_SUBNORMAL = 1e-30
_AT_REST = 1e-8  # -160 dBFS: what is left of a filter's tail when processing of silence stops
_BUFFER = 8192  # pedalboard forgets its state when a block is longer than all before and than this
_SHORTEST = 64  # pedalboard guesses which axis is the channels: never give it a block that could be either


def mix_frames(session: Session, settings: MixSettings) -> int:
    """Length of the mix in samples: to the end of the last stem, at the tempo ratios of the settings."""
    ends = (round((stem.offset + stem.source.frames) / settings.strip(stem.name).tempo_ratio) for stem in session.stems)
    return max(ends, default=0)


def render_stem(
    session: Session,
    settings: MixSettings,
    name: str,
    start: int = 0,
    stop: int | None = None,
    size: int = BLOCK,
) -> Iterator[FloatArray]:
    """One stem as it goes into the sum: float32 blocks (2, n), frames [start, stop) of the mix.

    Starting after 0, the filters get 0.5 s of what came before; the rest of the difference to a whole render
    is their rounding in float32, about -90 dB. Raises InputError for an unknown stem.
    """
    stop = _stop(session, settings, stop)
    blocks = _strip(session, settings, name, start, stop, size)
    for at in range(start, stop, size):
        block = next(blocks)
        yield np.zeros((2, min(size, stop - at)), np.float32) if block is None else block


def render_sum(
    session: Session, settings: MixSettings, start: int = 0, stop: int | None = None, size: int = BLOCK
) -> Iterator[FloatArray]:
    """The sum of all strips before the master: float32 blocks (2, n), frames [start, stop) of the mix.

    Raises InputError when the settings and the session do not have the same stems.
    """
    _check(session, settings)
    stop = _stop(session, settings, stop)
    strips = [_strip(session, settings, name, start, stop, size) for name in sorted(session.names)]
    workers = min(len(strips), threads())
    # At most as many blocks under way as there are stems, taken in turn: no strip runs twice at once.
    ahead = min(len(strips), 2 * workers)
    spans = [(at, min(size, stop - at)) for at in range(start, stop, size)]
    turns = (strip for _ in spans for strip in strips)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[FloatArray | None]] = deque()
        try:
            waiting.extend(pool.submit(next, strip) for strip in islice(turns, ahead))
            for _, frames in spans:
                total = np.zeros((2, frames), np.float32)
                for _ in strips:
                    block = waiting.popleft().result()
                    following = next(turns, None)
                    if following is not None:
                        waiting.append(pool.submit(next, following))
                    if block is not None:
                        total += block
                yield total
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True)
class SumSource:
    """``render_sum`` as a Source: the mix before the master. Rendered anew each time it is read."""

    session: Session
    settings: MixSettings

    def __post_init__(self) -> None:
        _check(self.session, self.settings)

    @property
    def channels(self) -> int:
        return 2

    @property
    def sample_rate(self) -> int:
        return self.session.sample_rate

    @property
    def frames(self) -> int:
        return mix_frames(self.session, self.settings)

    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[FloatArray]:
        return render_sum(self.session, self.settings, start, stop, size)


def _check(session: Session, settings: MixSettings) -> None:
    here, there = set(session.names), set(settings.stems)
    if here != there:
        extra, what = (there - here, "has no") if there - here else (here - there, "has a stem that they lack:")
        raise InputError(
            f"the settings are not for this session: {session.name} {what} {min(extra)!r}; "
            "give the folder that they were made for"
        )


def _stop(session: Session, settings: MixSettings, stop: int | None) -> int:
    frames = mix_frames(session, settings)
    return frames if stop is None else min(stop, frames)


def _strip(
    session: Session, settings: MixSettings, name: str, start: int, stop: int, size: int
) -> Iterator[FloatArray | None]:
    """Blocks (2, n) of one stem from start to stop; None in place of silence."""
    if size < _SHORTEST:
        raise InputError(f"blocks of {size} samples are too short to render: give {_SHORTEST} or more")
    strip = settings.strip(name)
    source = variant(session, name, strip.compressor, strip.tempo_ratio).source
    filters = _Filters(board(strip, source.sample_rate), source) if sections(strip, source.sample_rate) else None
    gain = 10 ** (settings.stem_gain_db(name) / 20) * (-1 if strip.invert else 1)
    left, right = (np.float32(gain * side) for side in pan_gains(strip.pan, source.channels))
    if filters is not None and start > 0:
        before = min(start, round(PREROLL_S * source.sample_rate))
        for dry in _padded(source, start - before, start, before):
            filters.process(np.pad(dry, ((0, 0), (max(0, _BUFFER - before), 0))))
    for dry in _padded(source, start, stop, size):
        wet = (dry if dry.any() else None) if filters is None else filters.process(dry)
        if wet is None:
            yield None
            continue
        out = np.empty((2, wet.shape[1]), np.float32)
        np.multiply(wet[0], left, out=out[0])
        np.multiply(wet[-1], right, out=out[1])
        yield out


def _padded(source: Source, start: int, stop: int, size: int) -> Iterator[FloatArray]:
    """Blocks from start to stop whatever the source's length: at another tempo it may end before the mix."""
    blocks = source.blocks(start, stop, size)
    for at in range(start, stop, size):
        block = next(blocks, None)
        missing = min(size, stop - at) - (0 if block is None else block.shape[1])
        if block is None:
            block = np.zeros((source.channels, missing), np.float32)
        elif missing:
            block = np.pad(block, ((0, 0), (0, missing)))
        yield block


class _Filters:
    """One strip's pedalboard over consecutive blocks, left alone while it is at rest and hears silence."""

    def __init__(self, chain: object, source: Source) -> None:
        self._process = chain.process  # type: ignore[attr-defined]
        self._sample_rate = source.sample_rate
        self._at_rest = True

    def process(self, block: FloatArray) -> FloatArray | None:
        """The filtered block, or None for silence."""
        flush(block, _SUBNORMAL)  # or pedalboard's EQ crawls
        sounding = bool(block.any())
        if self._at_rest and not sounding:
            return None
        frames = block.shape[1]
        if frames < _SHORTEST:  # only ever the last block
            block = np.pad(block, ((0, 0), (0, _SHORTEST - frames)))
        wet: FloatArray = self._process(block, self._sample_rate, reset=False)
        self._at_rest = not sounding and float(np.abs(wet).max()) < _AT_REST
        return wet[:, :frames]
