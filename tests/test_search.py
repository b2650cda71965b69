"""The searches: every evaluation counted, none beyond the budget, limits and locks kept, optima found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixrl.agent.policy import NetworkSize, Policy, default_policy
from mixrl.knobs import COMPRESSOR, EQ, GAIN, HIGHPASS, INVERT, NEUTRAL_SHAPE, PAN, TEMPO, neutral_knobs
from mixrl.moves import (
    EQ_LIMITS_DB,
    GAIN_LIMITS_DB,
    GROUP_LIMITS_DB,
    HIGHPASS_HZ,
    KINDS,
    MOVE_COST,
    Layout,
    band_tops,
    legal,
    step_limit,
)
from mixrl.search import (
    GROUP,
    TRIES,
    Objective,
    RandomPolicy,
    Space,
    cma_es,
    follow,
    greedy,
    pattern_search,
    score_at,
    trimmed,
)
from mixrl.settings import EQ_BANDS
from mixrl.state import layout_of

COLUMN_OF = {"gain": GAIN, "pan": PAN, "highpass": HIGHPASS, "compressor": COMPRESSOR, "polarity": INVERT}


class Best:
    """Takes the best one-step gain."""

    use_gains = True

    def act(self, state):
        gains = np.where(state.mask, state.gains, -np.inf)
        gains[layout_of(state).mix_start] = 0.0
        return int(gains.argmax())


class Counting:
    """A scene that counts the mixes it really scores: legal successors, and no mix twice that was one of them."""

    def __init__(self, scene, locked=(), kinds=KINDS):
        self.scene, self.locked, self.kinds = scene, locked, kinds
        self.count = 0
        self.known: list[float] = []

    def __getattr__(self, name):
        return getattr(self.scene, name)

    def scores(self, knobs):
        self.count += len(knobs.strips)
        scores = self.scene.scores(knobs)
        self.known = [*self.known, *scores.tolist()]
        return scores

    def evaluate(self, knobs):
        raise AssertionError("nobody evaluates around the objective")

    measures = evaluate

    def current(self, knobs):
        from mixrl.score import scored

        measures = self.scene.current(knobs)
        if not np.isclose(self.known, float(scored(measures, self.scene.yardstick)), rtol=0, atol=1e-6).any():
            self.count += 1
        return measures

    def deltas(self, knobs):
        from mixrl.score import scored

        actions, after = self.scene.deltas(knobs)
        self._looked(knobs, actions, scored(after, self.scene.yardstick))
        return actions, after

    def successor_scores(self, knobs):
        actions, scores = self.scene.successor_scores(knobs)
        self._looked(knobs, actions, scores)
        return actions, scores

    def _looked(self, knobs, actions, scores):
        allowed = legal(knobs, self.scene.facts, self.locked, self.kinds)[actions]
        self.count += int(allowed.sum())
        self.known = scores[allowed].tolist()


def raw(objective):
    knobs = neutral_knobs(objective.scene.facts)
    objective(knobs[None])
    return objective.best


def place(space, row, column):
    return int(np.flatnonzero((space.rows == row) & (space.columns == column))[0])


def space_of(objective, locked=(), kinds=KINDS):
    return Space.around(raw(objective), objective.scene.facts, locked, kinds)


def by_cma(scene, objective, seed=0, **allowed):
    pytest.importorskip("cma", reason="needs the evaluate extra")
    cma_es(objective, space_of(objective, **allowed), seed)


def indifferent(use_gains=True):
    """A network whose Q-values are the one-step rewards alone."""
    size = NetworkSize(use_gains=use_gains)
    return Policy(size, {name: np.zeros(shape, dtype=np.float32) for name, shape in size.shapes().items()}, {})


METHODS = {
    "random": lambda scene, o, seed=0, **a: follow(RandomPolicy(np.random.default_rng(seed)), scene, o, **a),
    "greedy": lambda scene, o, seed=0, **a: greedy(scene, o, **a),
    "with gains": lambda scene, o, seed=0, **a: follow(Best(), scene, o, **a),
    "several a look": lambda scene, o, seed=0, **a: follow(indifferent(), scene, o, **a),
    "without gains": lambda scene, o, seed=0, **a: follow(default_policy(), scene, o, **a),
    "shortlist": lambda scene, o, seed=0, **a: follow(default_policy(), scene, o, shortlist=5, **a),
    "pattern": lambda scene, o, seed=0, **a: pattern_search(o, space_of(o, **a), seed),
    "cma": by_cma,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


# ---- counting --------------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("budget", [1, 3, 37, 290, 700])
def test_every_evaluation_is_counted_and_none_is_beyond_the_budget(small_scene, method, budget):
    scene = Counting(small_scene)
    objective = Objective(scene, budget)
    method(scene, objective)
    assert objective.evaluations == scene.count
    assert 1 <= objective.evaluations <= budget


@every_method
def test_the_trace_leads_to_the_best_mix(small_scene, method):
    objective = Objective(small_scene, 600)
    method(small_scene, objective)
    found = objective.found()
    evaluations, scores = zip(*found.trace, strict=True)
    assert list(evaluations) == sorted(set(evaluations))
    assert list(scores) == sorted(set(scores))
    assert evaluations[0] == 1
    assert evaluations[-1] <= found.evaluations
    assert scores[-1] == found.score
    assert small_scene.scores(found.knobs[None])[0] == pytest.approx(found.score, abs=1e-6)
    times = [seconds for _, seconds in found.times]
    assert times == sorted(times)
    assert 0.0 < times[-1] <= found.seconds
    assert found.times[-1][0] == found.evaluations
    assert found.seconds_at(10**9) == found.seconds
    assert found.score_at(0) == -np.inf
    assert found.score_at(10**9) == found.score


@every_method
def test_the_same_seed_finds_the_same_mix(small_scene, method):
    found = []
    for _ in range(2):
        objective = Objective(small_scene, 350)
        method(small_scene, objective, seed=3)
        found.append(objective.found())
    assert (found[0].knobs.strips == found[1].knobs.strips).all()
    assert (found[0].knobs.groups == found[1].knobs.groups).all()
    assert found[0].trace == found[1].trace


def test_other_seeds_search_otherwise(small_scene):
    for name in ("random", "pattern", "cma"):
        one, other = Objective(small_scene, 120), Objective(small_scene, 120)
        METHODS[name](small_scene, one, seed=0)
        METHODS[name](small_scene, other, seed=1)
        assert one.found().trace != other.found().trace, name


def test_what_is_beyond_the_budget_is_not_scored(small_scene):
    objective = Objective(Counting(small_scene), 3)
    knobs = neutral_knobs(small_scene.facts)[None]
    mixes = replace(knobs, strips=np.repeat(knobs.strips, 5, 0), groups=np.repeat(knobs.groups, 5, 0))
    scores = objective(mixes)
    assert np.isfinite(scores[:3]).all()
    assert (scores[3:] == -np.inf).all()
    assert (objective.evaluations, objective.scene.count, objective.left) == (3, 3, 0)
    with pytest.raises(ValueError, match="only 0 are left"):
        objective.count(1)


def test_the_best_after_so_many_evaluations():
    trace = ((1, -2.0), (5, -1.0), (9, -0.5))
    assert [score_at(trace, n) for n in (0, 1, 4, 5, 8, 9, 99)] == [-np.inf, -2.0, -2.0, -1.0, -1.0, -0.5, -0.5]


def test_cma_without_a_budget_is_refused(small_scene):
    pytest.importorskip("cma", reason="needs the evaluate extra")
    objective = Objective(small_scene)
    with pytest.raises(ValueError, match="budget"):
        cma_es(objective, space_of(objective))


# ---- what may be touched -------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize(
    ("locked", "kinds"),
    [(("kick", "vocal"), KINDS), (("guitar_room",), ("gain", "eq")), ((), ("pan",)), ((), ("polarity", "compressor"))],
)
def test_locks_kinds_and_limits_are_kept(small_scene, method, locked, kinds):
    facts = small_scene.facts
    scene = Counting(small_scene, locked, kinds)
    objective = Objective(scene, 400)
    method(scene, objective, locked=locked, kinds=kinds)
    assert objective.evaluations == scene.count
    kept_inside(objective.best, facts, locked, kinds)


def kept_inside(knobs, facts, locked, kinds):
    neutral = neutral_knobs(facts)
    for index, name in enumerate(facts.names):
        if name in locked or not facts.audible[index]:
            assert (knobs.strips[index] == neutral.strips[index]).all()
    held = {facts.members[facts.names.index(name)] for name in locked}
    for group, gain in zip(facts.groups, knobs.groups, strict=True):
        assert gain == 0.0 or (group not in held and "gain" in kinds)
    for kind, column in COLUMN_OF.items():
        if kind not in kinds:
            assert (knobs.strips[:, column] == neutral.strips[:, column]).all()
    if "eq" not in kinds:
        assert not knobs.strips[:, EQ:].any()
    strips = knobs.strips
    assert (strips[:, TEMPO] == 1.0).all()
    assert ((strips[:, GAIN] >= GAIN_LIMITS_DB[0]) & (strips[:, GAIN] <= GAIN_LIMITS_DB[1])).all()
    assert (np.abs(strips[:, PAN]) <= 1.0).all()
    assert ((strips[:, EQ:] >= EQ_LIMITS_DB[0]) & (strips[:, EQ:] <= EQ_LIMITS_DB[1])).all()
    assert ((knobs.groups >= GROUP_LIMITS_DB[0]) & (knobs.groups <= GROUP_LIMITS_DB[1])).all()
    assert np.isin(strips[:, HIGHPASS], [hz or 0.0 for hz in HIGHPASS_HZ]).all()
    assert np.isin(strips[:, COMPRESSOR], range(4)).all()
    assert np.isin(strips[:, INVERT], (0, 1)).all()
    noise = band_tops(NEUTRAL_SHAPE) > facts.bandwidth_hz[:, None]
    assert (strips[:, EQ:][noise] <= 0.0).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_point_of_a_space_is_a_mix_within_the_limits_on_the_grid(small_scene, data):
    facts = small_scene.facts
    locked = data.draw(st.sets(st.sampled_from(facts.names)))
    kinds = tuple(data.draw(st.sets(st.sampled_from(KINDS))))
    space = Space.around(neutral_knobs(facts), facts, locked, kinds)
    far = st.floats(-40.0, 40.0, allow_nan=False)
    points = np.array([data.draw(st.lists(far, min_size=len(space.origin), max_size=len(space.origin)))])
    mix = space.knobs(points)[0]
    kept_inside(mix, facts, locked, kinds)
    in_db = mix.strips[:, [GAIN, *range(EQ, EQ + EQ_BANDS)]]
    assert np.allclose(np.round(in_db * 10), in_db * 10, atol=1e-4)
    assert np.allclose(np.round(mix.strips[:, PAN] * 100), mix.strips[:, PAN] * 100, atol=1e-4)
    inside = space.inside(points)
    assert (space.inside(inside) == inside).all()


def test_a_mix_outside_the_limits_or_between_the_steps_may_stay_where_it_is(small_scene):
    facts = small_scene.facts
    knobs = neutral_knobs(facts)
    knobs.strips[0, [GAIN, PAN, HIGHPASS, EQ]] = [-31.234, 0.123, 80.0, 7.77]
    space = Space.around(knobs, facts)
    assert (space.knobs(space.origin[None])[0].strips == knobs.strips).all()
    at = place(space, 0, GAIN)
    up = space.origin.copy()
    up[at] += 0.26
    assert space.knobs(up[None])[0].strips[0, GAIN] == pytest.approx(-31.234 + 0.3)  # counted from where it was
    up[place(space, 0, HIGHPASS)] += 1
    assert space.knobs(up[None])[0].strips[0, HIGHPASS] == 100.0  # 80 Hz stands on the step below it


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_steps_are_kept(small_scene, steps):
    for name in ("random", "greedy", "with gains"):
        objective = Objective(small_scene)
        walk = METHODS[name](small_scene, objective, steps=steps)
        assert len(walk) <= steps
    assert len(walk) == steps


@pytest.mark.parametrize("most", [0, 1, 2, 7])
def test_a_pattern_search_turns_no_more_knobs_than_it_may(small_scene, most):
    objective = Objective(small_scene, 900)
    space = space_of(objective)
    start = objective.score
    point = pattern_search(objective, space, most_changes=most)
    assert (point != space.origin).sum() <= most
    assert (space.knobs(point[None])[0].strips == objective.best.strips).all()
    if most:
        assert objective.score > start + 0.05
    else:
        assert objective.evaluations == 1


def test_a_session_that_may_not_be_touched_is_left_alone(small_scene):
    names = small_scene.facts.names
    for name, method in METHODS.items():
        objective = Objective(small_scene, 100)
        method(small_scene, objective, locked=names)
        assert objective.evaluations == 1, name
        assert (objective.best.strips == neutral_knobs(small_scene.facts).strips).all()


# ---- what is found ---------------------------------------------------------------------------------------------------


class Bowl:
    """A made-up scene: the score falls off with the square of every knob's distance to where it should be."""

    def __init__(self, facts, seed=0):
        self.facts = facts
        space = Space.around(neutral_knobs(facts), facts)
        rng = np.random.default_rng(seed)
        self.target = space.inside(rng.uniform(0.8 * space.low, 0.8 * space.high))
        self.goal = space.knobs(self.target[None])[0]
        self.weight = rng.uniform(0.5, 2.0, (*self.goal.strips.shape,))
        self.weight[:, HIGHPASS] = 1e-3

    def scores(self, knobs):
        strips = (self.weight * (knobs.strips - self.goal.strips) ** 2).sum((-1, -2))
        return -(strips + ((knobs.groups - self.goal.groups) ** 2).sum(-1))


