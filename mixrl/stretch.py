"""Time stretching with pitch kept: pedalboard's Rubber Band (engine R3), made to keep time and to stream.

R3 rounds the ratio to whole hops, which drifts by up to 2 ms a second, and lags by some ms. Both are measured on a
click train, once for each ratio and rate, and mended: the drift by alternating between two neighbouring ratios, the
lag by moving the output. (R2 keeps time and is three times as fast, but its crisp mode bends steady tones by up to
10 cents and its smooth mode loses 3 dB of a voice.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixrl.audio import FloatArray, Source, TemporaryAudio, read
from mixrl.errors import InputError

CHUNK_S = 45.0
CONTEXT_S = 0.5  # played into each chunk's stretch and cut off again
SEAM_S = 1.0  # overlap of two chunks, in which the best place to change over is looked for
FADE_S = 0.02
_STEP = 4096  # samples for which the ratio stays the same while two are alternated
_STEADY = 2e-5  # drift that need not be mended: 1 ms in a chunk
_SPREAD = 0.004  # R3's ratios are about 0.45 % apart: this reaches a neighbour on either side


@dataclass(frozen=True)
class Timing:
    """How to call R3 at one ratio and rate so that it keeps time.

    low, high: ratios to alternate between, low for the given share of the time; late_s: by how much the output lags.
    """

    low: float
    high: float
    share: float = 1.0
    late_s: float = 0.0

    def run(self, audio: FloatArray, rate: int) -> FloatArray:
        """Stretch float32 (channels, samples) without drift; the lag is still in."""
        from pedalboard import time_stretch

        samples = audio.shape[1]
        due = np.arange(-(-samples // _STEP) + 1) * self.share
        lows = np.diff(np.ceil(due - 1e-9)) > 0.5
        lows[0] = True  # R3 keeps the input hop of the first ratio
        ratios = np.repeat(np.where(lows, self.low, self.high), _STEP)[:samples]
        wet = time_stretch(np.ascontiguousarray(audio, np.float32), rate, stretch_factor=ratios, high_quality=True)
        return np.asarray(wet, np.float32)


def stretch(source: Source, ratio: float) -> Source:
    """The source played `ratio` times as fast (0.5 to 2), pitch kept: round(frames / ratio) frames.

    In chunks of 45 s, so memory does not grow with the length; cross-faded where it is quiet or where both sides
    agree. Ratio 1 is the source itself. InputError for a ratio out of range.
    """
    if not 0.5 <= ratio <= 2.0:
        raise InputError(f"a tempo ratio of {ratio:g} is out of range: 0.5 to 2")
    rate, frames = source.sample_rate, source.frames
    if ratio == 1.0 or not frames:
        return source
    total = round(frames / ratio)
    timing = calibrated(ratio, rate)
    out = TemporaryAudio(rate, source.channels)
    seam = round(SEAM_S * rate)
    begin, held = 0, np.zeros((source.channels, 0), np.float32)
    while begin < total:
        end = begin + round(CHUNK_S * rate)
        end = total if end + 2 * seam >= total else end
        piece = _piece(source, timing, ratio, max(0, begin - seam), end)
        if begin:
            piece = _joined(held, piece, seam, round(FADE_S * rate))
        keep = 0 if end == total else seam
        out.write(piece[:, : piece.shape[1] - keep])
        held, begin = piece[:, piece.shape[1] - keep :], end
    return out.source()


def _piece(source: Source, timing: Timing, ratio: float, begin: int, end: int) -> FloatArray:
    """Output samples [begin, end), stretched with half a second of context on either side."""
    rate = source.sample_rate
    context = round(CONTEXT_S * rate)
    first = round(begin * ratio) - context
    last = round(end * ratio) + context
    audio = read(source, max(0, first), min(source.frames, last))
    audio = np.pad(audio, ((0, 0), (max(0, -first), max(0, last - source.frames))))
    if not audio.any():  # R3 would leave rounding noise
        return np.zeros((source.channels, end - begin), np.float32)
    wet = timing.run(audio, rate)
    # output sample `begin` stands for input sample begin * ratio, `late_s` after where it belongs
    cut = max(0, round(begin - first / ratio + timing.late_s * rate))
    wet = wet[:, cut : cut + end - begin]
    return np.pad(wet, ((0, 0), (0, end - begin - wet.shape[1])))


def _joined(left: FloatArray, right: FloatArray, seam: int, fade: int) -> FloatArray:
    """`right`, whose first `seam` samples overlap `left`, taking over from it in one short cross-fade.

    The place is where the two differ least; the gains keep the power for the correlation that they have there.
    """
    a, b = left[:, :seam], right[:, :seam]
    window = np.ones(fade)
    starts = slice(0, seam - fade, max(1, fade // 4))
    differ = np.convolve(np.square(a - b).sum(axis=0), window, "valid")[starts]
    at = int(np.argmin(differ)) * (starts.step or 1)
    x, y = a[:, at : at + fade].astype(np.float64), b[:, at : at + fade].astype(np.float64)
    power = float(np.sqrt(np.square(x).sum() * np.square(y).sum()))
    alike = float((x * y).sum()) / power if power > 1e-12 else 1.0
    up = np.sin(0.5 * np.pi * (np.arange(fade) + 0.5) / fade) ** 2
    gain = 1.0 / np.sqrt(np.maximum(up**2 + (1 - up) ** 2 + 2 * max(0.0, alike) * up * (1 - up), 0.25))
    mixed = ((x * (1 - up) + y * up) * gain).astype(np.float32)
    return np.concatenate([a[:, :at], mixed, right[:, at + fade :]], axis=1)


# ------------------------------------------------------------------------------------------------- keeping time


@lru_cache(maxsize=64)
def calibrated(ratio: float, rate: int) -> Timing:
    """R3's drift and lag at this ratio and rate, measured on clicks, and how to mend them."""
    timing = Timing(ratio * (1 - _SPREAD), ratio * (1 + _SPREAD))
    tried = [(share, _timing(replace(timing, share=share), ratio, rate)) for share in (1.0, 0.5)]
    for _ in range(3):
        (s0, (d0, _l0)), (s1, (d1, _l1)) = sorted(tried, key=_drift)[:2]
        if abs(d0) < _STEADY or d0 == d1:
            break
        share = float(np.clip(s0 - d0 * (s1 - s0) / (d1 - d0), 0.0, 1.0))  # drift is all but linear in it
        tried.append((share, _timing(replace(timing, share=share), ratio, rate)))
    share, (_d, late_s) = min(tried, key=_drift)
    return replace(timing, share=share, late_s=late_s)


