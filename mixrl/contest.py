"""A contest of search methods over sessions: every method mixes every session, and all pay in the same coin.

Evaluations are counted by ``search.Objective``, look-ahead included; the seconds are those of one process on the closed
form, without what is loaded or compiled before. What comes out are plain records, ready for JSON; ``standings`` says
what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixrl.errors import InputError
from mixrl.knobs import Knobs, joined, neutral_knobs, to_settings
from mixrl.levelling import kept_levels, levelled, tidied
from mixrl.parallel import each_session
from mixrl.search import (
    TRIES,
    TRIES_BEFORE_POLISH,
    Found,
    Objective,
    Player,
    RandomPolicy,
    Space,
    cma_es,
    follow,
    greedy,
    pattern_search,
)

if TYPE_CHECKING:
    from mixrl.scene import Scene

FIXED = ("raw", "equal", "rule", "regressor", "expected")  # mixes that are not searched for
METHODS = (*FIXED, "random", "greedy", "pattern", "cma", "tabular", "dqn", "shortlist", "polish", "mixer")
SHORTLIST = 4  # moves that a DQN without one-step gains scores before it chooses, as "shortlist"; else it is 1
MARKS = (100, 300, 1000, 2500)  # evaluations at which scores are noted
ONE_STEP = " one-step"  # what a policy with one-step gains is called after its method
SHIPPED = "shipped"


@dataclass(frozen=True)
class Contestant:
    """A policy that takes part. kind: "dqn", "dqn one-step" or "tabular"; file: None for the one that ships."""

    kind: str
    file: Path | None

    @property
    def name(self) -> str:
        """What it is called in the records."""
        return SHIPPED if self.file is None else str(self.file)


@dataclass(frozen=True)
class Contest:
    """Who takes part, and under which rules.

    methods: of ``METHODS``. budget: evaluations of each at the most. seeds: runs of the methods that draw lots (random,
    pattern, cma, polish, mixer). render: whether the mixes of the first run of each method are rendered and scored
    again. rules: whether balance is scored by published levels of roles alone, and not by what people would do.
    """

    methods: tuple[str, ...]
    contestants: tuple[Contestant, ...]
    budget: int = 2500
    seeds: int = 1
    render: bool = True
    rules: bool = False

    @property
    def marks(self) -> tuple[int, ...]:
        """The numbers of evaluations at which scores are noted."""
        return (*(mark for mark in MARKS if mark < self.budget), self.budget)


def contest_of(
    methods: Sequence[str] | None,
    policies: Sequence[Path],
    budget: int = 2500,
    seeds: int = 1,
    render: bool = True,
    rules: bool = False,
) -> Contest:
    """A contest of these methods (None: all that there is a policy for) and policy files; where none of them is a DQN,
    the policy that ships plays. Raises InputError for methods and files that cannot take part."""
    for method in methods or ():
        if method not in METHODS:
            raise InputError(f"no method {method!r}: there are {', '.join(METHODS)}")
    contestants = [Contestant(_kind(path), path) for path in dict.fromkeys(policies)]
    table = any(contestant.kind == "tabular" for contestant in contestants)
    if methods is None:
        without = {*(() if table else ("tabular",)), *(("regressor", "expected") if rules else ())}
        methods = [method for method in METHODS if method not in without]
    elif "tabular" in methods and not table:
        raise InputError("tabular needs a table: give one with --policy, made by `mixrl train --algorithm tabular`")
    if "cma" in methods and find_spec("cma") is None:
        raise InputError('cma needs a package: pip install "mixrl[evaluate]", or leave it out of --methods')
    playing = {"dqn", "shortlist", "polish", "mixer"} & set(methods)
    if playing and all(contestant.kind == "tabular" for contestant in contestants):
        contestants.append(Contestant(_kind(None), None))
    return Contest(tuple(m for m in METHODS if m in methods), tuple(contestants), budget, seeds, render, rules)


def _kind(path: Path | None) -> str:
    player = _player(path)
    from mixrl.agent.policy import Policy

    return "tabular" if not isinstance(player, Policy) else "dqn" + ONE_STEP * player.use_gains


@lru_cache(maxsize=64)
def _player(path: Path | None) -> Player:
    """A policy or a table, told apart by what the file says of itself."""
    from mixrl.agent.policy import default_policy, load_policy
    from mixrl.weights import load_arrays

    if path is None:
        return default_policy()
    if not load_arrays(path, "policy file")[1].get("format", "").startswith("mixrl-table"):
        return load_policy(path)
    from mixrl.agent.tabular import load_table

    return load_table(path)


def sessions_of(folders: Sequence[Path], part: str) -> dict[str, Path]:
    """Session folders by name: each of ``folders`` is a session itself, or a data set as `mixrl dataset` makes them, of
    which ``part`` is taken. Raises InputError where there is none, or a folder is given twice."""
    from mixrl.songs import PARTS

    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: is no folder: give session folders or a folder made by `mixrl dataset`")
        if any((folder / name).is_dir() and _is_part(folder / name) for name in PARTS):
            inside = folder / part
            there = inside.iterdir() if inside.is_dir() else ()
            sessions = sorted(path for path in there if path.is_dir() and not path.name.startswith("."))
            if not sessions:
                raise InputError(f"{inside}: no sessions in it: choose another part with --part")
            found += sessions
        else:
            found.append(folder)
    resolved = [folder.resolve() for folder in found]
    named: dict[str, Path] = {}
    for folder, whole in zip(found, resolved, strict=True):
        if resolved.count(whole) > 1:
            raise InputError(f"{folder}: is given twice: name it once")
        alone = [other.name for other in resolved].count(whole.name) == 1
        named[whole.name if alone else f"{whole.parent.name}/{whole.name}"] = folder
    if len(named) < len(found):
        raise InputError(f"{found[-1]}: sessions share names, and their folders too: rename one")
    return named


def _is_part(folder: Path) -> bool:
    """Whether a folder holds sessions of a data set, each with its ``source.json``."""
    from mixrl.agent.material import SIDECAR

    return any((inside / SIDECAR).is_file() for inside in folder.iterdir() if inside.is_dir())


def hold(
    contest: Contest,
    sessions: dict[str, Path],
    cache: Path,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, str]]:
    """Let all methods mix all sessions, ``jobs`` sessions at a time, a process each; returns the records of sessions
    and of results, in the order of the sessions, and by name why some failed: one that cannot be read, or has fewer
    than two stems that sound, does not stop the others.

    cache: folder that remembers sessions listened to, as `mixrl train` does. progress: called with the name of each
    session that is done, or has failed. Raises InputError with the first reason where all fail.
    """
    held, failed = each_session(partial(_session, contest, cache), sessions, jobs, progress)
    found = list(held.values())
    return [about for about, _ in found], [row for _, rows in found for row in rows], failed


def _session(
    contest: Contest, cache: Path, name: str, folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One session and what every method made of it."""
    from mixrl.agent.material import load_material
    from mixrl.people import informed
    from mixrl.sound_roles import guessed

    (material,) = load_material([folder], cache)
    scene = material.scene if contest.rules else informed(guessed(material.scene))
    _warm(scene, contest)
    before = float(scene.scores(neutral_knobs(scene.facts)[None])[0])
    runs = [(method, policy, seed, search(contest.budget)) for method, policy, seed, search in runs_of(contest, scene)]
    rendered = _rendered(folder, scene, [(method, found.knobs) for method, _, _, found in runs], contest.render)
    best = max([before, *(found.score for *_, found in runs)])
    results = [
        {
            "session": name,
            "method": method,
            "policy": policy,
            "seed": seed,
            "score_before": before,
            "score": found.score,
            "regret": best - found.score,
            "evaluations": found.evaluations,
            "seconds": found.seconds,
            "score_rendered": scored,
            "trace": [list(point) for point in found.trace],
            "at": {
                str(mark): {"score": found.score_at(mark), "seconds": found.seconds_at(mark)} for mark in contest.marks
            },
        }
        for (method, policy, seed, found), scored in zip(runs, rendered, strict=True)
    ]
    about = {
        "name": name,
        "real": material.real,
        "stems": len(scene.facts.names),
        "seconds": round(0.1 * scene.analysis.hops, 1),
        "score_before": before,
        "best_known": best,
    }
    return about, results


