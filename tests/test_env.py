"""The environment: Gymnasium's rules, rewards that telescope, and both ways of judging."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_settings, small_stems
from gymnasium.utils.env_checker import check_env

from mixrl.env import MixEnv, make_env
from mixrl.errors import InputError
from mixrl.moves import MOVE_COST, STEM_MOVES, step_limit
from mixrl.rendered import Rendered
from mixrl.scene import Scene
from mixrl.score import score
from mixrl.session import Session


def walk(env, moves, seed=0):
    """Random legal moves; yields (observation, reward, terminated, truncated, info) of each."""
    rng = np.random.default_rng(seed)
    for _ in range(moves):
        legal = env.state.mask.copy()
        legal[env.layout.mix_start] = False
        yield env.step(int(rng.choice(np.flatnonzero(legal))))


@pytest.fixture(scope="module")
def pair():
    """Two stems of two seconds, cheap to render again and again, with their scene."""
    stems = small_stems(seconds=2.0)
    session = Session.from_arrays({name: stems[name] for name in ("kick", "keys")}, 44_100)
    return session, Scene.of(session)


@pytest.mark.parametrize("backend", ["scene", "render"])
@pytest.mark.parametrize("gains", [True, False])
def test_gymnasium_finds_no_fault(pair, backend, gains):
    session, scene = pair
    measure = Rendered(session, scene).measures if backend == "render" else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # gains are rewards: they have no bounds, nor are they to be scaled
        warnings.filterwarnings("ignore", message=".*(infinity|symmetric and normalized).*")
        check_env(MixEnv(scene, backend=backend, measure=measure, gains=gains), skip_render_check=True)


def test_observations_lie_in_their_space(small_scene):
    env = MixEnv(small_scene)
    first, info = env.reset(seed=3)
    assert env.observation_space.contains(first)
    assert info["score"] == pytest.approx(float(score(small_scene.measures(small_scene.neutral()), small_scene.facts)))
    for observation, *_ in walk(env, 20):
        assert env.observation_space.contains(observation)
        assert np.isfinite(observation["gains"]).all()
        assert not observation["gains"][observation["mask"] == 0].any()


@pytest.mark.parametrize("seed", range(3))
def test_rewards_add_up_to_the_rise_of_the_score(small_scene, seed):
    env = MixEnv(small_scene)
    _, start = env.reset()
    rewards = [step[1] for step in walk(env, 25, seed)]
    end = float(score(small_scene.measures(env.settings), small_scene.facts))
    assert sum(rewards) == pytest.approx(env.score - start["score"] - 25 * MOVE_COST, abs=1e-9)
    assert env.score == pytest.approx(end, abs=1e-5)  # single precision, summed in another order
    assert len(set(rewards)) > 10
    *_, reward, terminated, truncated, info = env.step(env.layout.mix_start)
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info["score"] == env.score


def test_the_gains_that_are_seen_are_the_rewards_that_come(small_scene):
    env = MixEnv(small_scene)
    env.reset()
    rng = np.random.default_rng(4)
    for _ in range(12):
        seen = env.state.gains.copy()
        action = int(rng.choice(np.flatnonzero(env.state.mask)))
        if action == env.layout.mix_start:
            continue
        _, reward, *_ = env.step(action)
        # float32; a block may change sides at the loudness gate by rounding
        assert reward == pytest.approx(seen[action], abs=2e-5)


def test_gains_can_be_left_out(small_scene):
    """The same episode without looking ahead: only the gains are missing."""
    seeing, blind = MixEnv(small_scene), MixEnv(small_scene, gains=False)
    one, other = seeing.reset()[0], blind.reset()[0]
    rng = np.random.default_rng(6)
    for _ in range(6):
        assert one["gains"].any()
        assert not other["gains"].any()
        for name in ("stems", "groups", "mix", "mask"):
            np.testing.assert_array_equal(other[name], one[name], err_msg=name)
        action = int(rng.choice(np.flatnonzero(seeing.state.mask)))
        one, *found, _ = seeing.step(action)
        other, *same, _ = blind.step(action)
        assert found == same


def test_an_illegal_move_changes_nothing_but_takes_time(small_scene):
    env = MixEnv(small_scene)
    env.reset()
    silent = small_scene.facts.names.index("shaker")
    action = silent * len(STEM_MOVES)
    assert not env.state.mask[action]
    before = env.settings
    for taken, refused in enumerate((action, -1), 1):  # -1 stands for an action that this session does not have
        observation, reward, terminated, truncated, info = env.step(refused)
        assert (reward, terminated, truncated, info["illegal"]) == (0.0, False, False, True)
        assert env.settings == before
        assert observation["mix"][-1] == pytest.approx(1.0 - taken / env.steps)
    with pytest.raises(IndexError):
        env.step(env.layout.size)


def test_the_step_limit_truncates(small_scene):
    env = MixEnv(small_scene, steps=5)
    env.reset()
    found = [(terminated, truncated) for _, _, terminated, truncated, _ in walk(env, 5)]
    assert found == [(False, False)] * 4 + [(False, True)]
    assert env.state.mix[-1] == 0.0
    assert not env.state.gains.any()  # no time is left to earn any
    env.reset()
    assert env.state.mix[-1] == 1.0
    assert MixEnv(small_scene).steps == step_limit(len(small_scene.facts.names))
    last = MixEnv(small_scene, steps=1)
    last.reset()
    assert last.step(last.layout.mix_start)[2:4] == (True, False)  # stop at the last moment is a stop


def test_episodes_can_start_anywhere_and_start_over(small_scene):
    start = small_scene.neutral().with_group("music", -6.0)
    env = MixEnv(small_scene, start=start)
    first, _ = env.reset(seed=1)
    assert env.settings == start
    for _ in walk(env, 3):
        pass
    again, _ = env.reset(seed=2)
    assert env.settings == start
    for name in first:
        np.testing.assert_array_equal(again[name], first[name])
    env.reset(options={"settings": small_scene.neutral()})
    assert env.settings == small_scene.neutral()
    knobs = small_scene.knobs(random_settings(small_scene, 1))
    for begun in (MixEnv(small_scene, start=knobs), env):
        one, info = begun.reset(options={"settings": knobs})
        assert begun.settings == random_settings(small_scene, 1)
        assert begun.score == info["score"]
        assert begun.score == pytest.approx(float(small_scene.scores(knobs[None])[0]), abs=1e-5)
        assert one["gains"].any()


def test_an_episode_leaves_its_start_as_it_was(small_scene):
    """Settings are never changed in place: what others hold of them stays."""
    knobs = small_scene.knobs(random_settings(small_scene, 3))
    before = knobs.copy()
    env = MixEnv(small_scene, start=knobs)
    env.reset()
    held = [env.knobs]
    kept = [env.knobs.copy()]
    for _ in walk(env, 6, seed=2):
        held.append(env.knobs)
        kept.append(env.knobs.copy())
    for now, then in zip([knobs, *held], [before, *kept], strict=True):
        np.testing.assert_array_equal(now.strips, then.strips)
        np.testing.assert_array_equal(now.groups, then.groups)


def test_locks_and_kinds_reach_the_mask(small_scene):
    env = MixEnv(small_scene, locked=("kick", "vocal"), kinds=("gain",))
    env.reset()
    decoded = [env.layout.decode(int(a)) for a in np.flatnonzero(env.state.mask)]
    assert {move.kind for _, _, move in decoded} == {"gain", "stop"}
    names = {small_scene.facts.names[index] for kind, index, _ in decoded if kind == "stem"}
    assert names == {"guitar_close", "guitar_room", "keys"}


def test_both_backends_see_the_same_and_judge_alike(small, small_scene):
    predicted = MixEnv(small_scene)
    rendered = MixEnv(small_scene, backend="render", measure=Rendered(small, small_scene).measures)
    one, a = predicted.reset()
    other, b = rendered.reset()
    quieter = small_scene.facts.names.index("keys") * len(STEM_MOVES) + 4
    for action in (None, quieter, quieter):
        if action is not None:
            one, reward, *_, a = predicted.step(action)
            other, judged, *_, b = rendered.step(action)
            assert judged == pytest.approx(reward, abs=0.05)
            assert abs(reward) > 0.1  # enough to tell
        for name in one:
            np.testing.assert_array_equal(other[name], one[name])
        assert a["score"] == pytest.approx(b["score"], abs=0.1)
        assert a["score"] != b["score"]


def test_make_env_takes_a_session(small):
    env = make_env(small, target=-20.0, ceiling=-2.0)
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    assert (env.scene.facts.target_lufs, env.scene.facts.ceiling_dbtp) == (-20.0, -2.0)


def test_a_backend_needs_its_measure(small_scene):
    with pytest.raises(InputError, match="closed"):
        MixEnv(small_scene, backend="closed")
    with pytest.raises(InputError, match="measure="):
        MixEnv(small_scene, backend="render")
    with pytest.raises(InputError, match="measure="):
        MixEnv(small_scene, measure=small_scene.measures)


def test_tempo_is_a_move_with_a_reward(small_scene):
    facts = replace(
        small_scene.facts,
        tempo_target=np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.25]),
        tempo_weight=np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
    )
    scene = Scene(facts, small_scene.analysis, small_scene.variant)
    env = MixEnv(scene)
    env.reset()
    assert env.state.mask[-1]
    assert env.step(-1)[4]["illegal"]  # no action, and not the last one either
    assert env.settings == scene.neutral()
    _, reward, *_ = env.step(env.layout.mix_start + 3)
    assert env.settings.strip("vocal").tempo_ratio == 1.25
    assert reward > 0.5
