"""Recognize a weights file by its names and shapes: its source, its network's switches, its weights under our names.

Names reveal the source and the backbone, shapes the widths and the number of classes. What neither reveals is listed
by source (`sources.py`); the output stride, which fits any weights, may be given, or be part of the file's name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from torch import Tensor

from cityscapes.errors import IntegrityError, ParameterError
from cityscapes.files.channels import PixelRule, pixel_rule
from cityscapes.files.untrusted import safe_reason, sanitize
from dlv3p.data.classes import read_own_colors
from dlv3p.parameters.network import OUTPUT_STRIDES, NetworkParameters
from dlv3p.parameters.training import TrainParameters
from dlv3p.weights.names import MINDSPORE_LEAVES, Names, join_dotted, to_ours, to_theirs, without_wrappers
from dlv3p.weights.reading import WeightsFile
from dlv3p.weights.sources import BLUE_FIRST, SOURCES, Source

OWN = "this project"
"""The title of files that this project wrote."""

MINDSPORE = "network."
"""The prefix of all names in a MindSpore file."""

MINDSPORE_TRAINING = re.compile(
    r"(moments|moment1|moment2|accum)\.|(learning_rate|momentum|global_step|scale_sense|epoch_num|step_num)$"
)
"""Other entries of a MindSpore checkpoint: its optimizer's state and counters, which no network needs."""

FAMILIES = {
    "layer1.0.": {20: "resnet18", 36: "resnet34", 53: "resnet50", 104: "resnet101", 155: "resnet152"},
    "stem.stem_1/": {39: "vovnet39", 57: "vovnet57"},
    "features.denseblock1.": {120: "densenet121", 160: "densenet161", 168: "densenet169", 200: "densenet201"},
    "features.1.conv.": {51: "mobilenet_v2"},
    "features.1.block.": {62: "mobilenet_v3_large"},
}
"""Prefix of a family's names, and its backbones by their number of convolutions."""

UNSUPPORTED = {"stage2.0.branches.": "HRNet", "block12.": "Xception"}
"""Prefix of names that supported backbones lack: the backbone, of VainF and others, that has them."""


@dataclass(frozen=True)
class Recognized:
    """A file's network: `parameters` is None for a backbone alone, `class_names` where the file does not name them.

    `state` holds the weights under our names, mapped from the file where possible; `unknown` lists entries that have no
    counterpart here. `stride_from` says in words where the output stride is from. `widths` are those of a pruned
    network, unchecked: `apply_widths` checks them. `written` has the entries' names in the file by the usual ones.
    `rule` is that of images that are not RGB, and `colors` are those that its data gave the classes.
    """

    file: WeightsFile
    title: str
    source: Source | None
    backbone: str
    parameters: NetworkParameters | None
    num_classes: int
    class_names: tuple[str, ...] | None
    state: dict[str, Tensor]
    unknown: tuple[str, ...]
    stride_from: str
    widths: Mapping[str, Mapping[str, int]] | None = None
    written: Mapping[str, str] = field(default_factory=dict)
    rule: PixelRule | None = None
    colors: np.ndarray | None = None

    @property
    def norm(self) -> str:
        """The kind of its norms: group norms keep no statistics."""
        if self.parameters:
            return self.parameters.norm
        return "batch" if any(name.endswith("running_mean") for name in self.state) else "group"

    @property
    def hides_standardization(self) -> bool:
        """Whether its weights may be standardized or not, which nothing in a file of another project tells."""
        return self.source is not None and (self.source.may_standardize or self.norm == "group")

    def name_in_file(self, name: str) -> str:
        """Return what one of our entries is called in the file."""
        usual = to_theirs(name, self.source.names) if self.source else name
        return self.written.get(usual, usual)


