"""The limiter against a plain reference, against independent peak meters, and against its own promises."""

from __future__ import annotations

import numpy as np
import pytest

from mixrl import limiter as module
from mixrl.limiter import Limiter, limit
from mixrl.meters import true_peak

RATE = 44100
CEILING = -1.0


def decibels(amplitude):
    return 20.0 * np.log10(amplitude)


def at_eight_times(x):
    """True peak by two 8x interpolators that share nothing with the limiter's: dBTP."""
    from scipy.signal import firwin, resample_poly, upfirdn

    x = x.astype(np.float64)
    long = 8.0 * firwin(8 * 128 + 1, 1 / 8, window=("kaiser", 8.0))
    return decibels(max(np.abs(resample_poly(x, 8, 1, axis=1)).max(), np.abs(upfirdn(long, x, 8, axis=1)).max()))


def libebur128(x, rate):
    """True peak by libebur128: dBTP."""
    ebur128 = pytest.importorskip("pyebur128", reason="cross-check needs the test extra")
    state = ebur128.R128State(x.shape[0], rate, ebur128.MeasurementMode.MODE_TRUE_PEAK)
    state.add_frames(np.ascontiguousarray(x.T.ravel(), np.float64), x.shape[1])
    return decibels(max(ebur128.get_true_peak(state, c) for c in range(x.shape[0])))


def hard_signals(rate, seconds=1.0):
    """Signals that catch limiters out, full scale or far above, each (1, n)."""
    from scipy.signal import chirp, lfilter

    random = np.random.default_rng(7)
    n = int(rate * seconds)
    t = np.arange(n) / rate
    fade = np.minimum(1.0, np.minimum(np.arange(n), n - 1 - np.arange(n)) / (0.02 * rate))
    rock = lfilter([1.0], [1.0, -0.95], random.standard_normal(n)) * (0.2 + np.exp(-((t * 4) % 1) * 8))
    return {
        "square": np.sign(np.sin(2 * np.pi * 997.3 / 44100 * rate * t + 0.1)),
        "slow square": np.sign(np.sin(2 * np.pi * 60 * t + 0.1)),
        "quarter rate, 45 degrees": np.sin(np.pi / 2 * np.arange(n) + np.pi / 4),
        "sweep": fade * chirp(t, 20, t[-1], 0.4535 * rate),
        "noise": 0.3 * random.standard_normal(n),
        "noise bursts": random.standard_normal(n) * (np.sin(2 * np.pi * 5 * t) > 0.7),
        "impulses": (random.random(n) < 0.002) * random.choice([-1.0, 1.0], n),
        "clipped rock": np.clip(rock, -1.0, 1.0),
        "bass": np.sin(2 * np.pi * 45 * t),
    }


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
@pytest.mark.parametrize("drive_db", [0.0, 12.0])
def test_hard_signals_stay_under_the_ceiling_on_every_meter(rate, drive_db):
    for name, signal in hard_signals(rate, 1.0 if rate < 50_000 else 0.5).items():
        x = (10 ** (drive_db / 20) * signal[None]).astype(np.float32)
        y = limit(x, rate, CEILING)
        assert y.shape == x.shape
        assert decibels(true_peak(y, rate)) <= CEILING, name
        assert libebur128(y, rate) <= CEILING, name
        assert at_eight_times(y) <= CEILING + 0.2, name
        if at_eight_times(x) > CEILING:  # and no quieter than need be
            assert at_eight_times(y) > CEILING - 0.2, name


