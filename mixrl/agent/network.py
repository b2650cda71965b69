"""The Q-network in torch, over batches of states with different numbers of stems and groups.

Batches are padded, as ``vector.VectorMixEnv`` observes; inside, only the stems that are there are computed, so padding
costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mixrl.agent.policy import FUTURE_OFFSET, FUTURE_SLOPE, GAIN_SCALE, HEADS, NetworkSize, Policy
from mixrl.state import State
from mixrl.vector import padded

Observation = Mapping[str, NDArray[Any]]


class Batch(NamedTuple):
    """B states padded to N stems and G groups: stems (B, N, F), groups (B, G, F), mix (B, F); present (B, N) bool;
    members (B, N) the group of each stem; gains (B, A) and mask (B, A) bool in the padded layout of ``moves``."""

    stems: Tensor
    groups: Tensor
    mix: Tensor
    present: Tensor
    members: Tensor
    gains: Tensor
    mask: Tensor


def batch_of(observation: Observation) -> Batch:
    """A batch from padded arrays by name (see ``Batch``); half precision becomes single."""
    tensors = [torch.from_numpy(np.ascontiguousarray(observation[name])) for name in Batch._fields]
    made = Batch(*(t.float() if t.is_floating_point() else t for t in tensors))
    return made._replace(members=made.members.long(), mask=made.mask.bool())


def collate(states: Sequence[State]) -> Observation:
    """States padded to the most stems and groups among them."""
    return padded(list(states), max(len(s.stems) for s in states), max(len(s.groups) for s in states))


class QNetwork(nn.Module):
    """The network that ``policy.Policy`` runs in numpy; the two agree to rounding."""

    def __init__(self, size: NetworkSize) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.ModuleDict(
            {name: nn.Linear(inputs, outputs) for name, (outputs, inputs) in size.layers().items()}
            | {name: nn.LayerNorm(size.width) for name in size.norms()}
        )
        for name in ("stem_head", "group_head", "mix_head", "value_head"):
            # starting at zero, a network with one-step gains begins as greedy search rather than as noise
            for parameter in self.layers[name].parameters():
                nn.init.zeros_(parameter)

    def forward(self, batch: Batch) -> Tensor:
        """(B, A) Q-values in the padded layout, not masked."""
        advantage, value = self.parts(batch)
        q = self.joined(advantage, value, batch.gains)
        stop = q.shape[1] - self.size.mix_moves
        return torch.cat([q[:, :stop], torch.zeros_like(q[:, :1]), q[:, stop + 1 :]], dim=1)

    def chosen(self, batch: Batch, actions: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) Q-values of the actions (B,), and the advantages (B, A) of all: cheaper than ``forward``."""
        advantage, value = self.parts(batch)
        at = actions[:, None]
        q = self.joined(advantage.gather(1, at), value, batch.gains.gather(1, at))[:, 0]
        return torch.where(actions == advantage.shape[1] - self.size.mix_moves, 0.0, q), advantage

    def joined(self, advantage: Tensor, value: Tensor, gains: Tensor) -> Tensor:
        """Q-values of advantages (B, K), values (B, 1) and one-step gains (B, K), for all moves but stop."""
        if not self.size.use_gains:
            return advantage + value
        after = FUTURE_SLOPE * (advantage + value) - FUTURE_OFFSET
        return gains + torch.nn.functional.softplus(after) / FUTURE_SLOPE

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Advantages (B, A) and values (B, 1); see ``policy`` for how they make a Q-value."""
        (count, n), g = batch.present.shape, batch.groups.shape[1]
        size: NetworkSize = self.size
        layer: Mapping[str, Any] = self.layers  # type: ignore[assignment]
        stem_gains, group_gains, mix_gains = torch.split(
            batch.gains, [n * size.stem_moves, g * size.group_moves, size.mix_moves], dim=1
        )

        def seen(gains: Tensor, *shape: int) -> list[Tensor]:
            return [(gains * GAIN_SCALE).clamp(-5.0, 5.0).reshape(*shape, -1)] if size.use_gains else []

        # from here on a row per stem that is there: its place among the padded ones, its state and its group
        place = batch.present.flatten().nonzero()[:, 0]
        counts = batch.present.sum(1)
        state = torch.arange(count).repeat_interleave(counts)
        of_group = state * g + batch.members.flatten()[place]
        stems = [batch.stems.flatten(0, 1), *seen(stem_gains, count * n)]
        rows = torch.cat([part.index_select(0, place) for part in stems], dim=-1)
        code = torch.relu(layer["stem_norm"](layer["stem2"](torch.relu(layer["stem1"](rows)))))
        if size.pool == "attention":
            code = code + self._attended(code, place, batch.present)
        in_group = code.new_zeros(count * g, size.width).index_add(0, of_group, code)
        members = torch.bincount(of_group, minlength=count * g).clamp(min=1)
        pooled = [in_group.view(count, g, -1).sum(1) / counts[:, None]]
        if size.pool != "mean":
            pooled.append(torch.segment_reduce(code, "max", lengths=counts, unsafe=True))
        context = torch.cat([batch.mix, *seen(mix_gains, count), *pooled], dim=-1)
        context = torch.relu(layer["mix_norm"](layer["mix2"](torch.relu(layer["mix1"](context)))))
        group = [batch.groups.flatten(0, 1), *seen(group_gains, count * g), in_group / members[:, None]]
        group_code = torch.cat([*group, context.repeat_interleave(g, dim=0)], dim=-1)
        group_code = torch.relu(layer["group1"](group_code))
        # head1 on (code, group, context), the latter two computed once for all stems that share them
        own, its_group, its_context = layer["head1"].weight.split(size.width, dim=1)
        shared = group_code @ its_group.T + (context @ its_context.T + layer["head1"].bias).repeat_interleave(g, dim=0)
        hidden = torch.relu(code @ own.T + shared.index_select(0, of_group))
        stem = layer["stem_head"](hidden)
        stem = stem.new_zeros(count * n, size.stem_moves).index_copy(0, place, stem)
        advantages = [stem.view(count, -1), layer["group_head"](group_code).view(count, -1), layer["mix_head"](context)]
        return torch.cat(advantages, dim=1), layer["value_head"](context)

    def _attended(self, code: Tensor, place: Tensor, present: Tensor) -> Tensor:
        """What self-attention among the stems of each state adds to their codes, (P, width)."""
        count, n = present.shape
        inside = self.layers["attend_in"](self.layers["attend_norm"](code))
        padded = inside.new_zeros(count * n, inside.shape[1]).index_copy(0, place, inside)
        query, key, value = padded.view(count, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        heads = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=present[:, None, None])
        mixed: Tensor = self.layers["attend_out"](heads.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, place))
        return mixed

    def policy(self, made_by: Mapping[str, str]) -> Policy:
        """The weights as a numpy policy."""
        weights = {n: value.detach().numpy().copy() for n, value in self.layers.state_dict().items()}
        return Policy(self.size, weights, dict(made_by))