def test_pattern_search_finds_the_optimum_of_a_separable_function(small_scene):
    scene = Bowl(small_scene.facts)
    objective = Objective(scene)  # no budget: it ends by itself
    space = space_of(objective)
    point = pattern_search(objective, space, seed=1)
    assert np.abs(point - scene.target).max() < 1e-6
    assert objective.score == pytest.approx(0.0, abs=1e-9)
    assert objective.evaluations < 40 * len(point)


def test_with_few_changes_pattern_search_turns_the_knobs_that_matter(small_scene):
    scene = Bowl(small_scene.facts)
    scene.weight[:] = 1e-6
    scene.weight[2, EQ + 1] = 100.0
    scene.goal.strips[2, EQ + 1] = -5.0
    objective = Objective(scene)
    space = space_of(objective, kinds=("eq",))
    point = pattern_search(objective, space, most_changes=1)
    (turned,) = np.flatnonzero(point != space.origin)
    assert (space.rows[turned], space.columns[turned]) == (2, EQ + 1)


def test_cma_comes_near_the_optimum_and_restarts(small_scene):
    pytest.importorskip("cma", reason="needs the evaluate extra")
    scene = Bowl(small_scene.facts)
    others = np.setdiff1d(np.arange(scene.goal.strips.shape[1]), (GAIN, PAN))
    scene.weight[:, others] = 0.0
    objective = Objective(scene, 4000)
    space = space_of(objective, kinds=("gain", "pan"))
    start = objective.score
    cma_es(objective, space, 0)
    assert objective.evaluations == 4000  # it has converged long before
    assert objective.score > 0.02 * start


