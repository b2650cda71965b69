"""General MIDI files -> stems: one per channel and program, drums by instrument, rendered dry with FluidSynth.

A stem's file holds every tempo and every controller of the song and the notes of one part, so the parts keep time
with each other, and the level and pan that their author gave them. (Needs mido, FluidSynth and a SoundFont.)
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mixrl.errors import InputError
from mixrl.fluidsynth import RATE, Synth, render

if TYPE_CHECKING:
    import mido

_Message: TypeAlias = Any  # mido.Message or mido.MetaMessage, which have no types

SUFFIXES = frozenset([".mid", ".midi"])
WINDOW_S = 30  # taken of a song that is longer than WHOLE_S
WHOLE_S = 40
TAIL_S = 2.0  # rung out after the last note of a song that is taken whole
PREROLL_S = 4.0  # rendered before the window and cut off: what rings into it
BREADTH_S = 10  # a part that plays for this long in a window counts in full
LONGEST_S = 4 * 3600.0
DRUMS = 9  # channel 10 to musicians

# Roles and names of the 128 programs (General MIDI System Level 1), in words of which mixrl.roles makes the role.
_PROGRAMS = (
    ("keys", "Grand Piano|Bright Piano|Electric Grand Piano|Honky-tonk Piano|E-Piano 1|E-Piano 2|Harpsichord|Clavinet"),
    ("keys", "Celesta|Glockenspiel|Music Box|Vibraphone|Marimba|Xylophone|Tubular Bells|Dulcimer"),
    ("keys", "Drawbar Organ|Jazz Organ|Rock Organ|Church Organ|Reed Organ|Accordion"),
    ("brass", "Harmonica"),
    ("keys", "Tango Accordion"),
    ("guitar", "Nylon Guitar|Steel Guitar|Jazz Guitar|Clean Guitar|Muted Guitar|Overdriven Guitar|Distortion Guitar"),
    ("guitar", "Guitar Harmonics"),
    ("bass", "Acoustic Bass|Fingered Bass|Picked Bass|Fretless Bass|Slap Bass 1|Slap Bass 2"),
    ("bass", "Synth Bass 1|Synth Bass 2"),
    ("strings", "Violin|Viola|Cello"),
    ("bass", "Contrabass"),
    ("strings", "Tremolo Strings|Pizzicato Strings|Harp"),
    ("percussion", "Timpani"),
    ("strings", "String Ensemble 1|String Ensemble 2|Synth Strings 1|Synth Strings 2"),
    ("backing", "Choir Aahs|Choir Oohs|Synth Choir"),
    ("strings", "Orchestra Hit"),
    ("brass", "Trumpet|Trombone|Tuba|Muted Trumpet|French Horn|Brass Section|Synth Brass 1|Synth Brass 2"),
    ("brass", "Soprano Sax|Alto Sax|Tenor Sax|Baritone Sax|Oboe|English Horn|Bassoon|Clarinet"),
    ("brass", "Piccolo|Flute|Recorder|Pan Flute|Blown Bottle|Shakuhachi|Whistle|Ocarina"),
    ("synth", "Square Lead|Saw Lead|Calliope Lead|Chiff Lead|Charang Lead|Solo Lead|Fifths Lead|Low Lead"),
    ("pad", "New Age Pad|Warm Pad|Poly Pad|Space Pad|Bowed Pad|Metallic Pad|Halo Pad|Sweep Pad"),
    ("pad", "Rain|Soundtrack|Crystal|Atmosphere|Brightness|Goblins|Echoes|Sci-fi"),
    ("guitar", "Sitar|Banjo|Shamisen|Koto"),
    ("keys", "Kalimba"),
    ("brass", "Bagpipe"),
    ("strings", "Fiddle"),
    ("brass", "Shanai"),
    ("keys", "Tinkle Bell"),
    ("percussion", "Agogo"),
    ("keys", "Steel Pans"),
    ("percussion", "Woodblock|Taiko"),
    ("toms", "Melodic Tom"),
    ("drums", "Electric Drum"),
    ("cymbals", "Reverse Cymbal"),
    ("fx", "Fret Noise|Breath Noise|Seashore|Bird Tweet|Telephone|Helicopter|Applause|Gunshot"),
)
PROGRAMS: tuple[tuple[str, str], ...] = tuple((role, name) for role, names in _PROGRAMS for name in names.split("|"))
"""(role, name) of each of the 128 programs; wind instruments are "brass", as in `mixrl.roles`."""
DRUM_KEYS: dict[str, tuple[int, ...]] = {
    "kick": (35, 36),
    "snare": (37, 38, 39, 40),  # and side stick, hand clap
    "hats": (42, 44, 46),
    "toms": (41, 43, 45, 47, 48, 50),
    "cymbals": (49, 51, 52, 53, 55, 57, 59),
}
"""The keys of channel 10 by instrument; all others are "percussion"."""
_DRUM_OF_KEY = {key: role for role, keys in DRUM_KEYS.items() for key in keys}


@dataclass(frozen=True, order=True)
class Part:
    """One stem of a song: what a channel plays with one program, or one instrument of the drum kit."""

    channel: int  # from 0
    program: int  # from 0; -1 for drums
    role: str
    name: str

    @property
    def stem_name(self) -> str:
        """What to call the stem: role and instrument, of which `mixrl.roles.role_of` makes the role again."""
        return self.role if self.program < 0 else f"{self.role}_{self.name}"


def part_of(channel: int, program: int, key: int) -> Part:
    """The part that a note (key 0 to 127) on a channel (from 0), with a program (from 0), belongs to."""
    if channel == DRUMS:
        role = _DRUM_OF_KEY.get(key, "percussion")
        return Part(channel, -1, role, role)
    return Part(channel, program, *PROGRAMS[program])


@dataclass(frozen=True)
class Event:
    """A message at a tick of the song; `part` for notes, None for what concerns a whole channel or everything."""

    tick: int
    message: _Message
    part: Part | None = None


@dataclass(frozen=True)
class Note:
    """A note of a part; it sounds from `start` to `stop` (ticks)."""

    part: Part
    start: int
    stop: int
    key: int
    velocity: int


@dataclass(frozen=True)
class MidiSong:
    """A General MIDI file: all tracks as one list of events in order of time."""

    path: Path
    title: str
    ticks_per_beat: int
    events: tuple[Event, ...]
    notes: tuple[Note, ...]

    @cached_property
    def _tempos(self) -> tuple[list[int], list[float], list[float]]:
        """Ticks at which the tempo changes, the seconds there, and the seconds per tick from there on."""
        ticks, seconds, lengths = [0], [0.0], [0.5 / self.ticks_per_beat]
        for event in self.events:
            if event.message.type == "set_tempo":
                seconds.append(seconds[-1] + (event.tick - ticks[-1]) * lengths[-1])
                ticks.append(event.tick)
                lengths.append(max(1, event.message.tempo) * 1e-6 / self.ticks_per_beat)
        return ticks, seconds, lengths

    def seconds_at(self, tick: int) -> float:
        """The time of a tick (s), by the song's tempo map."""
        ticks, seconds, lengths = self._tempos
        i = bisect_right(ticks, tick) - 1
        return seconds[i] + (tick - ticks[i]) * lengths[i]

    def tick_at(self, seconds: float) -> int:
        """The last tick at or before a time (s); 0 for a time before the start."""
        ticks, starts, lengths = self._tempos
        i = bisect_right(starts, max(0.0, seconds)) - 1
        return ticks[i] + int((max(0.0, seconds) - starts[i]) / lengths[i] + 1e-6)

    @property
    def duration_s(self) -> float:
        """The end of the last note (s)."""
        return max((self.seconds_at(note.stop) for note in self.notes), default=0.0)

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(sorted({note.part for note in self.notes}))

    @property
    def fingerprint(self) -> str:
        """A hash of the music alone: which keys start when, in 24ths of a beat. Sounds and tempo do not count."""
        notes = sorted((round(24 * note.start / self.ticks_per_beat), note.key) for note in self.notes)
        return hashlib.sha256(repr(notes).encode()).hexdigest()


