"""Targets, losses, replay and exploration, against arrays worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixrl.agent import targets
from mixrl.agent.exploration import epsilons, explore
from mixrl.agent.replay import Replay

ONLINE = torch.tensor([[1.0, 9.0, 2.0], [5.0, 1.0, 0.0], [3.0, 2.0, 1.0], [0.0, -1.0, -4.0]])
TARGET = torch.tensor([[10.0, 20.0, 30.0], [-7.0, 50.0, 60.0], [70.0, 80.0, 90.0], [1.0, 2.0, 3.0]])
MASK = torch.tensor([[True, False, True], [True, True, True], [False, False, False], [False, True, True]])


def test_double_q_by_hand():
    """The online network chooses among the legal and the target network values it. 1: move 1 is illegal, so 2, worth
    30. 2: move 0, worth -7 although the target likes others. 4: the best that is legal is negative."""
    best = targets.best_move(ONLINE, MASK)
    assert best[[0, 1, 3]].tolist() == [2, 0, 1]
    assert TARGET.gather(1, best[:, None])[[0, 1, 3], 0].tolist() == [30.0, -7.0, 2.0]
    assert targets.best_value(TARGET, MASK).tolist() == [30.0, 60.0, 0.0, 3.0]
    assert targets.best_value(ONLINE, MASK).tolist() == [2.0, 5.0, 0.0, -1.0]


def test_n_step_by_hand():
    """Three rewards of three streams: nothing ends; the second ends it; a cut after the first."""
    r = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 0.0], [4.0, 4.0, 0.0]])
    d = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    total, discount = targets.n_step(r, d)
    assert total.tolist() == [7.0, 3.0, 1.0]
    assert discount.tolist() == [1.0, 0.0, 1.0]
    total, discount = targets.n_step(torch.tensor([[1.0], [1.0], [1.0]]), torch.full((3, 1), 0.5))
    assert (total.item(), discount.item()) == (1.75, 0.125)
    total, discount = targets.n_step(r[:1], d[:1])
    assert total.tolist() == [1.0, 1.0, 1.0]


def test_lambda_returns_by_hand():
    """Two streams of three rewards; in the second the episode ends with the second reward."""
    r = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    d = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    v = torch.tensor([[10.0, 10.0], [20.0, 20.0], [30.0, 30.0]])
    # from the back, lambda 0.5: 3 + 30; 2 + (20 + 33) / 2; 1 + (10 + 28.5) / 2
    expected = [[20.25, 7.0], [28.5, 2.0], [33.0, 33.0]]
    assert targets.lambda_returns(r, d, v, 0.5).tolist() == expected
    # 0: one step; 1: all the rewards until the end, then the last value
    assert targets.lambda_returns(r, d, v, 0.0).tolist() == [[11.0, 11.0], [22.0, 2.0], [33.0, 33.0]]
    assert targets.lambda_returns(r, d, v, 1.0).tolist() == [[36.0, 3.0], [35.0, 2.0], [33.0, 33.0]]


def test_the_loss_by_hand():
    q = torch.tensor([1.0, 2.0], requires_grad=True)
    wanted = torch.tensor([0.0, 5.0], requires_grad=True)
    loss = targets.squared_error(q, wanted)
    assert loss.item() == 5.0
    loss.backward()
    assert q.grad.tolist() == [1.0, -3.0]
    assert wanted.grad is None


def test_shapes_are_checked():
    q, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    for call in (
        lambda: targets.best_value(q, mask[:, :2]),
        lambda: targets.best_value(q, mask.float()),
        lambda: targets.best_move(q[:1], mask),
        lambda: targets.best_move(q, mask.float()),
        lambda: targets.n_step(q[0], q[0]),
        lambda: targets.lambda_returns(q, q, q[:1], 0.5),
        lambda: targets.squared_error(q[:, 0], q),
    ):
        with pytest.raises(AssertionError):
            call()


# ---- replay ------------------------------------------------------------------------------------------------------

ENVS, ACTIONS = 2, 9


def state(step: int) -> dict[str, np.ndarray]:
    """A state of two environments that says which step and environment it is of."""
    mark = np.array([step, 100 + step], dtype=np.float32)
    return {
        "stems": np.broadcast_to(mark[:, None, None], (ENVS, 3, 2)), "groups": np.zeros((ENVS, 1, 2), np.float32),
        "mix": mark[:, None], "present": np.array([[True, True, False], [True, True, True]]),
        "members": np.zeros((ENVS, 3), np.int64), "gains": np.tile(mark[:, None] / 8.0, (1, ACTIONS)),
        "mask": np.arange(ACTIONS) % (2 + np.arange(ENVS)[:, None]) == 0,
    }  # fmt: skip


def filled(replay: Replay, steps: int, ends: tuple[tuple[int, int], ...] = (), cuts: tuple[int, ...] = ()) -> Replay:
    """Steps 0, 1, ...: the reward of step t is 2 ** (t % 9), in environment 1 its negative; some end, some are cut."""
    for t in range(steps):
        if t in cuts:
            replay.cut(state(t))
        else:
            done = np.array([(t, env) in ends for env in range(ENVS)])
            replay.add(state(t), np.array([t % 7, t % 5]), 2.0 ** (t % 9) * np.array([1.0, -1.0]), done)
    return replay


def by_start(replay: Replay) -> dict[tuple[int, int], tuple]:
    """Every transition that comes up, by step and environment: action, rewards, discounts, step that it leads to."""
    found = replay.sample(600, np.random.default_rng(0))
    rows = {}
    for k in range(600):
        mark = int(found.now["mix"][k, 0])
        later = int(found.later["mix"][k, 0])
        env = mark // 100
        row = (int(found.a_tm1[k]), found.r_t[:, k].tolist(), found.discount_t[:, k].tolist(), later % 100)
        assert rows.setdefault((mark % 100, env), row) == row
        assert later // 100 == env
    return rows


def test_transitions_across_ends_and_cuts_by_hand():
    """Eight steps, an end at 2 in environment 1 only, a cut at 5."""
    replay = filled(Replay(100, ENVS, 3), 9, ends=((2, 1),), cuts=(5,))
    rows = by_start(replay)
    # starts: 0 to 4; 5 is the cut; 6 to 8 have not three steps behind them yet
    assert set(rows) == {(t, env) for t in range(5) for env in range(ENVS)}
    assert rows[0, 0] == (0, [1.0, 2.0, 4.0], [1.0, 1.0, 1.0], 3)
    assert rows[0, 1][1:3] == ([-1.0, -2.0, -4.0], [1.0, 1.0, 0.0])
    assert rows[1, 1][1:3] == ([-2.0, -4.0, -8.0], [1.0, 0.0, 1.0])
    assert rows[2, 1][2][0] == 0.0
    assert rows[3, 0] == (3, [8.0, 16.0, 0.0], [1.0, 1.0, 1.0], 5)
    assert rows[4, 0] == (4, [16.0, 0.0, 0.0], [1.0, 1.0, 1.0], 5)
    assert rows[4, 1][0] == 4
    # what these come to
    picked = replay.sample(600, np.random.default_rng(0))
    total, discount = targets.n_step(torch.from_numpy(picked.r_t), torch.from_numpy(picked.discount_t))
    for start, expected in ((0.0, (7.0, 1.0)), (101.0, (-6.0, 0.0)), (104.0, (-16.0, 1.0))):
        k = int(np.flatnonzero(picked.now["mix"][:, 0] == start)[0])
        assert (total[k].item(), discount[k].item()) == expected


def test_what_is_stored_comes_back():
    replay = filled(Replay(100, ENVS, 1), 6)
    found = replay.sample(50, np.random.default_rng(1))
    for k in range(50):
        mark = int(found.now["mix"][k, 0])
        expected = state(mark % 100)
        for name, values in expected.items():
            np.testing.assert_array_equal(found.now[name][k], values[mark // 100], err_msg=name)


def test_the_mean_square_is_of_legal_moves():
    values = torch.tensor([[1.0, 2.0, 5.0], [3.0, 7.0, 7.0]], requires_grad=True)
    legal = torch.tensor([[True, True, False], [True, False, False]])
    found = targets.mean_square(values, legal)
    assert found.item() == pytest.approx((1.0 + 4.0 + 9.0) / 3.0)
    found.backward()
    assert values.grad.tolist() == [[pytest.approx(2.0 / 3.0), pytest.approx(4.0 / 3.0), 0.0], [2.0, 0.0, 0.0]]
    assert targets.mean_square(values, torch.zeros_like(legal)).item() == 0.0


def test_the_error_of_predicted_rewards_by_hand():
    """Over the legal moves of states whose rewards are known; all very bad moves count alike."""
    exact = torch.tensor([[0.1, -0.5, -0.05, 0.3], [0.0, 0.0, 0.0, 0.0]])
    said = torch.tensor([[0.2, -0.3, -0.25, 9.0], [5.0, 5.0, 5.0, 5.0]], requires_grad=True)
    legal = torch.tensor([[True, True, True, False], [True, True, True, True]])
    error = targets.reward_error(said, exact, legal)
    assert error.item() == pytest.approx((0.1**2 + 0.0 + 0.2**2) / 3)
    error.backward()
    assert said.grad[0].tolist() == pytest.approx([0.2 / 3, 0.0, -0.4 / 3, 0.0])
    assert (said.grad[1] == 0.0).all()


def test_replay_forgets_the_oldest_and_samples_alike():
    replay = filled(Replay(20, ENVS, 2), 25)
    assert replay.length == 10
    assert len(replay) == 8 * ENVS
    found = replay.sample(4000, np.random.default_rng(0))
    starts, counts = np.unique(found.now["mix"][:, 0], return_counts=True)
    assert starts.tolist() == [*range(15, 23), *range(115, 123)]
    assert counts.min() > 180
    assert counts.max() < 330


def test_replay_takes_its_memory_at_once_and_no_more():
    replay = filled(Replay(1000, ENVS, 2), 1)
    taken = replay.nbytes
    filled(replay, 1200)
    assert replay.nbytes == taken


@pytest.mark.parametrize("steps", [7, 10, 23])
def test_replay_is_restored(steps):
    """Half full, just full, gone round: the same samples afterwards, and after more has been stored."""
    replay = filled(Replay(20, ENVS, 2), steps, ends=((steps - 4, 0),), cuts=(steps - 3,))
    again = Replay(20, ENVS, 2)
    again.restore(replay.state())
    for _ in range(2):
        one = replay.sample(64, np.random.default_rng(5))
        two = again.sample(64, np.random.default_rng(5))
        for a, b in ((one.now, two.now), (one.later, two.later)):
            assert all(np.array_equal(a[name], b[name]) for name in a)
        assert np.array_equal(one.r_t, two.r_t)
        assert np.array_equal(one.discount_t, two.discount_t)
        assert np.array_equal(one.a_tm1, two.a_tm1)
        for one_of in (replay, again):
            filled(one_of, 4)


# ---- exploration -------------------------------------------------------------------------------------------------


def test_environments_explore_in_different_degrees():
    assert epsilons(3, 0.4, 2.0) == pytest.approx([0.4, 0.16, 0.064])
    assert epsilons(1, 0.4, 7.0) == pytest.approx([0.4])


def test_exploration_is_legal_even_and_as_often_as_it_should_be():
    rng = np.random.default_rng(0)
    mask = np.zeros((2, 50), dtype=bool)
    mask[0, [3, 10, 49]] = True
    mask[1, ::2] = True
    best = np.array([10, 4])
    picks = np.stack([explore(best, mask, np.array([1.0, 0.2]), rng) for _ in range(3000)])
    values, counts = np.unique(picks[:, 0], return_counts=True)
    assert values.tolist() == [3, 10, 49]
    assert counts.min() > 900
    assert (picks[:, 1] % 2 == 0).all()
    assert (picks[:, 1] != 4).mean() == pytest.approx(0.2 * 24 / 25, abs=0.03)
    assert (explore(best, mask, np.zeros(2), rng) == best).all()
