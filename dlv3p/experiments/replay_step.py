"""Take a diverged step again from what it left in `saved/<run>/diverged/`, and name the layer where it began.

dlv3p replay RUN --step 57
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cityscapes.dataset import Split
from cityscapes.errors import IntegrityError, MissingInputError
from cityscapes.workspace import run_folder
from dlv3p.data.batches import CheckedSamples, read_batch
from dlv3p.data.loader import make_samples
from dlv3p.data.roots import open_training
from dlv3p.parameters.training import TrainParameters
from dlv3p.runtime.devices import Batch, choose_device, explain_out_of_memory
from dlv3p.training.divergence import capsule_path, crops_sha256
from dlv3p.training.not_finite import FirstNotFinite, Origin
from dlv3p.training.recording import memory_advice
from dlv3p.training.recovery import build_for_training, build_run_stepper
from dlv3p.training.step import StepResult
from dlv3p.weights.checkpoint import load_checkpoint

KEYS = (
    *("parameters", "class_names", "keys", "samples", "crops_sha256", "processes", "loss", "gradient_norm", "rate"),
    *("step", "scaler", "model"),
)
"""What a step leaves, as far as it is needed here."""

MOST_LAYERS = 6
"""The most layers that are listed, up to the one where it began."""


@dataclass(frozen=True)
class ReplayedStep:
    """A step that was taken again: loss and gradient norm then and now, and where the first value was not finite.

    `sizes` are the layers in the order of the forward pass, with the largest magnitude of their outputs. `otherwise`
    says what was not as in the run, so that the bits may differ.
    """

    run: str
    step: int
    then: tuple[float, float]
    now: tuple[float, float]
    origin: Origin | None
    sizes: dict[str, float]
    samples: list[str]
    otherwise: list[str]

    @property
    def same_bits(self) -> bool:
        """Whether loss and gradient norm are those of the run, to the bit."""
        return [value.hex() for value in self.then] == [value.hex() for value in self.now]

    def __str__(self) -> str:
        loss, norm = self.now
        bits = "the same bits as in the run" if self.same_bits else f"in the run {self.then[0]} and {self.then[1]}"
        lines = [f"{self.run}, step {self.step}: loss {loss}, gradient norm {norm}, {bits}"]
        lines += [f"  not as in the run: {change}" for change in self.otherwise]
        lines.append(f"began in {self.origin}" if self.origin else "every value was finite this time")
        before = list(self.sizes.items())[-MOST_LAYERS:]
        lines += [f"  before, largest output of {layer}: {size:.3g}" for layer, size in before]
        return "\n".join([*lines, f"crops: {', '.join(self.samples)}"])


def replay_step(run: str, step: int) -> ReplayedStep:
    """Take a diverged step of a run again, in memory; raises MissingInputError where that step left nothing.

    Several processes and torch.compile are left out, since layers cannot be watched there; what that changes is said.
    """
    path = _find_capsule(run, step)
    capsule = load_checkpoint(path)
    if lacking := [key for key in KEYS if key not in capsule]:
        raise IntegrityError(f"{path}: lacks {', '.join(lacking)}, so no diverged step has left it; restore it")
    recorded = TrainParameters.from_mapping(TrainParameters.recorded(capsule["parameters"]))
    alone = {"processes": 1, "compile": False, "workers": 0, "progress": "none"}
    parameters = TrainParameters.from_mapping({**recorded.as_dict(), **alone})
    torch.set_num_threads(parameters.threads)
    device = choose_device(parameters.device)
    training, _ = open_training(parameters)
    batch = _read_batch(parameters, training, capsule)
    with explain_out_of_memory(memory_advice(parameters)):
        result, watch = _take(parameters, training, capsule, batch, device)
    return ReplayedStep(
        run, step, (capsule["loss"], capsule["gradient_norm"]), (result.loss.item(), result.gradient_norm.item()),
        watch.origin, watch.sizes, list(capsule["samples"]), _differences(recorded, capsule, batch),
    )  # fmt: skip


def _take(
    parameters: TrainParameters, training: Split, capsule: dict[str, Any], batch: Batch, device: torch.device
) -> tuple[StepResult, FirstNotFinite]:
    capsule = capsule | {"training_model": capsule["model"]}
    model = build_for_training(parameters, capsule["class_names"], device, capsule, training.pixel_rule).train()
    stepper = build_run_stepper(parameters, model, training, device)
    if capsule["scaler"]:
        stepper.scaler.load_state_dict(capsule["scaler"])
    with FirstNotFinite(model) as watch:
        result = stepper(*batch, rate=capsule["rate"], step=capsule["step"] - 1)
    return result, watch


def _read_batch(parameters: TrainParameters, training: Split, capsule: dict[str, Any]) -> Batch:
    samples = CheckedSamples(make_samples(parameters, training), skip=parameters.on_bad_sample == "skip")
    return read_batch(samples, [tuple(key) for key in capsule["keys"]])


def _differences(recorded: TrainParameters, capsule: dict[str, Any], batch: Batch) -> list[str]:
    """Return what is not as it was in the run."""
    found = []
    if capsule["processes"] > 1:
        found.append(f"one process takes the crops of {capsule['processes']}")
    elif crops_sha256(batch) != capsule["crops_sha256"]:
        found.append("the crops, so images or masks have changed")
    if recorded.compile:
        found.append("the network is not compiled")
    return found


def _find_capsule(run: str, step: int) -> Path:
    path = capsule_path(run_folder(run), step)
    if path.is_file():
        return path
    names = (found.stem.removeprefix("step_") for found in path.parent.glob("step_*.pt"))
    left = sorted(int(name) for name in names if name.isdecimal())
    steps = f"it left {', '.join(map(str, left))}" if left else "the run has no step that diverged"
    raise MissingInputError(f"run={run!r}, step {step}: {path} does not exist; {steps}")
