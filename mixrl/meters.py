"""Loudness, true peak, spectrum and stereo of audio that arrives in blocks.

Conventions: audio is float32 of shape (channels, samples); loudness in LUFS, peaks in dBTP or dBFS, time in s.
A mono signal counts as dual mono: it reads 3.01 LU more than one channel alone. What is not defined is None:
the loudness of silence or of less than 0.4 s, short-term loudness and loudness range of less than 3 s.

Sources: ITU-R BS.1770-5 (K-weighting, gating, true peak), EBU Tech 3341 (momentary, short-term), EBU Tech
3342 (loudness range), IEC 61260-1 (third octaves).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixrl.compiled import bits_of, compiled, fused, number_of
from mixrl.errors import InputError
from mixrl.headers import RATES_HZ

if TYPE_CHECKING:
    from mixrl.audio import Source

Array = NDArray[np.float64]
Audio = NDArray[np.float32]
Complex = NDArray[np.complex64]
Indices = NDArray[np.int64]

THIRD_OCTAVES: Array = np.array(
    [20, 25, 31.5, 40, 50, 63, 80, 100, 125, 160, 200, 250, 315, 400, 500, 630, 800, 1000, 1250, 1600, 2000,
     2500, 3150, 4000, 5000, 6300, 8000, 10000, 12500, 16000, 20000],
    np.float64,
)  # fmt: skip
"""Nominal third-octave centres, 20 Hz to 20 kHz (31,)."""

THIRD_OCTAVE_EDGES: Array = 1000.0 * np.power(10.0, (np.arange(32) - 17.5) / 10.0)
"""Exact base-ten band edges in Hz (32,), IEC 61260-1."""

_CENTRES: Array = 1000.0 * np.power(10.0, (np.arange(31) - 17.0) / 10.0)

SPECTRUM_FLOOR_DB = -200.0
WIDTH_LIMIT_DB = 100.0

_LOUDNESS_OFFSET = -0.691  # BS.1770: a 997 Hz sine at 0 dBFS in one channel reads -3.01 LUFS
_SILENT_POWER = 1e-20  # -200 LUFS: below any dithered file, above rounding noise
_CHANNEL_WEIGHTS = {
    1: (2.0,),  # dual mono
    2: (1.0, 1.0),
    3: (1.0, 1.0, 1.0),
    4: (1.0, 1.0, 1.41, 1.41),  # L R Ls Rs
    5: (1.0, 1.0, 1.0, 1.41, 1.41),  # L R C Ls Rs
    6: (1.0, 1.0, 1.0, 0.0, 1.41, 1.41),  # L R C LFE Ls Rs
}

# BS.1770-5, tables 1 and 2, at 48 kHz.
_K_SHELF = (1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585)
_K_HIGHPASS = (1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621)

# True peak: 4 times oversampled (BS.1770-5, annex 2) by a Hann-windowed sinc of 49 taps, which passes the samples
# through and interpolates at 1/4, 1/2 and 3/4 by 12 taps each. It is libebur128's; the 48 taps that the annex gives
# as an example look at other points and ripple by 0.2 dB.
_TAPS = 12
_POINTS = np.arange(-6, 6) + np.array([[0.25], [0.5], [0.75]])
_INTERPOLATOR: Audio = (np.sinc(_POINTS) * np.cos(np.pi * _POINTS / _TAPS) ** 2).astype(np.float32)
_STRETCH = 64
_OVERSHOOT = np.float32(np.abs(_INTERPOLATOR).sum(axis=1).max() * 1.000001)  # of output over largest input


@dataclass(frozen=True)
class Measurement:
    """What a meter read. None where a value is not defined (silence, too short, not stereo).

    ``spectrum_db``: (31,) mean power per third octave in dBFS, channels' powers summed (a full-scale sine in
    one channel reads -3.01); not below -200; nan for bands centred at or above the Nyquist frequency.
    ``correlation``: -1..1, of left and right. ``width_db``: power of side over mid, within +-100 dB.
    ``psr_db``: true peak less short-term loudness where the latter is highest; of the whole if under 3 s.
    """

    integrated_lufs: float | None
    max_momentary_lufs: float | None
    max_short_term_lufs: float | None
    loudness_range_lu: float | None
    true_peak_dbtp: float | None
    sample_peak_dbfs: float | None
    duration_s: float
    sample_rate: int
    channels: int
    spectrum_db: Array | None = field(compare=False)
    correlation: float | None
    width_db: float | None
    psr_db: float | None

    @property
    def plr_db(self) -> float | None:
        """Peak to loudness ratio: true peak less integrated loudness, in dB."""
        if self.true_peak_dbtp is None or self.integrated_lufs is None:
            return None
        return self.true_peak_dbtp - self.integrated_lufs


class Meter:
    """Streaming meter: ``push`` blocks of any size, then read ``result``.

    Audio is gathered into whole seconds and measured second by second, so every filter, window and sum sees
    the same samples together: results are equal to the bit however the blocks are cut. Memory: two seconds of
    audio and 110 numbers per second measured.
    """

    def __init__(self, sample_rate: int, channels: int, *, spectrum: bool = True, true_peak: bool = True) -> None:
        """``sample_rate``: Hz, 8000 to 384000; ``channels``: 1 to 6; InputError for others.

        Without ``spectrum`` or ``true_peak`` the meter is quicker and these stay None, as do the stereo measures
        without the spectrum and PSR without the true peak. Channel orders: L R; L R C; L R Ls Rs; L R C Ls Rs;
        L R C LFE Ls Rs (BS.1770 weights, the LFE left out of the loudness).
        """
        if channels not in _CHANNEL_WEIGHTS:
            raise InputError(f"cannot meter {channels} channels: give 1 to 6 (mono, stereo, up to 5.1)")
        self.sample_rate = sample_rate
        self.channels = channels
        self._sos = k_weighting_sos(sample_rate)
        self._state = np.zeros((channels, 4))
        self._weights = np.array(_CHANNEL_WEIGHTS[channels])
        self._audio: Audio = np.zeros((channels, 2 * sample_rate + _TAPS), np.float32)  # last second, this
        self._fill = 0
        self._frames = 0
        self._energies: list[Array] = []  # K-weighted, per 10 ms
        self._sample_peak = 0.0
        self._true_peaks: list[Array] | None = [] if true_peak else None  # linear, per 100 ms
        self._stereo_sums = np.zeros(3)  # of L*L, R*R, L*R
        self._fft_size = _fft_size(sample_rate)
        self._spectrum: Array | None = np.zeros(self._fft_size // 2 + 1) if spectrum else None
        self._spectrum_weight = 0.0
        self._measurement: Measurement | None = None

    def push(self, block: Audio) -> None:
        """Take (channels, n) samples. Raises InputError on another shape, NaN or infinite samples."""
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise InputError(f"the meter expects shape ({self.channels}, samples), not {block.shape}")
        if self._measurement is not None:
            raise ValueError("this meter has given its result: make another one")
        rate, taken = self.sample_rate, 0
        while taken < block.shape[1]:
            count = min(rate - self._fill, block.shape[1] - taken)
            start = rate + self._fill
            self._audio[:, start : start + count] = block[:, taken : taken + count]
            self._fill += count
            taken += count
            if self._fill == rate:
                self._read(rate)
                self._audio[:, :rate] = self._audio[:, rate : 2 * rate]
                self._fill = 0

    def result(self) -> Measurement:
        """What was read; the meter takes no more after this."""
        if self._measurement is None:
            self._finish()
            energies, sizes = self._hops(1)
            momentary = _windows(energies, 40) / _windows(sizes, 40)
            short_term = self._window_powers(30)
            correlation, width = self._stereo()
            self._measurement = Measurement(
                integrated_lufs=gated_loudness(self._window_powers(4)),
                max_momentary_lufs=_loudness(momentary.max(initial=0.0)),
                max_short_term_lufs=_loudness(short_term.max(initial=0.0)),
                loudness_range_lu=loudness_range(_to_lufs(short_term)),
                true_peak_dbtp=_decibels(self._true_peak()),
                sample_peak_dbfs=_decibels(self._sample_peak),
                duration_s=self._frames / self.sample_rate,
                sample_rate=self.sample_rate,
                channels=self.channels,
                spectrum_db=self._third_octaves(),
                correlation=correlation,
                width_db=width,
                psr_db=self._psr(short_term),
            )
        return self._measurement

    def hop_powers(self) -> Array:
        """Mean K-weighted power per whole 100 ms hop read so far (hops,), weighted sum over the channels."""
        energies, sizes = self._hops(10)
        return energies / sizes

    def _read(self, count: int) -> None:
        """Measure the ``count`` new samples, a whole second unless the signal ends."""
        rate = self.sample_rate
        new = self._audio[:, rate : rate + count]
        peaks = [_flush(row) for row in new]
        ends = _hop_ends(rate, 100, count)
        energies = np.zeros(len(ends))
        for first in range(0, self.channels, 2):
            second = min(first + 1, self.channels - 1)
            weights = self._weights[first], self._weights[second] if second > first else 0.0
            states = self._state[first], self._state[second]
            _add_k_energies(new[first], new[second], self._sos, *states, ends, *weights, energies)
        sample_peak = max(map(float, peaks))
        if not np.isfinite(peaks).all():
            raise InputError(
                f"the audio holds NaN or infinite samples near {self._frames / rate:.0f} s:"
                " repair it or export it again"
            )
        self._energies.append(energies)
        self._sample_peak = max(self._sample_peak, sample_peak)
        if self._true_peaks is not None:
            self._true_peaks.append(_hop_peaks(self._audio[:, rate - _TAPS + 1 : rate + count], rate))
        if self.channels == 2 and self._spectrum is not None:
            _add_stereo_sums(new[0], new[1], self._stereo_sums)
        self._frames += count
        if self._spectrum is not None and count == rate:  # Welch: frames of one second, every half second
            frames = [self._audio[:, rate : 2 * rate]]
            if self._frames > rate:
                frames.append(self._audio[:, rate // 2 : rate // 2 + rate])
            self._add_spectrum(np.concatenate(frames))

    def _finish(self) -> None:
        """Measure what is left of the last second."""
        rate, count = self.sample_rate, self._fill
        if count:
            self._read(count)
        if self._true_peaks:  # the interpolator's tail belongs to the last hop
            tail = self._audio[:, rate + count - _TAPS + 1 : rate + count + _TAPS - 1].copy()
            tail[:, _TAPS - 1 :] = 0.0
            self._true_peaks[-1][-1] = max(self._true_peaks[-1][-1], _hop_peaks(tail, rate).max())
        if self._spectrum is not None and count:
            length = min(self._frames, rate)  # the last whole second, or all there is
            self._add_spectrum(self._audio[:, rate + count - length : rate + count])

    def _hops(self, group: int) -> tuple[Array, Array]:
        """Energies and sample counts of whole hops of ``group`` x 10 ms."""
        energies = np.concatenate([np.zeros(0), *self._energies])
        sizes = np.diff(np.arange(len(energies) + 1) * self.sample_rate // 100).astype(np.float64)
        whole = len(energies) // group * group
        return energies[:whole].reshape(-1, group).sum(axis=1), sizes[:whole].reshape(-1, group).sum(axis=1)

    def _window_powers(self, hops: int) -> Array:
        """Mean powers of windows of ``hops`` x 100 ms, one every 100 ms."""
        energies, sizes = self._hops(10)
        return _windows(energies, hops) / _windows(sizes, hops)

    def _true_peak(self, first: int = 0, stop: int | None = None) -> float | None:
        """Linear true peak of 100 ms hops ``first`` up to ``stop``; never below a sample."""
        if self._true_peaks is None:
            return None
        return float(np.concatenate([np.zeros(0), *self._true_peaks])[first:stop].max(initial=0.0))

    def _psr(self, short_term: Array) -> float | None:
        if len(short_term):
            loudest = int(short_term.argmax())
            level, peak = short_term[loudest], self._true_peak(loudest, loudest + 30)
        else:
            energies, sizes = self._hops(1)
            level, peak = energies.sum() / max(sizes.sum(), 1.0), self._true_peak()
        loudness, peak_db = _loudness(level), _decibels(peak)
        return None if loudness is None or peak_db is None else peak_db - loudness

    def _stereo(self) -> tuple[float | None, float | None]:
        """Correlation, and the power of side over mid in dB."""
        left, right, both = self._stereo_sums
        silent = _SILENT_POWER * self._frames
        if self.channels != 2 or max(left, right) <= silent:
            return None, None
        limit = 10.0 ** (-WIDTH_LIMIT_DB / 10.0)
        mid, side = left + right + 2.0 * both, left + right - 2.0 * both
        width = 10.0 * np.log10(max(side, limit * mid) / max(mid, limit * side))
        if min(left, right) <= silent:
            return None, float(width)
        return float(np.clip(both / np.sqrt(left * right), -1.0, 1.0)), float(width)

    def _add_spectrum(self, frames: Audio) -> None:
        """Add the power spectra of (frames, up to a second) to the sums, in bins of about 1 Hz."""
        from scipy.fft import rfft  # batched and in float32, several times as fast as numpy's

        assert self._spectrum is not None
        window = _sine_window(frames.shape[1])
        _add_powers(rfft(frames * window, self._fft_size, axis=1), self._spectrum)
        self._spectrum_weight += frames.shape[0] / self.channels * float(np.square(window, dtype=float).sum())

    def _third_octaves(self) -> Array | None:
        if self._spectrum is None:
            return None
        power = np.zeros(31)
        if self._spectrum_weight > 0.0:
            scale = np.full(len(self._spectrum), 2.0)  # one-sided
            scale[0] = 1.0
            if self._fft_size % 2 == 0:
                scale[-1] = 1.0
            bins = self._spectrum * scale / (self._fft_size * self._spectrum_weight)
            # Bin k holds the power from k - 1/2 to k + 1/2 bins; an edge inside a bin shares it.
            edges = (np.arange(len(bins) + 1) - 0.5) * self.sample_rate / self._fft_size
            power = np.diff(np.interp(THIRD_OCTAVE_EDGES, edges, np.append(0.0, np.cumsum(bins))))
        levels: Array = 10.0 * np.log10(np.maximum(power, 10.0 ** (SPECTRUM_FLOOR_DB / 10.0)))
        levels[self.sample_rate / 2 <= _CENTRES] = np.nan
        return levels


def measure(source: Source, *, spectrum: bool = True) -> Measurement:
    """Measure a whole source, block by block; ``spectrum`` as for ``Meter``. Raises InputError when it holds NaN or
    infinite samples."""
    meter = Meter(source.sample_rate, source.channels, spectrum=spectrum)
    for block in source.blocks():
        meter.push(block)
    return meter.result()


def measure_array(x: Audio, sample_rate: int) -> Measurement:
    """Measure (channels, samples). Raises InputError as ``Meter`` does."""
    meter = Meter(sample_rate, x.shape[0])
    meter.push(x)
    return meter.result()


def hop_powers(blocks: Iterable[Audio], sample_rate: int, channels: int) -> Array:
    """Mean K-weighted power per whole 100 ms hop (hops,), weighted sum over the channels (mono doubled)."""
    meter = Meter(sample_rate, channels, spectrum=False, true_peak=False)
    for block in blocks:
        meter.push(block)
    meter.result()
    return meter.hop_powers()


def integrated(blocks: Iterable[Audio], sample_rate: int, channels: int) -> float | None:
    """Integrated loudness in LUFS of (channels, n) blocks; None for silence or less than 0.4 s."""
    return gated_loudness(_windows(hop_powers(blocks, sample_rate, channels), 4) / 4.0)


def gated_loudness(block_powers: Array) -> float | None:
    """Integrated loudness in LUFS from the powers of 400 ms blocks at 75% overlap (blocks,).

    BS.1770-5: mean power of the blocks above -70 LUFS and above 10 LU under the mean of those. None if there
    are none.
    """
    powers = block_powers[block_powers > 10.0 ** ((-70.0 - _LOUDNESS_OFFSET) / 10.0)]
    if len(powers) == 0:
        return None
    return _loudness(powers[powers > 0.1 * powers.mean()].mean())


def loudness_range(short_term_lufs: Array) -> float | None:
    """Loudness range in LU from short-term loudness every 100 ms (values,), -inf where silent.

    EBU Tech 3342: distance of the 10th and 95th percentiles (nearest rank) of the values above -70 LUFS and
    above 20 LU under the mean power of those. None if there are none.
    """
    values = short_term_lufs[short_term_lufs > -70.0]
    if len(values) == 0:
        return None
    values = np.sort(values[values > 10.0 * np.log10(np.mean(10.0 ** (values / 10.0))) - 20.0])
    low, high = (values[int((len(values) - 1) * rank + 0.5)] for rank in (0.10, 0.95))
    return float(high - low)


def true_peak(x: Audio, sample_rate: int) -> float:
    """Linear true peak of (channels, samples): 4 times oversampled (BS.1770-5, annex 2); 0 if empty.

    Silence is taken before the first sample and after the last, and no result is below the largest sample.
    """
    padding = np.zeros((x.shape[0], _TAPS - 1), np.float32)
    return float(_hop_peaks(np.concatenate([padding, x, padding], axis=1), sample_rate).max(initial=0.0))


@functools.lru_cache(maxsize=8)
def k_weighting_sos(sample_rate: int) -> Array:
    """K-weighting as second-order sections (2, 6), b0 b1 b2 1 a1 a2, at any rate from 8 to 384 kHz.

    At 48 kHz the coefficients are those of BS.1770-5. At other rates the standard asks for the response that
    they give at 48 kHz, which a bilinear transform bends by up to 0.5 dB at 8 kHz. So here the poles are mapped
    exactly, p ** (48000 / rate), and the zeros set so that the response agrees at three frequencies (of the
    high-pass: two zeros at 0 Hz and one frequency). It is within 0.05 dB of the response at 48 kHz at a rate of
    8 kHz, 0.005 dB from 22 kHz on, up to the lower of the two Nyquist frequencies. Raises InputError for other
    rates.
    """
    low, high = RATES_HZ
    if not low <= sample_rate <= high:
        raise InputError(f"cannot meter at {sample_rate} Hz: resample to between {low} and {high} Hz")
    standard = np.array([_K_SHELF, _K_HIGHPASS])
    if sample_rate == 48000:
        return standard
    top = min(sample_rate, 48000) / 2
    sections = []
    for section, points in zip(standard, ((0.0, 0.4 * top, top), (0.5 * top,)), strict=True):
        frequencies = np.array(points)
        denominator = np.poly(np.roots(section[3:]) ** (48000 / sample_rate)).real
        wanted = _power(section[:3], frequencies, 48000) / _power(section[3:], frequencies, 48000)
        wanted *= _power(denominator, frequencies, sample_rate)
        if len(points) == 1:
            numerator = np.array([1.0, -2.0, 1.0])
            numerator *= np.sqrt(wanted / _power(numerator, frequencies, sample_rate))
        else:
            # |B|^2 = r0 + 2 r1 cos w + 2 r2 cos 2w: solve for r, take the roots inside the circle.
            cosines = np.cos(np.outer(2.0 * np.pi * frequencies / sample_rate, [0.0, 1.0, 2.0]))
            r0, r1, r2 = np.linalg.solve(cosines * [1.0, 2.0, 2.0], wanted)
            roots = np.roots([r2, r1, r0, r1, r2])
            numerator = np.poly(roots[np.abs(roots) < 1.0]).real
            numerator *= np.sqrt(wanted[0]) / numerator.sum()
        sections.append(np.concatenate([numerator, denominator]))
    return np.array(sections)


def k_weighting_power(frequencies: Array, sample_rate: int) -> Array:
    """Squared magnitude of the K-weighting at ``frequencies`` in Hz, same shape."""
    shelf, highpass = k_weighting_sos(sample_rate)
    above, below = (
        _power(shelf[part], frequencies, sample_rate) * _power(highpass[part], frequencies, sample_rate)
        for part in (slice(0, 3), slice(3, 6))
    )
    return np.asarray(above / below)


def _power(polynomial: Array, frequencies: Array, sample_rate: int) -> Array:
    """|p(z)|^2 of a polynomial in 1/z at ``frequencies``."""
    delay: NDArray[np.complex128] = np.exp(-2j * np.pi * np.asarray(frequencies, np.float64) / sample_rate)
    return np.asarray(np.abs(polynomial[0] + delay * (polynomial[1] + delay * polynomial[2])) ** 2)


def _windows(values: Array, width: int) -> Array:
    """Sums over every ``width`` neighbours; summed afresh, so that silence after music is zero."""
    if len(values) < width:
        return np.zeros(0)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(values, width).sum(axis=1))


def _to_lufs(powers: Array) -> Array:
    with np.errstate(divide="ignore"):
        return _LOUDNESS_OFFSET + 10.0 * np.log10(powers)


def _loudness(power: float) -> float | None:
    return float(_to_lufs(np.float64(power))) if power > _SILENT_POWER else None


def _decibels(amplitude: float | None) -> float | None:
    return 20.0 * float(np.log10(amplitude)) if amplitude else None


def _fft_size(length: int) -> int:
    """The next length from ``length`` without prime factors above 5, for which the FFT is quick."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


