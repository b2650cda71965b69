"""The arithmetic of the closed form, compiled: strips, mixes of strips, and one-move successors.

Complex quantities are kept as separate real and imaginary arrays (the axis written 2 before BANDS), so that the inner
loops over bands run on vector units. Powers per mix have three rows: L L*, R R*, Re(L R*). Shapes: N stems, V variants
of theirs, R strips, B mixes, P coherent pairs, T hops of 100 ms, M watched instants.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixrl.analysis import BANDS
from mixrl.compiled import compiled, summing
from mixrl.curves import read_curve
from mixrl.hearing import (
    SCALARS,
    SPECTRA,
    THIRDS,
    TINY,
    copy,
    in_thirds,
    integrated,
    listen,
    rescale,
    scratch,
    to_decibels,
)
from mixrl.knobs import COMPRESSOR, GAIN, INVERT, PAN, TEMPO
from mixrl.measures import Array
from mixrl.peaks import OCTAVES
from mixrl.strip import pan_gains

Float = NDArray[np.float32]
Integers = NDArray[np.int64]

LOUDNESS, AUDIBILITY, POSITION, EQ_CHANGE, REDUCTION, TEMPO_RATIO, PARTS = range(7)  # what a mix tells of each stem
_pan_gains = compiled(pan_gains)


class Stems(NamedTuple):
    """The recordings. The variants of stem i are rows ``first[i] + compressor`` of the arrays (V, ...).

    baked (N, 2, BANDS) response and fixed (N, 2) gains that count as part of the recording; cross (N, N, 3, 2, BANDS):
    L L*, R R*, L R* of two stems, real and imaginary. ratio (V, 2, BANDS): amplitude against the stem as it is; power
    (V, 2, BANDS); heard (V, BANDS): K-weighted power; k_octave, p_octave (V, BANDS): shares of each octave's power with
    and without K-weighting; hops (V, 2 OCTAVES, T) and instants (V, 2 OCTAVES, 2 M) as in ``StemSpectra``; reduction
    (V,) in dB.
    """

    first: Integers
    channels: Integers
    baked: Float
    fixed: Float
    cross: Float
    ratio: Float
    power: Float
    heard: Float
    k_octave: Float
    p_octave: Float
    hops: Float
    instants: Float
    reduction: Array


class Pairs(NamedTuple):
    """Coherent stems. stems (P, 2); octave (P, 2, BANDS): share of each octave's cross-power per channel; hops
    (P, 4 OCTAVES, T): ``Analysis.shared``. The partners of stem i are rows start[i] to start[i + 1] of ``partner`` and
    ``number`` (of the pair)."""

    stems: Integers
    octave: Float
    hops: Float
    start: Integers
    partner: Integers
    number: Integers


class Strips(NamedTuple):
    """What strips make of their stems.

    weight (R, 2, 2, BANDS): channel gains against the stem as it is; hops (R, T) K-weighted power; response
    (R, 2 OCTAVES) mean over each octave, real then imaginary, and sides (R, 2) gains, for the watched instants;
    instants (R, 2 M) what follows there, or (0, 2 M) where it is not kept because it would take much memory; variant
    (R,); thirds (R, 31) power; loud (R,) K-weighted power, k_thirds (R, 31) where it lies; table (R, PARTS).
    """

    weight: Float
    hops: Float
    response: Float
    sides: Float
    instants: Float
    variant: Integers
    thirds: Float
    loud: Float
    k_thirds: Float
    table: Array


class Sums(NamedTuple):
    """Mixes: power (B, 3, BANDS), hops (B, T), instants (B, 2 M), incoherent (B, 31) power of the stems as if they had
    nothing in common, coherent (B, N, 31) power that each stem adds together with its partners."""

    power: Float
    hops: Float
    instants: Float
    incoherent: Float
    coherent: Float


@compiled
def room_for_strips(count, hops, kept, points):  # type: ignore[no-untyped-def]
    """Strips that are still to be made, of which so many keep their watched instants: all or none."""
    return Strips(
        np.empty((count, 2, 2, BANDS), dtype=np.float32),
        np.empty((count, hops), dtype=np.float32),
        np.empty((count, 2 * OCTAVES), dtype=np.float32),
        np.empty((count, 2), dtype=np.float32),
        np.empty((kept, points), dtype=np.float32),
        np.empty(count, dtype=np.int64),
        np.empty((count, THIRDS), dtype=np.float32),
        np.empty(count, dtype=np.float32),
        np.empty((count, THIRDS), dtype=np.float32),
        np.zeros((count, PARTS)),
    )


@summing
def in_octaves(values, thirds, found):  # type: ignore[no-untyped-def]
    """found (OCTAVES,) becomes the sums of values (BANDS,) in each octave; the last takes the rest. thirds: room."""
    in_thirds(values, thirds)
    for o in range(OCTAVES):
        found[o] = thirds[3 * o] + thirds[3 * o + 1] + thirds[3 * o + 2]
    found[OCTAVES - 1] += thirds[THIRDS - 1]


@summing
def add_octaves(gains, rows, found):  # type: ignore[no-untyped-def]
    """Add the weighted sum of OCTAVES rows to found; longer rows are cut."""
    for o in range(0, OCTAVES, 5):
        g0, g1, g2, g3, g4 = gains[o], gains[o + 1], gains[o + 2], gains[o + 3], gains[o + 4]
        r0, r1, r2, r3, r4 = rows[o], rows[o + 1], rows[o + 2], rows[o + 3], rows[o + 4]
        for t in range(found.shape[0]):
            found[t] += g0 * r0[t] + g1 * r1[t] + g2 * r2[t] + g3 * r3[t] + g4 * r4[t]


@summing
def at_instants(response, v, mono, stems, found):  # type: ignore[no-untyped-def]
    """found (2 M,) becomes what a stem is at the watched instants behind a response, before its sides' gains; of a mono
    stem only the left half is filled, which is the right one too."""
    wanted = found[: found.shape[0] // 2] if mono else found
    wanted[:] = np.float32(0.0)
    add_octaves(response, stems.instants[v], wanted)
    add_octaves(response[OCTAVES:], stems.instants[v, OCTAVES:], wanted)


@summing
def add_sides(heard, left, right, mono, found):  # type: ignore[no-untyped-def]
    """Add what ``at_instants`` found, with the sides' gains."""
    half = found.shape[0] // 2
    on_left, on_right = found[:half], found[half:]
    to_right = heard if mono else heard[half:]
    for m in range(half):
        on_left[m] += left * heard[m]
    for m in range(half):
        on_right[m] += right * to_right[m]


