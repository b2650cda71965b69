"""Mix settings as arrays and back: what the closed form, the environment and search work on.

``MixSettings`` is what people read and renderers use; ``Knobs`` holds the same values, for many mixes at once. A row
of ``strips`` has a column per knob of a stem; frequencies, Q and kinds of the EQ bands are no knobs but ``shapes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mixrl.measures import Array, Facts
from mixrl.settings import COMPRESSORS, EQ_BANDS, NEUTRAL_EQ, EqBand, MasterSettings, MixSettings, StripSettings

GAIN, PAN, INVERT, HIGHPASS, COMPRESSOR, TEMPO, EQ = range(7)  # columns; EQ is the first of its bands
COLUMNS = EQ + EQ_BANDS

Shape = tuple[tuple[str, float, float], ...]  # (kind, frequency in Hz, Q) of each EQ band
NEUTRAL_SHAPE: Shape = tuple((band.kind, band.frequency_hz, band.q) for band in NEUTRAL_EQ)


@dataclass(frozen=True)
class Knobs:
    """The settings of one mix, or of many with leading axes.

    strips: (..., N, COLUMNS): gain in dB, pan -1..1, polarity 0 or 1 (inverted), high-pass in Hz (0: off), compressor
    as a number in ``COMPRESSORS``, tempo ratio, and the gain of each EQ band in dB. groups: (..., G) gains in dB.
    shapes: the EQ bands of each of N stems, the same in all mixes; None where all are neutral's.
    """

    strips: Array
    groups: Array
    shapes: tuple[Shape, ...] | None = None

    def __getitem__(self, index: Any) -> Knobs:
        """One or some of the mixes."""
        return Knobs(self.strips[index], self.groups[index], self.shapes)

    def copy(self) -> Knobs:
        """The same values in arrays of their own."""
        return Knobs(self.strips.copy(), self.groups.copy(), self.shapes)


def neutral_knobs(facts: Facts) -> Knobs:
    """One mix that changes nothing."""
    strips = np.zeros((len(facts.names), COLUMNS))
    strips[:, TEMPO] = 1.0
    return Knobs(strips, np.zeros(len(facts.groups)))


def joined(mixes: list[Knobs]) -> Knobs:
    """Single mixes of one session and one EQ shape as a batch."""
    return Knobs(np.stack([m.strips for m in mixes]), np.stack([m.groups for m in mixes]), mixes[0].shapes)


def to_knobs(settings: MixSettings, facts: Facts) -> Knobs:
    """One mix as arrays, in the order of the facts' stems and groups. A group without a gain stands at 0 dB; InputError
    for a stem without settings."""
    strips = np.array([_row(settings.strip(name)) for name in facts.names]).reshape(-1, COLUMNS)
    shapes = tuple(tuple((b.kind, b.frequency_hz, b.q) for b in settings.strip(name).eq) for name in facts.names)
    groups = np.array([settings.groups.get(name, 0.0) for name in facts.groups])
    return Knobs(strips, groups, None if all(shape == NEUTRAL_SHAPE for shape in shapes) else shapes)


def to_settings(knobs: Knobs, facts: Facts) -> MixSettings:
    """One mix as settings, with the session's groups, target and ceiling."""
    shapes = knobs.shapes or (NEUTRAL_SHAPE,) * len(facts.names)
    strips = {n: _strip(row, shape) for n, row, shape in zip(facts.names, knobs.strips, shapes, strict=True)}
    return MixSettings(
        strips,
        {name: float(gain) for name, gain in zip(facts.groups, knobs.groups, strict=True)},
        dict(zip(facts.names, facts.members, strict=True)),
        MasterSettings(ceiling_dbtp=facts.ceiling_dbtp, target_lufs=facts.target_lufs),
    )


def _row(strip: StripSettings) -> list[float]:
    return [
        strip.gain_db,
        strip.pan,
        float(strip.invert),
        strip.highpass_hz or 0.0,
        float(COMPRESSORS.index(strip.compressor)),
        strip.tempo_ratio,
        *(band.gain_db for band in strip.eq),
    ]


def _strip(row: Array, shape: Shape) -> StripSettings:
    return StripSettings(
        gain_db=float(row[GAIN]),
        pan=float(row[PAN]),
        invert=bool(row[INVERT]),
        highpass_hz=float(row[HIGHPASS]) or None,
        eq=tuple(EqBand(kind, hz, float(gain), q) for (kind, hz, q), gain in zip(shape, row[EQ:], strict=True)),
        compressor=COMPRESSORS[int(row[COMPRESSOR])],
        tempo_ratio=float(row[TEMPO]),
    )
