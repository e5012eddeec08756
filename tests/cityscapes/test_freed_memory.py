"""What becomes of the memory that a computation frees: kept for its next step, and returned at its end."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from cityscapes.freed_memory import keep_freed_memory
from cityscapes.parallel import worker_processes

BLOCK = 48 * 2**20
"""Bytes of a block that glibc would map for itself and return at once, however it adapts its threshold."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is told, and /proc is read")
CHOSEN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")

SCRIPT = """
import json
from contextlib import suppress
import numpy as np
from dlv3p.profiling.process_memory import resident_kib
from cityscapes.freed_memory import keep_freed_memory, return_freed_memory

start = resident_kib()
mib = lambda: (resident_kib() - start) / 2**10
def freed():
    before = mib()
    np.ones(BLOCK, np.uint8)
    return mib() - before

told = {}
with keep_freed_memory():
    told["first"], told["second"] = freed(), freed()
told["after"] = mib()
with suppress(MemoryError), keep_freed_memory():
    np.ones(BLOCK, np.uint8) + np.ones(2**60, np.uint8)
told["after an error"] = mib()
with keep_freed_memory():
    return_freed_memory()
    told["near a limit"] = freed()
with keep_freed_memory():
    told["again"] = freed()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def stayed() -> dict[str, float]:
    """The MiB that stay with a process that takes and frees blocks: a new one, in which nothing has left room."""
    script = f"BLOCK = {BLOCK}{SCRIPT}"
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    done = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def test_freed_memory_is_kept_within_the_block_and_returned_at_its_end(stayed) -> None:
    assert stayed["first"] > 40
    assert stayed["second"] < 1, "the second block takes the place of the first"
    assert stayed["after"] < 10


def test_the_memory_goes_back_after_an_error_as_well(stayed) -> None:
    assert stayed["after an error"] < 10


def test_near_a_limit_freed_memory_is_returned_within_the_block_too(stayed) -> None:
    assert stayed["near a limit"] < 1
    assert stayed["again"] > 40


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_an_allocator_that_the_environment_sets_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in CHOSEN:
        monkeypatch.delenv(other, raising=False)
    called = []
    monkeypatch.setattr("cityscapes.freed_memory.ctypes.CDLL", lambda name: Recording(called))
    monkeypatch.setenv(name, "65536")
    with keep_freed_memory():
        assert not called
    assert not called
    monkeypatch.delenv(name)
    with keep_freed_memory():
        assert called


class Recording:
    """A C library that writes down what it is told."""

    def __init__(self, called: list[tuple[int, ...]]) -> None:
        self.called = called

    def mallopt(self, *arguments: int) -> None:
        self.called.append(arguments)

    def malloc_trim(self, *arguments: int) -> None:
        self.called.append(arguments)


def pages_of_a_second_block() -> int:
    """Return how many pages the system clears for a block that follows one of the same size."""
    np.ones(BLOCK, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(BLOCK, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_worker_process_takes_the_next_mask_from_the_memory_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    with worker_processes(1) as pool:
        assert pool.submit(pages_of_a_second_block).result() < 100  # 12,288 of 4 KiB without
