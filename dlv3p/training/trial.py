"""Try a few steps of a training: how long it will take here, and what mixed precision and larger batches would gain.

Nothing is chosen for anyone: both change the result. Every setting is tried in a fresh process, on noise, so that the
peak of its memory is its own, and one that does not fit ends nothing else.
"""

import json
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd
import psutil
import torch

from cityscapes.errors import MachineError, OutOfMemoryError, UserError
from cityscapes.files.channels import PixelRule, pixel_rule
from cityscapes.files.leftovers import temporary_folder
from cityscapes.freed_memory import keep_freed_memory
from cityscapes.workspace import run_folder
from dlv3p.data.roots import open_training
from dlv3p.models.deeplab import build_network
from dlv3p.models.inputs import input_channels
from dlv3p.parameters.training import TrainParameters
from dlv3p.profiling.machine import machine_name
from dlv3p.profiling.process_memory import measurable, peak_kib, run_module
from dlv3p.runtime.devices import LAYOUT, choose_device, explain_out_of_memory
from dlv3p.runtime.lines import format_duration
from dlv3p.runtime.progress import track
from dlv3p.training.activation_checkpointing import checkpoint_activations
from dlv3p.training.checkpoints import checkpoint_state
from dlv3p.training.distillation import load_teacher
from dlv3p.training.optimizers import build_optimizer
from dlv3p.training.step import Stepper, build_loss, build_stepper
from dlv3p.weights.checkpoint import load_checkpoint, save_checkpoint

TIMED_STEPS = 3
ENOUGH_SECONDS = 60
"""No further step is taken after so many seconds: slow steps vary less."""
WORTH_OFFERING = 1.05
"""How many times as fast a setting has to be before it is offered; a larger batch, than the one before it."""


class Trial(NamedTuple):
    """A setting that was tried: seconds of a step, and MiB at its peak, of the process or, with a GPU, on the board.

    `save_seconds` is how long a checkpoint takes to write, 0 where it was not measured.
    """

    batch_size: int
    precision: str
    seconds: float
    mib: float
    save_seconds: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Crops that are trained on per second."""
        return self.batch_size / self.seconds


def try_settings(parameters: TrainParameters, num_classes: int, rule: PixelRule | None = None) -> Iterator[Trial]:
    """Try the parameters as they are, in mixed precision, and with twice the batch as long as it fits and gains.

    Raises OutOfMemoryError when the parameters as they are do not fit.
    """
    fastest = try_setting(parameters, num_classes, rule)
    yield fastest
    lower = ("bfloat16", "float16") if choose_device(parameters.device).type == "cuda" else ("bfloat16",)
    with suppress(OutOfMemoryError):
        for precision in lower:
            if precision != parameters.precision:
                one = try_setting(replace(parameters, precision=precision), num_classes, rule)
                yield one
                fastest = max(fastest, one, key=lambda trial: trial.images_per_second)
        yield from _try_larger(replace(parameters, precision=fastest.precision), fastest, num_classes, rule)


def report_trials(parameters: TrainParameters) -> str:
    """Try the settings on the classes of the training's data, and return the table and what it says.

    Of a training by several processes, the share of one is tried.
    """
    training, _ = open_training(parameters)
    settings = try_settings(parameters.of_one_process(), training.num_classes, training.pixel_rule)
    tried = list(track(settings, title="try", mode=parameters.progress))
    epoch = len(training) // parameters.processes
    where = machine_name(choose_device(parameters.device).type)
    return f"{where}\n{trial_table(tried).to_string()}\n{describe_trials(tried, epoch, parameters.epochs)}"


def trial_table(tried: list[Trial]) -> pd.DataFrame:
    """Return a row per setting: seconds of a step, images per second, how many times as fast as the first, memory."""
    first = tried[0]
    rows = [
        {
            "batch_size": one.batch_size,
            "precision": one.precision,
            "s / step": round(one.seconds, 3),
            "images / s": round(one.images_per_second, 1),
            "times as fast": round(one.images_per_second / first.images_per_second, 2),
            "memory, MiB": round(one.mib) if one.mib else None,
        }
        for one in tried
    ]
    return pd.DataFrame(rows).set_index(["batch_size", "precision"])


def describe_trials(tried: list[Trial], images: int, epochs: int) -> str:
    """Say how long `epochs` over so many images take as they are, and which setting would be faster, and how to set it.

    The time is that of the steps alone: loading and validation come on top, about a third more on a CPU.
    """
    first, best = tried[0], max(tried, key=lambda one: one.images_per_second)
    duration = format_duration(epochs * (images // first.batch_size) * first.seconds)
    said = f"The steps of {epochs} epochs take about {duration} here; not counting loading and validation."
    if best.images_per_second < WORTH_OFFERING * first.images_per_second:
        return f"{said} Neither mixed precision nor a larger batch makes it faster."
    changed = {"batch_size": best.batch_size, "precision": best.precision}
    words = " ".join(f"-p {name} {value}" for name, value in changed.items() if value != getattr(first, name))
    gain = best.images_per_second / first.images_per_second
    return f"{said} {gain:.1f} times as fast: {words}. It changes the result, and the best learning rate."


def _try_larger(
    parameters: TrainParameters, before: Trial, num_classes: int, rule: PixelRule | None
) -> Iterator[Trial]:
    """Try twice the batch of the trial before, again and again, while the memory is free and the gain is worth it.

    Memory grows in proportion to the batch; of one trial alone it is not known which part of it does.
    """
    growth = before.mib
    while _is_free(before.mib + growth, parameters.device):
        one = try_setting(replace(parameters, batch_size=2 * before.batch_size), num_classes, rule)
        yield one
        if one.images_per_second < WORTH_OFFERING * before.images_per_second:
            return
        before, growth = one, 2 * (one.mib - before.mib)


def _is_free(mib: float, device: str) -> bool:
    """Return whether a process may take so much memory beside this one; a GPU's allocator says so itself."""
    return choose_device(device).type == "cuda" or mib < psutil.virtual_memory().available / 2**20


