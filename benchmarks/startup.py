"""How long Python, Typer, `import mixrl` and `mixrl --help` take to start.

    python benchmarks/startup.py [--runs 15]

Each command is run in turn, so that what else the machine does falls on all alike; medians over the runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    'python -c "import typer"': ["-c", "import typer"],
    'python -c "import mixrl"': ["-c", "import mixrl"],
    "mixrl --help": [str(ROOT / "cli.py"), "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for run in range(runs + 1):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
            if run:  # the first one fills the disk's cache
                taken[name].append(time.perf_counter() - start)
    base = statistics.median(taken["python -c pass"])
    print(f"{'command':28s} {'median':>9s} {'fastest':>9s} {'x python':>9s}")
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"{name:28s} {median * 1000:6.0f} ms {min(seconds) * 1000:6.0f} ms {median / base:9.1f}")


if __name__ == "__main__":
    main()
