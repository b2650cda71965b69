"""Frequency responses of many strips at once, from tables of the exact ones.

The exact response of a strip (``strip.response``) costs tens of microseconds; search asks for thousands a second. The
bands' frequencies and Q are fixed, so each band's response is tabulated over its gain and the high-pass's over its
corner, and read off by linear interpolation: exact at whole and half dB and at the corners that moves come to,
elsewhere within 0.01 dB. Only the low shelf is not (0.06 dB at 48 kHz): its own response jumps about by as much, since
the renderer rounds coefficients to single precision.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixrl.analysis import BANDS, Complex, band_centres
from mixrl.compiled import compiled
from mixrl.knobs import EQ, HIGHPASS, NEUTRAL_SHAPE, Shape
from mixrl.measures import Array
from mixrl.settings import EQ_BANDS, EQ_GAIN_RANGE_DB, HIGHPASS_RANGE_HZ, EqBand, StripSettings
from mixrl.strip import response

STEP_DB = 0.5
_CORNERS = np.unique(
    np.concatenate([np.geomspace(*HIGHPASS_RANGE_HZ, 193), [30.0, 60.0, 80.0, 100.0, 150.0]])
)


def curves(strips: Array, shape: Shape, sample_rate: int) -> Complex:
    """(K, BANDS) response of high-pass and EQ of strips (K, COLUMNS) that share the shapes of their EQ bands."""
    found = np.empty((len(strips), BANDS), dtype=np.complex64)
    _read(np.ascontiguousarray(strips), _bands(shape, sample_rate), _highpass(sample_rate), _CORNERS, found)
    return found


@lru_cache(maxsize=32)
def _bands(shape: Shape, sample_rate: int) -> Complex:
    """(EQ_BANDS, gains, BANDS)"""
    low, high = EQ_GAIN_RANGE_DB
    gains = np.linspace(low, high, round((high - low) / STEP_DB) + 1)
    neutral = tuple(EqBand(kind, hz, 0.0, q) for kind, hz, q in shape)
    table = np.empty((EQ_BANDS, len(gains), BANDS), dtype=np.complex64)
    for band in range(EQ_BANDS):
        for row, gain in enumerate(gains):
            strip = StripSettings(eq=neutral).with_band(band, gain_db=float(gain))
            table[band, row] = response(strip, band_centres(), sample_rate)
    return table


@lru_cache(maxsize=8)
def _highpass(sample_rate: int) -> Complex:
    """(corners, BANDS)"""
    strips = [StripSettings(highpass_hz=float(hz)) for hz in _CORNERS]
    return np.stack([response(strip, band_centres(), sample_rate) for strip in strips]).astype(np.complex64)


def prepared(sample_rate: int) -> tuple[Complex, Complex, NDArray[np.float64]]:
    """What ``read_curve`` reads: the neutral shape's bands, the high-pass, its corners."""
    return _bands(NEUTRAL_SHAPE, sample_rate), _highpass(sample_rate), _CORNERS


@compiled
def read_curve(strip, bands, highpass, corners, found):  # type: ignore[no-untyped-def]
    """found (BANDS,) becomes the response of a strip (COLUMNS,)."""
    found[:] = 1.0
    for band in range(bands.shape[0]):
        gain = strip[EQ + band]
        if gain != 0.0:
            at = min(max((gain - EQ_GAIN_RANGE_DB[0]) / STEP_DB, 0.0), bands.shape[1] - 1.0)
            row = min(int(at), bands.shape[1] - 2)
            part = np.float32(at - row)
            low, high = bands[band, row], bands[band, row + 1]
            for b in range(found.shape[0]):
                found[b] *= low[b] + part * (high[b] - low[b])
    corner = strip[HIGHPASS]
    if corner > 0.0:
        row = min(max(np.searchsorted(corners, corner) - 1, 0), corners.shape[0] - 2)
        part = np.float32(min(max((corner - corners[row]) / (corners[row + 1] - corners[row]), 0.0), 1.0))
        low, high = highpass[row], highpass[row + 1]
        for b in range(found.shape[0]):
            found[b] *= low[b] + part * (high[b] - low[b])


@compiled
def _read(strips, bands, highpass, corners, found):  # type: ignore[no-untyped-def]
    for k in range(strips.shape[0]):
        read_curve(strips[k], bands, highpass, corners, found[k])
