"""Coverage-guided fuzzing: ``python tests/fuzz/fuzz.py loaders|recipe|toml|policy [--seconds N] CORPUS_DIR``.

Needs ``pip install atheris``. New inputs that reach new code go into CORPUS_DIR; what is a finding is written into the
working folder as ``crash-*`` (or ``timeout-*``, ``oom-*``). ``corpus`` beside this file holds small inputs to begin
with, which pytest replays (``test_fuzz_corpus.py``); words to put together are taken from them, too. Every other change
of a recipe or a policy is one of a JSON value (``trees``), since changes of bytes seldom leave it JSON.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["mixrl", "tomllib", "tomli", "json"]):
    import targets
import trees  # noqa: E402

CHANGED: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "recipe": trees.changed_json,
    "policy": trees.changed_header,
}
ODD = ("NaN", "1e999", "-0.0", "1e-320", "null", "true", "[]", "{}", "..", "\\\\ud800", "99999999999999999999")


def changed(target: str) -> Callable[[bytes, int, int], bytes] | None:
    """A mutator for atheris: every other time its own."""
    change = CHANGED.get(target)
    if change is None:
        return None

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        made = change(data, random.Random(seed)) if seed % 2 else None
        return atheris.Mutate(data, most) if made is None or len(made) > most else made

    return mutate


def words(folder: Path) -> list[str]:
    """What the inputs of a corpus are made of, and what is seldom in one, as a dictionary of libFuzzer's."""
    found = set(ODD)
    for path in folder.glob("*"):
        found |= set(re.findall(r"[\w.-]{2,40}", path.read_bytes().decode("latin-1")[:20_000], re.ASCII))
    return [f'"{word}"' for word in sorted(found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=targets.TARGETS)
    parser.add_argument("--seconds", type=int, default=0, help="0: until stopped")
    parser.add_argument("corpus", type=Path)
    asked = parser.parse_args()
    asked.corpus.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={asked.seconds}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=8192"]
    own = HERE / "corpus" / asked.target
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as dictionary:
        dictionary.write("\n".join(words(own)) + "\n")
        dictionary.flush()
        options.append(f"-dict={dictionary.name}")
        own_mutator = {"custom_mutator": change} if (change := changed(asked.target)) else {}
        atheris.Setup(
            [sys.argv[0], *options, str(asked.corpus), str(own)],
            lambda data: targets.run(asked.target, data),
            **own_mutator,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
