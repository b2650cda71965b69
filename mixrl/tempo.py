"""Tempo: how fast a stem and a session are, and which stems may be stretched to what ratio.

Onset strength in eight bands -> autocorrelation -> two kinds of evidence, each between a stem and a beat length:
*repetition* (does it repeat after whole numbers of these beats?) and *lock* (do its onsets fall on the beat's
subdivisions?). A stem is a loop at another tempo only if both speak for its own beat and against the session's.
Tempi are compared modulo factors of two; repetition also looks at 3, 6 and 12 beats, lock at thirds and sixths of
a beat, so neither a waltz, triplets nor a dotted figure (3/2, 4/3) is taken for another tempo.

Onset flux and tempograms: Ellis, "Beat tracking by dynamic programming", J. New Music Research 36 (2007);
Grosche and Mueller, "Extracting predominant local pulse information", IEEE TASLP 19 (2011).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import log, log2

import numpy as np
from numpy.typing import NDArray

from mixrl.audio import Source
from mixrl.session import Session
from mixrl.stretch import stretch
from mixrl.threads import threads

__all__ = ["Tempo", "TempoPlan", "estimate", "session_tempo", "stretch"]

Array = NDArray[np.float64]

EXCERPT_S = 60.0
FRAME_RATE = 100  # onset frames a second
BAND_EDGES_HZ = (30, 100, 200, 400, 800, 1600, 3200, 6400, 16000)
SLOWEST_BPM, FASTEST_BPM = 50.0, 220.0
USUAL_BPM, USUAL_OCTAVES = 120.0, 0.8  # centre and spread of the log-normal prior
LONGEST_LAG_S = 16.0
COMB = ((1, 1.0), (2, 1.5), (4, 2.0), (8, 2.0))  # beats and their weights: bars tell tempi apart better than beats

RHYTHMIC = 0.3  # a stem that repeats this well has a vote on the session's tempo
LOOP = 0.5  # ... and this well it may be a loop
LOOP_MARGIN = 0.3  # by which a loop repeats better at its own beats than at the session's
LOCK_FACTOR = 1.5  # ... and by which its onsets fall better on its own grid
FAINT = 0.15  # onset strength (log10 of power): a steady chord whose partials beat stays below, notes do not
LEAST, MOST = 1.015, 1.25  # ratios between which a tempo is another tempo, neither a tolerance nor another metre
SURE = 0.5  # confidence from which the session's tempo is a reference


@dataclass(frozen=True)
class Tempo:
    """A tempo in beats per minute (None: no pulse found) and how sure it is, 0..1."""

    bpm: float | None
    confidence: float


@dataclass(frozen=True)
class TempoPlan:
    """What is known of a session's tempo.

    tempo: the session's. stems: each stem's; a stem that fits the session's beat carries the session's bpm.
    loops: for each stem that plainly is a loop at another tempo, and what was recorded with it, the ratio that
    brings it to the session's tempo (more than 1 plays faster).
    """

    tempo: Tempo
    stems: Mapping[str, Tempo]
    loops: Mapping[str, float]

    def ratios(self, bpm: float | None = None) -> dict[str, float]:
        """The tempo ratio that each stem is wanted at; stems that stay as they are (1.0) are left out.

        Without `bpm` only loops at another tempo. With it every stem, together, by bpm over the session's tempo,
        octaves folded (a session at 64 asked for 130 is played at 130/128); none when the session has no tempo.
        """
        base = 1.0
        if bpm is not None:
            if self.tempo.bpm is None:
                return {}
            octaves = log2(bpm / self.tempo.bpm)
            base = 2.0 ** (octaves - round(octaves))
        wanted = {name: base * self.loops.get(name, 1.0) for name in self.stems}
        return {name: ratio for name, ratio in wanted.items() if abs(ratio - 1.0) > 1e-4}

    def weights(self, bpm: float | None = None) -> dict[str, float]:
        """How sure each wanted ratio is, 0..1: of the session's tempo and, for a loop, of its own."""
        sure = self.tempo.confidence
        return {name: sure * (self.stems[name].confidence if name in self.loops else 1.0) for name in self.ratios(bpm)}


def estimate(source: Source) -> Tempo:
    """The tempo of one source by itself, from up to 60 s in which it plays most.

    Its confidence is the mean autocorrelation of its onsets at repeated whole numbers of beats: 1 repeats exactly.
    """
    pulse = _pulse(source)
    return Tempo(None, 0.0) if pulse is None else pulse.tempo


