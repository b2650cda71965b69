"""The measures of one mix from its powers, compiled: spectrum, loudness, peaks and the limiting that they will need.

Loops are written so that they run on vector units: float32 throughout, no calls and no branches inside.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixrl.analysis import SUBBANDS
from mixrl.compiled import compiled, summing
from mixrl.measures import CENTRES_HZ, SILENCE_DB

THIRDS = len(CENTRES_HZ)
INTEGRATED, SHORT_TERM, RANGE, PEAK, CREST, LIMITING, PSR, IMBALANCE, SCALARS = range(9)
SPECTRUM, SIDE_MID, CANCELLATION, SPECTRA = range(4)
TINY = 1e-20
_FLOOR = 10.0 ** (SILENCE_DB / 10.0)
_GATE = 10.0 ** ((-70.0 + 0.691) / 10.0)
_LOWEST, _HIGHEST = 10.0 * math.log10(0.1), 18.0  # limiting in dB of dB: 0.1 dB, less counts as none, to 63 dB
_LEVELS = 512  # of limiting that are told apart
_STEP = 64  # of them, between first guesses
_SLOPE = 6.0 * math.log(10.0) / 10.0  # frames of 10 ms in which a reduction falls by one of them: a release of 60 ms
_BINS = 512  # of the loudness range's histogram, 64 an octave


class Ears(NamedTuple):
    """What a mix is measured with.

    k (BANDS,) K-weighting; frame (M,) the 10 ms in which each watched instant lies; first (T + 1,) first instant of
    each hop; playing (N,) share of the time in which each stem plays; levels: target and ceiling.
    """

    k: NDArray[np.float32]
    frame: NDArray[np.float32]
    first: NDArray[np.int64]
    playing: NDArray[np.float32]
    levels: NDArray[np.float64]


class Scratch(NamedTuple):
    """Room to work in, for one mix at a time. inverse (31,): 1 / the mix's power, left there by ``listen``."""

    blocks: NDArray[np.float32]
    windows: NDArray[np.float32]
    heights: NDArray[np.float32]
    bins: NDArray[np.int32]
    ratios: NDArray[np.float32]
    inverse: NDArray[np.float32]


@compiled
def scratch(hops, instants):  # type: ignore[no-untyped-def]
    """Room for mixes of so many hops and watched instants."""
    size = max(hops, instants) + 1
    return Scratch(
        np.empty(size, dtype=np.float32),
        np.empty(size, dtype=np.float32),
        np.empty(size, dtype=np.float32),
        np.empty(_BINS, dtype=np.int32),
        np.empty(SPECTRA * THIRDS, dtype=np.float32),
        np.empty(THIRDS, dtype=np.float32),
    )


@compiled
def copy(values, found):  # type: ignore[no-untyped-def]
    """Copy one row of numbers over another; quicker to compile than an assignment between slices."""
    for t in range(found.shape[0]):
        found[t] = values[t]


@compiled
def decibels(power):  # type: ignore[no-untyped-def]
    """10 log10 of a power, with a floor."""
    return 10.0 * math.log10(max(power, _FLOOR))