def recognize(
    file: WeightsFile, *, output_stride: int | None = None, weight_standardization: str | None = None
) -> Recognized:
    """Recognize a file; raises IntegrityError, which lists the known sources, for any other.

    The two switches leave no trace in weights and are those of the source unless given. Raises ParameterError for an
    `output_stride` that no network has.
    """
    if output_stride not in (None, *OUTPUT_STRIDES):
        raise ParameterError(f"output_stride={output_stride!r}: allowed are {', '.join(map(str, OUTPUT_STRIDES))}")
    given = {"output_stride": output_stride, "weight_standardization": weight_standardization}
    given = {name: value for name, value in given.items() if value is not None}
    if file.description is not None:
        return _own(file, file.description, given)
    tensors, written = _normalized(file)
    key, backbone, named = _find_source(file, tensors)
    source = SOURCES[key]
    state = {ours: tensors[name] for name, ours in named.items() if ours is not None}
    unknown = tuple(written[name] for name, ours in named.items() if ours is None)
    if key in BLUE_FIRST:
        state |= _red_first(state)
    if not source.architecture:
        return Recognized(file, source.title, source, backbone, None, 0, None, state, unknown, "", written=written)
    stride, stride_from = _output_stride(file, source, output_stride)
    switches = {"architecture": source.architecture, "backbone": backbone, "output_stride": stride}
    shown = _switches_shown(file, state, source)
    if shown["norm"] == "group" and not source.may_standardize:
        shown["weight_standardization"] = "never"
    switches |= {**source.switches, **shown, **given}
    parameters = NetworkParameters.from_mapping(switches)
    num_classes = _rows(file, state, "classifier.weight", source.names)
    class_names = source.class_names.get(num_classes)
    return Recognized(
        file, source.title, source, backbone, parameters, num_classes, class_names, state, unknown, stride_from,
        written=written,
    )  # fmt: skip


def find_backbone(state: Mapping[str, Tensor]) -> str | None:
    """Return the backbone of a state dict in our names: the one of its family with that number of convolutions."""
    own = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    convolutions = sum(value.ndim == 4 for value in own.values())
    for beginning, by_count in FAMILIES.items():
        if any(name.startswith(beginning) for name in own):
            return by_count[min(by_count, key=lambda count: abs(count - convolutions))]
    return None


def _normalized(file: WeightsFile) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Remove common prefixes, and normalize the names of MindSpore and of old DenseNets; return the names before, too.

    An entry without the prefix that others have keeps its name, so that it is reported as unknown.
    """
    tensors = file.tensors
    if any(name.startswith(MINDSPORE) for name in tensors):
        tensors = {name: value for name, value in tensors.items() if not MINDSPORE_TRAINING.match(name)}
    result, written = {}, {}
    for name, value in tensors.items():
        usual = _usual(name)
        if usual in result:
            raise IntegrityError(
                f"{file.path}: duplicate entry {sanitize(usual)}, once as {sanitize(name)}; write it again"
            )
        result[usual], written[usual] = value, name
    return result, written


def _usual(name: str) -> str:
    stem, dot, leaf = join_dotted(without_wrappers(name).removeprefix(MINDSPORE)).rpartition(".")
    return stem.replace("down_sample_layer", "downsample") + dot + MINDSPORE_LEAVES.get(leaf, leaf)


def _find_source(file: WeightsFile, tensors: Mapping[str, Tensor]) -> tuple[str, str, dict[str, str | None]]:
    """Return the key of the source, the backbone, and our names (or None) by the names of `tensors`."""
    signed = [key for key, source in SOURCES.items() if source.sign in tensors]
    for prefix, kind in UNSUPPORTED.items():
        if signed and any(name.removeprefix("backbone.").startswith(prefix) for name in tensors):
            supported = sorted({family for key in signed for family in SOURCES[key].families})
            raise IntegrityError(
                f"{file.path}: its backbone is {kind}, which is not supported here; of "
                f"{SOURCES[signed[0]].title}, files over {', '.join(supported)} are"
            )
    for key in signed:
        named = {name: to_ours(name, SOURCES[key].names) for name in tensors}
        backbone = find_backbone({ours: tensors[name] for name, ours in named.items() if ours is not None})
        if backbone is not None and backbone.startswith(SOURCES[key].families):
            return key, backbone, named
    if signed:
        raise IntegrityError(
            f"{file.path}: of {SOURCES[signed[0]].title}, but with a backbone that is not supported for it here"
        )
    if "aspp.branch0.conv.weight" in tensors:
        raise IntegrityError(
            f"{file.path}: weights of this project without their description; give the run's checkpoint, or the "
            "safetensors file beside its run.json"
        )
    entries = ", ".join(map(sanitize, list(tensors)[:3]))
    known = ", ".join(dict.fromkeys(source.title for source in SOURCES.values()))
    raise IntegrityError(f"{file.path}: its entries ({entries}, ...) belong to no known network; known are {known}")


def _red_first(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reorder the first convolution's input from blue, green, red to red, green, blue.

    MindSpore's DeepLabV3 subtracts and divides by ImageNet's means and deviations times 255, in that order of channels,
    so once reordered our normalization feeds it the same numbers.
    """
    return {name: value.flip(1) for name, value in state.items() if name == "backbone.conv1.weight" and value.ndim == 4}


