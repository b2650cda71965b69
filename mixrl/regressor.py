"""Learning people's levels from the sound of stems: extremely randomised trees (P. Geurts, D. Ernst and L. Wehenkel,
"Extremely randomized trees", 2006) from the features of ``stem_features`` to the level of a stem against the median of
its session, and to how far that is off on songs that were left out.

By itself it is the honest rival of the agent, and what it learned is the prior that the agent's score goes by
(``people``). Every song is learned from twice, with what its stems are called and without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixrl.balance import FEWEST, heard
from mixrl.forest import LEAF, Forest
from mixrl.measures import Array
from mixrl.people import LevelPrior
from mixrl.scene import Scene
from mixrl.stem_features import role_features, stem_features

TREES, ERROR_TREES, FOLD_TREES = 100, 50, 60
STEMS_IN_LEAF, ERRORS_IN_LEAF = 3, 10  # at least
SHARE = 0.8  # of the features, tried at each split
REAL_WEIGHT = 3.0  # of a stem that people played, against one rendered from MIDI
FOLDS = 5  # of songs; each fold's errors are those of trees that learned from the others


@dataclass(frozen=True)
class Balance:
    """A session whose balance is known. features (N, FEATURES); roles: N; human_lufs (N,); heard (N,) bool: the stems
    that count; real: whether people played it."""

    features: Array
    roles: tuple[str | None, ...]
    human_lufs: Array
    heard: NDArray[np.bool_]
    real: bool


def balance_of(scene: Scene, real: bool) -> Balance | None:
    """A session at people's levels, to learn from; None with fewer than five stems that are heard."""
    human = scene.measures(scene.neutral()).stem_lufs
    counted = heard(human) & scene.facts.audible
    if counted.sum() < FEWEST:
        return None
    return Balance(stem_features(scene), scene.facts.roles, human, counted, real)


def learn(songs: Sequence[Balance], made_by: Mapping[str, str] | None = None, seed: int = 0) -> LevelPrior:
    """A prior from songs. Needs scikit-learn (the extras train and evaluate); ValueError for fewer than two songs."""
    if len(songs) < 2:
        raise ValueError("levels are learned from two songs or more")
    rows = [_rows(song) for song in songs]
    levels = [np.tile(_levels(song), 2) for song in songs]
    weights = [np.full(len(its), REAL_WEIGHT if song.real else 1.0) for its, song in zip(levels, songs, strict=True)]
    fold = np.random.default_rng(seed).permutation(len(songs)) % min(FOLDS, len(songs))
    errors: list[Array] = [np.zeros(0)] * len(songs)
    for out in np.unique(fold).tolist():
        kept = [n for n in range(len(songs)) if fold[n] != out]
        trees = _fit(rows, levels, weights, kept, FOLD_TREES, STEMS_IN_LEAF, seed)
        for n in np.flatnonzero(fold == out).tolist():
            off = np.split(trees.predict(rows[n]) - levels[n], 2)  # with names, and without
            errors[n] = np.concatenate([np.abs(part - np.median(part)) for part in off])
    everyone = range(len(songs))
    return LevelPrior(
        _forest(_fit(rows, levels, weights, everyone, TREES, STEMS_IN_LEAF, seed)),
        _forest(_fit(rows, errors, weights, everyone, ERROR_TREES, ERRORS_IN_LEAF, seed)),
        dict(made_by or {}),
    )


def _fit(
    rows: Sequence[Array], wanted: Sequence[Array], weights: Sequence[Array], songs: Sequence[int], count: int,
    leaf: int, seed: int,
) -> Any:  # fmt: skip
    from sklearn.ensemble import ExtraTreesRegressor

    trees = ExtraTreesRegressor(count, min_samples_leaf=leaf, max_features=SHARE, random_state=seed)
    joined = (np.concatenate([of[n] for n in songs]) for of in (rows, wanted, weights))
    x, y, weight = joined
    return trees.fit(x, y, sample_weight=weight)


def _forest(fitted: Any) -> Forest:
    """Fitted trees as arrays. They are stored depth first, lower branch first, as ``Forest`` wants them."""
    trees = [estimator.tree_ for estimator in fitted.estimators_]
    sizes = [tree.node_count for tree in trees]
    inner = [tree.children_left >= 0 for tree in trees]
    return Forest(
        roots=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32),
        feature=np.concatenate([np.where(on, t.feature, LEAF) for t, on in zip(trees, inner, strict=True)]).astype(
            np.int16
        ),
        value=np.concatenate(
            [np.where(on, t.threshold, t.value[:, 0, 0]) for t, on in zip(trees, inner, strict=True)]
        ).astype(np.float32),
        upper=np.concatenate(
            [np.where(on, t.children_right - np.arange(t.node_count), 0) for t, on in zip(trees, inner, strict=True)]
        ).astype(np.int16),
    )


def _rows(song: Balance) -> Array:
    """The heard stems' features, first with what the stems are called and then without."""
    nobody = role_features((None,) * len(song.roles))
    both = [np.concatenate([song.features, called], axis=1) for called in (role_features(song.roles), nobody)]
    return np.concatenate([rows[song.heard] for rows in both])


def _levels(song: Balance) -> Array:
    levels = song.human_lufs[song.heard]
    return np.asarray(levels - np.median(levels))
