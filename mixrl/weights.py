"""What was learned, on disk: named arrays and texts as safetensors, which run no code when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixrl.errors import InputError
from mixrl.files import refuse_special


def save_arrays(arrays: Mapping[str, NDArray[Any]], about: Mapping[str, str], path: str | Path) -> None:
    """Write named arrays and texts as safetensors, atomically; what is there is replaced."""
    from safetensors.numpy import save

    from mixrl.audio import atomic_path

    with atomic_path(path, force=True) as temporary:
        # not save_file, whose files nobody else may read
        whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        temporary.write_bytes(save(whole, dict(about)))


def load_arrays(path: str | Path, what: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Named arrays and texts of a safetensors file. Raises InputError naming the file when it cannot be read;
    ``what`` it should have been goes into the message."""
    from safetensors import SafetensorError, safe_open

    try:
        refuse_special(Path(path))
        with safe_open(str(path), framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = dict(file.metadata() or {})
        if odd := [name for name, array in arrays.items() if array.dtype.kind not in "fiub"]:
            raise ValueError(f"{odd[0]} holds no real numbers")
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:  # numpy lacks some of its types
        raise InputError(f"{path}: not a readable {what} ({error}): make or fetch it anew") from None
    return arrays, about
