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
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixrl import forms, hearing
from mixrl.analysis import BANDS, HOP_BANDS, HOP_STARTS, SUBBANDS, Analysis, Float, Reader, StemSpectra
from mixrl.curves import Tables, curves, tables
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
from mixrl.score import scored, yardstick
from mixrl.settings import COMPRESSORS, MixSettings
from mixrl.strip import pan_gains
from mixrl.threads import threads

if TYPE_CHECKING:
    from mixrl.audio import Source
    from mixrl.session import Session

VariantLoader = Callable[[int, str], StemSpectra]  # (stem, compressor)
Outcome = tuple[Array, Array, Array]  # scalars, spectra and parts, as ``forms.measure`` returns them
_New = tuple[Array, NDArray[np.int64], Array, NDArray[np.int64]]  # strips to make, as ``forms.measure`` takes them
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
        from mixrl.memory import give_back
        from mixrl.variants import variant

        rate = session.sample_rate
        analysis = analyse([reader(session.source(stem)) for stem in session.stems], rate, session.frames)
        give_back()

        def load(stem: int, compressor: str) -> StemSpectra:
            made = variant(session, session.stems[stem], compressor)
            return analyse_variant(reader(made.source), analysis, made.gain_reduction_db)

        return cls(gather(session, analysis, target_lufs, ceiling_dbtp, tempo_ratios, tempo_weights), analysis, load)

    def __init__(self, facts: Facts, analysis: Analysis, load_variant: VariantLoader | None = None) -> None:
        self.facts = facts
        self._store = _Store(analysis, load_variant)
        self.analysis = replace(analysis, stems=self._store.stems(analysis.stems))
        self._rows = np.arange(len(facts.names))  # of the store's stems
        self._baked = np.ones((len(facts.names), BANDS), dtype=np.complex64)
        self._fixed = np.ones((len(facts.names), 2), dtype=np.float32)
        self._prepare()

    def _prepare(self) -> None:
        """What is asked for again and again, in the form that ``forms`` wants; and empty caches."""
        analysis, count = self.analysis, len(self.facts.names)
        cross = np.stack([analysis.cross.real, analysis.cross.imag])
        cross = np.ascontiguousarray(np.transpose(cross, (2, 3, 1, 0, 4)))  # (N, N, 3, 2, BANDS)
        store = self._store
        self._stems = forms.Stems(
            first=self._rows * len(COMPRESSORS),
            channels=np.array(analysis.channels, dtype=np.int64),
            baked=np.ascontiguousarray(np.stack([self._baked.real, self._baked.imag], axis=1)),
            fixed=self._fixed,
            cross=cross,
            ratio=store.ratio,
            power=store.power,
            heard=store.heard,
            in_hops=store.in_hops,
            in_octave=store.in_octave,
            hops=store.hops,
            instants=store.instants,
            step=store.step,
            swell=store.swell,
            reduction=store.reduction,
        )
        hop = round(0.1 * analysis.sample_rate)
        frame = (analysis.places * 10 // hop).astype(np.float32)
        self._ears = hearing.Ears(
            k=np.ascontiguousarray(analysis.k_power),
            frame=np.pad(frame, (0, store.points // 2 - len(frame)), mode="edge"),
            first=np.searchsorted(analysis.places, hop * np.arange(analysis.hops + 1)),
            playing=self.facts.activity.astype(np.float32),
            levels=np.array([self.facts.target_lufs, self.facts.ceiling_dbtp]),
        )
        self._heard = self._stems, _pairs(analysis, cross, count), self._ears
        self.yardstick = yardstick(self.facts)
        self._group_of = np.array([self.facts.groups.index(member) for member in self.facts.members], dtype=np.int64)
        self._sizes = np.bincount(self._group_of, minlength=len(self.facts.groups))
        self._neutral_shapes = np.zeros(count, dtype=np.int64), tables((NEUTRAL_SHAPE,), analysis.sample_rate)
        self._own = np.arange(count)
        self._none = np.zeros((count, 0), dtype=np.int64)  # of mixes
        self._strips = forms.room_for_strips(count * (1 + _FULL), store.hops.shape[2], count, store.points)
        self._now, self._next = _Kept.empty(count, 1, 0), _Kept.empty(count, _FULL, count)
        self._mixes: _Mixes | None = None

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
        return self._store.spectra(int(self._rows[stem]), COMPRESSORS.index(compressor))

    def _tables(self, shapes: tuple[Shape, ...] | None) -> tuple[NDArray[np.int64], Tables]:
        """The number of each stem's EQ shape in the curves of the shapes that there are, and these curves."""
        if shapes is None:
            return self._neutral_shapes
        different = tuple(sorted(set(shapes)))
        kind = np.array([different.index(shape) for shape in shapes], dtype=np.int64)
        return kind, tables(different, self.analysis.sample_rate)

    def own_power(self, knobs: Knobs) -> Array:
        """(N, 31) power of each stem as it enters the mix, per third-octave."""
        self._predict(knobs, self._none)
        return self._strips.thirds[self._own].astype(np.float64)

    def current_power(self) -> Array:
        """As ``own_power``, of the mix that ``current`` or ``deltas`` was last asked for."""
        return self._strips.thirds[self._own].astype(np.float64)

    def successor_power(self) -> Array:
        """(N, moves, 31) power of each stem after each of its own moves, legal or not, from the mix that ``deltas`` was
        last asked for; what it is for stems that are silent means nothing."""
        count = len(self._own)
        return self._strips.thirds[count : count * (1 + _FULL)].reshape(count, _FULL, -1).astype(np.float64)

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
            expected=None,  # other stems, or other levels
            guesses=None if facts.guesses is None else tuple(facts.guesses[i] for i in rows),
            own_groups=None if facts.own_groups is None else tuple(facts.own_groups[i] for i in rows),
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

    def recorded(self) -> tuple[Array, Array]:
        """What counts as part of the recordings: power gain (N, BANDS) of each stem, and gains (N, 2) of its sides."""
        return np.abs(self._baked).astype(np.float64) ** 2, self._fixed.astype(np.float64)

    def with_facts(self, facts: Facts) -> Scene:
        """The same stems with other facts of them: same names and activity. The two must not be used at once."""
        scene = copy(self)
        scene.facts = facts
        scene._ears = self._ears._replace(levels=np.array([facts.target_lufs, facts.ceiling_dbtp]))
        scene._heard = (*self._heard[:2], scene._ears)
        scene.yardstick = yardstick(facts)
        scene._group_of = np.array([facts.groups.index(member) for member in facts.members], dtype=np.int64)
        scene._sizes = np.bincount(scene._group_of, minlength=len(facts.groups))
        return scene

    # ---- mixes -------------------------------------------------------------------------------------------------

    def measures(self, settings: MixSettings) -> Measures:
        """The measures of one mix, without batch axes."""
        return self.evaluate(self.knobs(settings)[None]).at(0)

    def current(self, knobs: Knobs) -> Measures:
        """The measures of one mix, without batch axes: cheap where it differs in few stems from the last one asked for,
        and its successors come cheaper afterwards."""
        return _measures(self._predict(knobs, self._own[:, None])).at(0)

    def scores(self, knobs: Knobs) -> Array:
        """(B,) scores of mixes."""
        return scored(self.evaluate(knobs), self.yardstick)

    def evaluate(self, knobs: Knobs) -> Measures:
        """The measures of mixes with one leading axis B."""
        starts = range(0, max(len(knobs.strips), 1), _MOST_MIXES)
        parts = [self._evaluate(knobs[at : at + _MOST_MIXES]) for at in starts]
        return parts[0] if len(parts) == 1 else Measures.joined(parts)

    def _evaluate(self, knobs: Knobs) -> Measures:
        self._store.provide(self._rows, knobs.strips[..., COMPRESSOR])
        mixes, count = knobs.strips.shape[:2]
        room = self._room_for_mixes(mixes)
        stripped = knobs.strips.swapaxes(0, 1)  # a stem's strips lie side by side
        group_db = knobs.groups.T[self._group_of]
        # a stem's strip that is the first mix's is made once: what search asks for often differs in one stem
        new = (stripped != stripped[:, :1]).any(axis=2) | (group_db != group_db[:, :1])
        new[:, :1] = True
        rows, stem = np.where(new, room.rows, room.rows[:, :1]), np.repeat(self._own, new.sum(axis=1))
        outcome = _room(mixes, count)
        kind, tables = self._tables(knobs.shapes)
        made = stripped[new], stem, group_db[new], rows[new], kind
        forms.measure(made, tables, rows, room.strips, *self._heard, *outcome)
        return _measures(outcome)

    def _room_for_mixes(self, mixes: int) -> _Mixes:
        """The same room as last time, where it is as large: it is still in the processor's cache."""
        if self._mixes is None or self._mixes.rows.shape[1] != mixes:
            rows = np.arange(len(self._own) * mixes).reshape(len(self._own), mixes)
            strips = forms.room_for_strips(rows.size, self._store.hops.shape[2], 0, self._store.points)
            self._mixes = _Mixes(rows, strips)
        return self._mixes

    def successor_scores(self, knobs: Knobs) -> tuple[NDArray[np.int64], Array]:
        """Action numbers and scores of every one-move successor of a mix."""
        actions, after = self.deltas(knobs)
        return actions, scored(after, self.yardstick)

    def deltas(self, knobs: Knobs) -> tuple[NDArray[np.int64], Measures]:
        """Every one-move successor of one mix.

        Returns the action numbers (B,) and their measures with a leading axis B. Moves that are illegal whatever is
        locked are left out, and so is stop, which changes nothing.
        """
        facts, layout = self.facts, Layout(len(self.facts.names), len(self.facts.groups))
        new = self._candidates(knobs)
        moved = np.argwhere(self._next.legal)
        groups, changes, group_actions = self._group_moves(knobs, layout)
        stretched = [
            (layout.mix_start + offset, after.strips[:, TEMPO])
            for offset, move in enumerate(MIX_MOVES)
            if move.kind == "tempo" and ((after := to_tempo(knobs, facts, move.amount)).strips != knobs.strips).any()
        ]
        actions = moved[:, 0] * _FULL + moved[:, 1]
        # in one memory layout, or numba would compile for each
        moves = np.ascontiguousarray(moved[:, 0]), self._next.first + actions, np.ascontiguousarray(groups), changes
        group_end = 1 + len(moved) + len(groups)  # the mix as it is comes first
        outcome = self._predict(knobs, self._own[:, None], new, moves, more=group_end - 1 + len(stretched))
        if stretched:  # tempo is no matter of sound here
            for found in outcome:
                found[:, group_end:] = found[:, :1]
            outcome[2][forms.TEMPO_RATIO, group_end:] = [ratios for _, ratios in stretched]
        scalars, spectra, parts = outcome
        others = np.array([action for action, _ in stretched], dtype=np.int64)
        after_them = scalars[:, 1:], spectra[:, 1:], parts[:, 1:]
        return np.concatenate([actions, group_actions, others]), _measures(after_them)

    def _group_moves(
        self, knobs: Knobs, layout: Layout
    ) -> tuple[NDArray[np.int64], Array, NDArray[np.int64]]:
        """Group number, change in dB and action of every move on a group of two or more."""
        gains, legal = group_gains(knobs)
        legal &= (self._sizes[:, None] > 1) & (layout.groups > 1)
        numbers, moves = np.nonzero(legal)
        actions = layout.group_start + numbers * len(GROUP_MOVES) + moves
        return numbers, (gains - knobs.groups[:, None])[legal], actions

    # ---- the mix that successors start from --------------------------------------------------------------------

    def _predict(
        self,
        knobs: Knobs,
        rows: NDArray[np.int64],
        new: _New | None = None,
        moves: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Array] | None = None,
        more: int = 0,
    ) -> Outcome:
        """Measure the mixes of these rows of strips, of which only those of stems that changed are made, and what may
        follow, for which there are so many columns more. new: strips to make besides."""
        inputs = self._inputs(knobs)
        changed = self._now.changed(inputs, knobs.shapes)
        lists = self._to_make(changed, knobs.strips[changed], knobs, self._now)
        made = [np.concatenate(parts) for parts in zip(lists, *[new] if new else [], strict=True)]
        kind, tables = self._tables(knobs.shapes)
        outcome = _room(rows.shape[1] + more, len(rows))
        forms.measure((*made, kind), tables, rows, self._strips, *self._heard, *outcome)
        if moves is not None:
            heard = self._strips, *self._heard
            forms.measure_successors(*moves, self._group_of, rows.shape[1], *heard, *outcome)
        for kept in (self._now, self._next) if new else (self._now,):
            kept.inputs, kept.shapes = inputs, knobs.shapes
        return outcome

    def _candidates(self, knobs: Knobs) -> _New:
        """What to make of every stem's strips after every move, of stems that changed; which are legal is kept."""
        kept = self._next
        inputs = self._inputs(knobs)
        changed = kept.changed(inputs, knobs.shapes)
        changed = changed[self.facts.audible[changed]]
        tops = tops_of(knobs)
        rows, legal = after_moves(
            knobs.strips[changed], self.facts.bandwidth_hz[changed], tops[changed] if len(tops) > 1 else tops
        )
        new = self._to_make(changed, rows.reshape(-1, COLUMNS), knobs, kept)
        kept.legal[changed] = legal
        return new

    def _inputs(self, knobs: Knobs) -> Array:
        """(N, COLUMNS + 1) all that a stem's strip is made of."""
        return np.concatenate([knobs.strips, knobs.groups[self._group_of, None]], axis=1)

    def _to_make(self, stems: NDArray[np.int64], rows: Array, knobs: Knobs, kept: _Kept) -> _New:
        """Some stems' strips, all of each, in the order of rows: knobs, stems, groups' gains and where they belong."""
        each = len(rows) // max(len(stems), 1)
        owner = np.repeat(stems, each)
        into = (kept.first + stems[:, None] * each + np.arange(each)).ravel()
        self._store.provide(self._rows[owner], rows[:, COMPRESSOR])
        return np.ascontiguousarray(rows), owner, knobs.groups[self._group_of[owner]], into

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
        facts = {name: getattr(self.facts, name) for name in _SAVED_FACTS}
        facts |= {name: known for name in _MAY_BE_SAVED if (known := getattr(self.facts, name)) is not None}
        whole = {f"facts/{name}": np.asarray(_text(name, value)) for name, value in facts.items()}
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
            there = [*_SAVED_FACTS, *(name for name in _MAY_BE_SAVED if f"facts/{name}" in held)]
            facts = Facts(**{name: _untext(name, held[f"facts/{name}"]) for name in there})
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


FILE_FORMAT = 5
_MAY_BE_SAVED = ("guesses", "own_groups")  # not in every file
# what people would do is found anew in a moment, and what songs a song stands beside is no fact of its own
_SAVED_FACTS = tuple(f.name for f in fields(Facts) if f.name not in ("expected", "album_tone_db", *_MAY_BE_SAVED))
_TEXTS = ("names", "roles", "members", "guesses")


def _text(name: str, value: Any) -> Any:
    return [item or "" for item in value] if name in _TEXTS else value


def _untext(name: str, value: NDArray[Any]) -> Any:
    if name in _TEXTS:
        return tuple(str(item) or None if name in ("roles", "guesses") else str(item) for item in value)
    if name == "own_groups":
        return tuple(bool(item) for item in value)
    return value if value.ndim else float(value)


def _pairs(analysis: Analysis, cross: Float, count: int) -> forms.Pairs:
    """The coherent pairs; partners are sorted by the stem whose they are."""
    pairs = analysis.pairs
    power = np.hypot(cross[pairs[:, 0], pairs[:, 1], :2, 0], cross[pairs[:, 0], pairs[:, 1], :2, 1])
    of, partner = np.concatenate([pairs, pairs[:, ::-1]]).T
    order = np.lexsort([partner, of])
    return forms.Pairs(
        stems=np.ascontiguousarray(pairs),
        in_hops=_shares(power * analysis.k_power, HOP_STARTS),
        hops=np.ascontiguousarray(analysis.shared),
        start=np.searchsorted(of[order], np.arange(count + 1)),
        partner=partner[order],
        number=np.tile(np.arange(len(pairs)), 2)[order],
    )


def _shares(power: Float, first_thirds: Sequence[int]) -> Float:
    """(..., BANDS) powers as shares of what is in the same of some wider bands, which start at these third-octaves."""
    starts = SUBBANDS * np.asarray(first_thirds)
    total = np.add.reduceat(power, starts, axis=-1)
    return np.asarray(power / (np.repeat(total, np.diff(starts, append=BANDS), axis=-1) + _TINY), dtype=np.float32)


@dataclass(frozen=True)
class _Mixes:
    """Room for whole mixes. rows (N, B): their strips."""

    rows: NDArray[np.int64]
    strips: forms.Strips


@dataclass
class _Kept:
    """What strips were made from, ``each`` of every stem, in rows from ``first`` on; the same is not made again.

    legal (N, each): which of them are moves that may be made.
    """

    first: int
    legal: NDArray[np.bool_]
    inputs: Array
    shapes: tuple[Shape, ...] | None

    @classmethod
    def empty(cls, stems: int, each: int, first: int) -> _Kept:
        return cls(first, np.zeros((stems, each), dtype=bool), np.full((stems, COLUMNS + 1), np.nan), None)

    def changed(self, inputs: Array, shapes: tuple[Shape, ...] | None) -> NDArray[np.int64]:
        """The stems that have to be made anew for other inputs."""
        return np.flatnonzero((inputs != self.inputs).any(axis=1) | (shapes != self.shapes))


class _Store:
    """The stems' variants as stacked arrays, ``COMPRESSORS`` rows a stem; shared by all scenes that are subsets of one.

    There is room for all variants from the start, which takes no memory before it is written to.
    """

    def __init__(self, analysis: Analysis, load: VariantLoader | None) -> None:
        self._load, self._k_power = load, analysis.k_power
        count = len(analysis.stems) * len(COMPRESSORS)
        self._points, hops = len(analysis.places), analysis.hops
        self._there, self._complete = np.zeros(count, dtype=bool), False
        self.reduction = np.zeros(count)
        self.ratio = np.zeros((count, 2, BANDS), dtype=np.float32)
        self.power = np.zeros((count, 2, BANDS), dtype=np.float32)
        self.heard = np.zeros((count, BANDS), dtype=np.float32)
        self.in_hops = np.zeros((count, BANDS), dtype=np.float32)
        self.in_octave = np.zeros((count, BANDS), dtype=np.float32)
        self.hops = np.zeros((count, 2 * HOP_BANDS, hops), dtype=np.float32)
        pieces = -(-self._points // forms.PIECE)
        self.points = 2 * pieces * forms.PIECE
        self.instants = np.zeros((count, 2, pieces, 2 * OCTAVES, forms.PIECE), dtype=np.int16)
        self.step = np.zeros((count, 2, 2 * OCTAVES), dtype=np.float32)
        self.swell = np.zeros((count, hops), dtype=np.float32)
        for stem, spectra in enumerate(analysis.stems):
            self.put(stem, 0, spectra)

    def provide(self, stems: NDArray[np.int64], compressors: Array) -> None:
        """Have these variants loaded; arrays of shapes that go together."""
        if self._complete:
            return
        wanted = stems * len(COMPRESSORS) + compressors.astype(np.int64)
        there = self._there[wanted]
        if there.all():
            return
        asked = [divmod(row, len(COMPRESSORS)) for row in np.unique(wanted[~there]).tolist()]
        load = self._load
        if load is None:
            stem, compressor = asked[0]
            raise ValueError(f"this scene has no {COMPRESSORS[compressor]!r} variant of stem {stem}")
        with ThreadPoolExecutor(threads()) as pool:  # rendering and listening release the GIL
            loaded = pool.map(lambda one: load(one[0], COMPRESSORS[one[1]]), asked)
            for (stem, compressor), spectra in zip(asked, loaded, strict=True):
                self.put(stem, compressor, spectra)

    def spectra(self, stem: int, compressor: int) -> StemSpectra:
        """A variant as it was put in."""
        self.provide(np.array([stem]), np.array([compressor]))
        row = stem * len(COMPRESSORS) + compressor
        instants = forms.out_of_pieces(self.instants[row], self.step[row], self._points)
        return StemSpectra(self.power[row], self.hops[row], instants, float(self.reduction[row]))

    def stems(self, spectra: Sequence[StemSpectra]) -> tuple[StemSpectra, ...]:
        """The stems as they are, their hops, which take most memory in a long session, not kept twice."""
        rows = range(0, len(self.hops), len(COMPRESSORS))
        return tuple(replace(of, hops=self.hops[row]) for of, row in zip(spectra, rows, strict=True))

    def put(self, stem: int, compressor: int, spectra: StemSpectra) -> None:
        """Keep a variant; the stem as it is (0) comes first."""
        row = stem * len(COMPRESSORS) + compressor
        dry = spectra.own if compressor == 0 else self.power[stem * len(COMPRESSORS)]
        total = spectra.own.sum(0)
        self.ratio[row] = np.sqrt(spectra.own / np.maximum(dry, _TINY))
        self.power[row] = spectra.own
        self.heard[row] = total * self._k_power
        self.in_hops[row] = _shares(total * self._k_power, HOP_STARTS)
        self.in_octave[row] = _shares(total, range(0, 3 * OCTAVES, 3))
        self.hops[row] = spectra.hops
        self.swell[row] = _swell(spectra.hops, self.hops[stem * len(COMPRESSORS)])
        self.instants[row], self.step[row] = forms.in_pieces(spectra.instants)
        self.reduction[row] = spectra.gain_reduction_db
        self._there[row] = True
        self._complete = bool(self._there.all())


def _swell(wet: Float, dry: Float) -> Float:
    """(T,) how far a compressor turns up and down in each hop, as amplitude around 1, from hops (2 HOP_BANDS, T) of a
    variant and of the stem as it is."""
    after, before = wet.sum(axis=0), dry.sum(axis=0)
    if not before.any():
        return np.ones_like(before)
    gain = np.ones_like(before)  # where there is next to nothing, too
    np.divide(after, before, out=gain, where=before > np.float32(1e-6) * before.max())
    return np.asarray(np.sqrt(gain * before.sum() / np.maximum(after.sum(), _TINY)), dtype=np.float32)


def _room(mixes: int, stems: int) -> Outcome:
    return (
        np.empty((hearing.SCALARS, mixes)),
        np.empty((hearing.SPECTRA, mixes, hearing.THIRDS)),
        np.empty((forms.PARTS, mixes, stems)),
    )


def _measures(outcome: Outcome) -> Measures:
    scalars, spectra, parts = outcome
    return Measures(
        integrated_lufs=scalars[hearing.INTEGRATED],
        short_term_lufs=scalars[hearing.SHORT_TERM],
        loudness_range_lu=scalars[hearing.RANGE],
        peak_dbfs=scalars[hearing.PEAK],
        crest_db=scalars[hearing.CREST],
        limiting_db=scalars[hearing.LIMITING],
        psr_db=scalars[hearing.PSR],
        spectrum_db=spectra[hearing.SPECTRUM],
        side_mid_db=spectra[hearing.SIDE_MID],
        cancellation_db=spectra[hearing.CANCELLATION],
        imbalance_db=scalars[hearing.IMBALANCE],
        stem_lufs=parts[forms.LOUDNESS],
        audibility_db=parts[forms.AUDIBILITY],
        position=parts[forms.POSITION],
        eq_change_db=parts[forms.EQ_CHANGE],
        gain_reduction_db=parts[forms.REDUCTION],
        tempo_ratio=parts[forms.TEMPO_RATIO],
    )


def reader(source: Source) -> Reader:
    """Reads a source by span, with zeros outside it."""
    from mixrl.audio import read

    def at(start: int, stop: int) -> Float:
        inside = read(source, min(start, source.frames), min(stop, source.frames))
        missing = stop - start - inside.shape[1]
        return np.pad(inside, ((0, 0), (0, missing))) if missing else inside

    return at
