"""Recipes: read back as written, found again when moved, and refused with the file's name when broken."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stems import mixrl

from mixrl import InputError, LoggedMove, MixSettings, Recipe, StripSettings, read_recipe, write_recipe

MOVE = LoggedMove(1, "stem", "gtr [DI] ü", "gain", "+0.0 dB", "-2.0 dB", 0.12, "closer to usual levels of such stems")
RECIPE = Recipe(
    settings=MixSettings(
        {"gtr [DI] ü": StripSettings(gain_db=-2.0, pan=0.1), "kick": StripSettings(highpass_hz=30.0)},
        {"drums": 1.5},
        {"kick": "drums"},
    ),
    include=("click",),
    winner="dqn",
    scores={"no change": -1.0, "dqn": -0.5},
    moves=(MOVE,),
    seed=3,
    made_with="mixrl 0",
)


def test_a_recipe_reads_back_as_it_was():
    text = RECIPE.to_json()
    assert Recipe.from_json(text) == RECIPE
    assert "ü" in text  # for people who edit it


def test_bare_settings_are_a_recipe():
    assert Recipe.from_json(RECIPE.settings.to_json()).settings == RECIPE.settings


def test_a_name_that_is_no_text_survives():
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    odd = replace(RECIPE, settings=MixSettings.neutral([name]))
    assert Recipe.from_json(odd.to_json().encode().decode()) == odd


def test_the_session_is_found_again_after_a_move(tmp_path, monkeypatch):
    song = tmp_path / "work" / "song"
    song.mkdir(parents=True)
    (tmp_path / "work" / "recipes").mkdir()
    path = tmp_path / "work" / "recipes" / "mix.json"
    write_recipe(replace(RECIPE, folder=str(song)), path)
    assert json.loads(path.read_text(encoding="utf-8"))["folder"] == "../song"
    shutil.move(tmp_path / "work", tmp_path / "moved")
    monkeypatch.chdir("/")
    path = tmp_path / "moved" / "recipes" / "mix.json"
    recipe, folder = read_recipe(path)
    assert folder == tmp_path / "moved" / "song"
    # what was read can be written elsewhere and still means the same session
    write_recipe(recipe, tmp_path / "copy.json")
    again, there = read_recipe(tmp_path / "copy.json")
    assert there == folder
    assert again == recipe


def test_a_recipe_beside_its_stems(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_recipe(replace(RECIPE, folder="."), "mix.json")
    assert read_recipe("mix.json")[1] == tmp_path.resolve()


def test_an_existing_recipe_is_kept(tmp_path):
    path = tmp_path / "mix.json"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"mix\.json: exists already"):
        write_recipe(RECIPE, path)
    assert path.read_text() == "mine"
    write_recipe(RECIPE, path, force=True)
    assert read_recipe(path) == (RECIPE, None)
    assert [p.name for p in tmp_path.iterdir()] == ["mix.json"]


def edited(**changes):
    return json.dumps({**RECIPE.to_dict(), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "not a mixrl recipe"),
        ("{}", "not a mixrl recipe"),
        ("[" * 100_000, "too deeply nested"),
        (edited(format="other"), "not a mixrl recipe"),
        (edited(version=2), "version 2.*update mixrl"),
        (edited(version="1"), "version '1'"),
        (edited(extra=1), "unknown key 'extra'"),
        (edited(settings=[]), "settings must be an object"),
        (edited(settings={"version": 1}), "no 'stems'"),
        (edited(settings={"version": 1, "stems": {"kick": {"gain_db": 99}}}), "stem 'kick'.*gain_db"),
        (edited(winner=3), "winner has the wrong type"),
        (edited(include=[1]), "wrong type"),
        (edited(scores={"dqn": "good"}), "wrong type"),
        (edited(scores={"dqn": 10**400}), "a score is out of range"),
        (edited(scores={"dqn": 0}).replace('"dqn": 0', '"dqn": 1e999'), "a score is out of range"),
        (edited(scores={"dqn": float("nan")}), "NaN is not a number"),
        (edited(moves=[{}]), "a move must have the keys step, target"),
        (edited(moves=[{**RECIPE.to_dict()["moves"][0], "step": True}]), "wrong type"),
        (edited(seed=-1), "seed -1 is out of range"),
        (edited().replace('"seed": 3', '"seed": ' + "9" * 5000), "a number of 5000 digits"),
        (edited().replace('"seed": 3', '"seed": 3, "seed": 4'), "a key appears twice"),
        (edited(settings={"version": 7, "stems": {}, "new": 1}), "version 7.*update mixrl"),
        (" " * (16 << 20) + edited(), "is larger than 16384 KB"),
        (edited(seed=1.5), "seed has the wrong type"),
        (edited(folder=7), "folder has the wrong type"),
        (json.dumps({k: v for k, v in RECIPE.to_dict().items() if k != "settings"}), "has no settings"),
    ],
)
def test_broken_recipes_are_refused_by_name(text, message, tmp_path):
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        read_recipe(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_read_over(tmp_path):
    (tmp_path / "mix.json").write_text(RECIPE.to_json(), encoding="utf-8-sig")
    assert read_recipe(tmp_path / "mix.json")[0] == RECIPE


@pytest.mark.parametrize("folder", ["../../../../../../../../nowhere", "/nowhere", "a\0b", "\udce9", "mix.json", "\n"])
def test_a_folder_that_is_not_there(folder, tmp_path):
    path = tmp_path / "mix.json"
    path.write_text(edited(folder=folder))
    code, out, err = mixrl("render", path, "-o", tmp_path / "a.wav")
    assert (code, out) == (2, "")
    assert "the recipe's session is not there: give its folder with --session" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "a.wav").exists()


def test_files_that_are_no_text_or_not_there(tmp_path):
    (tmp_path / "mix.wav").write_bytes(b"RIFF\xff\xfe\xfd")
    with pytest.raises(InputError, match="not a text file"):
        read_recipe(tmp_path / "mix.wav")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "nothing.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path)


def places(value, path=()):
    """Every place inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


PLACES = list(places(RECIPE.to_dict()))[1:]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.sampled_from(PLACES), value=JSON, remove=st.booleans())
def test_one_wrong_value_is_refused_or_harmless(place, value, remove):
    data = json.loads(RECIPE.to_json())
    *way, last = place
    at = data
    for key in way:
        at = at[key]
    if remove:
        del at[last]
    else:
        at[last] = value
    recipe, message = None, "mix.json: "
    try:
        recipe = Recipe.from_json(json.dumps(data), "mix.json")
    except InputError as error:
        message = str(error)
    assert message.startswith("mix.json: ")
    assert "\n" not in message
    assert recipe is None or Recipe.from_json(recipe.to_json()) == recipe


def test_a_recipe_needs_no_folder(tmp_path: Path):
    write_recipe(RECIPE, tmp_path / "mix.json")
    assert read_recipe(tmp_path / "mix.json") == (RECIPE, None)
