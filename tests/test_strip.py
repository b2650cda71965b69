from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mixrl.settings import NEUTRAL_EQ, EqBand, StripSettings
from mixrl.strip import board, coefficients, pan_gains, response, sections

RATES = (44_100, 48_000, 96_000)


def random_strip(rng: np.random.Generator) -> StripSettings:
    lows = (40.0, 60.0, 100.0, 100.0, 500.0)
    eq = [
        replace(
            band,
            frequency_hz=float(np.exp(rng.uniform(np.log(low), np.log(16_000)))),
            gain_db=float(rng.uniform(-15, 15)),
            q=float(np.exp(rng.uniform(np.log(0.3), np.log(4)))),
        )
        for band, low in zip(NEUTRAL_EQ, lows, strict=True)
    ]
    return StripSettings(eq=tuple(eq), highpass_hz=None if rng.random() < 0.5 else float(rng.uniform(20, 400)))


@pytest.mark.parametrize("sample_rate", RATES)
def test_pedalboard_does_what_the_response_says(sample_rate: int) -> None:
    """White noise through the board; the predicted and the found level of every third octave with power."""
    rng = np.random.default_rng(sample_rate)
    frames = 1 << 18
    noise = (0.1 * rng.standard_normal(frames)).astype(np.float32)
    # Silence behind the noise lets the filters ring out: the product of spectra is then exact.
    dry = np.concatenate([noise, np.zeros(frames, np.float32)])
    freqs = np.fft.rfftfreq(len(dry), 1 / sample_rate)
    spectrum = np.fft.rfft(dry)
    edges = 1000 * 10 ** ((np.arange(-17, 14) - 0.5) / 10)
    starts = np.searchsorted(freqs, edges)
    for _ in range(12):
        strip = random_strip(rng)
        wet = board(strip, sample_rate).process(dry[None], sample_rate, reset=False)[0]
        found = np.add.reduceat(np.abs(np.fft.rfft(wet)) ** 2, starts)
        expected = np.add.reduceat(np.abs(spectrum * response(strip, freqs, sample_rate)) ** 2, starts)
        with_power = expected > 1e-5 * expected.max()
        error_db = 10 * np.log10(found[with_power] / expected[with_power])
        assert np.abs(error_db).max() < 0.05


def test_the_response_is_right_in_phase_too() -> None:
    rng = np.random.default_rng(5)
    strip = random_strip(rng)
    click = np.zeros((1, 1 << 16), np.float32)
    click[0, 0] = 1.0
    wet = board(strip, 48_000).process(click, 48_000, reset=False)[0]
    freqs = np.fft.rfftfreq(click.shape[1], 1 / 48_000)
    loud = (freqs > 200) & (freqs < 20_000)
    expected = response(strip, freqs, 48_000)[loud]
    assert np.abs(np.fft.rfft(wet)[loud] / expected - 1).max() < 0.01


@pytest.mark.parametrize("frequency", [20.0, 80.0, 1000.0])
def test_highpass_corner_and_slope(frequency: float) -> None:
    strip = StripSettings(highpass_hz=frequency)
    octaves = frequency * 2.0 ** np.array([4, 0, -1, -2, -3])
    levels = 20 * np.log10(np.abs(response(strip, octaves, 96_000)))
    assert levels[0] == pytest.approx(0, abs=0.05)
    assert levels[1] == pytest.approx(-3.01, abs=0.01)
    assert levels[2] < -9.2
    assert levels[2] - levels[3] > 12.0
    assert levels[3] - levels[4] > 15.0


def test_gains_are_met_where_they_are_set() -> None:
    shelf, peak, top = EqBand("low_shelf", 100, 6), EqBand("peak", 1000, -9, 2), EqBand("high_shelf", 5000, 4)
    for band, at in ((shelf, 1.0), (peak, 1000.0), (top, 23_999.0)):
        strip = StripSettings(eq=(band, *NEUTRAL_EQ[1:]))
        level = 20 * math.log10(abs(response(strip, [at], 48_000)[0]))
        assert level == pytest.approx(band.gain_db, abs=0.05)


def test_neutral_strips_have_no_plugins() -> None:
    strip = StripSettings(gain_db=3, pan=0.5, invert=True)
    assert sections(strip, 48_000) == ()
    assert len(board(strip, 48_000)) == 0
    assert np.array_equal(response(strip, [20.0, 1000.0], 48_000), [1, 1])
    assert len(board(replace(strip.with_band(0, gain_db=1.0), highpass_hz=50.0), 48_000)) == 4


def test_bands_above_the_nyquist_frequency_do_nothing() -> None:
    strip = StripSettings().with_band(4, gain_db=12.0, frequency_hz=8000.0)
    assert sections(strip, 8000) == ()
    assert len(sections(strip, 48_000)) == 1
    low = StripSettings().with_band(0, gain_db=12.0, frequency_hz=20_000.0)
    assert all(math.isfinite(value) for value in coefficients(sections(low, 8000)[0], 8000))


@pytest.mark.parametrize("channels", [1, 2])
def test_pan_is_neutral_at_the_centre_symmetric_and_hard_at_the_ends(channels: int) -> None:
    assert pan_gains(0.0, channels) == (1.0, 1.0)
    left, right = pan_gains(1.0, channels)
    assert left == pytest.approx(0, abs=1e-12)
    assert right == pytest.approx(math.sqrt(2) if channels == 1 else 1.0)
    differences = []
    for pan in np.linspace(0.05, 0.95, 19):
        left, right = pan_gains(pan, channels)
        assert (right, left) == pan_gains(-pan, channels)
        differences.append(right / left)
        if channels == 1:
            assert left**2 + right**2 == pytest.approx(2)
        else:
            assert right == 1.0
    assert np.all(np.diff(differences) > 0)


def test_mono_and_stereo_lean_equally_far() -> None:
    for pan in (-0.9, -0.2, 0.4):
        (left, right), (near, far) = pan_gains(pan, 1), pan_gains(pan, 2)
        assert left / right == pytest.approx(near / far)
