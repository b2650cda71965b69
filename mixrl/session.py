"""Stem, Session: find the audio of a session, validate it, place it on one time line. Read on demand, in blocks.

What is found is decided here once: which files are stems, which belong together, which are left out (clicks,
guides, the mix itself), at which rate and from which sample on each one plays.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from mixrl.audio import (
    BLOCK,
    LOUDEST_PLAUSIBLE,
    ArraySource,
    FileSource,
    FloatArray,
    Source,
    read,
    resampled,
)
from mixrl.errors import InputError
from mixrl.headers import FFMPEG_SUFFIXES, RATES_HZ, SUFFIXES
from mixrl.mixdown import find_mixdown
from mixrl.roles import role_of
from mixrl.threads import threads
from mixrl.wishes import FILE, Wishes, asked_of, read_wishes

SILENT_PEAK = 1e-4
"""-80 dBFS: a stem that never gets above is dither or hum, and counts as silent."""
LONGEST_GAP_S = 600.0
"""Time references that would leave a longer gap without any stem are taken for defaults, not for places."""


# ----------------------------------------------------------------------------------------------------- the session


@dataclass(frozen=True)
class Stem:
    """One stem. `source` is at the session's rate and starts at sample `offset` of the session's time line."""

    name: str  # unique; relative path without suffix, "drums/kick"
    source: Source
    files: tuple[Path, ...] = ()
    group: str | None = None  # first sub-folder, or what mixrl.toml says
    role: str | None = None  # what mixrl.toml says; None: its name and its sound have to tell
    offset: int = 0
    silent: bool = False
    peak: float = 0.0  # largest |sample|, full scale 1.0
    activity: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros(0, np.float32), repr=False, compare=False
    )  # mean square (over the channels, too) of each second of the session's time line

    @property
    def channels(self) -> int:
        return self.source.channels


@dataclass(frozen=True)
class LeftOut:
    """A file that lies in the folder but is no stem; `reason`: "click", "guide" or "mix"."""

    name: str
    file: Path
    reason: str


@dataclass(frozen=True)
class Session:
    """Stems on one time line of `frames` samples at `sample_rate`; stems are sorted by name."""

    name: str
    sample_rate: int
    frames: int
    stems: tuple[Stem, ...]
    folder: Path | None = None
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def duration_s(self) -> float:
        return self.frames / self.sample_rate

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(stem.name for stem in self.stems)

    def stem(self, name: str) -> Stem:
        """The stem of that name; InputError where there is none."""
        for stem in self.stems:
            if stem.name == name:
                return stem
        raise InputError(f"{name}: no such stem in {self.name}: it has {', '.join(self.names)}")

    def source(self, stem: Stem | str) -> Source:
        """The stem on the session's time line: zeros before its offset and after its end."""
        stem = self.stem(stem) if isinstance(stem, str) else stem
        return _Placed(stem.source, stem.offset, self.frames)

    def blocks(
        self, stem: Stem | str, start: int = 0, stop: int | None = None, size: int = BLOCK
    ) -> Iterator[FloatArray]:
        """Blocks (channels, n) of the stem on the session's time line."""
        return self.source(stem).blocks(start, stop, size)

    def read(self, stem: Stem | str, start: int = 0, stop: int | None = None) -> FloatArray:
        """Samples [start, stop) of the stem on the session's time line: (channels, n)."""
        return read(self.source(stem), start, stop)

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.floating]], sample_rate: int, name: str = "session"
    ) -> Session:
        """A session from arrays (n,), (1, n) or (2, n), full scale 1.0; shorter ones are padded at the end.

        InputError for no arrays, other shapes, integers, NaN or absurd values. Nothing is left out.
        """
        if not arrays:
            raise InputError(f"{name}: no stems: give at least one array")
        placed = []
        for stem, array in arrays.items():
            array = np.asarray(array)
            if array.dtype.kind != "f":
                raise InputError(f"{stem}: an array of {array.dtype}: give floats with full scale 1.0")
            source = ArraySource(array, sample_rate)
            if not 1 <= source.channels <= 2 or not source.frames:
                shape = "x".join(map(str, array.shape))
                raise InputError(f"{stem}: an array of shape {shape}: give (samples,), (1, samples) or (2, samples)")
            group = stem.partition("/")[0] if "/" in stem else None
            placed.append(Stem(stem, source, group=group))
        return _assembled(name, None, sample_rate, [_scanned(stem) for stem in placed], [], [])


