"""The arithmetic of the closed form, compiled: strips, mixes of strips, one-move successors, and their measures.

Complex quantities are kept as separate real and imaginary arrays (the axis written 2 before BANDS), so that the inner
loops over bands run on vector units. Powers per mix have three rows: L L*, R R*, Re(L R*). Shapes: K strips of one
stem, B mixes, N stems, T hops of 100 ms, M watched instants.
"""

from __future__ import annotations

import math

import numpy as np

from mixrl.analysis import BANDS, SUBBANDS
from mixrl.compiled import compiled, summing
from mixrl.knobs import COMPRESSOR, GAIN, INVERT, PAN
from mixrl.measures import CENTRES_HZ, SILENCE_DB
from mixrl.peaks import OCTAVES
from mixrl.strip import pan_gains

THIRDS = len(CENTRES_HZ)
PER_OCTAVE = 3 * SUBBANDS  # bands; the last octave takes the rest
INTEGRATED, SHORT_TERM, RANGE, PEAK, CREST, LIMITING, PSR, IMBALANCE, SCALARS = range(9)
_TINY = 1e-20
_FLOOR = 10.0 ** (SILENCE_DB / 10.0)
_LEAST_LIMITING = 0.1  # dB: less counts as none
_RELEASE_FRAMES = 6.0  # the limiter's release, in frames of 10 ms
_pan_gains = compiled(pan_gains)


@compiled
def _decibels(power):  # type: ignore[no-untyped-def]
    return 10.0 * math.log10(max(power, _FLOOR))


@summing
def _to_decibels(values, bits, count):  # type: ignore[no-untyped-def]
    """Turn the first powers of values (float32, above 0) into decibels, to 1e-5 dB; bits: the same memory as int32.

    The exponent is read off the number's bits, the mantissa's logarithm is the series of the inverse hyperbolic
    tangent: loops that run on vector units, which calls of log10 do not.
    """
    per_octave = np.float32(10.0 * math.log10(2.0))
    scale = np.float32(20.0 / math.log(10.0))
    one = np.float32(1.0)
    exponents = np.empty(count, dtype=np.float32)
    for n in range(count):
        exponents[n] = per_octave * np.float32((bits[n] >> 23) - 127)
        bits[n] = (bits[n] & 0x7FFFFF) | 0x3F800000
    for n in range(count):
        s = (values[n] - one) / (values[n] + one)
        q = s * s
        series = np.float32(1 / 9) + q * np.float32(1 / 11)
        series = np.float32(1 / 7) + q * series
        series = np.float32(1 / 5) + q * series
        series = np.float32(1 / 3) + q * series
        values[n] = exponents[n] + scale * s * (one + q * series)


