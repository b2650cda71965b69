"""The measures of any settings, by rendering them through pedalboard and metering the audio.

The other side of ``scene``: the same ``Measures`` from audio that was really made. It is what the
final choice between mixes trusts, and what the closed form is tested against.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixrl.analysis import analyse_sum
from mixrl.audio import TemporaryAudio, read
from mixrl.limiter import Limiter
from mixrl.measures import SILENCE_DB, Measures, decibels
from mixrl.memory import give_back
from mixrl.meters import Meter
from mixrl.render import SumSource, mix_frames, render_stem
from mixrl.scene import Scene, reader
from mixrl.session import Session
from mixrl.settings import MixSettings
from mixrl.threads import threads


class Rendered:
    """Measures settings of one session on rendered audio. scene: of the same session."""

    def __init__(self, session: Session, scene: Scene) -> None:
        self.session, self.scene = session, scene

    def measures(self, settings: MixSettings) -> Measures:
        """Render, meter mix and stems. Mix loudness, peaks and limiting are the meters' and the limiter's own; spectra
        are those of the rendered stems, summed. Where settings only turn stems up, down and aside, these are known from
        the stems as they are, exactly."""
        rate, predicted = self.session.sample_rate, self.scene.measures(settings)
        if _only_scales(settings):
            mix, measured = self.mix(settings), predicted
        else:
            strips = self._strips(settings)
            give_back()
            readers = [reader(strip.source()) for strip in strips]
            pairs = self.scene.analysis.pairs
            made = Scene(self.scene.facts, analyse_sum(readers, rate, self.session.frames, pairs))
            give_back()
            mix, measured = _summed(strips), made.measures(made.neutral())
        meter = Meter(rate, 2, spectrum=False)
        meter.push(mix)
        reading = meter.result()
        measured = replace(  # what is a property of the settings, not of the sound
            measured,
            eq_change_db=predicted.eq_change_db,
            gain_reduction_db=predicted.gain_reduction_db,
            tempo_ratio=predicted.tempo_ratio,
        )
        if reading.integrated_lufs is None:
            return measured
        short = reading.max_short_term_lufs
        peak = SILENCE_DB if reading.sample_peak_dbfs is None else reading.sample_peak_dbfs
        gain = self.scene.facts.target_lufs - reading.integrated_lufs
        limiter = Limiter(rate, 2, self.scene.facts.ceiling_dbtp)
        limiter.process(mix * np.float32(10.0 ** (gain / 20.0)))
        limiter.flush()
        reduction = limiter.gain_reduction_db()
        loudest = measured.short_term_lufs if short is None else np.float64(short)
        inside = loudest + (reading.psr_db or 0.0)  # the peak where it is loudest, as the limiter would let it through
        psr = min(inside + gain, self.scene.facts.ceiling_dbtp) - (loudest + gain)
        return replace(
            measured,
            integrated_lufs=np.float64(reading.integrated_lufs),
            short_term_lufs=loudest,
            loudness_range_lu=np.float64(reading.loudness_range_lu or 0.0),
            peak_dbfs=np.float64(peak),
            crest_db=np.float64(peak - decibels(float(np.mean(mix.astype(np.float64) ** 2)))),
            limiting_db=np.float64(np.percentile(reduction, 99.0) if len(reduction) else 0.0),
            psr_db=np.float64(psr),
        )

    def mix(self, settings: MixSettings) -> NDArray[np.float32]:
        """(2, frames) the rendered stems, summed, before the master."""
        mix = np.zeros((2, self.session.frames), dtype=np.float32)
        rendered = read(SumSource(self.session, settings))
        mix[:, : rendered.shape[1]] = rendered[:, : mix.shape[1]]  # at another tempo it is longer or shorter
        return mix

    def _strips(self, settings: MixSettings) -> list[TemporaryAudio]:
        with ThreadPoolExecutor(threads()) as pool:  # decoding and pedalboard release the GIL
            return list(pool.map(lambda name: self._strip(settings, name), self.scene.facts.names))

    def _strip(self, settings: MixSettings, name: str) -> TemporaryAudio:
        """The stem as it enters the mix, as long as the session at its own tempo; silent past the end of the mix."""
        spool = TemporaryAudio(self.session.sample_rate, 2)
        written = 0
        stop = min(self.session.frames, mix_frames(self.session, settings))
        for block in render_stem(self.session, settings, name, 0, stop):
            spool.write(block)
            written += block.shape[1]
        if written < self.session.frames:
            spool.write(np.zeros((2, self.session.frames - written), dtype=np.float32))
        return spool


def _only_scales(settings: MixSettings) -> bool:
    """Whether no strip does more than gain, pan and polarity."""
    return all(
        strip.highpass_hz is None
        and strip.compressor == "off"
        and strip.tempo_ratio == 1.0
        and all(band.gain_db == 0.0 for band in strip.eq)
        for strip in settings.stems.values()
    )


def _summed(strips: Sequence[TemporaryAudio]) -> NDArray[np.float32]:
    """(2, frames) of strips that are equally long."""
    mix = np.zeros((2, strips[0].source().frames), dtype=np.float32)
    for strip in strips:
        at = 0
        for block in strip.source().blocks():
            mix[:, at : at + block.shape[1]] += block
            at += block.shape[1]
    return mix
