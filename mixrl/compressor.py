"""The strip's compressor: feed-forward, soft knee, all channels of a stem turned down together.

After Giannoulis, Massberg and Reiss, "Digital Dynamic Range Compressor Design", JAES 60(6), 2012: static
curve in decibels (their eq. 4), then the smooth decoupled peak detector on the gain reduction (eq. 17). The
detector hears the loudest channel through an 80 Hz high-pass (second-order Butterworth), so that a bass note
does not duck what is above it. The threshold is relative to the stem's own loudness: turning a stem up or
down beforehand changes nothing but its level. There is no make-up gain here (``variants`` matches loudness).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixrl.compiled import fused, inner
from mixrl.decibels import to_decibels, to_gains
from mixrl.errors import InputError

DETECTOR_HIGHPASS_HZ = 80.0
HOP_S = 0.1
_SPAN = 512
ACTIVE_DB = -20.0  # hops quieter than this, relative to the stem's loudness, are left out of the mean reduction


@dataclass(frozen=True)
class Preset:
    """threshold_db: above the stem's gated loudness, for the detector's peak level (a sine's peak in dBFS is
    its loudness in LUFS); ratio: input over output dB; knee_db: whole width; attack_s, release_s: time
    constants (63%)."""

    threshold_db: float
    ratio: float
    knee_db: float
    attack_s: float
    release_s: float


# "off" is no preset: there is then nothing to run
PRESETS: dict[str, Preset] = {
    "gentle": Preset(threshold_db=4.0, ratio=2.0, knee_db=10.0, attack_s=0.030, release_s=0.250),
    "medium": Preset(threshold_db=0.5, ratio=3.0, knee_db=6.0, attack_s=0.015, release_s=0.150),
    "firm": Preset(threshold_db=-2.0, ratio=4.0, knee_db=6.0, attack_s=0.005, release_s=0.100),
}


class Compressor:
    """One stem's compressor, streaming; the result does not depend on the size of the blocks."""

    def __init__(self, sample_rate: int, channels: int, preset: Preset, loudness_lufs: float) -> None:
        """``loudness_lufs``: the stem's gated loudness, which the threshold is relative to.

        Raises InputError when it is not finite.
        """
        if not math.isfinite(loudness_lufs):
            raise InputError(f"the compressor needs the stem's loudness, not {loudness_lufs!r}")
        self._detector = _highpass(sample_rate)
        self._curve = np.array(
            [
                loudness_lufs + preset.threshold_db,
                1 - 1 / preset.ratio,
                preset.knee_db,
                math.exp(-1 / (preset.attack_s * sample_rate)),
                math.exp(-1 / (preset.release_s * sample_rate)),
            ]
        )
        self._filter_state = np.zeros((channels, 2))
        self._state = np.zeros(2)  # gain reduction in dB: after the release stage, after the attack stage
        # this hop: frames, sum of reduction, sum of power; active hops: count, sum of their mean reductions
        self._hops = np.zeros(5)
        mean_square = 10 ** ((loudness_lufs + ACTIVE_DB) / 10) / (2 if channels == 1 else 1)
        self._hop_frames = max(1, round(HOP_S * sample_rate))
        self._active_energy = mean_square * self._hop_frames

    def process(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """The next (channels, n) of the compressed stem, without delay."""
        out = np.empty_like(block)
        _compress(
            block,
            out,
            self._detector,
            self._curve,
            self._filter_state,
            self._state,
            self._hops,
            self._hop_frames,
            self._active_energy,
        )
        return out

    @property
    def gain_reduction_db(self) -> float:
        """Mean reduction so far (dB, positive) over the 100 ms hops in which the stem is active."""
        return float(self._hops[4] / self._hops[3]) if self._hops[3] else 0.0


def _highpass(sample_rate: int) -> NDArray[np.float64]:
    """(b0, b1, b2, a1, a2) of the detector's Butterworth high-pass, by the bilinear transform."""
    k = math.tan(math.pi * min(DETECTOR_HIGHPASS_HZ / sample_rate, 0.4))
    scale = 1 / (1 + math.sqrt(2) * k + k * k)
    return np.array([scale, -2 * scale, scale, 2 * (k * k - 1) * scale, (1 - math.sqrt(2) * k + k * k) * scale])


@fused
def _compress(x, out, detector, curve, filters, state, hops, hop_frames, active_energy):  # type: ignore[no-untyped-def]
    """In spans of up to ``_SPAN`` frames, none of which goes on into another hop: what hangs on the sample before (the
    filter, the two smoothing stages) in loops of its own, and decibels and gains, which do not, on vector units."""
    b0, b1, b2, a1, a2 = detector[0], detector[1], detector[2], detector[3], detector[4]
    threshold, slope, knee, attack, release = curve[0], curve[1], curve[2], curve[3], curve[4]
    audible = 10.0 ** ((threshold - knee / 2) / 20.0)
    held, smooth = state[0], state[1]
    gains = np.zeros(_SPAN, dtype=np.float32)
    first, last = 0, x.shape[0] - 1  # of one channel, the same: side by side they take no longer
    s0, s1, t0, t1 = filters[first, 0], filters[first, 1], filters[last, 0], filters[last, 1]
    start = 0
    while start < x.shape[1]:
        count = min(_SPAN, x.shape[1] - start, hop_frames - int(hops[0]))
        left, right = x[first, start : start + count], x[last, start : start + count]
        top, energy = 0.0, 0.0
        for n in range(count):
            v, w = np.float64(left[n]), np.float64(right[n])
            y, z = b0 * v + s0, b0 * w + t0
            s0, t0 = b1 * v - a1 * y + s1, b1 * w - a1 * z + t1
            s1, t1 = b2 * v - a2 * y, b2 * w - a2 * z
            peak = max(abs(y), abs(z))
            top = max(top, peak)
            energy += v * v + w * w
            gains[n] = peak
        if max(abs(s0), abs(s1), abs(t0), abs(t1)) < 1e-30:  # or silence would decay into subnormal numbers
            s0 = s1 = t0 = t1 = 0.0
        reduced = 0.0
        if top > audible or held > 0.0 or smooth > 0.0:
            _wanted(gains, threshold, slope, knee, audible)
            for n in range(count):
                wanted = np.float64(gains[n])
                held = max(wanted, release * held + (1 - release) * wanted)
                smooth = attack * smooth + (1 - attack) * held
                if smooth < 1e-6 and held < 1e-6:  # so that silence ends at rest, exactly
                    held = smooth = 0.0
                gains[n] = smooth
                reduced += smooth
            to_gains(gains)
            for c in range(x.shape[0]):
                dry, wet = x[c, start : start + count], out[c, start : start + count]
                for n in range(count):
                    wet[n] = dry[n] * gains[n]
        else:
            for c in range(x.shape[0]):
                dry, wet = x[c, start : start + count], out[c, start : start + count]
                for n in range(count):
                    wet[n] = dry[n]
        start += count
        hops[0] += count
        hops[1] += reduced
        hops[2] += energy if x.shape[0] == 2 else 0.5 * energy
        if hops[0] >= hop_frames:
            if hops[2] > active_energy:
                hops[3] += 1
                hops[4] += hops[1] / hops[0]
            hops[0] = 0.0
            hops[1] = 0.0
            hops[2] = 0.0
    state[0], state[1] = held, smooth
    filters[first, 0], filters[first, 1] = s0, s1
    filters[last, 0], filters[last, 1] = t0, t1


@inner
def _wanted(peaks, threshold, slope, knee, audible):  # type: ignore[no-untyped-def]
    """Peaks (n,), linear, become the gain reduction in dB that the static curve asks for."""
    least = np.float32(max(0.5 * audible, 1e-30))
    for n in range(peaks.shape[0]):
        peaks[n] = max(peaks[n], least)
    to_decibels(peaks)
    lower, half, bend = np.float32(threshold), np.float32(knee / 2), np.float32(0.5 / knee)
    steep, zero, two = np.float32(slope), np.float32(0.0), np.float32(2.0)
    for n in range(peaks.shape[0]):
        over = two * peaks[n] - lower
        inside = max(min(over, half) + half, zero)
        peaks[n] = steep * (bend * inside * inside + max(over - half, zero))