@summing
def shape_strips(  # type: ignore[no-untyped-def]
    rows, curve, baked, fixed, channels, group_db, index, ratio, k_share, p_share, hops, instants, own, k
):
    """What K strips make of one stem.

    rows (K, COLUMNS), curve (K, BANDS) complex, group_db (K,); baked (BANDS,) complex and fixed (2,): what counts as
    part of the recording. index (compressors,): where the stem's variants are in ratio (V, 2, BANDS) amplitude against
    the stem as it is, k_share and p_share (V, BANDS) its power with and without K-weighting, hops (V, 2 OCTAVES, T) and
    instants (V, 2 OCTAVES, 2 M). own (2, BANDS): power of the stem as it is; k (BANDS,): K-weighting.

    Returns weight (K, 2, 2, BANDS), hops (K, T), instants (K, 2 M), thirds (K, 31) power, k_thirds (K, 31) share of
    its K-weighted power, stem (K, 4): K-weighted power, position, EQ change in dB, loudness.
    """
    count = rows.shape[0]
    weight = np.empty((count, 2, 2, BANDS), dtype=np.float32)
    thirds = np.zeros((count, THIRDS), dtype=np.float32)
    k_thirds = np.zeros((count, THIRDS), dtype=np.float32)
    stem = np.zeros((count, 4))
    to_hops = np.zeros((count, 2 * OCTAVES), dtype=np.float32)
    to_instants = np.zeros((count, 2 * OCTAVES), dtype=np.float32)
    sides = np.empty((count, 2), dtype=np.float32)
    real = np.empty(BANDS, dtype=np.float32)
    imag = np.empty(BANDS, dtype=np.float32)
    power = np.empty(BANDS, dtype=np.float32)
    variant = np.empty(count, dtype=np.int64)
    for n in range(count):
        v = index[int(rows[n, COMPRESSOR])]
        variant[n] = v
        pan_left, pan_right = _pan_gains(rows[n, PAN], channels)
        gain = 10.0 ** ((rows[n, GAIN] + group_db[n]) / 20.0) * (1.0 - 2.0 * rows[n, INVERT])
        sides[n, 0] = gain * pan_left * fixed[0]
        sides[n, 1] = gain * pan_right * fixed[1]
        change = 0.0
        whole = 0.0
        for b in range(BANDS):
            h = curve[n, b]
            squared = h.real * h.real + h.imag * h.imag
            at = baked[b]
            real[b] = h.real * at.real - h.imag * at.imag
            imag[b] = h.real * at.imag + h.imag * at.real
            power[b] = real[b] * real[b] + imag[b] * imag[b]
            heard = k_share[v, b] * (at.real * at.real + at.imag * at.imag)
            if abs(squared - 1.0) > 1e-4:
                change += _decibels(squared) ** 2 * heard
            whole += heard
        stem[n, 2] = math.sqrt(change / max(whole, _TINY))
        k_sides = np.zeros(2)
        for c in range(2):
            g = sides[n, c]
            loud = np.float32(0.0)
            for b in range(BANDS):
                scale = g * ratio[v, c, b]
                weight[n, c, 0, b] = scale * real[b]
                weight[n, c, 1, b] = scale * imag[b]
            for t in range(THIRDS):
                for b in range(SUBBANDS * t, SUBBANDS * (t + 1)):
                    here = g * g * ratio[v, c, b] ** 2 * power[b] * own[c, b]
                    thirds[n, t] += here
                    k_thirds[n, t] += here * k[b]
                    loud += here * k[b]
            k_sides[c] = loud
        total = k_sides[0] + k_sides[1]
        stem[n, 0] = total
        stem[n, 1] = (k_sides[1] - k_sides[0]) / max(total, _TINY)
        scale = np.float32(1.0 / max(total, _TINY))
        for t in range(THIRDS):
            k_thirds[n, t] *= scale
        for o in range(OCTAVES):
            first = PER_OCTAVE * o
            last = BANDS if o == OCTAVES - 1 else first + PER_OCTAVE
            # averages over what the stem has there, so that steep spectra come out right
            loud, k_sum, p_sum, re, im = _TINY, _TINY, _TINY, _TINY, 0.0
            for b in range(first, last):
                loud += k_share[v, b] * power[b]
                k_sum += k_share[v, b]
                p_sum += p_share[v, b]
                re += p_share[v, b] * real[b]
                im += p_share[v, b] * imag[b]
            to_hops[n, o] = loud / k_sum * sides[n, 0] ** 2
            to_hops[n, OCTAVES + o] = loud / k_sum * sides[n, 1] ** 2
            to_instants[n, o] = re / p_sum
            to_instants[n, OCTAVES + o] = im / p_sum
    in_hops = np.empty((count, hops.shape[2]), dtype=np.float32)
    in_instants = np.empty((count, instants.shape[2]), dtype=np.float32)
    for v in np.unique(variant):
        some = np.flatnonzero(variant == v)
        if len(some) == count:
            in_hops[:] = np.dot(to_hops, hops[v])
            in_instants[:] = np.dot(to_instants, instants[v])
        else:
            in_hops[some] = np.dot(to_hops[some], hops[v])
            in_instants[some] = np.dot(to_instants[some], instants[v])
    half = instants.shape[2] // 2
    for n in range(count):
        left, right = sides[n, 0], sides[n, 1]
        for m in range(half):
            in_instants[n, m] *= left
        for m in range(half, 2 * half):
            in_instants[n, m] *= right
    blocks = np.empty(hops.shape[2], dtype=np.float32)
    for n in range(count):
        stem[n, 3] = _integrated(in_hops[n], _rescale(in_hops[n], stem[n, 0]), blocks)
    return weight, in_hops, in_instants, thirds, k_thirds, stem


