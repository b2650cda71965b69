"""Training: one loop for Double DQN, PQN and the table, on environments in parallel.

The loop is the same to the last bit for the same tasks, configuration and seed on one machine; it runs in one thread.
Every ``restart_every`` steps the environments are restarted from a seed that only depends on the run's seed and on how
often that has happened. There a run can be saved and continued exactly: nothing is under way inside an environment.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mixrl.agent.checkpoint import load_checkpoint, save_checkpoint, under
from mixrl.agent.config import TrainConfig
from mixrl.agent.events import Events
from mixrl.audio import atomic_path
from mixrl.errors import InputError

if TYPE_CHECKING:
    from mixrl.agent.network import Observation
    from mixrl.agent.policy import Policy
    from mixrl.agent.tabular import TablePolicy
    from mixrl.state import State

Array = NDArray[Any]
CHECKPOINT, LOG, CURVE, BEST = "checkpoint.safetensors", "log.csv", "learning_curve.png", "policy.safetensors"


class Environments(Protocol):
    """What training needs of ``vector.VectorMixEnv``: E environments that restart in the step in which they end."""

    def reset(self, *, seed: int) -> tuple[dict[str, Array], dict[str, Any]]: ...
    def step(self, actions: Array) -> tuple[dict[str, Array], Array, Array, Array, dict[str, Any]]: ...


class Start(Protocol):
    """What validation needs of ``env.MixEnv``: a mix to be improved."""

    state: State

    def reset(self) -> tuple[Any, dict[str, Any]]: ...
    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]: ...


class Actor(Protocol):
    """A policy at work."""

    def act(self, state: State) -> int: ...


class Learner(Protocol):
    """What the three algorithms have in common; see ``dqn.DqnLearner``."""

    updates: int

    def act(self, state: Observation) -> Array: ...
    def step(
        self, state: Observation, actions: Array, rewards: Array, done: Array, later: Observation
    ) -> list[float]: ...
    def cut(self, state: Observation) -> None: ...
    def policy(self, made_by: Mapping[str, str]) -> Policy | TablePolicy: ...
    def state(self) -> tuple[dict[str, Array], dict[str, Any]]: ...
    def restore(self, arrays: Mapping[str, Array], about: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Row:
    """One row of the training log. improvement: how much the policy improves the score on validation, on average over
    sessions, and sessions: for each; loss, episode_return: means since the last row. seconds: of the run so far, and
    env_s, act_s, learn_s, validate_s what they went into since the last row."""

    moves: int
    updates: int
    episodes: int
    loss: float
    episode_return: float
    improvement: float
    sessions: dict[str, float]
    seconds: float = 0.0
    env_s: float = 0.0
    act_s: float = 0.0
    learn_s: float = 0.0
    validate_s: float = 0.0

    def columns(self) -> dict[str, float]:
        """The row as it is logged: a column for each session too."""
        row = asdict(self)
        sessions = row.pop("sessions")
        return {**row, **{f"improvement {name}": value for name, value in sessions.items()}}

    def line(self) -> str:
        """The row for people."""
        spent = max(self.env_s + self.act_s + self.learn_s + self.validate_s, 1e-9)
        shares = "/".join(f"{100.0 * s / spent:.0f}" for s in (self.env_s, self.act_s, self.learn_s, self.validate_s))
        return (
            f"{self.moves:8d} moves  {self.updates:7d} updates  loss {self.loss:.5f}  "
            f"return {self.episode_return:+.3f}  validation {self.improvement:+.4f}  "
            f"time {shares}% env/act/learn/validate"
        )


def train(
    config: TrainConfig,
    environments: Environments,
    validation: Mapping[str, Sequence[Callable[[], Start]]],
    folder: Path,
    made_by: Mapping[str, str],
    *,
    tasks: str = "",
    minutes: float | None = None,
    checkpoint_minutes: float = 5.0,
    resume: bool = False,
    report: Callable[[int, Row | None], None] = lambda moves, row: None,
    clock: Callable[[], float] = time.monotonic,
) -> Policy | TablePolicy:
    """Train until ``config.moves`` are made or ``minutes`` are over; the best policy on validation is returned.

    environments: ``config.envs`` of them. validation: what makes its fixed starts, by session. tasks: a name (a hash)
    for what is trained and validated on, which a resumed run must share. report: called with the moves made, after
    every step of the environments, and with a row when there is one. The first row is the untrained policy: with
    one-step gains that is greedy search, what training has to beat; it is never the one that is returned.

    Writes into ``folder``: the log as CSV and for TensorBoard, the learning curve, the best policy so far and, every
    ``checkpoint_minutes``, a checkpoint. With ``resume`` it goes on from there as if it had never stopped. Raises
    InputError when there is no checkpoint, or one of another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(config, environments, validation, folder, made_by, tasks, report, clock)
    if resume:
        run.resume()
    run.go(np.inf if minutes is None else 60.0 * minutes, 60.0 * checkpoint_minutes)
    best = run.best_policy or run.learner.policy(made_by)
    return replace(best, made_by={**best.made_by, "moves": str(run.moves)})


