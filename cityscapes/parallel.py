"""Run a function on many items with any executor, a bounded number at a time; worker processes end with the command."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

from cityscapes.errors import MachineError, ParameterError, reason
from cityscapes.freed_memory import begin_to_keep_freed_memory

Item = TypeVar("Item")
Value = TypeVar("Value")


def map_bounded(
    executor: Executor, function: Callable[[Item], Value], items: Iterable[Item], *, in_flight: int, batch: int = 1
) -> Iterator[Value]:
    """Yield `function(item)` in order of completion, with at most `in_flight` tasks of `batch` items at a time.

    A task costs a message each way, so short work takes several items a task. Neither futures nor results pile up,
    however many items there are. When the loop over it ends early, tasks that have not begun are canceled, and the
    others are waited for. Raises what the function raises, and MachineError when the executor has lost a worker.
    """
    waiting, work = iter(items), partial(_each_of, function)
    pending: set[Future] = set()
    finished: SimpleQueue[Future] = SimpleQueue()
    try:
        while True:
            while len(pending) < in_flight and (task := tuple(islice(waiting, batch))):
                future = executor.submit(work, task)
                pending.add(future)
                future.add_done_callback(finished.put)
            if not pending:
                return
            future = finished.get()
            pending.remove(future)
            yield from future.result()
    except BrokenExecutor as error:
        raise MachineError(
            f"a worker of the executor died ({reason(error)}); probably for lack of memory: run with fewer workers"
        ) from error
    finally:
        wait([future for future in pending if not future.cancel()])


def _each_of(function: Callable[[Item], Value], items: Iterable[Item]) -> list[Value]:
    return [function(item) for item in items]


def worker_processes(count: int) -> ProcessPoolExecutor:
    """Return an executor of `count` processes, started on first use; use it in a `with` block.

    They are forked from a server that inherits neither this process's threads nor its locks on folders.
    As with all of multiprocessing, a script that calls this needs `if __name__ == "__main__":`.
    """
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_begin)


@contextmanager
def worker_processes_beside(count: int) -> Iterator[ProcessPoolExecutor | None]:
    """Open an executor of `count` processes, or none for 1: this process does the work itself."""
    with worker_processes(count) if count > 1 else nullcontext() as executor:
        yield executor


def _begin() -> None:
    # Ctrl-C reaches every process of a terminal; only the command should handle it. A killed command closes its end of
    # a pipe, which a worker that waits for work would not notice.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begin_to_keep_freed_memory()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def number_of_workers(workers: int) -> int:
    """Return `workers`, or one a usable core for 0; raises ParameterError for anything but 0 to 1024."""
    if type(workers) is not int or not 0 <= workers <= 1024:
        raise ParameterError(f"workers is {workers!r}; choose 1 to 1024, or 0 for one per core")
    return workers or usable_cores()


def usable_cores() -> int:
    """Return how many cores this process may use: those that its user, container or batch system allows."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
