"""Session + analysis -> ``Facts``: roles, groups, bandwidths and what tempo each stem should have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mixrl.analysis import SUBBANDS, Analysis
from mixrl.excerpt import active_seconds
from mixrl.measures import CENTRES_HZ, EDGES_HZ, Array, Facts
from mixrl.roles import group_of_role, role_of
from mixrl.session import Session

_CONTENT_DB = -60.0  # relative to the stem's strongest third-octave: below this a band holds nothing worth boosting
_COUNTED_DB = -45.0  # relative to the strongest band of the summed stems


def gather(
    session: Session,
    analysis: Analysis,
    target_lufs: float,
    ceiling_dbtp: float,
    tempo_ratios: Mapping[str, float] | None = None,
    tempo_weights: Mapping[str, float] | None = None,
) -> Facts:
    """The facts of a session that was analysed over an excerpt.

    tempo_ratios, tempo_weights: by stem name, the ratio it should be played at and how sure that is, 0..1 (see
    ``tempo.TempoPlan``); a stem that is absent stays as it is.
    """
    names = session.names
    roles = tuple(stem.role or role_of(stem.name) for stem in session.stems)
    members = tuple(
        stem.group or group_of_role(role) for stem, role in zip(session.stems, roles, strict=True)
    )
    playing = active_seconds([stem.activity for stem in session.stems]).mean(axis=1)
    playing[[stem.silent for stem in session.stems]] = 0.0
    bands = np.stack([_thirds(spectra.own.sum(axis=0)) for spectra in analysis.stems])
    playing[bands.sum(axis=1) <= 0.0] = 0.0
    total = bands[playing > 0.0].sum(axis=0) if (playing > 0.0).any() else bands.sum(axis=0)
    ratios, weights = tempo_ratios or {}, tempo_weights or {}
    return Facts(
        names=names,
        roles=roles,
        members=members,
        activity=playing,
        bandwidth_hz=np.array([_bandwidth(row) for row in bands]),
        counted=total > max(float(total.max()), 1e-20) * 10.0 ** (_COUNTED_DB / 10.0),
        target_lufs=target_lufs,
        ceiling_dbtp=ceiling_dbtp,
        tempo_target=np.array([ratios.get(name, 1.0) for name in names]),
        tempo_weight=np.array([weights.get(name, 0.0) for name in names]),
        own_groups=tuple(stem.group is not None for stem in session.stems),
    )


def nobody_knows(facts: Facts) -> Facts:
    """Facts as they are of stems that have no names."""
    count = len(facts.names)
    digits = max(len(str(count)), 2)
    names = tuple(f"track{n:0{digits}d}" for n in range(1, count + 1))
    return replace(
        facts, names=names, roles=(None,) * count, members=(group_of_role(None),) * count, expected=None, guesses=None,
        own_groups=(False,) * count,
    )  # fmt: skip


def _thirds(bands: np.ndarray) -> Array:
    return np.asarray(bands.reshape(len(CENTRES_HZ), SUBBANDS).sum(axis=1), dtype=np.float64)


def _bandwidth(thirds: Array) -> float:
    held = np.flatnonzero(thirds > max(float(thirds.max()), 1e-20) * 10.0 ** (_CONTENT_DB / 10.0))
    return float(EDGES_HZ[held[-1] + 1]) if len(held) else 0.0
