"""The analysis keeps energy, coherence and sample values: what the closed form is built on."""

from __future__ import annotations

from dataclasses import fields
from functools import partial

import numpy as np
import pytest
from conftest import RATE, small_stems, third_octaves

from mixrl.analysis import BANDS, OCTAVES, SUBBANDS, analyse, analyse_variant, band_edges, octave_of_band
from mixrl.measures import CENTRES_HZ, EDGES_HZ, decibels, gate
from mixrl.meters import gated_loudness, hop_powers

NAMES = ("kick", "vocal", "keys", "guitar_close", "guitar_room", "shaker")


def readers(stems):
    return [partial(_span, np.atleast_2d(audio)) for audio in stems]


def _span(audio, start, stop):
    inside = audio[:, start:stop]
    return np.pad(inside, ((0, 0), (0, stop - start - inside.shape[1])))


@pytest.fixture(scope="module")
def stems():
    made = small_stems(seconds=6.0, seed=5)
    return [made[name] for name in NAMES]


@pytest.fixture(scope="module")
def analysis(stems):
    return analyse(readers(stems), RATE, 6 * RATE)


def test_bands_nest_in_third_octaves_and_octaves():
    edges = band_edges()
    np.testing.assert_allclose(edges[::SUBBANDS], EDGES_HZ, rtol=1e-12)
    assert len(edges) == BANDS + 1
    assert np.bincount(octave_of_band()).tolist() == [12] * (OCTAVES - 1) + [16]


def test_the_bands_hold_the_power_of_each_channel(stems, analysis):
    for name, audio, spectra in zip(NAMES, stems, analysis.stems, strict=True):
        power = np.broadcast_to(np.atleast_2d(audio), (2, audio.shape[-1])).astype(np.float64) ** 2
        found = spectra.own.sum(axis=1)
        if name == "shaker":
            assert not found.any()
        else:
            np.testing.assert_allclose(decibels(found), decibels(power.mean(axis=1)), atol=0.1)


def test_cross_spectra_give_the_spectrum_of_any_sum(stems, analysis):
    gains = np.array([0.7, -1.3, 0.9, 1.0, -0.8, 1.0])
    mix = sum(g * np.broadcast_to(np.atleast_2d(a), (2, a.shape[-1])) for g, a in zip(gains, stems, strict=True))
    real = decibels(third_octaves(mix, RATE))
    power = np.einsum("i,j,cijb->b", gains, gains, analysis.cross[:2]).real
    predicted = decibels(power.reshape(-1, SUBBANDS).sum(axis=1))
    judged = (real > real.max() - 45.0) & (CENTRES_HZ > 60.0)  # below, a window of 0.7 s blurs the narrow bands
    assert judged.sum() > 15
    assert np.percentile(np.abs(predicted - real)[judged], 95) < 0.3


def test_cross_spectra_are_hermitian_and_mono_is_the_same_on_both_sides(analysis):
    left, right, _ = analysis.cross
    np.testing.assert_allclose(left, np.conj(left.swapaxes(0, 1)), atol=1e-9)
    np.testing.assert_allclose(right, np.conj(right.swapaxes(0, 1)), atol=1e-9)
    mono = analysis.cross[:, NAMES.index("vocal"), NAMES.index("vocal")]
    np.testing.assert_allclose(mono[1], mono[0], rtol=1e-5)
    np.testing.assert_allclose(mono[2], mono[0], rtol=1e-5)
    assert analysis.channels == (1, 1, 2, 1, 1, 1)


def test_hop_powers_gate_as_the_meter_does(stems, analysis):
    for name, audio, spectra in zip(NAMES[:-1], stems, analysis.stems, strict=False):
        steady = name != "kick"  # whose decay the hop windows smear, so that other blocks pass the relative gate
        both = np.ascontiguousarray(np.broadcast_to(np.atleast_2d(audio), (2, audio.shape[-1])))
        exact = hop_powers([both], RATE, 2)
        blocks = np.lib.stride_tricks.sliding_window_view(exact, 4).mean(axis=1)
        own = spectra.hops.sum(axis=(1, 2), dtype=np.float64)
        found = float(gate(np.lib.stride_tricks.sliding_window_view(own, 4).mean(axis=1)))
        assert found == pytest.approx(gated_loudness(blocks), abs=0.15 if steady else 0.6)


def test_octaves_of_an_instant_add_up_to_the_sample(stems, analysis):
    for audio, spectra in zip(stems, analysis.stems, strict=True):
        values = np.broadcast_to(np.atleast_2d(audio), (2, audio.shape[-1]))[:, analysis.places]
        np.testing.assert_allclose(spectra.instants.sum(axis=1), values, atol=2e-5)


def test_the_loudest_sample_of_the_plain_sum_is_watched(stems, analysis):
    mix = np.abs(sum(np.atleast_2d(a) for a in stems))
    assert mix[:, analysis.places].max() == mix.max()


def test_a_variant_that_is_the_stem_itself_has_its_spectra(stems, analysis):
    for index, read in enumerate(readers(stems)):
        again = analyse_variant(read, analysis)
        for field in ("own", "hops", "instants"):
            # the stem's own power comes out of one big product, the variant's out of a small one: rounding differs
            expected = getattr(analysis.stems[index], field)
            np.testing.assert_allclose(getattr(again, field), expected, rtol=1e-4, atol=1e-12)


def test_a_song_longer_than_a_piece_is_read_to_its_end(stems):
    """12.34 s: two pieces, the last of which ends inside a hop."""
    long = [np.tile(np.atleast_2d(a), (1, 3))[:, : round(12.34 * RATE)] for a in stems]
    found = analyse(readers(long), RATE, long[0].shape[1])
    assert len(found.pieces) == 2
    assert found.hops == 124
    for audio, spectra in zip(long[:-1], found.stems, strict=False):
        power = (np.broadcast_to(audio, (2, audio.shape[1])).astype(np.float64) ** 2).mean(axis=1)
        np.testing.assert_allclose(decibels(spectra.own.sum(axis=1)), decibels(power), atol=0.1)
    assert found.places.max() < long[0].shape[1]


def test_the_same_audio_gives_the_same_analysis(stems, analysis):
    again = analyse(readers(stems), RATE, 6 * RATE)
    np.testing.assert_array_equal(again.cross, analysis.cross)
    np.testing.assert_array_equal(again.places, analysis.places)
    for one, other in zip(again.stems, analysis.stems, strict=True):
        for field in fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
