"""The moves: numbering, what they do, and when they may be made."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_settings

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
    apply,
    legal,
    moved,
    step_limit,
)
from mixrl.settings import COMPRESSORS, MixSettings, StripSettings

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
NEUTRAL = MixSettings.neutral(NAMES, dict(zip(NAMES, FACTS.members, strict=True)))
LAYOUT = Layout(4, 3)


def number(kind: str, index: int, move: Move) -> int:
    starts = {"stem": (0, STEM_MOVES), "group": (LAYOUT.group_start, GROUP_MOVES), "mix": (LAYOUT.mix_start, MIX_MOVES)}
    start, moves = starts[kind]
    return start + index * len(moves) + moves.index(move)


def legal_kinds(settings, facts, **options):
    mask = legal(settings, facts, **options)
    return Counter(
        (kind, index, move.kind) for kind, index, move in (LAYOUT.decode(int(a)) for a in np.flatnonzero(mask))
    )


def test_the_numbering_goes_both_ways():
    assert LAYOUT.size == 4 * len(STEM_MOVES) + 3 * len(GROUP_MOVES) + len(MIX_MOVES)
    assert [number(*LAYOUT.decode(action)) for action in range(LAYOUT.size)] == list(range(LAYOUT.size))
    assert LAYOUT.decode(LAYOUT.mix_start) == ("mix", 0, Move("stop"))
    for beyond in (-1, LAYOUT.size):
        with pytest.raises(IndexError, match=str(beyond)):
            LAYOUT.decode(beyond)


def test_every_stem_move_has_one_that_undoes_it():
    strip = replace(StripSettings(), highpass_hz=60.0, compressor="gentle")
    for move in STEM_MOVES:
        back = replace(move, amount=-move.amount)
        assert back == move or back in STEM_MOVES
        assert moved(moved(strip, move), back) == strip


def test_moves_do_what_they_say():
    strip = StripSettings()
    assert moved(strip, Move("gain", -6.0)) == replace(strip, gain_db=-6.0)
    assert moved(strip, Move("pan", 0.3)) == replace(strip, pan=0.3)
    assert moved(strip, Move("eq", 3.0, 2)) == strip.with_band(2, gain_db=3.0)
    assert moved(strip, Move("highpass", 1.0)) == replace(strip, highpass_hz=30.0)
    assert moved(strip, Move("compressor", 1.0)) == replace(strip, compressor="gentle")
    assert moved(strip, Move("polarity")) == replace(strip, invert=True)
    with pytest.raises(ValueError, match="stop"):
        moved(strip, Move("stop"))


def test_limits_hold_and_a_move_that_would_change_nothing_is_illegal():
    top = replace(StripSettings(), gain_db=GAIN_LIMITS_DB[1], pan=1.0, highpass_hz=HIGHPASS_HZ[-1], compressor="firm")
    bottom = replace(StripSettings(), gain_db=GAIN_LIMITS_DB[0], pan=-1.0)
    for band in range(5):
        top, bottom = top.with_band(band, gain_db=EQ_LIMITS_DB[1]), bottom.with_band(band, gain_db=EQ_LIMITS_DB[0])
    for move in STEM_MOVES:
        if move.kind != "polarity":
            assert (moved(top, move) is None) == (move.amount > 0.0), move
            assert (moved(bottom, move) is None) == (move.amount < 0.0), move
    near = replace(StripSettings(), gain_db=GAIN_LIMITS_DB[1] - 1.0)
    assert moved(near, Move("gain", 6.0)).gain_db == GAIN_LIMITS_DB[1]


def test_a_corner_from_elsewhere_steps_to_a_corner_of_ours():
    strip = replace(StripSettings(), highpass_hz=80.0)
    assert moved(strip, Move("highpass", 1.0)).highpass_hz == 100.0
    assert moved(strip, Move("highpass", -1.0)).highpass_hz == 30.0


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_is_what_moves_allow(small_scene, seed):
    """Legal moves change the settings and stay within the limits; illegal ones on a stem are refused."""
    facts = small_scene.facts
    settings = random_settings(small_scene, seed)
    layout = Layout(len(facts.names), len(facts.groups))
    mask = legal(settings, facts)
    assert mask[layout.mix_start]
    for action in range(layout.size):
        kind, index, move = layout.decode(action)
        if not mask[action]:
            if kind == "stem" and facts.audible[index]:
                with pytest.raises(ValueError, match="illegal"):
                    apply(settings, facts, action)
            continue
        after = apply(settings, facts, action)
        assert (after == settings) == (move.kind == "stop")
        if kind == "stem":
            strip = after.strip(facts.names[index])
            assert settings.with_strip(facts.names[index], strip) == after
            assert GAIN_LIMITS_DB[0] <= strip.gain_db <= GAIN_LIMITS_DB[1]
            assert all(EQ_LIMITS_DB[0] <= band.gain_db <= EQ_LIMITS_DB[1] for band in strip.eq)
            assert strip.compressor in COMPRESSORS
        if kind == "group":
            gain = after.groups[facts.groups[index]]
            assert settings.with_group(facts.groups[index], gain) == after
            assert GROUP_LIMITS_DB[0] <= gain <= GROUP_LIMITS_DB[1]


def test_a_long_random_walk_never_leaves_the_limits():
    rng = np.random.default_rng(0)
    settings = NEUTRAL
    for _ in range(600):
        mask = legal(settings, STRETCHED)
        mask[LAYOUT.mix_start] = False
        settings = apply(settings, STRETCHED, int(rng.choice(np.flatnonzero(mask))))
    assert MixSettings.from_json(settings.to_json()) == settings
    for strip in settings.stems.values():
        assert GAIN_LIMITS_DB[0] <= strip.gain_db <= GAIN_LIMITS_DB[1]
        assert all(EQ_LIMITS_DB[0] <= band.gain_db <= EQ_LIMITS_DB[1] for band in strip.eq)
    assert all(GROUP_LIMITS_DB[0] <= gain <= GROUP_LIMITS_DB[1] for gain in settings.groups.values())


def test_a_group_at_its_limit_moves_one_way_only():
    mask = legal(NEUTRAL.with_group("drums", GROUP_LIMITS_DB[1]), AWAKE)
    drums = AWAKE.groups.index("drums")
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
    one = legal(MixSettings.neutral(NAMES, dict.fromkeys(NAMES, "band")), alone)
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
    cut = StripSettings().with_band(4, gain_db=-3.0)
    assert moved(cut, Move("eq", 3.0, 4), 2200.0).eq[4].gain_db == 0.0
    assert moved(cut, Move("eq", 1.0, 4), 2200.0).eq[4].gain_db == -2.0
    half = StripSettings().with_band(4, gain_db=-1.0)
    assert moved(half, Move("eq", 3.0, 4), 2200.0) is None
    assert moved(StripSettings(), Move("eq", 1.0, 4), 7_900.0) is None
    assert moved(StripSettings(), Move("eq", 1.0, 4), 8_100.0) is not None


def test_tempo_moves_take_all_that_have_a_target_part_of_the_way_and_back():
    assert not any(key[2] == "tempo" for key in legal_kinds(NEUTRAL, AWAKE))
    half, whole, back = (number("mix", 0, Move("tempo", part)) for part in (0.5, 1.0, 0.0))
    mask = legal(NEUTRAL, STRETCHED)
    assert mask[half]
    assert mask[whole]
    assert not mask[back]  # already at its own speed
    there = apply(NEUTRAL, STRETCHED, whole)
    assert [there.strip(n).tempo_ratio for n in NAMES] == [1.0, 1.0, 1.25, 0.8]
    part = apply(NEUTRAL, STRETCHED, half)
    assert [part.strip(n).tempo_ratio for n in NAMES] == pytest.approx([1.0, 1.0, 1.25**0.5, 0.8**0.5], abs=1e-5)
    assert apply(there, STRETCHED, back) == NEUTRAL
    assert not legal(there, STRETCHED)[whole]


def test_an_illegal_move_is_refused():
    with pytest.raises(ValueError, match="bass"):
        apply(NEUTRAL, FACTS, number("stem", 0, Move("highpass", -1.0)))
    full = NEUTRAL.with_group("drums", GROUP_LIMITS_DB[1])
    with pytest.raises(ValueError, match="drums"):
        apply(full, AWAKE, number("group", AWAKE.groups.index("drums"), Move("gain", 2.0)))
    with pytest.raises(ValueError, match="tempo"):
        apply(NEUTRAL, AWAKE, number("mix", 0, Move("tempo", 1.0)))


def test_the_step_limit_grows_with_the_stems():
    assert (step_limit(1), step_limit(16), step_limit(17), step_limit(40)) == (64, 64, 68, 160)
