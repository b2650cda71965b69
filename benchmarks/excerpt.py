"""How well the excerpt that mixes are planned on stands for the whole song.

    python benchmarks/excerpt.py FOLDER ... [--mixes N] [--json FILE]

Of sessions longer than an excerpt, random mixes (the stems as they are; faders within 6 dB; five bands of EQ within
6 dB besides, in turn) are rendered whole and metered, and compared with what is predicted of them from the excerpt:
integrated loudness, and the level of each third-octave band within 50 dB of the loudest. Next to them, how far the
excerpt's own loudness and spectrum are from the song's.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np

from mixrl.excerpt import excerpt
from mixrl.meters import Measurement, Meter
from mixrl.render import SumSource
from mixrl.scene import Scene
from mixrl.session import Session, load_session
from mixrl.settings import MixSettings
from mixrl.whole import whole

COUNTED_DB = 50.0


def some_settings(session: Session, number: int) -> MixSettings:
    """The stems as they are; then turned; then turned and equalised, and again."""
    rng = np.random.default_rng(number)
    settings = MixSettings.neutral(session.names)
    for name in session.names if number else ():
        strip = replace(settings.strip(name), gain_db=rng.uniform(-6.0, 6.0))
        for band in range(5) if number % 2 == 0 else ():
            strip = strip.with_band(band, gain_db=rng.uniform(-6.0, 6.0))
        settings = settings.with_strip(name, strip)
    return settings


def metered(session: Session, settings: MixSettings) -> Measurement:
    """What the meter reads of a mix before the master."""
    meter = Meter(session.sample_rate, 2, true_peak=False)
    for block in SumSource(session, settings).blocks():
        meter.push(block)
    return meter.result()


def differences(session: Session, mixes: int) -> dict[str, list[float]]:
    """Predicted less measured of the song, LU and dB: of the excerpt, and of the song as it is worked out from that."""
    heard = excerpt(session)
    scene = Scene.of(heard)
    found: dict[str, list[float]] = {name: [] for name in ("excerpt_lu", "song_lu", "excerpt_db", "song_db")}
    for number in range(mixes):
        settings = some_settings(session, number)
        real, here = metered(session, settings), scene.measures(settings)
        predicted = whole(session, heard, scene, settings)
        counted = real.spectrum_db > real.spectrum_db.max() - COUNTED_DB
        found["excerpt_lu"].append(float(here.integrated_lufs) - real.integrated_lufs)
        found["song_lu"].append(predicted.integrated_lufs - real.integrated_lufs)
        found["excerpt_db"] += (here.spectrum_db - real.spectrum_db)[counted].tolist()
        found["song_db"] += (predicted.spectrum_db - real.spectrum_db)[counted].tolist()
    return found


def row(name: str, what: str, its: dict[str, list[float]]) -> str:
    """Median and 95th percentile of each, without sign."""
    cells = (f"{np.median(np.abs(v)):9.2f} {np.percentile(np.abs(v), 95.0):5.2f}" for v in its.values())
    return f"{name[:28]:30s}{what:>12s}" + "".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--mixes", type=int, default=7, help="of each session")
    parser.add_argument("--json", type=Path, help="write all differences here")
    arguments = parser.parse_args()
    print(f"{'off by (median, 95th percentile)':42s}{'LU: excerpt':>15s}{'song':>15s}{'dB: excerpt':>15s}{'song':>15s}")
    found: dict[str, dict[str, list[float]]] = {}
    for folder in arguments.folders:
        session = load_session(folder)
        heard_s = excerpt(session).duration_s
        if heard_s == session.duration_s:
            print(f"{folder.name[:28]:30s}heard whole")
            continue
        found[folder.name] = its = differences(session, arguments.mixes)
        print(row(folder.name, f"{heard_s:.0f} of {session.duration_s:.0f} s", its), flush=True)
    if len(found) > 1:
        keys = next(iter(found.values()))
        print(row("all", f"{len(found)} songs", {key: [v for its in found.values() for v in its[key]] for key in keys}))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
