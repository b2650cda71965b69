"""The arithmetic of the closed form, compiled: strips, mixes of strips, and one-move successors.

Complex quantities are kept as separate real and imaginary arrays (the axis written 2 before BANDS), so that the inner
loops over bands run on vector units. Powers per mix have three rows: L L*, R R*, Re(L R*). Shapes: N stems, V variants
of theirs, R strips, B mixes, P coherent pairs, T hops of 100 ms, M watched instants (filled up to whole pieces).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixrl.analysis import BANDS, HOP_BANDS, HOP_STARTS
from mixrl.compiled import inner, summing
from mixrl.curves import read_curve
from mixrl.decibels import to_decibels
from mixrl.hearing import (
    THIRDS,
    TINY,
    copy,
    in_thirds,
    integrated,
    listen,
    rescale,
    scratch,
)
from mixrl.knobs import COMPRESSOR, GAIN, INVERT, PAN, TEMPO
from mixrl.measures import Array
from mixrl.peaks import OCTAVES
from mixrl.settings import COMPRESSORS
from mixrl.strip import pan_gains

Float = NDArray[np.float32]
Integers = NDArray[np.int64]

LOUDNESS, AUDIBILITY, POSITION, EQ_CHANGE, REDUCTION, TEMPO_RATIO, PARTS = range(7)  # what a mix tells of each stem
_pan_gains = inner(pan_gains)
VARIANTS = len(COMPRESSORS)  # of each stem
_MOST_BYTES = 2**19  # of mixes that are summed up before they are listened to: they stay in the processor's cache
_OCTAVE_EDGES = np.append(3 * np.arange(OCTAVES), THIRDS)  # the last octave takes the rest
_HOP_EDGES = np.array([*HOP_STARTS, THIRDS])
_MOST_STEPS = 32767
PIECE = 128  # watched instants that are worked on at once: their octaves stay in the nearest cache
_TOGETHER = 2  # mixes whose powers are worked out at once, so that cross-spectra are read once for all


class Stems(NamedTuple):
    """The recordings. The variants of stem i are rows ``first[i] + compressor`` of the arrays (V, ...).

    baked (N, 2, BANDS) response and fixed (N, 2) gains that count as part of the recording; cross (N, N, 3, 2, BANDS):
    L L*, R R*, L R* of two stems, real and imaginary. ratio (V, 2, BANDS): amplitude against the stem as it is; power
    (V, 2, BANDS); heard (V, BANDS): K-weighted power; in_hops (V, BANDS): shares of K-weighted power in each band of
    the hops, in_octave: of power in each octave; hops (V, 2 HOP_BANDS, T) as in ``StemSpectra``; instants (V, 2,
    M / PIECE, 2 OCTAVES, PIECE): per channel, in pieces, in steps of which each is so large, step (V, 2, 2 OCTAVES);
    swell (V, T): amplitude in each hop against that of the stem as it is, next to ``ratio``; reduction (V,) in dB.
    """

    first: Integers
    channels: Integers
    baked: Float
    fixed: Float
    cross: Float
    ratio: Float
    power: Float
    heard: Float
    in_hops: Float
    in_octave: Float
    hops: Float
    instants: NDArray[np.int16]
    step: Float
    swell: Float
    reduction: Array


class Pairs(NamedTuple):
    """Coherent stems. stems (P, 2); in_hops (P, 2, BANDS): share of cross-power in each band of the hops per channel;
    hops (P, 4 HOP_BANDS, T): ``Analysis.shared``. The partners of stem i are rows start[i] to start[i + 1] of
    ``partner`` and ``number`` (of the pair)."""

    stems: Integers
    in_hops: Float
    hops: Float
    start: Integers
    partner: Integers
    number: Integers


class Strips(NamedTuple):
    """What strips make of their stems.

    weight (R, 2, 2, BANDS): channel gains against the stem as it is; hops (R, T) K-weighted power; response
    (R, 2 OCTAVES) of each octave, real then imaginary, and sides (R, 2) gains, for the watched instants;
    instants (2 M wide) what follows there, of the first strips only or of none, since it takes much memory; variant
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
    nothing in common, coherent (B, N, 31) power that each stem adds together with its partners. There may be room for
    more mixes than are in it."""

    power: Float
    hops: Float
    instants: Float
    incoherent: Float
    coherent: Float


def room_for_strips(count: int, hops: int, kept: int, points: int) -> Strips:
    """Strips that are still to be made, of which the first ``kept`` will have their watched instants."""
    return Strips(
        np.empty((count, 2, 2, BANDS), dtype=np.float32),
        np.empty((count, hops), dtype=np.float32),
        np.empty((count, 2 * OCTAVES), dtype=np.float32),
        np.empty((count, 2), dtype=np.float32),
        np.empty((kept, points), dtype=np.float32),
        np.empty(count, dtype=np.int64),
        np.zeros((count, THIRDS), dtype=np.float32),  # these are given out, those of strips never made among them
        np.empty(count, dtype=np.float32),
        np.empty((count, THIRDS), dtype=np.float32),
        np.zeros((count, PARTS)),
    )


def in_pieces(instants: Float) -> tuple[NDArray[np.int16], Float]:
    """Instants as in ``StemSpectra``, (2 OCTAVES, 2 M), as ``Stems`` has them, filled up with silence, and their steps:
    16 bits are 90 dB below the highest of each octave, and half of what there is to keep and to read."""
    rows, points = instants.shape[0], instants.shape[1] // 2
    pieces = -(-points // PIECE)
    values = instants.reshape(rows, 2, points)
    step = np.abs(values).max(axis=2, initial=0.0) / np.float32(_MOST_STEPS)
    found = np.zeros((rows, 2, pieces * PIECE), dtype=np.int16)
    found[:, :, :points] = np.rint(values / np.maximum(step, np.float32(TINY))[:, :, None])
    return np.ascontiguousarray(found.reshape(rows, 2, pieces, PIECE).transpose(1, 2, 0, 3)), step.T


def out_of_pieces(pieces: NDArray[np.int16], step: Float, points: int) -> Float:
    """The inverse of ``in_pieces``, for so many instants M, but for the rounding."""
    found = pieces.transpose(2, 0, 1, 3).reshape(2 * OCTAVES, 2, -1)[:, :, :points] * step.T[:, :, None]
    return found.reshape(2 * OCTAVES, 2 * points)


@inner
def _room_for_sums(count, stems, hops, points):  # type: ignore[no-untyped-def]
    """Mixes that are still to be added up."""
    return Sums(
        np.empty((count, 3, BANDS), dtype=np.float32),
        np.empty((count, hops), dtype=np.float32),
        np.empty((count, points), dtype=np.float32),
        np.empty((count, THIRDS), dtype=np.float32),
        np.empty((count, stems, THIRDS), dtype=np.float32),
    )


@inner
def _clear(found):  # type: ignore[no-untyped-def]
    for t in range(found.shape[0]):
        found[t] = np.float32(0.0)


@inner
def _sums(values, edges, thirds, found):  # type: ignore[no-untyped-def]
    """found (n,) becomes the sums of values (BANDS,) between edges (n + 1,) in third-octaves. thirds: room."""
    in_thirds(values, thirds)
    for k in range(edges.shape[0] - 1):
        found[k] = np.float32(0.0)
        for t in range(edges[k], edges[k + 1]):
            found[k] += thirds[t]


@inner
def _add_rows(gains, rows, found):  # type: ignore[no-untyped-def]
    """Add to found (T,) the sum of rows, at least as long and a multiple of ten, weighted by as many gains."""
    for o in range(0, gains.shape[0], 10):
        g0, g1, g2, g3, g4 = gains[o], gains[o + 1], gains[o + 2], gains[o + 3], gains[o + 4]
        g5, g6, g7, g8, g9 = gains[o + 5], gains[o + 6], gains[o + 7], gains[o + 8], gains[o + 9]
        for t in range(found.shape[0]):
            lower = (g0 * rows[o, t] + g1 * rows[o + 1, t]) + (g2 * rows[o + 2, t] + g3 * rows[o + 3, t])
            middle = (g4 * rows[o + 4, t] + g5 * rows[o + 5, t]) + (g6 * rows[o + 6, t] + g7 * rows[o + 7, t])
            found[t] += (lower + middle) + (g8 * rows[o + 8, t] + g9 * rows[o + 9, t])


@inner
def _add_rows_twice(gains, more, rows, found, other):  # type: ignore[no-untyped-def]
    """As ``_add_rows``, for two sets of gains and sums at once: each row is read once."""
    for o in range(0, gains.shape[0], 5):
        g0, g1, g2, g3, g4 = gains[o], gains[o + 1], gains[o + 2], gains[o + 3], gains[o + 4]
        m0, m1, m2, m3, m4 = more[o], more[o + 1], more[o + 2], more[o + 3], more[o + 4]
        for t in range(found.shape[0]):
            r0, r1, r2, r3, r4 = rows[o, t], rows[o + 1, t], rows[o + 2, t], rows[o + 3, t], rows[o + 4, t]
            found[t] += ((g0 * r0 + g1 * r1) + (g2 * r2 + g3 * r3)) + g4 * r4
            other[t] += ((m0 * r0 + m1 * r1) + (m2 * r2 + m3 * r3)) + m4 * r4


@inner
def _add_instants(rows, strips, i, stems, found):  # type: ignore[no-untyped-def]
    """Add to found (K, 2 M) what those of the strips ``rows`` (K,), all of stem i, that are not below 0 are at the
    watched instants. Each piece of each variant is read once for all its strips."""
    pieces, mono = stems.instants.shape[2], stems.channels[i] == 1
    gains = np.empty((rows.shape[0], 2 * OCTAVES), dtype=np.float32)
    alike = np.empty(rows.shape[0], dtype=np.int64)
    piece = np.empty((2 * OCTAVES, PIECE), dtype=np.float32)
    for v in range(stems.first[i], stems.first[i] + VARIANTS):
        count = 0
        for k in range(rows.shape[0]):
            if rows[k] >= 0 and strips.variant[rows[k]] == v:
                alike[count] = k
                count += 1
        for side in range(2 if count else 0):
            channel = 0 if mono else side
            for k in range(count):
                r = rows[alike[k]]
                for o in range(2 * OCTAVES):
                    gains[k, o] = strips.sides[r, side] * strips.response[r, o] * stems.step[v, channel, o]
            for number in range(pieces):
                kept, start = stems.instants[v, channel, number], (side * pieces + number) * PIECE
                for o in range(2 * OCTAVES):
                    for t in range(PIECE):
                        piece[o, t] = np.float32(kept[o, t])
                for k in range(0, count - 1, 2):
                    one, other = found[alike[k]], found[alike[k + 1]]
                    _add_rows_twice(
                        gains[k], gains[k + 1], piece, one[start : start + PIECE], other[start : start + PIECE]
                    )
                if count % 2:
                    _add_rows(gains[count - 1], piece, found[alike[count - 1]][start : start + PIECE])


@inner
def _shape_strips(rows, owner, group_db, into, kind, tables, stems, k, strips):  # type: ignore[no-untyped-def]
    """Make strips from rows (K, COLUMNS) of knobs of the stems ``owner`` (K,), behind group gains (K,), and leave them
    in the rows ``into`` (K,) of strips. kind (N,): number of each stem's EQ shape in the tables."""
    curve = np.empty((2, BANDS), dtype=np.float32)
    shaped = np.empty((2, BANDS), dtype=np.float32)
    power = np.empty(BANDS, dtype=np.float32)
    loud = np.empty(BANDS, dtype=np.float32)
    change = np.empty(BANDS, dtype=np.float32)
    thirds = np.empty(THIRDS, dtype=np.float32)
    gains = np.empty(max(HOP_BANDS, OCTAVES), dtype=np.float32)
    scaled = np.empty(2 * HOP_BANDS, dtype=np.float32)
    blocks = np.empty(stems.hops.shape[2], dtype=np.float32)
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
            loud[b] = stems.in_hops[v, b] * power[b]
        _sums(loud, _HOP_EDGES, thirds, gains)
        in_hops = strips.hops[r]
        _clear(in_hops)
        for h in range(HOP_BANDS):
            scaled[h], scaled[HOP_BANDS + h] = left * left * gains[h], right * right * gains[h]
        _add_rows(scaled, stems.hops[v], in_hops)
        for part in range(2):
            for b in range(BANDS):
                loud[b] = stems.in_octave[v, b] * shaped[part, b]
            _sums(loud, _OCTAVE_EDGES, thirds, strips.response[r, OCTAVES * part :])
        for b in range(BANDS):
            loud[b] = stems.in_octave[v, b] * power[b]
        _sums(loud, _OCTAVE_EDGES, thirds, gains)
        for o in range(OCTAVES):  # the mean of responses that turn is smaller than they are
            real, imag = strips.response[r, o], strips.response[r, OCTAVES + o]
            scale = np.float32(math.sqrt(gains[o] / max(real * real + imag * imag, tiny)))
            strips.response[r, o], strips.response[r, OCTAVES + o] = scale * real, scale * imag
        strips.variant[r], strips.loud[r] = v, total
        if r < strips.instants.shape[0]:
            _clear(strips.instants[r])
            _add_instants(into[n : n + 1], strips, i, stems, strips.instants[r : r + 1])
        strips.table[r, LOUDNESS] = integrated(in_hops, rescale(in_hops, total), blocks)
        strips.table[r, POSITION] = (k_right - k_left) / max(total, tiny)
        strips.table[r, EQ_CHANGE] = math.sqrt(changed / max(whole, tiny))
        strips.table[r, REDUCTION] = stems.reduction[v]
        strips.table[r, TEMPO_RATIO] = row[TEMPO]


