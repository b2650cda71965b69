"""A supervised regressor of levels: what people's balances say of a stem by its sound, without any search.

Extremely randomised trees (P. Geurts, D. Ernst and L. Wehenkel, "Extremely randomized trees", 2006) from the features
of ``stem_features`` to the level of a stem against the median of its session. It is the honest rival of the agent:
the same features, and people's levels as its only lesson.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixrl.measures import Array
from mixrl.stem_features import role_features

TREES = 300
LEAF = 4  # stems in a leaf, at least
SHARE = 0.4  # of the features, tried at each split
REAL_WEIGHT = 10.0  # of a stem that people played, against one rendered from MIDI


@dataclass(frozen=True)
class Balance:
    """A session whose balance is known. features (N, FEATURES); roles: N; human_lufs (N,); heard (N,) bool: the stems
    that count; real: whether people played it."""

    features: Array
    roles: tuple[str | None, ...]
    human_lufs: Array
    heard: NDArray[np.bool_]
    real: bool


def fit(songs: Sequence[Balance], names: bool = True, seed: int = 0) -> Any:
    """Trees that learned from songs, with or without what stems are called. Needs scikit-learn (the evaluate extra);
    ValueError for no songs."""
    from sklearn.ensemble import ExtraTreesRegressor

    if not songs:
        raise ValueError("no songs to learn from")
    rows = np.concatenate([_rows(song, names)[song.heard] for song in songs])
    levels = np.concatenate([_levels(song) for song in songs])
    weights = np.concatenate([np.full(song.heard.sum(), REAL_WEIGHT if song.real else 1.0) for song in songs])
    trees = ExtraTreesRegressor(TREES, min_samples_leaf=LEAF, max_features=SHARE, random_state=seed)
    return trees.fit(rows, levels, sample_weight=weights)


def predict(trees: Any, song: Balance, names: bool = True) -> Array:
    """(N,) levels of a song's stems against their median, LU. ``names`` as it was learned with."""
    return np.asarray(trees.predict(_rows(song, names)), dtype=np.float64)


def _rows(song: Balance, names: bool) -> Array:
    return np.concatenate([song.features, role_features(song.roles)], axis=1) if names else song.features


def _levels(song: Balance) -> Array:
    levels = song.human_lufs[song.heard]
    return np.asarray(levels - np.median(levels))
