"""Audio -> the spectra, hop powers and peak instants from which the closed form predicts every mix.

Everything is accumulated piece by piece, so the audio held at once grows with the number of stems only. All stems are
taken as stereo (a mono stem has the same signal on both sides).

- Long-term cross-spectra of all stem pairs in twelfth-octave bands whose edges lie on the third-octave edges (sine
  window, 50 % overlap, so that energy is kept): they give the exact spectrum and total power of any linear mix.
- K-weighted octave-band powers of each stem per 100 ms hop: they decide only which blocks pass the loudness gates.
- Octave-band sample values of each stem at the instants where peaks are likely (the loudest hops of a few random
  balances): the peak of a mix is close to the largest of their weighted sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixrl.measures import CENTRES_HZ, EDGES_HZ

Float = NDArray[np.float32]
Complex = NDArray[np.complex64]
Reader = Callable[[int, int], Float]  # (start, stop) in samples -> (1 or 2, stop - start)

SUBBANDS = 4  # per third-octave
BANDS = SUBBANDS * len(CENTRES_HZ)
OCTAVES = 10
HOP_S = 0.1
PIECE_S = 10.0
BALANCES = 4  # balances whose peaks are watched: neutral and three random ones
BALANCE_SPREAD_DB = 9.0
HOT_SHARE = 3  # a third of the hops, the hottest, hold the watched instants
_PEAK_WINDOW = 4096


def band_edges() -> NDArray[np.float64]:
    """(BANDS + 1,) edges in Hz of the twelfth-octave bands, every fourth one on a third-octave edge."""
    return np.asarray(EDGES_HZ[0] * 10.0 ** (np.arange(BANDS + 1) / (10.0 * SUBBANDS)))


def band_centres() -> NDArray[np.float64]:
    """(BANDS,) geometric centres in Hz."""
    edges = band_edges()
    return np.sqrt(edges[1:] * edges[:-1])


def octave_of_band() -> NDArray[np.int64]:
    """(BANDS,) index of the octave (three third-octaves; the last takes four) that a band lies in."""
    return np.minimum(np.arange(BANDS) // (3 * SUBBANDS), OCTAVES - 1)


@dataclass(frozen=True)
class StemSpectra:
    """One stem, or one compressed variant of it, before EQ, gain and pan. Powers are per sample.

    own: (2, BANDS) power per channel; hops: (T, OCTAVES, 2) K-weighted power; instants: (2, OCTAVES, M) sample
    values; gain_reduction_db: mean gain reduction of the variant's compressor.
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
    places: watched instants, (M,) samples: the hot hops' peaks under the first balance in order
    of time, then under the second, and so on.
    """

    sample_rate: int
    pieces: tuple[tuple[int, int], ...]
    cross: Complex
    stems: tuple[StemSpectra, ...]
    channels: tuple[int, ...]
    k_power: Float
    places: NDArray[np.int64]

    @property
    def hops(self) -> int:
        """T: number of 100 ms hops."""
        return int(self.stems[0].hops.shape[0])


def _pieces(frames: int, sample_rate: int) -> tuple[tuple[int, int], ...]:
    """(start, stop) of pieces of whole hops and at most ``PIECE_S``; the last one reaches past the end."""
    hop = round(HOP_S * sample_rate)
    longest = hop * round(PIECE_S / HOP_S)
    stop = max(-(-frames // hop), 1) * hop
    return tuple((at, min(at + longest, stop)) for at in range(0, stop, longest))


def analyse(readers: Sequence[Reader], sample_rate: int, frames: int) -> Analysis:
    """Analyse ``frames`` samples of stems.

    readers: one per stem; they return zeros outside the stem. Deterministic: the random balances have a fixed seed.
    """
    from mixrl.meters import k_weighting_power

    pieces = _pieces(frames, sample_rate)
    count = len(readers)
    rng = np.random.default_rng(20)
    gains = 10.0 ** (rng.uniform(-BALANCE_SPREAD_DB, BALANCE_SPREAD_DB, (BALANCES, count)) / 20.0)
    gains[0] = 1.0
    cross = np.zeros((3, count, count, BANDS), dtype=np.complex64)
    hops: list[list[Float]] = [[] for _ in readers]
    channels: tuple[int, ...] = ()
    places: list[NDArray[np.int64]] = []
    heights: list[Float] = []
    at = 0
    for start, stop in pieces:
        blocks = [read(start, stop) for read in readers]
        channels = tuple(block.shape[0] for block in blocks)
        audio = np.stack([_stereo(block) for block in blocks])
        _add_cross(cross, audio, sample_rate)
        for stem, signal in enumerate(audio):
            hops[stem].append(_hop_powers(signal, sample_rate))
        place, height = _peak_places(audio, gains.astype(np.float32), sample_rate)
        places.append(place + at)
        heights.append(height)
        at += stop - start
    cross *= np.float32(1.0 / at)
    hot = _hottest(np.concatenate(places), np.concatenate(heights))
    own = np.stack([np.einsum("iib->ib", cross[0]).real, np.einsum("iib->ib", cross[1]).real], axis=1)
    stems = tuple(
        StemSpectra(own[i], np.concatenate(hops[i]), _instants(reader, pieces, hot, sample_rate))
        for i, reader in enumerate(readers)
    )
    k_power = k_weighting_power(band_centres(), sample_rate).astype(np.float32)
    return Analysis(sample_rate, pieces, cross, stems, channels, k_power, hot)


def analyse_variant(read: Reader, analysis: Analysis, gain_reduction_db: float = 0.0) -> StemSpectra:
    """The spectra of a variant of a stem over the same time, to stand in for the stem's own."""
    cross = np.zeros((3, 1, 1, BANDS), dtype=np.complex64)
    hops, total = [], 0
    for start, stop in analysis.pieces:
        signal = _stereo(read(start, stop))
        _add_cross(cross, signal[None], analysis.sample_rate)
        hops.append(_hop_powers(signal, analysis.sample_rate))
        total += stop - start
    own = (cross[:2, 0, 0].real / total).astype(np.float32)
    instants = _instants(read, analysis.pieces, analysis.places, analysis.sample_rate)
    return StemSpectra(own, np.concatenate(hops), instants, gain_reduction_db)


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