@summing
def add_instants(strips, r, mono, stems, room, found):  # type: ignore[no-untyped-def]
    """Add to found (2 M,) what strip r is at the watched instants. room (2 M,)."""
    at_instants(strips.response[r], strips.variant[r], mono, stems, room)
    add_sides(room, strips.sides[r, 0], strips.sides[r, 1], mono, found)


@summing
def shape_strips(rows, owner, group_db, into, kind, tables, stems, k, strips):  # type: ignore[no-untyped-def]
    """Make strips from rows (K, COLUMNS) of knobs of the stems ``owner`` (K,), behind group gains (K,), and leave them
    in the rows ``into`` (K,) of strips. kind (N,): number of each stem's EQ shape in the tables."""
    curve = np.empty((2, BANDS), dtype=np.float32)
    shaped = np.empty((2, BANDS), dtype=np.float32)
    power = np.empty(BANDS, dtype=np.float32)
    loud = np.empty(BANDS, dtype=np.float32)
    change = np.empty(BANDS, dtype=np.float32)
    thirds = np.empty(THIRDS, dtype=np.float32)
    gains = np.empty(OCTAVES, dtype=np.float32)
    scaled = np.empty(OCTAVES, dtype=np.float32)
    blocks = np.empty(stems.hops.shape[2], dtype=np.float32)
    heard = np.empty(strips.instants.shape[1], dtype=np.float32)
    floor, tiny = np.float32(1e-12), np.float32(TINY)
    for n in range(rows.shape[0]):
        i, r, row = owner[n], into[n], rows[n]
        v = stems.first[i] + int(row[COMPRESSOR])
        read_curve(row, kind[i], tables, curve)
        baked, k_power = stems.baked[i], stems.heard[v]
        changed, whole = np.float32(0.0), np.float32(0.0)
        for b in range(BANDS):
            change[b] = max(curve[0, b] * curve[0, b] + curve[1, b] * curve[1, b], floor)
            shaped[0, b] = curve[0, b] * baked[0, b] - curve[1, b] * baked[1, b]
            shaped[1, b] = curve[0, b] * baked[1, b] + curve[1, b] * baked[0, b]
            power[b] = shaped[0, b] * shaped[0, b] + shaped[1, b] * shaped[1, b]
        to_decibels(change)
        for b in range(BANDS):
            here = k_power[b] * (baked[0, b] * baked[0, b] + baked[1, b] * baked[1, b])
            changed += here * change[b] * change[b]
            whole += here
        pan_left, pan_right = _pan_gains(row[PAN], stems.channels[i])
        gain = 10.0 ** ((row[GAIN] + group_db[n]) / 20.0) * (1.0 - 2.0 * row[INVERT])
        left = np.float32(gain * pan_left * stems.fixed[i, 0])
        right = np.float32(gain * pan_right * stems.fixed[i, 1])
        strips.sides[r, 0], strips.sides[r, 1] = left, right
        for b in range(BANDS):
            strips.weight[r, 0, 0, b] = left * stems.ratio[v, 0, b] * shaped[0, b]
            strips.weight[r, 0, 1, b] = left * stems.ratio[v, 0, b] * shaped[1, b]
        for b in range(BANDS):
            strips.weight[r, 1, 0, b] = right * stems.ratio[v, 1, b] * shaped[0, b]
            strips.weight[r, 1, 1, b] = right * stems.ratio[v, 1, b] * shaped[1, b]
        k_left, k_right = np.float32(0.0), np.float32(0.0)
        for b in range(BANDS):
            on_left = left * left * stems.power[v, 0, b] * power[b]
            on_right = right * right * stems.power[v, 1, b] * power[b]
            change[b] = on_left + on_right
            loud[b] = change[b] * k[b]
            k_left += on_left * k[b]
            k_right += on_right * k[b]
        in_thirds(change, strips.thirds[r])
        in_thirds(loud, strips.k_thirds[r])
        total = k_left + k_right
        for t in range(THIRDS):
            strips.k_thirds[r, t] *= np.float32(1.0) / max(total, tiny)
        for b in range(BANDS):
            loud[b] = stems.k_octave[v, b] * power[b]
        in_octaves(loud, thirds, gains)
        in_hops = strips.hops[r]
        in_hops[:] = np.float32(0.0)
        for side in range(2):
            squared = strips.sides[r, side] * strips.sides[r, side]
            for o in range(OCTAVES):
                scaled[o] = squared * gains[o]
            add_octaves(scaled, stems.hops[v, OCTAVES * side :], in_hops)
        for part in range(2):
            for b in range(BANDS):
                loud[b] = stems.p_octave[v, b] * shaped[part, b]
            in_octaves(loud, thirds, strips.response[r, OCTAVES * part :])
        strips.variant[r], strips.loud[r] = v, total
        if strips.instants.shape[0] > 0:
            strips.instants[r] = np.float32(0.0)
            add_instants(strips, r, stems.channels[i] == 1, stems, heard, strips.instants[r])
        strips.table[r, LOUDNESS] = integrated(in_hops, rescale(in_hops, total), blocks)
        strips.table[r, POSITION] = (k_right - k_left) / max(total, tiny)
        strips.table[r, EQ_CHANGE] = math.sqrt(changed / max(whole, tiny))
        strips.table[r, REDUCTION] = stems.reduction[v]
        strips.table[r, TEMPO_RATIO] = row[TEMPO]


