"""Processes that work for one command, and die with it however it ends."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait


def worker_processes(count: int) -> ProcessPoolExecutor:
    """Return an executor of `count` processes, started when the first work comes; use it in a `with` block.

    They are forked from a server that holds nothing of this process, neither its threads nor its locks on folders.
    As with all of multiprocessing, a script that calls this needs `if __name__ == "__main__":`.
    """
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_begin)


def _begin() -> None:
    # Ctrl-C reaches every process of a terminal: the command alone shall answer it. And a command that is killed closes
    # its end of a pipe, which nobody would look at while waiting for work.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
