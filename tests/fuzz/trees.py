"""Changes of JSON values at random: what comes of them is JSON still, so it gets further into a reader than bytes."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Iterator
from typing import Any

ODD_KEYS = ("", "..", "name", "\x1b[31m")
ODD = (
    None, True, False, 0, -1, 1, 10**30, 0.5, -1e308, 1e-320, float("inf"), float("nan"),
    "", "..", "../../x", "/", "\x00", "\ud800", "a" * 300, "é", [], {}, [[]], {"": None},
)  # fmt: skip


def changed_json(data: bytes, rng: random.Random) -> bytes | None:
    """A document with one to three values replaced, doubled, moved, renamed or taken out; None for what is no JSON."""
    try:
        tree = json.loads(data)
        for _ in range(rng.choice((1, 1, 2, 3))):
            tree = _changed(tree, rng)
        return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None


def changed_header(data: bytes, rng: random.Random) -> bytes | None:
    """The same for the header of a safetensors file, whose length is set right again."""
    if len(data) < 8:
        return None
    (size,) = struct.unpack("<Q", data[:8])
    header = changed_json(data[8 : 8 + size], rng)
    return None if header is None else struct.pack("<Q", len(header)) + header + data[8 + size :]


def _changed(tree: Any, rng: random.Random) -> Any:
    places = list(_places(tree))
    if not places:
        return rng.choice(ODD)
    holder, key = rng.choice(places)
    value = holder[key]
    kind = rng.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = copy.deepcopy(rng.choice(ODD))
    elif kind == 2:
        other, where = rng.choice(places)
        holder[key] = copy.deepcopy(other[where])
    elif kind == 3 and isinstance(holder, dict):
        holder[rng.choice([*ODD_KEYS, key.upper(), f"{key}_db"])] = holder.pop(key)
    elif kind == 4 and isinstance(holder, list):
        holder.extend(copy.deepcopy(value) for _ in range(rng.choice((1, 2, 70))))
    elif isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        holder[key] = rng.choice((-value, value * 1000, value / 3 if abs(value) < 1e300 else 0, str(value)))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Each list or object, with each index or key in it."""
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ():
            yield holder, key
            waiting.append(holder[key])
