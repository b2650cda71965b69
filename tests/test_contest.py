"""The contest of search methods: records, standings, the command that holds it."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from stems import band, mixrl, write

from mixrl.agent.policy import NetworkSize, Policy
from mixrl.contest import METHODS, Contest, Contestant, contest_of, hold, sessions_of
from mixrl.errors import InputError
from mixrl.standings import Standings
from mixrl.statistics import iqm

pytest.importorskip("cma", reason="needs the evaluate extra")
BUDGET = 320


def policy(seed: int, use_gains: bool) -> Policy:
    """A network that has learned nothing."""
    size, rng = NetworkSize(width=8, use_gains=use_gains), np.random.default_rng(seed)
    weights = {name: (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in size.shapes().items()}
    return Policy(size, weights, {"command": "none"})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set of two sessions, one of which says it is real, and policies of all kinds."""
    folder = tmp_path_factory.mktemp("contest")
    for number, (name, kind) in enumerate((("song", "real"), ("tune", "midi"))):
        stems = {stem: audio[..., number * 3000 :] for stem, audio in band(3.0).items()}
        if number:
            stems["keys"] = 3.0 * stems["keys"]
            del stems["kick"]
        made = write(folder / "data" / "test" / name, stems)
        (made / "source.json").write_text(json.dumps({"kind": kind}))
    for seed in (0, 1):
        policy(seed, False).save(folder / f"plain{seed}.safetensors")
    policy(2, True).save(folder / "looks.safetensors")
    tabular = pytest.importorskip("mixrl.agent.tabular", reason="a table needs the train extra")
    q = np.random.default_rng(3).normal(0, 0.01, (tabular.CELLS, tabular.MOVES)).astype(np.float32)
    tabular.TablePolicy({"q": q}, {}).save(folder / "table.safetensors")
    return folder


def policies(place):
    return [place / f"{name}.safetensors" for name in ("plain0", "plain1", "looks", "table")]


@pytest.fixture(scope="module")
def held(place):
    contest = contest_of(None, policies(place), BUDGET, seeds=2)
    return contest, hold(contest, sessions_of([place / "data"], "test"), place / "cache")


# ---- records -------------------------------------------------------------------------------------------------------


def test_everybody_plays_every_session_as_often_as_announced(held):
    contest, (sessions, results, failed) = held
    assert failed == {}
    assert [(s["name"], s["real"], s["stems"]) for s in sessions] == [("song", True, 4), ("tune", False, 3)]
    assert all(2.0 < s["seconds"] < 4.0 for s in sessions)
    for session in sessions:
        rows = [row for row in results if row["session"] == session["name"]]
        runs = {method: [row for row in rows if row["method"] == method] for method in {r["method"] for r in rows}}
        assert {method: len(its) for method, its in runs.items()} == {
            "raw": 1, "equal": 1, "rule": 1, "regressor": 1, "expected": 1, "random": 2, "greedy": 1, "pattern": 2,
            "cma": 2, "tabular": 1,
            "dqn": 2, "dqn one-step": 1, "shortlist": 2, "polish": 4, "polish one-step": 2,
            "mixer": 4, "mixer one-step": 2,
        }  # fmt: skip
        assert [(row["policy"][-18:], row["seed"]) for row in runs["polish"]] == [
            (f"plain{p}.safetensors", s) for p in (0, 1) for s in (0, 1)
        ]
        assert all(row["seed"] is None for row in runs["dqn"])
        assert [row["seed"] for row in runs["cma"]] == [0, 1]
        # rendered once for each method
        assert all([row["score_rendered"] is not None for row in its] == [True] + [False] * (len(its) - 1)
                   for its in runs.values())  # fmt: skip
    assert contest.marks == (100, 300, 320)


def test_records_are_consistent(held):
    _, (sessions, results, _) = held
    about = {session["name"]: session for session in sessions}
    for name, session in about.items():
        best = max(row["score"] for row in results if row["session"] == name)
        assert session["best_known"] == max(best, session["score_before"])
    for row in results:
        assert row["score_before"] == about[row["session"]]["score_before"]
        assert row["regret"] == about[row["session"]]["best_known"] - row["score"] >= 0.0
        assert 1 <= row["evaluations"] <= BUDGET
        assert row["trace"][-1][1] == row["score"]
        levelled = row["method"].startswith("mixer")  # whose last step is not for the score
        assert (np.diff(row["trace"][: -1 if levelled else None], axis=0) > 0).all()
        assert list(row["at"]) == ["100", "300", "320"]
        assert row["at"]["320"]["score"] == row["score"]
        assert row["at"]["320"]["seconds"] <= row["seconds"] + 1e-9
        scores = [its["score"] for its in row["at"].values()]
        assert levelled or scores == sorted(scores)
        if row["method"] not in ("equal", "rule", "regressor", "expected"):  # all others looked at the raw mix first
            assert row["score"] >= row["score_before"] - 1e-6
            assert row["trace"][0][0] == 1
    by = {(row["session"], row["method"]): row for row in reversed(results)}  # the first runs
    for name in about:
        assert by[name, "raw"]["evaluations"] == 1
        assert {by[name, fixed]["evaluations"] for fixed in ("equal", "rule", "regressor", "expected")} == {2}
        for method in ("random", "cma", "polish"):
            assert by[name, method]["evaluations"] == BUDGET
        assert by[name, "polish"]["score"] >= by[name, "dqn"]["score"]
        assert by[name, "cma"]["score"] > by[name, "random"]["score"]
        assert by[name, "pattern"]["score_rendered"] > by[name, "raw"]["score_rendered"]


