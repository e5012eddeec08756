"""Any dilatable convolutional network of timm, as `timm:<name>`; needs the extra `timm`."""

import difflib
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cityscapes import errors
from cityscapes.errors import ParameterError
from dlv3p.models.backbones.features import Backbone, BackboneOptions, Features, require
from dlv3p.parameters.network import BACKBONES, TIMM

PROBED = (128, 128), (97, 129)
"""Heights and widths of the images that a network must accept; in the first, strides are whole numbers."""


class TimmBackbone(Backbone):
    """A network of timm without its classifier.

    The low-level features are its last ones at stride 4, the middle and high-level ones its second to last and last.
    """

    def __init__(self, name: str, options: BackboneOptions) -> None:
        super().__init__()
        self.body = _create(name, output_stride=options.output_stride)
        strides, channels = self.body.feature_info.reduction(), self.body.feature_info.channels()
        if 4 not in strides or strides[-1] != options.output_stride:
            raise ParameterError(
                f"backbone={name!r}: its features are at the strides {', '.join(map(str, strides))}; needed are 4 and, "
                f"at the end, {options.output_stride}; take another network or output_stride"
            )
        _require_dilated(name, options.output_stride)
        self.low = len(strides) - 1 - strides[::-1].index(4)
        self.low_level_channels, self.middle_channels, self.high_level_channels = (
            channels[index] for index in (self.low, -2, -1)
        )

    def forward(self, image: Tensor) -> Features:
        maps = self.body(image)
        return Features(maps[self.low], maps[-2], maps[-1])


def build(name: str, options: BackboneOptions) -> TimmBackbone:
    """Build the timm network that follows `timm:` in `name`, with random weights.

    Raises MachineError without timm, and ParameterError for an unknown name, a network that timm does not dilate
    fully or that takes images of some sizes only, or switches that timm networks do not support.
    """
    require(name, options)
    return TimmBackbone(name, options)


def _create(name: str, **settings: Any) -> Any:
    timm, short = _timm(), name.removeprefix(TIMM)
    if not timm.is_model(short):
        near = difflib.get_close_matches(short, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(TIMM + other for other in near)}?" if near else ""
        raise ParameterError(f"backbone={name!r}: timm {timm.__version__} has no such network{hint}")
    try:
        return timm.create_model(short, features_only=True, **settings)
    except (TypeError, AssertionError, NotImplementedError) as error:  # each timm network fails in its own way
        raise ParameterError(
            f"backbone={name!r}: timm cannot dilate it to the output stride; {_instead(name)}"
        ) from error


@cache
@torch.no_grad()
def _require_dilated(name: str, output_stride: int) -> None:
    """Raise ParameterError unless all convolutions past the output stride are dilated, and images of any size pass.

    Both are checked on the meta device, against a network that strides as on ImageNet: for some networks timm removes
    the strides without dilating the convolutions. A network that has passed is not checked again.
    """
    with torch.device("meta"):
        strided, dense = _create(name).eval(), _create(name, output_stride=output_stride).eval()
        try:
            strides = _strides_of_inputs(strided)
            for size in PROBED:
                dense(torch.empty(1, 3, *size))
        except Exception as error:  # each network of timm fails in its own way
            raise ParameterError(f"backbone={name!r}: does not take images of every size; {_instead(name)}") from error
    own, given = dict(strided.named_modules()), dict(dense.named_modules())
    deep = [key for key, stride in strides.items() if stride > output_stride]
    left = [key for key in deep if given[key].dilation[0] != own[key].dilation[0] * strides[key] // output_stride]
    if left:
        raise ParameterError(
            f"backbone={name!r}: at output_stride={output_stride} timm dilates {len(deep) - len(left)} of the "
            f"{len(deep)} convolutions that need it; {_instead(name)}"
        )


def _strides_of_inputs(network: nn.Module) -> dict[str, int]:
    """Return the stride of the input of each convolution larger than 1x1, by its name."""
    strides = {}

    def note(key: str, inputs: tuple[Tensor, ...]) -> None:
        strides[key] = PROBED[0][0] // inputs[0].shape[2]

    for key, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.register_forward_pre_hook(lambda module, inputs, key=key: note(key, inputs))
    network(torch.empty(1, 3, *PROBED[0]))
    return strides


def _instead(name: str) -> str:
    ours = [other for other in BACKBONES if other.rstrip("0123456789") in name] or [f"{TIMM}resnet50d"]
    return f"take {' or '.join(ours)}"


def _timm() -> ModuleType:
    errors.require(f"a backbone that begins with {TIMM!r}", ("timm",), "timm")
    import timm

    return timm
