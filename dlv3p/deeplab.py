"""DeepLabV3 (arXiv:1706.05587) and DeepLabV3+ (arXiv:1802.02611) over any backbone of `backbones/`."""

from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlv3p.aspp import ASPP, ATROUS_RATES, conv_bn_relu
from dlv3p.backbones.catalog import find
from dlv3p.backbones.features import Backbone, BackboneOptions
from dlv3p.backbones.imagenet import load_imagenet_weights
from dlv3p.config import TrainParameters

LOW_LEVEL_CHANNELS = 48
"""How far DeepLabV3+ narrows the low-level features, so that they do not outweigh the encoder's (section 4.1)."""

ASPP_DROPOUT = 0.1


def upsample(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize features or logits bilinearly; every upsampling of the project goes through here."""
    return functional.interpolate(features, size=size, mode="bilinear", align_corners=False)


class DeepLabV3(nn.Module):
    """Backbone, ASPP, one 3x3 convolution, classifier: image (N,3,H,W) to logits (N,num_classes,H,W).

    `logits_at_stride` stops before the last upsampling, for callers who want to do that in their own way.
    """

    def __init__(self, backbone: Backbone, *, output_stride: int, num_classes: int, channels: int = 256) -> None:
        super().__init__()
        rates = ATROUS_RATES[output_stride]
        self.backbone = backbone
        self.aspp = ASPP(backbone.high_level_channels, channels, atrous_rates=rates, dropout=ASPP_DROPOUT)
        self.head = conv_bn_relu(channels, channels, 3)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        initialize(self.aspp, self.head, self.classifier)

    def logits_at_stride(self, image: Tensor) -> Tensor:
        """Logits at the output stride."""
        return self.classifier(self.head(self.aspp(self.backbone(image).high_level)))

    def forward(self, image: Tensor) -> Tensor:
        return upsample(self.logits_at_stride(image), image.shape[-2:])


class Decoder(nn.Module):
    """Narrow the low-level features, join them with the upsampled ASPP output, refine both with one 3x3 convolution.

    The paper's decoder ends in two 3x3 convolutions; one is what the public PyTorch checkpoints hold.
    """

    def __init__(self, low_level_channels: int, channels: int) -> None:
        super().__init__()
        self.low = conv_bn_relu(low_level_channels, LOW_LEVEL_CHANNELS, 1)
        self.fuse = conv_bn_relu(LOW_LEVEL_CHANNELS + channels, channels, 3)

    def forward(self, low_level: Tensor, context: Tensor) -> Tensor:
        low_level = self.low(low_level)
        return self.fuse(torch.cat([low_level, upsample(context, low_level.shape[-2:])], dim=1))


class DeepLabV3Plus(nn.Module):
    """Backbone, ASPP, decoder, classifier: image (N,3,H,W) to logits (N,num_classes,H,W).

    `logits_at_stride` stops before the last upsampling, at a quarter of the image's height and width.
    """

    def __init__(self, backbone: Backbone, *, output_stride: int, num_classes: int, channels: int = 256) -> None:
        super().__init__()
        rates = ATROUS_RATES[output_stride]
        self.backbone = backbone
        self.aspp = ASPP(backbone.high_level_channels, channels, atrous_rates=rates, dropout=ASPP_DROPOUT)
        self.decoder = Decoder(backbone.low_level_channels, channels)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        initialize(self.aspp, self.decoder, self.classifier)

    def logits_at_stride(self, image: Tensor) -> Tensor:
        """Logits at stride 4."""
        features = self.backbone(image)
        return self.classifier(self.decoder(features.low_level, self.aspp(features.high_level)))

    def forward(self, image: Tensor) -> Tensor:
        return upsample(self.logits_at_stride(image), image.shape[-2:])


ARCHITECTURES = {"deeplabv3": DeepLabV3, "deeplabv3plus": DeepLabV3Plus}


def initialize(*modules: nn.Module) -> None:
    """He initialisation for convolutions, as for the heads of the public checkpoints; biases start at zero."""
    for module in modules:
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)


def build_model(
    architecture: str,
    backbone: str,
    *,
    output_stride: int,
    num_classes: int,
    channels: int = 256,
    initial_weights: str = "random",
) -> nn.Module:
    """Build a network; `initial_weights` is "random", "imagenet" or the path of a public ImageNet file.

    `channels` is the width of ASPP and decoder, 256 in the papers. The result is in training mode, on the CPU.
    """
    features = import_module(find(backbone)).build(backbone, BackboneOptions(output_stride=output_stride))
    if initial_weights != "random":
        load_imagenet_weights(features, backbone, initial_weights)
    model = ARCHITECTURES[architecture]
    return model(features, output_stride=output_stride, num_classes=num_classes, channels=channels)


def build_network(parameters: TrainParameters, num_classes: int) -> nn.Module:
    """Build the network that a run's parameters describe, as `build_model` does."""
    return build_model(
        parameters.architecture,
        parameters.backbone,
        output_stride=parameters.output_stride,
        num_classes=num_classes,
        channels=parameters.channels,
        initial_weights=parameters.initial_weights,
    )
