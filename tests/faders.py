"""A mixing task in miniature, with the interfaces of MixEnv and VectorMixEnv and none of their cost.

A few stems stand at wrong levels; each should get to 0 dB. The score is minus the mean distance in units of 6 dB; the
moves are the faders and stop. The level is where the real state has how far a stem is off its corridor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mixrl.moves import MOVE_COST, STEM_MOVES, Layout, padded_columns
from mixrl.state import GROUP_FEATURES, MIX_FEATURES, STEM_FEATURES, State
from mixrl.vector import padded

LEVEL = 4  # column
FADERS = [(k, move.amount) for k, move in enumerate(STEM_MOVES) if move.kind == "gain"]
LIMIT_DB = 24.0


class Faders:
    """One such mix: like MixEnv as far as validation needs it."""

    def __init__(self, levels_db: np.ndarray, steps: int = 12, gains: bool = True) -> None:
        self.start, self.steps, self.gains = np.asarray(levels_db, dtype=np.float64), steps, gains
        self.layout = Layout(len(levels_db), 1)
        self.reset()

    def reset(self) -> tuple[Any, dict[str, Any]]:
        self.levels, self.taken = self.start.copy(), 0
        return self._look()

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.state.mask[action]
        before = self.score
        self.taken += 1
        stop = action == self.layout.mix_start
        if not stop:
            stem, move = divmod(int(action), len(STEM_MOVES))
            self.levels[stem] += STEM_MOVES[move].amount
        observation, info = self._look()
        reward = 0.0 if stop else self.score - before - MOVE_COST
        return observation, reward, stop, not stop and self.taken >= self.steps, info

    def _look(self) -> tuple[Any, dict[str, Any]]:
        count = len(self.levels)
        self.score = -float(np.abs(self.levels).mean()) / 6.0
        stems = np.zeros((count, STEM_FEATURES), dtype=np.float32)
        stems[:, LEVEL] = self.levels / 10.0
        mix = np.zeros(MIX_FEATURES, dtype=np.float32)
        mix[-1] = 1.0 - self.taken / self.steps
        mask, gains = np.zeros(self.layout.size, dtype=bool), np.zeros(self.layout.size, dtype=np.float32)
        mask[self.layout.mix_start] = True
        for move, amount in FADERS:
            after = self.levels + amount
            columns = np.arange(count) * len(STEM_MOVES) + move
            mask[columns] = np.abs(after) <= LIMIT_DB
            better = (np.abs(self.levels) - np.abs(after)) / 6.0 / count - MOVE_COST
            gains[columns] = np.where(mask[columns] & self.gains, better, 0.0)
        groups = np.zeros((1, GROUP_FEATURES), dtype=np.float32)
        self.state = State(stems, groups, mix, np.zeros(count, dtype=np.int64), gains, mask)
        return self.state, {"score": self.score}


class FaderEnvs:
    """E such mixes of 2 to 4 stems in parallel: like VectorMixEnv."""

    def __init__(self, envs: int, gains: bool = True, most_stems: int = 4, spread_db: float = 12.0) -> None:
        self.envs, self.gains, self.most, self.spread_db = envs, gains, most_stems, spread_db

    def reset(self, *, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.rngs = [np.random.default_rng([seed, k]) for k in range(self.envs)]
        self.inside = [self._new(rng) for rng in self.rngs]
        self.returns = np.zeros(self.envs)
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], Any, Any, Any, dict[str, Any]]:
        rewards, ends, cuts = np.zeros(self.envs), np.zeros(self.envs, bool), np.zeros(self.envs, bool)
        for k, env in enumerate(self.inside):
            columns = padded_columns(len(env.levels), 1, self.most, 1)
            action = int(np.flatnonzero(columns == actions[k])[0])
            _, rewards[k], ends[k], cuts[k], _ = env.step(action)
        self.returns += rewards
        done = ends | cuts
        info = {"episode_return": np.where(done, self.returns, 0.0), "_final_obs": done}
        for k in np.flatnonzero(done):
            self.inside[k], self.returns[k] = self._new(self.rngs[k]), 0.0
        return self._observe(), rewards, ends, cuts, info

    def _new(self, rng: np.random.Generator) -> Faders:
        count = int(rng.integers(2, self.most + 1))
        return Faders(rng.uniform(-self.spread_db, self.spread_db, count), gains=self.gains)

    def _observe(self) -> dict[str, np.ndarray]:
        return padded([env.state for env in self.inside], self.most, 1)


def starts(count: int, gains: bool = True, seed: int = 99) -> dict[str, list[Callable[[], Faders]]]:
    """What makes the fixed starts of two made-up sessions."""
    rng = np.random.default_rng(seed)
    return {
        name: [partial(Faders, rng.uniform(-12.0, 12.0, stems), gains=gains) for _ in range(count)]
        for name, stems in (("three", 3), ("four", 4))
    }