@summing
def share_hops(weight, partner, k_share, shared, added):  # type: ignore[no-untyped-def]
    """Add to added (K, T) what K strips of a stem share per hop with a coherent partner, (1 or K, 2, 2, BANDS).

    k_share (2, BANDS): where their cross-power lies; shared (4 OCTAVES, T): the pair's in ``Analysis.shared``, with its
    imaginary rows negated where the stem is the pair's second.
    """
    count = weight.shape[0]
    gains = np.zeros((count, 4 * OCTAVES), dtype=np.float32)
    for n in range(count):
        for c in range(2):
            for o in range(OCTAVES):
                first = PER_OCTAVE * o
                last = BANDS if o == OCTAVES - 1 else first + PER_OCTAVE
                whole, re, im = _TINY, 0.0, 0.0
                w, p = weight[n, c], partner[min(n, partner.shape[0] - 1), c]
                for b in range(first, last):
                    whole += k_share[c, b]
                    re += k_share[c, b] * (w[0, b] * p[0, b] + w[1, b] * p[1, b])
                    im += k_share[c, b] * (w[1, b] * p[0, b] - w[0, b] * p[1, b])
                gains[n, 2 * OCTAVES * c + o] = re / whole
                gains[n, 2 * OCTAVES * c + OCTAVES + o] = im / whole
    added += np.dot(gains, shared)


@summing
def share_power(weight, partner, cross):  # type: ignore[no-untyped-def]
    """(K, 31) power that K strips of a stem share with a partner (1 or K, 2, 2, BANDS), counted once.

    cross (2, 2, BANDS): real and imaginary part of L L* and R R* of stem and partner.
    """
    found = np.zeros((weight.shape[0], THIRDS), dtype=np.float32)
    for n in range(weight.shape[0]):
        for c in range(2):
            w, p = weight[n, c], partner[min(n, partner.shape[0] - 1), c]
            for t in range(THIRDS):
                total = np.float32(0.0)
                for b in range(SUBBANDS * t, SUBBANDS * (t + 1)):
                    re = w[0, b] * p[0, b] + w[1, b] * p[1, b]
                    im = w[1, b] * p[0, b] - w[0, b] * p[1, b]
                    total += re * cross[c, 0, b] - im * cross[c, 1, b]
                found[n, t] += total
    return found


@summing
def mix_power(weight, cross):  # type: ignore[no-untyped-def]
    """(B, 3, BANDS) power of mixes. weight (N, B, 2, 2, BANDS); cross (3, 2, N, N, BANDS) real and imaginary."""
    count, mixes = weight.shape[0], weight.shape[1]
    power = np.zeros((mixes, 3, BANDS), dtype=np.float32)
    for i in range(count):
        for j in range(i + 1):
            twice = np.float32(1.0 if i == j else 2.0)
            for m in range(mixes):
                a, w = weight[i, m], weight[j, m]
                for c in range(2):
                    for b in range(BANDS):
                        re = a[c, 0, b] * w[c, 0, b] + a[c, 1, b] * w[c, 1, b]
                        im = a[c, 1, b] * w[c, 0, b] - a[c, 0, b] * w[c, 1, b]
                        power[m, c, b] += twice * (re * cross[c, 0, i, j, b] - im * cross[c, 1, i, j, b])
                for b in range(BANDS):
                    re = a[0, 0, b] * w[1, 0, b] + a[0, 1, b] * w[1, 1, b]
                    im = a[0, 1, b] * w[1, 0, b] - a[0, 0, b] * w[1, 1, b]
                    power[m, 2, b] += re * cross[2, 0, i, j, b] - im * cross[2, 1, i, j, b]
                if i != j:
                    for b in range(BANDS):
                        re = w[0, 0, b] * a[1, 0, b] + w[0, 1, b] * a[1, 1, b]
                        im = w[0, 1, b] * a[1, 0, b] - w[0, 0, b] * a[1, 1, b]
                        power[m, 2, b] += re * cross[2, 0, j, i, b] - im * cross[2, 1, j, i, b]
    return power


