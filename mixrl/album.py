"""Songs of one album: what is done to their level and tone is done to all of them alike, so that what differs between
the songs stay as people meant them.

Level: one offset for the album, added to every song's mix as it leaves the faders. With it the loudest song is at the
target, unless some song would have to be limited too much for that: then all stay below.

Tone: by itself, a song is brought a little nearer to the spectrum of finished songs than it came. On an album, what
counts is how far the songs together are from these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mixrl.session import Session

Tone = Sequence[float | None]


def tone_of(session: Session) -> tuple[float | None, ...]:
    """(31,) how far a song's spectrum is from that of finished songs at the levels where people would have its stems,
    dB per third-octave; None where it has no content, and everywhere where nobody knows these levels."""
    from mixrl.excerpt import excerpt
    from mixrl.people import informed
    from mixrl.scene import Scene
    from mixrl.score import own_tone
    from mixrl.sound_roles import guessed

    facts = informed(guessed(Scene.of(excerpt(session)))).facts
    own, judged = own_tone(facts)
    return tuple(round(float(x), 3) if known else None for x, known in zip(own, judged, strict=True))


def shared_tone(tones: Iterable[Tone]) -> tuple[float, ...]:
    """The mean of the songs that have content there, (31,) dB; 0 where none has."""
    bands = zip(*tones, strict=True)
    known = [[value for value in band if value is not None] for band in bands]
    return tuple(round(sum(band) / len(band), 3) if band else 0.0 for band in known)


def album_offset_db(songs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """By how much all mixes are turned up, dB, from each song's loudness before the master and what it could be brought
    to, LUFS; None where no song has a loudness."""
    room = [reached - before for before, reached in songs if before is not None and reached is not None]
    return round(min(room), 3) if room else None
