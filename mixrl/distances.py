"""Distances between two mixes of one song, by how they sound: a mix against the one that people made.

They judge and never train: no reward, score or search may import this module. Both mixes are brought to one loudness
first, and every distance is 0 for the same mix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixrl.errors import InputError
from mixrl.measures import Array
from mixrl.meters import Meter

Audio = NDArray[np.floating]
FFT_SIZES = 512, 1024, 2048
# Upper edges of the 24 critical bands, Hz (E. Zwicker, "Subdivision of the audible frequency range into critical
# bands", 1961).
BARK_EDGES_HZ = np.array([
    0, 100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700, 3150, 3700, 4400, 5300, 6400,
    7700, 9500, 12000, 15500,
])  # fmt: skip
_SPECTRUM = 32768  # samples of the transforms for Bark spectra
_FLOOR_DB = -60.0  # below a mix's power: what is softer counts as this soft
_TINY = 1e-12
# RMS, crest, width, imbalance, Bark spectra, as published with Diff-MST (see ``mix_distances``)
_FEATURE_WEIGHTS = 0.1, 0.001, 1.0, 1.0, 0.1


def mix_distances(mix: Audio, human: Audio, sample_rate: int) -> dict[str, float]:
    """Distances of a mix (2, n) from people's (2, n), both brought to -23 LUFS first.

    mr_stft: multi-resolution STFT distance, spectral convergence plus the mean difference of log magnitudes (natural
    logarithm), over the transforms of ``FFT_SIZES`` with a quarter as hop, the mean of sum and difference signal
    (Yamamoto et al., "Parallel WaveGAN", 2020; C. Steinmetz and J. Reiss, "auraloss", 2020).
    crest_db: peak over RMS. width: side over mid energy. imbalance: right less left over total energy. bark_mid_db,
    bark_side_db: RMS difference of the levels in 24 Bark bands, nothing below -60 dB of the whole counted.
    features: the audio-feature distance of S. Vanka et al., "Diff-MST: Differentiable mixing style transfer" (ISMIR
    2024), with its published weights: squared differences of RMS and crest in dB, width, imbalance and Bark spectra.

    Raises InputError where one of them is silent or they differ in shape.
    """
    if mix.shape != human.shape or mix.ndim != 2 or len(mix) != 2:
        raise InputError(f"mixes of shapes {mix.shape} and {human.shape} cannot be compared: give two of (2, samples)")
    ours, theirs = (_levelled(audio, sample_rate) for audio in (mix, human))
    pairs = [(ours[0] + ours[1], theirs[0] + theirs[1]), (ours[0] - ours[1], theirs[0] - theirs[1])]
    least = 10.0 ** (_FLOOR_DB / 10.0) * float(np.square(theirs).mean())  # a mono mix has no side to compare
    stft = [_stft_distance(a, b) for a, b in pairs if float(np.square(b).mean()) > least]
    bark = [[_bark_db(signal, theirs, sample_rate) for signal in pair] for pair in pairs]
    apart = [float(np.sqrt(np.square(a - b).mean())) for a, b in bark]
    features = [
        abs(_rms_db(ours) - _rms_db(theirs)),
        abs(_crest_db(ours) - _crest_db(theirs)),
        abs(_width(ours) - _width(theirs)),
        abs(_imbalance(ours) - _imbalance(theirs)),
    ]
    squared = [*(value**2 for value in features), float(np.mean([value**2 for value in apart]))]
    return {
        "mr_stft": float(np.mean(stft)),
        "crest_db": features[1],
        "width": features[2],
        "imbalance": features[3],
        "bark_mid_db": apart[0],
        "bark_side_db": apart[1],
        "features": float(np.dot(_FEATURE_WEIGHTS, squared)),
    }


def _levelled(audio: Audio, sample_rate: int) -> Array:
    """(2, n) at -23 LUFS."""
    meter = Meter(sample_rate, 2, spectrum=False)
    meter.push(np.ascontiguousarray(audio, dtype=np.float32))
    loudness = meter.result().integrated_lufs
    if loudness is None:
        raise InputError("a mix is silent, or shorter than 0.4 s: it cannot be compared")
    return np.asarray(audio, dtype=np.float64) * 10.0 ** ((-23.0 - loudness) / 20.0)


def _stft_distance(ours: Array, theirs: Array) -> float:
    found = []
    for size in FFT_SIZES:
        a, b = (_magnitudes(signal, size) for signal in (ours, theirs))
        convergence = np.linalg.norm(b - a) / max(float(np.linalg.norm(b)), _TINY)
        found.append(float(convergence) + float(np.abs(np.log(a) - np.log(b)).mean()))
    return float(np.mean(found))


def _magnitudes(signal: Array, size: int) -> Array:
    """(frames, size / 2 + 1) magnitudes behind a Hann window."""
    padded = np.pad(signal, size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 4]
    window = np.hanning(size + 1)[:-1]
    return np.asarray(np.maximum(np.abs(np.fft.rfft(frames * window, axis=1)), 1e-4))


def _bark_db(signal: Array, whole: Array, sample_rate: int) -> Array:
    """(24,) long-term level of a signal in each Bark band, dB."""
    size = min(_SPECTRUM, len(signal))
    frames = np.lib.stride_tricks.sliding_window_view(signal, size)[:: size // 2]
    power = (np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2).mean(axis=0) / size**2
    bands = np.searchsorted(BARK_EDGES_HZ, np.fft.rfftfreq(size, 1.0 / sample_rate), side="right") - 1
    sums = np.bincount(bands, power, minlength=len(BARK_EDGES_HZ))[: len(BARK_EDGES_HZ) - 1]
    floor = float(np.square(whole).mean()) * 10.0 ** (_FLOOR_DB / 10.0)
    return np.asarray(10.0 * np.log10(np.maximum(sums, floor)))


def _rms_db(audio: Array) -> float:
    return float(10.0 * np.log10(max(float(np.square(audio).mean()), _TINY)))


def _crest_db(audio: Array) -> float:
    return float(20.0 * np.log10(max(float(np.abs(audio).max()), _TINY))) - _rms_db(audio)


def _width(audio: Array) -> float:
    middle, side = float(np.square(audio[0] + audio[1]).mean()), float(np.square(audio[0] - audio[1]).mean())
    return side / max(middle, _TINY)


def _imbalance(audio: Array) -> float:
    left, right = float(np.square(audio[0]).mean()), float(np.square(audio[1]).mean())
    return (right - left) / max(left + right, _TINY)
