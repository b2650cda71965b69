"""Audio -> the spectra, hop powers and peak instants from which the closed form predicts every mix.

Everything is accumulated piece by piece, so the audio held at once grows with the number of stems only. All stems are
taken as stereo (a mono stem has the same signal on both sides).

- Long-term cross-spectra of all stem pairs in twelfth-octave bands whose edges lie on the third-octave edges (50 %
  overlap, windows that keep energy): they give the exact spectrum and total power of any linear mix.
- K-weighted powers of each stem per 100 ms hop in fifteen bands, narrow where high-passes act, and cross-powers of
  those pairs that are really coherent: they decide only how the power is spread over time (gates, short-term maximum,
  loudness range). Spectra smear it over 200 ms, by which a rest falls on the wrong side of a gate, so only the bands'
  shares are theirs: the sum over bands is the meter's own.
- Octave-band values of each stem at the instants where peaks are likely (see ``peaks``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixrl.measures import CENTRES_HZ, EDGES_HZ
from mixrl.peaks import OCTAVES, PeakWatch, instants
from mixrl.threads import threads

Float = NDArray[np.float32]
Complex = NDArray[np.complex64]
Reader = Callable[[int, int], Float]  # (start, stop) in samples, 0 <= start -> (1 or 2, stop - start)

SUBBANDS = 4  # per third-octave
BANDS = SUBBANDS * len(CENTRES_HZ)
HOP_S = 0.1
HOP_STARTS = (0, 4, 6, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 23)  # the first third-octave of each band of the hops
HOP_BANDS = len(HOP_STARTS)
COHERENT = 0.3  # K-weighted coherence above which two stems count as one source heard twice
COHERENT_ONCE = 0.1  # the same of a stretch of 3 s against the loudest: a beat in which they meet can be the loudest
PAIRS_PER_STEM = 4  # coherent pairs that are followed in time, at the most
_PIECE = 10  # hops that are read at once
_STRETCH = 3  # pieces in which stems may meet
_ROUNDS = 4  # of fitting bands to what the meter read
_TINY = 1e-20


def band_edges() -> NDArray[np.float64]:
    """(BANDS + 1,) edges in Hz of the twelfth-octave bands, every fourth one on a third-octave edge."""
    return np.asarray(EDGES_HZ[0] * 10.0 ** (np.arange(BANDS + 1) / (10.0 * SUBBANDS)))


def band_centres() -> NDArray[np.float64]:
    """(BANDS,) geometric centres in Hz."""
    edges = band_edges()
    return np.sqrt(edges[1:] * edges[:-1])


@dataclass(frozen=True)
class StemSpectra:
    """One stem, or one compressed variant of it, before EQ, gain and pan. Powers are per sample.

    own: (2, BANDS) power per channel; hops: (2 * HOP_BANDS, T) K-weighted power, the left channel's bands first;
    instants: (2 * OCTAVES, 2 M), as ``peaks.instants`` gives them, the left channel's places first;
    gain_reduction_db: mean gain reduction of the variant's compressor.
    """

    own: Float
    hops: Float
    instants: Float
    gain_reduction_db: float = 0.0


@dataclass(frozen=True)
class Analysis:
    """What is known of a session's sound.

    pieces: (start, stop) samples that were read at once. cross: (3, N, N, BANDS) mean of L L*, R R* and L R*
    of stems i and j. stems: their own spectra. channels: (N,) 1 or 2 per stem. k_power: (BANDS,) |K-weighting|^2.
    pairs: (P, 2) coherent stems i < j; shared: (P, 4 * HOP_BANDS, T) twice their K-weighted cross-power per hop, rows
    to be weighted by the real, then the imaginary part of the gains' product g_i g_j*, left channel first.
    places: (M,) watched instants in samples, in order of time.
    """

    sample_rate: int
    pieces: tuple[tuple[int, int], ...]
    cross: Complex
    stems: tuple[StemSpectra, ...]
    channels: tuple[int, ...]
    k_power: Float
    pairs: NDArray[np.int64]
    shared: Float
    places: NDArray[np.int64]

    @property
    def hops(self) -> int:
        """T: number of 100 ms hops."""
        return int(self.stems[0].hops.shape[1])


def analyse(readers: Sequence[Reader], sample_rate: int, frames: int) -> Analysis:
    """Analyse ``frames`` samples of stems. readers: one per stem; they return zeros past its end. Deterministic."""
    count = len(readers)
    pieces = _pieces(frames, sample_rate)
    spectra, meters = _CrossSpectra(count, sample_rate), [_HopMeter(sample_rate) for _ in readers]
    meetings, watch = _Meetings(count), PeakWatch(count, sample_rate)
    hops: list[list[Float]] = [[] for _ in readers]
    before, after = _around(sample_rate)
    channels: tuple[int, ...] = ()
    room = np.empty((count, 2, before + pieces[0][1] + after), dtype=np.float32)
    with ThreadPoolExecutor(threads()) as pool:  # spectra, meters and what is compiled release the GIL
        for start, stop in pieces:
            wide = room[:, :, : before + stop - start + after]
            channels = tuple(pool.map(_read_into, wide, readers, [start - before] * count))
            audio = wide[:, :, before : wide.shape[2] - after]
            pushed = [pool.submit(watch.push, audio), pool.submit(spectra.push, audio)]
            by_hop = list(pool.map(_hop_spectra, _cut(wide, channels), [sample_rate] * count))
            pushed.append(pool.submit(meetings.push, by_hop, sample_rate))
            pushed += [pool.submit(_add_powers, *its, sample_rate) for its in zip(hops, by_hop, strict=True)]
            pushed += map(pool.submit, [meter.push for meter in meters], _cut(audio, channels))
            for future in pushed:
                future.result()
        cross, own, k_power = _ended(spectra, pieces, sample_rate)
        pairs, places = _coherent(cross, k_power, meetings.coherence()), watch.places()
        powers = [_sharpened(np.concatenate(its, axis=1), meter) for its, meter in zip(hops, meters, strict=True)]
        shared, values = _second_pass(readers, pieces, pairs, places, powers, sample_rate, pool)
    stems = tuple(StemSpectra(own[i], powers[i], values[i]) for i in range(count))
    return Analysis(sample_rate, pieces, cross, stems, channels, k_power, pairs, shared, places)


def analyse_sum(
    readers: Sequence[Reader], sample_rate: int, frames: int, pairs: NDArray[np.int64] | None = None
) -> Analysis:
    """As ``analyse``, where nobody will ask for another mix than the sum: all power of a hop lies in the lowest of its
    bands, pairs are not followed in time, and no peaks are looked for. A third of the work. pairs (P, 2): the stems
    that are coherent, where that is known."""
    count = len(readers)
    pieces = _pieces(frames, sample_rate)
    spectra, meters = _CrossSpectra(count, sample_rate), [_HopMeter(sample_rate) for _ in readers]
    channels: tuple[int, ...] = ()
    room = np.empty((count, 2, pieces[0][1]), dtype=np.float32)
    with ThreadPoolExecutor(threads()) as pool:
        for start, stop in pieces:
            audio = room[:, :, : stop - start]
            channels = tuple(pool.map(_read_into, audio, readers, [start] * count))
            pushed = [pool.submit(spectra.push, audio)]
            pushed += map(pool.submit, [meter.push for meter in meters], _cut(audio, channels))
            for future in pushed:
                future.result()
    cross, own, k_power = _ended(spectra, pieces, sample_rate)
    nothing = np.zeros((2 * OCTAVES, 2), dtype=np.float32)
    hops = pieces[-1][1] // round(HOP_S * sample_rate)
    stems = tuple(StemSpectra(own[i], _in_lowest_band(meters[i], hops), nothing) for i in range(count))
    pairs = np.zeros((0, 2), dtype=np.int64) if pairs is None else pairs
    shared = np.zeros((len(pairs), 4 * HOP_BANDS, hops), dtype=np.float32)
    places = np.zeros(1, dtype=np.int64)
    return Analysis(sample_rate, pieces, cross, stems, channels, k_power, pairs, shared, places)


def _ended(
    spectra: _CrossSpectra, pieces: Sequence[tuple[int, int]], sample_rate: int
) -> tuple[Complex, Float, Float]:
    """Cross-spectra, the stems' own powers (N, 2, BANDS) and the power of the K-weighting (BANDS,)."""
    from mixrl.meters import k_weighting_power

    cross = spectra.result(pieces[-1][1])
    own = np.stack([np.einsum("iib->ib", cross[0]).real, np.einsum("iib->ib", cross[1]).real], axis=1)
    return cross, own, k_weighting_power(band_centres(), sample_rate).astype(np.float32)


