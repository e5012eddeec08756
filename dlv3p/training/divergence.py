"""Stop a run whose loss or gradient is no longer finite, and record the batch of that step."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cityscapes.dataset import Split
from cityscapes.errors import DivergedError
from dlv3p.runs.folders import write_json
from dlv3p.runtime.processes import place
from dlv3p.training.step import Stepper, StepResult


class DivergenceGuard:
    """Keep the recent losses of a run, and raise DivergedError for a step that has diverged."""

    def __init__(self, folder: Path, split: Split, learning_rate: float) -> None:
        self.folder, self.split, self.learning_rate = folder, split, learning_rate
        self.recent_losses: deque[float] = deque(maxlen=100)

    def check(
        self, result: StepResult, stepper: Stepper, *, step: int, rate: float, indices: Callable[[], np.ndarray]
    ) -> None:
        """Check that a step is finite, or has only overflowed in float16; `indices` are those of its samples."""
        self.recent_losses.append(result.loss)
        if math.isfinite(result.loss) and math.isfinite(result.gradient_norm) or stepper.overflowed(result):
            return
        if place().first:
            facts = {
                "loss": result.loss,
                "gradient_norm": result.gradient_norm,
                "recent_losses": list(self.recent_losses),
                "learning_rate": self.learning_rate * rate,
                "samples": [self.split.name(index) for index in indices().tolist()],
            }
            record_divergence(self.folder, step, facts)
        what = "gradient norm" if math.isfinite(result.loss) else "loss"
        value = result.gradient_norm if math.isfinite(result.loss) else result.loss
        raise DivergedError(
            f"step {step}: the {what} is {value}; the last checkpoint in {self.folder} is older. "
            f"Lower learning_rate (now {self.learning_rate}) and train as another run"
        )


def record_divergence(folder: Path, step: int, facts: Mapping[str, Any]) -> Path:
    """Write the facts about a step whose loss or gradient is not finite to `diverged/step_<step>.json`."""
    path = folder / "diverged" / f"step_{step}.json"
    write_json(path, _without_nan(dict(facts)))
    return path


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinities, which JSON lacks, by text."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value
