"""Mixer: plan, compete, render. What the command line and Python users call.

The DQN mixes in closed form and a short local search polishes its mix, at the levels that the DQN chose; then "no
change", the rule mix and the DQN's mix are rendered over the excerpt, measured loudness-matched, and the one wins whose
balance is likely to be nearest to what people would do, or of those as near, the one with the best score.
"""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixrl.errors import InputError, ProcessingError
from mixrl.knobs import COMPRESSOR, EQ, GAIN, HIGHPASS, INVERT, PAN, TEMPO, Knobs, joined, neutral_knobs, to_settings
from mixrl.moves import GROUP_MOVES, KINDS, MOVE_COST, STEM_MOVES, Layout, Move, step_limit, to_tempo
from mixrl.recipe import LoggedMove, Recipe, write_recipe
from mixrl.roles import Known, known_of
from mixrl.score import TERMS, WEIGHTS, score, terms
from mixrl.session import Session, load_session
from mixrl.settings import (
    BPM_RANGE,
    CEILING_RANGE_DBTP,
    COMPRESSORS,
    TARGET_RANGE_LUFS,
    MasterSettings,
    MixSettings,
    StripSettings,
)

if TYPE_CHECKING:
    from mixrl.agent.policy import Policy
    from mixrl.delivery import Delivery
    from mixrl.measures import Array, Facts, Measures
    from mixrl.scene import Scene

class Unsaid(Enum):
    """Nothing was given, not even None."""

    UNSAID = "unsaid"


UNSAID = Unsaid.UNSAID
NO_CHANGE, RULE_MIX, DQN = "no change", "rule mix", "dqn"
POLISH = 1000  # evaluations
Progress = Callable[[str, float], None]  # (what is being done, share of it that is done)

_REASONS = {
    "spectrum": "a more usual spectrum",
    "balance": "closer to where people would have it",
    "audibility": "a buried stem is heard",
    "cancellation": "stems cancel less",
    "stereo": "a more usual stereo image",
    "placement": "bass and lead nearer the centre, nothing thrown to a side",
    "headroom": "less limiting for the same loudness",
    "restraint": "nearer to how it came",
    "tempo": "nearer to the tempo",
}


@dataclass(frozen=True)
class Candidate:
    """One of the mixes that competed. score: rendered, loudness-matched; predicted: the closed form's. balance_db: how
    far its balance is likely to be from what people would do (``people.balance_risk_db``), dB; None where nobody
    knows."""

    name: str
    settings: MixSettings
    score: float
    predicted: float
    terms: Mapping[str, float]
    balance_db: float | None = None


@dataclass(frozen=True)
class Mix:
    """A planned mix: the winner's settings, the moves from no change to it, a setting each, those that bring most first
    (none unless the DQN won), all candidates, and what the stems were taken for."""

    session: Session
    settings: MixSettings
    winner: str
    moves: tuple[LoggedMove, ...]
    candidates: tuple[Candidate, ...]
    warnings: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    seed: int = 0
    known: tuple[Known, ...] = ()

    def candidate(self, name: str) -> Candidate:
        """A candidate by name; InputError if there is none."""
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise InputError(f"no candidate {name!r}; there are: {', '.join(c.name for c in self.candidates)}")

    @property
    def score_before(self) -> float:
        """Rendered score of the stems as they are."""
        return self.candidate(NO_CHANGE).score

    @property
    def score_after(self) -> float:
        """Rendered score of the winner."""
        return self.candidate(self.winner).score

    @property
    def recipe(self) -> Recipe:
        """The mix as a recipe, to be written, read or edited."""
        from mixrl import __version__

        folder = self.session.folder
        return Recipe(
            settings=self.settings,
            folder=None if folder is None else str(folder.resolve()),
            include=self.include,
            winner=self.winner,
            scores={c.name: round(c.score, 6) for c in self.candidates},
            moves=self.moves,
            seed=self.seed,
            made_with=f"mixrl {__version__}",
        )

    def write(self, path: str | os.PathLike[str], *, encoding: str | None = None, force: bool = False) -> Delivery:
        """Render and write the mix; see ``delivery.deliver`` for what is promised and raised."""
        return deliver_mix(self.session, self.settings, path, encoding=encoding, force=force, seed=self.seed)

    def write_recipe(self, path: str | os.PathLike[str], force: bool = False) -> None:
        """Write the recipe (JSON)."""
        write_recipe(self.recipe, path, force)

    def render(self) -> NDArray[np.float32]:
        """The finished mix, (2, samples)."""
        return Mixer(target=self.settings.master.target_lufs).render(self.session, self.settings)


