"""PQN: Q-learning from parallel environments without replay and without a target network.

M. Gallici et al., "Simplifying deep temporal difference learning", 2024: many environments play a few steps each, and
the network, kept steady by its layer norms, goes over these steps a few times towards Q(lambda) returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mixrl.agent import targets
from mixrl.agent.checkpoint import under
from mixrl.agent.config import TrainConfig
from mixrl.agent.dqn import descend, network_of, optimizer_state, restore_optimizer
from mixrl.agent.exploration import epsilons, explore
from mixrl.agent.network import Batch, Observation, batch_of
from mixrl.agent.policy import Policy

Array = NDArray[Any]


class PqnLearner:
    """A network, and the steps of parallel environments since it last learned."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.rng = np.random.default_rng([config.seed, 1])
        self.chance = epsilons(config.envs, config.epsilon, config.epsilon_power)
        self.network = network_of(config)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, fused=True)
        self.updates = 0
        self._rollout: list[tuple[Batch, Array, Array, Array]] = []
        self._values: list[torch.Tensor] = []

    def act(self, state: Observation) -> NDArray[np.int64]:
        """(E,) the moves to make."""
        batch = batch_of(state)
        with torch.no_grad():
            q = self.network(batch)
        self._values.append(targets.best_value(q, batch.mask))
        return explore(targets.best_move(q, batch.mask).numpy(), state["mask"].astype(bool), self.chance, self.rng)

    def step(
        self, state: Observation, actions: Array, rewards: Array, done: Array, later: Observation
    ) -> list[float]:
        """Keep one step of all environments and learn if the rollout is full; returns the losses."""
        self._rollout.append((batch_of(state), actions, rewards, done))
        if len(self._rollout) < self.config.rollout:
            return []
        batch = batch_of(later)
        with torch.no_grad():
            last = targets.best_value(self.network(batch), batch.mask)
        states, moves, earned, ends = zip(*self._rollout, strict=True)
        returns = targets.lambda_returns(
            torch.from_numpy(np.stack(earned).astype(np.float32)),
            torch.from_numpy(np.where(np.stack(ends), 0.0, self.config.discount).astype(np.float32)),
            torch.stack([*self._values[1:], last]),
            self.config.lambda_,
        )
        everything = Batch(*(torch.cat(parts) for parts in zip(*states, strict=True)))
        self._rollout, self._values = [], []
        return self._learn(everything, torch.from_numpy(np.concatenate(moves)), returns.flatten())

    def _learn(self, states: Batch, a_tm1: torch.Tensor, target: torch.Tensor) -> list[float]:
        losses = []
        for _ in range(self.config.epochs):
            order = torch.from_numpy(self.rng.permutation(len(a_tm1)))
            for rows in order.chunk(self.config.minibatches):
                batch = Batch(*(part[rows] for part in states))
                losses.append(descend(self.network, self.optimizer, batch, a_tm1[rows], target[rows]))
                self.updates += 1
        return losses

    def cut(self, state: Observation) -> None:
        """The environments are about to be restarted: rollouts end there, nothing is left over."""

    def policy(self, made_by: Mapping[str, str]) -> Policy:
        """The network as a numpy policy."""
        return self.network.policy(made_by)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Everything that goes into a checkpoint, between rollouts: arrays, and what JSON can hold."""
        arrays = {f"network.{key}": value.numpy() for key, value in self.network.state_dict().items()}
        return arrays | optimizer_state(self.optimizer), {"updates": self.updates, "rng": self.rng.bit_generator.state}

    def restore(self, arrays: Mapping[str, Array], about: Mapping[str, Any]) -> None:
        """Back to what ``state()`` gave."""
        self.network.load_state_dict({key: torch.tensor(value) for key, value in under("network", arrays).items()})
        restore_optimizer(self.optimizer, arrays)
        self.updates = about["updates"]
        self.rng.bit_generator.state = about["rng"]