@functools.lru_cache(maxsize=2)
def _sine_window(length: int) -> Audio:
    # its squares add up to one at half overlap, so every sample counts alike: with Hann, sparse hits would not
    return np.sin(np.pi * (np.arange(length) + 0.5) / length).astype(np.float32)


def _hop_ends(sample_rate: int, hops_per_second: int, count: int) -> Indices:
    """Ends of the whole hops in the first ``count`` samples of a second."""
    ends = np.arange(1, hops_per_second + 1) * sample_rate // hops_per_second
    return ends[ends <= count]


def _hop_peaks(x: Audio, sample_rate: int) -> Array:
    """Linear true peak per 100 ms (hops,), the last may be short, of (channels, 11 samples of past + n)."""
    count = x.shape[1] - _TAPS + 1
    ends = _hop_ends(sample_rate, 10, count)
    if count and (len(ends) == 0 or ends[-1] < count):
        ends = np.append(ends, count)
    peaks = np.zeros(len(ends))
    for channel in x:
        _raise_peaks(channel, ends, _INTERPOLATOR, _OVERSHOOT, peaks)
    return peaks


@compiled
def _flush(x: Audio) -> np.float32:
    """Set samples under 1e-30 to zero in place: subnormal numbers are a hundred times slower. Returns the highest
    magnitude, which rises with its bits; NaN is above all."""
    highest = np.int32(0)
    for n in range(len(x)):
        x[n] = x[n] if not abs(x[n]) < 1e-30 else np.float32(0.0)
        highest = max(highest, bits_of(x[n]) & np.int32(0x7FFFFFFF))
    return np.float32(number_of(highest))


