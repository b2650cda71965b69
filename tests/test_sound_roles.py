"""What stems are by their sound: learned, kept in files, said only where it is sure, never against what is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import RATE, small_stems
from stems import RATE as LOW_RATE
from stems import band, mixrl, write

from mixrl import load_session
from mixrl.errors import InputError
from mixrl.facts import nobody_knows
from mixrl.knobs import HIGHPASS
from mixrl.mixer import Mixer
from mixrl.people import informed
from mixrl.role_learning import Labelled, judged, labelled, learn, summary
from mixrl.roles import LEVELS, ROLES, group_of_role, known_of
from mixrl.rules import rule_mix
from mixrl.scene import Scene
from mixrl.score import yardstick
from mixrl.session import Session
from mixrl.sound_roles import (
    COLUMNS,
    SURE_OF_GROUP,
    SURE_OF_ROLE,
    RoleClassifier,
    default_classifier,
    guessed,
    load_classifier,
)
from mixrl.stem_features import FEATURES, NAMES, stem_features
from mixrl.weights import load_arrays, save_arrays

TAUGHT = ("kick", "snare", "bass", "guitar", "keys", "vocal")


def always(role, logit=50.0):
    """A classifier that hears one role in everything; the smaller the logit, the less sure of it."""
    bias = np.where(np.array(ROLES) == role, logit, 0.0)
    return RoleClassifier(
        np.zeros(len(COLUMNS)), np.ones(len(COLUMNS)), np.zeros((len(COLUMNS), len(ROLES))), bias
    )


def song(seed, real=True):
    """Twelve stems whose features tell roughly what they are, one that is silent, and one that nothing is known of."""
    rng = np.random.default_rng(seed)
    roles = [str(role) for role in rng.choice(TAUGHT, 12)]
    centres = np.random.default_rng(123).normal(0.0, 1.0, (len(TAUGHT), FEATURES))
    features = np.array([centres[TAUGHT.index(role)] for role in roles]) + rng.normal(0.0, 1.5, (12, FEATURES))
    heard = np.arange(12) != 3
    return Labelled(tuple(map(str, range(12))), (None, *roles[1:]), features * heard[:, None], heard, real)


@pytest.fixture(scope="module")
def songs():
    return [song(seed, seed % 3 == 0) for seed in range(12)]


@pytest.fixture(scope="module")
def classifier(songs):
    return learn(songs, {"command": "test"})


@pytest.fixture(scope="module")
def scene():
    """Six stems of which the names tell nothing but for two: the vocal's, and what is called keys, in a folder."""
    stems = list(small_stems(seconds=4.0).values())
    names = ("track01", "vocal", "synths/keys", "close/track04", "track05", "track06")
    return Scene.of(Session.from_arrays(dict(zip(names, stems, strict=True)), RATE))


def by_name(scene, values):
    return dict(zip(scene.facts.names, values, strict=True))


# ---- the classifier ----------------------------------------------------------------------------------------------


def test_what_there_is_to_learn_is_learned(classifier):
    rows = [row for seed in range(100, 110) for row in judged(song(seed), classifier)]
    found = summary(rows)
    assert found["stems"] == 110
    assert found["named"] == pytest.approx(10 / 11)
    assert found["best_role"] > 0.8  # by chance 1 of 6
    assert found["right_role"] >= found["best_role"]
    assert 0.2 < found["said"] <= 1.0
    assert found["names_role"] < found["both_role"]
    assert sum(row["stems"] for row in found["roles"].values()) == 100
    assert {role for role, row in found["roles"].items() if row["stems"]} == set(TAUGHT)


def test_learning_is_the_same_twice(songs, classifier):
    again = learn(songs)
    for name in ("mean", "scale", "weights", "bias"):
        assert getattr(again, name).tolist() == getattr(classifier, name).tolist()


def test_a_role_that_nobody_had_is_never_said(classifier):
    chances = classifier.predict(np.random.default_rng(0).normal(0.0, 5.0, (200, FEATURES)))
    assert chances.sum(axis=1) == pytest.approx(1.0)
    assert chances[:, [ROLES.index(role) for role in ROLES if role not in TAUGHT]].max() < 1e-6


def test_too_little_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="three roles"):
        learn([replace(song(1), roles=("kick", "snare", *[None] * 10))])


def test_the_place_in_the_stereo_image_does_not_count(classifier):
    features = song(5).features
    moved = features.copy()
    for name in ("width", "off centre"):
        for at in (NAMES.index(name), len(NAMES) + NAMES.index(name)):
            moved[:, at] += 10.0
    moved[:, -1] += 3.0  # the number of stems
    assert classifier.predict(moved).tolist() == classifier.predict(features).tolist()


