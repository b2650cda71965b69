"""The analysis keeps energy, coherence and sample values: what the closed form is built on."""

from __future__ import annotations

from dataclasses import fields
from functools import partial

import numpy as np
import pytest
from conftest import RATE, band_noise, small_stems, third_octaves

from mixrl.analysis import (
    BANDS,
    HOP_BANDS,
    HOP_STARTS,
    SUBBANDS,
    analyse,
    analyse_sum,
    analyse_variant,
    band_centres,
    band_edges,
)
from mixrl.measures import CENTRES_HZ, EDGES_HZ, decibels, gate
from mixrl.meters import gated_loudness, hop_powers, k_weighting_power
from mixrl.peaks import OCTAVES

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


def stereo(audio):
    return np.broadcast_to(np.atleast_2d(audio), (2, audio.shape[-1]))


def test_bands_nest_in_third_octaves_and_octaves():
    edges, centres = band_edges(), band_centres()
    np.testing.assert_allclose(edges[::SUBBANDS], EDGES_HZ, rtol=1e-12)
    assert len(edges) == BANDS + 1 == len(centres) + 1
    assert ((edges[:-1] < centres) & (centres < edges[1:])).all()
    octaves = np.arange(0, BANDS, 3 * SUBBANDS)[:OCTAVES]
    assert np.diff([*octaves, BANDS]).tolist() == [12] * (OCTAVES - 1) + [16]  # the last takes the rest
    assert 2 * HOP_BANDS % 10 == 0  # rows are added up ten at a time


def test_the_bands_hold_the_power_of_each_channel(stems, analysis):
    for name, audio, spectra in zip(NAMES, stems, analysis.stems, strict=True):
        power = stereo(audio).astype(np.float64) ** 2
        found = spectra.own.sum(axis=1)
        if name == "shaker":
            assert not found.any()
        else:
            np.testing.assert_allclose(decibels(found), decibels(power.mean(axis=1)), atol=0.1)


def test_cross_spectra_give_the_spectrum_of_any_sum(stems, analysis):
    gains = np.array([0.7, -1.3, 0.9, 1.0, -0.8, 1.0])
    mix = sum(g * stereo(a) for g, a in zip(gains, stems, strict=True))
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


def test_the_side_of_a_mix_is_in_the_cross_spectra_too(analysis, stems):
    keys = NAMES.index("keys")
    left, right = stems[keys].astype(np.float64)
    between = analysis.cross[2, keys, keys].sum()
    assert between.real == pytest.approx(float(np.mean(left * right)), rel=0.02)
    assert abs(between.imag) < 0.02 * abs(between.real)


def k_weighted(audio):
    """(T,) K-weighted power per 100 ms of stereo audio, by the meter's own filter."""
    return hop_powers([np.ascontiguousarray(stereo(audio), dtype=np.float32)], RATE, 2)


def blocks_of(hops):
    return np.lib.stride_tricks.sliding_window_view(hops, 4).mean(axis=1)


def test_hop_powers_gate_as_the_meter_does(stems, analysis):
    for audio, spectra in zip(stems[:-1], analysis.stems, strict=False):
        assert spectra.hops.shape == (2 * HOP_BANDS, 60)
        hops = spectra.hops.sum(axis=0, dtype=np.float64)
        np.testing.assert_allclose(hops, k_weighted(audio), rtol=1e-4, atol=1e-12)  # kicks and rests are not smeared
        assert float(gate(blocks_of(hops))) == pytest.approx(gated_loudness(blocks_of(k_weighted(audio))), abs=0.01)


def test_hops_keep_their_energy_and_their_band(stems, analysis):
    """Over the whole time the bands of the hops hold what the K-weighted spectrum holds."""
    np.testing.assert_allclose(analysis.k_power, k_weighting_power(band_centres(), RATE), rtol=1e-5)
    wide = [0, *range(6, HOP_BANDS)]  # windows of 0.2 s part the narrow ones in the bass less sharply
    starts = SUBBANDS * np.array(HOP_STARTS)[wide]
    for name, spectra in zip(NAMES[:-1], analysis.stems, strict=False):
        bands = np.add.reduceat((spectra.own * analysis.k_power), starts, axis=1)
        hops = np.add.reduceat(spectra.hops.mean(axis=1).reshape(2, HOP_BANDS), wide, axis=1)
        strong = bands > bands.max() / 100.0
        assert strong.sum() >= (2 if name == "kick" else 4)
        np.testing.assert_allclose(decibels(hops[strong]), decibels(bands[strong]), atol=0.7, err_msg=name)
        assert hops.sum() == pytest.approx(bands.sum(), rel=0.03)


