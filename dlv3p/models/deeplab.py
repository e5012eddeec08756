"""DeepLabV3 (arXiv:1706.05587) and DeepLabV3+ (arXiv:1802.02611) over any backbone of `backbones/`.

From top to bottom: convolution blocks, atrous spatial pyramid pooling, decoder, the two networks, and `build_network`,
which alone knows `NetworkParameters`; everything above it takes plain numbers.
"""

from collections import OrderedDict
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cityscapes.errors import ParameterError
from cityscapes.files.channels import PixelRule
from dlv3p.models.backbones.features import Backbone, BackboneOptions, Features
from dlv3p.models.inputs import take_channels
from dlv3p.models.norms import batch_norm_one_pixel, set_momentum, use_norm
from dlv3p.models.widths import Widths, apply_widths
from dlv3p.parameters.network import NetworkParameters, find
from dlv3p.runtime.devices import LAYOUT

AUXILIARY_DROPOUT = 0.1


class BlockOptions(NamedTuple):
    """Options of every convolution block after the backbone.

    `separable` splits 3x3 convolutions into depthwise and pointwise ones: "off", "plain", or "normalized", which puts
    norm and ReLU between the two.
    """

    separable: str = "off"
    bias: bool = False
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.1

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """Build the batch norm after a convolution."""
        return nn.BatchNorm2d(channels, eps=self.norm_epsilon, momentum=self.norm_momentum)


DEFAULT_BLOCK = BlockOptions()


def conv_bn_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    options: BlockOptions = DEFAULT_BLOCK,
    *,
    dilation: int = 1,
) -> nn.Sequential:
    """Build `conv`, `bn` and `relu`, which keep height and width; kernels larger than 1x1 may be separable."""
    spatial = {"padding": dilation * (kernel_size // 2), "dilation": dilation} if kernel_size > 1 else {}
    if kernel_size == 1 or options.separable == "off":
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, bias=options.bias, **spatial)
    else:
        depthwise = nn.Conv2d(in_channels, in_channels, kernel_size, groups=in_channels, bias=options.bias, **spatial)
        pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=options.bias)
        between = {"bn": options.norm(in_channels), "relu": nn.ReLU(inplace=True)}
        if options.separable == "plain":
            between = {}
        conv = nn.Sequential(OrderedDict(depthwise=depthwise, **between, pointwise=pointwise))
    return nn.Sequential(OrderedDict(conv=conv, bn=options.norm(out_channels), relu=nn.ReLU(inplace=True)))


def initialize(how: str, *modules: nn.Module) -> None:
    """Draw the weights of convolutions with k x k kernels anew, as public code draws those of its heads.

    * "he_normal": N(0, 2 / (k k C_in)), He's normal distribution, and biases of zero (VainF).
    * "fan_out_normal": N(0, 2 / (k k C_out)), and biases as PyTorch draws them (chenxi116, stigma0617; mmsegmentation).
    * "xavier": Glorot's uniform distribution, of variance 2 / (k k (C_in + C_out)), and biases of zero (MindSpore).
    * "torch": nothing is drawn anew, so all is as PyTorch draws it (yoR).
    """
    convolutions = [part for module in modules for part in module.modules() if isinstance(part, nn.Conv2d)]
    for convolution in convolutions:
        match how:
            case "he_normal":
                nn.init.kaiming_normal_(convolution.weight)
            case "fan_out_normal":
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
            case "xavier":
                nn.init.xavier_uniform_(convolution.weight)
        if how in ("he_normal", "xavier") and convolution.bias is not None:
            nn.init.zeros_(convolution.bias)


