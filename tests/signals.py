"""The signals of EBU Tech 3341 and 3342 that can be synthesised, and what a meter has to read on them.

Levels are peaks of the sine in dBFS. Tolerances: 0.1 LU for loudness, +0.2/-0.4 dB for true peak, 1 LU for
loudness range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """``make(sample_rate)`` gives (channels, samples); ``expected`` has Measurement's names."""

    name: str
    make: Callable[[int], Audio]
    expected: dict[str, float]


def tones(sample_rate: int, segments: list[tuple[float | None, float]], frequency: float = 1000.0) -> Audio:
    """A mono sine (n,) in (level in dBFS or None for silence, seconds) segments, phase-continuous."""
    ends = np.round(np.cumsum([0.0] + [seconds for _, seconds in segments]) * sample_rate).astype(int)
    gain = np.zeros(ends[-1])
    for (level, _), start, end in zip(segments, ends[:-1], ends[1:], strict=True):
        gain[start:end] = 0.0 if level is None else 10.0 ** (level / 20.0)
    return (gain * np.sin(2 * np.pi * frequency / sample_rate * np.arange(ends[-1]))).astype(np.float32)


def stereo(mono: Audio) -> Audio:
    return np.stack([mono, mono])


def faded(x: NDArray[np.float64], sample_rate: int, seconds: float = 0.010) -> NDArray[np.float64]:
    """Linear fades at both ends of (n,), as Tech 3341 asks for its true-peak tones."""
    length = round(seconds * sample_rate)
    ramp = np.ones(len(x))
    ramp[:length] = np.linspace(0.0, 1.0, length)
    ramp[-length:] = np.linspace(1.0, 0.0, length)
    return x * ramp


