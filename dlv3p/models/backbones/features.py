"""The interface between backbones and heads: what every backbone is asked for, and the features that it returns."""

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
    """How a backbone is built; a family refuses with ParameterError what its networks cannot be.

    `output_stride` is 8, 16 or 32. `multi_grid` multiplies the dilations of the last stage's blocks (DeepLabV3, section
    3.2.1). `first_dilation` says whether the block that would have strided keeps the `previous` dilation (torchvision's
    ResNets) or takes the `new` one (MindSpore). `pooling` says what becomes of a pooling layer that would go below the
    output stride: `dropped`, as published for VoVNet and DenseNet, or kept at stride 1 and `dilated`.
    `mobilenet_padding` says where MobileNetV2 pads: inside its depthwise convolutions (`torchvision`), or before the
    expansion and not at all at the stem (`fixed`, VainF). The norm is exchanged in the finished network.
    """

    output_stride: int = 16
    multi_grid: tuple[int, ...] = (1, 1, 1)
    first_dilation: str = "previous"
    pooling: str = "dropped"
    mobilenet_padding: str = "torchvision"


class Backbone(nn.Module):
    """Base of all backbones: image (N,3,H,W), any height and width, to Features.

    The three numbers of channels tell a head what to expect.
    """

    low_level_channels: int
    middle_channels: int
    high_level_channels: int

    def forward(self, image: Tensor) -> Features:
        """Extract the features of a batch."""
        raise NotImplementedError


def require(name: str, options: BackboneOptions, **allowed: tuple) -> None:
    """Raise ParameterError when `options` asks the backbone called `name` for something that it cannot be.

    `allowed` lists the values of the switches that the backbone has; the others must keep their default.
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
