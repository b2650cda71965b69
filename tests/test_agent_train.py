"""Training of all kinds, on faders in miniature: it learns, it can be repeated, interrupted and continued exactly."""

from __future__ import annotations

import csv
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from faders import FaderEnvs, Faders, starts

from mixrl.agent.checkpoint import load_checkpoint, save_checkpoint
from mixrl.agent.config import TrainConfig
from mixrl.agent.dqn import DqnLearner
from mixrl.agent.events import Events
from mixrl.agent.network import batch_of
from mixrl.agent.policy import GAIN_SCALE, load_policy
from mixrl.agent.pqn import PqnLearner
from mixrl.agent.replay import Transitions
from mixrl.agent.tabular import CELLS, MOVES, TableLearner, cells, load_table
from mixrl.agent.train import BEST, CHECKPOINT, CURVE, LOG, improvement_of, learner_of, train
from mixrl.errors import InputError
from mixrl.moves import STEM_MOVES, Layout
from mixrl.state import MIX_FEATURES, STEM_FEATURES

SMALL = {
    "envs": 8, "restart_every": 32, "validate_every": 500, "width": 16, "learning_rate": 1e-3, "capacity": 1200,
    "warm_up": 100, "batch": 32, "update_every": 8, "rollout": 8, "minibatches": 4, "target_rate": 0.02, "seed": 3,
}  # fmt: skip
KINDS = [("dqn", True), ("pqn", False), ("tabular", False)]


def small(algorithm: str = "dqn", use_gains: bool = True, **changes) -> TrainConfig:
    return TrainConfig.of(algorithm, use_gains, **{**SMALL, **changes})


def run(config: TrainConfig, folder, **more):
    envs = FaderEnvs(config.envs, config.use_gains)
    return train(config, envs, starts(2, config.use_gains), folder, {"command": "test"}, **more)


def log_of(folder) -> list[dict[str, float]]:
    """The log without what the clock says."""
    with (folder / LOG).open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [{name: value for name, value in row.items() if name[-2:] != "_s" and name != "seconds"} for row in rows]


def same(one, other) -> bool:
    return all(np.array_equal(value, other.weights[name]) for name, value in one.weights.items())


# ---- learners ----------------------------------------------------------------------------------------------------


def chain(move: int, reward: float, done: bool) -> Transitions:
    """A transition of one state, a mix of three stems, to another where only stop and the first stem's first fader
    are legal."""
    now, later = Faders(np.array([4.0, -3.0, 9.0])), Faders(np.array([-8.0, 2.0, 1.0]))
    from mixrl.vector import padded

    before, after = padded([now.state], 4, 1), padded([later.state], 4, 1)
    stop = after["mask"].shape[1] - 4
    after["mask"][:] = False
    after["mask"][:, [0, stop]] = True
    return Transitions(
        before, np.array([move]), np.array([[reward]], np.float32), np.array([[float(not done)]], np.float32), after
    )


def test_dqn_targets_by_hand():
    """Online chooses among the legal, target values it; nothing follows an end."""
    learner = DqnLearner(small(use_gains=False))
    legal = 0
    with torch.no_grad():
        learner.target.layers["value_head"].bias[:] = 0.0625
        learner.online.layers["stem_reward"].bias[legal] = 0.5 * GAIN_SCALE
        learner.target.layers["stem_reward"].bias[legal] = 0.25 * GAIN_SCALE
        learner.target.layers["stem_reward"].bias[legal + 1] = 9.0 * GAIN_SCALE  # the best of all, and illegal
    assert learner.targets(chain(5, 0.125, False)).tolist() == [0.4375]
    assert learner.targets(chain(5, 0.125, True)).tolist() == [0.125]
    with torch.no_grad():
        learner.online.layers["stem_reward"].bias[legal] = -0.5 * GAIN_SCALE  # now stop looks best, worth nothing
    assert learner.targets(chain(5, 0.125, False)).tolist() == [0.125]
    single = DqnLearner(small(use_gains=False, double=False))
    single.target.load_state_dict(learner.target.state_dict())
    single.online.load_state_dict(learner.online.state_dict())
    assert single.targets(chain(5, 0.125, False)).tolist() == [0.4375]