def _warm(scene: Scene, contest: Contest) -> None:
    """What is compiled or loaded when first used is no method's fault."""
    if "cma" in contest.methods:
        import cma  # noqa: F401
    for player in (_player(contestant.file) for contestant in contest.contestants):
        follow(player, scene, Objective(scene), steps=2)
    objective = Objective(scene)
    pattern_search(objective, Space.around(neutral_knobs(scene.facts), scene.facts), most_changes=1)
    greedy(scene, objective, steps=1)


Run = tuple[str, str | None, int | None, Callable[[int], Found]]  # method, policy, seed, and how, with a budget


def runs_of(contest: Contest, scene: Scene) -> Iterator[Run]:
    """Every run of every method on a scene, in order."""
    for method in contest.methods:
        seeds = range(contest.seeds) if method in ("random", "pattern", "cma", "polish", "mixer") else (None,)
        if method in ("tabular", "dqn", "shortlist", "polish", "mixer"):
            for contestant in contest.contestants:
                if method in _parts(contestant.kind):
                    label = method + ONE_STEP * contestant.kind.endswith(ONE_STEP)
                    for seed in seeds:
                        yield label, contestant.name, seed, _played(scene, method, _player(contestant.file), seed)
        else:
            for seed in seeds:
                yield method, None, seed, _played(scene, method, None, seed)


