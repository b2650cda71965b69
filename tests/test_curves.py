"""The tabulated frequency responses against the exact ones of ``strip.response``."""

from __future__ import annotations

import numpy as np
import pytest

from mixrl.analysis import BANDS, band_centres
from mixrl.curves import curves
from mixrl.knobs import COLUMNS, COMPRESSOR, EQ, GAIN, HIGHPASS, INVERT, NEUTRAL_SHAPE, PAN, TEMPO
from mixrl.moves import HIGHPASS_HZ
from mixrl.settings import EqBand, StripSettings
from mixrl.strip import response

RATES = (22_050, 44_100, 48_000)


def rows(count):
    found = np.zeros((count, COLUMNS))
    found[:, TEMPO] = 1.0
    return found


def exact(strips, shape, rate):
    settings = [
        StripSettings(
            highpass_hz=row[HIGHPASS] or None,
            eq=tuple(EqBand(kind, hz, gain, q) for (kind, hz, q), gain in zip(shape, row[EQ:], strict=True)),
        )
        for row in strips
    ]
    return np.stack([response(strip, band_centres(), rate) for strip in settings])


def off_db(strips, shape, rate):
    """(K, BANDS) distance from the exact response: of magnitudes in dB and of the complex values as a share."""
    found, wanted = curves(strips, shape, rate), exact(strips, shape, rate)
    return np.abs(20.0 * np.log10(np.abs(found) / np.abs(wanted))), np.abs(found - wanted) / np.abs(wanted)


@pytest.mark.parametrize("rate", [*RATES, 96_000])
def test_half_decibels_are_exact(rate):
    """All five bands at once, over the whole range; the moves only ever come to half dB."""
    strips = rows(200)
    strips[:, EQ:] = np.random.default_rng(rate).integers(-48, 49, (200, 5)) / 2.0
    decibels, complex_share = off_db(strips, NEUTRAL_SHAPE, rate)
    assert decibels.max() < 1e-4
    assert complex_share.max() < 2e-6  # phase included, to single precision


@pytest.mark.parametrize("rate", RATES)
def test_between_them_it_is_a_hundredth_of_a_decibel(rate):
    for band in range(5):
        strips = rows(60)
        strips[:, EQ + band] = np.random.default_rng(band).uniform(-24.0, 24.0, 60)
        decibels, complex_share = off_db(strips, NEUTRAL_SHAPE, rate)
        # the low shelf's single-precision coefficients make its own gain jump about by as much: see the next test
        assert decibels.max() < (0.06 if band == 0 else 0.01), band
        assert complex_share.max() < (0.008 if band == 0 else 0.002), band


def test_the_low_shelf_itself_is_no_smoother():
    """What interpolation misses is what the real filter does by rounding when its gain hardly moves."""
    strips = rows(400)
    strips[:, EQ] = np.linspace(5.0, 5.01, 400)
    found = 20.0 * np.log10(np.abs(exact(strips, NEUTRAL_SHAPE, 48_000)[:, 0]))
    assert np.ptp(found - strips[:, EQ]) > 0.02


@pytest.mark.parametrize("rate", [*RATES, 96_000])
def test_corners_that_moves_come_to_are_exact(rate):
    corners = [hz for hz in HIGHPASS_HZ if hz] + [20.0, 80.0, 1000.0]
    strips = rows(len(corners))
    strips[:, HIGHPASS] = corners
    decibels, complex_share = off_db(strips, NEUTRAL_SHAPE, rate)
    assert decibels.max() < 1e-4
    assert complex_share.max() < 1e-5


@pytest.mark.parametrize("rate", RATES)
def test_any_other_corner_is_close(rate):
    strips = rows(300)
    strips[:, HIGHPASS] = np.random.default_rng(0).uniform(20.0, 1000.0, 300)
    decibels, complex_share = off_db(strips, NEUTRAL_SHAPE, rate)
    assert decibels.max() < 0.01
    assert complex_share.max() < 0.002


def test_other_shapes_have_tables_of_their_own():
    shape = (
        ("peak", 60.0, 4.0), ("low_shelf", 200.0, 0.5), ("peak", 2500.0, 8.0), ("high_shelf", 3000.0, 1.0),
        ("peak", 12_000.0, 0.3),
    )  # fmt: skip
    strips = rows(50)
    strips[:, EQ:] = np.random.default_rng(1).integers(-24, 25, (50, 5)) / 2.0
    strips[:, HIGHPASS] = 60.0
    decibels, complex_share = off_db(strips, shape, 44_100)
    assert decibels.max() < 1e-4
    assert complex_share.max() < 1e-5
    assert np.abs(curves(strips, shape, 44_100) - curves(strips, NEUTRAL_SHAPE, 44_100)).max() > 0.1


def test_bands_above_the_sample_rate_do_nothing():
    strips = rows(1)
    strips[0, EQ + 4] = 12.0
    np.testing.assert_array_equal(curves(strips, NEUTRAL_SHAPE, 16_000), np.ones((1, BANDS)))


def test_only_high_pass_and_eq_shape_the_curve():
    strips = rows(2)
    strips[1, [GAIN, PAN, INVERT, COMPRESSOR, TEMPO]] = 6.0, 0.5, 1.0, 2.0, 1.2
    np.testing.assert_array_equal(curves(strips, NEUTRAL_SHAPE, 44_100), np.ones((2, BANDS)))