def test_a_network_without_one_step_gains_learns_to_predict_them():
    """From the states whose rewards are known; one whose rewards are not is only pulled at by its own move."""
    learner = DqnLearner(small(use_gains=False, learning_rate=1e-2))
    transitions = chain(2, 0.05, True)
    legal = np.flatnonzero(transitions.now["mask"][0, :-4])
    known = np.where(np.arange(len(legal)) % 2, -0.02, 0.05).astype(np.float32)
    transitions.now["gains"][0, legal] = known
    for _ in range(200):
        learner.update(transitions)
    rewards = learner.online.judged(batch_of(transitions.now)).rewards
    assert rewards[0, legal].detach().numpy() == pytest.approx(known, abs=0.01)
    assert learner.online.policy({}).act(Faders(np.array([4.0, -3.0, 9.0])).state) in legal[known > 0.0]


def test_advantages_that_nothing_teaches_fade():
    """Else the best of hundreds of Q-values would be that of the luckiest; what all moves share goes into the value."""
    learner = DqnLearner(small(use_gains=False, learning_rate=1e-2))
    transitions = chain(2, 0.5, True)
    transitions.now["gains"][:] = 0.0  # not known
    with torch.no_grad():
        learner.online.layers["stem_head"].bias.copy_(torch.linspace(-1.0, 1.0, MOVES))
    for _ in range(300):
        learner.update(transitions)
    found = learner.online.judged(batch_of(transitions.now))
    legal = batch_of(transitions.now).mask[0, :-4]
    assert found.advantages[0, :-4][legal].abs().max().item() < 0.1
    assert found.q[0, 2].item() == pytest.approx(0.5, abs=0.05)


def test_an_update_reaches_the_move_and_the_target_network_follows_slowly():
    learner = DqnLearner(small(use_gains=False, learning_rate=1e-2, target_rate=0.1))
    start = {name: value.clone() for name, value in learner.online.state_dict().items()}
    transitions = chain(2, 1.0, True)
    transitions.now["gains"][:] = 0.0  # not known
    first = learner.update(transitions)
    for name, value in learner.target.state_dict().items():
        torch.testing.assert_close(value, start[name].lerp(learner.online.state_dict()[name], 0.1))
    for _ in range(60):
        last = learner.update(transitions)
    assert first == pytest.approx(1.0, abs=0.03)
    assert last < 0.01
    policy = learner.online.policy({})
    state = Faders(np.array([4.0, -3.0, 9.0])).state
    assert policy.q_values(replace(state, mask=np.ones_like(state.mask)))[2] == pytest.approx(1.0, abs=0.1)


def test_pqn_learns_from_lambda_returns():
    """With a network that says the same everywhere and lambda 1, what PQN is taught are the sums of the rewards that
    follow in the rollout, up to the end of the episode."""
    config = small("pqn", False, envs=2, rollout=4, lambda_=1.0, discount=1.0)
    learner = PqnLearner(config)
    with torch.no_grad():
        learner.network.layers["value_head"].bias[:] = 0.25
    taught = []
    learner._learn = lambda states, moves, returns: taught.append((moves.tolist(), returns.tolist())) or []
    envs = FaderEnvs(2, False)
    state, _ = envs.reset(seed=0)
    for t in range(4):
        learner.act(state)
        rewards, done = np.array([2.0**t, 1.0]), np.array([t == 1, False])
        learner.step(state, np.array([t, 10 + t]), rewards, done, state)
    ((moves, returns),) = taught
    assert moves == [0, 10, 1, 11, 2, 12, 3, 13]
    after = np.array([0, 1, 0, 1, 1, 1, 1, 1]) * 0.25
    assert returns == pytest.approx(np.array([3.0, 4.0, 2.0, 3.0, 12.0, 2.0, 8.0, 1.0]) + after)


