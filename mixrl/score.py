"""Measures -> named penalty terms -> one score; the reward of a move is the score's improvement.

Every term is 0 for a mix inside its corridor and grows by about 1 for a fault that anybody would hear; the score is
minus the weighted sum, so 0 is the best there is. The corridors come from published measurements:

- spectrum, stereo: third-octave level and side/mid of finished songs (``data/reference.json``), one standard
  deviation wide; compare P. D. Pestana et al., "Spectral characteristics of popular commercial recordings" (AES 2013).
- balance: loudness of a source relative to the mix, B. De Man et al., "An analysis and evaluation of audio features
  for multitrack music mixtures" (ISMIR 2014), through ``roles.LEVELS``.
- sound and places, once more: where it is known what people would do (``Facts.expected``), what the stems as they came
  make at these levels is no fault, but for what is left of it after ``TRUST``; and processing costs more.
- headroom: peak-to-short-term ratio of 8 dB and more in the loudest part (AES convention e-brief 373), and light
  limiting.

Nothing here knows how a mix was made: the same function judges predicted and rendered measures. Arrays may carry
leading batch axes, as in ``Measures``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixrl.compiled import summing
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
_WEIGHTS = np.array(list(WEIGHTS.values()))

CENTRED_ROLES = frozenset({"vocal", "kick", "snare", "bass"})
UNKNOWN_LEVEL = (-13.0, -22.0, -6.0)  # LU, for stems whose role is unknown: inside the span of all roles
AUDIBLE_DB = -12.0
_ASIDE, _THROWN = 0.1, 0.7  # positions: of what belongs in the centre, of anything
_LEANING_DB = 1.0
# Where it is known what people would do, the sound of the stems as they came says more of people's mix than finished
# songs do (benchmarks/sound.py): so far the limits move towards it, for audibility much less. A spectrum that is
# further off is a fault.
TRUST, _TRUST_IN_QUIET = 0.85, 0.3
_FAR_OFF_DB, _FARTHEST_DB = 10.0, 30.0  # of a spectrum, of width
_UNHEARD_DB = -24.0  # audibility of a stem that plays elsewhere
_MONO_DB = -40.0  # side over mid: below, nobody has panned anything yet
_EFFORT, _EFFORT_ON_PEOPLES = 1.0 / 30.0, 0.1  # what a dB of processing costs, the latter on sound that people left
_SHIFT_DB = 5.0  # of processing, that a shift by half of the stereo base counts as
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


class Yardstick(NamedTuple):
    """What ``Facts`` come down to for the score. level, deviation, side: as in ``Reference``, moved towards the
    session's own sound; bands, stems, centred: 1.0 where they count; corridor: as ``level_corridor`` gives it. quiet
    (N,): audibility below which a stem is buried, dB; aside, thrown (N,): how far off the centre a stem may be for
    nothing, as one of those that belong there and as any; home, kept (N,): where it came, and 1.0 where people chose
    that; leaning (1,): imbalance for nothing, dB; effort (1,): what a dB of processing costs, mean of all stems."""

    level: Array
    deviation: Array
    side: Array
    bands: Array
    stems: Array
    corridor: Array
    centred: Array
    quiet: Array
    aside: Array
    thrown: Array
    home: Array
    kept: Array
    leaning: Array
    effort: Array
    target: Array
    sure: Array


def yardstick(facts: Facts) -> Yardstick:
    """To score many measures of one session, make it once."""
    ref, count = reference(), len(facts.roles)
    judged = facts.counted & (_JUDGED_HZ[0] < CENTRES_HZ) & (_JUDGED_HZ[1] > CENTRES_HZ)
    centred = np.array([role in CENTRED_ROLES for role in facts.known_roles], dtype=np.float64)
    level, side, quiet, effort = ref.level_db, ref.side_mid_db, np.full(count, AUDIBLE_DB), _EFFORT
    home, kept, leaning = np.zeros(count), np.zeros(count), _LEANING_DB
    if facts.expected is not None:
        mix = facts.expected.mix
        own, _ = own_tone(facts)
        far = own if facts.album_tone_db is None else np.where(judged, facts.album_tone_db, 0.0)
        level = level + own - (1.0 - TRUST) * far
        deeper = np.minimum(mix.audibility_db - quiet, 0.0)
        quiet = quiet + np.where(mix.audibility_db < _UNHEARD_DB, 1.0, _TRUST_IN_QUIET) * deeper
        effort = _EFFORT_ON_PEOPLES
        if (mix.side_mid_db[judged] > _MONO_DB).any():
            side = side + TRUST * np.clip(mix.side_mid_db - side, -_FARTHEST_DB, _FARTHEST_DB)
            home, kept = mix.position, np.ones(count)
            leaning = max(leaning, abs(float(mix.imbalance_db)))
    return Yardstick(
        level=level,
        deviation=ref.deviation_db,
        side=side,
        bands=judged.astype(np.float64),
        stems=facts.audible.astype(np.float64),
        corridor=_corridor(facts),
        centred=facts.audible * centred,
        quiet=quiet,
        aside=np.maximum(_ASIDE, np.abs(home)),
        thrown=np.maximum(_THROWN, np.abs(home)),
        home=home,
        kept=facts.audible * kept,
        leaning=np.array([leaning]),
        effort=np.array([effort]),
        target=facts.tempo_target,
        sure=facts.tempo_weight,
    )


def own_tone(facts: Facts) -> tuple[Array, NDArray[np.bool_]]:
    """(31,) how far the stems as they came, at the levels where people would have them, are from finished songs, dB per
    third-octave, as far as that is no fault; and where that is known."""
    judged = facts.counted & (_JUDGED_HZ[0] < CENTRES_HZ) & (_JUDGED_HZ[1] > CENTRES_HZ)
    if facts.expected is None:
        return np.zeros(len(CENTRES_HZ)), np.zeros(len(CENTRES_HZ), dtype=bool)
    own = np.where(judged, facts.expected.mix.spectrum_db - reference().level_db, 0.0)
    own = np.where(judged, own - own.sum() / max(judged.sum(), 1), 0.0)
    return np.clip(own, -_FAR_OFF_DB, _FAR_OFF_DB), judged


def _corridor(facts: Facts) -> Array:
    """(N, 3) mean, low and high loudness of each stem relative to the mix, LU: where people would have it, if that is
    known."""
    if facts.expected is None:
        return level_corridor(facts.known_roles, tuple(facts.audible.tolist()))
    middle, off = facts.expected.relative_lu, facts.expected.tolerance_db
    return np.stack([middle, middle - off, middle + off], axis=1)


def terms(measures: Measures, facts: Facts) -> dict[str, Array]:
    """The penalty of each of ``TERMS``, (...) each, all >= 0."""
    found = penalties(measures, yardstick(facts))
    return {name: found[..., index] for index, name in enumerate(TERMS)}


def score(measures: Measures, facts: Facts) -> Array:
    """The score (...), at most 0; higher is better."""
    return scored(measures, yardstick(facts))


def scored(measures: Measures, by: Yardstick) -> Array:
    """The score (...), as ``score`` gives it."""
    return np.asarray(-(penalties(measures, by) @ _WEIGHTS))


def penalties(measures: Measures, by: Yardstick) -> Array:
    """(..., TERMS)"""
    m = measures
    batch = np.shape(m.integrated_lufs)
    count = math.prod(batch)
    found = np.empty((count, len(TERMS)))
    single = [m.integrated_lufs, m.imbalance_db, m.limiting_db, m.psr_db]
    banded = [m.spectrum_db, m.side_mid_db, m.cancellation_db]
    per_stem = [m.stem_lufs, m.audibility_db, m.position, m.eq_change_db, m.gain_reduction_db, m.tempo_ratio]
    arrays = [
        *(_flat(values, (count,)) for values in single),
        *(_flat(values, (count, len(by.bands))) for values in banded),
        *(_flat(values, (count, len(by.stems))) for values in per_stem),
    ]
    _penalties(by, found, *arrays)
    return found.reshape(*batch, len(TERMS))


def _flat(values: Array, shape: tuple[int, ...]) -> Array:
    if values.shape == shape and values.dtype == np.float64 and values.flags.c_contiguous:
        return values  # it is called so often that the line below costs
    return np.ascontiguousarray(values, dtype=np.float64).reshape(shape)


class Pull(NamedTuple):
    """How the score of one mix changes with its measures: per dB of each third-octave of its spectrum and of side/mid
    (31,), per LU of each stem's loudness relative to the mix, dB of its audibility and unit of its position (N,), and
    per dB of imbalance (1,). What changes rarely or in leaps (headroom, processing, tempo) is left out."""

    spectrum: Array
    side_mid: Array
    level: Array
    audibility: Array
    position: Array
    imbalance: Array


def pull(measures: Measures, by: Yardstick) -> Pull:
    """The derivatives of the score of one mix, without batch axes, with respect to its measures."""
    m, bands, stems = measures, len(by.bands), len(by.stems)
    found = Pull(*(np.zeros(size) for size in (bands, bands, stems, stems, stems, 1)))
    _pull(by, float(m.integrated_lufs), float(m.imbalance_db), m.spectrum_db, m.side_mid_db, m.stem_lufs,
          m.audibility_db, m.position, found)  # fmt: skip
    return found


@summing
def _over(value, limit, unit):  # type: ignore[no-untyped-def]
    """How far a value is over its limit, in units; straight at first, never more than ``_WORST``, so that one
    hopeless stem does not hide all the others."""
    excess = max(value - limit, 0.0) / unit
    return excess / (1.0 + excess / _WORST)


@summing
def _penalties(  # type: ignore[no-untyped-def]
    by, found, integrated, imbalance, limiting, psr, spectrum, side_mid, cancellation,
    lufs, audibility, position, eq_change, reduction, tempo,
):  # fmt: skip
    """Fill found (B, TERMS) from B mixes. by: ``Yardstick``; the rest as in ``Measures``."""
    level, deviation, side, bands, stems, corridor, centred, quiet, beside, out, home, kept, leaning, effort = by[:14]
    target, sure = by[14:]
    judged = max(bands.sum(), 1e-9)
    heard = max(stems.sum(), 1e-9)
    centre = max(centred.sum(), 1e-9)
    for n in range(found.shape[0]):
        mean = 0.0
        for t in range(bands.shape[0]):
            mean += (spectrum[n, t] - level[t]) * bands[t]
        mean /= max(bands.sum(), 1.0)
        off, lost, wide = 0.0, 0.0, 0.0
        for t in range(bands.shape[0]):
            off += bands[t] * _over(abs(spectrum[n, t] - level[t] - mean), deviation[t], 6.0) ** 2
            lost += bands[t] * _over(-cancellation[n, t], 1.0, 3.0) ** 2
            width = side_mid[n, t] - side[t]
            # a low end that is narrower than the reference is no fault
            narrow = 0.0 if CENTRES_HZ[t] < 200.0 else min(_over(-width, 10.0, 12.0), 1.0)
            wide += bands[t] * (_over(width, 6.0, 6.0) + narrow) ** 2
        balance, buried, aside, thrown, worked, changed, stretched = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(stems.shape[0]):
            if tempo[n, i] != target[i]:
                stretched += abs(math.log2(tempo[n, i] / target[i])) * sure[i]
            if stems[i] == 0.0:
                continue
            relative = lufs[n, i] - integrated[n]
            balance += (_over(relative, corridor[i, 2], 6.0) + _over(-relative, -corridor[i, 1], 6.0)) ** 2
            buried += _over(-audibility[n, i], -quiet[i], 6.0) ** 2
            aside += centred[i] * _over(abs(position[n, i]), beside[i], 0.3) ** 2
            thrown += _over(abs(position[n, i]), out[i], 0.3) ** 2
            worked += (_over(eq_change[n, i], 2.0, 4.0) + _over(reduction[n, i], 2.0, 3.0)) ** 2
            changed += eq_change[n, i] + reduction[n, i] + kept[i] * _SHIFT_DB * abs(position[n, i] - home[i])
        found[n, 0] = math.sqrt(off / judged)
        found[n, 1] = math.sqrt(balance / heard)
        found[n, 2] = math.sqrt(buried / heard)
        found[n, 3] = math.sqrt(lost / judged)
        found[n, 4] = math.sqrt(wide / judged) + _over(abs(imbalance[n]), leaning[0], 3.0)
        found[n, 5] = math.sqrt(aside / centre) + math.sqrt(thrown / heard)
        found[n, 6] = _over(limiting[n], 2.0, 4.0) + _over(-psr[n], -8.0, 3.0)
        # every dB of EQ and compression has to earn its place
        found[n, 7] = math.sqrt(worked / heard) + changed / max(heard, 1.0) * effort[0]
        found[n, 8] = stretched / max(sure.sum(), 1.0) * 10.0


@summing
def _rise(value, limit, unit):  # type: ignore[no-untyped-def]
    """The derivative of ``_over``."""
    if value <= limit:
        return 0.0
    return 1.0 / (unit * (1.0 + (value - limit) / unit / _WORST) ** 2)


@summing
def _root(total, count, slopes):  # type: ignore[no-untyped-def]
    """From half the derivatives of total to those of -sqrt(total / count), in place."""
    root = max(math.sqrt(total * count), 1e-9)
    for k in range(slopes.shape[0]):
        slopes[k] = -slopes[k] / root


@summing
def _pull(by, integrated, imbalance, spectrum, side_mid, lufs, audibility, position, found):  # type: ignore[no-untyped-def]
    level, deviation, side, bands, stems, corridor, centred, quiet, beside, out, home, kept = by[:12]
    judged = max(bands.sum(), 1e-9)
    heard = max(stems.sum(), 1e-9)
    mean = 0.0
    for t in range(bands.shape[0]):
        mean += (spectrum[t] - level[t]) * bands[t]
    mean /= max(bands.sum(), 1.0)
    off, wide = 0.0, 0.0
    for t in range(bands.shape[0]):
        away = spectrum[t] - level[t] - mean
        over = _over(abs(away), deviation[t], 6.0)
        off += bands[t] * over**2
        found.spectrum[t] = bands[t] * over * _rise(abs(away), deviation[t], 6.0) * (1.0 if away > 0.0 else -1.0)
        width = side_mid[t] - side[t]
        narrow, less = 0.0, 0.0
        if CENTRES_HZ[t] >= 200.0:
            narrow = min(_over(-width, 10.0, 12.0), 1.0)
            less = _rise(-width, 10.0, 12.0) if narrow < 1.0 else 0.0
        over = _over(width, 6.0, 6.0) + narrow
        wide += bands[t] * over**2
        found.side_mid[t] = bands[t] * over * (_rise(width, 6.0, 6.0) - less)
    _root(off, judged, found.spectrum)
    common = (found.spectrum * bands).sum() / max(bands.sum(), 1.0)
    for t in range(bands.shape[0]):  # the mean goes along
        found.spectrum[t] -= common * bands[t]
    _root(wide, judged, found.side_mid)
    balance, buried, aside, thrown = 0.0, 0.0, 0.0, 0.0
    outward, homeward = np.zeros(stems.shape[0]), np.zeros(stems.shape[0])
    for i in range(stems.shape[0]):
        if stems[i] == 0.0:
            continue
        relative, place = lufs[i] - integrated, abs(position[i])
        sign = 1.0 if position[i] > 0.0 else -1.0
        over = _over(relative, corridor[i, 2], 6.0) + _over(-relative, -corridor[i, 1], 6.0)
        balance += over**2
        rise = _rise(relative, corridor[i, 2], 6.0) - _rise(-relative, -corridor[i, 1], 6.0)
        found.level[i] = over * rise
        over = _over(-audibility[i], -quiet[i], 6.0)
        buried += over**2
        found.audibility[i] = -over * _rise(-audibility[i], -quiet[i], 6.0)
        over = _over(place, beside[i], 0.3)
        aside += centred[i] * over**2
        found.position[i] = centred[i] * over * _rise(place, beside[i], 0.3) * sign
        over = _over(place, out[i], 0.3)
        thrown += over**2
        outward[i] = over * _rise(place, out[i], 0.3) * sign
        homeward[i] = -kept[i] * np.sign(position[i] - home[i]) * _SHIFT_DB / max(heard, 1.0) * by.effort[0]
    _root(balance, heard, found.level)
    _root(buried, heard, found.audibility)
    _root(aside, max(centred.sum(), 1e-9), found.position)
    _root(thrown, heard, outward)
    rise = _rise(abs(imbalance), by.leaning[0], 3.0)
    found.imbalance[0] = -_WEIGHTS[4] * (rise if imbalance > 0.0 else -rise)
    for t in range(bands.shape[0]):
        found.spectrum[t] *= _WEIGHTS[0]
        found.side_mid[t] *= _WEIGHTS[4]
    for i in range(stems.shape[0]):
        found.level[i] *= _WEIGHTS[1]
        found.audibility[i] *= _WEIGHTS[2]
        found.position[i] = _WEIGHTS[5] * (found.position[i] + outward[i]) + _WEIGHTS[7] * homeward[i]
