"""The moves: numbering, what they do, and when they may be made."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_settings

from mixrl.knobs import COMPRESSOR, EQ, GAIN, HIGHPASS, INVERT, NEUTRAL_SHAPE, PAN, TEMPO, neutral_knobs, to_settings
from mixrl.measures import Facts
from mixrl.moves import (
    EQ_LIMITS_DB,
    GAIN_LIMITS_DB,
    GROUP_LIMITS_DB,
    GROUP_MOVES,
    HIGHPASS_HZ,
    KINDS,
    MIX_MOVES,
    STEM_MOVES,
    Layout,
    Move,
    after_moves,
    apply,
    band_tops,
    legal,
    padded_columns,
    step_limit,
)
from mixrl.settings import COMPRESSORS, MixSettings

NAMES = ("bass", "kick", "oh", "vox")
FACTS = Facts(
    names=NAMES,
    roles=("bass", "kick", "cymbals", "vocal"),
    members=("bass", "drums", "drums", "vocals"),
    activity=np.array([1.0, 0.8, 0.0, 0.5]),
    bandwidth_hz=np.array([2_200.0, 18_000.0, 0.0, 9_000.0]),
    counted=np.ones(31, dtype=bool),
    target_lufs=-14.0,
    ceiling_dbtp=-1.0,
    tempo_target=np.ones(4),
    tempo_weight=np.zeros(4),
)
AWAKE = replace(FACTS, activity=np.full(4, 0.7), bandwidth_hz=np.full(4, 18_000.0))
STRETCHED = replace(AWAKE, tempo_target=np.array([1.0, 1.0, 1.25, 0.8]), tempo_weight=np.array([0.0, 0.0, 1.0, 0.5]))
NEUTRAL = neutral_knobs(FACTS)
LAYOUT = Layout(4, 3)


def number(kind: str, index: int, move: Move) -> int:
    starts = {"stem": (0, STEM_MOVES), "group": (LAYOUT.group_start, GROUP_MOVES), "mix": (LAYOUT.mix_start, MIX_MOVES)}
    start, moves = starts[kind]
    return start + index * len(moves) + moves.index(move)


def legal_kinds(knobs, facts, **options):
    mask = legal(knobs, facts, **options)
    return Counter(
        (kind, index, move.kind) for kind, index, move in (LAYOUT.decode(int(a)) for a in np.flatnonzero(mask))
    )


def strip(**changes):
    """A neutral strip but for some columns, by their names."""
    columns = {"gain": GAIN, "pan": PAN, "invert": INVERT, "highpass": HIGHPASS, "compressor": COMPRESSOR}
    row = np.array(NEUTRAL.strips[0])
    for name, value in changes.items():
        row[columns[name] if name in columns else EQ + int(name.removeprefix("eq"))] = value
    return row


def moved(row, move, bandwidth_hz=20_000.0):
    """The strip after a move of a stem, or None when the move is illegal."""
    after, allowed = after_moves(row[None], np.array([bandwidth_hz]), band_tops(NEUTRAL_SHAPE)[None])
    number = STEM_MOVES.index(move)
    if not allowed[0, number]:
        np.testing.assert_array_equal(after[0, number], row)  # an illegal move's strip is the strip as it is
        return None
    return after[0, number]


def with_strip(knobs, index, row):
    found = knobs.copy()
    found.strips[index] = row
    return found


def with_group(knobs, index, gain_db):
    found = knobs.copy()
    found.groups[index] = gain_db
    return found


def same(one, other):
    return (one.strips == other.strips).all() and (one.groups == other.groups).all() and one.shapes == other.shapes


def within_limits(knobs):
    strips = knobs.strips
    limits = {GAIN: GAIN_LIMITS_DB, PAN: (-1.0, 1.0)} | dict.fromkeys(range(EQ, EQ + 5), EQ_LIMITS_DB)
    for column, (low, high) in limits.items():
        assert (low <= strips[:, column]).all(), column
        assert (strips[:, column] <= high).all(), column
    assert np.isin(strips[:, INVERT], (0.0, 1.0)).all()
    assert np.isin(strips[:, COMPRESSOR], range(len(COMPRESSORS))).all()
    assert (GROUP_LIMITS_DB[0] <= knobs.groups).all()
    assert (knobs.groups <= GROUP_LIMITS_DB[1]).all()


def test_the_numbering_goes_both_ways():
    assert (len(STEM_MOVES), len(GROUP_MOVES), len(MIX_MOVES)) == (35, 6, 4)  # what shipped policies were trained on
    assert LAYOUT.size == 4 * len(STEM_MOVES) + 3 * len(GROUP_MOVES) + len(MIX_MOVES)
    assert [number(*LAYOUT.decode(action)) for action in range(LAYOUT.size)] == list(range(LAYOUT.size))
    assert LAYOUT.decode(LAYOUT.mix_start) == ("mix", 0, Move("stop"))
    for beyond in (-1, LAYOUT.size):
        with pytest.raises(IndexError, match=str(beyond)):
            LAYOUT.decode(beyond)


def test_every_stem_move_has_one_that_undoes_it():
    row = strip(highpass=60.0, compressor=1.0)
    for move in STEM_MOVES:
        back = replace(move, amount=-move.amount)
        assert back == move or back in STEM_MOVES
        np.testing.assert_array_equal(moved(moved(row, move), back), row)


def test_moves_do_what_they_say():
    row = strip()
    for move, wanted in (
        (Move("gain", -6.0), {"gain": -6.0}),
        (Move("pan", 0.3), {"pan": 0.3}),
        (Move("eq", 3.0, 2), {"eq2": 3.0}),
        (Move("highpass", 1.0), {"highpass": 30.0}),
        (Move("compressor", 1.0), {"compressor": 1.0}),
        (Move("polarity"), {"invert": 1.0}),
    ):
        np.testing.assert_array_equal(moved(row, move), strip(**wanted), err_msg=str(move))


def test_limits_hold_and_a_move_that_would_change_nothing_is_illegal():
    every = {f"eq{band}": EQ_LIMITS_DB[1] for band in range(5)}
    top = strip(gain=GAIN_LIMITS_DB[1], pan=1.0, highpass=HIGHPASS_HZ[-1], compressor=3.0, **every)
    bottom = strip(gain=GAIN_LIMITS_DB[0], pan=-1.0, **dict.fromkeys(every, EQ_LIMITS_DB[0]))
    for move in STEM_MOVES:
        if move.kind != "polarity":
            assert (moved(top, move) is None) == (move.amount > 0.0), move
            assert (moved(bottom, move) is None) == (move.amount < 0.0), move
    near = strip(gain=GAIN_LIMITS_DB[1] - 1.0)
    assert moved(near, Move("gain", 6.0))[GAIN] == GAIN_LIMITS_DB[1]
    # what is left before the limit is too little to count as a move
    assert moved(strip(gain=GAIN_LIMITS_DB[1] - 0.2), Move("gain", 6.0)) is None
    assert moved(strip(pan=0.97), Move("pan", 0.1)) is None
    assert moved(strip(eq1=EQ_LIMITS_DB[1] - 0.4), Move("eq", 1.0, 1)) is None


def test_a_value_beyond_the_limits_only_comes_back():
    """From a recipe of one's own: no move goes farther out, and one towards the limits stops at them."""
    far = strip(gain=-40.0, eq2=-20.0)
    assert moved(far, Move("gain", -0.5)) is None
    assert moved(far, Move("gain", 0.5))[GAIN] == GAIN_LIMITS_DB[0]
    assert moved(far, Move("eq", -1.0, 2)) is None
    assert moved(far, Move("eq", 1.0, 2))[EQ + 2] == EQ_LIMITS_DB[0]


