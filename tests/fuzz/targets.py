"""What is fuzzed: bytes from anywhere, given to each reader of files as if a user had them on disk.

A target returns, or raises MixrlError: anything else is a finding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from mixrl.agent.policy import load_policy
from mixrl.audio import BLOCK, FileSource
from mixrl.errors import MixrlError
from mixrl.recipe import Recipe, read_recipe
from mixrl.session import load_session
from mixrl.wishes import FILE, read_wishes

SUFFIXES = (".wav", ".flac")
MOST_FRAMES = 1 << 18  # a header may claim hours of silence: a FLAC frame of a few bytes is thousands of samples


def loaders(data: bytes, folder: Path) -> None:
    """The first byte chooses the suffix; then all that a command does with a stem before it listens."""
    path = folder / f"kick{SUFFIXES[data[0] % len(SUFFIXES)] if data else '.wav'}"
    path.write_bytes(data[1:])
    source = FileSource(path)
    if source.channels > 8 or (source.probed.frames > MOST_FRAMES and source.probed.exact_seek):
        return
    frames = sum(block.shape[1] for block in source.blocks(size=BLOCK))
    assert frames == source.frames, "as many frames as promised"
    if frames <= MOST_FRAMES:
        session = load_session(folder)
        assert session.read("kick").shape == (session.stems[0].channels, session.frames)


def recipe(data: bytes, folder: Path) -> None:
    """What is read can be written and read again."""
    path = folder / "mix.json"
    path.write_bytes(data)
    made, _ = read_recipe(path)
    assert Recipe.from_json(made.to_json()) == made, "reads back as it was written"


def toml(data: bytes, folder: Path) -> None:
    (folder / FILE).write_bytes(data)
    read_wishes(folder)


def policy(data: bytes, folder: Path) -> None:
    path = folder / "policy.safetensors"
    path.write_bytes(data)
    load_policy(path)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {f.__name__: f for f in (loaders, recipe, toml, policy)}


def run(target: str, data: bytes) -> None:
    """One input through a target. What is no MixrlError gets through; so does one of several lines."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        try:
            TARGETS[target](data, Path(folder))
        except MixrlError as error:
            assert str(error).startswith(folder), f"a message that names no file: {error}"  # noqa: PT017
