"""Torchvision's ResNets as dilated feature extractors at output stride 8 or 16.

A stage that would take the features below the output stride keeps its resolution instead, and its 3x3 convolutions are
dilated so that they see what they saw before ("atrous" convolution: DeepLabV3, arXiv:1706.05587, section 3.1). With the
same weights, the dense features taken every second or fourth pixel are those of the ordinary stride-32 network.
"""

from torch import Tensor, nn
from torchvision import models

from dlv3p.backbones.features import Backbone, BackboneOptions, Features

RESNETS = {
    "resnet18": models.resnet18,
    "resnet34": models.resnet34,
    "resnet50": models.resnet50,
    "resnet101": models.resnet101,
    "resnet152": models.resnet152,
}
"""Name: torchvision's builder."""


class ResNetBackbone(Backbone):
    """A ResNet without its classifier."""

    def __init__(self, name: str, options: BackboneOptions) -> None:
        super().__init__()
        resnet = RESNETS[name](weights=None)
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