def test_the_table_by_hand():
    """One move on one stem: a part of the way to the reward and what can still be done for that stem."""
    learner = TableLearner(small("tabular", table_rate=0.5, table_discount=0.5, envs=1))
    envs = FaderEnvs(1, False)
    state, _ = envs.reset(seed=1)
    at = cells(state["stems"], state["mix"])[0]
    learner.q[at[1], 3] = 0.25
    move = 1 * MOVES + 2
    learner.step(state, np.array([move]), np.array([1.0]), np.array([False]), state)
    assert learner.q[at[1], 2] == pytest.approx(0.5 * (1.0 + 0.5 * 0.25))
    learner.step(state, np.array([move]), np.array([1.0]), np.array([True]), state)
    assert learner.q[at[1], 2] == pytest.approx(0.5625 + 0.5 * (1.0 - 0.5625))
    assert np.count_nonzero(learner.q) == 2
    stop = state["mask"].shape[1] - 4
    learner.step(state, np.array([stop]), np.array([0.0]), np.array([True]), state)
    assert np.count_nonzero(learner.q) == 2


def test_cells_tell_apart_what_they_should():
    """Level, audibility, position and the band that is off each change the cell; all cells are in the table."""
    rng = np.random.default_rng(0)
    stems = rng.normal(size=(5000, 1, STEM_FEATURES))
    found = cells(stems, rng.normal(size=(5000, MIX_FEATURES)))
    assert found.min() >= 0
    assert found.max() < CELLS
    assert len(np.unique(found)) > CELLS // 2
    plain, mix = np.zeros((1, STEM_FEATURES)), np.zeros(MIX_FEATURES)
    plain[0, -10:] = -1.0
    seen = {int(cells(plain, mix)[0])}
    for column, value in ((4, 0.5), (4, -1.0), (7, -2.0), (8, 0.3)):
        other = plain.copy()
        other[0, column] = value
        seen.add(int(cells(other, mix)[0]))
    assert len(seen) == 5
    loud = mix.copy()
    loud[9:15] = 0.5  # 160 to 500 Hz, 5 dB too strong
    assert int(cells(plain, loud)[0]) in seen  # a stem with no part in it
    plain[0, -7:-5] = -0.1
    seen |= {int(cells(plain, loud)[0]), int(cells(plain, -loud)[0])}
    assert len(seen) == 7


# ---- runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "moves", "least"), [("dqn", 2400, 0.3), ("pqn", 4000, 0.2), ("tabular", 3000, 0.3)]
)
def test_training_without_one_step_gains_learns(tmp_path, algorithm, moves, least):
    config = small(algorithm, False, moves=moves, epsilon_power=2.0, update_every=6, validate_every=800)
    policy = run(config, tmp_path)
    rows = log_of(tmp_path)
    assert rows[0]["improvement"] < 0.2
    found = np.mean([improvement_of(policy, start()) for mixes in starts(6, False, 7).values() for start in mixes])
    assert found > least
    assert rows[-1]["episode_return"] > rows[1]["episode_return"] + 0.1


