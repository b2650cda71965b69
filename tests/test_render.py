from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from mixrl import variants
from mixrl.audio import ArraySource, read
from mixrl.errors import InputError
from mixrl.meters import measure_array
from mixrl.render import SumSource, mix_frames, render_stem, render_sum
from mixrl.session import Session
from mixrl.settings import NEUTRAL_EQ, MixSettings, StripSettings
from mixrl.strip import response
from mixrl.variants import variant

RATE = 44_100
BUSY = StripSettings(
    gain_db=-3.0,
    pan=0.3,
    highpass_hz=60.0,
    eq=tuple(replace(band, gain_db=4.0) for band in NEUTRAL_EQ),
)


def bursts(seed: int, channels: int, frames: int) -> np.ndarray:
    """Noise bursts twice a second, as loud as a stem."""
    rng = np.random.default_rng(seed)
    envelope = np.exp(-(np.arange(frames) % (RATE // 2)) / (0.1 * RATE))
    return (0.3 * envelope * rng.standard_normal((channels, frames))).astype(np.float32)


@pytest.fixture
def session() -> Session:
    """Mono and stereo, unequal in length, one silent."""
    return Session.from_arrays(
        {
            "kick": bursts(0, 1, 3 * RATE),
            "drums/overheads": bursts(1, 2, 4 * RATE + 17),
            "vox": bursts(2, 1, 2 * RATE + 5),
            "silent": np.zeros((2, RATE), np.float32),
        },
        RATE,
    )


def joined(blocks: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(blocks), axis=1)


def settings_for(session: Session, strip: StripSettings) -> MixSettings:
    return MixSettings(dict.fromkeys(session.names, strip))


def db(ratio: float) -> float:
    return 20 * math.log10(max(ratio, 1e-12))


def test_neutral_settings_null_against_the_plain_sum(session: Session) -> None:
    plain = np.zeros((2, session.frames))
    for name in session.names:
        plain += session.read(name)
    mix = joined(render_sum(session, MixSettings.neutral(session.names)))
    assert mix.dtype == np.float32
    assert mix.shape == plain.shape == (2, 4 * RATE + 17)
    assert db(np.abs(mix - plain).max() / np.abs(plain).max()) < -120


def test_one_stem_alone_is_bit_for_bit_itself(session: Session) -> None:
    neutral = MixSettings.neutral(session.names)
    assert np.array_equal(joined(render_stem(session, neutral, "drums/overheads")), session.read("drums/overheads"))


def test_gain_group_polarity_and_pan() -> None:
    session = Session.from_arrays({"a": bursts(0, 1, 5000), "b": bursts(1, 2, 5000)}, RATE)
    settings = MixSettings(
        {"a": StripSettings(gain_db=-6.0, invert=True, pan=-1.0), "b": StripSettings(pan=0.5)},
        {"g": 2.0},
        {"a": "g"},
    )
    a, b = joined(render_stem(session, settings, "a")), joined(render_stem(session, settings, "b"))
    factor = -(10 ** (-4.0 / 20)) * math.sqrt(2)
    assert a[0] == pytest.approx(factor * session.read("a")[0], rel=1e-6)
    assert np.abs(a[1]).max() < 1e-12
    assert np.array_equal(b[1], session.read("b")[1])
    assert b[0] == pytest.approx(math.tan(math.pi / 8) * session.read("b")[0], rel=1e-6)
    assert joined(render_sum(session, settings)) == pytest.approx(a + b, abs=1e-7)


def test_filters_do_what_the_response_says(session: Session) -> None:
    """Gain, pan, high-pass and EQ of a real render against the spectrum that the settings predict."""
    wet = joined(render_stem(session, settings_for(session, BUSY), "vox"))
    dry = session.read("vox")[0]
    freqs = np.fft.rfftfreq(len(dry), 1 / RATE)
    expected = np.fft.irfft(np.fft.rfft(dry) * response(BUSY, freqs, RATE), len(dry))
    near = 10 ** (-3 / 20) * math.sqrt(2) * math.cos(0.7 * math.pi / 4)
    assert db(np.abs(wet[1] - near * expected).max() / np.abs(wet[1]).max()) < -70


def test_the_sum_is_the_same_however_often_and_in_whatever_blocks(session: Session) -> None:
    settings = settings_for(session, BUSY)
    once = joined(render_sum(session, settings))
    again = read(SumSource(session, settings))
    small = joined(render_sum(session, settings, size=8192))
    assert np.array_equal(once, again)
    assert np.abs(small - once).max() < 1e-7
    stems = [joined(render_stem(session, settings, name)) for name in session.names]
    assert np.array_equal(sum(stems), once)


@pytest.mark.parametrize("start", [1, 40, RATE // 3, 2 * RATE, 4 * RATE])
def test_an_excerpt_is_a_part_of_the_whole(session: Session, start: int) -> None:
    settings = settings_for(session, BUSY)
    stop = min(start + RATE // 2, session.frames)
    whole = joined(render_sum(session, settings))[:, start:stop]
    part = joined(render_sum(session, settings, start, stop))
    assert part.shape == whole.shape
    assert db(np.abs(part - whole).max() / np.abs(whole).max()) < -80


def test_tails_ring_out_and_silence_is_not_filtered() -> None:
    """A stem that stops: the ringing of a resonant filter is there; long after, and before, nothing is."""
    pause, hit = np.zeros((1, 6 * RATE), np.float32), bursts(0, 1, RATE)
    ringing = StripSettings().with_band(1, frequency_hz=100.0, gain_db=18.0, q=10.0)
    session = Session.from_arrays({"a": np.concatenate([pause, hit, pause, hit, pause], axis=1)}, RATE)
    wet = joined(render_sum(session, settings_for(session, ringing)))
    assert not wet[:, : 6 * RATE].any()
    assert np.abs(wet[:, 7 * RATE : 7 * RATE + 2000]).max() > 1e-4
    assert not wet[:, 11 * RATE : 13 * RATE].any()
    # The second hit sounds as if the filter had run all the time.
    first, second = wet[:, 6 * RATE : 8 * RATE], wet[:, 13 * RATE : 15 * RATE]
    assert db(np.abs(first - second).max() / np.abs(first).max()) < -80


def test_subnormal_samples_do_not_slow_it_down() -> None:
    """Without care they do, 47 times; a generous bound, for machines are busy."""
    loud = bursts(0, 2, 20 * RATE)
    faint = (loud * 1e-39).astype(np.float32)
    assert (np.abs(faint[faint != 0]) < 1.2e-38).mean() > 0.9
    seconds = []
    for audio in (loud, faint):
        session = Session.from_arrays({"a": audio, "b": audio}, RATE)
        settings = settings_for(session, BUSY)
        began = time.perf_counter()
        for _ in render_sum(session, settings):
            pass
        seconds.append(time.perf_counter() - began)
    assert seconds[1] < 4 * seconds[0] + 0.1


@pytest.mark.parametrize("frames", [1, 2, 3, 63, 64, 65, 8193])
@pytest.mark.parametrize("channels", [1, 2])
def test_very_short_stems(frames: int, channels: int) -> None:
    session = Session.from_arrays({"a": bursts(0, channels, frames)}, RATE)
    wet = joined(render_sum(session, settings_for(session, BUSY)))
    assert wet.shape == (2, frames)
    assert wet.any()
    assert joined(render_sum(session, settings_for(session, replace(BUSY, compressor="firm")))).shape == (2, frames)


def test_closing_early_leaves_no_threads(session: Session) -> None:
    before = threading.active_count()
    blocks = render_sum(session, settings_for(session, BUSY), size=4096)
    next(blocks)
    blocks.close()
    assert threading.active_count() == before


def test_settings_for_other_stems_are_refused(session: Session) -> None:
    with pytest.raises(InputError, match="'bass'"):
        next(render_sum(session, MixSettings.neutral([*session.names, "bass"])))
    with pytest.raises(InputError, match="'vox'"):
        SumSource(session, MixSettings.neutral(set(session.names) - {"vox"}))


# ------------------------------------------------------------------------------------------------------ variants


@pytest.mark.parametrize("preset", ["gentle", "medium", "firm"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("level_db", [0.0, -40.0])
def test_compressed_stems_are_as_loud_as_dry_ones(preset: str, channels: int, level_db: float) -> None:
    dry = bursts(4, channels, 3 * RATE + 1234) * np.float32(10 ** (level_db / 20))
    session = Session.from_arrays({"a": dry, "longer": np.zeros(5 * RATE, np.float32)}, RATE)
    wet = variant(session, "a", preset)
    audio = read(wet.source)
    assert audio.shape == (channels, 5 * RATE)
    loudness = [measure_array(x, RATE).integrated_lufs for x in (dry, audio[:, : dry.shape[1]])]
    assert loudness[1] == pytest.approx(loudness[0], abs=0.1)
    assert wet.gain_reduction_db > 0.5
    assert wet.makeup_db > 0.5
    assert not np.allclose(audio[:, : dry.shape[1]], dry, rtol=0.2)


def test_the_gate_at_minus_70_is_reckoned_with() -> None:
    """Faint hits around -66 LUFS: make-up lifts blocks over the gate, so one reading alone does not match."""
    dry = bursts(5, 1, 8 * RATE) * np.geomspace(4e-3, 2e-4, 8 * RATE).astype(np.float32)
    session = Session.from_arrays({"a": dry}, RATE)
    wet = read(variant(session, "a", "firm").source)
    expected = measure_array(dry, RATE).integrated_lufs
    assert expected is not None
    assert expected < -60
    assert measure_array(wet, RATE).integrated_lufs == pytest.approx(expected, abs=0.1)


def test_silent_and_tiny_stems_are_not_compressed() -> None:
    tiny = bursts(0, 1, RATE // 4)
    session = Session.from_arrays({"tiny": tiny, "none": np.zeros(RATE, np.float32)}, RATE)
    for name in session.names:
        assert np.array_equal(read(variant(session, name, "firm").source), session.read(name))
        assert variant(session, name, "firm").gain_reduction_db == 0.0


def test_off_is_the_stem_itself(session: Session) -> None:
    off = variant(session, session.stem("vox"))
    assert np.array_equal(read(off.source), session.read("vox"))
    assert (off.gain_reduction_db, off.makeup_db) == (0.0, 0.0)


def test_a_variant_is_rendered_once_and_goes_with_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = []
    original = variants._render

    def counted(*args: object) -> object:
        rendered.append(args[2:])
        time.sleep(0.05)
        return original(*args)

    monkeypatch.setattr(variants, "_render", counted)
    session = Session.from_arrays({"a": bursts(0, 1, RATE)}, RATE)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(variant, session, "a", "firm") for _ in range(3)]
        found = [read(future.result().source) for future in asked]
    assert rendered == [("firm", 1.0)]
    assert np.array_equal(found[0], found[1])
    key, file = id(session), asked[0].result().source.inner.inner._file
    assert key in variants._caches
    assert not file.closed
    del session, asked
    gc.collect()
    assert key not in variants._caches
    assert file.closed


def test_failures_are_raised_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session.from_arrays({"a": bursts(0, 1, RATE)}, RATE)
    settings = settings_for(session, replace(BUSY, compressor="firm"))

    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(variants, "_render", full)
        with pytest.raises(OSError, match="disk full"):
            joined(render_sum(session, settings))
    assert joined(render_sum(session, settings)).any()


def test_unknown_variants_are_refused(session: Session) -> None:
    for wrong in (("bass", "off", 1.0), ("vox", "brutal", 1.0), ("vox", "off", 3.0), ("vox", "off", math.nan)):
        with pytest.raises(InputError):
            variant(session, *wrong)


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_another_tempo_moves_the_stem_and_ends_the_mix_elsewhere(ratio: float) -> None:
    """A click late in a stem that itself starts late: both times scale, level and pitch stay."""
    pytest.importorskip("mixrl.tempo")
    tone = np.zeros(4 * RATE, np.float32)
    tone[2 * RATE :] = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE)
    session = Session.from_arrays({"a": tone, "b": bursts(0, 1, 3 * RATE)}, RATE)
    late = replace(session.stem("a"), source=ArraySource(tone, RATE), offset=RATE)
    session = replace(session, stems=(late, session.stem("b")), frames=5 * RATE)
    settings = MixSettings({"a": StripSettings(tempo_ratio=ratio), "b": StripSettings()})
    expected = max(round(5 * RATE / ratio), 3 * RATE)
    assert mix_frames(session, settings) == expected
    mix = joined(render_sum(session, settings))
    assert mix.shape == (2, expected)
    wet = joined(render_stem(session, settings, "a"))[0]
    begins = int(np.argmax(np.abs(wet) > 0.1)) / RATE
    assert begins == pytest.approx(3 / ratio, abs=0.03)
    steady = wet[round((3 / ratio + 0.3) * RATE) :][: RATE // 2]
    spectrum = np.abs(np.fft.rfft(steady * np.hanning(len(steady))))
    assert np.argmax(spectrum) * RATE / len(steady) == pytest.approx(1000, abs=5)
    loud = [measure_array(x, RATE).integrated_lufs for x in (tone[None], wet[None])]
    assert loud[1] == pytest.approx(loud[0], abs=0.1)