def read_midi(path: Path) -> MidiSong:
    """Read a General MIDI file of type 0 or 1.

    Raises InputError, naming the file, for what is damaged or unreadable, holds no notes, has SMPTE time or
    independent tracks (type 2), or lasts more than four hours.
    """
    mido = load_mido()
    export = "export it again, or leave it out"
    try:
        file = mido.MidiFile(path, clip=True)
    except OSError as error:
        raise InputError(f"{path}: no MIDI file ({error.strerror or error or 'damaged'}): {export}") from None
    except (ValueError, KeyError, IndexError, EOFError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged MIDI ({error or type(error).__name__}): {export}") from None
    if file.type == 2 or not 0 < file.ticks_per_beat < 0x8000:
        raise InputError(f"{path}: MIDI of a kind that is not understood (type 2 or SMPTE time): {export} as type 1")
    merged: list[tuple[int, _Message]] = []
    title = ""
    for track in file.tracks:
        tick = 0
        for message in track:
            tick += message.time
            merged.append((tick, message))
            if message.type == "track_name" and not title and track is file.tracks[0]:
                title = " ".join("".join(c if c.isprintable() else " " for c in message.name).split())
    merged.sort(key=lambda pair: pair[0])  # stable: track by track within a tick, as players do it
    events, notes = _assigned(merged)
    song = MidiSong(path, title or path.stem, file.ticks_per_beat, tuple(events), tuple(notes))
    if not notes:
        raise InputError(f"{path}: a MIDI file without notes: leave it out")
    if song.duration_s > LONGEST_S:
        raise InputError(f"{path}: lasts {song.duration_s / 3600:.0f} hours: the file is damaged, {export}")
    return song


def load_mido() -> Any:
    """The module mido; InputError, with the mend, where it is not installed."""
    try:
        import mido
    except ImportError:
        raise InputError('reading MIDI files needs mido: install it with pip install "mixrl[train]"') from None
    return mido


def _assigned(merged: Sequence[tuple[int, _Message]]) -> tuple[list[Event], list[Note]]:
    """Every message with the part it belongs to, and the notes. A note keeps the program that it began with."""
    programs: dict[int, int] = defaultdict(int)
    open_: dict[tuple[int, int], list[Note]] = defaultdict(list)  # by channel and key
    last = merged[-1][0] if merged else 0
    events, notes = [], []
    for tick, message in merged:
        kind = message.type
        if kind == "note_on" and message.velocity > 0:
            part = part_of(message.channel, programs[message.channel], message.note)
            open_[message.channel, message.note].append(Note(part, tick, last, message.note, message.velocity))
            events.append(Event(tick, message, part))
        elif kind in ("note_on", "note_off"):
            if waiting := open_[message.channel, message.note]:
                note = waiting.pop(0)
                notes.append(replace(note, stop=tick))
                events.append(Event(tick, message, note.part))
        elif kind in ("sysex", "set_tempo") or not message.is_meta:
            if kind == "program_change":
                programs[message.channel] = message.program
            elif kind == "sysex" and _resets(message.data):
                programs.clear()
            events.append(Event(tick, message))
    notes += [note for waiting in open_.values() for note in waiting]  # never ended: they last to the end
    return events, sorted(notes, key=lambda note: (note.start, note.part, note.key))


def _resets(data: Sequence[int]) -> bool:
    """Whether a system-exclusive message is GM System On (or Off), or Roland's GS Reset."""
    general = len(data) >= 4 and data[0] == 0x7E and data[2] == 0x09
    return general or tuple(data[:1]) + tuple(data[2:7]) == (0x41, 0x42, 0x12, 0x40, 0x00, 0x7F)


def window(song: MidiSong) -> tuple[float, float]:
    """(start, stop) in s of the excerpt: the whole of a song up to WHOLE_S, else WINDOW_S in which most parts play.

    A part counts by the seconds in which it sounds, up to BREADTH_S of them: many parts go before busy ones.
    """
    end = song.duration_s
    if end + TAIL_S <= WHOLE_S:
        return 0.0, end + TAIL_S
    index = {part: i for i, part in enumerate(song.parts)}
    sounds = np.zeros((len(index), int(end) + 1), bool)
    for note in song.notes:
        first, last = song.seconds_at(note.start), song.seconds_at(note.stop)
        sounds[index[note.part], int(first) : max(int(first), int(np.ceil(last)) - 1) + 1] = True
    sums = np.concatenate([np.zeros((len(index), 1)), np.cumsum(sounds, axis=1)], axis=1)
    length = min(WINDOW_S, sounds.shape[1])
    heard = sums[:, length:] - sums[:, :-length]
    start = int(np.minimum(heard, BREADTH_S).sum(axis=0).argmax())
    return float(start), float(start + length)


def parts_within(song: MidiSong, span: tuple[float, float]) -> tuple[Part, ...]:
    """The parts that have a note between two times (s)."""
    low, high = (song.tick_at(s) for s in span)
    return tuple(sorted({note.part for note in song.notes if note.start < high and note.stop > low}))


def extract(song: MidiSong, part: Part | None, span: tuple[float, float]) -> tuple[mido.MidiFile, float]:
    """One part of a song (None: all of them) between two times (s), and how many seconds of lead-in come before.

    Tempo, programs, controllers, bends and system-exclusive messages from before the cut are sent at its start, and
    notes that still sound begin there. Everything in the file is on the same ticks for every part of the song.
    """
    mido = load_mido()
    first = song.tick_at(span[0] - PREROLL_S)
    last = song.tick_at(span[1] + 0.5)

    def wanted(event: Event) -> bool:
        if part is None or event.message.is_meta:
            return True
        if event.part is not None:
            return event.part == part
        return getattr(event.message, "channel", part.channel) == part.channel  # a song's other channels cost time

    events = [event for event in song.events if event.tick <= last and wanted(event)]
    timed = [(first, event.message) for event in events if event.tick < first and event.part is None]
    for note in song.notes:
        if note.start < first < note.stop and part in (None, note.part):
            on = mido.Message("note_on", channel=note.part.channel, note=note.key, velocity=note.velocity)
            timed.append((first, on))
    timed += [(event.tick, event.message) for event in events if event.tick >= first]
    # all sound off: FluidSynth goes on until the last voice is silent, and for a note that never ends, without end
    channels = range(16) if part is None else [part.channel]
    timed += [(last, mido.Message("control_change", channel=channel, control=120)) for channel in channels]
    track = mido.MidiTrack()
    for (before, _), (tick, message) in pairwise([(first, None), *timed]):
        track.append(message.copy(time=max(0, tick - before)))
    file = mido.MidiFile(type=0, ticks_per_beat=song.ticks_per_beat)
    file.tracks.append(track)
    return file, span[0] - song.seconds_at(first)


def render_part(
    song: MidiSong, part: Part | None, span: tuple[float, float], synth: Synth, folder: Path
) -> NDArray[np.float32]:
    """A part (None: all of them) between two times (s): float32 (2, n) at RATE. Works in `folder`."""
    file, lead = extract(song, part, span)
    name = f"{song.path.stem}, {'all parts' if part is None else part.stem_name}"
    path = folder / f"{name}.mid"
    file.save(path)
    try:
        audio = render(path, synth, lead + span[1] - span[0])
    finally:
        path.unlink(missing_ok=True)
    first, n = round(lead * RATE), round((span[1] - span[0]) * RATE)
    out = np.zeros((2, n), np.float32)
    piece = audio[:, first : first + n]
    out[:, : piece.shape[1]] = piece
    return out