def test_only_what_is_sure_is_said(classifier):
    features = np.concatenate([song(seed).features for seed in range(50, 60)])
    chances, guesses = classifier.predict(features), classifier.guess(features)
    assert 0 < sum(guess is None for guess in guesses) < len(guesses)
    for row, guess in zip(chances, guesses, strict=True):
        groups = {group_of_role(role): 0.0 for role in ROLES}
        for role, chance in zip(ROLES, row, strict=True):
            groups[group_of_role(role)] += chance
        best = ROLES[int(np.argmax(row))]
        sure = row.max() >= SURE_OF_ROLE and groups[group_of_role(best)] >= SURE_OF_GROUP
        assert guess == (best if sure else None)
    assert always("pad", 0.5).guess(features) == (None,) * len(features)


# ---- files -------------------------------------------------------------------------------------------------------


def test_a_classifier_travels(classifier, tmp_path):
    path = tmp_path / "roles.safetensors"
    classifier.save(path)
    found = load_classifier(path)
    assert found.made_by == {"command": "test"}
    features = song(7).features
    assert found.predict(features) == pytest.approx(classifier.predict(features), abs=1e-5)
    assert found.guess(features) == classifier.guess(features)
    assert path.stat().st_size < 200_000


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("weights", lambda array: array[:, 1:]),
        ("bias", lambda array: np.full_like(array, np.nan)),
        ("scale", np.zeros_like),
        ("mean", None),
    ],
)
def test_a_damaged_file_is_refused(name, damage, classifier, tmp_path):
    path = tmp_path / "roles.safetensors"
    classifier.save(path)
    arrays, about = load_arrays(path, "file")
    array = arrays.pop(name)
    if damage is not None:
        arrays[name] = damage(array)
    save_arrays(arrays, about, path)
    with pytest.raises(InputError, match=rf"roles\.safetensors: {name}.*mixrl roles"):
        load_classifier(path)


def test_files_of_something_else_are_refused(classifier, tmp_path):
    path = tmp_path / "roles.safetensors"
    with pytest.raises(InputError, match=r"roles\.safetensors"):
        load_classifier(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"roles\.safetensors"):
        load_classifier(path)
    classifier.save(path)
    arrays, about = load_arrays(path, "file")
    for key in ("format", "features", "roles"):
        save_arrays(arrays, {**about, key: "other"}, path)
        with pytest.raises(InputError, match="this version"):
            load_classifier(path)


def test_the_classifier_that_ships_says_what_it_learned_from():
    made_by = default_classifier().made_by
    assert made_by["command"].startswith("mixrl roles")
    assert int(made_by["songs"]) > int(made_by["real songs"]) >= 5


# ---- guesses -----------------------------------------------------------------------------------------------------


def test_names_and_groups_go_before_sound(scene):
    found = guessed(scene, always("kick"))
    assert found.facts.roles == scene.facts.roles
    assert by_name(found, found.facts.known_roles) == {
        "track01": "kick", "vocal": "vocal", "synths/keys": "keys", "close/track04": "kick", "track05": "kick",
        "track06": None,  # is silent
    }  # fmt: skip
    assert by_name(found, found.facts.members) == {
        "track01": "drums", "vocal": "vocals", "synths/keys": "synths", "close/track04": "close", "track05": "drums",
        "track06": "music",
    }  # fmt: skip
    assert by_name(found, found.facts.guesses)["vocal"] is None
    assert scene.facts.guesses is None


def test_what_mixrl_toml_says_goes_before_sound(tmp_path):
    """Even a group that is called as that of unknown stems is."""
    folder = write(tmp_path / "song", {f"track{n:02d}": audio for n, audio in enumerate(band(2.0).values(), 1)})
    (folder / "mixrl.toml").write_text('[roles]\n"track01" = "fx"\n[groups]\n"track02" = "music"\n')
    session = load_session(folder)
    found = guessed(Scene.of(session), always("snare"))
    assert by_name(found, found.facts.known_roles) == {
        "track01": "fx", "track02": "snare", "track03": "snare", "track04": "snare",
    }  # fmt: skip
    assert found.facts.members == ("music", "music", "drums", "drums")
    known = known_of(session, found.facts.guesses)
    assert [(one.role, one.by) for one in known] == [("fx", "mixrl.toml"), *[("snare", "sound")] * 3]
    assert tuple(one.group for one in known) == found.facts.members


