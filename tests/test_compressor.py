from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from mixrl.compressor import PRESETS, Compressor, Preset
from mixrl.errors import InputError
from mixrl.settings import COMPRESSORS

RATE = 48_000
HARD = Preset(threshold_db=0.0, ratio=4.0, knee_db=0.001, attack_s=0.002, release_s=0.05)


def sine(level_db: float, frequency: float = 1000.0, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (10 ** (level_db / 20) * np.sin(2 * np.pi * frequency * time)).astype(np.float32)[None]


def reduction_db(unit: Compressor, x: np.ndarray) -> float:
    """Settled reduction of a steady signal, over its last fifth."""
    y = unit.process(x)
    last = slice(x.shape[1] * 4 // 5, None)
    return -10 * math.log10(np.mean(y[:, last].astype(float) ** 2) / np.mean(x[:, last].astype(float) ** 2))


def test_there_is_a_preset_for_every_name() -> None:
    assert {"off", *PRESETS} == set(COMPRESSORS)


@pytest.mark.parametrize("level", [-30.0, -20.0, -12.0, -4.0])
def test_static_curve(level: float) -> None:
    """Ratio 4, threshold -20 dB: three quarters of what is above is taken away."""
    found = reduction_db(Compressor(RATE, 1, HARD, -20.0), sine(level))
    assert found == pytest.approx(max(0.0, 0.75 * (level + 20)), abs=0.15)


def test_soft_knee_is_smooth_and_ends_on_the_line() -> None:
    soft = Preset(0.0, 4.0, 12.0, 0.002, 0.05)
    found = [reduction_db(Compressor(RATE, 1, soft, -20.0), sine(level)) for level in (-27, -20, -14, -8)]
    assert found == pytest.approx([0.0, 0.75 * 6**2 / 24, 0.75 * 6, 0.75 * 12], abs=0.15)


def test_channels_are_turned_down_together() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([sine(-6), sine(-40, 3000)]) * (0.2 + rng.random(RATE).astype(np.float32))
    y = Compressor(RATE, 2, PRESETS["firm"], -20.0).process(x)
    gain = y / np.where(x == 0, 1, x)
    heard = (np.abs(x) > 1e-4).all(axis=0)
    assert gain[0, heard] == pytest.approx(gain[1, heard], abs=1e-4)
    assert gain[0, heard].min() < 0.7


def test_detector_hears_little_of_the_bass() -> None:
    deep = reduction_db(Compressor(RATE, 1, HARD, -20.0), sine(-8, 30))
    middle = reduction_db(Compressor(RATE, 1, HARD, -20.0), sine(-8, 1000))
    assert deep < 0.2 < 8 < middle


def test_attack_and_release_take_their_time() -> None:
    slow = Preset(0.0, 4.0, 0.001, 0.020, 0.200)
    x = np.concatenate([sine(-40, seconds=0.1), sine(0, seconds=0.5), sine(-40, seconds=1.0)], axis=1)
    y = Compressor(RATE, 1, slow, -20.0).process(x)
    loud = np.abs(x[0]) > 0.3 * 10 ** (-40 / 20)
    curve = np.full(x.shape[1], np.nan)
    curve[loud] = -20 * np.log10(np.abs(y[0, loud] / x[0, loud]))

    def at(seconds: float) -> float:
        return float(np.nanmedian(curve[round((seconds - 0.001) * RATE) : round((seconds + 0.001) * RATE)]))

    assert at(0.12) == pytest.approx(15 * (1 - 1 / math.e), abs=0.6)  # one time constant into the loud part
    assert at(0.5) == pytest.approx(15, abs=0.3)
    # the release stage, then the attack stage behind it
    expected = 15 * (math.exp(-1) * 0.2 - math.exp(-10) * 0.02) / 0.18
    assert at(0.8) == pytest.approx(expected, abs=0.4)


def test_level_before_the_compressor_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    x = (0.1 * rng.standard_normal((2, RATE)) * np.linspace(0.1, 3, RATE)).astype(np.float32)
    loud = Compressor(RATE, 2, PRESETS["medium"], -20.0).process(x)
    quiet = Compressor(RATE, 2, PRESETS["medium"], -20.0 - 20 * math.log10(8)).process(x / 8)
    assert quiet * 8 == pytest.approx(loud, rel=1e-4, abs=1e-6)


def test_blocks_of_any_size_give_the_same() -> None:
    rng = np.random.default_rng(2)
    x = (0.3 * rng.standard_normal((2, 30_000))).astype(np.float32)
    whole = Compressor(RATE, 2, PRESETS["firm"], -20.0)
    parts = Compressor(RATE, 2, PRESETS["firm"], -20.0)
    expected = whole.process(x)
    edges = [0, 1, 500, 501, 9000, 30_000]
    found = [parts.process(x[:, a:b]) for a, b in pairwise(edges)]
    assert np.array_equal(np.concatenate(found, axis=1), expected)
    assert parts.gain_reduction_db == whole.gain_reduction_db > 0


def test_presets_reduce_more_and_more_and_silence_is_not_counted() -> None:
    rng = np.random.default_rng(3)
    hits = rng.standard_normal((1, 4 * RATE)) * np.exp(-(np.arange(4 * RATE) % (RATE // 2)) / (0.05 * RATE))
    x = (0.5 * hits).astype(np.float32)
    loudness = 10 * math.log10(2 * np.mean(x.astype(float) ** 2))
    means = []
    for name in ("gentle", "medium", "firm"):
        unit = Compressor(RATE, 1, PRESETS[name], loudness)
        unit.process(x)
        means.append(unit.gain_reduction_db)
        unit.process(np.zeros((1, RATE), np.float32))  # the tail of the release
        settled = unit.gain_reduction_db
        y = unit.process(np.zeros((1, 10 * RATE), np.float32))
        assert not y.any()
        assert unit.gain_reduction_db == settled
    assert means == sorted(means)
    assert 1 < means[0] < 6
    assert means[2] - means[0] > 2


def test_quiet_passages_pass_untouched() -> None:
    x = sine(-40)
    assert np.array_equal(Compressor(RATE, 1, PRESETS["gentle"], -20.0).process(x), x)


def test_loudness_must_be_a_number() -> None:
    with pytest.raises(InputError):
        Compressor(RATE, 1, HARD, -math.inf)
