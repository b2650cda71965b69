"""How time and memory of `mixrl mix` grow with the number of stems and with the length of the song.

    python benchmarks/growth.py [--minutes 0.5 1 5 30] [--stems 1 2 4 8 16 32 64] [--plot FILE] [--json FILE]

Every length with 8 stems, every number of stems with songs of a minute. The songs are made by repeating the sample
sessions' stems (stereo, 44.1 kHz, 24-bit WAV, in a temporary folder that needs 16 MB a stem and minute). Wall and CPU
seconds and the largest resident set of the whole process, as the operating system counts them; once each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from engine import ROOT, disk, timed

STEMS, MINUTES = 8, 1.0


def mixed(stems: int, minutes: float) -> dict[str, float]:
    """What one mix takes, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=disk()) as temporary:
        song, engine = Path(temporary, "song"), str(Path(__file__).with_name("engine.py"))
        make = [sys.executable, engine, "--make", str(song), str(stems), str(60.0 * minutes), "wav"]
        subprocess.run(make, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
        return timed([sys.executable, str(ROOT / "cli.py"), "mix", str(song), "-o", str(Path(temporary, "mix.wav"))])


def series(name: str, points: dict[float, tuple[int, float]]) -> dict[str, dict[str, float]]:
    """Measure and print the mixes of these points: (stems, minutes) by what they are called."""
    print(f"{name:>8s}{'stems':>7s}{'minutes':>9s}{'wall s':>9s}{'CPU s':>9s}{'MB':>7s}")
    found = {}
    for label, (stems, minutes) in points.items():
        its = found[f"{label:g}"] = mixed(stems, minutes)
        print(f"{label:8g}{stems:7d}{minutes:9g}{its['wall']:9.1f}{its['cpu']:9.1f}{its['mb']:7.0f}", flush=True)
    return found


def draw(found: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Wall time and memory against stems and against minutes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(2, 2, figsize=(8, 5.5))
    for row, (key, label) in zip(rows, (("wall", "wall time, s"), ("mb", "largest resident set, MB")), strict=True):
        for axes, (name, points) in zip(row, found.items(), strict=True):
            axes.plot([float(point) for point in points], [its[key] for its in points.values()], marker="o")
            highest = max(its[key] for its in points.values())
            axes.set(xlabel=name, ylabel=label, ylim=(0.0, 1.1 * highest), xlim=(0, None))
            axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="*", default=[0.5, 1.0, 5.0, 30.0])
    parser.add_argument("--stems", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--plot", type=Path, help="draw it (PNG)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    for count in (1, 2):  # compiles
        mixed(count, 0.2)
    found = {
        "stems": series("stems", {float(count): (count, MINUTES) for count in arguments.stems}),
        "minutes": series("minutes", {minutes: (STEMS, minutes) for minutes in arguments.minutes}),
    }
    if arguments.plot:
        draw(found, arguments.plot)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
