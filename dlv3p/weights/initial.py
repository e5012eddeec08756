"""The initial weights of a training run: ImageNet weights for the backbone, or a whole pretrained network."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from cityscapes.errors import IntegrityError, ParameterError
from cityscapes.files.channels import PixelRule
from cityscapes.files.untrusted import given_path, sanitize
from dlv3p.data.classes import numbered_otherwise
from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.models.inputs import adapted_to
from dlv3p.models.widths import apply_widths
from dlv3p.parameters.network import TIMM, NetworkParameters
from dlv3p.weights.differences import list_differences
from dlv3p.weights.imagenet import load_imagenet_weights
from dlv3p.weights.loading import empty_network, matching_state, refuse_impossible
from dlv3p.weights.reading import read_weights
from dlv3p.weights.recognition import Recognized, recognize

CLASSIFIERS = ("classifier.", "auxiliary.classifier.")

SHAPELESS = (
    "multi_grid",
    "first_dilation",
    "pooling",
    "mobilenet_padding",
    "weight_standardization",
    "norm_epsilon",
    "atrous_rates",
    "concatenation",
    "align_corners",
)
"""Switches whose values all fit the same weights, although these were trained with only one of them."""


def build_with_weights(
    parameters: NetworkParameters,
    num_classes: int,
    *,
    initial_weights: str,
    new_classifier: bool = False,
    class_names: Sequence[str] = (),
    rule: PixelRule | None = None,
) -> DeepLab:
    """Build the network that `parameters` describe and fill it as `load_initial_weights` does; "random" fills nothing.

    Prints which weights were taken. Raises IntegrityError for those that no training leaves, such as nan.
    """
    model = build_network(parameters, num_classes, rule=rule)
    if initial_weights != "random":
        options = {"new_classifier": new_classifier, "class_names": class_names}
        print(load_initial_weights(model, parameters, initial_weights, **options), flush=True)
        refuse_impossible(model.state_dict(), f"initial_weights={initial_weights!r}")
    return model


def load_initial_weights(
    model: DeepLab,
    parameters: NetworkParameters,
    source: str,
    *,
    new_classifier: bool = False,
    class_names: Sequence[str] = (),
) -> str:
    """Fill a new network in place; return a line that says which weights were taken.

    `source` is "imagenet", or the path of a known file, or of a timm classifier for timm networks. A whole network is
    taken where its shapes are those of `model`, otherwise its backbone only. Weights that the file lacks stay random,
    and so do classifiers with `new_classifier`. A pruned network's widths are applied first.
    Raises IntegrityError when the file does not fit its own network, or when not even its backbone fits `model`;
    ParameterError when it has other classes, as far as `class_names` and the file tell, and no new classifier was
    requested.
    """
    path = given_path(source)
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
    state = adapted_to(model, matching_state(found, empty_network(found)))
    if found.widths:
        shared = {name: values for name, values in found.widths.items() if _applies_to(model, name)}
        apply_widths(model, shared, source=f"initial_weights={source!r}")
    if _has_same_head(model, state):
        if not new_classifier:
            _refuse_other_classes(model, found, source, class_names)
        _fill_whole(model, found, state, new_classifier=new_classifier)
        left_out = ", except the classifier, which is new" if new_classifier else ""
        network = f"{found.parameters.architecture} over {found.backbone}"
        return f"initial weights: all of {network}, {origin}{left_out}{_other_switches(parameters, found)}"
    _fill_backbone(model, parameters, found, state, source)
    return f"initial weights: the backbone {found.backbone} only, {origin}; its head differs from the run's"


def _has_same_head(model: DeepLab, state: Mapping[str, Tensor]) -> bool:
    """Return whether two networks have the same shapes in all shared parts except their classifiers."""
    return not list_differences(_shared(model.state_dict(), state), _shared(state, model.state_dict()))


def _shared(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` without classifiers, and without an auxiliary head that only one of two networks has."""
    auxiliary = any(name.startswith("auxiliary.") for name in other)
    return {
        name: value
        for name, value in state.items()
        if not name.startswith(CLASSIFIERS) and (auxiliary or not name.startswith("auxiliary."))
    }


def _refuse_other_classes(model: DeepLab, found: Recognized, source: str, class_names: Sequence[str]) -> None:
    remedy = "give new_classifier=True to reinitialize the classifier, or another file"
    here, there = model.classifier.out_channels, found.num_classes
    if here != there:
        raise ParameterError(f"initial_weights={source!r} has {there} classes, the data {here}; {remedy}")
    if moved := numbered_otherwise(found.class_names or (), class_names):
        index, theirs, ours = moved
        raise ParameterError(
            f"initial_weights={source!r} numbers the classes in another way: id {index} is {sanitize(theirs)!r} and in "
            f"the data {sanitize(ours)!r}; {remedy}"
        )


def _fill_whole(model: DeepLab, found: Recognized, state: Mapping[str, Tensor], *, new_classifier: bool) -> None:
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


def _applies_to(model: DeepLab, name: str) -> bool:
    """Return whether a layer's widths apply to a network: those of an auxiliary head need one."""
    return model.auxiliary is not None or not name.startswith("auxiliary.")


def _other_switches(parameters: NetworkParameters, found: Recognized) -> str:
    differing = [
        f"{name}={getattr(found.parameters, name)!r} (here {getattr(parameters, name)!r})"
        for name in SHAPELESS
        if getattr(found.parameters, name) != getattr(parameters, name)
    ]
    return f"; it was trained with {', '.join(differing)}" if differing else ""
