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
    deviations_db,
    heard,
    inside_published_range,
    loudness_by_role,
)
from mixrl.contest import METHODS, ONE_STEP, Contest, runs_of
from mixrl.knobs import COLUMNS, GAIN, TEMPO, to_settings
from mixrl.measures import Array
from mixrl.parallel import each_session
from mixrl.scene import Scene
from mixrl.session import Session
from mixrl.settings import GAIN_RANGE_DB, MixSettings
from mixrl.statistics import ratio_interval

SECONDS = 30
MEANS = "means"  # every role at its mean level in the other songs
REFERENCE = "equal"  # what errors are held against
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Recovery:
    """Who mixes, and from where. contest: methods, policies, budget, and whether mixes are rendered and their sound
    compared. starts: copies of each session, every fader off by up to spread_db either way. names: whether the methods
    know what the stems are called. means: whether role means take part."""

    contest: Contest
    starts: int = 5
    spread_db: float = 12.0
    names: bool = True
    means: bool = True


def recover(
    recovery: Recovery,
    sessions: dict[str, Path],
    jobs: int = 1,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, str]]:
    """Play all starts of all sessions; returns the records of sessions and of results, in order, and by name why some
    failed. A session of fewer than five stems that are heard has a record that says so, and no results."""
    held, failed = each_session(partial(_session, recovery), sessions, jobs, progress)
    about = [one for one, _ in held.values()]
    rows = [row for _, its in held.values() for row in its]
    if recovery.means:
        rows += _role_means(about, recovery.starts)
    return about, rows, failed


def nameless(session: Session) -> Session:
    """The session with stems called track01, track02 and so on, in no folders, in the same order."""
    digits = len(str(len(session.stems)))
    stems = [replace(stem, name=f"track{n:0{max(digits, 2)}d}", group=None) for n, stem in enumerate(session.stems, 1)]
    return replace(session, stems=tuple(stems))


def broken(scene: Scene, faders_db: Array) -> Scene:
    """A scene whose stems were recorded with these gains (N,), dB; its settings are neutral."""
    strips = np.zeros((len(faders_db), COLUMNS))
    strips[:, GAIN], strips[:, TEMPO] = faders_db, 1.0
    return scene.subset(range(len(faders_db)), strips)


def _session(recovery: Recovery, name: str, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One session and what every method made of its starts."""
    from mixrl.agent.material import is_real
    from mixrl.distances import mix_distances
    from mixrl.excerpt import busiest
    from mixrl.rendered import Rendered
    from mixrl.session import load_session

    session = load_session(folder)
    part = busiest(session if recovery.names else nameless(session), SECONDS)
    scene = Scene.of(part)
    human = scene.measures(scene.neutral()).stem_lufs
    counted = heard(human) & scene.facts.audible
    about: dict[str, Any] = {
        "name": name, "real": is_real(folder), "stems": list(session.names), "roles": list(scene.facts.roles),
        "human_lufs": [round(float(level), 3) for level in human], "heard": counted.tolist(),
    }  # fmt: skip
    if counted.sum() < FEWEST:
        return {**about, "skipped": f"{counted.sum()} stems are heard, and balance takes {FEWEST}"}, []
    rendered = Rendered(part, scene) if recovery.contest.render else None
    reference = None if rendered is None else rendered.mix(scene.neutral())
    rows = []
    for start in range(recovery.starts):
        lots = np.random.default_rng([start, *name.encode()])
        faders = lots.uniform(-recovery.spread_db, recovery.spread_db, len(human))
        copy = broken(scene, faders)
        for method, policy, seed, search in runs_of(recovery.contest, copy):
            found = search(recovery.contest.budget)
            settings = to_settings(found.knobs, copy.facts)
            measured = copy.measures(settings)
            apart: dict[str, float] = {}
            if rendered is not None and reference is not None:
                mix = rendered.mix(_on_top(settings, dict(zip(scene.facts.names, faders, strict=True))))
                apart = mix_distances(mix, reference, part.sample_rate)
            levels = measured.stem_lufs
            rows.append({
                "session": name, "start": start, "method": method, "policy": policy, "seed": seed,
                "mae_db": balance_error_db(levels, np.where(counted, human, -np.inf)),
                "score": found.score, "evaluations": found.evaluations, "seconds": found.seconds,
                "role_lu": loudness_by_role(scene.facts.roles, levels, float(measured.integrated_lufs)),
                **apart,
            })  # fmt: skip
    return about, rows


def _on_top(settings: MixSettings, faders_db: Mapping[str, float]) -> MixSettings:
    """Settings of a broken copy, as settings of what it was made from."""
    low, high = GAIN_RANGE_DB
    highest = max(faders_db.values())  # how loud the mix is does not matter
    strips = {
        name: replace(strip, gain_db=min(max(strip.gain_db + faders_db[name] - highest, low), high))
        for name, strip in settings.stems.items()
    }
    return replace(settings, stems=strips)


def _role_means(about: Sequence[Record], starts: int) -> list[dict[str, Any]]:
    """What comes of putting every stem at the mean level of its role in the other songs of its kind, or at that of all
    stems where nobody there has the role."""
    songs = [one for one in about if "skipped" not in one]
    rows = []
    for song in songs:
        others = [one for one in songs if one is not song and one["real"] == song["real"]]
        known: dict[str | None, list[float]] = {}
        for other in others:
            levels = np.array(other["human_lufs"])
            middle = float(np.median(levels[other["heard"]]))
            for role, level, on in zip(other["roles"], levels, other["heard"], strict=True):
                if on:
                    known.setdefault(role, []).append(float(level) - middle)
        if not known:
            continue
        everyone = float(np.mean([level for levels in known.values() for level in levels]))
        levels = np.array([np.mean(known[role]) if role in known else everyone for role in song["roles"]])
        human = np.where(song["heard"], song["human_lufs"], -np.inf)
        error = float(np.abs(deviations_db(levels, human)).mean())
        rows += [
            {"session": song["name"], "start": start, "method": MEANS, "policy": None, "seed": None, "mae_db": error}
            for start in range(starts)
        ]
    return rows


def summary(about: Sequence[Record], rows: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """What the records say, by kind of song ("real", "midi") and method: songs; mae_db, the mean over songs; ratio to
    equal loudness's, its bootstrap interval over songs, and the share of songs on which it is lower; the mean of each
    distance (None where nothing was rendered); inside: the share of measured roles in De Man's range."""
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
                    **{name: _mean(_by_song(its, songs, method, name)) for name in DISTANCES},
                    "inside": _inside([row for row in its if row["method"] == method]),
                }
                for method in methods
            }
    return found


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
