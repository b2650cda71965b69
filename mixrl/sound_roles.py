"""What a stem is, from its sound, where its name does not tell: kick, bass, guitar, and so the group it is mixed in.

A ``RoleClassifier`` is a multinomial logistic regression on what ``stem_features`` says of a stem but where it lies in
the stereo image, which is the mix's. What it is not sure of it does not say. Names, and what ``mixrl.toml`` and folders
say, always go before: ``Facts.roles`` stays what they tell, ``Facts.guesses`` is what is heard where they tell nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixrl.errors import InputError
from mixrl.measures import Array, Facts
from mixrl.roles import ROLES, group_of_role
from mixrl.scene import Scene
from mixrl.stem_features import FEATURES, NAMES, stem_features
from mixrl.weights import load_arrays, save_arrays

FORMAT = "mixrl-roles-1"
SURE_OF_GROUP, SURE_OF_ROLE = 0.7, 0.5  # least probabilities at which a role is said
GROUPS = ("vocals", "drums", "bass", "music")
_PLACE = ("width", "off centre")
COLUMNS: NDArray[np.int64] = np.array(
    [k for k in range(2 * len(NAMES)) if NAMES[k % len(NAMES)] not in _PLACE]
)
"""Of ``stem_features``: all but the place in the stereo image and the number of stems."""
_FARTHEST = 4.0  # standard deviations: what is farther out is as odd as can be
_IN_GROUP: Array = np.array([[float(group_of_role(role) == group) for group in GROUPS] for role in ROLES])


@dataclass(frozen=True)
class RoleClassifier:
    """mean, scale (COLUMNS,): of the features it learned from; weights (COLUMNS, ROLES), bias (ROLES,): of logits."""

    mean: Array
    scale: Array
    weights: Array
    bias: Array
    made_by: Mapping[str, str] = field(default_factory=dict)

    def predict(self, features: Array) -> Array:
        """(N, ROLES) probabilities of each role of stems with these features (N, FEATURES)."""
        away = standardised(features, self.mean, self.scale)
        # not a matrix product: its rounding would depend on how many stems there are
        logits = (away[:, :, None] * self.weights).sum(axis=1) + self.bias
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(chances / chances.sum(axis=1, keepdims=True))

    def guess(self, features: Array) -> tuple[str | None, ...]:
        """N roles of stems with these features (N, FEATURES), None where it is not sure."""
        chances = self.predict(features)
        sure = (chances @ _IN_GROUP)[np.arange(len(chances)), of_groups(chances)] >= SURE_OF_GROUP
        best = np.argmax(np.where(_IN_GROUP[:, of_groups(chances)].T > 0.0, chances, -1.0), axis=1)
        sure &= chances[np.arange(len(chances)), best] >= SURE_OF_ROLE
        return tuple(ROLES[role] if on else None for role, on in zip(best, sure, strict=True))

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, atomically; what is there is replaced."""
        arrays = {name: getattr(self, name).astype(np.float32) for name in _SHAPES}
        save_arrays(arrays, {**_about(), **self.made_by}, path)


_SHAPES: Mapping[str, tuple[int, ...]] = {
    "mean": (len(COLUMNS),), "scale": (len(COLUMNS),), "weights": (len(COLUMNS), len(ROLES)), "bias": (len(ROLES),),
}  # fmt: skip


def _about() -> dict[str, str]:
    return {"format": FORMAT, "features": str(FEATURES), "roles": ",".join(ROLES)}


def standardised(features: Array, mean: Array, scale: Array) -> Array:
    """(N, COLUMNS) of features (N, FEATURES): how many times scale from the mean, (COLUMNS,) each."""
    return np.asarray(np.clip((features[:, COLUMNS] - mean) / scale, -_FARTHEST, _FARTHEST))


def of_groups(chances: Array) -> NDArray[np.int64]:
    """(N,) the most probable of ``GROUPS``, from probabilities of roles (N, ROLES)."""
    return np.asarray(np.argmax(chances @ _IN_GROUP, axis=1))


def load_classifier(path: str | Path) -> RoleClassifier:
    """Read a classifier. Raises InputError naming the file when it is none of this version."""
    arrays, about = load_arrays(path, "file of roles")
    mend = "make one with this version's `mixrl roles`"
    if any(about.pop(name, None) != value for name, value in _about().items()):
        raise InputError(f"{path}: no roles of format {FORMAT} for this version's features: {mend}")
    for name, shape in _SHAPES.items():
        if name not in arrays or arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise InputError(f"{path}: {name} is missing or damaged: {mend}")
    if (arrays["scale"] <= 0.0).any():
        raise InputError(f"{path}: scale is missing or damaged: {mend}")
    return RoleClassifier(**{name: arrays[name].astype(np.float64) for name in _SHAPES}, made_by=about)


@lru_cache(maxsize=1)
def default_classifier() -> RoleClassifier:
    """The classifier that ships with mixrl."""
    with as_file(files("mixrl") / "data" / "roles.safetensors") as path:
        return load_classifier(path)


def guessed(scene: Scene, classifier: RoleClassifier | None = None) -> Scene:
    """The scene with a guess in its facts at what stems are whose names do not tell, and these in the group of that
    role unless they have a group of their own. classifier: None for the one that ships. Silent stems get none, nor
    what lasts 0.1 s or less."""
    facts = scene.facts
    unknown = np.array([role is None for role in facts.roles]) & facts.audible
    if not unknown.any() or scene.analysis.hops < 2:  # of 100 ms: nothing goes on in one
        return scene
    heard = (classifier or default_classifier()).guess(stem_features(scene))
    guesses = tuple(role if on else None for role, on in zip(heard, unknown, strict=True))
    own = _own_groups(facts)
    members = tuple(
        group_of_role(guess) if role is None and not kept else member
        for role, guess, kept, member in zip(facts.roles, guesses, own, facts.members, strict=True)
    )
    return scene.with_facts(replace(facts, guesses=guesses, members=members, own_groups=own))


def _own_groups(facts: Facts) -> tuple[bool, ...]:
    if facts.own_groups is not None:
        return facts.own_groups
    return tuple(
        "/" in name or member != group_of_role(role)
        for name, member, role in zip(facts.names, facts.members, facts.roles, strict=True)
    )