@dataclass(frozen=True)
class Mixer:
    """How to mix.

    target: integrated loudness, LUFS; None keeps the level and only holds the ceiling. ceiling: true peak, dBTP.
    bpm: tempo to bring the mix to. locked: stem names (or globs) that no move may touch, besides
    those that the session's ``mixrl.toml`` locks. strength: 0..1 by kind of
    move (gain, pan, eq, highpass, compressor, polarity, tempo): how much of what was planned is kept, 0 for none.
    steps: settings changed at the most (None: any number, and the policy makes 64 moves at the most, or four a stem).
    seed: of the dither. policy: None for the one that ships. polish: mixes that the local search
    after the policy may try (0: none). album_tone: of the songs of the album that this one is on, as
    ``album.shared_tone`` gives it.
    """

    target: float | None = -14.0
    ceiling: float = -1.0
    bpm: float | None = None
    locked: Sequence[str] = ()
    strength: Mapping[str, float] = field(default_factory=dict)
    steps: int | None = None
    seed: int = 0
    policy: Policy | None = None
    polish: int = POLISH
    album_tone: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.target is not None:
            _in_range("target", self.target, *TARGET_RANGE_LUFS, "LUFS")
        _in_range("ceiling", self.ceiling, *CEILING_RANGE_DBTP, "dBTP")
        if self.seed < 0:
            raise InputError(f"seed {self.seed} is out of range: give 0 or more")
        for kind, value in self.strength.items():
            if kind not in KINDS:
                raise InputError(f"strength: no kind of move {kind!r}: there are {', '.join(KINDS)}")
            if not 0.0 <= value <= 1.0:
                raise InputError(f"strength: {kind}={value:g} is out of range: give 0 to 1")
        if self.bpm is not None:
            _in_range("bpm", self.bpm, *BPM_RANGE, "")
            if not self._use("tempo"):
                raise InputError(f"bpm {self.bpm:g} asks for what strength tempo=0 forbids: drop one of them")
        if self.steps is not None and self.steps < 0:
            raise InputError(f"steps {self.steps} is out of range: give 0 or more")
        if self.polish < 0:
            raise InputError(f"polish {self.polish} is out of range: give 0 or more")

    def plan(self, session: Session) -> MixSettings:
        """The settings of the best mix found."""
        return self.mix(session).settings

    def render(self, session: Session, settings: MixSettings) -> NDArray[np.float32]:
        """The finished mix of these settings, mastered, (2, samples) float32."""
        from mixrl.audio import read
        from mixrl.delivery import master_array
        from mixrl.render import SumSource

        return master_array(read(SumSource(session, settings)), session.sample_rate, settings.master)

    def mix(self, session: Session, progress: Progress = lambda what, share: None) -> Mix:
        """Plan the mix of a session and let it compete. Raises InputError for locks that match no stem."""
        from mixrl.competition import winner_of
        from mixrl.excerpt import excerpt
        from mixrl.people import balance_risk, informed
        from mixrl.rendered import Rendered
        from mixrl.rules import rule_mix
        from mixrl.scene import Scene
        from mixrl.sound_roles import guessed
        from mixrl.tempo import session_tempo
        from mixrl.whole import whole

        locked = _locked(session, (*self.locked, *session.wishes.locked))
        warnings = list(session.warnings)
        progress("listening", 0.0)
        plan = session_tempo(session) if self._use("tempo") else None
        ratios = plan.ratios(self.bpm) if plan else {}
        if self.bpm is not None and plan is not None and plan.tempo.bpm is None:
            warnings.append(f"no tempo was found in the session, so it cannot be brought to {self.bpm:g} BPM")
        # an asked-for tempo is wanted, however sure the estimate; a guess about a loop counts as much as it is sure
        weights = dict.fromkeys(ratios, 1.0) if self.bpm is not None else plan.weights() if plan else {}
        heard = excerpt(session)
        as_named = Scene.of(
            heard,
            target_lufs=-14.0 if self.target is None else self.target,
            ceiling_dbtp=self.ceiling,
            tempo_ratios=ratios,
            tempo_weights=weights,
        )
        if heard.frames < session.frames:  # the song is to be at the target: its excerpt will be above
            above = whole(session, heard, as_named, as_named.neutral()).louder_lu
            as_named = as_named.with_facts(replace(as_named.facts, target_lufs=as_named.facts.target_lufs + above))
        scene = informed(guessed(as_named))
        if self.album_tone is not None:
            scene = scene.with_facts(replace(scene.facts, album_tone_db=np.asarray(self.album_tone, dtype=np.float64)))
        neutral = scene.neutral()
        settings, moves = self._act(scene, locked, progress)
        rules = rule_mix(scene)
        if self.bpm is not None and not set(locked) & set(ratios):  # half of a session must not be stretched
            rules = to_settings(to_tempo(scene.knobs(rules), scene.facts, 1.0), scene.facts)
        rules = _keep_locked(self._blended(rules), neutral, locked)
        proposals = {NO_CHANGE: neutral, RULE_MIX: rules, DQN: settings}
        rendered = Rendered(heard, scene)
        master = MasterSettings(ceiling_dbtp=self.ceiling, target_lufs=self.target)
        candidates = []
        for index, (name, proposal) in enumerate(proposals.items()):
            progress("comparing", index / len(proposals))
            measures = rendered.measures(proposal)
            found = {key: float(value) for key, value in terms(measures, scene.facts).items()}
            predicted = float(score(scene.measures(proposal), scene.facts))
            scored = float(score(measures, scene.facts))
            risk = balance_risk(scene.facts, measures.stem_lufs)
            candidates.append(Candidate(name, replace(proposal, master=master), scored, predicted, found, risk))
        progress("comparing", 1.0)
        running = candidates
        if self.bpm is not None:  # a tempo that was asked for goes before
            there = [c for c in candidates if not _tempo_missed(c.settings, ratios, self.bpm, locked, self.strength)]
            running = there or candidates
        winner = running[winner_of([c.balance_db for c in running], [c.score for c in running])]
        if ratios and self.bpm is not None:
            warnings += _tempo_missed(winner.settings, ratios, self.bpm, locked, self.strength)
        return Mix(
            session=session,
            settings=winner.settings,
            winner=winner.name,
            moves=moves if winner.name == DQN else (),
            candidates=tuple(candidates),
            warnings=tuple(warnings),
            seed=self.seed,
            known=known_of(session, scene.facts.guesses),
        )

    def _use(self, kind: str) -> bool:
        return self.strength.get(kind, 1.0) > 0.0

    def _act(
        self, scene: Scene, locked: Sequence[str], progress: Progress
    ) -> tuple[MixSettings, tuple[LoggedMove, ...]]:
        """Let the policy move from people's probable levels, or from no change if that is better, until it stops; the
        mix on the way that was best, less the cost of its moves, is kept, polished and explained."""
        from mixrl.agent.policy import default_policy
        from mixrl.levelling import kept_levels, levelled
        from mixrl.rules import starting_mix
        from mixrl.search import TRIES, TRIES_BEFORE_POLISH, Objective, Space, follow, pattern_search

        facts = scene.facts
        kinds = tuple(kind for kind in KINDS if self._use(kind))
        limit = step_limit(len(facts.names)) if self.steps is None else self.steps
        objective = Objective(scene)
        starting_mix(scene, locked, kinds, objective)
        knobs = objective.best
        opening = _settings_off(knobs, facts)
        if self.steps is not None and opening > limit:  # half a rule mix is none
            knobs, opening = neutral_knobs(facts), 0
        before = objective.score_of(knobs)
        policy = self.policy or default_policy()
        walk = follow(
            policy, scene, objective, start=knobs, locked=locked, kinds=kinds,
            steps=limit if self.steps is None else limit - opening, shortlist=0 if policy.use_gains else 1,
            tries=TRIES_BEFORE_POLISH if self.polish else TRIES,
            progress=lambda share: progress("mixing", share),
        )  # fmt: skip
        count = int(np.argmax([before, *(step.score - MOVE_COST * k for k, step in enumerate(walk, 1))]))
        knobs, reached = (walk[count - 1].knobs, walk[count - 1].score) if count else (knobs, before)
        if self.polish:
            progress("polishing", 0.0)
            space = Space.around(knobs, facts, locked, kinds)
            unchanged = space.point(neutral_knobs(facts))
            beyond = _settings_off(knobs, facts) - int((space.origin != unchanged).sum())  # it cannot turn: tempo
            most = None if self.steps is None else limit - beyond
            point = pattern_search(Objective(scene, self.polish), space, most_changes=most, unchanged=unchanged)
            polished = space.knobs(point[None])[0]
        else:
            polished = knobs
        levels = None
        if self.steps is None and "gain" in kinds:  # to keep levels may take more settings
            levels = kept_levels(scene, knobs)
            mixes = joined([levelled(scene, mix, levels, locked) for mix in (polished, knobs)])
            polished = mixes[int(np.argmax(scene.scores(mixes)))]  # at their levels, polish can have made it worse
        progress("mixing", 1.0)
        return self._log(scene, _explained(scene, polished, reached, locked, kinds, levels))

    def _log(
        self, scene: Scene, path: Sequence[tuple[int, MixSettings]]
    ) -> tuple[MixSettings, tuple[LoggedMove, ...]]:
        """The settings at the end of a path and its moves, both as far as the strengths let them go. path: an action on
        the setting that was changed, and the settings reached."""
        settings = scene.neutral()
        measures = scene.measures(settings)
        log: list[LoggedMove] = []
        for action, reached in path:
            after = self._blended(reached)
            if after == settings:  # a strength below 1 can keep a step from being taken
                continue
            then = scene.measures(after)
            log.append(_logged(len(log), action, settings, after, scene.facts, measures, then))
            settings, measures = after, then
        return settings, tuple(log)

    def _blended(self, settings: MixSettings) -> MixSettings:
        """Settings with each kind of move kept to its strength."""
        if all(value == 1.0 for value in self.strength.values()):
            return settings
        share = {kind: self.strength.get(kind, 1.0) for kind in KINDS}
        strips = {}
        for name, strip in settings.stems.items():
            strips[name] = StripSettings(
                gain_db=strip.gain_db * share["gain"],
                pan=strip.pan * share["pan"],
                invert=strip.invert and share["polarity"] >= 0.5,
                highpass_hz=strip.highpass_hz if share["highpass"] >= 0.5 else None,
                eq=tuple(replace(band, gain_db=band.gain_db * share["eq"]) for band in strip.eq),
                compressor=COMPRESSORS[round(COMPRESSORS.index(strip.compressor) * share["compressor"])],
                tempo_ratio=strip.tempo_ratio ** share["tempo"],
            )
        groups = {name: gain * share["gain"] for name, gain in settings.groups.items()}
        return replace(settings, stems=strips, groups=groups)


