"""How close a mix is to the one that people made of the same stems: what training on broken copies is rewarded by.

Only training knows people's mix, so nothing of this enters what a network sees. What no move can bring back is the same
for every mix, so it does not count in what a move gains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixrl.balance import heard
from mixrl.knobs import neutral_knobs
from mixrl.measures import Array, Measures
from mixrl.scene import Scene

# What a dB of balance, of the mix's spectrum and of each stem's spectrum costs, and a unit of position.
LEVEL_COST, MIX_COST, STEM_COST, POSITION_COST = 0.3, 0.1, 0.05, 0.5
_CONTENT_DB = 40.0  # bands that are further under a stem's strongest do not count
_TINY = 1e-20


@dataclass(frozen=True)
class Reference:
    """People's mix of N stems. lufs (N,), heard (N,): levels, and whose count; spectrum_db (31,) and counted (31,) of
    the mix; stems_db (N, 31) and filled (N, 31): spectra of the stems and the bands in which they have content;
    position (N,)."""

    lufs: Array
    heard: NDArray[np.bool_]
    spectrum_db: Array
    counted: NDArray[np.bool_]
    stems_db: Array
    filled: NDArray[np.bool_]
    position: Array

    @classmethod
    def of(cls, scene: Scene) -> Reference:
        """The reference for copies of a scene as people left it."""
        knobs = neutral_knobs(scene.facts)
        measures, own = scene.current(knobs), scene.own_power(knobs)
        stems_db = _decibels(own)
        filled = stems_db > stems_db.max(axis=1, keepdims=True) - _CONTENT_DB
        told = heard(measures.stem_lufs) & scene.facts.audible
        return cls(
            measures.stem_lufs, told, measures.spectrum_db, scene.facts.counted, stems_db, filled, measures.position
        )

    def closeness(self, measures: Measures, shapes: Array) -> Array:
        """(...) at most 0; 0 is people's mix. shapes (..., N): how far each stem's spectrum is from people's, dB, as
        ``off_shape`` says."""
        apart = (measures.stem_lufs - self.lufs)[..., self.heard]
        apart = apart - np.median(apart, axis=-1, keepdims=True)
        spectrum = (measures.spectrum_db - self.spectrum_db)[..., self.counted]
        spectrum = spectrum - spectrum.mean(axis=-1, keepdims=True)
        turned = np.abs(measures.position - self.position)[..., self.heard]
        return -(
            LEVEL_COST * np.abs(apart).mean(axis=-1)
            + MIX_COST * np.sqrt(np.square(spectrum).mean(axis=-1))
            + STEM_COST * shapes[..., self.heard].mean(axis=-1)
            + POSITION_COST * turned.mean(axis=-1)
        )

    def off_shape(self, power: Array) -> Array:
        """(N, ...) RMS distance of stems' spectra from people's, dB, their mean taken off. power: (N, ..., 31)."""
        extra = (1,) * (power.ndim - 2)
        theirs, filled = (of.reshape(len(of), *extra, -1) for of in (self.stems_db, self.filled))
        apart = np.where(filled, _decibels(power) - theirs, 0.0)
        count = np.maximum(filled.sum(axis=-1), 1)
        apart = np.where(filled, apart - (apart.sum(axis=-1) / count)[..., None], 0.0)
        return np.asarray(np.sqrt(np.square(apart).sum(axis=-1) / count))


def _decibels(power: Array) -> Array:
    return np.asarray(10.0 * np.log10(np.maximum(power, _TINY)))


@dataclass(frozen=True)
class Goal:
    """Closeness to people's mix as part of a reward. shown: whether it is among the one-step rewards that an
    environment tells; not for a policy that sees them, which must do without at use."""

    reference: Reference
    weight: float
    shown: bool

    def now(self, scene: Scene, measures: Measures) -> float:
        """The worth of the mix that the scene was last asked for (``Scene.current``), whose measures these are."""
        shapes = self.reference.off_shape(scene.current_power())
        return self.weight * float(self.reference.closeness(measures, shapes))

    def after(self, scene: Scene, actions: NDArray[np.int64], measures: Measures) -> Array:
        """(B,) the worth of every one-move successor of that mix, as ``Scene.deltas`` has just given them."""
        shapes = np.repeat(self.reference.off_shape(scene.current_power())[None], len(actions), axis=0)
        candidates = self.reference.off_shape(scene.successor_power())  # (N, moves)
        count, moves = candidates.shape
        own = np.flatnonzero(actions < count * moves)
        stem, move = np.divmod(actions[own], moves)
        shapes[own, stem] = candidates[stem, move]
        return self.weight * self.reference.closeness(measures, shapes)