@inner
def _share(p, first, second, strips, times, stems, pairs, room, row, hops, thirds):  # type: ignore[no-untyped-def]
    """What two strips of coherent pair p share, counted once: their power becomes thirds (31,), and so many times their
    K-weighted power is added to hops (T,). first, second: strips of the pair's stems; room: (4, BANDS), row: (T,)."""
    i, j = pairs.stems[p, 0], pairs.stems[p, 1]
    one, other = strips.weight[first], strips.weight[second]
    cross, in_hops, shared = stems.cross[i, j], pairs.in_hops[p], pairs.hops[p]
    power, real, imag, gains = room[0], room[1], room[2], room[3, : 4 * HOP_BANDS]
    _clear(power)
    for c in range(2):
        for b in range(BANDS):
            re = one[c, 0, b] * other[c, 0, b] + one[c, 1, b] * other[c, 1, b]
            im = one[c, 1, b] * other[c, 0, b] - one[c, 0, b] * other[c, 1, b]
            power[b] += re * cross[c, 0, b] - im * cross[c, 1, b]
            real[b] = times * in_hops[c, b] * re
            imag[b] = times * in_hops[c, b] * im
        _sums(real, _HOP_EDGES, thirds, gains[2 * HOP_BANDS * c :])
        _sums(imag, _HOP_EDGES, thirds, gains[2 * HOP_BANDS * c + HOP_BANDS :])
    _clear(row)
    _add_rows(gains, shared, row)
    swell, others = stems.swell[strips.variant[first]], stems.swell[strips.variant[second]]
    for t in range(hops.shape[0]):
        hops[t] += row[t] * swell[t] * others[t]
    in_thirds(power, thirds)


