"""Say what the jobs of a sweep cost before they start: by a few steps or images here, else by what has run before."""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

from cityscapes.dataset import Split
from cityscapes.errors import UserError
from cityscapes.files.png_write import encode_png
from cityscapes.workspace import output_folder, run_folder
from dlv3p.data.roots import open_images, resolve_data_root
from dlv3p.experiments.jobs import RUNNING, Job, JobState
from dlv3p.jupyter.demo import load_run
from dlv3p.parameters.notebooks import EvaluateParameters, SavePredictionsParameters
from dlv3p.parameters.training import TrainParameters
from dlv3p.prediction.memory import MemoryLimit
from dlv3p.prediction.predictor import limit_of
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
TIMED_IMAGES, ENOUGH_SECONDS = 3, 60
"""How many images are predicted to tell the time of all, and after how many seconds no further one."""
COPY_MIB = 1.0
"""What an executed notebook takes with its tables and pictures."""


class JobCost(NamedTuple):
    """What is left of a job: seconds, None where they are not known, and MiB of memory and of disk, 0 where not.

    `origin` says what the seconds come from, where these are not all of them by a trial on this machine.
    """

    seconds: float | None
    memory_mib: float = 0.0
    disk_mib: float = 0.0
    origin: str = ""

    def __str__(self) -> str:
        told = "time unknown" if self.seconds is None else f"about {format_duration(self.seconds)}"
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
            found[job.number] = other._replace(seconds=one.seconds, origin=one.origin)
        elif cost := other or one:
            found[job.number] = cost
    left = [job for job in jobs if not job.trains and states[job.number].state != FINISHED and job.number not in found]
    if left and (last := _last_execution(left[0].notebook)):
        found |= dict.fromkeys((job.number for job in left), last)
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
    """Return what the trainings among unfinished jobs will take on this machine, by number, from a few steps.

    These are taken once for all trainings of one network, crop and batch. Raises what `estimate_cost` does for the
    first that cannot fit, with the number of its job; but not for the memory of one that will not run `here`.
    """
    waiting = [job for job in jobs if job.trains and states[job.number].state not in (FINISHED, RUNNING)]
    alike: dict[str, list[Job]] = {}
    for job in waiting:
        alike.setdefault(json.dumps(_costly(job.parameters.as_dict()), sort_keys=True), []).append(job)
    if not alike:
        return {}
    if resolve_mode(progress) == "lines":
        each = f", once for each of {len(alike)} networks, crops or batches" if len(alike) > 1 else ""
        print(f"taking a few steps, to say what the jobs cost{each}", flush=True)
    found = {}
    for some in track(alike.values(), total=len(alike), title="take a few steps", mode=progress):
        measure = _measured_once(measure_pace if here else _measure_if_it_fits)
        for job in some:
            device = job.parameters.device if here else "auto"
            try:
                cost = estimate_cost(replace(job.parameters, progress="none", device=device), measure)
            except UserError as error:
                raise type(error)(f"job {job.number} ({job.title}): {error}") from error
            seconds, origin = (None, "it does not fit this machine") if isnan(cost.seconds) else (cost.seconds, "")
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


def predicted_costs(jobs: Sequence[Job], states: Mapping[int, JobState]) -> dict[int, JobCost]:
    """Return what unfinished jobs at least take that score a split or save its predictions, by number."""
    found = {}
    for job in jobs:
        p = job.parameters
        if states[job.number].state != FINISHED and isinstance(p, EvaluateParameters | SavePredictionsParameters):
            with suppress(UserError):  # the job itself says what is wrong
                found[job.number] = _predicting_cost(p)
    return found


def _predicting_cost(parameters: EvaluateParameters | SavePredictionsParameters) -> JobCost:
    """Predict a few images of the split; what is counted, drawn and written of all comes on top."""
    p, protocol, predictor = parameters, parameters.chosen_protocol(), load_run(parameters)
    split = open_images(resolve_data_root(p.data_root or predictor.parameters.data_root), p.split)
    times: list[float] = []
    while len(times) <= TIMED_IMAGES and sum(times) < ENOUGH_SECONDS:
        began = time.perf_counter()
        labels = predictor(split.image(len(times) % len(split)), protocol)
        times.append(time.perf_counter() - began)
    memory = limit_of(predictor, MemoryLimit(0, 0, 0)).predicted(labels.shape, len(predictor.class_names), protocol)
    seconds = statistics.median(times[1:] or times) * len(split)
    workers, masks = 1, 0.0
    if isinstance(p, SavePredictionsParameters):
        workers, masks = p.workers, 2 * len(split) * len(encode_png(labels)) / 2**20  # each is in the zip as well
    return JobCost(seconds / workers, workers * memory / 2**20, COPY_MIB + masks, "at least, by a few images")


def _last_execution(notebook: Path) -> JobCost | None:
    """Return how long a notebook took when it was last executed to its end, whatever its parameters."""
    newest = sorted(output_folder("").glob("*/*.ipynb"), key=lambda path: path.stat().st_mtime, reverse=True)
    for copy in newest:
        name, seconds = _execution(copy)
        if name == notebook.name and seconds:
            return JobCost(seconds, origin=f"as outputs/{copy.relative_to(output_folder(''))} took")
    return None


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
