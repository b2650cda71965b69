"""The vectorised environment is the scalar one, several times: step by step, and by Gymnasium's own reckoning."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from mixrl.env import MixEnv
from mixrl.knobs import GAIN, PAN, neutral_knobs
from mixrl.moves import STEM_MOVES, Layout
from mixrl.padded import PaddedMixEnv
from mixrl.scene import Scene
from mixrl.vector import Task, VectorMixEnv, padded

STEMS, GROUPS = 7, 4  # more than any session here has
SIZE = Layout(STEMS, GROUPS).size


@pytest.fixture(scope="module")
def sample(small_scene):
    """A sampler of short episodes on sessions of six, three and one stems, from random faders and pans."""
    scenes = [small_scene, small_scene.subset([2, 3, 5]), small_scene.subset([1])]

    def draw(rng):
        scene = scenes[int(rng.integers(3))]
        start = neutral_knobs(scene.facts)
        start.strips[:, GAIN] = rng.uniform(-9.0, 9.0, len(start.strips))
        start.strips[:, PAN] = rng.uniform(-0.5, 0.5, len(start.strips))
        return Task(scene, start, int(rng.integers(2, 7)))

    return draw


def vector(sample, envs=3, **options):
    return VectorMixEnv(sample, envs, most_stems=STEMS, most_groups=GROUPS, **options)


def chosen(mask, rng):
    """A legal action for each row of a mask; rng: one for all rows, or one each. Now and then it is stop."""
    rngs = rng if isinstance(rng, list) else [rng] * len(mask)
    stop = Layout(STEMS, GROUPS).mix_start
    legal = zip(rngs, map(np.flatnonzero, mask), strict=True)
    return np.array([stop if r.random() < 0.1 else r.choice(actions) for r, actions in legal])


def assert_equal(found, wanted, rows=slice(None)):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name][rows], value[rows], err_msg=name)


class Scalars:
    """What VectorMixEnv says it does, plainly: one MixEnv after the other, padded, begun anew in the same step."""

    def __init__(self, sample, envs, seed, gains=True):
        self.sample, self.gains = sample, gains
        self.generators = [np.random.default_rng([seed, i]) for i in range(envs)]
        self.envs = [self.begun(rng) for rng in self.generators]

    def begun(self, rng):
        task = self.sample(rng)
        env = MixEnv(task.scene, start=task.start, steps=task.steps, gains=self.gains)
        env.reset()
        return env

    def observe(self):
        return padded([env.state for env in self.envs], STEMS, GROUPS)

    def step(self, actions):
        made = []
        for env, action in zip(self.envs, actions, strict=True):
            large, own = Layout(STEMS, GROUPS), env.layout
            place = large.decode(int(action))
            number = next(a for a in range(own.size) if own.decode(a) == place)
            _, *outcome, info = env.step(number)
            made.append((*outcome, info["score"]))
        last = self.observe()
        for index, (_, terminated, truncated, _) in enumerate(made):
            if terminated or truncated:
                self.envs[index] = self.begun(self.generators[index])
        return last, self.observe(), *(np.array(column) for column in zip(*made, strict=True))


def test_some_environments_may_look_ahead_and_others_not(sample):
    envs = vector(sample, gains=(True, False, True))
    seen, _ = envs.reset(seed=3)
    assert seen["gains"].any(axis=1).tolist() == [True, False, True]
    blind, _ = vector(sample, gains=False).reset(seed=3)
    for name in blind:
        if name != "gains":
            assert np.array_equal(seen[name], blind[name])


@pytest.mark.parametrize("gains", [True, False])
def test_it_is_the_scalar_environment_step_by_step(sample, gains):
    envs = vector(sample, gains=gains)
    observation, info = envs.reset(seed=5)
    twins = Scalars(sample, 3, 5, gains)
    assert_equal(observation, twins.observe())
    np.testing.assert_array_equal(info["score"], [env.score for env in twins.envs])
    rng = np.random.default_rng(1)
    returns, ends = np.zeros(3), [0, 0]
    for _ in range(30):
        actions = chosen(observation["mask"], rng)
        observation, rewards, terminated, truncated, info = envs.step(actions)
        last, first, *wanted = twins.step(actions)
        for found, value in zip((rewards, terminated, truncated, info["score"]), wanted, strict=True):
            np.testing.assert_array_equal(found, value)
        assert_equal(observation, first)
        returns += rewards
        ended = terminated | truncated
        ends[0], ends[1] = ends[0] + terminated.sum(), ends[1] + truncated.sum()
        assert ("final_obs" in info) == ended.any()
        if ended.any():
            np.testing.assert_array_equal(info["_final_obs"], ended)
            assert_equal(info["final_obs"], last, ended)
            np.testing.assert_allclose(info["episode_return"][ended], returns[ended])
            returns[ended] = 0.0
    assert min(ends) > 2  # by a stop, by the step limit
    assert observation["gains"].any() == gains


def test_gymnasium_itself_vectorises_it_so(sample):
    """The same seeds through Gymnasium's SyncVectorEnv of padded environments, in the mode that is declared."""
    assert VectorMixEnv.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    ours = vector(sample)
    theirs = SyncVectorEnv(
        [lambda: PaddedMixEnv(sample, most_stems=STEMS, most_groups=GROUPS)] * 3, autoreset_mode=AutoresetMode.SAME_STEP
    )

    def flat(observation):
        belongs = (observation["members"][..., None] == np.arange(GROUPS)) & observation["present"][..., None]
        names = ("stems", "groups", "mix", "present", "mask")
        parts = [*(observation[name] for name in names), belongs, observation["gains"]]
        return np.concatenate([part.reshape(3, -1) for part in parts], axis=1).astype(np.float32)

    seeds = [11, 12, 13]
    observation, info = ours.reset(seed=seeds)
    other, other_info = theirs.reset(seed=seeds)
    np.testing.assert_array_equal(flat(observation), other)
    np.testing.assert_array_equal(info["score"], other_info["score"])
    rng = np.random.default_rng(2)
    ended = 0
    for _ in range(12):
        actions = chosen(observation["mask"], rng)
        observation, *found, info = ours.step(actions)
        other, *wanted, other_info = theirs.step(actions)
        np.testing.assert_array_equal(flat(observation), other)
        for one, value in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, value)
        if "final_obs" in other_info:
            rows = other_info["_final_obs"]
            np.testing.assert_array_equal(rows, info["_final_obs"])
            np.testing.assert_array_equal(flat(info["final_obs"])[rows], np.stack(list(other_info["final_obs"][rows])))
            ended += int(rows.sum())
    assert ended > 2