def mix(
    folder: str | os.PathLike[str],
    *,
    target: float | Unsaid | None = UNSAID,
    ceiling: float | Unsaid = UNSAID,
    bpm: float | None = None,
    locked: Sequence[str] = (),
    strength: Mapping[str, float] | None = None,
    steps: int | None = None,
    seed: int = 0,
    include: Sequence[str] = (),
    policy: Policy | None = None,
    polish: int = POLISH,
    album_tone: Sequence[float] | None = None,
    progress: Progress = lambda what, share: None,
) -> Mix:
    """Mix a folder of stems: ``mixrl.mix("my-song", target=-14.0).write("my-song.wav")``.

    Arguments as for ``Mixer``; include: stems that would be left out (click tracks, a mixdown) to take back. Target,
    ceiling and tempo that are not given are those of the folder's ``mixrl.toml``, if it says so, and what it locks is
    locked.
    Raises InputError for a folder, file or value that cannot be used, naming it and the mend.
    """
    mixer = Mixer(
        -14.0 if isinstance(target, Unsaid) else target, -1.0 if isinstance(ceiling, Unsaid) else ceiling,
        bpm, locked, strength or {}, steps, seed, policy, polish, album_tone,
    )  # fmt: skip
    progress("loading", 0.0)
    session = load_session(folder, include=include)
    said = session.wishes
    mixer = replace(
        mixer,
        target=said.target if isinstance(target, Unsaid) and said.target is not None else mixer.target,
        ceiling=said.ceiling if isinstance(ceiling, Unsaid) and said.ceiling is not None else mixer.ceiling,
        bpm=said.bpm if bpm is None else bpm,
    )
    return replace(mixer.mix(session, progress), include=tuple(include))