@summing
def share(p, one, other, times, stems, pairs, hops, thirds):  # type: ignore[no-untyped-def]
    """What two strips of coherent pair p share, counted once: their power becomes thirds (31,), and so many times their
    K-weighted power is added to hops (T,). one, other: weights (2, 2, BANDS) of the pair's first and second."""
    i, j = pairs.stems[p, 0], pairs.stems[p, 1]
    cross, octave, shared = stems.cross[i, j], pairs.octave[p], pairs.hops[p]
    power = np.empty(BANDS, dtype=np.float32)
    power[:] = np.float32(0.0)
    real = np.empty(BANDS, dtype=np.float32)
    imag = np.empty(BANDS, dtype=np.float32)
    gains = np.empty(OCTAVES, dtype=np.float32)
    for c in range(2):
        for b in range(BANDS):
            re = one[c, 0, b] * other[c, 0, b] + one[c, 1, b] * other[c, 1, b]
            im = one[c, 1, b] * other[c, 0, b] - one[c, 0, b] * other[c, 1, b]
            power[b] += re * cross[c, 0, b] - im * cross[c, 1, b]
            real[b] = times * octave[c, b] * re
            imag[b] = times * octave[c, b] * im
        in_octaves(real, thirds, gains)
        add_octaves(gains, shared[2 * OCTAVES * c :], hops)
        in_octaves(imag, thirds, gains)
        add_octaves(gains, shared[2 * OCTAVES * c + OCTAVES :], hops)
    in_thirds(power, thirds)