@inner
def _share_from(i, p, mine, theirs, strips, times, stems, pairs, room, row, hops, thirds):  # type: ignore[no-untyped-def]
    """As ``_share``, seen from stem i, which may be the pair's first or second."""
    first = pairs.stems[p, 0] == i
    mine, theirs = mine if first else theirs, theirs if first else mine
    _share(p, mine, theirs, strips, times, stems, pairs, room, row, hops, thirds)


@inner
def _add(values, found):  # type: ignore[no-untyped-def]
    for t in range(found.shape[0]):
        found[t] += values[t]


@inner
def _add_rest(weight, there, back, rest):  # type: ignore[no-untyped-def]
    """Add to rest (4, 2, BANDS) what a strip of weight (2, 2, BANDS) brings to another stem's cross-spectra with the
    mix, for L L*, R R*, L R* and (R L*)*. there: cross-spectra (3, 2, BANDS) of that stem with the strip's, back: of
    the two the other way round."""
    for row in range(3):  # conj(w) C
        w, c, found = weight[0 if row == 0 else 1], there[row], rest[row]
        for b in range(BANDS):
            found[0, b] += w[0, b] * c[0, b] + w[1, b] * c[1, b]
            found[1, b] += w[0, b] * c[1, b] - w[1, b] * c[0, b]
    w, c, found = weight[0], back[2], rest[3]  # w C
    for b in range(BANDS):
        found[0, b] += w[0, b] * c[0, b] - w[1, b] * c[1, b]
        found[1, b] += w[0, b] * c[1, b] + w[1, b] * c[0, b]