def test_searches_improve_a_real_scene_and_more_than_random_moves(small_scene):
    scores = {}
    for name, method in METHODS.items():
        objective = Objective(small_scene, 900)
        method(small_scene, objective)
        scores[name] = objective.score
    start = small_scene.scores(neutral_knobs(small_scene.facts)[None])[0]
    for name in ("pattern", "cma", "greedy"):
        assert scores[name] > start + 0.2, name
        assert scores[name] > scores["random"], name


@pytest.mark.parametrize("player", [Best(), RandomPolicy(np.random.default_rng(0))], ids=["with gains", "without"])
def test_a_start_that_is_known_is_not_counted_again(small_scene, player):
    begun = Objective(Counting(small_scene), 900)
    space = space_of(begun)
    pattern_search(begun, space, most_changes=3)
    paid, start = begun.evaluations, begun.best
    walk = follow(player, begun.scene, begun, start=start, steps=2)
    assert begun.evaluations == begun.scene.count
    assert begun.evaluations > paid
    changed = (walk[0].knobs.strips != start.strips).any(axis=1).sum()
    assert changed + (walk[0].knobs.groups != start.groups).sum() == 1  # it went on from there
    other = Objective(Counting(small_scene))
    follow(player, other.scene, other, start=start, steps=0)
    assert other.evaluations == other.scene.count == 1
    assert other.score == pytest.approx(float(small_scene.scores(start[None])[0]), abs=1e-6)