@summing
def _share_from(i, p, mine, theirs, times, stems, pairs, hops, thirds):  # type: ignore[no-untyped-def]
    """As ``share``, seen from stem i, which may be the pair's first or second."""
    if pairs.stems[p, 0] == i:
        share(p, mine, theirs, times, stems, pairs, hops, thirds)
    else:
        share(p, theirs, mine, times, stems, pairs, hops, thirds)


@summing
def add_power(one, other, cross, back, times, power):  # type: ignore[no-untyped-def]
    """Add to power (3, BANDS) what two strips bring together, so many times: twice for two stems, once for a stem with
    itself. one, other: weights (2, 2, BANDS); cross (3, 2, BANDS) of the two, back of the two the other way round."""
    for c in range(2):
        for b in range(BANDS):
            re = one[c, 0, b] * other[c, 0, b] + one[c, 1, b] * other[c, 1, b]
            im = one[c, 1, b] * other[c, 0, b] - one[c, 0, b] * other[c, 1, b]
            power[c, b] += times * (re * cross[c, 0, b] - im * cross[c, 1, b])
    half = np.float32(0.5) * times
    for b in range(BANDS):
        re = one[0, 0, b] * other[1, 0, b] + one[0, 1, b] * other[1, 1, b]
        im = one[0, 1, b] * other[1, 0, b] - one[0, 0, b] * other[1, 1, b]
        power[2, b] += half * (re * cross[2, 0, b] - im * cross[2, 1, b])
    for b in range(BANDS):
        re = other[0, 0, b] * one[1, 0, b] + other[0, 1, b] * one[1, 1, b]
        im = other[0, 1, b] * one[1, 0, b] - other[0, 0, b] * one[1, 1, b]
        power[2, b] += half * (re * back[2, 0, b] - im * back[2, 1, b])


@summing
def _add(values, found):  # type: ignore[no-untyped-def]
    for t in range(found.shape[0]):
        found[t] += values[t]