@inner
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


@inner
def _add_powers(strips, rows, stems, sums):  # type: ignore[no-untyped-def]
    """Add to the powers of the sums: stem by stem what its strip adds alone and with those of the stems before it."""
    rest = np.empty((_TOGETHER, 4, 2, BANDS), dtype=np.float32)
    flat = rest.reshape(_TOGETHER, 8 * BANDS)
    for start in range(0, rows.shape[1], _TOGETHER):
        some = range(start, min(start + _TOGETHER, rows.shape[1]))
        for i in range(rows.shape[0]):
            for n in some:
                _clear(flat[n - start])
            for j in range(i):
                there, back = stems.cross[i, j], stems.cross[j, i]
                for n in some:
                    if rows[j, n] >= 0:
                        _add_rest(strips.weight[rows[j, n]], there, back, rest[n - start])
            own = stems.cross[i, i]
            for n in some:
                if rows[i, n] >= 0:
                    weight, power = strips.weight[rows[i, n]], sums.power[n]
                    _power_with(weight, rest[n - start], own, np.float32(1.0), power, power)


@inner
def _add_up(strips, rows, stems, pairs, sums):  # type: ignore[no-untyped-def]
    """Sum mixes up. rows (N, B): the strip of each stem in each mix, below 0 where a mix is without the stem."""
    number, count = rows.shape
    room = np.empty((4, BANDS), dtype=np.float32)
    shared, swelled = np.empty(THIRDS, dtype=np.float32), np.empty(sums.hops.shape[1], dtype=np.float32)
    own = np.empty(count, dtype=np.int64)
    for n in range(count):
        for row in range(3):
            _clear(sums.power[n, row])
        _clear(sums.hops[n])
        _clear(sums.instants[n])
        _clear(sums.incoherent[n])
        for i in range(number):
            _clear(sums.coherent[n, i])
    for i in range(number):
        for n in range(count):
            r = own[n] = rows[i, n]
            if r >= 0:
                _add(strips.hops[r], sums.hops[n])
                _add(strips.thirds[r], sums.incoherent[n])
                _add(strips.thirds[r], sums.coherent[n, i])
                if r < strips.instants.shape[0]:
                    _add(strips.instants[r], sums.instants[n])
        if strips.instants.shape[0] == 0:
            _add_instants(own, strips, i, stems, sums.instants[:count])
    _add_powers(strips, rows, stems, sums)
    for p in range(pairs.stems.shape[0]):
        i, j = pairs.stems[p, 0], pairs.stems[p, 1]
        for n in range(count):
            if rows[i, n] >= 0 and rows[j, n] >= 0:
                a, b = rows[i, n], rows[j, n]
                _share(p, a, b, strips, np.float32(1.0), stems, pairs, room, swelled, sums.hops[n], shared)
                _add(shared, sums.coherent[n, i])
                _add(shared, sums.coherent[n, j])


