"""Torchvision's ResNets (v1.5: the 3x3 convolutions stride) as dilated feature extractors.

A stage that would exceed the output stride keeps its resolution instead, and its 3x3 convolutions are dilated so that
they cover the same pixels as before ("atrous" convolution: DeepLabV3, arXiv:1706.05587, section 3.1). With the
same weights, the dense features taken every second or fourth pixel are those of the ordinary stride-32 network, as long
as the convolution that used to stride keeps the `previous` dilation.
"""

from torch import Tensor, nn
from torchvision.models import resnet

from cityscapes.errors import ParameterError
from dlv3p.models.backbones.features import Backbone, BackboneOptions, Features, require


class BasicBlock(resnet.BasicBlock):
    """Torchvision's block of two 3x3 convolutions, with a ReLU module for each use: quantization observes modules."""

    def __init__(self, *sizes: int, **options: object) -> None:
        super().__init__(*sizes, **options)
        del self.relu
        self.relu1, self.relu2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        residual = self.relu1(self.bn1(self.conv1(features)))
        residual = self.bn2(self.conv2(residual))
        residual += features if self.downsample is None else self.downsample(features)
        return self.relu2(residual)


class Bottleneck(resnet.Bottleneck):
    """Torchvision's block of a 1x1, a 3x3 and a 1x1 convolution, with a ReLU module for each use."""

    def __init__(self, *sizes: int, **options: object) -> None:
        super().__init__(*sizes, **options)
        del self.relu
        self.relu1, self.relu2, self.relu3 = nn.ReLU(inplace=True), nn.ReLU(inplace=True), nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        residual = self.relu1(self.bn1(self.conv1(features)))
        residual = self.relu2(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        residual += features if self.downsample is None else self.downsample(features)
        return self.relu3(residual)


RESNETS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
"""By name: the block, and the number of blocks in each of the four stages."""


class ResNetBackbone(Backbone):
    """A ResNet without its classifier."""

    def __init__(self, name: str, options: BackboneOptions) -> None:
        super().__init__()
        block, blocks = RESNETS[name]
        whole = resnet.ResNet(block, list(blocks))
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        self.layer1, self.layer2 = whole.layer1, whole.layer2
        self.layer3, self.layer4 = whole.layer3, whole.layer4
        dilate((self.layer3, self.layer4), options)
        self.low_level_channels: int = whole.layer2[0].conv1.in_channels
        self.middle_channels: int = whole.layer4[0].conv1.in_channels
        self.high_level_channels: int = whole.fc.in_features

    def forward(self, image: Tensor) -> Features:
        stem = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        low_level = self.layer1(stem)
        middle = self.layer3(self.layer2(low_level))
        return Features(low_level, middle, self.layer4(middle))


def build(name: str, options: BackboneOptions) -> ResNetBackbone:
    """Build one of `RESNETS`, with random weights; raises ParameterError for unsupported switches."""
    require(name, options, multi_grid=(options.multi_grid,), first_dilation=("previous", "new"))
    last = RESNETS[name][1][-1]
    if set(options.multi_grid) != {1} and len(options.multi_grid) != last:
        given = " ".join(map(str, options.multi_grid))
        raise ParameterError(f"multi_grid={given!r}: the last stage of {name} has {last} blocks; give {last} numbers")
    return ResNetBackbone(name, options)


def dilate(stages: tuple[nn.Sequential, nn.Sequential], options: BackboneOptions) -> None:
    """Keep the resolution of those of the last two `stages` (strides 16 and 32) that would exceed the output stride.

    Within a stage the convolution that used to stride still sees the input at the `previous` dilation; only the 3x3
    convolutions after it are dilated more, which makes the dense features agree with the strided ones. With
    `first_dilation="new"` it is dilated like them (MindSpore). Multi-grid multiplies the dilations of the last stage.
    """
    dilation, last = 1, stages[-1]
    for stage, stride in zip(stages, (16, 32), strict=True):
        previous, dense = dilation, stride > options.output_stride
        dilation = 2 * previous if dense else previous
        multi_grid = options.multi_grid if stage is last and set(options.multi_grid) != {1} else (1,) * len(stage)
        for block, grid in zip(stage, multi_grid, strict=True):
            for conv in block.modules():
                if not isinstance(conv, nn.Conv2d):
                    continue
                strided = conv.stride == (2, 2)
                if conv.kernel_size == (3, 3):
                    own = grid * (previous if strided and options.first_dilation == "previous" else dilation)
                    conv.dilation = conv.padding = (own, own)
                if dense:
                    conv.stride = (1, 1)