def session_tempo(session: Session) -> TempoPlan:
    """Tempo of a session and its stems, and which stems plainly are loops at another tempo.

    A loop must repeat at its own beat but neither repeat nor fall on the grid of the session's, by a wide margin,
    be 1.5 % to 25 % off, and most of the other rhythmic stems (two at least) must keep the session's tempo without
    it. Stems of one recording (microphones on one kit) are stretched together, or not at all where one of them
    keeps the session's tempo.
    """
    sounding = [stem for stem in session.stems if not stem.silent]
    with ThreadPoolExecutor(threads()) as pool:  # decoding and spectra release the GIL
        found = pool.map(_pulse, [stem.source for stem in sounding])
        pulses = {stem.name: pulse for stem, pulse in zip(sounding, found, strict=True) if pulse is not None}
    tempo = _joint(pulses.values())
    alone = {name: pulse.tempo for name, pulse in pulses.items()}
    loops = _loops(pulses)
    if loops:
        loops = _whole_takes(session, pulses, loops)
        tempo = _joint(pulse for name, pulse in pulses.items() if name not in loops)
    stems = {stem.name: alone.get(stem.name, Tempo(None, 0.0)) for stem in session.stems}
    if tempo.bpm is not None:
        for name, pulse in pulses.items():
            kept = pulse.repetition(60.0 / tempo.bpm)
            if name in loops:
                stems[name] = Tempo(tempo.bpm / loops[name], alone[name].confidence)
            elif kept > 0.8 * alone[name].confidence:
                stems[name] = Tempo(tempo.bpm, max(0.0, kept))
    return TempoPlan(tempo, stems, loops)


# ------------------------------------------------------------------------------------------------------ evidence


def _pulse(source: Source) -> _Pulse | None:
    onsets = _onsets(source)
    return None if onsets is None else _Pulse(onsets)