def test_a_contest_can_be_repeated(place, held):
    contest, (_, results, _) = held
    few = Contest(("random", "pattern", "cma", "dqn"), contest.contestants, BUDGET, 1, render=False)
    _, again, _ = hold(few, {"tune": place / "data" / "test" / "tune"}, place / "cache")
    assert len(again) == 6
    for row in again:
        same = next(r for r in results if all(r[k] == row[k] for k in ("session", "method", "policy", "seed")))
        assert row["trace"] == same["trace"]
        assert row["score_rendered"] is None


def test_sessions_may_be_mixed_in_parallel(place, held):
    contest, (sessions, *_) = held
    few = Contest(("raw", "dqn"), contest.contestants[:1], BUDGET, render=False)
    done = []
    wanted = sessions_of([place / "data"], "test")
    about, results, failed = hold(few, {"gone": place / "gone", **wanted}, place / "cache", 2, done.append)
    assert list(failed) == ["gone"]
    assert "gone" in failed["gone"]
    assert sorted(done) == ["gone", "song", "tune"]
    assert [(row["session"], row["method"]) for row in results] == [
        (name, method) for name in ("song", "tune") for method in ("raw", "dqn")
    ]
    for one, other in zip(about, sessions, strict=True):
        assert one["score_before"] == pytest.approx(other["score_before"], abs=1e-5)


def test_the_policy_that_ships_plays_where_no_dqn_is_given(place):
    ours = contest_of(["dqn"], [])
    assert [c.name for c in ours.contestants] == ["shipped"]
    assert ours.contestants[0].kind.startswith("dqn")
    both = contest_of(["dqn", "tabular"], [place / "table.safetensors"])
    assert both.contestants[0].kind == "tabular"
    assert both.contestants[1] == Contestant(ours.contestants[0].kind, None)
    assert contest_of(None, []).methods == tuple(m for m in METHODS if m != "tabular")
    assert contest_of(["cma", "raw"], []).methods == ("raw", "cma")
    assert not contest_of(["cma", "raw"], []).contestants


# ---- standings -----------------------------------------------------------------------------------------------------


def made_up():
    """Two sessions, from -2 and -1; what the standings must say of them can be worked out by hand."""

    def row(session, method, seed, before, trace, evaluations, policy=None):
        marks = (100, 300, 1000, 2500)
        at = {str(m): {"score": max(s for e, s in trace if e <= m), "seconds": m / 1000} for m in marks}
        return {
            "session": session, "method": method, "policy": policy, "seed": seed, "score_before": before,
            "score": trace[-1][1], "evaluations": evaluations, "seconds": evaluations / 1000, "score_rendered": None,
            "trace": trace, "at": at,
        }  # fmt: skip

    sessions = [
        {"name": "a", "real": True, "stems": 4, "seconds": 9.0, "score_before": -2.0, "best_known": 0.0},
        {"name": "b", "real": False, "stems": 4, "seconds": 9.0, "score_before": -1.0, "best_known": -0.5},
    ]
    results = [
        row("a", "dqn", None, -2.0, [[1, -2.0], [30, -0.6]], 40, "p"),
        row("a", "cma", 0, -2.0, [[1, -2.0], [35, -1.2], [200, -0.5], [2000, 0.0]], 2500),
        row("a", "cma", 1, -2.0, [[1, -2.0], [35, -1.0], [250, -0.5], [2000, 0.0]], 2500),
        row("a", "polish", 0, -2.0, [[1, -2.0], [30, -0.6], [300, -0.2], [900, 0.0]], 2500, "p"),
        row("b", "dqn", None, -1.0, [[1, -1.0], [30, -0.9]], 60, "p"),
        row("b", "cma", 0, -1.0, [[1, -1.0], [50, -0.8], [2000, -0.5]], 2500),
        row("b", "cma", 1, -1.0, [[1, -1.0], [55, -0.8], [2000, -0.5]], 2500),
        row("b", "polish", 0, -1.0, [[1, -1.0], [30, -0.9], [290, -0.7], [900, -0.55]], 2500, "p"),
    ]
    return Standings(sessions, results, 2500)


