"""What people would do: forests, the prior, how it is weighed against faders, levels that are kept, and who wins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import RATE, small_stems

from mixrl.competition import TIE_DB, winner_of
from mixrl.errors import InputError
from mixrl.facts import nobody_knows
from mixrl.forest import LEAF, Forest
from mixrl.knobs import EQ, GAIN, PAN, joined, neutral_knobs
from mixrl.levelling import kept_levels, levelled
from mixrl.people import (
    OFFSETS_DB,
    LevelPrior,
    balance_risk,
    balance_risk_db,
    default_prior,
    informed,
    load_prior,
    weighed,
)
from mixrl.recovery import broken
from mixrl.regressor import Balance, balance_of, learn
from mixrl.roles import ROLES
from mixrl.rules import expected_mix, rule_mix, starting_mix
from mixrl.scene import Scene
from mixrl.score import terms
from mixrl.session import Session
from mixrl.stem_features import FEATURES, ROLE_FEATURES

LEVELS = np.array([0.0, -6.0, 3.0, -2.0, 5.0, -9.0, 1.0, -4.0])
ERRORS = np.full(len(LEVELS), 2.0)


def forest(*trees):
    """Trees of (feature, value, upper) rows."""
    rows = [row for tree in trees for row in tree]
    sizes = np.cumsum([0, *(len(tree) for tree in trees)])[:-1]
    feature, value, upper = zip(*rows, strict=True)
    arrays = {
        "f.roots": np.array(sizes, dtype=np.int32), "f.feature": np.array(feature, dtype=np.int16),
        "f.value": np.array(value, dtype=np.float32), "f.upper": np.array(upper, dtype=np.int16),
    }  # fmt: skip
    return arrays


STUMP = [(1, 0.5, 2), (LEAF, -1.0, 0), (LEAF, 3.0, 0)]
DEEP = [(0, 0.0, 4), (1, -2.0, 2), (LEAF, 10.0, 0), (LEAF, 20.0, 0), (LEAF, 30.0, 0)]


def constant(value):
    return Forest.of(forest([(LEAF, value, 0)]), "f")


EQUAL = LevelPrior(constant(0.0), constant(1.0))  # is sure that all stems are equally loud
FADERS = np.array([9.0, -9.0, 6.0, -12.0, 11.0, 0.0])


def broken_copy(scene):
    return informed(broken(scene, FADERS[: len(scene.facts.names)]), EQUAL)


def test_a_forest_answers_with_the_mean_of_its_trees():
    found = Forest.of(forest(STUMP, DEEP), "f").predict(np.array([[0.0, 0.5], [1.0, 0.6], [-1.0, -3.0]]))
    assert found == pytest.approx([(-1.0 + 20.0) / 2, (3.0 + 30.0) / 2, (-1.0 + 10.0) / 2])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("f.upper", [9, 0, 0]),  # beyond the end
        ("f.upper", [1, 0, 0]),  # no branch of its own
        ("f.upper", [-1, 0, 0]),
        ("f.feature", [-7, LEAF, LEAF]),
        ("f.value", [np.nan, 0.0, 0.0]),
        ("f.value", [0.0, 0.0]),
        ("f.roots", [3]),
        ("f.roots", []),
    ],
)
def test_arrays_that_make_no_forest_are_refused(name, value):
    arrays = forest(STUMP)
    with pytest.raises(ValueError, match="f: "):
        Forest.of(arrays | {name: np.array(value)}, "f")


def test_the_forest_is_what_was_fitted():
    trees = pytest.importorskip("sklearn.ensemble", reason="needs scikit-learn")
    from mixrl.regressor import _forest

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 5)).astype(np.float32), rng.normal(size=80)
    fitted = trees.ExtraTreesRegressor(20, min_samples_leaf=2, random_state=0).fit(x, y)
    asked = rng.normal(size=(50, 5)).astype(np.float32)
    assert _forest(fitted).predict(asked) == pytest.approx(fitted.predict(asked), abs=1e-5)


# ---- one against the other ---------------------------------------------------------------------------------------


def test_levels_that_agree_with_the_prior_are_worth_no_change():
    """Untouched is by far the likeliest case, and its people's levels are those delivered."""
    found = weighed(LEVELS, ERRORS, LEVELS + 3.0 + np.array([1.0, -1.0, 0.5, 0.0, -0.5, 1.0, 0.0, -1.0]))
    assert found.cases[0] == found.cases.max()
    assert found.cases[0] > found.cases[3] * 10
    assert found.cases.sum() == pytest.approx(1.0)
    sure = found.chances[0] @ OFFSETS_DB
    assert sure == pytest.approx(found.away_db, abs=0.2)


