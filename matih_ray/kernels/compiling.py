"""Compiling of functions over numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """The function as machine code, made when it is first called with arguments of such types, and
    kept beside its module or in the user's cache directory. It lets other threads run.

    Tables are given to it by their addresses: of arrays that are given from function to function
    numba counts the owners, which takes as long as to read a value.
    """
    try:
        return cast("Kernel", njit(nogil=True, cache=True)(function))
    except RuntimeError:  # there is no directory to write to
        return cast("Kernel", njit(nogil=True)(function))
