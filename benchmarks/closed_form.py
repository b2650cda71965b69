"""How far the closed form is from real renders, per measure, over random settings.

    python benchmarks/closed_form.py FOLDER ... [--settings 500] [--seed 0] [--mix-only] [--jobs 2]

Random settings: gain +-12 dB, five EQ bands +-6 dB, any pan, any compressor preset, high-pass on or off, one stem in
five with its polarity inverted. Differences are rendered minus predicted, before the master limiter but for limiting;
third-octaves only where the session has content. --mix-only: only loudness, peaks and spectrum of the summed mix, which
takes a third of the time.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from mixrl.analysis import SUBBANDS, analyse_sum
from mixrl.excerpt import excerpt
from mixrl.measures import decibels
from mixrl.meters import Meter
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


def of_the_mix(rendered: Rendered, settings: MixSettings) -> dict[str, object]:
    """What the meters read of the rendered mix."""
    mix = rendered.mix(settings)
    rate, frames = rendered.session.sample_rate, mix.shape[1]
    meter = Meter(rate, 2, spectrum=False, true_peak=False)
    meter.push(mix)
    reading = meter.result()
    padded = np.pad(mix, ((0, 0), (0, rate)))
    heard = analyse_sum([lambda start, stop: padded[:, start:stop]], rate, frames)
    power = heard.stems[0].own.sum(axis=0).reshape(-1, SUBBANDS).sum(axis=1)
    return {
        "integrated_lufs": reading.integrated_lufs,
        "short_term_lufs": reading.max_short_term_lufs,
        "loudness_range_lu": reading.loudness_range_lu,
        "peak_dbfs": reading.sample_peak_dbfs,
        "crest_db": reading.sample_peak_dbfs - decibels(float(np.mean(mix.astype(np.float64) ** 2))),
        "spectrum_db": decibels(power),
    }


def of_everything(rendered: Rendered, settings: MixSettings) -> dict[str, object]:
    """All measures of the rendered mix, and its score."""
    real, facts = rendered.measures(settings), rendered.scene.facts
    return {**{name: getattr(real, name) for name in MEASURES}, "score": score(real, facts)}


def differences(folder: Path, count: int, seed: int, mix_only: bool) -> tuple[str, dict[str, np.ndarray]]:
    """What one session is about, and by measure how far predictions were off."""
    rng = np.random.default_rng(seed)
    heard = excerpt(load_session(folder))
    scene = Scene.of(heard)
    rendered = Rendered(heard, scene)
    facts = scene.facts
    found: dict[str, list[np.ndarray]] = {}
    seconds = np.zeros(2)
    for _ in range(count):
        settings = random_settings(scene.neutral(), rng)
        predicted = scene.measures(settings)  # renders variants that are new
        start = time.perf_counter()
        real = (of_the_mix if mix_only else of_everything)(rendered, settings)
        middle = time.perf_counter()
        predicted = scene.measures(settings)
        seconds += (middle - start, time.perf_counter() - middle)
        for name, value in real.items():
            difference = np.asarray(value) - (score(predicted, facts) if name == "score" else getattr(predicted, name))
            counted = difference.shape == facts.counted.shape and name in ("spectrum_db", "side_mid_db")
            found.setdefault(name, []).append(np.ravel(difference[facts.counted] if counted else difference))
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
    parser.add_argument("--mix-only", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    count = len(arguments.folders)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        each = [arguments.settings, arguments.seed, arguments.mix_only]
        tables = pool.map(differences, arguments.folders, *([value] * count for value in each))
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