@summing
def to_decibels(values):  # type: ignore[no-untyped-def]
    """Turn powers (n,), float32, above 0, into decibels, to 1e-5 dB.

    The exponent is read off the number's bits, the mantissa's logarithm is the series of the inverse hyperbolic
    tangent: loops that run on vector units, which calls of log10 do not.
    """
    per_octave = np.float32(10.0 * math.log10(2.0))
    scale = np.float32(20.0 / math.log(10.0))
    one = np.float32(1.0)
    bits = values.view(np.int32)
    count = values.shape[0]
    exponents = np.empty(count, dtype=np.float32)
    for n in range(count):
        exponents[n] = per_octave * np.float32((bits[n] >> np.int32(23)) - np.int32(127))
        bits[n] = (bits[n] & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
    for n in range(count):
        s = (values[n] - one) / (values[n] + one)
        q = s * s
        series = np.float32(1 / 9) + q * np.float32(1 / 11)
        series = np.float32(1 / 7) + q * series
        series = np.float32(1 / 5) + q * series
        series = np.float32(1 / 3) + q * series
        values[n] = exponents[n] + scale * s * (one + q * series)


@summing
def in_thirds(values, found):  # type: ignore[no-untyped-def]
    """found (31,) becomes the sums of values (BANDS,) in each third-octave."""
    for t in range(THIRDS):
        b = SUBBANDS * t
        found[t] = (values[b] + values[b + 1]) + (values[b + 2] + values[b + 3])


@summing
def rescale(hops, total):  # type: ignore[no-untyped-def]
    """The factor that makes hop powers (T,) have the exact mean ``total``; those below 0 count as 0."""
    mean = np.float32(0.0)
    for t in range(hops.shape[0]):
        mean += max(hops[t], np.float32(0.0))
    return np.float32(total * hops.shape[0] / max(mean, TINY))


@summing
def integrated(hops, scale, blocks):  # type: ignore[no-untyped-def]
    """Integrated loudness, LUFS (ITU-R BS.1770-5: gates at -70 LUFS and 10 LU below). blocks: room for as many."""
    length = min(4, hops.shape[0])
    count = hops.shape[0] - length + 1
    factor = np.float32(scale / length)
    zero, one = np.float32(0.0), np.float32(1.0)
    for t in range(count):
        blocks[t] = factor * max(hops[t], zero)
    for step in range(1, length):
        later = hops[step:]
        for t in range(count):
            blocks[t] += factor * max(later[t], zero)
    gate = np.float32(_GATE)
    kept = zero
    for turn in range(2):
        total, number = zero, zero
        for t in range(count):
            inside = blocks[t] > gate
            total += blocks[t] if inside else zero
            number += one if inside else zero
        kept = total / max(number, one)
        if turn == 0:
            gate = max(gate, kept * np.float32(0.1))
    return max(decibels(kept) - 0.691, SILENCE_DB)


@summing
def _moving_sums(hops, window, part, spare, found):  # type: ignore[no-untyped-def]
    """found becomes the sums of ``window`` hops from each one on, those below 0 counting as 0. part, spare: room."""
    zero = np.float32(0.0)
    count = hops.shape[0]
    for t in range(count):
        part[t] = max(hops[t], zero)
        found[t] = zero
    width, done = 1, 0
    while width <= window:  # part: sums of 1, 2, 4, ... hops, of which the window's are made
        if window & width:
            later = part[done:]
            for t in range(count - done):
                found[t] += later[t]
            done += width
        later = part[width:]
        for t in range(count - width):
            spare[t] = part[t] + later[t]
        part, spare = spare, part
        width *= 2


@summing
def _range(windows, count, bins):  # type: ignore[no-untyped-def]
    """Loudness range, LU (EBU Tech 3342), of short-term powers: to 0.05 LU, from a histogram over their exponents."""
    gate = np.float32(_GATE)
    zero, one = np.float32(0.0), np.float32(1.0)
    total, number, highest = zero, zero, zero
    for t in range(count):
        inside = windows[t] > gate
        total += windows[t] if inside else zero
        number += one if inside else zero
        highest = max(highest, windows[t])
    if number == zero:
        return 0.0
    gate = max(gate, total / number * np.float32(0.01))
    bits = windows.view(np.int32)
    windows[windows.shape[0] - 1] = highest  # beyond the windows' count
    top = bits[windows.shape[0] - 1] >> 17
    last = np.int32(_BINS - 1)
    for at in range(_BINS):
        bins[at] = 0
    kept = 0
    for t in range(count):
        if windows[t] > gate:
            bins[min(np.int32(top - (bits[t] >> 17)), last)] += np.int32(1)
            kept += 1
    loudest, quietest = int(0.05 * (kept - 1)), int(0.90 * (kept - 1))
    high, seen = 0, np.int64(bins[0])
    while seen <= loudest:
        high += 1
        seen += bins[high]
    low = high
    while seen <= quietest:
        low += 1
        seen += bins[low]
    return (low - high) * 10.0 * math.log10(2.0) / 64.0


@summing
def _number_over(heights, limit):  # type: ignore[no-untyped-def]
    number = np.float32(0.0)
    for n in range(heights.shape[0]):
        number += np.float32(1.0) if heights[n] * heights[n] > limit else np.float32(0.0)
    return number


@summing
def _keep_peaks(heights, frame, inverse, least, excess, at):  # type: ignore[no-untyped-def]
    """The peaks that need more than ``least`` (linear power) of reduction, and in which frames they are; returns their
    number. A reduction decays exponentially, so excess is in dB of dB, in which it does so linearly. Peaks whose
    reduction ends before an earlier one's are left out."""
    count = 0
    for n in range(frame.shape[0]):
        over = heights[n] * heights[n] * inverse
        excess[count], at[count] = over, frame[n]
        count += 1 if over > least else 0
    to_decibels(excess[:count])
    to_decibels(excess[:count])
    slope = np.float32(_SLOPE)
    kept, latest = 0, np.float32(-1e9)
    for n in range(count):
        end = at[n] + slope * excess[n]
        if end > latest:
            latest = end
            if kept > 0 and at[kept - 1] == at[n]:
                kept -= 1
            excess[kept], at[kept] = excess[n], at[n]
            kept += 1
    excess[kept], at[kept] = np.float32(-1e9), np.float32(1e9)
    for n in range(kept):
        at[n] = at[n + 1] - at[n]
    return kept


@summing
def _covered(excess, gaps, kept, level):  # type: ignore[no-untyped-def]
    """Frames in which the reduction is above a level (dB of dB); a peak holds it for one frame, then it decays. gaps:
    frames up to the next peak."""
    slope, one, zero = np.float32(_SLOPE), np.float32(1.0), np.float32(0.0)
    covered = zero
    later = excess[1:]
    for n in range(kept):
        lasts = one + slope * (excess[n] - level)
        until_next = min(lasts, gaps[n]) if later[n] > level else lasts
        covered += until_next if excess[n] > level else zero
    return covered


@compiled
def _level(number):  # type: ignore[no-untyped-def]
    """One of ``_LEVELS`` amounts of limiting, in dB of dB."""
    return np.float32(_LOWEST + (_HIGHEST - _LOWEST) * number / _LEVELS)


@summing
def _limiting(heights, frames, frame, threshold, excess, at):  # type: ignore[no-untyped-def]
    """Gain reduction in dB that is exceeded in 1 % of ``frames`` of 10 ms, when peaks above a threshold (linear) are
    held under it and each reduction decays by the limiter's release. excess, at: room for the peaks over it."""
    inverse = np.float32(1.0 / threshold) ** 2
    allowed = np.float32(0.01 * frames)
    low, high, kept = 0, _LEVELS, 0
    for guess in range(_LEVELS - _STEP, -1, -_STEP):  # where the result is high, the many low peaks do not matter
        least = np.float32(10.0 ** (10.0 ** (_level(guess) / 10.0) / 10.0))
        if guess > 0 and _number_over(heights, least / inverse) < allowed * np.float32(0.25):
            continue
        kept = _keep_peaks(heights, frame, inverse, least, excess, at)
        if kept > 0 and _covered(excess, at, kept, _level(guess)) > allowed:
            low = guess
            break
        high = guess
    while high - low > 1:
        middle = (low + high) // 2
        if _covered(excess, at, kept, _level(middle)) > allowed:
            low = middle
        else:
            high = middle
    return 10.0 ** (_level(low) / 10.0) if low > 0 else 0.0


@summing
def _k_power(power, k):  # type: ignore[no-untyped-def]
    """K-weighted sum of powers (BANDS,)."""
    found = np.float32(0.0)
    for b in range(power.shape[0]):
        found += power[b] * k[b]
    return max(found, np.float32(0.0))


@summing
def _spectra(power, incoherent, ratios, inverse):  # type: ignore[no-untyped-def]
    """ratios (SPECTRA * 31,) becomes the spectra in dB, inverse (31,) 1 / the power of both sides; returns its sum."""
    tiny, floor, two = np.float32(TINY), np.float32(_FLOOR), np.float32(2.0)
    left, right, between = ratios[:THIRDS], ratios[THIRDS : 2 * THIRDS], ratios[2 * THIRDS :]
    in_thirds(power[0], left)
    in_thirds(power[1], right)
    in_thirds(power[2], between)
    whole = np.float32(0.0)
    for t in range(inverse.shape[0]):
        sides = max(left[t] + right[t], tiny)
        side, middle = max(sides - two * between[t], tiny), max(sides + two * between[t], tiny)
        inverse[t] = np.float32(1.0) / sides
        whole += sides
        left[t] = max(sides, floor)
        right[t] = max(side / middle, floor)
        between[t] = max(sides / max(incoherent[t], tiny), floor)
    to_decibels(ratios)
    return whole


@summing
def _short_term(hops, scale, window, room):  # type: ignore[no-untyped-def]
    """Short-term powers from each hop on into room.windows; returns the highest, and where it is."""
    windows = room.windows
    _moving_sums(hops, window, room.blocks, room.heights, windows)
    factor, best = np.float32(scale / window), np.float32(0.0)
    starts = hops.shape[0] - window + 1
    for t in range(starts):
        windows[t] *= factor
    for t in range(starts):
        best = max(best, windows[t])
    loudest = 0
    while windows[loudest] < best:
        loudest += 1
    return best, loudest


@summing
def _heights(instants, heights):  # type: ignore[no-untyped-def]
    """heights (M,) becomes the higher side's magnitude at each instant."""
    right = instants[heights.shape[0] :]
    for m in range(heights.shape[0]):
        heights[m] = max(abs(instants[m]), abs(right[m]))


@summing
def _highest(heights):  # type: ignore[no-untyped-def]
    found = np.float32(0.0)
    for m in range(heights.shape[0]):
        found = max(found, heights[m])
    return found


@summing
def listen(power, hops, instants, incoherent, ears, room, n, scalars, spectra):  # type: ignore[no-untyped-def]
    """Measures of one mix into column n of scalars (SCALARS, B) and spectra (SPECTRA, B, 31).

    power (3, BANDS): L L*, R R*, Re(L R*); hops (T,); instants (2 M,); incoherent (31,) power of the stems summed as
    if they had nothing in common.
    """
    whole = _spectra(power, incoherent, room.ratios, room.inverse)
    for kind in range(SPECTRA):
        copy(room.ratios[kind * THIRDS :], spectra[kind, n])
    left, right = _k_power(power[0], ears.k), _k_power(power[1], ears.k)
    scale = rescale(hops, left + right)
    loudness = integrated(hops, scale, room.blocks)
    length = hops.shape[0]
    window = min(30, length)
    best, loudest = _short_term(hops, scale, window, room)
    heights = room.heights[: ears.frame.shape[0]]
    _heights(instants, heights)
    peak = _highest(heights)
    inside = _highest(heights[ears.first[loudest] : ears.first[loudest + window]])
    short_term, peak_db = decibels(best) - 0.691, decibels(peak * peak)
    gain, ceiling = ears.levels[0] - loudness, ears.levels[1]
    scalars[INTEGRATED, n] = loudness
    scalars[SHORT_TERM, n] = short_term
    scalars[RANGE, n] = _range(room.windows, length - window + 1, room.bins)
    scalars[PEAK, n] = peak_db
    scalars[CREST, n] = peak_db - decibels(0.5 * whole)
    scalars[LIMITING, n] = 0.0
    if peak_db + gain > ceiling:
        threshold = 10.0 ** ((ceiling - gain) / 20.0)
        scalars[LIMITING, n] = _limiting(heights, 10 * length, ears.frame, threshold, room.blocks, room.windows)
    scalars[PSR, n] = min(decibels(inside * inside) + gain, ceiling) - (short_term + gain)
    tiny = np.float32(TINY)
    scalars[IMBALANCE, n] = decibels((right + tiny) / (left + tiny))
