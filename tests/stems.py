"""Short sessions to mix: a beat, a bass, a chord and a voice-like tone, unbalanced on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]
RATE = 22050  # enough for every meter and filter, and half the work of 44100


def beat(seconds: float, bpm: float = 120.0, rate: int = RATE, hat: bool = False) -> Audio:
    """Decaying hits on every beat (noise on every half beat for a hat), mono."""
    step = 60.0 / bpm / (2 if hat else 1)
    n = round(seconds * rate)
    time = np.arange(n) / rate
    since = time % step
    if hat:
        return (0.2 * np.random.default_rng(1).standard_normal(n) * np.exp(-60.0 * since)).astype(np.float32)
    return (0.8 * np.exp(-18.0 * since) * np.sin(2 * np.pi * (50.0 * since + 8.0 * (1.0 - np.exp(-30.0 * since))))).astype(
        np.float32
    )


def band(seconds: float = 5.0, rate: int = RATE) -> dict[str, Audio]:
    """Four stems: mono kick, bass and vocal, stereo keys; the vocal far too quiet, the bass too loud."""
    time = np.arange(round(seconds * rate)) / rate
    bass = 0.5 * sum(np.sin(2 * np.pi * 55.0 * k * time) / k for k in (1, 2, 3)) * (time % 1.0 < 0.8)
    chord = [sum(np.sin(2 * np.pi * f * time + side) for f in (220.0, 277.2, 329.6)) for side in (0.0, 0.7)]
    noise = np.random.default_rng(2).standard_normal(time.size)
    vocal = np.sin(2 * np.pi * 440.0 * time + 4.0 * np.sin(2 * np.pi * 5.0 * time)) * (time % 2.0 < 1.6)
    return {
        "kick": beat(seconds, rate=rate),
        "bass": bass.astype(np.float32),
        "keys": (0.1 * np.stack(chord)).astype(np.float32),
        "vocal": (0.02 * (vocal + 0.1 * noise)).astype(np.float32),
    }


def write(folder: Path, stems: Mapping[str, Audio], rate: int = RATE, suffix: str = ".wav") -> Path:
    """Write stems (name, "/" for sub-folders) as 24-bit files into a folder, which is made; returns it."""
    import soundfile

    for name, audio in stems.items():
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.clip(audio, -1, 1).T, rate, subtype="PCM_24")
    return folder
