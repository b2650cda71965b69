"""Balance recovery: people's mixes with their faders knocked about, mixed again, and held against what people had.

Each session is one whose stems are at the levels people left them at. Of the seconds in which most stems play, every
start is a copy with random faders, and every method mixes it without knowing what was done. What comes out are plain
records, ready for JSON, and what they say together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mixrl.balance import (
    FEWEST,
    MEASURED_ROLES,
    balance_error_db,
    inside_published_range,
    level_change_db,
    loudness_by_role,
)
from mixrl.competition import winner_of
from mixrl.contest import METHODS, ONE_STEP, Contest, runs_of
from mixrl.facts import nobody_knows
from mixrl.knobs import COLUMNS, GAIN, TEMPO, to_settings
from mixrl.measures import Array, Measures
from mixrl.parallel import each_session
from mixrl.people import LevelPrior, balance_risk, informed
from mixrl.regressor import Balance, balance_of, learn
from mixrl.role_learning import Labelled
from mixrl.role_learning import learn as learn_roles
from mixrl.scene import Scene
from mixrl.session import Session
from mixrl.settings import GAIN_RANGE_DB, MixSettings
from mixrl.sound_roles import RoleClassifier, default_classifier, guessed
from mixrl.statistics import ratio_interval

SECONDS = 30
MEANS = "means"  # role means of the other songs, which search nothing
REFERENCE = "equal"  # what errors are held against
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Recovery:
    """Who mixes, and from where. contest: methods, policies, budget, and whether mixes are rendered and their sound
    compared. starts: copies of each session for each of spreads_db, with every fader off by up to that either way (a
    single copy for 0). names: whether the methods know what the stems are called. means: whether role means take part,
    if there are names. leave_out: whether what people would do with a song, and what its unnamed stems are, is learned
    from the others, and not what ships."""

    contest: Contest
    starts: int = 5
    spreads_db: tuple[float, ...] = (12.0,)
    names: bool = True
    means: bool = True
    leave_out: bool = False


def recover(
    recovery: Recovery,
    sessions: dict[str, Path],
    cache: Path,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda name: None,
    learned: Sequence[Balance] = (),
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, str]]:
    """Play all starts of all sessions; returns the records of sessions and of results, in order, and by name why some
    failed. A session of fewer than five stems that are heard has a record that says so, and no results.

    cache: folder that remembers sessions listened to. progress: called twice with the name of each session: once it is
    listened to, and once it is played or has failed. learned: more songs to learn from; they must be none of these.
    """
    known, failed = each_session(partial(_listened, cache), sessions, jobs, progress)
    songs = {name: song for name, song in known.items() if song is not None}
    others = {name: [*(song for other, song in songs.items() if other != name), *learned] for name in songs}
    priors = {
        name: learn(others[name]) if recovery.leave_out and len(others[name]) > 1 else None for name in songs
    }
    ears = {name: _classifier(others[name]) if recovery.leave_out else default_classifier() for name in songs}
    held, also_failed = each_session(
        partial(_session, recovery, cache, songs, priors, ears), {name: sessions[name] for name in known}, jobs,
        progress,
    )  # fmt: skip
    about = [one for one, _ in held.values()]
    rows = [row for _, its in held.values() for row in its]
    if recovery.means and recovery.names:  # which is all that they go by
        for name, song in songs.items():
            if name in held and others[name]:
                human = np.where(song.heard, song.human_lufs, -np.inf)
                error = balance_error_db(_role_means(song, others[name]), human)
                rows += [
                    {**start, "session": name, "method": MEANS, "policy": None, "seed": None, "mae_db": error}
                    for start in _starts(recovery)  # levels do not matter to them
                ]
    return about, rows, failed | also_failed


def _starts(recovery: Recovery) -> list[dict[str, float]]:
    """Spread and number of every start of a session."""
    return [
        {"spread_db": spread, "start": start}
        for spread in recovery.spreads_db
        for start in range(recovery.starts if spread else 1)
    ]


def _classifier(songs: Sequence[Balance]) -> RoleClassifier | None:
    """What tells roles by sound as these songs teach it; None where they are too few."""
    try:
        return learn_roles([Labelled(("",) * len(s.roles), s.roles, s.features, s.heard, s.real) for s in songs])
    except ValueError:
        return None


def _listened(cache: Path, name: str, folder: Path) -> Balance | None:
    from mixrl.agent.material import busiest_scene, is_real

    return balance_of(busiest_scene(folder, SECONDS, cache), is_real(folder))


def nameless(session: Session) -> Session:
    """The session with stems called track01, track02 and so on, in no folders, in the same order."""
    digits = len(str(len(session.stems)))
    stems = [
        replace(stem, name=f"track{n:0{max(digits, 2)}d}", group=None, role=None)
        for n, stem in enumerate(session.stems, 1)
    ]
    return replace(session, stems=tuple(stems))


def broken(scene: Scene, faders_db: Array) -> Scene:
    """A scene whose stems were recorded with these gains (N,), dB; its settings are neutral."""
    strips = np.zeros((len(faders_db), COLUMNS))
    strips[:, GAIN], strips[:, TEMPO] = faders_db, 1.0
    return scene.subset(range(len(faders_db)), strips)


def _session(
    recovery: Recovery,
    cache: Path,
    songs: Mapping[str, Balance],
    priors: Mapping[str, LevelPrior | None],
    ears: Mapping[str, RoleClassifier | None],
    name: str,
    folder: Path,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One session, and what every method made of its starts."""
    from mixrl.agent.material import busiest_scene, is_real
    from mixrl.distances import mix_distances
    from mixrl.excerpt import busiest
    from mixrl.rendered import Rendered
    from mixrl.session import load_session

    session = load_session(folder)
    about: dict[str, Any] = {"name": name, "real": is_real(folder), "stems": list(session.names)}
    if name not in songs:
        return {**about, "skipped": f"fewer than {FEWEST} stems are heard"}, []
    song = songs[name]
    scene = busiest_scene(folder, SECONDS, cache)
    if not recovery.names:
        session = nameless(session)
        scene = scene.with_facts(nobody_knows(scene.facts))
    human = np.where(song.heard, song.human_lufs, -np.inf)
    about |= {"roles": list(song.roles), "human_lufs": [round(float(level), 3) for level in song.human_lufs]}
    about |= {"heard": song.heard.tolist()}
    part = busiest(session, SECONDS)
    rendered = Rendered(part, scene) if recovery.contest.render else None
    reference = None if rendered is None else rendered.mix(scene.neutral())
    rows: list[dict[str, Any]] = []
    for start in _starts(recovery):
        spread = start["spread_db"]
        # the same lots for every spread: the same copy, damaged more or less
        faders = spread * np.random.default_rng([int(start["start"]), *name.encode()]).uniform(-1.0, 1.0, len(human))
        copy, classifier = broken(scene, faders), ears[name]
        copy = informed(copy if classifier is None else guessed(copy, classifier), priors[name])
        for method, policy, seed, search in runs_of(recovery.contest, copy):
            found = search(recovery.contest.budget)
            settings = to_settings(found.knobs, copy.facts)
            measured = copy.measures(settings)
            apart: dict[str, float] = {}
            if rendered is not None and reference is not None:
                mix = rendered.mix(_on_top(settings, dict(zip(scene.facts.names, faders, strict=True))))
                apart = mix_distances(mix, reference, part.sample_rate)
            rows.append({
                "session": name, **start, "method": method, "policy": policy, "seed": seed,
                "mae_db": balance_error_db(measured.stem_lufs, human),
                "risk_db": balance_risk(copy.facts, measured.stem_lufs),
                "score": found.score, "evaluations": found.evaluations, "seconds": found.seconds,
                **_of_levels(copy, measured, song),
                **apart,
            })  # fmt: skip
    return about, rows


