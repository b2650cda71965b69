"""What a batch costs: sessions an hour and core-hours, against mixing the same sessions one after the other.

    python benchmarks/batch.py [--sessions 8] [--stems 8] [--seconds 180] [--jobs 1 2]

Songs are made as in `engine.py`. A mix before all else compiles. Core-hours
are the CPU time of all processes, start-up included; memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from engine import ROOT, disk, timed

CLI = [sys.executable, str(ROOT / "cli.py")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--stems", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, os.cpu_count() or 1])
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=disk()) as temporary:
        songs = Path(temporary, "songs")
        songs.mkdir()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for number in range(arguments.sessions):
            # elsewhere: what this process has held, the system counts for those that it starts, too
            made = [sys.executable, str(ROOT / "benchmarks" / "engine.py"), "--make", str(songs / f"song {number + 1}")]
            values = [str(arguments.stems), str(arguments.seconds), "wav"]
            subprocess.run([*made, *values], env=environment, check=True)
            (songs / f"song {number + 1}.json").unlink()
        first, out = songs / "song 1", Path(temporary, "out")
        commands = {"mixrl mix, one session": [*CLI, "mix", str(first), "-o", str(out) + ".wav", "--force"]}
        for jobs in arguments.jobs:
            line = [*CLI, "batch", str(songs), "-o", str(out), "--force", "--jobs", str(jobs)]
            commands[f"mixrl batch --jobs {jobs}"] = line
        commands["mixrl batch --resume"] = [*CLI, "batch", str(songs), "-o", str(out), "--resume"]
        commands["mixrl batch --album"] = [*CLI, "batch", str(songs), "-o", str(out), "--force", "--album"]
        timed(commands["mixrl mix, one session"])
        of = f"{arguments.stems} stereo stems x {arguments.seconds:g} s, WAV of 24 bits"
        print(f"{arguments.sessions} sessions of {of}")
        print(f"{'':26s}{'wall s':>8s}{'CPU s':>8s}{'sessions an hour':>18s}{'core-hours per 1,000':>22s}{'MB':>7s}")
        for name, command in commands.items():
            its, count = timed(command), 1 if "one session" in name else arguments.sessions
            hours = its["cpu"] / count / 3.6
            rate = f"{3600.0 * count / its['wall']:18.0f}{hours:22.2f}"
            print(f"{name:26s}{its['wall']:8.1f}{its['cpu']:8.1f}{rate}{its['mb']:7.0f}", flush=True)


if __name__ == "__main__":
    main()
