"""Say what the jobs of a sweep cost before they start: by a few steps or images here, else by what has run before."""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

from cityscapes.dataset import Split
from cityscapes.errors import UserError
from cityscapes.workspace import output_folder, run_folder
from dlv3p.compression.pruned_run import fine_tuning_of
from dlv3p.experiments.jobs import RUNNING, Job, JobState
from dlv3p.experiments.least_costs import least_cost
from dlv3p.parameters.base import Parameters
from dlv3p.parameters.notebooks import PruneParameters, QuickstartParameters
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import METRICS, list_runs
from dlv3p.runs.listing import FINISHED, read_history
from dlv3p.runs.record import read_record
from dlv3p.runtime.lines import format_duration
from dlv3p.runtime.progress import resolve_mode, track
from dlv3p.training.cost import Pace, estimate_cost, measure_pace
from dlv3p.training.memory import predict_bytes

SAME_COST = (
    *("run", "seed", "fold", "epochs", "steps", "learning_rate", "backbone_rate_factor", "schedule"),
    *("final_rate_factor", "step_epochs", "step_factor", "warmup_steps", "weight_decay", "average_decay", "patience"),
    *("class_weights", "checkpoint_minutes", "tracker", "range_test", "long_run", "band", "figures", "progress"),
)
"""Parameters in which two trainings may differ, and an epoch still takes as long."""
_OF_ITS_TRAINING = {
    PruneParameters: "to fine-tune, if it were dense; scoring and timing come on top",
    QuickstartParameters: "to train; what it shows comes on top",
}
"""What the seconds are of, where a notebook does more than to train."""


class JobCost(NamedTuple):
    """What is left of a job: seconds, None where they are not known, and MiB of memory and of disk, 0 where not.

    `origin` says what the seconds come from, where these are not all of them by a trial on this machine; with `least`,
    the job takes more.
    """

    seconds: float | None
    memory_mib: float = 0.0
    disk_mib: float = 0.0
    origin: str = ""
    least: bool = False

    def __str__(self) -> str:
        about = "at least" if self.least else "about"
        told = "time unknown" if self.seconds is None else f"{about} {format_duration(self.seconds)}"
        told += f" ({self.origin})" * bool(self.origin)
        return told + f", {describe_room(self.memory_mib, self.disk_mib)}" * bool(self.disk_mib)


def describe_room(memory_mib: float, disk_mib: float) -> str:
    """Return memory and disk in words."""
    return f"{memory_mib / 1024:.1f} GiB of memory, {disk_mib:.0f} MiB of disk"


def job_costs(
    jobs: Sequence[Job], states: Mapping[int, JobState], *, measured: bool, here: bool, progress: str
) -> dict[int, JobCost]:
    """Return what unfinished jobs will take, by number: by a trial on this machine if `measured`, and by earlier jobs.

    Where they run, if not `here`, on a cluster, the time of jobs alike comes before that of a trial. So it does for
    notebooks other than `train`, of which a trial shows only a part.
    """
    known = dict(known_costs(jobs, states))
    tried = tried_costs(jobs, states, progress=progress, here=here) | predicted_costs(jobs, states) if measured else {}
    found = {}
    for job in jobs:
        one, other = known.get(job.number), tried.get(job.number)
        if one and other and not (here and job.trains):
            found[job.number] = other._replace(seconds=one.seconds, origin=one.origin, least=False)
        elif cost := other or one:
            found[job.number] = cost
    left = [job for job in jobs if not job.trains and states[job.number].state != FINISHED and job.number not in found]
    if left and measured:
        found |= dict.fromkeys((job.number for job in left), _last_execution(left[0].notebook))
    return found


def known_costs(jobs: Sequence[Job], states: Mapping[int, JobState]) -> Iterator[tuple[int, JobCost]]:
    """Yield what unfinished jobs will take, with their numbers, where their like has run before; nothing is measured.

    A training takes as long an epoch as it has so far, or as another run that differs in nothing that costs time; any
    other notebook as long as those of the sweep that are finished.
    """
    others = [_execution(job.copy) for job in jobs if states[job.number].state == FINISHED and not job.trains]
    usual = statistics.median(known) if (known := [seconds for _, seconds in others if seconds]) else None
    for job in jobs:
        if states[job.number].state != FINISHED:
            seconds = _training_seconds(job, states[job.number]) if job.trains else usual
            if seconds is not None:
                yield job.number, JobCost(seconds, origin="as those that have run")


