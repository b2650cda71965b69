"""A look-ahead true-peak limiter: streamed, channels linked, and never quieter for being driven harder.

How it works, per sample:

1. *Detector.* The needed gain is ``ceiling / highest point``, at most 1, over all channels and over the points
   that others will look at: the 4 per sample of BS.1770-5 Annex 2 and of libebur128 (12 taps each), and
   where those come near the ceiling, every eighth of a sample with two long filters (64 taps). Blocks that
   cannot come near it, because the largest sample times the L1 norm of the short filters stays below, are
   passed over without interpolating: the same result, at a fraction of the work.
2. *Look-ahead.* A sliding minimum over the look-ahead plus a guard of a few samples.
3. *Release.* Recovery at the release time, and never above its own average over eight times as long:
   lone peaks recover quickly, dense limiting does not flutter.
4. *Smoothing.* Two boxes in a row, together as long as the look-ahead, in integer arithmetic: every average
   contains only gains that suffice for the sample it is applied to, so the ceiling holds exactly, and
   after limiting the gain is exactly 1 again (the signal then passes bit for bit).

Every step keeps order and scale: with ``d`` the drive, ``d * gain`` never falls at any sample when ``d``
grows. So a louder input never comes out quieter, which pedalboard's BrickwallLimiter does not promise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixrl.compiled import compiled

FloatArray = NDArray[np.float32]
Array = NDArray[np.float64]

FRAME_S = 0.010  # gain reduction is reported per frame of this length
MARGIN_DB = 0.1  # kept below the ceiling: other meters' filters, and what the moving gain adds between samples
GUARD = 8  # samples around a peak over which the gain is held at what the peak needs: the reach of a filter
FINE_TAPS = 64
CLOSER = 0.8  # of the ceiling: from here on the long filters look too
BLOCK = 32  # samples decided at once by the detector's shortcut
ONE = float(1 << 30)  # gains are integers of this scale: box sums stay exact below 2**53


def _annex_2() -> NDArray[np.float64]:
    """ITU-R BS.1770-5 Annex 2: (4, 12), 48 taps in 4 phases; its phases lie near +-1/8 and +-3/8 of a sample."""
    first = [
        0.001708984375, 0.010986328125, -0.0196533203125, 0.033203125, -0.0594482421875, 0.1373291015625,
        0.97216796875, -0.102294921875, 0.047607421875, -0.026611328125, 0.014892578125, -0.00830078125,
    ]  # fmt: skip
    second = [
        -0.0291748046875, 0.029296875, -0.0517578125, 0.089111328125, -0.16650390625, 0.465087890625,
        0.77978515625, -0.2003173828125, 0.1015625, -0.0582275390625, 0.0330810546875, -0.0189208984375,
    ]  # fmt: skip
    return np.array([first, second, second[::-1], first[::-1]])


def _sinc(
    at: Array | list[float], taps: int, window: Callable[[Array], Array], cutoff: float = 1.0
) -> NDArray[np.float32]:
    """(len(at), taps) windowed sincs that read ``at`` samples after sample taps / 2 - 1; cutoff 1 is Nyquist."""
    x = np.asarray(at)[:, None] - (np.arange(taps)[None, :] - (taps // 2 - 1))
    return np.asarray(cutoff * np.sinc(cutoff * x) * window(2.0 * x / taps), np.float32)


def _hann(u: Array) -> Array:
    return np.where(np.abs(u) < 1.0, 0.5 + 0.5 * np.cos(np.pi * u), 0.0)


def _kaiser(u: Array) -> Array:
    return np.i0(5.0 * np.sqrt(np.maximum(0.0, 1.0 - u * u))) / np.i0(5.0)


def _coarse() -> FloatArray:
    """(7, 12): the points that meters look at: Annex 2, and the Hann-windowed sinc of libebur128."""
    return np.concatenate([_annex_2().astype(np.float32), _sinc([0.25, 0.5, 0.75], 12, _hann)])


def _fine(sample_rate: int) -> FloatArray:
    """(15 or 16, FINE_TAPS): long filters that read every eighth of a sample.

    Of the two kinds that converters and resamplers use: the whole band, and one that falls away from 0.45 of
    the rate to have no images. Near the Nyquist frequency their peaks differ. From 96 kHz on, libebur128 looks
    at one point between samples, with 24 taps; that is the sixteenth.
    """
    eighths = np.arange(8) / 8
    whole, no_images = _sinc(eighths[1:], FINE_TAPS, _kaiser), _sinc(eighths, FINE_TAPS, _kaiser, 0.956)
    if sample_rate < 96_000:
        return np.concatenate([whole, no_images])
    half = np.pad(_sinc(eighths[4:5], 24, _hann), ((0, 0), ((FINE_TAPS - 24) // 2,) * 2))
    return np.concatenate([whole, no_images, half])


@compiled
def _raise(
    x: NDArray[np.float32],
    first: int,
    taps: NDArray[np.float32],
    above: float,
    top: NDArray[np.float32],
    acc: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """out[i] = max(out[i], |any phase of taps at x[first + i]|) wherever top[i] > above."""
    m = out.shape[0]
    acc[:] = 0.0
    for k in range(0, taps.shape[1], 4):
        at = first + k  # slices, so that indices are plainly not negative: else nothing vectorises
        x0, x1, x2, x3 = x[at : at + m], x[at + 1 : at + 1 + m], x[at + 2 : at + 2 + m], x[at + 3 : at + 3 + m]
        for p in range(taps.shape[0]):
            h0, h1, h2, h3 = taps[p, k], taps[p, k + 1], taps[p, k + 2], taps[p, k + 3]
            row = acc[p]
            for i in range(m):
                row[i] += (h0 * x0[i] + h1 * x1[i]) + (h2 * x2[i] + h3 * x3[i])
    for p in range(taps.shape[0]):
        row = acc[p]
        for i in range(m):
            v = abs(row[i]) if top[i] > above else np.float32(0.0)
            out[i] = v if v > out[i] else out[i]


@compiled
def _detect(
    x: NDArray[np.float32],
    bits: NDArray[np.int32],
    first: int,
    coarse: NDArray[np.float32],
    fine: NDArray[np.float32],
    skip_below: float,
    look_closer: float,
    peaks: NDArray[np.float32],
) -> bool:
    """Highest |interpolated point| per sample over channels, or 0 where it is surely below ``look_closer``.

    ``peaks[i]`` belongs to sample ``first + i`` of x and the points between it and the next. The fine filter
    looks where samples or coarse points are above ``look_closer``: decided per sample, so that the result does
    not depend on where blocks begin. ``bits`` is x seen as integers: magnitudes of floats order like them, and
    integer maxima vectorise. Returns whether any block was interpolated.
    """
    acc = np.empty((max(coarse.shape[0], fine.shape[0]), BLOCK), np.float32)
    seen = np.empty(BLOCK, np.float32)
    before, after = coarse.shape[1] // 2 - 1, coarse.shape[1] // 2
    any_hot = False
    for start in range(0, peaks.shape[0], BLOCK):
        out = peaks[start : start + BLOCK]
        m = out.shape[0]
        a = first + start
        hot = False
        for c in range(x.shape[0]):
            top = np.int32(0)
            for i in range(a - before, a + m + after):
                top = max(top, bits[c, i] & np.int32(0x7FFFFFFF))
            hot = hot or np.int32(top).view(np.float32) > skip_below
        out[:] = 0.0
        if not hot:
            continue
        any_hot = True
        for c in range(x.shape[0]):
            for i in range(m):
                v = abs(x[c, a + i])
                out[i] = v if v > out[i] else out[i]
            _raise(x[c], a - before, coarse, -1.0, out, acc, out)
        closer = False
        for i in range(m):
            seen[i] = out[i]
            closer = closer or out[i] > look_closer
        if closer:
            for c in range(x.shape[0]):
                _raise(x[c], a - fine.shape[1] // 2 + 1, fine, look_closer, seen, acc, out)
    return any_hot


@compiled
def _gains(
    peaks: NDArray[np.float32],
    ceiling: float,
    keep: float,
    keep_slow: float,
    queue: NDArray[np.float64],
    places: NDArray[np.int64],
    box1: NDArray[np.float64],
    box2: NDArray[np.float64],
    reals: NDArray[np.float64],
    whole: NDArray[np.int64],
    span: int,
    out: NDArray[np.float32],
) -> None:
    """Peaks -> gains. State: the sliding minimum's queue, both boxes' rings and sums, the two releases."""
    fast, slow, sum1, sum2 = reals[0], reals[1], reals[2], reals[3]
    now, head, tail, at1, at2 = whole[0], whole[1], whole[2], whole[3], whole[4]
    size = queue.shape[0]
    full = ONE * box1.shape[0] * box2.shape[0]
    for i in range(peaks.shape[0]):
        need = ceiling / peaks[i] if peaks[i] > ceiling else 1.0
        while tail > head and queue[(tail - 1) % size] >= need:
            tail -= 1
        queue[tail % size] = need
        places[tail % size] = now
        tail += 1
        if places[head % size] <= now - span:
            head += 1
        least = queue[head % size]
        now += 1

        fast = min(least, 1.0 - (1.0 - fast) * keep)
        if 1.0 - fast < 1e-6:  # -0.00001 dB: over
            fast = 1.0
        slow = fast + (slow - fast) * keep_slow
        if fast == 1.0 and 1.0 - slow < 1e-6:
            slow = 1.0
        step = math.floor(min(fast, slow) * ONE)

        sum1 += step - box1[at1]
        box1[at1] = step
        at1 = at1 + 1 if at1 + 1 < box1.shape[0] else 0
        sum2 += sum1 - box2[at2]
        box2[at2] = sum1
        at2 = at2 + 1 if at2 + 1 < box2.shape[0] else 0
        out[i] = sum2 / full
    reals[0], reals[1], reals[2], reals[3] = fast, slow, sum1, sum2
    whole[0], whole[1], whole[2], whole[3], whole[4] = now, head, tail, at1, at2


class Limiter:
    """Keeps the true peak of a stream at or under a ceiling.

    ``process`` takes blocks (channels, n) of any length and returns what is ready, ``flush`` the rest;
    together they are as long as the input and in step with it (the latency is removed). The result does not
    depend on how the stream is cut into blocks, bit for bit; what needs no limiting passes unchanged.

    sample_rate: Hz, 4,000 and up. channels: 1 and up, all given the same gain. ceiling_dbtp: dBTP.
    lookahead_s: 0.0005 to 0.01. release_s: the time in which a lone peak's reduction decays to 1/e.
    ValueError for anything else. The true peak of the output is at or under the ceiling for meters
    after ITU-R BS.1770-5 Annex 2, for libebur128's, and at most 0.2 dB over it at 8 times oversampling
    (0.3 dB for streams of random full-scale steps, which no filter of finite length bounds).
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int,
        ceiling_dbtp: float,
        *,
        lookahead_s: float = 0.003,
        release_s: float = 0.06,
    ) -> None:
        if sample_rate < 4000 or channels < 1 or not math.isfinite(ceiling_dbtp):
            raise ValueError(f"cannot limit {channels} channels at {sample_rate} Hz to {ceiling_dbtp} dBTP")
        if not (0.0005 <= lookahead_s <= 0.01 and 0.001 <= release_s <= 10.0):
            raise ValueError(f"look-ahead {lookahead_s} s or release {release_s} s is out of range")
        self._coarse, self._fine = _coarse(), _fine(sample_rate)
        self._ceiling = 10.0 ** ((ceiling_dbtp - MARGIN_DB) / 20.0)
        self._look_closer = CLOSER * self._ceiling
        # A block is passed over only if no point in it can reach that; 0.1% covers float rounding.
        self._skip_below = self._look_closer / (1.001 * float(np.abs(self._coarse).sum(axis=1).max()))
        half = max(2, round(lookahead_s * sample_rate) // 2)
        reach = 2 * half - 1
        self._span = reach + 2 * GUARD
        self._delay = FINE_TAPS // 2 + reach - 1 + GUARD
        self._keep = math.exp(-1.0 / (release_s * sample_rate))
        self._keep_slow = math.exp(-1.0 / (8.0 * release_s * sample_rate))
        self._queue = np.ones(self._span + 1)
        self._places = np.full(self._span + 1, -1, np.int64)
        self._box1 = np.full(half, ONE)
        self._box2 = np.full(half, ONE * half)
        self._reals = np.array([1.0, 1.0, ONE * half, ONE * half * half])
        self._whole = np.zeros(5, np.int64)
        self._quiet = self._span + 2 * half  # samples since the state last held anything but ones
        self._history = np.zeros((channels, self._delay), np.float32)
        self._skip = self._delay  # samples still to drop: the latency
        self._frame = max(1, round(FRAME_S * sample_rate))
        self._pending: list[FloatArray] = []  # gains of the frame not yet full
        self._frames: list[FloatArray] = []

    def process(self, block: FloatArray) -> FloatArray:
        """The next block (channels, n) -> (channels, m) with m <= n: what is ready by now."""
        if block.ndim != 2 or block.shape[0] != self._history.shape[0]:
            raise ValueError(f"expected ({self._history.shape[0]}, n) samples, got {block.shape}")
        n = block.shape[1]
        x = np.concatenate([self._history, np.asarray(block, np.float32)], axis=1)
        self._history = x[:, n:].copy()
        gains = self._gains_for(x, n)
        skipped = min(self._skip, n)
        self._skip -= skipped
        if gains is None:
            self._note(np.ones(n - skipped, np.float32))
            passed: FloatArray = x[:, skipped:n].copy()
            return passed
        self._note(gains[skipped:])
        return np.asarray(x[:, skipped:n] * gains[skipped:], np.float32)

    def flush(self) -> FloatArray:
        """The last samples (channels, m); nothing may be processed after it."""
        return self.process(np.zeros_like(self._history))

    def gain_reduction_db(self) -> NDArray[np.float64]:
        """Largest gain reduction in each frame of 10 ms so far, dB >= 0, shape (frames,); the last may be short."""
        gains = [*self._frames, *([np.concatenate(self._pending).min(keepdims=True)] if self._pending else [])]
        if not gains:
            return np.zeros(0)
        return np.abs(-20.0 * np.log10(np.concatenate(gains).astype(np.float64)))  # no gain is above 1

    def _gains_for(self, x: FloatArray, n: int) -> FloatArray | None:
        """The n gains for x[:, :n], or None where all are 1."""
        peaks = np.empty(n, np.float32)
        first = self._delay - FINE_TAPS // 2
        hot = _detect(x, x.view(np.int32), first, self._coarse, self._fine, self._skip_below, self._look_closer, peaks)
        hot = hot and bool(peaks.max() > self._ceiling)
        if not hot and self._quiet >= self._span + 2 * self._box1.size and self._reals[:2].min() == 1.0:
            return None  # the state holds nothing but ones, and would go on to
        self._quiet = 0 if hot else self._quiet + n
        gains = np.empty(n, np.float32)
        _gains(
            peaks, self._ceiling, self._keep, self._keep_slow, self._queue, self._places,
            self._box1, self._box2, self._reals, self._whole, self._span, gains,
        )  # fmt: skip
        return gains

    def _note(self, gains: FloatArray) -> None:
        """Fold gains into the lowest of each frame."""
        if not gains.size:
            return
        self._pending.append(gains)
        if sum(g.size for g in self._pending) < self._frame:
            return
        joined = np.concatenate(self._pending)
        whole = joined.size - joined.size % self._frame
        self._frames.append(joined[:whole].reshape(-1, self._frame).min(axis=1))
        self._pending = [joined[whole:]] if whole < joined.size else []


def limit(x: FloatArray, sample_rate: int, ceiling_dbtp: float, **options: Any) -> FloatArray:
    """The whole of x (channels, samples), limited; ``options`` as for ``Limiter``."""
    limiter = Limiter(sample_rate, x.shape[0], ceiling_dbtp, **options)
    return np.concatenate([limiter.process(x), limiter.flush()], axis=1)