@summing
def rest_of_mix(weight, cross, stem):  # type: ignore[no-untyped-def]
    """(4, 2, BANDS): what all the other stems bring to a stem's cross-spectra with the mix, for L L*, R R*, L R*
    and (R L*)*. weight (N, 2, 2, BANDS)."""
    rest = np.zeros((4, 2, BANDS), dtype=np.float32)
    for j in range(weight.shape[0]):
        if j == stem:
            continue
        for row in range(4):
            c = 0 if row == 0 or row == 3 else 1
            form = row if row < 2 else 2
            w = weight[j, c]
            if row < 3:  # conj(w) C
                for b in range(BANDS):
                    re, im = cross[form, 0, stem, j, b], cross[form, 1, stem, j, b]
                    rest[row, 0, b] += w[0, b] * re + w[1, b] * im
                    rest[row, 1, b] += w[0, b] * im - w[1, b] * re
            else:  # w C, of the pair the other way round
                for b in range(BANDS):
                    re, im = cross[form, 0, j, stem, b], cross[form, 1, j, stem, b]
                    rest[row, 0, b] += w[0, b] * re - w[1, b] * im
                    rest[row, 1, b] += w[0, b] * im + w[1, b] * re
    return rest


@summing
def power_with(weight, rest, own, between):  # type: ignore[no-untyped-def]
    """(K, 3, BANDS) what K strips of a stem add to the mix's power, alone and together with the rest.

    own (2, BANDS) power of the stem as it is, between (2, BANDS) its L R*.
    """
    power = np.empty((weight.shape[0], 3, BANDS), dtype=np.float32)
    for n in range(weight.shape[0]):
        w = weight[n]
        for c in range(2):
            for b in range(BANDS):
                alone = (w[c, 0, b] * w[c, 0, b] + w[c, 1, b] * w[c, 1, b]) * own[c, b]
                power[n, c, b] = alone + 2.0 * (w[c, 0, b] * rest[c, 0, b] - w[c, 1, b] * rest[c, 1, b])
        for b in range(BANDS):
            re = w[0, 0, b] * w[1, 0, b] + w[0, 1, b] * w[1, 1, b]
            im = w[0, 1, b] * w[1, 0, b] - w[0, 0, b] * w[1, 1, b]
            alone = re * between[0, b] - im * between[1, b]
            left = w[0, 0, b] * rest[2, 0, b] - w[0, 1, b] * rest[2, 1, b]
            power[n, 2, b] = alone + left + w[1, 0, b] * rest[3, 0, b] + w[1, 1, b] * rest[3, 1, b]
    return power


@summing
def _rescale(hops, total):  # type: ignore[no-untyped-def]
    """The factor that makes hop powers (T,) have the exact mean ``total``; those below 0 count as 0."""
    mean = np.float32(0.0)
    for t in range(hops.shape[0]):
        mean += max(hops[t], np.float32(0.0))
    return np.float32(total * hops.shape[0] / max(mean, _TINY))


@summing
def _block_sums(hops, scale, blocks):  # type: ignore[no-untyped-def]
    """Block powers of 400 ms into blocks; returns how many there are."""
    length = min(4, hops.shape[0])
    count = hops.shape[0] - length + 1
    factor = scale / np.float32(length)
    zero = np.float32(0.0)
    for t in range(count):
        blocks[t] = factor * max(hops[t], zero)
    for step in range(1, length):
        for t in range(count):
            blocks[t] += factor * max(hops[t + step], zero)
    return count


@summing
def _integrated(hops, scale, blocks):  # type: ignore[no-untyped-def]
    """Integrated loudness, LUFS (ITU-R BS.1770-5: gates at -70 LUFS and 10 LU below)."""
    count = _block_sums(hops, scale, blocks)
    gate = np.float32(10.0 ** ((-70.0 + 0.691) / 10.0))
    zero = np.float32(0.0)
    kept = np.float32(0.0)
    for turn in range(2):
        total = zero
        number = zero
        for t in range(count):
            inside = blocks[t] > gate
            total += blocks[t] if inside else zero
            number += np.float32(1.0) if inside else zero
        kept = total / max(number, np.float32(1.0))
        if turn == 0:
            gate = max(gate, kept * np.float32(0.1))
    return max(_decibels(kept) - 0.691, SILENCE_DB)