def tried_costs(
    jobs: Sequence[Job], states: Mapping[int, JobState], *, progress: str, here: bool
) -> dict[int, JobCost]:
    """Return what unfinished jobs that train will take on this machine, by number, from a few steps.

    These are taken once for all trainings of one network, crop and batch. Raises what `estimate_cost` does for the
    first that cannot fit, with the number of its job; but not for the memory of one that will not run `here`, nor for
    a notebook that does more than to train.
    """
    waiting = [job for job in jobs if states[job.number].state not in (FINISHED, RUNNING)]
    alike: dict[str, list[tuple[Job, TrainParameters]]] = {}
    for job in waiting:
        if training := _training_of(job.parameters):
            same = _costly(training.as_dict()) | {"initial_weights": ""}  # which a trial does not read
            alike.setdefault(json.dumps(same, sort_keys=True), []).append((job, training))
    if not alike:
        return {}
    if resolve_mode(progress) == "lines":
        each = f", once for each of {len(alike)} networks, crops or batches" if len(alike) > 1 else ""
        print(f"taking a few steps, to say what the jobs cost{each}", flush=True)
    found = {}
    for some in track(alike.values(), total=len(alike), title="take a few steps", mode=progress):
        measure = _measured_once(measure_pace if here else _measure_if_it_fits)
        for job, training in some:
            device = training.device if here else "auto"
            try:
                cost = estimate_cost(replace(training, progress="none", device=device), measure)
            except UserError as error:
                if not job.trains:
                    continue  # the job itself says what is wrong
                raise type(error)(f"job {job.number} ({job.title}): {error}") from error
            seconds, origin = cost.seconds, _OF_ITS_TRAINING.get(type(job.parameters), "")
            if isnan(cost.seconds):
                seconds, origin = None, "it does not fit this machine"
            found[job.number] = JobCost(seconds, cost.memory_mib, cost.disk_mib, origin)
    return found


def _measured_once(measure: Callable[..., Pace]) -> Callable[..., Pace]:
    """Return what measures the pace of the first training, and repeats it for those alike."""
    paces: list[Pace] = []

    def measured(*training: Any) -> Pace:
        if not paces:
            paces.append(measure(*training))
        return paces[0]

    return measured


def _measure_if_it_fits(parameters: TrainParameters, training: Split, validation: Split) -> Pace:
    """Return the pace of a training here; where no step can be taken, what is predicted of its memory alone."""
    try:
        return measure_pace(parameters, training, validation)
    except UserError:
        return Pace(nan, nan, nan, predict_bytes(parameters, training.num_classes, training.pixel_rule) / 2**20)


def _training_of(parameters: Parameters) -> TrainParameters | None:
    """Return the training that a notebook does, None for one that does none, or none that is known.

    Fine-tuning is tried with the dense network, since the pruned one does not exist yet.
    """
    if isinstance(parameters, PruneParameters):
        with suppress(UserError):  # the job itself says what is wrong
            return fine_tuning_of(parameters)
        return None
    if isinstance(parameters, QuickstartParameters):
        return parameters.training
    return parameters if isinstance(parameters, TrainParameters) else None


def predicted_costs(jobs: Sequence[Job], states: Mapping[int, JobState]) -> dict[int, JobCost]:
    """Return what unfinished jobs at least take that predict images or time a network, by number."""
    found = {}
    for job in jobs:
        if states[job.number].state != FINISHED:
            with suppress(UserError):  # the job itself says what is wrong
                if least := least_cost(job.parameters):
                    found[job.number] = JobCost(*least, "by a few images, as if none were done", least=True)
    return found


def _last_execution(notebook: Path) -> JobCost:
    """Return how long a notebook took when it was last executed to its end, whatever its parameters, if it was."""
    newest = sorted(output_folder("").glob("*/*.ipynb"), key=lambda path: path.stat().st_mtime, reverse=True)
    for copy in newest:
        name, seconds = _execution(copy)
        if name == notebook.name and seconds:
            return JobCost(seconds, origin=f"as outputs/{copy.relative_to(output_folder(''))} took")
    return JobCost(None, origin=f"no {notebook.name} was executed here to its end, from which it would follow")


def _execution(copy: Path) -> tuple[str, float | None]:
    """Return which notebook an executed copy is of, and how many seconds it took; None where it did not end well."""
    try:
        facts = json.loads(copy.read_text(encoding="utf-8"))["metadata"]["papermill"]
        return Path(facts["input_path"]).name, None if facts["exception"] else facts["duration"]
    except (OSError, ValueError, LookupError, TypeError):
        return "", None


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