def test_one_step_gains_begin_as_greedy_search_and_training_keeps_them(tmp_path):
    run(small(moves=2500), tmp_path)
    rows = log_of(tmp_path)
    greedy = []
    for mixes in starts(2).values():
        for make in mixes:
            mix = make()
            before = mix.score
            for _ in range(mix.steps):
                mix.step(int(np.where(mix.state.mask, mix.state.gains, -np.inf).argmax()))
            greedy.append(mix.score - before)
    assert rows[0]["improvement"] == pytest.approx(np.mean(greedy), abs=0.01)
    assert rows[-1]["improvement"] > 0.9 * rows[0]["improvement"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Straight runs, with the policies they gave."""
    made = {}
    for algorithm, gains in KINDS:
        folder = tmp_path_factory.mktemp(algorithm)
        made[algorithm, gains] = folder, run(small(algorithm, gains, moves=1024), folder)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_in_two_parts_is_the_same_to_the_last_bit(finished, tmp_path, kind):
    """Straight against stopped halfway: the same policy, log and, at the end, the same of everything."""
    folder, policy = finished[kind]
    run(small(*kind, moves=512), tmp_path)
    assert load_checkpoint(tmp_path / CHECKPOINT)[1]["moves"] == 512
    again = run(small(*kind, moves=1024), tmp_path, resume=True)
    assert same(again, policy)
    assert again.made_by == policy.made_by
    assert log_of(tmp_path) == log_of(folder)
    one, about = load_checkpoint(folder / CHECKPOINT)
    two, about_two = load_checkpoint(tmp_path / CHECKPOINT)
    assert set(one) == set(two)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert about["learner"] == about_two["learner"]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_an_interrupted_run_goes_on_from_its_checkpoint(finished, tmp_path, kind):
    """Killed somewhere between two checkpoints: what came after the last one is done again."""
    folder, policy = finished[kind]

    def kill(moves, row):
        if moves > 700:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small(*kind, moves=1024), tmp_path, report=kill, checkpoint_minutes=0.0)
    _, about = load_checkpoint(tmp_path / CHECKPOINT)
    assert about["moves"] == 512
    again = run(small(*kind, moves=1024), tmp_path, resume=True)
    assert same(again, policy)
    assert log_of(tmp_path) == log_of(folder)


def test_the_same_command_gives_the_same_run_and_another_seed_another(finished, tmp_path):
    folder, policy = finished["dqn", True]
    again = run(small(moves=1024), tmp_path / "again")
    assert same(again, policy)
    assert log_of(tmp_path / "again") == log_of(folder)
    assert not same(run(small(moves=1024, seed=4), tmp_path / "other"), policy)


def test_a_time_limit_ends_a_run_that_its_moves_repeat(tmp_path):
    """The clock stands still but for 7 s a look: the run ends between restarts, and says how many moves it made."""
    ticks = iter(range(0, 10**9, 7))
    policy = run(small(moves=10**6), tmp_path / "timed", minutes=60.0, clock=lambda: float(next(ticks)))
    moves = int(policy.made_by["moves"])
    assert 100 < moves < 2000
    assert moves % (8 * 32)
    repeated = run(small(moves=moves), tmp_path / "counted")
    assert same(repeated, policy)
    assert repeated.made_by == policy.made_by
    assert log_of(tmp_path / "timed") == log_of(tmp_path / "counted")


def test_a_run_leaves_logs_a_picture_and_the_best_policy(finished):
    folder, policy = finished["dqn", True]
    rows = log_of(folder)
    assert [int(row["moves"]) for row in rows] == [0, 504, 1000, 1024]
    assert rows[-1]["updates"] == np.ceil((1024 - 100) / 8)
    assert rows[-1]["loss"] > 0.0
    assert rows[-1]["episodes"] >= 1024 // 32 * 2  # two of 12 moves between restarts
    for row in rows:
        assert row["improvement"] == pytest.approx((row["improvement three"] + row["improvement four"]) / 2)
    assert (folder / CURVE).read_bytes().startswith(b"\x89PNG")
    kept = load_policy(folder / BEST)
    assert same(kept, policy)
    best = max(rows[1:], key=lambda row: row["improvement"])
    assert policy.made_by == {"command": "test", "best_at": str(int(best["moves"])), "moves": "1024"}
    found = [improvement_of(policy, start()) for mixes in starts(2).values() for start in mixes]
    assert np.mean(found) == pytest.approx(best["improvement"], abs=1e-6)
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert not list(folder.glob("*.part*"))


def test_tables_are_saved_and_others_refused(finished, tmp_path):
    folder, policy = finished["tabular", False]
    again = load_table(folder / BEST)
    assert same(again, policy)
    state = Faders(np.array([9.0, -7.0, 0.0]), gains=False).state
    assert again.act(state) == policy.act(state)
    assert again.q_values(state)[Layout(3, 1).mix_start] == 0.0
    with pytest.raises(InputError, match="format mixrl-policy") as caught:
        load_policy(folder / BEST)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="not a table"):
        load_table(finished["dqn", True][0] / BEST)
    with pytest.raises(InputError, match="nowhere"):
        load_table(tmp_path / "nowhere")


def test_what_cannot_be_resumed_is_refused(finished, tmp_path):
    folder, _ = finished["pqn", False]
    with pytest.raises(InputError, match="no checkpoint"):
        run(small(), tmp_path, resume=True)
    with pytest.raises(InputError, match="other learning_rate"):
        run(small("pqn", False, learning_rate=1e-4), folder, resume=True)
    with pytest.raises(InputError, match="other tasks"):
        run(small("pqn", False), folder, resume=True, tasks="others")
    (tmp_path / CHECKPOINT).write_bytes(b"rubbish")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        run(small(), tmp_path, resume=True)
    with pytest.raises(InputError, match="no such algorithm"):
        small("sarsa")
    with pytest.raises(InputError, match="no such pool"):
        small(pool="median")
    with pytest.raises(InputError, match="rollout"):
        small("pqn", rollout=7)


def test_a_checkpoint_round_trip(tmp_path):
    path = tmp_path / "c.safetensors"
    arrays = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array(True), "c": np.zeros((0, 2), np.uint8)}
    about = {"rng": np.random.default_rng(1).bit_generator.state, "best": None, "rows": [{"x": 0.1}]}
    save_checkpoint(path, arrays, about)
    again, said = load_checkpoint(path)
    assert said == about
    for name, value in arrays.items():
        assert again[name].dtype == value.dtype
        np.testing.assert_array_equal(again[name], value)


def test_learners_have_no_moves_that_are_illegal():
    """On states where next to nothing is legal, whatever the chance of a random move."""
    for algorithm, gains in KINDS:
        learner = learner_of(small(algorithm, gains, epsilon=0.9, epsilon_power=1.0))
        state, _ = FaderEnvs(8, gains).reset(seed=0)
        rng = np.random.default_rng(0)
        stop = state["mask"].shape[1] - 4
        for _ in range(20):
            state["mask"] = rng.random(state["mask"].shape) < 0.02
            state["mask"][:, : len(STEM_MOVES)] &= rng.random((8, 1)) < 0.5
            state["mask"][:, stop] = True
            actions = learner.act(state)
            assert state["mask"][np.arange(8), actions].all()


# ---- TensorBoard -------------------------------------------------------------------------------------------------


def crc32c(data: bytes) -> int:
    """CRC-32C, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_events_are_records_as_tensorboard_reads_them(tmp_path):
    events = Events(tmp_path)
    events.write(0, {"loss": 0.5})
    events.write(300, {"loss": 0.25, "improvement": -1.5})
    (path,) = tmp_path.iterdir()
    data, messages = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12])[0] == crc32c(data[:8])
        messages.append(data[12 : 12 + size])
        assert struct.unpack("<I", data[12 + size : 16 + size])[0] == crc32c(messages[-1])
        data = data[16 + size :]
    assert crc32c(b"123456789") == (((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF)
    assert len(messages) == 3
    assert b"brain.Event:2" in messages[0]
    # step 300 as a varint; two values, each a tag and a float
    assert messages[2][9:12] == b"\x10\xac\x02"
    assert b"\x0a\x04loss\x15" + struct.pack("<f", 0.25) in messages[2]
    assert b"\x0a\x0bimprovement\x15" + struct.pack("<f", -1.5) in messages[2]


def test_tensorboard_reads_the_events(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    events = Events(tmp_path)
    for step in range(3):
        events.write(step * 1000, {"loss": 0.5 * step})
    read = accumulator.EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss")] == [(0, 0.0), (1000, 0.5), (2000, 1.0)]
