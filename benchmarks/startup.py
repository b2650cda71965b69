"""How long Python, Typer, `import mixrl` and commands take to start, and what the first run compiles.

    python benchmarks/startup.py [--runs 15] [--cold]

Each command is run in turn, so that what else the machine does falls on all alike; medians over the runs. `mixrl
measure` reads a stereo file of 10 s; beside it stands what it has to import. --cold: `mixrl measure` of that file and
`mixrl mix` of a sample session with nothing compiled before, once each, and again.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLI = str(ROOT / "cli.py")
SECONDS, RATE = 10, 44100


def seconds_of(arguments: list[str], environment: dict[str, str]) -> float:
    """Wall time of Python with these arguments."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def write_noise(path: Path) -> None:
    """A stereo file of 16 bits, from the standard library: what is timed should not be warm from it."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(random.Random(0).randbytes(4 * RATE * SECONDS))


def warm(commands: dict[str, list[str]], runs: int) -> None:
    """Measure and print how long commands take that have been run before."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(runs + 1):
        for name, arguments in commands.items():
            seconds = seconds_of(arguments, environment)
            if run:  # the first one compiles, and fills the disk's cache
                taken[name].append(seconds)
    base = statistics.median(taken["python -c pass"])
    print(f"{'command':34s} {'median':>9s} {'fastest':>9s} {'x python':>9s}")
    for name, its in taken.items():
        median = statistics.median(its)
        print(f"{name:34s} {median * 1000:6.0f} ms {min(its) * 1000:6.0f} ms {median / base:9.1f}", flush=True)


def cold(commands: dict[str, list[str]], folder: Path) -> None:
    """Measure and print the first run of commands, each with nothing compiled, and the second."""
    print(f"\n{'command':34s} {'first run':>10s} {'second':>9s}")
    for number, (name, arguments) in enumerate(commands.items()):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(folder / str(number))}
        first, second = seconds_of(arguments, environment), seconds_of(arguments, environment)
        print(f"{name:34s} {first:8.1f} s {second:7.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--cold", action="store_true", help="also what the first run compiles")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        file, mix = Path(temporary, "noise.wav"), Path(temporary, "mix.wav")
        write_noise(file)
        commands = {
            "python -c pass": ["-c", "pass"],
            'python -c "import typer"': ["-c", "import typer"],
            'python -c "import mixrl"': ["-c", "import mixrl"],
            "mixrl --help": [CLI, "--help"],
            "imports of mixrl measure": ["-c", "import mixrl.commands, mixrl.meters, mixrl.audio, rich.table"],
            "mixrl measure, 10 s": [CLI, "measure", str(file)],
        }
        warm(commands, arguments.runs)
        if arguments.cold:
            sample = str(ROOT / "audio_samples" / "hydrogen")
            commands = {
                "mixrl measure, 10 s": [CLI, "measure", str(file)],
                "mixrl mix, sample session": [CLI, "mix", sample, "-o", str(mix), "--force"],
            }
            cold(commands, Path(temporary))


if __name__ == "__main__":
    main()
