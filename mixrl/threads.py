"""How many threads one mix may use."""

from __future__ import annotations

import os

LIMIT = "MIXRL_THREADS"


def threads() -> int:
    """As many as there are cores for this process, or as the environment variable MIXRL_THREADS says: a batch that
    mixes several sessions at once shares the cores out among them. What is mixed does not depend on it."""
    said = os.environ.get(LIMIT, "")
    if said.isdecimal() and int(said) > 0:
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
