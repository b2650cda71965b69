"""Searching for a mix: an objective that counts, a space of knobs, and the searches that baselines and polish are.

What search pays with is evaluations: one mix scored is one evaluation, whoever asks and whatever for, so a look at all
one-move successors costs as many as there are legal ones. ``Objective`` counts them and never goes beyond its budget.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mixrl.knobs import COLUMNS, COMPRESSOR, EQ, GAIN, HIGHPASS, INVERT, PAN, Knobs, joined, neutral_knobs
from mixrl.measures import Array, Facts
from mixrl.moves import (
    EQ_LIMITS_DB,
    GAIN_LIMITS_DB,
    GROUP_LIMITS_DB,
    GROUP_MOVES,
    HIGHPASS_HZ,
    KINDS,
    MOVE_COST,
    Layout,
    apply,
    legal,
    step_limit,
    tops_of,
)
from mixrl.settings import COMPRESSORS, EQ_BANDS

if TYPE_CHECKING:
    from mixrl.agent.policy import Policy
    from mixrl.scene import Scene
    from mixrl.state import State

Trace = tuple[tuple[int, float], ...]
_NO_END = 2**62
LISTED = 0.005  # of score: what a setting that stays must bring
TRIES = 24  # moves that a policy may have scored in vain before it gives up
TRIES_BEFORE_POLISH = 16  # the same where a search goes on, which gains more by then
MOVES_PER_LOOK = 16  # that a policy with one-step gains makes before it looks at all successors again
GROUP = -1  # the column of a group's gain in ``Space``
_CORNERS = np.array([corner or 0.0 for corner in HIGHPASS_HZ])


class Objective:
    """Scores mixes of a scene and counts: the best mix so far, and the best score against evaluations and time.

    budget: evaluations at the most (None: no end). A mix asked for beyond it is not scored: it comes back as -inf.
    """

    def __init__(self, scene: Scene, budget: int | None = None) -> None:
        self.scene, self.budget = scene, budget
        self.evaluations = 0
        self.score = -np.inf
        self.best: Knobs = neutral_knobs(scene.facts)
        self._trace: list[tuple[int, float]] = []
        self._times: list[tuple[int, float]] = []
        self._began = perf_counter()

    @property
    def left(self) -> int:
        """Evaluations that remain."""
        return _NO_END if self.budget is None else self.budget - self.evaluations

    def __call__(self, knobs: Knobs) -> Array:
        """(B,) scores of mixes with one leading axis."""
        count = min(len(knobs.strips), self.left)
        scores = np.full(len(knobs.strips), -np.inf)
        if count:
            scores[:count] = self.scene.scores(knobs[:count])
        for index in range(count):
            self.evaluations += 1
            if scores[index] > self.score:
                self.reached(knobs[index], float(scores[index]))
        if count:
            self._times.append((self.evaluations, perf_counter() - self._began))
        return scores

    def count(self, evaluations: int) -> None:
        """Count mixes that are scored elsewhere. ValueError when they are more than remain."""
        if evaluations > self.left:
            raise ValueError(f"{evaluations} evaluations, but only {self.left} are left")
        self.evaluations += evaluations
        self._times.append((self.evaluations, perf_counter() - self._began))

    def reached(self, knobs: Knobs, score: float) -> None:
        """A mix that was scored and counted is a candidate for the best."""
        if score > self.score:
            self.score, self.best = score, knobs.copy()
            self._trace.append((self.evaluations, score))

    def settle(self, knobs: Knobs, evaluations: int = 0) -> None:
        """Take a mix for the best, whatever others score, and even beyond the budget. Counts 1, and evaluations that it
        took to find."""
        self.evaluations += 1 + evaluations
        self.score, self.best = float(self.scene.scores(knobs[None])[0]), knobs.copy()
        self._trace.append((self.evaluations, self.score))

    def knows(self, knobs: Knobs) -> bool:
        """Whether this is the best mix itself, which need not be scored again."""
        return knobs is self.best and self.evaluations > 0

    def score_of(self, knobs: Knobs) -> float:
        """The score of one mix, counted unless it is known."""
        return self.score if self.knows(knobs) else float(self(knobs[None])[0])

    def found(self) -> Found:
        """The best mix, and how it was come by."""
        seconds = perf_counter() - self._began
        return Found(self.best, self.score, self.evaluations, seconds, tuple(self._trace), tuple(self._times))


@dataclass(frozen=True)
class Found:
    """A mix that was found, its score, what it cost, and the way there.

    trace: (evaluations, best score so far) wherever it rose. times: (evaluations, seconds since the start).
    """

    knobs: Knobs
    score: float
    evaluations: int
    seconds: float
    trace: Trace
    times: Trace

    def score_at(self, evaluations: int) -> float:
        """The best score after so many evaluations; -inf before the first."""
        return score_at(self.trace, evaluations)

    def seconds_at(self, evaluations: int) -> float:
        """When so many evaluations were made; all of the time where they never were."""
        place = bisect_left(self.times, (evaluations, -np.inf))
        return self.times[place][1] if place < len(self.times) else self.seconds


def score_at(trace: Sequence[Sequence[float]], evaluations: int) -> float:
    """The best score of a trace after so many evaluations; -inf before the first."""
    place = bisect_right(trace, float(evaluations), key=lambda point: point[0])
    return trace[place - 1][1] if place else -np.inf


# ---- steps through the moves ---------------------------------------------------------------------------------------


class Player(Protocol):
    """What chooses moves: a ``Policy``, a ``TablePolicy``, ``RandomPolicy``."""

    @property
    def use_gains(self) -> bool:
        """Whether it wants to see each move's one-step gain."""

    def act(self, state: State) -> int:
        """A legal action."""


