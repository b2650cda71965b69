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

from mixrl.compiled import bits_of, compiled, summing
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
EQUALISED = 192  # random balances of equalised stems
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
_PART_S = 1.0  # of audio that is split into bands at once


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
        tilts = np.concatenate([tilts * ~compressed, tilts * compressed], axis=2)
        weights = (sides[..., None] * tilts).reshape(2, BALANCES, _SIGNALS * stems)
        self._weights = np.ascontiguousarray(weights, dtype=np.float32)
        self._faders = np.ascontiguousarray(_faders(rng, EQUALISED, stems), dtype=np.float32)
        self._versions = rng.integers(_VERSIONS, size=(EQUALISED, stems))  # of the stems in each of these balances
        self._filters = _equalisers(rng, stems, sample_rate)
        self._filter_states = np.zeros((2, *self._filters.shape[:2], 2), dtype=np.float32)
        self._states = np.zeros((stems, 2, 2))  # of the crossovers
        self._envelopes = np.zeros((stems, 2))
        self._stems, self._rate = stems, sample_rate
        self._hop = round(0.1 * sample_rate)
        self._places: list[NDArray[np.int64]] = []
        self._heights: list[Float] = []
        self._at = 0

    def push(self, audio: Float) -> None:
        """The next (N, 2, samples), whole hops of 100 ms."""
        part = round(_PART_S * self._rate) // self._hop * self._hop
        levels = np.sqrt(np.mean(audio.astype(np.float64) ** 2, axis=(1, 2)))
        times = np.array([*CROSSOVERS_HZ, 1.0 / (2.0 * np.pi * _ATTACK_S), 1.0 / (2.0 * np.pi * _RELEASE_S)])
        rates = 1.0 - np.exp(-2.0 * np.pi * times / self._rate)
        for start in range(0, audio.shape[2], part):
            piece = np.ascontiguousarray(audio[:, :, start : start + part])
            hops = piece.shape[2] // self._hop
            signals = _SIGNALS * self._stems + BALANCES + EQUALISED
            places = np.zeros((signals, hops), dtype=np.int64)
            heights = np.zeros((signals, hops), dtype=np.float32)
            bands = np.empty((2, _SIGNALS * self._stems, piece.shape[2]), dtype=np.float32)
            _split(piece, rates, levels, self._states, self._envelopes, bands)
            equalised = np.empty((2, _VERSIONS * self._stems, piece.shape[2]), dtype=np.float32)
            _equalise(bands, self._filters, self._filter_states, self._hop, equalised)
            _solo_peaks(bands, _TILTS, self._hop, places, heights)
            row = _SIGNALS * self._stems
            _mix_peaks(self._weights[0] @ bands[0], self._weights[1] @ bands[1], self._hop, places[row:], heights[row:])
            row += BALANCES
            _equalised_peaks(equalised, self._faders, self._versions, self._hop, places[row:], heights[row:])
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


@compiled
def _split(audio, rates, levels, states, envelopes, bands):  # type: ignore[no-untyped-def]
    """audio (N, 2, n) -> bands (2, 6 N, n): low, middle, high by one-pole filters, which sum to the audio, then the
    same compressed. levels (N,): RMS; states (N, 2, 2) and envelopes (N, 2) carry over from call to call."""
    for stem in range(audio.shape[0]):
        held, smooth = envelopes[stem, 0], envelopes[stem, 1]
        for n in range(audio.shape[2]):
            loudest = max(abs(audio[stem, 0, n]), abs(audio[stem, 1, n]))
            held = max(loudest, held - rates[3] * held)
            smooth += rates[2] * (held - smooth)
            gain = 1.0
            if smooth > levels[stem]:
                gain = (levels[stem] / smooth) ** _SLOPE
            for side in range(2):
                x = audio[stem, side, n]
                low = states[stem, side, 0] + rates[0] * (x - states[stem, side, 0])
                lower = states[stem, side, 1] + rates[1] * (x - states[stem, side, 1])
                states[stem, side, 0] = low if abs(low) > 1e-30 else 0.0
                states[stem, side, 1] = lower if abs(lower) > 1e-30 else 0.0
                row = 6 * stem
                bands[side, row, n] = low
                bands[side, row + 1, n] = lower - low
                bands[side, row + 2, n] = x - lower
                for k in range(3):
                    bands[side, row + 3 + k, n] = gain * bands[side, row + k, n]
        envelopes[stem, 0] = held if held > 1e-30 else 0.0
        envelopes[stem, 1] = smooth if smooth > 1e-30 else 0.0


