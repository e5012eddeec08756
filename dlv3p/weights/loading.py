"""Load networks from files that describe themselves: our checkpoints and safetensors, and the public ones."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cityscapes.errors import IntegrityError, ParameterError
from cityscapes.files.checksums import call_unchecked
from cityscapes.files.untrusted import given_path, sanitize
from dlv3p.models.deeplab import DeepLab, build_network, check_num_classes, initialize
from dlv3p.models.widths import apply_widths
from dlv3p.parameters.network import TIMM, NetworkParameters
from dlv3p.runtime.devices import LOADING_ADVICE, explain_out_of_memory
from dlv3p.weights.checkpoint import save_weights
from dlv3p.weights.differences import list_differences
from dlv3p.weights.imagenet import feature_weights
from dlv3p.weights.reading import has_checksum, read_weights
from dlv3p.weights.recognition import Recognized, recognize
from dlv3p.weights.sources import VOID

VARIANCE = "running_var"
"""The variances of a batch norm, among the entries of its layer."""

LISTED_DIFFERENCES = 10
"""Number of missing, unknown and mis-shaped entries that are named; all are counted."""


class LoadedModel(NamedTuple):
    """A network in evaluation mode on the CPU, its parameters, and the names of its classes where they are known."""

    model: DeepLab
    parameters: NetworkParameters
    class_names: tuple[str, ...] | None


@explain_out_of_memory(LOADING_ADVICE)
def load_model(
    path: str | Path,
    *,
    output_stride: int | None = None,
    weight_standardization: str | None = None,
    num_classes: int | None = None,
    replace_classifier: bool = False,
) -> LoadedModel:
    """Load the network in a file of any known source; its parameters are derived from the file.

    `output_stride` and `weight_standardization` override the file's, since the weights fit any. Another `num_classes`
    than the file's is refused, unless `replace_classifier` allows reinitializing the classifiers. Raises IntegrityError
    when the file is damaged, unknown, or any entry does not fit the network; MissingInputError when there is none.
    """
    if num_classes is not None:
        check_num_classes(num_classes)
    file = read_weights(given_path(path))
    found = recognize(file, output_stride=output_stride, weight_standardization=weight_standardization)
    return build_recognized(found, num_classes=num_classes, replace_classifier=replace_classifier)


def build_recognized(
    found: Recognized, *, num_classes: int | None = None, replace_classifier: bool = False
) -> LoadedModel:
    """Build a recognized network, with its weights copied from the file; arguments as for `load_model`."""
    path = found.file.path
    if found.file.description is not None and not has_checksum(found.file):
        call_unchecked(path)
    if found.parameters is None:
        raise IntegrityError(
            f"{path}: holds only the backbone {found.backbone}, without a head; give it as initial_weights of a "
            "training run"
        )
    wanted = found.num_classes if num_classes is None else num_classes
    if wanted != found.num_classes and not replace_classifier:
        raise ParameterError(
            f"num_classes={wanted}: {path} has {found.num_classes}; ask for those, or give replace_classifier=True to "
            "reinitialize the classifiers"
        )
    model = empty_network(found)
    state = matching_state(found, model)
    class_names = found.class_names
    if wanted != found.num_classes:
        _reinitialize_classifiers(model, wanted, state, found.parameters.classifier_initialization)
        class_names, model.colors = None, None
    model.load_state_dict(state, assign=True)
    return LoadedModel(model.eval(), found.parameters, class_names)


def empty_network(found: Recognized) -> DeepLab:
    """Build a recognized network without weights where possible, to be filled with the file's."""
    with torch.device("cpu" if found.backbone.startswith(TIMM) else "meta"):  # timm needs real tensors
        model = build_network(found.parameters, found.num_classes, rule=found.rule)
        if found.widths:
            apply_widths(model, found.widths, source=str(found.file.path))
    model.colors = found.colors
    return model