@dataclass(frozen=True)
class RandomPolicy:
    """Makes any legal move, stop among them."""

    rng: np.random.Generator
    use_gains: bool = False

    def act(self, state: State) -> int:
        """A legal action, each as likely as any other."""
        return int(self.rng.choice(np.flatnonzero(state.mask)))


class Step(NamedTuple):
    """A move that was made, the mix that it led to and its score."""

    action: int
    knobs: Knobs
    score: float


def follow(
    policy: Player,
    scene: Scene,
    objective: Objective,
    *,
    start: Knobs | None = None,
    locked: Collection[str] = (),
    kinds: Collection[str] = KINDS,
    steps: int | None = None,
    shortlist: int = 0,
    tries: int = TRIES,
    per_look: int = MOVES_PER_LOOK,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Step]:
    """Play a policy from ``start`` (None: the neutral mix) until it stops, ``steps`` (None: the step limit) are made,
    or what it has to see next is no longer within the budget.

    shortlist: how many of the moves that a ``Policy`` likes best are scored before it chooses among those that gain, by
    its Q-value with their exact rewards instead of predicted ones; where none gains the next ones are tried, ``tries``
    in all, and then it stops. So with 1, a move that makes the mix worse is taken back. 0: all moves are made.

    per_look: how many moves a ``Policy`` with one-step gains makes after a look at all of them: those that it likes
    best, each on another knob, are scored one after another, and what does not gain is taken back; where nothing gains
    it stops.

    The start counts 1, unless it is the best mix of the objective. A move counts 1 for a policy without one-step gains;
    for one with them, or with a shortlist, it counts the successors that it chooses from, of which the next mix is one.
    After a look at all successors, whatever is scored on top of them counts besides.
    """
    from mixrl.agent.policy import Policy
    from mixrl.state import observe

    facts, looks = scene.facts, policy.use_gains
    stop = Layout(len(facts.names), len(facts.groups)).mix_start
    limit = step_limit(len(facts.names)) if steps is None else steps
    knobs = neutral_knobs(facts) if start is None else start
    walk: list[Step] = []
    if not objective.knows(knobs):
        if objective.left < 1:
            return walk
        objective.count(1)
    while True:
        left = 1.0 - len(walk) / limit if limit else 0.0
        price = int(legal(knobs, facts, locked, kinds).sum()) - 1 if looks and left > 0.0 else 0
        affordable = price <= objective.left
        state, _ = observe(scene, knobs, left, locked, kinds, looks and affordable)
        if not shortlist or not walk:  # what was on the shortlist is known
            objective.reached(knobs, state.score)
        if walk:
            walk[-1] = walk[-1]._replace(score=state.score)
        progress(1.0 - left)
        if left <= 0.0 or not affordable or (not looks and objective.left < 1):
            return walk
        objective.count(price)
        if looks and isinstance(policy, Policy):
            made = _several(policy, state, scene, knobs, objective, min(per_look, limit - len(walk)))
            if not made:
                return walk
            walk += made
            knobs = walk[-1].knobs
            continue
        if shortlist:
            action = _shortlisted(policy, state, scene, knobs, objective, shortlist, tries)
        else:
            action = policy.act(state)
        if action == stop:
            return walk
        if not looks and not shortlist:
            objective.count(1)
        knobs = apply(knobs, facts, action)
        walk.append(Step(action, knobs, state.score))