def test_a_second_guess_replaces_the_first(scene):
    first = guessed(scene, always("kick"))
    assert guessed(first, always("bass")).facts.members == guessed(scene, always("bass")).facts.members
    unsure = guessed(first, always("kick", 0.0)).facts
    assert unsure.members == scene.facts.members
    assert set(unsure.guesses) == {None}


def test_where_all_is_known_nobody_listens(scene):
    known = scene.with_facts(replace(scene.facts, roles=("kick",) * len(scene.facts.names)))
    assert guessed(known, always("bass")) is known


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("samples", [1, 4000])
def test_of_what_is_hardly_there_nothing_is_said(samples):
    noise = (0.1 * np.random.default_rng(0).standard_normal((2, samples))).astype(np.float32)
    found = guessed(Scene.of(Session.from_arrays({"a1": noise[0], "a2": noise[1]}, RATE)), always("kick"))
    assert found.facts.known_roles == (None, None)


def test_nobody_knows_what_was_heard_either(scene):
    facts = nobody_knows(guessed(scene, always("kick")).facts)
    assert facts.guesses is None
    assert set(facts.known_roles) == {None}
    assert facts.groups == ("music",)
    again = guessed(scene.with_facts(facts), always("kick")).facts  # no folder of theirs is left either
    assert again.members == tuple("drums" if heard else "music" for heard in facts.audible)


def test_guesses_stay_with_their_stems(scene, tmp_path):
    found = guessed(scene, always("kick"))
    some = found.subset([found.facts.names.index(name) for name in ("track05", "vocal", "close/track04")])
    assert some.facts.guesses == ("kick", None, "kick")
    assert some.facts.members == ("drums", "vocals", "close")
    assert some.facts.own_groups == (False, False, True)
    found.save(tmp_path / "scene.npz")
    loaded = Scene.load(tmp_path / "scene.npz").facts
    for name in ("roles", "guesses", "own_groups", "members", "known_roles"):
        assert getattr(loaded, name) == getattr(found.facts, name)
    scene.save(tmp_path / "scene.npz")
    assert Scene.load(tmp_path / "scene.npz").facts.guesses is None


def test_a_scene_that_does_not_know_whose_its_groups_are(scene):
    """Names with folders and groups of other names than the role's are taken for the stem's own."""
    older = scene.with_facts(replace(scene.facts, own_groups=None))
    assert guessed(older, always("kick")).facts.members == guessed(scene, always("kick")).facts.members


def test_the_order_of_stems_does_not_matter(scene):
    order = [3, 0, 5, 1, 4, 2]
    there, here = scene.subset(order), scene
    chances = default_classifier().predict(stem_features(here))
    assert default_classifier().predict(stem_features(there)) == pytest.approx(chances[order], abs=1e-9)
    assert guessed(there).facts.guesses == tuple(guessed(here).facts.guesses[n] for n in order)


def test_how_loud_a_stem_was_delivered_does_not_matter():
    stems = small_stems(seconds=4.0)
    gains = 10.0 ** (np.array([-12.0, 3.0, 0.0, -6.0, 6.0, 0.0]) / 20.0)
    moved = {name: np.float32(gain) * audio for gain, (name, audio) in zip(gains, stems.items(), strict=True)}
    songs = [labelled(Scene.of(Session.from_arrays(its, RATE)), True) for its in (stems, moved)]
    chances = [default_classifier().predict(song.features) for song in songs]
    assert chances[1] == pytest.approx(chances[0], abs=0.02)


def test_the_rule_mix_and_the_score_listen_and_the_prior_does_not(scene):
    found = guessed(scene, always("bass"))
    at = found.facts.names.index("track01")
    assert yardstick(found.facts).centred[at] == 1.0
    assert yardstick(scene.facts).centred[at] == 0.0
    corridor = yardstick(found.facts).corridor[at]
    assert corridor[0] == pytest.approx(LEVELS["bass"][0] - 10.0 * np.log10(3.0))  # three basses share its power
    vocal = found.facts.names.index("vocal")
    levels = [copy.measures(rule_mix(copy)).stem_lufs for copy in (scene, guessed(scene, always("drums")))]
    assert levels[1][at] - levels[1][vocal] != pytest.approx(levels[0][at] - levels[0][vocal], abs=0.5)
    hats = guessed(scene, always("hats"))
    assert hats.knobs(rule_mix(hats)).strips[at, HIGHPASS] == 150.0
    before, after = informed(scene).facts.expected, informed(found).facts.expected
    assert after.level_lufs.tolist() == before.level_lufs.tolist()  # what people would do goes by names


