"""Say before a training starts what it costs here: seconds, memory, and disk; refuse what cannot fit.

Memory comes from a trace of a step, and then from three steps that are really taken, in a process of their own. Those
also give the time of a step, and that of writing a checkpoint; validation follows by the multiply-adds of whole images.
"""

import os
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cityscapes.dataset import Split
from cityscapes.errors import MachineError, OutOfMemoryError, ParameterError
from cityscapes.files.listing import walk
from cityscapes.files.locks import holder_of
from cityscapes.workspace import run_folder
from dlv3p.data.loader import TrainingSamples, make_augmentation
from dlv3p.data.roots import open_training
from dlv3p.models.anatomy import count_macs
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.listing import read_state
from dlv3p.runs.record import refuse_other_run
from dlv3p.runtime.devices import choose_device
from dlv3p.runtime.lines import format_duration
from dlv3p.runtime.processes import started_in_group
from dlv3p.runtime.progress import preparing
from dlv3p.training.memory import BESIDE_BYTES, free_bytes, predict_disk_bytes, refuse_memory, what_fits
from dlv3p.training.trial import Trial, try_setting

LONG_SECONDS = 3600
"""A run that takes longer has to be meant."""
BACKWARD = 3
"""Multiply-adds of a step, in those of its forward pass."""
READ_SAMPLES = 3
SAVES_AT_THE_END = 2
"""What the end takes, in checkpoints: the best one is read and its weights are exported."""


class Cost(NamedTuple):
    """What is left of a training: seconds, steps, MiB at the peak of a process, and MiB of its folder."""

    seconds: float
    steps: int
    step_seconds: float
    memory_mib: float
    disk_mib: float

    def __str__(self) -> str:
        if not self.steps:
            return "nothing is left to train, or another process trains this run"
        return (
            f"about {format_duration(self.seconds)} here: {self.steps} steps of {self.step_seconds:.2f} s, measured "
            "now, validation, and checkpoints\n"
            f"{self.memory_mib / 1024:.1f} GiB of memory, {self.disk_mib:.0f} MiB of disk"
        )

    def refuse_long(self, parameters: TrainParameters) -> None:
        """Raise ParameterError for a run of more than an hour, unless `long_run` says that it is meant."""
        if self.seconds > LONG_SECONDS and not parameters.long_run:
            raise ParameterError(
                f"run={parameters.run_name!r}: takes about {format_duration(self.seconds)} here, more than an hour; "
                "say that it is meant by long_run=True (papermill: -p long_run True); `dlv3p train --try` says "
                "what would be faster"
            )


class Pace(NamedTuple):
    """How trainings of one network, crop and batch go here: seconds of a step, an image, a checkpoint; MiB at the peak.

    The image is one of the validation, and the peak that of a process.
    """

    step_seconds: float
    image_seconds: float
    save_seconds: float
    memory_mib: float


def measure_pace(parameters: TrainParameters, training: Split, validation: Split) -> Pace:
    """Take a few steps, of which the rest follows; raises OutOfMemoryError, with what would fit, where they do not."""
    p = parameters
    refuse_memory(p, training.num_classes, training.pixel_rule)
    tried = _try(p, training)
    step = step_seconds(p, tried.seconds, read_seconds(p, training))
    image = validation_seconds(p, validation, tried.seconds) if len(validation) else 0.0
    beside = BESIDE_BYTES / 2**20 if tried.mib and choose_device(p.device).type == "cpu" else 0.0
    return Pace(step, image, tried.save_seconds, tried.mib + beside)