def test_a_corner_from_elsewhere_steps_to_a_corner_of_ours():
    row = strip(highpass=80.0)
    assert moved(row, Move("highpass", 1.0))[HIGHPASS] == 100.0
    assert moved(row, Move("highpass", -1.0))[HIGHPASS] == 30.0
    above = strip(highpass=400.0)
    assert moved(above, Move("highpass", 1.0)) is None
    assert moved(above, Move("highpass", -1.0))[HIGHPASS] == 100.0


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_is_what_moves_allow(small_scene, seed):
    """Legal moves change one thing and stay within the limits; illegal ones on a stem are refused."""
    facts = small_scene.facts
    knobs = small_scene.knobs(random_settings(small_scene, seed))
    layout = Layout(len(facts.names), len(facts.groups))
    mask = legal(knobs, facts)
    before = knobs.copy()
    assert mask[layout.mix_start]
    for action in range(layout.size):
        kind, index, move = layout.decode(action)
        if not mask[action]:
            if kind == "stem" and facts.audible[index]:
                with pytest.raises(ValueError, match="illegal"):
                    apply(knobs, facts, action)
            continue
        after = apply(knobs, facts, action)
        assert same(after, knobs) == (move.kind == "stop")
        within_limits(after)
        if kind == "stem":
            assert same(with_strip(knobs, index, after.strips[index]), after)
            assert (after.strips[index] != knobs.strips[index]).sum() == 1
        if kind == "group":
            assert same(with_group(knobs, index, after.groups[index]), after)
    assert same(knobs, before)  # nothing is changed in place


