"""Learning what stems are from their sound, and how well that is told.

Labels are the roles that names tell. Names in sessions rendered from General MIDI were made from each part's program,
so they are true; those in real sessions are what people called their stems, as ``roles.role_of`` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixrl.measures import Array
from mixrl.roles import ROLES, group_of_role
from mixrl.scene import Scene
from mixrl.score import CENTRED_ROLES
from mixrl.sound_roles import COLUMNS, GROUPS, RoleClassifier, of_groups, standardised
from mixrl.stem_features import stem_features

REAL_WEIGHT = 3.0  # of a stem that people played, against one rendered from MIDI
EVENNESS = 0.5  # 0: every stem weighs the same; 1: every role does
STRENGTH = 0.1  # inverse of the ridge penalty
DROPPED = 0.3  # of names, to see what sound makes up for
_NEVER = -30.0  # bias of a role that no stem had


@dataclass(frozen=True)
class Labelled:
    """A session to learn roles from. names, roles: N, by name; features (N, FEATURES); heard (N,) bool: the stems that
    sound; real: whether people played it."""

    names: tuple[str, ...]
    roles: tuple[str | None, ...]
    features: Array
    heard: NDArray[np.bool_]
    real: bool

    @property
    def known(self) -> NDArray[np.int64]:
        """The stems that sound and whose role is known."""
        return np.flatnonzero(self.heard & np.array([role is not None for role in self.roles]))


def labelled(scene: Scene, real: bool) -> Labelled:
    """A session as it is learned from."""
    facts = scene.facts
    return Labelled(facts.names, facts.roles, stem_features(scene), facts.audible, real)


def learn(songs: Sequence[Labelled], made_by: Mapping[str, str] | None = None) -> RoleClassifier:
    """A classifier from songs. Needs scikit-learn (the extras train and evaluate); ValueError for fewer than three
    roles in all."""
    from sklearn.linear_model import LogisticRegression

    numbers = {role: number for number, role in enumerate(ROLES)}
    roles = np.array([numbers[role] for song in songs for n in song.known if (role := song.roles[n])], dtype=np.int64)
    if len(set(roles.tolist())) < 3:
        raise ValueError("roles are learned from stems of three roles or more")
    features = np.concatenate([song.features[song.known] for song in songs])
    mean, scale = features[:, COLUMNS].mean(axis=0), features[:, COLUMNS].std(axis=0) + 1e-6
    weight = np.repeat([REAL_WEIGHT if song.real else 1.0 for song in songs], [len(song.known) for song in songs])
    weight = weight / np.bincount(roles, weight)[roles] ** EVENNESS
    fitted = LogisticRegression(C=STRENGTH, max_iter=1000)
    fitted.fit(standardised(features, mean, scale), roles, sample_weight=weight / weight.mean())
    weights, bias = np.zeros((len(COLUMNS), len(ROLES))), np.full(len(ROLES), _NEVER)
    weights[:, fitted.classes_], bias[fitted.classes_] = fitted.coef_.T, fitted.intercept_
    return RoleClassifier(mean, scale, weights, bias, dict(made_by or {}))


def judged(song: Labelled, classifier: RoleClassifier, seed: Sequence[int] = (0,)) -> list[dict[str, Any]]:
    """A record of each stem that sounds. role: by name; best: the most probable by sound, and best_group, of the most
    probable group; guess: what is said, None where it is not sure; dropped: whether the name counts as lost, as
    ``DROPPED`` of them do."""
    chances = classifier.predict(song.features)
    groups, guesses = of_groups(chances), classifier.guess(song.features)
    dropped = np.random.default_rng(list(seed)).random(len(song.roles)) < DROPPED
    return [
        {
            "stem": song.names[n], "role": song.roles[n], "best": ROLES[int(np.argmax(chances[n]))],
            "best_group": GROUPS[groups[n]], "guess": guesses[n], "dropped": bool(dropped[n]),
        }
        for n in np.flatnonzero(song.heard).tolist()
    ]  # fmt: skip


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the records of ``judged`` say. Shares are None where there is nothing to share.

    stems; named: share of them whose name tells a role, and these are what the rest goes by, but for unnamed_said: the
    share of the others that sound says something of. best_role, best_group: how often the most probable is right; said:
    how often sound is sure; right_role, right_group: how often it is right then; centred, right_centred: how often it
    says a centred role, and is right then. With ``DROPPED`` of the names lost: names_role, names_group: right by the
    names that are left (no role is wrong, and is mixed as music); both_role, both_group: the same with sound for what
    is lost. roles, groups: of each, stems, recall of the most probable, how many are said to be of it and how many of
    these are.
    """
    named = [row for row in rows if row["role"] is not None]
    unnamed = [row for row in rows if row["role"] is None]
    said = [row for row in named if row["guess"] is not None]
    centred = [row for row in said if row["guess"] in CENTRED_ROLES]
    left = [None if row["dropped"] else row["role"] for row in named]
    both = [role or row["guess"] for role, row in zip(left, named, strict=True)]
    roles, groups = [row["role"] for row in named], [group_of_role(row["role"]) for row in named]
    return {
        "stems": len(rows),
        "named": _share([row["role"] is not None for row in rows]),
        "unnamed_said": _share([row["guess"] is not None for row in unnamed]),
        "best_role": _share([row["best"] == row["role"] for row in named]),
        "best_group": _share([row["best_group"] == group for row, group in zip(named, groups, strict=True)]),
        "said": _share([row["guess"] is not None for row in named]),
        "right_role": _share([row["guess"] == row["role"] for row in said]),
        "right_group": _share([group_of_role(row["guess"]) == group_of_role(row["role"]) for row in said]),
        "centred": _share([row["guess"] in CENTRED_ROLES for row in named]),
        "right_centred": _share([row["guess"] == row["role"] for row in centred]),
        "names_role": _share([a == b for a, b in zip(left, roles, strict=True)]),
        "names_group": _share([group_of_role(a) == b for a, b in zip(left, groups, strict=True)]),
        "both_role": _share([a == b for a, b in zip(both, roles, strict=True)]),
        "both_group": _share([group_of_role(a) == b for a, b in zip(both, groups, strict=True)]),
        "roles": {
            role: _of([(row["role"] == role, row["best"] == role, row["guess"] == role) for row in named])
            for role in ROLES
        },
        "groups": {
            group: _of([
                (
                    group_of_role(row["role"]) == group,
                    row["best_group"] == group,
                    row["guess"] is not None and group_of_role(row["guess"]) == group,
                )
                for row in named
            ])
            for group in GROUPS
        },
    }  # fmt: skip


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def _of(hits: Sequence[tuple[bool, bool, bool]]) -> dict[str, Any]:
    """From whether each stem is it, most probably is it, and is said to be it."""
    said = [true for true, _, guess in hits if guess]
    return {
        "stems": sum(true for true, _, _ in hits),
        "found": _share([best for true, best, _ in hits if true]),
        "said": len(said),
        "right": sum(said),
    }