def deliver_mix(
    session: Session,
    settings: MixSettings,
    path: str | os.PathLike[str],
    *,
    encoding: str | None = None,
    force: bool = False,
    seed: int = 0,
) -> Delivery:
    """Render these settings of a session to a file. The same settings give the same samples."""
    from mixrl.delivery import deliver
    from mixrl.render import SumSource

    return deliver(SumSource(session, settings), path, settings.master, encoding=encoding, force=force, seed=seed)


def write_stems(
    session: Session, settings: MixSettings, folder: str | os.PathLike[str], gain_db: float, force: bool = False
) -> tuple[Path, ...]:
    """Write every stem as it goes into the mix, 32-bit float, into a folder that is made when missing.

    gain_db: the master gain (``Delivery.gain_db``). The files' sum is the mix before the limiter.
    """
    from mixrl.audio import Writer
    from mixrl.render import render_stem

    folder = Path(folder)
    paths: list[Path] = []
    for name in session.names:
        path, number = folder / f"{name.replace('/', '_')}.wav", 2
        while path in paths:
            path, number = folder / f"{name.replace('/', '_')} ({number}).wav", number + 1
        paths.append(path)
    _ready(folder, paths, force)
    gain = np.float32(10.0 ** (gain_db / 20.0))
    for name, path in zip(session.names, paths, strict=True):
        with Writer(path, session.sample_rate, 2, "wav32f", force=force) as writer:
            for block in render_stem(session, settings, name):
                writer.write(block * gain)
    return tuple(paths)