def test_a_long_random_walk_never_leaves_the_limits():
    rng = np.random.default_rng(0)
    knobs = NEUTRAL
    for _ in range(600):
        mask = legal(knobs, STRETCHED)
        mask[LAYOUT.mix_start] = False
        knobs = apply(knobs, STRETCHED, int(rng.choice(np.flatnonzero(mask))))
    within_limits(knobs)
    assert (knobs.strips != NEUTRAL.strips).any(axis=0).all()  # every kind of knob was turned
    settings = to_settings(knobs, STRETCHED)  # raises InputError for values that settings do not take
    assert MixSettings.from_json(settings.to_json()) == settings


def test_moves_on_shapes_of_their_own_keep_them():
    """A boost is judged by where its band really lies."""
    shape = (*NEUTRAL_SHAPE[:4], ("peak", 2000.0, 1.0))
    knobs = replace(NEUTRAL, shapes=(shape, *(NEUTRAL_SHAPE,) * 3))
    boost = number("stem", 0, Move("eq", 1.0, 4))
    assert not legal(NEUTRAL, FACTS)[boost]  # the bass ends at 2.2 kHz
    assert legal(knobs, FACTS)[boost]
    assert apply(knobs, FACTS, boost).shapes == knobs.shapes
    with pytest.raises(ValueError, match="bass"):
        apply(NEUTRAL, FACTS, boost)


def test_a_group_at_its_limit_moves_one_way_only():
    drums = AWAKE.groups.index("drums")
    mask = legal(with_group(NEUTRAL, drums, GROUP_LIMITS_DB[1]), AWAKE)
    for move in GROUP_MOVES:
        assert mask[number("group", drums, move)] == (move.amount < 0.0)


def test_silent_stems_have_no_moves():
    kinds = legal_kinds(NEUTRAL, FACTS)
    assert {index for kind, index, _ in kinds if kind == "stem"} == {0, 1, 3}
    assert not [key for key in kinds if key[0] == "group"]  # drums have one audible member left
    assert [key for key in kinds if key[0] == "mix"] == [("mix", 0, "stop")]


def test_only_groups_of_several_stems_move():
    kinds = legal_kinds(NEUTRAL, AWAKE)
    assert {index for kind, index, _ in kinds if kind == "group"} == {AWAKE.groups.index("drums")}
    alone = replace(AWAKE, members=("band",) * 4)
    layout = Layout(4, 1)
    one = legal(neutral_knobs(alone), alone)
    assert not one[layout.group_start : layout.mix_start].any()