def _drift(tried: tuple[float, tuple[float, float]]) -> float:
    return abs(tried[1][0])


def _timing(timing: Timing, ratio: float, rate: int) -> tuple[float, float]:
    """Drift (seconds a second; more than 0: runs slow) and lag (s, at the start) of R3 on 10 s of clicks."""
    places = np.arange(0.5, 9.6, 0.25)
    burst = np.random.default_rng(0).standard_normal(round(0.01 * rate))
    burst *= np.exp(-np.arange(burst.size) / (0.00125 * rate))
    clicks = np.zeros((1, 10 * rate), np.float32)
    for place in places:
        at = round(place * rate)
        clicks[0, at : at + burst.size] += burst.astype(np.float32)
    late = _onset_times(timing.run(clicks, rate)[0], places / ratio, rate) - places / ratio
    late -= np.median(_onset_times(clicks[0], places, rate) - places)
    steady = np.isfinite(late)
    drift, lag = np.polyfit(places[steady] / ratio, late[steady], 1)
    return float(drift), float(lag)


def _onset_times(audio: FloatArray, expected: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """When a tenth of the energy within 50 ms of each expected time has passed; nan past the end."""
    times = []
    for place in expected:
        begin = round((place - 0.05) * rate)
        passed = np.cumsum(np.square(audio[begin : begin + round(0.1 * rate)], dtype=np.float64))
        heard = passed.size and passed[-1] > 0
        times.append((begin + int(np.searchsorted(passed, 0.1 * passed[-1]))) / rate if heard else np.nan)
    return np.array(times)
