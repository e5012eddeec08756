"""Say what the jobs of a sweep cost before they start: by a few steps here, else by what jobs alike have taken."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cityscapes.errors import UserError
from cityscapes.workspace import run_folder
from dlv3p.experiments.jobs import RUNNING, Job, JobState
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import METRICS, list_runs
from dlv3p.runs.listing import FINISHED, read_history
from dlv3p.runs.record import read_record
from dlv3p.runtime.lines import format_duration
from dlv3p.runtime.progress import resolve_mode, track
from dlv3p.training.cost import Pace, estimate_cost, measure_pace

SAME_COST = (
    *("run", "seed", "fold", "epochs", "steps", "learning_rate", "backbone_rate_factor", "schedule"),
    *("final_rate_factor", "step_epochs", "step_factor", "warmup_steps", "weight_decay", "average_decay", "patience"),
    *("class_weights", "checkpoint_minutes", "tracker", "range_test", "long_run", "band", "figures", "progress"),
)
"""Parameters in which two trainings may differ, and an epoch still takes as long."""


class JobCost(NamedTuple):
    """What is left of a job: its seconds, and for a training that was tried here, MiB of memory and of disk, else 0."""

    seconds: float
    memory_mib: float = 0.0
    disk_mib: float = 0.0

    def __str__(self) -> str:
        told = f"about {format_duration(self.seconds)}"
        return told + f", {describe_room(self.memory_mib, self.disk_mib)}" * bool(self.disk_mib)


def describe_room(memory_mib: float, disk_mib: float) -> str:
    """Return memory and disk in words."""
    return f"{memory_mib / 1024:.1f} GiB of memory, {disk_mib:.0f} MiB of disk"


def known_costs(jobs: Sequence[Job], states: Mapping[int, JobState]) -> dict[int, JobCost]:
    """Return what unfinished jobs will take, by number, where their like has run before; nothing is measured.

    A training takes as long an epoch as it has so far, or as another run that differs in nothing that costs time; any
    other notebook as long as those of the sweep that are finished.
    """
    others = [_seconds(job.copy) for job in jobs if states[job.number].state == FINISHED and not job.trains]
    usual = statistics.median(known) if (known := [seconds for seconds in others if seconds]) else None
    found = {}
    for job in jobs:
        if states[job.number].state != FINISHED:
            seconds = _training_seconds(job, states[job.number]) if job.trains else usual
            if seconds is not None:
                found[job.number] = JobCost(seconds)
    return found


def tried_costs(jobs: Sequence[Job], states: Mapping[int, JobState], *, progress: str) -> dict[int, JobCost]:
    """Return what the trainings among unfinished jobs will take on this machine, by number, from a few steps.

    These are taken once for all trainings of one network, crop and batch. Raises what `estimate_cost` does for the
    first that cannot fit, with the number of its job.
    """
    waiting = [job for job in jobs if job.trains and states[job.number].state not in (FINISHED, RUNNING)]
    alike: dict[str, list[Job]] = {}
    for job in waiting:
        alike.setdefault(json.dumps(_costly(job.parameters.as_dict()), sort_keys=True), []).append(job)
    if alike and resolve_mode(progress) == "lines":
        each = f", once for each of {len(alike)} networks, crops or batches" if len(alike) > 1 else ""
        print(f"taking a few steps, to say what the jobs cost{each}", flush=True)
    found = {}
    for some in track(alike.values(), total=len(alike), title="take a few steps", mode=progress):
        measure = _measured_once()
        for job in some:
            try:
                cost = estimate_cost(replace(job.parameters, progress="none"), measure)
            except UserError as error:
                raise type(error)(f"job {job.number} ({job.title}): {error}") from error
            found[job.number] = JobCost(cost.seconds, cost.memory_mib, cost.disk_mib)
    return found


def _measured_once() -> Callable[..., Pace]:
    """Return what measures the pace of the first training, and repeats it for those alike."""
    paces: list[Pace] = []

    def measure(*training: Any) -> Pace:
        if not paces:
            paces.append(measure_pace(*training))
        return paces[0]

    return measure


def _seconds(copy: Path) -> float | None:
    try:
        return json.loads(copy.read_text(encoding="utf-8"))["metadata"]["papermill"]["duration"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _training_seconds(job: Job, state: JobState) -> float | None:
    wanted = _costly(job.parameters.as_dict())
    for run in [job.run, *reversed(list_runs())]:
        try:
            same = _costly(TrainParameters.recorded(read_record(run_folder(run) / "run.json")["parameters"])) == wanted
            history = read_history(run_folder(run) / METRICS)
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if same and history and not job.parameters.steps:
            epoch = statistics.median(row["seconds"] for row in history)
            return epoch * max(0, job.parameters.epochs - state.epoch)
    return None


def _costly(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in SAME_COST}