def estimate_cost(parameters: TrainParameters, measure: Callable[..., Pace] = measure_pace) -> Cost:
    """Estimate what is left of a training; nothing for one that is finished, or that another process is doing.

    `measure` may return the pace of a training alike. Raises OutOfMemoryError or MachineError, with what would fit, for
    one that cannot fit into memory or on the disk, and ParameterError where the run was started with other parameters.
    """
    p, run = parameters, run_folder(parameters.run_name)
    refuse_other_run(p)
    if started_in_group() or holder_of(run):
        return Cost(0.0, 0, 0.0, 0.0, 0.0)
    training, validation = open_training(p)
    per_epoch = len(training) // min(p.batch_size, len(training))
    done = read_state(p.run_name).epoch if (run / "run.json").is_file() else 0
    steps = max(0, (p.steps or p.epochs * per_epoch) - done * per_epoch)
    if not steps:
        return Cost(0.0, 0, 0.0, 0.0, 0.0)
    with preparing(p.progress, "taking a few steps, to say what the training costs"):
        disk = _refuse_disk(p, training, run)
        pace = measure(p, training, validation)
    epochs = max(1, steps // per_epoch)
    validations = -(-epochs // p.validate_every)
    saves = epochs + validations + SAVES_AT_THE_END
    seconds = steps * pace.step_seconds + validations * len(validation) / p.processes * pace.image_seconds
    seconds += saves * pace.save_seconds
    return Cost(seconds, steps, pace.step_seconds, pace.memory_mib, disk / 2**20)


def say_cost(parameters: TrainParameters) -> None:
    """Print what a training costs, unless nobody is to be told of its progress; raises what `estimate_cost` does."""
    if parameters.progress != "none":
        cost = estimate_cost(parameters)
        if cost.steps:
            print(f"{parameters.run_name}: {cost}", flush=True)


def step_seconds(parameters: TrainParameters, computed: float, read: float) -> float:
    """Return how long a step takes with its data: `computed` alone, and `read` for one of its samples.

    Workers read while the network computes; on a CPU, they share its cores.
    """
    p, loaded = parameters, read * parameters.batch_size / parameters.processes
    if not p.workers:
        return computed + loaded
    slowest = max(computed, loaded / p.workers)
    if choose_device(p.device).type == "cuda":
        return slowest
    cores = len(os.sched_getaffinity(0)) / p.processes
    return max(slowest, (computed * min(p.threads, cores) + loaded) / cores)


def validation_seconds(parameters: TrainParameters, validation: Split, computed: float) -> float:
    """Return how long a whole image takes, from the time of a training step and the multiply-adds of both."""
    p, build = parameters, partial(build_network, parameters, validation.num_classes, rule=validation.pixel_rule)
    began = time.perf_counter()
    width, height = validation.image(0).size
    read = time.perf_counter() - began
    whole = count_macs(build, *(max(33, round(side * p.image_scale)) for side in (height, width)))["total"]
    step = BACKWARD * count_macs(build, p.crop_height, p.crop_width)["total"] * (p.batch_size / p.processes)
    return computed * whole / step + (0.0 if p.workers else read)


def read_seconds(parameters: TrainParameters, training: Split) -> float:
    """Return how long it takes to read and augment a training sample: the median of a few, the first left out."""
    augmentation = make_augmentation(parameters, training.pixel_rule)
    samples, times = TrainingSamples(training, augmentation, seed=parameters.seed), []
    for number in range(1 + READ_SAMPLES):
        began = time.perf_counter()
        samples[0, number % len(samples)]
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _try(parameters: TrainParameters, training: Split) -> Trial:
    """Take a few steps of one process; raises OutOfMemoryError, with what would fit, where they do not."""
    p, classes, rule = parameters, training.num_classes, training.pixel_rule
    try:
        return try_setting(p.of_one_process(), classes, rule)
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"{error}; {what_fits(p, classes, free_bytes(p), rule)}") from None


def _refuse_disk(parameters: TrainParameters, training: Split, run: Path) -> int:
    """Return the bytes that the run's folder takes; raises MachineError where the disk has less."""
    needed, there = predict_disk_bytes(parameters, training.num_classes, training.pixel_rule), run
    while not there.exists():
        there = there.parent
    held = sum(path.stat().st_size for path in walk(run))
    if (free := shutil.disk_usage(there).free) + held < needed:
        raise MachineError(
            f"{run}: a run of this network takes {needed / 2**20:.0f} MiB of disk, and {free / 2**20:.0f} are free; "
            "remove runs (dlv3p runs remove RUN), or set DLV3P_WORKSPACE to a folder on another disk"
        )
    return needed
