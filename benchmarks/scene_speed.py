"""How fast the closed form is, on one core, and how much memory a large scene takes.

    python benchmarks/scene_speed.py [--stems 4 8 16 32 64] [--seconds 30] [--repeats 9] [--memory] [--json FILE]

Stems are made up: noise of different colours, played in bursts, every fourth with a copy that a second microphone might
have heard, so that there are coherent pairs. Compressed, they are taken to be what they are, which saves rendering and
costs the closed form the same. CPU seconds of the process, medians over the repeats with the slowest and the fastest;
all terms of the score are in every figure. Single: mixes with random knobs, one call each. Batched: many in one call.
Successors: every one-move successor of each mix along a walk of random legal moves. --memory measures a scene of 64
stems of 5 minutes, which takes some minutes to listen to.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mixrl.analysis import Reader, analyse
from mixrl.knobs import COMPRESSOR, EQ, GAIN, HIGHPASS, INVERT, PAN, Knobs, joined, neutral_knobs
from mixrl.moves import apply, legal
from mixrl.scene import Scene
from mixrl.session import Session

RATE = 44100
TARGETS = {"single": 5_000, "batched": 20_000, "successors": 100_000}  # a second, of 8 stems


def stems(count: int, seconds: float) -> Session:
    """Bursts of coloured noise; deterministic."""
    frames = round(seconds * RATE)
    found: dict[str, np.ndarray] = {}
    for number in range(count):
        rng = np.random.default_rng(number)
        if number % 4 == 3:  # as a second microphone hears the stem before it
            before = found[f"stem{number - 1}"]
            found[f"stem{number}"] = np.float32(0.7) * np.roll(before, 40, axis=1)
            continue
        noise = rng.standard_normal((2, frames), dtype=np.float32)
        noise[:, 1:] += np.float32(rng.uniform(-0.9, 0.9)) * noise[:, :-1]
        bursts = np.repeat(rng.random(-(-frames // 22050)) < 0.7, 22050)[:frames]
        decay = np.exp(-np.arange(frames) % round(rng.uniform(0.1, 0.6) * RATE) / (0.1 * RATE))
        found[f"stem{number}"] = np.float32(0.05) * noise * (bursts * decay).astype(np.float32)
    return Session.from_arrays(found, RATE)


def listened(count: int, seconds: float) -> Scene:
    scene = Scene.of(stems(count, seconds))
    return Scene(scene.facts, scene.analysis, lambda stem, _: scene.analysis.stems[stem])


def random_mixes(scene: Scene, count: int, rng: np.random.Generator) -> Knobs:
    """Random gain, pan, polarity, high-pass, compressor and EQ on every stem."""
    mixes = joined([neutral_knobs(scene.facts)] * count)
    shape = mixes.strips.shape[:2]
    mixes.strips[..., GAIN] = rng.uniform(-12.0, 12.0, shape)
    mixes.strips[..., PAN] = rng.uniform(-1.0, 1.0, shape)
    mixes.strips[..., INVERT] = rng.random(shape) < 0.2
    mixes.strips[..., HIGHPASS] = np.array([0.0, 60.0, 100.0])[rng.integers(3, size=shape)]
    mixes.strips[..., COMPRESSOR] = rng.integers(4, size=shape)
    mixes.strips[..., EQ : EQ + 5] = rng.uniform(-6.0, 6.0, (*shape, 5))
    return mixes


def walk(scene: Scene, steps: int, rng: np.random.Generator) -> list[Knobs]:
    mixes = [neutral_knobs(scene.facts)]
    for _ in range(steps):
        moves = np.flatnonzero(legal(mixes[-1], scene.facts))[:-1]
        mixes.append(apply(mixes[-1], scene.facts, int(rng.choice(moves))))
    return mixes[1:]


def rates(run: Callable[[], int], repeats: int) -> list[float]:
    """So many a CPU second, in rising order."""
    run()  # compiles, and renders variants
    found = []
    for _ in range(repeats):
        start = time.process_time()
        count = run()
        found.append(count / (time.process_time() - start))
    return sorted(found)


def speed(count: int, seconds: float, repeats: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    scene = listened(count, seconds)
    mixes = random_mixes(scene, 256 if count <= 16 else 64, rng)
    single = [mixes[n : n + 1] for n in range(min(len(mixes.strips), 100))]
    along = walk(scene, max(160 // count, 3), rng)
    return {
        "single": rates(lambda: sum(len(scene.scores(mix)) for mix in single), repeats),
        "batched": rates(lambda: len(scene.scores(mixes)), repeats),
        "successors": rates(lambda: sum(len(scene.successor_scores(mix)[0]) for mix in along), repeats),
    }


def memory(count: int, minutes: float) -> dict[str, float]:
    """CPU seconds of listening; megabytes of a scene's arrays, as listened to and after its successors were asked for,
    with the next compressor of every stem; the process's peak."""
    short = listened(count, 20.0)  # which is played again and again: so much audio would take gigabytes
    session = stems(count, 20.0)
    tiles = [session.read(stem) for stem in session.stems]

    def reader(tile: np.ndarray) -> Reader:
        return lambda start, stop: tile[:, np.arange(start, stop) % tile.shape[1]]

    start = time.process_time()
    analysis = analyse([reader(tile) for tile in tiles], RATE, round(60.0 * minutes * RATE))
    taken = time.process_time() - start
    scene = Scene(short.facts, analysis, lambda stem, _: analysis.stems[stem])
    plain = _megabytes(scene)
    scene.successor_scores(neutral_knobs(scene.facts))
    return {"listening_s": taken, "scene_mb": plain, "after_successors_mb": _megabytes(scene), "peak_mb": _peak()}


