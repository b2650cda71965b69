"""Which part of a song is listened to."""

from __future__ import annotations

import numpy as np
import pytest

from mixrl.excerpt import ENOUGH_S, LEAST_S, MAIN_S, MOST_S, active_seconds, busiest, choose, excerpt
from mixrl.session import Session


def test_active_is_relative_to_the_loudest_second_and_silence_is_never_active():
    found = active_seconds([np.array([1.0, 2e-3, 5e-4]), np.array([1e-6, 1e-6, 5e-10]), np.zeros(3)])
    assert found.tolist() == [[True, True, False], [True, True, False], [False, False, False]]


def test_short_sessions_are_taken_whole():
    assert choose(np.ones((3, 26), dtype=bool), 25.4) == ((0, 26),)
    assert choose(np.zeros((3, 5), dtype=bool), 5.0) == ((0, 5),)


def test_the_main_piece_is_where_the_most_stems_play():
    active = np.zeros((4, 200), dtype=bool)
    active[0] = True
    active[1:, 120:145] = True
    ((start, stop),) = choose(active, 200.0, least_s=0)
    assert stop - start == MAIN_S
    assert 120 <= start <= 125


def test_a_stem_that_rests_there_gets_a_piece_of_its_own():
    active = np.ones((3, 200), dtype=bool)
    active[2] = False
    active[2, 180:190] = True
    pieces = choose(active, 200.0, least_s=0)
    assert sum(stop - start for start, stop in pieces) < 30
    heard = sum(int(active[2, start:stop].sum()) for start, stop in pieces)
    assert heard >= ENOUGH_S


def test_what_is_heard_of_few_stems_comes_from_more_than_one_place():
    active = np.ones((2, 200), dtype=bool)
    active[1, 10:40] = False
    pieces = choose(active, 200.0)
    assert sum(stop - start for start, stop in pieces) == LEAST_S
    assert len(pieces) == 3
    assert sum(int(active[1, start:stop].sum()) for start, stop in pieces) == LEAST_S  # where both play


@pytest.mark.parametrize("seed", range(30))
def test_pieces_are_in_order_apart_inside_and_not_too_long(seed):
    rng = np.random.default_rng(seed)
    seconds = int(rng.integers(41, 400))
    active = np.repeat(rng.random((int(rng.integers(1, 25)), seconds // 5 + 1)) < rng.random(), 5, axis=1)[:, :seconds]
    pieces = choose(active, float(seconds))
    flat = [edge for piece in pieces for edge in piece]
    assert flat == sorted(set(flat))
    assert flat[0] >= 0
    assert flat[-1] <= seconds
    total = sum(stop - start for start, stop in pieces)
    assert MAIN_S <= total <= MOST_S
    heard = sum(active[:, start:stop].sum(axis=1) for start, stop in pieces)
    if total <= MOST_S - 5:  # there was room, so everybody was heard
        assert (heard >= np.minimum(active.sum(axis=1), ENOUGH_S)).all()


def test_a_short_session_is_its_own_excerpt():
    session = Session.from_arrays({"a": np.full(8000 * 39, 0.1, np.float32)}, 8000)
    assert excerpt(session) is session


def test_an_excerpt_holds_the_samples_of_its_pieces():
    """A late second stem: the excerpt joins the first's best part with a piece of the second, read in any blocks."""
    rate, seconds = 8000, 100
    rng = np.random.default_rng(0)
    first = rng.uniform(-0.5, 0.5, rate * seconds).astype(np.float32)
    second = np.zeros((2, rate * seconds), np.float32)
    second[:, rate * 80 : rate * 90] = rng.uniform(-0.5, 0.5, (2, rate * 10))
    first[rate * 30 :] = 0.0
    session = Session.from_arrays({"first": first, "second": second}, rate)
    part = excerpt(session, least_s=0)
    pieces = choose(active_seconds([stem.activity for stem in session.stems]), session.duration_s, least_s=0)
    assert len(pieces) == 2
    assert part.names == session.names
    assert part.frames == sum(stop - start for start, stop in pieces) * rate
    for name, audio in (("first", first[None]), ("second", second)):
        joined = np.concatenate([audio[:, a * rate : b * rate] for a, b in pieces], axis=1)
        np.testing.assert_array_equal(part.read(name), joined)
        np.testing.assert_array_equal(np.concatenate(list(part.blocks(name, size=999)), axis=1), joined)
        middle = 17 * rate
        np.testing.assert_array_equal(part.read(name, middle, middle + 9 * rate), joined[:, middle : middle + 9 * rate])
        assert len(part.stem(name).activity) == part.duration_s


def test_the_busiest_seconds_are_those_in_which_most_stems_play():
    rate, stems = 8000, {}
    for name, start, stop in (("a", 0, 90), ("b", 40, 75), ("c", 44, 70), ("d", 0, 10)):
        stems[name] = np.zeros(rate * 90 + 1234, np.float32)
        stems[name][start * rate : stop * rate] = 0.1
    session = Session.from_arrays(stems, rate)
    found = busiest(session, 25)
    assert found.frames == 25 * rate
    for name in "abc":
        assert np.abs(found.read(name)).min() == np.float32(0.1)
    assert not found.read("d").any()
    assert busiest(session, 90).frames == 90 * rate
    assert busiest(session, 91) is session
