"""The processes that train together: which one this is, and the few things that they tell each other.

torchrun starts them and says in the environment who is who; alone, a process is the first of one, and nothing is sent.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed


class Place(NamedTuple):
    """Where a process stands: `rank` of `ranks` in all, `local_rank` on its machine."""

    rank: int
    ranks: int
    local_rank: int

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0


def place() -> Place:
    """Return the place of this process among those that were joined; (0, 1, 0) when it is alone."""
    if distributed.is_available() and distributed.is_initialized():
        return Place(distributed.get_rank(), distributed.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    return Place(0, 1, 0)


def started_by_torchrun() -> bool:
    """Whether torchrun (or another launcher that sets the same variables) has started this process for a group."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ


@contextmanager
def joined_processes(device: str) -> Iterator[None]:
    """Join the group that torchrun has started, if it has, until the block ends; NCCL for "cuda", else Gloo."""
    if not started_by_torchrun() or distributed.is_initialized():
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def sum_over_processes(value: Tensor) -> Tensor:
    """Replace `value` by its sum over all processes, in place, and return it."""
    if place().ranks > 1:
        distributed.all_reduce(value)
    return value


def from_first(value: Any) -> Any:
    """Return what the first process holds; other processes may pass None. Tensors come back on their device."""
    if place().ranks == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]