def upsample(features: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Resize features or logits bilinearly; every upsampling of the project goes through here."""
    return functional.interpolate(features, size=size, mode="bilinear", align_corners=align_corners)


class ImagePooling(nn.Module):
    """The image pooling branch: global mean, 1x1 convolution, expanded to the height and width of the features."""

    def __init__(self, in_channels: int, channels: int, options: BlockOptions = DEFAULT_BLOCK) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=options.bias)
        self.bn = options.norm(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        pooled = batch_norm_one_pixel(self.bn, self.conv(features.mean(dim=(2, 3), keepdim=True)))
        spread = functional.interpolate(self.relu(pooled), size=features.shape[-2:], mode="nearest")
        # A single pixel has no layout to keep; in another layout, this map would convert all branches when joined.
        return spread.contiguous(memory_format=LAYOUT)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabV3, section 3.3): features (N,C,h,w) to (N,channels,h,w).

    A 1x1 convolution `branch0`, 3x3 ones `branch1` and so on, one for each of the atrous `rates`, and image pooling
    `pool` are joined by the 1x1 convolution `project`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        rates: Sequence[int],
        *,
        dropout: float = 0.1,
        image_pooling: bool = True,
        options: BlockOptions = DEFAULT_BLOCK,
    ) -> None:
        super().__init__()
        self.branch0 = conv_bn_relu(in_channels, channels, 1, options)
        for index, rate in enumerate(rates, 1):
            self.add_module(f"branch{index}", conv_bn_relu(in_channels, channels, 3, options, dilation=rate))
        if image_pooling:
            self.pool = ImagePooling(in_channels, channels, options)
        self.branches = tuple(name for name, _ in self.named_children())
        self.project = conv_bn_relu(len(self.branches) * channels, channels, 1, options)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        joined = torch.cat([self.get_submodule(name)(features) for name in self.branches], dim=1)
        return self.dropout(self.project(joined))


class Decoder(nn.Module):
    """Narrow the low-level features, join them with the upsampled ASPP output, refine both with 3x3 convolutions.

    The paper's decoder ends in two 3x3 convolutions, `fuse` and `refine`; the public PyTorch checkpoints hold one.
    """

    def __init__(
        self,
        low_level_channels: int,
        channels: int,
        *,
        narrow_channels: int = 48,
        convolutions: int = 1,
        aspp_first: bool = False,
        align_corners: bool = False,
        options: BlockOptions = DEFAULT_BLOCK,
    ) -> None:
        super().__init__()
        self.aspp_first, self.align_corners = aspp_first, align_corners
        self.low = conv_bn_relu(low_level_channels, narrow_channels, 1, options)
        self.fuse = conv_bn_relu(narrow_channels + channels, channels, 3, options)
        self.refine = conv_bn_relu(channels, channels, 3, options) if convolutions == 2 else nn.Identity()

    def forward(self, low_level: Tensor, context: Tensor) -> Tensor:
        low_level = self.low(low_level)
        context = upsample(context, low_level.shape[-2:], align_corners=self.align_corners)
        joined = torch.cat((context, low_level) if self.aspp_first else (low_level, context), dim=1)
        return self.refine(self.fuse(joined))


class DeepLab(nn.Module):
    """Base of both networks, a backbone and a head: image (N,3,H,W) to logits (N,num_classes,H,W).

    `logits_at_stride` is for callers who upsample themselves; `upsample` is the network's own way. `auxiliary` is a
    second, small head on the middle features, or None. What its files state of it: `rule` says how images become its
    input where they are not RGB, `colors`, uint8 (C,3), are those that its data gives the classes, and `widths` lists
    the layers that are narrower than the switches make them, and is needed to build the network again.
    """

    def __init__(self, backbone: Backbone, aspp: ASPP, *, align_corners: bool = False) -> None:
        super().__init__()
        self.widths: Widths = {}
        self.rule: PixelRule | None = None
        self.colors: np.ndarray | None = None
        self.auxiliary: nn.Module | None = None
        self.align_corners = align_corners
        self.backbone = backbone
        self.aspp = aspp

    def logits_of(self, features: Features) -> Tensor:
        """Return logits of a backbone's features, before upsampling."""
        raise NotImplementedError

    def logits_at_stride(self, image: Tensor) -> Tensor:
        """Return logits before the last upsampling: at the output stride for DeepLabV3, at 4 for DeepLabV3+."""
        return self.logits_of(self.backbone(image))

    def upsample(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits to (height, width) as in this network's training."""
        return upsample(logits, size, align_corners=self.align_corners)

    def forward(self, image: Tensor) -> Tensor:
        return self.upsample(self.logits_at_stride(image), image.shape[-2:])

    def both_logits_at_stride(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of `logits_at_stride` and those of the auxiliary head, each at its own stride."""
        if self.auxiliary is None:
            raise AttributeError("this network has no auxiliary head; build it with auxiliary_head=True")
        features = self.backbone(image)
        return self.logits_of(features), self.auxiliary(features.middle)

    def forward_with_auxiliary(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and those of the auxiliary head, both (N,num_classes,H,W)."""
        logits, auxiliary = self.both_logits_at_stride(image)
        size = image.shape[-2:]
        return self.upsample(logits, size), self.upsample(auxiliary, size)


class DeepLabV3(DeepLab):
    """Backbone, ASPP, `head` (one 3x3 convolution, or nothing), classifier."""

    def __init__(
        self, backbone: Backbone, aspp: ASPP, head: nn.Module, classifier: nn.Conv2d, *, align_corners: bool = False
    ) -> None:
        super().__init__(backbone, aspp, align_corners=align_corners)
        self.head, self.classifier = head, classifier

    def logits_of(self, features: Features) -> Tensor:
        return self.classifier(self.head(self.aspp(features.high_level)))


class DeepLabV3Plus(DeepLab):
    """Backbone, ASPP, decoder, classifier."""

    def __init__(
        self, backbone: Backbone, aspp: ASPP, decoder: Decoder, classifier: nn.Conv2d, *, align_corners: bool = False
    ) -> None:
        super().__init__(backbone, aspp, align_corners=align_corners)
        self.decoder, self.classifier = decoder, classifier

    def logits_of(self, features: Features) -> Tensor:
        return self.classifier(self.decoder(features.low_level, self.aspp(features.high_level)))


ARCHITECTURES = {"deeplabv3": DeepLabV3, "deeplabv3plus": DeepLabV3Plus}


def auxiliary_head(in_channels: int, num_classes: int, options: BlockOptions) -> nn.Sequential:
    """Build torchvision's FCN head: a 3x3 convolution to a quarter of the channels, norm, ReLU, dropout, classifier."""
    block = conv_bn_relu(in_channels, in_channels // 4, 3, options)
    head = nn.Sequential(OrderedDict(block.named_children(), dropout=nn.Dropout(AUXILIARY_DROPOUT)))
    head.add_module("classifier", nn.Conv2d(in_channels // 4, num_classes, 1))
    return head


def build_network(
    parameters: NetworkParameters, num_classes: int, *, widths: Widths | None = None, rule: PixelRule | None = None
) -> DeepLab:
    """Build the network that `parameters` describe, with random weights, in training mode, on the default device.

    `widths` make layers narrower, as `widths_of` describes them. With a `rule`, it takes the channels of its images
    instead of RGB. Raises ParameterError for switches that the backbone
    does not support and for less than one class, IntegrityError for widths that do not fit the network.
    """
    check_num_classes(num_classes)
    backbone = build_backbone(parameters)
    if rule is not None:
        take_channels(backbone, rule.channels)
    options = BlockOptions(
        parameters.separable, parameters.convolution_bias, parameters.norm_epsilon, parameters.norm_momentum
    )
    aspp = ASPP(
        backbone.high_level_channels,
        parameters.channels,
        parameters.rates,
        dropout=parameters.aspp_dropout,
        image_pooling=parameters.image_pooling,
        options=options,
    )
    head = build_head(parameters, backbone, options)
    classifier = nn.Conv2d(parameters.channels, num_classes, 1)
    initialize(parameters.head_initialization, aspp, head)
    initialize(parameters.classifier_initialization, classifier)
    model = ARCHITECTURES[parameters.architecture](
        backbone, aspp, head, classifier, align_corners=parameters.align_corners
    )
    if parameters.auxiliary_head:
        model.auxiliary = auxiliary_head(backbone.middle_channels, num_classes, options)
        initialize(parameters.head_initialization, model.auxiliary)
    model = use_norm(model, parameters.norm, standardized=parameters.standardizes_weights)
    model.rule = rule
    if widths:
        apply_widths(model, widths, source="widths")
    return model


def build_backbone(parameters: NetworkParameters) -> Backbone:
    """Build the backbone that `parameters` describe."""
    options = BackboneOptions(
        output_stride=parameters.output_stride,
        multi_grid=parameters.grids,
        first_dilation=parameters.first_dilation,
        pooling=parameters.pooling,
        mobilenet_padding=parameters.mobilenet_padding,
    )
    backbone = import_module(find(parameters.backbone)).build(parameters.backbone, options)
    if parameters.backbone_norm_momentum:
        set_momentum(backbone, parameters.backbone_norm_momentum)
    return backbone


def build_head(parameters: NetworkParameters, backbone: Backbone, options: BlockOptions) -> nn.Module:
    """Build the head between ASPP and classifier: the decoder of DeepLabV3+, or DeepLabV3's 3x3 convolution."""
    channels = parameters.channels
    if parameters.architecture == "deeplabv3plus":
        return Decoder(
            backbone.low_level_channels,
            channels,
            narrow_channels=parameters.low_level_channels,
            convolutions=parameters.decoder_convolutions,
            aspp_first=parameters.concatenation == "aspp_first",
            align_corners=parameters.align_corners,
            options=options,
        )
    return conv_bn_relu(channels, channels, 3, options) if parameters.head_convolution else nn.Identity()


def build_model(architecture: str, backbone: str, *, num_classes: int, **switches: object) -> DeepLab:
    """Build a network from keywords, each a field of NetworkParameters; errors as for `build_network`."""
    parameters = NetworkParameters.from_mapping({"architecture": architecture, "backbone": backbone, **switches})
    return build_network(parameters, num_classes)


def check_num_classes(num_classes: int) -> None:
    """Raise ParameterError unless the number of classes is a positive integer."""
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ParameterError(f"num_classes={num_classes!r}: give a whole number from 1, the classes of the data")
