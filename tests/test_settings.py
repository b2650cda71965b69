from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixrl.errors import InputError
from mixrl.settings import (
    COMPRESSORS,
    EQ_BANDS,
    EQ_KINDS,
    EqBand,
    MasterSettings,
    MixSettings,
    StripSettings,
)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


bands = st.builds(EqBand, st.sampled_from(EQ_KINDS), numbers(20, 20_000), numbers(-24, 24), numbers(0.1, 10))
strips = st.builds(
    StripSettings,
    gain_db=numbers(-60, 30),
    pan=numbers(-1, 1),
    invert=st.booleans(),
    highpass_hz=st.none() | numbers(20, 1000),
    eq=st.tuples(*[bands] * EQ_BANDS),
    compressor=st.sampled_from(COMPRESSORS),
    tempo_ratio=numbers(0.5, 2),
)


@st.composite
def mixes(draw: st.DrawFn) -> MixSettings:
    stems = draw(st.dictionaries(st.text(min_size=1), strips, max_size=4))
    groups = draw(st.dictionaries(st.text(min_size=1), numbers(-60, 30), max_size=3))
    members = {}
    if stems and groups:
        names, group = st.sampled_from(sorted(stems)), st.sampled_from(sorted(groups))
        members = draw(st.dictionaries(names, group))
    master = draw(st.builds(MasterSettings, numbers(-60, 30), numbers(-20, 0), st.none() | numbers(-60, 0)))
    return MixSettings(stems, groups, members, master)


@settings(deadline=None, max_examples=60)
@given(mixes())
def test_json_pickle_and_copies_are_equal_to_the_last_bit(mix: MixSettings) -> None:
    for other in (
        MixSettings.from_json(mix.to_json()),
        MixSettings.from_dict(mix.to_dict()),
        pickle.loads(pickle.dumps(mix)),
        copy.deepcopy(mix),
    ):
        assert other == mix
        assert hash(other) == hash(mix)
        assert other.to_json() == mix.to_json()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
EXAMPLE = (
    MixSettings.neutral(["kick", "vox"], {"kick": "drums"})
    .with_strip("vox", StripSettings(-3.5, 0.25, True, 80.0, compressor="gentle", tempo_ratio=1.02))
    .with_group("drums", 1.5)
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in children for found in places(child, (*path, key)))]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(places(EXAMPLE.to_dict())[1:]), json_values)
def test_anything_in_any_place_is_read_as_settings_or_refused(path: tuple[Any, ...], value: Any) -> None:
    data = EXAMPLE.to_dict()
    at: Any = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    try:
        read = MixSettings.from_json(json.dumps(data))
    except InputError:
        return  # any other exception fails the test
    assert MixSettings.from_json(read.to_json()) == read


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=40) | json_values.map(json.dumps))
def test_text_that_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        MixSettings.from_json(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"version": 2, "stems": {}, "later": 1}', "update mixrl"),
        ('{"version": 1, "stems": {}, "typo": 1}', "unknown key 'typo'"),
        ('{"version": 1, "stems": {"a": {"gain": 1}}}', "stem 'a': unknown key 'gain'"),
        ('{"version": 1, "stems": {"a": {"gain_db": NaN}}}', "NaN"),
        ('{"version": 1, "stems": {"a": {"gain_db": 1e999}}}', "from -60 to 30"),
        ('{"version": 1, "stems": {"a": {}, "a": {}}}', "twice"),
        ('{"version": 1, "stems": {"a": {}}, "members": {"a": "drums"}}', "has no gain"),
        ('{"version": 1, "stems": {}, "groups": {"g": true}}', "group 'g'"),
        ('{"version": 1, "stems": {"a": {"eq": [{"kind": "peak"}]}}}', "EQ band 1"),
        ('{"stems": {}}', "'version'"),
        ("[" * 100_000, "nested"),
    ],
)
def test_messages_name_the_place(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        MixSettings.from_json(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"gain_db": math.nan},
        {"gain_db": 30.1},
        {"gain_db": "1"},
        {"gain_db": None},
        {"gain_db": True},
        {"pan": -1.0001},
        {"pan": math.inf},
        {"invert": 1},
        {"highpass_hz": 19.0},
        {"compressor": "brutal"},
        {"tempo_ratio": 0.0},
        {"eq": ()},
        {"eq": (1, 2, 3, 4, 5)},
    ],
)
def test_strips_refuse_what_is_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        StripSettings(**wrong)


def test_absent_keys_of_a_recipe_take_their_defaults() -> None:
    read = MixSettings.from_json('{"version": 1, "stems": {"a": {"pan": 1}}}')
    assert read == MixSettings({"a": StripSettings(pan=1.0)})
    assert isinstance(read.strip("a").pan, float)


def test_numpy_numbers_become_plain_ones() -> None:
    strip = StripSettings(gain_db=np.float32(0.5), pan=np.int64(1))  # type: ignore[arg-type]
    assert type(strip.gain_db) is type(strip.pan) is float
    MixSettings({"a": strip}).to_json()


def test_a_stem_has_its_own_gain_and_its_groups() -> None:
    assert EXAMPLE.stem_gain_db("vox") == -3.5
    assert EXAMPLE.with_strip("kick", StripSettings(gain_db=-2)).stem_gain_db("kick") == -0.5


def test_changes_make_new_settings_and_the_old_stay() -> None:
    before = EXAMPLE.to_json()
    changed = EXAMPLE.with_strip("kick", StripSettings().with_band(2, gain_db=-4.0))
    assert changed.stems["kick"].eq[2] == EqBand("peak", 1000.0, -4.0, 1.0)
    assert changed != EXAMPLE
    assert EXAMPLE.to_json() == before
    with pytest.raises(TypeError):
        EXAMPLE.stems["kick"] = StripSettings()  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        EXAMPLE.master = MasterSettings()  # type: ignore[misc]


def test_unknown_names_are_refused() -> None:
    for call in (
        lambda: EXAMPLE.stem_gain_db("bass"),
        lambda: EXAMPLE.with_strip("bass", StripSettings()),
        lambda: EXAMPLE.with_group("bass", 0.0),
        lambda: MixSettings.neutral(["a"], {"b": "drums"}),
        lambda: replace(EXAMPLE, version=2),
    ):
        with pytest.raises(InputError):
            call()


def test_equality_does_not_depend_on_the_order_of_stems() -> None:
    one, two = MixSettings.neutral(["a", "b"]), MixSettings.neutral(["b", "a"])
    assert one == two
    assert list(two.stems) == ["a", "b"]