def plain_gains(x, rate, ceiling_dbtp, lookahead_s=0.003, release_s=0.06):
    """The limiter's gains, by definition: every point interpolated, one step at a time, in floating point."""
    ceiling = 10 ** ((ceiling_dbtp - module.MARGIN_DB) / 20)
    pad, n = 1000, x.shape[1]
    padded = np.pad(x.astype(np.float64), ((0, 0), (pad, pad)))
    peaks = np.abs(padded).max(axis=0)
    for taps in (module._coarse(), module._fine(rate)):
        left = taps.shape[1] // 2 - 1
        for phase in taps.astype(np.float64):
            for channel in padded:
                points = np.correlate(channel, phase)  # points[i] lies after sample i + left
                peaks[left : left + points.size] = np.maximum(peaks[left : left + points.size], np.abs(points))
    need = np.minimum(1.0, ceiling / np.maximum(peaks, 1e-9))
    half = round(lookahead_s * rate) // 2
    reach, guard = 2 * half - 1, module.GUARD
    keep, keep_slow = np.exp(-1 / (release_s * rate)), np.exp(-1 / (8 * release_s * rate))
    held, fast, slow = np.ones(need.size), 1.0, 1.0
    for i in range(guard, need.size - reach - guard):
        fast = min(need[i - guard : i + reach + guard].min(), 1 - (1 - fast) * keep)
        slow = fast + (slow - fast) * keep_slow
        held[i] = min(fast, slow)
    box = np.ones(half) / half
    smooth = np.convolve(np.convolve(held, box), box)[: held.size]
    return smooth[pad : pad + n]


def test_gains_are_those_of_the_plain_reference():
    random = np.random.default_rng(3)
    envelope = np.repeat(random.uniform(0.02, 1.2, 25), 240)
    x = (random.standard_normal((2, 6000)).cumsum(axis=1) * 0.05 + random.standard_normal((2, 6000)) * 0.3) * envelope
    x = x.astype(np.float32)
    gains = plain_gains(x, RATE, CEILING)
    assert gains.min() < 0.5
    assert np.abs(limit(x, RATE, CEILING) - x * gains).max() < 2e-5


def test_result_does_not_depend_on_the_block_size():
    random = np.random.default_rng(1)
    x = (random.standard_normal((2, 30_000)) * np.repeat([0.05, 2.0, 0.02], 10_000)).astype(np.float32)
    whole = limit(x, RATE, CEILING)
    whole_limiter = Limiter(RATE, 2, CEILING)
    whole_limiter.process(x)
    whole_limiter.flush()
    for sizes in ([1] * 200 + [29_800], [31, 33, 1000], [4096], [441], [29_999, 1], [0, 7777]):
        limiter, out, at = Limiter(RATE, 2, CEILING), [], 0
        while at < x.shape[1]:
            for size in sizes:
                out.append(limiter.process(x[:, at : at + size]))
                at += size
        out.append(limiter.flush())
        assert np.array_equal(np.concatenate(out, axis=1), whole)
        assert np.array_equal(limiter.gain_reduction_db(), whole_limiter.gain_reduction_db())


def test_what_needs_no_limiting_passes_bit_for_bit_before_and_after():
    random = np.random.default_rng(2)
    x = (0.1 * random.standard_normal((2, 9 * RATE))).astype(np.float32)
    assert np.array_equal(limit(x, RATE, CEILING), x)
    x[:, RATE : RATE + 2000] *= 20.0
    y = limit(x, RATE, CEILING)
    assert np.array_equal(y[:, : RATE - 400], x[:, : RATE - 400])
    assert np.abs(y[:, RATE : RATE + 2000]).max() < 1.0
    assert np.array_equal(y[:, 8 * RATE :], x[:, 8 * RATE :])


@pytest.mark.parametrize("name", ["clipped rock", "noise bursts", "bass", "impulses"])
def test_no_sample_gets_smaller_when_driven_harder(name):
    from mixrl.meters import measure_array

    signal = hard_signals(RATE)[name][None]
    last, loudness = None, -100.0
    for drive_db in np.arange(-6.0, 24.1, 1.5):
        y = limit((10 ** (drive_db / 20) * signal).astype(np.float32), RATE, CEILING)
        if last is not None:
            assert np.all(np.abs(y) >= np.abs(last) * (1 - 2e-5) - 1e-7)
        read = measure_array(y, RATE).integrated_lufs
        assert read >= loudness - 1e-3
        last, loudness = y, read


