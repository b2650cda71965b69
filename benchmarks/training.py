"""What training comes to: several seeds, and runs that each do without a part of the agent, on validation sessions.

    python benchmarks/training.py DATASET -o RUNS [--seeds 5] [--moves 120000] [--ablation-moves 40000] [--cache DIR]
                                  [--jobs 2] [--only NAME ...]

Every run is one `mixrl train` (a process each, RUNS/NAME.safetensors and RUNS/NAME-run); those that are there are not
made again. Improvement of the validation starts, on top of the mix that they begin with; then how fast each run went,
and what its time went to. PQN gets
the wall time that seed 0 took for as many moves. A run that looks at one-step gains is given half the moves: it has
nothing to learn of rewards.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

CLI = Path(__file__).parents[1] / "cli.py"
ABLATIONS = {
    "one-step": ["--one-step"],
    "discount-0": ["--discount", "0"],
    "no-n-step": ["--n-step", "1"],
    "no-double": ["--no-double"],
    "mean-pool": ["--pool", "mean"],
    "attention": ["--pool", "attention"],
    "pqn": ["--algorithm", "pqn"],
}
MARKS = 20_000, 40_000, 80_000, 120_000
SPEED_COLUMNS = ("run", "moves/s", "updates/s", "environment", "acting", "learning", "validation")
COLUMNS = ("run", "moves", "minutes", *(f"at {mark:,}" for mark in MARKS), "best")


def rows_of(runs: Path, name: str) -> list[dict[str, float]]:
    """The log of a run."""
    with (runs / f"{name}-run" / "log.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def train(arguments: argparse.Namespace, name: str, options: list[str]) -> None:
    """One run, unless it is there."""
    made = arguments.output / f"{name}.safetensors"
    if made.exists():
        return
    if name == "pqn":
        rows = rows_of(arguments.output, "seed0")
        taken = next(row["seconds"] for row in rows if row["moves"] >= arguments.ablation_moves)
        options = [*options, "--minutes", str(round(taken / 60.0, 1))]
    cache = [] if arguments.cache is None else ["--cache", str(arguments.cache)]
    command = ["train", str(arguments.dataset), "-o", str(made), "--jobs", "1", "--force", *cache, *options]
    with (arguments.output / f"{name}.log").open("w") as log:
        subprocess.run([sys.executable, str(CLI), *command], stderr=log, check=True)


def improvement_at(rows: list[dict[str, float]], moves: float) -> str:
    """The improvement at the first row from so many moves on, until a quarter more."""
    found = [row["improvement"] for row in rows if moves <= row["moves"] < 1.25 * moves]
    return f"{found[0]:.3f}" if found else "-"


def row_of(runs: Path, name: str) -> list[str]:
    rows = rows_of(runs, name)
    best = max(row["improvement"] for row in rows)
    return [
        name, f"{rows[-1]['moves']:,.0f}", f"{rows[-1]['seconds'] / 60.0:.0f}",
        *(improvement_at(rows, mark) for mark in MARKS), f"{best:.3f}",
    ]  # fmt: skip


def speed_of(runs: Path, name: str) -> list[str]:
    """How fast a run went, and what its time went to."""
    rows = rows_of(runs, name)
    seconds = rows[-1]["seconds"]
    shares = (sum(row[f"{part}_s"] for row in rows) / seconds for part in ("env", "act", "learn", "validate"))
    rates = (rows[-1][what] / seconds for what in ("moves", "updates"))
    return [name, *(f"{rate:,.0f}" for rate in rates), *(f"{100.0 * share:.0f} %" for share in shares)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--moves", type=int, default=120_000)
    parser.add_argument("--ablation-moves", type=int, default=40_000)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    wanted = {f"seed{n}": ["--seed", str(n), "--moves", str(arguments.moves)] for n in range(arguments.seeds)}
    for name, options in ABLATIONS.items():
        moves = arguments.ablation_moves // (2 if name == "one-step" else 1)
        wanted[name] = options if name == "pqn" else [*options, "--moves", str(moves)]
    if arguments.only is not None:
        wanted = {name: wanted[name] for name in arguments.only}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda name: train(arguments, name, wanted[name]), wanted))
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for name in wanted:
        print("| " + " | ".join(row_of(arguments.output, name)) + " |")
    print(f"\n{arguments.jobs} runs at a time, a process and a thread each\n")
    print("| " + " | ".join(SPEED_COLUMNS) + " |\n|" + "---|" * len(SPEED_COLUMNS))
    for name in wanted:
        print("| " + " | ".join(speed_of(arguments.output, name)) + " |")
    seeds = [max(row["improvement"] for row in rows_of(arguments.output, n)) for n in wanted if n.startswith("seed")]
    if len(seeds) > 1:
        spread = f"{min(seeds):.3f}..{max(seeds):.3f}, deviation {np.std(seeds, ddof=1):.3f}"
        print(f"seeds at their best: mean {np.mean(seeds):.3f}, {spread}")


if __name__ == "__main__":
    main()