@pytest.mark.parametrize("shortlist", [1, 4])
def test_a_shortlist_makes_only_moves_that_gain(small_scene, shortlist):
    objective = Objective(small_scene)
    walk = follow(default_policy(), small_scene, objective, shortlist=shortlist)
    assert walk
    start = small_scene.scores(neutral_knobs(small_scene.facts)[None])[0]
    assert (np.diff([start, *(step.score for step in walk)]) > MOVE_COST - 1e-6).all()
    assert len(walk) * shortlist + TRIES < objective.evaluations <= 1 + TRIES * (len(walk) + 1)


def test_a_long_shortlist_finds_what_greed_finds(small_scene):
    every = follow(indifferent(False), small_scene, Objective(small_scene), shortlist=10_000, steps=3)
    greed = greedy(small_scene, Objective(small_scene), steps=3)
    assert [step.action for step in every] == [step.action for step in greed]


def test_a_move_per_look_is_greedy(small_scene):
    one = follow(indifferent(), small_scene, Objective(small_scene), per_look=1, steps=5)
    greed = greedy(small_scene, Objective(small_scene), steps=5)
    assert [step.action for step in one] == [step.action for step in greed]


def test_several_moves_a_look_each_gain_on_a_knob_of_their_own_and_cost_little(small_scene):
    neutral = neutral_knobs(small_scene.facts)
    price = int(legal(neutral, small_scene.facts).sum()) - 1
    objective, greed = Objective(small_scene, 1 + price + 16), Objective(small_scene)
    layout = Layout(len(small_scene.facts.names), len(small_scene.facts.groups))
    walk = follow(indifferent(), small_scene, objective, per_look=8)  # another look would be beyond the budget
    assert 3 <= len(walk) <= 8
    turned = {(where, index, move.kind, move.band) for where, index, move in (layout.decode(s.action) for s in walk)}
    assert len(turned) == len(walk)
    start = small_scene.scores(neutral[None])[0]
    assert (np.diff([start, *(step.score for step in walk)]) > MOVE_COST).all()
    assert objective.score == walk[-1].score
    first = greedy(small_scene, greed, steps=1)[0]
    assert walk[0].action == first.action
    assert objective.score > greed.score
    longer = follow(indifferent(), small_scene, Objective(small_scene), per_look=8)
    assert [step.action for step in longer[: len(walk)]] == [step.action for step in walk]
    assert len(longer) > len(walk)
    assert len(follow(indifferent(), small_scene, Objective(small_scene), per_look=8, steps=2)) == 2


