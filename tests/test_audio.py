"""Reading is exact at the sample in every format; writing is exact, atomic and honest about failure."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from mixrl.audio import (
    ArraySource,
    Encoding,
    FileSource,
    FloatArray,
    TemporaryAudio,
    Writer,
    _Wav,
    ahead,
    atomic_path,
    encoding_for,
    probe,
    read,
    resampled,
    spooled,
)
from mixrl.errors import InputError, ProcessingError

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on this machine")
RATE = 44100


def noise(channels: int = 2, frames: int = 100_000, seed: int = 0) -> FloatArray:
    return (0.1 * np.random.default_rng(seed).standard_normal((channels, frames))).astype(np.float32)


def encode(path: Path, x: FloatArray, rate: int, *options: str) -> Path:
    """Encode with ffmpeg, whose encoders state their delay as those of common programs do."""
    wav = path.with_suffix(".source.wav")
    sf.write(wav, x.T, rate, subtype="FLOAT")
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(wav), *options, str(path)], check=True)
    wav.unlink()
    return path


# ---------------------------------------------------------------------------------------------------- reading

KINDS = [
    ("WAV", "PCM_16", ".wav", 2**-15),
    ("WAV", "PCM_24", ".wav", 2**-23),
    ("WAV", "PCM_32", ".wav", 2**-23),
    ("WAV", "FLOAT", ".wav", 0.0),
    ("WAVEX", "PCM_16", ".wav", 2**-15),
    ("RF64", "PCM_24", ".wav", 2**-23),
    ("FLAC", "PCM_16", ".flac", 2**-15),
    ("FLAC", "PCM_24", ".flac", 2**-23),
    ("AIFF", "PCM_24", ".aiff", 2**-23),
]


@pytest.mark.parametrize(("form", "coding", "suffix", "step"), KINDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_formats_read_exactly(
    tmp_path: Path, form: str, coding: str, suffix: str, step: float, channels: int
) -> None:
    x = noise(channels)
    path = tmp_path / f"x{suffix}"
    sf.write(path, x.T, RATE, subtype=coding, format=form)
    source = FileSource(path)
    assert (source.sample_rate, source.channels, source.frames) == (RATE, channels, x.shape[1])
    whole = read(source)
    assert whole.dtype == np.float32
    assert np.abs(whole - x).max() <= step
    np.testing.assert_array_equal(whole, sf.read(path, dtype="float32", always_2d=True)[0].T)
    for start, stop in ((0, 1), (12_345, 54_321), (99_999, 100_000), (70_000, 70_000)):
        np.testing.assert_array_equal(read(source, start, stop), whole[:, start:stop])
    sizes = [block.shape[1] for block in source.blocks(100, 10_100, size=4096)]
    assert sizes == [4096, 4096, 1808]


@pytest.mark.parametrize(("form", "coding"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_lossy_formats_keep_time_and_seek_exactly(tmp_path: Path, form: str, coding: str) -> None:
    rate = 48000
    x = 0.01 * noise(2, 5 * rate)
    clicks = [1000, 2 * rate, 5 * rate - 2000]
    x[:, clicks] = 0.9
    path = tmp_path / f"x.{form.lower()}"
    with sf.SoundFile(path, "w", rate, 2, subtype=coding, format=form) as f:
        for at in range(0, x.shape[1], 4800):
            f.write(x[:, at : at + 4800].T)
    source = FileSource(path)
    whole = read(source)
    assert source.frames == whole.shape[1]
    assert abs(source.frames - x.shape[1]) <= (1 if form == "OGG" else 1152)
    for click in clicks:
        assert abs(int(np.argmax(np.abs(whole[0, click - 900 : click + 900]))) - 900) <= 1
    for start in np.random.default_rng(1).integers(0, source.frames - 5000, 20):
        np.testing.assert_array_equal(read(source, start, start + 4096), whole[:, start : start + 4096])


@needs_ffmpeg
@pytest.mark.parametrize("rate", [44100, 48000, 22050])
@pytest.mark.parametrize(("suffix", "options"), [(".mp3", ("-q:a", "2")), (".mp3", ("-b:a", "128k")), (".m4a", ())])
def test_encoder_delay_is_taken_off(tmp_path: Path, suffix: str, options: tuple[str, ...], rate: int) -> None:
    x = np.zeros((2, 3 * rate + 123), np.float32)
    clicks = [1000, rate, 3 * rate - 2000]
    x[:, clicks] = 0.9
    source = FileSource(encode(tmp_path / f"x{suffix}", x, rate, *options))
    y = read(source)
    for click in clicks:
        assert int(np.argmax(np.abs(y[0, click - 900 : click + 900]))) == 900
    exact = suffix == ".mp3" and rate != 22050  # libsndfile 1.2.2 leaves 14 samples at the end of MPEG-2
    assert 0 <= y.shape[1] - x.shape[1] <= (0 if exact else 0.002 * rate)


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["flac", "wav"])
def test_a_file_written_into_a_pipe_does_not_know_its_length(tmp_path: Path, kind: str) -> None:
    sf.write(tmp_path / "x.wav", noise(2).T, RATE, subtype="PCM_16")
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "x.wav"), "-f", kind, "-"]
    (tmp_path / f"piped.{kind}").write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    piped = FileSource(tmp_path / f"piped.{kind}")
    np.testing.assert_array_equal(read(piped), read(FileSource(tmp_path / "x.wav")))


def test_m4a_without_ffmpeg_names_the_file_and_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "song.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(600))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"song\.m4a.*needs? ffmpeg.*install"):
        FileSource(tmp_path / "song.m4a")


def bext(reference: int) -> bytes:
    body = bytes(338) + struct.pack("<Q", reference) + bytes(256)
    return struct.pack("<4sI", b"bext", len(body)) + body


def test_time_reference_is_read_before_and_after_the_data(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    sf.write(path, noise(1, 1001).T, RATE, subtype="PCM_24")  # an odd number of bytes
    plain = path.read_bytes()
    assert probe(path).time_reference is None
    path.write_bytes(plain[:12] + bext(5_000_000_000) + plain[12:])
    assert probe(path).time_reference == 5_000_000_000
    path.write_bytes(plain + bytes(len(plain) % 2) + bext(77))
    assert probe(path).time_reference == 77
    assert FileSource(path).frames == 1001


def damaged(folder: Path) -> Iterator[tuple[Path, str]]:
    x = noise(2, 200_000)

    def put(name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    yield put("kick.wav", b"not audio at all\n" * 50), "text file"
    yield put("kick.mp3", b"not audio at all\n" * 50), "text file"
    yield put("empty.flac", b""), "empty"
    yield put("junk.wav", bytes(range(256)) * 40), "no audio file"
    for name in ("cut.flac", "cut.wav", "cut.aiff"):
        sf.write(folder / name, x.T, RATE, subtype="PCM_16")
        whole = (folder / name).read_bytes()
        if name != "cut.aiff":
            yield put(name, whole[: len(whole) // 2]), "cut short"
    sf.write(folder / "none.wav", x[:, :0].T, RATE)
    yield folder / "none.wav", "zero length"
    for value in (np.nan, np.inf, 2e6):
        bad = x.copy()
        bad[1, 150_000] = value
        sf.write(folder / "bad.wav", bad.T, RATE, subtype="FLOAT")
        yield folder / "bad.wav", r"absurd sample at 3\.401 s"
    yield folder / "missing.wav", "No such file"
    yield folder, "Is a directory"


def test_bad_files_are_named_with_the_mend(tmp_path: Path) -> None:
    seen = 0
    for path, says in damaged(tmp_path):
        with pytest.raises(InputError, match=says) as caught:
            read(FileSource(path))
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        seen += 1
    assert seen == 12


def test_mp3_that_is_cut_short(tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg on this machine")
    path = encode(tmp_path / "x.mp3", noise(2, 200_000), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"x\.mp3: the file ends early"):
        read(FileSource(path))


def test_subnormals_are_flushed(tmp_path: Path) -> None:
    x = np.full((1, 1000), 1e-40, np.float32)
    sf.write(tmp_path / "x.wav", x.T, RATE, subtype="FLOAT")
    spool = TemporaryAudio(RATE, 1)
    spool.write(x)
    assert not read(FileSource(tmp_path / "x.wav")).any()
    assert not read(spool.source()).any()


def test_sources_are_read_from_many_threads_at_once(tmp_path: Path) -> None:
    x = noise(2, 200_000)
    sf.write(tmp_path / "x.flac", x.T, RATE, subtype="PCM_24")
    sf.write(tmp_path / "x.ogg", x.T, RATE)
    sources = [FileSource(tmp_path / "x.flac"), FileSource(tmp_path / "x.ogg"), resampled(ArraySource(x, RATE), 48000)]
    with ThreadPoolExecutor(8) as pool:
        for source in sources:
            results = list(pool.map(lambda _, s=source: read(s), range(8)))
            assert all(np.array_equal(results[0], result) for result in results)


def test_temporary_audio_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    spool = TemporaryAudio(RATE, 2)
    x = noise(2, 10_000)
    spool.write(x[:, :4000])
    spool.write(x[:, 4000:])
    source, file = spool.source(), spool._file
    np.testing.assert_array_equal(read(source, 3000, 5000), x[:, 3000:5000])
    assert os.fstat(file.fileno()).st_size >= 80_000
    if sys.platform != "win32":
        assert not list(tmp_path.iterdir())  # not even if the process were killed now
    with pytest.raises(ProcessingError):
        spool.write(x)
    del spool, source
    gc.collect()
    assert file.closed


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on open files")
def test_there_is_room_for_many_temporary_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, hard), hard))
    try:
        spools = [TemporaryAudio(RATE, 1) for _ in range(100)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len({spool._file.fileno() for spool in spools}) == 100


@pytest.mark.parametrize(("old", "new"), [(44100, 48000), (48000, 44100), (96000, 48000), (22050, 48000)])
def test_resampling_keeps_time_level_and_length(old: int, new: int) -> None:
    n = 2 * old + 17
    t = np.arange(n) / old
    x = np.stack([0.5 * np.sin(2 * np.pi * 997 * t), np.zeros(n)]).astype(np.float32)
    x[1, old] = 1.0
    source = resampled(ArraySource(x, old), new)
    y = read(source)
    assert y.shape == (2, round(n * new / old)) == (source.channels, source.frames)
    expected = 0.5 * np.sin(2 * np.pi * 997 * np.arange(y.shape[1]) / new)
    middle = slice(new // 4, -new // 4)
    assert np.abs(y[0, middle] - expected[middle]).max() < 1e-5
    assert int(np.argmax(np.abs(y[1]))) == new
    assert resampled(source, new) is source


# ---------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_written_reads_back(tmp_path: Path, encoding: Encoding, channels: int) -> None:
    x = noise(channels, 50_001)
    x[0, :3] = 1.0, -1.0, 1.5
    path = tmp_path / f"x{encoding.suffix}"
    assert write(path, x, encoding) == write(tmp_path / f"y{encoding.suffix}", x, encoding, size=777)
    info = sf.info(path)
    assert (info.frames, info.channels, info.samplerate) == (50_001, channels, RATE)
    assert info.subtype == {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}[encoding.bits]
    step = {16: 2.0**-15, 24: 2.0**-23, 32: 0.0}[encoding.bits]
    expected = np.clip(x, -1.0, 1.0 - step) if step else x
    # To nearest: half a step, and a whole one more for dither; floor would be off by half a step on average.
    error = read(FileSource(path)).astype(np.float64) - expected
    assert np.abs(error).max() <= (1.5 if encoding.bits == 16 else 0.5) * step * 1.0001
    assert abs(error.mean()) < 0.02 * step + 1e-12


def write(path: Path, x: FloatArray, encoding: Encoding | str, size: int = 65536, seed: int = 0) -> bytes:
    with Writer(path, RATE, x.shape[0], encoding, seed=seed, force=True) as w:
        for at in range(0, x.shape[1], size):
            w.write(x[:, at : at + size])
    return path.read_bytes()


def test_dither_is_seeded_triangular_and_spares_silence(tmp_path: Path) -> None:
    assert not np.frombuffer(write(tmp_path / "s.wav", np.zeros((2, 1000), np.float32), "wav16")[80:], np.int16).any()
    x = np.full((1, 100_000), 0.25 * 2**-15, np.float32)  # a quarter of a step: undithered, it would vanish
    same, again, other = (write(tmp_path / "d.wav", x, "wav16", seed=seed) for seed in (1, 1, 2))
    assert same == again != other
    steps = np.frombuffer(other[80:], np.int16)
    assert abs(steps.mean() - 0.25) < 0.01
    assert set(np.unique(steps)) <= {-1, 0, 1}


def test_wav_beyond_4_gb_is_rf64(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    gap = 5_000_000_000  # a hole in the file: takes no room
    with _Wav(path, 48000, 2, 16) as wav:
        wav.write(np.full((10, 2), 1000, np.int16))
        wav._file.seek(gap, os.SEEK_CUR)
        wav._bytes += gap
        wav.write(np.full((10, 2), 2000, np.int16))
    facts = probe(path)
    assert (facts.format, facts.frames) == ("RF64", gap // 4 + 20)
    np.testing.assert_array_equal(read(FileSource(path), facts.frames - 11)[0] * 2**15, [0] + [2000] * 10)
    with path.open("r+b") as f:
        f.truncate(gap)
    with pytest.raises(InputError, match="cut short"):
        probe(path)


def test_encoding_follows_the_suffix_or_the_name() -> None:
    assert encoding_for("a.wav") == "wav24"
    assert encoding_for(Path("a.FLAC")) == "flac24"
    assert encoding_for("a.wav", "wav32f") is Encoding.WAV32F
    for path, name in (("a.mp3", None), ("a", None), ("a.flac", "wav16"), ("a.wav", "loud")):
        with pytest.raises(InputError):
            encoding_for(path, name)


def test_an_existing_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="exists already"), Writer(path, RATE, 1):
        pass
    with pytest.raises(ValueError, match="2 channels"), Writer(path, RATE, 2, force=True) as w:
        w.write(noise(1))
    assert path.read_bytes() == b"precious"
    with Writer(path, RATE, 1, force=True) as w:
        w.write(noise(1))
    assert FileSource(path).frames == 100_000
    assert os.listdir(tmp_path) == ["out.wav"]


def test_wrong_places_to_write(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "no" / "out.wav", "there is no folder"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=says), atomic_path(path):
            pass
    with pytest.raises(ProcessingError, match="not finite"), Writer(tmp_path / "x.wav", RATE, 1) as w:
        w.write(np.full((1, 4), np.nan, np.float32))
    assert not list(tmp_path.iterdir())


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit to fill the disk with")
@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, encoding: Encoding, share: float) -> None:
    x = noise(2, 50_000)
    path = tmp_path / f"x{encoding.suffix}"
    size = len(write(path, x, encoding))
    path.unlink()
    with pytest.raises(ProcessingError, match="cannot be written"), disk_of(int(size * share)):
        write(path, x, encoding)
    with pytest.raises(ProcessingError, match="free space"), disk_of(100_000):
        TemporaryAudio(RATE, 2).write(x)
    assert not list(tmp_path.iterdir())


def test_a_spooled_source_is_decoded_once_and_only_if_asked() -> None:
    x, reads = noise(2), []

    class Counted(ArraySource):
        def blocks(self, *span: int, **options: int) -> Iterator[FloatArray]:
            reads.append(span)
            return super().blocks(*span, **options)

    source = spooled(Counted(x, RATE))
    assert (source.sample_rate, source.channels, source.frames, reads) == (RATE, 2, x.shape[1], [])
    for start, stop in ((0, 100), (50_000, 60_000), (0, x.shape[1])):
        np.testing.assert_array_equal(read(source, start, stop), x[:, start:stop])
    assert len(reads) == 1


def test_blocks_are_made_ahead_in_order_and_errors_reach_who_asks() -> None:
    made = []

    def blocks(count: int) -> Iterator[FloatArray]:
        for number in range(count):
            made.append(number)
            yield np.full((1, 2), number, np.float32)
        if count > 5:
            raise InputError("no more")

    assert [int(block[0, 0]) for block in ahead(blocks(5))] == list(range(5))
    assert not list(ahead(blocks(0)))
    with pytest.raises(InputError, match="no more"):
        list(ahead(blocks(6)))
    made.clear()
    some = ahead(blocks(5))
    next(some)
    some.close()  # who asks no longer wants the rest
    assert len(made) <= 2