@summing
def _equalise(bands, filters, states, hop, equalised):  # type: ignore[no-untyped-def]
    """Stems (2, 6 N, n) as ``_split`` leaves them -> equalised (2, _VERSIONS N, n), every other version of the
    compressed stem. filters (_VERSIONS N, _SECTIONS, 5); states (2, _VERSIONS N, _SECTIONS, 2) carry over."""
    for row in range(equalised.shape[1]):
        first = 6 * (row // _VERSIONS) + 3 * (row % 2)
        a0, a1, a2, a3, a4 = filters[row, 0]
        b0, b1, b2, b3, b4 = filters[row, 1]
        c0, c1, c2, c3, c4 = filters[row, 2]
        d0, d1, d2, d3, d4 = filters[row, 3]
        for side in range(2):
            low, middle, high = bands[side, first], bands[side, first + 1], bands[side, first + 2]
            state, found = states[side, row], equalised[side, row]
            for start in range(0, found.shape[0], hop):
                for section in range(_SECTIONS):  # or silence decays into subnormal numbers
                    for k in range(2):
                        state[section, k] = state[section, k] if abs(state[section, k]) > 1e-20 else 0.0
                e0, e1 = state[0]
                f0, f1 = state[1]
                g0, g1 = state[2]
                h0, h1 = state[3]
                for n in range(start, min(start + hop, found.shape[0])):  # all sections at once: they overlap
                    v = low[n] + middle[n] + high[n]
                    w = a0 * v + e0
                    e0, e1 = a1 * v - a3 * w + e1, a2 * v - a4 * w
                    x = b0 * w + f0
                    f0, f1 = b1 * w - b3 * x + f1, b2 * w - b4 * x
                    y = c0 * x + g0
                    g0, g1 = c1 * x - c3 * y + g1, c2 * x - c4 * y
                    z = d0 * y + h0
                    h0, h1 = d1 * y - d3 * z + h1, d2 * y - d4 * z
                    found[n] = z
                state[0, 0], state[0, 1], state[1, 0], state[1, 1] = e0, e1, f0, f1
                state[2, 0], state[2, 1], state[3, 0], state[3, 1] = g0, g1, h0, h1


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


@compiled
def _mix_peaks(left, right, hop, places, heights):  # type: ignore[no-untyped-def]
    """Each balance's highest point per hop, into the first rows."""
    values = np.empty(hop, dtype=np.float32)
    for row in range(left.shape[0]):
        for h in range(places.shape[1]):
            lefts, rights = left[row][h * hop : (h + 1) * hop], right[row][h * hop : (h + 1) * hop]
            for n in range(hop):
                one, other = abs(lefts[n]), abs(rights[n])
                values[n] = one if one > other else other
            heights[row, h], place = _highest(values)
            places[row, h] = h * hop + place


@summing
def _equalised_peaks(equalised, faders, versions, hop, places, heights):  # type: ignore[no-untyped-def]
    """The same for balances of equalised stems (2, _VERSIONS N, n), each of which takes one version of a stem: faders
    (2, EQUALISED, N), versions (EQUALISED, N). A hop at a time, so that the stems stay in the processor's cache."""
    mix, values = np.empty(hop, dtype=np.float32), np.empty(hop, dtype=np.float32)
    for h in range(places.shape[1]):
        for row in range(versions.shape[0]):
            for n in range(hop):
                values[n] = np.float32(0.0)
            for side in range(2):
                for n in range(hop):
                    mix[n] = np.float32(0.0)
                for stem in range(versions.shape[1]):
                    audio = equalised[side, _VERSIONS * stem + versions[row, stem]][h * hop : (h + 1) * hop]
                    gain = faders[side, row, stem]
                    for n in range(hop):
                        mix[n] += gain * audio[n]
                for n in range(hop):
                    values[n] = max(abs(mix[n]), values[n])
            heights[row, h], place = _highest(values)
            places[row, h] = h * hop + place
