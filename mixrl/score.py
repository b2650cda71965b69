"""Measures -> named penalty terms -> one score; the reward of a move is the score's improvement.

Every term is 0 for a mix inside its corridor and grows by about 1 for a fault that anybody would hear; the score is
minus the weighted sum, so 0 is the best there is. The corridors come from published measurements:

- spectrum, stereo: third-octave level and side/mid of finished songs (``data/reference.json``), one standard
  deviation wide; compare P. D. Pestana et al., "Spectral characteristics of popular commercial recordings" (AES 2013).
- balance: loudness of a source relative to the mix, B. De Man et al., "An analysis and evaluation of audio features
  for multitrack music mixtures" (ISMIR 2014), through ``roles.LEVELS``.
- headroom: peak-to-short-term ratio of 8 dB and more in the loudest part (AES convention e-brief 373), and light
  limiting.

Nothing here knows how a mix was made: the same function judges predicted and rendered measures. Arrays may carry
leading batch axes, as in ``Measures``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

import numpy as np

from mixrl.measures import CENTRES_HZ, Array, Facts, Measures
from mixrl.roles import LEVELS

WEIGHTS = MappingProxyType(
    {
        "spectrum": 1.0,
        "balance": 1.0,
        "audibility": 1.0,
        "cancellation": 0.5,
        "stereo": 0.5,
        "placement": 0.5,
        "headroom": 0.5,
        "restraint": 0.5,
        "tempo": 1.0,
    }
)
TERMS: tuple[str, ...] = tuple(WEIGHTS)

CENTRED_ROLES = frozenset({"vocal", "kick", "snare", "bass"})
UNKNOWN_LEVEL = (-13.0, -22.0, -6.0)  # LU, for stems whose role is unknown: inside the span of all roles
AUDIBLE_DB = -12.0
_WORST = 6.0
_JUDGED_HZ = (35.0, 14000.0)


@dataclass(frozen=True)
class Reference:
    """Third-octave corridor of finished songs, (31,) each: level_db and deviation_db relative to the total,
    side_mid_db."""

    level_db: Array
    deviation_db: Array
    side_mid_db: Array


@lru_cache(maxsize=1)
def reference() -> Reference:
    """The corridor that ships with mixrl, carried over to the 31 bands from 20 Hz to 20 kHz."""
    data = json.loads((files("mixrl") / "data" / "reference.json").read_text(encoding="utf-8"))
    x, centres = np.log(data["centres_hz"]), np.log(CENTRES_HZ)
    level, deviation, side = (
        np.interp(centres, x, data[key]) for key in ("level_db", "deviation_db", "side_minus_mid_db")
    )
    return Reference(level, np.maximum(deviation, 2.5), side)


@lru_cache(maxsize=256)
def level_corridor(roles: tuple[str | None, ...], active: tuple[bool, ...]) -> Array:
    """(N, 3) mean, low and high loudness of each stem relative to the mix, LU.

    Published figures are for one source of a kind; stems that share a role share its power.
    """
    rows = []
    for role in roles:
        alike = sum(1 for other, on in zip(roles, active, strict=True) if on and other == role)
        level = UNKNOWN_LEVEL if role is None else LEVELS[role]
        rows.append(np.array(level) - 10.0 * np.log10(max(alike, 1)))
    return np.array(rows).reshape(-1, 3)


def _over(value: Array, limit: Array | float, unit: float) -> Array:
    """How far a value is over its limit, in units; straight at first, never more than ``_WORST``, so that one
    hopeless stem does not hide all the others."""
    excess = np.maximum(value - limit, 0.0) / unit
    return np.asarray(excess / (1.0 + excess / _WORST))


def _rms(values: Array, weights: Array) -> Array:
    return np.asarray(np.sqrt((values**2 * weights).sum(-1) / max(float(weights.sum()), 1e-9)))


def terms(measures: Measures, facts: Facts) -> dict[str, Array]:
    """The penalty of each of ``TERMS``, (...) each, all >= 0."""
    ref = reference()
    judged = facts.counted & (_JUDGED_HZ[0] < CENTRES_HZ) & (_JUDGED_HZ[1] > CENTRES_HZ)
    bands = judged.astype(np.float64)
    stems = facts.audible.astype(np.float64)
    corridor = level_corridor(facts.roles, tuple(bool(a) for a in facts.audible))

    off = measures.spectrum_db - ref.level_db
    off = off - (off * bands).sum(-1, keepdims=True) / max(bands.sum(), 1.0)
    spectrum = _rms(_over(np.abs(off), ref.deviation_db, 6.0), bands)

    level = measures.stem_lufs - measures.integrated_lufs[..., None]
    balance = _rms(_over(level, corridor[:, 2], 6.0) + _over(-level, -corridor[:, 1], 6.0), stems)
    audibility = _rms(_over(-measures.audibility_db, -AUDIBLE_DB, 6.0), stems)
    cancellation = _rms(_over(-measures.cancellation_db, 1.0, 3.0), bands)

    width = measures.side_mid_db - ref.side_mid_db
    # a low end that is narrower than the reference is no fault
    narrow = np.where(CENTRES_HZ < 200.0, 0.0, np.clip(_over(-width, 10.0, 12.0), 0.0, 1.0))
    stereo = _rms(_over(width, 6.0, 6.0) + narrow, bands) + _over(np.abs(measures.imbalance_db), 1.0, 3.0)

    centred = stems * np.array([role in CENTRED_ROLES for role in facts.roles], dtype=np.float64)
    placement = _rms(_over(np.abs(measures.position), 0.1, 0.3), centred) if centred.any() else 0.0 * spectrum
    if stems.any():
        placement = placement + _rms(_over(np.abs(measures.position), 0.7, 0.3), stems)

    headroom = _over(measures.limiting_db, 2.0, 4.0) + _over(-measures.psr_db, -8.0, 3.0)
    restraint = _rms(_over(measures.eq_change_db, 2.0, 4.0) + _over(measures.gain_reduction_db, 2.0, 3.0), stems)
    # every dB of EQ and compression has to earn its place
    changed = (measures.eq_change_db + measures.gain_reduction_db) * stems
    restraint = restraint + changed.sum(-1) / max(float(stems.sum()), 1.0) / 30.0

    weight = facts.tempo_weight
    octaves = np.abs(np.log2(measures.tempo_ratio / facts.tempo_target))
    tempo = (octaves * weight).sum(-1) / max(float(weight.sum()), 1.0) * 10.0
    values = (spectrum, balance, audibility, cancellation, stereo, placement, headroom, restraint, tempo)
    return dict(zip(TERMS, (np.asarray(v) for v in values), strict=True))


def score(measures: Measures, facts: Facts) -> Array:
    """The score (...), at most 0; higher is better."""
    found = terms(measures, facts)
    return np.asarray(-sum(WEIGHTS[name] * value for name, value in found.items()))

