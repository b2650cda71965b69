"""A trained Q-network at work, in numpy: no torch needed.

The network is a Deep Set (Zaheer et al., 2017): every stem goes through the same encoder, the encodings are pooled by
mean and maximum into a context, and three heads give the Q-values of the moves on a stem, on a group (from the mean of
its members' encodings) and on the mix. So any number of stems goes in, and their order does not matter. A Q-value is
the state's value plus the move's advantage (a dueling network, Wang et al., 2016). Where the network sees the moves'
one-step rewards, these are added, and value plus advantage only have to say what comes after: that cannot be negative,
since one can always stop, so it goes through a softplus. Stop ends the episode and earns nothing: its Q-value is 0.

Weights travel as safetensors; their metadata hold the sizes and how the policy was made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixrl.errors import InputError
from mixrl.moves import GROUP_MOVES, MIX_MOVES, STEM_MOVES
from mixrl.state import GROUP_FEATURES, MIX_FEATURES, STEM_FEATURES, State

Float = NDArray[np.float32]
FORMAT = "mixrl-policy-1"


@dataclass(frozen=True)
class NetworkSize:
    """Sizes of a Q-network. use_gains: whether it sees each move's one-step gain (and adds it to its Q-value)."""

    stem_features: int = STEM_FEATURES
    group_features: int = GROUP_FEATURES
    mix_features: int = MIX_FEATURES
    stem_moves: int = len(STEM_MOVES)
    group_moves: int = len(GROUP_MOVES)
    mix_moves: int = len(MIX_MOVES)
    width: int = 96
    use_gains: bool = True

    def layers(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of every linear layer, by name."""
        w, g = self.width, int(self.use_gains)
        return {
            "stem1": (w, self.stem_features + g * self.stem_moves),
            "stem2": (w, w),
            "mix1": (w, self.mix_features + g * self.mix_moves + 2 * w),
            "mix2": (w, w),
            "group1": (w, self.group_features + g * self.group_moves + 2 * w),
            "head1": (w, 3 * w),
            "stem_head": (self.stem_moves, w),
            "group_head": (self.group_moves, w),
            "mix_head": (self.mix_moves, w),
            "value_head": (1, w),
        }


NORMS = ("stem_norm", "mix_norm")
FUTURE_SLOPE, FUTURE_OFFSET = 10.0, 2.0  # softplus(slope * x - offset) / slope: 0.013 at 0, sharp enough for hundredths
GAIN_SCALE = 10.0  # one-step gains are a few hundredths; the network sees them at about unit size


@dataclass(frozen=True)
class Policy:
    """Q-network weights by name (``<layer>.weight`` (out, in), ``<layer>.bias`` (out,), and the norms'), with sizes.

    made_by: how it was trained (command, seed, versions), as free text by key.
    """

    size: NetworkSize
    weights: Mapping[str, Float]
    made_by: Mapping[str, str]

    def q_values(self, state: State) -> Float:
        """(actions,) Q-values, -inf where the move is illegal."""
        w, size = self.weights, self.size
        stems = len(state.stems)
        split = np.cumsum([stems * size.stem_moves, len(state.groups) * size.group_moves])
        stem_gains, group_gains, mix_gains = np.split(state.gains, split)
        stem_gains = stem_gains.reshape(stems, -1)
        group_gains = group_gains.reshape(len(state.groups), -1)

        def linear(name: str, *parts: Float) -> Float:
            joined = np.concatenate(parts, axis=-1)
            return joined @ w[f"{name}.weight"].T + w[f"{name}.bias"]

        def relu(x: Float) -> Float:
            return np.maximum(x, 0.0)

        def norm(name: str, x: Float) -> Float:
            centred = x - x.mean(-1, keepdims=True)
            scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
            return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

        def seen(gains: Float) -> tuple[Float, ...]:
            return (np.clip(gains * GAIN_SCALE, -5.0, 5.0),) if size.use_gains else ()

        code = relu(norm("stem_norm", linear("stem2", relu(linear("stem1", state.stems, *seen(stem_gains))))))
        pooled = np.concatenate([code.mean(0), code.max(0)])
        mix = relu(linear("mix1", state.mix, *seen(mix_gains), pooled))
        context = relu(norm("mix_norm", linear("mix2", mix)))
        member = state.members[None] == np.arange(len(state.groups))[:, None]
        group_code = (member / np.maximum(member.sum(1, keepdims=True), 1)).astype(np.float32) @ code
        around = np.broadcast_to(context, group_code.shape)
        group = relu(linear("group1", state.groups, *seen(group_gains), group_code, around))
        around = np.broadcast_to(context, code.shape)
        hidden = relu(linear("head1", code, group[state.members], around))
        q = np.concatenate([
            linear("stem_head", hidden).ravel(), linear("group_head", group).ravel(), linear("mix_head", context)
        ])  # fmt: skip
        q = q + linear("value_head", context)
        if size.use_gains:
            q = state.gains + np.logaddexp(0.0, FUTURE_SLOPE * q - FUTURE_OFFSET) / FUTURE_SLOPE
        q[len(q) - size.mix_moves] = 0.0
        return np.where(state.mask, q, -np.inf).astype(np.float32)

    def act(self, state: State) -> int:
        """The legal action of the highest Q-value (the first of equals)."""
        return int(self.q_values(state).argmax())


def save_policy(policy: Policy, path: str | Path) -> None:
    """Write a policy as safetensors, atomically."""
    from safetensors.numpy import save

    from mixrl.audio import atomic_path

    about = {"format": FORMAT, "size": json.dumps(asdict(policy.size)), **policy.made_by}
    with atomic_path(path, force=True) as temporary:
        Path(temporary).write_bytes(save({k: np.ascontiguousarray(v) for k, v in policy.weights.items()}, about))


def load_policy(path: str | Path) -> Policy:
    """Read a policy. Raises InputError naming the file when it is no policy of this version or its shapes are off."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            about: dict[str, Any] = dict(file.metadata() or {})
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable policy file ({error}): make one with `mixrl train`") from None
    return _checked(weights, about, str(path))


def _checked(weights: dict[str, Float], about: dict[str, Any], path: str) -> Policy:
    mend = "train it again with this version's `mixrl train`"
    if about.pop("format", None) != FORMAT:
        raise InputError(f"{path}: not a mixrl policy of format {FORMAT}: {mend}")
    try:
        given = json.loads(about.pop("size"))
        size = NetworkSize(**{f.name: given[f.name] for f in fields(NetworkSize)})
        if type(size.width) is not int or type(size.use_gains) is not bool:
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: its sizes cannot be read: {mend}") from None
    now = NetworkSize(width=size.width, use_gains=size.use_gains)
    if size != now:
        raise InputError(f"{path}: made for other features or moves than this version's: {mend}")
    wanted: dict[str, tuple[int, ...]] = {f"{n}.weight": shape for n, shape in size.layers().items()}
    wanted |= {f"{n}.bias": shape[:1] for n, shape in size.layers().items()}
    wanted |= {f"{n}.{part}": (size.width,) for n in NORMS for part in ("weight", "bias")}
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
