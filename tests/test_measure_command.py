"""``mixrl measure`` as a machine and as a person reads it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import typer
from signals import song, stereo, tones
from typer.testing import CliRunner

from mixrl.commands.measure import measure
from mixrl.errors import InputError

KEYS = (
    "file integrated_lufs max_momentary_lufs max_short_term_lufs loudness_range_lu true_peak_dbtp"
    " sample_peak_dbfs duration_s sample_rate channels"
)


def run(*arguments):
    app = typer.Typer()
    app.command()(measure)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path):
    soundfile.write(tmp_path / "tone.wav", stereo(tones(48000, [(-23, 4)])).T, 48000, subtype="PCM_24")
    soundfile.write(tmp_path / "mono.wav", song(44100, 4.0)[0], 44100, subtype="PCM_16")
    soundfile.write(tmp_path / "silence.wav", np.zeros(44100), 44100)
    return [tmp_path / name for name in ("tone.wav", "mono.wav", "silence.wav")]


def test_json_has_the_promised_keys(files):
    result = run(*files, "--json")
    assert result.exit_code == 0
    tone, mono, silence = json.loads(result.stdout)
    assert " ".join(tone) == KEYS
    assert tone["file"] == str(files[0])
    assert tone["integrated_lufs"] == pytest.approx(-23, abs=0.1)
    assert tone["true_peak_dbtp"] == pytest.approx(-23, abs=0.1)
    assert (tone["duration_s"], tone["sample_rate"], tone["channels"]) == (4.0, 48000, 2)
    assert mono["channels"] == 1
    assert silence["integrated_lufs"] is None
    assert silence["true_peak_dbtp"] is None


def test_the_cross_check_agrees(files):
    pytest.importorskip("pyloudnorm")
    tone, mono, silence = json.loads(run(*files, "--json", "--cross-check").stdout)
    for row in (tone, mono):
        assert row["pyloudnorm_lufs"] == pytest.approx(row["integrated_lufs"], abs=0.05)
    assert silence["pyloudnorm_lufs"] is None


def test_the_table_names_files_and_dashes_what_has_no_value(files):
    result = run(*files, "--cross-check")
    assert result.exit_code == 0
    assert "-22.99" in result.stdout
    silence = next(line for line in result.stdout.splitlines() if "silence.wav" in line)
    assert silence.split() == ["silence.wav"] + ["-"] * 8


def test_what_cannot_be_measured_is_refused_by_name(tmp_path, files):
    with pytest.raises(InputError, match=r"nothing\.wav"):
        raise run(tmp_path / "nothing.wav").exception
    soundfile.write(tmp_path / "eight.wav", np.zeros((4410, 8)), 44100)
    with pytest.raises(InputError, match=r"eight\.wav.*8 channels"):
        raise run(tmp_path / "eight.wav").exception
