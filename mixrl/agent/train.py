"""Training: episodes on broken balances of known sessions, learning by Double DQN from replay."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from mixrl.agent.dqn import Learner
from mixrl.agent.network import QNetwork, collate, padded_columns
from mixrl.agent.policy import NetworkSize, Policy, save_policy
from mixrl.agent.replay import Episode, Replay
from mixrl.env import MixEnv
from mixrl.scene import Scene
from mixrl.state import State, layout_of


@dataclass(frozen=True)
class TrainConfig:
    """moves: environment steps in all. faders_db: each episode starts from faders off by up to this much, counted as
    part of the recording. most_stems: an episode takes a random subset of at most this many. steps: moves an episode
    may take. epsilon falls linearly over the first half. One update of ``batch`` transitions every ``update_every``
    moves, once ``warm_up`` moves are stored. Validation every ``validate_every`` moves."""

    seed: int = 0
    moves: int = 24_000
    faders_db: float = 12.0
    most_stems: int = 10
    steps: int = 48
    epsilon_start: float = 0.2
    epsilon_end: float = 0.02
    update_every: int = 1
    batch: int = 128
    n_step: int = 3
    capacity: int = 20_000
    warm_up: int = 1_000
    learning_rate: float = 3e-4
    advantage_penalty: float = 0.1
    target_every: int = 500
    validate_every: int = 3_000
    validation_starts: int = 6
    width: int = 96
    use_gains: bool = True


@dataclass(frozen=True)
class Progress:
    """One row of the training log: improvement is the mean return of an episode on validation sessions
    with the greedy policy; the others are means since the last row."""

    moves: int
    updates: int
    epsilon: float
    loss: float
    episode_return: float
    improvement: float


def train(
    scenes: Sequence[Scene],
    validation: Sequence[Scene],
    config: TrainConfig,
    folder: Path,
    made_by: dict[str, str],
    report: Callable[[Progress], None] = lambda row: None,
) -> Policy:
    """Train a policy; the best one on validation is returned and kept in ``folder`` as it goes. The first row of the
    log is the untrained network, which with one-step gains is greedy search: what training has to beat.

    Writes ``log.csv``, ``policy.safetensors`` (best so far) and ``learning_curve.png``. Reproducible on one machine
    from the scenes, config and seed: it runs in one thread.
    """
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    network = QNetwork(NetworkSize(width=config.width, use_gains=config.use_gains))
    learner = Learner(network, config.learning_rate, config.target_every, config.advantage_penalty)
    replay = Replay(config.capacity, config.n_step)
    starts = [
        broken(scene, config, np.random.default_rng([i, k]))  # the same for every seed, so that runs compare
        for i, scene in enumerate(validation)
        for k in range(config.validation_starts)
    ]
    rows: list[Progress] = []
    best = -np.inf
    policy = learner.online.policy(made_by)
    losses: list[float] = []
    returns: list[float] = []
    done = updates_due = 0
    next_validation = 0
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        if done >= next_validation or done >= config.moves:
            next_validation += config.validate_every
            now = learner.online.policy(made_by)
            improvement = float(np.mean([improvement_of(now, env) for env in starts]))
            rows.append(
                Progress(done, learner.updates, _epsilon(config, done), _mean(losses), _mean(returns), improvement)
            )
            report(rows[-1])
            losses.clear()
            returns.clear()
            if improvement > best and done > 0:  # a network that has not learned is no candidate
                best, policy = improvement, now
                save_policy(policy, folder / "policy.safetensors")
            _write_log(rows, folder)
            if done >= config.moves:
                return policy
        scene = scenes[int(rng.integers(len(scenes)))]
        episode = play(learner.online, broken(scene, config, rng), _epsilon(config, done), rng)
        replay.add(episode)
        done += len(episode.actions)
        returns.append(sum(episode.rewards))
        if done >= config.warm_up:
            updates_due += len(episode.actions)
            while updates_due >= config.update_every:
                updates_due -= config.update_every
                losses.append(learner.update(replay.sample(config.batch, rng)))


def broken(scene: Scene, config: TrainConfig, rng: np.random.Generator) -> MixEnv:
    """An environment on a random subset of a session's stems with random faders baked in."""
    heard = np.flatnonzero(scene.facts.audible)
    most = min(config.most_stems, len(heard))
    count = int(rng.integers(min(3, most), most + 1))
    stems = np.sort(rng.choice(heard, count, replace=False))
    faders = rng.uniform(-config.faders_db, config.faders_db, count)
    return MixEnv(scene.subset(stems.tolist(), faders.tolist()), steps=config.steps)


def play(network: QNetwork, env: MixEnv, epsilon: float, rng: np.random.Generator) -> Episode:
    """One episode, epsilon-greedy over the legal moves."""
    env.reset()
    states: list[State] = [env.state]
    actions: list[int] = []
    rewards: list[float] = []
    while True:
        if rng.random() < epsilon:
            action = int(rng.choice(np.flatnonzero(env.state.mask)))
        else:
            action = greedy(network, env.state)
        _, reward, terminated, truncated, _ = env.step(action)
        states.append(env.state)
        actions.append(action)
        rewards.append(float(reward))
        if terminated or truncated:
            return Episode(tuple(states), tuple(actions), tuple(rewards))


def greedy(network: QNetwork, state: State) -> int:
    """The legal action with the highest Q-value."""
    layout = layout_of(state)
    with torch.no_grad():
        q = network(collate([state]))[0].numpy()
    q = q[padded_columns(layout.stems, layout.groups, layout.stems, layout.groups)]
    return int(np.where(state.mask, q, -np.inf).argmax())


def improvement_of(policy: Policy, env: MixEnv) -> float:
    """The policy's return in one episode, up to the best mix on its way: what the mixer would keep."""
    env.reset()
    total = best = 0.0
    while True:
        _, reward, terminated, truncated, _ = env.step(policy.act(env.state))
        total += reward
        best = max(best, total)
        if terminated or truncated:
            return best


def _epsilon(config: TrainConfig, done: int) -> float:
    part = min(done / max(config.moves / 2, 1), 1.0)
    return config.epsilon_start + part * (config.epsilon_end - config.epsilon_start)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _write_log(rows: Sequence[Progress], folder: Path) -> None:
    with (folder / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.plot([row.moves for row in rows], [row.improvement for row in rows], marker="o")
    axes.set(xlabel="moves", ylabel="score improvement, validation", title="Learning curve")
    axes.grid(alpha=0.3)
    figure.savefig(folder / "learning_curve.png", dpi=120, bbox_inches="tight")
    pyplot.close(figure)
