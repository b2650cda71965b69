"""Closed-form prediction: the measures of any settings without rendering.

Gain, pan, polarity, high-pass and EQ are linear, so the spectrum and total power of a mix are a quadratic form in the
stems' cross-spectra, and a change of one stem costs one stem's work. Compressed stems are variants with spectra of
their own; their cross-spectra follow the original's coherence. How the power is spread over time comes from hop powers,
with cross terms for stems that are really coherent, rescaled to the exact total. Peaks are looked up at the instants
where they are likely (``peaks``). The master limiter is outside the closed form: how much limiting a target needs is
read off the predicted peaks. The arithmetic is in ``forms``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixrl import forms
from mixrl.analysis import BANDS, Analysis, Float, Reader, StemSpectra
from mixrl.curves import curves
from mixrl.errors import InputError
from mixrl.knobs import COLUMNS, COMPRESSOR, NEUTRAL_SHAPE, TEMPO, Knobs, Shape, neutral_knobs, to_knobs, to_settings
from mixrl.measures import Array, Facts, Measures
from mixrl.moves import (
    GROUP_MOVES,
    MIX_MOVES,
    STEM_MOVES,
    Layout,
    after_moves,
    group_gains,
    to_tempo,
    tops_of,
)
from mixrl.peaks import OCTAVES
from mixrl.score import score
from mixrl.settings import COMPRESSORS, MixSettings
from mixrl.strip import pan_gains

if TYPE_CHECKING:
    from mixrl.audio import Source
    from mixrl.session import Session

VariantLoader = Callable[[int, str], StemSpectra]  # (stem, compressor)
Strips = tuple[Float, Float, Float, Float, Float, Array]  # what forms.shape_strips returns
_TINY = np.float32(1e-20)
_MOST_MIXES = 64  # evaluated at once, so that what is worked on stays in the processor's cache
_FULL = len(STEM_MOVES)


class Scene:
    """Predicts the measures of any settings of one session.

    ``measures(settings)`` gives those of one mix, ``evaluate(knobs)`` those of many, ``deltas(knobs)`` those of every
    one-move successor at once. Deterministic; not safe to share between threads (it caches).
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
        self._store = _Store(analysis, load_variant)
        self._rows = np.arange(len(facts.names))  # of the store's stems
        self._baked = np.ones((len(facts.names), BANDS), dtype=np.complex64)
        self._fixed = np.ones((len(facts.names), 2), dtype=np.float32)
        self._prepare()

    def _prepare(self) -> None:
        """What is asked for again and again, in the form that ``forms`` wants; and empty caches."""
        analysis, count = self.analysis, len(self.facts.names)
        self._cross = np.stack([analysis.cross.real, analysis.cross.imag], axis=1)  # (3, 2, N, N, BANDS)
        diagonal = np.einsum("ciib->cib", analysis.cross)
        self._own = np.ascontiguousarray(np.moveaxis(diagonal[:2].real, 0, 1))  # (N, 2, BANDS)
        self._between = np.ascontiguousarray(np.stack([diagonal[2].real, diagonal[2].imag], axis=1))
        self._playing = np.ascontiguousarray(self.facts.activity)
        hop = round(0.1 * analysis.sample_rate)
        self._frame = (analysis.places * 10 // hop).astype(np.int64)
        self._first = np.searchsorted(analysis.places, hop * np.arange(analysis.hops + 1))
        self._levels = np.array([self.facts.target_lufs, self.facts.ceiling_dbtp])
        self._partners = _partners(analysis, count)
        self._now: list[tuple[bytes, Strips] | None] = [None] * count
        self._next: _Candidates | None = None
        self._latest: tuple[Knobs, _Mix] | None = None

    # ---- settings ----------------------------------------------------------------------------------------------

    def neutral(self) -> MixSettings:
        """Settings that change nothing, with the session's groups, target and ceiling."""
        return to_settings(neutral_knobs(self.facts), self.facts)

    def knobs(self, settings: MixSettings) -> Knobs:
        """Settings as one mix of knobs."""
        return to_knobs(settings, self.facts)

    # ---- stems -------------------------------------------------------------------------------------------------

    def variant(self, stem: int, compressor: str) -> StemSpectra:
        """The spectra of a stem as compressed; rendered when first asked for.

        A stretched stem is predicted as the stem at its own speed: stretching keeps pitch, so spectrum and loudness
        stay within a few tenths of a dB, and rendering every tempo that is only considered would take minutes.
        """
        return self._store.spectra(int(self._rows[stem]), compressor)

    def _strips(self, stem: int, rows: Array, group_db: Array, shape: Shape) -> Strips:
        """Evaluate strips (K, COLUMNS) of one stem, behind group gains (K,)."""
        rows = np.ascontiguousarray(rows)
        index = self._store.index(int(self._rows[stem]), rows[:, COMPRESSOR])
        store = self._store
        return forms.shape_strips(
            rows, curves(rows, shape, self.analysis.sample_rate), self._baked[stem], self._fixed[stem],
            self.analysis.channels[stem], group_db, index, store.ratio, store.k_share, store.p_share, store.hops,
            store.instants, self._own[stem], self.analysis.k_power,
        )  # type: ignore[no-any-return]  # fmt: skip

    @cached_property
    def _group_of(self) -> NDArray[np.int64]:
        groups = self.facts.groups
        return np.array([groups.index(member) for member in self.facts.members], dtype=np.int64)

    def own_power(self, knobs: Knobs) -> Array:
        """(N, 31) power of each stem as it enters the mix, per third-octave."""
        return self._mix(knobs).thirds.astype(np.float64)

    def subset(self, stems: Sequence[int], strips: Array | None = None) -> Scene:
        """The scene of some of the stems. strips (stems, COLUMNS): settings that count as part of the recording (gain,
        pan, polarity, high-pass, EQ; no compressor, no tempo), as if the stems had been recorded so."""
        rows = np.asarray(stems, dtype=np.int64)
        facts, analysis = self.facts, self.analysis
        scene = object.__new__(Scene)
        kept = np.isin(analysis.pairs, rows).all(axis=1)
        renumbered = np.searchsorted(np.sort(rows), analysis.pairs[kept])
        renumbered = np.argsort(rows, kind="stable")[renumbered] if len(rows) else renumbered
        scene.analysis = replace(
            analysis,
            cross=np.ascontiguousarray(analysis.cross[:, rows][:, :, rows]),
            stems=tuple(analysis.stems[i] for i in rows),
            channels=tuple(analysis.channels[i] for i in rows),
            pairs=renumbered,
            shared=analysis.shared[kept],
        )
        scene.facts = replace(
            facts,
            names=tuple(facts.names[i] for i in rows),
            roles=tuple(facts.roles[i] for i in rows),
            members=tuple(facts.members[i] for i in rows),
            activity=facts.activity[rows],
            bandwidth_hz=facts.bandwidth_hz[rows],
            tempo_target=facts.tempo_target[rows],
            tempo_weight=facts.tempo_weight[rows],
        )
        scene._store, scene._rows = self._store, self._rows[rows]
        scene._baked, scene._fixed = self._baked[rows], self._fixed[rows]
        if strips is not None:
            if strips[:, COMPRESSOR].any() or (strips[:, TEMPO] != 1.0).any():
                raise ValueError("a compressor or a tempo cannot be baked into a recording here")
            scene._baked = scene._baked * curves(strips, NEUTRAL_SHAPE, analysis.sample_rate)
            gains = 10.0 ** (strips[:, :1] / 20.0) * (1.0 - 2.0 * strips[:, 2:3])
            pans = np.array([pan_gains(p, c) for p, c in zip(strips[:, 1], scene.analysis.channels, strict=True)])
            scene._fixed = (scene._fixed * gains * pans).astype(np.float32)
            # recorded off centre, a mono stem is a stereo one: what pans it afterwards is a balance
            channels = tuple(2 if pan else c for pan, c in zip(strips[:, 1], scene.analysis.channels, strict=True))
            scene.analysis = replace(scene.analysis, channels=channels)
        scene._prepare()
        return scene

    # ---- mixes -------------------------------------------------------------------------------------------------

    def measures(self, settings: MixSettings) -> Measures:
        """The measures of one mix, without batch axes."""
        return self.evaluate(self.knobs(settings)[None]).at(0)

    def current(self, knobs: Knobs) -> Measures:
        """The measures of one mix, without batch axes: cheap where it differs in few stems from the last one asked for,
        and its successors come cheaper afterwards."""
        return self._changed(knobs, self._mix(knobs), np.zeros(1)).at(0)

    def scores(self, knobs: Knobs) -> Array:
        """(B,) scores of mixes."""
        return score(self.evaluate(knobs), self.facts)

    def evaluate(self, knobs: Knobs) -> Measures:
        """The measures of mixes with one leading axis B."""
        parts = [self._evaluate(knobs[at : at + _MOST_MIXES]) for at in range(0, len(knobs.strips), _MOST_MIXES)]
        return parts[0] if len(parts) == 1 else Measures.joined(parts)

    def _evaluate(self, knobs: Knobs) -> Measures:
        count = len(knobs.strips)
        analysis, stems = self.analysis, len(self.facts.names)
        weight = np.empty((stems, count, 2, 2, BANDS), dtype=np.float32)
        hops = np.zeros((count, analysis.hops), dtype=np.float32)
        instants = np.zeros((count, 2 * len(analysis.places)), dtype=np.float32)
        thirds = np.empty((count, stems, forms.THIRDS), dtype=np.float32)
        k_thirds = np.empty_like(thirds)
        table = np.empty((count, stems, 4))
        for i in range(stems):
            shape = knobs.shapes[i] if knobs.shapes else NEUTRAL_SHAPE
            made = self._strips(i, knobs.strips[:, i], knobs.groups[:, self._group_of[i]], shape)
            weight[i], thirds[:, i], k_thirds[:, i], table[:, i] = made[0], made[3], made[4], made[5]
            hops += made[1]
            instants += made[2]
        coherent = thirds.copy()
        for p, (i, j) in enumerate(analysis.pairs):
            forms.share_hops(weight[i], weight[j], self._pair_share[p], analysis.shared[p], hops)
            both = forms.share_power(weight[i], weight[j], self._pair_cross(i, j))
            coherent[:, i] += both
            coherent[:, j] += both
        scalars, spectra, audible = forms.measure(
            forms.mix_power(weight, self._cross), hops, instants, thirds.sum(1), coherent, k_thirds, self._playing,
            analysis.k_power, self._frame, self._first, self._levels,
        )  # fmt: skip
        reduction = self._reduction(knobs.strips)
        return _measures(scalars, spectra, audible, table, reduction, knobs.strips[..., TEMPO])

    def successor_scores(self, knobs: Knobs) -> tuple[NDArray[np.int64], Array]:
        """Action numbers and scores of every one-move successor of a mix."""
        actions, after = self.deltas(knobs)
        return actions, score(after, self.facts)

    def deltas(self, knobs: Knobs) -> tuple[NDArray[np.int64], Measures]:
        """Every one-move successor of one mix.

        Returns the action numbers (B,) and their measures with a leading axis B. Moves that are illegal whatever is
        locked are left out, and so is stop, which changes nothing.
        """
        mix = self._mix(knobs)
        found = self._candidates(knobs)
        analysis, facts = self.analysis, self.facts
        partners, start = self._partners.stems, self._partners.start
        slots = int(found.slot.max(initial=-1)) + 1
        shared_hops = np.zeros((slots, _FULL, analysis.hops), dtype=np.float32)
        shared_power = np.zeros((len(partners), _FULL, forms.THIRDS), dtype=np.float32)
        for row, (i, j) in enumerate(zip(self._partners.of, partners, strict=True)):
            if facts.audible[i]:
                pair, shared = self._shared(row)
                partner = mix.weight[j : j + 1]
                forms.share_hops(found.weight[i], partner, self._pair_share[pair], shared, shared_hops[found.slot[i]])
                shared_power[row] = forms.share_power(found.weight[i], partner, self._pair_cross(i, j))
        numbers = np.argwhere(found.legal)
        scalars, spectra, audible = forms.successors(
            numbers, found.weight, found.hops, found.instants, found.thirds, found.k_thirds, shared_hops, found.slot,
            shared_power, mix.power, mix.power_of, mix.rest, self._own, self._between, mix.hops, mix.hops_of,
            mix.instants, mix.instants_of, mix.thirds.sum(0), mix.thirds, mix.coherent, mix.k_thirds, mix.shared,
            start, partners, self._playing, analysis.k_power, self._frame, self._first, self._levels,
        )  # fmt: skip
        stems, moves = numbers[:, 0], numbers[:, 1]
        rows = np.arange(len(numbers))
        table = np.repeat(mix.table[None], len(numbers), axis=0)
        table[rows, stems] = found.table[stems, moves]
        strips = np.repeat(knobs.strips[None], len(numbers), axis=0)
        strips[rows, stems] = found.rows[stems, moves]
        reduction = np.repeat(self._reduction(knobs.strips)[None], len(numbers), axis=0)
        reduction[rows, stems] = self._reduction_of(stems, strips[rows, stems, COMPRESSOR])
        parts = [_measures(scalars, spectra, audible, table, reduction, strips[..., TEMPO])]
        actions = [numbers[:, 0] * len(STEM_MOVES) + numbers[:, 1]]
        for number, after in self._other_moves(knobs):
            actions.append(np.array(number))
            parts.append(after)
        return np.concatenate(actions), Measures.joined(parts) if len(parts) > 1 else parts[0]

    def _other_moves(self, knobs: Knobs) -> list[tuple[list[int], Measures]]:
        """Successors by moves on groups and on the mix: action numbers and measures."""
        facts, mix = self.facts, self._mix(knobs)
        layout = Layout(len(facts.names), len(facts.groups))
        found: list[tuple[list[int], Measures]] = []
        for index in range(len(facts.groups) if len(facts.groups) > 1 else 0):
            members = np.flatnonzero(self._group_of == index)
            gains, legal = group_gains(knobs, index)
            if len(members) > 1 and legal.any():
                first = layout.group_start + index * len(GROUP_MOVES)
                change = gains[legal] - knobs.groups[index]
                found.append(((first + np.flatnonzero(legal)).tolist(), self._changed(knobs, mix, change, members)))
        numbers, mixes = [], []
        for offset, move in enumerate(MIX_MOVES):
            if move.kind == "tempo":
                after = to_tempo(knobs, facts, move.amount)
                if (after.strips != knobs.strips).any():
                    numbers.append(layout.mix_start + offset)
                    mixes.append(after)
        if mixes:
            batch = Knobs(np.stack([m.strips for m in mixes]), np.stack([m.groups for m in mixes]), knobs.shapes)
            found.append((numbers, self.evaluate(batch)))
        return found

    def _changed(
        self, knobs: Knobs, mix: _Mix, change_db: Array, members: NDArray[np.int64] | None = None
    ) -> Measures:
        """The mixes in which some stems are all scaled by each of K gains in dB; without members the mix as it is."""
        count = len(change_db)
        power, hops, instants = (np.repeat(part[None], count, axis=0) for part in (mix.power, mix.hops, mix.instants))
        coherent = np.repeat(mix.coherent[None], count, axis=0)
        thirds = np.repeat(mix.thirds.sum(0)[None], count, axis=0)
        table = np.repeat(mix.table[None], count, axis=0)
        if members is not None:
            g = (10.0 ** (change_db / 20.0)).astype(np.float32)[:, None]
            inside = np.isin(np.arange(len(self.facts.names)), members)
            power_in = forms.mix_power(mix.weight[members][:, None], self._cross_of(members))[0]
            # power_of counts each pair of members twice, members' own power once, and each pair across the edge once
            power_across = mix.power_of[members].sum(0) - 2.0 * power_in + mix.alone[members].sum(0)
            power += (g[..., None] - 1.0) * power_across + (g[..., None] ** 2 - 1.0) * power_in
            hops += (g**2 - 1.0) * mix.own_hops[members].sum(0)
            instants += (g - 1.0) * mix.instants_of[members].sum(0)
            thirds += (g**2 - 1.0) * mix.thirds[members].sum(0)
            coherent[:, members] += (g**2 - 1.0)[..., None] * mix.thirds[members]
            table[:, members, 3] += change_db[:, None]
            for row, (i, j) in enumerate(zip(self._partners.of, self._partners.stems, strict=True)):
                factor = g ** (int(inside[i]) + int(inside[j])) - 1.0
                coherent[:, i] += factor * mix.shared[row]
                if i < j:
                    hops += factor * mix.shared_hops[row]
        scalars, spectra, audible = forms.measure(
            power, hops, instants, thirds, coherent, np.repeat(mix.k_thirds[None], count, axis=0), self._playing,
            self.analysis.k_power, self._frame, self._first, self._levels,
        )  # fmt: skip
        strips = np.repeat(knobs.strips[None], count, axis=0)
        return _measures(scalars, spectra, audible, table, self._reduction(strips), strips[..., TEMPO])

    # ---- the mix that successors start from --------------------------------------------------------------------

    def _mix(self, knobs: Knobs) -> _Mix:
        """The parts of a mix; the latest is kept, since its measures and its successors are asked for in turn."""
        if self._latest is None or self._latest[0] is not knobs:
            self._latest = (knobs, self._parts(knobs))
        return self._latest[1]

    def _parts(self, knobs: Knobs) -> _Mix:
        stems = len(self.facts.names)
        made: list[Strips] = []
        for i in range(stems):
            shape = knobs.shapes[i] if knobs.shapes else NEUTRAL_SHAPE
            row, group = knobs.strips[i : i + 1], knobs.groups[self._group_of[i], None]
            key = row.tobytes() + group.tobytes()
            kept = self._now[i]
            if kept is None or kept[0] != key or knobs.shapes:
                kept = (key, self._strips(i, row, group, shape))
                self._now[i] = kept
            made.append(kept[1])
        weight, hops, instants, thirds, k_thirds, table = (np.concatenate(part) for part in zip(*made, strict=True))
        rest = np.stack([forms.rest_of_mix(weight, self._cross, i) for i in range(stems)])
        nothing = np.zeros((4, 2, BANDS), dtype=np.float32)
        alone = np.empty((stems, 3, BANDS), dtype=np.float32)
        power_of = np.empty_like(alone)
        for i in range(stems):
            one, own, between = weight[i : i + 1], self._own[i], self._between[i]
            alone[i] = forms.power_with(one, nothing, own, between)[0]
            power_of[i] = forms.power_with(one, rest[i], own, between)[0]
        rows = len(self._partners.stems)
        shared = np.zeros((rows, forms.THIRDS), dtype=np.float32)
        shared_hops = np.zeros((rows, self.analysis.hops), dtype=np.float32)
        coherent, hops_of = thirds.copy(), hops.copy()
        for r, (i, j) in enumerate(zip(self._partners.of.tolist(), self._partners.stems.tolist(), strict=True)):
            pair, turned = self._shared(r)
            one, partner = weight[i : i + 1], weight[j : j + 1]
            shared[r] = forms.share_power(one, partner, self._pair_cross(i, j))[0]
            forms.share_hops(one, partner, self._pair_share[pair], turned, shared_hops[r : r + 1])
            coherent[i] += shared[r]
            hops_of[i] += shared_hops[r]
        once = np.array([i < j for i, j in zip(self._partners.of, self._partners.stems, strict=True)], dtype=bool)
        return _Mix(
            weight=weight,
            own_hops=hops,
            hops_of=hops_of,
            instants_of=instants,
            thirds=thirds,
            k_thirds=k_thirds,
            table=table,
            rest=rest,
            alone=alone,
            power_of=power_of,
            power=alone.sum(0) + 0.5 * (power_of - alone).sum(0),
            hops=hops.sum(0) + shared_hops[once].sum(0),
            instants=instants.sum(0),
            coherent=coherent,
            shared=shared,
            shared_hops=shared_hops,
        )

    def _candidates(self, knobs: Knobs) -> _Candidates:
        """Every stem's strips after every move; only stems that changed are worked on."""
        stems, analysis = len(self.facts.names), self.analysis
        if self._next is None:
            slot = np.full(stems, -1, dtype=np.int64)
            coherent = np.unique(self._partners.of)
            slot[coherent] = np.arange(len(coherent))
            self._next = _Candidates.empty(stems, analysis.hops, 2 * len(analysis.places), slot)
        found = self._next
        tops = tops_of(knobs)
        for i in np.flatnonzero(self.facts.audible):
            group = knobs.groups[self._group_of[i]]
            key = knobs.strips[i].tobytes() + group.tobytes()
            if found.keys[i] == key and not knobs.shapes:
                continue
            rows, legal = after_moves(
                knobs.strips[i : i + 1], self.facts.bandwidth_hz[i : i + 1], tops[i : i + 1] if len(tops) > 1 else tops
            )
            shape = knobs.shapes[i] if knobs.shapes else NEUTRAL_SHAPE
            made = self._strips(int(i), rows[0], np.full(_FULL, group), shape)
            found.rows[i], found.legal[i] = rows[0], legal[0]
            found.weight[i], found.hops[i], found.instants[i], found.thirds[i], found.k_thirds[i], found.table[i] = made
            found.keys[i] = key
        return found

    # ---- pairs and variants ------------------------------------------------------------------------------------

    @cached_property
    def _pair_share(self) -> Float:
        """(P, 2, BANDS) where the K-weighted cross-power of each coherent pair lies."""
        cross, pairs = self.analysis.cross, self.analysis.pairs
        return np.ascontiguousarray(
            np.stack([np.abs(cross[c][pairs[:, 0], pairs[:, 1]]) for c in range(2)], axis=1) * self.analysis.k_power
        ).astype(np.float32)

    def _pair_cross(self, i: int, j: int) -> Float:
        """(2, 2, BANDS) real and imaginary part of L L* and R R* of two stems."""
        return self._cross[:2, :, i, j]

    def _cross_of(self, stems: NDArray[np.int64]) -> Float:
        return np.ascontiguousarray(self._cross[:, :, stems][:, :, :, stems])

    def _shared(self, row: int) -> tuple[int, Float]:
        """A pair's number and its hop cross-power as seen from the stem in this row of the partners."""
        pair = int(self._partners.pair[row])
        shared = self.analysis.shared[pair]
        if self._partners.of[row] == self.analysis.pairs[pair, 0]:
            return pair, shared
        return pair, shared * _CONJUGATE

    def _reduction(self, strips: Array) -> Array:
        """(..., N) mean gain reduction of each stem's compressor, dB."""
        stems = np.broadcast_to(np.arange(strips.shape[-2]), strips.shape[:-1])
        return self._reduction_of(stems, strips[..., COMPRESSOR])

    def _reduction_of(self, stems: NDArray[np.int64], compressor: Array) -> Array:
        return self._store.reduction[self._rows[stems], compressor.astype(np.int64)]

    # ---- files -------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the scene with all its variants (.npz); atomic, overwrites. ValueError for one with strips baked in."""
        from mixrl.audio import atomic_path

        if (self._baked != 1.0).any() or (self._fixed != 1.0).any():
            raise ValueError("settings that are baked into a scene are not saved with it: save the whole scene")
        made = {}
        for stem in range(len(self.facts.names)):
            for compressor in COMPRESSORS if self.facts.audible[stem] else COMPRESSORS[:1]:
                spectra = self.variant(stem, compressor)
                for name in ("own", "hops", "instants"):
                    made[f"{name}/{stem}/{compressor}"] = getattr(spectra, name)
                made[f"gain_reduction_db/{stem}/{compressor}"] = np.float64(spectra.gain_reduction_db)
        whole = {f"facts/{f.name}": np.asarray(_text(getattr(self.facts, f.name))) for f in fields(Facts)}
        kept = ("sample_rate", "pieces", "cross", "channels", "k_power", "pairs", "shared", "places")
        whole |= {f"analysis/{name}": np.asarray(getattr(self.analysis, name)) for name in kept}
        with atomic_path(path, force=True) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **{"format": np.asarray(FILE_FORMAT)}, **whole, **made)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Scene:
        """Read a scene that was saved. InputError for a file that cannot be read or is no scene of this version."""
        try:
            with np.load(path, allow_pickle=False) as found:
                held = {name: found[name] for name in found.files}
            if int(held["format"]) != FILE_FORMAT:
                raise ValueError
            facts = Facts(**{f.name: _untext(f.name, held[f"facts/{f.name}"]) for f in fields(Facts)})
            spectra = {
                (int(stem), compressor): StemSpectra(
                    own=held[f"own/{stem}/{compressor}"],
                    hops=held[f"hops/{stem}/{compressor}"],
                    instants=held[f"instants/{stem}/{compressor}"],
                    gain_reduction_db=float(held[f"gain_reduction_db/{stem}/{compressor}"]),
                )
                for _, stem, compressor in (name.split("/") for name in held if name.startswith("own/"))
            }
            analysis = Analysis(
                sample_rate=int(held["analysis/sample_rate"]),
                pieces=tuple((int(a), int(b)) for a, b in held["analysis/pieces"]),
                cross=held["analysis/cross"],
                stems=tuple(spectra[i, "off"] for i in range(len(facts.names))),
                channels=tuple(int(c) for c in held["analysis/channels"]),
                k_power=held["analysis/k_power"],
                pairs=held["analysis/pairs"],
                shared=held["analysis/shared"],
                places=held["analysis/places"],
            )
        except OSError as error:
            raise InputError(f"{os.fspath(path)}: cannot be read ({error.strerror}): make the scene anew") from error
        except Exception as error:  # whatever numpy and zipfile raise on what is damaged or something else
            raise InputError(f"{os.fspath(path)}: is no scene of this version of mixrl: make it anew") from error
        # a silent stem is saved once: compressed it is the same silence
        return cls(facts, analysis, lambda stem, compressor: spectra.get((stem, compressor), spectra[stem, "off"]))