def test_faders_far_off_are_brought_back_between_themselves_and_the_prior():
    off = np.array([11.0, -11.0, 9.0, -8.0, 10.0, -10.0, 7.0, -12.0])
    found = weighed(LEVELS, ERRORS, LEVELS + off)
    assert found.cases[3] > 0.8  # by up to 12 dB
    assert (np.sign(found.change_db) == -np.sign(off)).all()
    left = off + found.change_db
    assert np.abs(left - np.median(left)).max() < 2.5
    # where a fader is, is a witness too: the level is within 12 dB of it, so not quite at the prior's
    assert np.corrcoef(left, off)[0, 1] > 0.5


def test_stems_brought_to_one_loudness_tell_nothing():
    found = weighed(LEVELS, ERRORS, np.full(len(LEVELS), -23.0))
    assert found.cases[-1] > 0.9
    moved = found.change_db - np.median(found.change_db)
    assert moved == pytest.approx(LEVELS - np.median(LEVELS), abs=0.6)


def test_an_odd_stem_alone_does_not_break_a_balance():
    odd = LEVELS.copy()
    odd[1] -= 28.0
    assert weighed(LEVELS, ERRORS, odd).cases[0] > 0.5


def test_the_better_a_prior_is_the_more_it_counts():
    off = np.random.default_rng(3).uniform(-12, 12, len(LEVELS))
    left = [off + weighed(LEVELS, np.full(len(LEVELS), error), LEVELS + off).change_db for error in (1.0, 6.0)]
    near, far = (np.abs(its - np.median(its)).mean() for its in left)
    assert near < far


# ---- scenes ------------------------------------------------------------------------------------------------------