def test_a_summary_by_hand():
    summary = made_up().summary()
    assert list(summary) == ["cma", "dqn", "polish"]
    dqn = summary["dqn"]
    assert dqn["runs"] == 1
    assert dqn["iqm"] == pytest.approx(iqm([-0.6, -0.9]))
    assert dqn["regret_iqm"] == pytest.approx(0.5)
    assert dqn["worst_tenth"] == pytest.approx(0.6)
    assert dqn["improvement"] == pytest.approx((1.4 + 0.1) / 2)
    assert dqn["improvement_share"] == pytest.approx((1.4 / 2 + 0.1 / 0.5) / 2)
    assert (dqn["evaluations"], dqn["seconds"]) == (50.0, 0.05)
    assert dqn["rendered"] is None
    assert dqn["kinds"]["real"] == {"sessions": 1, "iqm": -0.6, "interval": [-0.6, -0.6]}
    assert dqn["kinds"]["midi"]["iqm"] == -0.9
    assert summary["cma"]["at"]["300"]["iqm"] == pytest.approx(iqm([-0.5, -0.5, -0.8, -0.8]))
    assert dqn["interval"] == [pytest.approx(-0.75)] * 2  # one session a kind: always the same two


def test_comparisons_by_hand():
    rows = {(row["method"], row["evaluations"], row["evaluations_against"]): row for row in made_up().comparisons()}
    assert set(rows) == {("dqn", None, None), ("dqn", None, 300), ("polish", 300, 300), ("polish", 300, 2500),
                         ("polish", 1000, 2500)}  # fmt: skip
    own = rows["dqn", None, None]  # against what CMA-ES had after 40 and after 60
    assert (own["won"], own["lost"]) == (0.5, 0.5)
    assert own["difference"] == pytest.approx(iqm([-0.6, -0.9]) - iqm([-1.2, -1.0, -0.8, -0.8]))
    assert rows["dqn", None, 300]["won"] == 0.0
    assert rows["dqn", None, 300]["lost"] == 1.0
    polish = rows["polish", 300, 2500]
    assert polish["share_mean"] == pytest.approx((1.8 / 2.0 + 0.3 / 0.5) / 2)
    assert polish["seconds_ratio"] == pytest.approx(300 / 2500)
    assert rows["polish", 1000, 2500]["share_iqm"] == pytest.approx((1.0 + 0.45 / 0.5) / 2)
    assert rows["polish", 300, 300]["won"] == 1.0
    assert rows["polish", 300, 300]["lost"] == 0.0
    assert rows["polish", 300, 300]["seconds_ratio"] == pytest.approx(1.0)


