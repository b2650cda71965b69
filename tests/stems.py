"""Short sessions to mix (a beat, a bass, a chord, a voice-like tone, unbalanced on purpose), and the command line."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

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
    phase = 50.0 * since + 8.0 * (1.0 - np.exp(-30.0 * since))
    return (0.8 * np.exp(-18.0 * since) * np.sin(2 * np.pi * phase)).astype(np.float32)


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


def mixrl(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process, as ``mixrl ARGUMENTS``: exit code, stdout, stderr."""
    from mixrl.commands import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "argv", ["mixrl", *map(str, arguments)]):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def libebur128(path: Path) -> tuple[float, float]:
    """(integrated LUFS, true peak dBTP) of a stereo file, as decoded, by an independent meter."""
    import pytest
    import soundfile

    ebur128 = pytest.importorskip("pyebur128", reason="needs the test extra")
    audio, rate = soundfile.read(path, always_2d=True)
    modes = ebur128.MeasurementMode
    state = ebur128.R128State(audio.shape[1], rate, modes.MODE_I | modes.MODE_TRUE_PEAK)
    state.add_frames(np.ascontiguousarray(audio.ravel()), len(audio))
    peak = max(ebur128.get_true_peak(state, channel) for channel in range(audio.shape[1]))
    return ebur128.get_loudness_global(state), 20 * math.log10(max(peak, 1e-9))