@summing
def add_up(strips, count, stems, pairs):  # type: ignore[no-untyped-def]
    """The Sums of mixes; strip i * count + n is that of stem i in mix n."""
    number, points = stems.first.shape[0], stems.instants.shape[2]
    sums = Sums(
        np.zeros((count, 3, BANDS), dtype=np.float32),
        np.zeros((count, strips.hops.shape[1]), dtype=np.float32),
        np.zeros((count, points), dtype=np.float32),
        np.zeros((count, THIRDS), dtype=np.float32),
        np.empty((count, number, THIRDS), dtype=np.float32),
    )
    heard = np.empty(points, dtype=np.float32)
    shared = np.empty(THIRDS, dtype=np.float32)
    one, two = np.float32(1.0), np.float32(2.0)
    for i in range(number):
        mono = stems.channels[i] == 1
        for n in range(count):
            r = i * count + n
            _add(strips.hops[r], sums.hops[n])
            if strips.instants.shape[0] > 0:
                _add(strips.instants[r], sums.instants[n])
            else:
                add_instants(strips, r, mono, stems, heard, sums.instants[n])
            for t in range(THIRDS):
                sums.incoherent[n, t] += strips.thirds[r, t]
                sums.coherent[n, i, t] = strips.thirds[r, t]
        for j in range(i + 1):
            times = one if i == j else two
            for n in range(count):
                a, b = strips.weight[i * count + n], strips.weight[j * count + n]
                add_power(a, b, stems.cross[i, j], stems.cross[j, i], times, sums.power[n])
    for p in range(pairs.stems.shape[0]):
        i, j = pairs.stems[p, 0], pairs.stems[p, 1]
        for n in range(count):
            a, b = strips.weight[i * count + n], strips.weight[j * count + n]
            share(p, a, b, one, stems, pairs, sums.hops[n], shared)
            for t in range(THIRDS):
                sums.coherent[n, i, t] += shared[t]
                sums.coherent[n, j, t] += shared[t]
    return sums


@summing
def _share(coherent, k_thirds, inverse):  # type: ignore[no-untyped-def]
    """A stem's K-weighted mean share of the mix's power, from (31,) each; inverse: 1 / the mix's power."""
    zero = np.float32(0.0)
    share = zero
    for t in range(coherent.shape[0]):  # a length that is known would be unrolled in single steps
        share += max(coherent[t], zero) * k_thirds[t] * inverse[t]
    return share


@summing
def _audibility(shares, ears, n, parts):  # type: ignore[no-untyped-def]
    """Each stem's share (N,), while it plays, in dB as row n of the audibility in parts."""
    for i in range(shares.shape[0]):
        shares[i] = min(max(shares[i] / max(ears.playing[i], np.float32(1e-3)), np.float32(1e-12)), np.float32(1.0))
    to_decibels(shares)
    for i in range(shares.shape[0]):
        parts[AUDIBILITY, n, i] = shares[i]


@summing
def measure(sums, strips, ears):  # type: ignore[no-untyped-def]
    """Measures of mixes, from what ``add_up`` found: scalars (SCALARS, B), spectra (SPECTRA, B, 31), both as ``listen``
    leaves them, and parts (PARTS, B, N)."""
    count, stems = sums.coherent.shape[:2]
    scalars = np.empty((SCALARS, count))
    spectra = np.empty((SPECTRA, count, THIRDS))
    parts = np.empty((PARTS, count, stems))
    room = scratch(sums.hops.shape[1], ears.frame.shape[0])
    shares = np.empty(stems, dtype=np.float32)
    for n in range(count):
        listen(sums.power[n], sums.hops[n], sums.instants[n], sums.incoherent[n], ears, room, n, scalars, spectra)
        for i in range(stems):
            r = i * count + n
            shares[i] = _share(sums.coherent[n, i], strips.k_thirds[r], room.inverse)
            for part in range(PARTS):
                parts[part, n, i] = strips.table[r, part]
        _audibility(shares, ears, n, parts)
    return scalars, spectra, parts