@pytest.mark.parametrize("gains", [(1.0, 1.0), (1.0, -0.7), (0.5, 1.4)])
def test_pairs_are_coherent_stems_and_share_their_hops(stems, analysis, gains):
    """What two microphones of one guitar make together, hop by hop: the sum of their powers and what they share."""
    assert analysis.pairs.tolist() == [[3, 4]]
    one, other = (stems[index] for index in (3, 4))
    real = k_weighted(gains[0] * one + gains[1] * other)
    own = [analysis.stems[index].hops.sum(axis=0) for index in (3, 4)]
    shared = analysis.shared[0].reshape(2, 2, HOP_BANDS, -1)[:, 0].sum(axis=(0, 1))  # the real rows of both sides
    found = gains[0] ** 2 * own[0] + gains[1] ** 2 * own[1] + gains[0] * gains[1] * shared
    np.testing.assert_allclose(found, real, rtol=1e-3, atol=1e-9)
    without = gains[0] ** 2 * own[0] + gains[1] ** 2 * own[1]
    assert abs(without.mean() / real.mean() - 1.0) > 0.15


@pytest.mark.parametrize("degrees", [0.0, 60.0, 90.0, -90.0, 180.0])
def test_shared_hops_follow_the_phase_of_the_gains(degrees):
    """Two sines a quarter apart, the first turned further by a complex gain."""
    time = np.arange(2 * RATE) / RATE
    phase = 2 * np.pi * 1000.0 * time
    one, other = (0.1 * np.cos(p).astype(np.float32) for p in (phase, phase - 0.5 * np.pi))
    found = analyse(readers([one, other]), RATE, 2 * RATE)
    assert len(found.pairs) == 1  # at a right angle they share nothing as they are, but they are coherent
    gain = np.exp(1j * np.radians(degrees))
    real, imag = found.shared[0].reshape(2, 2, HOP_BANDS, -1).sum(axis=(0, 2))
    hops = sum(stem.hops.sum(axis=0) for stem in found.stems) + gain.real * real + gain.imag * imag
    turned = 0.1 * np.cos(phase + np.radians(degrees)).astype(np.float32)
    inside = slice(2, -2)
    np.testing.assert_allclose(hops[inside], k_weighted(turned + other)[inside], atol=2e-4)


@pytest.mark.parametrize("milliseconds", [0.0, 0.6, 3.1, 9.0])
def test_a_second_microphone_is_recognised_whatever_its_distance(milliseconds):
    """A delay turns the phase from band to band, so that the whole cross-power is next to nothing."""
    rng = np.random.default_rng(2)
    source, others = (band_noise(rng, 5 * RATE, RATE, 100.0, 6000.0) for _ in range(2))
    later = np.roll(source, round(milliseconds / 1000.0 * RATE))
    stems = [(0.1 * audio).astype(np.float32) for audio in (source, others, 0.5 * later + 0.02 * others)]
    assert analyse(readers(stems), RATE, 5 * RATE).pairs.tolist() == [[0, 2]]


def test_stems_that_meet_once_where_both_are_loudest_are_a_pair():
    """Over twelve seconds they have next to nothing in common."""
    rng = np.random.default_rng(4)
    same, *own = (band_noise(rng, 12 * RATE, RATE, 100.0, 6000.0) for _ in range(4))
    meeting = slice(4 * RATE, 5 * RATE)
    stems = [0.05 * noise.astype(np.float32) for noise in own]
    for stem in stems[:2]:
        stem[meeting] = 0.08 * same[meeting]
    found = analyse(readers(stems), RATE, 12 * RATE)
    assert found.pairs.tolist() == [[0, 1]]
    both = np.abs((found.cross[0] + found.cross[1]) * found.k_power).sum(axis=-1)
    assert both[0, 1] / np.sqrt(both[0, 0] * both[1, 1]) < 0.3


