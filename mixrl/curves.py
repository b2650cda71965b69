"""Frequency responses of many strips at once, from tables of the exact ones.

The exact response of a strip (``strip.response``) costs tens of microseconds; search asks for thousands a second. The
bands' frequencies and Q are fixed, so each band's response is tabulated over its gain and the high-pass's over its
corner, and read off by linear interpolation: exact at whole and half dB and at the corners that moves come to,
elsewhere within 0.01 dB. Only the low shelf is not (0.06 dB at 48 kHz): its own response jumps about by as much, since
the renderer rounds coefficients to single precision.

Real and imaginary parts are kept apart (the axis written 2 before BANDS), as everywhere in the closed form.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mixrl.analysis import BANDS, Complex, Float, band_centres
from mixrl.compiled import inner, summing
from mixrl.knobs import EQ, HIGHPASS, NEUTRAL_SHAPE, Shape
from mixrl.measures import Array
from mixrl.settings import EQ_BANDS, EQ_GAIN_RANGE_DB, HIGHPASS_RANGE_HZ, EqBand, StripSettings
from mixrl.strip import response

STEP_DB = 0.5
_CORNERS = np.unique(
    np.concatenate([np.geomspace(*HIGHPASS_RANGE_HZ, 193), [30.0, 60.0, 80.0, 100.0, 150.0]])
)


class Tables(NamedTuple):
    """bands (shapes, EQ_BANDS, gains, 2, BANDS), highpass (corners, 2, BANDS), corners in Hz."""

    bands: Float
    highpass: Float
    corners: Array


def curves(strips: Array, shape: Shape, sample_rate: int) -> Complex:
    """(K, BANDS) response of high-pass and EQ of strips (K, COLUMNS) that share the shapes of their EQ bands."""
    found = np.empty((len(strips), 2, BANDS), dtype=np.float32)
    _read(np.ascontiguousarray(strips), tables((shape,), sample_rate), found)
    return np.asarray(found[:, 0] + 1j * found[:, 1], dtype=np.complex64)


@lru_cache(maxsize=32)
def tables(shapes: tuple[Shape, ...] = (NEUTRAL_SHAPE,), sample_rate: int = 44100) -> Tables:
    """What ``read_curve`` reads, for EQ bands of some shapes."""
    return Tables(np.stack([_bands(shape, sample_rate) for shape in shapes]), _highpass(sample_rate), _CORNERS)


@lru_cache(maxsize=32)
def _bands(shape: Shape, sample_rate: int) -> Float:
    """(EQ_BANDS, gains, 2, BANDS)"""
    low, high = EQ_GAIN_RANGE_DB
    gains = np.linspace(low, high, round((high - low) / STEP_DB) + 1)
    neutral = tuple(EqBand(kind, hz, 0.0, q) for kind, hz, q in shape)
    return np.stack([
        _parts([StripSettings(eq=neutral).with_band(band, gain_db=float(gain)) for gain in gains], sample_rate)
        for band in range(EQ_BANDS)
    ])  # fmt: skip


@lru_cache(maxsize=8)
def _highpass(sample_rate: int) -> Float:
    """(corners, 2, BANDS)"""
    return _parts([StripSettings(highpass_hz=float(hz)) for hz in _CORNERS], sample_rate)


def _parts(strips: list[StripSettings], sample_rate: int) -> Float:
    """(K, 2, BANDS) exact responses."""
    exact = np.stack([response(strip, band_centres(), sample_rate) for strip in strips])
    return np.stack([exact.real, exact.imag], axis=1).astype(np.float32)


@inner
def _pass_through(low, high, part, found):  # type: ignore[no-untyped-def]
    """Multiply found (2, BANDS) by what lies ``part`` of the way from low to high."""
    for b in range(BANDS):
        real = low[0, b] + part * (high[0, b] - low[0, b])
        imag = low[1, b] + part * (high[1, b] - low[1, b])
        before = found[0, b]
        found[0, b] = before * real - found[1, b] * imag
        found[1, b] = before * imag + found[1, b] * real


@inner
def read_curve(strip, shape, tables, found):  # type: ignore[no-untyped-def]
    """found (2, BANDS) becomes the response of a strip (COLUMNS,) whose EQ bands are of shape number ``shape``."""
    bands, highpass, corners = tables
    found[0] = np.float32(1.0)
    found[1] = np.float32(0.0)
    for band in range(bands.shape[1]):
        gain = strip[EQ + band]
        if gain != 0.0:
            at = min(max((gain - EQ_GAIN_RANGE_DB[0]) / STEP_DB, 0.0), bands.shape[2] - 1.0)
            row = min(int(at), bands.shape[2] - 2)
            _pass_through(bands[shape, band, row], bands[shape, band, row + 1], np.float32(at - row), found)
    corner = strip[HIGHPASS]
    if corner > 0.0:
        row = min(max(np.searchsorted(corners, corner) - 1, 0), corners.shape[0] - 2)
        part = np.float32(min(max((corner - corners[row]) / (corners[row + 1] - corners[row]), 0.0), 1.0))
        _pass_through(highpass[row], highpass[row + 1], part, found)


@summing
def _read(strips, tables, found):  # type: ignore[no-untyped-def]
    for k in range(strips.shape[0]):
        read_curve(strips[k], 0, tables, found[k])
