"""Stop a run whose loss or gradient is no longer finite, and leave what is needed to take that step again."""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cityscapes.errors import DivergedError, MachineError
from dlv3p.data.loader import TrainingSamples
from dlv3p.data.sampling import Key
from dlv3p.runs.folders import write_json
from dlv3p.runtime.processes import place
from dlv3p.training.step import Stepper, StepResult
from dlv3p.weights.checkpoint import save_checkpoint

Batch = tuple[Tensor, Tensor]


class DivergenceGuard:
    """Keep the recent losses of a run, and raise DivergedError for a step that has diverged.

    `facts` describe the network, as in a checkpoint.
    """

    def __init__(
        self, folder: Path, samples: TrainingSamples, facts: Mapping[str, Any], *, learning_rate: float
    ) -> None:
        self.folder, self.samples, self.facts, self.learning_rate = folder, samples, facts, learning_rate
        self.recent_losses: deque[float] = deque(maxlen=100)

    def check(
        self,
        result: StepResult,
        stepper: Stepper,
        batch: Batch,
        *,
        step: int,
        rate: float,
        keys: Callable[[], list[Key]],
    ) -> None:
        """Check that a step is finite, or has only overflowed in float16; `keys` are those of all its samples."""
        self.recent_losses.append(result.loss)
        if math.isfinite(result.loss) and math.isfinite(result.gradient_norm) or stepper.overflowed(result):
            return
        what = "gradient norm" if math.isfinite(result.loss) else "loss"
        value = result.gradient_norm if math.isfinite(result.loss) else result.loss
        if place().first:
            self._leave_capsule(result, stepper, batch, step=step, rate=rate, keys=keys())
        raise DivergedError(
            f"step {step}: the {what} is {value}; the last checkpoint in {self.folder} is older. "
            f"Lower learning_rate (now {self.learning_rate}) and train as another run; where it began: "
            f"dlv3p replay {self.folder.name} --step {step}"
        )

    def _leave_capsule(
        self, result: StepResult, stepper: Stepper, batch: Batch, *, step: int, rate: float, keys: list[Key]
    ) -> None:
        """Write the step for people, as JSON, and for `replay`: the weights, which the step has not changed."""
        told = {
            "loss": result.loss,
            "gradient_norm": result.gradient_norm,
            "recent_losses": list(self.recent_losses),
            "learning_rate": self.learning_rate * rate,
            "seed": stepper.seed,
            "samples": [self.samples.name(key) for key in keys],
        }
        state = {
            **self.facts,
            "epoch": keys[0][0],
            "step": step,
            "rate": rate,
            "loss": result.loss,
            "gradient_norm": result.gradient_norm,
            "keys": [list(key) for key in keys],
            "samples": told["samples"],
            "processes": place().ranks,
            "crops_sha256": crops_sha256(batch),
            "model": stepper.model.state_dict(),
            "scaler": stepper.scaler_before,
        }
        path = capsule_path(self.folder, step)
        write_json(path.with_suffix(".json"), _without_nan(told))
        try:
            save_checkpoint(path, state)
        except MachineError as error:  # a full disk must not hide that the run has diverged
            print(f"warning: {error}; the step cannot be replayed", flush=True)


def capsule_path(folder: Path, step: int) -> Path:
    """Return where a run leaves the weights of a step, counted from 1, that has diverged."""
    return folder / "diverged" / f"step_{step}.pt"


def crops_sha256(batch: Batch) -> str:
    """Return the hash of a batch's images and masks, to the bit."""
    digest = hashlib.sha256()
    for part in batch:
        digest.update(part.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinities, which JSON lacks, by text."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
