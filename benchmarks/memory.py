"""Peak memory and time of `mixrl mix` against the length of the song.

    python benchmarks/memory.py [--minutes 1 5 30] [--stems 8] [--session audio_samples/hydrogen]

The songs are made by repeating the session's stems (24-bit WAV, in a temporary folder that needs 16 MB a stem and
minute at 44.1 kHz stereo). Memory is the largest resident set of the process, as the operating system counts it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mixrl.audio import Writer
from mixrl.session import Session, load_session

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 5.0, 30.0])
    parser.add_argument("--stems", type=int, default=8)
    parser.add_argument("--session", type=Path, default=ROOT / "audio_samples" / "hydrogen")
    arguments = parser.parse_args()
    session = load_session(arguments.session)
    print(f"{'minutes':>7s} {'stems':>5s} {'audio MB':>9s} {'peak MB':>8s} {'seconds':>8s}  winner", flush=True)
    for minutes in arguments.minutes:
        with tempfile.TemporaryDirectory(dir=_disk()) as folder:
            song = Path(folder, "song")
            song.mkdir()
            size = _write(session, song, arguments.stems, minutes)
            peak, seconds, winner = _mixed(song, Path(folder, "mix.wav"))
        print(f"{minutes:7g} {arguments.stems:5d} {size / 1e6:9.0f} {peak:8.0f} {seconds:8.0f}  {winner}", flush=True)


def _disk() -> str | None:
    """Not /tmp, which is memory on many systems."""
    return "/var/tmp" if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK) else None


def _write(session: Session, song: Path, stems: int, minutes: float) -> int:
    frames = round(minutes * 60 * session.sample_rate)
    for stem in session.stems[:stems]:
        with Writer(song / f"{stem.name}.wav", session.sample_rate, stem.channels) as writer:
            left = frames
            while left:
                for block in session.blocks(stem):
                    writer.write(block[:, :left])
                    left -= min(left, block.shape[1])
                    if not left:
                        break
    return sum(path.stat().st_size for path in song.iterdir())


def _mixed(song: Path, output: Path) -> tuple[float, float, str]:
    """Peak resident set (MB), seconds and winner of one `mixrl mix` in a process of its own."""
    command = [sys.executable, str(ROOT / "cli.py"), "mix", str(song), "-o", str(output), "--json"]
    report = output.with_suffix(".json")
    start = time.perf_counter()
    with report.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, env={**os.environ, "PYTHONPATH": str(ROOT)})
        _, status, usage = os.wait4(process.pid, 0)  # of this process alone, not the largest of all children
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"mixrl mix failed with status {os.waitstatus_to_exitcode(status)}")
    return _megabytes(usage), seconds, json.loads(report.read_text(encoding="utf-8"))["winner"]


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere


if __name__ == "__main__":
    main()