@summing
def _range(windows, count, bins):  # type: ignore[no-untyped-def]
    """Loudness range, LU (EBU Tech 3342), of short-term powers: to 0.05 LU, from a histogram over their exponents."""
    gate = np.float32(10.0 ** ((-70.0 + 0.691) / 10.0))
    total = 0.0
    number = 0
    highest = np.float32(0.0)
    for t in range(count):
        if windows[t] > gate:
            total += windows[t]
            number += 1
            highest = max(highest, windows[t])
    if number == 0:
        return 0.0
    gate = max(gate, np.float32(total / number * 0.01))
    bits = windows.view(np.int32)
    windows[windows.shape[0] - 1] = highest  # beyond the windows' count
    top = bits[windows.shape[0] - 1] >> 17  # 64 bins to a factor of two
    bins[:] = 0
    number = 0
    for t in range(count):
        if windows[t] > gate:
            bins[min(top - (bits[t] >> 17), bins.shape[0] - 1)] += 1
            number += 1
    low, high = 0, 0
    seen = 0
    found = False
    for at in range(bins.shape[0]):
        seen += bins[at]
        if not found and seen > 0.05 * (number - 1):
            high, found = at, True
        if seen > 0.90 * (number - 1):
            low = at
            break
    return (low - high) * 10.0 * math.log10(2.0) / 64.0


@summing
def _limiting(heights, places, frames, of_place, threshold, excess, at):  # type: ignore[no-untyped-def]
    """Gain reduction in dB that is exceeded in 1 % of ``frames`` of 10 ms, when peaks above a threshold (linear) are
    held under it and each reduction decays by the limiter's release. excess, at: room for the peaks over it."""
    count = 0
    inverse = np.float32(1.0 / threshold) ** 2
    least = np.float32(10.0 ** (_LEAST_LIMITING / 10.0))
    for n in range(places):
        over = heights[n] * heights[n] * inverse
        if over > least:
            excess[count] = over
            at[count] = of_place[n]
            count += 1
    if count == 0:
        return 0.0
    bits = excess.view(np.int32)
    _to_decibels(excess, bits, count)
    _to_decibels(excess, bits, count)  # a reduction that decays exponentially does so linearly in this
    allowed = np.float32(0.01 * frames)
    to_log = np.float32(math.log(10.0) / 10.0 * _RELEASE_FRAMES)
    low, high = np.float32(10.0 * math.log10(_LEAST_LIMITING)), np.float32(18.0)
    for _ in range(9):
        middle = np.float32(0.5) * (low + high)
        covered, until = np.float32(0.0), np.float32(-1.0)
        for n in range(count):
            if excess[n] > middle:
                end = at[n] + np.float32(1.0) + to_log * (excess[n] - middle)
                if end > until:
                    covered += end - max(at[n], until)
                    until = end
        if covered > allowed:
            low = middle
        else:
            high = middle
    return 10.0 ** (low / 10.0) if low > 10.0 * math.log10(_LEAST_LIMITING) else 0.0


