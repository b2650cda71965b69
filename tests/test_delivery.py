"""Delivered files, measured as decoded again by independent meters (libebur128, and ffmpeg where present)."""

from __future__ import annotations

import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from mixrl import delivery
from mixrl.audio import ArraySource
from mixrl.delivery import MAX_LIMITING_DB, MIN_PSR_DB, deliver, master_array, master_gain
from mixrl.errors import InputError
from mixrl.limiter import Limiter
from mixrl.meters import measure_array
from mixrl.settings import MasterSettings

RATE = 44100
ENCODINGS = ("wav16", "wav24", "wav32f", "flac16", "flac24")


def pink(n, channels, seed=5):
    random = np.random.default_rng(seed)
    frequencies = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 30.0)
    x = np.fft.irfft(np.fft.rfft(random.standard_normal((channels, n)), axis=1) / np.sqrt(frequencies), n)
    return x / np.abs(x).max()


def music(seconds, channels=2):
    """Noise with beats: about 13 dB from peak to loudness, so that -14 LUFS needs a little limiting."""
    n = int(seconds * RATE)
    beat = 0.45 + 0.55 * np.exp(-((np.arange(n) / RATE * 2) % 1) * 8)
    return (pink(n, channels) * beat).astype(np.float32)


def clicks(channels=2):
    x = np.zeros((channels, 16 * RATE), np.float32)
    x[:, RATE :: 5 * RATE] = 1.0
    return x


def square(level=0.3):
    t = np.arange(5 * RATE) / RATE
    return np.tile(level * np.sign(np.sin(2 * np.pi * 220 * t + 0.1)), (2, 1)).astype(np.float32)


def decoded(path):
    import soundfile

    y, rate = soundfile.read(path, always_2d=True)
    assert rate == RATE
    return y.T


def libebur128(path):
    """(integrated LUFS, true peak dBTP) of a file; mono as dual mono."""
    ebur128 = pytest.importorskip("pyebur128", reason="cross-check needs the test extra")
    y = decoded(path)
    y = np.repeat(y, 2, axis=0) if y.shape[0] == 1 else y
    modes = ebur128.MeasurementMode
    state = ebur128.R128State(2, RATE, modes.MODE_I | modes.MODE_TRUE_PEAK)
    state.add_frames(np.ascontiguousarray(y.T.ravel()), y.shape[1])
    peak = max(ebur128.get_true_peak(state, c) for c in range(2))
    return ebur128.get_loudness_global(state), 20 * math.log10(max(peak, 1e-9))


def ffmpeg(path):
    """The same by ffmpeg, which prints tenths."""
    command = ["ffmpeg", "-hide_banner", "-nostats", "-i", str(path), "-af", "ebur128=peak=true:dualmono=true"]
    text = subprocess.run([*command, "-f", "null", "-"], capture_output=True, text=True, check=True).stderr
    summary = text[text.rindex("Summary:") :]
    found = [re.search(pattern, summary) for pattern in (r"I:\s+(\S+) LUFS", r"Peak:\s+(\S+) dBFS")]
    return tuple(float(match.group(1)) for match in found)


MATERIAL = {
    # name: premaster, target, target in reach
    "music": (lambda: music(6), -14.0, True),
    "mono": (lambda: 0.3 * music(6, 1), -14.0, True),
    "hot": (lambda: 5.0 * music(6), -14.0, True),
    "quiet": (lambda: 0.0178 * music(6), -14.0, True),
    "to be quiet": (lambda: music(6), -50.0, True),
    "a second": (lambda: music(1.0), -14.0, True),
    "half a second": (lambda: music(0.5), -16.0, True),
    "clicks": (clicks, -45.0, True),
    "mono clicks": (lambda: clicks(1), -45.0, True),
    "clicks, too loud": (clicks, -14.0, False),
    "driven": (lambda: music(6), -11.0, True),
    "too loud": (lambda: music(6), -5.0, False),
}


@pytest.mark.parametrize("name", MATERIAL)
def test_files_meet_target_and_ceiling(name, tmp_path):
    make, target, in_reach = MATERIAL[name]
    source = ArraySource(make(), RATE)
    for encoding in ENCODINGS if name == "music" else ("wav16", "flac24"):
        path = tmp_path / f"out{'.flac' if 'flac' in encoding else '.wav'}"
        got = deliver(source, path, MasterSettings(target_lufs=target), encoding=encoding, force=True)
        loudness, peak = libebur128(path)
        assert peak <= -1.0
        assert got.measurement.true_peak_dbtp <= -1.0
        assert got.measurement.integrated_lufs == pytest.approx(loudness, abs=0.1)
        assert got.target_reached == in_reach
        assert decoded(path).shape == source.array.shape
        if in_reach:
            assert loudness == pytest.approx(target, abs=0.1)
            assert got.warnings == ()
        else:
            assert loudness < target
            assert len(got.warnings) == 1
            assert f"{got.measurement.integrated_lufs:.1f} LUFS" in got.warnings[0]
        assert got.limiting_db <= MAX_LIMITING_DB
        assert got.measurement.psr_db >= MIN_PSR_DB


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="cross-check needs ffmpeg")
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_ffmpeg_agrees(encoding, tmp_path):
    path = tmp_path / f"out{'.flac' if 'flac' in encoding else '.wav'}"
    for channels in (1, 2):
        x = music(6, channels)
        deliver(ArraySource(x, RATE), path, MasterSettings(target_lufs=-12.0), encoding=encoding, force=True)
        loudness, peak = ffmpeg(path)
        assert loudness == pytest.approx(-12.0, abs=0.1001)
        assert peak <= -1.0


