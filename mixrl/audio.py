"""Decoding, encoding, resampling and atomic writes of audio.

Everything that can be read is a `Source`: blocks of float32, shape (channels, n), full scale 1.0, exact at
the sample from any start, any number of times and from any thread. Formats whose decoder cannot seek exactly
are decoded once into a temporary file, on first use.
"""

from __future__ import annotations

import errno
import os
import secrets
import struct
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from mixrl.errors import InputError, MixrlError, ProcessingError
from mixrl.files import beside
from mixrl.headers import (
    EXPORT_AGAIN,
    FFMPEG_SUFFIXES,
    SAMPLE_BYTES,
    UNKNOWN_FRAMES,
    Probe,
    ffmpeg_tool,
    probe,
    states_length,
)
from mixrl.quiet import quiet

__all__ = [
    "BLOCK", "ArraySource", "Encoding", "FileSource", "FloatArray", "Probe", "Source", "TemporaryAudio", "Writer",
    "ahead", "atomic_path", "encoding_for", "probe", "read", "resampled", "spooled", "temporary_folder",
]  # fmt: skip

FloatArray = NDArray[np.float32]

BLOCK = 65536
LOUDEST_PLAUSIBLE = 1e6
"""A sample above this (+120 dBFS) is a damaged file, not a hot one."""


# ---------------------------------------------------------------------------------------------------- sources


class Source(Protocol):
    """Audio that can be read in blocks, any number of times, from any thread."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def frames(self) -> int: ...
    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[FloatArray]:
        """Yield float32 (channels, n) from frame `start` to `stop` (None: the end); n = size save in the last."""
        ...


def read(source: Source, start: int = 0, stop: int | None = None) -> FloatArray:
    """Read frames [start, stop) of a source whole: float32 (channels, n)."""
    start, stop = _span(source, start, stop)
    out = np.empty((source.channels, stop - start), np.float32)
    at = 0
    for block in source.blocks(start, stop):
        out[:, at : at + block.shape[1]] = block
        at += block.shape[1]
    return out


def ahead(blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
    """The blocks, the next one being made while one is used: both sides of a chain that release the GIL run at once."""
    following = iter(blocks)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, following, None)
        while (block := waiting.result()) is not None:
            waiting = pool.submit(next, following, None)
            yield block


def _span(source: Source, start: int, stop: int | None) -> tuple[int, int]:
    stop = source.frames if stop is None else min(stop, source.frames)
    return min(max(0, start), max(0, stop)), max(0, stop)


@dataclass(frozen=True, eq=False)
class ArraySource:
    """An array in memory as a source: (n,) mono or (channels, n), any real type; kept as float32."""

    array: FloatArray
    sample_rate: int

    def __post_init__(self) -> None:
        array = np.atleast_2d(np.asarray(self.array, np.float32))
        if array.ndim != 2:
            shape = "x".join(map(str, array.shape))
            raise InputError(f"an array of shape {shape} is no audio: give (samples,) or (channels, samples)")
        object.__setattr__(self, "array", array)

    @property
    def channels(self) -> int:
        return int(self.array.shape[0])

    @property
    def frames(self) -> int:
        return int(self.array.shape[1])

    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[FloatArray]:
        start, stop = _span(self, start, stop)
        for at in range(start, stop, size):
            yield self.array[:, at : min(at + size, stop)].copy()


class TemporaryAudio:
    """A float32 temporary file that is written once, then read as a source; it is gone with the object.

    It lies in TMPDIR where that is set, else in /var/tmp where there is one (/tmp is memory on many systems),
    else where Python puts temporary files. It has no name there (but on Windows), so that not even a killed
    process leaves it behind. ProcessingError when it cannot be written (disk full).
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample_rate, self.channels, self.frames = sample_rate, channels, 0
        self._lock, self._written = threading.Lock(), False
        self._room = np.empty((channels, 0), np.float32)  # for a block; new memory costs as much as the work
        try:
            self._file = _nameless_file()
        except OSError as error:
            raise ProcessingError(_no_room(error)) from None
        weakref.finalize(self, self._file.close)

    def write(self, block: FloatArray) -> None:
        """Append float32 (channels, n); subnormal numbers become 0 (they make recursive filters crawl)."""
        from mixrl.pcm import flushed

        if self._written:
            raise ProcessingError("temporary audio is complete and cannot be written any more")
        block = np.asarray(block, np.float32)
        if self._room.shape[1] < block.shape[1]:
            self._room = np.empty((self.channels, block.shape[1]), np.float32)
        data = flushed(block, self._room[:, : block.shape[1]])
        try:
            for first, place in self._places(self.frames, self.frames + data.shape[1]):
                for channel, at in enumerate(place):
                    self._put(data[channel, first : first + at.frames].data.cast("B"), at.byte)
        except OSError as error:
            raise ProcessingError(_no_room(error)) from None
        self.frames += data.shape[1]

    def source(self) -> Source:
        """End writing; the audio as a source."""
        self._written, self._room = True, self._room[:, :0].copy()
        return self

    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[FloatArray]:
        start, stop = _span(self, start, stop)
        for begin in range(start, stop, size):
            end = min(begin + size, stop)
            block = np.empty((self.channels, end - begin), np.float32)
            for first, place in self._places(begin, end):
                for channel, at in enumerate(place):
                    self._get(block[channel, first : first + at.frames].data.cast("B"), at.byte)
            yield block

    def _places(self, start: int, stop: int) -> Iterator[tuple[int, list[_Place]]]:
        """Where frames lie: how far on from ``start``, and for each channel a stretch of the file, one after another.
        The file is a row of pieces of ``BLOCK`` frames, in each of which every channel lies by itself."""
        at = start
        while at < stop:
            piece, inside = divmod(at, BLOCK)
            count = min(BLOCK - inside, stop - at)
            begins = ((piece * self.channels + channel) * BLOCK + inside for channel in range(self.channels))
            yield at - start, [_Place(4 * begin, count) for begin in begins]
            at += count

    def _put(self, data: memoryview, at: int) -> None:
        done = 0
        while done < len(data):
            if hasattr(os, "pwrite"):  # has no position, which threads (and forked processes) would share
                done += os.pwrite(self._file.fileno(), data[done:], at + done)
                continue
            with self._lock:
                self._file.seek(at + done)
                done += self._file.write(data[done:])

    def _get(self, data: memoryview, at: int) -> None:
        done = 0
        while done < len(data):
            if hasattr(os, "preadv"):
                more = os.preadv(self._file.fileno(), [data[done:]], at + done)
            else:
                with self._lock:
                    self._file.seek(at + done)
                    more = cast(Any, self._file).readinto(data[done:])
            if not more:
                raise ProcessingError(f"{_folder()}: temporary audio was cut short: leave files there alone")
            done += more