def _add_cross(cross: Complex, audio: Float, sample_rate: int) -> None:
    """Add the energy cross-spectra of audio (N, 2, n) to cross (3, N, N, BANDS), in place."""
    from scipy.fft import rfft

    size = _window_size(sample_rate)
    hop = size // 2
    count, _, length = audio.shape
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size).astype(np.float32)
    padded = np.pad(audio, ((0, 0), (0, 0), (size - hop, size)))
    scale = np.float32(2.0 / size)
    roots = [(bins, np.sqrt(share * scale)) for bins, share in _shares(size, sample_rate)]
    frames = np.lib.stride_tricks.sliding_window_view(padded, size, axis=2)[:, :, ::hop]
    frames = frames[:, :, : -(-(length + size - hop) // hop)]
    batch = max(1, 2**25 // (count * size))  # about 256 MB of spectra at once at the most
    for first in range(0, frames.shape[2], batch):
        spectra = rfft(frames[:, :, first : first + batch] * window, axis=-1, overwrite_x=True)
        flat = spectra.reshape(2 * count, -1, size // 2 + 1)
        for band, (bins, root) in enumerate(roots):
            part = (flat[:, :, bins] * root).reshape(2 * count, -1)
            gram = (part @ part.conj().T).reshape(count, 2, count, 2)
            cross[0, :, :, band] += gram[:, 0, :, 0]
            cross[1, :, :, band] += gram[:, 1, :, 1]
            cross[2, :, :, band] += gram[:, 0, :, 1]


def _hop_powers(signal: Float, sample_rate: int) -> Float:
    """(T, OCTAVES, 2) K-weighted power per hop, octave and channel (sine window, 50 % overlap: energy is kept)."""
    from scipy.fft import rfft

    from mixrl.meters import k_weighting_power

    hop = round(HOP_S * sample_rate)
    size = 2 * hop
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size).astype(np.float32)
    padded = np.pad(signal, ((0, 0), (hop // 2, size)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::hop][:, : signal.shape[1] // hop]
    spectra = rfft(frames * window, axis=-1, overwrite_x=True)
    power = spectra.real**2 + spectra.imag**2
    freqs = np.fft.rfftfreq(size, 1.0 / sample_rate).astype(np.float64)
    edges = np.concatenate([[0.0], EDGES_HZ[3 : 3 * OCTAVES : 3], [np.inf]])
    matrix = np.zeros((len(freqs), OCTAVES), dtype=np.float32)
    matrix[np.arange(len(freqs)), np.searchsorted(edges, freqs, side="right") - 1] = 1.0
    matrix *= (k_weighting_power(freqs, sample_rate) * 2.0 / (size * hop))[:, None]
    return np.moveaxis(power @ matrix, 0, -1).astype(np.float32)


def _peak_places(audio: Float, gains: Float, sample_rate: int) -> tuple[NDArray[np.int64], Float]:
    """Where each hop peaks under each balance, (T, BALANCES) samples, and how high next to that balance's peak."""
    hop = round(HOP_S * sample_rate)
    total = audio.shape[2] // hop
    places = np.zeros((total, len(gains)), dtype=np.int64)
    heights = np.zeros((total, len(gains)), dtype=np.float32)
    for index, gain in enumerate(gains):
        mix = np.abs(np.einsum("n,nct->ct", gain, audio)).max(axis=0).reshape(total, hop)
        within = mix.argmax(axis=1)
        places[:, index] = within + np.arange(total) * hop
        heights[:, index] = mix[np.arange(total), within]
    return places, heights


def _hottest(places: NDArray[np.int64], heights: Float) -> NDArray[np.int64]:
    """(M,) watched instants of the hottest hops, balance by balance."""
    rank = (heights / np.maximum(heights.max(axis=0), 1e-12)).max(axis=1)
    keep = np.sort(np.argsort(-rank, kind="stable")[: -(-len(rank) // HOT_SHARE)])
    return np.ascontiguousarray(places[keep].T).reshape(-1)


def _instants(
    read: Reader, pieces: Sequence[tuple[int, int]], places: NDArray[np.int64], sample_rate: int
) -> Float:
    """(2, OCTAVES, M) sample values of a stem at the watched instants, split into octaves without phase shift."""
    from scipy.fft import rfft

    half = _PEAK_WINDOW // 2
    window = np.sin(np.pi * np.arange(_PEAK_WINDOW) / _PEAK_WINDOW).astype(np.float32) ** 2
    freqs = np.fft.rfftfreq(_PEAK_WINDOW, 1.0 / sample_rate)
    octave = np.searchsorted(EDGES_HZ[3 : 3 * OCTAVES : 3], freqs, side="right")
    matrix = np.zeros((len(freqs), OCTAVES), dtype=np.float32)
    # the value at the window's middle is the sum of the spectrum with alternating signs
    matrix[np.arange(len(freqs)), octave] = np.where(np.arange(len(freqs)) % 2, -2.0, 2.0) / _PEAK_WINDOW
    matrix[[0, -1]] *= 0.5
    found = np.zeros((2, OCTAVES, len(places)), dtype=np.float32)
    offset = 0
    for start, stop in pieces:
        inside = np.flatnonzero((places >= offset) & (places < offset + stop - start))
        if len(inside):
            signal = np.pad(_stereo(read(start, stop)), ((0, 0), (half, half)))
            windows = np.lib.stride_tricks.sliding_window_view(signal, _PEAK_WINDOW, axis=1)
            frames = windows[:, places[inside] - offset] * window
            found[:, :, inside] = np.moveaxis(rfft(frames, axis=-1, overwrite_x=True).real @ matrix, 1, 2)
        offset += stop - start
    return found
