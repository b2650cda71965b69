"""Where the peaks of any mix are likely to be, and what each stem does there.

The peak of a mix is no quadratic form, but it lies at one of few instants: where a stem alone peaks (as it is, with
more bass, with more treble), or where one of a few hundred random mixes does: balances of three bands of each stem, and
of stems behind random equalisers, whose phase moves a peak by more than a period of the treble. At these instants every
stem's signal is kept as the complex values of its octave bands, so that the mix's value there follows for any gain,
pan, polarity and EQ (phase included): a sum of products. The highest of them is within a few tenths of a dB of the true
peak. Compression moves peaks to the onsets, so each stem is also watched behind a rough compressor.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixrl.compiled import bits_of, compiled, number_of, summing
from mixrl.measures import EDGES_HZ
from mixrl.settings import EQ_BANDS, StripSettings
from mixrl.strip import HIGHPASS_SECTIONS, coefficients, sections

Float = NDArray[np.float32]

OCTAVES = 10
BALANCES = 96  # random balances, the first being neutral
STEADY = 4  # of these, so many are watched in every second: the loudest seconds differ from mix to mix
SPREAD_DB = 12.0  # of their faders
TILT_DB = 9.0  # of their low, middle and high bands
PER_BALANCE = 12  # hops in which a balance is watched
EQUALISED = 288  # random balances of equalised stems
PER_EQUALISED = 4  # hops in which such a balance is watched
EQ_DB = 8.0  # of their equalisers
SOLO = 60  # hops shared by all stems, for each of three tilts, plain and compressed
CROSSOVERS_HZ = (250.0, 2500.0)
_WINDOW = 4096
_TILTS = np.array([[1.0, 1.0, 1.0], [2.0, 0.5, 0.5], [0.5, 0.5, 2.0]], dtype=np.float32)
_SIGNALS = 6  # per stem: three bands as they are, three compressed
_VERSIONS = 4  # equalised, per stem; every other one of the compressed stem
_SECTIONS = 4  # of their equalisers
_COMPRESSED = 0.6  # how many of the stems in a random balance are
_SLOPE, _ATTACK_S, _RELEASE_S = 0.7, 0.008, 0.12
_PARTS = 10  # of a hop, any of which may be looked into alone
_ROUNDING = 1.0001  # of sums in another order
_PART_S = 0.2  # of audio that is split into bands at once


class PeakWatch:
    """Finds the instants, piece by piece. ``push`` pieces of all stems in order, then ask for ``places``."""

    def __init__(self, stems: int, sample_rate: int) -> None:
        rng = np.random.default_rng(20)  # the same for every session
        sides = _faders(rng, BALANCES, stems)
        sides[:, 0] = np.sqrt(0.5)
        tilts = 10.0 ** (rng.uniform(-TILT_DB, TILT_DB, (BALANCES, stems, 3)) / 20.0)
        tilts[0] = 1.0
        compressed = rng.random((BALANCES, stems, 1)) < _COMPRESSED
        compressed[0] = False
        pressed = 6 * np.arange(stems) + 3 * compressed[..., 0]  # (BALANCES, N) the first of three bands
        picks = (pressed[..., None] + np.arange(3)).reshape(BALANCES, -1)
        weights = (sides[..., None] * tilts).reshape(2, BALANCES, -1)
        self._balances = picks, np.ascontiguousarray(weights, dtype=np.float32)
        faders = np.ascontiguousarray(_faders(rng, EQUALISED, stems), dtype=np.float32)
        versions = rng.integers(_VERSIONS, size=(EQUALISED, stems))  # of the stems in each of these balances
        self._equalised = versions + _VERSIONS * np.arange(stems), faders
        self._filters = _equalisers(rng, stems, sample_rate)
        self._filter_states = np.zeros((2, *self._filters.shape[:2], 2), dtype=np.float32)
        self._states = np.zeros((stems, 4), dtype=np.float32)  # of the crossovers
        self._envelopes = np.zeros((stems, 2), dtype=np.float32)
        self._stems, self._rate = stems, sample_rate
        self._hop = round(0.1 * sample_rate)
        self._part = round(_PART_S * sample_rate) // self._hop * self._hop
        self._rooms = [np.empty(2 * n * stems * self._part, dtype=np.float32) for n in (_SIGNALS, _VERSIONS)]
        self._most = np.full((BALANCES, PER_BALANCE), -1.0, dtype=np.float32)  # each balance's highest hops so far
        self._most_equalised = np.full((EQUALISED, PER_EQUALISED), -1.0, dtype=np.float32)
        self._places: list[NDArray[np.int64]] = []
        self._heights: list[Float] = []
        self._at = 0

    def push(self, audio: Float) -> None:
        """The next (N, 2, samples), whole hops of 100 ms."""
        levels = np.sqrt(np.einsum("nct,nct->n", audio, audio) / (2 * audio.shape[2]))
        slow, fast = (1.0 / (2.0 * np.pi * hz) for hz in CROSSOVERS_HZ)
        times = np.array([slow, fast, _ATTACK_S, _RELEASE_S])
        rates = (1.0 - np.exp(-1.0 / (times * self._rate))).astype(np.float32)
        for start in range(0, audio.shape[2], self._part):
            piece = np.ascontiguousarray(audio[:, :, start : start + self._part])
            hops = piece.shape[2] // self._hop
            solos = _SIGNALS * self._stems
            places = np.zeros((solos + BALANCES + EQUALISED, hops), dtype=np.int64)
            heights = np.zeros(places.shape, dtype=np.float32)
            bands, equalised = (
                room[: 2 * n * self._stems * piece.shape[2]].reshape(2, n * self._stems, -1)
                for n, room in zip((_SIGNALS, _VERSIONS), self._rooms, strict=True)
            )
            _split(piece, rates, levels, self._states, self._envelopes, bands)
            _equalise(bands, self._filters, self._filter_states, self._hop, equalised)
            _solo_peaks(bands, _TILTS, self._hop, places, heights)
            for signals, (picks, weights), steady, most, row in (
                (bands, self._balances, STEADY, self._most, solos),
                (equalised, self._equalised, 0, self._most_equalised, solos + BALANCES),
            ):
                highest = _part_maxima(signals, self._hop)
                its = places[row:], heights[row:]
                _mix_peaks(signals, highest, picks, weights, steady, self._hop, most, *its)
            self._places.append(places + self._at)
            self._heights.append(heights)
            self._at += piece.shape[2]

    def places(self) -> NDArray[np.int64]:
        """(M,) samples, in order."""
        places, heights = np.concatenate(self._places, axis=1), np.concatenate(self._heights, axis=1)
        solos = _SIGNALS * self._stems
        each = max(SOLO // max(self._stems, 1), 2)
        found = []
        most = np.repeat([each, PER_BALANCE, PER_EQUALISED], [solos, BALANCES, EQUALISED])
        for number, at, height in zip(most, places, heights, strict=True):
            order = np.argsort(-height, kind="stable")
            found.append(at[order[:number]])
        for at, height in zip(places[solos : solos + STEADY], heights[solos : solos + STEADY], strict=True):
            found.append(np.array([at[t + height[t : t + 10].argmax()] for t in range(0, len(at), 10)]))
        return np.unique(np.concatenate(found))


def _faders(rng: np.random.Generator, count: int, stems: int) -> NDArray[np.float64]:
    """(2, count, N) random gains on both sides, one in five inverted."""
    gains = 10.0 ** (rng.uniform(-SPREAD_DB, SPREAD_DB, (count, stems)) / 20.0)
    gains *= np.where(rng.random((count, stems)) < 0.2, -1.0, 1.0)
    pans = rng.uniform(0.0, np.pi / 2, (count, stems))
    return np.stack([np.cos(pans), np.sin(pans)]) * gains


def _equalisers(rng: np.random.Generator, stems: int, sample_rate: int) -> Float:
    """(_VERSIONS N, _SECTIONS, 5) coefficients b0, b1, b2, a1, a2 of random filters: a high-pass and some bands of an
    EQ. Of the strip's three sections of the high-pass two make one of these."""
    found = np.zeros((_VERSIONS * stems, _SECTIONS, 5), dtype=np.float32)
    found[:, :, 0] = 1.0
    for row in found:
        chosen = rng.choice(EQ_BANDS, _SECTIONS - 1, replace=False).tolist()
        strip = StripSettings(highpass_hz=(None, 60.0, 100.0)[rng.integers(3)])
        for band in chosen:
            strip = strip.with_band(band, gain_db=rng.uniform(-EQ_DB, EQ_DB))
        each = [np.reshape(coefficients(section, sample_rate), (2, 3)) for section in sections(strip, sample_rate)]
        if strip.highpass_hz is not None:
            numerator, denominator = (np.convolve(part[:2], part[:2]) for part in each[0])
            each = [np.stack([numerator, denominator]), *each[HIGHPASS_SECTIONS:]]
        for section, values in zip(row, each, strict=False):
            section[:] = values.ravel()[[0, 1, 2, 4, 5]]
    return found


