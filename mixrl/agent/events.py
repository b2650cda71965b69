"""Scalars for TensorBoard, written without it: TFRecord files of Event messages.

TensorBoard's own writer takes seven packages; reading its files is the reader's business. A record is its length
(uint64), a checksum of that, the message, a checksum of that; see TensorFlow's record_writer.h and event.proto.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path


class Events:
    """A log of scalars in a folder; the file is made with the first of them, and every call is on disk at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path: Path | None = None

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append the scalars of one step."""
        now = time.time()
        if self._path is None:
            self._path = self.folder / f"events.out.tfevents.{time.time_ns() // 1000}"
            self._append(_event(now, _field(3, b"brain.Event:2")))
        values = b"".join(
            _field(1, _field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)) for tag, value in scalars.items()
        )
        self._append(_event(now, b"\x10" + _varint(step) + _field(5, values)))

    def _append(self, message: bytes) -> None:
        assert self._path is not None
        length = struct.pack("<Q", len(message))
        with self._path.open("ab") as file:
            file.write(length + _checksum(length) + message + _checksum(message))


def _event(wall_time: float, rest: bytes) -> bytes:
    return b"\x09" + struct.pack("<d", wall_time) + rest


def _varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


@lru_cache(maxsize=1)
def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def _checksum(data: bytes) -> bytes:
    """CRC-32C, masked as TFRecord wants it."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
