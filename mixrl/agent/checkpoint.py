"""A run on disk, to be continued exactly: arrays and what JSON can hold, in one safetensors file (never pickle)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mixrl.errors import InputError
from mixrl.weights import load_arrays, save_arrays

FORMAT = "mixrl-checkpoint-1"


def save_checkpoint(path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically over the one before. Raises ProcessingError when it cannot be written."""
    save_arrays(arrays, {"format": FORMAT, "about": json.dumps(about)}, path)


def load_checkpoint(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a checkpoint. Raises InputError naming the file when it is none."""
    arrays, text = load_arrays(path, "checkpoint")
    try:
        if text["format"] != FORMAT:
            raise ValueError
        about = json.loads(text["about"])
    except (KeyError, ValueError, RecursionError):
        raise InputError(f"{path}: no checkpoint of format {FORMAT}: start the run again without --resume") from None
    return arrays, about


def under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with the prefix and a dot, without these."""
    return {name[len(prefix) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{prefix}.")}
