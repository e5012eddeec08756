"""Torchvision's DenseNets (arXiv:1608.06993) as dilated feature extractors.

A transition between two dense blocks ends in an average pooling. The published DeepLabV3 over DenseNet
(stigma0617/VoVNet-DeepLabV3) leaves out the pooling of the last transition and dilates the 3x3 convolutions after it
by 2; at stride 8 we do the same one transition earlier. `pooling="dilated"` keeps the pooling instead, at stride 1, and
then the dense features taken at the stride are those of the ordinary stride-32 network.
"""

from torch import Tensor, nn
from torchvision import models

from dlv3p.models.backbones.features import Backbone, BackboneOptions, Features, require
from dlv3p.models.backbones.pooling import DilatedAvgPool

DENSENETS = {
    "densenet121": models.densenet121,
    "densenet161": models.densenet161,
    "densenet169": models.densenet169,
    "densenet201": models.densenet201,
}
"""Torchvision's builder by name."""

STRIDES = {2: 8, 3: 16, 4: 32}
"""Stride in the ImageNet network of each dense block after a transition."""


class DenseNetBackbone(Backbone):
    """A DenseNet without its classifier.

    A dense block ends in a concatenation without batch norm; features are taken after the norm and ReLU that begin the
    next transition: the low-level ones of block 1, the middle ones of block 3. The high-level features are those of
    block 4 after the last norm and a ReLU, as the ImageNet classifier gets them.
    """

    def __init__(self, name: str, options: BackboneOptions) -> None:
        super().__init__()
        self.features = DENSENETS[name](weights=None).features
        for block, stride in STRIDES.items():
            dilation = max(1, stride // options.output_stride)
            if dilation > 1:
                transition = self.features.get_submodule(f"transition{block - 1}")
                transition.pool = DilatedAvgPool(dilation // 2) if options.pooling == "dilated" else nn.Identity()
                for layer in self.features.get_submodule(f"denseblock{block}").values():
                    layer.conv2.dilation = layer.conv2.padding = (dilation, dilation)
        self.relu = nn.ReLU(inplace=True)
        self.low_level_channels: int = self.features.transition1.norm.num_features
        self.middle_channels: int = self.features.transition3.norm.num_features
        self.high_level_channels: int = self.features.norm5.num_features

    def forward(self, image: Tensor) -> Features:
        layers = self.features
        stem = layers.pool0(layers.relu0(layers.norm0(layers.conv0(image))))
        first, second, third = layers.transition1, layers.transition2, layers.transition3
        low_level = first.relu(first.norm(layers.denseblock1(stem)))
        middle = layers.denseblock3(second(layers.denseblock2(first.pool(first.conv(low_level)))))
        middle = third.relu(third.norm(middle))
        high_level = layers.denseblock4(third.pool(third.conv(middle)))
        return Features(low_level, middle, self.relu(layers.norm5(high_level)))


def build(name: str, options: BackboneOptions) -> DenseNetBackbone:
    """Build one of `DENSENETS`, with random weights; raises ParameterError for unsupported switches."""
    require(name, options, pooling=("dropped", "dilated"))
    return DenseNetBackbone(name, options)
