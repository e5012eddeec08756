"""Torchvision's ResNets as dilated feature extractors at output stride 8 or 16.

A stage that would take the features below the output stride keeps its resolution instead, and its 3x3 convolutions are
dilated so that they see what they saw before ("atrous" convolution: DeepLabV3, arXiv:1706.05587, section 3.1). With the
same weights, the dense features taken every second or fourth pixel are those of the ordinary stride-32 network.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models

from cityscapes.errors import IntegrityError, MachineError, MissingInputError, reason
from dlv3p.backbones.features import Backbone, BackboneOptions, Features

RESNETS = {
    "resnet18": (models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1),
    "resnet34": (models.resnet34, models.ResNet34_Weights.IMAGENET1K_V1),
    "resnet50": (models.resnet50, models.ResNet50_Weights.IMAGENET1K_V2),
    "resnet101": (models.resnet101, models.ResNet101_Weights.IMAGENET1K_V2),
    "resnet152": (models.resnet152, models.ResNet152_Weights.IMAGENET1K_V2),
}
"""Name: (torchvision's builder, its ImageNet weights)."""


class ResNetBackbone(Backbone):
    """A ResNet without its classifier."""

    def __init__(self, name: str, options: BackboneOptions) -> None:
        super().__init__()
        builder, _ = RESNETS[name]
        resnet = builder(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4
        replace_strides_with_dilation([self.layer3, self.layer4], output_stride=options.output_stride)
        self.low_level_channels: int = resnet.layer2[0].conv1.in_channels
        self.middle_channels: int = resnet.layer4[0].conv1.in_channels
        self.high_level_channels: int = resnet.fc.in_features

    def forward(self, image: Tensor) -> Features:
        stem = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        low_level = self.layer1(stem)
        middle = self.layer3(self.layer2(low_level))
        return Features(low_level, middle, self.layer4(middle))


def build(name: str, options: BackboneOptions) -> ResNetBackbone:
    """Build one of `RESNETS`, with random weights."""
    return ResNetBackbone(name, options)


def replace_strides_with_dilation(stages: list[nn.Sequential], *, output_stride: int) -> None:
    """Keep the resolution of those of the last two `stages` (strides 16 and 32) that would go below `output_stride`.

    Within a stage the convolution that used to stride still sees the input at the dilation so far; only the 3x3
    convolutions behind it are spread further, which is what makes the dense features agree with the strided ones.
    """
    dilation = 1
    for stage, stride in zip(stages, (16, 32), strict=True):
        if stride <= output_stride:
            continue
        for module in stage.modules():
            if not isinstance(module, nn.Conv2d):
                continue
            strided = module.stride == (2, 2)
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (dilation, dilation)
            if strided and module.kernel_size == (3, 3):
                dilation *= 2


def load_imagenet_weights(backbone: ResNetBackbone, name: str, source: str) -> None:
    """Fill `backbone` with ImageNet weights: `source` is "imagenet" (torchvision's own) or the path of such a file.

    Raises MachineError when torchvision cannot download them, and IntegrityError when a file does not fit.
    """
    weights = RESNETS[name][1]
    state = _download(weights, name) if source == "imagenet" else _read(Path(source).expanduser(), name)
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    expected = backbone.state_dict()
    wrong = [key for key in expected if key not in state or state[key].shape != expected[key].shape]
    wrong += [key for key in state if key not in expected]
    if wrong:
        raise IntegrityError(
            f"initial_weights={source!r} is not a torchvision {name}: {len(wrong)} entries are missing, unknown or of "
            f"another shape, the first {wrong[0]!r}; give a {name} file or another backbone"
        )
    backbone.load_state_dict(state)


def _download(weights: models.WeightsEnum, name: str) -> dict[str, Tensor]:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        file = weights.url.rsplit("/", 1)[-1]
        raise MachineError(
            f"initial_weights='imagenet': cannot download {weights.url} ({error}); fetch {file} on a machine with a "
            f"network and put it into {torch.hub.get_dir()}/checkpoints/, or give its path as initial_weights, or "
            f"'random' to start {name} from scratch"
        ) from error


def _read(path: Path, name: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingInputError(
            f"initial_weights={str(path)!r}: no such file; allowed are 'random', 'imagenet' or a path"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage by many types: RuntimeError, UnpicklingError, EOFError, ...
        raise IntegrityError(
            f"{path}: not a readable weights file ({reason(error)}); give a torchvision {name} file"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise IntegrityError(f"{path}: holds no plain table of tensors; give a torchvision {name} file")
    return state
