"""What an audio file's header says: format, length, time reference; and whether it can be read at all."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixrl.errors import InputError
from mixrl.files import refuse_special
from mixrl.quiet import quiet

SUFFIXES = frozenset(
    (".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".aif", ".aiff", ".aifc", ".caf", ".au")
) | {".ogg", ".oga", ".opus", ".mp3"}
FFMPEG_SUFFIXES = frozenset([".m4a", ".m4b", ".aac", ".wma", ".wv", ".ape"])
UNKNOWN_FRAMES = 1 << 62
SAMPLE_BYTES = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4}  # of what mixrl.pcm reads, by libsndfile's names
RATES_HZ = (8000, 384_000)  # that a stem and a meter may have
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"FORM", b"caff", b".snd", b"OggS")
EXPORT_AGAIN = "export it again as WAV or FLAC, or move it out of the folder"


@dataclass(frozen=True)
class Probe:
    """What a file's header says. `frames` is exact where `exact_seek`, else the header's estimate."""

    path: Path
    format: str  # "WAV", "RF64", "FLAC", "AIFF", "OGG", "MP3", or ffmpeg's codec name
    encoding: str  # "PCM_16", "FLOAT", "VORBIS", ...
    sample_rate: int
    channels: int
    frames: int
    time_reference: int | None = None  # Broadcast-WAV start, samples at the file's own rate; None: has none
    exact_seek: bool = True  # whether libsndfile lands on the very sample it is sent to
    data_at: int | None = None  # the byte where samples begin that lie there as ``mixrl.pcm`` reads them


def probe(path: str | os.PathLike[str]) -> Probe:
    """Read the header of an audio file.

    Raises InputError (naming the file and the mend) for what is unreadable, empty, cut short or no audio.
    """
    path = Path(path)
    try:
        refuse_special(path)
        with path.open("rb") as f:
            head = f.read(512)
    except OSError as error:
        mend = "check the path and its permissions"
        raise InputError(f"{path}: cannot be read ({error.strerror}): {mend}") from None
    if not head:
        raise InputError(f"{path}: the file is empty (0 bytes): {EXPORT_AGAIN}")
    if _is_text(head):
        raise InputError(f"{path}: is a text file, not audio: {EXPORT_AGAIN}")
    if path.suffix.lower() in FFMPEG_SUFFIXES:
        return _probe_with_ffmpeg(path)

    import soundfile as sf

    try:
        # libmpg123 prints what it thinks of files that no other decoder knows
        with nullcontext() if head[:4] in _MAGIC else quiet():
            info = sf.info(os.fsencode(path))  # bytes: old archives leave names that are not UTF-8
    except (sf.SoundFileError, UnicodeError):
        raise InputError(f"{path}: is no audio file that can be decoded: {EXPORT_AGAIN}") from None
    reference = data_at = None
    if info.format in ("WAV", "WAVEX", "RF64"):
        riff = _riff_facts(path)
        if riff.missing:
            raise InputError(f"{path}: the file is cut short ({riff.missing} bytes are missing): {EXPORT_AGAIN}")
        reference = riff.time_reference
        frame = SAMPLE_BYTES.get(info.subtype, 0) * info.channels
        if frame and riff.frame_bytes == frame and riff.data_bytes // frame == info.frames:
            data_at = riff.data_at
    if info.frames <= 0:
        raise InputError(f"{path}: holds no audio (zero length): {EXPORT_AGAIN}")
    # After a seek in Vorbis libsndfile 1.2.2 is off by some samples; MP3 and piped FLAC may not know their length.
    exact = info.format not in ("OGG", "MP3") and info.frames < UNKNOWN_FRAMES
    facts = info.format, info.subtype, info.samplerate, info.channels, info.frames
    return Probe(path, *facts, reference, exact, data_at)


def _is_text(head: bytes) -> bool:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):  # as Windows writes it; libsndfile takes it for an MPEG stream
        text = head.decode("utf-16", "ignore")
        return all(character.isprintable() or character in "\t\r\n" for character in text)
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)


@dataclass(frozen=True)
class _Riff:
    """time_reference: of the `bext` chunk (EBU Tech 3285). data_at, data_bytes: where the samples lie, None and 0 where
    that is not stated, or they are big-endian. frame_bytes: of one sample of all channels. missing: bytes that the data
    chunk lacks."""

    time_reference: int | None = None
    data_at: int | None = None
    data_bytes: int = 0
    frame_bytes: int = 0
    missing: int = 0


_MOST_CHUNKS = 10_000  # a file of nothing but empty ones could hold a billion


def _riff_facts(path: Path) -> _Riff:
    found = _Riff()
    size = path.stat().st_size
    with path.open("rb") as f:
        form = f.read(12)[:4]
        order = ">" if form == b"RIFX" else "<"
        long_data = 0
        for _ in range(_MOST_CHUNKS):
            header = f.read(8)
            if len(header) < 8:
                break
            name, length = struct.unpack(f"{order}4sI", header)
            if not name.isascii() or not name.decode().isprintable():  # what follows the last chunk
                break
            at = f.tell()
            if name == b"ds64":
                body = f.read(16)
                long_data = struct.unpack("<QQ", body)[1] if len(body) == 16 else 0
            elif name == b"fmt ":
                body = f.read(min(length, 16))
                if len(body) == 16:
                    found = replace(found, frame_bytes=struct.unpack(f"{order}H", body[12:14])[0])
            elif name == b"bext":
                body = f.read(min(length, 346))
                if len(body) == 346:
                    found = replace(found, time_reference=struct.unpack(f"{order}Q", body[338:346])[0])
            elif name == b"data":
                if form == b"RF64" and long_data:
                    length = long_data
                elif length in (0, 0xFFFFFFFF):  # written into a pipe, which cannot go back to fill it in
                    break
                found = replace(found, missing=max(0, at + length - size))
                if order == "<":
                    found = replace(found, data_at=at, data_bytes=length)
            if at + length >= size:  # a length may be any, also one that no file can have
                break
            f.seek(at + length + length % 2)
    return found


def _probe_with_ffmpeg(path: Path) -> Probe:
    ffprobe = ffmpeg_tool("ffprobe", path)
    asked = ["-select_streams", "a:0", "-show_entries", "stream=codec_name,sample_rate,channels,duration"]
    done = subprocess.run(
        [ffprobe, "-v", "error", *asked, "-of", "json", f"file:{path}"],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        check=False,
    )
    streams: list[dict[str, Any]] = json.loads(done.stdout or "{}").get("streams", [])
    try:
        rate, channels = int(streams[0]["sample_rate"]), int(streams[0]["channels"])
        frames = round(float(streams[0].get("duration", 0.0)) * rate)
        codec = str(streams[0].get("codec_name", "?"))
    except (IndexError, KeyError, ValueError):
        raise InputError(f"{path}: is no audio file that ffmpeg can decode: {EXPORT_AGAIN}") from None
    return Probe(path, codec, codec.upper(), rate, channels, frames, None, exact_seek=False)


def ffmpeg_tool(name: str, path: Path) -> str:
    found = shutil.which(name)
    if found is None:
        kind = path.suffix.lower().lstrip(".")
        mend = "install it, or convert the file to WAV or FLAC"
        raise InputError(f"{path}: {kind} files need ffmpeg, which is not on this machine: {mend}")
    return found


def states_length(probed: Probe) -> bool:
    """Whether an MP3 states its length: without such a header, the length is a guess from the size."""
    if probed.format != "MP3":
        return False
    with probed.path.open("rb") as f:
        head = f.read(10)
        start = 0
        if head[:3] == b"ID3" and len(head) == 10:  # ID3v2 states its size in four 7-bit bytes
            a, b, c, d = (byte & 127 for byte in head[6:])
            start = 10 + (a << 21 | b << 14 | c << 7 | d)
        f.seek(start)
        frame = f.read(2048)
    return b"Xing" in frame or b"Info" in frame