def test_channels_share_one_gain():
    random = np.random.default_rng(4)
    x = random.standard_normal((3, RATE // 2)).astype(np.float32) * np.array([[2.0], [0.1], [0.01]], np.float32)
    y = limit(x, RATE, CEILING)
    gains = y[0] / x[0]
    assert gains.min() < 0.5
    assert np.allclose(y, x * gains, rtol=1e-5, atol=1e-7)


def test_a_lone_peak_is_turned_down_in_time_smoothly_and_recovers_at_the_release_time():
    x = np.full((1, RATE), 1e-3, np.float32)
    x[0, 10_000] = 4.0
    limiter = Limiter(RATE, 1, CEILING, lookahead_s=0.004, release_s=0.05)
    y = np.concatenate([limiter.process(x), limiter.flush()], axis=1)
    gains = (y / x)[0].astype(np.float64)
    depth = 1 - gains[10_000]
    assert decibels(gains[10_000] * 4.0) == pytest.approx(CEILING - module.MARGIN_DB, abs=0.01)
    half = round(0.004 * RATE) // 2
    assert np.abs(np.diff(gains)).max() <= 1.001 * depth / half
    assert gains[10_000 - round(0.006 * RATE)] == 1.0
    over = np.flatnonzero(gains[10_000:] > 1 - depth / np.e)[0] / RATE
    assert over == pytest.approx(0.05, abs=0.006)


def test_dense_limiting_recovers_more_slowly_than_a_lone_peak():
    def recovery(seconds):
        x = np.full((1, 3 * RATE), 1e-3, np.float32)
        x[0, RATE - int(seconds * RATE) : RATE] = 3.0
        gains = (limit(x, RATE, CEILING) / x)[0]
        return np.flatnonzero(gains[RATE:] > 0.9)[0] / RATE

    assert recovery(0.001) < 0.15
    assert recovery(0.9) > 0.4


def test_gain_reduction_is_reported_per_frame_of_10_ms():
    x = np.zeros((1, 4410 + 100), np.float32)
    x[0, 2000] = 2.0
    limiter = Limiter(RATE, 1, CEILING)
    assert limiter.gain_reduction_db().shape == (0,)
    limiter.process(x)
    limiter.flush()
    reduction = limiter.gain_reduction_db()
    assert reduction.shape == (11,)
    assert np.argmax(reduction) == 2000 // 441
    assert reduction.max() == pytest.approx(decibels(2.0) - CEILING + module.MARGIN_DB, abs=0.01)
    assert np.all(reduction[:3] == 0.0)


def test_empty_short_and_silent_streams():
    limiter = Limiter(RATE, 2, CEILING)
    assert limiter.process(np.zeros((2, 0), np.float32)).shape == (2, 0)
    assert limiter.flush().shape == (2, 0)
    one = np.full((2, 1), 3.0, np.float32)
    assert limit(one, RATE, CEILING).shape == (2, 1)
    assert decibels(true_peak(limit(one, RATE, CEILING), RATE)) <= CEILING
    assert not limit(np.zeros((1, 5000), np.float32), RATE, CEILING).any()


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((0, 2, -1.0), {}),
        ((RATE, 0, -1.0), {}),
        ((RATE, 2, float("nan")), {}),
        ((RATE, 2, -1.0), {"lookahead_s": 1.0}),
        ((RATE, 2, -1.0), {"release_s": 0.0}),
    ],
)
def test_bad_arguments_are_refused(arguments, options):
    with pytest.raises(ValueError, match=r"cannot limit|out of range"):
        Limiter(*arguments, **options)


def test_blocks_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected \(2, n\)"):
        Limiter(RATE, 2, CEILING).process(np.zeros((1, 10), np.float32))
