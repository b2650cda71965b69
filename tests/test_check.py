"""Session QA: each fault is planted in a clean session and found; nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mixrl.check import Finding, check, one_recording
from mixrl.session import Session, load_session

RATE = 44100
N = 12 * RATE


def coloured(seed: int, slope: float = 0.9) -> np.ndarray:
    """Noise with most power in the low end, as music has, and an uneven envelope."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal(N))
    spectrum[1:] *= np.arange(1, spectrum.size) ** (-slope / 2)
    spectrum[: 40 * N // RATE] = 0
    x = np.fft.irfft(spectrum, N) * (1 + 0.5 * np.repeat(rng.standard_normal(48), N // 48))
    return (0.3 * x / np.abs(x).max()).astype(np.float32)


def clean() -> dict[str, np.ndarray]:
    return {"bass": coloured(1), "guitar": np.stack([coloured(2), coloured(3)]), "vocal": coloured(4)}


def found(**more: np.ndarray) -> list[Finding]:
    return list(check(Session.from_arrays({**clean(), **more}, RATE)))


def only(findings: list[Finding], kind: str) -> Finding:
    assert [f.kind for f in findings] == [kind], findings
    return findings[0]


def delayed(x: np.ndarray, samples: int) -> np.ndarray:
    return np.concatenate([np.zeros(samples, np.float32), x[: x.size - samples]])


def test_a_clean_session_has_no_findings() -> None:
    assert found() == []


def test_silence() -> None:
    assert only(found(empty=np.zeros(N, np.float32)), "silence").stem == "empty"


def test_clipping_counts_runs_over_block_borders() -> None:
    x = 0.2 * coloured(5)
    for at in (1000, 65534, N - 4):  # the second lies across a block border, the last at the very end
        x[at : at + 4] = 1.0
    x[5000:5002] = 1.0  # two samples are no clip
    x[7000:7006] = (1, -1, 1, -1, 1, -1)  # nor is full scale of both signs in turn
    assert only(found(hot=x), "clipping").value == 3


def test_floats_over_full_scale_are_not_clipped() -> None:
    finding = only(found(hot=6 * coloured(5)), "over-full-scale")
    assert finding.value == pytest.approx(20 * np.log10(1.8), abs=0.01)
    assert finding.severity == "info"


def test_dc_offset() -> None:
    assert only(found(synth=coloured(5) + np.float32(0.02)), "dc-offset").value == pytest.approx(0.02, abs=0.001)


def test_very_low_level() -> None:
    assert only(found(ghost=0.004 * coloured(5)), "low-level").value < -50


def test_mono_in_stereo() -> None:
    assert only(found(keys=np.stack([coloured(5)] * 2)), "mono-in-stereo").stem == "keys"


def test_polarity() -> None:
    twin = -0.7 * clean()["vocal"] + 0.05 * coloured(6)
    finding = only(found(under=twin), "polarity")
    assert finding.stem == "under + vocal"
    assert finding.value < -0.9
    late = found(under=delayed(twin, 20))  # 0.45 ms: both are true
    assert sorted(f.kind for f in late) == ["misalignment", "polarity"]


def test_duplicates() -> None:
    copy = only(found(copy=0.5 * clean()["vocal"]), "duplicate")
    assert copy.stem == "copy + vocal"
    assert copy.value < -60
    assert copy.severity == "warning"
    assert only(found(copy=-0.5 * clean()["vocal"]), "duplicate").severity == "error"
    assert found(near=0.5 * clean()["vocal"] + 0.003 * coloured(9)) == []


@pytest.mark.parametrize("samples", [7, 100, 1500])
def test_misalignment(samples: int) -> None:
    twin = delayed(0.7 * clean()["vocal"] + 0.1 * coloured(6), samples)
    finding = only(found(room=twin), "misalignment")
    assert finding.value == pytest.approx(1000 * samples / RATE, abs=0.02)
    assert finding.message.startswith("room lags vocal")


def test_pairs_are_compared_where_both_play() -> None:
    vocal = clean()["vocal"]
    vocal[: N // 2] = 0
    twin = -vocal
    twin[: N * 3 // 4] = 0
    assert [f.kind for f in found(vocal=vocal, under=twin + 0.01 * coloured(8) * (twin != 0))] == ["polarity"]


def test_files_of_other_rates_and_lossy_sources(tmp_path: Path) -> None:
    for name, audio in clean().items():
        soundfile.write(tmp_path / f"{name}.wav", audio.T, RATE, "FLOAT")
    soundfile.write(tmp_path / "loop.wav", coloured(7)[: N // 2], 48000, "PCM_24")
    spectrum = np.fft.rfft(coloured(8, 0.3))
    spectrum[int(11000 / RATE * N) :] = 0
    soundfile.write(tmp_path / "old.wav", np.fft.irfft(spectrum, N), RATE, "FLOAT")
    soundfile.write(tmp_path / "pad.ogg", coloured(9), RATE)
    findings = {(f.stem, f.kind): f for f in check(load_session(tmp_path))}
    assert findings["loop", "sample-rate"].value == 48000
    assert findings["old", "bandwidth"].value == pytest.approx(11000, abs=300)
    assert ("pad", "lossy") in findings
    assert {stem for stem, _ in findings} == {"loop", "old", "pad"}


def test_what_was_recorded_together() -> None:
    kit = {"kit/snare": coloured(10)}
    kit["kit/over"] = 0.35 * delayed(kit["kit/snare"], 150) + 0.9 * coloured(11)
    session = Session.from_arrays({**clean(), **kit}, RATE)
    assert one_recording(session, ["kit/snare"]) == [("kit/over", "kit/snare")]
    assert one_recording(session, ["bass"]) == [("bass",)]
    strangers = {"over": kit["kit/over"], "snare": kit["kit/snare"]}  # no folder says that they belong together
    assert one_recording(Session.from_arrays({**clean(), **strangers}, RATE), ["snare"]) == [("snare",)]