FILE_FORMAT = 2
_TEXTS = ("names", "roles", "members")


def _text(value: Any) -> Any:
    return [item or "" for item in value] if isinstance(value, tuple) else value


def _untext(name: str, value: NDArray[Any]) -> Any:
    if name in _TEXTS:
        return tuple(str(item) or None if name == "roles" else str(item) for item in value)
    return value if value.ndim else float(value)


_CONJUGATE = np.repeat([1.0, -1.0, 1.0, -1.0], OCTAVES).astype(np.float32)[:, None]


@dataclass(frozen=True)
class _Partners:
    """Coherent stems, both ways round, sorted by the first: of, stems (rows,) and pair (rows,) in ``Analysis.pairs``;
    those of stem i are rows start[i] to start[i + 1]."""

    of: NDArray[np.int64]
    stems: NDArray[np.int64]
    pair: NDArray[np.int64]
    start: NDArray[np.int64]


def _partners(analysis: Analysis, count: int) -> _Partners:
    pairs = analysis.pairs
    of = np.concatenate([pairs[:, 0], pairs[:, 1]])
    stems = np.concatenate([pairs[:, 1], pairs[:, 0]])
    order = np.lexsort([stems, of])
    number = np.tile(np.arange(len(pairs)), 2)
    start = np.searchsorted(of[order], np.arange(count + 1))
    return _Partners(of[order], stems[order], number[order], start)


