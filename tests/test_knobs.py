"""Settings as arrays: there and back without a loss, in the session's own order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import random_settings

from mixrl.errors import InputError
from mixrl.knobs import (
    COLUMNS,
    COMPRESSOR,
    EQ,
    GAIN,
    HIGHPASS,
    INVERT,
    NEUTRAL_SHAPE,
    PAN,
    TEMPO,
    Knobs,
    joined,
    neutral_knobs,
    to_knobs,
    to_settings,
)
from mixrl.measures import Facts
from mixrl.settings import COMPRESSORS, EqBand, MasterSettings, MixSettings, StripSettings

FACTS = Facts(
    names=("vox", "bass", "kick"),  # not sorted, as MixSettings are
    roles=("vocal", "bass", "kick"),
    members=("vocals", "band", "band"),
    activity=np.ones(3),
    bandwidth_hz=np.full(3, 18_000.0),
    counted=np.ones(31, dtype=bool),
    target_lufs=-16.0,
    ceiling_dbtp=-2.0,
    tempo_target=np.ones(3),
    tempo_weight=np.zeros(3),
)
STRIP = StripSettings(gain_db=-3.25, pan=0.3, invert=True, highpass_hz=80.0, compressor="medium", tempo_ratio=1.1)
STRIP = STRIP.with_band(0, gain_db=-1.5).with_band(4, gain_db=2.125)
SETTINGS = MixSettings(
    {"bass": StripSettings(), "kick": STRIP, "vox": StripSettings(pan=-1.0)},
    {"band": 1.5, "vocals": -2.0},
    {"bass": "band", "kick": "band", "vox": "vocals"},
    MasterSettings(ceiling_dbtp=-2.0, target_lufs=-16.0),
)


def test_every_knob_has_its_column():
    knobs = to_knobs(SETTINGS, FACTS)
    assert knobs.strips.shape == (3, COLUMNS)
    kick = knobs.strips[2]
    found = {column: float(kick[column]) for column in (GAIN, PAN, INVERT, HIGHPASS, COMPRESSOR, TEMPO)}
    wanted = {GAIN: -3.25, PAN: 0.3, INVERT: 1.0, HIGHPASS: 80.0, COMPRESSOR: COMPRESSORS.index("medium"), TEMPO: 1.1}
    assert found == wanted
    assert kick[EQ:].tolist() == [-1.5, 0.0, 0.0, 0.0, 2.125]
    assert knobs.strips[:, PAN].tolist() == [-1.0, 0.0, 0.3]  # the order of the facts
    assert dict(zip(FACTS.groups, knobs.groups.tolist(), strict=True)) == {"band": 1.5, "vocals": -2.0}
    assert knobs.shapes is None


def test_there_and_back_is_the_same():
    assert to_settings(to_knobs(SETTINGS, FACTS), FACTS) == SETTINGS


@pytest.mark.parametrize("seed", range(5))
def test_random_settings_come_back_to_the_last_bit(small_scene, seed):
    settings = random_settings(small_scene, seed)
    assert to_settings(to_knobs(settings, small_scene.facts), small_scene.facts) == settings


def test_nothing_turned_is_neutral():
    knobs = neutral_knobs(FACTS)
    assert not knobs.groups.any()
    settings = to_settings(knobs, FACTS)
    assert all(strip == StripSettings() for strip in settings.stems.values())
    back = to_knobs(settings, FACTS)
    np.testing.assert_array_equal(back.strips, knobs.strips)
    assert back.shapes is None


def test_shapes_of_the_eq_are_kept_beside_the_knobs():
    bands = list(STRIP.eq)
    bands[1], bands[2] = EqBand("peak", 400.0, -2.0, 3.0), EqBand("high_shelf", 5000.0, 0.0, 0.5)
    settings = SETTINGS.with_strip("bass", replace(SETTINGS.stems["bass"], eq=tuple(bands)))
    knobs = to_knobs(settings, FACTS)
    assert knobs.shapes is not None
    assert knobs.shapes[0] == knobs.shapes[2] == NEUTRAL_SHAPE
    assert knobs.shapes[1][1:3] == (("peak", 400.0, 3.0), ("high_shelf", 5000.0, 0.5))
    assert to_settings(knobs, FACTS) == settings
    # a shape without any gain is no sound, but it is kept
    silent = settings.with_strip("bass", settings.stems["bass"].with_band(1, gain_db=0.0))
    assert to_settings(to_knobs(silent, FACTS), FACTS) == silent


def test_what_the_settings_do_not_say():
    """A group without a gain stands at 0 dB; a stem without settings is a mistake."""
    found = to_knobs(replace(SETTINGS, groups={}, members={}), FACTS)
    assert found.groups.tolist() == [0.0, 0.0]
    with pytest.raises(InputError, match="vox"):
        to_knobs(MixSettings({"bass": StripSettings(), "kick": STRIP}), FACTS)


def test_batches_are_taken_apart_and_joined():
    one, other = neutral_knobs(FACTS), to_knobs(SETTINGS, FACTS)
    batch = joined([one, other, one])
    assert (batch.strips.shape, batch.groups.shape) == ((3, 3, COLUMNS), (3, 2))
    for index, mix in enumerate((one, other, one)):
        np.testing.assert_array_equal(batch[index].strips, mix.strips)
        np.testing.assert_array_equal(batch[index].groups, mix.groups)
    assert batch[1:].strips.shape == (2, 3, COLUMNS)
    assert other[None].groups.shape == (1, 2)


def test_a_copy_has_arrays_of_its_own():
    knobs = Knobs(np.zeros((3, COLUMNS)), np.zeros(2), (NEUTRAL_SHAPE,) * 3)
    copy = knobs.copy()
    copy.strips[0, GAIN] = copy.groups[0] = 1.0
    assert not knobs.strips.any()
    assert not knobs.groups.any()
    assert copy.shapes == knobs.shapes