@inner
def _part(coherent, k_thirds, inverse):  # type: ignore[no-untyped-def]
    """A stem's K-weighted mean share of the mix's power, from (31,) each; inverse: 1 / the mix's power."""
    zero = np.float32(0.0)
    share = zero
    for t in range(coherent.shape[0]):  # a length that is known would be unrolled in single steps
        share += max(coherent[t], zero) * k_thirds[t] * inverse[t]
    return share


@inner
def _measure(sums, strips, rows, ears, first, scalars, spectra, parts):  # type: ignore[no-untyped-def]
    """Measures of mixes that were summed up, into columns from ``first`` on: scalars (SCALARS, B), spectra
    (SPECTRA, B, 31), both as ``listen`` leaves them, and parts (PARTS, B, N). rows (N, mixes): the stems' strips."""
    number = rows.shape[0]
    room = scratch(sums.hops.shape[1], ears.frame.shape[0])
    shares = np.empty(number, dtype=np.float32)
    least, one = np.float32(1e-12), np.float32(1.0)
    for n in range(rows.shape[1]):
        at = first + n
        listen(sums.power[n], sums.hops[n], sums.instants[n], sums.incoherent[n], ears, room, at, scalars, spectra)
        for i in range(number):
            r = rows[i, n]
            for part in range(PARTS):
                parts[part, at, i] = strips.table[r, part]
            share = _part(sums.coherent[n, i], strips.k_thirds[r], room.inverse)
            shares[i] = min(max(share / max(ears.playing[i], np.float32(1e-3)), least), one)  # while the stem plays
        to_decibels(shares)
        for i in range(number):
            parts[AUDIBILITY, at, i] = shares[i]