@fused
def _add_k_energies(  # type: ignore[no-untyped-def]
    left: Audio, right: Audio, sos: Array, state, other_state, ends: Indices, weight, other_weight, energies: Array
) -> None:
    """Add ``weight`` and ``other_weight`` times the energy of K-weighted left and right (n,) in each hop to
    ``energies``; the states (4,) go on. A channel alone goes with itself, weighted by 0.

    Direct form II; the leading gains are taken out of the loop, and the high-pass has its zeros at 0 Hz. Each sample
    waits for the one before: two channels at once take no longer than one.
    """
    b0, b1, b2, _, a1, a2 = sos[0]
    d0, _, _, _, c1, c2 = sos[1]
    gain = (b0 * d0) ** 2
    b1, b2 = b1 / b0, b2 / b0
    s1, s2, t1, t2 = state
    u1, u2, v1, v2 = other_state
    start = 0
    for hop in range(len(ends)):
        energy = other_energy = 0.0
        for n in range(start, ends[hop]):
            s0 = (left[n] - a2 * s2) - a1 * s1
            u0 = (right[n] - a2 * u2) - a1 * u1
            t0 = ((s0 + (b1 * s1 + b2 * s2)) - c2 * t2) - c1 * t1
            v0 = ((u0 + (b1 * u1 + b2 * u2)) - c2 * v2) - c1 * v1
            weighted, other = (t0 + t2) - 2.0 * t1, (v0 + v2) - 2.0 * v1
            energy += weighted * weighted
            other_energy += other * other
            s1, s2, t1, t2 = s0, s1, t0, t1
            u1, u2, v1, v2 = u0, u1, v0, v1
        energies[hop] += gain * (weight * energy + other_weight * other_energy)
        start = ends[hop]
        if max(abs(s1), abs(s2), abs(t1), abs(t2), abs(u1), abs(u2), abs(v1), abs(v2)) < 1e-30:
            s1 = s2 = t1 = t2 = u1 = u2 = v1 = v2 = 0.0  # or silence decays into subnormal numbers
    state[0], state[1], state[2], state[3] = s1, s2, t1, t2
    other_state[0], other_state[1], other_state[2], other_state[3] = u1, u2, v1, v2


