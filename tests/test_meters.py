"""The meter against the EBU's cases, plain calculations, and two other meters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from signals import CASES, Case, faded, peak_burst, song, stereo, tones

from mixrl.errors import InputError
from mixrl.meters import (
    THIRD_OCTAVE_EDGES,
    THIRD_OCTAVES,
    Measurement,
    Meter,
    gated_loudness,
    hop_powers,
    integrated,
    k_weighting_power,
    k_weighting_sos,
    loudness_range,
    measure_array,
    true_peak,
)

RATES = (44100, 48000, 96000)
ROOT = Path(__file__).parents[1]


def loudness_and_peak(x, rate, true_peak=True):
    meter = Meter(rate, x.shape[0], spectrum=False, true_peak=true_peak)
    meter.push(x)
    return meter.result()


# EBU Tech 3341 and 3342


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ebu_case(case: Case, rate):
    result = loudness_and_peak(case.make(rate), rate, true_peak="true_peak_dbtp" in case.expected)
    for name, expected in case.expected.items():
        value = getattr(result, name)
        low, high = {"true_peak_dbtp": (-0.4, 0.2), "loudness_range_lu": (-1, 1)}.get(name, (-0.1, 0.1))
        assert expected + low <= value <= expected + high, name


@pytest.mark.parametrize(("number", "hops", "after"), [(9, 30, 0), (12, 4, 6)])
def test_ebu_cases_9_and_12_stay_constant(number, hops, after):
    x = next(case for case in CASES if case.name == f"3341-{number}").make(48000)
    powers = np.convolve(hop_powers([x], 48000, 2), np.ones(hops) / hops, mode="valid")[after:]
    levels = -0.691 + 10 * np.log10(powers)
    assert np.abs(levels + 23).max() < 0.1


@pytest.mark.parametrize("rate", RATES)
def test_the_burst_is_the_one_described(rate):
    """Its samples miss its crest by different amounts; the waveform between them always peaks near 0 dBFS."""
    samples, crests = [], []
    for offset in range(4):
        x = peak_burst(rate, offset)[0].astype(np.float64)
        x = x[len(x) // 2 - 2000 : len(x) // 2 + 2000] * np.hanning(4000) ** 0.1
        fine = np.fft.irfft(np.fft.rfft(x), 32 * len(x)) * 32
        samples.append(20 * np.log10(np.abs(x).max()))
        crests.append(20 * np.log10(np.abs(fine).max()))
    assert np.ptp(crests) < 0.02
    assert -0.2 < crests[0] < 0.1
    assert np.ptp(samples) > 2


# K-weighting


def test_k_weighting_is_the_standards_at_48_khz():
    expected = [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585],
        [1, -2, 1, 1, -1.99004745483398, 0.99007225036621],
    ]
    np.testing.assert_array_equal(k_weighting_sos(48000), expected)


@pytest.mark.parametrize("rate", [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 88200, 96000, 176400, 192000])
def test_k_weighting_has_the_same_response_at_any_rate(rate):
    frequencies = np.geomspace(10, min(rate, 48000) / 2 * 0.99, 500)
    difference = 10 * np.log10(k_weighting_power(frequencies, rate) / k_weighting_power(frequencies, 48000))
    assert np.abs(difference).max() < (0.05 if rate < 22050 else 0.005)


def test_k_weighting_design_reproduces_the_standard_next_to_48_khz():
    np.testing.assert_allclose(k_weighting_sos(48001), k_weighting_sos(48000), atol=1e-4)


def test_k_weighting_power_is_that_of_the_sections():
    signal = pytest.importorskip("scipy.signal")
    frequencies = np.geomspace(20, 20000, 50)
    _, response = signal.sosfreqz(k_weighting_sos(44100), frequencies, fs=44100)
    np.testing.assert_allclose(k_weighting_power(frequencies, 44100), np.abs(response) ** 2, rtol=1e-9)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 176400, 192000])
def test_a_tone_reads_the_same_at_any_rate(rate):
    result = loudness_and_peak(stereo(tones(rate, [(-23, 4)])), rate)
    for value in (result.integrated_lufs, result.max_momentary_lufs, result.max_short_term_lufs):
        assert value == pytest.approx(-22.993, abs=0.04)


def test_energies_are_those_of_scipys_filter():
    signal = pytest.importorskip("scipy.signal")
    x = song(44100, 3.0)
    weighted = signal.sosfilt(k_weighting_sos(44100), x.astype(np.float64), axis=1)
    expected = (weighted**2).sum(axis=0).reshape(30, 4410).mean(axis=1)
    np.testing.assert_allclose(hop_powers([x], 44100, 2), expected, rtol=1e-9)


# Gating and range, by hand


def lufs_power(level):
    return 10 ** ((level + 0.691) / 10)


def test_gates_by_hand():
    blocks = lufs_power(np.array([-20.0, -20.0, -35.0, -80.0]))
    assert gated_loudness(blocks) == pytest.approx(-20.0)  # -80 under the absolute gate, -35 under the relative
    blocks = lufs_power(np.array([-20.0, -26.0]))
    assert gated_loudness(blocks) == pytest.approx(-20 + 10 * np.log10((1 + 10**-0.6) / 2))
    assert gated_loudness(lufs_power(np.array([-71.0, -90.0]))) is None
    assert gated_loudness(np.zeros(0)) is None


def test_loudness_range_by_hand():
    values = np.concatenate([np.arange(-40.0, -19.0), [-75.0, -np.inf]])  # 21 values pass -70
    mean = 10 * np.log10(np.mean(10 ** (values[:21] / 10)))
    kept = np.sort(values[values > mean - 20])
    expected = kept[round(0.95 * (len(kept) - 1))] - kept[round(0.1 * (len(kept) - 1))]
    assert 10 < expected < 20
    assert loudness_range(values) == pytest.approx(expected)
    assert loudness_range(np.full(5, -23.0)) == 0.0
    assert loudness_range(np.array([-71.0, -np.inf])) is None


# Streaming


@pytest.mark.parametrize("rate", [11025, 44100])
@pytest.mark.parametrize("sizes", [[1 << 20], [65536], [1, 7, 4410, 44099, 44100, 3, 90001], [997]])
def test_results_do_not_depend_on_the_blocks(sizes, rate):
    x = song(rate, 5.37)
    whole = measure_array(x, rate)
    meter, start, turn = Meter(rate, 2), 0, 0
    while start < x.shape[1]:
        size = sizes[turn % len(sizes)]
        meter.push(x[:, start : start + size])
        start, turn = start + size, turn + 1
    result = meter.result()
    assert result == whole
    np.testing.assert_array_equal(result.spectrum_db, whole.spectrum_db)
    assert meter.result() is result


def test_memory_layout_and_type_do_not_matter():
    x = song(44100, 1.5)
    assert measure_array(np.asfortranarray(x), 44100) == measure_array(x, 44100)
    assert measure_array(x.astype(np.float64), 44100) == measure_array(x, 44100)


def test_hop_powers_and_integrated_agree_with_the_meter():
    x = song(48000, 6.0)
    halves = [x[:, :100000], x[:, 100000:]]
    powers = hop_powers(halves, 48000, 2)
    assert powers.shape == (60,)
    blocks = np.convolve(powers, np.ones(4) / 4, mode="valid")
    expected = measure_array(x, 48000).integrated_lufs
    assert gated_loudness(blocks) == pytest.approx(expected, abs=1e-9)
    assert integrated(halves, 48000, 2) == pytest.approx(expected, abs=1e-9)


# What has no value, what is refused


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seconds", [0.0, 0.1, 5.0])
def test_silence_has_no_levels(channels, seconds):
    result = measure_array(np.zeros((channels, round(seconds * 44100)), np.float32), 44100)
    values = vars(result) | {"plr_db": result.plr_db}
    always = {"duration_s", "sample_rate", "channels", "spectrum_db"}
    assert {name for name, value in values.items() if value is not None} == always
    assert result.duration_s == pytest.approx(seconds)
    assert np.nanmax(result.spectrum_db) == -200


def test_short_clips():
    x = song(44100, 4.0)[:, 44100:]
    short = measure_array(x[:, : 4 * 4410 - 1], 44100)
    assert short.integrated_lufs is None
    assert short.max_momentary_lufs is None
    assert short.true_peak_dbtp is not None
    enough = measure_array(x[:, : 4 * 4410], 44100)
    assert enough.integrated_lufs == pytest.approx(enough.max_momentary_lufs)
    assert enough.max_short_term_lufs is None
    assert enough.psr_db == pytest.approx(enough.true_peak_dbtp - enough.integrated_lufs)
    assert measure_array(x[:, : 3 * 44100 - 1], 44100).max_short_term_lufs is None
    assert measure_array(x[:, : 3 * 44100], 44100).max_short_term_lufs is not None
    assert measure_array(x[:, :1], 44100).sample_peak_dbfs is not None


def test_quieter_than_the_gate():
    result = measure_array(stereo(tones(48000, [(-80, 4)])), 48000)
    assert result.integrated_lufs is None
    assert result.loudness_range_lu is None
    assert result.max_momentary_lufs == pytest.approx(-80, abs=0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 44099, 44150, 60000])
def test_broken_samples_are_refused(value, at):
    x = song(44100, 1.4)
    x[1, at] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        measure_array(x, 44100)


def test_wrong_shapes_and_rates_are_refused():
    with pytest.raises(InputError, match="7 channels"):
        Meter(48000, 7)
    with pytest.raises(InputError, match="resample"):
        Meter(4000, 2)
    meter = Meter(48000, 2)
    with pytest.raises(InputError, match="shape"):
        meter.push(np.zeros((1, 10), np.float32))
    with pytest.raises(InputError, match="shape"):
        meter.push(np.zeros(10, np.float32))
    meter.result()
    with pytest.raises(ValueError, match="another"):
        meter.push(np.zeros((2, 10), np.float32))


# Channels


def test_mono_counts_as_dual_mono():
    x = song(44100, 4.0)[:1]
    mono, dual = measure_array(x, 44100), measure_array(np.repeat(x, 2, axis=0), 44100)
    one = measure_array(np.concatenate([x, np.zeros_like(x)]), 44100)
    assert mono.integrated_lufs == pytest.approx(dual.integrated_lufs, abs=1e-9)
    assert mono.integrated_lufs == pytest.approx(one.integrated_lufs + 3.0103, abs=1e-3)
    assert mono.correlation is None
    assert mono.width_db is None


def test_the_lfe_is_left_out_of_loudness_but_not_of_peaks():
    x = np.stack([tones(48000, [(level, 2)]) for level in (-28, -28, -24, -30, -30)])
    six = np.insert(x, 3, 0.9 * tones(48000, [(0, 2)], frequency=60), axis=0)
    five, result = measure_array(x, 48000), measure_array(six, 48000)
    assert result.integrated_lufs == pytest.approx(five.integrated_lufs)
    assert result.sample_peak_dbfs == pytest.approx(20 * np.log10(0.9), abs=0.01)


def test_stereo_measures():
    rng = np.random.default_rng(1)
    mid, side = 0.1 * rng.standard_normal((2, 88200)).astype(np.float32)
    result = measure_array(np.stack([mid + 0.5 * side, mid - 0.5 * side]), 44100)
    assert result.width_db == pytest.approx(-6.02, abs=0.1)
    assert result.correlation == pytest.approx((1 - 0.25) / (1 + 0.25), abs=0.02)
    same, opposite = measure_array(np.stack([mid, mid]), 44100), measure_array(np.stack([mid, -mid]), 44100)
    assert (same.correlation, same.width_db) == (1.0, -100.0)
    assert (opposite.correlation, opposite.width_db) == (-1.0, 100.0)
    left = measure_array(np.stack([mid, np.zeros_like(mid)]), 44100)
    assert left.correlation is None
    assert left.width_db == pytest.approx(0.0)


# True peak


@pytest.mark.parametrize("x", [song(44100, 2.0), peak_burst(48000, 2)[:, :20001], song(44100, 0.01)], ids=len)
def test_leaving_stretches_out_changes_no_true_peak(x):
    """Against a plain 4 times oversampling with the same windowed sinc, nothing left out."""
    position = np.arange(-24, 25) / 4
    kernel = np.sinc(position) * np.cos(np.pi * position / 12) ** 2
    expected = 0.0
    for channel in x.astype(np.float64):
        stuffed = np.zeros(4 * len(channel))
        stuffed[::4] = channel
        expected = max(expected, np.abs(np.convolve(stuffed, kernel)).max())
    assert true_peak(x, 44100) == pytest.approx(expected, rel=1e-6)
    assert 10 ** (measure_array(x, 44100).true_peak_dbtp / 20) == pytest.approx(expected, rel=1e-6)


def test_true_peak_is_never_below_the_largest_sample():
    x = np.zeros((1, 1000), np.float32)
    x[0, [0, 500, 999]] = 0.5, -0.9, 0.5
    assert true_peak(x, 48000) == np.float32(0.9)
    assert true_peak(np.zeros((2, 0), np.float32), 48000) == 0.0


def test_true_peak_sees_past_the_last_sample():
    x = np.zeros((1, 48000), np.float32)
    x[0, -12:] = 0.5 * np.array([-1, 1] * 6)
    x[0, -1] = x[0, -2] = 0.5
    alone = measure_array(x, 48000).true_peak_dbtp
    padded = measure_array(np.pad(x, ((0, 0), (0, 5000))), 48000).true_peak_dbtp
    assert alone == padded


def test_psr_is_taken_where_it_is_loudest():
    loud, quiet = tones(48000, [(-10, 4)]), tones(48000, [(-40, 4)])
    quiet[96000] = 0.9  # the highest peak lies outside the loudest three seconds
    result = measure_array(stereo(np.concatenate([loud, quiet])), 48000)
    assert result.psr_db == pytest.approx(0.0, abs=0.05)
    assert result.true_peak_dbtp > -1.0
    assert result.plr_db == result.true_peak_dbtp - result.integrated_lufs


# Spectrum


def test_third_octaves_are_the_standards():
    np.testing.assert_allclose(np.sqrt(THIRD_OCTAVE_EDGES[1:] * THIRD_OCTAVE_EDGES[:-1]), THIRD_OCTAVES, rtol=0.02)
    assert THIRD_OCTAVE_EDGES[17] == pytest.approx(891.25, abs=0.01)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 96000])
def test_a_sine_reads_its_mean_power_in_its_band(rate):
    for band, centre in enumerate(THIRD_OCTAVES):
        if centre > 0.45 * rate:
            break
        x = faded(np.sin(2 * np.pi * centre / rate * np.arange(3 * rate)), rate, 0.0005).astype(np.float32)[None]
        levels = measure_array(x, rate).spectrum_db
        assert levels[band] == pytest.approx(-3.01, abs=0.1), centre
        others = np.delete(levels, band)
        assert np.nanmax(others) < (-30 if centre < 100 else -50), centre


def test_spectrum_of_noise_is_its_density():
    rate, rng = 48000, np.random.default_rng(2)
    x = (0.1 * rng.standard_normal((2, 20 * rate))).astype(np.float32)
    density = (x.astype(np.float64) ** 2).mean(axis=1).sum() / (rate / 2)
    levels = measure_array(x, rate).spectrum_db
    expected = 10 * np.log10(density * np.diff(THIRD_OCTAVE_EDGES))
    spread = 4.34 / np.sqrt(np.diff(THIRD_OCTAVE_EDGES) * 20 * 2)  # in dB, of 20 s of noise in two channels
    assert (np.abs(levels - expected) < 5 * spread).all()


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.9, 6.7])
def test_spectrum_adds_up_to_the_power(seconds):
    rate, rng = 44100, np.random.default_rng(3)
    x = (0.1 * rng.standard_normal((1, round(seconds * rate)))).astype(np.float32)
    total = (10 ** (measure_array(x, rate).spectrum_db / 10)).sum()
    assert 10 * np.log10(total / np.square(x).mean()) == pytest.approx(0.0, abs=0.25)


def test_bands_above_nyquist_have_no_level():
    levels = measure_array(song(8000, 2.0), 8000).spectrum_db
    np.testing.assert_array_equal(np.isnan(levels), THIRD_OCTAVES > 4000)
    assert not np.isnan(measure_array(song(44100, 2.0), 44100).spectrum_db).any()


def test_parts_can_be_left_out():
    meter = Meter(44100, 2, spectrum=False, true_peak=False)
    meter.push(song(44100, 4.0))
    result = meter.result()
    assert (result.spectrum_db, result.true_peak_dbtp, result.psr_db, result.correlation) == (None,) * 4
    assert result.integrated_lufs == measure_array(song(44100, 4.0), 44100).integrated_lufs


# Denormals


def test_subnormal_samples_count_as_silence():
    x = song(44100, 2.0)
    silent = np.concatenate([x, np.zeros_like(x)], axis=1)
    subnormal = np.concatenate([x, np.full_like(x, 1e-41)], axis=1)
    assert measure_array(subnormal, 44100) == measure_array(silent, 44100)
    assert (hop_powers([silent], 44100, 2)[-5:] == 0).all()


# Other meters


def libebur128(x, rate) -> Measurement:
    """libebur128's readings; mono as dual mono."""
    ebur128 = pytest.importorskip("pyebur128")
    mode = ebur128.MeasurementMode
    channels = x.shape[0]
    modes = mode.MODE_I | mode.MODE_LRA | mode.MODE_TRUE_PEAK | mode.MODE_SAMPLE_PEAK
    state = ebur128.R128State(channels, rate, modes)
    if channels == 1:
        state.set_channel(0, ebur128.ChannelType.DUAL_MONO)
    momentary = short_term = -np.inf
    hop = rate // 10
    for start in range(0, x.shape[1] - hop + 1, hop):
        state.add_frames(np.ascontiguousarray(x[:, start : start + hop].T).ravel(), hop)
        if start + hop >= 4 * hop:
            momentary = max(momentary, ebur128.get_loudness_momentary(state))
        if start + hop >= 30 * hop:
            short_term = max(short_term, ebur128.get_loudness_shortterm(state))
    peaks = [max(read(state, c) for c in range(channels)) for read in (ebur128.get_true_peak, ebur128.get_sample_peak)]
    true_peak_db, sample_peak_db = 20 * np.log10(peaks)
    return Measurement(
        integrated_lufs=ebur128.get_loudness_global(state),
        max_momentary_lufs=momentary,
        max_short_term_lufs=short_term,
        loudness_range_lu=ebur128.get_loudness_range(state),
        true_peak_dbtp=true_peak_db,
        sample_peak_dbfs=sample_peak_db,
        duration_s=x.shape[1] / rate,
        sample_rate=rate,
        channels=channels,
        spectrum_db=None,
        correlation=None,
        width_db=None,
        psr_db=None,
    )


