"""What becomes of the memory that a computation frees: kept for its next step, and returned at its end."""

import sys

import numpy as np
import pytest

from dlv3p.profiling.process_memory import resident_kib
from dlv3p.runtime.devices import keep_freed_memory, return_freed_memory

BLOCK = 48 * 2**20
"""Bytes of a block that glibc would map for itself and return at once, however it adapts its threshold."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is told, and /proc is read")


def freed_mib() -> float:
    """Take and free six blocks, 288 MiB, and return the MiB that stay with the process.

    So many, since some may find room in what earlier tests have left.
    """
    before = resident_kib()
    blocks = [np.ones(BLOCK, np.uint8) for _ in range(6)]
    del blocks
    return (resident_kib() - before) / 2**10


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    with keep_freed_memory():
        pass  # returns what earlier tests have freed, in which a block would find room


def test_freed_memory_is_kept_within_the_block_and_returned_at_its_end() -> None:
    before = resident_kib()
    with keep_freed_memory():
        assert freed_mib() > 200
        assert freed_mib() < 1, "the second block takes the place of the first"
    assert (resident_kib() - before) / 2**10 < 10


def test_the_memory_goes_back_after_an_error_as_well() -> None:
    before = resident_kib()
    with pytest.raises(MemoryError), keep_freed_memory():
        np.ones(BLOCK, np.uint8) + np.ones(2**60, np.uint8)
    assert (resident_kib() - before) / 2**10 < 10


def test_near_a_limit_freed_memory_is_returned_within_the_block_too() -> None:
    with keep_freed_memory():
        return_freed_memory()
        assert freed_mib() < 1
    with keep_freed_memory():
        assert freed_mib() > 200


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_an_allocator_that_the_environment_sets_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    called = []
    monkeypatch.setattr("dlv3p.runtime.devices.ctypes.CDLL", lambda name: Recording(called))
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
