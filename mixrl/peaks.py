"""Where the peaks of any mix are likely to be, and what each stem does there.

The peak of a mix is no quadratic form, but it lies at one of few instants: where a stem alone peaks (as it is, with
more bass, with more treble), or where one of a few dozen random balances does. At these instants every stem's signal is
kept as the complex values of its octave bands, so that the mix's value there follows for any gain, pan, polarity and EQ
(phase included): a sum of products. The highest of them is within a few tenths of a dB of the true peak. Compression
moves peaks to the onsets, so each stem is also watched behind a rough compressor.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixrl.compiled import bits_of, compiled
from mixrl.measures import EDGES_HZ

Float = NDArray[np.float32]

OCTAVES = 10
BALANCES = 96  # random balances, the first being neutral
STEADY = 4  # of these, so many are watched in every second: the loudest seconds differ from mix to mix
SPREAD_DB = 12.0  # of their faders
TILT_DB = 9.0  # of their low, middle and high bands
PER_BALANCE = 16  # hops in which a balance is watched
SOLO = 90  # hops shared by all stems, for each of three tilts, plain and compressed
CROSSOVERS_HZ = (250.0, 2500.0)
_WINDOW = 4096
_TILTS = np.array([[1.0, 1.0, 1.0], [2.0, 0.5, 0.5], [0.5, 0.5, 2.0]], dtype=np.float32)
_SIGNALS = 6  # per stem: three bands as they are, three compressed
_COMPRESSED = 0.6  # how many of the stems in a random balance are
_SLOPE, _ATTACK_S, _RELEASE_S = 0.7, 0.008, 0.12
_PART_S = 1.0  # of audio that is split into bands at once


class PeakWatch:
    """Finds the instants, piece by piece. ``push`` pieces of all stems in order, then ask for ``places``."""

    def __init__(self, stems: int, sample_rate: int) -> None:
        rng = np.random.default_rng(20)  # the same for every session
        gains = 10.0 ** (rng.uniform(-SPREAD_DB, SPREAD_DB, (BALANCES, stems)) / 20.0)
        gains *= np.where(rng.random((BALANCES, stems)) < 0.2, -1.0, 1.0)
        tilts = 10.0 ** (rng.uniform(-TILT_DB, TILT_DB, (BALANCES, stems, 3)) / 20.0)
        pans = rng.uniform(0.0, np.pi / 2, (BALANCES, stems))
        gains[0], tilts[0], pans[0] = 1.0, 1.0, np.pi / 4
        compressed = rng.random((BALANCES, stems, 1)) < _COMPRESSED
        compressed[0] = False
        weights = gains[..., None] * np.concatenate([tilts * ~compressed, tilts * compressed], axis=2)
        sides = np.stack([np.cos(pans), np.sin(pans)])[..., None] * weights  # (2, BALANCES, N, _SIGNALS)
        self._weights = np.ascontiguousarray(sides.reshape(2, BALANCES, _SIGNALS * stems), dtype=np.float32)
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
            signals = _SIGNALS * self._stems + BALANCES
            places = np.zeros((signals, hops), dtype=np.int64)
            heights = np.zeros((signals, hops), dtype=np.float32)
            bands = np.empty((2, _SIGNALS * self._stems, piece.shape[2]), dtype=np.float32)
            _split(piece, rates, levels, self._states, self._envelopes, bands)
            _solo_peaks(bands, _TILTS, self._hop, places, heights)
            _mix_peaks(self._weights[0] @ bands[0], self._weights[1] @ bands[1], self._hop, places, heights)
            self._places.append(places + self._at)
            self._heights.append(heights)
            self._at += piece.shape[2]

    def places(self) -> NDArray[np.int64]:
        """(M,) samples, in order."""
        places, heights = np.concatenate(self._places, axis=1), np.concatenate(self._heights, axis=1)
        solos = _SIGNALS * self._stems
        each = max(SOLO // max(self._stems, 1), 2)
        found = []
        for row, (at, height) in enumerate(zip(places, heights, strict=True)):
            order = np.argsort(-height, kind="stable")
            found.append(at[order[: each if row < solos else PER_BALANCE]])
        for at, height in zip(places[solos : solos + STEADY], heights[solos : solos + STEADY], strict=True):
            found.append(np.array([at[t + height[t : t + 10].argmax()] for t in range(0, len(at), 10)]))
        return np.unique(np.concatenate(found))


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
    """Each balance's highest point per hop; its rows are the last ones."""
    first = places.shape[0] - left.shape[0]
    values = np.empty(hop, dtype=np.float32)
    for row in range(left.shape[0]):
        for h in range(places.shape[1]):
            lefts, rights = left[row][h * hop : (h + 1) * hop], right[row][h * hop : (h + 1) * hop]
            for n in range(hop):
                one, other = abs(lefts[n]), abs(rights[n])
                values[n] = one if one > other else other
            heights[first + row, h], place = _highest(values)
            places[first + row, h] = h * hop + place
