"""A trained Q-network at work, in numpy: no torch needed.

The network is a Deep Set (Zaheer et al., 2017): every stem goes through the same encoder, the encodings are pooled
into a context, and three heads give the Q-values of the moves on a stem, on a group (from the mean of its members'
encodings) and on the mix. So any number of stems goes in, and their order does not matter. A Q-value is the state's
value plus the move's advantage (a dueling network, Wang et al., 2016), and these only have to say what comes after the
move: its one-step reward is added, exact where the network sees it, else as three more heads predict it. Stop ends the
episode and earns nothing: its Q-value is 0.

``pool`` says how the encodings meet: by mean and maximum ("mean+max"), by mean alone ("mean"), or through a block of
self-attention before mean and maximum ("attention"; a set attention block, Lee et al., 2019).

Weights travel as safetensors; their metadata hold the sizes and how the policy was made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixrl.errors import InputError
from mixrl.moves import GROUP_MOVES, MIX_MOVES, STEM_MOVES
from mixrl.state import GROUP_FEATURES, MIX_FEATURES, STEM_FEATURES, State
from mixrl.weights import load_arrays, save_arrays

Float = NDArray[np.float32]
FORMAT = "mixrl-policy-3"
POOLS = ("mean+max", "mean", "attention")
HEADS = 4  # of the attention
GAIN_SCALE = 10.0  # one-step gains are a few hundredths; the network sees them at about unit size


@dataclass(frozen=True)
class NetworkSize:
    """Sizes and variant of a Q-network. use_gains: whether it sees each move's one-step gain; otherwise it predicts it.
    pool: one of ``POOLS``; for "attention" the width is a multiple of ``HEADS``."""

    stem_features: int = STEM_FEATURES
    group_features: int = GROUP_FEATURES
    mix_features: int = MIX_FEATURES
    stem_moves: int = len(STEM_MOVES)
    group_moves: int = len(GROUP_MOVES)
    mix_moves: int = len(MIX_MOVES)
    width: int = 96
    use_gains: bool = True
    pool: str = "mean+max"

    def layers(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of every linear layer, by name."""
        w, g = self.width, int(self.use_gains)
        rewards = {"stem_reward": self.stem_moves, "group_reward": self.group_moves, "mix_reward": self.mix_moves}
        attention = {"attend_in": (3 * w, w), "attend_out": (w, w)} if self.pool == "attention" else {}
        return {
            "stem1": (w, self.stem_features + g * self.stem_moves),
            "stem2": (w, w),
            **attention,
            "mix1": (w, self.mix_features + g * self.mix_moves + (1 if self.pool == "mean" else 2) * w),
            "mix2": (w, w),
            "group1": (w, self.group_features + g * self.group_moves + 2 * w),
            "head1": (w, 3 * w),
            "stem_head": (self.stem_moves, w),
            "group_head": (self.group_moves, w),
            "mix_head": (self.mix_moves, w),
            "value_head": (1, w),
            **({} if self.use_gains else {name: (moves, w) for name, moves in rewards.items()}),
        }

    def norms(self) -> tuple[str, ...]:
        """Names of the layer norms, each over ``width`` values."""
        return ("stem_norm", "mix_norm", *(("attend_norm",) if self.pool == "attention" else ()))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight array, by name."""
        layers = self.layers()
        found: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in layers.items()}
        found |= {f"{name}.bias": shape[:1] for name, shape in layers.items()}
        return found | {f"{name}.{part}": (self.width,) for name in self.norms() for part in ("weight", "bias")}


@dataclass(frozen=True)
class Policy:
    """Q-network weights by name (``<layer>.weight`` (out, in), ``<layer>.bias`` (out,), and the norms'), with sizes.

    made_by: how it was trained (command, seed, versions), as free text by key.
    """

    size: NetworkSize
    weights: Mapping[str, Float]
    made_by: Mapping[str, str]

    @property
    def use_gains(self) -> bool:
        """Whether it wants to see each move's one-step gain."""
        return self.size.use_gains

    def q_values(self, state: State) -> Float:
        """(actions,) Q-values, -inf where the move is illegal."""
        return self.with_rewards(state)[0]

    def with_rewards(self, state: State) -> tuple[Float, Float]:
        """(actions,) Q-values, -inf where the move is illegal, and the one-step rewards in them: those of the state or,
        without one-step gains, predicted ones."""
        w, size = self.weights, self.size
        stems, groups = len(state.stems), len(state.groups)
        split = np.cumsum([stems * size.stem_moves, groups * size.group_moves])
        stem_gains, group_gains, mix_gains = np.split(state.gains, split)

        def linear(name: str, *parts: Float) -> Float:
            joined = np.concatenate(parts, axis=-1)
            return joined @ w[f"{name}.weight"].T + w[f"{name}.bias"]

        def relu(x: Float) -> Float:
            return np.maximum(x, 0.0)

        def norm(name: str, x: Float) -> Float:
            centred = x - x.mean(-1, keepdims=True)
            scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
            return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

        def seen(gains: Float, *shape: int) -> tuple[Float, ...]:
            return (np.clip(gains * GAIN_SCALE, -5.0, 5.0).reshape(*shape, -1),) if size.use_gains else ()

        code = relu(norm("stem_norm", linear("stem2", relu(linear("stem1", state.stems, *seen(stem_gains, stems))))))
        if size.pool == "attention":
            inside = linear("attend_in", norm("attend_norm", code)).reshape(stems, 3, HEADS, -1)
            query, key, value = inside.swapaxes(0, 1)
            heat = np.einsum("nhd,mhd->hnm", query, key) / np.float32(np.sqrt(query.shape[-1]))
            heat = np.exp(heat - heat.max(-1, keepdims=True))
            heat /= heat.sum(-1, keepdims=True)
            code = code + linear("attend_out", np.einsum("hnm,mhd->nhd", heat, value).reshape(stems, -1))
        pooled = [code.mean(0)] if size.pool == "mean" else [code.mean(0), code.max(0)]
        mix = relu(linear("mix1", state.mix, *seen(mix_gains), *pooled))
        context = relu(norm("mix_norm", linear("mix2", mix)))
        member = state.members[None] == np.arange(groups)[:, None]
        group_code = (member / np.maximum(member.sum(1, keepdims=True), 1)).astype(np.float32) @ code
        around = np.broadcast_to(context, group_code.shape)
        group = relu(linear("group1", state.groups, *seen(group_gains, groups), group_code, around))
        around = np.broadcast_to(context, code.shape)
        hidden = relu(linear("head1", code, group[state.members], around))

        def heads(of: str) -> Float:
            seeing = (("stem", hidden), ("group", group), ("mix", context))
            return np.concatenate([linear(f"{name}_{of}", x).ravel() for name, x in seeing])

        rewards = state.gains if size.use_gains else heads("reward") / np.float32(GAIN_SCALE)
        q = rewards + linear("value_head", context) + heads("head")
        q[len(q) - size.mix_moves] = 0.0
        return np.where(state.mask, q, -np.inf).astype(np.float32), rewards

    def act(self, state: State) -> int:
        """The legal action of the highest Q-value (the first of equals)."""
        return int(self.q_values(state).argmax())

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, atomically; what is there is replaced."""
        save_arrays(self.weights, {"format": FORMAT, "size": json.dumps(asdict(self.size)), **self.made_by}, path)


def load_policy(path: str | Path) -> Policy:
    """Read a policy. Raises InputError naming the file when it is no policy of this version or its shapes are off."""
    weights, about = load_arrays(path, "policy file")
    mend = "train it again with this version's `mixrl train`"
    if about.pop("format", None) != FORMAT:
        raise InputError(f"{path}: not a mixrl policy of format {FORMAT}: {mend}")
    try:
        given = json.loads(about.pop("size"))
        size = NetworkSize(**{f.name: given[f.name] for f in fields(NetworkSize)})
        if type(size.width) is not int or type(size.use_gains) is not bool or size.pool not in POOLS:
            raise TypeError
        if size.width < 1 or (size.pool == "attention" and size.width % HEADS):
            raise ValueError
    except (KeyError, TypeError, ValueError, RecursionError):
        raise InputError(f"{path}: its sizes cannot be read: {mend}") from None
    if size != NetworkSize(width=size.width, use_gains=size.use_gains, pool=size.pool):
        raise InputError(f"{path}: made for other features or moves than this version's: {mend}")
    wanted = size.shapes()
    for name, shape in wanted.items():
        array = weights.get(name)
        if array is None or array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
            raise InputError(f"{path}: {name} is missing, not finite or not float32 of shape {shape}: {mend}")
    return Policy(size, {name: weights[name] for name in wanted}, about)


@lru_cache(maxsize=1)
def default_policy() -> Policy:
    """The policy that ships with mixrl."""
    with as_file(files("mixrl") / "data" / "policy.safetensors") as path:
        return load_policy(path)
