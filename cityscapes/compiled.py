"""Inner loops as machine code: numba compiles them when they are first called, and keeps them where it can."""

import threading
from collections.abc import Callable
from functools import wraps

_COMPILING = threading.Lock()


def compiled(*signatures: str) -> Callable[[Callable], Callable]:
    """Decorate a function that numba can compile, for arguments of these `signatures`, in numba's own words.

    Compiling takes seconds, once a machine; of several threads that call first, one does it. The machine code lets
    other threads work beside it. numba is loaded by the first call, so that a module with such functions loads fast.
    What a compiled function calls is decorated with `numba.njit` instead, and compiled along with it.
    """

    def decorate(function: Callable) -> Callable:
        machine_code = None

        @wraps(function)
        def call(*arguments):
            nonlocal machine_code
            if machine_code is None:
                with _COMPILING:
                    machine_code = machine_code or _compile(function, list(signatures))
            return machine_code(*arguments)

        return call

    return decorate


def _compile(function: Callable, signatures: list[str]) -> Callable:
    import numba

    try:
        return numba.njit(signatures, cache=True, nogil=True)(function)
    except Exception:  # a cache that cannot be written or read costs seconds, not the result
        return numba.njit(signatures, nogil=True)(function)
