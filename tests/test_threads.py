"""How many threads a mix may use."""

from __future__ import annotations

import os

import numpy as np
import pytest
from stems import band

from mixrl import MixSettings, Session
from mixrl.audio import read
from mixrl.engines import crew, run
from mixrl.render import SumSource
from mixrl.threads import LIMIT, threads


@pytest.mark.parametrize(("said", "expected"), [("3", 3), ("0", None), ("many", None), ("", None)])
def test_the_environment_may_say_how_many(said, expected, monkeypatch):
    monkeypatch.setenv(LIMIT, said)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert threads() == (expected or cores)


def test_what_is_mixed_does_not_depend_on_it(monkeypatch):
    session = Session.from_arrays(band(2), 44_100)
    mixes = []
    for said in ("1", "7"):
        monkeypatch.setenv(LIMIT, said)
        mixes.append(read(SumSource(session, MixSettings.neutral(session.names))))
    np.testing.assert_array_equal(*mixes)


def test_processes_that_work_side_by_side_share_the_cores_out(monkeypatch):
    monkeypatch.delenv(LIMIT, raising=False)
    with crew("local", 64) as by:
        assert (by.at_once, by.threads) == (64, 1)
    with crew("local", 1) as by:
        assert dict(run(told, {"a": 0}, by)) == {"a": threads()}


def told(task: int) -> int:
    return threads()