def _of_levels(copy: Scene, measured: Measures, song: Balance) -> dict[str, Any]:
    """What is said of a mix's levels besides their error: how far those of heard stems were moved, and loudness by
    role."""
    before = copy.measures(copy.neutral()).stem_lufs
    return {
        "change_db": level_change_db(measured.stem_lufs, before, song.heard),
        "role_lu": loudness_by_role(song.roles, measured.stem_lufs, float(measured.integrated_lufs)),
    }


def _on_top(settings: MixSettings, faders_db: Mapping[str, float]) -> MixSettings:
    """Settings of a broken copy, as settings of what it was made from."""
    low, high = GAIN_RANGE_DB
    highest = max(faders_db.values())  # how loud the mix is does not matter
    strips = {
        name: replace(strip, gain_db=min(max(strip.gain_db + faders_db[name] - highest, low), high))
        for name, strip in settings.stems.items()
    }
    return replace(settings, stems=strips)


def _role_means(song: Balance, others: Sequence[Balance]) -> Array:
    """(N,) the mean level of each stem's role in the other songs of its kind, or that of all stems where nobody there
    has the role; LU against the median of a session."""
    alike = [other for other in others if other.real == song.real] or others
    known: dict[str | None, list[float]] = {}
    for other in alike:
        middle = float(np.median(other.human_lufs[other.heard]))
        for index in np.flatnonzero(other.heard):
            known.setdefault(other.roles[index], []).append(float(other.human_lufs[index]) - middle)
    everyone = float(np.mean([level for levels in known.values() for level in levels]))
    return np.array([np.mean(known[role]) if role in known else everyone for role in song.roles])


