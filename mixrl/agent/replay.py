"""Experience replay of parallel environments, sampled as n-step transitions.

All memory is taken when the first moves are stored and never grows: a ring of time steps, each with the states of all
environments in half precision, their moves, rewards and ends. A transition is put together when it is sampled, from
the steps that follow it in the ring, so each state is stored once.

Environments restart in the same step in which an episode ends, so the state after an end belongs to the next episode.
It is never needed: an end, by stop or by the step limit, is worth nothing more, and time left is part of the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixrl.agent.network import Observation

Array = NDArray[Any]


class Transitions(NamedTuple):
    """B transitions. now, later: padded states by name. a_tm1 (B,); r_t, discount_t (n, B): the rewards from the move
    on, and what discounts all that follows each, 0 where the episode ended. Past a cut (see ``Replay.cut``) rewards are
    0 and discounts 1, and ``later`` is the state at the cut: it stands for all that would have followed."""

    now: dict[str, Array]
    a_tm1: NDArray[np.int64]
    r_t: NDArray[np.float32]
    discount_t: NDArray[np.float32]
    later: dict[str, Array]


class Replay:
    """The latest ``capacity`` moves of ``envs`` parallel environments, sampled uniformly."""

    def __init__(self, capacity: int, envs: int, n: int, *, discount: float = 1.0) -> None:
        self.length = max(capacity // envs, n + 2)
        self.envs, self.n, self.discount = envs, n, discount
        self.arrays: dict[str, Array] = {}
        self.filled = self.next = 0
        self._actions = 0  # size of the mask

    def __len__(self) -> int:
        """Moves that can be sampled now."""
        return len(self._starts()) * self.envs

    @property
    def nbytes(self) -> int:
        """Memory in bytes, all of it taken."""
        return sum(array.nbytes for array in self.arrays.values())

    def add(self, state: Observation, actions: Array, rewards: Array, done: Array) -> None:
        """One step of all environments: the states (E, ...) that the actions (E,) were made in, what they earned (E,),
        and whether that ended the episode (E,)."""
        self._store(state, actions, rewards, done, cut=False)

    def cut(self, state: Observation) -> None:
        """The episodes stop here without an end: the environments are about to be restarted, ``state`` is where they
        got to."""
        none = np.zeros(self.envs)
        self._store(state, none, none, none, cut=True)

    def _store(self, state: Observation, actions: Array, rewards: Array, done: Array, cut: bool) -> None:
        packed = self._pack(state)
        values: dict[str, Array] = {
            **packed, "action": np.asarray(actions, np.int32), "reward": np.asarray(rewards, np.float32),
            "done": np.asarray(done, bool), "cut": np.asarray(cut),
        }  # fmt: skip
        if not self.arrays:
            self._actions = state["mask"].shape[1]
            for name, value in values.items():
                # filled, not only promised: what a system cannot give is known now and not hours later
                self.arrays[name] = np.full((self.length, *value.shape), 0, dtype=value.dtype)
        for name, value in values.items():
            self.arrays[name][self.next] = value
        self.next = (self.next + 1) % self.length
        self.filled = min(self.filled + 1, self.length)

    def _pack(self, state: Observation) -> dict[str, Array]:
        halves = ("stems", "groups", "mix", "gains")
        packed: dict[str, Array] = {name: state[name].astype(np.float16) for name in halves}
        packed["present"] = state["present"].astype(bool)
        packed["members"] = state["members"].astype(np.uint8)
        packed["mask"] = np.packbits(state["mask"].astype(bool), axis=1)
        return packed

    def _states(self, at: NDArray[np.int64], env: NDArray[np.int64]) -> dict[str, Array]:
        found = {n: self.arrays[n][at, env] for n in ("stems", "groups", "mix", "gains", "present", "members")}
        mask = np.unpackbits(self.arrays["mask"][at, env], axis=1, count=self._actions)
        found["mask"] = mask.view(bool)
        return found

    def _starts(self) -> NDArray[np.int64]:
        """Slots from which n steps have been stored, cuts left out."""
        if self.filled <= self.n:
            return np.zeros(0, dtype=np.int64)
        slots = (self.next - self.filled + np.arange(self.filled - self.n)) % self.length
        return slots[~self.arrays["cut"][slots]]

    def sample(self, count: int, rng: np.random.Generator) -> Transitions:
        """``count`` transitions, with replacement."""
        starts = self._starts()
        start = starts[rng.integers(0, len(starts), count)]
        env = rng.integers(0, self.envs, count)
        later, cut = start, np.zeros(count, dtype=bool)
        r_t = np.zeros((self.n, count), dtype=np.float32)
        discount_t = np.ones((self.n, count), dtype=np.float32)
        for k in range(self.n):
            at = (start + k) % self.length
            cut = cut | self.arrays["cut"][at]
            r_t[k] = np.where(cut, 0.0, self.arrays["reward"][at, env])
            discount_t[k] = np.where(cut, 1.0, self.discount * ~self.arrays["done"][at, env])
            later = np.where(cut, later, (at + 1) % self.length)
        actions = self.arrays["action"][start, env].astype(np.int64)
        return Transitions(self._states(start, env), actions, r_t, discount_t, self._states(later, env))

    def state(self) -> dict[str, Array]:
        """All that it holds, oldest first, by name: for a checkpoint."""
        order = (self.next - self.filled + np.arange(self.filled)) % self.length
        return {name: array[order] for name, array in self.arrays.items()} | {"actions": np.array(self._actions)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Back to what ``state()`` gave."""
        self._actions = int(state["actions"])
        self.arrays = {}
        for name, held in state.items():
            if name != "actions":
                self.arrays[name] = np.full((self.length, *held.shape[1:]), 0, dtype=held.dtype)
                self.arrays[name][: len(held)] = held
                self.filled = len(held)
        self.next = self.filled % self.length
