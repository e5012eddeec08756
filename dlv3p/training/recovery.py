"""Start or resume a run: find its last good checkpoint, build its network, new or as it was left, and its stepper."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cityscapes.dataset import Split
from cityscapes.errors import IntegrityError, MissingInputError, NewerFormatError, ParameterError
from cityscapes.files.channels import PixelRule, refuse_other_rule
from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.models.norms import share_statistics
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import checkpoint_path, refuse_other_parameters
from dlv3p.runs.loading import refuse_other_record
from dlv3p.runtime.devices import LAYOUT
from dlv3p.runtime.processes import place
from dlv3p.training.activation_checkpointing import checkpoint_activations
from dlv3p.training.distillation import load_teacher
from dlv3p.training.optimizers import build_optimizer, class_weights
from dlv3p.training.step import Stepper, build_loss, build_stepper
from dlv3p.weights.checkpoint import load_checkpoint, rule_of
from dlv3p.weights.initial import build_with_weights


def last_checkpoint(folder: Path, parameters: TrainParameters, training: Split) -> dict[str, Any] | None:
    """Read "last", or "best" if "last" is damaged and set aside; return None for a run without a checkpoint.

    Raises IntegrityError when neither can be read or the classes differ, and ParameterError for other parameters.
    """
    last, best = (checkpoint_path(folder.name, name) for name in ("last", "best"))
    if not last.is_file() and not best.is_file():
        return None
    try:
        saved = load_checkpoint(last)
    except NewerFormatError:
        raise
    except (IntegrityError, MissingInputError) as error:
        saved = _fall_back_to_best(error, last, best)
    _check_trained(folder, saved)
    refuse_other_parameters(folder.name, saved["parameters"], parameters)
    refuse_other_record(last, saved)
    _check_classes(folder, list(saved["class_names"]), training)
    if saved.get("meaning", training.meaning) != training.meaning:
        raise IntegrityError(
            f"run={folder.name!r}: {training.root} says of the masks' values or colors that they are other classes "
            "than when the run began; restore its table of classes, or train under another run name"
        )
    refuse_other_rule(rule_of(saved), training.pixel_rule, f"run={folder.name!r}")
    return saved


def build_for_training(
    parameters: TrainParameters,
    class_names: Sequence[str],
    device: torch.device,
    saved: Mapping[str, Any] | None,
    rule: PixelRule | None = None,
) -> DeepLab:
    """Return the network on its device, with the weights of a checkpoint if there is one, else the initial weights."""
    if saved:
        model = build_network(parameters, len(class_names), widths=saved.get("widths"), rule=rule)
        model = model.to(device, memory_format=LAYOUT)
        model.load_state_dict(saved.get("training_model") or saved["model"])
    else:
        options = {"initial_weights": parameters.initial_weights, "new_classifier": parameters.new_classifier}
        model = build_with_weights(parameters, len(class_names), class_names=class_names, rule=rule, **options)
        model = model.to(device, memory_format=LAYOUT)
    if place().ranks > 1:
        share_statistics(model, device)
    return checkpoint_activations(model) if parameters.activation_checkpointing else model


def build_run_stepper(parameters: TrainParameters, model: DeepLab, training: Split, device: torch.device) -> Stepper:
    """Return the stepper of a run: with the weights of the split's classes, and a rate for backbone and head each."""
    p, weights = parameters, None
    if p.class_weights != "none":
        weights = class_weights(training, skip_bad=p.on_bad_sample == "skip").to(device)
    teacher = load_teacher(p.teacher, training.num_classes, device, training.pixel_rule, training.class_names)
    loss, optimizer = build_loss(p, weights), build_optimizer(p, model)
    return build_stepper(p, model, loss, optimizer, device, class_weights=weights, teacher=teacher)


def _fall_back_to_best(error: Exception, last: Path, best: Path) -> dict[str, Any]:
    """Return "best", and set a damaged "last" aside; when neither is good, change nothing and raise."""
    try:
        saved = load_checkpoint(best)
    except NewerFormatError:
        raise
    except (IntegrityError, MissingInputError) as other:
        raise IntegrityError(f"{error}; nor can {best.name} be read: nothing to resume from") from other
    if last.is_file():
        last.replace(last.with_name(last.name + ".bad"))
    print(f"warning: {error}; resuming from the best checkpoint, of epoch {saved['epoch']}", flush=True)
    return saved


def _check_trained(folder: Path, saved: dict[str, Any]) -> None:
    if "optimizer" not in saved:
        raise ParameterError(
            f"run={folder.name!r} was imported, not trained, and cannot be resumed; train under another run name, with "
            f"initial_weights={str(folder / 'model.safetensors')!r}"
        )


def _check_classes(folder: Path, then: list[str], training: Split) -> None:
    now = list(training.class_names)
    if then != now:
        differing = sorted(set(then) ^ set(now))[:5] or ["their order"]
        raise IntegrityError(
            f"run={folder.name!r} was trained with {len(then)} classes, and {training.root} has {len(now)}; "
            f"they differ in {', '.join(differing)}. Restore the old classes, or train under another run name"
        )
