"""Where people would have the faders: what a stem's sound tells of its level, weighed against how it was delivered.

A ``LevelPrior``, learned from sessions that people mixed, says how loud stems of such a sound usually are, and how far
it is usually off. The faders as delivered tell something too: perhaps they are as people left them, perhaps they were
moved by a few dB, or by many, or all stems were brought to one loudness. Bayes' rule weighs these cases by how well the
delivered levels agree with the prior, and gives each stem's level as far as it can be known (an empirical Bayes
estimate; H. Robbins, 1956). Where that promises too little, the faders are left where they are.

Only what a stem sounds like and how loud it was delivered goes in: no reference mix.
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
from mixrl.forest import Forest
from mixrl.knobs import GAIN, neutral_knobs
from mixrl.measures import Array, Expected, Facts
from mixrl.scene import Scene
from mixrl.stem_features import FEATURES, ROLE_FEATURES, role_features, stem_features
from mixrl.weights import load_arrays, save_arrays

FORMAT = "mixrl-levels-1"
OFFSETS_DB: Array = np.linspace(-30.0, 30.0, 241)  # of people's level from the prior's, that are considered
# Chances that delivered faders are off by up to so many dB either way: as people left them, by a little, by much.
_SPREADS_DB = {0.0: 0.30, 3.0: 0.20, 6.0: 0.20, 12.0: 0.25}
_LEVELLED = 0.05  # chance that all stems were brought to one loudness, to within
_LEVELLED_DB = 0.7
_TAILS = 7.0  # degrees of freedom of the prior's errors: Student's t, as some stems are where nobody would expect them
_ODD = 3e-4  # density, per dB, of stems that are where they are for reasons of their own, hardly heard, for one
_WORTH_DB = 0.7  # by which a balance must be expected to come nearer to people's; for less, the faders stay
_EDGE_DB = 0.25  # how soft the edges of the spreads are
_HARDLY_DB = 25.0  # below what is usual, a stem hardly sounds in what is listened to: its fader says nothing
_LEAST_ERROR_DB = 0.5
_OF_ERROR = 0.9  # of the learned errors: it errs least so on songs left out, MIDI more than real ones
LEAST_TOLERANCE_DB = 0.5
TOLERANCE = 0.25  # of the spread of what is known, that a level may be off for nothing


@dataclass(frozen=True)
class LevelPrior:
    """Two forests on ``stem_features`` and ``role_features``: levels of stems against the median of their session, LU,
    and how far these are usually off, dB."""

    level: Forest
    error: Forest
    made_by: Mapping[str, str] = field(default_factory=dict)

    def predict(self, features: Array, roles: tuple[str | None, ...]) -> tuple[Array, Array]:
        """Levels (N,) and errors (N,) of stems with these features (N, FEATURES) and roles."""
        rows = np.concatenate([features, role_features(roles)], axis=1)
        return self.level.predict(rows), self.error.predict(rows)

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, atomically; what is there is replaced."""
        arrays = self.level.arrays("level") | self.error.arrays("error")
        save_arrays(arrays, {"format": FORMAT, "features": str(FEATURES + ROLE_FEATURES), **self.made_by}, path)


def load_prior(path: str | Path) -> LevelPrior:
    """Read a prior. Raises InputError naming the file when it is none of this version."""
    arrays, about = load_arrays(path, "file of levels")
    mend = "make one with this version's `mixrl levels`"
    if about.pop("format", None) != FORMAT or about.pop("features", None) != str(FEATURES + ROLE_FEATURES):
        raise InputError(f"{path}: no levels of format {FORMAT} for this version's features: {mend}")
    try:
        prior = LevelPrior(Forest.of(arrays, "level"), Forest.of(arrays, "error"), about)
    except ValueError as error:
        raise InputError(f"{path}: {error}: {mend}") from None
    if max(int(prior.level.feature.max()), int(prior.error.feature.max())) >= FEATURES + ROLE_FEATURES:
        raise InputError(f"{path}: asks for features that there are not: {mend}")
    return prior


@lru_cache(maxsize=1)
def default_prior() -> LevelPrior:
    """The prior that ships with mixrl."""
    with as_file(files("mixrl") / "data" / "levels.safetensors") as path:
        return load_prior(path)