def _output_stride(file: WeightsFile, source: Source, given: int | None) -> tuple[int, str]:
    if given is not None:
        return given, "as asked for"
    if match := re.search(r"(?<![A-Za-z0-9])os_?(8|16|32)(?!\d)", file.path.name):
        return int(match[1]), "from the file's name; the weights fit any"
    return source.output_stride, "as published; the weights fit any"


def _switches_shown(file: WeightsFile, state: Mapping[str, Tensor], source: Source) -> dict[str, object]:
    """Return the switches that names and shapes reveal."""
    switches: dict[str, object] = {
        "channels": _rows(file, state, "aspp.project.conv.weight", source.names),
        "norm": "batch" if any(name.endswith("running_mean") for name in state) else "group",
        "convolution_bias": "aspp.project.conv.bias" in state,
        "separable": "plain" if "aspp.branch1.conv.depthwise.weight" in state else "off",
        "auxiliary_head": any(name.startswith("auxiliary.") for name in state),
    }
    if "decoder.low.conv.weight" in state:
        switches["low_level_channels"] = _rows(file, state, "decoder.low.conv.weight", source.names)
    return switches


def _rows(file: WeightsFile, state: Mapping[str, Tensor], name: str, names: Names) -> int:
    """Return the first size of an entry: the output channels of a convolution."""
    if name not in state or state[name].ndim != 4 or not len(state[name]):
        there = to_theirs(name, names)
        raise IntegrityError(f"{file.path}: {there} is not a convolution, or missing; the file is of another network")
    return len(state[name])


def _own(file: WeightsFile, description: Mapping[str, object], given: Mapping[str, object]) -> Recognized:
    """Trust our own description if it is well-formed and agrees with the classifier's shape."""
    values, class_names = description.get("parameters"), description.get("class_names")
    if not isinstance(values, dict) or not isinstance(class_names, list | tuple):
        raise IntegrityError(f"{file.path}: its description lacks parameters or class_names; write it again")
    own_names = {item.name for item in fields(NetworkParameters)}
    try:
        TrainParameters.from_mapping(values)
        switches = {name: value for name, value in values.items() if name in own_names} | given
        parameters = NetworkParameters.from_mapping(switches)
    except (ParameterError, TypeError) as error:
        raise IntegrityError(f"{file.path}: its description does not fit this version: {safe_reason(error)}") from error
    num_classes = _rows(file, file.tensors, "classifier.weight", {})
    if len(class_names) != num_classes or not all(isinstance(name, str) for name in class_names):
        raise IntegrityError(f"{file.path}: names {len(class_names)} classes, but has weights for {num_classes}")
    stride_from = "as asked for" if "output_stride" in given else "as described"
    state, names = dict(file.tensors), tuple(class_names)
    widths = description.get("widths") or None
    rule = pixel_rule(description["pixels"], str(file.path)) if description.get("pixels") else None
    if not isinstance(widths, dict | None):
        raise IntegrityError(f"{file.path}: its widths are not a table; write it again")
    colors = read_own_colors(description.get("colors"), names, str(file.path))
    stated = {"widths": widths, "rule": rule, "colors": colors}
    return Recognized(
        file, OWN, None, parameters.backbone, parameters, num_classes, names, state, (), stride_from, **stated
    )
