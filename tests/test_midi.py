"""General MIDI files to stems: parts, tempo maps, excerpts, and rendering under limits."""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

mido = pytest.importorskip("mido", reason="needs the train extra")

from mixrl import fluidsynth, midi  # noqa: E402
from mixrl.errors import InputError, ProcessingError  # noqa: E402
from mixrl.fluidsynth import RATE, Synth, find_synth, render  # noqa: E402
from mixrl.midi import PROGRAMS, extract, part_of, parts_within, read_midi, window  # noqa: E402
from mixrl.roles import role_of  # noqa: E402

BEAT = 480


def message(kind: str, tick: int, **fields: object) -> tuple[int, object]:
    made = mido.MetaMessage(kind, **fields) if kind in ("set_tempo", "track_name") else mido.Message(kind, **fields)
    return tick, made


def notes(channel: int, key: int, starts: list[int], length: int, velocity: int = 90) -> list[tuple[int, object]]:
    found = []
    for tick in starts:
        found.append(message("note_on", tick, channel=channel, note=key, velocity=velocity))
        found.append(message("note_off", tick + length, channel=channel, note=key))
    return found


def control(channel: int, number: int, value: int, tick: int = 0) -> tuple[int, object]:
    return message("control_change", tick, channel=channel, control=number, value=value)


def save(path: Path, *tracks: list[tuple[int, object]], kind: int = 1, beat: int = BEAT) -> Path:
    file = mido.MidiFile(type=kind, ticks_per_beat=beat)
    for events in tracks:
        track, at = mido.MidiTrack(), 0
        for tick, event in sorted(events, key=lambda pair: pair[0]):
            track.append(event.copy(time=tick - at))
            at = tick
        file.tracks.append(track)
    file.save(path)
    return path