def _parts(kind: str) -> tuple[str, ...]:
    """The methods in which a kind of policy plays; one with one-step gains has no need of a shortlist."""
    parts = {"tabular": ("tabular",), "dqn": ("dqn", "shortlist", "polish", "mixer")}
    return parts.get(kind, ("dqn", "polish", "mixer"))


def _played(scene: Scene, method: str, player: Player | None, seed: int | None) -> Callable[[int], Found]:
    def play(budget: int) -> Found:
        tidying = max(budget // 8, 1) if method == "mixer" else 0  # mixes, to put back what brings next to nothing
        objective = Objective(scene, budget - tidying)
        if method in FIXED:
            _fixed(method, scene, objective)
        else:
            start = _start(scene, objective)
            if method == "random":
                lots = RandomPolicy(np.random.default_rng(seed))
                while objective.left:  # one episode after another
                    follow(lots, scene, objective, start=start.copy())
            elif method == "greedy":
                greedy(scene, objective, start=start)
            elif player is not None:
                tries = TRIES_BEFORE_POLISH if method in ("polish", "mixer") else TRIES
                follow(player, scene, objective, start=start, shortlist=_shortlist(method, player), tries=tries)
            played, before = objective.best, objective.score
            if method in ("pattern", "polish", "mixer"):
                pattern_search(objective, Space.around(objective.best, scene.facts), seed or 0)
            if method == "mixer":
                levels = kept_levels(scene, played)
                mixes = joined([levelled(scene, mix, levels) for mix in (objective.best, played)])
                space, last = Space.around(neutral_knobs(scene.facts), scene.facts), Objective(scene, tidying - 1)
                best = mixes[int(np.argmax(last(mixes)))]
                point, _ = tidied(last, space, best, before, levels)
                objective.settle(space.knobs(point[None])[0], last.evaluations)
            elif method == "cma":
                cma_es(objective, Space.around(objective.best, scene.facts), seed or 0)
        return objective.found()

    return play


def _shortlist(method: str, player: Player) -> int:
    from mixrl.agent.policy import Policy

    if player.use_gains or not isinstance(player, Policy):
        return 0
    return SHORTLIST if method == "shortlist" else 1


def _fixed(method: str, scene: Scene, objective: Objective) -> None:
    """Mixes that are not searched for. To know how loud the stems are is an evaluation of the raw mix."""
    from mixrl.rules import at_levels, equal_loudness, rule_mix

    if method == "raw":
        objective(neutral_knobs(scene.facts)[None])
        return
    objective.count(1)
    if method == "rule":
        settings = rule_mix(scene)
    elif method == "equal":
        settings = equal_loudness(scene)
    else:
        expected = scene.facts.expected
        if expected is None:
            raise InputError(f"{method}: nothing is known of this session's balance: it has fewer than two stems")
        settings = at_levels(scene, expected.centre_lufs if method == "regressor" else expected.level_lufs)
    objective(scene.knobs(settings)[None])


def _start(scene: Scene, objective: Objective) -> Knobs:
    """Where everybody begins to search; two evaluations."""
    from mixrl.rules import starting_mix

    starting_mix(scene, scores=objective)
    return objective.best


def _rendered(folder: Path, scene: Scene, mixes: Sequence[tuple[str, Knobs]], wanted: bool) -> list[float | None]:
    """Scores on rendered audio of the first mix of each method; None for the others."""
    scores: list[float | None] = [None] * len(mixes)
    if wanted:
        from mixrl.excerpt import excerpt
        from mixrl.rendered import Rendered
        from mixrl.score import score
        from mixrl.session import load_session

        rendered = Rendered(excerpt(load_session(folder)), scene)
        methods = [method for method, _ in mixes]
        for method in dict.fromkeys(methods):
            index = methods.index(method)
            measures = rendered.measures(to_settings(mixes[index][1], scene.facts))
            scores[index] = float(score(measures, scene.facts))
    return scores
