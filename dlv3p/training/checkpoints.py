"""Save the state of a run between two steps to `saved/<run>/`, and stop the run there on request."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cityscapes.errors import DivergedError, MissingInputError
from dlv3p.runs.folders import checkpoint_path, describe_last
from dlv3p.runs.loading import load_run_checkpoint
from dlv3p.runtime.processes import place, wait_for_all
from dlv3p.training.interruption import Interruption
from dlv3p.training.progress import TrainingProgress
from dlv3p.training.step import Stepper
from dlv3p.weights.checkpoint import model_from_checkpoint, save_checkpoint, save_weights


class Checkpoints:
    """The checkpoints "last" and "best" of a run, with `facts` beside the weights; only the first process writes."""

    def __init__(
        self,
        folder: Path,
        stepper: Stepper,
        progress: TrainingProgress,
        interruption: Interruption,
        *,
        minutes: float,
        facts: Mapping[str, Any],
    ) -> None:
        self.folder, self.stepper, self.progress, self.interruption = folder, stepper, progress, interruption
        self.minutes, self.facts = minutes, facts
        self.saved_at = time.monotonic()

    def after_step(self, asked: float) -> None:
        """Save if a checkpoint is due; save and stop if a stop was requested, of `asked` processes.

        Called after a step whose findings, and those of all steps before it, are read.
        """
        stopping = self.interruption.asked() if place().ranks == 1 else self.interruption.wanted_by(asked)
        if stopping or (time.monotonic() - self.saved_at) / 60 >= self.minutes:
            self.save("last")
        if stopping:
            self._stop()

    def after_image(self) -> None:
        """Read the energy; save the epoch before its validation is done, and stop, if a stop was requested."""
        self.progress.read_meter()
        if self.interruption.wanted(self.stepper.device):
            self.save("last")
            self._stop()

    def after_epoch(self, *, improved: bool) -> None:
        """Save a finished epoch."""
        self.save("best", "last") if improved else self.save("last")  # "last" commits, so it comes last

    def stop_between_epochs(self) -> None:
        """Stop if a stop was requested and the run is not finished."""
        if self.interruption.wanted(self.stepper.device) and not self.progress.finished:
            self._stop()

    def save(self, *names: str) -> None:
        """Write the named checkpoints; raises DivergedError, and writes nothing, when a weight is not finite."""
        if not place().first:
            return
        state = {
            "epoch": len(self.progress.history),
            "step": self.progress.sums.steps,
            **self.facts,
            **checkpoint_state(self.stepper),
            **self.progress.state_dict(),
        }
        _check_finite(self.folder, state["model"], state.get("training_model", {}))
        for name in names:
            save_checkpoint(checkpoint_path(self.folder.name, name), state)
        self.saved_at = time.monotonic()

    def _stop(self) -> None:
        """Stop all processes together, see `Interruption.wanted`, once the first one has saved."""
        wait_for_all()  # a process that ends while another still writes would look like a failure
        done = f"stopped after step {self.progress.done} of {self.progress.steps}"
        raise self.interruption.kind(f"run={self.folder.name!r}: {done}; run again to continue")


def checkpoint_state(stepper: Stepper) -> dict[str, Any]:
    """Return all tensors of a checkpoint: the weights that are scored, those that are trained, and the optimizer's."""
    trained = {} if stepper.average is None else {"training_model": stepper.model.state_dict()}
    return {"model": stepper.scored.state_dict(), **trained, **stepper.state_dict()}


def export_best(folder: Path, *, anew: bool) -> None:
    """Write the best checkpoint's weights as `model.safetensors`, at the end of a run; again only `anew`."""
    weights, best = folder / "model.safetensors", checkpoint_path(folder.name, "best")
    if not best.is_file():
        raise MissingInputError(
            f"{best}: is gone, although the run is finished; restore it, or remove the run to train it again"
        )
    if weights.is_file() and not anew:
        return
    state = load_run_checkpoint(folder.name)
    model, parameters = model_from_checkpoint(state)
    metadata = {name: state[name] for name in ("class_names", "widths", "epoch") if name in state}
    metadata["parameters"] = parameters.as_dict()
    save_weights(weights, model, metadata)


def _check_finite(folder: Path, *states: dict[str, Tensor]) -> None:
    for state in states:
        for name, value in state.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise DivergedError(
                    f"{name} holds a value that is not finite; {describe_last(folder.name)}. "
                    "Lower learning_rate and train as another run"
                )
