"""Where the time goes: whole commands against the least that they could take, and the parts of the engine alone.

    python benchmarks/engine.py [--stems 8 24] [--seconds 180] [--formats wav flac] [--runs 5] [--parts] [--json FILE]

Songs are made by repeating the sample sessions' stems (stereo, 44.1 kHz, 24 bits, in a temporary folder). Every command
runs in a process of its own, in turn with the others, so that what else the machine does falls on all alike; CPU
seconds are those of the process and all its threads, start-up and imports included. Medians over the runs.

floor: decode all stems, sum, encode, in blocks, nothing else. unavoidable: the floor, and what the recipe asks for by
pedalboard (five bands of EQ on every stem, a compressor on every other one) and one pass of the limiter. mixrl render:
the same recipe, with loudness and true peak met and measured. mixrl mix: everything, from the folder on. ffmpeg: amix
and loudnorm in two passes; matchering: mastering one stereo pair of that length; where they are installed.

--parts: meters, limiter, spectrum and the analysis for the closed form, in times real time for each CPU second: of
music, and of 5 s of music before 25 s of zeros.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line sets it; numpy reads it when it is imported
import numpy as np

ROOT = Path(__file__).parent.parent
RATE = 44100
BLOCK = 65536
CEILING_DBTP, TARGET_LUFS = -1.0, -14.0
BANDS_DB = (2.0, -3.0, 1.5, -2.0, 2.5)


# ---- the least that could be done, each in a process of its own ----------------------------------------------------


def floor(folder: Path, output: Path) -> None:
    """Decode, sum, encode."""
    _least(folder, output, boards=[], limiter=None)


def unavoidable(folder: Path, output: Path) -> None:
    """The floor, the strips by pedalboard and one pass of the limiter."""
    import pedalboard

    from mixrl.limiter import Limiter
    from mixrl.settings import StripSettings
    from mixrl.strip import board

    strip = StripSettings()
    for band, gain_db in enumerate(BANDS_DB):
        strip = strip.with_band(band, gain_db=gain_db)
    boards = []
    for number in range(len(_files(folder))):
        plugins = list(board(strip, RATE))
        if number % 2 == 0:
            plugins.insert(0, pedalboard.Compressor(threshold_db=-20.0, ratio=3.0))
        boards.append(pedalboard.Pedalboard(plugins))
    _least(folder, output, boards, Limiter(RATE, 2, CEILING_DBTP))


def _least(folder: Path, output: Path, boards: Sequence[object], limiter: object) -> None:
    from pedalboard.io import AudioFile

    files = [AudioFile(str(path)) for path in _files(folder)]
    with AudioFile(str(output), "w", samplerate=RATE, num_channels=2, bit_depth=24) as written:
        left = max(file.frames for file in files)
        while left:
            count = min(BLOCK, left)
            total = np.zeros((2, count), dtype=np.float32)
            for number, file in enumerate(files):
                block = file.read(count)
                if boards:
                    block = boards[number].process(block, RATE, reset=False)  # type: ignore[attr-defined]
                total += block
            written.write(limiter.process(total) if limiter is not None else total)  # type: ignore[attr-defined]
            left -= count


def ffmpeg(folder: Path, output: Path) -> None:
    """amix, and loudnorm in two passes."""
    inputs = [word for path in _files(folder) for word in ("-i", str(path))]
    mixed = f"amix=inputs={len(_files(folder))}:normalize=0"
    wanted = f"loudnorm=I={TARGET_LUFS:g}:TP={CEILING_DBTP:g}:LRA=11"
    start = ["ffmpeg", "-nostdin", "-y", "-hide_banner", *inputs, "-filter_complex"]
    said = subprocess.run(
        [*start, f"{mixed},{wanted}:print_format=json", "-f", "null", "-"], capture_output=True, text=True, check=True
    ).stderr
    found = json.loads(said[said.rindex("{") : said.rindex("}") + 1])
    measured = ":".join(
        f"measured_{ours}={found[theirs]}"
        for ours, theirs in (("I", "input_i"), ("TP", "input_tp"), ("LRA", "input_lra"), ("thresh", "input_thresh"))
    )
    command = [*start, f"{mixed},{wanted}:{measured}:offset={found['target_offset']}", "-ar", str(RATE)]
    subprocess.run([*command, "-c:a", "pcm_s24le", str(output)], capture_output=True, check=True)


def matchering(folder: Path, output: Path) -> None:
    """Master one stem after another."""
    import matchering as others

    target, reference, *_ = _files(folder)
    others.process(target=str(target), reference=str(reference), results=[others.pcm24(str(output))])


CHILDREN: dict[str, Callable[[Path, Path], None]] = {
    "floor": floor,
    "unavoidable": unavoidable,
    "ffmpeg": ffmpeg,
    "matchering": matchering,
}


WIDTHS = (8, 9, 9, 8, 9, 7)  # of the columns


# ---- the table of commands -----------------------------------------------------------------------------------------


def commands(folder: Path, recipe: Path) -> dict[str, list[str]]:
    """What is run, by name."""
    here, line = [sys.executable, str(Path(__file__).resolve()), "--child"], [sys.executable, str(ROOT / "cli.py")]
    found = {name: [*here, name, str(folder)] for name in ("floor", "unavoidable")}
    found["mixrl render"] = [*line, "render", str(recipe), "--session", str(folder), "--force", "-o"]
    found["mixrl mix"] = [*line, "mix", str(folder), "--force", "--json", "-o"]
    if shutil.which("ffmpeg"):
        found["ffmpeg"] = [*here, "ffmpeg", str(folder)]
    if find_spec("matchering") is not None:
        found["matchering"] = [*here, "matchering", str(folder)]
    return found


def timed(command: Sequence[str]) -> dict[str, float]:
    """Wall and CPU seconds of a process and what it starts, and its largest resident set, MB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "mb": _megabytes(usage)}


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere


