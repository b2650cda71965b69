"""Double DQN with n-step returns: targets, loss and the learner.

The target of a move is the sum of its next n rewards plus the target network's value of the move that the online
network would then make (H. van Hasselt et al., "Deep reinforcement learning with double Q-learning", AAAI 2016).
Discount is 1: an episode's return telescopes to the score's improvement. Illegal moves are masked with -inf before
every maximum. Adam and mean squared error, plus a small penalty on the advantages of all legal moves: only the move
that was made gets a gradient from its target, and without the penalty the noise in the others would drown the one-step
gains that tell them apart.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from mixrl.agent.network import QNetwork, collate, padded_columns
from mixrl.agent.replay import Transition


def double_q_target(
    n_step_return: Tensor, done: Tensor, q_online: Tensor, q_target: Tensor, mask: Tensor
) -> Tensor:
    """(B,) targets. n_step_return (B,), done (B,) bool; q_online, q_target (B, A) of the later state and mask (B, A)
    of its legal moves. Without a legal move the later state is worth 0."""
    chosen = torch.where(mask, q_online, -torch.inf).argmax(dim=1, keepdim=True)
    value = q_target.gather(1, chosen)[:, 0]
    return n_step_return + torch.where(done | ~mask.any(dim=1), 0.0, value)


class Learner:
    """Online and target network, and one gradient step at a time."""

    def __init__(
        self, network: QNetwork, learning_rate: float, target_every: int, advantage_penalty: float = 0.0
    ) -> None:
        self.online = network
        self.target = copy.deepcopy(network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        self.target_every = target_every
        self.advantage_penalty = advantage_penalty
        self.updates = 0

    def update(self, transitions: Sequence[Transition]) -> float:
        """One step on a batch; returns the loss. The target network follows every ``target_every`` updates."""
        now = collate([t.state for t in transitions])
        later = collate([t.later for t in transitions])
        most_stems, most_groups = now.stems.shape[1], now.groups.shape[1]
        columns = [
            padded_columns(len(t.state.stems), len(t.state.groups), most_stems, most_groups)[t.action]
            for t in transitions
        ]
        with torch.no_grad():
            target = double_q_target(
                torch.tensor([t.n_step_return for t in transitions]),
                torch.tensor([t.done for t in transitions]),
                self.online(later),
                self.target(later),
                later.mask,
            )
        q = self.online(now).gather(1, torch.tensor(columns)[:, None])[:, 0]
        loss = torch.nn.functional.mse_loss(q, target)
        if self.advantage_penalty:
            advantage, _ = self.online.parts(now)
            loss = loss + self.advantage_penalty * (advantage**2 * now.mask).sum(1).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.online.parameters(), 10.0)
        self.optimizer.step()
        self.updates += 1
        if self.updates % self.target_every == 0:
            self.target.load_state_dict(self.online.state_dict())
        return float(loss.detach())