def test_greedy_goes_on_from_a_start(small_scene):
    objective = Objective(small_scene)
    pattern_search(objective, space_of(objective), most_changes=3)
    before = objective.score
    walk = greedy(small_scene, objective, start=objective.best, steps=3)
    assert len(walk) == 3
    assert objective.score == walk[-1].score > before + 3 * MOVE_COST


def test_greedy_is_what_a_policy_of_the_best_one_step_gain_does(small_scene):
    one, other = Objective(small_scene), Objective(small_scene)
    walk, same = greedy(small_scene, one, steps=20), follow(Best(), small_scene, other, steps=20)
    assert [step.action for step in walk] == [step.action for step in same]
    assert all(np.diff([step.score for step in walk]) > MOVE_COST)
    assert one.score == pytest.approx(other.score, abs=1e-6)
    looks = len(walk) + (len(walk) < 20)
    assert one.evaluations == other.evaluations
    assert one.evaluations > 100 * looks


def test_a_walk_says_where_it_went(small_scene):
    objective = Objective(small_scene)
    walk = METHODS["random"](small_scene, objective, seed=5)
    assert 1 <= len(walk) <= step_limit(len(small_scene.facts.names))
    assert objective.evaluations == 1 + len(walk)
    layout = Layout(len(small_scene.facts.names), len(small_scene.facts.groups))
    for step in walk:
        assert step.action != layout.mix_start
        assert small_scene.scores(step.knobs[None])[0] == pytest.approx(step.score, abs=1e-6)


