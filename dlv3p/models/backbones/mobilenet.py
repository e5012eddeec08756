"""Torchvision's MobileNetV2 (arXiv:1801.04381) and MobileNetV3-Large (arXiv:1905.02244) as dilated feature extractors.

An inverted residual block expands its input with a 1x1 convolution, filters it with a depthwise one and projects the
result again. Where the features would exceed the output stride, the depthwise convolution does not stride, and those
after it are dilated. MobileNetV3's squeeze-excitation weighs channels by their mean over the image, which differs
slightly with more pixels, so its dense features are those of the stride-32 network except for these weights.
"""

from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from dlv3p.models.backbones.features import Backbone, BackboneOptions, Features, require

MOBILENETS = {
    "mobilenet_v2": (models.mobilenet_v2, (3, 13, 17)),
    "mobilenet_v3_large": (models.mobilenet_v3_large, (3, 4, 16)),
}
"""By name: torchvision's builder, and the layers whose outputs are the low-level, middle and high-level features.

MobileNetV2's last layer, which widens 320 channels to 1280, is left out, as VainF does. MobileNetV3's middle features
are at stride 8, where torchvision's auxiliary head takes them.
"""


class MobileNetBackbone(Backbone):
    """A MobileNet without its classifier."""

    def __init__(self, name: str, options: BackboneOptions) -> None:
        super().__init__()
        builder, self.taken = MOBILENETS[name]
        self.features = builder(weights=None).features[: self.taken[-1] + 1]
        dilate(self.features, options)
        if options.mobilenet_padding == "fixed":
            pad_before_expansion(self.features)
        self.low_level_channels, self.middle_channels, self.high_level_channels = (
            self.features[index].out_channels for index in self.taken
        )

    def forward(self, image: Tensor) -> Features:
        maps, features = [], image
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in self.taken:
                maps.append(features)
        return Features(*maps)


def dilate(layers: nn.Sequential, options: BackboneOptions) -> None:
    """Keep the resolution of the layers that would exceed the output stride, and dilate the ones after them.

    With `first_dilation="previous"` the convolution that used to stride keeps the dilation so far, which is what makes
    dense and strided features agree (VainF); torchvision's MobileNetV3 dilates it like the others (`new`).
    """
    stride = dilation = 1
    for layer in layers:
        convolution = spatial_convolution(layer)
        if convolution is None:
            continue
        stride *= convolution.stride[0]
        previous, dilation = dilation, max(1, stride // options.output_stride)
        if dilation > 1:
            own = previous if options.first_dilation == "previous" else dilation
            convolution.stride = (1, 1)
            convolution.dilation = (own, own)
            convolution.padding = tuple(own * (size // 2) for size in convolution.kernel_size)


def spatial_convolution(layer: nn.Module) -> nn.Conv2d | None:
    """Return the only convolution of a layer that is wider than 1x1, if it has one."""
    for module in layer.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            return module
    return None


class PaddedFirst(nn.Module):
    """An inverted residual block that pads its input with zeros before the expansion instead of after it.

    After the expansion's norm and ReLU the border is no longer zero, so features near it differ from torchvision's.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.conv, self.identity, self.out_channels = block.conv, block.use_res_connect, block.out_channels
        convolution = spatial_convolution(block)
        self.padding = convolution.padding[0]
        convolution.padding = (0, 0)

    def forward(self, features: Tensor) -> Tensor:
        result = self.conv(functional.pad(features, (self.padding,) * 4))
        return features + result if self.identity else result


def pad_before_expansion(layers: nn.Sequential) -> None:
    """Pad as VainF's MobileNetV2 does: before the expansions, and not at all at the stem."""
    layers[0][0].padding = (0, 0)
    for index in range(1, len(layers)):
        layers[index] = PaddedFirst(layers[index])


def build(name: str, options: BackboneOptions) -> MobileNetBackbone:
    """Build one of `MOBILENETS`, with random weights; raises ParameterError for unsupported switches."""
    paddings = ("torchvision", "fixed") if name == "mobilenet_v2" else ("torchvision",)
    require(name, options, first_dilation=("previous", "new"), mobilenet_padding=paddings)
    return MobileNetBackbone(name, options)