def test_spaces_are_those_of_one_environment_batched(sample):
    envs = vector(sample)
    assert envs.observation_space == batch_space(envs.single_observation_space, 3)
    assert envs.action_space == batch_space(envs.single_action_space, 3)
    assert envs.single_action_space.n == SIZE
    observation, _ = envs.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(8):
        assert envs.observation_space.contains(observation)
        observation, _, _, _, info = envs.step(chosen(observation["mask"], rng))
        if "final_obs" in info:
            assert envs.observation_space.contains(info["final_obs"])


def test_gymnasium_wrappers_take_it(sample):
    """Their statistics, which know of autoreset, count as ours do; and infos can be told apart by environment."""
    envs = DictInfoToList(RecordEpisodeStatistics(vector(sample)))
    envs.reset(seed=3)
    rng = np.random.default_rng(3)
    observation, _ = envs.reset(seed=3)
    seen = 0
    for _ in range(15):
        observation, _, terminated, truncated, infos = envs.step(chosen(observation["mask"], rng))
        for info, end in zip(infos, terminated | truncated, strict=True):
            assert ("final_obs" in info) == end
            if end:
                assert info["episode"]["r"] == pytest.approx(info["episode_return"], abs=1e-6)
                assert set(info["final_obs"]) == set(observation)
                seen += 1
    assert seen > 2