@dataclass(frozen=True)
class _Mix:
    """One mix and each stem's part in it: names as in ``forms.successors`` (``*_of`` there: ``now_*``)."""

    weight: Float
    own_hops: Float
    hops_of: Float
    instants_of: Float
    thirds: Float
    k_thirds: Float
    table: Array
    rest: Float
    alone: Float
    power_of: Float
    power: Float
    hops: Float
    instants: Float
    coherent: Float
    shared: Float
    shared_hops: Float


@dataclass(frozen=True)
class _Candidates:
    """Every stem's strips after each of ``STEM_MOVES``; keys: what they were made for."""

    keys: list[bytes]
    rows: Array
    legal: NDArray[np.bool_]
    weight: Float
    hops: Float
    instants: Float
    thirds: Float
    k_thirds: Float
    table: Array
    slot: NDArray[np.int64]

    @classmethod
    def empty(cls, stems: int, hops: int, points: int, slot: NDArray[np.int64]) -> _Candidates:
        shape = (stems, _FULL)
        return cls(
            keys=[b""] * stems,
            rows=np.zeros((*shape, COLUMNS)),
            legal=np.zeros(shape, dtype=bool),
            weight=np.zeros((*shape, 2, 2, BANDS), dtype=np.float32),
            hops=np.zeros((*shape, hops), dtype=np.float32),
            instants=np.zeros((*shape, points), dtype=np.float32),
            thirds=np.zeros((*shape, forms.THIRDS), dtype=np.float32),
            k_thirds=np.zeros((*shape, forms.THIRDS), dtype=np.float32),
            table=np.zeros((*shape, 4)),
            slot=slot,
        )


