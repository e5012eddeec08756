"""Executors for the jobs of a sweep: processes of this machine, Slurm, a Dask cluster; all are `concurrent.futures`'.

Slurm's jobs become an array, an element each, and survive their preemption: submitit requeues them, and a training
goes on from its last checkpoint.
"""

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import psutil

from cityscapes.errors import MachineError, ParameterError, reason, require
from cityscapes.parallel import usable_cores
from dlv3p.experiments import process
from dlv3p.experiments.jobs import Job

LOOK_SECONDS = 2.0
"""How often Slurm is asked which jobs it still has."""
GONE = 3
"""A job that Slurm has not named so many times in a row, and that has left no result, was lost."""
CONNECT_SECONDS = 10


@contextmanager
def open_executor(
    on: str, *, address: str = "", workers: int = 0, jobs: Sequence[Job] = (), folder: Path, slurm: Mapping[str, Any]
) -> Iterator[Executor]:
    """Open the executor that `on` names; with `workers` 0, as many jobs run at once here as there is room for.

    `folder` is where Slurm's files go. Raises MachineError where a package, Slurm or the cluster is missing.
    """
    if on == "local":
        with local_processes(workers or jobs_at_once(jobs), free_gpus(jobs)) as executor:
            yield executor
    elif on == "dask":
        with _dask(address) as executor:
            yield executor
    else:
        with SlurmArray(folder, slurm) as executor:
            yield executor


def check_executor(on: str, *, address: str = "") -> None:
    """Raise, before anything is measured for a sweep, where the package or the address is missing that `on` needs."""
    if on == "dask" and not address:
        raise ParameterError("on='dask': needs the address of its scheduler, as in tcp://host:8786")
    if on == "dask":
        require("on='dask'", ("distributed",), "cluster")
    if on == "slurm":
        require("on='slurm'", ("submitit",), "slurm")


def jobs_at_once(jobs: Sequence[Job], *, memory_mib: float = 0.0) -> int:
    """Return how many jobs run at once on this machine: one a GPU, else as many as have cores and memory.

    `memory_mib` is what the largest of them takes, 0 where that is not known.
    """
    if gpus := free_gpus(jobs):
        return len(gpus)
    at_once = usable_cores() // max((job.threads for job in jobs), default=1)
    if memory_mib:
        at_once = min(at_once, int(psutil.virtual_memory().available / 2**20 / memory_mib))
    return max(1, at_once)


def free_gpus(jobs: Sequence[Job]) -> list[str]:
    """Return the GPUs that these jobs may use, each a value of CUDA_VISIBLE_DEVICES; none where one wants the CPU."""
    if not jobs or any(getattr(job.parameters, "device", "cpu") == "cpu" for job in jobs):
        return []
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def local_processes(workers: int, gpus: Sequence[str] = ()) -> ThreadPoolExecutor:
    """Return an executor whose threads each wait for a process, on a GPU of its own where there are any."""
    free: SimpleQueue[str] = SimpleQueue()
    for number in range(workers * bool(gpus)):
        free.put(gpus[number % len(gpus)])
    return ThreadPoolExecutor(workers, "sweep", initializer=_take_gpu, initargs=(free,))


def _take_gpu(free: "SimpleQueue[str]") -> None:
    with suppress(Empty):
        process.slot.gpu = free.get_nowait()


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    check_executor("dask", address=address)
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise MachineError(
            f"address={address!r}: no Dask scheduler answers ({reason(error)}); start one with: dask scheduler"
        ) from error
    with client:
        yield client.get_executor(pure=False)


