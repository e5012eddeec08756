"""Any convolutional network of timm that can be dilated, as `timm:<name>`; an optional extra of this project."""

import difflib
from types import ModuleType
from typing import Any

from torch import Tensor

from cityscapes.errors import MachineError, ParameterError
from dlv3p.backbones.catalog import BACKBONES, TIMM
from dlv3p.backbones.features import Backbone, BackboneOptions, Features, require


class TimmBackbone(Backbone):
    """A network of timm without its classifier.

    The low-level features are its last ones at stride 4, the middle and high-level ones its last but one and its last.
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
        self.low = len(strides) - 1 - strides[::-1].index(4)
        self.low_level_channels, self.middle_channels, self.high_level_channels = (
            channels[index] for index in (self.low, -2, -1)
        )

    def forward(self, image: Tensor) -> Features:
        maps = self.body(image)
        return Features(maps[self.low], maps[-2], maps[-1])


def build(name: str, options: BackboneOptions) -> TimmBackbone:
    """Build the network that timm knows by what follows `timm:` in `name`, with random weights.

    Raises MachineError without timm, and ParameterError for an unknown name, a network that cannot be dilated, or
    switches that timm's networks lack.
    """
    require(name, options)
    return TimmBackbone(name, options)


def _create(name: str, **settings: Any) -> Any:
    timm, short = _timm(), name.removeprefix(TIMM)
    if not timm.is_model(short):
        near = difflib.get_close_matches(short, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(TIMM + other for other in near)}?" if near else ""
        raise ParameterError(f"backbone={name!r}: timm {timm.__version__} knows no such network{hint}")
    try:
        return timm.create_model(short, features_only=True, **settings)
    except (TypeError, AssertionError, NotImplementedError) as error:  # what timm's networks say, each in its own way
        ours = [other for other in BACKBONES if other.rstrip("0123456789") in short] or [f"{TIMM}resnet50d"]
        raise ParameterError(
            f"backbone={name!r}: timm cannot dilate it to the output stride; take {' or '.join(ours)}"
        ) from error


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise MachineError(
            f"a backbone that begins with {TIMM!r} needs timm, which is not here; install it with: pip install timm"
        ) from error
    return timm
