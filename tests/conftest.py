"""Sessions that several test files share. They are made or analysed once for the whole run."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator

# before numpy is imported: BLAS threads that wait for busy cores cost more than they bring
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mixrl.measures import EDGES_HZ
from mixrl.scene import Scene
from mixrl.session import Session, load_session
from mixrl.settings import COMPRESSORS, MixSettings

SAMPLES = Path(__file__).parent.parent / "audio_samples"
RATE = 44_100


def band_noise(rng: np.random.Generator, n: int, rate: int, low: float, high: float) -> NDArray[np.float64]:
    """(n,) noise of unit RMS that falls off outside low..high Hz at about 24 dB/octave."""
    freqs = np.maximum(np.fft.rfftfreq(n, 1.0 / rate), 1.0)
    shape = 1.0 / np.sqrt((1.0 + (low / freqs) ** 8) * (1.0 + (freqs / high) ** 8))
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * shape / np.sqrt(freqs), n)
    return noise / noise.std()


def small_stems(rate: int = RATE, seconds: float = 8.0, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Six stems: a mono kick, a mono vocal that rests, wide stereo keys, one guitar under two microphones (coherent,
    one of them farther away), and a silent stem."""
    rng = np.random.default_rng(seed)
    n = round(rate * seconds)
    time = np.arange(n) / rate
    beat = time % 0.5
    loud = rng.uniform(0.6, 1.0, int(2 * seconds) + 1)[(2 * time).astype(int)]
    kick = loud * np.sin(2 * np.pi * (60.0 - 40.0 * beat) * beat) * np.minimum(beat / 0.003, 1.0) * np.exp(-12.0 * beat)
    kick += 0.05 * band_noise(rng, n, rate, 2000.0, 6000.0) * np.exp(-80.0 * beat)
    phrase = np.clip(3.0 * np.sin(2 * np.pi * time / 4.0 + 0.4), 0.0, 1.0)
    vocal = band_noise(rng, n, rate, 200.0, 4000.0) * phrase * (0.6 + 0.4 * np.sin(2 * np.pi * 3.0 * time))
    middle = band_noise(rng, n, rate, 150.0, 6000.0)
    keys = np.stack([middle + 0.5 * band_noise(rng, n, rate, 300.0, 9000.0) for _ in range(2)])
    strum = 0.3 + 0.7 * np.exp(-3.0 * (time % 1.0))
    guitar = band_noise(rng, n, rate, 120.0, 3500.0) * strum
    room = np.roll(guitar, 6) + 0.4 * band_noise(rng, n, rate, 100.0, 3000.0)
    stems = {
        "kick": 0.5 * kick, "vocal": 0.10 * vocal, "keys": 0.04 * keys, "guitar_close": 0.06 * guitar,
        "guitar_room": 0.04 * room, "shaker": np.zeros(n),
    }  # fmt: skip
    return {name: audio.astype(np.float32) for name, audio in stems.items()}


def third_octaves(audio: NDArray[np.floating], rate: int) -> NDArray[np.float64]:
    """(31,) band powers of the whole (channels, n) audio, channels summed, by one DFT: no window to argue about."""
    n = audio.shape[1]
    power = (np.abs(np.fft.rfft(audio.astype(np.float64), axis=1)) ** 2).sum(axis=0) * 2.0 / n**2
    place = np.searchsorted(EDGES_HZ, np.fft.rfftfreq(n, 1.0 / rate), side="right")
    return np.bincount(place, power, minlength=len(EDGES_HZ) + 1)[1 : len(EDGES_HZ)]


def random_settings(scene: Scene, seed: int, *, presets: bool = True, polarity: bool = True) -> MixSettings:
    """Settings with everything moved: faders, groups, pan, EQ, high-pass and (on request) compressors, polarity."""
    rng = np.random.default_rng(seed)
    settings = scene.neutral()
    strips = {}
    for name in scene.facts.names:
        strip = replace(
            settings.strip(name),
            gain_db=rng.uniform(-12.0, 12.0),
            pan=rng.uniform(-1.0, 1.0),
            highpass_hz=(None, 30.0, 60.0, 100.0, 150.0)[int(rng.integers(5))],
            compressor=COMPRESSORS[int(rng.integers(4))] if presets else "off",
            invert=bool(polarity and rng.random() < 0.3),
        )
        for band in range(5):
            strip = strip.with_band(band, gain_db=rng.uniform(-9.0, 6.0))
        strips[name] = strip
    return replace(settings, stems=strips, groups={name: rng.uniform(-6.0, 6.0) for name in settings.groups})