class SlurmArray(Executor):
    """Submit what comes in one go as one array of Slurm's, by submitit; Slurm needs no accounting for it.

    `options` are those of submitit's SlurmExecutor: partition, account, time (minutes), mem, cpus_per_task,
    gpus_per_node, array_parallelism, ...; raises ParameterError for others, MachineError where there is no Slurm.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        check_executor("slurm")
        import submitit

        try:
            self._slurm = submitit.SlurmExecutor(folder=folder)
            self._slurm.update_parameters(**{"job_name": "dlv3p"} | dict(options))
        except RuntimeError as error:
            raise MachineError(f"on='slurm': {reason(error)}; run it on a node that has sbatch and srun") from error
        except (ValueError, TypeError) as error:
            raise ParameterError(f"slurm: {' '.join(str(error).split())[:300]}") from error
        self._new: list[tuple[Future, Any]] = []
        self._jobs: dict[Future, Any] = {}
        self._missed: dict[Future, int] = {}
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="slurm", daemon=True)
        self._thread.start()

    def submit(self, function: Callable, /, *arguments: Any, **named: Any) -> Future:
        """Return the future of a call; the calls of one moment are one array."""
        future: Future = Future()
        with self._lock:
            self._new.append((future, (Resumable(function), arguments, named)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for all jobs, or cancel them first."""
        for future in list(self._jobs) if cancel_futures else ():
            future.cancel()
        self._closed.set()
        if wait:
            self._thread.join()

    def _watch(self) -> None:
        while True:
            closed = self._closed.wait(LOOK_SECONDS)
            with self._lock:
                new, self._new = self._new, []
            if new:
                self._submit(new)
            alive = self._alive() if self._jobs else set()
            for future, job in list(self._jobs.items()):
                self._settle(future, job, alive)
            if closed and not self._jobs and not self._new:
                return

    def _submit(self, new: list[tuple[Future, Any]]) -> None:
        jobs = []
        try:
            with self._slurm.batch():
                for _, (function, arguments, named) in new:
                    jobs.append(self._slurm.submit(function, *arguments, **named))
            [job.job_id for job in jobs]
        except Exception as error:  # sbatch refuses: no such partition, no such account, too many
            told = MachineError(f"on='slurm': {_last(error)}")
            for future, _ in new:
                future.set_exception(told)
            return
        self._jobs.update(zip((future for future, _ in new), jobs, strict=True))

    def _alive(self) -> set[str] | None:
        """Return the ids of the jobs that Slurm knows and that have not ended; None where it does not answer."""
        try:
            words = ["squeue", "--noheader", "--array", "--format=%i", "--me"]
            return set(subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.split())
        except (OSError, subprocess.SubprocessError):
            return None

    def _settle(self, future: Future, job: Any, alive: set[str] | None) -> None:
        """Hand a job's result to its future, if the job has ended; cancel the job of a future that was canceled."""
        if future.cancelled():
            job.cancel(check=False)
        elif job.paths.result_pickle.exists():
            outcome, result = job._get_outcome_and_result()
            if outcome == "error":
                future.set_exception(MachineError(f"Slurm's job {job.job_id}: {str(result).strip().splitlines()[-1]}"))
            else:
                future.set_result(result)
        else:
            self._missed[future] = 0 if alive is None or job.job_id in alive else self._missed.get(future, 0) + 1
            if self._missed[future] < GONE:
                return
            future.set_exception(
                MachineError(f"Slurm's job {job.job_id} ended without a result; its log is {job.paths.stderr}")
            )
        del self._jobs[future]


class Resumable:
    """A function that submitit may interrupt before preemption or a time limit, and calls again from its beginning."""

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.function(*arguments, **named)

    def checkpoint(self, *arguments: Any, **named: Any) -> Any:
        """Have the job save, and return what is submitted in its place."""
        from submitit.helpers import DelayedSubmission

        process.stop_running()
        return DelayedSubmission(self, *arguments, **named)


def _last(error: Exception) -> str:
    """Return the line of a failed sbatch that says why."""
    lines = [line.strip() for line in str(getattr(error, "stderr", "") or error).splitlines() if line.strip()]
    told = [re.sub(r"^sbatch: ((error|fatal): )?", "", line) for line in lines if re.search("error|fatal", line, re.I)]
    return (told or lines or [type(error).__name__])[-1]