@inner
def _successors(moved, rows, strips, now, stems, pairs, sums):  # type: ignore[no-untyped-def]
    """Sum up the mixes in which one stem takes another strip. moved (S,): the stem, in rising order; rows (S,): its
    strip. now: the sums of the mix as it is, whose strips are the first ones, with their instants."""
    number, length = stems.first.shape[0], now.hops.shape[1]
    one = np.float32(1.0)
    room = np.empty((4, BANDS), dtype=np.float32)
    rest = np.empty((4, 2, BANDS), dtype=np.float32)
    power = np.empty((3, BANDS), dtype=np.float32)
    hops = np.empty(length, dtype=np.float32)
    instants = np.empty(now.instants.shape[1], dtype=np.float32)
    incoherent = np.empty(THIRDS, dtype=np.float32)
    coherent = np.empty((number, THIRDS), dtype=np.float32)
    shared, swelled = np.empty(THIRDS, dtype=np.float32), np.empty(length, dtype=np.float32)
    others = np.empty(rows.shape[0], dtype=np.int64)  # strips whose instants have to be worked out
    start = 0
    while start < moved.shape[0]:
        i, stop = moved[start], start
        while stop < moved.shape[0] and moved[stop] == i:
            stop += 1
        partners = range(pairs.start[i], pairs.start[i + 1])
        # the mix without the stem
        for row in range(4):
            for part in range(2):
                _clear(rest[row, part])
        for j in range(number):
            if j != i:
                _add_rest(strips.weight[j], stems.cross[i, j], stems.cross[j, i], rest)
        own = stems.cross[i, i]
        _power_with(strips.weight[i], rest, own, -one, now.power[0], power)
        _take(now.hops[0], strips.hops[i], hops)
        _take(now.instants[0], strips.instants[i], instants)
        _take(now.incoherent[0], strips.thirds[i], incoherent)
        for j in range(number):
            copy(now.coherent[0, j], coherent[j])
        for q in partners:
            j, p = pairs.partner[q], pairs.number[q]
            _share_from(i, p, i, j, strips, -one, stems, pairs, room, swelled, hops, shared)
            _take(coherent[j], shared, coherent[j])
        for n in range(start, stop):  # and with it as it would be
            r = rows[n]
            _power_with(strips.weight[r], rest, own, one, power, sums.power[n])
            copy(instants, sums.instants[n])
            others[n] = -1 if _scale_instants(strips, i, r, sums.instants[n]) else r
            copy(hops, sums.hops[n])
            _add(strips.hops[r], sums.hops[n])
            copy(incoherent, sums.incoherent[n])
            _add(strips.thirds[r], sums.incoherent[n])
            for j in range(number):
                copy(coherent[j], sums.coherent[n, j])
            copy(strips.thirds[r], sums.coherent[n, i])
            for q in partners:
                j, p = pairs.partner[q], pairs.number[q]
                _share_from(i, p, r, j, strips, one, stems, pairs, room, swelled, sums.hops[n], shared)
                _add(shared, sums.coherent[n, i])
                _add(shared, sums.coherent[n, j])
        _add_instants(others[start:stop], strips, i, stems, sums.instants[start:stop])
        start = stop