@summing
def _measure(power, hops, instants, incoherent, k, frame, first, levels, scratch, bins, scalars, spectra, total):  # type: ignore[no-untyped-def]
    """Measures of one mix into scalars (SCALARS,), spectra (3, 31) and total (31,). levels: target, ceiling."""
    length = hops.shape[0]
    half = instants.shape[0] // 2
    window = min(30, length)
    starts = length - window + 1
    zero = np.float32(0.0)
    tiny, floor, two = np.float32(_TINY), np.float32(_FLOOR), np.float32(2.0)
    ratios = np.empty(3 * THIRDS, dtype=np.float32)
    left, right = zero, zero
    for b in range(BANDS):
        left += power[0, b] * k[b]
        right += power[1, b] * k[b]
    left, right = max(left, zero), max(right, zero)
    whole = zero
    for t in range(THIRDS):
        sides, between = zero, zero
        for b in range(SUBBANDS * t, SUBBANDS * (t + 1)):
            sides += power[0, b] + power[1, b]
            between += power[2, b]
        sides = max(sides, tiny)
        total[t] = sides
        whole += sides
        ratios[t] = max(sides, floor)
        side, middle = max(sides - two * between, tiny), max(sides + two * between, tiny)
        ratios[THIRDS + t] = max(side / middle, floor)
        ratios[2 * THIRDS + t] = max(sides / max(incoherent[t], tiny), floor)
    _to_decibels(ratios, ratios.view(np.int32), 3 * THIRDS)
    for t in range(THIRDS):
        spectra[0, t] = ratios[t]
        spectra[1, t] = ratios[THIRDS + t]
        spectra[2, t] = ratios[2 * THIRDS + t]
    blocks, windows, heights = scratch[0], scratch[1], scratch[2]
    scale = _rescale(hops, left + right)
    integrated = _integrated(hops, scale, blocks)
    run = 0.0
    for t in range(window):
        run += max(hops[t], zero)
    best, loudest = -1.0, 0
    for t in range(starts):
        windows[t] = max(run, 0.0) * scale / window
        if windows[t] > best:
            best, loudest = windows[t], t
        if t + window < length:
            run += max(hops[t + window], zero) - max(hops[t], zero)
    peak = zero
    for m in range(half):
        heights[m] = max(abs(instants[m]), abs(instants[half + m]))
        peak = max(peak, heights[m])
    inside = zero
    for m in range(first[loudest], first[loudest + window]):
        inside = max(inside, heights[m])
    short_term = _decibels(best) - 0.691
    gain = levels[0] - integrated
    peak_db = _decibels(peak * peak)
    scalars[INTEGRATED] = integrated
    scalars[SHORT_TERM] = short_term
    scalars[RANGE] = _range(windows, starts, bins)
    scalars[PEAK] = peak_db
    scalars[CREST] = peak_db - _decibels(0.5 * whole)
    scalars[LIMITING] = 0.0
    if peak_db + gain > levels[1]:
        threshold = 10.0 ** ((levels[1] - gain) / 20.0)
        scalars[LIMITING] = _limiting(heights, half, 10 * length, frame, threshold, blocks, windows)
    scalars[PSR] = min(_decibels(inside * inside) + gain, levels[1]) - (short_term + gain)
    scalars[IMBALANCE] = _decibels((right + tiny) / (left + tiny))


@summing
def _audible(share, playing):  # type: ignore[no-untyped-def]
    return min(_decibels(share / max(playing, 1e-3)), 0.0)


@summing
def measure(power, hops, instants, incoherent, coherent, k_thirds, playing, k, frame, first, levels):  # type: ignore[no-untyped-def]
    """Measures of B mixes.

    power (B, 3, BANDS), hops (B, T), instants (B, 2 M), incoherent (B, 31) power of the stems summed as if they had
    nothing in common; coherent (B, N, 31) power that each stem adds together with its partners, k_thirds (B, N, 31)
    where it lives, playing (N,) share of the time; frame (M,) number of each place's 10 ms; first (T + 1,) first place
    of each hop; levels: target and ceiling. Returns scalars (B, SCALARS), spectra (B, 3, 31) in dB (spectrum, side/mid,
    cancellation), audibility (B, N) in dB.
    """
    count, stems = coherent.shape[:2]
    scalars = np.empty((count, SCALARS))
    spectra = np.empty((count, 3, THIRDS))
    audible = np.empty((count, stems))
    scratch = np.empty((3, max(hops.shape[1], frame.shape[0]) + 1), dtype=np.float32)
    bins = np.empty(512, dtype=np.int32)
    total = np.empty(THIRDS, dtype=np.float32)
    for n in range(count):
        _measure(
            power[n], hops[n], instants[n], incoherent[n], k, frame, first, levels,
            scratch, bins, scalars[n], spectra[n], total,
        )  # fmt: skip
        for t in range(THIRDS):
            total[t] = np.float32(1.0) / total[t]
        for i in range(stems):
            share = np.float32(0.0)
            for t in range(THIRDS):
                share += max(coherent[n, i, t], np.float32(0.0)) * k_thirds[n, i, t] * total[t]
            audible[n, i] = _audible(share, playing[i])
    return scalars, spectra, audible


