"""Exploration: parallel environments that are curious in different degrees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def epsilons(envs: int, epsilon: float, power: float) -> NDArray[np.float64]:
    """(E,) chance of a random move in each environment: epsilon ** (1 + i / (E - 1) * power), D. Horgan et al.,
    "Distributed prioritized experience replay", 2018."""
    return np.asarray(epsilon ** (1.0 + np.arange(envs) / max(envs - 1, 1) * power))


def explore(
    best: NDArray[Any], mask: NDArray[np.bool_], chance: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """(E,) moves: the best (E,), or with each environment's chance (E,) any that its mask (E, A) allows, all alike."""
    random = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
    return np.where(rng.random(len(best)) < chance, random, best).astype(np.int64)
