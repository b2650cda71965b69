"""Compiled functions: numba, kept on disk between runs where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorator: compile by numba, without the GIL while it runs."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # installed by root and run without a home, as in containers: compile anew each time
        return numba.njit(nogil=True)(function)