def learner_of(config: TrainConfig) -> Learner:
    """A new learner."""
    if config.algorithm == "tabular":
        from mixrl.agent.tabular import TableLearner

        return TableLearner(config)
    if config.algorithm == "pqn":
        from mixrl.agent.pqn import PqnLearner

        return PqnLearner(config)
    from mixrl.agent.dqn import DqnLearner

    return DqnLearner(config)


class _Run:
    """A run under way; what of it goes into a checkpoint is in ``_save``."""

    def __init__(
        self,
        config: TrainConfig,
        environments: Environments,
        validation: Mapping[str, Sequence[Callable[[], Start]]],
        folder: Path,
        made_by: Mapping[str, str],
        tasks: str,
        report: Callable[[int, Row | None], None],
        clock: Callable[[], float],
    ) -> None:
        self.config, self.environments, self.validation = config, environments, validation
        self.folder, self.made_by, self.tasks = folder, made_by, tasks
        self.report, self.clock = report, clock
        self.learner = learner_of(config)
        self.moves = self.segment = self.episodes = 0
        self.before = 0.0  # seconds of the run before it was resumed
        self.began = clock()
        self.rows: list[Row] = []
        self.best = -np.inf
        self.best_policy: Policy | TablePolicy | None = None
        self.events = Events(folder)
        self.losses: list[float] = []
        self.returns: list[float] = []
        self.spent = {"env_s": 0.0, "act_s": 0.0, "learn_s": 0.0}

    @property
    def seconds(self) -> float:
        return self.before + self.clock() - self.began

    def go(self, most_seconds: float, save_every: float) -> None:
        """To the end of the run."""

        def over() -> bool:
            return self.moves >= self.config.moves or self.seconds >= most_seconds

        saved = self.clock()
        if not self.rows:
            self._validate()
        while not over():
            state: Observation = self.environments.reset(seed=segment_seed(self.config.seed, self.segment))[0]
            steps = 0
            while steps < self.config.restart_every and not over():
                state = self._step(state)
                steps += 1
            if steps == self.config.restart_every:
                self.learner.cut(state)
                self.segment += 1
                if over() or self.clock() - saved >= save_every:
                    self._save()
                    saved = self.clock()
        if self.rows[-1].moves != self.moves:
            self._validate()

    def _step(self, state: Observation) -> Observation:
        """One move in every environment."""
        started = self.clock()
        actions = self.learner.act(state)
        acted = self.clock()
        later, rewards, terminated, truncated, info = self.environments.step(actions)
        stepped = self.clock()
        done = terminated | truncated
        self.losses += self.learner.step(state, actions, rewards, done, later)
        for name, seconds in (
            ("act_s", acted - started), ("env_s", stepped - acted), ("learn_s", self.clock() - stepped),
        ):  # fmt: skip
            self.spent[name] += seconds
        self.moves += len(actions)
        self.episodes += int(done.sum())
        if done.any():
            self.returns += info["episode_return"][done].tolist()
        self.report(self.moves, None)
        if self.moves // self.config.validate_every > (self.moves - len(actions)) // self.config.validate_every:
            self._validate()
        return later

    def _validate(self) -> None:
        """Measure the policy, log it, and keep it if it is the best."""
        started = self.clock()
        policy = self.learner.policy({**self.made_by, "best_at": str(self.moves)})
        sessions = {
            name: float(np.mean([improvement_of(policy, start()) for start in starts]))
            for name, starts in self.validation.items()
        }
        row = Row(
            moves=self.moves, updates=self.learner.updates, episodes=self.episodes, loss=_mean(self.losses),
            episode_return=_mean(self.returns), improvement=_mean(list(sessions.values())), sessions=sessions,
            seconds=self.seconds, validate_s=self.clock() - started, **self.spent,
        )  # fmt: skip
        self.rows.append(row)
        self.losses, self.returns, self.spent = [], [], dict.fromkeys(self.spent, 0.0)
        if self.moves > 0 and row.improvement > self.best:  # a network that has not learned is no candidate
            self.best, self.best_policy = row.improvement, policy
            policy.save(self.folder / BEST)
        write_log(self.rows, self.folder / LOG)
        write_curve(self.rows, self.folder / CURVE)
        self.events.write(self.moves, row.columns())
        self.report(self.moves, row)

    def _save(self) -> None:
        arrays, about = self.learner.state()
        held = {f"learner.{name}": array for name, array in arrays.items()}
        if self.best_policy is not None:
            held |= {f"best.{name}": array for name, array in self.best_policy.weights.items()}
        save_checkpoint(
            self.folder / CHECKPOINT,
            held,
            {
                "config": asdict(self.config), "tasks": self.tasks, "learner": about, "moves": self.moves,
                "segment": self.segment, "episodes": self.episodes, "seconds": self.seconds,
                "rows": [asdict(row) for row in self.rows], "losses": self.losses, "returns": self.returns,
                "best": None if self.best_policy is None else [self.best, dict(self.best_policy.made_by)],
            },
        )  # fmt: skip

    def resume(self) -> None:
        """Back to the checkpoint in the folder."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            raise InputError(f"{path}: no checkpoint to go on from: start the run without --resume")
        arrays, about = load_checkpoint(path)
        theirs = {**about["config"], "moves": self.config.moves, "tasks": about["tasks"]}
        ours = json.loads(json.dumps({**asdict(self.config), "tasks": self.tasks}))  # as a checkpoint holds it
        for name, value in ours.items():
            if theirs.get(name) != value:
                raise InputError(f"{path}: a run with other {name}: resume it as it was, or start a new one elsewhere")
        self.learner.restore(under("learner", arrays), about["learner"])
        self.moves, self.segment, self.episodes = about["moves"], about["segment"], about["episodes"]
        self.before, self.losses, self.returns = about["seconds"], about["losses"], about["returns"]
        self.rows = [Row(**row) for row in about["rows"]]
        if about["best"] is not None:
            self.best, made_by = about["best"]
            self.best_policy = replace(self.learner.policy(made_by), weights=under("best", arrays))


def segment_seed(seed: int, segment: int) -> int:
    """What the environments are seeded with at their ``segment``-th restart."""
    return int(np.random.SeedSequence([seed, segment]).generate_state(1)[0])


def improvement_of(policy: Actor, start: Start) -> float:
    """How far the policy raises the score, and closeness to people's mix where that is known, from a start to the mix
    on its way that scores best: what the mixer would keep."""
    _, info = start.reset()
    score, before = info["score"], info["score"] + info.get("closeness", 0.0)
    worth = before
    while True:
        _, _, terminated, truncated, info = start.step(policy.act(start.state))
        if info["score"] > score:
            score, worth = info["score"], info["score"] + info.get("closeness", 0.0)
        if terminated or truncated:
            return float(worth - before)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def write_log(rows: Sequence[Row], path: Path) -> None:
    """The rows as CSV, replaced as a whole."""
    with atomic_path(path, force=True) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0].columns()))
        writer.writeheader()
        writer.writerows(row.columns() for row in rows)


def write_curve(rows: Sequence[Row], path: Path) -> None:
    """The improvement over the run as a picture: thick on average, thin for each session."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    moves = [row.moves for row in rows]
    for name in rows[0].sessions:
        axes.plot(moves, [row.sessions[name] for row in rows], color="0.8", linewidth=0.8)
    axes.plot(moves, [row.improvement for row in rows], marker="o", markersize=3)
    axes.set(xlabel="moves", ylabel="improvement of the score, validation", title="Learning curve")
    axes.grid(alpha=0.3)
    with atomic_path(path, force=True) as temporary:
        figure.savefig(temporary, dpi=120, bbox_inches="tight", format="png")
    pyplot.close(figure)
