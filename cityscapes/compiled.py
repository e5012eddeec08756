"""Compile inner loops to machine code with numba on their first call, and cache the result on disk where possible."""

import threading
from collections.abc import Callable
from functools import wraps

LOOPS: list[Callable] = []
"""The decorated functions of all loaded modules; `loop.machine_code()` compiles or loads one of them."""
_COMPILING = threading.Lock()


def compiled(*signatures: str) -> Callable[[Callable], Callable]:
    """Decorate a function for numba to compile, for arguments of these `signatures`, in numba's notation.

    Compiling takes up to two seconds, once per machine; when several threads call at once, one of them compiles. The
    machine code releases the interpreter's lock. numba is loaded by the first call, so that a module with such
    functions loads fast. Decorate what a compiled function calls with `numba.njit` instead; it is compiled along with
    it. Call it by name: numba does not cache a function that takes another as an argument.
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
