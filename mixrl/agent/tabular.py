"""Tabular Q-learning on a discretised state: the baseline that the literature on automatic mixing starts from.

A table cannot hold a mix of many stems, so every stem is looked at by itself, and all share one table: the state of a
stem falls into one of ``CELLS`` cells (how far its level is off, how well it is heard, where it stands, and which band
of the mix that it has a large part in is too strong or too weak), and the table holds the value of each of the stem
moves in each cell. The move of the highest value over all stems is made; stop, worth 0, when none is above it. What
comes after a move is what can still be done for the same stem (C. Watkins, "Learning from delayed rewards", 1989).
There are no moves on groups or on the tempo, and no one-step gains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixrl.agent.config import TrainConfig
from mixrl.agent.exploration import epsilons, explore
from mixrl.errors import InputError
from mixrl.moves import MIX_MOVES, STEM_MOVES
from mixrl.state import State
from mixrl.weights import load_arrays, save_arrays

if TYPE_CHECKING:
    from mixrl.agent.network import Observation

Array = NDArray[Any]
FORMAT = "mixrl-table-1"
MOVES = len(STEM_MOVES)

LEVEL_DB = (-6.0, -2.0, 2.0, 6.0)  # off the middle of the role's corridor
AUDIBILITY_DB = (-15.0, -9.0)
POSITION = (-0.5, -0.1, 0.1, 0.5)
TONE_DB, SHARE = 2.0, 0.25  # a band is off by more than this, and the stem has at least this share of its power
# octaves of the state that belong to each band of the EQ: octave k starts at 20 * 2 ** k Hz
REGIONS = ((0, 1, 2), (3, 4), (5, 6), (7,), (8, 9))
TONES = 1 + 2 * len(REGIONS)
CELLS = (len(LEVEL_DB) + 1) * (len(AUDIBILITY_DB) + 1) * (len(POSITION) + 1) * TONES
_LEVEL, _AUDIBILITY, _POSITION = 4, 7, 8  # columns of a stem's features, see ``state``


def cells(stems: Array, mix: Array) -> NDArray[np.int64]:
    """(..., N) the cell of each stem, from features of stems (..., N, F) and of the mix (..., F)."""
    level = np.digitize(10.0 * stems[..., _LEVEL], LEVEL_DB)
    audibility = np.digitize(10.0 * stems[..., _AUDIBILITY], AUDIBILITY_DB)
    position = np.digitize(stems[..., _POSITION], POSITION)
    octaves = sum(len(region) for region in REGIONS)
    share = 10.0 ** (2.0 * stems[..., -octaves:])
    thirds = 10.0 * mix[..., : 3 * octaves].reshape(*mix.shape[:-1], octaves, 3).mean(-1)
    off = np.stack([thirds[..., list(r)].mean(-1) for r in REGIONS], axis=-1)[..., None, :]
    part = np.stack([share[..., list(r)].mean(-1) for r in REGIONS], axis=-1)
    wrong = np.where((np.abs(off) > TONE_DB) & (part > SHARE), np.abs(off) * part, 0.0)
    worst = wrong.argmax(-1)
    strong = np.take_along_axis(np.broadcast_to(off, part.shape), worst[..., None], -1)[..., 0] > 0.0
    tone = np.where(wrong.max(-1) > 0.0, 1 + 2 * worst + strong, 0)
    found = ((level * (len(AUDIBILITY_DB) + 1) + audibility) * (len(POSITION) + 1) + position) * TONES + tone
    return np.asarray(found, dtype=np.int64)


@dataclass(frozen=True)
class TablePolicy:
    """The table, ``weights["q"]`` (CELLS, moves of a stem), and how it was made."""

    weights: Mapping[str, Array]
    made_by: Mapping[str, str]

    @property
    def use_gains(self) -> bool:
        """Whether it wants to see each move's one-step gain: it does not."""
        return False

    def q_values(self, state: State) -> NDArray[np.float32]:
        """(actions,) the value of each move, -inf where the move is illegal or not in the table."""
        q = np.full(len(state.mask), -np.inf, dtype=np.float32)
        rows = self.weights["q"][cells(state.stems, state.mix)]
        q[: rows.size] = rows.ravel()
        q[len(q) - len(MIX_MOVES)] = 0.0
        return np.where(state.mask, q, -np.inf).astype(np.float32)

    def act(self, state: State) -> int:
        """The legal action of the highest value (the first of equals)."""
        return int(self.q_values(state).argmax())

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, atomically; what is there is replaced."""
        save_arrays(self.weights, {"format": FORMAT, **self.made_by}, path)


def load_table(path: str | Path) -> TablePolicy:
    """Read a table. Raises InputError naming the file when it is none of this version."""
    weights, about = load_arrays(path, "table of Q-values")
    q = weights.get("q")
    if about.pop("format", None) != FORMAT or q is None or q.shape != (CELLS, MOVES) or not np.isfinite(q).all():
        raise InputError(
            f"{path}: not a table of Q-values of this version: make one with `mixrl train --algorithm tabular`"
        )
    return TablePolicy({"q": q}, about)


class TableLearner:
    """The table while it learns, from parallel environments."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.rng = np.random.default_rng([config.seed, 1])
        self.chance = epsilons(config.envs, config.epsilon, config.epsilon_power)
        self.q = np.zeros((CELLS, MOVES), dtype=np.float32)
        self.updates = 0

    def _values(self, state: Observation) -> tuple[Array, NDArray[np.int64]]:
        """(E, N, moves) values of the stems' moves, -inf where illegal, and (E, N) cells."""
        at = cells(state["stems"], state["mix"])
        legal = state["mask"].astype(bool)[:, : at.shape[1] * MOVES].reshape(*at.shape, MOVES)
        return np.where(legal, self.q[at], -np.inf), at

    def act(self, state: Observation) -> NDArray[np.int64]:
        """(E,) the moves to make."""
        values = self._values(state)[0].reshape(len(state["mask"]), -1)
        mask = state["mask"].astype(bool).copy()
        stop = mask.shape[1] - len(MIX_MOVES)
        mask[:, values.shape[1] :] = False
        mask[:, stop] = True
        best = np.where(values.max(axis=1) >= 0.0, values.argmax(axis=1), stop)
        return explore(best, mask, self.chance, self.rng)

    def step(
        self, state: Observation, actions: Array, rewards: Array, done: Array, later: Observation
    ) -> list[float]:
        """Learn from one step of all environments; returns the squared errors."""
        _, at = self._values(state)
        values, _ = self._values(later)
        errors = []
        for env in np.flatnonzero(actions < at.shape[1] * MOVES):
            stem, move = divmod(int(actions[env]), MOVES)
            after = 0.0 if done[env] else self.config.table_discount * max(float(values[env, stem].max()), 0.0)
            error = float(rewards[env]) + after - float(self.q[at[env, stem], move])
            self.q[at[env, stem], move] += self.config.table_rate * error
            errors.append(error**2)
        self.updates += len(errors)
        return errors

    def cut(self, state: Observation) -> None:
        """The environments are about to be restarted: nothing is under way."""

    def policy(self, made_by: Mapping[str, str]) -> TablePolicy:
        """The table as it is now."""
        return TablePolicy({"q": self.q.copy()}, dict(made_by))

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Everything that goes into a checkpoint: arrays, and what JSON can hold."""
        return {"q": self.q}, {"updates": self.updates, "rng": self.rng.bit_generator.state}

    def restore(self, arrays: Mapping[str, Array], about: Mapping[str, Any]) -> None:
        """Back to what ``state()`` gave."""
        self.q, self.updates = arrays["q"].copy(), about["updates"]
        self.rng.bit_generator.state = about["rng"]