@dataclass(frozen=True)
class _Placed:
    """A source on a time line of `frames`, from sample `offset` on, with zeros around it."""

    inner: Source
    offset: int
    frames: int

    @property
    def sample_rate(self) -> int:
        return self.inner.sample_rate

    @property
    def channels(self) -> int:
        return self.inner.channels

    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[FloatArray]:
        start = max(0, start)
        stop = self.frames if stop is None else min(stop, self.frames)
        if self.offset == 0 and stop <= self.inner.frames:
            yield from self.inner.blocks(start, stop, size)
            return
        inner = self.inner.blocks(max(0, start - self.offset), max(0, stop - self.offset), size)
        rest = np.zeros((self.channels, 0), np.float32)
        for at in range(start, stop, size):
            n = min(size, stop - at)
            out = np.zeros((self.channels, n), np.float32)
            here = min(max(0, self.offset - at), n)
            end = min(max(0, self.offset + self.inner.frames - at), n)
            while here < end:
                rest = rest if rest.shape[1] else next(inner)
                part = rest[:, : end - here]
                out[:, here : here + part.shape[1]] = part
                rest = rest[:, part.shape[1] :]
                here += part.shape[1]
            yield out


@dataclass(frozen=True)
class _Pair:
    """Two mono sources as left and right; the shorter is padded."""

    left: Source
    right: Source

    @property
    def sample_rate(self) -> int:
        return self.left.sample_rate

    @property
    def channels(self) -> int:
        return 2

    @property
    def frames(self) -> int:
        return max(self.left.frames, self.right.frames)

    def blocks(self, start: int = 0, stop: int | None = None, size: int = BLOCK) -> Iterator[FloatArray]:
        sides = [_Placed(side, 0, self.frames).blocks(start, stop, size) for side in (self.left, self.right)]
        for left, right in zip(*sides, strict=True):
            yield np.concatenate([left, right])


# ------------------------------------------------------------------------------------------------------- loading


