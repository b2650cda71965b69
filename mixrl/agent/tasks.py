"""What is practised: people's sessions as they are, and parts of them that were broken.

Damage is baked into the recording and the settings start neutral, so that nothing shows what was done. What people
would do with a copy is asked of a prior that has not learned from its song, as it will be at use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mixrl.agent.config import Practice, TrainConfig
from mixrl.agent.material import Material
from mixrl.closeness import Goal, Reference
from mixrl.env import MixEnv
from mixrl.facts import nobody_knows
from mixrl.knobs import COLUMNS, EQ, GAIN, INVERT, PAN, TEMPO, joined, neutral_knobs
from mixrl.measures import Array
from mixrl.people import LevelPrior, informed
from mixrl.rules import starting_mix
from mixrl.scene import Scene
from mixrl.songs import hash_of
from mixrl.stem_features import peaks_dbfs
from mixrl.vector import Task, VectorMixEnv

FULL = 8  # stems: sessions of fewer are drawn less often
FOLDS = 5  # of songs: each is practised on with what was learned from the other folds
_TILT, _SHELF, _RESONANCE = range(1, 4)  # kinds of EQ damage, besides any
_ANYWHERE, _COLLAPSED, _SWAPPED = range(3)  # kinds of pan damage
_PANS = np.linspace(-1.0, 1.0, 41)


@dataclass(frozen=True)
class Practised:
    """A session to practise on, and what is known of people's levels without it (None: what ships)."""

    scene: Scene
    real: bool
    human: bool
    prior: LevelPrior | None


def practised(material: Sequence[Material], seed: int = 0) -> list[Practised]:
    """Sessions with priors that were learned from songs of other folds. Needs scikit-learn."""
    from mixrl.regressor import balance_of, learn

    songs = [balance_of(one.scene, one.real) if one.human else None for one in material]
    fold = np.random.default_rng(seed).permutation(len(material)) % FOLDS
    priors: dict[int, LevelPrior | None] = {}
    for out in range(FOLDS):
        others = [song for song, of in zip(songs, fold, strict=True) if song is not None and of != out]
        priors[out] = learn(others) if len(others) > 1 else None
    return [
        Practised(one.scene, one.real, song is not None, priors[int(of)])
        for one, song, of in zip(material, songs, fold, strict=True)
    ]


def sampler(sessions: Sequence[Practised], practice: Practice, shown: bool) -> Callable[[np.random.Generator], Task]:
    """Draws random tasks for ``vector.VectorMixEnv``. shown: as for ``closeness.Goal``."""
    kinds = [m for m in sessions if m.real], [m for m in sessions if not m.real]
    chances = [_chances(kind) for kind in kinds]

    def sample(rng: np.random.Generator) -> Task:
        real = not kinds[1] or (bool(kinds[0]) and rng.random() < practice.real_share)
        kind = 0 if real else 1
        session = kinds[kind][int(rng.choice(len(kinds[kind]), p=chances[kind]))]
        fits = len(session.scene.facts.names) <= practice.most_stems
        whole = fits and rng.random() < practice.whole_share
        return _task(session, practice, shown, rng, whole, rng.random() < practice.rule_share)

    return sample


def _task(
    session: Practised, practice: Practice, shown: bool, rng: np.random.Generator, whole: bool, from_rules: bool
) -> Task:
    """A session as it is, or a broken part of it, with people's mix of the same stems as the goal."""
    scene = session.scene
    stems = np.arange(len(scene.facts.names)) if whole else _some(scene, practice, rng)
    as_left = scene.subset(stems.tolist())
    reference = Reference.of(as_left) if session.human and practice.people else None
    copy = as_left if whole else damaged(as_left, practice, rng)
    if rng.random() < practice.nameless_share:
        copy = copy.with_facts(nobody_knows(copy.facts))
    copy = informed(copy, session.prior)
    goal = None if reference is None else Goal(reference, practice.people, shown)
    return Task(copy, starting_mix(copy) if from_rules else None, goal=goal)


def _chances(sessions: Sequence[Practised]) -> NDArray[np.float64]:
    weights = np.array([min(int(m.scene.facts.audible.sum()), FULL) for m in sessions], dtype=np.float64)
    return weights / max(weights.sum(), 1.0)


def _some(scene: Scene, practice: Practice, rng: np.random.Generator) -> NDArray[np.int64]:
    """Some of a session's audible stems."""
    heard = np.flatnonzero(scene.facts.audible)
    most = min(practice.most, len(heard))
    count = int(rng.integers(min(practice.fewest, most), most + 1))
    return np.sort(rng.choice(heard, count, replace=False))


