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
    heard,
    inside_published_range,
    loudness_by_role,
)
from mixrl.contest import METHODS, ONE_STEP, Contest, runs_of
from mixrl.knobs import COLUMNS, GAIN, TEMPO, to_settings
from mixrl.measures import Array
from mixrl.parallel import each_session
from mixrl.regressor import Balance, fit, predict
from mixrl.scene import Scene
from mixrl.session import Session
from mixrl.settings import GAIN_RANGE_DB, MixSettings
from mixrl.statistics import ratio_interval

SECONDS = 30
MEANS, REGRESSOR = "means", "regressor"  # role means of the other songs; trees that learned from them
RIVALS = (MEANS, REGRESSOR)  # which learn from people's levels and search nothing
REFERENCE = "equal"  # what errors are held against
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Recovery:
    """Who mixes, and from where. contest: methods, policies, budget, and whether mixes are rendered and their sound
    compared. starts: copies of each session, every fader off by up to spread_db either way. names: whether the methods
    know what the stems are called. rivals: which of ``RIVALS`` take part; they learn from the other songs of the same
    evaluation."""

    contest: Contest
    starts: int = 5
    spread_db: float = 12.0
    names: bool = True
    rivals: tuple[str, ...] = RIVALS


def recover(
    recovery: Recovery,
    sessions: dict[str, Path],
    jobs: int = 1,
    progress: Callable[[str], None] = lambda name: None,
    learned: Sequence[Balance] = (),
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, str]]:
    """Play all starts of all sessions; returns the records of sessions and of results, in order, and by name why some
    failed. A session of fewer than five stems that are heard has a record that says so, and no results.

    learned: more songs for the rivals to learn from; they must be none of these.
    """
    held, failed = each_session(partial(_session, recovery), sessions, jobs, progress)
    about = [one for one, _, _ in held.values()]
    rows = [row for _, its, _ in held.values() for row in its]
    songs = {name: song for name, (_, _, song) in held.items() if song is not None}
    for rival in recovery.rivals:
        levels = _role_means if rival == MEANS else partial(_regressed, names=recovery.names)
        for name, song in songs.items():
            others = [other for other in songs.values() if other is not song]
            if not [*others, *learned]:
                continue
            human = np.where(song.heard, song.human_lufs, -np.inf)
            error = balance_error_db(levels(song, [*others, *learned]), human)
            rows += [
                {"session": name, "start": start, "method": rival, "policy": None, "seed": None, "mae_db": error}
                for start in range(recovery.starts)  # levels do not matter to them
            ]
    return about, rows, failed


def balance_of(scene: Scene, real: bool) -> Balance | None:
    """A session at people's levels, to learn from; None with fewer than five stems that are heard."""
    from mixrl.stem_features import stem_features

    human = scene.measures(scene.neutral()).stem_lufs
    counted = heard(human) & scene.facts.audible
    if counted.sum() < FEWEST:
        return None
    return Balance(stem_features(scene), scene.facts.roles, human, counted, real)


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


def _session(
    recovery: Recovery, name: str, folder: Path
) -> tuple[dict[str, Any], list[dict[str, Any]], Balance | None]:
    """One session, what every method made of its starts, and what can be learned from it."""
    from mixrl.agent.material import is_real
    from mixrl.distances import mix_distances
    from mixrl.excerpt import busiest
    from mixrl.rendered import Rendered
    from mixrl.session import load_session

    session = load_session(folder)
    part = busiest(session if recovery.names else nameless(session), SECONDS)
    scene = Scene.of(part)
    song = balance_of(scene, is_real(folder))
    about: dict[str, Any] = {
        "name": name, "real": is_real(folder), "stems": list(session.names), "roles": list(scene.facts.roles),
    }  # fmt: skip
    if song is None:
        return {**about, "skipped": f"fewer than {FEWEST} stems are heard"}, [], None
    human = np.where(song.heard, song.human_lufs, -np.inf)
    about |= {"human_lufs": [round(float(level), 3) for level in song.human_lufs], "heard": song.heard.tolist()}
    rendered = Rendered(part, scene) if recovery.contest.render else None
    reference = None if rendered is None else rendered.mix(scene.neutral())
    rows: list[dict[str, Any]] = []
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
                "mae_db": balance_error_db(levels, human),
                "score": found.score, "evaluations": found.evaluations, "seconds": found.seconds,
                "role_lu": loudness_by_role(scene.facts.roles, levels, float(measured.integrated_lufs)),
                **apart,
            })  # fmt: skip
    return about, rows, song


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


def _regressed(song: Balance, others: Sequence[Balance], names: bool) -> Array:
    return predict(fit(others, names), song, names)


def summary(about: Sequence[Record], rows: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """What the records say, by kind of song ("real", "midi") and method: songs; mae_db, the mean over songs; ratio to
    equal loudness's, its bootstrap interval over songs, and the share of songs on which it is lower; the mean of each
    distance (None where nothing was rendered); inside: the share of measured roles in De Man's range."""
    found: dict[str, dict[str, Any]] = {}
    order = [method + suffix for method in (*METHODS, *RIVALS) for suffix in ("", ONE_STEP)]
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