def band(path: Path, bars: int = 8, tempo: int = 500_000) -> Path:
    """Bass, organ that becomes strings half-way, kick and hats: four beats a bar."""
    beats = [BEAT * i for i in range(4 * bars)]
    half = beats[len(beats) // 2]
    conductor = [message("track_name", 0, name=" A\x07 song "), message("set_tempo", 0, tempo=tempo)]
    bass = [message("program_change", 0, channel=0, program=33), *notes(0, 40, beats, 300)]
    chords = [message("program_change", 0, channel=1, program=16), control(1, 7, 80)]
    chords += [message("program_change", half, channel=1, program=48), *notes(1, 60, beats[::4], 4 * BEAT - 10)]
    drums = [*notes(9, 36, beats, 60), *notes(9, 42, [b + BEAT // 2 for b in beats], 60)]
    return save(path, conductor, bass, chords, drums)


# -------------------------------------------------------------------------------------------------------- names


def test_every_program_and_drum_is_named_in_words_that_tell_its_role() -> None:
    assert len(PROGRAMS) == 128
    for program in range(128):
        part = part_of(2, program, 60)
        assert role_of(f"07_{part.stem_name}") == part.role, part
    for key in range(128):
        part = part_of(9, 0, key)
        assert role_of(f"07_{part.stem_name}") == part.role, part
    assert [part_of(9, 0, key).role for key in (36, 38, 46, 50, 57, 54)] == [
        "kick", "snare", "hats", "toms", "cymbals", "percussion",
    ]  # fmt: skip
    assert [PROGRAMS[i][0] for i in (0, 19, 30, 38, 40, 52, 61, 73, 81, 89, 105, 126)] == [
        "keys", "keys", "guitar", "bass", "strings", "backing", "brass", "brass", "synth", "pad", "guitar", "fx",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ reading


def test_parts_are_channel_and_program_and_drums_by_instrument(tmp_path: Path) -> None:
    song = read_midi(band(tmp_path / "a.mid"))
    assert song.title == "A song"
    counts = Counter(note.part.stem_name for note in song.notes)
    assert counts == {
        "bass_Fingered Bass": 32, "keys_Drawbar Organ": 4, "strings_String Ensemble 1": 4, "kick": 32, "hats": 32,
    }  # fmt: skip


def test_a_note_keeps_the_program_it_began_with(tmp_path: Path) -> None:
    events = [message("program_change", 0, channel=3, program=0), *notes(3, 60, [0], 960)]
    events += [message("program_change", 480, channel=3, program=40), *notes(3, 64, [500], 100)]
    song = read_midi(save(tmp_path / "a.mid", events))
    assert [(note.part.program, note.start, note.stop) for note in song.notes] == [(0, 0, 960), (40, 500, 600)]


def test_a_general_midi_reset_takes_all_programs_back(tmp_path: Path) -> None:
    events = [message("program_change", 0, channel=3, program=40), *notes(3, 60, [10], 100)]
    events += [message("sysex", 200, data=(0x7E, 0x7F, 0x09, 0x01)), *notes(3, 60, [300], 100)]
    song = read_midi(save(tmp_path / "a.mid", events))
    assert [note.part.program for note in song.notes] == [40, 0]
    file, _ = extract(song, song.notes[1].part, (0.0, 2.0))
    assert any(m.type == "sysex" for m in file.tracks[0])


@pytest.mark.parametrize("seed", range(4))
def test_the_tempo_map_agrees_with_midos_own(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    ticks = sorted(rng.sample(range(1, 20_000), 12))
    tempos = [message("set_tempo", tick, tempo=rng.randrange(200_000, 1_200_000)) for tick in ticks]
    starts = sorted(rng.sample(range(0, 25_000), 40))
    path = save(tmp_path / "a.mid", tempos, notes(0, 60, starts, 1))
    song = read_midi(path)
    now, onsets = 0.0, []
    for event in mido.MidiFile(path):  # time in seconds, by mido
        now += event.time
        if event.type == "note_on":
            onsets.append(now)
    np.testing.assert_allclose([song.seconds_at(note.start) for note in song.notes], onsets, atol=1e-9)
    for tick in [0, *ticks, *starts]:
        assert song.tick_at(song.seconds_at(tick) + 1e-7) == tick


def test_the_fingerprint_is_of_the_music_alone(tmp_path: Path) -> None:
    a, slower = band(tmp_path / "a.mid"), band(tmp_path / "slower.mid", tempo=600_000)
    other_resolution = save(tmp_path / "b.mid", notes(0, 60, [0, 96, 144], 10), beat=96)
    same = save(tmp_path / "c.mid", notes(5, 60, [0, 480, 720], 100, velocity=20), beat=480)
    shifted = save(tmp_path / "d.mid", notes(5, 60, [0, 480, 700], 100), beat=480)
    prints = [read_midi(path).fingerprint for path in (a, slower, other_resolution, same, shifted)]
    assert prints[0] == prints[1] != prints[2] == prints[3] != prints[4]


@pytest.mark.parametrize("content", [b"", b"MThd", b"not a midi file at all", b"RIFF\0\0\0\0WAVEfmt "])
def test_what_is_no_midi_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.mid").write_bytes(content)
    with pytest.raises(InputError, match=r"odd\.mid"):
        read_midi(tmp_path / "odd.mid")


def test_files_without_notes_of_type_2_or_of_absurd_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without notes"):
        read_midi(save(tmp_path / "a.mid", [message("set_tempo", 0, tempo=500_000)]))
    with pytest.raises(InputError, match="type 2"):
        read_midi(save(tmp_path / "b.mid", notes(0, 60, [0], 10), kind=2))
    with pytest.raises(InputError, match="hours"):
        read_midi(save(tmp_path / "c.mid", notes(0, 60, [0, 200_000_000], 10)))


def test_damaged_files_are_read_or_refused_never_a_crash(tmp_path: Path) -> None:
    good = band(tmp_path / "good.mid", bars=2).read_bytes()
    rng = random.Random(1)
    complaints = []
    for i in range(150):
        data = bytearray(good)
        if i % 3 == 0:
            data = data[: rng.randrange(len(data))]
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256) if data else 0
        path = tmp_path / "bad.mid"
        path.write_bytes(data)
        try:
            song = read_midi(path)
            span = window(song)
            for part in parts_within(song, span):
                extract(song, part, span)[0].save(tmp_path / "part.mid")
        except InputError as error:
            complaints.append(str(error))
    assert len(complaints) > 20
    assert all("bad.mid" in said and "\n" not in said for said in complaints)


# ----------------------------------------------------------------------------------------------------- excerpts


def test_a_short_song_is_taken_whole_with_its_tail(tmp_path: Path) -> None:
    song = read_midi(band(tmp_path / "a.mid"))  # 8 bars of 2 s
    start, stop = window(song)
    assert start == 0.0
    assert 16.0 < stop <= 18.0


def test_the_window_is_where_most_parts_play(tmp_path: Path) -> None:
    every = [BEAT * i for i in range(240)]  # 120 s
    tracks = [notes(0, 40, every, 400)]
    for channel in (1, 2, 3):  # only from 70 to 90 s, and one of them from 60 s on
        low = 120 if channel == 1 else 140
        tracks.append([message("program_change", 0, channel=channel, program=20 * channel)])
        tracks[-1] += notes(channel, 60, [t for t in every if low * BEAT <= t < 180 * BEAT], 400)
    song = read_midi(save(tmp_path / "a.mid", *tracks))
    start, stop = window(song)
    assert stop - start == midi.WINDOW_S
    assert start <= 80.0 <= stop
    assert len(parts_within(song, (start, stop))) == 4
    assert len(parts_within(song, (0.0, 30.0))) == 1


def sounding(file: object) -> dict[tuple[int, int], list[float]]:
    """Onsets (s) by channel and key, as mido plays the file."""
    now, found = 0.0, {}
    for event in file:
        now += event.time
        if event.type == "note_on" and event.velocity:
            found.setdefault((event.channel, event.note), []).append(now)
    return found


def test_parts_share_one_clock_and_hold_every_note_of_the_window_once(tmp_path: Path) -> None:
    rng = random.Random(3)
    tempos = [message("set_tempo", BEAT * i, tempo=rng.randrange(300_000, 800_000)) for i in range(0, 200, 3)]
    tracks = [tempos]
    for channel in (0, 1, 9):
        starts = sorted(rng.sample(range(0, 200 * BEAT), 200))
        tracks.append([event for t in starts for event in notes(channel, rng.choice((36, 38, 42, 49)), [t], 100)])
    song = read_midi(save(tmp_path / "a.mid", *tracks))
    span = (40.0, 70.0)
    together: list[tuple[float, int, int]] = []
    leads = set()
    for part in parts_within(song, span):
        file, lead = extract(song, part, span)
        leads.add(lead)
        assert 3.9 < lead < 4.1
        kept = [m.tempo for m in file.tracks[0] if m.type == "set_tempo"]
        changes = [m.tempo for t, m in tempos if t <= song.tick_at(span[1] + 0.5)]
        assert kept == changes
        for (channel, key), onsets in sounding(file).items():
            assert part_of(channel, 0, key) == part
            together += [(onset + span[0] - lead, channel, key) for onset in onsets]
    assert len(leads) == 1
    wanted = [(song.seconds_at(n.start), n.part.channel, n.key) for n in song.notes]
    inside = sorted(w for w in wanted if span[0] <= w[0] < span[1])
    got = sorted(t for t in together if span[0] - 1e-6 <= t[0] < span[1] - 1e-6)
    assert [g[1:] for g in got] == [w[1:] for w in inside]
    np.testing.assert_allclose([g[0] for g in got], [w[0] for w in inside], atol=1e-6)


def test_what_was_set_before_the_cut_is_set_at_its_start(tmp_path: Path) -> None:
    events = [message("program_change", 0, channel=2, program=48), control(2, 7, 33, tick=5)]
    events += [control(2, 10, 12, tick=6), message("pitchwheel", 7, channel=2, pitch=900)]
    events += notes(2, 64, [50 * BEAT], 100 * BEAT, velocity=77)  # from 25 to 75 s: sounds when the cut begins
    events += notes(2, 70, [10 * BEAT], 5 * BEAT)  # over before the cut
    other = [control(4, 7, 99), *notes(4, 50, [80 * BEAT], 200 * BEAT)]
    song = read_midi(save(tmp_path / "a.mid", events, other))
    part = next(part for part in song.parts if part.channel == 2)
    file, lead = extract(song, part, (40.0, 70.0))
    head = [m for m in file.tracks[0] if m.time == 0]
    assert lead == pytest.approx(4.0)
    assert [m.type for m in head] == ["program_change", "control_change", "control_change", "pitchwheel", "note_on"]
    assert (head[1].value, head[2].value, head[3].pitch, head[4].note, head[4].velocity) == (33, 12, 900, 64, 77)
    assert {m.channel for m in file.tracks[0] if not m.is_meta} == {2}
    last = [m for m in file.tracks[0] if not m.is_meta][-1]
    assert (last.type, last.control) == ("control_change", 120), "a hanging note must not sound without end"
    assert file.length == pytest.approx(34.5, abs=0.01)


# ---------------------------------------------------------------------------------------------------- rendering


def fake(tmp_path: Path, body: str, limit_s: float = 20.0) -> Synth:
    """A program that stands in for FluidSynth; in `body`, $out is the file to write."""
    if sys.platform == "win32":
        pytest.skip("needs a POSIX shell")
    program, font = tmp_path / "synth.sh", tmp_path / "font.sf2"
    find = 'while [ "$1" != "-F" ]; do shift; done; out="$2"\n'
    program.write_text(f"#!/bin/sh\n{find}{body}\n")
    program.chmod(0o755)
    font.write_bytes(b"RIFF\0\0\0\0sfbk")
    return Synth(program, font, limit_s)


def test_a_synthesiser_that_runs_without_end_is_stopped(tmp_path: Path) -> None:
    synth = fake(tmp_path, "echo begun > $out; exec sleep 60", limit_s=0.5)
    with pytest.raises(ProcessingError, match=r"song\.mid: FluidSynth ran for more than 0\.5 s"):
        render(tmp_path / "song.mid", synth, 10.0)
    assert not (tmp_path / "song.wav").exists()


def test_a_synthesiser_that_writes_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fluidsynth, "FILE_LIMIT", 1 << 20)
    synth = fake(tmp_path, 'exec cat /dev/zero > "$out"')
    with pytest.raises(ProcessingError, match=r"song\.mid: FluidSynth failed \(it wrote without end\)"):
        render(tmp_path / "song.mid", synth, 1.0)
    assert not (tmp_path / "song.wav").exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [("echo no such preset >&2; exit 3", "no such preset"), ("exit 0", "nothing"), ("echo x > $out", "nothing")],
)
def test_a_synthesiser_that_fails_is_an_error_that_names_the_file(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(ProcessingError, match=rf"song\.mid: .*{said}"):
        render(tmp_path / "song.mid", fake(tmp_path, body), 1.0)


def test_soundfonts_are_checked_before_anything_is_rendered(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        find_synth(tmp_path / "none.sf2")
    (tmp_path / "text.sf2").write_text("RIFF or not")
    with pytest.raises(InputError, match="no SoundFont"):
        find_synth(tmp_path / "text.sf2")


@pytest.fixture(scope="module")
def synth() -> Synth:
    if shutil.which("fluidsynth") is None:
        pytest.skip("fluidsynth is not installed")
    folder = Path("/usr/share/sounds/sf2")
    font = next((f for name in ("TimGM6mb.sf2", "FluidR3_GM.sf2") if (f := folder / name).is_file()), None)
    if font is None:
        pytest.skip("no SoundFont is installed")
    return find_synth(font)


def test_parts_sum_to_the_whole_and_keep_level_and_pan(tmp_path: Path, synth: Synth) -> None:
    beats = [BEAT * i for i in range(12)]
    tracks = []
    for channel, volume, pan in ((2, 64, 0), (3, 127, 127)):
        settings = [message("program_change", 0, channel=channel, program=33), control(channel, 7, volume)]
        tracks.append([*settings, control(channel, 10, pan), *notes(channel, 45, beats, 400)])
    song = read_midi(save(tmp_path / "a.mid", *tracks, [*notes(9, 36, beats, 60), *notes(9, 49, [0], 60)]))
    span = window(song)
    each = {
        part.channel if part.program >= 0 else part.role: midi.render_part(song, part, span, synth, tmp_path)
        for part in parts_within(song, span)
    }
    whole = midi.render_part(song, None, span, synth, tmp_path)
    assert set(each) == {2, 3, "kick", "cymbals"}
    assert whole.shape == (2, round((span[1] - span[0]) * RATE))
    rest = np.sum(list(each.values()), axis=0) - whole
    assert np.sqrt(np.mean(rest**2)) < 0.01 * np.sqrt(np.mean(whole**2))
    quiet, loud = (np.sqrt(np.mean(each[channel] ** 2, axis=1)) for channel in (2, 3))
    assert quiet[0] > 30 * quiet[1]
    assert loud[1] > 30 * loud[0]
    assert 20 * np.log10(loud[1] / quiet[0]) == pytest.approx(40 * np.log10(127 / 64), abs=0.5)  # GM's volume law
    again = midi.render_part(song, None, span, synth, tmp_path)
    np.testing.assert_array_equal(again, whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mid"]


def test_a_note_that_is_never_ended_does_not_run_on(tmp_path: Path, synth: Synth) -> None:
    organ = [message("program_change", 0, channel=0, program=19), *notes(0, 60, [0], 100)[:1]]
    song = read_midi(save(tmp_path / "a.mid", [*organ, *notes(0, 72, [BEAT * 40], 100)]))
    audio = midi.render_part(song, song.parts[0], window(song), synth, tmp_path)
    assert np.abs(audio[:, -RATE // 4 :]).max() > 0.0
    assert audio.shape[1] <= midi.WHOLE_S * RATE
