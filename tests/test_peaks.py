"""Peaks at watched instants: what is kept of an instant, and how near the highest of them is to the real peak."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import RATE, random_settings, small_stems
from scipy.signal import sosfilt, sosfreqz

from mixrl import peaks
from mixrl.analysis import band_centres
from mixrl.audio import read
from mixrl.limiter import Limiter
from mixrl.measures import EDGES_HZ
from mixrl.meters import measure_array
from mixrl.peaks import OCTAVES, PeakWatch, instants
from mixrl.render import SumSource, render_stem
from mixrl.scene import Scene
from mixrl.session import Session
from mixrl.settings import MixSettings, StripSettings
from mixrl.strip import response


def stacked(stems):
    """(N, 2, samples)"""
    return np.stack([np.broadcast_to(audio, (2, np.shape(audio)[-1])) for audio in stems.values()]).astype(np.float32)


def watched(audio):
    watch = PeakWatch(len(audio), RATE)
    watch.push(audio)
    return watch.places()


@pytest.fixture(scope="module")
def stems():
    return small_stems(seconds=6.0, seed=5)


# ---- places -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [5, 6])
def test_looking_only_where_peaks_can_be_finds_the_same_places(seed):
    audio = stacked(small_stems(seconds=6.0, seed=seed))
    audio[:, :, : 2 * RATE] *= np.float32(0.1)  # a soft beginning, and a rest
    audio[:, :, 4 * RATE : 5 * RATE] = 0.0
    everywhere = PeakWatch(len(audio), RATE)
    everywhere._most = np.full((peaks.BALANCES, 1000), -1.0, dtype=np.float32)  # lists that are never full
    everywhere._most_equalised = np.full((peaks.EQUALISED, 1000), -1.0, dtype=np.float32)
    everywhere.push(audio)
    watch = PeakWatch(len(audio), RATE)
    watch.push(audio)
    looked = [np.concatenate([heights > 0.0 for heights in w._heights], axis=1) for w in (everywhere, watch)]
    assert looked[1].sum() < 0.8 * looked[0].sum()
    np.testing.assert_array_equal(watch.places(), everywhere.places())


def test_the_highest_points_of_balances_are_those_of_the_mixes():
    """Against mixes that are made whole; only those among each balance's highest have to be found."""
    rng = np.random.default_rng(3)
    hop, rows, most = 1234, 20, 3
    signals = rng.standard_normal((2, 9, 12 * hop)).astype(np.float32)
    signals *= np.repeat(rng.uniform(0.0, 1.0, (9, 24)), hop // 2, axis=1).astype(np.float32)
    picks, weights = rng.integers(9, size=(rows, 4)), rng.standard_normal((2, rows, 4)).astype(np.float32)
    mixes = np.abs(np.einsum("srk,srkn->srn", weights, signals[:, picks])).max(axis=0).reshape(rows, 12, hop)
    places, heights = np.zeros((rows, 12), dtype=np.int64), np.zeros((rows, 12), dtype=np.float32)
    kept = np.full((rows, most), -1.0, dtype=np.float32)
    highest = peaks._part_maxima(signals, hop)
    each = highest.reshape(2, 9, 12, -1).max(axis=3)
    np.testing.assert_array_equal(each, np.abs(signals).reshape(2, 9, 12, hop).max(axis=3))
    peaks._mix_peaks(signals, highest, picks, weights, 2, hop, kept, places, heights)
    real = mixes.max(axis=2)
    np.testing.assert_allclose(heights[:2], real[:2], rtol=1e-5)  # looked up in every hop
    np.testing.assert_array_equal(places[:2], mixes[:2].argmax(axis=2) + hop * np.arange(12))
    for row in range(2, rows):
        top = np.argsort(-real[row])[:most]
        np.testing.assert_allclose(heights[row, top], real[row, top], rtol=1e-5)
        np.testing.assert_array_equal(places[row, top], mixes[row, top].argmax(axis=1) + hop * top)
    assert (heights[2:] == 0.0).any()


def test_places_are_in_order_inside_and_few(stems):
    audio = stacked(stems)
    places = watched(audio)
    assert (np.diff(places) > 0).all()
    assert (places[0] >= 0, places[-1] < audio.shape[2]) == (True, True)
    assert 200 < len(places) < 1500
    np.testing.assert_array_equal(watched(audio), places)


def test_places_do_not_depend_on_how_loud_everything_is(stems):
    """Nor much on the pieces in which a session is read."""
    audio = stacked(stems)
    places = watched(audio)
    np.testing.assert_array_equal(watched(audio * np.float32(0.125)), places)
    watch = PeakWatch(len(audio), RATE)
    for start in range(0, audio.shape[2], 2 * RATE):
        watch.push(audio[:, :, start : start + 2 * RATE])
    assert np.isin(watch.places(), places).mean() > 0.85


def test_the_highest_point_of_the_sum_and_of_each_stem_is_watched(stems):
    audio = stacked(stems)
    places = watched(audio)
    for signal in (audio.sum(axis=0), *audio[:-1]):  # the last is silent
        heights = np.abs(signal).max(axis=0)
        assert heights[places].max() == heights.max()


def test_stems_are_watched_behind_equalisers_too(stems):
    """Each by itself behind a random high-pass and EQ, as it is and compressed, whatever the pieces."""
    audio = stacked(stems)[:2]
    rng = np.random.default_rng(0)
    filters = peaks._equalisers(rng, len(audio), RATE)
    bands = np.zeros((2, 6 * len(audio), audio.shape[2]), dtype=np.float32)
    bands[:, ::6], bands[:, 4::6] = audio.swapaxes(0, 1), 0.5 * audio.swapaxes(0, 1)  # in whichever band
    states = np.zeros((2, *filters.shape[:2], 2), dtype=np.float32)
    found = np.empty((2, len(filters), audio.shape[2]), dtype=np.float32)
    for start in range(0, audio.shape[2], 2 * RATE):
        piece = slice(start, start + 2 * RATE)
        out = np.empty_like(found[:, :, piece])
        peaks._equalise(np.ascontiguousarray(bands[:, :, piece]), filters, states, RATE // 10, out)
        found[:, :, piece] = out
    each = len(filters) // len(audio)
    for row, sections in enumerate(filters.astype(np.float64)):
        sos = np.insert(sections, 3, 1.0, axis=1)
        expected = sosfilt(sos, audio[row // each] * (0.5 if row % 2 else 1.0), axis=1)
        np.testing.assert_allclose(found[:, row], expected, atol=2e-4)
        response = sosfreqz(sos, [30.0, 200.0, 1000.0, 4000.0, 15_000.0], fs=RATE)[1]
        assert (np.abs(response) < 10.0 ** (9.0 / 20.0)).all()
    assert len(np.unique(filters.reshape(len(filters), -1), axis=0)) == len(filters)


def test_silence_is_watched_too():
    assert len(watched(np.zeros((2, 2, RATE), dtype=np.float32))) > 0


# ---- instants ---------------------------------------------------------------------------------------------------


def test_octaves_of_an_instant_add_up_to_the_sample(stems):
    audio = stacked(stems)
    places = watched(audio)
    for signal in audio:
        found = instants(signal, places, RATE)
        assert found.shape == (2 * OCTAVES, 2, len(places))
        np.testing.assert_allclose(found[:OCTAVES].sum(axis=0), signal[:, places], atol=2e-5)


@pytest.mark.parametrize("octave", range(1, OCTAVES))
@pytest.mark.parametrize("degrees", [0.0, 70.0, 180.0, -100.0])
def test_an_instant_follows_gain_and_phase(octave, degrees):
    """A sine in the middle of an octave through a filter of that gain and phase there, and nothing elsewhere."""
    hz = float(np.sqrt(EDGES_HZ[3 * octave] * EDGES_HZ[min(3 * octave + 3, 31)]))
    time = np.arange(RATE // 2) / RATE
    sine = np.stack([np.sin(2 * np.pi * hz * time), np.cos(2 * np.pi * hz * time)]).astype(np.float32)
    places = np.arange(4000, 18_000, 237)
    response = np.zeros(OCTAVES, dtype=complex)
    response[octave] = 0.6 * np.exp(1j * np.radians(degrees))
    found = np.einsum("o,ocm->cm", np.concatenate([response.real, response.imag]), instants(sine, places, RATE))
    phase = 2 * np.pi * hz * time[places] + np.radians(degrees)
    np.testing.assert_allclose(found, 0.6 * np.stack([np.sin(phase), np.cos(phase)]), atol=0.03)


def test_an_instant_behind_an_eq_is_nearly_what_the_filter_makes_of_it(small, small_scene):
    """One stem through a real EQ and high-pass; octave by octave is not band by band, so nearly."""
    strip = StripSettings(highpass_hz=60.0).with_band(1, gain_db=-6.0).with_band(3, gain_db=5.0)
    name = "vocal"
    scene = small_scene.subset([small_scene.facts.names.index(name)])
    settings = MixSettings(dict.fromkeys(small.names, strip))
    real = np.concatenate(list(render_stem(small, settings, name)), axis=1)[:, scene.analysis.places]
    shape = response(strip, band_centres(), RATE).reshape(-1, 4)
    power = scene.analysis.stems[0].own.sum(axis=0).reshape(-1, 4)
    starts = np.arange(0, 3 * OCTAVES, 3)
    whole = np.add.reduceat(power.sum(axis=1), starts)
    averaged = np.add.reduceat((shape * power).sum(axis=1), starts) / np.maximum(whole, 1e-20)
    weights = np.concatenate([averaged.real, averaged.imag])
    found = np.einsum("o,om->m", weights, scene.analysis.stems[0].instants).reshape(2, -1)
    dry = small.read(name)[0][scene.analysis.places]
    assert rms(found - real) < 0.1 * rms(real)
    assert rms(dry - real) > 0.25 * rms(real)  # the filter makes a difference


def rms(values):
    return float(np.sqrt(np.mean(values**2)))


# ---- whole mixes ------------------------------------------------------------------------------------------------


def peak_db(audio):
    return 20.0 * np.log10(np.abs(audio).max())


def misses(session, scene, seeds, **options):
    """For random mixes, predicted less real: (mixes, 3) peak, crest factor and limiting at the target, dB."""
    found = []
    for seed in seeds:
        settings = random_settings(scene, seed, **options)
        predicted, mix = scene.measures(settings), read(SumSource(session, settings))
        loudness = measure_array(mix, session.sample_rate).integrated_lufs
        gain = np.float32(10.0 ** ((scene.facts.target_lufs - loudness) / 20.0))
        limiter = Limiter(session.sample_rate, 2, scene.facts.ceiling_dbtp)
        limiter.process(mix * gain)
        limiter.flush()
        crest = peak_db(mix) - 10.0 * np.log10(np.mean(mix.astype(np.float64) ** 2))
        limiting = np.percentile(limiter.gain_reduction_db(), 99.0)
        found.append([
            float(predicted.peak_dbfs) - peak_db(mix), float(predicted.crest_db) - crest,
            float(predicted.limiting_db) - limiting,
        ])  # fmt: skip
    return np.array(found)


def test_a_plain_mix_peaks_where_it_is_predicted(small, small_scene):
    mix = read(SumSource(small, small_scene.neutral()))
    assert float(small_scene.measures(small_scene.neutral()).peak_dbfs) == pytest.approx(peak_db(mix), abs=0.1)


def test_gain_pan_and_polarity_alone_are_exact_at_the_instants(small, small_scene):
    """Without filters there is nothing to approximate: only a peak elsewhere can be missed."""
    for seed in range(3):
        settings = random_settings(small_scene, seed, presets=False)
        strips = {
            name: StripSettings(gain_db=strip.gain_db, pan=strip.pan, invert=strip.invert)
            for name, strip in settings.stems.items()
        }
        settings = replace(settings, stems=strips)
        mix = read(SumSource(small, settings))
        predicted = float(small_scene.measures(settings).peak_dbfs)
        assert predicted == pytest.approx(peak_db(mix[:, small_scene.analysis.places]), abs=0.01)
        assert predicted <= peak_db(mix) + 0.01
        assert predicted == pytest.approx(peak_db(mix), abs=1.0)


@pytest.mark.parametrize("presets", [False, True])
def test_nearly_all_peaks_are_within_a_decibel(small, small_scene, presets):
    """Random gains, pans, EQ, high-pass, polarity, with and without compressors. How far off peaks are on real
    sessions, over hundreds of mixes, benchmarks/closed_form.py tells."""
    off = np.abs(misses(small, small_scene, range(8), presets=presets))
    for name, column, nearly_all, every in zip(
        ("peak", "crest", "limiting"), off.T, (1.0, 1.0, 1.3), (2.5, 2.5, 2.0), strict=True
    ):
        assert np.median(column) < 0.5, name
        assert (column < nearly_all).mean() >= 0.87, name
        assert column.max() < every, name


def test_peaks_of_real_sessions_are_within_a_decibel(sample):
    session, scene = sample
    off = np.abs(misses(session, scene, range(4), presets=False))
    assert np.median(off[:, :2]) < 0.5
    assert (off[:, :2] < 1.0).mean() > 0.7
    assert off[:, :2].max() < 2.5
    assert off[:, 2].max() < 1.5


def test_nothing_is_limited_that_stays_below_the_ceiling():
    """Steady noise at -30 LUFS: its peaks, 12 dB higher or so, need no limiter. At -6 they do."""
    noise = (0.1 * np.random.default_rng(1).standard_normal((2, 4 * RATE))).astype(np.float32)
    session = Session.from_arrays({"noise": noise}, RATE)
    scene = Scene.of(session, target_lufs=-30.0)
    assert float(scene.measures(scene.neutral()).limiting_db) == 0.0
    loud = Scene(replace(scene.facts, target_lufs=-6.0), scene.analysis)
    assert float(loud.measures(loud.neutral()).limiting_db) > 2.0