# ---- what a person sees ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stems called track01 and so on, of which one is called what it is."""
    names = ("track01", "track02", "track03", "vox")
    return write(tmp_path_factory.mktemp("work") / "song", dict(zip(names, band(3.0).values(), strict=True)))


def test_the_mixer_listens_where_names_tell_nothing(folder, monkeypatch):
    monkeypatch.setattr("mixrl.sound_roles.default_classifier", lambda: always("kick"))
    mix = Mixer(polish=0, steps=2).mix(load_session(folder))
    assert [(one.stem, one.role, one.by, one.group) for one in mix.known] == [
        *((f"track0{n}", "kick", "sound", "drums") for n in (1, 2, 3)),
        ("vox", "vocal", "name", "vocals"),
    ]
    assert dict(mix.settings.members) == {
        "track01": "drums", "track02": "drums", "track03": "drums", "vox": "vocals",
    }  # fmt: skip
    monkeypatch.setattr("mixrl.sound_roles.default_classifier", lambda: always("kick", 0.0))
    assert set(Mixer(polish=0, steps=2).mix(load_session(folder)).settings.members.values()) == {"music", "vocals"}


def test_mix_and_check_tell_what_they_heard(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mixrl.sound_roles.default_classifier", lambda: always("bass"))
    command = ("mix", folder, "-o", tmp_path / "mix.wav", "--polish", 0, "--steps", 1)
    code, out, _ = mixrl(*command)
    assert code == 0
    assert "by sound: track01 bass, track02 bass, track03 bass" in out
    code, out, _ = mixrl(*command, "--json", "--force")
    mixed = json.loads(out)["roles"]
    code, out, _ = mixrl("check", folder, "--json")
    assert code == 0
    assert json.loads(out)["roles"] == mixed
    assert mixed[0] == {"stem": "track01", "role": "bass", "by": "sound", "group": "bass"}
    code, out, _ = mixrl("check", folder)
    assert [line.split() for line in out.splitlines() if "track02" in line] == [["track02", "bass", "sound", "bass"]]
    assert [line.split() for line in out.splitlines() if "vox" in line] == [["vox", "vocal", "name", "vocals"]]


def test_check_does_not_listen_where_names_tell_everything(tmp_path, monkeypatch):
    monkeypatch.setattr("mixrl.scene.Scene.of", lambda *_: pytest.fail("listened"))
    folder = write(tmp_path / "song", {**band(2.0), "silence": np.zeros(2 * LOW_RATE, np.float32)})
    code, out, _ = mixrl("check", folder)
    assert code == 0
    assert ["silence", "-", "-", "music"] in [line.split() for line in out.splitlines()]


def test_learning_and_evaluating_from_the_command_line(folder, tmp_path):
    pytest.importorskip("sklearn", reason="needs the train extra")
    named = tmp_path / "named"
    for number in (1, 2):
        stems = {**band(3.0), "hats": 0.1 * np.random.default_rng(number).standard_normal(3 * LOW_RATE)}
        write(named / str(number), {name: audio.astype(np.float32) for name, audio in stems.items()})
    options = ("--cache", tmp_path / "cache", "--jobs", 1)
    code, _, err = mixrl("roles", named / "1", named / "2", folder, "-o", tmp_path / "roles.safetensors", *options)
    assert code == 0, err
    assert "learned from 11 stems of 3 songs" in err
    assert load_classifier(tmp_path / "roles.safetensors").made_by["stems"] == "11"
    code, _, err = mixrl("roles", named / "1", "-o", tmp_path / "roles.safetensors", *options)
    assert (code, "--force" in err) == (2, True)
    code, _, err = mixrl("roles", folder, "-o", tmp_path / "other.safetensors", *options)
    assert (code, "three roles" in err) == (2, True)
    found = tmp_path / "found.json"
    code, out, err = mixrl("evaluate", "roles", named / "1", named / "2", "--leave-one-out", "--json", found, *options)
    assert code == 0, err
    assert "real songs" in out
    data = json.loads(found.read_text())
    assert len(data["stems"]) == 10
    assert data["summary"]["real"]["named"] == 1.0
    assert data["summary"]["real"]["best_role"] > 0.5
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".wav", ".npz", ".json", ".safetensors"}
    code, _, err = mixrl("evaluate", "roles", folder, "--leave-one-out", *options)
    assert (code, "three roles" in err) == (2, True)
