"""The interface between backbones and heads: the options of every backbone, and the features that it returns."""

from dataclasses import dataclass, fields
from typing import NamedTuple

from torch import Tensor, nn

from cityscapes.errors import ParameterError


class Features(NamedTuple):
    """Maps of one batch: `low_level` (N,C,h,w) at stride 4, `middle` before the last stage, `high_level` at the end.

    `middle` and `high_level` are at the output stride or below it; the auxiliary head reads `middle`.
    """

    low_level: Tensor
    middle: Tensor
    high_level: Tensor


@dataclass(frozen=True)
class BackboneOptions:
    """The options of a backbone; a family raises ParameterError for values that it does not support.

    `output_stride` is 8, 16 or 32. `multi_grid` multiplies the dilations of the last stage's blocks (DeepLabV3, section
    3.2.1). `first_dilation` says whether the block that would have strided keeps the `previous` dilation (torchvision's
    ResNets) or takes the `new` one (MindSpore). `pooling` sets what happens to a pooling layer that would exceed the
    output stride: `dropped`, as published for VoVNet and DenseNet, or kept at stride 1 and `dilated`.
    `mobilenet_padding` says where MobileNetV2 pads: inside its depthwise convolutions (`torchvision`), or before the
    expansion and not at all at the stem (`fixed`, VainF). The norm is replaced in the finished network.
    """

    output_stride: int = 16
    multi_grid: tuple[int, ...] = (1, 1, 1)
    first_dilation: str = "previous"
    pooling: str = "dropped"
    mobilenet_padding: str = "torchvision"


class Backbone(nn.Module):
    """Base of all backbones: image (N,3,H,W), any height and width, to Features.

    The three numbers of channels are those of the features.
    """

    low_level_channels: int
    middle_channels: int
    high_level_channels: int

    def forward(self, image: Tensor) -> Features:
        """Extract the features of a batch."""
        raise NotImplementedError


def require(name: str, options: BackboneOptions, **allowed: tuple) -> None:
    """Raise ParameterError when `options` has a value that the backbone called `name` does not support.

    `allowed` lists the values of the switches that the backbone supports; the others must keep their default.
    """
    allowed = {"output_stride": (8, 16, 32)} | allowed
    for item in fields(options):
        value, values = getattr(options, item.name), allowed.get(item.name, (item.default,))
        same_grid = item.name == "multi_grid" and set(value) == {1}
        if value not in values and not same_grid:
            listed = ", ".join(map(_shown, values))
            raise ParameterError(
                f"{item.name}={_shown(value)}: {name} allows {listed}; change it or take another backbone"
            )


def _shown(value: object) -> str:
    return repr(" ".join(map(str, value)) if isinstance(value, tuple) else value)
