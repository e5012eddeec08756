"""Stop a run whose loss or gradient is no longer finite, and leave what is needed to take that step again."""

import hashlib
import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cityscapes.errors import DivergedError, UserError
from dlv3p.data.batches import Batches, read_batch
from dlv3p.runs.folders import describe_last, write_json
from dlv3p.runtime.devices import Batch
from dlv3p.runtime.processes import place
from dlv3p.training.findings import FoundStep
from dlv3p.training.step import Stepper
from dlv3p.weights.checkpoint import save_checkpoint


class DivergenceGuard:
    """Keep the recent losses of a run, and raise DivergedError for a step that has diverged.

    `crops` are the batches of the run, and `facts` describe the network, as in a checkpoint.
    """

    def __init__(self, folder: Path, crops: Batches, facts: Mapping[str, Any], *, learning_rate: float) -> None:
        self.folder, self.crops, self.facts, self.learning_rate = folder, crops, facts, learning_rate
        self.recent_losses: deque[float] = deque(maxlen=100)

    def check(self, steps: Sequence[FoundStep], stepper: Stepper) -> None:
        """Check that no step has diverged; the first that has is left in the run's folder."""
        for found in steps:
            self.recent_losses.append(found.loss)
            if found.diverged:
                self._stop_at(found, stepper)

    def _stop_at(self, found: FoundStep, stepper: Stepper) -> None:
        step = found.step + 1
        what = "gradient norm" if math.isfinite(found.loss) else "loss"
        value = found.gradient_norm if math.isfinite(found.loss) else found.loss
        if place().first:
            self._leave_capsule(found, stepper)
        raise DivergedError(
            f"step {step}: the {what} is {value}; {describe_last(self.folder.name)}. "
            f"Lower learning_rate (now {self.learning_rate}) and train as another run; where it began: "
            f"dlv3p replay {self.folder.name} --step {step}"
        )

    def _leave_capsule(self, found: FoundStep, stepper: Stepper) -> None:
        """Write the step for people, as JSON, and for `replay`: the weights, which no step has changed since."""
        keys = self.crops.sampler.step_keys(found.step)
        told = {
            "loss": found.loss,
            "gradient_norm": found.gradient_norm,
            "recent_losses": list(self.recent_losses),
            "learning_rate": self.learning_rate * found.rate,
            "seed": stepper.seed,
            "samples": [self.crops.samples.name(key) for key in keys],
        }
        state = {
            **self.facts,
            "epoch": keys[0][0],
            "step": found.step + 1,
            "rate": found.rate,
            "loss": found.loss,
            "gradient_norm": found.gradient_norm,
            "keys": [list(key) for key in keys],
            "samples": told["samples"],
            "processes": place().ranks,
            "model": stepper.model.state_dict(),
            "scaler": {**stepper.scaler.state_dict(), "scale": found.scale} if stepper.scaler.is_enabled() else {},
        }
        path = capsule_path(self.folder, found.step + 1)
        write_json(path.with_suffix(".json"), _without_nan(told))
        try:
            crops = read_batch(self.crops.loader.dataset, keys[:: place().ranks])
            save_checkpoint(path, {**state, "crops_sha256": crops_sha256(crops)})
        except UserError as error:  # neither a full disk nor a lost image must hide that the run has diverged
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