def make(folder: Path, stems: int, seconds: float, suffix: str) -> None:
    """A song of stereo stems of 24 bits, made by repeating those of the sample sessions, and its recipe beside it."""
    from mixrl.audio import Writer, read
    from mixrl.session import load_session

    folder.mkdir()
    sessions = [load_session(ROOT / "audio_samples" / name) for name in ("caesium", "hydrogen")]
    sources = [(session, stem) for session in sessions for stem in session.stems]
    for number in range(stems):
        session, stem = sources[number % len(sources)]
        audio = np.repeat(read(session.source(stem)), 2 // stem.channels, axis=0)
        left = round(seconds * RATE)
        with Writer(folder / f"{number + 1:02d} {stem.name}.{suffix}", RATE, 2) as writer:
            while left:
                writer.write(audio[:, :left])
                left -= min(left, audio.shape[1])
    _write_recipe(folder)


def _write_recipe(folder: Path) -> None:
    """EQ on every stem, a compressor on every other one."""
    from dataclasses import replace

    from mixrl.recipe import Recipe, write_recipe
    from mixrl.session import load_session
    from mixrl.settings import MasterSettings, MixSettings, StripSettings

    names = load_session(folder).names
    strips = {}
    for number, name in enumerate(names):
        strip = StripSettings(compressor="medium" if number % 2 == 0 else "off")
        for band, gain_db in enumerate(BANDS_DB):
            strip = strip.with_band(band, gain_db=gain_db)
        strips[name] = strip
    master = MasterSettings(ceiling_dbtp=CEILING_DBTP, target_lufs=TARGET_LUFS)
    settings = replace(MixSettings.neutral(names), stems=strips, master=master)
    write_recipe(Recipe(settings=settings, folder=str(folder)), folder.with_suffix(".json"))


def whole_commands(stems: Sequence[int], seconds: float, formats: Sequence[str], runs: int) -> dict[str, object]:
    """Measure and print the table of commands."""
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory(dir=disk()) as temporary:
        for count in stems:
            for suffix in formats:
                folder = Path(temporary, f"{count}-{suffix}")
                # elsewhere: what this process has held, the system counts for those that it starts, too
                made = [sys.executable, __file__, "--make", str(folder), str(count), str(seconds), suffix]
                subprocess.run(made, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
                table = commands(folder, folder.with_suffix(".json"))
                taken: dict[str, list[dict[str, float]]] = {name: [] for name in table}
                for run in range(runs + 1):
                    for name, command in table.items():
                        its = timed([*command, str(Path(temporary, "out.wav"))])
                        if run:  # the first one compiles, and fills the disk's cache
                            taken[name].append(its)
                shutil.rmtree(folder)
                print(f"\n{count} stereo stems x {seconds:g} s, {suffix.upper()} of 24 bits, {runs} runs")
                headings = zip(("CPU s", "x floor", "x least", "wall s", "x least", "MB"), WIDTHS, strict=True)
                print(f"{'':14s}" + "".join(f"{heading:>{width}s}" for heading, width in headings))
                middle = {
                    name: {key: statistics.median(its[key] for its in rows) for key in rows[0]}
                    for name, rows in taken.items()
                }
                least, needed = middle["floor"], middle["unavoidable"]
                for name, its in middle.items():
                    cpu, wall = its["cpu"] / needed["cpu"], its["wall"] / needed["wall"]
                    cells = its["cpu"], its["cpu"] / least["cpu"], cpu, its["wall"], wall, its["mb"]
                    row = zip(cells, WIDTHS, (2, 1, 2, 2, 2, 0), strict=True)
                    print(f"{name:14s}" + "".join(f"{v:{width}.{places}f}" for v, width, places in row), flush=True)
                found[f"{count} {suffix}"] = taken
    return found


def disk() -> str | None:
    """Not /tmp, which is memory on many systems."""
    return "/var/tmp" if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK) else None


# ---- the table of parts --------------------------------------------------------------------------------------------


def parts(runs: int) -> dict[str, object]:
    """Measure and print how many times real time each part of the engine goes at, in one thread."""
    from mixrl.audio import read
    from mixrl.session import load_session

    session = load_session(ROOT / "audio_samples" / "caesium")
    music = np.ascontiguousarray(np.tile(sum(read(session.source(stem)) for stem in session.stems), 2)[:, : 30 * RATE])
    music = np.float32(0.5 / np.abs(music).max()) * music
    fading = music.copy()
    fading[:, 5 * RATE :] = 0.0
    stems = [np.repeat(read(session.source(stem)), 2 // stem.channels, axis=0) for stem in session.stems[:8]]
    stems = [np.tile(stem, 2)[:, : 30 * RATE] for stem in stems]
    table = {**_of_one(), **_of_many(stems)}
    print(f"\nparts, times real time in one thread: median of {runs} runs (slowest..fastest)")
    print(f"{'':44s}{'music':>22s}{'5 s, then silence':>22s}")
    found: dict[str, object] = {}
    for name, run in table.items():
        cells, rates = [], {}
        for what, audio in (("music", music), ("silence", fading)):
            its = _rates(lambda run=run, audio=audio: run(audio), runs)  # type: ignore[misc]
            rates[what] = its
            cells.append(f"{statistics.median(its):,.0f} ({its[0]:,.0f}..{its[-1]:,.0f})")
        print(f"{name:44s}" + "".join(f"{cell:>22s}" for cell in cells), flush=True)
        found[name] = rates
    return found


def _of_one() -> dict[str, Callable[[np.ndarray], float]]:
    """What is done to one stereo signal; each returns the seconds of audio that it saw."""
    from mixrl.limiter import limit
    from mixrl.meters import Meter, integrated, true_peak

    def whole_meter(audio: np.ndarray) -> float:
        meter = Meter(RATE, 2)
        meter.push(audio)
        meter.result()
        return audio.shape[1] / RATE

    def spectrum(audio: np.ndarray) -> float:
        meter = Meter(RATE, 2, true_peak=False)
        meter.push(audio)
        meter.result()
        return audio.shape[1] / RATE

    def loudness(audio: np.ndarray) -> float:
        integrated([audio], RATE, 2)
        return audio.shape[1] / RATE

    def peak(audio: np.ndarray) -> float:
        true_peak(audio, RATE)
        return audio.shape[1] / RATE

    level: dict[int, np.float32] = {}

    def limited(audio: np.ndarray) -> float:
        if id(audio) not in level:
            read = integrated([audio[:, : 5 * RATE]], RATE, 2)
            level[id(audio)] = np.float32(10.0 ** ((TARGET_LUFS - (read or TARGET_LUFS)) / 20.0))
        limit(level[id(audio)] * audio, RATE, CEILING_DBTP)
        return audio.shape[1] / RATE

    found = {
        "loudness (I, M, S, LRA)": loudness,
        "true peak": peak,
        "loudness and third-octave spectrum": spectrum,
        "the whole meter": whole_meter,
        "limiter at -14 LUFS": limited,
    }
    if find_spec("pyebur128") is not None:
        import pyebur128

        def theirs(audio: np.ndarray, mode: int) -> None:
            state = pyebur128.R128State(2, RATE, mode)
            state.add_frames(np.ascontiguousarray(audio.T).ravel(), audio.shape[1])
            if mode == pyebur128.MeasurementMode.MODE_TRUE_PEAK:
                pyebur128.get_true_peak(state, 0)
            else:
                pyebur128.get_loudness_global(state)

        modes = pyebur128.MeasurementMode

        def their_loudness(audio: np.ndarray) -> float:
            theirs(audio, modes.MODE_I | modes.MODE_LRA)
            return audio.shape[1] / RATE

        def their_peak(audio: np.ndarray) -> float:
            theirs(audio, modes.MODE_TRUE_PEAK)
            return audio.shape[1] / RATE

        found |= {"libebur128: loudness (I, M, S, LRA)": their_loudness, "libebur128: true peak": their_peak}
    return found


def _of_many(stems: Sequence[np.ndarray]) -> dict[str, Callable[[np.ndarray], float]]:
    """The analysis of eight stems; in seconds of all stems together."""
    from mixrl.analysis import analyse
    from mixrl.audio import ArraySource
    from mixrl.scene import reader

    def analysed(audio: np.ndarray) -> float:
        silent = not audio[:, 5 * RATE :].any()
        readers = []
        for stem in stems:
            cut = stem.copy()
            cut[:, 5 * RATE if silent else stem.shape[1] :] = 0.0
            readers.append(reader(ArraySource(cut, RATE)))
        analyse(readers, RATE, audio.shape[1])
        return len(stems) * audio.shape[1] / RATE

    return {"analysis for the closed form, a stem of 8": analysed}


def _rates(run: Callable[[], float], runs: int) -> list[float]:
    """Seconds of audio for each CPU second, in rising order."""
    run()  # compiles
    found = []
    for _ in range(runs):
        start, seen = time.process_time(), 0.0
        while time.process_time() - start < 0.2:
            seen += run()
        found.append(seen / (time.process_time() - start))
    return sorted(found)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".wav", ".flac"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stems", type=int, nargs="*", default=[8, 24])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--formats", nargs="*", choices=("wav", "flac"), default=["wav", "flac"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--parts", action="store_true", help="also the parts of the engine alone")
    parser.add_argument("--json", type=Path, help="write every run here")
    parser.add_argument("--child", nargs=3, metavar=("WHAT", "FOLDER", "OUTPUT"), help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=4, metavar=("FOLDER", "STEMS", "SECONDS", "SUFFIX"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        folder, count, seconds, suffix = arguments.make
        make(Path(folder), int(count), float(seconds), suffix)
        return
    if arguments.child:
        what, folder, output = arguments.child
        CHILDREN[what](Path(folder), Path(output))
        return
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    found: dict[str, object] = {}
    if arguments.stems:
        found = whole_commands(arguments.stems, arguments.seconds, arguments.formats, arguments.runs)
    if arguments.parts:
        found["parts"] = parts(arguments.runs)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