def informed(scene: Scene, prior: LevelPrior | None = None) -> Scene:
    """The scene with what people would have done in its facts, which its score then goes by. prior: None for the one
    that ships. A scene of fewer than two stems that sound comes back as it is: it has no balance."""
    sounds = np.flatnonzero(scene.facts.audible)
    if len(sounds) < 2:
        return scene
    levels, errors = (prior or default_prior()).predict(stem_features(scene), scene.facts.roles)
    as_delivered = scene.measures(scene.neutral())
    delivered = as_delivered.stem_lufs
    away = (delivered - levels)[sounds]
    sounds = sounds[away - np.median(away) > -_HARDLY_DB]
    found = weighed(levels[sounds], errors[sounds], delivered[sounds])
    count = len(delivered)
    target, spread = delivered.copy(), np.zeros(count)
    target[sounds], spread[sounds] = delivered[sounds] + found.change_db, found.spread_db
    centre, chances = delivered.copy(), np.zeros((len(found.cases), count, len(OFFSETS_DB)))
    centre[sounds], chances[:, sounds] = delivered[sounds] - found.away_db, found.chances
    expected = Expected(target, np.zeros(count), np.zeros(count), as_delivered, centre, found.cases, chances, False)
    gain = balance_risk_db(expected, delivered, scene.facts.audible)
    gain -= balance_risk_db(expected, target, scene.facts.audible)
    if gain < _WORTH_DB:
        target, spread = delivered, np.zeros(count)
    knobs = neutral_knobs(scene.facts)
    knobs.strips[:, GAIN] = target - delivered
    mix = scene.evaluate(knobs[None]).at(0)
    expected = replace(
        expected, level_lufs=target, relative_lu=target - mix.integrated_lufs, held=gain < _WORTH_DB, mix=mix,
        tolerance_db=np.maximum(TOLERANCE * spread, LEAST_TOLERANCE_DB),
    )  # fmt: skip
    return scene.with_facts(replace(scene.facts, expected=expected))


@dataclass(frozen=True)
class Weighed:
    """What comes of a prior and delivered levels, of N stems.

    change_db (N,): from the delivered level to the expected one if the faders were moved; spread_db (N,): standard
    deviation of what people may have done; away_db (N,): how far the delivered level is above the prior's, the median
    of the stems taken off; cases (C,): the chance of each way in which the faders may have been moved, not at all
    first; chances (C, N, K): in each case, of each of ``OFFSETS_DB`` from the prior's level to people's.
    """

    change_db: Array
    spread_db: Array
    away_db: Array
    cases: Array
    chances: Array


def weighed(levels: Array, errors_db: Array, delivered: Array) -> Weighed:
    """Levels (N,) that a prior says, how far it is usually off (N,), and the levels as delivered (N,), LU: one against
    the other."""
    away = delivered - levels
    away = away - np.median(away)
    scale = np.maximum(_OF_ERROR * errors_db, _LEAST_ERROR_DB)[:, None]
    prior = (1.0 + (OFFSETS_DB / scale) ** 2 / _TAILS) ** (-(_TAILS + 1.0) / 2.0)
    prior /= prior.sum(axis=1, keepdims=True)
    log_chances, cases = [], []
    for spread, chance in _SPREADS_DB.items():
        half = max(spread, _EDGE_DB)
        beyond = (np.abs(away[:, None] - OFFSETS_DB) - half) / _EDGE_DB
        joint = prior / (1.0 + np.exp(np.clip(beyond, -50.0, 50.0))) / (2.0 * half)
        total = joint.sum(axis=1, keepdims=True)
        log_chances.append(np.log(chance) + float(np.log(total + _ODD).sum()))
        cases.append(joint / np.maximum(total, 1e-12))
    level = (delivered - np.median(delivered)) / _LEVELLED_DB
    density = np.exp(-0.5 * np.minimum(level**2, 40.0)) / (_LEVELLED_DB * np.sqrt(2.0 * np.pi))
    log_chances.append(np.log(_LEVELLED) + float(np.log(density + _ODD).sum()))
    cases.append(prior)
    weights = np.exp(np.array(log_chances) - max(log_chances))
    weights /= weights.sum()
    by_case = np.stack(cases)
    by_case /= by_case.sum(axis=2, keepdims=True)
    chances = np.tensordot(weights[1:] / max(weights[1:].sum(), 1e-300), by_case[1:], axes=1)
    below = np.cumsum(chances, axis=1)
    middle = np.array([np.interp(0.5, row, OFFSETS_DB) for row in below])  # the median errs least
    mean = chances @ OFFSETS_DB
    spread_db = np.sqrt(np.maximum(chances @ OFFSETS_DB**2 - mean**2, 0.0))
    return Weighed(middle - away, spread_db, away, weights, by_case)


def balance_risk(facts: Facts, stem_lufs: Array) -> float | None:
    """``balance_risk_db`` of a balance of all stems that sound, stem_lufs (N,); None where nobody knows what people
    would do."""
    return None if facts.expected is None else balance_risk_db(facts.expected, stem_lufs, facts.audible)


def balance_risk_db(expected: Expected, stem_lufs: Array, counted: NDArray[np.bool_]) -> float:
    """How far a balance is likely to be from people's: the expected mean absolute deviation of the counted stems'
    levels, stem_lufs (N,), dB, their median difference taken off."""
    if not counted.any():
        return 0.0
    apart = (stem_lufs - expected.level_lufs)[counted]
    offset = (stem_lufs - expected.centre_lufs)[counted] - np.median(apart)
    chances = np.tensordot(expected.cases, expected.chances[:, counted], axes=1)
    return float((chances * np.abs(offset[:, None] - OFFSETS_DB)).sum(axis=1).mean())
