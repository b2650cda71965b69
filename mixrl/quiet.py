"""What C libraries print of their own accord is kept from the terminal: mixrl says in a line what is wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock, _inside, _real = threading.Lock(), 0, -1


@contextmanager
def quiet() -> Iterator[None]:
    """While inside, what is written to the process's error stream is dropped. Threads may be inside at once."""
    global _inside, _real
    with _lock:
        _inside += 1
        if _inside == 1:
            _real = _turned_away()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _real >= 0:
                os.dup2(_real, 2)
                os.close(_real)


def _turned_away() -> int:
    """A copy of the error stream, which itself now leads nowhere; -1 where there is none."""
    try:
        real = os.dup(2)
    except OSError:
        return -1
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return real
