"""Samples in one pass: the same as libsndfile's reading and numpy's rounding, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from mixrl.audio import BLOCK, FileSource, TemporaryAudio, Writer, read
from mixrl.headers import SAMPLE_BYTES
from mixrl.pcm import flush, packed_24, rounded, unpacked

RATE = 44100


@pytest.mark.parametrize("encoding", SAMPLE_BYTES)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_unpacked_is_what_libsndfile_reads(tmp_path: Path, encoding: str, channels: int) -> None:
    rng = np.random.default_rng(channels)
    size = SAMPLE_BYTES[encoding]
    if encoding == "FLOAT":
        raw = rng.standard_normal(999 * channels).astype("<f4").tobytes()
    else:
        raw = bytes(rng.integers(0, 256, (999 - 3) * channels * size, dtype=np.uint8))
        lowest, highest, one = b"\0" * (size - 1) + b"\x80", b"\xff" * (size - 1) + b"\x7f", b"\1" + b"\0" * (size - 1)
        raw += (lowest + highest + one) * channels
    path = tmp_path / "x.raw"
    path.write_bytes(raw)
    options = {"samplerate": RATE, "channels": channels, "format": "RAW", "endian": "LITTLE", "subtype": encoding}
    expected = sf.read(path, dtype="float32", always_2d=True, **options)[0].T
    np.testing.assert_array_equal(unpacked(raw, encoding, channels), expected)


def test_wav_is_read_without_libsndfile_only_where_its_samples_lie_plainly(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (1000, 2))
    for name, plain in (("PCM_16", True), ("PCM_24", True), ("FLOAT", True), ("DOUBLE", False), ("ULAW", False)):
        path = tmp_path / f"{name}.wav"
        sf.write(path, x, RATE, subtype=name)
        source = FileSource(path)
        assert (source.probed.data_at is not None) == plain
        np.testing.assert_array_equal(read(source), sf.read(path, dtype="float32")[0].T)
    big = tmp_path / "big.wav"
    sf.write(big, x, RATE, subtype="PCM_24", endian="BIG")
    assert FileSource(big).probed.data_at is None
    np.testing.assert_array_equal(read(FileSource(big)), sf.read(big, dtype="float32")[0].T)


@pytest.mark.parametrize("bits", [16, 24])
def test_rounded_is_to_nearest_even_and_clipped(bits: int) -> None:
    rng = np.random.default_rng(bits)
    scale = 2.0 ** (bits - 1)
    halves = (np.arange(-8, 8) + 0.5) / scale
    x = np.concatenate([rng.uniform(-1.2, 1.2, 1000), halves, [1.0, -1.0, 2.0, -2.0, 0.0]]).astype(np.float32)
    block = np.stack([x, -x])
    expected = np.clip(np.rint(block.T * np.float64(scale)), -scale, scale - 1).astype(np.int32)
    np.testing.assert_array_equal(rounded(block, bits), expected)


def test_packed_24_is_what_unpacked_takes() -> None:
    whole = np.random.default_rng(1).integers(-(2**23), 2**23, (500, 2)).astype(np.int32)
    np.testing.assert_array_equal(unpacked(packed_24(whole), "PCM_24", 2), (whole.T / 2**23).astype(np.float32))


def test_flush_takes_subnormal_numbers_alone() -> None:
    least = np.finfo(np.float32).tiny
    block = np.array([[1.0, -least, 0.5 * least, -1e-44, 0.0, np.nan, -np.inf]], np.float32)
    flush(block)
    np.testing.assert_array_equal(block, np.array([[1.0, -least, 0.0, 0.0, 0.0, np.nan, -np.inf]], np.float32))
    flush(block, 2.0)
    assert (block[0, :5] == 0.0).all()


def test_temporary_audio_gives_back_any_span_of_any_blocks() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 3 * BLOCK + 777)).astype(np.float32)
    spool, at = TemporaryAudio(RATE, 2), 0
    for count in (1, BLOCK - 1, 100, BLOCK, 12_345, x.shape[1]):
        spool.write(x[:, at : at + count])
        at = min(at + count, x.shape[1])
    source = spool.source()
    assert source.frames == x.shape[1]
    for start, stop in ((0, x.shape[1]), (BLOCK - 5, BLOCK + 5), (70_000, 140_001), (x.shape[1] - 1, x.shape[1])):
        np.testing.assert_array_equal(read(source, start, stop), x[:, start:stop])
    sizes = [block.shape[1] for block in source.blocks(10, 10 + 2 * BLOCK, size=50_000)]
    assert sizes == [50_000, 50_000, 2 * BLOCK - 100_000]


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    from mixrl.errors import InputError

    path = tmp_path / "x.wav"
    with Writer(path, RATE, 1) as writer:
        writer.write(np.zeros((1, 5 * BLOCK), np.float32))
    source = FileSource(path)
    blocks = source.blocks()
    next(blocks)
    with path.open("rb+") as file:
        file.truncate(3 * 2 * BLOCK)
    with pytest.raises(InputError, match="changed while it was read"):
        list(blocks)
