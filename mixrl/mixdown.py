"""Find, among the files of a session, the one that is the mix of the others.

A mix made without processing on its bus *is* the sum of the stems within a gain, and nulls against it. A
mastered, limited or lossy one does not, and may not even start at the same sample: there the name has to say
what it is, and its sound has to be coherent with the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixrl.audio import FloatArray, Source, read

NULL_DB = -15.0
"""What the best gain may leave of a mix. Measured on 15 real sessions: a stem leaves -0.2 dB or more against the
rest of its session, the sub-mix of a group -10 dB or more, a 16-bit mix -56 dB, MP3 at 128 kbit/s -18 to -23 dB."""
DOUBLE_DB = 10.0
"""How much deeper the sum has to null than any single stem does, for that would be a double and no mix."""
COHERENCE = 0.4
"""Least coherence of a master. A real limited, low-rate one has 0.62, a clipped sum 0.71 to 0.84, a sum with
every fader off by up to 10 dB 0.75 and more; any stem of the same sessions at most 0.10."""

_LOW_RATE = 8000
_EXCERPT_S = 12
_BANDS_HZ = 100.0 * 2.0 ** np.arange(0.0, 5.6, 0.5)  # half octaves up to 4 kHz, the Nyquist rate here


def find_mixdown(
    sources: Sequence[Source], activity: NDArray[np.float32], named: Sequence[bool], barred: Sequence[bool]
) -> int | None:
    """The index of the source that is the mix of the others, or None.

    `sources` lie on one time line and have one or two channels; `activity` is their energy in each second,
    (sources, seconds). `named`: the name claims to be a mix (never enough alone). `barred`: not to be chosen.
    """
    everyone = range(len(sources))
    alive = [i for i in everyone if activity[i].any()]
    tried: list[tuple[float, int, list[int]]] = []
    candidates = [i for i in alive if not barred[i] and (named[i] or len(alive) > 2)]
    candidates = [i for i in candidates if len(alive) > 1 and _follows(activity, i)]
    gram = _gram(sources, activity) if candidates else np.zeros((0, 0))
    for i in candidates:
        rest = [j for j in alive if j != i]
        # Several mixes may lie side by side: then each has to null against the stems without the others.
        for others in (rest, [j for j in rest if not named[j]]):
            depth = _null_db(gram, i, others)
            double = min((_null_db(gram, i, [j]) for j in others), default=0.0)
            if depth <= NULL_DB and (named[i] or depth <= double - DOUBLE_DB):
                tried.append((depth, i, others))
    for _, i, others in sorted(tried):
        if _whole_null_db(sources, i, others) <= NULL_DB:
            return i
    for i in alive:
        stems = [j for j in alive if not named[j]]
        if named[i] and not barred[i] and stems and coherence(sources, activity, i, stems) >= COHERENCE:
            return i
    return None


def _follows(activity: NDArray[np.float32], i: int) -> bool:
    """Whether source i keeps to the energy of the others, second by second: rules most stems out for free.

    In nine of ten seconds it has to be within 3 dB of the median ratio (mixes of real sessions: 0.6 dB).
    """
    others = activity.sum(axis=0) - activity[i]
    busy = others > 1e-4 * others.max()
    if not busy.any():
        return False
    ratio = 10.0 * np.log10((activity[i, busy] + 1e-20) / others[busy])
    return bool(np.percentile(np.abs(ratio - np.median(ratio)), 90) <= 3.0)


def _gram(sources: Sequence[Source], activity: NDArray[np.float32]) -> NDArray[np.float64]:
    """Inner products of all sources over half a second of each eighth of the time line, where it is loudest."""
    rate = sources[0].sample_rate
    total = activity.sum(axis=0)
    gram = np.zeros((len(sources), len(sources)))
    for seconds in np.array_split(np.arange(len(total)), min(8, len(total))):
        start = int(seconds[np.argmax(total[seconds])]) * rate
        x = np.stack([_stereo(read(source, start, start + rate // 2)).ravel() for source in sources])
        gram += x @ x.T
    return gram


def _stereo(block: FloatArray) -> FloatArray:
    return block if block.shape[0] == 2 else np.repeat(block, 2, axis=0)


def _null_db(gram: NDArray[np.float64], i: int, others: Sequence[int]) -> float:
    return _residual_db(gram[i, i], gram[i, others].sum(), gram[np.ix_(others, others)].sum())


def _residual_db(own: float, cross: float, power: float) -> float:
    """Energy of x - g y against that of x in dB, at the least-squares gain g; from <x,x>, <x,y>, <y,y>."""
    if own <= 0.0 or power <= 0.0:
        return 0.0
    return float(10.0 * np.log10(max(1e-12, 1.0 - cross * cross / (own * power))))


def _whole_null_db(sources: Sequence[Source], i: int, others: Sequence[int]) -> float:
    """The same over the whole time line, streamed."""
    own = cross = power = 0.0
    for mine, *blocks in zip(sources[i].blocks(), *(sources[j].blocks() for j in others), strict=True):
        mix = _stereo(mine)
        total = np.zeros_like(mix)
        for block in blocks:
            total += block
        own += float(np.vdot(mix, mix))
        cross += float(np.vdot(mix, total))
        power += float(np.vdot(total, total))
    return _residual_db(own, cross, power)


def coherence(
    sources: Sequence[Source], activity: NDArray[np.float32], i: int, others: Sequence[int]
) -> float:
    """Coherence (0..1) of source i with the sum of the others: median of half-octave bands, 100 Hz to 4 kHz.

    Compared over the 12 s in which the others are loudest, found wherever they lie in source i: stems may be an
    excerpt of the song that a master holds whole. Magnitude-squared coherence by Welch's method.
    """
    rate = sources[0].sample_rate
    loud = np.append(0.0, np.cumsum(activity[list(others)].sum(axis=0)))
    seconds = min(_EXCERPT_S, len(loud) - 1)
    start = int(np.argmax(loud[seconds:] - loud[:-seconds])) * rate
    total = np.zeros((1, min(seconds * rate, sources[0].frames - start)), np.float32)
    for j in others:
        total += read(sources[j], start, start + total.shape[1]).mean(axis=0)
    part, whole = _at_low_rate([total], rate), _at_low_rate(sources[i].blocks(), rate)
    lag = _best_lag(whole, part)
    found = whole[lag : lag + len(part)]
    return _band_coherence(found, part[: len(found)])


def _at_low_rate(blocks: Iterable[FloatArray], rate: int) -> FloatArray:
    """The mean of the channels at 8 kHz, (n,)."""
    import soxr

    stream = soxr.ResampleStream(rate, _LOW_RATE, 1, "float32", "MQ")
    out = [stream.resample_chunk(block.mean(axis=0)) for block in blocks]
    return np.concatenate([*out, stream.resample_chunk(np.zeros(0, np.float32), last=True)])


def _best_lag(whole: FloatArray, part: FloatArray) -> int:
    """Where in `whole` the `part` begins: the peak of their whitened cross-correlation (GCC-PHAT), piecewise."""
    n = min(1 << 20, 1 << (len(whole) + len(part)).bit_length())
    spectrum = np.fft.rfft(part, n).conj()
    best, lag = -np.inf, 0
    for at in range(0, len(whole), n - len(part)):
        cross = np.fft.rfft(whole[at : at + n], n) * spectrum
        cross /= np.abs(cross) + np.float32(1e-12)
        correlation = np.fft.irfft(cross, n)[: n - len(part)]
        peak = int(np.argmax(correlation))
        if correlation[peak] > best and at + peak < len(whole):
            best, lag = float(correlation[peak]), at + peak
    return lag


def _band_coherence(x: FloatArray, y: FloatArray) -> float:
    n = 1024
    if len(x) < 8 * n:  # too short to tell coherence from chance
        return 0.0
    window = np.hanning(n)
    cut = np.lib.stride_tricks.sliding_window_view
    a, b = (np.fft.rfft(cut(z, n)[:: n // 2] * window) for z in (x, y))
    power = (np.abs(a) ** 2).sum(axis=0) * (np.abs(b) ** 2).sum(axis=0)
    squared = np.abs((a * b.conj()).sum(axis=0)) ** 2 / (power + 1e-30)
    edges = np.searchsorted(np.fft.rfftfreq(n, 1.0 / _LOW_RATE), _BANDS_HZ)
    return float(np.median([squared[lo:hi].mean() for lo, hi in pairwise(edges)]))
