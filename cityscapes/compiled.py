"""Compile inner loops to machine code with numba on their first call, and cache the result on disk where possible."""

import threading
from collections.abc import Callable
from functools import wraps

LOOPS: list[Callable] = []
"""The decorated functions of the modules that are loaded; `loop.machine_code()` compiles or loads one of them."""
_COMPILING = threading.Lock()


def compiled(*signatures: str) -> Callable[[Callable], Callable]:
    """Decorate a function that numba can compile, for arguments of these `signatures`, in numba's own words.

    Compiling takes up to two seconds, once a machine; of several threads that call first, one does it. The machine code
    lets other threads work beside it. numba is loaded by the first call, so that a module with such functions loads
    fast. What a compiled function calls is decorated with `numba.njit` instead, and compiled along with it; it is named
    in the code and not handed over as an argument, which numba would not keep.
    """

    def decorate(function: Callable) -> Callable:
        made = None

        def machine_code() -> Callable:
            nonlocal made
            with _COMPILING:
                made = made or _compile(function, list(signatures))
            return made

        @wraps(function)
        def call(*arguments):
            return (made or machine_code())(*arguments)

        call.machine_code = machine_code
        LOOPS.append(call)
        return call

    return decorate


def _compile(function: Callable, signatures: list[str]) -> Callable:
    import numba

    try:
        return numba.njit(signatures, cache=True, nogil=True)(function)
    except Exception:  # a cache that cannot be written or read costs seconds, not the result
        return numba.njit(signatures, nogil=True)(function)
