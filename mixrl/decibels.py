"""Decibels and gains of many numbers at a time: loops that run on vector units, which calls of log and exp do not."""

from __future__ import annotations

import math

import numpy as np

from mixrl.compiled import bits_of, inner, number_of

_LN2 = math.log(2.0)


@inner
def to_decibels(values):  # type: ignore[no-untyped-def]
    """Turn powers (n,), float32, above 0, into decibels, to 1e-5 dB.

    The exponent is read off the number's bits, the mantissa's logarithm is the series of the inverse hyperbolic
    tangent.
    """
    per_octave = np.float32(10.0 * math.log10(2.0))
    scale = np.float32(20.0 / math.log(10.0))
    one = np.float32(1.0)
    for n in range(values.shape[0]):
        bits = bits_of(values[n])
        exponent = per_octave * np.float32((bits >> np.int32(23)) - np.int32(127))
        mantissa = number_of((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000))
        s = (mantissa - one) / (mantissa + one)
        q = s * s
        series = np.float32(1 / 9) + q * np.float32(1 / 11)
        series = np.float32(1 / 7) + q * series
        series = np.float32(1 / 5) + q * series
        series = np.float32(1 / 3) + q * series
        values[n] = exponent + scale * s * (one + q * series)


@inner
def to_gains(reductions):  # type: ignore[no-untyped-def]
    """Reductions (n,) in dB, 0 to 700, become gains, to 1e-7: a power of two from the bits of its exponent, times a
    series for the rest (Taylor's, of 2 ** x up to half)."""
    octaves = np.float32(-math.log2(10.0) / 20.0)
    half, one = np.float32(0.5), np.float32(1.0)
    c1, c2, c3 = np.float32(_LN2), np.float32(_LN2**2 / 2), np.float32(_LN2**3 / 6)
    c4, c5, c6 = np.float32(_LN2**4 / 24), np.float32(_LN2**5 / 120), np.float32(_LN2**6 / 720)
    for n in range(reductions.shape[0]):
        exponent = octaves * reductions[n]
        whole = np.int32(exponent - half)  # towards 0, and nothing here is above it: the nearest
        rest = exponent - np.float32(whole)
        series = c4 + rest * (c5 + rest * c6)
        series = one + rest * (c1 + rest * (c2 + rest * (c3 + rest * series)))
        reductions[n] = series * number_of((whole + np.int32(127)) << np.int32(23))
