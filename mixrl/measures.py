"""What a mix is judged by: the numbers that both backends (closed form and render) produce.

``Facts`` is what a session is, whatever the settings; ``Measures`` is what a set of settings makes of it.
The closed form fills ``Measures`` for many settings at once, so every array may carry leading batch axes
(written ``...`` below). N is the number of stems, 31 the number of third-octave bands from 20 Hz to 20 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Base-10 third-octave bands (IEC 61260-1): centre 1000 * 10^(n/10), edges half a band away on either side.
CENTRES_HZ: Array = np.asarray(1000.0 * 10.0 ** (np.arange(-17, 14) / 10.0))
EDGES_HZ: Array = np.asarray(1000.0 * 10.0 ** ((np.arange(-17, 15) - 0.5) / 10.0))
SILENCE_DB = -120.0


@dataclass(frozen=True)
class Expected:
    """Where people would have the levels of N stems, as far as one can tell (see ``people``).

    level_lufs (N,): gated loudness of each stem; relative_lu (N,): the same against the mix at these levels;
    tolerance_db (N,): by how much a level may be off for nothing; mix: the measures of the stems as delivered, at these
    levels. cases (C,): the chances of the ways in which faders may have been moved before the session was delivered,
    the first that they were not. centre_lufs (N,), chances (C, N, K): in each case, the chance that people had a stem
    at so many dB (``people.OFFSETS_DB``) from the centre. held: whether the levels are those delivered, since moving
    them promises too little.
    """

    level_lufs: Array
    relative_lu: Array
    tolerance_db: Array
    mix: Measures
    centre_lufs: Array
    cases: Array
    chances: Array
    held: bool


@dataclass(frozen=True)
class Facts:
    """A session as the score and the agent see it, independent of any settings.

    names, roles, members: N entries each (role ``None`` when unknown; member = the group's name).
    activity: (N,) share of the time in which the stem plays, 0..1; 0 marks a silent stem.
    bandwidth_hz: (N,) upper edge of the highest third-octave band in which the stem has content.
    counted: (31,) bool, bands in which some stem has content and which the spectrum terms judge.
    target_lufs, ceiling_dbtp: what the mix will be delivered at.
    tempo_target: (N,) the tempo ratio each stem should be played at (1 when it should not be stretched).
    tempo_weight: (N,) how sure that ratio is, 0..1 (0 when the stem may not be stretched).
    expected: where people would have the levels; None: nobody asked, and published levels of roles are gone by.
    guesses: N roles that are told by sound where ``roles`` has None, or None; None: nobody listened for them.
    own_groups: N, whether a stem's group is its own (its folder's, or as ``mixrl.toml`` says) and not its role's; None:
    nobody knows, and only a name without a folder and the group of no role tell that it is not.
    album_tone_db: (31,) how far the songs of the album that this one is on are from finished songs, as
    ``album.shared_tone`` gives it; None: it stands alone.
    """

    names: tuple[str, ...]
    roles: tuple[str | None, ...]
    members: tuple[str, ...]
    activity: Array
    bandwidth_hz: Array
    counted: NDArray[np.bool_]
    target_lufs: float
    ceiling_dbtp: float
    tempo_target: Array
    tempo_weight: Array
    expected: Expected | None = None
    guesses: tuple[str | None, ...] | None = None
    own_groups: tuple[bool, ...] | None = None
    album_tone_db: Array | None = None

    @cached_property
    def known_roles(self) -> tuple[str | None, ...]:
        """The role of each stem by name, or else by sound."""
        if self.guesses is None:
            return self.roles
        return tuple(role or guess for role, guess in zip(self.roles, self.guesses, strict=True))

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups, sorted."""
        return tuple(sorted(set(self.members)))

    @cached_property
    def audible(self) -> NDArray[np.bool_]:
        """(N,) bool: stems that hold sound at all."""
        return self.activity > 0.0


@dataclass(frozen=True)
class Measures:
    """Measures of the mix before the master gain, and of each stem as it stands in that mix.

    integrated_lufs, short_term_lufs (maximum), loudness_range_lu: (...)
    peak_dbfs: (...) sample peak; crest_db: (...) that over the RMS of both channels
    limiting_db: (...) 99th percentile of the limiting that the target needs, dB
    psr_db: (...) peak over short-term loudness in the loudest part at the target, the peak cut off at the ceiling, dB
    spectrum_db: (..., 31) band powers (left plus right), dB; side_mid_db: (..., 31) side over mid power, dB
    cancellation_db: (..., 31) mix power over the sum of the stems' powers, dB (negative: stems cancel)
    imbalance_db: (...) right over left K-weighted power, dB
    stem_lufs: (..., N) gated loudness of each stem as it enters the mix; audibility_db: (..., N) K-weighted mean
        share of the mix's power in the bands where the stem lives, while it plays, dB (0: it is alone there)
    position: (..., N) -1 (left) .. 1 (right), from the stem's channel powers
    eq_change_db: (..., N) power-weighted RMS of the EQ's gain over the stem's spectrum, dB
    gain_reduction_db: (..., N) mean gain reduction of the stem's compressor while it plays, dB
    tempo_ratio: (..., N)
    """

    integrated_lufs: Array
    short_term_lufs: Array
    loudness_range_lu: Array
    peak_dbfs: Array
    crest_db: Array
    limiting_db: Array
    psr_db: Array
    spectrum_db: Array
    side_mid_db: Array
    cancellation_db: Array
    imbalance_db: Array
    stem_lufs: Array
    audibility_db: Array
    position: Array
    eq_change_db: Array
    gain_reduction_db: Array
    tempo_ratio: Array

    @classmethod
    def joined(cls, parts: Sequence[Measures]) -> Measures:
        """Batches one after the other."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def at(self, index: int) -> Measures:
        """The measures of one mix of a batch."""
        return Measures(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def decibels(power: Array | float) -> Array:
    """10 log10 of a power, with a floor at ``SILENCE_DB``."""
    return np.asarray(10.0 * np.log10(np.maximum(power, 10.0 ** (SILENCE_DB / 10.0))))


def gate(blocks: Array) -> Array:
    """Integrated loudness of 400 ms block powers, LUFS (ITU-R BS.1770-5, two gates), vectorised.

    blocks: (..., T) K-weighted mean powers summed over channels, one per 100 ms. Returns (...), ``SILENCE_DB`` when
    nothing passes the absolute gate.
    """
    absolute = 10.0 ** ((-70.0 + 0.691) / 10.0)
    over = blocks > absolute
    count = np.maximum(over.sum(-1), 1)
    relative = np.where(over, blocks, 0.0).sum(-1) / count * 0.1
    keep = over & (blocks > relative[..., None])
    kept = np.where(keep, blocks, 0.0).sum(-1) / np.maximum(keep.sum(-1), 1)
    return np.maximum(decibels(kept) - 0.691, SILENCE_DB)
