"""The state of a run between two steps, and how it is saved to `saved/<run>/` and restored."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cityscapes.errors import DivergedError, IntegrityError, MissingInputError, NewerFormatError, ParameterError
from dlv3p.data.split import Split
from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.models.norms import share_statistics
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import checkpoint_path, refuse_other_parameters
from dlv3p.runtime.devices import LAYOUT
from dlv3p.runtime.processes import from_first, place
from dlv3p.training.activation_checkpointing import checkpoint_activations
from dlv3p.training.distillation import load_teacher
from dlv3p.training.optimizers import class_weights
from dlv3p.training.step import Stepper
from dlv3p.weights.checkpoint import load_checkpoint, model_from_checkpoint, save_checkpoint, save_weights
from dlv3p.weights.initial import build_with_weights


@dataclass
class EpochSums:
    """What an epoch adds up while it lasts: of its steps so far, or of all when it is about to be scored."""

    confusion: Tensor
    steps: int = 0
    loss: float = 0.0
    rate: float = 0.0
    seconds: float = 0.0
    data_wait: float = 0.0


@dataclass
class Progressed:
    """How far a run has come: its whole epochs, the best of them, and the sums of the one that has begun."""

    sums: EpochSums
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_mean_iou: float = -1.0


class RunState:
    """The network, what takes its steps, and how far both have come; continued where the last checkpoint left it."""

    def __init__(self, parameters: TrainParameters, folder: Path, training: Split, device: torch.device) -> None:
        self.parameters, self.folder, self.training, self.device = parameters, folder, training, device
        torch.manual_seed(parameters.seed)
        saved = from_first(self._last_checkpoint() if place().first else None)
        if saved:
            model = build_network(parameters, training.num_classes, widths=saved.get("widths"))
        else:
            model = build_with_weights(
                parameters,
                training.num_classes,
                initial_weights=parameters.initial_weights,
                new_classifier=parameters.new_classifier,
            )
        self.model: DeepLab = model.to(device, memory_format=LAYOUT)
        if saved:
            self.model.load_state_dict(saved.get("training_model") or saved["model"])
        if place().ranks > 1:
            share_statistics(self.model, device)
        if parameters.activation_checkpointing:
            checkpoint_activations(self.model)
        weights = class_weights(parameters, training)
        self.stepper = Stepper(
            self.model,
            parameters,
            device,
            class_weights=None if weights is None else weights.to(device),
            teacher=load_teacher(parameters, training.num_classes, device),
        )
        self.progressed = Progressed(self.no_sums())
        if saved:
            self._restore(saved)

    @property
    def scored(self) -> DeepLab:
        """The network that is validated and shared: that of the averaged weights, where there is an average."""
        return self.stepper.average.model if self.stepper.average else self.model

    def no_sums(self) -> EpochSums:
        """Return the sums of an epoch that has not begun."""
        classes = self.training.num_classes
        return EpochSums(torch.zeros(classes, classes, dtype=torch.int64, device=self.device))

    def save(self, *names: str) -> None:
        """Write the checkpoints called so; raises DivergedError, and writes nothing, when a weight is not finite."""
        scored = self.scored.state_dict()
        average = self.stepper.average is not None
        state = {
            "epoch": len(self.progressed.history),
            "step": self.progressed.sums.steps,
            "parameters": self.parameters.as_dict(),
            "class_names": list(self.training.class_names),
            "widths": self.model.widths,
            "model": scored,
            **({"training_model": self.model.state_dict()} if average else {}),
            **self.stepper.state_dict(),
            **asdict(self.progressed),
        }
        _refuse_not_finite(self.folder, scored, state.get("training_model", {}))
        for name in names:
            save_checkpoint(checkpoint_path(self.folder.name, name), state)

    def export_best(self) -> None:
        """Write the best checkpoint's weights as `model.safetensors`, which a run does once, at its end."""
        weights = self.folder / "model.safetensors"
        if weights.is_file():
            return
        state = load_checkpoint(checkpoint_path(self.folder.name, "best"))
        model, parameters = model_from_checkpoint(state)
        metadata = {name: state[name] for name in ("class_names", "widths", "epoch") if name in state}
        metadata["parameters"] = parameters.as_dict()
        save_weights(weights, model, metadata)

    def _last_checkpoint(self) -> dict[str, Any] | None:
        """Read "last", or "best" where "last" is damaged and put aside; raises IntegrityError when neither can be read.

        A checkpoint that is whole, but of another run, raises what says so.
        """
        last, best = (checkpoint_path(self.folder.name, name) for name in ("last", "best"))
        if not last.is_file() and not best.is_file():
            return None
        try:
            saved = load_checkpoint(last)
        except NewerFormatError:
            raise
        except (IntegrityError, MissingInputError) as error:
            saved = _instead_of_last(error, last, best)
        self._refuse_other_run(saved)
        return saved

    def _refuse_other_run(self, saved: dict[str, Any]) -> None:
        run = self.folder.name
        if "optimizer" not in saved:
            raise ParameterError(
                f"run={run!r} was imported, not trained, and cannot go on; train as another run, with "
                f"initial_weights={str(self.folder / 'model.safetensors')!r}"
            )
        refuse_other_parameters(run, saved["parameters"], self.parameters)
        then, now = list(saved["class_names"]), list(self.training.class_names)
        if then != now:
            differing = sorted(set(then) ^ set(now))[:5] or ["their order"]
            raise IntegrityError(
                f"run={run!r} was trained with {len(then)} classes, and {self.training.root} has {len(now)}; other are "
                f"{', '.join(differing)}. Bring the old ones back, or train as another run"
            )

    def _restore(self, saved: dict[str, Any]) -> None:
        self.stepper.load_state_dict(saved)
        if self.stepper.average:
            self.stepper.average.load_state_dict(saved["model"], saved["average_updates"])
        progressed = self.progressed
        progressed.history = saved["history"]
        progressed.best_epoch, progressed.best_mean_iou = saved["best_epoch"], saved["best_mean_iou"]
        if "sums" in saved:  # checkpoints of earlier versions were written between epochs only
            progressed.sums = EpochSums(**saved["sums"])
            progressed.sums.confusion = progressed.sums.confusion.to(self.device)


def _instead_of_last(error: Exception, last: Path, best: Path) -> dict[str, Any]:
    """Return "best", and put a damaged "last" aside; nothing moves, and nothing starts anew, when neither is good."""
    try:
        saved = load_checkpoint(best)
    except NewerFormatError:
        raise
    except (IntegrityError, MissingInputError) as other:
        raise IntegrityError(f"{error}; nor is there a good {best.name}: nothing to go on from") from other
    if last.is_file():
        last.replace(last.with_name(last.name + ".bad"))
    print(f"warning: {error}; going on from the best checkpoint, of epoch {saved['epoch']}", flush=True)
    return saved


def _refuse_not_finite(folder: Path, *states: dict[str, Tensor]) -> None:
    for state in states:
        for name, value in state.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise DivergedError(
                    f"{name} holds a value that is no finite number; the last checkpoint in {folder} is from before. "
                    "Lower learning_rate and train as another run"
                )
