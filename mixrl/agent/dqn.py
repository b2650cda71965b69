"""Double DQN with n-step returns from replay.

The target of a move is the sum of its next n rewards plus the target network's value of the move that the online
network would then make. The target network is a running average of the online one, and that average is the policy that
is kept. Adam and mean squared error.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixrl.agent import targets
from mixrl.agent.checkpoint import under
from mixrl.agent.config import TrainConfig
from mixrl.agent.exploration import epsilons, explore
from mixrl.agent.network import Batch, Observation, QNetwork, batch_of
from mixrl.agent.policy import NetworkSize, Policy
from mixrl.agent.replay import Replay, Transitions

Array = NDArray[Any]
REWARD_WEIGHT = 200.0  # errors of rewards are thousandths, of returns tenths
# One move in hundreds is taught by what came of it. Left to themselves, the advantages of the others scatter by more
# than rewards differ, and the highest Q-value is that of the luckiest.
ADVANTAGE_WEIGHT = 10.0
LARGEST_GRADIENT = 10.0  # norm; larger ones are scaled down


def network_of(config: TrainConfig) -> QNetwork:
    """A new network; its weights depend on the seed alone."""
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return QNetwork(NetworkSize(width=config.width, use_gains=config.use_gains, pool=config.pool))


def descend(
    network: QNetwork, optimizer: torch.optim.Optimizer, states: Batch, a_tm1: Tensor, target_tm1: Tensor
) -> float:
    """One step of the optimizer towards targets (B,) of the moves (B,) made in B states, towards small advantages and,
    where the network predicts one-step rewards, towards those that are known; returns the loss."""
    found = network.judged(states)
    mask = states.mask.clone()
    mask[:, -network.size.mix_moves] = False  # stop
    loss = targets.squared_error(found.q.gather(1, a_tm1[:, None])[:, 0], target_tm1)
    loss = loss + ADVANTAGE_WEIGHT * targets.mean_square(found.advantages, mask)
    if not network.size.use_gains:
        loss = loss + REWARD_WEIGHT * targets.reward_error(found.rewards, states.gains, mask)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT, foreach=True)
    optimizer.step()
    return float(loss.detach())


class DqnLearner:
    """Online and target network, replay, and the moves of parallel environments."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.rng = np.random.default_rng([config.seed, 1])
        self.chance = epsilons(config.envs, config.epsilon, config.epsilon_power)
        self.online = network_of(config)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=config.learning_rate, fused=True)
        self.replay = Replay(config.capacity, config.envs, config.n_step, discount=config.discount)
        self.moves = self.updates = 0

    def act(self, state: Observation) -> NDArray[np.int64]:
        """(E,) the moves to make."""
        batch = batch_of(state)
        with torch.no_grad():
            best = targets.best_move(self.online(batch), batch.mask).numpy()
        return explore(best, state["mask"].astype(bool), self.chance, self.rng)

    def step(
        self, state: Observation, actions: Array, rewards: Array, done: Array, later: Observation
    ) -> list[float]:
        """Store one step of all environments and learn if it is time; returns the losses."""
        self.replay.add(state, actions, rewards, done)
        self.moves += len(actions)
        losses = []
        while self.config.warm_up + self.updates * self.config.update_every < self.moves and len(self.replay):
            losses.append(self.update(self.replay.sample(self.config.batch, self.rng)))
        return losses

    def cut(self, state: Observation) -> None:
        """The environments are about to be restarted."""
        self.replay.cut(state)

    def update(self, transitions: Transitions) -> float:
        """One gradient step; returns the loss."""
        loss = descend(
            self.online, self.optimizer, batch_of(transitions.now), torch.from_numpy(transitions.a_tm1),
            self.targets(transitions),
        )  # fmt: skip
        with torch.no_grad():
            for ours, theirs in zip(self.target.parameters(), self.online.parameters(), strict=True):
                ours.lerp_(theirs, self.config.target_rate)
        self.updates += 1
        return loss

    def targets(self, transitions: Transitions) -> Tensor:
        """(B,) what the Q-values of the transitions' moves should be."""
        total, discount = targets.n_step(torch.from_numpy(transitions.r_t), torch.from_numpy(transitions.discount_t))
        with torch.no_grad():
            return total + discount * self._value(batch_of(transitions.later))

    def _value(self, later: Batch) -> Tensor:
        if not self.config.double:
            return targets.best_value(self.target(later), later.mask)
        best = targets.best_move(self.online(later), later.mask)
        return torch.where(later.mask.any(dim=1), self.target.chosen(later, best), 0.0)

    def policy(self, made_by: Mapping[str, str]) -> Policy:
        """The averaged network as a numpy policy."""
        return self.target.policy(made_by)

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Everything that goes into a checkpoint: arrays, and what JSON can hold."""
        arrays = {f"replay.{name}": array for name, array in self.replay.state().items()}
        for name, network in (("online", self.online), ("target", self.target)):
            arrays |= {f"{name}.{key}": value.numpy() for key, value in network.state_dict().items()}
        arrays |= optimizer_state(self.optimizer)
        return arrays, {"moves": self.moves, "updates": self.updates, "rng": self.rng.bit_generator.state}

    def restore(self, arrays: Mapping[str, Array], about: Mapping[str, Any]) -> None:
        """Back to what ``state()`` gave."""
        self.replay.restore(under("replay", arrays))
        for name, network in (("online", self.online), ("target", self.target)):
            network.load_state_dict({key: torch.tensor(value) for key, value in under(name, arrays).items()})
        restore_optimizer(self.optimizer, arrays)
        self.moves, self.updates = about["moves"], about["updates"]
        self.rng.bit_generator.state = about["rng"]


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Array]:
    """An optimizer's moments and step counts, by name."""
    held = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{key}": value.numpy() for i, of in held.items() for key, value in of.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, arrays: Mapping[str, Array]) -> None:
    """Back to what ``optimizer_state`` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, array in under("optimizer", arrays).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = torch.tensor(array)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
