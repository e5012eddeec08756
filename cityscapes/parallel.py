"""Run one function on many items with any executor, holding only so many in flight."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

from cityscapes.errors import MachineError, reason

Item = TypeVar("Item")
Value = TypeVar("Value")


def map_bounded(
    executor: Executor, function: Callable[[Item], Value], items: Iterable[Item], *, in_flight: int
) -> Iterator[Value]:
    """Yield `function(item)` as results come, in no order, with at most `in_flight` items submitted at a time.

    So neither futures nor results pile up, however many items there are. When the loop over it ends early, items that
    have not begun are cancelled, and those that have are waited for. Raises what the function raises, and MachineError
    when the executor lost a worker.
    """
    waiting = iter(items)
    pending: set[Future] = set()
    finished: SimpleQueue[Future] = SimpleQueue()
    try:
        while True:
            for item in islice(waiting, in_flight - len(pending)):
                future = executor.submit(function, item)
                pending.add(future)
                future.add_done_callback(finished.put)
            if not pending:
                return
            future = finished.get()
            pending.remove(future)
            yield future.result()
    except BrokenExecutor as error:
        raise MachineError(
            f"a worker of the executor died ({reason(error)}); it may be short of memory: start again with fewer"
        ) from error
    finally:
        wait([future for future in pending if not future.cancel()])