@compiled
def _add_stereo_sums(left: Audio, right: Audio, sums: Array) -> None:
    """Add the sums of L*L, R*R and L*R to ``sums`` (3,)."""
    ll = rr = lr = 0.0
    for n in range(len(left)):
        a, b = np.float64(left[n]), np.float64(right[n])
        ll += a * a
        rr += b * b
        lr += a * b
    sums[0] += ll
    sums[1] += rr
    sums[2] += lr


@compiled
def _add_powers(bins: Complex, powers: Array) -> None:
    """Add the squared magnitudes of (frames, n) to ``powers`` (n,)."""
    for frame in bins:
        for n in range(len(frame)):
            powers[n] += frame[n].real * frame[n].real + frame[n].imag * frame[n].imag


@compiled
def _raise_peaks(x: Audio, ends: Indices, phases: Audio, overshoot: np.float32, peaks: Array) -> None:
    """Raise ``peaks`` (hops,) to the true peaks of x (11 + n,), the first 11 samples being the past.

    An interpolated sample is at most ``overshoot`` times the largest of the 12 that it is made of: stretches
    that cannot raise the peak of their hop so far are left out, which changes no result. The phases are each
    other's mirror images, so that the order of taps in time is of no account.
    """
    past = len(phases[0]) - 1
    high = np.zeros(_STRETCH, np.float32)
    start = 0
    for hop in range(len(ends)):
        peak = np.float32(peaks[hop])
        for sample in x[start + past : ends[hop] + past]:
            peak = max(peak, abs(sample))
        for first in range(start, ends[hop], _STRETCH):
            stretch = x[first : min(first + _STRETCH, ends[hop]) + past]
            largest = np.float32(0.0)
            for sample in stretch:
                largest = max(largest, abs(sample))
            if largest * overshoot <= peak:
                continue
            high[:] = 0.0
            for phase in phases:
                for n in range(np.uint64(len(stretch) - past)):  # unsigned, so that the loop is vectorised
                    value = np.float32(0.0)
                    for tap in range(np.uint64(_TAPS)):
                        value += phase[tap] * stretch[n + tap]
                    value = abs(value)
                    high[n] = value if value > high[n] else high[n]
            for value in high:
                peak = max(peak, value)
        peaks[hop] = peak
        start = ends[hop]