def play(envs, seed, steps, rows):
    """Rewards of the first ``rows`` environments when each chooses by its own generator."""
    observation, _ = envs.reset(seed=seed)
    choosers = [np.random.default_rng([9, i]) for i in range(envs.num_envs)]
    found = []
    for _ in range(steps):
        observation, rewards, *_ = envs.step(chosen(observation["mask"], choosers))
        found.append(np.concatenate([rewards[:rows], observation["mix"][:rows].ravel()]))
    return np.array(found)


def test_seeds_are_reproducible_and_do_not_depend_on_the_others(sample):
    two = play(vector(sample, 2), 7, 12, 2)
    np.testing.assert_array_equal(play(vector(sample, 4), 7, 12, 2), two)
    again = vector(sample, 2)
    play(again, 1, 5, 2)  # what was played before does not matter
    np.testing.assert_array_equal(play(again, 7, 12, 2), two)
    assert not np.array_equal(play(vector(sample, 2), 8, 12, 2), two)
    # without a seed the generators go on, and environments differ from each other
    envs = vector(sample, 2)
    first, _ = envs.reset(seed=7)
    second, _ = envs.reset()
    assert not np.array_equal(first["stems"], second["stems"])
    assert not np.array_equal(first["stems"][0], first["stems"][1])


def test_an_action_of_a_stem_that_is_not_there_raises_before_anything_moves(sample):
    envs = vector(sample, 2)
    observation, _ = envs.reset(seed=4)
    legal = chosen(observation["mask"], np.random.default_rng(0))
    beyond = Layout(STEMS, GROUPS).group_start - len(STEM_MOVES)  # of the seventh stem, which no session here has
    assert not observation["mask"][:, beyond : beyond + len(STEM_MOVES)].any()
    for actions in ([legal[0], beyond], [legal[0], SIZE], [-1, legal[1]]):
        with pytest.raises(ValueError, match="does not have"):
            envs.step(np.array(actions))
        assert_equal(envs.observe(), observation)
    with pytest.raises(ValueError, match="argument 2"):
        envs.step(legal[:1])


def test_an_illegal_move_of_a_stem_that_is_there_earns_nothing(sample, small_scene):
    envs = vector(lambda rng: Task(small_scene, steps=5), 1)
    before, _ = envs.reset(seed=0)
    silent = small_scene.facts.names.index("shaker") * len(STEM_MOVES)
    after, rewards, terminated, truncated, _ = envs.step(np.array([silent]))
    assert (rewards[0], terminated[0], truncated[0]) == (0.0, False, False)
    np.testing.assert_array_equal(after["stems"], before["stems"])
    assert after["mix"][0, -1] == pytest.approx(0.8)


def test_a_session_larger_than_the_padding_is_refused(small_scene):
    for stems, groups in ((5, 4), (6, 2)):
        with pytest.raises(ValueError, match="6 stems in 3 groups"):
            VectorMixEnv(lambda rng: Task(small_scene), 1, most_stems=stems, most_groups=groups).reset(seed=0)


def test_padding_is_zero_and_tells_who_is_there(small_scene):
    scene: Scene = small_scene.subset([2, 3, 5])
    env = MixEnv(scene)
    env.reset()
    found = padded([env.state], STEMS, GROUPS)
    assert found["present"][0].tolist() == [True] * 3 + [False] * 4
    np.testing.assert_array_equal(found["stems"][0, :3], env.state.stems)
    np.testing.assert_array_equal(found["members"][0, :3], env.state.members)
    for name in ("stems", "members"):
        assert not found[name][0, 3:].any()
    assert not found["groups"][0, len(scene.facts.groups) :].any()
    large, own = Layout(STEMS, GROUPS), env.layout
    for action in range(SIZE):
        kind, index, _ = place = large.decode(action)
        if kind == "mix" or index < (own.stems if kind == "stem" else own.groups):
            number = next(a for a in range(own.size) if own.decode(a) == place)
            assert found["mask"][0, action] == env.state.mask[number]
            assert found["gains"][0, action] == env.state.gains[number]
        else:
            assert not found["mask"][0, action]
            assert found["gains"][0, action] == 0.0
