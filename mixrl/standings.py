"""What the records of a ``contest`` say: a summary of each method, comparisons at equal evaluations, and a picture.

Scores are summed up by interquartile means over all sessions and runs, with bootstrap intervals (``statistics``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixrl.contest import FIXED, MARKS, METHODS, ONE_STEP
from mixrl.search import score_at
from mixrl.statistics import iqm, iqm_interval, worst_tenth

Array = NDArray[np.float64]
Record = Mapping[str, Any]
REFERENCE = MARKS[-1]  # evaluations that CMA-ES has in comparisons with polished mixes
_LEAST = 1e-9  # an improvement below it has no shares
_SAME = 1e-6  # scores less apart than this are the same


class Standings:
    """The records by method. sessions, results: as ``contest.hold`` returns them; every method has the same runs on
    every session."""

    def __init__(self, sessions: Sequence[Record], results: Sequence[Record], budget: int) -> None:
        self.sessions, self.budget = sessions, budget
        self.names = [session["name"] for session in sessions]
        self.strata = [bool(session["real"]) for session in sessions]
        self.before = np.array([session["score_before"] for session in sessions])
        self.best = np.array([session["best_known"] for session in sessions])
        order = [method + suffix for method in METHODS for suffix in ("", ONE_STEP)]
        there = sorted({row["method"] for row in results}, key=order.index)
        self.runs: dict[str, list[list[Record]]] = {method: [[] for _ in self.names] for method in there}
        for row in results:
            self.runs[row["method"]][self.names.index(row["session"])].append(row)

    def values(self, method: str, value: Callable[[Record], float]) -> Array:
        """(sessions, runs) of a method."""
        return np.array([[value(row) for row in rows] for rows in self.runs[method]], dtype=np.float64)

    # ---- summary ---------------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, dict[str, Any]]:
        """The figures of each method."""
        return {method: self._figures(method) for method in self.runs}

    def _figures(self, method: str) -> dict[str, Any]:
        scores = self.values(method, lambda row: row["score"])
        regrets = self.best[:, None] - scores
        room = (self.best - self.before)[:, None]
        shares = np.divide(scores - self.before[:, None], room, out=np.ones_like(scores), where=room > _LEAST)
        found: dict[str, Any] = {
            "runs": scores.shape[1],
            **self._mean(scores),
            "improvement": float(iqm((scores - self.before[:, None]).ravel())),
            "regret_iqm": float(iqm(regrets.ravel())),
            "worst_tenth": 0.0 - worst_tenth(-regrets),
            "improvement_share": float(iqm(shares.ravel())),
            "evaluations": float(np.median(self.values(method, lambda row: row["evaluations"]))),
            "seconds": float(np.median(self.values(method, lambda row: row["seconds"]))),
            "rendered": None,
            "kinds": {},
            "at": {},
        }
        rendered = [rows[0]["score_rendered"] for rows in self.runs[method]]  # of the first run
        if None not in rendered:
            found["rendered"] = self._mean(np.array(rendered)[:, None])
        for kind, real in (("real", True), ("midi", False)):
            inside = np.array(self.strata) == real
            if inside.any():
                low, high = iqm_interval(scores[inside])
                found["kinds"][kind] = {
                    "sessions": int(inside.sum()),
                    "iqm": float(iqm(scores[inside].ravel())),
                    "interval": [low, high],
                }
        for mark in self.runs[method][0][0]["at"]:
            then, seconds = (self.values(method, _noted(mark, what)) for what in ("score", "seconds"))
            found["at"][mark] = {
                **self._mean(then),
                "improvement": float(iqm((then - self.before[:, None]).ravel())),
                "seconds": float(np.median(seconds)),
            }
        return found

    def _mean(self, values: Array) -> dict[str, Any]:
        return {"iqm": float(iqm(values.ravel())), "interval": list(iqm_interval(values, self.strata))}

    # ---- comparisons -----------------------------------------------------------------------------------------------

    def comparisons(self) -> list[dict[str, Any]]:
        """What policies are held against, where both are there: searches at a policy's own number of evaluations,
        CMA-ES at 300, greedy search where the policy looks ahead; polished mixes at 300 and 1000 against CMA-ES at 300
        and at ``REFERENCE`` (or the budget, if that is less)."""
        found = []
        for dqn, looks in (("dqn", False), ("shortlist", True), (f"dqn{ONE_STEP}", True)):
            polish = dqn.replace("dqn", "polish")
            found += [self._compared(dqn, None, other, None) for other in ("pattern", "cma")]
            if looks:
                found.append(self._compared(dqn, None, "greedy", None))
            if self.budget >= 300:
                found.append(self._compared(dqn, None, "cma", 300))
            if polish == dqn:
                continue
            if self.budget >= 300:
                found.append(self._compared(polish, 300, "cma", 300))
                found.append(self._compared(polish, 300, "cma", min(REFERENCE, self.budget)))
            if self.budget >= 1000:
                found.append(self._compared(polish, 1000, "cma", min(REFERENCE, self.budget)))
        return [row for row in found if row is not None]

    def _compared(self, method: str, mark: int | None, against: str, theirs: int | None) -> dict[str, Any] | None:
        """One method after ``mark`` evaluations (None: at its end) against another after ``theirs`` (None: as many as
        each run of the first took)."""
        if method not in self.runs or against not in self.runs:
            return None

        ours = self.values(method, partial(_reached, evaluations=mark))
        others = np.array([
            [_reached(other, row["evaluations"] if theirs is None else theirs) for row in rows for other in rivals]
            for rows, rivals in zip(self.runs[method], self.runs[against], strict=True)
        ])  # fmt: skip
        found: dict[str, Any] = {
            "method": method,
            "evaluations": mark,
            "against": against,
            "evaluations_against": theirs,
            "sessions": len(self.names),
            "won": float((ours.mean(1) > others.mean(1) + _SAME).mean()),
            "lost": float((ours.mean(1) < others.mean(1) - _SAME).mean()),
            "difference": float(iqm(ours.ravel()) - iqm(others.ravel())),
            "interval": list(iqm_interval(ours, self.strata, other=others)),
        }
        if method.startswith("polish"):
            room = others.mean(1) - self.before
            shares = ((ours.mean(1) - self.before)[room > _LEAST]) / room[room > _LEAST]
            if len(shares):
                found["share_mean"], found["share_iqm"] = float(shares.mean()), float(iqm(shares))
            spent = self.values(method, lambda row: _seconds(row, mark)).mean()
            found["seconds_ratio"] = float(spent / self.values(against, lambda row: _seconds(row, theirs)).mean())
        return found

    # ---- curves ----------------------------------------------------------------------------------------------------

    def curve(self, method: str, points: int = 40) -> tuple[Array, Array, Array]:
        """The best score less the raw one against evaluations: (P,) evaluations, (P,) interquartile means and (P, 2)
        intervals, from where every run has a mix to where the longest ends."""
        rows = [row for its in self.runs[method] for row in its]
        first, last = max(row["trace"][0][0] for row in rows), max(row["evaluations"] for row in rows)
        at = np.unique(np.geomspace(first, max(last, first), points).round().astype(np.int64))
        means, intervals = [], []
        for evaluations in at.tolist():
            values = self.values(method, partial(_reached, evaluations=evaluations)) - self.before[:, None]
            means.append(float(iqm(values.ravel())))
            intervals.append(iqm_interval(values, self.strata, draws=300))
        return at.astype(np.float64), np.array(means), np.array(intervals)

    def plot(self, path: Path) -> None:
        """Draw the curves into a PNG, atomically; what is there is replaced."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        from mixrl.audio import atomic_path

        figure, axes = pyplot.subplots(figsize=(8.5, 5.2))
        searches = [method for method in METHODS if method not in FIXED]
        colours = dict(zip(searches, pyplot.get_cmap("tab10").colors, strict=False))  # type: ignore[attr-defined]
        colours |= {method: f"{0.75 - 0.15 * number:.2f}" for number, method in enumerate(FIXED)}
        for method in self.runs:
            at, means, intervals = self.curve(method)
            colour, style = colours[method.removesuffix(ONE_STEP)], "--" if method.endswith(ONE_STEP) else "-"
            if method in FIXED:
                axes.axhline(means[-1], color=colour, linestyle=":", linewidth=1.3, label=method)
                continue
            axes.plot(at, means, style, color=colour, linewidth=1.8, label=method, drawstyle="steps-post")
            axes.plot(at[-1], means[-1], "o", color=colour, markersize=4)
            axes.fill_between(at, intervals[:, 0], intervals[:, 1], color=colour, alpha=0.07, linewidth=0, step="post")
        axes.set_xscale("log")
        axes.set(
            xlim=(1, self.budget * 1.1),
            xlabel="evaluations, look-ahead counted",
            ylabel="best score less the raw mix's (interquartile mean)",
            title=f"Search on {len(self.names)} sessions",
        )
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        with atomic_path(path, force=True) as temporary:
            figure.savefig(temporary, dpi=130, bbox_inches="tight", format="png")
        pyplot.close(figure)


def _reached(row: Record, evaluations: int | None) -> float:
    """The best score of a run after so many evaluations; None: at its end."""
    return float(row["score"]) if evaluations is None else score_at(row["trace"], evaluations)


def _noted(mark: str, what: str) -> Callable[[Record], float]:
    return lambda row: float(row["at"][mark][what])


def _seconds(row: Record, evaluations: int | None) -> float:
    """When a run had made so many evaluations; ``evaluations``: one of its marks, or None for its end."""
    if evaluations is None or evaluations >= row["evaluations"]:
        return float(row["seconds"])
    return float(row["at"][str(evaluations)]["seconds"])