def _add_powers(hops: list[Float], spectra: Complex, sample_rate: int) -> None:
    """Append a piece's hop powers to those of a stem."""
    hops.append(_hop_powers(spectra, sample_rate))


def _around(sample_rate: int) -> tuple[int, int]:
    """How many samples before and after a piece the windows of its first and last hop reach."""
    hop = round(HOP_S * sample_rate)
    return hop // 2, hop - hop // 2


def _read_into(wide: Float, read: Reader, start: int) -> int:
    """Fill (2, n) with a stem from ``start`` on, which may be before it begins; how many channels it has."""
    missing = max(-start, 0)
    block = read(start + missing, start + wide.shape[1])
    wide[:, :missing] = 0.0
    wide[:, missing:] = block
    return block.shape[0]


def _cut(audio: Float, channels: Sequence[int]) -> list[Float]:
    """The channels that each stem has, of (N, 2, n)."""
    return [both[:number] for both, number in zip(audio, channels, strict=True)]


def analyse_variant(read: Reader, analysis: Analysis, gain_reduction_db: float = 0.0) -> StemSpectra:
    """The spectra of a variant of a stem over the same time, to stand in for the stem's own."""
    rate, places = analysis.sample_rate, analysis.places
    before, after = _around(rate)
    spectrum: _OwnSpectrum | None = None
    meter = _HopMeter(rate)
    hops, values = [], np.empty((2 * OCTAVES, 2, len(places)), dtype=np.float32)
    for start, stop in analysis.pieces:
        wide = np.empty((2, before + stop - start + after), dtype=np.float32)
        wide = wide[: _read_into(wide, read, start - before)]
        block = wide[:, before : wide.shape[1] - after]
        spectrum = spectrum or _OwnSpectrum(len(block), rate)
        spectrum.push(block)
        hops.append(_hop_powers(_hop_spectra(wide, rate), rate))
        meter.push(block)
        inside = np.flatnonzero((places >= start) & (places < stop))
        values[:, :, inside] = instants(wide, places[inside] - start + before, rate)
    assert spectrum is not None  # there is at least one piece
    own = spectrum.result(analysis.pieces[-1][1])
    powers = _sharpened(np.concatenate(hops, axis=1), meter)
    return StemSpectra(own, powers, values.reshape(2 * OCTAVES, -1), gain_reduction_db)


