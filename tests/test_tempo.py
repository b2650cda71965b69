"""Tempo: estimates, what is called a loop at another tempo and what must never be, and the stretch itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mixrl import stretch as stretching
from mixrl.audio import ArraySource, read
from mixrl.errors import InputError
from mixrl.session import Session
from mixrl.tempo import Tempo, TempoPlan, estimate, session_tempo, stretch

RATE = 22050
SECONDS = 24
ALBUM = Path(__file__).resolve().parents[2] / "shared" / "data" / "everything-is-free"


def struck(
    times: Iterable[tuple[float, float]], *, decay: float = 0.05, hertz: float | None = None, seed: int = 0
) -> np.ndarray:
    """Noise (or tone) hits at (time, level)."""
    n = np.arange(int(0.25 * RATE))
    noise = np.random.default_rng(seed).standard_normal(n.size)
    body = noise if hertz is None else np.sin(2 * np.pi * hertz * n / RATE)
    hit = (0.3 * body * np.exp(-n / (decay * RATE))).astype(np.float32)
    out = np.zeros((SECONDS + 1) * RATE, np.float32)
    for time, level in times:
        if time < SECONDS:
            out[int(time * RATE) :][: n.size] += level * hit
    return out[: SECONDS * RATE]


def pattern(steps: Sequence[float], bpm: float) -> list[tuple[float, float]]:
    """Steps of a sixteenth, over and over."""
    step = 60 / bpm / 4
    return [(i * step, steps[i % len(steps)]) for i in range(int(SECONDS / step)) if steps[i % len(steps)]]


BREAK = (1, 0, 0, 0.6, 0, 0.3, 0.8, 0, 0, 0.5, 1, 0, 0, 0.7, 0, 0.4)


def kit(bpm: float = 120.0) -> dict[str, np.ndarray]:
    return {
        "kick": struck(pattern((1, 0, 0, 0), bpm), hertz=60),
        "snare": struck(pattern((0, 0, 0, 0, 1, 0, 0, 0), bpm), seed=2),
        "hat": struck(pattern((1, 0, 0.6, 0.3), bpm), decay=0.02, seed=3),
    }


def plan_with(**more: np.ndarray) -> TempoPlan:
    return session_tempo(Session.from_arrays({**kit(), **more}, RATE))


# ------------------------------------------------------------------------------------------------------ estimates


@pytest.mark.parametrize("bpm", [84.0, 102.5, 120.0, 133.0, 150.0])
def test_a_drum_loop_has_its_tempo(bpm: float) -> None:
    source = ArraySource(struck(pattern(BREAK, bpm)), RATE)
    tempo = estimate(source)
    assert tempo.bpm == pytest.approx(bpm, rel=0.002)
    assert tempo.confidence > 0.7
    assert estimate(source) == tempo


def test_noise_and_silence_have_no_sure_tempo() -> None:
    noise = np.random.default_rng(1).standard_normal(SECONDS * RATE).astype(np.float32) * 0.1
    assert estimate(ArraySource(noise, RATE)).confidence < 0.15
    assert estimate(ArraySource(np.zeros(10 * RATE, np.float32), RATE)) == Tempo(None, 0.0)
    assert estimate(ArraySource(noise[: RATE // 2], RATE)) == Tempo(None, 0.0)


def test_a_long_source_is_estimated_where_it_plays() -> None:
    loop = struck(pattern(BREAK, 96.0))
    late = np.concatenate([np.zeros(70 * RATE, np.float32), loop, loop])
    assert estimate(ArraySource(late, RATE)).bpm == pytest.approx(96.0, rel=0.003)


def test_a_session_has_one_tempo() -> None:
    plan = plan_with()
    assert plan.tempo.bpm == pytest.approx(120.0, rel=0.002)
    assert plan.tempo.confidence > 0.9
    assert all(tempo.bpm == plan.tempo.bpm for tempo in plan.stems.values())
    assert not plan.loops
    assert not plan.ratios()


@pytest.mark.skipif(not ALBUM.is_dir(), reason="the album's stems are not on this machine")
@pytest.mark.parametrize(
    ("song", "bpm"), [("1.Hydrogen", 132.0), ("2.Lithium", 124.0), ("6.Caesium", 130.0), ("7.Francium", 128.0)]
)
def test_the_album_has_the_tempo_of_its_notes(song: str, bpm: float) -> None:
    audio = {}
    for file in sorted((ALBUM / song).glob("*.flac"))[::3]:
        with soundfile.SoundFile(file) as f:
            f.seek(20 * f.samplerate)
            audio[file.stem] = f.read(30 * f.samplerate, dtype="float32", always_2d=True).T
    plan = session_tempo(Session.from_arrays(audio, 48000))
    assert plan.tempo.bpm == pytest.approx(bpm, rel=0.002)
    assert not plan.loops


# ---------------------------------------------------------------------------------------------------------- loops


@pytest.mark.parametrize("speed", [0.85, 0.93, 0.97, 1.04, 1.11, 1.18])
def test_a_loop_at_another_tempo_is_found(speed: float) -> None:
    plan = plan_with(loop=struck(pattern(BREAK, 120 * speed), seed=7))
    assert set(plan.loops) == {"loop"}
    assert plan.ratios()["loop"] == pytest.approx(1 / speed, rel=0.003)
    assert plan.stems["loop"].bpm == pytest.approx(120 * speed, rel=0.004)
    assert plan.tempo.bpm == pytest.approx(120, rel=0.002)


@pytest.mark.parametrize("steps", [3, 5, 7, 9, 11, 13, 15])
def test_odd_metres_are_no_other_tempo(steps: int) -> None:
    assert not plan_with(odd=struck(pattern(BREAK[:steps], 120), seed=7)).loops


def test_triplets_double_time_and_free_playing_are_no_other_tempo() -> None:
    triplets = struck([(i * 0.5 / 3, (1, 0.5, 0.7)[i % 3]) for i in range(SECONDS * 6)], seed=7)
    rng = np.random.default_rng(4)
    free = struck([(t, 1.0) for t in np.cumsum(rng.uniform(0.15, 0.7, 60))], seed=8)
    double = struck(pattern(BREAK, 240), seed=9, decay=0.02)
    dotted = struck([(i * 0.375, 1.0) for i in range(70)], seed=10)
    for name, audio in {"triplets": triplets, "free": free, "double": double, "dotted": dotted}.items():
        assert not plan_with(**{name: audio}).loops, name


def test_without_a_majority_nothing_is_stretched() -> None:
    two = {"a": struck(pattern(BREAK, 120)), "b": struck(pattern(BREAK, 108), seed=3)}
    assert not session_tempo(Session.from_arrays(two, RATE)).loops


def test_microphones_on_one_kit_are_stretched_together() -> None:
    beat = struck(pattern(BREAK, 108), seed=7)
    room = 0.5 * np.concatenate([np.zeros(200, np.float32), beat[:-200]])
    room += 0.01 * np.random.default_rng(0).standard_normal(room.size).astype(np.float32)
    plan = plan_with(**{"loop/close": beat, "loop/room": room})
    assert set(plan.loops) == {"loop/close", "loop/room"}
    assert plan.loops["loop/close"] == plan.loops["loop/room"] == pytest.approx(120 / 108, rel=0.003)


# ----------------------------------------------------------------------------------------------------- what to do


def test_ratios_with_a_tempo_asked_for() -> None:
    stems = {"a": Tempo(120.0, 0.8), "b": Tempo(None, 0.0), "c": Tempo(108.0, 0.7)}
    plan = TempoPlan(Tempo(120.0, 0.9), stems, {"c": 120 / 108})
    assert plan.ratios() == {"c": 120 / 108}
    assert plan.ratios(126) == pytest.approx({"a": 1.05, "b": 1.05, "c": 1.05 * 120 / 108})
    assert plan.ratios(63) == pytest.approx(plan.ratios(126))
    assert plan.ratios(120) == {"c": 120 / 108}
    assert TempoPlan(Tempo(None, 0.0), {"a": Tempo(None, 0.0)}, {}).ratios(120) == {}


# -------------------------------------------------------------------------------------------------------- stretch

FULL = 44100


def clicks(seconds: float) -> tuple[np.ndarray, np.ndarray]:
    places = np.arange(0.25, seconds - 0.2, 0.5)
    burst = np.random.default_rng(3).standard_normal(441) * np.exp(-np.arange(441) / 55)
    out = np.zeros(int(seconds * FULL), np.float32)
    for place in places:
        out[round(place * FULL) :][:441] += 0.3 * burst.astype(np.float32)
    return out, places


def heard(audio: np.ndarray, near: np.ndarray) -> np.ndarray:
    times = []
    for place in near:
        begin = round((place - 0.04) * FULL)
        passed = np.cumsum(audio[begin : begin + round(0.08 * FULL)].astype(np.float64) ** 2)
        times.append((begin + int(np.searchsorted(passed, 0.1 * passed[-1]))) / FULL)
    return np.array(times)


@pytest.mark.parametrize("ratio", [0.87, 1.12])
def test_clicks_land_in_time_over_chunk_seams(ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretching, "CHUNK_S", 5.0)
    audio, places = clicks(14.0)
    out = stretch(ArraySource(audio, FULL), ratio)
    assert out.frames == round(audio.size / ratio)
    late = heard(read(out)[0], places / ratio) - places / ratio - (heard(audio, places) - places)
    assert np.abs(late).max() < 0.002


@pytest.mark.parametrize("ratio", [0.9, 1.1])
def test_pitch_and_stereo_are_kept(ratio: float) -> None:
    t = np.arange(5 * FULL) / FULL
    tone = np.stack([0.3 * np.sin(2 * np.pi * 440 * t), 0.15 * np.sin(2 * np.pi * 440 * t)]).astype(np.float32)
    out = read(stretch(ArraySource(tone, FULL), ratio))
    assert out.shape == (2, round(tone.shape[1] / ratio))
    assert out.dtype == np.float32
    inner = out[:, FULL:-FULL]
    spectrum = np.abs(np.fft.rfft(inner[0] * np.hanning(inner.shape[1]), 1 << 19))
    assert np.argmax(spectrum) * FULL / (1 << 19) == pytest.approx(440, abs=0.2)
    assert np.std(inner[0]) / np.std(inner[1]) == pytest.approx(2.0, rel=0.02)
    assert np.std(inner[0]) == pytest.approx(np.std(tone[0]), rel=0.1)


def test_seams_cannot_be_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chord and soft hits: no step or dip at the seams that the stretch in one piece does not have."""
    t = np.arange(16 * FULL) / FULL
    chord = sum(0.1 * np.sin(2 * np.pi * f * t) for f in (220.0, 277.2, 329.6))
    audio = (chord + 0.3 * clicks(16.0)[0]).astype(np.float32)
    whole = read(stretch(ArraySource(audio, FULL), 0.93))[0]
    monkeypatch.setattr(stretching, "CHUNK_S", 4.0)
    pieces = read(stretch(ArraySource(audio, FULL), 0.93))[0]
    assert pieces.size == whole.size
    assert not np.array_equal(pieces, whole)

    def steps(x: np.ndarray) -> np.ndarray:  # a step is broad-band: the energy above 8 kHz in 5 ms pieces
        size = FULL // 200
        frames = x[: x.size // size * size].reshape(-1, size) * np.hanning(size)
        return np.sqrt((np.abs(np.fft.rfft(frames, axis=1))[:, 40:] ** 2).sum(axis=1))

    quiet = steps(whole) < np.quantile(steps(whole), 0.7)
    assert steps(pieces)[quiet].max() < 3 * steps(whole)[quiet].max() + 0.02
    level = [np.sqrt(np.convolve(x[FULL:-FULL] ** 2, np.ones(4410) / 4410, "valid")) for x in (whole, pieces)]
    assert np.abs(20 * np.log10(level[1] / level[0])).max() < 1.5


def test_stretch_at_the_edges() -> None:
    silence = ArraySource(np.zeros((2, 5000), np.float32), FULL)
    assert not read(stretch(silence, 1.25)).any()
    assert stretch(silence, 1.25).frames == 4000
    assert stretch(silence, 1.0) is silence
    short = stretch(ArraySource(np.random.default_rng(0).standard_normal(300).astype(np.float32) * 0.1, FULL), 0.8)
    assert short.frames == 375
    assert np.isfinite(read(short)).all()
    for ratio in (0.4, 2.1, float("nan")):
        with pytest.raises(InputError, match="out of range"):
            stretch(silence, ratio)


def test_the_stretch_is_deterministic() -> None:
    source = ArraySource(struck(pattern(BREAK, 120))[: 4 * RATE], RATE)
    assert np.array_equal(read(stretch(source, 1.07)), read(stretch(source, 1.07)))