def load_session(folder: str | os.PathLike[str], *, include: Sequence[str] = ()) -> Session:
    """Load a folder of stems: sub-folders are groups; all audio below the folder counts.

    Reads every file once (silence, NaN, activity) and no more than a few blocks of it at a time.

    - Mono files named left and right of one thing ("OH.L", "OH.R") are joined.
    - Broadcast-WAV time references place the stems, relative to the earliest, if all of them have one.
    - The session's rate is the most common one (the higher of two as common); the others are resampled.
    - A ``mixrl.toml`` in the folder says what stems are, how they are grouped, and what to take back (``wishes``).
    - Left out, with a warning: click and guide tracks (by name), the mix itself (by nulling against the sum of
      the others; by coherence if it is called a mix or master). `include` takes back what matches a stem's
      name, a file's name, or a glob of these.

    Raises InputError, naming the file and the mend, for a folder or file that cannot be read, no audio, damaged
    audio, NaN or absurd samples, more than two channels, an `include` that matches nothing, and a `mixrl.toml` that
    means nothing.
    """
    root = Path(folder)
    sources = [FileSource(path) for path in _audio_files(root)]
    wishes = read_wishes(root)
    for source in sources:
        if source.channels > 2:
            mend = "split it into mono or stereo files, or fold it down to stereo"
            raise InputError(f"{source.path}: has {source.channels} channels: {mend}")
        if not RATES_HZ[0] <= source.sample_rate <= RATES_HZ[1]:
            mend = f"resample it to between {RATES_HZ[0]} and {RATES_HZ[1]} Hz"
            raise InputError(f"{source.path}: has a sample rate of {source.sample_rate} Hz: {mend}")
    base = _base(root, [source.path for source in sources])
    tracks = _joined(_named(base, sources))
    wanted = _matches(tracks, include, "--include") | _matches(tracks, wishes.include, f"{root / FILE}: include")
    out = [LeftOut(t.name, t.files[0], reason) for t in tracks if (reason := _click_or_guide(t, wanted))]
    tracks = [t for t in tracks if t.name not in {left.name for left in out}]
    if not tracks:
        raise InputError(f"{root}: only click or guide tracks in it: add stems, or take them back with --include")

    warnings: list[str] = []
    rates = Counter(t.source.sample_rate for t in tracks)
    rate = max(rates, key=lambda r: (rates[r], r))
    folders = (root.resolve().name, base.resolve().name)
    offsets, trouble = _offsets(tracks, rate, folders)
    warnings += trouble
    stems = [
        Stem(t.name, resampled(t.source, rate), t.files, t.name.partition("/")[0] if "/" in t.name else None, offset=at)
        for t, at in zip(tracks, offsets, strict=True)
    ]
    with ThreadPoolExecutor(min(8, threads())) as pool:
        stems = list(pool.map(_scanned, stems))

    while mix := _find_mix(stems, folders, wanted):
        out.append(LeftOut(mix.name, mix.files[0], "mix"))
        stems = [stem for stem in stems if stem is not mix]
    kept = {stem.name for stem in stems}
    odd = [t for t in tracks if t.source.sample_rate != rate and t.name in kept]
    if odd:
        listed = ", ".join(f"{t.name} ({t.source.sample_rate} Hz)" for t in odd)
        warnings.append(f"resampled to {rate} Hz, the rate of most stems: {listed}")
    for left in out:
        why = {"mix": "is the mix of the others", "click": "is a click track by its name"}
        said = why.get(left.reason, "is a guide track by its name")
        warnings.append(f"{left.name}: left out, it {said}; --include {_quoted(left.name)} takes it back")
    path, names = root / FILE, [stem.name for stem in stems]
    roles, groups = (asked_of(asked, names, path) for asked in (wishes.roles, wishes.groups))
    stems = [
        replace(stem, role=roles.get(stem.name), group=groups.get(stem.name, stem.group)) for stem in stems
    ]
    return replace(_assembled(base.resolve().name or "session", root, rate, stems, out, warnings), wishes=wishes)


@dataclass(frozen=True)
class _Track:
    """One or two files under one name, before anything is placed or resampled."""

    name: str
    source: Source
    files: tuple[Path, ...]
    time_reference: int | None


def _audio_files(root: Path) -> list[Path]:
    def refuse(error: OSError) -> NoReturn:
        at = error.filename or root
        raise InputError(f"{at}: cannot be read ({error.strerror}): check the path and its permissions")

    try:
        a_file = root.is_file()
    except OSError as error:  # a path may be too long to ask
        refuse(error)
    if a_file:
        raise InputError(f"{root}: is a file: give the folder that holds the stems")
    found = []
    for folder, below, files in os.walk(root, onerror=refuse):  # does not follow links to folders: no loops
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "__MACOSX")
        for name in sorted(files):
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES | FFMPEG_SUFFIXES:
                found.append(path)
    if not found:
        raise InputError(f"{root}: no audio files in it: give a folder of WAV, FLAC, AIFF, OGG or MP3 stems")
    return found


def _base(root: Path, files: Sequence[Path]) -> Path:
    """The deepest folder that holds everything, if `root` holds only folders around it."""
    while True:
        first = {path.relative_to(root).parts[0] for path in files}
        if len(first) > 1 or files[0].parent == root:
            return root
        root = root / first.pop()


