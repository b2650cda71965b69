"""What says more of the sound of people's mix: finished songs, or the stems as they came?

    python benchmarks/sound.py DATASET [--copies 6] [--cache DIR]

Training and validation sessions are broken as in training (``agent.tasks.damaged``), their stems brought to the levels
that the prior expects, which has not heard the song, and the mix is held against people's: its third-octave spectrum,
its width, how audible its stems are and where they stand. "finished" is the RMS distance of people's mixes from the
middle that the score goes by where nothing else is known (``data/reference.json``, the limit of audibility, the
centre); "as it came" that from the broken copy's mix; "weight" how far from the former towards the latter the least
squares lie. It is what the trust in the stems' own sound in ``mixrl/score.py`` was set by.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mixrl.agent.config import Practice
from mixrl.agent.material import load_material, session_folders
from mixrl.agent.tasks import Practised, damaged, practised
from mixrl.measures import Array, Measures
from mixrl.people import informed
from mixrl.rules import expected_mix
from mixrl.scene import Scene
from mixrl.score import AUDIBLE_DB, reference, yardstick

FLOOR_DB = 30.0  # what is further off does not count further


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--copies", type=int, default=6, help="broken copies of each session")
    parser.add_argument("--cache", type=Path, help="folder that remembers sessions listened to")
    arguments = parser.parse_args()
    folders = [f for part in ("train", "validation") for f in session_folders([arguments.dataset], part)]
    with TemporaryDirectory() as temporary:
        material = load_material(folders, arguments.cache or Path(temporary), jobs=2)
    sessions = [one for one in practised(material) if one.human]
    for kind, real in (("real", True), ("MIDI", False)):
        its = [one for one in sessions if one.real == real]
        pairs = [_pairs(one, number, copy) for number, one in enumerate(its) for copy in range(arguments.copies)]
        print(f"{kind}: {len(its)} songs, {len(pairs)} copies")
        for what in pairs[0]:
            came, peoples = (np.concatenate([pair[what][side] for pair in pairs]) for side in (0, 1))
            weight = float(came @ peoples / max(float(came @ came), 1e-9))
            finished, apart = _rms(peoples), _rms(peoples - came)
            print(f"  {what:16s} finished {finished:6.2f}  as it came {apart:6.2f}  weight {weight:5.2f}")


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _pairs(session: Practised, number: int, copy: int) -> dict[str, tuple[Array, Array]]:
    """By measure: the broken copy's mix at the expected levels, and people's mix, both against the usual middle."""
    broken = damaged(session.scene, Practice(), np.random.default_rng([number, copy]))
    scene = informed(broken, session.prior)
    both = scene.measures(expected_mix(scene)), session.scene.measures(session.scene.neutral())
    came, peoples = (_against_usual(measures, scene) for measures in both)
    return {what: (came[what], peoples[what]) for what in came}


def _against_usual(measures: Measures, scene: Scene) -> dict[str, Array]:
    usual, judged, heard = reference(), yardstick(scene.facts).bands > 0.0, scene.facts.audible
    spectrum = (measures.spectrum_db - usual.level_db)[judged]
    return {
        "spectrum, dB": spectrum - spectrum.mean(),
        "side/mid, dB": np.clip((measures.side_mid_db - usual.side_mid_db)[judged], -FLOOR_DB, FLOOR_DB),
        "audibility, dB": np.clip(measures.audibility_db - AUDIBLE_DB, -FLOOR_DB, 0.0)[heard],
        "position": measures.position[heard],
    }


if __name__ == "__main__":
    main()
