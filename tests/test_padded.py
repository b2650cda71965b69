"""The padded environment: Gymnasium's rules, and other people's agents that learn on it."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mixrl.env import MixEnv
from mixrl.knobs import GAIN, neutral_knobs
from mixrl.moves import STEM_MOVES, Layout
from mixrl.padded import PaddedMixEnv
from mixrl.vector import Task

STEMS, GROUPS = 4, 3
LAYOUT = Layout(STEMS, GROUPS)


@pytest.fixture(scope="module")
def sample(small_scene):
    """A sampler of two sessions, of four stems and of two, from random faders."""
    scenes = [small_scene.subset([0, 2, 3, 5]), small_scene.subset([3, 5])]

    def draw(rng):
        scene = scenes[int(rng.integers(2))]
        start = neutral_knobs(scene.facts)
        start.strips[:, GAIN] = rng.uniform(-12.0, 12.0, len(start.strips))
        return Task(scene, start, steps=8)

    return draw


def made(sample, **options):
    return PaddedMixEnv(sample, most_stems=STEMS, most_groups=GROUPS, **options)


@pytest.mark.parametrize("gains", [True, False])
def test_gymnasium_finds_no_fault(sample, gains):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if gains:  # they are rewards: they have no bounds, nor are they to be scaled
            warnings.filterwarnings("ignore", message=".*(infinity|symmetric and normalized).*")
        check_env(made(sample, gains=gains), skip_render_check=True)


def test_the_observation_is_flat_and_holds_the_state(sample):
    env = made(sample)
    found, info = env.reset(seed=2)
    state = env.env.state
    assert (found.dtype, found.shape) == (np.float32, env.observation_space.shape)
    assert info == {"score": state.score}
    count = len(state.stems)
    np.testing.assert_array_equal(found[: state.stems.size], state.stems.ravel())
    gains = found[-LAYOUT.size :]
    np.testing.assert_array_equal(gains[: count * len(STEM_MOVES)], state.gains[: count * len(STEM_MOVES)])
    without = made(sample, gains=False)
    other, _ = without.reset(seed=2)
    np.testing.assert_array_equal(other, found[: -LAYOUT.size])
    assert without.observation_space.shape == (env.observation_space.shape[0] - LAYOUT.size,)


def test_each_episode_may_be_another_session(sample):
    env = made(sample)
    sizes, firsts = set(), []
    for seed in (3, None, None, None, None, None):
        first, _ = env.reset(seed=seed)
        assert env.observation_space.contains(first)
        sizes.add(len(env.env.state.stems))
        firsts.append(first)
    assert sizes == {2, 4}
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(again, firsts[0])
    following, _ = env.reset()
    np.testing.assert_array_equal(following, firsts[1])


def test_it_plays_as_the_environment_inside(sample):
    env = made(sample)
    env.reset(seed=1)
    task = sample(np.random.default_rng(1))  # Gymnasium makes its generators so
    twin = MixEnv(task.scene, start=task.start, steps=task.steps)
    twin.reset()
    rng = np.random.default_rng(0)
    over = False
    while not over:
        mask = env.action_masks()
        assert mask.dtype == bool
        assert mask.sum() == twin.state.mask.sum()
        action = int(rng.choice(np.flatnonzero(mask)))
        place = LAYOUT.decode(action)
        own = next(a for a in range(twin.layout.size) if twin.layout.decode(a) == place)
        _, *found = env.step(action)
        _, *wanted = twin.step(own)
        assert found == wanted
        over = found[1] or found[2]


@pytest.mark.parametrize("which", ["a stem that is not there", "a group that is not there", "a step below off"])
def test_an_illegal_action_changes_nothing_but_takes_time(sample, which):
    env = made(sample)
    env.reset(seed=0)
    while len(env.env.state.stems) != 2:
        env.reset()
    action = {
        "a stem that is not there": 3 * len(STEM_MOVES),
        "a group that is not there": LAYOUT.mix_start - 1,
        "a step below off": [m.kind for m in STEM_MOVES].index("compressor"),
    }[which]
    assert not env.action_masks()[action]
    knobs, score = env.env.knobs, env.env.score
    for step in range(1, 9):
        found, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated) == (0.0, False, step == 8)
        assert info == {"score": score, "illegal": True}
        assert env.observation_space.contains(found)
    assert env.env.knobs is knobs


def test_what_is_no_action_raises(sample):
    env = made(sample)
    env.reset(seed=0)
    for action in (-1, LAYOUT.size):
        with pytest.raises(ValueError, match=f"action {action} of {LAYOUT.size}"):
            env.step(action)


def test_a_session_larger_than_the_padding_is_refused(small_scene):
    env = PaddedMixEnv(lambda rng: Task(small_scene), most_stems=5, most_groups=3)
    with pytest.raises(ValueError, match="6 stems in 3 groups"):
        env.reset(seed=0)


def parameters(model):
    return np.concatenate([p.detach().numpy().ravel() for p in model.policy.parameters()])


@pytest.fixture
def one_thread():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_dqn_of_stable_baselines_learns_on_it(sample):
    sb3 = pytest.importorskip("stable_baselines3", reason="needs stable-baselines3")
    model = sb3.DQN(
        "MlpPolicy", made(sample), learning_starts=50, buffer_size=400, train_freq=2, batch_size=16, gamma=1.0,
        target_update_interval=50, policy_kwargs={"net_arch": [32]}, seed=0, device="cpu",
    )  # fmt: skip
    before = parameters(model)
    model.learn(300, log_interval=10**6)
    assert math.isfinite(model.logger.name_to_value["train/loss"])
    assert model.logger.name_to_value["train/n_updates"] > 100
    after = parameters(model)
    assert np.isfinite(after).all()
    assert np.abs(after - before).max() > 1e-3
    assert model.replay_buffer.dones.any()  # episodes end, and the next ones begin
    observation, _ = made(sample).reset(seed=5)
    action, _ = model.predict(observation, deterministic=True)
    assert 0 <= int(action) < LAYOUT.size


@pytest.mark.usefixtures("one_thread")
def test_maskable_ppo_of_sb3_contrib_learns_on_it_and_only_makes_legal_moves(sample):
    contrib = pytest.importorskip("sb3_contrib", reason="needs sb3-contrib")
    env = made(sample)
    model = contrib.MaskablePPO(
        "MlpPolicy", env, n_steps=128, batch_size=64, n_epochs=4, learning_rate=1e-3, gamma=1.0,
        policy_kwargs={"net_arch": [32]}, seed=0, device="cpu",
    )  # fmt: skip
    before = parameters(model)
    model.learn(384, log_interval=10**6)
    logged = model.logger.name_to_value
    for name in ("train/loss", "train/value_loss", "train/policy_gradient_loss", "train/entropy_loss"):
        assert math.isfinite(logged[name]), name
    # with no mask the entropy of a fresh policy would be that of all actions
    assert 0.0 < -logged["train/entropy_loss"] < math.log(LAYOUT.size) - 0.2
    assert np.abs(parameters(model) - before).max() > 1e-3
    observation, _ = env.reset(seed=6)
    for step in range(40):
        mask = env.action_masks()
        action, _ = model.predict(observation, action_masks=mask, deterministic=step % 2 == 0)
        assert mask[action]
        observation, _, terminated, truncated, info = env.step(action)
        assert not info["illegal"]
        if terminated or truncated:
            observation, _ = env.reset()