def try_setting(parameters: TrainParameters, num_classes: int, rule: PixelRule | None = None) -> Trial:
    """Try one setting in a fresh process; raises OutOfMemoryError when it does not fit."""
    pixels = rule.as_dict() if rule else None
    request = {"parameters": parameters.as_dict(), "num_classes": num_classes, "pixels": pixels}
    child = run_module("dlv3p.training.trial", json.dumps(request), b"")
    if child.returncode == 0:
        found = json.loads(child.stdout.split(b"\n")[-2])
        return Trial(parameters.batch_size, parameters.precision, **found)
    last = child.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
    setting = f"batch_size={parameters.batch_size}, precision={parameters.precision}"
    if child.returncode == -signal.SIGKILL or OutOfMemoryError.__name__ in last:
        raise OutOfMemoryError(f"out of memory: {setting} does not fit; take a smaller batch_size or crop")
    raise MachineError(f"{setting}: a trial step failed, {last}")


def _try_here(parameters: TrainParameters, num_classes: int, rule: PixelRule | None) -> dict[str, float]:
    """Take the steps in this process: the first one, which chooses algorithms, is not timed."""
    device = choose_device(parameters.device)
    torch.set_num_threads(parameters.threads)
    torch.manual_seed(parameters.seed)
    model = build_network(parameters, num_classes, rule=rule).to(device, memory_format=LAYOUT).train()
    model = checkpoint_activations(model) if parameters.activation_checkpointing else model
    loss, optimizer = build_loss(parameters, None), build_optimizer(parameters, model)
    teacher = load_teacher(parameters.teacher, num_classes, device, rule)
    stepper = build_stepper(parameters, model, loss, optimizer, device, teacher=teacher)
    size, channels = (parameters.crop_height, parameters.crop_width), input_channels(model)
    image = torch.rand(parameters.batch_size, channels, *size)
    mask = torch.randint(num_classes, (parameters.batch_size, *size))
    times = []
    for step in range(1 + TIMED_STEPS):
        began = time.perf_counter()
        stepper(image, mask, rate=1.0, step=step).loss.item()  # which is there once the device has finished
        times.append(time.perf_counter() - began)
        if sum(times) > ENOUGH_SECONDS:
            break
    saved = _save_seconds(stepper)  # before the peak is read: of a large network, a checkpoint takes more than a step
    return {"seconds": statistics.median(times[1:] or times), "mib": _peak_mib(device), "save_seconds": saved}


def _save_seconds(stepper: Stepper) -> float:
    """Return how long a checkpoint takes to write to the disk of the runs, into a folder that goes again.

    It is read again, as at the end of a run. 0 where it cannot be written, of which a training says more.
    """
    there = run_folder("")
    while not there.is_dir():
        there = there.parent
    began = time.perf_counter()
    try:
        with temporary_folder("dlv3p-trial", there) as folder:
            save_checkpoint(folder / "last.pt", checkpoint_state(stepper) | {"epoch": 0})
            seconds = time.perf_counter() - began
            load_checkpoint(folder / "last.pt")
    except (OSError, MachineError):
        return 0.0
    return seconds


def _peak_mib(device: torch.device) -> float:
    """Return the peak memory of this process so far, 0 where this system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    return peak_kib() / 1024 if measurable() else 0.0


def run_request(request: Mapping[str, Any]) -> dict[str, float]:
    """Take the steps that `try_setting` requested, in this process."""
    rule = pixel_rule(request["pixels"], "data.yaml") if request["pixels"] else None
    with explain_out_of_memory("a step does not fit"), keep_freed_memory():
        return _try_here(TrainParameters.from_mapping(request["parameters"]), request["num_classes"], rule)


def _main(request: Mapping[str, Any]) -> None:
    try:
        found = run_request(request)
    except UserError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps(found))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
