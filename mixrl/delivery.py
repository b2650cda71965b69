"""From the premaster (the summed mix, before master gain and limiter) to the delivered file.

What is promised, measured on the file as decoded again: integrated loudness within 0.1 LU of the target and
true peak at or under the ceiling. A target is not forced that would crush the mix: one that takes more than
6 dB of limiting (99th percentile of gain reduction over frames of 10 ms) or brings PSR, true peak less
short-term loudness where the mix is loudest, below 6 dB. Then the loudest permitted gain is delivered, with
``target_reached`` false and a warning.

A premaster whose own PSR is below 6 dB (a square wave, a mix that came in crushed) is not to be made worse:
its own PSR becomes the limit. It may be turned up until its loudest part meets the ceiling, and peaks
elsewhere may be limited, but the loudest part is not limited further.

The gain is found by a bracketed search on three quantities that grow with it: loudness over target, limiting
over 6 dB, and PSR short of its limit. Their joint root is the answer, whichever comes first. Gains at which
nothing reaches the ceiling are judged from the premaster's K-weighted powers alone, without reading audio.
A search always has an answer: raising the gain never makes this limiter's output smaller, and the loudness
gate can only step down with rising gain (quiet parts pass it), so every crossing upwards is continuous.

Sources: ITU-R BS.1770-5, EBU Tech 3341. Limits of 6 dB: the project's own, documented in its design.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixrl.audio import (
    ArraySource,
    Encoding,
    FileSource,
    Source,
    TemporaryAudio,
    Writer,
    ahead,
    atomic_path,
    encoding_for,
)
from mixrl.errors import ProcessingError
from mixrl.limiter import Limiter
from mixrl.meters import Measurement, Meter, gated_loudness, measure
from mixrl.settings import MasterSettings

FloatArray = NDArray[np.float32]

TOLERANCE_LU = 0.1  # promised
MAX_LIMITING_DB = 6.0
MIN_PSR_DB = 6.0
_CLOSE_LU = 0.05  # the search ends this near the target ...
_CLOSE_LIMIT_DB = 0.05  # ... or this near below a limit ...
_CLOSE_GAIN_DB = 0.01  # ... or when the bracket is this narrow
_CLEAN_DB = 0.5  # a 4x peak this far below the ceiling surely is not limited
_MAX_DRIVE_DB = 60.0  # beyond the gain that would do without a limiter
_MAX_PASSES = 40


@dataclass(frozen=True)
class MasterGain:
    """How a master gain was found and what it gives, all before the file is written.

    target_reached: within 0.1 LU, or no target was set. limiting_db: 99th percentile of gain reduction over
    10 ms frames. integrated_lufs, psr_db: after the limiter; None where not defined. passes: how often the
    audio was read to find out (0: nothing needed limiting). premaster_lufs: before any gain.
    """

    target_reached: bool
    limiting_db: float
    integrated_lufs: float | None
    psr_db: float | None
    passes: int
    warnings: tuple[str, ...] = ()
    premaster_lufs: float | None = None


@dataclass(frozen=True)
class Delivery:
    """What was written. ``measurement`` is of the file, decoded again, without spectrum and stereo measures.

    gain_db: applied before the limiter. limiting_db: 99th percentile of gain reduction over 10 ms frames.
    target_reached: the file is within 0.1 LU of the target, or no target was set.
    """

    gain_db: float
    ceiling_dbtp: float
    target_lufs: float | None
    target_reached: bool
    limiting_db: float
    measurement: Measurement
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Premaster:
    source: Source  # cheap to read many times
    measurement: Measurement
    block_powers: NDArray[np.float64]  # K-weighted, 400 ms every 100 ms


@dataclass(frozen=True)
class _Outcome:
    """What a gain gives."""

    gain_db: float
    loudness: float | None
    limiting_db: float
    psr_db: float | None
    limited: Source | None = None  # what the limiter made of the audio, where that was needed to find out

    def excess(self, target: float, min_psr: float) -> tuple[float, float, float]:
        """Over target (LU), over the limit of limiting (dB), short of PSR (dB)."""
        loudness = -math.inf if self.loudness is None else self.loudness - target
        psr = -math.inf if self.psr_db is None else min_psr - self.psr_db
        return loudness, self.limiting_db - MAX_LIMITING_DB, psr


def deliver(
    source: Source,
    path: str | os.PathLike[str],
    master: MasterSettings,
    *,
    encoding: Encoding | str | None = None,
    force: bool = False,
    seed: int = 0,
) -> Delivery:
    """Master ``source`` (the premaster, any gain, mono or stereo) and write it to ``path``.

    The source is read once, into a temporary file; memory does not grow with its length. ``encoding`` as for
    ``Writer`` (None: 24 bits in what the suffix says), ``seed`` is the dither's. With ``master.target_lufs``
    the gain is solved for it and ``master.gain_db`` plays no part; with None ``master.gain_db`` is applied.
    Silence and clips too short to have a loudness (0.4 s) get ``master.gain_db`` and a warning.

    Raises InputError (path exists and not force, folder missing, wrong suffix, NaN), ProcessingError (disk
    full). Nothing is left at ``path`` then.
    """
    kind = encoding_for(path, encoding)
    with atomic_path(path, force) as part:
        premaster = _premaster(source)
        outcome, found = _solve(premaster, master)
        gain_db, ceiling, limiter = outcome.gain_db, master.ceiling_dbtp, None
        blocks = _mastered(premaster.source, outcome, ceiling)
        for _ in range(6):
            with Writer(part, source.sample_rate, source.channels, kind, force=True, seed=seed) as writer:
                for block in ahead(blocks):
                    writer.write(block)
            measured = measure(FileSource(part), spectrum=False)
            over = (measured.true_peak_dbtp or -math.inf) - master.ceiling_dbtp
            if over <= 0.0:
                break
            ceiling -= over + 0.005  # dither and rounding count for something under a low ceiling
            limiter = Limiter(source.sample_rate, source.channels, ceiling)
            blocks = _limited(premaster.source, gain_db, limiter)
        else:
            raise ProcessingError(f"{path}: cannot hold {master.ceiling_dbtp:g} dBTP in {kind.value}: write 24 bits")
    reached = found.target_reached and _reached(measured.integrated_lufs, master.target_lufs)
    warnings = found.warnings
    if found.target_reached and not reached:
        warnings += (f"the file reads {_lufs(measured.integrated_lufs)}, not {_lufs(master.target_lufs)}",)
    limiting_db = outcome.limiting_db if limiter is None else _limiting_db(limiter)
    return Delivery(gain_db, master.ceiling_dbtp, master.target_lufs, reached, limiting_db, measured, warnings)


def master_gain(source: Source, master: MasterSettings) -> tuple[float, MasterGain]:
    """The gain in dB that ``deliver`` would apply before the limiter, and what it gives."""
    outcome, found = _solve(_premaster(source), master)
    return outcome.gain_db, found


def master_array(x: FloatArray, sample_rate: int, master: MasterSettings) -> FloatArray:
    """``x`` (channels, samples) as ``deliver`` would master it, in memory: gain and limiter, no file."""
    source = ArraySource(x, sample_rate)
    outcome, _ = _solve(_premaster(source), master)
    return np.concatenate(list(_mastered(source, outcome, master.ceiling_dbtp)), axis=1)


def _premaster(source: Source) -> _Premaster:
    """Read the source once: spool it and meter it. InputError if it holds NaN."""
    meter = Meter(source.sample_rate, source.channels, spectrum=False)
    if isinstance(source, (ArraySource, TemporaryAudio)):
        for block in source.blocks():
            meter.push(block)
    else:
        spool = TemporaryAudio(source.sample_rate, source.channels)
        for block in source.blocks():
            meter.push(block)
            spool.write(block)
        source = spool.source()
    measurement = meter.result()
    hops = meter.hop_powers()
    blocks = np.lib.stride_tricks.sliding_window_view(hops, 4).mean(axis=1) if hops.size >= 4 else np.zeros(0)
    return _Premaster(source, measurement, blocks)


def _limited(source: Source, gain_db: float, limiter: Limiter) -> Iterator[FloatArray]:
    gain = np.float32(10.0 ** (gain_db / 20.0))
    for block in source.blocks():
        yield limiter.process(block * gain)
    yield limiter.flush()


def _mastered(source: Source, outcome: _Outcome, ceiling_dbtp: float) -> Iterator[FloatArray]:
    """The audio of an outcome; limited already where that was needed to find out what its gain gives."""
    if outcome.limited is not None:
        return outcome.limited.blocks()
    return _limited(source, outcome.gain_db, Limiter(source.sample_rate, source.channels, ceiling_dbtp))


def _limiting_db(limiter: Limiter) -> float:
    reduction = limiter.gain_reduction_db()
    return float(np.percentile(reduction, 99)) if reduction.size else 0.0


def _trial(premaster: _Premaster, gain_db: float, ceiling_dbtp: float) -> tuple[_Outcome, bool]:
    """What a gain gives, and whether the audio had to be read for it."""
    peak = premaster.measurement.true_peak_dbtp
    if peak is None or peak + gain_db <= ceiling_dbtp - _CLEAN_DB:
        loudness = gated_loudness(premaster.block_powers * 10.0 ** (gain_db / 10.0))
        return _Outcome(gain_db, loudness, 0.0, premaster.measurement.psr_db), False
    source = premaster.source
    limiter = Limiter(source.sample_rate, source.channels, ceiling_dbtp)
    meter = Meter(source.sample_rate, source.channels, spectrum=False)
    limited = TemporaryAudio(source.sample_rate, source.channels)  # so that it need not be limited again
    for block in ahead(_limited(source, gain_db, limiter)):
        meter.push(block)
        limited.write(block)
    read = meter.result()
    return _Outcome(gain_db, read.integrated_lufs, _limiting_db(limiter), read.psr_db, limited.source()), True


def _solve(premaster: _Premaster, master: MasterSettings) -> tuple[_Outcome, MasterGain]:
    passes = 0

    def trial(gain_db: float) -> _Outcome:
        nonlocal passes
        outcome, read = _trial(premaster, gain_db, master.ceiling_dbtp)
        passes += read
        return outcome

    before, target = premaster.measurement, master.target_lufs
    warnings: tuple[str, ...] = ()
    if target is None or before.integrated_lufs is None:
        outcome = trial(master.gain_db)
        if before.true_peak_dbtp is None:
            warnings = ("the mix is silent: written as silence",)
        elif target is not None:
            why = "shorter than 0.4 s" if before.duration_s < 0.4 else "below the -70 LUFS gate"
            kept = f"gain kept at {master.gain_db:+.1f} dB"
            warnings = (f"the mix is {why} and has no loudness to bring to {_lufs(target)}: {kept}",)
        reached = target is None
    else:
        # 0.005: rounding must not make a premaster at its own limit look worse than itself.
        min_psr = MIN_PSR_DB if before.psr_db is None else min(MIN_PSR_DB, before.psr_db - 0.005)
        outcome, blocked_by = _search(trial, before, master.ceiling_dbtp, target, min_psr)
        reached = _reached(outcome.loudness, target)
        if not reached:
            warnings = (_not_reached(outcome, target, min_psr, blocked_by),)
    return outcome, MasterGain(
        reached, outcome.limiting_db, outcome.loudness, outcome.psr_db, passes, warnings, before.integrated_lufs
    )


def _search(
    trial: Callable[[float], _Outcome],
    before: Measurement,
    ceiling: float,
    target: float,
    min_psr: float,
    *,
    settle: bool = True,
) -> tuple[_Outcome, int]:
    """The loudest outcome that is over in nothing, and which of the three ``excess`` stood in the way of more.

    Where turning up has brought next to nothing (lone clicks in silence: the loudness is that of a click at
    the ceiling, whatever the gain), the lowest gain that is as loud within 0.1 LU is taken instead.
    """
    assert before.integrated_lufs is not None
    assert before.true_peak_dbtp is not None
    low: _Outcome | None = None
    high: _Outcome | None = None
    first = gain = target - before.integrated_lufs
    clean = ceiling - _CLEAN_DB - before.true_peak_dbtp
    if clean < gain:
        low = trial(clean)
    start, slope, same_side = low, 1.0, 0
    for _ in range(_MAX_PASSES):
        outcome = trial(gain)
        over = outcome.excess(target, min_psr)
        limits = max(over[1:])
        if limits <= 0.0 and abs(over[0]) <= _CLOSE_LU:
            return outcome, 0
        if max(over) > 0.0:
            same_side = max(1, same_side + 1)
            high = replace(outcome, limited=None)  # it is never the answer, and its audio takes room on the disk
        else:
            if low is not None:
                slope = _slope(low, outcome)
            same_side = min(-1, same_side - 1)
            low = outcome
            if limits >= -_CLOSE_LIMIT_DB:
                break
        if low is None:
            gain -= max(over[0], 0.1) * 2.0 ** (same_side - 1)
        elif high is None:
            bent = None if start is None else _bent(start, outcome, target)
            ahead = -over[0] / min(1.0, max(0.25, slope)) if bent is None else bent - outcome.gain_db
            gain += min(max(ahead, -over[0]), 6.0)
            if gain > first + _MAX_DRIVE_DB:
                break
        elif high.gain_db - low.gain_db < _CLOSE_GAIN_DB:
            break
        else:
            gain = _between(low, high, target, min_psr, halve=abs(same_side) > 2)
    assert low is not None, "a low enough gain is over in nothing"
    if settle and start is not None and low.gain_db - start.gain_db > 6.0 and _slope(start, low) < 0.1:
        assert low.loudness is not None
        return _search(trial, before, ceiling, low.loudness - TOLERANCE_LU, min_psr, settle=False)[0], 0
    if high is not None:
        return low, int(np.argmax(high.excess(target, min_psr)))
    return low, int(np.argmax(low.excess(target, min_psr)))


def _bent(start: _Outcome, last: _Outcome, target: float) -> float | None:
    """The gain at which a parabola meets the target that starts with slope 1 where limiting starts and goes through the
    last outcome: the more is limited, the less a decibel brings. None where it does not."""
    assert start.loudness is not None
    assert last.loudness is not None
    ahead, wanted = last.gain_db - start.gain_db, target - start.loudness
    bend = (ahead - (last.loudness - start.loudness)) / max(ahead, 1e-9) ** 2
    root = 1.0 - 4.0 * bend * wanted
    return start.gain_db + 2.0 * wanted / (1.0 + math.sqrt(root)) if bend > 0.0 and root > 0.0 else None


def _slope(a: _Outcome, b: _Outcome) -> float:
    """Loudness gained per dB of gain from a to b; 1 where undefined."""
    if a.loudness is None or b.loudness is None or b.gain_db - a.gain_db < 1e-9:
        return 1.0
    return (b.loudness - a.loudness) / (b.gain_db - a.gain_db)


def _between(low: _Outcome, high: _Outcome, target: float, min_psr: float, *, halve: bool) -> float:
    """The gain at which the first of the three is due to cross 0, well inside the bracket."""
    width = high.gain_db - low.gain_db
    share = 0.5
    pairs = zip(low.excess(target, min_psr), high.excess(target, min_psr), strict=True)
    crossings = [-a / (b - a) for a, b in pairs if b > 0.0 >= a > -math.inf]
    if crossings and not halve:
        share = min(0.95, max(0.05, min(crossings)))
    return low.gain_db + share * width


def _reached(loudness: float | None, target: float | None) -> bool:
    return target is None or (loudness is not None and abs(loudness - target) <= TOLERANCE_LU)


def _not_reached(outcome: _Outcome, target: float, min_psr: float, blocked_by: int) -> str:
    if blocked_by == 1:
        why = f"more would take over {MAX_LIMITING_DB:g} dB of limiting"
    elif blocked_by == 2:
        what = f"the {MIN_PSR_DB:g} dB" if min_psr == MIN_PSR_DB else f"the {min_psr:.1f} dB it came with"
        why = f"more would leave its loudest part less than {what} between peak and loudness"
    else:
        why = "the limiter gives no more"
    return f"reached {_lufs(outcome.loudness)}, not {_lufs(target)}: {why}; mix with fewer peaks or ask for less"


def _lufs(loudness: float | None) -> str:
    return "no loudness" if loudness is None else f"{loudness:.1f} LUFS"
