"""What a stem sounds like, whatever its level: features from which its place in a balance may be told.

Nothing here depends on how loud a stem was delivered, so faders that are off do not show. Every feature stands twice in
a row: as it is, and against the mean of the session's stems. All comes from the analysis that the closed form is made
of; no audio is read.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixrl.analysis import BANDS, HOP_STARTS, SUBBANDS
from mixrl.measures import CENTRES_HZ, Array
from mixrl.peaks import OCTAVES
from mixrl.roles import ROLES
from mixrl.scene import Scene

_BANDS = len(CENTRES_HZ)
_PERCENTILES = (10, 25, 50, 75, 90)
NAMES = (
    *(f"octave {k}" for k in range(OCTAVES)),
    "centroid", "spread", "flatness", "roll-off", "low end",
    "activity", "loud share", "crest", "flux", "variation", "onsets", "band flux",
    *(f"level {p}%" for p in _PERCENTILES),
    "peak to RMS", "width", "off centre", "audibility", "loudness to power",
)  # fmt: skip
FEATURES = 2 * len(NAMES) + 1  # with the number of stems
ROLE_FEATURES = 2 + 2 * len(ROLES)
_FLOOR_DB = -60.0
_REST_DB = -30.0  # against the loudest hop: softer ones are rests
_LOUD_DB = -10.0
_ONSET_DB = 6.0  # a rise by more within 100 ms
_TINY = 1e-20


def stem_features(scene: Scene) -> Array:
    """(N, FEATURES) of a session's stems; rows of 0 for stems that are silent, which count nowhere."""
    heard = np.flatnonzero(scene.facts.audible)
    found = np.zeros((len(scene.facts.names), FEATURES))
    if not len(heard):
        return found
    columns = np.stack(_columns(scene, heard), axis=1)
    count = np.full((len(heard), 1), float(len(heard)))
    found[heard] = np.concatenate([columns, columns - columns.mean(axis=0), count], axis=1)
    return found


def role_features(roles: tuple[str | None, ...]) -> Array:
    """(N, ROLE_FEATURES) what each stem is called: its role or none, how many of the session share it, and how many
    there are of every role."""
    own = np.array([[float(role == name) for name in ROLES] + [float(role is None)] for role in roles])
    number = own.sum(axis=0)
    return np.concatenate([own, (own @ number)[:, None], np.repeat(number[None, :-1], len(roles), axis=0)], axis=1)


def _columns(scene: Scene, heard: NDArray[np.int64]) -> list[Array]:
    """The features of ``NAMES``, (heard,) each."""
    analysis = scene.analysis
    stems = [analysis.stems[i] for i in heard]
    shape, sides = scene.recorded()
    shape, sides = shape[heard], sides[heard] ** 2
    own = np.array([stem.own for stem in stems], dtype=np.float64) * shape[:, None] * sides[:, :, None]
    power = own.reshape(len(heard), 2, _BANDS, SUBBANDS).sum((1, 3))
    hops = np.array([stem.hops.reshape(2, -1, analysis.hops) for stem in stems], dtype=np.float64)
    in_hops = np.add.reduceat(shape, SUBBANDS * np.array(HOP_STARTS), axis=1)
    in_hops /= np.diff([SUBBANDS * first for first in HOP_STARTS], append=BANDS)
    hops = (hops * in_hops[:, None, :, None] * sides[:, :, None, None]).sum(1)
    return [*_spectrum(power), *_time(hops), *_place(scene, heard, power), *_others(power, _while_playing(hops)[1])]


def _while_playing(hops: Array) -> tuple[NDArray[np.bool_], Array]:
    """Where stems play, (stems, T), and their K-weighted power there, (stems,). hops: (stems, bands, T)."""
    loud = hops.sum(axis=1)
    plays = loud > np.maximum(loud.max(axis=1, keepdims=True), _TINY) * 10.0 ** (_REST_DB / 10.0)
    return plays, (loud * plays).sum(axis=1) / np.maximum(plays.sum(axis=1), 1)


def _spectrum(power: Array) -> list[Array]:
    """The first fifteen: where a stem's power (stems, 31) lies."""
    part = power / np.maximum(power.sum(axis=1, keepdims=True), _TINY)
    edges = [*range(0, 3 * OCTAVES, 3), _BANDS]  # the last octave takes the rest
    octaves = [_decibels(part[:, a:b].sum(axis=1)) for a, b in pairwise(edges)]
    bands = np.arange(_BANDS)
    centroid = part @ bands
    spread = np.sqrt((part * (bands - centroid[:, None]) ** 2).sum(axis=1))
    flatness = np.log(part + 1e-6).mean(axis=1) - np.log(part.mean(axis=1) + 1e-6)
    below = np.cumsum(part, axis=1)
    return [*octaves, centroid, spread, flatness, (below < 0.85).sum(axis=1), (below < 0.15).sum(axis=1)]


