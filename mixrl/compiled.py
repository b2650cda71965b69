"""Compiled functions: numba, kept on disk between runs where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
from numba.extending import intrinsic

_P = ParamSpec("_P")
_R = TypeVar("_R")

# of arithmetic that never meets NaN nor divides by zero
_SUMMING = {"fastmath": {"reassoc", "contract", "arcp", "nsz", "nnan"}, "error_model": "numpy"}


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorator: compile by numba, without the GIL while it runs."""
    return _compile(function)


def fused(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorator: as ``compiled``, a product and a sum being one step where the processor has it, which counts where
    each step waits for the one before."""
    return _compile(function, fastmath={"contract"})


def summing(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorator: as ``compiled``, for arithmetic that never meets NaN nor divides by zero: sums and maxima are taken in
    whatever order is fastest, always the same one on one machine."""
    return _compile(function, **_SUMMING)


def inner(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorator: as ``summing``, of a function that only compiled ones call and that becomes part of each: quicker to
    compile, since what Python needs to call it is left out (Python would crash), and the same to the last bit in a
    process that compiles and in one that finds everything compiled."""
    return _compile(function, **_SUMMING, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)


def _compile(function: Callable[_P, _R], **options: Any) -> Callable[_P, _R]:
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # installed by root and run without a home, as in containers: compile anew each time
        return numba.njit(nogil=True, **options)(function)


def _bits_of(_typing, value):  # type: ignore[no-untyped-def]
    return numba.int32(numba.float32), _reinterpret


def _number_of(_typing, bits):  # type: ignore[no-untyped-def]
    return numba.float32(numba.int32), _reinterpret


def _reinterpret(context, builder, signature, args):  # type: ignore[no-untyped-def]
    return builder.bitcast(args[0], context.get_value_type(signature.return_type))


# for compiled functions: the bits of a float32 as an int32, and the float32 of such bits
bits_of: Any = intrinsic(_bits_of)
number_of: Any = intrinsic(_number_of)