# ---- trimming --------------------------------------------------------------------------------------------------------


def test_knobs_that_bring_next_to_nothing_are_put_back(small_scene):
    scene = Bowl(small_scene.facts)
    scene.weight[:] = 1e-7
    scene.weight[1, GAIN] = scene.weight[2, EQ] = 1.0
    objective = Objective(scene)
    space = space_of(objective, kinds=("gain", "eq", "pan"))
    space = replace(space, base=objective.best)
    counted = objective.evaluations
    at = [place(space, 1, GAIN), place(space, 2, EQ)]
    point = space.inside(np.where(space.columns == GROUP, space.origin, scene_targets(scene, space)))
    kept, brought = trimmed(objective, space, point)
    assert np.flatnonzero(kept != space.origin).tolist() == sorted(at)
    assert (kept[at] == point[at]).all()
    for knob in at:
        assert brought[knob] == pytest.approx(
            (scene.goal.strips[space.rows[knob], space.columns[knob]]) ** 2, rel=1e-3
        )
    first, then = int((point != space.origin).sum()), len(at)  # it looks again at what is left
    assert objective.evaluations == counted + (first + 3) + (then + 2)


def scene_targets(scene, space):
    own = space.columns != GROUP
    found = space.origin.copy()
    found[own] = scene.goal.strips[space.rows[own], space.columns[own]]
    return found


def test_knobs_that_matter_only_together_stay(small_scene):
    class Either:
        """Good as long as one of two faders is up."""

        facts = small_scene.facts

        def scores(self, knobs):
            return (knobs.strips[:, :2, GAIN].max(axis=1) >= 1.0).astype(float)

    objective = Objective(Either())
    space = space_of(objective, kinds=("gain",))
    point = space.origin.copy()
    point[:2] = 1.0
    kept, _ = trimmed(objective, space, point)
    assert (kept != space.origin).sum() == 1
    assert objective.scene.scores(space.knobs(kept[None]))[0] == 1.0


def test_trimming_keeps_to_the_budget_and_never_falls_below_the_start(small_scene):
    objective = Objective(small_scene, 300)
    space = space_of(objective)
    start = objective.score
    point = pattern_search(objective, space)
    assert objective.left == 0
    same, _ = trimmed(objective, space, point)
    assert (same == point).all()
    fresh = Objective(small_scene, 400)
    kept, brought = trimmed(fresh, space, point)
    assert (kept != space.origin).sum() < (point != space.origin).sum()
    assert small_scene.scores(space.knobs(kept[None]))[0] > start
    assert (brought[kept == space.origin] == 0.0).all()
