"""What Q-values are pulled towards: pure functions on tensors, named as in rlax.

``x_t`` belongs to the later end of a transition, ``x_tm1`` to the one before. A discount of 0 says that the episode
has ended: nothing follows. Masks are of legal moves; an illegal one never enters a maximum.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORST_REWARD = -0.1


def best_value(q_t: Tensor, mask_t: Tensor) -> Tensor:
    """(B,) the highest Q-value (B, A) of a legal move (B, A); 0 where nothing is legal."""
    assert q_t.shape == mask_t.shape
    assert mask_t.dtype == torch.bool
    highest = torch.where(mask_t, q_t, -torch.inf).amax(dim=1)
    return torch.where(mask_t.any(dim=1), highest, 0.0)


def best_move(q_t: Tensor, mask_t: Tensor) -> Tensor:
    """(B,) the legal move (B, A) of the highest Q-value (B, A), the first of equals. In Double Q-learning the online
    network chooses the move and the target network values it (H. van Hasselt et al., "Deep reinforcement learning with
    double Q-learning", AAAI 2016)."""
    assert q_t.shape == mask_t.shape
    assert mask_t.dtype == torch.bool
    return torch.where(mask_t, q_t, -torch.inf).argmax(dim=1)


def n_step(r_t: Tensor, discount_t: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of n rewards, and what their discounts come to: r_t, discount_t (n, B) -> (B,), (B,).

    With v the value of the state after the n-th reward, the n-step return is the first plus the second times v.
    """
    assert r_t.shape == discount_t.shape
    assert r_t.ndim == 2
    total, discount = torch.zeros_like(r_t[0]), torch.ones_like(r_t[0])
    for r, d in zip(r_t, discount_t, strict=True):
        total = total + discount * r
        discount = discount * d
    return total, discount


def lambda_returns(r_t: Tensor, discount_t: Tensor, v_t: Tensor, lambda_: float) -> Tensor:
    """(T, B) Q(lambda) returns, from the last back: G = r_t + discount_t * ((1 - lambda) v_t + lambda G'), where v_t
    is the best value of the state that the reward led to and G' its own return (J. Peng and R. Williams, 1996; as in
    PQN, M. Gallici et al., 2024). After the last reward v_t stands in for G'. All inputs (T, B)."""
    assert r_t.shape == discount_t.shape == v_t.shape
    assert r_t.ndim == 2
    after = v_t[-1]
    found = torch.empty_like(r_t)
    for t in range(len(r_t) - 1, -1, -1):
        after = r_t[t] + discount_t[t] * ((1.0 - lambda_) * v_t[t] + lambda_ * after)
        found[t] = after
    return found


def squared_error(q_tm1: Tensor, target_tm1: Tensor) -> Tensor:
    """Mean squared error of the Q-values of the moves made (B,) against their targets (B,), a scalar. No gradient
    goes through the targets."""
    assert q_tm1.shape == target_tm1.shape
    assert q_tm1.ndim == 1
    return torch.nn.functional.mse_loss(q_tm1, target_tm1.detach())


def mean_square(values: Tensor, mask: Tensor) -> Tensor:
    """Mean square of values (B, A) over the legal moves (B, A), a scalar; 0 where none is legal."""
    assert values.shape == mask.shape
    return torch.where(mask, values.square(), 0.0).sum() / mask.sum().clamp(min=1)


def reward_error(predicted: Tensor, r_t: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of predicted one-step rewards (B, A) against exact ones (B, A) over the legal moves (B, A) of
    the states whose rewards are known (others hold zeros only), a scalar. How bad a bad move is does not matter: below
    ``WORST_REWARD`` all count alike."""
    assert predicted.shape == r_t.shape == mask.shape
    wanted = mask & (r_t != 0.0).any(dim=1, keepdim=True)
    off = predicted.clamp(min=WORST_REWARD) - r_t.clamp(min=WORST_REWARD)
    # a prediction down there of a better move must still be pulled up
    off = torch.where(predicted < WORST_REWARD, torch.where(r_t > WORST_REWARD, predicted - r_t, 0.0), off)
    return torch.where(wanted, off.square(), 0.0).sum() / wanted.sum().clamp(min=1)
