"""The measures of one mix from its powers, compiled: spectrum, loudness, peaks and the limiting that they will need.

Loops are written so that they run on vector units: float32 throughout, no calls and no branches inside.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixrl.analysis import SUBBANDS
from mixrl.compiled import bits_of, inner, number_of
from mixrl.decibels import to_decibels
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
_STEPS = 512  # of power that the loudness range tells apart, 64 an octave


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
    steps: NDArray[np.int32]
    ratios: NDArray[np.float32]
    inverse: NDArray[np.float32]


@inner
def scratch(hops, instants):  # type: ignore[no-untyped-def]
    """Room for mixes of so many hops and watched instants."""
    size = max(hops, instants) + 1
    return Scratch(
        np.empty(size, dtype=np.float32),
        np.empty(size, dtype=np.float32),
        np.empty(size, dtype=np.float32),
        np.empty(size, dtype=np.int32),
        np.empty(SPECTRA * THIRDS, dtype=np.float32),
        np.empty(THIRDS, dtype=np.float32),
    )


@inner
def copy(values, found):  # type: ignore[no-untyped-def]
    """Copy one row of numbers over another; quicker to compile than an assignment between slices."""
    for t in range(found.shape[0]):
        found[t] = values[t]


@inner
def decibels(power):  # type: ignore[no-untyped-def]
    """10 log10 of a power, with a floor."""
    return 10.0 * math.log10(max(power, _FLOOR))


@inner
def highest(values):  # type: ignore[no-untyped-def]
    """The highest of (n,) numbers, float32, none below 0, which is what there is at least. Such numbers rise with their
    bits, and vector units take the maximum of integers without being told that there are no NaN."""
    found = np.int32(0)
    for n in range(values.shape[0]):
        found = max(found, bits_of(values[n]))
    return number_of(found)


@inner
def in_thirds(values, found):  # type: ignore[no-untyped-def]
    """found (31,) becomes the sums of values (BANDS,) in each third-octave."""
    for t in range(THIRDS):
        b = SUBBANDS * t
        found[t] = (values[b] + values[b + 1]) + (values[b + 2] + values[b + 3])


@inner
def rescale(hops, total):  # type: ignore[no-untyped-def]
    """The factor that makes hop powers (T,) have the exact mean ``total``; those below 0 count as 0."""
    mean = np.float32(0.0)
    for t in range(hops.shape[0]):
        mean += max(hops[t], np.float32(0.0))
    return np.float32(total * hops.shape[0] / max(mean, TINY))


@inner
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


@inner
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


@inner
def _step_over(steps, count, number):  # type: ignore[no-untyped-def]
    """The lowest step that more than ``number`` of the first ``count`` do not exceed, or the last. Bisecting by counts
    on vector units is quicker than a histogram."""
    low, high = np.int32(0), np.int32(_STEPS - 1)
    while low < high:
        middle = (low + high) // np.int32(2)
        inside = np.int32(0)
        for t in range(count):
            inside += np.int32(1) if steps[t] <= middle else np.int32(0)
        if inside > number:
            high = middle
        else:
            low = middle + np.int32(1)
    return low


@inner
def _range(windows, count, steps):  # type: ignore[no-untyped-def]
    """Loudness range, LU (EBU Tech 3342), of short-term powers: to 0.05 LU, the step of their exponents' first bits.
    steps: room for as many."""
    gate = np.float32(_GATE)
    zero, one = np.float32(0.0), np.float32(1.0)
    total, number = zero, zero
    for t in range(count):
        inside = windows[t] > gate
        total += windows[t] if inside else zero
        number += one if inside else zero
    if number == zero:
        return 0.0
    least = bits_of(max(gate, total / number * np.float32(0.01)))
    top = bits_of(highest(windows[:count])) >> np.int32(17)
    last, none = np.int32(_STEPS - 1), np.int32(_STEPS)
    kept = np.int32(0)
    for t in range(count):  # steps below the highest
        bits = bits_of(windows[t])
        steps[t] = min(top - (bits >> np.int32(17)), last) if bits > least else none
        kept += np.int32(1) if bits > least else np.int32(0)
    high, low = _step_over(steps, count, int(0.05 * (kept - 1))), _step_over(steps, count, int(0.90 * (kept - 1)))
    return (low - high) * 10.0 * math.log10(2.0) / 64.0


@inner
def _number_over(heights, limit):  # type: ignore[no-untyped-def]
    number = np.float32(0.0)
    for n in range(heights.shape[0]):
        number += np.float32(1.0) if heights[n] > limit else np.float32(0.0)
    return number


@inner
def _gather(powers, frame, limit, over, at):  # type: ignore[no-untyped-def]
    """The powers that are above a limit, and their frames; returns their number. Written so that it takes no branch,
    and with an index without a sign, which does not have to be looked at."""
    count = np.uint64(0)
    for n in range(powers.shape[0]):
        over[count], at[count] = powers[n], frame[n]
        count += np.uint64(1) if powers[n] > limit else np.uint64(0)
    return np.int64(count)


@inner
def _keep_peaks(excess, at, count):  # type: ignore[no-untyped-def]
    """Peaks over the threshold (linear power), in order of time, become what is left of them without those whose
    reduction ends before an earlier one's; returns their number. A reduction decays exponentially, so excess becomes dB
    of dB, in which it does so linearly, and at the frames up to the next peak."""
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


@inner
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


@inner
def _level(number):  # type: ignore[no-untyped-def]
    """One of ``_LEVELS`` amounts of limiting, in dB of dB."""
    return np.float32(_LOWEST + (_HIGHEST - _LOWEST) * number / _LEVELS)


@inner
def _power_at(number):  # type: ignore[no-untyped-def]
    """The power over the threshold's that needs so much limiting."""
    return np.float32(10.0 ** (10.0 ** (_level(number) / 10.0) / 10.0))