@inner
def _scale_instants(strips, i, r, found):  # type: ignore[no-untyped-def]
    """Add to found (2 M,) what strip r is at the watched instants, if strip i, whose instants are kept, differs from it
    in its gains only; returns whether it does."""
    if strips.variant[r] != strips.variant[i] or strips.sides[i, 0] == 0.0 or strips.sides[i, 1] == 0.0:
        return False
    for o in range(2 * OCTAVES):
        if strips.response[r, o] != strips.response[i, o]:
            return False
    half = found.shape[0] // 2
    left, right = strips.sides[r, 0] / strips.sides[i, 0], strips.sides[r, 1] / strips.sides[i, 1]
    on_left, on_right, heard = found[:half], found[half:], strips.instants[i]
    on_right_heard = heard[half:]
    for m in range(half):
        on_left[m] += left * heard[m]
        on_right[m] += right * on_right_heard[m]
    return True


@inner
def _take(values, less, found):  # type: ignore[no-untyped-def]
    for t in range(found.shape[0]):
        found[t] = values[t] - less[t]


@inner
def _at_gain(gain, whole, others, alone, found):  # type: ignore[no-untyped-def]
    """found (n,) becomes a polynomial in a group's gain: others + linear gain + alone gain^2, which is whole at 1."""
    for t in range(found.shape[0]):
        linear = whole[t] - others[t] - alone[t]
        found[t] = others[t] + gain * (linear + gain * alone[t])


@inner
def _turn_group(changes_db, ends, bases, sums):  # type: ignore[no-untyped-def]
    """Sum up the mixes in which the stems of a group are scaled by changes_db (S,). bases: the sums of the mix as it is
    first, and from ``ends`` on of that without the group, and of the group alone."""
    for s in range(changes_db.shape[0]):
        gain = np.float32(10.0 ** (changes_db[s] / 20.0))
        power, coherent = bases.power, bases.coherent
        for row in range(3):
            _at_gain(gain, power[0, row], power[ends, row], power[ends + 1, row], sums.power[s, row])
        for i in range(coherent.shape[1]):
            _at_gain(gain, coherent[0, i], coherent[ends, i], coherent[ends + 1, i], sums.coherent[s, i])
        _at_gain(gain, bases.hops[0], bases.hops[ends], bases.hops[ends + 1], sums.hops[s])
        others, alone = bases.incoherent[ends], bases.incoherent[ends + 1]
        _at_gain(gain, bases.incoherent[0], others, alone, sums.incoherent[s])
        for m in range(bases.instants.shape[1]):
            sums.instants[s, m] = bases.instants[ends, m] + gain * bases.instants[ends + 1, m]


@inner
def _group_loudness(group, changes_db, group_of, strips, first, parts):  # type: ignore[no-untyped-def]
    """Correct the loudness of the stems of a scaled group, in columns of parts from ``first`` on. It moves with the
    gain, but for the gate at -70 LUFS."""
    blocks = np.empty(strips.hops.shape[1], dtype=np.float32)
    for s in range(changes_db.shape[0]):
        gain = np.float32(10.0 ** (changes_db[s] / 20.0))
        for i in range(group_of.shape[0]):
            if group_of[i] == group:
                scale = rescale(strips.hops[i], gain * gain * strips.loud[i])
                parts[LOUDNESS, first + s, i] = integrated(strips.hops[i], scale, blocks)