def _time(hops: Array) -> list[Array]:
    """From activity to the percentiles: how a stem goes on. hops: (stems, bands, T)."""
    if hops.shape[2] == 1:  # which goes on as it began: there is nothing between two
        hops = np.repeat(hops, 2, axis=2)
    loud = hops.sum(axis=1)
    highest = np.maximum(loud.max(axis=1, keepdims=True), _TINY)
    plays, mean = _while_playing(hops)
    course = np.maximum(_decibels(loud / highest), -40.0)  # (stems, T) dB under its loudest hop
    rises = np.diff(course, axis=1)
    bands = np.maximum(_decibels(hops / np.maximum(hops.max(axis=(1, 2), keepdims=True), _TINY)), -40.0)
    return [
        plays.mean(axis=1),
        (loud > highest * 10.0 ** (_LOUD_DB / 10.0)).mean(axis=1),
        _decibels(highest[:, 0] / np.maximum(mean, _TINY)),
        np.abs(rises).mean(axis=1),
        course.std(axis=1),
        (rises > _ONSET_DB).mean(axis=1),
        np.abs(np.diff(bands, axis=2)).mean(axis=(1, 2)),
        *np.percentile(course, _PERCENTILES, axis=1),
    ]


def _place(scene: Scene, heard: NDArray[np.int64], power: Array) -> list[Array]:
    """Peak to RMS, width, and how far off the centre a stem was recorded."""
    analysis = scene.analysis
    shape, sides = scene.recorded()
    rows = [np.array([float(analysis.cross[row, i, i].real @ shape[i]) for i in heard]) for row in range(3)]
    left, right, both = rows[0] * sides[heard, 0] ** 2, rows[1] * sides[heard, 1] ** 2, rows[2] * sides[heard].prod(1)
    middle, side = (left + right + 2.0 * both) / 4.0, np.maximum(left + right - 2.0 * both, 0.0) / 4.0
    octaves = _octave_gains(shape)
    peak = np.array([_peak(analysis.stems[i].instants, octaves[i], sides[i]) for i in heard])
    return [
        _decibels(peak**2 / np.maximum(power.sum(axis=1) / 2.0, _TINY)),
        np.minimum(_decibels(side / np.maximum(middle, _TINY)), 10.0),
        np.abs(right - left) / np.maximum(left + right, _TINY),
    ]


def _peak(instants: NDArray[np.float32], octaves: Array, sides: Array) -> float:
    """The highest sample of a stem at the instants that are watched, octaves and sides with gains."""
    real = instants.reshape(2, OCTAVES, 2, -1)[0]
    return float(np.abs(np.einsum("osm,o,s->sm", real, octaves, sides)).max())


def peaks_dbfs(scene: Scene) -> Array:
    """(N,) sample peak of each stem as delivered, as far as the watched instants tell, dB."""
    shape, sides = scene.recorded()
    peaks = np.array([
        _peak(stem.instants, by, side)
        for stem, by, side in zip(scene.analysis.stems, _octave_gains(shape), sides, strict=True)
    ])  # fmt: skip
    return np.asarray(20.0 * np.log10(np.maximum(peaks, 1e-6)))


def _octave_gains(shape: Array) -> Array:
    """(N, OCTAVES) amplitude from power gains (N, BANDS)."""
    starts = 3 * SUBBANDS * np.arange(OCTAVES)
    return np.asarray(np.sqrt(np.add.reduceat(shape, starts, axis=1) / np.diff(starts, append=BANDS)))


def _others(power: Array, mean: Array) -> list[Array]:
    """The last two: the share of a stem in the bands where it lives when all are equally loud, dB; and how loud it is
    for its power."""
    equal = power / np.maximum(mean[:, None], _TINY)
    share = equal / np.maximum(equal.sum(axis=0), _TINY)
    part = power / np.maximum(power.sum(axis=1, keepdims=True), _TINY)
    return [_decibels((part * share).sum(axis=1)), _decibels(mean / np.maximum(power.sum(axis=1), _TINY))]


def _decibels(power: Array) -> Array:
    return np.asarray(np.maximum(10.0 * np.log10(np.maximum(power, _TINY)), _FLOOR_DB))