def write_candidates(mix: Mix, folder: str | os.PathLike[str], force: bool = False) -> dict[str, Path]:
    """Write every candidate into a folder, all at the same integrated loudness, for listening side by side."""
    from mixrl.delivery import master_gain
    from mixrl.render import SumSource

    folder = Path(folder)
    paths = {c.name: folder / f"{c.name.replace(' ', '-')}.wav" for c in mix.candidates}
    _ready(folder, paths.values(), force)
    master = mix.settings.master
    reached = [master_gain(SumSource(mix.session, c.settings), master)[1].integrated_lufs for c in mix.candidates]
    loudness = [value for value in reached if value is not None]
    common = replace(master, target_lufs=max(min(loudness), TARGET_RANGE_LUFS[0])) if loudness else master
    for candidate in mix.candidates:
        settings = replace(candidate.settings, master=common)
        deliver_mix(mix.session, settings, paths[candidate.name], force=force, seed=mix.seed)
    return paths


def _ready(folder: Path, paths: Collection[Path], force: bool) -> None:
    """Make an output folder when missing; InputError where these files cannot go into it."""
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: there is no folder {folder.parent}: make it first, or give another one")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file: give the name of a folder")
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        raise InputError(f"{existing[0]}: exists already: use --force to overwrite, or give another folder")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ProcessingError(f"{folder}: cannot be made ({error.strerror}): give another folder") from None


