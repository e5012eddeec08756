"""List the public networks that can be read, each with the switches that its names and shapes do not reveal.

A new source is a table in `names.py` and an entry in `SOURCES`. Checked against the logits of the original networks for
VainF, chenxi116, stigma0617, yoR-rihsihS and torchvision; MindSpore's names and structure follow the code of its model
zoo; no file of theirs was available.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cityscapes.labels import CLASS_NAMES as CITYSCAPES_CLASSES
from dlv3p.data.classes import CLASS_NAMES as VOC_CLASSES
from dlv3p.weights import names
from dlv3p.weights.names import Names

PLUS, V3, BACKBONE = "deeplabv3plus", "deeplabv3", ""
CLASSES = {19: CITYSCAPES_CLASSES, 21: VOC_CLASSES}
VOID = "void"
"""The name of ignored pixels in yoR-rihsihS's networks, where they are a class."""


@dataclass(frozen=True)
class Source:
    """The publisher of a network and its kind; `architecture` is "" for a backbone alone.

    `sign` is an entry that no source further down has, and `families` are the prefixes of the backbones that the rest
    applies to. `switches` are those of NetworkParameters that neither names nor shapes reveal; `output_stride` is the
    published one, since the weights fit any; `class_names` are the classes of training, by their number.
    `may_standardize` says that its code standardizes weights if asked to, with any norm.
    """

    title: str
    architecture: str
    families: tuple[str, ...]
    sign: str
    names: Names
    output_stride: int = 16
    switches: Mapping[str, Any] = field(default_factory=dict)
    class_names: Mapping[int, tuple[str, ...]] = field(default_factory=lambda: CLASSES)
    may_standardize: bool = False


_VAINF = {"aspp_dropout": 0.1, "backbone_norm_momentum": 0.01}
_CHENXI = {"align_corners": True, "aspp_dropout": 0.0, "head_convolution": False}

SOURCES = {
    "vainf_plus": Source(
        title="VainF/DeepLabV3Plus-Pytorch",
        architecture=PLUS,
        families=("resnet",),
        sign="classifier.aspp.project.0.weight",
        names=names.RESNET | names.VAINF_PLUS,
        switches=_VAINF,
    ),
    "vainf_plus_mobilenet": Source(
        title="VainF/DeepLabV3Plus-Pytorch",
        architecture=PLUS,
        families=("mobilenet_v2",),
        sign="classifier.aspp.project.0.weight",
        names=names.VAINF_MOBILENET | names.VAINF_PLUS,
        switches=_VAINF | {"mobilenet_padding": "fixed"},
    ),
    "vainf_v3": Source(
        title="VainF/DeepLabV3Plus-Pytorch",
        architecture=V3,
        families=("resnet",),
        sign="classifier.classifier.0.project.0.weight",
        names=names.RESNET | names.VAINF_V3,
        switches=_VAINF,
    ),
    "vainf_v3_mobilenet": Source(
        title="VainF/DeepLabV3Plus-Pytorch",
        architecture=V3,
        families=("mobilenet_v2",),
        sign="classifier.classifier.0.project.0.weight",
        names=names.VAINF_MOBILENET | names.VAINF_V3,
        switches=_VAINF | {"mobilenet_padding": "fixed"},
    ),
    "torchvision": Source(
        title="torchvision",
        architecture=V3,
        families=("resnet",),
        sign="classifier.0.project.0.weight",
        names=names.RESNET | names.TORCHVISION,
        output_stride=8,
        switches={"aspp_dropout": 0.5},
    ),
    "torchvision_mobilenet": Source(
        title="torchvision",
        architecture=V3,
        families=("mobilenet_v3",),
        sign="classifier.0.project.0.weight",
        names=names.TORCHVISION_MOBILENET | names.TORCHVISION,
        switches={"aspp_dropout": 0.5, "atrous_rates": "12 24 36", "first_dilation": "new"},
    ),
    "chenxi116": Source(
        title="chenxi116/DeepLabv3.pytorch",  # and the ResNets of stigma0617, which are the same
        architecture=V3,
        families=("resnet",),
        sign="aspp.aspp1.weight",
        names=names.FLAT | names.CHENXI,
        switches=_CHENXI | {"norm_momentum": 0.0003, "backbone_norm_momentum": 0.05},
        may_standardize=True,
    ),
    "stigma0617": Source(
        title="stigma0617/VoVNet-DeepLabV3",
        architecture=V3,
        families=("vovnet", "densenet"),
        sign="aspp.aspp1.weight",
        names=names.FLAT | names.CHENXI,
        switches=_CHENXI | {"norm_epsilon": 0.0003},
    ),
    "yor": Source(
        title="yoR-rihsihS/deeplabv3plus",
        architecture=PLUS,
        families=("resnet",),
        sign="decoder.classifer.3.weight",
        names=names.YOR_RESNET | names.YOR,
        output_stride=8,
        switches={"align_corners": True, "aspp_dropout": 0.0, "concatenation": "aspp_first"},
        class_names={20: (*CITYSCAPES_CLASSES, VOID)},
    ),
    "mindspore": Source(
        title="MindSpore model zoo, DeepLabV3",
        architecture=V3,
        families=("resnet",),
        sign="aspp.aspp1.aspp_conv.0.weight",
        names=names.MINDSPORE,
        switches={
            "align_corners": True,
            "aspp_dropout": 0.7,
            "head_convolution": False,
            "multi_grid": "1 2 4",
            "first_dilation": "new",
            "atrous_rates": "6 12 18",
        },
    ),
    "imagenet_resnet": Source(
        title="an ImageNet backbone, as torchvision names it",
        architecture=BACKBONE,
        families=("resnet",),
        sign="layer1.0.conv1.weight",
        names=names.FLAT,
    ),
    "imagenet_densenet": Source(
        title="an ImageNet backbone, as torchvision names it",
        architecture=BACKBONE,
        families=("densenet",),
        sign="features.denseblock1.denselayer1.conv1.weight",
        names=names.FLAT,
    ),
    "imagenet_mobilenet": Source(
        title="an ImageNet backbone, as torchvision names it",
        architecture=BACKBONE,
        families=("mobilenet",),
        sign="features.0.0.weight",
        names=names.FLAT,
    ),
    "imagenet_vovnet": Source(
        title="an ImageNet backbone, as stigma0617 names it",
        architecture=BACKBONE,
        families=("vovnet",),
        sign="stem.stem_1/conv.weight",
        names=names.FLAT,
    ),
}
"""Public sources; the first one whose sign and backbone match a file counts."""

BLUE_FIRST = ("mindspore",)
"""Sources whose images have the channels blue, green, red."""
