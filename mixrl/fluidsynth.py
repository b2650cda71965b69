"""FluidSynth as a program: MIDI file -> audio, dry, under a time limit and a size limit."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixrl.errors import InputError, ProcessingError

RATE = 44_100
GAIN = 0.2  # FluidSynth's own default; rendered in floating point, so nothing clips
FILE_LIMIT = 256 << 20  # bytes; the sound libraries that FluidSynth loads may make shared memory of up to 64 MB
SOUNDFONT_FOLDERS = ("/usr/share/sounds/sf2", "/usr/share/soundfonts", "/usr/local/share/soundfonts")
SOUNDFONT_NAMES = ("FluidR3_GM.sf2", "default-GM.sf2", "default.sf2", "TimGM6mb.sf2")


@dataclass(frozen=True)
class Synth:
    """FluidSynth with a SoundFont, dry; each run is stopped after `limit_s` seconds."""

    program: Path
    soundfont: Path
    limit_s: float = 60.0


def find_synth(soundfont: Path | None = None) -> Synth:
    """FluidSynth and the SoundFont given, or the system's (FluidR3 before others).

    InputError for a SoundFont that is missing or none; ProcessingError where FluidSynth is not installed.
    """
    found = soundfont
    if found is None:
        places = (Path(folder, name) for name in SOUNDFONT_NAMES for folder in SOUNDFONT_FOLDERS)
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise InputError("no SoundFont for MIDI files: install fluid-soundfont-gm, or give one with --soundfont")
    try:
        with found.open("rb") as f:
            head = f.read(12)
    except OSError as error:
        raise InputError(f"{found}: cannot be read ({error.strerror}): give a SoundFont (.sf2)") from None
    if head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise InputError(f"{found}: is no SoundFont: give an .sf2 file")
    program = shutil.which("fluidsynth")
    if program is None:
        raise ProcessingError("MIDI files need FluidSynth: install the program fluidsynth")
    return Synth(Path(program), found)


def render(file: Path, synth: Synth, seconds: float) -> NDArray[np.float32]:
    """Render a MIDI file of about `seconds`: float32 (2, n) at RATE, without reverb and chorus.

    ProcessingError, naming the file, when FluidSynth fails, takes longer than its limit or writes far more than
    `seconds`: on a broken file it can run without end and fill the disk.
    """
    import soundfile as sf

    out = file.with_suffix(".wav")
    command = [str(synth.program), "-n", "-i", "-q", "-R", "0", "-C", "0", "-g", str(GAIN), "-r", str(RATE)]
    command += ["-o", "synth.dynamic-sample-loading=1", "-T", "wav", "-O", "float", "-F", str(out)]
    command += [str(synth.soundfont), str(file)]
    limit = FILE_LIMIT + int(2 * seconds * RATE * 2 * 4)
    mend = "the MIDI file is broken: leave it out"
    try:
        with tempfile.TemporaryFile() as complaints:  # not a pipe: those of a broken file are without end, too
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                timeout=synth.limit_s,
                preexec_fn=_file_limit(limit),
            )
            complaints.seek(0)
            words = complaints.read(2000).decode(errors="replace").split()[:24]
        if done.returncode:
            why = " ".join(words) or f"status {done.returncode}"
            why = "it wrote without end" if done.returncode == _TOO_LARGE else why
            raise ProcessingError(f"{file.name}: FluidSynth failed ({why}): {mend}")
        audio, rate = sf.read(out, dtype="float32", always_2d=True)
    except subprocess.TimeoutExpired:
        raise ProcessingError(f"{file.name}: FluidSynth ran for more than {synth.limit_s:g} s: {mend}") from None
    except (sf.SoundFileError, OSError):
        raise ProcessingError(f"{file.name}: FluidSynth rendered nothing: {mend}") from None
    finally:
        out.unlink(missing_ok=True)
    if rate != RATE or audio.shape[1] != 2 or not np.isfinite(audio).all():
        raise ProcessingError(f"{file.name}: FluidSynth rendered what is no audio at {RATE} Hz: {mend}")
    return np.ascontiguousarray(audio.T)


_TOO_LARGE = -getattr(signal, "SIGXFSZ", 25)


def _file_limit(size: int) -> Callable[[], None] | None:
    if sys.platform == "win32":
        return None
    import resource

    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