def _pieces(frames: int, sample_rate: int) -> tuple[tuple[int, int], ...]:
    """(start, stop) of pieces of whole hops; the last one reaches past the end."""
    hop = round(HOP_S * sample_rate)
    longest = hop * _PIECE
    stop = max(-(-frames // hop), 1) * hop
    return tuple((at, min(at + longest, stop)) for at in range(0, stop, longest))


def _second_pass(
    readers: Sequence[Reader],
    pieces: Sequence[tuple[int, int]],
    pairs: NDArray[np.int64],
    places: NDArray[np.int64],
    powers: Sequence[Float],
    sample_rate: int,
    pool: ThreadPoolExecutor,
) -> tuple[Float, list[Float]]:
    """What could only be asked once the pairs and places were known: cross-powers of pairs, stems at instants. powers:
    the stems' hops."""
    shared: list[Float] = []
    before, after = _around(sample_rate)
    meters = [_HopMeter(sample_rate) for _ in pairs]
    values = [np.zeros((2 * OCTAVES, 2, len(places)), dtype=np.float32) for _ in readers]
    coherent = {int(stem) for stem in pairs.ravel()}
    for start, stop in pieces:
        inside = np.flatnonzero((places >= start) & (places < stop))
        wanted = [stem for stem in range(len(readers)) if len(inside) or stem in coherent]
        frames = before + stop - start + after

        def look(stem: int, start: int = start, frames: int = frames, inside: NDArray[np.int64] = inside) -> Float:
            wide = np.empty((2, frames), dtype=np.float32)
            wide = wide[: _read_into(wide, readers[stem], start - before)]
            values[stem][:, :, inside] = instants(wide, places[inside] - start + before, sample_rate)
            return wide

        blocks = dict(zip(wanted, pool.map(look, wanted), strict=True))
        spectra = {stem: _hop_spectra(blocks[stem], sample_rate) for stem in sorted(coherent)}
        for (i, j), meter in zip(pairs, meters, strict=True):
            meter.push((blocks[int(i)] + blocks[int(j)])[:, before : frames - after])
        length = (stop - start) // round(HOP_S * sample_rate)
        rows = [_cross_powers(spectra[int(i)], spectra[int(j)], sample_rate) for i, j in pairs]
        shared.append(np.stack(rows) if rows else np.zeros((0, 4 * HOP_BANDS, length), dtype=np.float32))
    together = np.concatenate(shared, axis=2)
    for p, (i, j) in enumerate(pairs):
        _sharpen_pair(together[p], powers[int(i)], powers[int(j)], meters[p])
    return together, [value.reshape(2 * OCTAVES, -1) for value in values]


class _Meetings:
    """How coherent stems are where they meet, from their hop spectra, piece by piece: the most of any stretch."""

    def __init__(self, stems: int) -> None:
        self._products = np.zeros((HOP_BANDS, stems, stems), dtype=np.complex64)  # of the stretch so far, lower halves
        self._pieces = 0
        self._most = np.zeros((stems, stems), dtype=np.float32)

    def push(self, spectra: Sequence[Complex], sample_rate: int) -> None:
        """(1 or 2, T, F) of each stem."""
        from scipy.linalg.blas import cherk

        starts, weights = _k_bands(spectra[0].shape[2], sample_rate)
        roots, ends = np.sqrt(weights), np.append(starts[1:], len(weights))
        for band, (start, end) in enumerate(zip(starts, ends, strict=True)):
            if start == end:  # above what the rate can hold
                continue
            part = np.empty((len(spectra), 2, spectra[0].shape[1], end - start), dtype=np.complex64)
            for its, found in zip(part, spectra, strict=True):
                np.multiply(found[:, :, start:end], roots[start:end], out=its)
            flat = part.reshape(len(part), -1)
            cherk(1.0, flat.T, beta=1.0, c=self._products[band].T, trans=2, overwrite_c=1)
        self._pieces += 1
        if self._pieces == _STRETCH:
            self._end_of_stretch()

    def _end_of_stretch(self) -> None:
        lower = np.abs(self._products).sum(axis=0)
        self._most = np.maximum(self._most, lower)
        self._products[:], self._pieces = 0.0, 0

    def coherence(self) -> Float:
        """(N, N): 1 for two stems that are the same where both are loudest."""
        self._end_of_stretch()
        most = np.tril(self._most) + np.tril(self._most, -1).T
        loudest = np.maximum(np.diag(most), np.float32(_TINY))
        return np.asarray(most / np.sqrt(loudest[:, None] * loudest))


def _coherent(cross: Complex, k_power: Float, once: Float) -> NDArray[np.int64]:
    """(P, 2) pairs of stems that are one source heard twice, or once sound as one, the most coherent first. once
    (N, N): coherence where they meet."""
    both = np.abs((cross[0] + cross[1]) * k_power).sum(-1)  # band by band: a delay turns the phase from band to band
    power = np.maximum(np.einsum("ii->i", both), 1e-20)
    found = both / np.sqrt(power[:, None] * power) / COHERENT
    found = np.triu(np.maximum(found, once / COHERENT_ONCE), 1)
    order = np.argsort(-found, axis=None, kind="stable")[: PAIRS_PER_STEM * len(power)]
    pairs = np.stack(np.unravel_index(order, found.shape), axis=1)
    return np.asarray(pairs[found.ravel()[order] > 1.0], dtype=np.int64)


def _stereo(signal: Float) -> Float:
    return np.broadcast_to(signal, (2, signal.shape[1]))


def _window_size(sample_rate: int) -> int:
    return int(2 ** np.ceil(np.log2(0.6 * sample_rate)))  # 32768 at 44.1 and 48 kHz: 1.4 Hz bins


def _shares(size: int, sample_rate: int) -> list[tuple[slice, Float]]:
    """For each band the FFT bins it touches and the share of each that lies inside it."""
    width = sample_rate / size
    edges = np.clip(band_edges() / width + 0.5, 0.0, size // 2 + 1)  # bin k covers k - 0.5 .. k + 0.5
    shares = []
    for low, high in pairwise(edges):
        first, last = int(low), min(int(np.ceil(high)), size // 2 + 1)
        bins = np.arange(first, last)
        share = np.minimum(bins + 1, high) - np.maximum(bins, low)
        shares.append((slice(first, last), np.maximum(share, 0.0).astype(np.float32)))
    return shares


class _Windows:
    """Cuts channels that are pushed piece by piece into windows that overlap by half. They run on from piece to piece:
    a cut would spread a bass drum over bands that the mix, cut after its filters, has not."""

    def __init__(self, channels: int, sample_rate: int) -> None:
        self.size = _window_size(sample_rate)
        sine = np.sin(np.pi * (np.arange(self.size) + 0.5) / self.size)
        self.shape = np.sin(0.5 * np.pi * sine**2).astype(np.float32)  # Vorbis I: keeps energy, leaks little
        scale = np.float32(2.0 / self.size)
        self.shares = [(bins, share * scale) for bins, share in _shares(self.size, sample_rate)]
        self._held = np.zeros((channels, 0), dtype=np.float32)  # room for what is not yet in two windows, and a piece
        self._span = 0, self.size // 2  # of it that is; half a window of silence comes first

    def push(self, audio: Float) -> Float:
        """(channels, T, size) of the next (channels, n), not yet weighted by ``shape``; good until the next push."""
        hop = self.size // 2
        first, last = self._span
        kept, frames = last - first, last - first + audio.shape[1]
        room = self._held if frames <= self._held.shape[1] else np.zeros((len(audio), frames), dtype=np.float32)
        room[:, : min(kept, self._held.shape[1])] = self._held[:, first:last]
        room[:, kept:frames] = audio
        number = max(frames // hop - 1, 0)
        self._held, self._span = room, (number * hop, frames)
        starts = room.strides[1] * hop
        shape, strides = (len(audio), number, self.size), (room.strides[0], starts, room.strides[1])
        return np.lib.stride_tricks.as_strided(room, shape, strides, writeable=False)

    def end(self) -> Float:
        """The last ones."""
        return self.push(np.zeros((len(self._held), self.size), dtype=np.float32))


class _CrossSpectra:
    """Accumulates the energy cross-spectra of N stems that are pushed piece by piece, (N, 2, n) each."""

    def __init__(self, stems: int, sample_rate: int) -> None:
        self._windows = _Windows(2 * stems, sample_rate)
        self._roots = [(bins, np.sqrt(share)) for bins, share in self._windows.shares]
        self._sums = np.zeros((BANDS, 2 * stems, 2 * stems), dtype=np.complex64)  # the lower half of each
        self._flat = np.zeros((2 * stems, 0, 0), dtype=np.complex64)  # room for spectra

    def push(self, audio: Float) -> None:
        self._add(self._windows.push(audio.reshape(-1, audio.shape[2])))

    def _add(self, frames: Float) -> None:
        from scipy.fft import rfft
        from scipy.linalg.blas import cherk

        rows, number, size = frames.shape
        batch = max(1, 2**23 // (rows * size))  # about 32 MB of spectra at once at the most
        for first in range(0, number, batch):
            some = frames[:, first : first + batch]
            if self._flat.shape[1] < some.shape[1]:
                self._flat = np.empty((rows, some.shape[1], size // 2 + 1), dtype=np.complex64)
            flat = self._flat[:, : some.shape[1]]
            for row in range(0, rows, 4):  # not all at once: the windowed audio would take as much room again
                flat[row : row + 4] = rfft(some[row : row + 4] * self._windows.shape, axis=-1, overwrite_x=True)
            for band, (bins, root) in enumerate(self._roots):
                part = (flat[:, :, bins] * root).reshape(rows, -1)
                if part.size:  # half the work of ``@``
                    cherk(1.0, part.T, beta=1.0, c=self._sums[band].T, trans=2, overwrite_c=1)

    def result(self, samples: int) -> Complex:
        """(3, N, N, BANDS) mean of L L*, R R* and L R* over so many samples; nothing can be pushed after it."""
        self._add(self._windows.end())
        lower = np.moveaxis(self._sums, 0, 2) * np.float32(1.0 / samples)
        below = np.tri(len(lower), k=-1, dtype=bool)[:, :, None]
        whole = np.where(below, lower, lower.swapaxes(0, 1).conj())
        found = np.stack([whole[0::2, 0::2], whole[1::2, 1::2], whole[0::2, 1::2]])
        return np.ascontiguousarray(found)


class _OwnSpectrum:
    """Accumulates the energy spectrum of one stem that is pushed piece by piece, (1 or 2, n)."""

    def __init__(self, channels: int, sample_rate: int) -> None:
        self._windows = _Windows(channels, sample_rate)
        self._sums = np.zeros((channels, self._windows.size // 2 + 1))

    def push(self, block: Float) -> None:
        self._add(self._windows.push(block))

    def _add(self, frames: Float) -> None:
        from scipy.fft import rfft

        spectra = rfft(frames * self._windows.shape, axis=-1, overwrite_x=True)
        self._sums += (spectra.real**2 + spectra.imag**2).sum(axis=1)

    def result(self, samples: int) -> Float:
        """(2, BANDS) mean power of both sides over so many samples; nothing can be pushed after it."""
        self._add(self._windows.end())
        bands = [(self._sums[:, bins] * share).sum(axis=1) for bins, share in self._windows.shares]
        powers = np.stack(bands, axis=1) / samples
        return np.ascontiguousarray(np.broadcast_to(powers, (2, BANDS)), dtype=np.float32)


def _hop_spectra(wide: Float, sample_rate: int) -> Complex:
    """(1 or 2, T, F) spectra of as many channels per 100 ms hop (sine window, 50 % overlap: energy is kept), from audio
    with what lies ``_around`` it."""
    from scipy.fft import rfft

    hop = round(HOP_S * sample_rate)
    size = 2 * hop
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(wide, size, axis=1)[:, ::hop]
    return np.asarray(rfft(frames * window, axis=-1, overwrite_x=True))


@lru_cache(maxsize=8)
def _k_bands(bins: int, sample_rate: int) -> tuple[NDArray[np.int64], Float]:
    """Of hop spectra: the first bin of each band and the K-weighting's power per bin, scaled to power per sample."""
    from mixrl.meters import k_weighting_power

    size = 2 * (bins - 1)
    freqs = np.fft.rfftfreq(size, 1.0 / sample_rate).astype(np.float64)
    starts = np.concatenate([[0], np.searchsorted(freqs, EDGES_HZ[list(HOP_STARTS[1:])])])
    return starts, (k_weighting_power(freqs, sample_rate) * 4.0 / size**2).astype(np.float32)


def _band_sums(bins: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[Any]:
    """(1 or 2, HOP_BANDS, T) sums of (1 or 2, T, F) over the bins of each band."""
    if starts[-1] >= bins.shape[2]:  # at low rates the highest bands begin behind the last bin: nothing is there
        bins = np.pad(bins, ((0, 0), (0, 0), (0, 1)))
    return np.moveaxis(np.add.reduceat(bins, starts, axis=2), 2, 1)


def _hop_powers(spectra: Complex, sample_rate: int) -> Float:
    """(2 * HOP_BANDS, T) K-weighted power per hop and band, left channel first."""
    starts, weights = _k_bands(spectra.shape[2], sample_rate)
    power = (spectra.real**2 + spectra.imag**2) * weights
    bands = _band_sums(power, starts)  # (1 or 2, HOP_BANDS, T)
    both = np.broadcast_to(bands, (2, *bands.shape[1:]))
    return np.ascontiguousarray(both.reshape(2 * HOP_BANDS, -1), dtype=np.float32)


class _HopMeter:
    """The K-weighted power per hop of both channels of a signal that is pushed in pieces of (1 or 2, n)."""

    def __init__(self, sample_rate: int) -> None:
        from mixrl.meters import Meter

        self.sample_rate = sample_rate
        self._meters = [Meter(sample_rate, 1, spectrum=False, true_peak=False) for _ in range(2)]
        self._channels = 1

    def push(self, block: Float) -> None:
        self._channels = len(block)
        for meter, channel in zip(self._meters, block, strict=False):
            meter.push(channel[None])

    def powers(self, count: int) -> NDArray[np.float64]:
        """(2, T) for ``count`` hops of the analysis. The meter's own last exactly 100 ms, which at 11025 Hz is no whole
        number of samples: taken is the one that plays in the middle of each hop."""
        for meter in self._meters[: self._channels]:
            meter.result()  # what is left of the last second
        found = [0.5 * meter.hop_powers() for meter in self._meters[: self._channels]]  # the meter doubles mono
        middles = (np.arange(count) + 0.5) * round(HOP_S * self.sample_rate) * 10 / self.sample_rate
        return np.stack([found[0], found[-1]])[:, np.minimum(middles.astype(np.int64), len(found[0]) - 1)]


def _sharpened(hops: Float, meter: _HopMeter) -> Float:
    """Hop powers (2 * HOP_BANDS, T) with what the meter read as their sums over bands and, nearly, the same sums over
    time as before: the two in turn, which converges (iterative proportional fitting)."""
    parts = hops.reshape(2, HOP_BANDS, -1).astype(np.float64)
    in_bands, in_hops = parts.sum(axis=2, keepdims=True), meter.powers(parts.shape[2])[:, None]
    for _ in range(_ROUNDS):
        parts *= in_bands / np.maximum(parts.sum(axis=2, keepdims=True), _TINY)
        parts *= in_hops / np.maximum(parts.sum(axis=1, keepdims=True), _TINY)
    return np.asarray(parts.reshape(hops.shape), dtype=np.float32)


def _sharpen_pair(shared: Float, one: Float, other: Float, both: _HopMeter) -> None:
    """Make the real parts of a pair's cross-powers (4 * HOP_BANDS, T) add up to what the two stems' sum has more power
    than the two, in place; the difference goes where both are strong. one, other: hop powers (2 * HOP_BANDS, T)."""
    real = shared.reshape(2, 2, HOP_BANDS, -1)[:, 0]
    first, second = one.reshape(2, HOP_BANDS, -1), other.reshape(2, HOP_BANDS, -1)
    share = np.sqrt(first * second)
    share /= np.maximum(share.sum(axis=1, keepdims=True), _TINY)
    sums = both.powers(real.shape[2]) - first.sum(axis=1) - second.sum(axis=1)
    real += share * (sums - real.sum(axis=1))[:, None]


def _in_lowest_band(meter: _HopMeter, count: int) -> Float:
    """Powers (2 * HOP_BANDS, T) of ``count`` hops as the meter read them, not split into bands."""
    hops = np.zeros((2, HOP_BANDS, count), dtype=np.float32)
    hops[:, 0] = meter.powers(count)
    return hops.reshape(2 * HOP_BANDS, -1)


def _cross_powers(one: Complex, other: Complex, sample_rate: int) -> Float:
    """(4 * HOP_BANDS, T) twice the cross-power of two stems per hop: real, minus imaginary, per channel."""
    starts, weights = _k_bands(one.shape[2], sample_rate)
    bands = _band_sums(2.0 * one * other.conj() * weights, starts)
    bands = np.broadcast_to(bands, (2, *bands.shape[1:]))  # (2, HOP_BANDS, T)
    parts = [bands[0].real, -bands[0].imag, bands[1].real, -bands[1].imag]
    return np.concatenate(parts).astype(np.float32)
