"""Interquartile means and their bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from mixrl.statistics import iqm, iqm_interval, worst_tenth


@given(st.lists(st.floats(-100.0, 100.0), min_size=1, max_size=40))
def test_the_iqm_is_scipys_trimmed_mean(values):
    assert float(iqm(values)) == pytest.approx(trim_mean(values, 0.25), abs=1e-9)


def test_the_iqm_works_on_the_last_axis_and_forgets_outliers():
    values = np.array([[1.0, 2.0, 3.0, 4.0], [-1e9, 2.0, 3.0, 1e9]])
    assert iqm(values).tolist() == [2.5, 2.5]


def test_the_worst_tenth():
    assert worst_tenth(np.arange(20.0)) == 0.5
    assert worst_tenth([[3.0, 1.0], [2.0, 4.0]]) == 1.0  # one value at the least


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        sessions = rng.normal(2.0, 1.0, (40, 1))  # the iqm of a symmetric distribution is its mean
        low, high = iqm_interval(sessions, draws=300, seed=trial)
        hits += low <= 2.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_an_interval_shrinks_with_more_sessions_and_has_its_iqm_inside():
    rng = np.random.default_rng(1)
    widths = []
    for count in (20, 320):
        values = rng.normal(size=(count, 3)) + rng.normal(size=(count, 1))
        low, high = iqm_interval(values)
        assert low < float(iqm(values.ravel())) < high
        widths.append(high - low)
    assert widths[1] < 0.4 * widths[0]


def test_sessions_are_drawn_again_within_their_strata():
    values = np.concatenate([np.zeros((5, 2)), np.ones((5, 2))])
    assert iqm_interval(values, ["real"] * 5 + ["midi"] * 5) == (0.5, 0.5)  # always five of each
    low, high = iqm_interval(values)
    assert low < 0.5 < high


def test_a_difference_is_taken_on_the_same_sessions():
    rng = np.random.default_rng(2)
    hard = rng.normal(0.0, 10.0, (30, 1))
    ours, theirs = hard + 0.5 + rng.normal(0, 0.01, (30, 4)), hard + rng.normal(0, 0.01, (30, 2))
    low, high = iqm_interval(ours, other=theirs)
    assert 0.45 < low < 0.5 < high < 0.55
    assert iqm_interval(ours, other=theirs) == (low, high)
    assert iqm_interval(ours, other=theirs, seed=1) != (low, high)


def test_one_session_and_one_seed_have_an_interval_of_no_width():
    assert iqm_interval(np.array([[3.0]])) == (3.0, 3.0)
