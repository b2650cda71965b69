"""What the excerpt that was listened to tells of the whole song.

The excerpt is where most stems play, so it is louder than the song, by a LU or so, and its balance is not that of the
whole. How much energy every stem has in every second is known of the whole song from reading it: a stem is taken to
sound elsewhere as it does in the excerpt, louder or softer. Of the loudness only the difference between excerpt and
song is worked out so, and of the spectrum the difference in each band, both added to what the closed form predicts of
the excerpt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixrl.measures import CENTRES_HZ, Array, decibels, gate
from mixrl.meters import k_weighting_power
from mixrl.scene import Scene
from mixrl.session import Session
from mixrl.settings import MixSettings

_TINY = 1e-20


@dataclass(frozen=True)
class Whole:
    """A mix of the whole song before the master gain. integrated_lufs: loudness; louder_lu: how much louder than that
    the excerpt is; spectrum_db: (31,) power per third-octave, channels added."""

    integrated_lufs: float
    louder_lu: float
    spectrum_db: Array


def whole(session: Session, heard: Session, scene: Scene, settings: MixSettings) -> Whole:
    """What settings make of a song. heard: the excerpt of the session; scene: what it sounds like."""
    predicted = scene.measures(settings)
    powers = scene.own_power(scene.knobs(settings))
    everywhere, here = (np.stack([stem.activity for stem in its.stems]).astype(np.float64) for its in (session, heard))
    energy = here.mean(axis=1)
    each = np.where(energy > _TINY, 1.0 / np.maximum(energy, _TINY), 0.0)  # what was not heard is not known
    loud = (powers @ k_weighting_power(CENTRES_HZ, session.sample_rate)) * each
    louder = float(gate(loud @ here) - gate(loud @ everywhere))
    bands = powers.T @ (each * everywhere.mean(axis=1)), powers.T @ (each * energy)
    change_db = decibels(np.maximum(bands[0], _TINY)) - decibels(np.maximum(bands[1], _TINY))
    return Whole(float(predicted.integrated_lufs) - louder, louder, predicted.spectrum_db + change_db)