def _onsets(source: Source) -> NDArray[np.float32] | None:
    """Onset strength (8 bands, frames) at 100 frames/s, its local mean removed; None without any to speak of."""
    from scipy.fft import rfft  # several times as fast as numpy's on many frames at once

    rate = source.sample_rate
    start, stop = _busiest(source)
    size = 1 << max(8, round(log2(rate / 45)))  # 1024 samples at 44.1 and 48 kHz
    hop = rate / FRAME_RATE
    window = np.hanning(size).astype(np.float32)
    edges = np.minimum(np.searchsorted(np.fft.rfftfreq(size, 1 / rate), BAND_EDGES_HZ), size // 2)
    bins = np.arange(size // 2 + 1)
    inside = ((bins >= edges[:-1, None]) & (bins < edges[1:, None])).astype(np.float32)
    bands: list[NDArray[np.float32]] = []
    held, at, frame = np.zeros(0, np.float32), 0, 0  # `held` starts `at` samples into the excerpt
    for block in source.blocks(start, stop):
        held = np.concatenate([held, block.mean(axis=0)])
        count = max(0, int((at + held.size - size) / hop) + 1 - frame)
        if not count:
            continue
        begins = (np.arange(frame, frame + count) * hop).astype(np.int64) - at
        begins = begins[begins + size <= held.size]
        if begins.size:
            frames = np.lib.stride_tricks.sliding_window_view(held, size)[begins] * window
            spectrum = rfft(frames, axis=1, overwrite_x=True)
            bands.append(inside @ (spectrum.real**2 + spectrum.imag**2).T)
            frame += begins.size
        drop = min(held.size, max(0, int(frame * hop) - at))
        held, at = held[drop:], at + drop
    if frame < 4 * FRAME_RATE:
        return None
    power = np.concatenate(bands, axis=1)
    loud = float(np.percentile(power.sum(axis=0), 99))
    if loud < 1e-9 * size:
        return None
    level = np.log10(1.0 + power / (loud * 1e-4))
    flux = np.maximum(0.0, level[:, 2:] - level[:, :-2])
    flux = _smoothed(flux, np.exp(-0.5 * (np.arange(-6, 7) / 1.5) ** 2))
    flux -= _smoothed(flux, np.ones(4 * FRAME_RATE + 1))
    return None if np.percentile(flux.max(axis=0), 99) < FAINT else flux


def _busiest(source: Source) -> tuple[int, int]:
    """The 60 s in which the source plays most, found by looking at 85 ms every two seconds."""
    length = round(EXCERPT_S * source.sample_rate)
    if source.frames <= length:
        return 0, source.frames
    step, look = 2 * source.sample_rate, 4096
    power = np.array(
        [
            sum(float(np.square(block).sum()) for block in source.blocks(at, at + look))
            for at in range(0, source.frames - look, step)
        ]
    )
    playing = (power > 1e-4 * power.max()).astype(np.float64)
    inside = np.convolve(playing, np.ones(round(EXCERPT_S / 2)), "valid") if playing.size >= 30 else np.ones(1)
    start = min(int(np.argmax(inside)) * step, source.frames - length)
    return start, start + length


def _smoothed(rows: NDArray[np.floating], kernel: Array) -> NDArray[np.float32]:
    kernel = kernel / kernel.sum()
    size = 1 << (rows.shape[1] + kernel.size - 1).bit_length()
    both = np.fft.rfft(rows, size) * np.fft.rfft(kernel, size)
    half = kernel.size // 2
    return np.fft.irfft(both, size)[:, half : half + rows.shape[1]].astype(np.float32)


class _Pulse:
    """The rhythm of one stem: its autocorrelation (bands summed) and its onset curve."""

    def __init__(self, onsets: NDArray[np.float32]) -> None:
        frames = onsets.shape[1]
        self.curve: Array = np.maximum(onsets, 0.0).sum(axis=0, dtype=np.float64)
        size = 1 << (2 * frames - 1).bit_length()
        spectrum = np.fft.rfft(onsets, size)
        raw = np.fft.irfft((spectrum.real**2 + spectrum.imag**2).sum(axis=0), size)[:frames]
        energy = np.concatenate([[0.0], np.cumsum(np.square(onsets, dtype=np.float64).sum(axis=0))])
        lags = np.arange(frames)
        # by the energy of the parts that overlap, so that long lags of a stem that repeats read 1, too
        overlap = energy[frames - lags] * (energy[-1] - energy[lags])
        self.correlation: Array = raw / np.sqrt(np.maximum(overlap, 1e-4 * energy[-1] ** 2 + 1e-30))
        self.longest_s = min(LONGEST_LAG_S, 0.7 * frames / FRAME_RATE)
        self.gram = self.comb(60.0 / _BPM)
        bpm = _peak(self.gram * _PRIOR)
        confidence = min(1.0, max(0.0, self.repetition(60.0 / bpm)))
        self.tempo = Tempo(bpm if confidence > 0.02 else None, confidence)

    def at(self, lag_s: Array) -> Array:
        return np.interp(lag_s * FRAME_RATE, np.arange(self.correlation.size), self.correlation, right=0.0)

    def comb(self, beat_s: Array) -> Array:
        """Weighted mean autocorrelation one, two, four and eight beats away."""
        total = sum((weight * self.at(beats * beat_s) for beats, weight in COMB), np.zeros_like(beat_s))
        return np.asarray(total / sum(weight for _, weight in COMB))

    def repetition(self, beat_s: float, beats: Sequence[int] = (1, 2, 4, 8, 16)) -> float:
        """The best mean autocorrelation at multiples (two at least) of a whole number of beats."""
        best = -1.0
        for count in beats:
            times = int(self.longest_s / (count * beat_s))
            if times >= 2:
                best = max(best, float(self.at(np.arange(1.0, min(times, 8) + 1) * count * beat_s).mean()))
        return best

    def lock(self, beat_s: float) -> float:
        """Share (0..1) of the onsets on one of the beat's grids of halves, thirds, quarters, sixths; in 8 s pieces."""
        size = min(8 * FRAME_RATE, self.curve.size)
        weight = np.array([self.curve[at : at + size].sum() for at in range(0, self.curve.size - size + 1, size // 2)])
        best = 0.0
        for parts in (2, 3, 4, 6):
            turn = np.exp(-2j * np.pi * parts / (beat_s * FRAME_RATE) * np.arange(self.curve.size)) * self.curve
            sums = [abs(turn[at : at + size].sum()) for at in range(0, self.curve.size - size + 1, size // 2)]
            best = max(best, float(np.sum(sums) / max(weight.sum(), 1e-12)))
        return best


_BPM: Array = np.exp(np.arange(log(SLOWEST_BPM), log(FASTEST_BPM), 0.001))
_PRIOR: Array = np.exp(-0.5 * (np.log2(_BPM / USUAL_BPM) / USUAL_OCTAVES) ** 2)
_NEAR: Array = np.exp(np.arange(-log(MOST), log(MOST), 0.001))
_NEAR = _NEAR[np.abs(np.log(_NEAR)) >= log(LEAST)]


def _peak(curve: Array) -> float:
    """bpm of the curve's maximum, by a parabola through its three highest points."""
    k = int(np.argmax(curve))
    if 0 < k < curve.size - 1:
        left, top, right = curve[k - 1 : k + 2]
        bend = left - 2 * top + right
        if bend < 0:
            return float(_BPM[k] * np.exp(0.001 * 0.5 * (left - right) / bend))
    return float(_BPM[k])


# ------------------------------------------------------------------------------------------------------ decisions


def _joint(pulses: Iterable[_Pulse]) -> Tempo:
    """The tempo that most of what repeats agrees on.

    Confidence: 1 - product(1 - repetition^2) over the stems, each one evidence of its own, times the share of the
    rhythmic stems that keep that tempo.
    """
    pulses = list(pulses)
    if not pulses:
        return Tempo(None, 0.0)
    total = sum((np.maximum(p.gram, 0.0) * max(float(p.gram.max()), 0.0) for p in pulses), np.zeros_like(_BPM))
    if total.max() <= 0.0:
        return Tempo(None, 0.0)
    bpm = _peak(total * _PRIOR)
    kept = np.array([max(0.0, _at_session(p, 60.0 / bpm)) for p in pulses])
    own = np.array([p.tempo.confidence for p in pulses])
    voters = np.maximum(kept, own) >= RHYTHMIC
    share = float((kept[voters] >= 0.7 * own[voters]).mean()) if voters.any() else 1.0
    confidence = share * (1.0 - float(np.prod(1.0 - np.minimum(kept, 1.0) ** 2)))
    return Tempo(bpm if confidence > 0.02 else None, confidence)


def _at_session(pulse: _Pulse, beat_s: float) -> float:
    return pulse.repetition(beat_s, (1, 2, 3, 4, 6, 8, 12, 16))


def _loops(pulses: Mapping[str, _Pulse]) -> dict[str, float]:
    """Stems that by themselves are plainly loops at another tempo than the rest's, and the ratio that mends it."""
    loops: dict[str, float] = {}
    for name, pulse in pulses.items():
        if pulse.tempo.confidence < RHYTHMIC:
            continue
        others = {other: p for other, p in pulses.items() if other != name}
        rest = _joint(others.values())
        if rest.bpm is None or rest.confidence < SURE:
            continue
        beat = 60.0 / rest.bpm
        keep = [max(0.0, _at_session(p, beat)) for p in others.values()]
        rhythmic = [max(k, p.tempo.confidence) >= RHYTHMIC for k, p in zip(keep, others.values(), strict=True)]
        supporters = sum(k >= RHYTHMIC for k in keep)
        if supporters < 2 or supporters <= sum(rhythmic) / 2:
            continue
        ratio = float(_NEAR[int(np.argmax(pulse.comb(_NEAR * beat)))])
        own = pulse.repetition(ratio * beat)
        if own < LOOP or own - _at_session(pulse, beat) < LOOP_MARGIN:
            continue
        if pulse.lock(ratio * beat) < LOCK_FACTOR * pulse.lock(beat):
            continue
        loops[name] = ratio
    return loops


def _whole_takes(session: Session, pulses: Mapping[str, _Pulse], loops: Mapping[str, float]) -> dict[str, float]:
    """The loops with what was recorded together with them; takes that do not agree on one ratio are left alone."""
    from mixrl.check import one_recording

    kept: dict[str, float] = {}
    for take in one_recording(session, loops):
        ratios = [loops[name] for name in take if name in loops]
        middle = float(np.median(ratios))
        agree = all(abs(log(ratio / middle)) < 0.01 for ratio in ratios)
        faithful = [n for n in take if n not in loops and n in pulses and pulses[n].tempo.confidence >= RHYTHMIC]
        if agree and not faithful:
            kept.update(dict.fromkeys(take, middle))
    return kept