def _in_range(what: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:  # also for NaN
        raise InputError(f"{what} {value:g} is out of range: give {low:g} to {high:g} {unit}".rstrip())


def _tempo_missed(
    settings: MixSettings,
    ratios: Mapping[str, float],
    bpm: float,
    locked: Collection[str],
    strength: Mapping[str, float],
) -> list[str]:
    """A warning when the tempo that was asked for is not the mix's."""
    part = strength.get("tempo", 1.0)
    if all(abs(settings.strip(name).tempo_ratio - ratio**part) < 1e-3 for name, ratio in ratios.items()):
        return []
    held = sorted(set(locked) & set(ratios))
    why = f"{held[0]} is locked, and a session is stretched as a whole" if held else "the best mix found does without"
    return [f"the mix is not brought to {bpm:g} BPM: {why}"]


def _locked(session: Session, patterns: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for pattern in patterns:
        hits = [name for name in session.names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
        if not hits:
            raise InputError(f"lock: no stem is called {pattern!r}: there are {', '.join(session.names)}")
        found += hits
    return tuple(dict.fromkeys(found))


def _keep_locked(settings: MixSettings, neutral: MixSettings, locked: Sequence[str]) -> MixSettings:
    return replace(settings, stems={**settings.stems, **{name: neutral.strip(name) for name in locked}})


def _settings_off(knobs: Knobs, facts: Facts) -> int:
    """How many settings are not neutral."""
    neutral = neutral_knobs(facts)
    return int((knobs.strips != neutral.strips).sum() + (knobs.groups != neutral.groups).sum())


def _explained(
    scene: Scene, knobs: Knobs, before: float, locked: Sequence[str], kinds: Sequence[str], levels: Array | None
) -> list[tuple[int, MixSettings]]:
    """The way from no change to a mix, a setting at a time, those that bring most first: an action on each, and the
    settings it leads to. The mix is tidied before, as ``levelling.tidied`` says."""
    from mixrl.levelling import tidied
    from mixrl.search import Objective, Space

    facts = scene.facts
    layout = Layout(len(facts.names), len(facts.groups))
    base, path = neutral_knobs(facts), []
    if (knobs.strips[:, TEMPO] != base.strips[:, TEMPO]).any():
        base.strips[:, TEMPO] = knobs.strips[:, TEMPO]
        path.append((layout.size - 1, to_settings(base, facts)))
    space = Space.around(base, facts, locked, kinds)
    point, brought = tidied(Objective(scene), space, knobs, before, levels, locked)
    reached = space.origin.copy()
    turned = np.flatnonzero(point != space.origin)
    for knob in turned[np.argsort(-brought[turned], kind="stable")]:
        reached[knob] = point[knob]
        action = _action_on(layout, int(space.rows[knob]), int(space.columns[knob]))
        path.append((action, to_settings(space.knobs(reached[None])[0], facts)))
    return path


def _action_on(layout: Layout, row: int, column: int) -> int:
    """An action on the same setting as a knob of a ``search.Space``."""
    from mixrl.search import GROUP

    if column == GROUP:
        return layout.group_start + row * len(GROUP_MOVES)
    kinds = {GAIN: "gain", PAN: "pan", HIGHPASS: "highpass", COMPRESSOR: "compressor", INVERT: "polarity"}
    wanted = (kinds.get(column, "eq"), column - EQ if column >= EQ else -1)
    return row * len(STEM_MOVES) + [(move.kind, move.band) for move in STEM_MOVES].index(wanted)


def _logged(
    step: int,
    action: int,
    before: MixSettings,
    after: MixSettings,
    facts: Facts,
    measured: Measures,
    then: Measures,
) -> LoggedMove:
    target, index, move = Layout(len(facts.names), len(facts.groups)).decode(action)
    name = facts.names[index] if target == "stem" else facts.groups[index] if target == "group" else "mix"
    old, new = terms(measured, facts), terms(then, facts)
    gains = {term: WEIGHTS[term] * float(old[term] - new[term]) for term in TERMS}
    best = max(gains, key=lambda term: gains[term])
    reason = _REASONS[best] if gains[best] > 1e-4 else "goes with other moves"
    setting, was, becomes = _change(target, name, move, before, after)
    return LoggedMove(step + 1, target, name, setting, was, becomes, round(sum(gains.values()), 4), reason)


def _change(target: str, name: str, move: Move, before: MixSettings, after: MixSettings) -> tuple[str, str, str]:
    """What a move changed: the setting, its value before and after, in units."""
    if target == "group":
        return "group gain", f"{before.groups[name]:+.1f} dB", f"{after.groups[name]:+.1f} dB"
    if target == "mix":
        old, new = (_ratios(settings) for settings in (before, after))
        return "tempo ratio", old, new
    a, b = before.strip(name), after.strip(name)
    if move.kind == "gain":
        return "gain", f"{a.gain_db:+.1f} dB", f"{b.gain_db:+.1f} dB"
    if move.kind == "pan":
        return "pan", _pan(a.pan), _pan(b.pan)
    if move.kind == "eq":
        band, changed = a.eq[move.band], b.eq[move.band]
        setting = f"EQ {band.kind.replace('_', ' ')} {band.frequency_hz:g} Hz"
        return setting, f"{band.gain_db:+.1f} dB", f"{changed.gain_db:+.1f} dB"
    if move.kind == "highpass":
        was, becomes = (f"{s.highpass_hz:g} Hz" if s.highpass_hz else "off" for s in (a, b))
        return "high-pass", was, becomes
    if move.kind == "compressor":
        return "compressor", a.compressor, b.compressor
    was, becomes = ("inverted" if s.invert else "normal" for s in (a, b))
    return "polarity", was, becomes


def _pan(pan: float) -> str:
    return "centre" if abs(pan) < 0.005 else f"{abs(pan) * 100:.0f}% {'right' if pan > 0 else 'left'}"


def _ratios(settings: MixSettings) -> str:
    """ "0.835, keys 0.694": the ratio of most stems, then those that differ by name."""
    ratios = {name: f"{strip.tempo_ratio:.3f}" for name, strip in settings.stems.items()}
    usual, _ = Counter(ratios.values()).most_common(1)[0]
    return ", ".join([usual, *(f"{name} {ratio}" for name, ratio in ratios.items() if ratio != usual)])
