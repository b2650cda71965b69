"""Session QA before mixing: what a careful assistant engineer would tell you about the files.

Everything about single stems is read in one streaming pass; pairs are compared on a few excerpts of four seconds,
chosen so that as many pairs as possible play together in one, by cross-correlation of tilted spectra (60 Hz to
12 kHz, flat above 1 kHz and falling below: two unrelated bass notes would correlate otherwise).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log10

import numpy as np
from numpy.typing import NDArray

from mixrl.audio import FloatArray, probe
from mixrl.session import Session, Stem

FULL_SCALE = 0.9999
CLIP_RUN = 3  # samples in a row at full scale that count as a clip
DC_LEAST, DC_SHARE = 0.002, 0.05  # of full scale, of the stem's RMS
QUIET_DBFS = -50.0
NULL_DB = -60.0
ALIKE, FLIPPED = 0.5, -0.5  # correlations from which two stems hold the same sound
BLEED = 0.2  # ... and, in one folder, are taken for microphones in one room
LONGEST_LAG_S = 0.05
LEAST_LAG_S = 0.0001
POLARITY_LAG_S = 0.001
EXCERPT_S, EXCERPTS = 4, 6
LOW_HZ, HIGH_HZ = 60.0, 12000.0
BRICK_WALL_DB = 25.0

Spectrum = NDArray[np.complex64]


@dataclass(frozen=True)
class Finding:
    """One remark. severity: "error" (mend it), "warning" (listen) or "info"; value: what was measured, its unit in
    the message (clips, dB, ms, Hz, correlation); stem: its name, two joined by " + ", "" for the session."""

    severity: str
    stem: str
    kind: str
    message: str
    value: float


@dataclass(frozen=True)
class Pair:
    """How alike two stems are at best: correlation -1..1 and by how much `second` lags behind `first`, in s.

    at_zero: the correlation without any lag."""

    first: str
    second: str
    correlation: float
    lag_s: float
    at_zero: float


def check(session: Session) -> tuple[Finding, ...]:
    """Everything worth knowing before the session is mixed, errors first, then by stem.

    Kinds: silence, clipping, over-full-scale, dc-offset, low-level, mono-in-stereo, sample-rate, lossy, bandwidth,
    duplicate, polarity, misalignment.
    """
    findings = [finding for stem in session.stems for finding in _stem_findings(session, stem)]
    findings += _file_findings(session)
    excerpts = _Excerpts(session)
    findings += _bandwidth_findings(excerpts)
    for pair in excerpts.pairs(combinations(excerpts.names, 2)):
        findings += _pair_findings(session, pair)
    order = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(findings, key=lambda f: (order[f.severity], f.stem, f.kind)))


def one_recording(session: Session, names: Iterable[str]) -> list[tuple[str, ...]]:
    """The named stems and all that was recorded together with them, as disjoint takes, each sorted.

    Two stems belong to one recording if they correlate by 0.5 or more at a lag of up to 50 ms, or by 0.2 if they
    also lie in one folder (microphones on one kit).
    """
    excerpts = _Excerpts(session)
    group = {stem.name: stem.group for stem in session.stems}
    takes = {name: {name} for name in excerpts.names}
    wanted = set(names)
    for pair in excerpts.pairs(combinations(excerpts.names, 2)):
        together = group[pair.first] is not None and group[pair.first] == group[pair.second]
        if abs(pair.correlation) >= (BLEED if together else ALIKE):
            merged = takes[pair.first] | takes[pair.second]
            for name in merged:
                takes[name] = merged
    return sorted({tuple(sorted(take)) for take in takes.values() if take & wanted})


# ------------------------------------------------------------------------------------------------- single stems


def _stem_findings(session: Session, stem: Stem) -> list[Finding]:
    if stem.silent:
        return [Finding("warning", stem.name, "silence", "is silent throughout", 0.0)]
    channels = stem.channels
    clips, peak = 0, 0.0
    run = np.zeros(channels, np.int64)
    total, square, side, frames = np.zeros(channels), np.zeros(channels), 0.0, 0
    loudest = 0.0  # mean square of the loudest block
    for block in stem.source.blocks():
        top = float(np.abs(block).max(initial=0.0))
        peak = max(peak, top)
        if top >= FULL_SCALE or run.any():
            clips += sum(_count_clips(block[c], run, c) for c in range(channels))
        total += block.sum(axis=1, dtype=np.float64)
        power = np.einsum("cn,cn->c", block, block, dtype=np.float64)
        square += power
        loudest = max(loudest, float(power.max()) / block.shape[1])
        if channels == 2:
            apart = block[0] - block[1]
            side += float(np.dot(apart, apart))
        frames += block.shape[1]
    clips += int((run >= CLIP_RUN).sum())
    found = []
    if peak > 1.0 + 1e-4:  # floats and lossy files reach over full scale without being clipped there
        over = 20 * log10(peak)
        found.append(Finding("info", stem.name, "over-full-scale", f"peaks {over:.1f} dB over full scale", over))
    elif clips:
        found.append(
            Finding("warning", stem.name, "clipping", f"clips {clips} times (3 or more samples at full scale)", clips)
        )
    mean, rms = total / frames, np.sqrt(square / frames)
    worst = int(np.argmax(np.abs(mean)))
    offset = float(mean[worst])
    if abs(offset) > DC_LEAST and abs(offset) > DC_SHARE * rms[worst]:
        text = f"has a DC offset of {100 * offset:+.2f} % of full scale"
        found.append(Finding("warning", stem.name, "dc-offset", text, offset))
    level = 10 * log10(loudest + 1e-20)
    if level < QUIET_DBFS:
        text = f"is very quiet: {level:.0f} dBFS RMS where it is loudest"
        found.append(Finding("info", stem.name, "low-level", text, level))
    if channels == 2 and side <= 10 ** (NULL_DB / 10) * float(square.sum()):
        null = 10 * log10(side / float(square.sum()) + 1e-20)
        found.append(Finding("info", stem.name, "mono-in-stereo", "is mono in a stereo file", null))
    return found


def _count_clips(samples: FloatArray, run: NDArray[np.int64], channel: int) -> int:
    """Runs at full scale that end in these samples; `run[channel]` carries an open run to the next block.

    Full scale is one polarity at a time: a square wave has runs, a swing from + to - ends one."""
    state = np.where(samples >= FULL_SCALE, 1, np.where(samples <= -FULL_SCALE, -1, 0)).astype(np.int8)
    edges = np.flatnonzero(np.diff(state)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [state.size]]))
    full = state[starts] != 0
    clips = 0
    if full[0]:
        lengths[0] += run[channel]
    elif run[channel] >= CLIP_RUN:
        clips += 1
    clips += int((full[:-1] & (lengths[:-1] >= CLIP_RUN)).sum())
    run[channel] = lengths[-1] if full[-1] else 0
    return clips


def _file_findings(session: Session) -> list[Finding]:
    found = []
    rates: dict[str, int] = {}
    for stem in session.stems:
        for file in stem.files:
            facts = probe(file)
            rates[stem.name] = facts.sample_rate
            if facts.format.upper() in ("MP3", "OGG", "M4A", "AAC", "OPUS") or "vorbis" in facts.encoding.lower():
                kind = facts.format.upper()
                found.append(Finding("info", stem.name, "lossy", f"comes from a lossy file ({kind})", 0.0))
                break
    for name, rate in rates.items():
        if rate != session.sample_rate:
            text = f"is at {rate} Hz, the session at {session.sample_rate}: it is resampled"
            found.append(Finding("warning", name, "sample-rate", text, rate))
    return found


def _bandwidth_findings(excerpts: _Excerpts) -> list[Finding]:
    """Stems cut off as lossy coders and low rates do: a cliff of 25 dB within 600 Hz below 19 kHz, little above."""
    found = []
    for name, power in excerpts.power.items():
        level = 10 * np.log10(power + 1e-30)  # mean power per 200 Hz
        top = min(level.size, int(19000 / 200))
        for k in range(int(3000 / 200), top - 5):
            below, above = float(np.median(level[k - 4 : k])), float(level[k + 3 :].max(initial=-300.0))
            if below > level.max() - 70 and below - above > BRICK_WALL_DB:
                hertz = 200.0 * (k + 3)
                text = f"has nothing above {hertz / 1000:.1f} kHz (a lossy or low-rate source)"
                found.append(Finding("info", name, "bandwidth", text, hertz))
                break
    return found


# -------------------------------------------------------------------------------------------------------- pairs


class _Excerpts:
    """Tilted spectra of the stems in a few excerpts, each stem only where it plays."""

    def __init__(self, session: Session) -> None:
        rate = session.sample_rate
        stems = [stem for stem in session.stems if not stem.silent]
        length = EXCERPT_S * rate
        size = _fast_size(length + round(LONGEST_LAG_S * rate))
        step = rate / size
        low, high = int(LOW_HZ / step), int(min(HIGH_HZ, 0.45 * rate) / step)
        tilt = np.minimum(1.0, np.arange(low, high) * step / 1000.0).astype(np.float32)
        self.names = [stem.name for stem in stems]
        self.low, self.high = low, high
        self.size = _fast_size(2 * high)  # of the correlations, at about 24 kHz
        self.rate = self.size * step
        self.power: dict[str, NDArray[np.float64]] = {}
        self.spectra: list[dict[str, tuple[Spectrum, float]]] = []
        width = max(1, round(200.0 / step))
        for start, playing in _windows(session, stems):
            held = {}
            for name in playing:
                audio = session.read(name, start, start + length).mean(axis=0)
                spectrum = np.fft.rfft(audio, size)
                bands = spectrum[: spectrum.size // width * width].reshape(-1, width)
                power = np.asarray(np.mean(bands.real**2 + bands.imag**2, axis=1, dtype=np.float64))
                self.power[name] = self.power[name] + power if name in self.power else power
                tilted = (spectrum[low:high] * tilt).astype(np.complex64)
                energy = float(np.sum(tilted.real**2 + tilted.imag**2, dtype=np.float64))
                if energy > 0.0:
                    held[name] = tilted, energy
            self.spectra.append(held)

    def pairs(self, wanted: Iterable[tuple[str, str]]) -> list[Pair]:
        """Those of the wanted pairs that play together in some excerpt."""
        return [pair for first, second in wanted if (pair := self.pair(first, second)) is not None]

    def pair(self, first: str, second: str) -> Pair | None:
        cross = np.zeros(self.size // 2 + 1, np.complex64)
        left = right = 0.0
        for held in self.spectra:
            if first in held and second in held:
                (a, power_a), (b, power_b) = held[first], held[second]
                cross[self.low : self.high] += b * np.conj(a)
                left, right = left + power_a, right + power_b
        if left <= 0.0:
            return None
        curve = np.fft.irfft(cross, self.size) * (self.size / 2 / np.sqrt(left * right))
        reach = int(LONGEST_LAG_S * self.rate)
        near = np.concatenate([curve[-reach:], curve[: reach + 1]])
        k = int(np.argmax(np.abs(near)))
        shift = 0.0
        if 0 < k < near.size - 1:  # a parabola through the peak: lags are finer than a sample at 24 kHz
            before, top, after = np.abs(near[k - 1 : k + 2])
            bend = before - 2 * top + after
            shift = float(0.5 * (before - after) / bend) if bend < 0 else 0.0
        return Pair(first, second, float(near[k]), (k - reach + shift) / self.rate, float(near[reach]))


def _windows(session: Session, stems: Sequence[Stem]) -> list[tuple[int, list[str]]]:
    """Up to six excerpts as (first sample, who plays), chosen one by one for the pairs they add."""
    seconds = max(1, min((stem.activity.size for stem in stems), default=1))
    if not stems:
        return []
    power = np.stack([stem.activity[:seconds] for stem in stems])
    playing = (power > 1e-4 * power.max(axis=1, keepdims=True)) & (power > 1e-8)
    wide = min(EXCERPT_S, seconds)
    share = np.cumsum(np.pad(playing, ((0, 0), (1, 0))), axis=1, dtype=np.int64)
    there = (share[:, wide:] - share[:, :-wide]) * 2 >= wide  # (stems, starts): plays half of the time
    missing = ~np.eye(len(stems), dtype=bool)
    alone = np.ones(len(stems), dtype=bool)
    chosen = []
    for _ in range(EXCERPTS):
        gain = np.einsum("is,js,ij->s", there, there, missing, dtype=np.int64) + alone @ there
        start = int(np.argmax(gain))
        if gain[start] == 0:
            break
        heard = there[:, start]
        missing &= ~np.outer(heard, heard)
        alone &= ~heard
        chosen.append((start * session.sample_rate, [s.name for s, h in zip(stems, heard, strict=True) if h]))
    return chosen


def _fast_size(least: int) -> int:
    """The smallest 2^a 3^b 5^c >= least: FFTs of other sizes are slow."""
    sizes = (2**a * 3**b * 5**c for a in range(1, 24) for b in range(4) for c in range(4))
    return min(size for size in sizes if size >= least)


def _pair_findings(session: Session, pair: Pair) -> list[Finding]:
    both = f"{pair.first} + {pair.second}"
    lag, alike = pair.lag_s, pair.correlation
    if abs(alike) < ALIKE:
        return []
    if abs(pair.at_zero) > 0.99:
        null = _null_db(session, pair)
        if null < NULL_DB:
            text = f"hold the same audio (they null to {null:.0f} dB)" if alike > 0 else "hold the same audio, inverted"
            return [Finding("warning" if alike > 0 else "error", both, "duplicate", text, null)]
    found = []
    if alike <= FLIPPED and abs(lag) <= POLARITY_LAG_S:
        text = f"are in antiphase (correlation {alike:.2f} at {1000 * lag:.2f} ms): invert one of them"
        found.append(Finding("warning", both, "polarity", text, alike))
    if abs(lag) >= LEAST_LAG_S:
        late, early = (pair.second, pair.first) if lag > 0 else (pair.first, pair.second)
        text = f"{late} lags {early} by {1000 * abs(lag):.2f} ms (correlation {alike:.2f})"
        found.append(Finding("warning", both, "misalignment", text, 1000 * abs(lag)))
    return found


def _null_db(session: Session, pair: Pair) -> float:
    """What is left of the second after the best gain of the first is taken away, over the whole session, in dB."""
    a, b = session.stem(pair.first), session.stem(pair.second)
    sums = np.zeros(3)
    for x, y in zip(session.blocks(a), session.blocks(b), strict=True):
        if x.shape[0] != y.shape[0]:
            x, y = np.broadcast_to(x, (2, x.shape[1])), np.broadcast_to(y, (2, y.shape[1]))
        p, q = x.astype(np.float64), y.astype(np.float64)
        sums += (p * p).sum(), (p * q).sum(), (q * q).sum()
    if sums[0] <= 0 or sums[2] <= 0:
        return 0.0
    return 10 * log10(max(1.0 - sums[1] ** 2 / (sums[0] * sums[2]), 1e-14))
