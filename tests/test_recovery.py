"""Balance recovery: starts, records, their summary, and the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from stems import RATE, band, mixrl, write

from mixrl.balance import balance_error_db
from mixrl.contest import contest_of, sessions_of
from mixrl.knobs import neutral_knobs
from mixrl.people import load_prior
from mixrl.recovery import MEANS, Recovery, broken, competition, nameless, recover, summary
from mixrl.regressor import balance_of
from mixrl.scene import Scene
from mixrl.session import Session, load_session
from mixrl.statistics import ratio_interval


def five(seconds=4.0, scale=1.0):
    stems = band(seconds)
    time = np.arange(round(seconds * RATE)) / RATE
    stems["shaker"] = (0.05 * np.random.default_rng(5).standard_normal(len(time)) * (time % 0.25 < 0.05)).astype("f4")
    stems["vocal"] = 10.0 * stems["vocal"]
    stems["keys"] = np.float32(scale) * stems["keys"]
    return stems


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    for name, scale in (("one", 1.0), ("two", 0.5)):
        write(folder / name, five(scale=scale))
    write(folder / "four", {name: audio for name, audio in five().items() if name != "shaker"})
    return folder


@pytest.fixture(scope="module")
def scene():
    return Scene.of(Session.from_arrays(five(), RATE))


def played(place, *methods, names=True, starts=2, render=False, spreads=(12.0,), leave_out=False, songs=None, more=()):
    contest = contest_of([name for name in methods if name != MEANS], [], 60, render=render)
    recovery = Recovery(contest, starts, spreads, names, MEANS in methods, leave_out)
    sessions = sessions_of([place / name for name in songs or ("one", "two", "four")], "test")
    return recover(recovery, sessions, place / "cache", learned=more)


@pytest.fixture(scope="module")
def records(place):
    return played(place, "raw", "equal", "rule", MEANS)


def test_a_broken_copy_has_its_faders_off_and_its_settings_neutral(scene):
    faders = np.array([6.0, -3.0, 0.0, 12.0, -12.0])
    copy = broken(scene, faders)
    before, after = scene.measures(scene.neutral()), copy.measures(copy.neutral())
    assert after.stem_lufs - before.stem_lufs == pytest.approx(faders, abs=0.02)
    assert not neutral_knobs(copy.facts).strips[:, 0].any()
    assert copy.facts.roles == scene.facts.roles


def test_without_names_nothing_tells_what_a_stem_is(place):
    whole = load_session(place / "one")
    session = nameless(whole)
    assert session.names == ("track01", "track02", "track03", "track04", "track05")
    facts = Scene.of(session).facts
    assert set(facts.roles) == {None}
    assert facts.groups == ("music",)
    assert [session.read(ours).tobytes() for ours in session.names] == [whole.read(n).tobytes() for n in whole.names]


def test_every_start_of_every_method_is_on_record(records):
    about, rows, failed = records
    assert not failed
    assert [one["name"] for one in about] == ["one", "two", "four"]
    assert about[2]["skipped"] == "fewer than 5 stems are heard"
    found = {(row["session"], row["start"], row["method"]) for row in rows}
    methods = ("raw", "equal", "rule", MEANS)
    assert found == {(song, start, m) for song in ("one", "two") for start in (0, 1) for m in methods}
    assert len(rows) == len(found)


def test_equal_loudness_is_off_by_as_much_from_any_start(records):
    about, rows, _ = records
    for one in about[:2]:
        human = np.array(one["human_lufs"])
        wanted = balance_error_db(np.zeros(5), human)
        found = [row["mae_db"] for row in rows if row["session"] == one["name"] and row["method"] == "equal"]
        assert found == pytest.approx([wanted] * 2, abs=0.05)


def test_raw_faders_are_off_as_they_were_drawn_and_alike_when_asked_again(place, records):
    _, rows, _ = records
    raw = {(row["session"], row["start"]): row["mae_db"] for row in rows if row["method"] == "raw"}
    assert all(1.0 < error < 12.0 for error in raw.values())
    assert len(set(raw.values())) == 4
    again = played(place, "raw")[1]
    assert {(row["session"], row["start"]): row["mae_db"] for row in again} == raw


def test_role_means_are_those_of_the_other_songs(records):
    about, rows, _ = records
    one, two = (np.array(about[n]["human_lufs"]) for n in (0, 1))
    errors = {row["session"]: row["mae_db"] for row in rows if row["method"] == MEANS}
    assert errors["one"] == pytest.approx(balance_error_db(two, one), abs=1e-3)
    assert errors["one"] == pytest.approx(errors["two"], abs=1e-3)
    assert errors["one"] == pytest.approx(20 * math.log10(2.0) / 5, abs=0.05)  # only the keys differ


def test_levels_are_learned_from_the_other_songs(place):
    """A song alike but for the keys is learned from: what is known of it is right for all other stems."""
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    two = balance_of(Scene.of(load_session(place / "two")), True)
    rows = played(place, "equal", "regressor", starts=1, leave_out=True, songs=["one"], more=40 * [two])[1]
    found = {row["method"]: row["mae_db"] for row in rows}
    assert found["regressor"] < 0.6 * found["equal"]
    shipped = played(place, "regressor", starts=1, songs=["one"], more=40 * [two])[1]
    assert shipped[0]["mae_db"] != found["regressor"]  # nothing is learned unless that is asked for


def test_songs_as_people_left_them_have_a_single_start(place):
    _, rows, _ = played(place, "raw", "expected", spreads=(0.0, 6.0), songs=["one"])
    found = [(row["spread_db"], row["start"]) for row in rows if row["method"] == "raw"]
    assert found == [(0.0, 0), (6.0, 0), (6.0, 1)]
    (left,) = [row for row in rows if row["method"] == "raw" and not row["spread_db"]]
    assert left["mae_db"] == pytest.approx(0.0, abs=1e-6)
    assert left["change_db"] == 0.0


def test_the_competition_is_between_no_change_rules_and_the_mixer():
    def row(song, spread, start, method, error, risk, score):
        keys = ("session", "spread_db", "start", "method", "mae_db", "risk_db", "score")
        return dict(zip(keys, (song, spread, start, method, error, risk, score), strict=True))

    def starts(song, spread, start, *figures):
        methods = ("raw", "rule", "dqn", "mixer")
        return [row(song, spread, start, method, *its) for method, its in zip(methods, figures, strict=True)]

    rows = [
        # the mixer is nearest, and taken for it
        *starts("a", 12.0, 0, (5.0, 4.0, -2.0), (4.0, 5.0, -1.0), (3.2, 3.0, -0.9), (3.0, 3.0, -0.8)),
        # no change is nearest, but the mixer is taken for that
        *starts("a", 12.0, 1, (1.0, 4.0, -2.0), (4.0, 5.0, -1.0), (2.0, 3.0, -0.9), (2.5, 3.0, -0.8)),
        # both are as near, so the score decides; by 0.05 dB no change was nearer
        *starts("a", 0.0, 0, (0.0, 2.0, -2.0), (4.0, 5.0, -1.0), (0.0, 2.0, -0.5), (0.05, 2.05, -0.8)),
    ]
    found = competition([{"name": "a", "real": True}], rows)["real"]
    assert list(found) == ["12", "0"]
    assert found["12"]["nearest"] == found["12"]["strictly"] == found["12"]["always_dqn"] == 0.5
    assert found["12"]["mae_db"] == pytest.approx(2.75)
    assert (found["12"]["away"], found["12"]["improved"]) == (0.5, 1.0)
    assert (found["0"]["nearest"], found["0"]["strictly"]) == (1.0, 0.0)
    assert (found["0"]["away"], found["0"]["improved"]) == (0.0, 0.0)
    assert competition([{"name": "a", "real": True}], [r for r in rows if r["method"] != "rule"]) == {}


def test_the_summary_holds_methods_against_equal_loudness(records):
    about, rows, _ = records
    found = summary(about, rows)
    assert list(found) == ["real"]
    assert list(found["real"]) == ["raw", "equal", "rule", MEANS]
    equal, means = found["real"]["equal"], found["real"][MEANS]
    assert equal["ratio"] == 1.0
    assert equal["interval"] == [1.0, 1.0]
    assert equal["better"] == 0.0
    assert means["songs"] == 2
    assert means["ratio"] == pytest.approx(means["mae_db"] / equal["mae_db"])
    assert means["better"] == 1.0
    assert means["mr_stft"] is equal["mr_stft"] is None
    assert 0.0 <= equal["inside"] <= 1.0
    assert means["inside"] is None


def test_a_rendered_mix_of_the_human_faders_sounds_like_the_humans(place):
    """With the faders taken back, nothing is left between the two; as they are, a lot."""
    off, same = played(place, "raw", starts=1, render=True, spreads=(12.0, 0.0), songs=["one"])[1]
    assert same["mae_db"] == pytest.approx(0.0, abs=1e-3)
    assert same["mr_stft"] < 0.01
    assert same["features"] < 1e-3
    assert off["mr_stft"] > 0.3
    assert off["bark_mid_db"] > 1.0


def test_intervals_of_a_ratio_hold_it_and_narrow_with_more_songs():
    rng = np.random.default_rng(0)
    few, many = (
        (0.8 * theirs + rng.normal(0, 0.3, theirs.shape), theirs)
        for theirs in (rng.uniform(2, 6, 8), rng.uniform(2, 6, 200))
    )
    spans = [ratio_interval(*pair) for pair in (few, many)]
    for (low, high), (ours, theirs) in zip(spans, (few, many), strict=True):
        assert low < ours.mean() / theirs.mean() < high
    assert spans[1][1] - spans[1][0] < spans[0][1] - spans[0][0]
    assert ratio_interval([2.0, 4.0], [4.0, 8.0]) == (0.5, 0.5)


def test_the_command_writes_what_it_shows(place, tmp_path):
    made = tmp_path / "balance.json"
    arguments = ("evaluate", "balance", place / "one", place / "two", place / "four", "--starts", 1)
    options = ("--methods", "equal,means,regressor,dqn", "--spread", "0,12", "--budget", 60, "--json", made)
    code, out, error = mixrl(*arguments, *options)
    assert code == 0
    assert "left out: four: fewer than 5 stems are heard" in error
    found = json.loads(made.read_text())
    assert found["names"] is True
    assert {row["spread_db"] for row in found["results"]} == {0.0, 12.0}
    assert {row["method"] for row in found["results"]} == {"equal", "means", "regressor", "dqn"}
    assert all(row["mr_stft"] >= 0.0 for row in found["results"] if row["method"] != MEANS)
    shown = [line.split() for line in out.splitlines() if line.split()[:1] == ["dqn"]]
    assert len(shown) == 2
    assert shown[1][2] == f"{found['summary']['12']['real']['dqn']['mae_db']:.2f}"
    code, _, error = mixrl(*arguments, *options)
    assert code == 2
    assert "exists already" in error


def test_without_names_role_means_have_nothing_to_go_by(place):
    rows = played(place, "equal", "regressor", MEANS, names=False, starts=1)[1]
    assert {row["method"] for row in rows} == {"equal", "regressor"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "human"], "no method 'human'"),
        (["--methods", ","], "names none"),
        (["--part", "all"], "no part 'all'"),
        (["--spread", "30"], "spread"),
        (["--spread", "much"], "spread"),
    ],
)
def test_bad_usage_is_a_line_and_exit_code_2(place, arguments, message):
    code, _, error = mixrl("evaluate", "balance", place / "one", *arguments)
    assert code == 2
    assert message in error
    assert len(error.splitlines()) == 1


def test_songs_of_too_few_stems_alone_are_refused(place, tmp_path):
    code, _, error = mixrl("evaluate", "balance", place / "four", "--methods", "equal", "--json", tmp_path / "x.json")
    assert code == 2
    assert "four: fewer than 5 stems are heard" in error
    assert not (tmp_path / "x.json").exists()


def test_levels_are_learned_by_a_command(place, tmp_path):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    made = tmp_path / "levels.safetensors"
    code, _, error = mixrl("levels", place / "one", place / "two", place / "four", "-o", made)
    assert code == 0
    assert "learned from 10 stems of 2 songs" in error
    prior = load_prior(made)
    assert prior.made_by["songs"] == "2"
    two = balance_of(Scene.of(load_session(place / "two")), True)
    levels, _ = prior.predict(two.features, two.roles)
    assert np.isfinite(levels).all()
    code, _, error = mixrl("levels", place / "one", place / "two", "-o", made)
    assert (code, "exists already" in error) == (2, True)
    code, _, error = mixrl("levels", place / "one", place / "four", "-o", tmp_path / "other.safetensors")
    assert (code, "two songs or more" in error) == (2, True)
    assert not (tmp_path / "other.safetensors").exists()
