"""What a training run starts from: ImageNet weights for the backbone, or a whole network that someone has trained."""

from pathlib import Path

from torch import nn

from cityscapes.errors import IntegrityError
from dlv3p.backbones.catalog import TIMM
from dlv3p.backbones.imagenet import list_differences, load_imagenet_weights
from dlv3p.compression.widths import apply_widths
from dlv3p.network import NetworkParameters
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


def load_initial_weights(model: nn.Module, parameters: NetworkParameters, source: str) -> str:
    """Fill a new network in place; return in one line what was taken.

    `source` is "imagenet", or the path of a file that is known here. Of a whole network everything is taken where its
    shapes are those of `model`, otherwise its backbone. Classifiers are taken where they have as many classes, and an
    auxiliary head where both have one; what is not taken stays random. A pruned network's widths are taken over first.
    Raises IntegrityError when not even the backbone fits.
    """
    path = Path(source).expanduser()
    if source == "imagenet" or parameters.backbone.startswith(TIMM) or not path.is_file():
        load_imagenet_weights(model.backbone, parameters.backbone, source)
        return f"initial weights: the backbone {parameters.backbone}, from {source}"
    found = recognize(read_weights(path))
    origin = f"from {path.name} ({found.title})"
    own = {name: value for name, value in found.state.items() if name.startswith("backbone.")}
    if found.parameters is None:
        state = {name.removeprefix("backbone."): value for name, value in own.items()}
        load_imagenet_weights(model.backbone, parameters.backbone, source, state)
        return f"initial weights: the backbone {found.backbone}, {origin}"
    if found.widths:
        shared = {name: values for name, values in found.widths.items() if _is_there(model, name)}
        apply_widths(model, shared, source=f"initial_weights={source!r}")
    if _fill_whole(model, found):
        network = f"{found.parameters.architecture} over {found.backbone}"
        return (
            f"initial weights: all of {network}, {origin}{_left_out(model, found)}{_other_switches(parameters, found)}"
        )
    expected = {name: value for name, value in model.state_dict().items() if name.startswith("backbone.")}
    if differences := list_differences(expected, own):
        raise IntegrityError(
            f"initial_weights={source!r} holds {found.backbone}, which does not fit the run's {parameters.backbone}: "
            f"{differences}"
        )
    model.load_state_dict(own, strict=False)
    return f"initial weights: the backbone {found.backbone} alone, {origin}; its head is another than the run's"


def _fill_whole(model: nn.Module, found: Recognized) -> bool:
    """Fill all that two networks of the same shapes share; say whether they are such."""
    expected = model.state_dict()
    shared = {"backbone", "aspp", "head", "decoder"}
    if any(name.startswith("auxiliary.") for name in expected):
        shared.add("auxiliary")
    ours, theirs = (
        {
            name: value
            for name, value in state.items()
            if name.split(".")[0] in shared and not name.startswith(CLASSIFIERS)
        }
        for state in (expected, found.state)
    )
    if not any(name.startswith("auxiliary.") for name in theirs):
        ours = {name: value for name, value in ours.items() if not name.startswith("auxiliary.")}
    if found.unknown or list_differences(ours, theirs):
        return False
    classifiers = {
        name: value
        for name, value in found.state.items()
        if name.startswith(CLASSIFIERS) and name in expected and value.shape == expected[name].shape
    }
    model.load_state_dict(theirs | classifiers, strict=False)
    return True


def _is_there(model: nn.Module, name: str) -> bool:
    """Say whether a layer's widths concern a network: those of an auxiliary head do only where there is one."""
    return hasattr(model, "auxiliary") or not name.startswith("auxiliary.")


def _left_out(model: nn.Module, found: Recognized) -> str:
    here = model.classifier.out_channels
    if here != found.num_classes:
        return f", but for the classifier ({found.num_classes} classes there, {here} here)"
    return ""


def _other_switches(parameters: NetworkParameters, found: Recognized) -> str:
    differing = [
        f"{name}={getattr(found.parameters, name)!r} (here {getattr(parameters, name)!r})"
        for name in SHAPELESS
        if getattr(found.parameters, name) != getattr(parameters, name)
    ]
    return f"; it was trained with {', '.join(differing)}" if differing else ""