def recordings() -> list:
    """Paths of real audio, some of each kind: the project's samples, and a shared collection where there is one."""
    audio = (".wav", ".flac", ".ogg", ".mp3")
    samples = sorted(p for p in (ROOT / "audio_samples").glob("*/*") if p.suffix in audio)
    shared = sorted(p for p in (ROOT.parent / "shared" / "data").glob("**/*") if p.suffix in audio)
    return samples[:: max(1, len(samples) // 4)][:4] + shared[:: max(1, len(shared) // 6)][:6]


def check_against_libebur128(x, rate):
    ours, theirs = loudness_and_peak(x, rate), libebur128(x, rate)
    assert ours.integrated_lufs == pytest.approx(theirs.integrated_lufs, abs=0.03)
    assert ours.max_short_term_lufs == pytest.approx(theirs.max_short_term_lufs, abs=0.05)
    # ours is read every 10 ms, theirs every 100 ms
    assert theirs.max_momentary_lufs - 0.05 <= ours.max_momentary_lufs <= theirs.max_momentary_lufs + 1.5
    # theirs takes short-term loudness every second, where Tech 3342 has since asked for ten times a second
    powers = np.convolve(hop_powers([x], rate, len(x)), np.ones(30) / 30, mode="valid")
    assert loudness_range(-0.691 + 10 * np.log10(powers[::10] + 1e-20)) == pytest.approx(
        theirs.loudness_range_lu, abs=0.05
    )
    assert ours.true_peak_dbtp == pytest.approx(theirs.true_peak_dbtp, abs=0.05)
    assert ours.sample_peak_dbfs == pytest.approx(theirs.sample_peak_dbfs, abs=1e-4)


def check_against_pyloudnorm(x, rate):
    pyloudnorm = pytest.importorskip("pyloudnorm")
    theirs = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(x.T.astype(np.float64))
    dual_mono = 10 * np.log10(2) if x.shape[0] == 1 else 0.0
    assert integrated([x], rate, x.shape[0]) == pytest.approx(theirs + dual_mono, abs=0.1)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", RATES)
def test_synthetic_song_against_other_meters(rate, channels):
    x = song(rate)[:channels]
    check_against_libebur128(x, rate)
    check_against_pyloudnorm(x, rate)


@pytest.mark.skipif(not recordings(), reason="no recordings in audio_samples/ or ../shared/data")
@pytest.mark.parametrize("path", recordings(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recordings_against_other_meters(path):
    soundfile = pytest.importorskip("soundfile")
    x, rate = soundfile.read(path, dtype="float32", always_2d=True, frames=44100 * 80)
    x = np.ascontiguousarray(x.T)
    loudest = int(hop_powers([x], rate, len(x)).argmax()) * rate // 10
    x = x[:, max(0, loudest - 10 * rate) : loudest + 10 * rate]
    check_against_libebur128(x, rate)
    check_against_pyloudnorm(x, rate)