def test_quiet_premaster_is_really_at_minus_50_and_hot_one_12_db_over():
    assert measure_array(MATERIAL["quiet"][0](), RATE).integrated_lufs == pytest.approx(-50.0, abs=2.0)
    assert measure_array(MATERIAL["hot"][0](), RATE).sample_peak_dbfs == pytest.approx(12.0, abs=0.5)


@pytest.mark.parametrize("target", [-14.0, -11.0])
def test_gain_does_not_depend_on_level_or_stored_gain_and_is_found_in_few_passes(target):
    x = music(6)
    gains = []
    for level_db, stored in ((0.0, 0.0), (0.0, 25.0), (-20.0, 0.0), (12.0, -40.0)):
        source = ArraySource(x * 10 ** (level_db / 20), RATE)
        gain_db, found = master_gain(source, MasterSettings(stored, -1.0, target))
        gains.append(gain_db + level_db)
        assert found.integrated_lufs == pytest.approx(target, abs=0.051)
        assert found.passes <= 3
    assert gains[0] == gains[1]
    assert np.ptp(gains) < 0.01


def test_what_the_limit_stops_is_the_loudest_permitted():
    """0.2 dB more than the gain found breaks one of the limits, by independent arithmetic."""
    for x, target in ((music(6), -5.0), (0.3 * pink(6 * RATE, 2).astype(np.float32), -3.0)):
        gain_db, found = master_gain(ArraySource(x, RATE), MasterSettings(target_lufs=target))
        assert not found.target_reached
        limits = []
        for more_db in (0.0, 0.2):
            limiter = Limiter(RATE, 2, -1.0)
            driven = (x * 10 ** ((gain_db + more_db) / 20)).astype(np.float32)
            y = np.concatenate([limiter.process(driven), limiter.flush()], axis=1)
            p99 = np.percentile(limiter.gain_reduction_db(), 99)
            limits.append(p99 <= 6.0 and measure_array(y, RATE).psr_db >= 6.0)
        assert limits == [True, False]


def test_material_already_below_the_psr_limit_is_not_limited_further():
    x = square()
    before = measure_array(x, RATE)
    assert before.psr_db < MIN_PSR_DB
    gain_db, found = master_gain(ArraySource(x, RATE), MasterSettings(target_lufs=-8.0))
    assert found.target_reached
    assert found.passes == 0
    gain_db, found = master_gain(ArraySource(x, RATE), MasterSettings(target_lufs=0.0))
    assert not found.target_reached
    assert "it came with" in found.warnings[0]
    assert before.true_peak_dbtp + gain_db == pytest.approx(-1.0, abs=0.6)
    assert found.psr_db >= before.psr_db - 0.01


def test_turning_up_lone_clicks_stops_at_the_ceiling():
    gain_db, found = master_gain(ArraySource(clicks(), RATE), MasterSettings(target_lufs=-14.0))
    assert gain_db == pytest.approx(-1.0, abs=0.2)
    assert "no more" in found.warnings[0]


@pytest.mark.parametrize("encoding", ["wav16", "wav24", "flac16"])
def test_silence_stays_silence(encoding, tmp_path):
    path = tmp_path / f"out{'.flac' if 'flac' in encoding else '.wav'}"
    got = deliver(ArraySource(np.zeros((2, RATE), np.float32), RATE), path, MasterSettings(), encoding=encoding)
    assert not decoded(path).any()
    assert not got.target_reached
    assert got.measurement.integrated_lufs is None
    assert got.warnings == ("the mix is silent: written as silence",)


def test_clips_without_loudness_keep_their_gain_and_are_limited(tmp_path):
    x = 3.0 * music(0.2)
    got = deliver(ArraySource(x, RATE), tmp_path / "out.wav", MasterSettings(gain_db=3.0))
    assert got.gain_db == 3.0
    assert not got.target_reached
    assert "shorter than 0.4 s" in got.warnings[0]
    assert libebur128(tmp_path / "out.wav")[1] <= -1.0
    got = deliver(ArraySource(1e-5 * music(2), RATE), tmp_path / "faint.wav", MasterSettings())
    assert got.gain_db == 0.0
    assert "-70 LUFS" in got.warnings[0]


def test_without_a_target_the_gain_is_as_set(tmp_path):
    x = music(2)
    got = deliver(ArraySource(x, RATE), tmp_path / "out.wav", MasterSettings(-6.0, -3.0, None), encoding="wav32f")
    assert got.gain_db == -6.0
    assert got.target_reached
    assert got.warnings == ()
    assert libebur128(tmp_path / "out.wav")[1] <= -3.0
    quiet = deliver(ArraySource(x, RATE), tmp_path / "quiet.wav", MasterSettings(-20.0, -3.0, None), encoding="wav32f")
    assert quiet.limiting_db == 0.0
    assert np.array_equal(decoded(tmp_path / "quiet.wav").astype(np.float32), x * np.float32(0.1))