def song(seed, roles=None):
    """A song that can be learned from: brighter stems are softer."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(8, FEATURES))
    roles = roles or tuple(str(rng.choice(ROLES)) for _ in range(8))
    return Balance(features, roles, -6.0 * features[:, 3] - 20.0, np.ones(8, dtype=bool), seed % 2 == 0)


@pytest.fixture(scope="module")
def prior():
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    return learn([song(seed) for seed in range(30)], {"command": "test"})


@pytest.fixture(scope="module")
def scene():
    return Scene.of(Session.from_arrays(small_stems(RATE, 5.0), RATE))


def test_a_prior_learns_what_there_is_to_learn_and_how_well(prior):
    new = song(99)
    levels, errors = prior.predict(new.features, new.roles)
    right = new.human_lufs - np.median(new.human_lufs)
    assert np.corrcoef(levels, right)[0, 1] > 0.8
    unnamed, _ = prior.predict(new.features, (None,) * 8)
    assert np.corrcoef(unnamed, right)[0, 1] > 0.8
    assert (errors > 0.0).all()
    assert np.abs(levels - right).mean() == pytest.approx(errors.mean(), rel=1.0)


def test_learning_is_the_same_twice(prior):
    again = learn([song(seed) for seed in range(30)])
    new = song(98)
    assert again.predict(new.features, new.roles)[0].tolist() == prior.predict(new.features, new.roles)[0].tolist()
    with pytest.raises(ValueError, match="two songs"):
        learn([song(1)])


def test_a_prior_travels(prior, tmp_path):
    prior.save(tmp_path / "levels.safetensors")
    found = load_prior(tmp_path / "levels.safetensors")
    assert found.made_by == {"command": "test"}
    new = song(97)
    ours, theirs = (p.predict(new.features, new.roles) for p in (prior, found))
    assert ours[0].tolist() == theirs[0].tolist()
    assert ours[1].tolist() == theirs[1].tolist()


def test_files_that_are_no_prior_are_refused(prior, tmp_path):
    path = tmp_path / "levels.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"levels\.safetensors"):
        load_prior(path)
    wrong = replace(prior.level, feature=np.where(prior.level.feature == LEAF, LEAF, FEATURES + ROLE_FEATURES))
    LevelPrior(wrong, prior.error).save(path)
    with pytest.raises(InputError, match="features that there are not"):
        load_prior(path)
    LevelPrior(replace(prior.level, roots=prior.level.roots + 10**6), prior.error).save(path)
    with pytest.raises(InputError, match="lead nowhere"):
        load_prior(path)


def test_the_prior_that_ships_says_what_it_learned_from():
    made_by = default_prior().made_by
    assert "mixrl levels" in made_by["command"].replace("mixrl.py", "mixrl")
    assert int(made_by["songs"]) > int(made_by["real songs"]) >= 5


def test_informed_scenes_go_by_what_people_would_do(scene):
    """The balance term is 0 at the levels that people would have, and not at those of the rules."""
    copy = broken_copy(scene)
    expected = copy.facts.expected
    assert not expected.held
    knobs = neutral_knobs(copy.facts)
    there = levelled(copy, knobs, expected.level_lufs)
    found = terms(copy.measures(copy.neutral()), copy.facts)["balance"], terms(
        copy.evaluate(there[None]).at(0), copy.facts
    )["balance"]
    assert found[1] < 0.02 < found[0]
    assert terms(copy.measures(rule_mix(copy)), copy.facts)["balance"] > found[1]
    assert scene.facts.expected is None  # the scene that it came from knows nothing
    scores = copy.scores(joined([knobs, starting_mix(copy)]))
    assert scores[1] >= max(scores[0], copy.scores(copy.knobs(rule_mix(copy))[None])[0])


def test_what_is_known_does_not_survive_a_change_of_the_recording(scene):
    assert informed(scene).facts.expected is not None
    assert informed(scene).subset(range(len(scene.facts.names))).facts.expected is None


def test_a_scene_of_one_stem_has_no_balance(scene):
    alone = scene.subset([int(np.flatnonzero(scene.facts.audible)[0])])
    assert informed(alone).facts.expected is None
    with pytest.raises(ValueError, match="inform it first"):
        expected_mix(alone)


def test_levels_without_names_are_of_stems_without_names(scene):
    facts = nobody_knows(scene.facts)
    assert set(facts.roles) == {None}
    assert facts.groups == ("music",)
    assert informed(scene.with_facts(facts)).facts.expected is not None


def test_a_stem_that_hardly_sounds_stays_where_it_is(scene):
    """It may play elsewhere in the song; raised to a usual level, what is left of it here would drown all others."""
    faders = np.zeros(len(scene.facts.names))
    faders[0] = -70.0
    copy = informed(broken(scene, faders), EQUAL)
    delivered, expected = copy.measures(copy.neutral()), copy.facts.expected
    assert copy.facts.audible[0]
    assert expected.level_lufs[0] == delivered.stem_lufs[0]
    assert expected.relative_lu[1:].max() > -10.0
    assert balance_risk_db(expected, expected.level_lufs, copy.facts.audible) < 5.0


def test_the_risk_is_least_where_people_probably_are(scene):
    copy = broken_copy(scene)
    expected, counted = copy.facts.expected, copy.facts.audible
    best = balance_risk_db(expected, expected.level_lufs, counted)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = expected.level_lufs + rng.normal(0.0, 6.0, len(counted))
        assert balance_risk_db(expected, other, counted) > best
    assert balance_risk_db(expected, expected.level_lufs + 5.0, counted) == pytest.approx(best)  # all louder
    assert balance_risk_db(expected, expected.level_lufs, np.zeros_like(counted)) == 0.0


# ---- levels that are kept ----------------------------------------------------------------------------------------


def test_faders_make_up_for_eq_and_pan(scene):
    before = neutral_knobs(scene.facts)
    after = before.copy()
    after.strips[:, EQ : EQ + 5] = np.random.default_rng(1).uniform(-6.0, 6.0, after.strips[:, EQ : EQ + 5].shape)
    after.strips[0, PAN] = 0.5
    heard = scene.facts.audible
    wanted = scene.evaluate(before[None]).stem_lufs[0]
    assert np.abs(scene.evaluate(after[None]).stem_lufs[0] - wanted)[heard].max() > 0.5
    assert kept_levels(scene, before) == pytest.approx(wanted)
    found = levelled(scene, after, wanted)
    assert scene.evaluate(found[None]).stem_lufs[0][heard] == pytest.approx(wanted[heard], abs=0.16)
    assert (found.strips[:, GAIN + 1 :] == after.strips[:, GAIN + 1 :]).all()
    name = scene.facts.names[0]
    assert levelled(scene, after, wanted, [name]).strips[0].tolist() == after.strips[0].tolist()


def test_where_people_would_hardly_move_faders_they_go_back(scene):
    delivered = scene.measures(scene.neutral()).stem_lufs
    held = replace(informed(scene).facts.expected, held=True, level_lufs=delivered)
    copy = scene.with_facts(replace(scene.facts, expected=held))
    moved = neutral_knobs(copy.facts)
    moved.strips[:, GAIN] = 5.0 * np.arange(len(moved.strips))
    assert kept_levels(copy, moved).tolist() == delivered.tolist()


# ---- competition -------------------------------------------------------------------------------------------------


def test_the_nearest_to_people_wins_and_the_score_among_equals():
    assert winner_of([3.0, 1.0, 2.0], [0.0, -9.0, 0.0]) == 1
    assert winner_of([3.0, 1.0, 1.0 + 0.9 * TIE_DB], [0.0, -2.0, -1.0]) == 2
    assert winner_of([1.0, 1.0], [-1.0, -1.0]) == 0
    assert winner_of([None, None, None], [-3.0, -1.0, -2.0]) == 1


def test_the_competition_asks_what_people_would_do(scene):
    copy = broken_copy(scene)
    levels = copy.facts.expected.level_lufs
    worse = levels + 8.0 * (-1.0) ** np.arange(len(levels))
    risks = [balance_risk(copy.facts, its) for its in (worse, levels)]
    assert winner_of(risks, [0.0, -5.0]) == 1
    assert balance_risk(scene.facts, levels) is None


def test_a_song_is_learned_from_as_it_is(scene):
    found = balance_of(scene, True)
    assert found.features.shape == (len(scene.facts.names), FEATURES)
    assert found.heard.sum() == 5
    assert balance_of(scene.subset([0, 1, 2]), True) is None