@summing
def successors(  # type: ignore[no-untyped-def]
    numbers, weight, hops, instants, thirds, k_thirds, shared_hops, slot, shared_power,
    mix_power, now_power, rest, own, between, mix_hops, now_hops, mix_instants, now_instants,
    incoherent, now_thirds, coherent, now_k_thirds, now_shared, partner_start, partners,
    playing, k, frame, first, levels,
):  # fmt: skip
    """Measures of the mixes in which one stem takes another strip: as ``measure`` returns them.

    numbers (S, 2): stem and candidate; weight (N, K, 2, 2, BANDS), hops, instants, thirds, k_thirds: the candidates of
    each stem, from ``shape_strips``. The partners of stem i are ``partners[partner_start[i] : partner_start[i + 1]]``;
    rows of shared_power (ordered pairs, K, 31) and now_shared (ordered pairs, 31) are in that order; shared_hops
    (slots, K, T) belongs to the stems that have partners, slot (N,) says where. The rest is the mix as it is:
    mix_* its sums, now_* each stem's part, with now_hops and now_power counting what it shares with others.
    """
    count, stems = numbers.shape[0], coherent.shape[0]
    scalars = np.empty((count, SCALARS))
    spectra = np.empty((count, 3, THIRDS))
    audible = np.empty((count, stems))
    length, points = mix_hops.shape[0], mix_instants.shape[0]
    scratch = np.empty((3, max(length, frame.shape[0]) + 1), dtype=np.float32)
    bins = np.empty(512, dtype=np.int32)
    total = np.empty(THIRDS, dtype=np.float32)
    new_hops = np.empty(length, dtype=np.float32)
    new_instants = np.empty(points, dtype=np.float32)
    new_incoherent = np.empty(THIRDS, dtype=np.float32)
    new_power = np.empty((3, BANDS), dtype=np.float32)
    inverse = np.empty(THIRDS, dtype=np.float32)
    zero = np.float32(0.0)
    two = np.float32(2.0)
    for n in range(count):
        s, c = numbers[n, 0], numbers[n, 1]
        w, r = weight[s, c], rest[s]
        for side in range(2):
            for b in range(BANDS):
                alone = (w[side, 0, b] * w[side, 0, b] + w[side, 1, b] * w[side, 1, b]) * own[s, side, b]
                both = w[side, 0, b] * r[side, 0, b] - w[side, 1, b] * r[side, 1, b]
                new_power[side, b] = mix_power[side, b] - now_power[s, side, b] + alone + two * both
        for b in range(BANDS):
            re = w[0, 0, b] * w[1, 0, b] + w[0, 1, b] * w[1, 1, b]
            im = w[0, 1, b] * w[1, 0, b] - w[0, 0, b] * w[1, 1, b]
            alone = re * between[s, 0, b] - im * between[s, 1, b]
            left = w[0, 0, b] * r[2, 0, b] - w[0, 1, b] * r[2, 1, b]
            right = w[1, 0, b] * r[3, 0, b] + w[1, 1, b] * r[3, 1, b]
            new_power[2, b] = mix_power[2, b] - now_power[s, 2, b] + alone + left + right
        for t in range(length):
            new_hops[t] = mix_hops[t] - now_hops[s, t] + hops[s, c, t]
        if slot[s] >= 0:
            for t in range(length):
                new_hops[t] += shared_hops[slot[s], c, t]
        for m in range(points):
            new_instants[m] = mix_instants[m] - now_instants[s, m] + instants[s, c, m]
        for t in range(THIRDS):
            new_incoherent[t] = incoherent[t] - now_thirds[s, t] + thirds[s, c, t]
        _measure(
            new_power, new_hops, new_instants, new_incoherent, k, frame, first, levels,
            scratch, bins, scalars[n], spectra[n], total,
        )  # fmt: skip
        for t in range(THIRDS):
            inverse[t] = np.float32(1.0) / total[t]
        for i in range(stems):
            share = zero
            if i != s:
                for t in range(THIRDS):
                    share += max(coherent[i, t], zero) * now_k_thirds[i, t] * inverse[t]
                audible[n, i] = _audible(share, playing[i])
        mine = thirds[s, c].copy()
        for p in range(partner_start[s], partner_start[s + 1]):
            other = partners[p]
            share = zero
            for t in range(THIRDS):
                mine[t] += shared_power[p, c, t]
                theirs = coherent[other, t] + shared_power[p, c, t] - now_shared[p, t]
                share += max(theirs, zero) * now_k_thirds[other, t] * inverse[t]
            audible[n, other] = _audible(share, playing[other])
        share = zero
        for t in range(THIRDS):
            share += max(mine[t], zero) * k_thirds[s, c, t] * inverse[t]
        audible[n, s] = _audible(share, playing[s])
    return scalars, spectra, audible
