"""Closed-form prediction: the measures of any settings without rendering.

Gain, pan, polarity, high-pass and EQ are linear, so the spectrum and total power of a mix are a quadratic form in the
stems' cross-spectra, and a change of one stem costs one stem's work. Compressed stems are variants with spectra of
their own; their cross-spectra follow the original's coherence. The loudness gates see hop powers without cross terms,
rescaled to the exact total. The master limiter is outside the closed form: how much limiting a target needs is read
off the predicted peaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import numpy as np

from mixrl.analysis import (
    BALANCES,
    BANDS,
    OCTAVES,
    SUBBANDS,
    Analysis,
    Complex,
    Float,
    Reader,
    StemSpectra,
    band_centres,
    octave_of_band,
)
from mixrl.measures import Array, Facts, Measures, decibels, gate
from mixrl.moves import GROUP_MOVES, MIX_MOVES, STEM_MOVES, Layout, successors, to_tempo
from mixrl.settings import MasterSettings, MixSettings, StripSettings
from mixrl.strip import pan_gains, response

if TYPE_CHECKING:
    from mixrl.audio import Source
    from mixrl.session import Session

VariantLoader = Callable[[int, str], StemSpectra]  # (stem, compressor)
_TINY = np.float32(1e-20)
_CHANNELS = ((0, 0), (1, 1), (0, 1))  # what the three cross-spectra are of: L L*, R R*, L R*


COHERENT = 0.3  # K-weighted coherence above which two stems count as one source heard twice


@dataclass(frozen=True)
class _Strips:
    """What K candidate strips make of one stem (K = 1 for the strip as it is); everything before the group's gain.

    weight: (K, 2, BANDS) complex gain per channel on the stem's own cross-spectra; hops: (K, T) K-weighted power;
    instants: (K, 2, M); own: (K, 2, BANDS) power; lufs, position, eq_change_db, gain_reduction_db: (K,).
    """

    weight: Complex
    hops: Float
    instants: Float
    own: Float
    lufs: Array
    position: Array
    eq_change_db: Array
    gain_reduction_db: Array

    def scaled(self, gain: float) -> _Strips:
        """The same behind a linear gain."""
        if gain == 1.0:
            return self
        g = np.float32(gain)
        return replace(
            self, weight=self.weight * g, hops=self.hops * g**2, instants=self.instants * g, own=self.own * g**2,
            lufs=self.lufs + 20.0 * np.log10(gain),
        )  # fmt: skip


class Scene:
    """Predicts the measures of any settings of one session.

    ``measures(settings)`` gives those of one mix; ``deltas(settings)`` those of every one-move successor at once, in
    the order of the action space. Deterministic; not safe to share between threads (it caches).
    """

    @classmethod
    def of(
        cls,
        session: Session,
        *,
        target_lufs: float = -14.0,
        ceiling_dbtp: float = -1.0,
        tempo_ratios: Mapping[str, float] | None = None,
        tempo_weights: Mapping[str, float] | None = None,
    ) -> Scene:
        """Listen to the whole of a session: to plan a long one, take its ``excerpt.excerpt`` first.

        Compressed variants are rendered on demand. tempo_ratios, tempo_weights: as for ``facts.gather``.
        """
        from mixrl.analysis import analyse, analyse_variant
        from mixrl.facts import gather
        from mixrl.variants import variant

        rate = session.sample_rate
        analysis = analyse([reader(session.source(stem)) for stem in session.stems], rate, session.frames)

        def load(stem: int, compressor: str) -> StemSpectra:
            made = variant(session, session.stems[stem], compressor)
            return analyse_variant(reader(made.source), analysis, made.gain_reduction_db)

        return cls(gather(session, analysis, target_lufs, ceiling_dbtp, tempo_ratios, tempo_weights), analysis, load)

    def __init__(self, facts: Facts, analysis: Analysis, load_variant: VariantLoader | None = None) -> None:
        self.facts = facts
        self.analysis = analysis
        self._load_variant = load_variant
        self._variants: dict[tuple[int, str], StemSpectra] = {
            (i, "off"): spectra for i, spectra in enumerate(analysis.stems)
        }
        self._now: dict[int, tuple[StripSettings, _Strips]] = {}
        self._latest: tuple[MixSettings, _Sums] | None = None
        self._next: dict[int, tuple[StripSettings, tuple[int, ...], _Strips]] = {}

    def neutral(self) -> MixSettings:
        """Settings that change nothing, with the session's groups, target and ceiling."""
        facts = self.facts
        master = MasterSettings(ceiling_dbtp=facts.ceiling_dbtp, target_lufs=facts.target_lufs)
        members = dict(zip(facts.names, facts.members, strict=True))
        return replace(MixSettings.neutral(facts.names, members), master=master)

    @cached_property
    def _octave(self) -> Float:
        """(OCTAVES, BANDS) one where the band lies in the octave."""
        return (octave_of_band() == np.arange(OCTAVES)[:, None]).astype(np.float32)

    # ---- stems -------------------------------------------------------------------------------------------------

    def variant(self, stem: int, compressor: str) -> StemSpectra:
        """The spectra of a stem as compressed; rendered when first asked for.

        A stretched stem is predicted as the stem at its own speed: stretching keeps pitch, so spectrum and loudness
        stay within a few tenths of a dB, and rendering every tempo that is only considered would take minutes.
        """
        key = (stem, compressor)
        if key not in self._variants:
            if self._load_variant is None:
                raise ValueError(f"this scene has no {compressor!r} variant of stem {stem}")
            self._variants[key] = self._load_variant(*key)
        return self._variants[key]

    def _strips(self, stem: int, strips: Sequence[StripSettings]) -> _Strips:
        """Evaluate candidate strips of one stem."""
        base = self.analysis.stems[stem]
        rate = self.analysis.sample_rate
        count = len(strips)
        curve = np.stack([response(s, band_centres(), rate) for s in strips])  # (K, BANDS)
        pans = np.array([pan_gains(s.pan, self.analysis.channels[stem]) for s in strips])
        signed = np.array([10.0 ** (s.gain_db / 20.0) * (-1.0 if s.invert else 1.0) for s in strips])
        gains = signed[:, None] * pans  # (K, 2)
        power = np.abs(curve) ** 2
        hops = np.empty((count, self.analysis.hops), dtype=np.float32)
        instants = np.empty((count, 2, len(self.analysis.places)), dtype=np.float32)
        own = np.empty((count, 2, BANDS), dtype=np.float32)
        to_variant = np.empty((count, 2, BANDS))
        reduction = np.empty(count)
        eq_change = np.empty(count)
        kinds = [s.compressor for s in strips]
        for kind in dict.fromkeys(kinds):
            rows = [k for k, other in enumerate(kinds) if other == kind]
            spectra = self.variant(stem, kind)
            total = spectra.own.sum(axis=0)
            weighted = total * self.analysis.k_power
            # octave gains are averages over what the stem has there, so that steep spectra come out right
            per_hop = (power[rows] * weighted) @ self._octave.T + _TINY
            per_hop /= weighted @ self._octave.T + _TINY
            per_instant = np.sqrt(((power[rows] * total) @ self._octave.T + _TINY) / (total @ self._octave.T + _TINY))
            squares = gains[rows] ** 2
            flat = (per_hop[:, :, None] * squares[:, None, :]).reshape(len(rows), -1).astype(np.float32)
            hops[rows] = flat @ spectra.hops.reshape(len(spectra.hops), -1).T
            for channel in range(2):
                shape = (per_instant * gains[rows, channel, None]).astype(np.float32)
                instants[rows, channel] = shape @ spectra.instants[channel]
            own[rows] = squares[:, :, None] * power[rows][:, None, :] * spectra.own
            to_variant[rows] = np.sqrt(spectra.own / np.maximum(base.own, _TINY))
            reduction[rows] = spectra.gain_reduction_db
            change = decibels(power[rows]) ** 2
            eq_change[rows] = np.sqrt((change * weighted).sum(-1) / max(float(weighted.sum()), float(_TINY)))
        weight = (gains[:, :, None] * curve[:, None, :] * to_variant).astype(np.complex64)
        sides = (own * self.analysis.k_power).sum(-1)
        total_power = own.astype(np.float64) @ self.analysis.k_power
        lufs = gate(_blocks(_rescaled(hops, total_power.sum(-1)), 4))
        position = (sides[:, 1] - sides[:, 0]) / np.maximum(sides.sum(-1), _TINY)
        return _Strips(weight, hops, instants, own, lufs, position, eq_change, reduction)

    def _current(self, settings: MixSettings, stem: int) -> _Strips:
        """The stem as it is (K = 1), behind its group's gain."""
        name = self.facts.names[stem]
        strip = settings.strip(name)
        if stem not in self._now or self._now[stem][0] != strip:
            self._now[stem] = (strip, self._strips(stem, [strip]))
        return self._now[stem][1].scaled(_group_gain(settings, name))

    def _candidates(self, settings: MixSettings, stem: int) -> tuple[tuple[int, ...], _Strips] | None:
        """The legal one-move successors of a stem (numbers in ``STEM_MOVES``, strips), behind its group's gain."""
        name = self.facts.names[stem]
        strip = settings.strip(name)
        if stem not in self._next or self._next[stem][0] != strip:
            after = successors(strip, float(self.facts.bandwidth_hz[stem]))
            numbers = tuple(k for k, s in enumerate(after) if s is not None)
            self._next[stem] = (strip, numbers, self._strips(stem, [s for s in after if s is not None]))
        _, numbers, strips = self._next[stem]
        return numbers, strips.scaled(_group_gain(settings, name))

    @cached_property
    def _partners(self) -> tuple[tuple[int, ...], ...]:
        """For each stem the others that are coherent with it: their contributions add as amplitudes."""
        cross, k = self.analysis.cross, self.analysis.k_power
        both = ((cross[0] + cross[1]) * k).sum(-1)
        power = np.maximum(np.einsum("ii->i", both).real, _TINY)
        coherence = np.abs(both) / np.sqrt(power[:, None] * power)
        np.fill_diagonal(coherence, 0.0)
        return tuple(tuple(int(j) for j in np.flatnonzero(row > COHERENT)) for row in coherence)

    def own_power(self, settings: MixSettings) -> Array:
        """(N, 31) power of each stem as it enters the mix, per third-octave."""
        return np.stack([_thirds(self._current(settings, i).own[0].sum(0)) for i in range(len(self.facts.names))])

    def subset(self, stems: Sequence[int], gains_db: Sequence[float]) -> Scene:
        """The scene of some of the stems, each louder by a gain that counts as part of the recording."""
        rows = list(stems)
        facts, analysis = self.facts, self.analysis
        g = (10.0 ** (np.asarray(gains_db) / 20.0)).astype(np.float32)

        def louder(spectra: StemSpectra, gain: np.float32) -> StemSpectra:
            return StemSpectra(
                spectra.own * gain**2, spectra.hops * gain**2, spectra.instants * gain, spectra.gain_reduction_db
            )

        cut = replace(
            analysis,
            cross=analysis.cross[:, rows][:, :, rows] * (g[:, None] * g)[None, :, :, None],
            stems=tuple(louder(analysis.stems[i], gain) for i, gain in zip(rows, g, strict=True)),
            channels=tuple(analysis.channels[i] for i in rows),
        )
        fewer = replace(
            facts,
            names=tuple(facts.names[i] for i in rows),
            roles=tuple(facts.roles[i] for i in rows),
            members=tuple(facts.members[i] for i in rows),
            activity=facts.activity[rows],
            bandwidth_hz=facts.bandwidth_hz[rows],
            tempo_target=facts.tempo_target[rows],
            tempo_weight=facts.tempo_weight[rows],
        )
        return Scene(fewer, cut, lambda i, c: louder(self.variant(rows[i], c), g[i]))

    # ---- mixes -------------------------------------------------------------------------------------------------

    def measures(self, settings: MixSettings) -> Measures:
        """The measures of one mix, without batch axes."""
        return self._finish(_unchanged(self._sums(settings))).at(0)

    def deltas(self, settings: MixSettings) -> tuple[np.ndarray, Measures]:
        """Every one-move successor of the settings.

        Returns the action numbers (B,) and their measures with a leading axis B. Moves that are illegal whatever is
        locked are left out, and so is stop, which changes nothing.
        """
        sums = self._sums(settings)
        layout = Layout(len(self.facts.names), len(self.facts.groups))
        actions: list[int] = []
        outcomes: list[_Outcome] = []
        for stem in np.flatnonzero(self.facts.audible):
            found = self._candidates(settings, int(stem))
            if found is not None:
                numbers, strips = found
                actions += [int(stem) * len(STEM_MOVES) + number for number in numbers]
                outcomes.append(_stem_changed(sums, int(stem), strips))
        if len(self.facts.groups) > 1:
            for index, group in enumerate(self.facts.groups):
                members = [i for i, m in enumerate(self.facts.members) if m == group]
                start = layout.group_start + index * len(GROUP_MOVES)
                gains = np.array([10.0 ** (move.amount / 20.0) for move in GROUP_MOVES])
                actions += range(start, start + len(GROUP_MOVES))
                outcomes.append(_group_changed(sums, members, gains))
        for offset, move in enumerate(MIX_MOVES):
            if move.kind == "tempo":
                after = to_tempo(settings, self.facts, move.amount)
                if after != settings:
                    actions.append(layout.mix_start + offset)
                    outcomes.append(_unchanged(self._sums(after)))
        if not outcomes:
            outcomes = [_unchanged(sums, 0)]
        return np.array(actions, dtype=np.int64), self._finish(_joined(outcomes))

    def _sums(self, settings: MixSettings) -> _Sums:
        """The base of a mix; the latest is kept, since its measures and its successors are asked for in turn."""
        if self._latest is None or self._latest[0] is not settings:
            self._latest = (settings, _Sums(self, settings))
        return self._latest[1]

    def _finish(self, outcome: _Outcome) -> Measures:
        facts, analysis = self.facts, self.analysis
        left, right, between = (_thirds(outcome.power[:, k]) for k in range(3))
        total = np.maximum(left + right, _TINY)
        side = np.maximum(total - 2.0 * between, _TINY)
        middle = np.maximum(total + 2.0 * between, _TINY)
        k_sides = outcome.power[:, :2] @ analysis.k_power
        hops = _rescaled(outcome.hops, k_sides.sum(-1))
        integrated = gate(_blocks(hops, 4))
        windows = _blocks(hops, 30)
        loudest = windows.argmax(-1)
        short_term = decibels(np.take_along_axis(windows, loudest[:, None], -1)[:, 0]) - 0.691
        heights = np.abs(outcome.instants)
        heights = np.maximum(heights[:, 0], heights[:, 1]).reshape(len(hops), BALANCES, -1)
        hop_peaks = decibels(reduce(np.maximum, np.moveaxis(heights, 1, 0)) ** 2)  # (B, hot hops)
        peak = hop_peaks.max(-1)
        gain = facts.target_lufs - integrated
        limiting = np.maximum(hop_peaks + (gain - facts.ceiling_dbtp)[:, None], 0.0)
        worst = max(-(-analysis.hops // 100), 1)
        rank = max(limiting.shape[1] - worst, 0)
        limiting_db = np.partition(limiting, rank, -1)[:, rank]
        psr = np.minimum(peak + gain, facts.ceiling_dbtp) - (short_term + gain)
        shares = np.einsum("bnk,bk->bn", outcome.contribution, 1.0 / total)
        return Measures(
            integrated_lufs=integrated,
            short_term_lufs=short_term,
            peak_dbfs=peak,
            limiting_db=limiting_db,
            psr_db=psr,
            spectrum_db=decibels(total),
            side_mid_db=decibels(side / middle),
            cancellation_db=decibels(total / np.maximum(outcome.incoherent, _TINY)),
            imbalance_db=decibels((k_sides[:, 1] + _TINY) / (k_sides[:, 0] + _TINY)),
            stem_lufs=outcome.lufs,
            audibility_db=np.minimum(decibels(shares), 0.0),
            position=outcome.position,
            eq_change_db=outcome.eq_change_db,
            gain_reduction_db=outcome.gain_reduction_db,
            tempo_ratio=outcome.tempo_ratio,
        )


def reader(source: Source) -> Reader:
    """Reads a source by span, with zeros outside it."""
    from mixrl.audio import read

    def at(start: int, stop: int) -> Float:
        inside = read(source, min(start, source.frames), min(stop, source.frames))
        return np.pad(inside, ((0, 0), (0, stop - start - inside.shape[1])))

    return at


def _group_gain(settings: MixSettings, name: str) -> float:
    group = settings.members.get(name)
    return 1.0 if group is None else float(10.0 ** (settings.groups[group] / 20.0))


def _thirds(bands: np.ndarray) -> Array:
    """(..., BANDS) powers summed into (..., 31)."""
    # slices, since numpy is slow at reducing a short last axis
    return np.asarray(sum(bands[..., k::SUBBANDS] for k in range(SUBBANDS)), dtype=np.float64)


def _blocks(hops: np.ndarray, length: int) -> Array:
    """(B, T) hop powers -> means over ``length`` hops, one per hop (one for all of a shorter excerpt)."""
    length = min(length, hops.shape[-1])
    sums = np.cumsum(hops, axis=-1, dtype=np.float64)
    sums = np.concatenate([np.zeros((*hops.shape[:-1], 1)), sums], axis=-1)
    return np.maximum(sums[..., length:] - sums[..., :-length], 0.0) / length


def _rescaled(hops: np.ndarray, total: Array) -> np.ndarray:
    """Hop powers scaled so that their mean is the exact K-weighted power, (B,)."""
    return hops * (total / np.maximum(hops.mean(-1, dtype=np.float64), _TINY))[:, None].astype(np.float32)


class _Sums:
    """The current mix and, for each stem, what all the others bring to it: the base that changes start from."""

    def __init__(self, scene: Scene, settings: MixSettings) -> None:
        cross = scene.analysis.cross
        now = [scene._current(settings, i) for i in range(len(scene.facts.names))]
        self.scene = scene
        self.weight = w = np.concatenate([s.weight for s in now])  # (N, 2, BANDS)
        self.hops = np.concatenate([s.hops for s in now])
        self.instants = np.concatenate([s.instants for s in now])
        self.own = np.concatenate([s.own for s in now])
        self.lufs = np.concatenate([s.lufs for s in now])
        self.position = np.concatenate([s.position for s in now])
        self.eq_change_db = np.concatenate([s.eq_change_db for s in now])
        self.gain_reduction_db = np.concatenate([s.gain_reduction_db for s in now])
        self.tempo_ratio = np.array([settings.strip(n).tempo_ratio for n in scene.facts.names])
        diagonal = np.einsum("ciib->cib", cross)
        self.diagonal = diagonal
        # the others' part of each stem's cross-spectrum with the mix, for L L*, R R*, L R* and (R L*)* in turn
        self.rest = np.stack([
            np.einsum("jb,ijb->ib", w[:, 0].conj(), cross[0]) - w[:, 0].conj() * diagonal[0],
            np.einsum("jb,ijb->ib", w[:, 1].conj(), cross[1]) - w[:, 1].conj() * diagonal[1],
            np.einsum("jb,ijb->ib", w[:, 1].conj(), cross[2]) - w[:, 1].conj() * diagonal[2],
            np.einsum("jb,jib->ib", w[:, 0], cross[2]) - w[:, 0] * diagonal[2],
        ])  # fmt: skip
        self.alone = _own_power(w, diagonal)  # (N, 3, BANDS)
        self.shared = _shared_power(w, self.rest)
        self.power = self.alone.sum(0) + 0.5 * self.shared.sum(0)
        self.incoherent = _thirds(self.own.sum(1))  # (N, 31)
        self.coherent = np.stack([self._with_partners(i, w[i], w) for i in range(len(now))])  # (N, 31)
        self.k_share = np.stack([self._k_share(own) for own in self.own])

    def _with_partners(self, stem: int, weight: Complex, others: Complex) -> Array:
        """(31,) what a stem with this weight adds to the mix's power together with the stems coherent with it."""
        cross = self.scene.analysis.cross
        power = (np.abs(weight[:2]) ** 2 * self.diagonal[:2, stem].real).sum(0)
        for other in self.scene._partners[stem]:
            power = power + sum((weight[c] * others[other, c].conj() * cross[c, stem, other]).real for c in range(2))
        return np.maximum(_thirds(power), 0.0)

    def _k_share(self, own: Float) -> Array:
        """(31,) where the K-weighted power of a stem lies, corrected for the time in which it rests."""
        weighted = _thirds(own.sum(-2) * self.scene.analysis.k_power)
        return weighted / np.maximum(weighted.sum(-1, keepdims=True), _TINY)


def _own_power(weight: Complex, diagonal: Complex) -> Float:
    """(..., 3, BANDS) power L L*, R R*, Re L R* of one stem; diagonal (3, ..., BANDS)."""
    left, right = weight[..., 0, :], weight[..., 1, :]
    parts = [np.abs(left) ** 2 * diagonal[0].real, np.abs(right) ** 2 * diagonal[1].real]
    parts.append((left * right.conj() * diagonal[2]).real)
    return np.stack(parts, axis=-2).astype(np.float32)


def _shared_power(weight: Complex, rest: Complex) -> Float:
    """(..., 3, BANDS) power that a stem shares with all the others (both orders of each pair); rest (4, ..., BANDS)."""
    left, right = weight[..., 0, :], weight[..., 1, :]
    parts = [2.0 * (left * rest[0]).real, 2.0 * (right * rest[1]).real]
    parts.append((left * rest[2]).real + (right.conj() * rest[3]).real)
    return np.stack(parts, axis=-2).astype(np.float32)


@dataclass(frozen=True)
class _Outcome:
    """B mixes before they are measured: power (B, 3, BANDS), hops (B, T), instants (B, 2, M), incoherent (B, 31), and
    per stem contribution (B, N, 31), lufs, position, eq_change_db, gain_reduction_db, tempo_ratio (B, N)."""

    power: Float
    hops: Float
    instants: Float
    incoherent: Array
    contribution: Array
    lufs: Array
    position: Array
    eq_change_db: Array
    gain_reduction_db: Array
    tempo_ratio: Array


def _unchanged(sums: _Sums, count: int = 1, **changed: np.ndarray) -> _Outcome:
    """``count`` copies of the current mix, some fields replaced."""
    fields: Mapping[str, np.ndarray] = {
        "power": sums.power,
        "hops": sums.hops.sum(0),
        "instants": sums.instants.sum(0),
        "incoherent": sums.incoherent.sum(0),
        "contribution": sums.k_share * sums.coherent / np.maximum(sums.scene.facts.activity, 1e-3)[:, None],
        "lufs": sums.lufs,
        "position": sums.position,
        "eq_change_db": sums.eq_change_db,
        "gain_reduction_db": sums.gain_reduction_db,
        "tempo_ratio": sums.tempo_ratio,
    }
    return _Outcome(**{
        name: changed[name] if name in changed else np.broadcast_to(value, (count, *value.shape))
        for name, value in fields.items()
    })  # fmt: skip


def _stem_changed(sums: _Sums, stem: int, to: _Strips) -> _Outcome:
    """The mixes in which one stem takes each of K new strips."""
    count = len(to.lufs)
    before = sums.alone[stem] + sums.shared[stem]
    diagonal = sums.diagonal[:, stem]
    after = _own_power(to.weight, diagonal) + _shared_power(to.weight, sums.rest[:, stem])
    base = _unchanged(sums)
    contribution = np.repeat(base.contribution, count, axis=0)
    activity = np.maximum(sums.scene.facts.activity, 1e-3)
    cross = sums.scene.analysis.cross
    power = (np.abs(to.weight) ** 2 * diagonal[:2].real).sum(1)
    for other in sums.scene._partners[stem]:
        both = (to.weight * sums.weight[other].conj() * cross[:2, stem, other]).real.sum(1)
        power = power + both
        was = (sums.weight[stem] * sums.weight[other].conj() * cross[:2, stem, other]).real.sum(0)
        theirs = np.maximum(sums.coherent[other] + _thirds(both - was), 0.0)
        contribution[:, other] = sums.k_share[other] * theirs / activity[other]
    shares = sums._k_share(to.own)
    contribution[:, stem] = shares * np.maximum(_thirds(power), 0.0) / activity[stem]

    def with_column(values: Array, column: Array) -> Array:
        table = np.repeat(values[None], count, axis=0)
        table[:, stem] = column
        return table

    return _unchanged(
        sums,
        count,
        power=sums.power - before + after,
        hops=base.hops - sums.hops[stem] + to.hops,
        instants=base.instants - sums.instants[stem] + to.instants,
        incoherent=base.incoherent - sums.incoherent[stem] + _thirds(to.own.sum(1)),
        contribution=contribution,
        lufs=with_column(sums.lufs, to.lufs),
        position=with_column(sums.position, to.position),
        eq_change_db=with_column(sums.eq_change_db, to.eq_change_db),
        gain_reduction_db=with_column(sums.gain_reduction_db, to.gain_reduction_db),
    )


def _group_changed(sums: _Sums, members: Sequence[int], gains: Array) -> _Outcome:
    """The mixes in which a group's stems are all scaled by each of K linear gains."""
    rows = list(members)
    cross = sums.scene.analysis.cross[:, rows][:, :, rows]
    w = sums.weight[rows]
    inside = np.stack([
        (w[:, a] * np.einsum("jb,ijb->ib", w[:, b].conj(), cross[c])).real.sum(0) for c, (a, b) in enumerate(_CHANNELS)
    ])  # fmt: skip
    # each pair inside the group is counted twice in the members' shared power, each pair across its edge once
    across = (sums.alone[rows] + sums.shared[rows]).sum(0) - (2.0 * inside - sums.alone[rows].sum(0))
    g = gains.astype(np.float32)[:, None]
    base = _unchanged(sums)
    contribution = np.repeat(base.contribution, len(gains), axis=0)
    # stems coherent with one outside the group are rare enough to scale as if their partners moved along
    contribution[:, rows] *= gains[:, None, None] ** 2
    lufs = np.repeat(sums.lufs[None], len(gains), axis=0)
    lufs[:, rows] += 20.0 * np.log10(gains)[:, None]
    return _unchanged(
        sums,
        len(gains),
        power=sums.power + (g[..., None] - 1.0) * across + (g[..., None] ** 2 - 1.0) * inside,
        hops=base.hops + (g**2 - 1.0) * sums.hops[rows].sum(0),
        instants=base.instants + (g[..., None] - 1.0) * sums.instants[rows].sum(0),
        incoherent=base.incoherent + (gains[:, None] ** 2 - 1.0) * sums.incoherent[rows].sum(0),
        contribution=contribution,
        lufs=lufs,
    )


def _joined(outcomes: Sequence[_Outcome]) -> _Outcome:
    return _Outcome(*(np.concatenate(columns) for columns in zip(*map(_columns, outcomes), strict=True)))


def _columns(outcome: _Outcome) -> tuple[np.ndarray, ...]:
    return (
        outcome.power, outcome.hops, outcome.instants, outcome.incoherent, outcome.contribution, outcome.lufs,
        outcome.position, outcome.eq_change_db, outcome.gain_reduction_db, outcome.tempo_ratio,
    )  # fmt: skip