def peak_tone(sample_rate: int, divisor: int, amplitude: float, degrees: float) -> Audio:
    """Tech 3341, 15 to 19: a sine at sample_rate / divisor whose samples miss the crests."""
    n = np.arange(sample_rate // 2)
    return stereo(
        faded(amplitude * np.sin(2 * np.pi * n / divisor + np.radians(degrees)), sample_rate).astype(np.float32)
    )


def peak_burst(sample_rate: int, offset: int) -> Audio:
    """Tech 3341, 20 to 23: the standard describes a stereo sine at fs/6 with amplitude 0.5 that holds one period
    of a sine at fs/4 with amplitude 1, continuous in phase on both sides, synthesised at 4 fs, low-pass filtered
    against aliasing and downsampled to fs with an offset of 0, 1, 2 or 3 samples at the 4 fs rate.

    At 4 fs a period of the sine at fs/6 has 24 samples and the one at fs/4 has 16: so 16 samples of the latter go
    in where the former starts a period, and the former goes on from there. The low-pass is a Kaiser-windowed sinc
    of 513 taps with its corner at 0.47 fs, more than 100 dB down at fs/2 and 0 dB up to 0.44 fs.
    """
    before = np.sin(2 * np.pi * np.arange(24 * round(sample_rate / 24)) / 24) * 0.5
    burst = np.sin(2 * np.pi * np.arange(16) / 16)
    x = faded(np.concatenate([before, burst, before]), 4 * sample_rate)
    taps = np.arange(513) - 256
    lowpass = np.sinc(2 * 0.1175 * taps) * np.kaiser(513, 10.0)
    x = np.convolve(x, lowpass / lowpass.sum(), mode="same")
    return stereo(x[offset::4].astype(np.float32))


def surround(sample_rate: int) -> Audio:
    """Tech 3341, 6: 5.0 in the order L R C Ls Rs."""
    return np.stack([tones(sample_rate, [(level, 20.0)]) for level in (-28.0, -28.0, -24.0, -30.0, -30.0)])


def _stereo_tones(segments: list[tuple[float | None, float]]) -> Callable[[int], Audio]:
    return lambda rate: stereo(tones(rate, segments))


def _peak_tone(divisor: int, amplitude: float, degrees: float) -> Callable[[int], Audio]:
    return lambda rate: peak_tone(rate, divisor, amplitude, degrees)


def _peak_burst(offset: int) -> Callable[[int], Audio]:
    return lambda rate: peak_burst(rate, offset)


def _steady(level: float) -> dict[str, float]:
    return {"integrated_lufs": level, "max_momentary_lufs": level, "max_short_term_lufs": level}


CASES: tuple[Case, ...] = (
    Case("3341-1", _stereo_tones([(-23, 20)]), _steady(-23.0)),
    Case("3341-2", _stereo_tones([(-33, 20)]), _steady(-33.0)),
    Case("3341-3", _stereo_tones([(-36, 10), (-23, 60), (-36, 10)]), {"integrated_lufs": -23.0}),
    Case(
        "3341-4",
        _stereo_tones([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)]),
        {"integrated_lufs": -23.0},
    ),
    Case("3341-5", _stereo_tones([(-26, 20), (-20, 20.1), (-26, 20)]), {"integrated_lufs": -23.0}),
    Case("3341-6", surround, {"integrated_lufs": -23.0}),
    Case("3341-9", _stereo_tones([(-20, 1.34), (-30, 1.66)] * 5), {"max_short_term_lufs": -23.0}),
    *(
        Case(f"3341-10.{i}", _stereo_tones([(None, i * 0.15), (-23, 3), (None, 1)]), {"max_short_term_lufs": -23.0})
        for i in range(20)
    ),
    Case("3341-12", _stereo_tones([(-20, 0.18), (-30, 0.22)] * 25), {"max_momentary_lufs": -23.0}),
    *(
        Case(f"3341-13.{i}", _stereo_tones([(None, i * 0.02), (-23, 0.4), (None, 1)]), {"max_momentary_lufs": -23.0})
        for i in range(20)
    ),
    Case("3341-15", _peak_tone(4, 0.50, 0.0), {"true_peak_dbtp": -6.0}),
    Case("3341-16", _peak_tone(4, 0.50, 45.0), {"true_peak_dbtp": -6.0}),
    Case("3341-17", _peak_tone(6, 0.50, 60.0), {"true_peak_dbtp": -6.0}),
    Case("3341-18", _peak_tone(8, 0.50, 67.5), {"true_peak_dbtp": -6.0}),
    Case("3341-19", _peak_tone(4, 1.41, 45.0), {"true_peak_dbtp": 3.0}),
    *(Case(f"3341-{20 + offset}", _peak_burst(offset), {"true_peak_dbtp": 0.0}) for offset in range(4)),
    Case("3342-1", _stereo_tones([(-20, 20), (-30, 20)]), {"loudness_range_lu": 10.0}),
    Case("3342-2", _stereo_tones([(-20, 20), (-15, 20)]), {"loudness_range_lu": 5.0}),
    Case("3342-3", _stereo_tones([(-40, 20), (-20, 20)]), {"loudness_range_lu": 20.0}),
    Case(
        "3342-4",
        _stereo_tones([(-50, 20), (-35, 20), (-20, 20), (-35, 20), (-50, 20)]),
        {"loudness_range_lu": 15.0},
    ),
)


def song(sample_rate: int, seconds: float = 12.0, seed: int = 0) -> Audio:
    """A stereo signal (2, n) with the traits that meters disagree on: beats, bass, sparse parts, wide and loud."""
    rng = np.random.default_rng(seed)
    n = round(seconds * sample_rate)
    time = np.arange(n) / sample_rate
    spectrum = np.fft.rfft(rng.standard_normal((2, n)), axis=1)
    noise = np.fft.irfft(spectrum / np.maximum(np.fft.rfftfreq(n, 1 / sample_rate), 30.0) ** 0.8, n, axis=1)
    noise /= noise.std()
    beats = np.exp(-8.0 * (time % 0.5)) * (0.3 + 0.7 * (time % 4.0 < 3.0))
    bass = np.sin(2 * np.pi * 55.0 * time) * (time % 2.0 < 1.4)
    arch = 0.05 + np.sin(np.pi * time / seconds) ** 2
    x = arch * (0.22 * beats * noise + 0.15 * bass + 0.03 * noise[::-1])
    return x.astype(np.float32)
