"""One stem's linear part: the same settings as a pedalboard chain and as an exact frequency response.

``sections`` is the one definition: it lists the filters that are not neutral. ``board`` makes each of them
a pedalboard plugin; ``response`` evaluates each from the formulas that those plugins (JUCE's dsp module)
use, in the single precision they use, so that the two agree even where float32 coefficients are coarse.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixrl.settings import StripSettings

if TYPE_CHECKING:
    from pedalboard import Pedalboard  # type: ignore[attr-defined]

# (kind, frequency in Hz, gain in dB, q); kind is "highpass" (first order) or one of settings.EQ_KINDS
Section = tuple[str, float, float, float]

HIGHPASS_SECTIONS = 3
_TOP = 0.45  # of the sample rate: no filter is placed above


def sections(strip: StripSettings, sample_rate: float) -> tuple[Section, ...]:
    """The filters of a strip that are not neutral, in order.

    A peak or high shelf above 0.45 of the sample rate has nothing to act on and is left out; a low shelf or
    high-pass up there is moved down to it.
    """
    top = _TOP * sample_rate
    found: list[Section] = []
    if strip.highpass_hz is not None:
        corner = highpass_corner(min(strip.highpass_hz, top), sample_rate)
        found += [("highpass", corner, 0.0, 0.0)] * HIGHPASS_SECTIONS
    for band in strip.eq:
        if band.gain_db != 0.0 and (band.frequency_hz <= top or band.kind == "low_shelf"):
            found.append((band.kind, min(band.frequency_hz, top), band.gain_db, band.q))
    return tuple(found)


def highpass_corner(frequency_hz: float, sample_rate: float) -> float:
    """The corner (Hz) of each of three equal first-order high-pass sections so that together they are
    -3.01 dB at ``frequency_hz``: 9.3 dB down an octave below, 21.4 dB two below, 18 dB/octave in the end."""
    ratio = math.sqrt(2 ** (1 / HIGHPASS_SECTIONS) - 1)
    return math.atan(ratio * math.tan(math.pi * frequency_hz / sample_rate)) * sample_rate / math.pi


@lru_cache(maxsize=65536)
def coefficients(section: Section, sample_rate: float) -> tuple[float, float, float, float, float, float]:
    """(b0, b1, b2, a0 = 1, a1, a2) of a section, as JUCE computes them: in float32.

    Shelves and peak are those of R. Bristow-Johnson's Audio EQ Cookbook (Q form), the high-pass is the
    bilinear transform of s / (s + 1).
    """
    kind, frequency, gain_db, q = section
    f = np.float32
    one, two, rate = f(1), f(2), f(sample_rate)
    if kind == "highpass":
        n = np.tan(f(math.pi) * f(frequency) / rate)
        raw = (one, -one, f(0), n + one, n - one, f(0))
    else:
        root = np.sqrt(f(10.0) ** (f(gain_db) * f(0.05)))
        omega = two * f(math.pi) * f(frequency) / rate
        cosine, sine = np.cos(omega), np.sin(omega)
        if kind == "peak":
            alpha = sine / (f(q) * two)
            c2 = -two * cosine
            up, down = alpha * root, alpha / root
            raw = (one + up, c2, one - up, one + down, c2, one - down)
        else:
            # a high shelf is a low shelf with the frequency axis turned round
            s = one if kind == "low_shelf" else -one
            less, more = root - one, root + one
            beta = sine * np.sqrt(root) / f(q)
            turn = less * cosine * s
            raw = (
                root * (more - turn + beta),
                s * root * two * (less - more * cosine * s),
                root * (more - turn - beta),
                more + turn + beta,
                s * -two * (less + more * cosine * s),
                more + turn - beta,
            )
    inverse = one / raw[3]
    b0, b1, b2, _, a1, a2 = (float(value * inverse) for value in raw)
    return b0, b1, b2, 1.0, a1, a2


@lru_cache(maxsize=8)
def _delays(freqs: bytes, sample_rate: float) -> NDArray[np.complex128]:
    """(3, F): 1, z^-1 and z^-2 on these frequencies; settings change far more often than frequencies."""
    omega = 2 * np.pi * np.frombuffer(freqs) / sample_rate
    delays: NDArray[np.complex128] = np.exp(-1j * np.outer(np.arange(3), omega))
    return delays


def response(strip: StripSettings, freqs_hz: ArrayLike, sample_rate: float) -> NDArray[np.complex128]:
    """Complex frequency response (F,) of a strip's high-pass and EQ (no gain, pan or polarity)."""
    freqs = np.ascontiguousarray(freqs_hz, dtype=np.float64)
    filters = sections(strip, sample_rate)
    if not filters:
        return np.ones(freqs.shape, dtype=np.complex128)
    table = np.array([coefficients(section, sample_rate) for section in filters]).reshape(-1, 3)
    values = table @ _delays(freqs.tobytes(), float(sample_rate))  # numerators and denominators in turn
    result: NDArray[np.complex128] = values[0::2].prod(axis=0) / values[1::2].prod(axis=0)
    return result


def pan_gains(pan: float, channels: int) -> tuple[float, float]:
    """Left and right gain (linear) of a pan position, -1..1; (1, 1) at 0 for one channel and for two.

    One channel: the constant-power sine law, normalised to its centre (+3.01 dB on the side when hard over).
    Two channels: a balance with the same level difference between the sides, the nearer one staying at 0 dB.
    """
    if pan == 0.0:
        return 1.0, 1.0
    angle = (1 - abs(pan)) * math.pi / 4
    if channels == 1:
        near, far = math.sqrt(2) * math.cos(angle), math.sqrt(2) * math.sin(angle)
    else:
        near, far = 1.0, math.tan(angle)
    return (far, near) if pan > 0 else (near, far)


def board(strip: StripSettings, sample_rate: float) -> Pedalboard:
    """The high-pass and EQ as a pedalboard chain, only the plugins that are not neutral (none: it is empty).

    It holds the state of one signal: make one for each stem and render, and process with ``reset=False``.
    """
    import pedalboard

    kinds: dict[str, Any] = {
        "low_shelf": pedalboard.LowShelfFilter,
        "peak": pedalboard.PeakFilter,
        "high_shelf": pedalboard.HighShelfFilter,
    }
    return pedalboard.Pedalboard(  # type: ignore[attr-defined]
        [
            pedalboard.HighpassFilter(cutoff_frequency_hz=frequency)
            if kind == "highpass"
            else kinds[kind](cutoff_frequency_hz=frequency, gain_db=gain_db, q=q)
            for kind, frequency, gain_db, q in sections(strip, sample_rate)
        ]
    )
