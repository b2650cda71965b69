"""Compiled functions: numba, kept on disk between runs where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorator: compile by numba, without the GIL while it runs."""
    return _compile(function)


def summing(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorator: as ``compiled``, for arithmetic that never meets NaN nor divides by zero: sums and maxima are taken in
    whatever order is fastest, always the same one on one machine."""
    return _compile(function, fastmath={"reassoc", "contract", "arcp", "nsz", "nnan"}, error_model="numpy")


def _compile(function: Callable[_P, _R], **options: Any) -> Callable[_P, _R]:
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # installed by root and run without a home, as in containers: compile anew each time
        return numba.njit(nogil=True, **options)(function)