def damaged(scene: Scene, practice: Practice, rng: np.random.Generator) -> Scene:
    """A broken copy: as ``Practice`` says."""
    count = len(scene.facts.names)
    strips = np.zeros((count, COLUMNS))
    strips[:, TEMPO] = 1.0
    way = rng.random()
    if way < 2.0 * practice.level_share:
        by_peak = way < practice.level_share
        levels = peaks_dbfs(scene) if by_peak else scene.measures(scene.neutral()).stem_lufs
        strips[:, GAIN] = np.where(scene.facts.audible, np.clip(np.median(levels) - levels, -40.0, 40.0), 0.0)
    else:
        spread = float(rng.choice(practice.spreads_db))
        strips[:, GAIN] = rng.uniform(-spread, spread, count)
    if rng.random() < practice.eq_share:
        strips[:, EQ:] = _bad_eq(strips[:, EQ:].shape, practice.eq_db, rng)
    if rng.random() < practice.pan_share:
        strips[:, PAN] = _bad_pans(scene, rng)
    if rng.random() < practice.flip_share:
        strips[int(rng.integers(count)), INVERT] = 1.0
    return scene.subset(range(count), strips)


def _bad_pans(scene: Scene, rng: np.random.Generator) -> Array:
    """Pans (N,): half of the stems anywhere, or all in the centre, or left and right swapped."""
    count, kind = len(scene.facts.names), int(rng.integers(_SWAPPED + 1))
    if kind == _ANYWHERE:
        return np.where(rng.random(count) < 0.5, rng.uniform(-1.0, 1.0, count), 0.0)
    knobs = joined([neutral_knobs(scene.facts)] * len(_PANS))
    knobs.strips[:, :, PAN] = _PANS[:, None]
    places = scene.evaluate(knobs).position
    wanted = np.zeros(count) if kind == _COLLAPSED else -scene.measures(scene.neutral()).position
    return np.asarray(_PANS[np.abs(places - wanted).argmin(axis=0)])


def _bad_eq(shape: tuple[int, ...], most_db: float, rng: np.random.Generator) -> Array:
    """Gains (stems, bands), dB, from low to high."""
    found = rng.uniform(-most_db, most_db, shape)
    kind = int(rng.integers(4))
    if kind in (_TILT, _SHELF):
        tilt = found[:, :1]
        found = np.concatenate([tilt, np.zeros((shape[0], shape[1] - 2)), -tilt if kind == _TILT else 0.0 * tilt], 1)
        if kind == _SHELF and rng.random() < 0.5:
            found = found[:, ::-1]
    elif kind == _RESONANCE:
        peak = rng.integers(1, shape[1] - 1, shape[0])
        found = np.where(np.arange(shape[1]) == peak[:, None], np.abs(found) + most_db / 2.0, 0.0)
    return found


def environments_of(
    config: TrainConfig, material: Sequence[Material], held: Sequence[Material]
) -> tuple[VectorMixEnv, dict[str, list[Callable[[], MixEnv]]]]:
    """Environments to train in, and the starts to validate on, by session, which are the same for every seed: of each
    session in ``held`` one as it is, and ``config.validation_starts`` less one broken ones. A start is made when it is
    called: an environment that has been played takes some 20 MB."""
    practice = config.practice
    separate = [one for one in held if one.key not in {other.key for other in material}]
    sessions = practised([*material, *separate])
    of = {one.key: session for one, session in zip([*material, *separate], sessions, strict=True)}
    stems = max([practice.most, *(min(len(m.scene.facts.names), practice.most_stems) for m in material)])
    groups = max(len(m.scene.facts.groups) for m in material)
    shown = not config.use_gains
    environments = VectorMixEnv(
        sampler(sessions[: len(material)], practice, shown), config.envs, most_stems=stems, most_groups=groups,
        gains=config.looks,
    )  # fmt: skip

    def start(session: Practised, number: int, which: int) -> MixEnv:
        rng = np.random.default_rng([number, which])
        task = _task(session, replace(practice, nameless_share=0.0), shown, rng, not which, True)
        return MixEnv(task.scene, start=task.start, gains=config.use_gains, goal=task.goal)

    starts: dict[str, list[Callable[[], MixEnv]]] = {
        one.name: [partial(start, of[one.key], number, which) for which in range(config.validation_starts)]
        for number, one in enumerate(held)
    }
    return environments, starts


def fingerprint(material: Sequence[Material]) -> str:
    """A hash of what is trained and validated on."""
    return hash_of([one.key for one in material])
