"""The initial weights of a training run: ImageNet weights for the backbone, or a whole pretrained network."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cityscapes.errors import IntegrityError, ParameterError
from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.models.widths import apply_widths
from dlv3p.parameters.network import TIMM, NetworkParameters
from dlv3p.weights.differences import list_differences
from dlv3p.weights.imagenet import load_imagenet_weights
from dlv3p.weights.loading import empty_network, fitting_state
from dlv3p.weights.reading import read_weights
from dlv3p.weights.recognition import Recognized, recognize

CLASSIFIERS = ("classifier.", "auxiliary.classifier.")

SHAPELESS = (
    "multi_grid",
    "first_dilation",
    "pooling",
    "mobilenet_padding",
    "norm_epsilon",
    "atrous_rates",
    "concatenation",
    "align_corners",
)
"""Switches whose values all fit the same weights, though only one is that which they were trained with."""


def build_with_weights(
    parameters: NetworkParameters,
    num_classes: int,
    *,
    initial_weights: str,
    new_classifier: bool = False,
) -> DeepLab:
    """Build the network that `parameters` describe and fill it as `load_initial_weights` does; "random" fills nothing.

    Prints what was taken of the file.
    """
    model = build_network(parameters, num_classes)
    if initial_weights != "random":
        print(load_initial_weights(model, parameters, initial_weights, new_classifier=new_classifier), flush=True)
    return model


def load_initial_weights(
    model: DeepLab, parameters: NetworkParameters, source: str, *, new_classifier: bool = False
) -> str:
    """Fill a new network in place; return in one line what was taken.

    `source` is "imagenet", or the path of a file that is known here, or of a classifier of timm for its networks. Of a
    whole network everything is taken where its shapes are those of `model`, otherwise its backbone. What the file lacks
    stays random, and so do classifiers with `new_classifier`. A pruned network's widths are taken over first.
    Raises IntegrityError when the file does not fit the network that it is of, or when not even its backbone fits
    `model`; ParameterError when it has other classes and no new classifier was asked for.
    """
    path = Path(source).expanduser()
    if source == "imagenet" or not path.is_file():
        load_imagenet_weights(model.backbone, parameters.backbone, source)
        return f"initial weights: the backbone {parameters.backbone}, from {source}"
    file = read_weights(path)
    if parameters.backbone.startswith(TIMM) and file.description is None:
        load_imagenet_weights(model.backbone, parameters.backbone, source, file.tensors)
        return f"initial weights: the backbone {parameters.backbone}, from {path.name}"
    found = recognize(file)
    origin = f"from {path.name} ({found.title})"
    if found.parameters is None:
        own = {name.removeprefix("backbone."): value for name, value in found.state.items()}
        load_imagenet_weights(model.backbone, parameters.backbone, source, own)
        return f"initial weights: the backbone {found.backbone}, {origin}"
    state = fitting_state(found, empty_network(found))
    if found.widths:
        shared = {name: values for name, values in found.widths.items() if _is_there(model, name)}
        apply_widths(model, shared, source=f"initial_weights={source!r}")
    if _has_same_head(model, state):
        _fill_whole(model, found, state, source, new_classifier=new_classifier)
        left_out = ", but for the classifier, which is new" if new_classifier else ""
        network = f"{found.parameters.architecture} over {found.backbone}"
        return f"initial weights: all of {network}, {origin}{left_out}{_other_switches(parameters, found)}"
    _fill_backbone(model, parameters, found, state, source)
    return f"initial weights: the backbone {found.backbone} alone, {origin}; its head is another than the run's"


def _has_same_head(model: DeepLab, state: Mapping[str, Tensor]) -> bool:
    """Say whether two networks have the same shapes in all that they share, but for their classifiers."""
    return not list_differences(_shared(model.state_dict(), state), _shared(state, model.state_dict()))


def _shared(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out classifiers, and an auxiliary head that only one of two networks has."""
    auxiliary = any(name.startswith("auxiliary.") for name in other)
    return {
        name: value
        for name, value in state.items()
        if not name.startswith(CLASSIFIERS) and (auxiliary or not name.startswith("auxiliary."))
    }


def _fill_whole(
    model: DeepLab, found: Recognized, state: Mapping[str, Tensor], source: str, *, new_classifier: bool
) -> None:
    here, there = model.classifier.out_channels, found.num_classes
    if here != there and not new_classifier:
        raise ParameterError(
            f"initial_weights={source!r} has {there} classes, the data {here}; give new_classifier=True to start the "
            "classifier afresh, or another file"
        )
    taken = _shared(state, model.state_dict())
    if not new_classifier:
        taken |= {name: state[name] for name in model.state_dict() if name.startswith(CLASSIFIERS) and name in state}
    model.load_state_dict(taken, strict=False)


def _fill_backbone(
    model: DeepLab, parameters: NetworkParameters, found: Recognized, state: Mapping[str, Tensor], source: str
) -> None:
    expected, own = (
        {name: value for name, value in entries.items() if name.startswith("backbone.")}
        for entries in (model.state_dict(), state)
    )
    if differences := list_differences(expected, own):
        raise IntegrityError(
            f"initial_weights={source!r} holds {found.backbone}, which does not fit the run's {parameters.backbone}: "
            f"{differences}"
        )
    model.load_state_dict(own, strict=False)


def _is_there(model: DeepLab, name: str) -> bool:
    """Say whether a layer's widths concern a network: those of an auxiliary head do only where there is one."""
    return model.auxiliary is not None or not name.startswith("auxiliary.")


def _other_switches(parameters: NetworkParameters, found: Recognized) -> str:
    differing = [
        f"{name}={getattr(found.parameters, name)!r} (here {getattr(parameters, name)!r})"
        for name in SHAPELESS
        if getattr(found.parameters, name) != getattr(parameters, name)
    ]
    return f"; it was trained with {', '.join(differing)}" if differing else ""