@pytest.fixture(scope="session")
def small() -> Session:
    """``small_stems`` as a session."""
    return Session.from_arrays(small_stems(), RATE, "small")


@pytest.fixture(scope="session")
def small_scene(small: Session) -> Scene:
    return Scene.of(small)


def span(session: Session, start_s: float, seconds: float) -> Session:
    """A part of a session."""
    start = round(start_s * session.sample_rate)
    stop = start + round(seconds * session.sample_rate)
    return Session.from_arrays(
        {name: session.read(name, start, stop) for name in session.names}, session.sample_rate, session.name
    )


@pytest.fixture(scope="session", params=["hydrogen", "caesium"])
def sample(request: pytest.FixtureRequest) -> tuple[Session, Scene]:
    """The last twelve seconds of each of the sessions that ship, with their scene: most stems play, some are silent."""
    whole = load_session(SAMPLES / request.param)
    session = span(whole, whole.duration_s - 12.0, 12.0)
    return session, Scene.of(session)


def delayed_and_filtered(
    audio: NDArray[np.float64], seconds: float, low: float, high: float
) -> NDArray[np.float64]:
    """What a second microphone hears of a source: later, with less bass (below low Hz) and treble (above high Hz)."""
    freqs = np.maximum(np.fft.rfftfreq(len(audio), 1.0 / RATE), 1.0)
    response = np.exp(-2j * np.pi * freqs * seconds) / (1 + 1j * freqs / high) / (1 + low / (1j * freqs))
    return np.fft.irfft(np.fft.rfft(audio) * response, len(audio))


@pytest.fixture(scope="session")
def microphones() -> tuple[Session, Scene]:
    """A guitar at two distances, the farther one hearing the snare too, the snare from above and (turned over) from
    below, and a bass that has nothing to do with them. The guitar rests at times, so that the gate matters."""
    rng = np.random.default_rng(4)
    n = round(10.0 * RATE)
    time = np.arange(n) / RATE
    strum = (0.1 + np.exp(-4.0 * (time % 0.7)) * rng.uniform(0.2, 1.0, 15)[(time / 0.7).astype(int)]) * (time % 6 < 4.5)
    guitar = band_noise(rng, n, RATE, 100.0, 5000.0) * strum
    snare = band_noise(rng, n, RATE, 150.0, 9000.0) * np.exp(-25.0 * ((time + 0.25) % 0.5))
    far = delayed_and_filtered(guitar, 0.0031, 150.0, 2500.0)
    stems = {
        "guitar_close": 0.06 * guitar,
        "guitar_far": 0.04 * far + 0.02 * snare + 0.002 * rng.standard_normal(n),
        "snare_top": 0.1 * snare,
        "snare_bottom": -0.05 * delayed_and_filtered(snare, 0.0006, 600.0, 8000.0),
        "bass": 0.05 * band_noise(rng, n, RATE, 45.0, 400.0) * (0.4 + 0.6 * (time % 1 < 0.6)),
    }
    session = Session.from_arrays({name: audio.astype(np.float32) for name, audio in stems.items()}, RATE)
    return session, Scene.of(session)


@pytest.fixture
def permissions_bite() -> Iterator[None]:
    """Who may read everything (root, in containers) may not for a while. By what the kernel calls capabilities, of this
    thread and those that it starts: see capabilities(7), capset(2)."""
    if not hasattr(os, "geteuid"):
        pytest.skip("permissions are others there")
    if os.geteuid() != 0:
        yield
        return
    if not sys.platform.startswith("linux"):
        pytest.skip("the superuser may read everything")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, less = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    less[:] = before[:]
    less[0] &= ~0b110  # effective: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, less) == 0
    yield
    assert libc.capset(header, before) == 0