class _Store:
    """The stems' variants as stacked arrays; shared by all scenes that are subsets of one."""

    def __init__(self, analysis: Analysis, load: VariantLoader | None) -> None:
        self._load, self._analysis = load, analysis
        self._spectra: list[StemSpectra] = []
        count = len(analysis.stems)
        self._at = np.full((count, len(COMPRESSORS)), -1, dtype=np.int64)
        self.reduction = np.zeros((count, len(COMPRESSORS)))  # dB; 0 until rendered
        points, hops = 2 * len(analysis.places), analysis.hops
        self.ratio = np.empty((0, 2, BANDS), dtype=np.float32)
        self.k_share = np.empty((0, BANDS), dtype=np.float32)
        self.p_share = np.empty((0, BANDS), dtype=np.float32)
        self.hops = np.empty((0, 2 * OCTAVES, hops), dtype=np.float32)
        self.instants = np.empty((0, 2 * OCTAVES, points), dtype=np.float32)
        self._add([(i, 0, spectra) for i, spectra in enumerate(analysis.stems)])

    def index(self, stem: int, compressors: Array) -> NDArray[np.int64]:
        """(compressors,) rows of a stem's variants; those that are asked for are there."""
        missing = [int(c) for c in set(compressors.tolist()) if self._at[stem, int(c)] < 0]
        if missing:
            self._add([(stem, c, self._made(stem, COMPRESSORS[c])) for c in missing])
        return self._at[stem]

    def spectra(self, stem: int, compressor: str) -> StemSpectra:
        number = COMPRESSORS.index(compressor)
        return self._spectra[int(self.index(stem, np.array([float(number)]))[number])]

    def _made(self, stem: int, compressor: str) -> StemSpectra:
        if self._load is None:
            raise ValueError(f"this scene has no {compressor!r} variant of stem {stem}")
        return self._load(stem, compressor)

    def _add(self, found: Sequence[tuple[int, int, StemSpectra]]) -> None:
        new = [spectra for _, _, spectra in found]
        for stem, compressor, spectra in found:
            self._at[stem, compressor] = len(self._spectra)
            self.reduction[stem, compressor] = spectra.gain_reduction_db
            self._spectra.append(spectra)
        if not new:
            return
        dry = np.stack([self._analysis.stems[stem].own for stem, _, _ in found])
        own = np.stack([spectra.own for spectra in new])
        total = own.sum(1)
        self.ratio = np.concatenate([self.ratio, np.sqrt(own / np.maximum(dry, _TINY))])
        self.k_share = np.concatenate([self.k_share, total * self._analysis.k_power])
        self.p_share = np.concatenate([self.p_share, total])
        self.hops = np.concatenate([self.hops, np.stack([spectra.hops for spectra in new])])
        self.instants = np.concatenate([self.instants, np.stack([spectra.instants for spectra in new])])


