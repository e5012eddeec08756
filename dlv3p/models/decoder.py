"""The decoder of DeepLabV3+ (arXiv:1802.02611, section 3.1), and how everything is upsampled."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlv3p.models.convolution import conv_bn_relu
from dlv3p.parameters.network import NetworkParameters


def upsample(features: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Resize features or logits bilinearly; every upsampling of the project goes through here."""
    return functional.interpolate(features, size=size, mode="bilinear", align_corners=align_corners)


class Decoder(nn.Module):
    """Narrow the low-level features, join them with the upsampled ASPP output, refine both with 3x3 convolutions.

    The paper's decoder ends in two 3x3 convolutions, `fuse` and `refine`; the public PyTorch checkpoints hold one.
    """

    def __init__(self, low_level_channels: int, parameters: NetworkParameters) -> None:
        super().__init__()
        channels, narrow = parameters.channels, parameters.low_level_channels
        self.aspp_first = parameters.concatenation == "aspp_first"
        self.align_corners = parameters.align_corners
        self.low = conv_bn_relu(low_level_channels, narrow, 1, parameters)
        self.fuse = conv_bn_relu(narrow + channels, channels, 3, parameters)
        two = parameters.decoder_convolutions == 2
        self.refine = conv_bn_relu(channels, channels, 3, parameters) if two else nn.Identity()

    def forward(self, low_level: Tensor, context: Tensor) -> Tensor:
        low_level = self.low(low_level)
        context = upsample(context, low_level.shape[-2:], align_corners=self.align_corners)
        joined = torch.cat((context, low_level) if self.aspp_first else (low_level, context), dim=1)
        return self.refine(self.fuse(joined))