def check_backbone(found: Recognized) -> None:
    """Compare a backbone file with the network that it was recognized as; raises as `build_recognized` does."""
    with torch.device("meta"):
        expected = build_network(NetworkParameters(backbone=found.backbone, norm=found.norm), 1).backbone.state_dict()
    own = {name.removeprefix("backbone."): value for name, value in found.state.items()}
    if differences := list_differences(expected, feature_weights(own), limit=LISTED_DIFFERENCES):
        raise IntegrityError(f"{found.file.path}: does not fit {found.backbone} ({found.title}): {differences}")
    refuse_impossible(found.state, str(found.file.path), called=found.name_in_file)


def matching_state(found: Recognized, model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the file's weights for each entry of `model`; raises IntegrityError with all differences."""
    expected = model.state_dict()
    named = {found.name_in_file(name): value for name, value in expected.items()}
    there = {found.name_in_file(name): value for name, value in found.state.items()}
    there |= {name: found.file.tensors.get(name, torch.empty(0)) for name in found.unknown}
    differences = list_differences(named, there, limit=LISTED_DIFFERENCES)
    if differences:
        raise IntegrityError(f"{found.file.path}: does not fit {_network(found)}: {differences}")
    state = {}
    for name, value in expected.items():
        if name not in found.state:  # num_batches_tracked, which old files lack and no network of ours reads
            state[name] = torch.zeros(value.shape, dtype=value.dtype)
            continue
        state[name] = found.state[name].to(value.dtype, copy=True)
    refuse_impossible(state, str(found.file.path), called=found.name_in_file)
    return state


def refuse_impossible(
    state: Mapping[str, Tensor], source: str, *, called: Callable[[str], str] = lambda name: name
) -> None:
    """Raise IntegrityError, which names the first, for tensors that hold nan or infinity, or a variance below zero.

    A diverged training leaves them, half precision where it overflows, and damage. `source` begins the message, and
    `called` returns the name there of one of our entries.
    """
    kinds = {
        "hold nan or infinity": [name for name, value in state.items() if not value.isfinite().all()],
        "are variances below zero": [
            name for name, value in state.items() if name.endswith(f".{VARIANCE}") and (value < 0).any()
        ],
    }
    for what, bad in kinds.items():
        if bad:
            raise IntegrityError(
                f"{source}: {len(bad)} of its tensors {what}, the first {sanitize(called(bad[0]))}; take another file, "
                "or an earlier checkpoint"
            )


def save_model(
    path: str | Path, model: nn.Module, parameters: NetworkParameters, class_names: tuple[str, ...] | list[str]
) -> None:
    """Write a network as self-describing safetensors, which `load_model` reads.

    Raises ParameterError when the number of names is not that of the classes.
    """
    num_classes = model.classifier.out_channels
    if len(class_names) != num_classes:
        raise ParameterError(f"class_names: {len(class_names)} names for a network of {num_classes} classes")
    switches = {name: getattr(parameters, name) for name in NetworkParameters().as_dict()}
    save_weights(Path(path), model, {"parameters": switches, "class_names": list(class_names)})


def drop_void(loaded: LoadedModel) -> LoadedModel:
    """Remove the last class where it stands for ignored pixels, which no score counts; leave other networks alone."""
    if not loaded.class_names or loaded.class_names[-1] != VOID:
        return loaded
    model = loaded.model
    classifiers = [model.classifier, *([model.auxiliary.classifier] if loaded.parameters.auxiliary_head else [])]
    for classifier in classifiers:
        classifier.out_channels -= 1
        for name, value in list(classifier.named_parameters()):
            setattr(classifier, name, nn.Parameter(value[:-1].detach().clone()))
    model.colors = None if model.colors is None else model.colors[:-1]
    return loaded._replace(class_names=loaded.class_names[:-1])


def _reinitialize_classifiers(model: DeepLab, num_classes: int, state: dict[str, Tensor], how: str) -> None:
    heads = {"classifier": model} | ({"auxiliary.classifier": model.auxiliary} if model.auxiliary is not None else {})
    for name, parent in heads.items():
        fresh = nn.Conv2d(parent.classifier.in_channels, num_classes, 1)
        initialize(how, fresh)
        parent.classifier = fresh
        state |= {f"{name}.{key}": value for key, value in fresh.state_dict().items()}


def _network(found: Recognized) -> str:
    return f"{found.parameters.architecture} over {found.backbone} ({found.title})"