@inner
def _at_once(points, length, number, mixes):  # type: ignore[no-untyped-def]
    """How many of so many mixes are summed up before they are listened to."""
    largest = max(4 * (points + length + (number + 13) * THIRDS), 1)
    return min(max(_MOST_BYTES // largest, 1), max(mixes, 1))


# Two functions, of which each compiles all that it calls into itself: who only asks for mixes need not wait for
# the successors to be compiled.


@summing
def measure(made, tables, rows, strips, stems, pairs, ears, scalars, spectra, parts):  # type: ignore[no-untyped-def]
    """Measures of mixes: one column each of scalars (SCALARS, ...), spectra (SPECTRA, ..., 31), both as ``listen``
    leaves them, and parts (PARTS, ..., N).

    made: strips to make first, as ``_shape_strips`` takes them (knobs, stems, groups' gains, rows, kinds), and tables.
    rows (N, B): the strips of each mix.
    """
    knobs, owner, group_db, into, kind = made
    _shape_strips(knobs, owner, group_db, into, kind, tables, stems, ears.k, strips)
    number, mixes = rows.shape
    length, points = strips.hops.shape[1], 2 * ears.frame.shape[0]
    together = _at_once(points, length, number, mixes)
    sums = _room_for_sums(together, number, length, points)
    for start in range(0, mixes, together):
        some = rows[:, start : min(start + together, mixes)]
        _add_up(strips, some, stems, pairs, sums)
        _measure(sums, strips, some, ears, start, scalars, spectra, parts)


@summing
def measure_successors(  # type: ignore[no-untyped-def]
    moved, taken, groups, changes_db, group_of, first, strips, stems, pairs, ears, scalars, spectra, parts
):
    """Measures of what may follow on the mix whose strips are the first ones, with their instants, as ``measure`` gives
    them, in columns from ``first`` on.

    moved (S,), in rising order: stems that take another strip, taken (S,). Then groups (G,), in rising order, whose
    stems are scaled by changes_db (G,); group_of (N,): the group of each stem.
    """
    number, moves = group_of.shape[0], moved.shape[0]
    length, points = strips.hops.shape[1], 2 * ears.frame.shape[0]
    together = _at_once(points, length, number, max(moves, groups.shape[0]))
    different = 0
    for s in range(groups.shape[0]):
        different += 1 if s == 0 or groups[s] != groups[s - 1] else 0
    changed = np.empty((number, max(1 + 2 * different, together)), dtype=np.int64)  # the strips of some mixes
    for i in range(number):
        changed[i, 0] = i
        base = -1
        for s in range(groups.shape[0]):
            base += 2 if s == 0 or groups[s] != groups[s - 1] else 0
            changed[i, base] = -1 if group_of[i] == groups[s] else i
            changed[i, base + 1] = i if group_of[i] == groups[s] else -1
    bases = _room_for_sums(1 + 2 * different, number, length, points)  # as it is; for each group without it, and alone
    _add_up(strips, changed[:, : 1 + 2 * different], stems, pairs, bases)
    sums = _room_for_sums(together, number, length, points)
    start, base = 0, -1
    while start < moves + groups.shape[0]:
        if start < moves:
            stop = min(start + together, moves)
            _successors(moved[start:stop], taken[start:stop], strips, bases, stems, pairs, sums)
        else:
            s = start - moves
            group, stop = groups[s], start + 1
            while stop < moves + groups.shape[0] and groups[stop - moves] == group and stop - start < together:
                stop += 1
            base += 2 if s == 0 or groups[s - 1] != group else 0
            _turn_group(changes_db[s : stop - moves], base, bases, sums)
        for i in range(number):
            for n in range(start, stop):
                changed[i, n - start] = taken[n] if n < moves and moved[n] == i else i
        _measure(sums, strips, changed[:, : stop - start], ears, first + start, scalars, spectra, parts)
        if start >= moves:
            _group_loudness(group, changes_db[s : stop - moves], group_of, strips, first + start, parts)
        start = stop