def test_locked_stems_stay_and_so_does_their_group():
    kinds = legal_kinds(NEUTRAL, STRETCHED, locked=("kick",))
    assert {index for kind, index, _ in kinds if kind == "stem"} == {0, 2, 3}
    assert not [key for key in kinds if key[0] == "group"]
    assert ("mix", 0, "tempo") in kinds
    assert ("mix", 0, "tempo") not in legal_kinds(NEUTRAL, STRETCHED, locked=("vox",))
    assert legal_kinds(NEUTRAL, STRETCHED, locked=NAMES) == {("mix", 0, "stop"): 1}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_can_be_left_out(kind):
    only = {key[2] for key in legal_kinds(NEUTRAL, STRETCHED, kinds=(kind,))}
    without = {key[2] for key in legal_kinds(NEUTRAL, STRETCHED, kinds=[k for k in KINDS if k != kind])}
    assert only == {kind, "stop"}
    assert without == {*KINDS, "stop"} - {kind}
    assert {key[2] for key in legal_kinds(NEUTRAL, STRETCHED)} == {*KINDS, "stop"}


def test_bands_above_the_bandwidth_earn_no_boost():
    """Bass up to 2.2 kHz, vocal up to 9 kHz: no raising of what is not there, but cutting and un-cutting."""
    mask = legal(NEUTRAL, FACTS)
    for index, closed in ((0, {3, 4}), (1, set()), (3, set())):
        for move in STEM_MOVES:
            if move.kind == "eq":
                allowed = move.amount < 0.0 or not (index == 0 and move.band in closed)
                assert mask[number("stem", index, move)] == allowed, (index, move)
    for index in (1, 3):  # each by its own bandwidth, not by its neighbour's
        boosted = apply(NEUTRAL, FACTS, number("stem", index, Move("eq", 1.0, 3)))
        assert boosted.strips[index, EQ + 3] == 1.0
    cut = strip(eq4=-3.0)
    assert moved(cut, Move("eq", 3.0, 4), 2200.0)[EQ + 4] == 0.0
    assert moved(cut, Move("eq", 1.0, 4), 2200.0)[EQ + 4] == -2.0
    assert moved(strip(eq4=-1.0), Move("eq", 3.0, 4), 2200.0) is None
    assert moved(strip(), Move("eq", 1.0, 4), 7_900.0) is None
    assert moved(strip(), Move("eq", 1.0, 4), 8_100.0) is not None


def test_tempo_moves_take_all_that_have_a_target_part_of_the_way_and_back():
    assert not any(key[2] == "tempo" for key in legal_kinds(NEUTRAL, AWAKE))
    half, whole, back = (number("mix", 0, Move("tempo", part)) for part in (0.5, 1.0, 0.0))
    mask = legal(NEUTRAL, STRETCHED)
    assert mask[half]
    assert mask[whole]
    assert not mask[back]  # already at its own speed
    there = apply(NEUTRAL, STRETCHED, whole)
    assert there.strips[:, TEMPO].tolist() == [1.0, 1.0, 1.25, 0.8]
    part = apply(NEUTRAL, STRETCHED, half)
    np.testing.assert_allclose(part.strips[:, TEMPO], [1.0, 1.0, 1.25**0.5, 0.8**0.5], atol=1e-5)
    assert same(apply(there, STRETCHED, back), NEUTRAL)
    assert not legal(there, STRETCHED)[whole]


def test_an_illegal_move_is_refused():
    with pytest.raises(ValueError, match="bass"):
        apply(NEUTRAL, FACTS, number("stem", 0, Move("highpass", -1.0)))
    drums = AWAKE.groups.index("drums")
    with pytest.raises(ValueError, match="drums"):
        apply(with_group(NEUTRAL, drums, GROUP_LIMITS_DB[1]), AWAKE, number("group", drums, Move("gain", 2.0)))
    with pytest.raises(ValueError, match="tempo"):
        apply(NEUTRAL, AWAKE, number("mix", 0, Move("tempo", 1.0)))


def test_the_step_limit_grows_with_the_stems():
    assert (step_limit(1), step_limit(16), step_limit(17), step_limit(40)) == (64, 64, 68, 160)


@pytest.mark.parametrize(("stems", "groups"), [(1, 1), (4, 3), (6, 3)])
def test_padding_keeps_every_action_what_it_is(stems, groups):
    own, large = Layout(stems, groups), Layout(6, 3)
    columns = padded_columns(stems, groups, 6, 3)
    assert [large.decode(int(column)) for column in columns] == [own.decode(action) for action in range(own.size)]
    assert (np.diff(columns) > 0).all()