def test_only_so_many_pairs_are_followed():
    """Ten copies of one source are 45 pairs; the most coherent come first."""
    rng = np.random.default_rng(0)
    source = band_noise(rng, 2 * RATE, RATE, 200.0, 4000.0)
    copies = [
        (0.1 * (source + 0.1 * k * band_noise(rng, 2 * RATE, RATE, 200.0, 4000.0))).astype(np.float32)
        for k in range(10)
    ]
    found = analyse(readers(copies), RATE, 2 * RATE)
    assert len(found.pairs) == 40
    assert found.pairs[0].tolist() == [0, 1]
    assert (found.pairs[:, 0] < found.pairs[:, 1]).all()
    assert found.shared.shape == (40, 4 * HOP_BANDS, 20)


def test_a_variant_that_is_the_stem_itself_has_its_spectra(stems, analysis):
    for index, read in enumerate(readers(stems)):
        again = analyse_variant(read, analysis, 1.5)
        assert again.gain_reduction_db == 1.5
        for field in ("own", "hops", "instants"):
            # the stem's own power comes out of one big product, the variant's out of a small one: rounding differs
            expected = getattr(analysis.stems[index], field)
            np.testing.assert_allclose(getattr(again, field), expected, rtol=1e-4, atol=1e-12)


def test_a_song_longer_than_a_piece_is_read_to_its_end(stems):
    """12.34 s: the last piece ends inside a hop."""
    long = [np.tile(np.atleast_2d(a), (1, 3))[:, : round(12.34 * RATE)] for a in stems]
    found = analyse(readers(long), RATE, long[0].shape[1])
    assert len(found.pieces) == 13
    assert found.hops == 124
    for audio, spectra in zip(long[:-1], found.stems, strict=False):
        power = (np.broadcast_to(audio, (2, audio.shape[1])).astype(np.float64) ** 2).mean(axis=1)
        np.testing.assert_allclose(decibels(spectra.own.sum(axis=1)), decibels(power), atol=0.1)
    assert found.places.max() < long[0].shape[1]


def test_pieces_are_not_cut():
    """A bass drum that sounds where one piece ends has nothing in the treble for that."""
    length = 25 * RATE
    time = np.arange(length) / RATE
    bass = (0.5 * np.sin(2 * np.pi * 50.0 * time) * np.sin(np.pi * np.arange(length) / length)).astype(np.float32)
    found = analyse(readers([bass]), RATE, length)
    assert len(found.pieces) == 25
    power = found.stems[0].own.sum(axis=0).reshape(-1, SUBBANDS).sum(axis=1)
    assert decibels(power[CENTRES_HZ > 500.0].max()) < decibels(power.max()) - 90.0


def test_the_same_audio_gives_the_same_analysis(stems, analysis):
    again = analyse(readers(stems), RATE, 6 * RATE)
    np.testing.assert_array_equal(again.cross, analysis.cross)
    np.testing.assert_array_equal(again.places, analysis.places)
    for one, other in zip(again.stems, analysis.stems, strict=True):
        for field in fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_what_is_only_metered_takes_no_more(stems, analysis):
    """No places, hops not split into bands; everything that the sum's measures need is the same."""
    found = analyse_sum(readers(stems), RATE, 6 * RATE, analysis.pairs)
    assert found.places.tolist() == [0]
    assert found.hops == analysis.hops
    np.testing.assert_array_equal(found.cross, analysis.cross)
    for one, other in zip(found.stems, analysis.stems, strict=True):
        np.testing.assert_allclose(one.hops.sum(axis=0), other.hops.sum(axis=0), rtol=1e-5, atol=1e-12)
        np.testing.assert_array_equal(one.own, other.own)
        assert one.instants.shape == (2 * OCTAVES, 2)


def test_windows_reach_over_the_ends_of_pieces(stems, analysis):
    """What is read at once shows nowhere: a click just after the end of a piece is in the hop before, too."""
    audio = np.zeros((1, 3 * RATE), dtype=np.float32)
    audio[0, RATE + 100] = 1.0
    hops = analyse(readers([audio]), RATE, 3 * RATE).stems[0].hops
    later = analyse(readers([np.roll(audio, RATE // 2)]), RATE, 3 * RATE).stems[0].hops
    np.testing.assert_allclose(np.roll(hops, 5, axis=1), later, rtol=1e-3, atol=1e-9)