def _named(base: Path, sources: Sequence[FileSource]) -> list[_Track]:
    names = Counter(source.path.relative_to(base).with_suffix("").as_posix() for source in sources)
    tracks = []
    for source in sources:
        relative = source.path.relative_to(base)
        name = relative.with_suffix("").as_posix()
        name = name if names[name] == 1 else relative.as_posix()
        tracks.append(_Track(name, source, (source.path,), source.probed.time_reference))
    return tracks


_SIDE = re.compile(r"(?P<base>.*[^\s._-])[\s._-]+[(\[]?(?P<side>l|r|left|right)[)\]]?(?P<tail>[\s._-]*\d*)", re.I)
_NUMBER = re.compile(r"(^|/)\d+[\s._-]+")


def _joined(tracks: Sequence[_Track]) -> list[_Track]:
    """Mono left and right files of one thing as one stereo track, under the name without the side.

    Track numbers in front ("03_OH L", "04_OH R") are looked past if that leaves just one of each side.
    """
    alone = list(tracks)
    for key_of in (lambda base: base, lambda base: _NUMBER.sub(r"\1", base)):
        sides: dict[str, dict[str, list[tuple[_Track, str]]]] = {}
        for track in alone:
            if track.source.channels == 1 and (match := _SIDE.fullmatch(track.name)):
                key = (key_of(match["base"]) + match["tail"]).casefold()
                side = match["side"][0].lower()
                sides.setdefault(key, {}).setdefault(side, []).append((track, match["base"] + match["tail"]))
        for found in sides.values():
            if sorted(map(len, found.values())) != [1, 1]:
                continue
            (left, name), (right, _) = found["l"][0], found["r"][0]
            same = left.source.sample_rate == right.source.sample_rate
            if not same or left.time_reference != right.time_reference or name in {t.name for t in alone}:
                continue
            alone = [t for t in alone if t is not left and t is not right]
            pair = _Pair(left.source, right.source)
            alone.append(_Track(name, pair, left.files + right.files, left.time_reference))
    return alone


def _matches(tracks: Sequence[_Track], include: Sequence[str], said: str) -> frozenset[str]:
    """The names of the tracks that `include` asks for; ``said``: where."""
    wanted = set()
    for pattern in include:
        asked = pattern.casefold()
        hits = {
            t.name
            for t in tracks
            for name in (t.name, Path(t.name).name, *(f.name for f in t.files), *(str(f) for f in t.files))
            if name.casefold() == asked or fnmatchcase(name.casefold(), asked)
        }
        if not hits:
            raise InputError(f"{said} {pattern}: matches no file of the session: give a stem, file name or glob")
        wanted |= hits
    return frozenset(wanted)


def _click_or_guide(track: _Track, wanted: frozenset[str]) -> str | None:
    """ "click" or "guide" if the name says so. A click that belongs to something ("Kick Click") is a stem."""
    if track.name in wanted:
        return None
    words = [word for word in re.split(r"[^a-z]+", track.name.casefold()) if word]
    if {"guide", "guides", "talkback", "slate"} & set(words):
        return "guide"
    clicks = {"click", "clicktrack", "clik", "klick", "clk", "metronome", "metronom", "countin"}
    counts = ("count", "in") in pairwise(words)
    if (clicks & set(words) or counts) and role_of(" ".join(w for w in words if w not in clicks)) is None:
        return "click"
    return None