def summary(about: Sequence[Record], rows: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """What the records of one spread say, by kind of song ("real", "midi") and method: songs; mae_db, the mean over
    songs; ratio to equal loudness's, its bootstrap interval over songs, and the share of songs on which it is lower;
    the mean of each distance (None where nothing was rendered); change_db: mean change of the levels; inside: the share
    of measured roles in De Man's range."""
    found: dict[str, dict[str, Any]] = {}
    order = [method + suffix for method in (*METHODS, MEANS) for suffix in ("", ONE_STEP)]
    for kind, real in (("real", True), ("midi", False)):
        songs = [one["name"] for one in about if one["real"] == real and "skipped" not in one]
        its = [row for row in rows if row["session"] in songs]
        methods = sorted({row["method"] for row in its}, key=order.index)
        errors = {method: _by_song(its, songs, method, "mae_db") for method in methods}
        if methods:
            found[kind] = {
                method: {
                    "songs": int(np.isfinite(errors[method]).sum()),
                    "mae_db": float(np.nanmean(errors[method])),
                    **_against(errors[method], errors.get(REFERENCE)),
                    **{name: _mean(_by_song(its, songs, method, name)) for name in ("change_db", *DISTANCES)},
                    "inside": _inside([row for row in its if row["method"] == method]),
                }
                for method in methods
            }
    return found


CANDIDATES = ("raw", "rule", "mixer")  # what competes in `mixrl mix`


def competition(about: Sequence[Record], rows: Sequence[Record]) -> dict[str, dict[str, dict[str, float]]]:
    """What the competition of `mixrl mix` makes of the starts, by kind of song and spread: starts; mae_db of the mix
    that wins; nearest: how often it is the nearest to people's balance, or within ``SAME_DB`` of that, and strictly:
    without that; always_dqn, always_dqn_strictly: the same of always taking the DQN's mix; away: how often polish and
    what follows on it move the DQN's mix away from people's by more than ``SAME_DB``, and improved: how often they
    improve its score. Empty without all of ``CANDIDATES`` and "dqn" among the methods."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    starts: dict[tuple[str, float, float], dict[str, Record]] = {}
    for row in rows:
        starts.setdefault((row["session"], row["spread_db"], row["start"]), {}).setdefault(row["method"], row)
    for kind, real in (("real", True), ("midi", False)):
        songs = {one["name"] for one in about if one["real"] == real and "skipped" not in one}
        for spread in dict.fromkeys(spread for _, spread, _ in starts):
            its = [by for (song, off, _), by in starts.items() if song in songs and off == spread]
            its = [by for by in its if {*CANDIDATES, "dqn"} <= by.keys()]
            if its:
                found.setdefault(kind, {})[f"{spread:g}"] = _contest_of(its)
    return found


SAME_DB = 0.1  # nobody hears such a difference


def _contest_of(starts: Sequence[Mapping[str, Record]]) -> dict[str, float]:
    errors = np.array([[by[name]["mae_db"] for name in CANDIDATES] for by in starts])
    won = [winner_of(*([by[name][what] for name in CANDIDATES] for what in ("risk_db", "score"))) for by in starts]
    taken, best = errors[np.arange(len(starts)), won], errors.min(axis=1)
    always = errors[:, CANDIDATES.index("mixer")]
    before = [(by["dqn"]["mae_db"], by["dqn"]["score"]) for by in starts]
    after = [(by["mixer"]["mae_db"], by["mixer"]["score"]) for by in starts]
    return {
        "starts": float(len(starts)),
        "mae_db": float(taken.mean()),
        "nearest": float((taken <= best + SAME_DB).mean()),
        "strictly": float((taken <= best).mean()),
        "always_dqn": float((always <= best + SAME_DB).mean()),
        "always_dqn_strictly": float((always <= best).mean()),
        "away": float(np.mean([b[0] > a[0] + SAME_DB for a, b in zip(before, after, strict=True)])),
        "improved": float(np.mean([b[1] > a[1] for a, b in zip(before, after, strict=True)])),
    }


DISTANCES = ("mr_stft", "crest_db", "width", "imbalance", "bark_mid_db", "bark_side_db", "features")


def _by_song(rows: Sequence[Record], songs: Sequence[str], method: str, what: str) -> Array:
    """(songs,) mean of one figure of a method on each song; NaN where there is none."""
    values: dict[str, list[float]] = {song: [] for song in songs}
    for row in rows:
        if row["method"] == method and what in row:
            values[row["session"]].append(row[what])
    return np.array([np.mean(its) if its else np.nan for its in values.values()])


def _against(errors: Array, equal: Array | None) -> dict[str, Any]:
    if equal is None:
        return {"ratio": None, "interval": None, "better": None}
    both = np.isfinite(errors) & np.isfinite(equal)
    ours, theirs = errors[both], equal[both]
    return {
        "ratio": float(ours.mean() / theirs.mean()),
        "interval": list(ratio_interval(ours, theirs)),
        "better": float((ours < theirs).mean()),
    }


def _mean(values: Array) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _inside(rows: Sequence[Record]) -> float | None:
    """The share of the roles that De Man et al. measured that lie in their range."""
    held = [
        inside_published_range(role, row["role_lu"][role])
        for row in rows
        for role in MEASURED_ROLES
        if role in row.get("role_lu", {})
    ]
    return float(np.mean(held)) if held else None