def _shortlisted(
    policy: Player, state: State, scene: Scene, knobs: Knobs, objective: Objective, count: int, tries: int
) -> int:
    """The move that is best among the policy's favourites, as ``follow`` says; stop where none of them gains."""
    from mixrl.agent.policy import Policy

    assert isinstance(policy, Policy)
    facts = scene.facts
    stop = Layout(len(facts.names), len(facts.groups)).mix_start
    q, rewards = policy.with_rewards(state)
    order = np.argsort(-q, kind="stable")
    order = order[np.isfinite(q[order]) & (order != stop)][: max(tries, count)]
    for at in range(0, len(order), count):
        few = order[at : at + count]
        if len(few) > objective.left:
            break
        exact = objective(joined([apply(knobs, facts, int(action)) for action in few])) - state.score - MOVE_COST
        if exact.max() > 0.0:
            return int(few[np.where(exact > 0.0, exact + (q - rewards)[few], -np.inf).argmax()])
    return stop


def _several(
    policy: Policy, state: State, scene: Scene, knobs: Knobs, objective: Objective, most: int
) -> list[Step]:
    """The moves, so many at the most, that a policy makes after one look at all, as ``follow`` says. No more than twice
    as many are tried."""
    facts, score = scene.facts, state.score
    layout = Layout(len(facts.names), len(facts.groups))
    q = policy.q_values(state)
    liked: dict[tuple[str, int, str, int], int] = {}  # the best move on each knob, best knobs first
    for action in np.argsort(-q, kind="stable"):
        if q[action] <= q[layout.mix_start]:  # of stop
            break
        where, index, move = layout.decode(int(action))
        liked.setdefault((where, index, move.kind, move.band), int(action))
    walk: list[Step] = []
    for action in list(liked.values())[: 2 * most]:
        if len(walk) == most or objective.left < 1:
            break
        after = apply(knobs, facts, action)
        reached = objective.score_of(after)
        if reached > score + MOVE_COST:
            knobs, score = after, reached
            walk.append(Step(action, knobs, score))
    return walk


def greedy(
    scene: Scene,
    objective: Objective,
    *,
    start: Knobs | None = None,
    locked: Collection[str] = (),
    kinds: Collection[str] = KINDS,
    steps: int | None = None,
) -> list[Step]:
    """Make the move that gains most, from ``start`` (None: the neutral mix), until none gains more than ``MOVE_COST``,
    ``steps`` (None: the step limit) are made, or the next look no longer fits into the budget. Every legal successor
    counts."""
    facts = scene.facts
    limit = step_limit(len(facts.names)) if steps is None else steps
    knobs = neutral_knobs(facts) if start is None else start
    score = objective.score_of(knobs)
    walk: list[Step] = []
    while len(walk) < limit:
        allowed = legal(knobs, facts, locked, kinds)
        price = int(allowed.sum()) - 1
        if not 0 < price <= objective.left:
            break
        actions, scores = scene.successor_scores(knobs)
        objective.count(price)
        scores = np.where(allowed[actions], scores, -np.inf)
        best = int(scores.argmax())
        if scores[best] - score <= MOVE_COST:
            break
        knobs, score = apply(knobs, facts, int(actions[best])), float(scores[best])
        objective.reached(knobs, score)
        walk.append(Step(int(actions[best]), knobs, score))
    return walk


