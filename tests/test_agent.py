"""The deep Q-network: targets by hand, the network's symmetries, policy files, and training that learns."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import fields, replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from conftest import small_stems
from safetensors.numpy import save_file
from typer.testing import CliRunner

from mixrl.agent.dqn import Learner, double_q_target
from mixrl.agent.network import QNetwork, collate, padded_columns
from mixrl.agent.policy import FORMAT, NetworkSize, Policy, default_policy, load_policy, save_policy
from mixrl.agent.replay import Episode, Replay, Transition, transition
from mixrl.agent.train import TrainConfig, broken, greedy, improvement_of, train
from mixrl.commands import app
from mixrl.errors import InputError
from mixrl.moves import GROUP_MOVES, MIX_MOVES, STEM_MOVES, Layout
from mixrl.scene import Scene
from mixrl.session import Session
from mixrl.state import GROUP_FEATURES, MIX_FEATURES, STEM_FEATURES, State

torch.set_num_threads(1)  # so small a network only waits for its threads

SHAPES = ((1, 1), (3, 2), (7, 4), (24, 4))
PER_STEM, PER_GROUP = len(STEM_MOVES), len(GROUP_MOVES)


def made_up(stems: int, groups: int, seed: int) -> State:
    """A state of random numbers; every group has a member where there are enough stems."""
    rng = np.random.default_rng([seed, stems, groups])
    layout = Layout(stems, groups)
    mask = rng.random(layout.size) < 0.6
    mask[layout.mix_start] = True
    return State(
        stems=rng.normal(size=(stems, STEM_FEATURES)).astype(np.float32),
        groups=rng.normal(size=(groups, GROUP_FEATURES)).astype(np.float32),
        mix=rng.normal(size=MIX_FEATURES).astype(np.float32),
        members=rng.permutation(np.arange(stems) % groups),
        gains=(0.1 * rng.normal(size=layout.size) * mask).astype(np.float32),
        mask=mask,
    )


def network(seed: int = 0, use_gains: bool = True, width: int = 24) -> QNetwork:
    """A network with all weights at random, heads too."""
    torch.manual_seed(seed)
    made = QNetwork(NetworkSize(width=width, use_gains=use_gains))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.0, 0.3)
    return made


def torch_q(net: QNetwork, states: list[State]) -> list[np.ndarray]:
    """Q-values of each state out of one batch, each in its own layout."""
    with torch.no_grad():
        q = net(collate(states)).numpy()
    most = max(len(s.stems) for s in states), max(len(s.groups) for s in states)
    return [q[i, padded_columns(len(s.stems), len(s.groups), *most)] for i, s in enumerate(states)]


# ---- targets -----------------------------------------------------------------------------------------------------


def test_double_q_target_by_hand():
    """Online chooses among the legal, target values it; done and nowhere to go are worth nothing more."""
    online = torch.tensor([[1.0, 9.0, 2.0], [5.0, 1.0, 0.0], [3.0, 2.0, 1.0], [0.0, -1.0, -4.0]])
    target = torch.tensor([[10.0, 20.0, 30.0], [-7.0, 50.0, 60.0], [70.0, 80.0, 90.0], [1.0, 2.0, 3.0]])
    mask = torch.tensor([[True, False, True], [True, True, True], [False, False, False], [False, True, True]])
    returns = torch.tensor([0.5, -1.0, 2.0, 0.25])
    done = torch.tensor([False, False, False, False])
    # 1: move 1 is illegal, so 2, worth 30. 2: move 0, worth -7 although the target likes others. 3: no legal move.
    # 4: the best that is legal is negative.
    expected = [0.5 + 30.0, -1.0 - 7.0, 2.0, 0.25 + 2.0]
    assert double_q_target(returns, done, online, target, mask).tolist() == expected
    done = torch.tensor([True, False, True, True])
    assert double_q_target(returns, done, online, target, mask).tolist() == [0.5, -8.0, 2.0, 0.25]


def episode(length: int) -> Episode:
    states = tuple(made_up(2, 1, seed) for seed in range(length + 1))
    return Episode(states, tuple(range(length)), tuple(2.0**k for k in range(length)))


def test_n_step_transitions_by_hand():
    five = episode(5)
    for at, total, later, done in ((0, 7.0, 3, False), (1, 14.0, 4, False), (2, 28.0, 5, True), (4, 16.0, 5, True)):
        found = transition(five, at, 3)
        assert found.state is five.states[at]
        assert found.action == at
        assert found.n_step_return == total
        assert found.later is five.states[later]
        assert found.done is done
    one = transition(five, 3, 1)
    assert (one.n_step_return, one.later is five.states[4], one.done) == (8.0, True, False)


def test_replay_forgets_the_oldest_episodes_and_samples_all_moves_alike():
    replay = Replay(capacity=12, n=2)
    old, five, three = episode(6), episode(5), episode(3)
    for one in (old, Episode((old.states[0],), (), ()), five, three):
        replay.add(one)
    assert len(replay) == 8
    found = replay.sample(4000, np.random.default_rng(0))
    counts = {}
    for one in found:
        counts[id(one.state)] = counts.get(id(one.state), 0) + 1
    wanted = {id(s) for e in (five, three) for s in e.states[:-1]}
    assert set(counts) == wanted
    assert min(counts.values()) > 400
    assert max(counts.values()) < 600


# ---- the network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_gains", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_policy_equals_torch(shape, use_gains):
    net = network(1, use_gains)
    policy = net.policy({})
    for seed in range(3):
        state = made_up(*shape, seed)
        expected = np.where(state.mask, torch_q(net, [state])[0], -np.inf)
        np.testing.assert_allclose(policy.q_values(state), expected, rtol=1e-5, atol=1e-5)
        assert policy.act(state) == greedy(net, state)
        assert state.mask[policy.act(state)]


def test_padding_changes_no_q_value():
    net = network(2)
    states = [made_up(*shape, 5) for shape in SHAPES]
    together = torch_q(net, states)
    for state, q in zip(states, together, strict=True):
        np.testing.assert_allclose(q, torch_q(net, [state])[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_the_order_of_stems_and_groups_does_not_matter(shape):
    """Stems in another order: the same Q-values in that order, for torch and for numpy; so with groups."""
    stems, groups = shape
    rng = np.random.default_rng(3)
    state = made_up(stems, groups, 9)
    order, others = rng.permutation(stems), rng.permutation(groups)
    place = np.argsort(others)  # where each old group went
    layout = Layout(stems, groups)
    columns = np.concatenate([
        (order[:, None] * PER_STEM + np.arange(PER_STEM)).ravel(),
        layout.group_start + (others[:, None] * PER_GROUP + np.arange(PER_GROUP)).ravel(),
        layout.mix_start + np.arange(len(MIX_MOVES)),
    ])  # fmt: skip
    shuffled = State(
        stems=state.stems[order], groups=state.groups[others], mix=state.mix, members=place[state.members[order]],
        gains=state.gains[columns], mask=state.mask[columns],
    )  # fmt: skip
    net = network(4)
    straight, mixed = torch_q(net, [state])[0], torch_q(net, [shuffled])[0]
    assert np.ptp(straight[: PER_STEM * stems].reshape(stems, -1), axis=0).min() > 0.0  # stems do differ
    np.testing.assert_allclose(mixed, straight[columns], rtol=1e-4, atol=1e-5)
    policy = net.policy({})
    np.testing.assert_allclose(
        policy.q_values(shuffled), policy.q_values(state)[columns], rtol=1e-4, atol=1e-5
    )


def test_stop_is_worth_nothing_and_everything_else_something():
    net = network(5)
    for shape in SHAPES:
        state = made_up(*shape, 2)
        stop = Layout(*shape).mix_start
        q = torch_q(net, [state])[0]
        assert q[stop] == 0.0
        assert net.policy({}).q_values(state)[stop] == 0.0
        assert (np.delete(q, stop) != 0.0).all()


def test_an_untrained_network_begins_as_greedy_search():
    net = QNetwork(NetworkSize(width=16))
    state = made_up(4, 2, 1)
    assert greedy(net, state) == int(np.where(state.mask, state.gains, -np.inf).argmax())


def test_q_values_come_to_the_returns_that_were_seen():
    """A network without one-step gains, taught single moves of states of three sizes that end at once: the update
    reaches the right column whatever the padding, and leaves the target network alone until its turn."""
    torch.manual_seed(0)
    learner = Learner(QNetwork(NetworkSize(width=32, use_gains=False)), 5e-3, target_every=200)
    before = {name: value.clone() for name, value in learner.target.state_dict().items()}
    rng = np.random.default_rng(0)
    taught = []
    for k, shape in enumerate(SHAPES[:3] * 2):
        state = made_up(*shape, 30 + k)
        stop = Layout(*shape).mix_start
        legal = np.flatnonzero(state.mask)
        actions = rng.choice(legal[legal != stop], 2, replace=False)
        taught += [Transition(state, int(a), float(rng.choice([-1.0, 1.0])), state, True) for a in actions]
    first = learner.update(taught)
    for _ in range(198):
        last = learner.update(taught)
    assert all(torch.equal(value, before[name]) for name, value in learner.target.state_dict().items())
    learner.update(taught)
    online = learner.online.state_dict()
    assert all(torch.equal(value, online[name]) for name, value in learner.target.state_dict().items())
    assert first > 0.9
    assert last < 0.02
    policy = learner.online.policy({})
    for one in taught:
        assert policy.q_values(one.state)[one.action] == pytest.approx(one.n_step_return, abs=0.3)


def test_later_rewards_reach_earlier_moves():
    """A chain of two states: the first move earns nothing itself, what follows earns 1. Its value comes through the
    target network."""
    torch.manual_seed(0)
    learner = Learner(QNetwork(NetworkSize(width=32, use_gains=False)), 3e-3, target_every=25)
    now, later = made_up(3, 2, 50), made_up(5, 2, 51)
    only = np.zeros_like(later.mask)
    only[[7, Layout(5, 2).mix_start]] = True
    later = replace(later, mask=only)
    chain = [Transition(now, 3, 0.0, later, False), Transition(later, 7, 1.0, now, True)]
    for _ in range(300):
        learner.update(chain)
    policy = learner.online.policy({})
    assert policy.q_values(later)[7] == pytest.approx(1.0, abs=0.1)
    assert policy.q_values(replace(now, mask=np.ones_like(now.mask)))[3] == pytest.approx(1.0, abs=0.15)


# ---- policy files ------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "policy.safetensors"
    policy = network(6).policy({"command": "mixrl train", "seed": "6"})
    save_policy(policy, path)
    return path, policy


def test_a_policy_file_round_trip(saved):
    path, policy = saved
    again = load_policy(path)
    assert again.size == policy.size
    assert again.made_by == policy.made_by
    assert set(again.weights) == set(policy.weights)
    for name, value in policy.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)
    state = made_up(5, 3, 1)
    np.testing.assert_array_equal(again.q_values(state), policy.q_values(state))
    assert not list(path.parent.glob("*.tmp*"))


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        load_policy(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "mixrl train" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("content", [b"", b"not a policy", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "kick.wav"
    path.write_bytes(content)
    refused(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "nowhere.safetensors")
    refused(tmp_path)


def test_a_torn_file_is_refused(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-100])
    refused(path)


def damaged(name, change):
    def apply(policy):
        return Policy(policy.size, {**policy.weights, name: change(policy.weights[name])}, policy.made_by)

    return apply


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("stem1.weight", lambda w: w[:, :-1]),
        ("stem1.weight", lambda w: w.T),
        ("mix_norm.bias", lambda w: w.astype(np.float64)),
        ("stem_head.weight", lambda w: np.where(np.arange(w.size).reshape(w.shape) == 5, np.float32(np.nan), w)),
        ("value_head.bias", lambda w: w + np.float32(np.inf)),
    ],
)
def test_weights_that_cannot_be_right_are_refused_by_name(saved, name, change):
    path, policy = saved
    save_policy(damaged(name, change)(policy), path)
    refused(path, name)


def test_a_missing_layer_is_refused_by_name(saved):
    path, policy = saved
    save_policy(replace(policy, weights={k: v for k, v in policy.weights.items() if k != "head1.bias"}), path)
    refused(path, "head1.bias")


SIZE = {f.name: getattr(NetworkSize(width=24), f.name) for f in fields(NetworkSize)}


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"format": "another-1", "size": json.dumps(SIZE)},
        {"format": FORMAT},
        {"format": FORMAT, "size": "3"},
        {"format": FORMAT, "size": "{"},
        {"format": FORMAT, "size": json.dumps({"width": 24})},
        {"format": FORMAT, "size": json.dumps({**SIZE, "stem_features": STEM_FEATURES + 1})},
        {"format": FORMAT, "size": json.dumps({**SIZE, "width": 25})},
        {"format": FORMAT, "size": json.dumps({**SIZE, "width": None})},
        {"format": FORMAT, "size": json.dumps({**SIZE, "use_gains": "yes"})},
    ],
)
def test_tensors_that_are_no_policy_of_ours_are_refused(saved, about):
    path, policy = saved
    save_file({name: np.ascontiguousarray(w) for name, w in policy.weights.items()}, path, about)
    refused(path)


def test_the_policy_that_ships(small_scene):
    file = files("mixrl") / "data" / "policy.safetensors"
    assert len(file.read_bytes()) < 2_000_000
    policy = default_policy()
    assert "mixrl train" in policy.made_by["command"]
    assert int(policy.made_by["seed"]) >= 0
    found = improvement_of(policy, broken(small_scene, TrainConfig(), np.random.default_rng(1)))
    assert found > 0.0


# ---- training ----------------------------------------------------------------------------------------------------

TINY = TrainConfig(
    seed=3, moves=200, steps=12, update_every=4, batch=32, warm_up=60, target_every=20, learning_rate=1e-3,
    validate_every=100, validation_starts=2, width=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes():
    return [Scene.of(Session.from_arrays(small_stems(22_050, 5.0, seed), 22_050)) for seed in (1, 2)]


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "new"
    policy = train(scenes[:1], scenes[1:], TINY, folder, {"command": "test", "seed": "3"})
    return policy, folder


def random_return(env, rng):
    env.reset()
    total = best = 0.0
    while True:
        _, reward, terminated, truncated, _ = env.step(int(rng.choice(np.flatnonzero(env.state.mask))))
        total += reward
        best = max(best, total)
        if terminated or truncated:
            return best


def test_training_leaves_a_log_a_picture_and_the_best_policy(scenes, trained):
    policy, folder = trained
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    with (folder / "log.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [row["moves"] // 100 for row in rows] == [0, 1, 2]
    assert rows[-1]["updates"] == pytest.approx((rows[-1]["moves"] - TINY.warm_up) / TINY.update_every, abs=10)
    assert rows[0]["epsilon"] == TINY.epsilon_start
    assert rows[-1]["epsilon"] == pytest.approx(TINY.epsilon_end)
    assert rows[-1]["loss"] > 0.0
    kept = load_policy(folder / "policy.safetensors")
    assert kept.made_by == policy.made_by == {"command": "test", "seed": "3"}
    for name, value in policy.weights.items():
        np.testing.assert_array_equal(kept.weights[name], value)
    starts = [broken(scenes[1], TINY, np.random.default_rng([0, k])) for k in range(2)]
    again = float(np.mean([improvement_of(policy, env) for env in starts]))
    assert again == pytest.approx(max(row["improvement"] for row in rows[1:]), abs=1e-9)


def test_a_trained_policy_beats_random_moves_on_a_session_it_was_not_trained_on(scenes, trained):
    policy, _ = trained
    rng = np.random.default_rng(77)
    ours, chance = [], []
    for _ in range(4):
        env = broken(scenes[1], TINY, rng)
        ours.append(improvement_of(policy, env))
        chance.append(np.mean([random_return(env, rng) for _ in range(2)]))
    assert np.mean(ours) > 0.3
    assert np.mean(ours) > np.mean(chance) + 0.3


def test_training_is_the_same_to_the_last_bit(scenes, trained, tmp_path):
    policy, folder = trained
    again = train(scenes[:1], scenes[1:], TINY, tmp_path, {"command": "test", "seed": "3"})
    assert (tmp_path / "log.csv").read_bytes() == (folder / "log.csv").read_bytes()
    for name, value in policy.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)
    other = train(scenes[:1], scenes[1:], replace(TINY, seed=4, moves=1), tmp_path, {})
    assert any((other.weights[name] != value).any() for name, value in policy.weights.items())


def test_episodes_are_subsets_with_faders_off(scenes):
    rng = np.random.default_rng(0)
    names = set()
    for _ in range(12):
        env = broken(scenes[0], TrainConfig(most_stems=4), rng)
        count = len(env.scene.facts.names)
        assert 3 <= count <= 4
        assert env.scene.facts.audible.all()
        assert env.start == env.scene.neutral()  # the damage is in the recording, not in the settings
        names.add(env.scene.facts.names)
    assert len(names) > 3


def test_training_without_torch_is_a_one_line_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    arguments = ["train", str(tmp_path), "-o", str(tmp_path / "p.safetensors"), "--validate", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert "mixrl[train]" in str(result.exception)
    assert "\n" not in str(result.exception)