def test_low_ceilings_hold_with_16_bits(tmp_path):
    """Under -20 dBTP dither counts for most."""
    master = MasterSettings(0.0, -20.0, None)
    got = deliver(ArraySource(music(2), RATE), tmp_path / "out.wav", master, encoding="wav16")
    assert got.measurement.true_peak_dbtp <= -20.0
    assert libebur128(tmp_path / "out.wav")[1] <= -20.0


def test_ceiling_is_met_again_when_the_file_is_over(tmp_path, monkeypatch):
    """A limiter with its margin gone wrong: the file is measured, found over, and written again."""
    monkeypatch.setattr("mixrl.limiter.MARGIN_DB", -0.3)
    got = deliver(ArraySource(music(2), RATE), tmp_path / "out.wav", MasterSettings(0.0, -6.0, None))
    assert -6.5 < got.measurement.true_peak_dbtp <= -6.0


def test_array_and_file_are_the_same_samples(tmp_path):
    x = music(3)
    master = MasterSettings(target_lufs=-12.0)
    deliver(ArraySource(x, RATE), tmp_path / "out.wav", master, encoding="wav32f")
    y = master_array(x, RATE, master)
    assert y.dtype == np.float32
    assert np.array_equal(decoded(tmp_path / "out.wav").astype(np.float32), y)


class Stream:
    """A source that counts how often it is read, and may fail on the way."""

    sample_rate, channels = RATE, 2

    def __init__(self, x, fail_at=None):
        self.x, self.frames, self.fail_at, self.reads = x, x.shape[1], fail_at, 0

    def blocks(self, start=0, stop=None, size=65536):
        self.reads += 1
        for at in range(start, self.frames if stop is None else stop, 5000):
            if self.fail_at is not None and at >= self.fail_at:
                raise RuntimeError("gone")
            yield self.x[:, at : at + 5000]


def test_a_stream_is_read_once_and_gives_the_same_file(tmp_path):
    x = music(4)
    stream = Stream(x)
    got = deliver(stream, tmp_path / "a.wav", MasterSettings(target_lufs=-11.0), seed=3, encoding="wav16")
    again = deliver(
        ArraySource(x, RATE), tmp_path / "b.wav", MasterSettings(target_lufs=-11.0), seed=3, encoding="wav16"
    )
    assert stream.reads == 1
    assert got == again
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_failures_leave_nothing_behind(tmp_path):
    path = tmp_path / "out.wav"
    with pytest.raises(RuntimeError, match="gone"):
        deliver(Stream(music(2), fail_at=40_000), path, MasterSettings())
    holed = music(2)
    holed[0, 50_000] = np.nan
    with pytest.raises(InputError):
        deliver(ArraySource(holed, RATE), path, MasterSettings())
    with pytest.raises(InputError):
        deliver(ArraySource(music(1), RATE), tmp_path / "absent" / "out.wav", MasterSettings())
    with pytest.raises(InputError):
        deliver(ArraySource(music(1), RATE), tmp_path / "out.mp3", MasterSettings())
    assert list(tmp_path.iterdir()) == []
    path.write_text("keep")
    with pytest.raises(InputError):
        deliver(ArraySource(music(1), RATE), path, MasterSettings())
    assert path.read_text() == "keep"


def search(loudness_of, limiting_of, target):
    """The search on a made-up mix: (outcome, passes)."""
    gains = []

    def trial(gain_db):
        gains.append(gain_db)
        return delivery._Outcome(gain_db, loudness_of(gain_db), limiting_of(gain_db), 20.0)

    before = measure_array(music(1), RATE)
    found, _ = delivery._search(trial, before, -1.0, target, 6.0)
    return found, len(gains)


def test_search_finds_the_target_where_the_gate_makes_loudness_jump_down():
    def jumpy(gain_db):
        return -20.0 + 0.7 * gain_db - (1.5 if gain_db > 7.0 else 0.0)

    for target in (-16.0, -15.4, -15.2, -14.0):
        found, _ = search(jumpy, lambda gain_db: 0.0, target)
        assert found.loudness == pytest.approx(target, abs=0.02)


def test_search_stops_below_the_limit_of_limiting():
    found, passes = search(lambda g: -20.0 + 0.5 * g, lambda g: max(0.0, 0.8 * (g - 3.0)) ** 1.3, -5.0)
    assert MAX_LIMITING_DB - 0.06 <= found.limiting_db <= MAX_LIMITING_DB
    assert passes <= 10


def test_search_ends_where_loudness_saturates():
    found, passes = search(lambda g: -20.0 + min(g, 5.0), lambda g: 0.0, -5.0)
    assert found.loudness == pytest.approx(-15.1, abs=0.03)
    assert found.gain_db == pytest.approx(4.9, abs=0.05)
    assert passes <= 30