def _offsets(tracks: Sequence[_Track], rate: int, folders: Sequence[str]) -> tuple[list[int], list[str]]:
    """Where each track starts, in samples at `rate`, and what there is to warn of."""
    nowhere = [0] * len(tracks)
    known = [t for t in tracks if t.time_reference is not None]
    if not any(t.time_reference for t in known):
        return nowhere, []
    # A bounce of the mix starts with the earliest stem, whether or not it says so.
    without = [t.name for t in tracks if t.time_reference is None and not _called_mix(t.name, folders)]
    if without:
        return nowhere, [f"time references ignored, for some stems have none: {', '.join(without)}"]
    first = min((t.time_reference or 0) / t.source.sample_rate for t in known)
    begins = [
        first if t.time_reference is None else t.time_reference / t.source.sample_rate for t in tracks
    ]
    reached = -np.inf
    for begin, track in sorted(zip(begins, tracks, strict=True), key=lambda pair: pair[0]):
        if begin - first > 86400 or (np.isfinite(reached) and begin - reached > LONGEST_GAP_S):
            return nowhere, [f"time references ignored, for {track.name} would start {begin - first:.0f} s late"]
        reached = max(reached, begin + track.source.frames / track.source.sample_rate)
    return [round((begin - first) * rate) for begin in begins], []


def _scanned(stem: Stem) -> Stem:
    """One pass over the audio: peak, silence, and the sum of squares in each second of the time line."""
    from mixrl.pcm import highest_and_energy

    rate = stem.source.sample_rate
    peak, sums = 0.0, [0.0] * (stem.offset // rate)
    late = stem.offset % rate
    for second in _Placed(stem.source, late, late + stem.source.frames).blocks(size=rate):
        loudest, energy = highest_and_energy(second)
        if not loudest <= LOUDEST_PLAUSIBLE:
            at = f"in second {len(sums)}"
            raise InputError(f"{stem.files[0] if stem.files else stem.name}: NaN or absurd samples {at}: mend them")
        peak = max(peak, loudest)
        sums.append(energy / stem.channels)
    return replace(stem, peak=peak, silent=peak <= SILENT_PEAK, activity=np.asarray(sums, np.float32))


def _assembled(
    name: str,
    folder: Path | None,
    rate: int,
    stems: Sequence[Stem],
    left_out: Sequence[LeftOut],
    warnings: Sequence[str],
) -> Session:
    frames = max(stem.offset + stem.source.frames for stem in stems)
    lengths = np.minimum(rate, frames - np.arange(0, frames, rate)).astype(np.float32)
    done = []
    for stem in sorted(stems, key=lambda stem: stem.name):
        activity = np.zeros(len(lengths), np.float32)
        activity[: len(stem.activity)] = stem.activity
        done.append(replace(stem, activity=activity / lengths))
    silent = [f"{stem.name}: is silent; it is kept and never amplified" for stem in done if stem.silent]
    return Session(name, rate, frames, tuple(done), folder, tuple(left_out), (*warnings, *silent))


def _quoted(name: str) -> str:
    return f'"{name}"' if re.search(r"[^\w./-]", name) else name


_MIX_WORDS = frozenset(["mix", "mixdown", "mixed", "mixes", "master", "mastered", "premaster", "remaster", "bounce"])


def _find_mix(stems: Sequence[Stem], folders: Sequence[str], wanted: frozenset[str]) -> Stem | None:
    """The stem that is the mix of the others, if there is one."""
    if len(stems) < 2:
        return None
    frames = max(stem.offset + stem.source.frames for stem in stems)
    length = max(len(stem.activity) for stem in stems)
    activity = np.stack([np.pad(stem.activity, (0, length - len(stem.activity))) for stem in stems])
    sources = [_Placed(stem.source, stem.offset, frames) for stem in stems]
    named = [_called_mix(stem.name, folders) for stem in stems]
    found = find_mixdown(sources, activity, named, [stem.name in wanted or stem.silent for stem in stems])
    return None if found is None else stems[found]


def _called_mix(name: str, folders: Sequence[str]) -> bool:
    """Whether the name claims to be the mix of everything: "Rough Mix 3", or the song's own name; "Drum Mix" not."""
    words = re.findall(r"[a-z]+", name.rpartition("/")[2].casefold())
    if "".join(words) in {"".join(re.findall(r"[a-z]+", folder.casefold())) for folder in folders}:
        return True
    return bool(_MIX_WORDS & set(words)) and role_of(" ".join(w for w in words if w not in _MIX_WORDS)) is None
