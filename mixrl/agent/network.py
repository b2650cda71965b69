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

from mixrl.agent.policy import GAIN_SCALE, HEADS, NetworkSize, Policy
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


class _Encoded(NamedTuple):
    """Codes of the P stems that are there, (P, width), their places among the padded ones and their groups among all,
    (P,) each; of the groups (B * G, width); and of the mix, (B, width)."""

    place: Tensor
    of_group: Tensor
    code: Tensor
    group_code: Tensor
    context: Tensor


class Judged(NamedTuple):
    """What a network says of every move of B states, (B, A) each in the padded layout, not masked: Q-values, the
    one-step rewards in them (those of the batch or, without one-step gains, predicted ones), and the advantages.
    """

    q: Tensor
    rewards: Tensor
    advantages: Tensor


def _column(values: Tensor, index: Tensor) -> Tensor:
    """(B,) one value of each row, (B, K) at (B,)."""
    return values.gather(1, index[:, None])[:, 0]


class QNetwork(nn.Module):
    """The network that ``policy.Policy`` runs in numpy; the two agree to rounding."""

    def __init__(self, size: NetworkSize) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.ModuleDict(
            {name: nn.Linear(inputs, outputs) for name, (outputs, inputs) in size.layers().items()}
            | {name: nn.LayerNorm(size.width) for name in size.norms()}
        )
        for name in self.layers:
            # heads start at zero: with one-step gains the network begins as greedy search rather than as noise
            if name.endswith(("_head", "_reward")):
                for parameter in self.layers[name].parameters():
                    nn.init.zeros_(parameter)

    def forward(self, batch: Batch) -> Tensor:
        """(B, A) Q-values in the padded layout, not masked."""
        return self.judged(batch).q

    def judged(self, batch: Batch) -> Judged:
        """Q-values and what they are made of."""
        inside = self._encoded(batch)
        seen = self._hidden(inside, inside.code, inside.of_group), inside.group_code, inside.context, inside.place
        advantages = self._heads("head", batch, *seen)
        rewards = batch.gains if self.size.use_gains else self._heads("reward", batch, *seen) / GAIN_SCALE
        q = rewards + self.layers["value_head"](inside.context) + advantages
        stop = q.shape[1] - self.size.mix_moves
        q = torch.cat([q[:, :stop], torch.zeros_like(q[:, :1]), q[:, stop + 1 :]], dim=1)
        return Judged(q, rewards, advantages)

    def _heads(self, of: str, batch: Batch, hidden: Tensor, group: Tensor, context: Tensor, place: Tensor) -> Tensor:
        """(B, A) what three heads say of every move."""
        (count, n), layer = batch.present.shape, self.layers
        own = layer[f"stem_{of}"](hidden)
        stem = own.new_zeros(count * n, self.size.stem_moves).index_copy(0, place, own)
        groups = layer[f"group_{of}"](group)
        return torch.cat([stem.view(count, -1), groups.view(count, -1), layer[f"mix_{of}"](context)], dim=1)

    def chosen(self, batch: Batch, actions: Tensor) -> Tensor:
        """(B,) Q-values of one action in each state, (B,): ``forward`` at these, at half the cost."""
        (count, n), g, layer = batch.present.shape, batch.groups.shape[1], self.layers
        size: NetworkSize = self.size
        inside = self._encoded(batch)
        # each head on one row a state, as if the action were of its kind; then the one that is right
        groups, mixes = n * size.stem_moves, n * size.stem_moves + g * size.group_moves
        state = torch.arange(count)
        row = (batch.present.flatten().cumsum(0) - 1)[state * n + (actions // size.stem_moves).clamp(max=n - 1)]
        hidden = self._hidden(inside, inside.code[row], inside.of_group[row])
        group = (actions - groups).clamp(0, g * size.group_moves - 1)
        group_code = inside.group_code[state * g + group // size.group_moves]

        def head(of: str) -> Tensor:
            on_group = _column(layer[f"group_{of}"](group_code), group % size.group_moves)
            on_mix = _column(layer[f"mix_{of}"](inside.context), (actions - mixes).clamp(min=0))
            on_stem = _column(layer[f"stem_{of}"](hidden), actions % size.stem_moves)
            return torch.where(actions < groups, on_stem, torch.where(actions < mixes, on_group, on_mix))

        rewards = _column(batch.gains, actions) if size.use_gains else head("reward") / GAIN_SCALE
        q = rewards + layer["value_head"](inside.context)[:, 0] + head("head")
        return torch.where(actions == mixes, 0.0, q)

    def _encoded(self, batch: Batch) -> _Encoded:
        """All that comes before the heads."""
        (count, n), g = batch.present.shape, batch.groups.shape[1]
        size: NetworkSize = self.size
        layer: Mapping[str, Any] = self.layers  # type: ignore[assignment]
        stem_gains, group_gains, mix_gains = torch.split(
            batch.gains, [n * size.stem_moves, g * size.group_moves, size.mix_moves], dim=1
        )

        def seen(gains: Tensor) -> list[Tensor]:
            return [(gains * GAIN_SCALE).clamp(-5.0, 5.0)] if size.use_gains else []

        # from here on a row per stem that is there: its place among the padded ones, its state and its group
        place = batch.present.flatten().nonzero()[:, 0]
        counts = batch.present.sum(1)
        state = torch.arange(count).repeat_interleave(counts)
        of_group = state * g + batch.members.flatten()[place]
        rows = batch.stems.flatten(0, 1).index_select(0, place)
        rows = torch.cat([rows, *seen(stem_gains.reshape(count * n, -1).index_select(0, place))], dim=-1)
        code = torch.relu(layer["stem_norm"](layer["stem2"](torch.relu(layer["stem1"](rows)))))
        if size.pool == "attention":
            code = code + self._attended(code, place, batch.present)
        in_group = code.new_zeros(count * g, size.width).index_add(0, of_group, code)
        members = torch.bincount(of_group, minlength=count * g).clamp(min=1)
        pooled = [in_group.view(count, g, -1).sum(1) / counts[:, None]]
        if size.pool != "mean":
            pooled.append(torch.segment_reduce(code, "max", lengths=counts, unsafe=True))
        context = torch.cat([batch.mix, *seen(mix_gains), *pooled], dim=-1)
        context = torch.relu(layer["mix_norm"](layer["mix2"](torch.relu(layer["mix1"](context)))))
        group = [batch.groups.flatten(0, 1), *seen(group_gains.reshape(count * g, -1)), in_group / members[:, None]]
        group_code = torch.cat([*group, context.repeat_interleave(g, dim=0)], dim=-1)
        return _Encoded(place, of_group, code, torch.relu(layer["group1"](group_code)), context)

    def _hidden(self, inside: _Encoded, code: Tensor, of_group: Tensor) -> Tensor:
        """What the stems' head sees of some stems: their codes (K, width) and the groups that they are in (K,)."""
        # head1 on (code, group, context), the latter two computed once for all stems that share them
        head: Any = self.layers["head1"]
        own, its_group, its_context = head.weight.split(self.size.width, dim=1)
        around = inside.context @ its_context.T + head.bias
        groups = len(inside.group_code) // len(inside.context)
        shared = inside.group_code @ its_group.T + around.repeat_interleave(groups, dim=0)
        return torch.relu(code @ own.T + shared.index_select(0, of_group))

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
