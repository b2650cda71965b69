"""How far the closed form is from real renders, per measure, over random settings.

    python benchmarks/closed_form.py FOLDER ... [--settings 500] [--seed 0] [--jobs 2]

Random settings: gain +-12 dB, five EQ bands +-6 dB, any pan, any compressor preset, high-pass on or off, one stem in
five with its polarity inverted. Differences are rendered minus predicted, before the master limiter but for limiting;
third-octaves only where the session has content.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from mixrl.excerpt import excerpt
from mixrl.rendered import Rendered
from mixrl.scene import Scene
from mixrl.score import score
from mixrl.session import load_session
from mixrl.settings import COMPRESSORS, MixSettings, StripSettings

MEASURES = {
    "integrated_lufs": "LU", "short_term_lufs": "LU", "loudness_range_lu": "LU", "peak_dbfs": "dB", "crest_db": "dB",
    "limiting_db": "dB", "psr_db": "dB", "spectrum_db": "dB", "side_mid_db": "dB", "imbalance_db": "dB",
    "stem_lufs": "LU", "audibility_db": "dB",
}  # fmt: skip


def random_settings(start: MixSettings, rng: np.random.Generator) -> MixSettings:
    settings = start
    for name in start.stems:
        strip = StripSettings(
            gain_db=rng.uniform(-12, 12),
            pan=rng.uniform(-1, 1),
            invert=bool(rng.random() < 0.2),
            highpass_hz=(None, 60.0, 100.0)[rng.integers(3)],
            compressor=COMPRESSORS[rng.integers(len(COMPRESSORS))],
        )
        for band in range(5):
            strip = strip.with_band(band, gain_db=rng.uniform(-6, 6))
        settings = settings.with_strip(name, strip)
    return settings


def differences(folder: Path, count: int, seed: int) -> tuple[str, dict[str, np.ndarray]]:
    """What one session is about, and by measure how far predictions were off."""
    rng = np.random.default_rng(seed)
    heard = excerpt(load_session(folder))
    scene = Scene.of(heard)
    rendered = Rendered(heard, scene)
    facts = scene.facts
    found: dict[str, list[np.ndarray]] = {name: [] for name in [*MEASURES, "score"]}
    seconds = np.zeros(2)
    for _ in range(count):
        settings = random_settings(scene.neutral(), rng)
        predicted = scene.measures(settings)  # renders variants that are new
        start = time.perf_counter()
        real = rendered.measures(settings)
        middle = time.perf_counter()
        predicted = scene.measures(settings)
        seconds += (middle - start, time.perf_counter() - middle)
        for name in MEASURES:
            difference = np.asarray(getattr(real, name)) - np.asarray(getattr(predicted, name))
            counted = difference.shape == facts.counted.shape and name in ("spectrum_db", "side_mid_db")
            found[name].append(np.ravel(difference[facts.counted] if counted else difference))
        found["score"].append(np.atleast_1d(score(real, facts) - score(predicted, facts)))
    about = (
        f"{folder.name}: {len(heard.stems)} stems, {len(scene.analysis.pairs)} coherent pairs, {count} settings; "
        f"one render {seconds[0] / count:.2f} s, {seconds[0] / seconds[1]:.0f} x one prediction"
    )
    return about, {name: np.concatenate(parts) for name, parts in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--settings", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    count = len(arguments.folders)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        tables = pool.map(differences, arguments.folders, [arguments.settings] * count, [arguments.seed] * count)
        for about, found in tables:
            print(about)
            for name, values in found.items():
                print(
                    f"  {name:18s} mean {values.mean():+7.3f}  p95 {np.percentile(np.abs(values), 95):6.3f}  "
                    f"max {np.abs(values).max():6.3f} {MEASURES.get(name, '')}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
