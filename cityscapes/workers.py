"""How many workers a command's `workers` means."""

import os

from cityscapes.errors import ParameterError


def number_of_workers(workers: int) -> int:
    """Return `workers`, or one a usable core for 0; raises ParameterError for what is no number from 0 to 1024."""
    if type(workers) is not int or not 0 <= workers <= 1024:
        raise ParameterError(f"workers is {workers!r}; choose 1 to 1024 threads, or 0 for one a core")
    return workers or usable_cores()


def usable_cores() -> int:
    """Return how many cores this process may use: those that its user, container or batch system leaves to it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
