"""Samples as files hold them, little-endian and interleaved, and as mixrl works on them, in float32 planes.

What a library does in several passes over the audio takes as long as all else that is done to a file; this is one pass
each way, and the same to the last bit as libsndfile's reading and as numpy's rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixrl.compiled import bits_of, compiled, number_of, summing
from mixrl.headers import SAMPLE_BYTES

Audio = NDArray[np.float32]


def unpacked(raw: bytes | bytearray | memoryview, encoding: str, channels: int) -> Audio:
    """Whole frames of interleaved little-endian samples, of one of ``headers.SAMPLE_BYTES``, as (channels, n)."""
    count = len(raw) // (SAMPLE_BYTES[encoding] * channels)
    out = np.empty((channels, count), np.float32)
    if encoding == "PCM_24":
        _spread_24(np.frombuffer(raw, np.uint8), out)
    elif encoding == "FLOAT":
        _spread(np.frombuffer(raw, "<f4"), np.float32(1.0), out)
    else:
        kind, bits = ("<i2", 15) if encoding == "PCM_16" else ("<i4", 31)
        _spread(np.frombuffer(raw, kind), np.float32(2.0**-bits), out)
    return out


def rounded(block: Audio, bits: int) -> NDArray[np.int32]:
    """(channels, n) as (n, channels) whole numbers of so many bits, to nearest (even where between) and clipped."""
    out = np.empty(block.shape[::-1], np.int32)
    _round(block, 2.0 ** (bits - 1), out)
    return out


def packed_24(whole: NDArray[np.int32]) -> bytes:
    """(n, channels) whole numbers of 24 bits as three little-endian bytes each."""
    out = np.empty(3 * whole.size, np.uint8)
    _pack_24(whole.ravel(), out)
    return out.tobytes()


def flush(block: Audio, least: float = float(np.finfo(np.float32).tiny)) -> None:
    """Set numbers of (channels, n) below ``least``, the subnormal ones, to 0, in place: they make recursive filters
    crawl."""
    _flush(block, np.float32(least))


def flushed(block: Audio, out: Audio) -> Audio:
    """A copy in ``out`` (channels, n), with what ``flush`` sets to 0."""
    _copy_flushed(block, np.finfo(np.float32).tiny, out)
    return out


def highest_and_energy(block: Audio) -> tuple[float, float]:
    """The highest magnitude in (channels, n), NaN if there is one, and the sum of squares."""
    highest, energy = _highest_and_energy(block)
    return float(highest), float(energy)


@compiled
def _spread(values: NDArray[Any], scale: np.float32, out: Audio) -> None:
    channels = out.shape[0]
    for c in range(channels):
        for i in range(out.shape[1]):
            out[c, i] = np.float32(values[i * channels + c]) * scale


@compiled
def _spread_24(values: NDArray[np.uint8], out: Audio) -> None:
    channels = out.shape[0]
    for c in range(channels):
        for i in range(out.shape[1]):
            at = 3 * (i * channels + c)
            low, middle, high = np.int32(values[at]), np.int32(values[at + 1]), np.int32(np.int8(values[at + 2]))
            out[c, i] = np.float32((high << 16) | (middle << 8) | low) * np.float32(2.0**-23)


@compiled
def _round(block: Audio, scale: float, out: NDArray[np.int32]) -> None:
    for i in range(block.shape[1]):
        for c in range(block.shape[0]):
            out[i, c] = np.int32(min(max(np.rint(block[c, i] * scale), -scale), scale - 1.0))


@compiled
def _pack_24(whole: NDArray[np.int32], out: NDArray[np.uint8]) -> None:
    for i in range(whole.shape[0]):
        out[3 * i] = whole[i] & 0xFF
        out[3 * i + 1] = (whole[i] >> 8) & 0xFF
        out[3 * i + 2] = (whole[i] >> 16) & 0xFF


@compiled
def _flush(block: Audio, least: np.float32) -> None:
    for c in range(block.shape[0]):
        row = block[c]
        for i in range(row.shape[0]):
            row[i] = np.float32(0.0) if abs(row[i]) < least else row[i]


@compiled
def _copy_flushed(block: Audio, least: np.float32, out: Audio) -> None:
    for c in range(block.shape[0]):
        row, copied = block[c], out[c]
        for i in range(row.shape[0]):
            copied[i] = np.float32(0.0) if abs(row[i]) < least else row[i]


@summing
def _highest_and_energy(block):  # type: ignore[no-untyped-def]
    highest, energy = np.int32(0), 0.0
    for c in range(block.shape[0]):
        row = block[c]
        for i in range(row.shape[0]):
            highest = max(highest, bits_of(row[i]) & np.int32(0x7FFFFFFF))  # they rise with magnitudes, NaN above all
            energy += np.float64(row[i]) * np.float64(row[i])
    return number_of(highest), energy
