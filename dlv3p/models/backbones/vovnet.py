"""VoVNet-39 and -57 (arXiv:1904.09730) as dilated feature extractors; names as in the public ImageNet files.

Every stage but the first, which the stem has brought to stride 4, begins with a pooling layer. The published
DeepLabV3 (stigma0617/VoVNet-DeepLabV3) leaves out the pooling of stage 5 and dilates all its 3x3 convolutions by 2, the
first included; at stride 8 we do the same to stage 4. `pooling="dilated"` keeps the layers instead, at stride 1, and
then the dense features taken at the stride are those of the ordinary stride-32 network.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from dlv3p.models.backbones.features import Backbone, BackboneOptions, Features, require
from dlv3p.models.backbones.pooling import DilatedMaxPool

VOVNETS = {"vovnet39": (1, 1, 2, 2), "vovnet57": (1, 1, 4, 3)}
"""By name: the OSA modules in stages 2 to 5 (table 2 of the paper)."""

STRIDES, WIDTHS, CHANNELS = (4, 8, 16, 32), (128, 160, 192, 224), (256, 512, 768, 1024)
"""Of stages 2 to 5: the stride in the ImageNet network, channels of the 3x3 convolutions, channels at the end."""


def conv_norm_relu(
    name: str, in_channels: int, channels: int, kernel_size: int, *, stride: int = 1, dilation: int = 1
) -> OrderedDict[str, nn.Module]:
    """Build convolution, batch norm and ReLU under the public files' names, which contain a slash."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, channels, kernel_size, stride, padding, dilation, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    norm = nn.BatchNorm2d(channels)
    return OrderedDict({f"{name}/conv": conv, f"{name}/norm": norm, f"{name}/relu": nn.ReLU(inplace=True)})


class OneShotAggregation(nn.Module):
    """Five consecutive 3x3 convolutions, whose outputs and input a 1x1 joins at once (section 3 of the paper).

    With `identity` the input is added to the result, after its ReLU.
    """

    def __init__(
        self, name: str, in_channels: int, width: int, channels: int, *, dilation: int, identity: bool
    ) -> None:
        super().__init__()
        self.identity = identity
        self.layers = nn.ModuleList()
        for index in range(5):
            inputs = width if index else in_channels
            self.layers.append(nn.Sequential(conv_norm_relu(f"{name}_{index}", inputs, width, 3, dilation=dilation)))
        self.concat = nn.Sequential(conv_norm_relu(f"{name}_concat", in_channels + 5 * width, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        outputs = [features]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        joined = self.concat(torch.cat(outputs, dim=1))
        return joined + features if self.identity else joined


class VoVNetBackbone(Backbone):
    """A VoVNet without its classifier; the low-level features are those of stage 2, the middle ones of stage 4."""

    low_level_channels, middle_channels, high_level_channels = CHANNELS[0], CHANNELS[2], CHANNELS[3]

    def __init__(self, name: str, options: BackboneOptions) -> None:
        super().__init__()
        stem = conv_norm_relu("stem_1", 3, 64, 3, stride=2)
        stem |= conv_norm_relu("stem_2", 64, 64, 3)
        stem |= conv_norm_relu("stem_3", 64, 128, 3, stride=2)
        self.stem = nn.Sequential(stem)
        self.stage2, self.stage3, self.stage4, self.stage5 = (
            build_stage(index, blocks, options) for index, blocks in enumerate(VOVNETS[name])
        )

    def forward(self, image: Tensor) -> Features:
        low_level = self.stage2(self.stem(image))
        middle = self.stage4(self.stage3(low_level))
        return Features(low_level, middle, self.stage5(middle))


def build_stage(index: int, blocks: int, options: BackboneOptions) -> nn.Sequential:
    """Build the stage at an `index` of `STRIDES`: its pooling layer, if any, and its OSA modules."""
    stride, width, channels = STRIDES[index], WIDTHS[index], CHANNELS[index]
    dilation = max(1, stride // options.output_stride)
    stage = nn.Sequential()
    if index and dilation == 1:
        stage.append(nn.MaxPool2d(3, 2, ceil_mode=True))
    elif index and options.pooling == "dilated":
        stage.append(DilatedMaxPool(dilation // 2))
    for block in range(blocks):
        name = f"OSA{index + 2}_{block + 1}"
        in_channels = channels if block else CHANNELS[index - 1] if index else 128
        osa = OneShotAggregation(name, in_channels, width, channels, dilation=dilation, identity=block > 0)
        stage.add_module(name, osa)
    return stage


def build(name: str, options: BackboneOptions) -> VoVNetBackbone:
    """Build one of `VOVNETS`, with random weights; raises ParameterError for unsupported switches."""
    require(name, options, pooling=("dropped", "dilated"))
    return VoVNetBackbone(name, options)
