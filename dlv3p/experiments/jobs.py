"""Describe a job of a sweep, a notebook with its parameters: what it writes, whether it can run, how far it is."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from cityscapes.errors import MissingInputError, ParameterError
from cityscapes.files.locks import holder_of
from cityscapes.files.untrusted import given_path
from cityscapes.workspace import output_folder, run_folder, workspace
from dlv3p.jupyter.executed_copy import is_current
from dlv3p.jupyter.papermill_words import LONGEST_NAME, parameters_class
from dlv3p.parameters.base import Parameters
from dlv3p.parameters.data_roots import EMBEDDED, is_url
from dlv3p.parameters.network import NetworkParameters
from dlv3p.parameters.training import TRAINED_RUN, TrainParameters
from dlv3p.runs.folders import (
    checkpoint_path,
    find_run,
    list_runs,
)
from dlv3p.runs.listing import FINISHED, read_state
from dlv3p.runs.record import refuse_other_run
from dlv3p.training.callbacks import check_extras

NEW, STOPPED, RUNNING, FAILED = "new", "to resume", "running elsewhere", "failed"
"""States of a job beside `FINISHED`."""


@dataclass(frozen=True)
class Job:
    """One notebook with its parameters; `varied` are those in which the jobs of a sweep differ.

    `defaults` are what the notebook's own parameters cell says, which `values` replace; relative paths among them begin
    at `folder`. It can be pickled, for executors on other machines.
    """

    number: int
    notebook: Path
    defaults: Mapping[str, Any]
    values: Mapping[str, Any]
    varied: Mapping[str, Any]
    folder: Path
    workspace: Path
    sweep: str

    @cached_property
    def parameters(self) -> Parameters:
        """The parameters, checked; raises ParameterError."""
        return parameters_class(self.notebook).from_mapping({**self.defaults, **self.values})

    @property
    def trains(self) -> bool:
        """Whether the notebook trains a run, rather than using one."""
        return isinstance(self.parameters, TrainParameters)

    @property
    def run(self) -> str | None:
        """The run that the job makes or uses; None for a notebook without one."""
        if self.trains:
            return self.parameters.run_name
        run = getattr(self.parameters, "run", None)
        return [TRAINED_RUN, *list_runs()][-1] if run == "" else run

    @property
    def copy(self) -> Path:
        """Where the executed notebook goes: to the outputs of its run, else to those of the sweep."""
        stem = "_".join([self.notebook.stem, *(f"{name}={value}" for name, value in self.varied.items())])
        name = re.sub(r"[^A-Za-z0-9.,=_+-]+", "-", stem)
        if name != stem or len(name) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(stem.encode()).hexdigest()[:8]}"
        return output_folder(self.run or self.sweep) / f"{name}.ipynb"

    @property
    def threads(self) -> int:
        """The CPU threads that the job computes with; 1 where its notebook does not say."""
        return getattr(self.parameters, "threads", 1) * getattr(self.parameters, "processes", 1)

    @property
    def title(self) -> str:
        """The parameters in which the job differs from the others, as `name=value`."""
        return " ".join(f"{name}={value}" for name, value in self.varied.items()) or self.notebook.stem


class JobState(NamedTuple):
    """How far a job is: one of the states, and for a training its epochs and the best mIoU so far."""

    state: str
    epoch: int = 0
    epochs: int | None = None
    mean_iou: float | None = None

    def __str__(self) -> str:
        done = f", epoch {self.epoch}/{self.epochs}" if self.state == STOPPED and self.epochs else ""
        return f"{self.state}{done}"


def read_job(job: Job) -> JobState:
    """Return how far a job is, from what its run and its executed notebook say."""
    executed = _executed(job)
    if not job.trains:
        return JobState(FINISHED if executed else NEW)
    if not run_folder(job.run).is_dir():
        return JobState(NEW)
    run = read_state(job.run)
    facts = (run.epoch, run.epochs, run.best_mean_iou)
    if holder_of(run_folder(job.run)):
        return JobState(RUNNING, *facts)
    if run.state == FINISHED:
        return JobState(FINISHED if executed else STOPPED, *facts)
    return JobState(STOPPED if checkpoint_path(job.run, "last").is_file() else NEW, *facts)


def _executed(job: Job) -> bool:
    """Return whether a job's notebook was executed to its end, is unchanged, and is of what is there now.

    A use of a run also needs the values of the job. The copies of earlier versions, which are not sealed, are as old as
    their file.
    """
    copy = run_folder(job.run) / "train.ipynb" if job.trains else job.copy
    try:
        content = json.loads(copy.read_text(encoding="utf-8"))
        facts, current = content["metadata"]["papermill"], is_current(content, job.parameters)
        done = facts["end_time"] is not None and not facts["exception"]
        alike = job.trains or facts["parameters"] == dict(job.values)
        if current is not None:
            return done and alike and current
        newer = checkpoint_path(job.run, "best") if job.run and not job.trains else copy
        there = newer.is_file() and newer.stat().st_mtime_ns <= copy.stat().st_mtime_ns
        return done and alike and there
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def check_job(job: Job, *, here: bool = True) -> None:
    """Check what the parameters alone do not show: the run, its data, weights, network; raises a user's error.

    A GPU is only looked for where the job runs `here`. Nothing is written, so embedded data and missing masks are left
    to the job itself.
    """
    p = job.parameters
    p.find_inputs()  # which start at the folder of the job, the current one
    if not job.trains:
        if getattr(p, "run", "") and not hasattr(p, "weights"):
            find_run(p.run)
        return
    refuse_other_run(p)
    check_extras(p)
    if p.teacher and not given_path(p.teacher).is_file():
        find_run(p.teacher, parameter="teacher")
    switches = {item.name: getattr(p, item.name) for item in fields(NetworkParameters)}
    _check_network(p.device if here else "auto", NetworkParameters(**switches))
    if p.train_list and not given_path(p.train_list).is_file():
        raise MissingInputError(f"train_list={p.train_list!r}: no such list of images")
    _check_data(p.data_root, (p.training_split, p.validation_split))


@cache
def _check_data(data_root: str, splits: tuple[str, ...]) -> None:
    from dlv3p.data.roots import open_images, resolve_data_root

    if data_root not in EMBEDDED and not is_url(data_root):
        for split in splits:
            open_images(resolve_data_root(data_root), split)


@cache
def _check_network(device: str, network: NetworkParameters) -> None:
    """Build the network without memory for its weights, which raises what would stop the training."""
    import torch

    from dlv3p.models.deeplab import build_network
    from dlv3p.runtime.devices import choose_device

    choose_device(device)
    with torch.device("meta"):
        build_network(network, 2)


def prepare_data(jobs: Iterable[Job]) -> None:
    """Draw embedded data and missing masks once, before jobs that begin together would get in each other's way."""
    from dlv3p.data.roots import open_for_viewing, resolve_data_root

    wanted = set()
    for job in jobs:
        p = job.parameters
        names = [getattr(p, name, "") for name in ("training_split", "validation_split", "split")]
        wanted |= {(getattr(p, "data_root", ""), split) for split in names if split}
    for data_root, split in sorted(wanted):
        if data_root:
            open_for_viewing(resolve_data_root(data_root), split)


def refuse_duplicates(jobs: Iterable[Job]) -> None:
    """Raise ParameterError where two jobs would write the same: one run, or one executed notebook."""
    seen: dict[Any, Job] = {}
    for job in jobs:
        first = seen.setdefault(job.run if job.trains else job.copy, job)
        if first is job:
            continue
        both = f"jobs {first.number} ({first.title}) and {job.number} ({job.title})"
        naming = "give each its name, as in run: 'mine-{seed}'"
        if not job.trains:
            raise ParameterError(f"{both} are one: {job.copy.relative_to(workspace())}; leave one of them out")
        if first.parameters.identity != job.parameters.identity:
            raise ParameterError(f"{both} would both be called {job.run}; {naming}")
        raise ParameterError(f"{both} are one: {job.run}; leave one of them out, or {naming}")
