"""The Q-network in torch, batched over states with different numbers of stems and groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mixrl.agent.policy import FUTURE_OFFSET, FUTURE_SLOPE, GAIN_SCALE, NORMS, NetworkSize, Policy
from mixrl.moves import GROUP_MOVES, MIX_MOVES, STEM_MOVES
from mixrl.state import State


@dataclass(frozen=True)
class Batch:
    """B states padded to N stems and G groups. Shapes: stems (B, N, F), groups (B, G, F), mix (B, F);
    present (B, N) bool; member (B, G, N) 1 / group size where the stem is in the group; members (B, N) long.
    gains and mask (B, actions) in the padded layout: N * stem moves, then G * group moves, then the mix's."""

    stems: Tensor
    groups: Tensor
    mix: Tensor
    present: Tensor
    member: Tensor
    members: Tensor
    gains: Tensor
    mask: Tensor


def padded_columns(stems: int, groups: int, most_stems: int, most_groups: int) -> np.ndarray:
    """Where the actions of a session of (stems, groups) lie in the padded layout."""
    start = most_stems * len(STEM_MOVES)
    end = start + most_groups * len(GROUP_MOVES)
    return np.concatenate([
        np.arange(stems * len(STEM_MOVES)),
        np.arange(start, start + groups * len(GROUP_MOVES)),
        np.arange(end, end + len(MIX_MOVES)),
    ])  # fmt: skip


def collate(states: Sequence[State]) -> Batch:
    """Pad states into one batch."""
    count = len(states)
    n = max(len(s.stems) for s in states)
    g = max(len(s.groups) for s in states)
    size = n * len(STEM_MOVES) + g * len(GROUP_MOVES) + len(MIX_MOVES)
    stems = np.zeros((count, n, states[0].stems.shape[1]), dtype=np.float32)
    groups = np.zeros((count, g, states[0].groups.shape[1]), dtype=np.float32)
    present = np.zeros((count, n), dtype=bool)
    member = np.zeros((count, g, n), dtype=np.float32)
    members = np.zeros((count, n), dtype=np.int64)
    gains = np.zeros((count, size), dtype=np.float32)
    mask = np.zeros((count, size), dtype=bool)
    for b, s in enumerate(states):
        k, j = len(s.stems), len(s.groups)
        stems[b, :k], groups[b, :j], present[b, :k], members[b, :k] = s.stems, s.groups, True, s.members
        member[b, s.members, np.arange(k)] = 1.0
        columns = padded_columns(k, j, n, g)
        gains[b, columns], mask[b, columns] = s.gains, s.mask
    member /= np.maximum(member.sum(-1, keepdims=True), 1.0)
    mix = np.stack([s.mix for s in states])
    arrays = (stems, groups, mix, present, member, members, gains, mask)
    return Batch(*(torch.from_numpy(a) for a in arrays))


class QNetwork(nn.Module):
    """The network that ``policy.Policy`` runs in numpy; the two agree to rounding."""

    def __init__(self, size: NetworkSize) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.ModuleDict(
            {name: nn.Linear(inputs, outputs) for name, (outputs, inputs) in size.layers().items()}
            | {name: nn.LayerNorm(size.width) for name in NORMS}
        )
        for name in ("stem_head", "group_head", "mix_head", "value_head"):
            # starting at zero, a network with one-step gains begins as greedy search rather than as noise
            for parameter in self.layers[name].parameters():
                nn.init.zeros_(parameter)

    def forward(self, batch: Batch) -> Tensor:
        """(B, actions) Q-values in the padded layout, not masked."""
        advantage, value = self.parts(batch)
        q = advantage + value
        if self.size.use_gains:
            q = batch.gains + torch.nn.functional.softplus(FUTURE_SLOPE * q - FUTURE_OFFSET) / FUTURE_SLOPE
        stop = q.shape[1] - self.size.mix_moves
        return torch.cat([q[:, :stop], torch.zeros_like(q[:, :1]), q[:, stop + 1 :]], dim=1)

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Advantages (B, actions) and values (B, 1); see ``policy`` for how they make a Q-value."""
        count, n = batch.present.shape
        g = batch.groups.shape[1]
        size, layer = self.size, self.layers
        ends = [n * size.stem_moves, g * size.group_moves, size.mix_moves]
        stem_gains, group_gains, mix_gains = torch.split(batch.gains, ends, dim=1)

        def seen(gains: Tensor, *shape: int) -> list[Tensor]:
            return [(gains * GAIN_SCALE).clamp(-5.0, 5.0).reshape(count, *shape)] if size.use_gains else []

        stem_in = torch.cat([batch.stems, *seen(stem_gains, n, size.stem_moves)], dim=-1)
        code = torch.relu(layer["stem_norm"](layer["stem2"](torch.relu(layer["stem1"](stem_in)))))
        there = batch.present[..., None]
        mean = torch.where(there, code, 0.0).sum(1) / there.sum(1)
        highest = torch.where(there, code, -torch.inf).amax(1)
        mix_in = torch.cat([batch.mix, *seen(mix_gains, size.mix_moves), mean, highest], dim=-1)
        context = torch.relu(layer["mix_norm"](layer["mix2"](torch.relu(layer["mix1"](mix_in)))))
        around = context[:, None]
        group_in = [batch.groups, *seen(group_gains, g, size.group_moves), batch.member @ code]
        group = torch.relu(layer["group1"](torch.cat([*group_in, around.expand(-1, g, -1)], dim=-1)))
        mine = group.gather(1, batch.members[..., None].expand(-1, -1, size.width))
        hidden = torch.relu(layer["head1"](torch.cat([code, mine, around.expand(-1, n, -1)], dim=-1)))
        advantages = [layer["stem_head"](hidden).flatten(1), layer["group_head"](group).flatten(1)]
        advantage = torch.cat([*advantages, layer["mix_head"](context)], dim=1)
        return advantage, layer["value_head"](context)

    def policy(self, made_by: dict[str, str]) -> Policy:
        """The weights as a numpy policy."""
        weights = {n: value.detach().numpy().astype(np.float32) for n, value in self.layers.state_dict().items()}
        return Policy(self.size, weights, made_by)