# ---- steps through the knobs ---------------------------------------------------------------------------------------

_GAIN_GRID, _PAN_GRID = 0.1, 0.01  # what a person would write down


@dataclass(frozen=True)
class Space:
    """The knobs that search may turn, as D coordinates around a mix; all other knobs stay as they are there.

    rows, columns: (D,) where each is: in ``Knobs.strips``, or in ``Knobs.groups`` where the column is ``GROUP``.
    origin, low, high, grid: (D,) the mix's own values, the limits, and the steps that values have, counted from the
    origin. High-pass and compressor count in their own steps; polarity is 0 or 1.
    """

    base: Knobs
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    origin: Array
    low: Array
    high: Array
    grid: Array

    @classmethod
    def around(cls, base: Knobs, facts: Facts, locked: Collection[str] = (), kinds: Collection[str] = KINDS) -> Space:
        """The space around one mix: audible stems that are not locked and groups that may move, by the kinds of move
        that are allowed (tempo, which is no matter of degree, stays). The limits are those of the moves, but a value
        that lies outside may stay where it is."""
        ranges = {
            "gain": [(GAIN, *GAIN_LIMITS_DB)],
            "pan": [(PAN, -1.0, 1.0)],
            "eq": [(EQ + band, *EQ_LIMITS_DB) for band in range(EQ_BANDS)],
            "highpass": [(HIGHPASS, 0.0, len(HIGHPASS_HZ) - 1.0)],
            "compressor": [(COMPRESSOR, 0.0, len(COMPRESSORS) - 1.0)],
            "polarity": [(INVERT, 0.0, 1.0)],
        }
        free = [i for i, name in enumerate(facts.names) if facts.audible[i] and name not in locked]
        found = [(float(i), *knob) for i in free for kind in KINDS if kind in kinds for knob in ranges.get(kind, ())]
        layout = Layout(len(facts.names), len(facts.groups))
        moving = legal(replace(base, groups=np.zeros(len(facts.groups))), facts, locked, kinds)
        found += [
            (float(index), GROUP, *GROUP_LIMITS_DB)
            for index in range(len(facts.groups))
            if moving[layout.group_start + index * len(GROUP_MOVES)]
        ]
        table = np.array(found, dtype=np.float64).reshape(-1, 4)
        rows, columns, low, high = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3]
        origin = _coordinates(base, rows, columns)
        tops = np.broadcast_to(tops_of(base), (len(facts.names), EQ_BANDS))
        band = columns >= EQ
        noise = tops[rows[band], columns[band] - EQ] > facts.bandwidth_hz[rows[band]]
        high[band] = np.where(noise, 0.0, high[band])  # a boost up there would only raise noise
        grid = np.where(columns == PAN, _PAN_GRID, _GAIN_GRID)
        grid[np.isin(columns, (HIGHPASS, COMPRESSOR, INVERT))] = 1.0
        return cls(base, rows, columns, origin, np.minimum(low, origin), np.maximum(high, origin), grid)

    @cached_property
    def smooth(self) -> NDArray[np.bool_]:
        """(D,) knobs that are a matter of degree."""
        return self.grid < 1.0

    def point(self, knobs: Knobs) -> Array:
        """(D,) where a mix lies; the inverse of ``knobs``."""
        return _coordinates(knobs, self.rows, self.columns)

    def inside(self, points: Array) -> Array:
        """(..., D) points on the grid and within the limits."""
        steps = np.round((points - self.origin) / self.grid)
        values = np.clip(np.round(self.origin + steps * self.grid, 6), self.low, self.high)
        return np.where(steps == 0.0, self.origin, values)

    def knobs(self, points: Array) -> Knobs:
        """The mixes at points (B, D), put inside."""
        return self.placed(self.inside(points))

    def placed(self, points: Array) -> Knobs:
        """The mixes at points (B, D) that are inside."""
        (own, places), corner, (group, numbers) = self._own, self._corner, self._groups
        strips = np.empty((len(points), *self.base.strips.shape))
        groups = np.empty((len(points), *self.base.groups.shape))
        strips[:], groups[:] = self.base.strips, self.base.groups
        flat = strips.reshape(len(points), self.base.strips.size)
        flat[:, places] = points[:, own]
        if len(corner):
            steps = points[:, corner].astype(np.int64)
            was = self.base.strips[self.rows[corner], HIGHPASS]  # may be no step of ours: a user's recipe
            hertz = np.where(steps == self.origin[corner], was, _CORNERS[steps])
            flat[:, self.rows[corner] * COLUMNS + HIGHPASS] = hertz
        groups[:, numbers] = points[:, group]
        return Knobs(strips, groups, self.base.shapes)

    @cached_property
    def _own(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Knobs of stems, and their places in a row of all strips."""
        own = np.flatnonzero(self.columns != GROUP)
        return own, self.rows[own] * COLUMNS + self.columns[own]

    @cached_property
    def _corner(self) -> NDArray[np.int64]:
        """High-passes."""
        return np.flatnonzero(self.columns == HIGHPASS)

    @cached_property
    def _groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Knobs of groups, and which groups they are."""
        group = np.flatnonzero(self.columns == GROUP)
        return group, self.rows[group]


def _coordinates(knobs: Knobs, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
    """(D,) values of some knobs of one mix, high-passes as steps."""
    own, corner = columns != GROUP, columns == HIGHPASS
    found = np.empty(len(rows))
    found[own] = knobs.strips[rows[own], columns[own]]
    found[~own] = knobs.groups[rows[~own]]
    found[corner] = np.searchsorted(_CORNERS, found[corner], side="right") - 1
    return found


_CMA_UNITS = {GROUP: 3.0, GAIN: 3.0, PAN: 0.15, INVERT: 0.7, HIGHPASS: 1.0, COMPRESSOR: 1.0}
_CMA_EQ_UNIT = 2.0  # dB
_SIGMA, _POPULATION = 0.25, 10


def cma_es(objective: Objective, space: Space, seed: int = 0) -> None:
    """CMA-ES (N. Hansen, "The CMA evolution strategy: a tutorial", 2016) from the origin of the space until the budget
    is spent: with a diagonal matrix, which in so many dimensions and so few evaluations does better, and restarts with
    twice the population whenever it converges. Needs ``cma``; ValueError for an objective without a budget."""
    import cma

    if objective.budget is None:
        raise ValueError("CMA-ES with restarts never ends: give the objective a budget")
    objective.score_of(space.base)
    units = np.array([_CMA_UNITS.get(int(column), _CMA_EQ_UNIT) for column in space.columns])
    count, population, restart = len(units), _POPULATION, 0
    while objective.left and count:
        options = {
            "popsize": population, "seed": 1000 * seed + restart + 1, "CMA_diagonal": True, "verbose": -9,
            "verb_log": 0, "tolfun": 1e-4, "tolfunhist": 1e-4, "tolx": 1e-3,
        }  # fmt: skip
        search = cma.CMAEvolutionStrategy(np.zeros(max(count, 2)), _SIGMA, options)  # it wants two dimensions
        while objective.left and not search.stop():
            points = search.ask()
            scores = objective(space.knobs(space.origin + np.array(points)[:, :count] * units))
            if not objective.left:
                return
            search.tell(points, (-scores).tolist())
        population, restart = 2 * population, restart + 1


_FIRST_STEPS = {GROUP: 2.0, GAIN: 2.0, PAN: 0.15, HIGHPASS: 1.0, COMPRESSOR: 1.0, INVERT: 1.0}
_EQ_STEP = 2.0  # dB
_ORDER = {GROUP: 0, GAIN: 0, PAN: 2, HIGHPASS: 3, COMPRESSOR: 4, INVERT: 5}  # EQ, with the most knobs, comes second
_BLOCK = 8  # knobs that are tried together
_JUMP = 12  # failures that are gathered for a jump
_TRUST = 0.7  # how far a jump goes of the way to the tops of its parabolas


def pattern_search(
    objective: Objective, space: Space, seed: int = 0, most_changes: int | None = None, unchanged: Array | None = None
) -> Array:
    """Climb from the origin of the space, knob by knob, until no step on the grid gains or the budget is spent; returns
    the point that was reached, (D,).

    Every round tries a step each way on every knob, loudness first. A step that gains is taken, and gone on with for as
    long as it gains; where both ways fail, the step is halved, and from time to time all such knobs jump together
    towards the tops of the parabolas through their failures (after R. Hooke and T. Jeeves, "Direct search solution of
    numerical and statistical problems", 1961). A few knobs are tried at a time, which is quicker to evaluate, and what
    gained is taken together. most_changes: knobs that may end away from where they count as unchanged, (D,), which is
    the origin when None; None for all.
    """
    most = len(space.origin) if most_changes is None else most_changes
    climb = _Climb(objective, space, seed, most, space.origin if unchanged is None else unchanged)
    climb.go()
    return climb.point


class _Climb:
    """A pattern search under way."""

    def __init__(self, objective: Objective, space: Space, seed: int, most: int, unchanged: Array) -> None:
        self.objective, self.space, self.most, self.unchanged = objective, space, most, unchanged
        self.rng = np.random.default_rng(seed)
        self.point = space.origin.copy()
        self.step = np.array([_FIRST_STEPS.get(int(column), _EQ_STEP) for column in space.columns])
        self.sign = self.rng.choice([-1.0, 1.0], len(self.step))
        self.order = np.array([_ORDER.get(int(column), 1) for column in space.columns])
        self.jumps: dict[int, float] = {}
        self.score = objective.score_of(space.base)

    def go(self) -> None:
        """Until the end."""
        scarce = self.most < len(self.point)
        while self.objective.left > 0 and self.most > 0:
            before = self.score
            # where few knobs may be turned, those are sought that gain most
            choosing = scarce and int((self.point != self.unchanged).sum()) < self.most
            self._round(len(self.point) if choosing else _BLOCK)
            if self.score == before and not (self.step >= self.space.grid)[self.space.smooth].any():
                return

    def _round(self, size: int) -> None:
        """Visit every knob once, ``size`` at a time."""
        order = np.lexsort((self.rng.random(len(self.order)), self.order))
        for start in range(0, len(order), size):
            if self.objective.left <= 0:
                return
            self._visit(order[start : start + size])
            if len(self.jumps) >= _JUMP:
                self._jump()

    def _visit(self, knobs: NDArray[np.int64]) -> None:
        change, gain = self._probe(knobs, self.sign[knobs])
        failed = np.flatnonzero(gain <= 0.0)
        if len(failed):
            back, other = self._probe(knobs[failed], -self.sign[knobs[failed]])
            for at, far, its in zip(failed, back, other, strict=True):
                if its > 0.0:
                    change[at], gain[at] = far, its
                elif self.space.smooth[knobs[at]]:
                    self._bend(int(knobs[at]), (change[at], gain[at]), (far, its))
        good = gain > 0.0
        if good.any():
            self._take(knobs[good], change[good], gain[good])

    def _probe(self, knobs: NDArray[np.int64], direction: Array) -> tuple[Array, Array]:
        """How far each knob moves by a step in a direction, and what that gains: -inf where it cannot, or may not."""
        points = np.repeat(self.point[None], len(knobs), axis=0)
        at = np.arange(len(knobs)), knobs
        points[at] += direction * self.step[knobs]
        points = self.space.inside(points)
        change = points[at] - self.point[knobs]
        gain = np.full(len(knobs), -np.inf)
        moves = change != 0.0
        gain[moves] = self._scores(points[moves]) - self.score
        return change, gain

    def _bend(self, knob: int, one: tuple[float, float], other: tuple[float, float]) -> None:
        """After steps both ways have failed: smaller ones from now on, and a jump to the top of the parabola."""
        (a, fa), (b, fb) = one, other
        if np.isfinite(fa) and np.isfinite(fb):
            curve, slope = (b * fa - a * fb) / (a * b * (a - b)), (a * a * fb - b * b * fa) / (a * b * (a - b))
            if curve < 0.0:
                self.jumps[knob] = _TRUST * float(np.clip(-slope / (2.0 * curve), -self.step[knob], self.step[knob]))
        self.step[knob] *= 0.5

    def _take(self, knobs: NDArray[np.int64], change: Array, gain: Array) -> None:
        """Take all steps that gained, or the best of them, and go on that way for as long as it gains."""
        whole, single = np.zeros((2, len(self.point)))
        whole[knobs] = change
        best = int(gain.argmax())
        single[knobs[best]] = change[best]
        onward = np.where(self.space.smooth, whole, 0.0)
        before, score, point = self.point, self.score + float(gain[best]), self.space.inside(self.point + single)
        ways = [whole] if len(knobs) > 1 else []
        reach = 2.0
        while ways or onward.any():
            ways = [*ways, whole + reach * onward] if onward.any() else ways
            points = self.space.inside(before + np.array(ways))
            scores = self._scores(points)
            top = int(scores.argmax())
            if scores[top] <= score:
                break
            score, point = float(scores[top]), points[top]
            if top < len(ways) - 1:
                break
            ways, reach = [], 2.0 * reach + 2.0
        moved = point != before
        self.sign[moved] = np.sign(point - before)[moved]
        self.point, self.score = point, score

    def _jump(self) -> None:
        """Towards the tops of the parabolas of all knobs where steps both ways have failed, at once."""
        point = self.point.copy()
        for knob, change in self.jumps.items():
            point[knob] += change
        self.jumps = {}
        point = self.space.inside(point)
        score = float(self._scores(point[None])[0])
        if score > self.score:
            self.point, self.score = point, score

    def _scores(self, points: Array) -> Array:
        """Scores of points; -inf for where we are, and for those that turn more knobs than may be turned."""
        scores = np.full(len(points), -np.inf)
        fits = ((points != self.unchanged).sum(axis=1) <= self.most) & (points != self.point).any(axis=1)
        if fits.any():
            scores[fits] = self.objective(self.space.placed(points[fits]))
        return scores


def trimmed(objective: Objective, space: Space, point: Array, least: float = LISTED) -> tuple[Array, Array]:
    """A point with those knobs put back to the origin that bring less than ``least`` each, together less than that for
    each, over again until there are none; and what every knob brings, (D,): how much is lost when it alone is put back.

    Costs an evaluation for every knob that is turned and some more each time; nothing is put back when they are not
    left.
    """
    turned = np.flatnonzero(point != space.origin)
    losses = np.zeros(len(point))
    if not len(turned) or objective.left < len(turned) + 3:
        return point, losses
    back = np.repeat(point[None], len(turned), axis=0)
    back[np.arange(len(turned)), turned] = space.origin[turned]
    whole, start, *others = objective(space.knobs(np.concatenate([[point, space.origin], back])))
    losses[turned] = whole - np.array(others)
    small = turned[losses[turned] < least]
    small = small[losses[small].argsort()]
    while len(small) and objective.left:
        rest = point.copy()
        rest[small] = space.origin[small]
        score = objective(space.knobs(rest[None]))[0]
        if score >= max(whole - least * len(small), start):
            return trimmed(objective, space, rest, least)  # what is left may bring less by now
        small = small[: len(small) // 2]  # together they matter: put back those that bring least
    return point, losses