@summing
def evaluate(knobs, groups_db, group_of, kind, tables, stems, pairs, ears):  # type: ignore[no-untyped-def]
    """Measures of mixes, as ``measure`` returns them, from knobs (B, N, COLUMNS) and the groups' gains (B, G).

    group_of, kind (N,): each stem's group and the number of its EQ shape in the tables.
    """
    mixes, number = knobs.shape[0], knobs.shape[1]
    rows = np.empty((number * mixes, knobs.shape[2]))
    owner = np.empty(number * mixes, dtype=np.int64)
    into = np.empty(number * mixes, dtype=np.int64)
    group_db = np.empty(number * mixes)
    for i in range(number):
        for n in range(mixes):
            r = i * mixes + n
            owner[r], into[r], group_db[r] = i, r, groups_db[n, group_of[i]]
            copy(knobs[n, i], rows[r])
    strips = room_for_strips(number * mixes, stems.hops.shape[2], 0, stems.instants.shape[2])
    shape_strips(rows, owner, group_db, into, kind, tables, stems, ears.k, strips)
    return measure(add_up(strips, mixes, stems, pairs), strips, ears)


@summing
def _rest_of_mix(weight, cross, stem, rest):  # type: ignore[no-untyped-def]
    """rest (4, 2, BANDS) becomes what all the other stems bring to a stem's cross-spectra with the mix, for L L*, R R*,
    L R* and (R L*)*. weight (N, 2, 2, BANDS)."""
    rest[:] = np.float32(0.0)
    for j in range(weight.shape[0]):
        if j == stem:
            continue
        for row in range(4):
            form = min(row, 2)
            w = weight[j, 0 if row == 0 or row == 3 else 1]
            real, imag = rest[row, 0], rest[row, 1]
            if row < 3:  # conj(w) C
                there = cross[stem, j, form]
                for b in range(BANDS):
                    real[b] += w[0, b] * there[0, b] + w[1, b] * there[1, b]
                    imag[b] += w[0, b] * there[1, b] - w[1, b] * there[0, b]
            else:  # w C, of the pair the other way round
                there = cross[j, stem, form]
                for b in range(BANDS):
                    real[b] += w[0, b] * there[0, b] - w[1, b] * there[1, b]
                    imag[b] += w[0, b] * there[1, b] + w[1, b] * there[0, b]


@summing
def _power_with(weight, rest, own, times, base, power):  # type: ignore[no-untyped-def]
    """power (3, BANDS) becomes base plus, so many times, what a strip adds alone and together with the rest.

    weight (2, 2, BANDS); own (3, 2, BANDS): cross-spectra of the stem with itself.
    """
    two = np.float32(2.0)
    for c in range(2):
        for b in range(BANDS):
            alone = (weight[c, 0, b] * weight[c, 0, b] + weight[c, 1, b] * weight[c, 1, b]) * own[c, 0, b]
            both = weight[c, 0, b] * rest[c, 0, b] - weight[c, 1, b] * rest[c, 1, b]
            power[c, b] = base[c, b] + times * (alone + two * both)
    for b in range(BANDS):
        re = weight[0, 0, b] * weight[1, 0, b] + weight[0, 1, b] * weight[1, 1, b]
        im = weight[0, 1, b] * weight[1, 0, b] - weight[0, 0, b] * weight[1, 1, b]
        alone = re * own[2, 0, b] - im * own[2, 1, b]
        left = weight[0, 0, b] * rest[2, 0, b] - weight[0, 1, b] * rest[2, 1, b]
        right = weight[1, 0, b] * rest[3, 0, b] + weight[1, 1, b] * rest[3, 1, b]
        power[2, b] = base[2, b] + times * (alone + left + right)


@compiled
def _equal(one, other):  # type: ignore[no-untyped-def]
    same = True
    for t in range(one.shape[0]):
        same &= one[t] == other[t]
    return same