def _megabytes(scene: Scene) -> float:
    """Of all arrays that hang on a scene; where there is room for compressed variants, only of those that are there."""
    seen: dict[int, float] = {}

    def visit(value: object) -> None:
        if isinstance(value, np.ndarray):
            while isinstance(value.base, np.ndarray):
                value = value.base
            there = store._there
            full = len(value) == len(there) and value is not there and value.ndim > 1
            seen[id(value)] = value.nbytes * (there.mean() if full else 1.0)
        elif isinstance(value, (tuple, list)):
            for item in value:
                visit(item)
        elif hasattr(value, "__dict__") and type(value).__module__.startswith("mixrl"):
            for item in vars(value).values():
                visit(item)

    store = scene._store
    visit(scene)
    return sum(seen.values()) / 1e6


def _peak() -> float:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stems", type=int, nargs="*", default=[4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--memory", action="store_true", help="also the memory of a large scene")
    parser.add_argument("--memory-stems", type=int, default=64)
    parser.add_argument("--memory-minutes", type=float, default=5.0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}; a CPU second: median (slowest, fastest)")
    print(f"{'stems':>5s}  " + "".join(f"{name:>30s}" for name in TARGETS), flush=True)
    found: dict[str, object] = {}
    for count in arguments.stems:
        figures = speed(count, arguments.seconds, arguments.repeats)
        cells = [f"{statistics.median(f):,.0f} ({f[0]:,.0f}, {f[-1]:,.0f})" for f in figures.values()]
        print(f"{count:5d}  " + "".join(f"{cell:>30s}" for cell in cells), flush=True)
        found[str(count)] = figures
    print("target" + " " + "".join(f"{target:>30,d}" for target in TARGETS.values()) + "  with 8 stems")
    if arguments.memory:
        figures_mb = memory(arguments.memory_stems, arguments.memory_minutes)
        cells = [f"{name} {value:.0f}" for name, value in figures_mb.items()]
        print(f"{arguments.memory_stems} stems x {arguments.memory_minutes:g} minutes: " + ", ".join(cells))
        found["memory"] = figures_mb
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