def _measures(
    scalars: Array, spectra: Array, audible: Array, table: Array, reduction: Array, tempo: Array
) -> Measures:
    return Measures(
        integrated_lufs=scalars[:, forms.INTEGRATED],
        short_term_lufs=scalars[:, forms.SHORT_TERM],
        loudness_range_lu=scalars[:, forms.RANGE],
        peak_dbfs=scalars[:, forms.PEAK],
        crest_db=scalars[:, forms.CREST],
        limiting_db=scalars[:, forms.LIMITING],
        psr_db=scalars[:, forms.PSR],
        spectrum_db=spectra[:, 0],
        side_mid_db=spectra[:, 1],
        cancellation_db=spectra[:, 2],
        imbalance_db=scalars[:, forms.IMBALANCE],
        stem_lufs=table[..., 3],
        audibility_db=audible,
        position=table[..., 1],
        eq_change_db=table[..., 2],
        gain_reduction_db=reduction,
        tempo_ratio=tempo,
    )


def reader(source: Source) -> Reader:
    """Reads a source by span, with zeros outside it."""
    from mixrl.audio import read

    def at(start: int, stop: int) -> Float:
        inside = read(source, min(start, source.frames), min(stop, source.frames))
        return np.pad(inside, ((0, 0), (0, stop - start - inside.shape[1])))

    return at