@inner
def _limiting(heights, frames, frame, threshold, room):  # type: ignore[no-untyped-def]
    """Gain reduction in dB that is exceeded in 1 % of ``frames`` of 10 ms, when peaks above a threshold (linear) are
    held under it and each reduction decays by the limiter's release."""
    excess, at = room.blocks, room.windows
    inverse = np.float32(1.0 / threshold) ** 2
    for m in range(heights.shape[0]):
        heights[m] = heights[m] * heights[m] * inverse
    allowed = np.float32(0.01 * frames)
    low, high, kept = 0, _LEVELS, 0
    for guess in range(_LEVELS - _STEP, -1, -_STEP):  # where the result is high, the many low peaks do not matter
        least = _power_at(guess)
        if guess > 0 and _number_over(heights, least) < allowed:
            continue
        kept = _keep_peaks(excess, at, _gather(heights, frame, least, excess, at))
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


@inner
def _k_power(power, k):  # type: ignore[no-untyped-def]
    """K-weighted sum of powers (BANDS,)."""
    found = np.float32(0.0)
    for b in range(power.shape[0]):
        found += power[b] * k[b]
    return max(found, np.float32(0.0))


@inner
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


@inner
def _short_term(hops, scale, window, room):  # type: ignore[no-untyped-def]
    """Short-term powers from each hop on into room.windows; returns the highest, and where it is."""
    windows = room.windows
    _moving_sums(hops, window, room.blocks, room.heights, windows)
    factor = np.float32(scale / window)
    starts = hops.shape[0] - window + 1
    for t in range(starts):
        windows[t] *= factor
    best, loudest = highest(windows[:starts]), 0
    while windows[loudest] < best:
        loudest += 1
    return best, loudest


@inner
def _heights(instants, heights):  # type: ignore[no-untyped-def]
    """heights (M,) becomes the higher side's magnitude at each instant."""
    right = instants[heights.shape[0] :]
    for m in range(heights.shape[0]):
        heights[m] = max(abs(instants[m]), abs(right[m]))


@inner
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
    peak = highest(heights)
    inside = highest(heights[ears.first[loudest] : ears.first[loudest + window]])
    short_term, peak_db = decibels(best) - 0.691, decibels(peak * peak)
    gain, ceiling = ears.levels[0] - loudness, ears.levels[1]
    scalars[INTEGRATED, n] = loudness
    scalars[SHORT_TERM, n] = short_term
    scalars[RANGE, n] = _range(room.windows, length - window + 1, room.steps)
    scalars[PEAK, n] = peak_db
    scalars[CREST, n] = peak_db - decibels(0.5 * whole)
    scalars[LIMITING, n] = 0.0
    if peak_db + gain > ceiling:
        threshold = 10.0 ** ((ceiling - gain) / 20.0)
        scalars[LIMITING, n] = _limiting(heights, 10 * length, ears.frame, threshold, room)
    scalars[PSR, n] = min(decibels(inside * inside) + gain, ceiling) - (short_term + gain)
    tiny = np.float32(TINY)
    scalars[IMBALANCE, n] = decibels((right + tiny) / (left + tiny))
