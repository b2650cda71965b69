"""The deep Q-network: its symmetries, numpy against torch, and policy files."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mixrl.agent.network import QNetwork, batch_of, collate
from mixrl.agent.policy import FORMAT, POOLS, NetworkSize, Policy, default_policy, load_policy
from mixrl.agent.targets import best_move
from mixrl.agent.train import improvement_of
from mixrl.env import MixEnv
from mixrl.errors import InputError
from mixrl.moves import GROUP_MOVES, MIX_MOVES, STEM_MOVES, Layout, padded_columns
from mixrl.state import GROUP_FEATURES, MIX_FEATURES, STEM_FEATURES, State
from mixrl.vector import padded

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


def network(seed: int = 0, use_gains: bool = True, width: int = 24, pool: str = "mean+max") -> QNetwork:
    """A network with all weights at random, heads too."""
    torch.manual_seed(seed)
    made = QNetwork(NetworkSize(width=width, use_gains=use_gains, pool=pool))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0.0, 0.3)
    return made


def torch_q(net: QNetwork, states: list[State], most: tuple[int, int] | None = None) -> list[np.ndarray]:
    """Q-values of each state out of one batch, each in its own layout."""
    most = most or (max(len(s.stems) for s in states), max(len(s.groups) for s in states))
    with torch.no_grad():
        q = net(batch_of(padded(states, *most))).numpy()
    return [q[i, padded_columns(len(s.stems), len(s.groups), *most)] for i, s in enumerate(states)]


# ---- the network -------------------------------------------------------------------------------------------------


VARIANTS = [(pool, gains) for pool in POOLS for gains in (True, False)]


@pytest.mark.parametrize(("pool", "use_gains"), VARIANTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_policy_equals_torch(shape, pool, use_gains):
    net = network(1, use_gains, pool=pool)
    policy = net.policy({})
    for seed in range(3):
        state = made_up(*shape, seed)
        expected = np.where(state.mask, torch_q(net, [state])[0], -np.inf)
        np.testing.assert_allclose(policy.q_values(state), expected, rtol=1e-5, atol=1e-5)
        batch = batch_of(collate([state]))
        with torch.no_grad():
            assert policy.act(state) == int(best_move(net(batch), batch.mask)[0])
        assert state.mask[policy.act(state)]


@pytest.mark.parametrize("pool", POOLS)
def test_padding_changes_no_q_value(pool):
    """Not with company of other sizes, not with room for more, and not with rubbish where nothing is."""
    net = network(2, pool=pool)
    states = [made_up(*shape, 5) for shape in SHAPES]
    alone = [torch_q(net, [state])[0] for state in states]
    for together in (torch_q(net, states), torch_q(net, states, (70, 6))):
        for q, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(q, expected, rtol=1e-5, atol=1e-5)
    batch = padded(states, 24, 4)
    batch["stems"][~batch["present"]] = 1e3
    batch["members"][~batch["present"]] = 3
    with torch.no_grad():
        q = net(batch_of(batch)).numpy()
    for row, state, expected in zip(q, states, alone, strict=True):
        own = row[padded_columns(len(state.stems), len(state.groups), 24, 4)]
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_the_order_of_stems_and_groups_does_not_matter(shape, pool):
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
    net = network(4, pool=pool)
    straight, mixed = torch_q(net, [state])[0], torch_q(net, [shuffled])[0]
    assert np.ptp(straight[: PER_STEM * stems].reshape(stems, -1), axis=0).min() > 0.0  # stems do differ
    np.testing.assert_allclose(mixed, straight[columns], rtol=1e-4, atol=1e-5)
    policy = net.policy({})
    np.testing.assert_allclose(policy.q_values(shuffled), policy.q_values(state)[columns], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_stems_see_one_another(pool):
    """What one stem is like changes the Q-values of another's moves, whatever the pool."""
    net = network(7, pool=pool)
    state = made_up(5, 2, 4)
    other = replace(state, stems=np.where(np.arange(5)[:, None] == 4, 0.5, state.stems).astype(np.float32))
    before, after = torch_q(net, [state])[0], torch_q(net, [other])[0]
    assert np.abs(before - after)[: 4 * PER_STEM].max() > 1e-4


@pytest.mark.parametrize(("pool", "use_gains"), VARIANTS)
def test_the_q_value_of_one_move_is_the_same_alone(pool, use_gains):
    """Every legal action of states of four sizes, one at a time; and the gradient is the same."""
    net = network(8, use_gains, pool=pool)
    batch = batch_of(collate([made_up(*shape, 3) for shape in SHAPES]))
    q = net(batch)
    legal = [row.nonzero()[:, 0] for row in batch.mask]
    rng = np.random.default_rng(0)
    for _ in range(40):
        actions = torch.stack([row[int(rng.integers(len(row)))] for row in legal])
        torch.testing.assert_close(net.chosen(batch, actions), q.gather(1, actions[:, None])[:, 0])
    for last in (1, 2, 3, 4, 5, 10, 28):  # tempo, stop, groups
        actions = torch.full((4,), q.shape[1] - last)
        torch.testing.assert_close(net.chosen(batch, actions), q.gather(1, actions[:, None])[:, 0])
    actions = torch.stack([row[0] for row in legal])
    grads = []
    for values in (net.chosen(batch, actions), net(batch).gather(1, actions[:, None])[:, 0]):
        net.zero_grad()
        values.square().sum().backward()
        grads.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
    for name, grad in grads[1].items():
        torch.testing.assert_close(grads[0][name], grad, rtol=1e-3, atol=1e-4)


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
    assert net.policy({}).act(state) == int(np.where(state.mask, state.gains, -np.inf).argmax())


# ---- policy files ------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "policy.safetensors"
    policy = network(6, pool="mean").policy({"command": "mixrl train", "seed": "6"})
    policy.save(path)
    return path, policy


def test_a_policy_file_round_trip(saved):
    path, policy = saved
    again = load_policy(path)
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode  # others may read it as they may any file
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
    assert "anew" in message or "train it again" in message
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
    damaged(name, change)(policy).save(path)
    refused(path, name)


def test_a_missing_layer_is_refused_by_name(saved):
    path, policy = saved
    replace(policy, weights={k: v for k, v in policy.weights.items() if k != "head1.bias"}).save(path)
    refused(path, "head1.bias")


SIZE = {f.name: getattr(NetworkSize(width=24, pool="mean"), f.name) for f in fields(NetworkSize)}


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
        {"format": FORMAT, "size": json.dumps({**SIZE, "pool": "median"})},
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
    assert improvement_of(policy, MixEnv(small_scene, gains=policy.use_gains)) > 0.0
