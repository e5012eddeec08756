"""The process group of a training run: rank and world size, and the few values that its processes exchange.

The launcher, torchrun or `dlv3p/training/launching.py`, sets the rank in the environment. A single process has rank 0
of a world size of 1 and communicates with nobody.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

RENDEZVOUS_FILE = "DLV3P_RENDEZVOUS_FILE"
"""Environment variable with the rendezvous file of the processes of one machine, instead of a port."""


class Place(NamedTuple):
    """The place of a process in its group: `rank` of `ranks` in total, `local_rank` on its machine."""

    rank: int
    ranks: int
    local_rank: int

    @property
    def first(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.rank == 0


def place() -> Place:
    """Return the place of this process in its group; (0, 1, 0) without a group."""
    if distributed.is_available() and distributed.is_initialized():
        return Place(distributed.get_rank(), distributed.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))
    return Place(0, 1, 0)


def started_in_group() -> bool:
    """Return whether torchrun, or another launcher that sets the same variables, started this process for a group."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ


@contextmanager
def joined_processes(device: str) -> Iterator[None]:
    """Join the group that this process was started for, if any, until the block ends; NCCL for "cuda", else Gloo."""
    if not started_in_group() or distributed.is_initialized():
        yield
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    rendezvous = {}
    if RENDEZVOUS_FILE in os.environ:
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        rendezvous = {"init_method": Path(os.environ[RENDEZVOUS_FILE]).as_uri(), "rank": rank, "world_size": ranks}
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", **rendezvous)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum `value` over all processes, in place, and return it."""
    if place().ranks > 1:
        distributed.all_reduce(value)
    return value


def wait_for_all() -> None:
    """Wait until all processes have reached this call."""
    if place().ranks > 1:
        distributed.barrier()


def from_first(value: Any) -> Any:
    """Broadcast the value of the first process; others may pass None. Tensors keep their device."""
    if place().ranks == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]
