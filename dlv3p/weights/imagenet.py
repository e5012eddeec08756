"""ImageNet weights for backbones: those of torchvision and timm by name, and the public files by path.

timm fills a network without a classifier with the entries of a file that fit, and silently ignores the rest; so a file
is compared with timm's whole classifier first. Both libraries are imported where they are needed: most networks need
neither, and they take seconds.
"""

import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cityscapes.errors import IntegrityError, MachineError, ParameterError
from cityscapes.files.untrusted import given_path, safe_reason, sanitize
from dlv3p.models.backbones.features import Backbone
from dlv3p.models.inputs import adapted_to
from dlv3p.parameters.network import TIMM
from dlv3p.parameters.training import find_weights
from dlv3p.weights.differences import list_differences
from dlv3p.weights.names import join_dotted, without_wrappers
from dlv3p.weights.reading import read_weights

TORCHVISION_WEIGHTS = {
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet34": "ResNet34_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V2",
    "resnet101": "ResNet101_Weights.IMAGENET1K_V2",
    "resnet152": "ResNet152_Weights.IMAGENET1K_V2",
    "densenet121": "DenseNet121_Weights.IMAGENET1K_V1",
    "densenet161": "DenseNet161_Weights.IMAGENET1K_V1",
    "densenet169": "DenseNet169_Weights.IMAGENET1K_V1",
    "densenet201": "DenseNet201_Weights.IMAGENET1K_V1",
    "mobilenet_v2": "MobileNet_V2_Weights.IMAGENET1K_V2",
    "mobilenet_v3_large": "MobileNet_V3_Large_Weights.IMAGENET1K_V2",
}
"""By backbone: the weights that "imagenet" means, the newest where there are several."""

_NOT_FEATURES = re.compile(r"(fc|classifier|end_point|features\.18)\.")
"""The classifier; in MobileNetV2 also the layer before it, which DeepLab leaves out."""


def load_imagenet_weights(
    backbone: Backbone, name: str, source: str, state: Mapping[str, Tensor] | None = None
) -> None:
    """Fill `backbone`, which is called `name`, with the weights of `source`: "imagenet" or the path of a file.

    `state` are the tensors of that file if it has been read already. For other images than RGB the first convolution is
    adapted (`models/inputs.py`).

    A prefix `module.`, a classifier and missing batch counts are accepted in a file; any other difference raises
    IntegrityError, which lists it, and so does a damaged download. Raises MissingInputError for a missing file,
    MachineError when the weights cannot be downloaded, and ParameterError when no library offers any under this name.
    """
    if state is None and source != "imagenet":
        state = _read(given_path(source))
    if name.startswith(TIMM):
        state = timm_weights(name, state, source)
    elif state is None:
        state = _download(name)
    state = adapted_to(backbone, feature_weights(state))
    if differences := list_differences(backbone.state_dict(), state):
        raise IntegrityError(
            f"initial_weights={source!r} is not a {file_kind(name)}: {differences}; give such a file or another "
            "backbone"
        )
    backbone.load_state_dict({key: state.get(key, value) for key, value in backbone.state_dict().items()})


def timm_weights(name: str, state: Mapping[str, Tensor] | None, source: str) -> dict[str, Tensor]:
    """Return the weights of the backbone called `name`: timm's own, or those of a classifier's `state`.

    Raises MachineError when they cannot be downloaded, and IntegrityError, which lists the differences, for anything
    but the state of this classifier, with any number of classes.
    """
    import timm

    settings = {}
    if state is not None:
        state = {without_wrappers(key): value for key, value in state.items()}
        _refuse_other(name, state, source)
        settings["pretrained_cfg_overlay"] = {"state_dict": state}
    try:
        body = timm.create_model(name.removeprefix(TIMM), features_only=True, pretrained=True, **settings)
    except (OSError, RuntimeError) as error:
        cause = sanitize(" ".join(str(error).split()), 300)
        raise MachineError(
            f"initial_weights={source!r}: timm cannot provide weights for {name} ({cause}); try again online, give the "
            "path of a file, or 'random'"
        ) from error
    return {f"body.{key}": value for key, value in body.state_dict().items()}


def feature_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of a classifier's state dict that belong to its features, without the prefixes of wrappers."""
    state = {join_dotted(without_wrappers(key)): value for key, value in state.items()}
    return {key: value for key, value in state.items() if not _NOT_FEATURES.match(key)}


def file_kind(name: str) -> str:
    """Name the kind of file that a backbone's initial weights are read from."""
    return f"torchvision {name} file" if name in TORCHVISION_WEIGHTS else f"{name} file"


def _refuse_other(name: str, state: Mapping[str, Tensor], source: str) -> None:
    import timm
    from timm.models import model_entrypoint

    short = name.removeprefix(TIMM)
    with torch.device("meta"):
        classifier = timm.create_model(short)
    # The module of a network may have a function that renames the entries of files from other sources.
    rename = getattr(sys.modules[model_entrypoint(short).__module__], "checkpoint_filter_fn", None)
    try:
        renamed = rename(dict(state), classifier) if rename else state
    except Exception as error:  # the file may hold anything
        raise IntegrityError(
            f"initial_weights={source!r} is not a {name} file ({safe_reason(error)}); give such a file or another "
            "backbone"
        ) from error
    heads = classifier.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    expected, found = (
        {key: value for key, value in entries.items() if not key.startswith(heads)}
        for entries in (classifier.state_dict(), renamed)
    )
    if differences := list_differences(expected, found):
        raise IntegrityError(
            f"initial_weights={source!r} is not a {name} file: {differences}; give such a file or another backbone"
        )


def _download(name: str) -> Mapping[str, Tensor]:
    if name not in TORCHVISION_WEIGHTS:
        raise ParameterError(
            f"initial_weights='imagenet': no library offers {name}; give the path of the public file, such as "
            f"{name}_statedict_norm.pth, or 'random' to start from scratch"
        )
    from torchvision import models

    weights = models.get_weight(TORCHVISION_WEIGHTS[name])
    folder, file = Path(torch.hub.get_dir()) / "checkpoints", weights.url.rsplit("/", 1)[-1]
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise MachineError(
            f"initial_weights='imagenet': cannot download {weights.url} ({error}); fetch {file} on a machine with "
            f"internet access and put it into {folder}/, or give its path as initial_weights, or 'random' to start "
            f"{name} from scratch"
        ) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:  # a wrong hash, or not a pickle
        raise IntegrityError(
            f"initial_weights='imagenet': {weights.url} is damaged, on disk or in transit ({safe_reason(error)}); "
            f"delete {folder / file}, if it is there, and run again"
        ) from error


def _read(path: Path) -> Mapping[str, Tensor]:
    find_weights(str(path))
    return read_weights(path).tensors