def instants(audio: Float, places: NDArray[np.int64], sample_rate: int) -> Float:
    """(2 * OCTAVES, 2, M) what a stem's bands do at places, from audio (1 or 2, samples) around them.

    The value of channel c at place m behind a response H (complex, one per octave) is the sum over rows of
    ``[H.real, H.imag]`` times ``[:, c, m]``.
    """
    half = _WINDOW // 2
    filters = _filters(sample_rate)
    padded = np.pad(audio, ((0, 0), (half, half)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW, axis=1)
    found = np.empty((2 * OCTAVES, 2, len(places)), dtype=np.float32)
    for first in range(0, len(places), 64):
        some = slice(first, first + 64)
        found[:, :, some] = np.moveaxis(windows[:, places[some]] @ filters, 2, 0)
    return found


@lru_cache(maxsize=8)
def _filters(sample_rate: int) -> Float:
    """(_WINDOW, 2 * OCTAVES) what the spectrum of a windowed piece, summed over octaves at the piece's middle, makes of
    each sample: a matrix product is several times faster than that many spectra, of which ten numbers are wanted."""
    freqs = np.fft.rfftfreq(_WINDOW, 1.0 / sample_rate)
    octave = np.searchsorted(EDGES_HZ[3 : 3 * OCTAVES : 3], freqs, side="right")
    shares = np.zeros((_WINDOW, OCTAVES))
    # the value at the window's middle is the sum of the spectrum with alternating signs
    shares[np.arange(len(freqs)), octave] = np.where(np.arange(len(freqs)) % 2, -2.0, 2.0) / _WINDOW
    shares[[0, len(freqs) - 1]] *= 0.5
    window = np.sin(np.pi * np.arange(_WINDOW) / _WINDOW)[:, None] ** 2
    spectra = np.fft.fft(shares, axis=0) * window
    return np.ascontiguousarray(np.concatenate([spectra.real, -spectra.imag], axis=1), dtype=np.float32)


@summing
def _split(audio, rates, levels, states, envelopes, bands):  # type: ignore[no-untyped-def]
    """audio (N, 2, n) -> bands (2, 6 N, n): low, middle, high by one-pole filters, which sum to the audio, then the
    same compressed. levels (N,): RMS; states (N, 4) and envelopes (N, 2) carry over from call to call."""
    slow, fast, attack, release = rates
    rest, one = np.float32(1e-20), np.float32(1.0)
    slow_keeps, fast_keeps = one - slow, one - fast
    gains = np.empty(audio.shape[2], dtype=np.float32)
    for stem in range(audio.shape[0]):
        held, smooth = envelopes[stem]
        low, lower, other_low, other_lower = states[stem]
        left, right = audio[stem, 0], audio[stem, 1]
        first = 6 * stem
        for start in range(0, left.shape[0], 64):
            # now and then, or silence decays into subnormal numbers
            low, lower = low if abs(low) > rest else rest, lower if abs(lower) > rest else rest
            other_low = other_low if abs(other_low) > rest else rest
            other_lower = other_lower if abs(other_lower) > rest else rest
            held, smooth = max(held, rest), max(smooth, rest)
            for n in range(start, min(start + 64, left.shape[0])):
                low = slow_keeps * low + slow * left[n]
                other_low = slow_keeps * other_low + slow * right[n]
                lower = fast_keeps * lower + fast * left[n]
                other_lower = fast_keeps * other_lower + fast * right[n]
                bands[0, first, n], bands[1, first, n] = low, other_low
                bands[0, first + 1, n], bands[1, first + 1, n] = lower, other_lower
                held = max(abs(left[n]), abs(right[n]), held - release * held)
                smooth += attack * (held - smooth)
                gains[n] = smooth
        for n in range(gains.shape[0]):
            gains[n] = (levels[stem] / gains[n]) ** np.float32(_SLOPE) if gains[n] > levels[stem] else one
        for side in range(2):
            lows, middles, highs = bands[side, first], bands[side, first + 1], bands[side, first + 2]
            its = audio[stem, side]
            for n in range(its.shape[0]):
                highs[n] = its[n] - middles[n]
                middles[n] -= lows[n]
            for k in range(3):
                dry, wet = bands[side, first + k], bands[side, first + 3 + k]
                for n in range(its.shape[0]):
                    wet[n] = gains[n] * dry[n]
        envelopes[stem, 0], envelopes[stem, 1] = held, smooth
        states[stem, 0], states[stem, 1], states[stem, 2], states[stem, 3] = low, lower, other_low, other_lower


@summing
def _equalise(bands, filters, states, hop, equalised):  # type: ignore[no-untyped-def]
    """Stems (2, 6 N, n) as ``_split`` leaves them -> equalised (2, _VERSIONS N, n), every other version of the
    compressed stem. filters (_VERSIONS N, _SECTIONS, 5); states (2, _VERSIONS N, _SECTIONS, 2) carry over.

    The four versions of both sides of a stem are worked on together, as lanes of a vector: row after row of eight lie
    20 of coefficients, 8 of states, what goes in and what comes out."""
    room = np.zeros(30 * 8, dtype=np.float32)
    for stem in range(equalised.shape[1] // _VERSIONS):
        for k in range(8):
            for j in range(20):
                room[8 * j + k] = filters[_VERSIONS * stem + k % 4, j // 5, j % 5]
            for j in range(8):
                room[160 + 8 * j + k] = states[k // 4, _VERSIONS * stem + k % 4, j // 2, j % 2]
        first = 6 * stem
        for start in range(0, equalised.shape[2], hop):
            for j in range(160, 224):  # or silence decays into subnormal numbers
                room[j] = room[j] if abs(room[j]) > 1e-20 else 0.0
            for n in range(start, min(start + hop, equalised.shape[2])):
                for side in range(2):
                    plain = bands[side, first, n] + bands[side, first + 1, n] + bands[side, first + 2, n]
                    pressed = bands[side, first + 3, n] + bands[side, first + 4, n] + bands[side, first + 5, n]
                    room[224 + 4 * side], room[226 + 4 * side] = plain, plain
                    room[225 + 4 * side], room[227 + 4 * side] = pressed, pressed
                for k in range(8):
                    v = room[224 + k]
                    w = room[k] * v + room[160 + k]
                    room[160 + k] = room[8 + k] * v - room[24 + k] * w + room[168 + k]
                    room[168 + k] = room[16 + k] * v - room[32 + k] * w
                    x = room[40 + k] * w + room[176 + k]
                    room[176 + k] = room[48 + k] * w - room[64 + k] * x + room[184 + k]
                    room[184 + k] = room[56 + k] * w - room[72 + k] * x
                    y = room[80 + k] * x + room[192 + k]
                    room[192 + k] = room[88 + k] * x - room[104 + k] * y + room[200 + k]
                    room[200 + k] = room[96 + k] * x - room[112 + k] * y
                    z = room[120 + k] * y + room[208 + k]
                    room[208 + k] = room[128 + k] * y - room[144 + k] * z + room[216 + k]
                    room[216 + k] = room[136 + k] * y - room[152 + k] * z
                    room[232 + k] = z
                for side in range(2):
                    for k in range(4):
                        equalised[side, _VERSIONS * stem + k, n] = room[232 + 4 * side + k]
        for k in range(8):
            for j in range(8):
                states[k // 4, _VERSIONS * stem + k % 4, j // 2, j % 2] = room[160 + 8 * j + k]


@compiled
def _part_maxima(signals, hop):  # type: ignore[no-untyped-def]
    """(2, K, hops * _PARTS) the highest magnitude of signals (2, K, n) in each part of a hop."""
    hops = signals.shape[2] // hop
    found = np.zeros((signals.shape[0], signals.shape[1], hops * _PARTS), dtype=np.float32)
    for side in range(found.shape[0]):
        for row in range(found.shape[1]):
            for h in range(hops):
                for p in range(_PARTS):
                    best = np.int32(0)
                    part = signals[side, row, h * hop + p * hop // _PARTS : h * hop + (p + 1) * hop // _PARTS]
                    for n in range(part.shape[0]):
                        best = max(best, bits_of(abs(part[n])))
                    found[side, row, h * _PARTS + p] = number_of(best)
    return found


@compiled
def _highest(values):  # type: ignore[no-untyped-def]
    """The highest of (n,) numbers, none below 0, and where it is first. Such numbers rise with their bits, of which
    vector units take the maximum."""
    best = np.int32(0)
    for n in range(values.shape[0]):
        best = max(best, bits_of(values[n]))
    place = 0
    while bits_of(values[place]) != best:
        place += 1
    return values[place], place


@compiled
def _solo_peaks(bands, tilts, hop, places, heights):  # type: ignore[no-untyped-def]
    """Each stem's highest point per hop under each tilt, over both sides, as it is and compressed."""
    values = np.empty(hop, dtype=np.float32)
    for signal in range(bands.shape[1] // 3):
        for tilt in range(3):
            low, middle, high = tilts[tilt, 0], tilts[tilt, 1], tilts[tilt, 2]
            for h in range(places.shape[1]):
                best = np.float32(-1.0)
                for side in range(2):
                    lows = bands[side, 3 * signal][h * hop : (h + 1) * hop]
                    middles = bands[side, 3 * signal + 1][h * hop : (h + 1) * hop]
                    highs = bands[side, 3 * signal + 2][h * hop : (h + 1) * hop]
                    for n in range(hop):
                        values[n] = abs(low * lows[n] + middle * middles[n] + high * highs[n])
                    value, place = _highest(values)
                    if value > best:
                        best = value
                        places[3 * signal + tilt, h] = h * hop + place
                heights[3 * signal + tilt, h] = best


@summing
def _mix_peaks(  # type: ignore[no-untyped-def]
    signals, highest, picks, weights, steady, hop, most, places, heights
):
    """Each balance's highest point per hop, over both sides, into the first rows of places and heights (rows, hops).

    signals (2, K, n), of which a balance adds up some: picks (rows, P) which, weights (2, rows, P). highest: what
    ``_part_maxima`` found of the signals; most (rows, M): each balance's highest hops so far. No mix is higher than its
    signals' peaks together, so of a hop only those parts are mixed that may be the highest of it, and among the highest
    of all: 0 is left where none may be. The first ``steady`` balances are looked up in every hop.
    """
    longest, rows = hop // _PARTS + 1, picks.shape[0]
    mix, values = np.empty(longest, dtype=np.float32), np.empty(longest, dtype=np.float32)
    bounds, sums = np.empty((_PARTS, rows), dtype=np.float32), np.empty((2, _PARTS), dtype=np.float32)
    totals = np.empty(_PARTS, dtype=np.float32)
    fours = picks.shape[1] // 4 * 4
    for h in range(places.shape[1]):
        for row in range(rows):
            sums[:] = np.float32(0.0)
            for side in range(2):
                for k in range(picks.shape[1]):
                    gain = abs(weights[side, row, k]) * np.float32(_ROUNDING)
                    for number in range(_PARTS):
                        sums[side, number] += gain * highest[side, picks[row, k], h * _PARTS + number]
            for number in range(_PARTS):
                bounds[number, row] = max(sums[0, number], sums[1, number])
            heights[row, h] = np.float32(0.0)
        for number in range(_PARTS):
            totals[number] = bounds[number].sum()
        for _ in range(_PARTS):
            part = totals.argmax()  # where most are high, first; all rows at once, while the audio is in the cache
            totals[part] = np.float32(-1.0)
            first, last = h * hop + part * hop // _PARTS, h * hop + (part + 1) * hop // _PARTS
            length = last - first
            for row in range(rows):
                least = np.float32(-1.0)
                if row >= steady:
                    least = most[row].min()
                if bounds[part, row] <= max(heights[row, h], least):
                    continue
                for n in range(length):
                    values[n] = np.float32(0.0)
                for side in range(2):
                    for n in range(length):
                        mix[n] = np.float32(0.0)
                    for k in range(0, fours, 4):  # four at a time, or most of the time goes by writing the sum
                        its = signals[side]
                        a, b = its[picks[row, k]][first:last], its[picks[row, k + 1]][first:last]
                        c, d = its[picks[row, k + 2]][first:last], its[picks[row, k + 3]][first:last]
                        p, q, r, s = weights[side, row, k : k + 4]
                        for n in range(length):
                            mix[n] += (p * a[n] + q * b[n]) + (r * c[n] + s * d[n])
                    for k in range(fours, picks.shape[1]):
                        a, p = signals[side, picks[row, k]][first:last], weights[side, row, k]
                        for n in range(length):
                            mix[n] += p * a[n]
                    for n in range(length):
                        values[n] = max(abs(mix[n]), values[n])
                height, place = _highest(values[:length])
                if height > heights[row, h]:
                    heights[row, h], places[row, h] = height, first + place
        for row in range(rows):
            lowest = most[row].argmin()
            most[row, lowest] = max(most[row, lowest], heights[row, h])