@summing
def successors(numbers, made, now, sums, stems, pairs, ears, first, scalars, spectra, parts):  # type: ignore[no-untyped-def]
    """Measures of the mixes in which one stem takes another strip, as ``measure`` returns them, from column ``first``.

    numbers (S, 2): stem and row of its strip in ``made``, sorted by stem; now: the mix's strips, one a stem, with their
    instants; sums: its sums, of one mix.
    """
    count, length, points = now.weight.shape[0], now.hops.shape[1], stems.instants.shape[2]
    room = scratch(length, ears.frame.shape[0])
    one = np.float32(1.0)
    rest = np.empty((4, 2, BANDS), dtype=np.float32)
    old_power = np.empty((3, BANDS), dtype=np.float32)
    power = np.empty((3, BANDS), dtype=np.float32)
    old_hops = np.empty(length, dtype=np.float32)
    hops = np.empty(length, dtype=np.float32)
    heard = np.empty(points, dtype=np.float32)
    old_instants = np.empty(points, dtype=np.float32)
    instants = np.empty(points, dtype=np.float32)
    others = np.empty(THIRDS, dtype=np.float32)
    incoherent = np.empty(THIRDS, dtype=np.float32)
    mine = np.empty(THIRDS, dtype=np.float32)
    theirs = np.empty(THIRDS, dtype=np.float32)
    shared = np.empty((count, THIRDS), dtype=np.float32)
    coherent = np.empty((count, THIRDS), dtype=np.float32)
    shares = np.empty(count, dtype=np.float32)
    variant, response = now.variant[0], now.response[0]
    last = -1
    for s in range(numbers.shape[0]):
        i, r = numbers[s, 0], numbers[s, 1]
        n = first + s
        mono = stems.channels[i] == 1
        partners = range(pairs.start[i], pairs.start[i + 1])
        if i != last:  # the mix without the stem
            last = i
            _rest_of_mix(now.weight, stems.cross, i, rest)
            _power_with(now.weight[i], rest, stems.cross[i, i], -one, sums.power[0], old_power)
            for t in range(length):
                old_hops[t] = sums.hops[0, t] - now.hops[i, t]
            variant, response = now.variant[i], now.response[i]
            at_instants(response, variant, mono, stems, heard)
            for m in range(points):
                old_instants[m] = sums.instants[0, m] - now.instants[i, m]
            for t in range(THIRDS):
                others[t] = sums.incoherent[0, t] - now.thirds[i, t]
            for j in range(count):
                copy(sums.coherent[0, j], coherent[j])
            for q in partners:
                j, p = pairs.partner[q], pairs.number[q]
                _share_from(i, p, now.weight[i], now.weight[j], -one, stems, pairs, old_hops, mine)
                for t in range(THIRDS):
                    coherent[j, t] -= mine[t]
        _power_with(made.weight[r], rest, stems.cross[i, i], one, old_power, power)
        if made.variant[r] != variant or not _equal(made.response[r], response):
            variant, response = made.variant[r], made.response[r]
            at_instants(made.response[r], made.variant[r], mono, stems, heard)
        copy(old_instants, instants)
        add_sides(heard, made.sides[r, 0], made.sides[r, 1], mono, instants)
        for t in range(length):
            hops[t] = old_hops[t] + made.hops[r, t]
        for t in range(THIRDS):
            mine[t] = made.thirds[r, t]
            incoherent[t] = others[t] + mine[t]
        for q in partners:
            j, p = pairs.partner[q], pairs.number[q]
            _share_from(i, p, made.weight[r], now.weight[j], one, stems, pairs, hops, shared[j])
        listen(power, hops, instants, incoherent, ears, room, n, scalars, spectra)
        for j in range(count):
            shares[j] = _share(coherent[j], now.k_thirds[j], room.inverse)
            for part in range(PARTS):
                parts[part, n, j] = now.table[j, part]
        for q in partners:
            j = pairs.partner[q]
            for t in range(THIRDS):
                mine[t] += shared[j, t]
                theirs[t] = coherent[j, t] + shared[j, t]
            shares[j] = _share(theirs, now.k_thirds[j], room.inverse)
        shares[i] = _share(mine, made.k_thirds[r], room.inverse)
        for part in range(PARTS):
            parts[part, n, i] = made.table[r, part]
        _audibility(shares, ears, n, parts)