class _Place(NamedTuple):
    """A stretch of a file: its first byte, and how many samples of one channel lie there."""

    byte: int
    frames: int


def _nameless_file() -> BinaryIO:
    def made() -> BinaryIO:
        return cast(BinaryIO, tempfile.TemporaryFile(buffering=0, prefix="mixrl-", dir=temporary_folder()))

    try:
        return made()
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        import resource  # a process starts with room for 256 to 1024 open files, but may ask for more

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        more = 8 * soft if hard == resource.RLIM_INFINITY else min(8 * soft, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        return made()


def temporary_folder() -> str | None:
    """Where big temporary files go; None for where Python puts them."""
    if not os.environ.get("TMPDIR") and os.access("/var/tmp", os.W_OK):
        return "/var/tmp"
    return None


def _folder() -> str:
    return temporary_folder() or tempfile.gettempdir()


def _no_room(error: OSError) -> str:
    return f"{_folder()}: cannot hold temporary audio ({error.strerror}): free space there or set TMPDIR"


class _Once:
    """Makes a value on first use, once, whichever thread comes first."""

    def __init__(self, make: Callable[[], Source]) -> None:
        self._make: Callable[[], Source] | None = make
        self._lock = threading.Lock()
        self._value: Source | None = None

    def get(self) -> Source:
        with self._lock:
            if self._value is None:
                assert self._make is not None
                self._value, self._make = self._make(), None
            return self._value


@dataclass(frozen=True)
class FileSource:
    """An audio file as a source. InputError, naming it, for what cannot be decoded, NaN or absurd values.

    What cannot be sought exactly (MP3, Ogg, what ffmpeg decodes) is decoded into a temporary file on first
    use; asking for `frames` of such a file counts as use. Encoder delay is taken off where the file states it (the
    LAME/Xing header of MP3, the pre-skip of Opus, the edit list of M4A).
    """

    path: Path
    probed: Probe = field(init=False, repr=False, compare=False)
    _state: tuple[int, int] | None = field(init=False, repr=False, compare=False)
    _spool: _Once = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "_state", self._size_and_time())
        object.__setattr__(self, "probed", probe(self.path))
        object.__setattr__(self, "_spool", _Once(self._decode_whole))

    @property
    def sample_rate(self) -> int:
        return self.probed.sample_rate

    @property
    def channels(self) -> int:
        return self.probed.channels

    @property
    def frames(self) -> int:
        return self.probed.frames if self.probed.exact_seek else self._spool.get().frames

    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[FloatArray]:
        start, stop = _span(self, start, stop)
        if not self.probed.exact_seek:
            yield from self._spool.get().blocks(start, stop, size)
            return
        for block in self._decode(start, stop, size):
            start += block.shape[1]
            yield block
        self._check_unchanged()
        if start < stop:
            raise self._ends_early(start)

    def _decode_whole(self) -> Source:
        spool = TemporaryAudio(self.sample_rate, self.channels)
        by_ffmpeg = self.path.suffix.lower() in FFMPEG_SUFFIXES
        with quiet():  # libmpg123 has a line for each frame that it cannot read
            for block in self._decode_by_ffmpeg() if by_ffmpeg else self._decode(0, None, BLOCK):
                spool.write(block)
        self._check_unchanged()
        promised = self.probed.frames if by_ffmpeg or states_length(self.probed) else 0
        # AAC and MP3 come in frames of up to 2048 samples; a player may lack the last one or two.
        if spool.frames == 0 or spool.frames < promised - 2 * 2048:
            raise self._ends_early(spool.frames)
        return spool.source()

    def _ends_early(self, frames: int) -> InputError:
        return InputError(f"{self.path}: the file ends early, at {frames / self.sample_rate:.1f} s: {EXPORT_AGAIN}")

    def _decode(self, start: int, stop: int | None, size: int) -> Iterator[FloatArray]:
        if self.probed.data_at is not None and stop is not None:
            yield from self._unpack(self.probed.data_at, start, stop, size)
            return
        import soundfile as sf

        left = UNKNOWN_FRAMES if stop is None else stop - start
        at = start
        try:
            with sf.SoundFile(os.fsencode(self.path)) as f:
                if start:
                    f.seek(start)
                # soundfile seeks after every read, which fails in a file of unknown length and is wrong in Vorbis.
                f.seekable = lambda: False
                buffer = np.empty((size, self.channels), np.float32)
                while left > 0:
                    data = f.read(out=buffer[: min(size, left)])
                    if len(data) == 0:
                        return
                    yield self._checked(data, at)
                    at, left = at + len(data), left - len(data)
        except (sf.SoundFileError, OSError):
            raise self._damaged(at) from None

    def _size_and_time(self) -> tuple[int, int] | None:
        try:
            now = self.path.stat()
        except OSError:
            return None
        return now.st_size, now.st_mtime_ns

    def _check_unchanged(self) -> None:
        """InputError for a file that is not as it was: what was decided on would not be what is rendered."""
        now = self._size_and_time()
        if now is None:
            raise InputError(f"{self.path}: was moved or deleted while it was read: put it back and mix again")
        if now != self._state:
            raise InputError(f"{self.path}: changed while it was read: mix again once nothing writes to it")

    def _damaged(self, at: int) -> InputError:
        self._check_unchanged()
        place = f"near {at / self.sample_rate:.1f} s"
        return InputError(f"{self.path}: is damaged or cut short {place}: {EXPORT_AGAIN}")

    def _unpack(self, data_at: int, start: int, stop: int, size: int) -> Iterator[FloatArray]:
        """What ``_decode`` does of samples that lie in the file plainly, in a fraction of the time."""
        from mixrl.pcm import unpacked

        frame = SAMPLE_BYTES[self.probed.encoding] * self.channels
        at = start
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(data_at + start * frame)
                buffer = memoryview(bytearray(min(size, stop - start) * frame))
                while at < stop:
                    wanted = min(size, stop - at) * frame
                    there = 0
                    while there < wanted and (more := file.readinto(buffer[there:wanted])):
                        there += more
                    block = unpacked(buffer[: there - there % frame], self.probed.encoding, self.channels)
                    if not block.shape[1]:
                        return
                    yield self._sound(block, at)
                    at += block.shape[1]
        except OSError:
            raise self._damaged(at) from None

    def _decode_by_ffmpeg(self) -> Iterator[FloatArray]:
        command = [ffmpeg_tool("ffmpeg", self.path), "-v", "error", "-nostdin", "-i", f"file:{self.path}"]
        command += ["-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "f32le"]
        command += ["-ac", str(self.channels), "-ar", str(self.sample_rate), "-"]
        # AAC's last frame is padded; the container knows where the audio ends, to a millisecond.
        left = self.probed.frames + self.sample_rate // 1000 if self.probed.frames else UNKNOWN_FRAMES
        at = 0
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            while raw := process.stdout.read(BLOCK * self.channels * 4):
                data = np.frombuffer(raw, "<f4").reshape(-1, self.channels)[:left]
                if len(data):
                    yield self._checked(data, at)
                at, left = at + len(data), left - len(data)
        if process.returncode:
            raise InputError(f"{self.path}: ffmpeg cannot decode it: {EXPORT_AGAIN}")

    def _checked(self, data: FloatArray, at: int) -> FloatArray:
        """(n, channels) as decoded -> a fresh (channels, n)."""
        return self._sound(np.array(data.T, np.float32, order="C"), at)

    def _sound(self, block: FloatArray, at: int) -> FloatArray:
        """The block from frame ``at`` on, if it holds sound; only floating-point coding needs scrutiny."""
        if not self.probed.encoding.startswith(("PCM", "ALAC")):
            from mixrl.pcm import flush

            if not (block.max() <= LOUDEST_PLAUSIBLE and block.min() >= -LOUDEST_PLAUSIBLE):  # NaN compares false
                bad = int(np.argmax(~(np.abs(block) <= LOUDEST_PLAUSIBLE).all(axis=0)))
                place = f"at {(at + bad) / self.sample_rate:.3f} s"
                what = "a NaN, infinite or absurd sample"
                raise InputError(f"{self.path}: holds {what} {place}: {EXPORT_AGAIN}")
            flush(block)
        return block


@dataclass(frozen=True)
class _Resampled:
    inner: Source
    sample_rate: int
    _spool: _Once = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_spool", _Once(self._convert))

    @property
    def channels(self) -> int:
        return self.inner.channels

    @property
    def frames(self) -> int:
        return max(1, round(self.inner.frames * self.sample_rate / self.inner.sample_rate))

    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[FloatArray]:
        return self._spool.get().blocks(start, stop, size)

    def _convert(self) -> Source:
        import soxr

        rates = self.inner.sample_rate, self.sample_rate
        stream = soxr.ResampleStream(*rates, self.channels, "float32", "VHQ")
        spool = TemporaryAudio(self.sample_rate, self.channels)
        frames = self.frames

        def push(data: FloatArray) -> None:
            spool.write(data[: frames - spool.frames].T)

        for block in self.inner.blocks():
            push(stream.resample_chunk(np.ascontiguousarray(block.T)))
        push(stream.resample_chunk(np.zeros((0, self.channels), np.float32), last=True))
        push(np.zeros((frames - spool.frames, self.channels), np.float32))
        return spool.source()


@dataclass(frozen=True, eq=False)
class _Spooled:
    inner: Source
    _spool: _Once = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_spool", _Once(self._copied))

    @property
    def sample_rate(self) -> int:
        return self.inner.sample_rate

    @property
    def channels(self) -> int:
        return self.inner.channels

    @property
    def frames(self) -> int:
        return self.inner.frames

    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[FloatArray]:
        return self._spool.get().blocks(start, stop, size)

    def _copied(self) -> Source:
        spool = TemporaryAudio(self.sample_rate, self.channels)
        for block in self.inner.blocks():
            spool.write(block)
        return spool.source()


def spooled(source: Source) -> Source:
    """The source, decoded no more than once, into a temporary file, on first use."""
    return _Spooled(source)


def resampled(source: Source, sample_rate: int) -> Source:
    """The source at another rate (Hz): soxr at very high quality, without delay, made once on first use.

    The result has round(frames * sample_rate / source.sample_rate) frames.
    """
    return source if source.sample_rate == sample_rate else _Resampled(source, sample_rate)


# ---------------------------------------------------------------------------------------------------- writing


@contextmanager
def atomic_path(path: str | os.PathLike[str], force: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the name at the end, or is removed on any error.

    InputError if `path` exists (unless `force`), is a folder, or its folder is missing; ProcessingError for
    what goes wrong in writing (OSError: disk full, no permission).
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder: give the name of a file")
        if path.exists() and not force:
            raise InputError(f"{path}: exists already: choose another name, or pass --force to replace it")
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}: make it first, or choose another")
    except OSError as error:  # the path is too long to ask
        raise InputError(f"{path}: cannot be written ({error.strerror}): choose another name") from None
    part = beside(path, secrets.token_hex(4))
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        mend = "free space there, or write elsewhere"
        raise ProcessingError(f"{path}: cannot be written ({error.strerror or error}): {mend}") from error
    except MixrlError as error:
        if str(part) not in str(error):
            raise
        # a writer inside: the user knows no temporary name
        raise type(error)(str(error).replace(str(part), str(path))) from error
    finally:
        part.unlink(missing_ok=True)


class Encoding(str, Enum):
    """How a file is written: container and sample format. The 16-bit kinds are dithered."""

    WAV16 = "wav16"
    WAV24 = "wav24"
    WAV32F = "wav32f"
    FLAC16 = "flac16"
    FLAC24 = "flac24"

    @property
    def bits(self) -> int:
        return int(self.value.strip("wavflc"))

    @property
    def suffix(self) -> str:
        return ".flac" if self.value.startswith("flac") else ".wav"


def encoding_for(path: str | os.PathLike[str], name: str | None = None) -> Encoding:
    """The encoding of an output file: `name` if given, else 24 bits in what the suffix says (.wav, .flac)."""
    suffix = Path(path).suffix.lower()
    kinds = [kind for kind in Encoding if kind.suffix == suffix]
    if not kinds:
        raise InputError(f"{path}: cannot write {suffix or 'a file without suffix'}: name it .wav or .flac")
    if name is None:
        return Encoding.FLAC24 if suffix == ".flac" else Encoding.WAV24
    if name not in [kind.value for kind in kinds]:
        choice = ", ".join(kind.value for kind in kinds)
        raise InputError(f"{name}: no encoding for {Path(path).name}: choose from {choice}")
    return Encoding(name)


class Writer:
    """Writes an audio file block by block, atomically: `with Writer(path, 48000, 2) as w: w.write(block)`.

    Integer formats round to nearest and clip to full scale; 16 bits get triangular dither of 2 LSB peak to
    peak (seeded; samples that are exactly 0 stay 0, so silence stays silence). WAV grows into RF64 (EBU Tech
    3306) beyond 4 GB. The bytes depend only on the samples, the seed and the encoding, not on the block size.
    Raises InputError as `atomic_path` does, ProcessingError for a full disk or samples that are not finite.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        channels: int,
        encoding: Encoding | str = Encoding.WAV24,
        *,
        force: bool = False,
        seed: int = 0,
    ) -> None:
        self.path, self.sample_rate, self.channels, self.frames = Path(path), sample_rate, channels, 0
        self.encoding = Encoding(encoding)
        self._force, self._random = force, np.random.default_rng(seed)
        self._stack = ExitStack()
        self._put: Callable[[NDArray[Any]], object] | None = None

    def __enter__(self) -> Writer:
        part = self._stack.enter_context(atomic_path(self.path, self._force))
        try:
            kind = _Flac if self.encoding.suffix == ".flac" else _Wav
            file = kind(part, self.sample_rate, self.channels, self.encoding.bits)
            self._stack.enter_context(file)
            self._put = file.write
        except Exception as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, block: FloatArray) -> None:
        """Append float32 (channels, n)."""
        assert self._put is not None, "use the writer in a with statement"
        from mixrl.pcm import rounded

        x = np.asarray(block, np.float32)
        if x.ndim != 2 or x.shape[0] != self.channels:
            raise ValueError(f"a block of shape {x.shape} for {self.channels} channels")
        if x.size and not (np.isfinite(x.max()) and np.isfinite(x.min())):
            raise ProcessingError(f"{self.path}: a sample to be written is not finite")
        frames = x.T
        self.frames += len(frames)
        if self.encoding is Encoding.WAV32F:
            self._put(np.ascontiguousarray(frames, "<f4"))
            return
        if self.encoding.bits == 24:
            self._put(rounded(x, 24))
            return
        scaled = frames * np.float64(2**15)
        two = self._random.random((*frames.shape, 2))
        scaled += (two[..., 0] - two[..., 1]) * (frames != 0)
        self._put(np.clip(np.rint(scaled), -(2**15), 2**15 - 1).astype(np.int16))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put = None
        self._stack.__exit__(kind, error, trace)


class _Wav:
    """A WAV file under way. A JUNK chunk keeps the place of RF64's ds64, as EBU Tech 3306 has it."""

    def __init__(self, path: Path, sample_rate: int, channels: int, bits: int) -> None:
        self._file = path.open("xb")
        self._rate, self._channels, self._bits = sample_rate, channels, bits
        self._bytes = 0
        self._file.write(self._header())

    def __enter__(self) -> _Wav:
        return self

    def write(self, data: NDArray[Any]) -> None:
        """Append (n, channels): int16, int32 of 24 bits, or float32."""
        from mixrl.pcm import packed_24

        raw = packed_24(data) if self._bits == 24 else data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()
        self._bytes += self._file.write(raw)

    def _header(self) -> bytes:
        frame = self._channels * self._bits // 8
        coding = 3 if self._bits == 32 else 1
        kind = coding, self._channels, self._rate, self._rate * frame, frame, self._bits
        body = struct.pack("<4sIHHIIHH", b"fmt ", 16, *kind)
        if coding == 3:
            body += struct.pack("<4sII", b"fact", 4, min(self._bytes // frame, 0xFFFFFFFF))
        padded = self._bytes + self._bytes % 2
        total = 4 + 36 + len(body) + 8 + padded
        if total > 0xFFFFFFFF:
            start = struct.pack("<4sI4s4sI", b"RF64", 0xFFFFFFFF, b"WAVE", b"ds64", 28)
            start += struct.pack("<QQQI", total, self._bytes, self._bytes // frame, 0)
            return start + body + struct.pack("<4sI", b"data", 0xFFFFFFFF)
        start = struct.pack("<4sI4s4sI28x", b"RIFF", total, b"WAVE", b"JUNK", 28)
        return start + body + struct.pack("<4sI", b"data", self._bytes)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._file:
            if kind is None:
                self._file.write(b"\0" * (self._bytes % 2))
                self._file.seek(0)
                self._file.write(self._header())


class _Flac:
    """A FLAC file under way, encoded by libsndfile: which ignores write errors at the end, so they are kept."""

    def __init__(self, path: Path, sample_rate: int, channels: int, bits: int) -> None:
        import soundfile as sf

        self._file = _Kept(path)
        try:
            self._flac = sf.SoundFile(self._file, "w", sample_rate, channels, f"PCM_{bits}", format="FLAC")
        except sf.SoundFileError as error:
            self._file.close()
            raise self._file.error or ProcessingError(f"{path}: FLAC cannot hold this ({error})") from None

    def __enter__(self) -> _Flac:
        return self

    def write(self, data: NDArray[Any]) -> None:
        """Append (n, channels): int16, or int32 of 24 bits."""
        import soundfile as sf

        try:
            self._flac.write(data << 8 if data.dtype == np.int32 else data)  # which it expects on top
        except (sf.SoundFileError, AssertionError):  # it asserts that all was written
            raise self._file.error or OSError("FLAC encoder") from None
        self._check()

    def _check(self) -> None:
        if self._file.error:
            raise self._file.error

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._flac.close()
        self._file.close()
        if kind is None:
            self._check()


class _Kept:
    """A file for libsndfile's callbacks, through which no exception can pass: the first one is kept."""

    def __init__(self, path: Path) -> None:
        self._file = f = path.open("xb+", buffering=0)
        self.error: OSError | None = None
        self.read, self.seek, self.tell, self.close = f.read, f.seek, f.tell, f.close

    def write(self, data: bytes) -> int:
        try:
            done = self._file.write(data)
            if done < len(data):  # the next byte says why
                done += self._file.write(bytes(data[done:]))
            return done
        except OSError as error:
            self.error = self.error or error
            return 0
