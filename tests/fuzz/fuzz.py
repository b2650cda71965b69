"""Coverage-guided fuzzing: ``python tests/fuzz/fuzz.py loaders|recipe|toml|policy [--seconds N] CORPUS_DIR``.

Needs ``pip install atheris``. New inputs that reach new code go into CORPUS_DIR; what is a finding is written into the
working folder as ``crash-*`` (or ``timeout-*``, ``oom-*``). ``corpus`` beside this file holds small inputs to begin
with, which pytest replays (``test_fuzz_corpus.py``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["mixrl"]):
    import targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=targets.TARGETS)
    parser.add_argument("--seconds", type=int, default=0, help="0: until stopped")
    parser.add_argument("corpus", type=Path)
    asked = parser.parse_args()
    asked.corpus.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={asked.seconds}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=8192"]
    own = HERE / "corpus" / asked.target
    folders = [str(asked.corpus), *([str(own)] if own.is_dir() else [])]
    atheris.Setup([sys.argv[0], *options, *folders], lambda data: targets.run(asked.target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