@summing
def _times(values, factor, found):  # type: ignore[no-untyped-def]
    for t in range(found.shape[0]):
        found[t] = factor * values[t]


@summing
def _scaled(now, factors, strips):  # type: ignore[no-untyped-def]
    """Fill strips with the mix's own in ``now``, that of stem i scaled by factors (N, B): row i * B + n is mix n's."""
    stems, count = factors.shape
    for i in range(stems):
        for n in range(count):
            r, factor = i * count + n, factors[i, n]
            for c in range(2):
                for part in range(2):
                    _times(now.weight[i, c, part], factor, strips.weight[r, c, part])
            _times(now.hops[i], factor * factor, strips.hops[r])
            _times(now.thirds[i], factor * factor, strips.thirds[r])
            _times(now.instants[i], factor, strips.instants[r])


@summing
def _at_gain(gain, plus, zero, minus, found):  # type: ignore[no-untyped-def]
    """found (n,) becomes the second-order polynomial in a gain that is known at 1, 0 and -1."""
    half = np.float32(0.5)
    for t in range(found.shape[0]):
        linear = half * (plus[t] - minus[t])
        square = half * (plus[t] + minus[t]) - zero[t]
        found[t] = zero[t] + gain * (linear + gain * square)


@summing
def group_successors(numbers, changes_db, group_of, now, sums, stems, pairs, ears, first, scalars, spectra, parts):  # type: ignore[no-untyped-def]
    """As ``successors``, of the mixes in which the stems of groups ``numbers`` (S,), sorted, are scaled by
    ``changes_db`` (S,). group_of (N,): the group of each stem."""
    count, length = now.weight.shape[0], now.hops.shape[1]
    room = scratch(length, ears.frame.shape[0])
    power = np.empty((3, BANDS), dtype=np.float32)
    hops = np.empty(length, dtype=np.float32)
    instants = np.empty(stems.instants.shape[2], dtype=np.float32)
    incoherent = np.empty(THIRDS, dtype=np.float32)
    coherent = np.empty((count, THIRDS), dtype=np.float32)
    shares = np.empty(count, dtype=np.float32)
    factors = np.empty((count, 2), dtype=np.float32)
    strips = room_for_strips(2 * count, length, 2 * count, stems.instants.shape[2])
    ends = sums
    last = -1
    for s in range(numbers.shape[0]):
        n = first + s
        if numbers[s] != last:  # the mixes without the group's stems, and with their polarity turned
            last = numbers[s]
            for i in range(count):
                factors[i, 0] = 0.0 if group_of[i] == last else 1.0
                factors[i, 1] = -1.0 if group_of[i] == last else 1.0
            _scaled(now, factors, strips)
            ends = add_up(strips, factors.shape[1], stems, pairs)
        gain = np.float32(10.0 ** (changes_db[s] / 20.0))
        for row in range(3):
            _at_gain(gain, sums.power[0, row], ends.power[0, row], ends.power[1, row], power[row])
        for i in range(count):
            _at_gain(gain, sums.coherent[0, i], ends.coherent[0, i], ends.coherent[1, i], coherent[i])
        _at_gain(gain, sums.hops[0], ends.hops[0], ends.hops[1], hops)
        _at_gain(gain, sums.instants[0], ends.instants[0], ends.instants[1], instants)
        _at_gain(gain, sums.incoherent[0], ends.incoherent[0], ends.incoherent[1], incoherent)
        listen(power, hops, instants, incoherent, ears, room, n, scalars, spectra)
        for i in range(count):
            shares[i] = _share(coherent[i], now.k_thirds[i], room.inverse)
            for part in range(PARTS):
                parts[part, n, i] = now.table[i, part]
            if group_of[i] == last:  # the gates do not move with the stem
                scale = rescale(now.hops[i], gain * gain * now.loud[i])
                parts[LOUDNESS, n, i] = integrated(now.hops[i], scale, room.blocks)
        _audibility(shares, ears, n, parts)