def test_a_curve_is_what_was_reached():
    at, means, intervals = made_up().curve("dqn")
    assert (at[0], at[-1]) == (1, 60)
    assert means[0] == 0.0
    assert means[-1] == pytest.approx(0.75)
    assert (np.diff(means) >= 0).all()
    assert (intervals[:, 0] <= means + 1e-12).all()
    assert (intervals[:, 1] >= means - 1e-12).all()


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_tables_and_writes_json_and_plot(place, tmp_path):
    code, text, error = mixrl(
        "evaluate", "search", place / "data" / "test" / "song", place / "data" / "test" / "tune", "--methods",
        "dqn,raw,polish,cma,pattern",
        "--policy", place / "plain0.safetensors", "--budget", 300, "--no-render", "--cache", place / "cache",
        "--json", tmp_path / "a.json", "--plot", tmp_path / "a.png",
    )  # fmt: skip
    assert code == 0
    made = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert set(made) == {
        "version", "mixrl", "command", "budget", "rules", "sessions", "results", "failed", "summary", "comparisons",
    }  # fmt: skip
    assert (made["version"], made["budget"]) == (1, 300)
    assert set(made["sessions"][0]) == {"name", "real", "stems", "seconds", "score_before", "best_known"}
    assert set(made["results"][0]) == {
        "session", "method", "policy", "seed", "score_before", "score", "regret", "evaluations", "seconds",
        "score_rendered", "trace", "at",
    }  # fmt: skip
    assert list(made["summary"]) == ["raw", "pattern", "cma", "dqn", "polish"]
    for figures in made["summary"].values():
        assert {"iqm", "interval", "regret_iqm", "worst_tenth", "improvement_share", "rendered", "evaluations",
                "seconds", "at"} <= set(figures)  # fmt: skip
        assert figures["interval"][0] <= figures["iqm"] + 1e-12
        assert figures["iqm"] <= figures["interval"][1] + 1e-12
        assert not math.isnan(figures["improvement_share"])
    assert [(row["method"], row["against"]) for row in made["comparisons"]] == [
        ("dqn", "pattern"), ("dqn", "cma"), ("dqn", "cma"), ("polish", "cma"), ("polish", "cma"),
    ]  # fmt: skip
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for method in made["summary"]:
        assert f"\n {method} " in text
    assert "dqn against cma at 300: better on" in text
    assert "1/2 done with song" in error
    assert "2/2 done with tune" in error
    assert made["failed"] == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{data}", "--methods", "dqn,magic"], "no method 'magic'"),
        (["{data}", "--methods", ","], "names none"),
        (["{data}", "--methods", "tabular"], "tabular needs a table"),
        (["{data}", "--policy", "{none}.safetensors"], "none.safetensors"),
        (["{data}", "--policy", "{data}/test/song/vocal.wav"], "vocal.wav"),
        (["{data}", "--part", "train"], "choose another part"),
        (["{data}", "--part", "all"], "no part 'all'"),
        (["{data}", "--budget", "3"], "--budget"),
        (["{data}", "--seeds", "0"], "--seeds"),
        (["{none}"], "is no folder"),
        (["{data}", "{data}"], "is given twice"),
        (["{data}", "--json", "{none}/a.json"], "make it first"),
        (["{data}", "--json", "{there}"], "exists already"),
        (["{data}", "--json", "{out}/a", "--plot", "{out}/a"], "asked for twice"),
        (["{one}", "--methods", "raw", "--no-render"], "fewer than two stems"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(place, tmp_path, arguments, message):
    (tmp_path / "there.json").write_text("mine")
    write(tmp_path / "one", {"vocal": band(1.0)["vocal"]})
    out = tmp_path / "out"
    out.mkdir()
    names = {"data": place / "data", "none": tmp_path / "none", "there": tmp_path / "there.json", "out": out,
             "one": tmp_path / "one"}  # fmt: skip
    filled = [argument.format(**names) for argument in arguments]
    if not any("--json" in argument for argument in arguments):
        filled += ["--json", str(out / "r.json")]
    code, text, error = mixrl("evaluate", "search", *filled)
    assert code == 2
    assert text == ""
    assert message in error
    assert len([line for line in error.splitlines() if line.startswith("mixrl:")]) == 1
    assert not list(out.iterdir())
    assert (tmp_path / "there.json").read_text() == "mine"


def test_what_is_there_is_overwritten_only_by_force(place, tmp_path):
    (tmp_path / "a.json").write_text("old")
    arguments = ["evaluate", "search", place / "data", "--methods", "raw,rule", "--no-render", "--cache",
                 place / "cache", "--json", tmp_path / "a.json"]  # fmt: skip
    assert mixrl(*arguments)[0] == 2
    assert (tmp_path / "a.json").read_text() == "old"
    assert mixrl(*arguments, "--force")[0] == 0
    assert json.loads((tmp_path / "a.json").read_text())["comparisons"] == []


def test_a_session_that_fails_does_not_stop_the_others(place, tmp_path):
    write(tmp_path / "one", {"vocal": band(1.0)["vocal"]})
    code, text, error = mixrl(
        "evaluate", "search", tmp_path / "one", place / "data" / "test" / "song", "--methods", "raw,rule",
        "--no-render", "--cache", place / "cache", "--json", tmp_path / "a.json",
    )  # fmt: skip
    assert code == 1
    assert "\n rule " in text
    assert "failed: one: " in error
    assert "fewer than two stems" in error
    made = json.loads((tmp_path / "a.json").read_text())
    assert [about["name"] for about in made["sessions"]] == ["song"]
    assert list(made["failed"]) == ["one"]


def test_sessions_are_found_and_told_apart(place, tmp_path):
    data = place / "data"
    assert list(sessions_of([data], "test")) == ["song", "tune"]
    assert list(sessions_of([data / "test" / "song"], "test")) == ["song"]
    other = tmp_path / "mine" / "song"
    shutil.copytree(data / "test" / "song", other)
    assert list(sessions_of([data, other], "test")) == ["test/song", "tune", "mine/song"]
    grouped = tmp_path / "grouped"  # a user's session with a group that is called like a part
    write(grouped, {"test/vocal": band(1.0)["vocal"], "bass": band(1.0)["bass"]})
    assert list(sessions_of([grouped], "test")) == ["grouped"]
    with pytest.raises(InputError, match="given twice"):
        sessions_of([other, other], "test")
