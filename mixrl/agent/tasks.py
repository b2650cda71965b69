"""What is practised: sessions as they are, and parts of sessions with faders and EQ knocked about.

Damage is baked into the recording and the settings start neutral, so that nothing shows what was done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mixrl.agent.config import Practice, TrainConfig
from mixrl.agent.material import Material
from mixrl.env import MixEnv
from mixrl.knobs import COLUMNS, EQ, GAIN, TEMPO
from mixrl.rules import starting_mix
from mixrl.scene import Scene
from mixrl.songs import hash_of
from mixrl.vector import Task, VectorMixEnv

FULL = 8  # stems: sessions of fewer are drawn less often


def sampler(material: Sequence[Material], practice: Practice) -> Callable[[np.random.Generator], Task]:
    """Draws random tasks for ``vector.VectorMixEnv``."""
    kinds = [m for m in material if m.real], [m for m in material if not m.real]
    chances = [_chances(kind) for kind in kinds]

    def sample(rng: np.random.Generator) -> Task:
        real = not kinds[1] or (bool(kinds[0]) and rng.random() < practice.real_share)
        kind = 0 if real else 1
        scene = kinds[kind][int(rng.choice(len(kinds[kind]), p=chances[kind]))].scene
        fits = len(scene.facts.names) <= practice.most_stems
        whole = fits and rng.random() < practice.whole_share
        scene = scene.subset(range(len(scene.facts.names))) if whole else damaged(scene, practice, rng)
        return Task(scene, starting_mix(scene) if rng.random() < practice.rule_share else None)

    return sample


def _chances(material: Sequence[Material]) -> NDArray[np.float64]:
    weights = np.array([min(int(m.scene.facts.audible.sum()), FULL) for m in material], dtype=np.float64)
    return weights / max(weights.sum(), 1.0)


def damaged(scene: Scene, practice: Practice, rng: np.random.Generator) -> Scene:
    """Some of a session's audible stems, with faders and perhaps EQ knocked about."""
    heard = np.flatnonzero(scene.facts.audible)
    most = min(practice.most, len(heard))
    count = int(rng.integers(min(practice.fewest, most), most + 1))
    stems = np.sort(rng.choice(heard, count, replace=False))
    strips = np.zeros((count, COLUMNS))
    strips[:, TEMPO] = 1.0
    strips[:, GAIN] = rng.uniform(-practice.faders_db, practice.faders_db, count)
    if rng.random() < practice.eq_share:
        strips[:, EQ:] = rng.uniform(-practice.eq_db, practice.eq_db, strips[:, EQ:].shape)
    return scene.subset(stems.tolist(), strips)


def environments_of(
    config: TrainConfig, material: Sequence[Material], held: Sequence[Material]
) -> tuple[VectorMixEnv, dict[str, list[Callable[[], MixEnv]]]]:
    """Environments to train in, and the starts to validate on, by session, which are the same for every seed: of each
    session in ``held`` one as it is, and ``config.validation_starts`` less one damaged ones. A start is made when it is
    called: an environment that has been played takes some 20 MB."""
    practice = config.practice
    stems = max([practice.most, *(min(len(m.scene.facts.names), practice.most_stems) for m in material)])
    groups = max(len(m.scene.facts.groups) for m in material)
    environments = VectorMixEnv(
        sampler(material, practice), config.envs, most_stems=stems, most_groups=groups, gains=config.looks
    )

    def start(scene: Scene, session: int, number: int) -> MixEnv:
        if number:
            scene = damaged(scene, practice, np.random.default_rng([session, number]))
        else:
            scene = scene.subset(range(len(scene.facts.names)))  # with caches of its own, which go when it goes
        return MixEnv(scene, start=starting_mix(scene), gains=config.use_gains)

    starts: dict[str, list[Callable[[], MixEnv]]] = {
        one.name: [partial(start, one.scene, session, number) for number in range(config.validation_starts)]
        for session, one in enumerate(held)
    }
    return environments, starts


def fingerprint(material: Sequence[Material]) -> str:
    """A hash of what is trained and validated on."""
    return hash_of([one.key for one in material])
