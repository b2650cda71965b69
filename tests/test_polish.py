"""The local search after the policy's mix, as the mixer does it: never worse, within its limits, and explained."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from stems import RATE, band, mixrl, write
from test_mixer import Greedy, applied, close, decibels

from mixrl import InputError, Mixer, Session
from mixrl.knobs import GAIN, neutral_knobs, to_knobs
from mixrl.levelling import tidied
from mixrl.mixer import DQN, NO_CHANGE
from mixrl.moves import KINDS
from mixrl.rules import starting_mix
from mixrl.scene import Scene
from mixrl.search import LISTED, Objective, Space
from mixrl.settings import StripSettings
from mixrl.state import layout_of


class Few(Greedy):
    """Makes three moves of the best one-step gain and stops."""

    def __init__(self, moves: int = 3) -> None:
        self.moves = moves

    def act(self, state):
        self.moves -= 1
        return super().act(state) if self.moves >= 0 else layout_of(state).mix_start


class Sums:
    """A scene that counts the mixes it evaluates."""

    def __init__(self, scene):
        self.scene, self.count = scene, 0

    def __getattr__(self, name):
        return getattr(self.scene, name)

    def scores(self, knobs):
        self.count += len(knobs.strips)
        return self.scene.scores(knobs)


@pytest.fixture(scope="module")
def session():
    return Session.from_arrays(band(), RATE)


@pytest.fixture(scope="module")
def scene(session):
    return Scene.of(session)


def planned(scene, locked=(), moves=3, **options):
    return Mixer(policy=Few(moves), **options)._act(scene, locked, lambda what, share: None)


def score(scene, settings):
    return float(scene.scores(to_knobs(settings, scene.facts)[None])[0])


def test_more_polish_is_a_better_mix(scene):
    scores = [score(scene, planned(scene, polish=polish)[0]) for polish in (0, 300, 1000)]
    assert scores[1] > scores[0] + 0.02
    assert scores[2] > scores[1]


@pytest.mark.parametrize("polish", [1, 2, 7, 20, 60])
def test_a_little_polish_makes_it_no_worse_than_what_is_put_back(scene, polish):
    settings, log = planned(scene, polish=polish)
    assert score(scene, settings) >= score(scene, planned(scene, polish=0)[0]) - LISTED * len(log)


@pytest.mark.parametrize("polish", [1, 10, 100, 500])
def test_polish_scores_no_more_mixes_than_it_may(scene, polish):
    """Besides those of the start, and of the settings that are put back one by one."""
    without, counted = Sums(scene), Sums(scene)
    planned(without, polish=0)
    planned(counted, polish=polish)
    tidying = 11 * len(scene.facts.names) + len(scene.facts.groups)
    assert counted.count <= without.count + polish + tidying
    assert counted.count > without.count + 0.5 * polish - tidying


def test_every_setting_brings_what_it_costs(scene):
    """Put back alone, none makes the mix better by more than what lies between two of them."""
    settings, log = planned(scene)
    knobs, neutral = to_knobs(settings, scene.facts), neutral_knobs(scene.facts)
    before = score(scene, settings)
    losses = []
    turned = np.argwhere(knobs.strips != neutral.strips)
    for row, column in turned[turned[:, 1] != GAIN]:  # faders make up for what the others do to loudness
        less = knobs.copy()
        less.strips[row, column] = neutral.strips[row, column]
        losses.append(before - float(scene.scores(less[None])[0]))
    assert len(turned) + (knobs.groups != 0.0).sum() == len(log)
    assert np.mean(np.array(losses) >= 0.5 * LISTED) > 0.8  # faders that make up for others change what these bring
    assert min(losses) > -LISTED


def test_the_policy_begins_at_the_rule_mix(scene):
    settings, log = planned(scene, moves=0, polish=0)
    rules, made = starting_mix(scene).strips, to_knobs(settings, scene.facts).strips
    kept = made != neutral_knobs(scene.facts).strips
    assert made[kept] == pytest.approx(rules[kept])
    assert kept.sum() == len(log) > 2
    assert {move.setting for move in log} <= {"gain", "pan", "high-pass"}
    assert not planned(scene, moves=0, polish=0, steps=2)[1]  # part of a rule mix is none


@pytest.mark.parametrize("strength", [{}, {"gain": 0.5, "eq": 0.5, "compressor": 0.4}])
def test_the_log_explains_all_of_it(scene, strength):
    settings, log = planned(scene, strength=strength)
    reached = scene.neutral()
    total = 0.0
    for number, move in enumerate(log, 1):
        assert move.step == number
        assert move.reason
        total += move.score_change
        after = applied(reached, move, "after")
        if not strength:  # halved values have more digits than are shown
            assert applied(reached, move, "before") == reached
        assert after != reached
        reached = after
    if not strength:
        assert close(reached, settings)
        assert reached.stems == settings.stems
    else:
        for name, strip in settings.stems.items():
            assert reached.strip(name).gain_db == pytest.approx(strip.gain_db, abs=0.051)
            assert reached.strip(name).compressor == strip.compressor
    assert total == pytest.approx(score(scene, settings) - score(scene, scene.neutral()), abs=1e-4 * len(log))
    assert len({(move.name, move.setting) for move in log}) == len(log)  # a setting each


def test_knobs_have_values_that_a_person_would_write(scene):
    settings, log = planned(scene)
    for strip in settings.stems.values():
        values = [10 * strip.gain_db, 100 * strip.pan, *(10 * band.gain_db for band in strip.eq)]
        assert np.allclose(np.round(values), values, atol=1e-6)
    texts = [move.after for move in log if move.setting == "gain"]
    assert all(decibels(text) in {strip.gain_db for strip in settings.stems.values()} for text in texts[-1:])


@pytest.mark.parametrize("steps", [0, 2, 3, 4, 6, 12])
def test_moves_and_turned_knobs_together_keep_to_the_steps(scene, steps):
    settings, log = planned(scene, steps=steps)
    assert len(log) <= steps
    assert len(log) >= min(steps, 2)  # there is much to do
    without, _ = planned(scene, steps=steps, polish=0)
    assert score(scene, settings) >= score(scene, without) - LISTED * steps


def test_locked_stems_are_not_polished(scene):
    settings, log = planned(scene, ("vocal", "kick"))
    assert settings.stems["vocal"] == settings.stems["kick"] == StripSettings()
    assert all(settings.groups[settings.members[name]] == 0.0 for name in ("vocal", "kick"))
    assert len(log) > 1


@pytest.mark.parametrize("kind", ["gain", "eq", "pan"])
def test_kinds_of_move_without_strength_are_not_polished(scene, kind):
    strength = {name: float(name == kind) for name in KINDS}
    settings, log = planned(scene, strength=strength)
    setting = {"gain": ("gain", "group gain"), "pan": ("pan",), "eq": ("EQ",)}[kind]
    assert all(move.setting.startswith(setting) for move in log)
    for strip in settings.stems.values():
        assert kind == "gain" or strip.gain_db == 0.0
        assert kind == "pan" or strip.pan == 0.0
        assert kind == "eq" or all(band.gain_db == 0.0 for band in strip.eq)
        assert replace(strip, gain_db=0.0, pan=0.0, eq=StripSettings().eq) == StripSettings()


def test_the_same_session_gets_the_same_polish(scene, session):
    assert planned(scene) == planned(Scene.of(session))
    assert planned(scene, seed=7) == planned(scene)  # a seed of the dither


def test_a_polished_mix_competes_as_the_dqns(session):
    found = Mixer(policy=Few(), polish=200).mix(session)
    assert found.winner == DQN
    assert found.candidate(DQN).score > found.candidate(NO_CHANGE).score
    assert len(found.moves) > 3
    assert found.recipe.moves == found.moves


def test_negative_polish_is_refused():
    with pytest.raises(InputError, match="polish -1 is out of range: give 0 or more"):
        Mixer(polish=-1)


def test_the_command_polishes_as_far_as_it_is_told(tmp_path):
    song = write(tmp_path / "song", band(3))
    moves = {}
    for polish in (0, 200):
        out = tmp_path / f"{polish}.wav"
        code, text, error = mixrl("mix", song, "-o", out, "--json", "--polish", polish)
        assert (code, error) == (0, "")
        moves[polish] = json.loads(text)["candidates"]["dqn"]["predicted"]
    assert moves[200] >= moves[0]
    assert mixrl("mix", song, "-o", tmp_path / "no.wav", "--polish", "-1")[0] == 2
    assert not (tmp_path / "no.wav").exists()


@pytest.mark.parametrize(("each", "kept"), [(0.0004, True), (0.002, True), (0.02, True), (-0.0004, False)])
def test_tidying_keeps_what_many_small_settings_bring_together(small_scene, each, kept):
    """Six of them: less than is listed alone, so they would all be put back, and what they won would be lost."""

    class Counted(Objective):
        def __call__(self, knobs):
            return each * (knobs.strips[..., GAIN] != 0.0).sum(axis=1)

    space = Space.around(neutral_knobs(small_scene.facts), small_scene.facts)
    mix = neutral_knobs(small_scene.facts)
    turned = np.flatnonzero(small_scene.facts.audible)[:6]
    mix.strips[turned, GAIN] = 1.0
    point, brought = tidied(Counted(small_scene), space, mix, 0.0)
    assert (point != space.origin).sum() == (len(turned) if kept else 0)
    np.testing.assert_allclose(brought[point != space.origin], each)
