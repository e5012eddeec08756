"""DeepLabV3 (arXiv:1706.05587) and DeepLabV3+ (arXiv:1802.02611) over any backbone of `backbones/`."""

from collections import OrderedDict
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn import functional

from cityscapes.errors import ParameterError
from dlv3p.models.backbones.features import Backbone, BackboneOptions, Features
from dlv3p.models.norms import batch_norm_of_one, set_momentum, use_norm
from dlv3p.models.widths import Widths, apply_widths
from dlv3p.parameters.network import NetworkParameters, find
from dlv3p.runtime.devices import LAYOUT


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, parameters: NetworkParameters, *, dilation: int = 1
) -> nn.Sequential:
    """Build `conv`, `bn` and `relu`, which keep height and width; those wider than 1x1 may be `separable`."""
    options = {"bias": parameters.convolution_bias}
    if kernel_size > 1:
        options |= {"padding": dilation * (kernel_size // 2), "dilation": dilation}
    if kernel_size == 1 or parameters.separable == "off":
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, **options)
    else:
        depthwise = nn.Conv2d(in_channels, in_channels, kernel_size, groups=in_channels, **options)
        pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=parameters.convolution_bias)
        between = {"bn": batch_norm(in_channels, parameters), "relu": nn.ReLU(inplace=True)}
        if parameters.separable == "plain":
            between = {}
        conv = nn.Sequential(OrderedDict(depthwise=depthwise, **between, pointwise=pointwise))
    norm = batch_norm(out_channels, parameters)
    return nn.Sequential(OrderedDict(conv=conv, bn=norm, relu=nn.ReLU(inplace=True)))


def batch_norm(channels: int, parameters: NetworkParameters) -> nn.BatchNorm2d:
    """Build a batch norm behind the backbone."""
    return nn.BatchNorm2d(channels, eps=parameters.norm_epsilon, momentum=parameters.norm_momentum)


def initialize(*modules: nn.Module) -> None:
    """He initialisation for convolutions, as for the heads of the public checkpoints; biases start at zero."""
    for module in modules:
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)


class ImagePooling(nn.Module):
    """The branch that sees the whole image: global mean, 1x1 convolution, spread over the height and width again."""

    def __init__(self, in_channels: int, parameters: NetworkParameters) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, parameters.channels, 1, bias=parameters.convolution_bias)
        self.bn = batch_norm(parameters.channels, parameters)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        pooled = batch_norm_of_one(self.bn, self.conv(features.mean(dim=(2, 3), keepdim=True)))
        spread = functional.interpolate(self.relu(pooled), size=features.shape[-2:], mode="nearest")
        # A single pixel has no layout that could spread; in another one than the rest, this map would turn over all.
        return spread.contiguous(memory_format=LAYOUT)


class ASPP(nn.Module):
    """Features (N,C,h,w) to (N,channels,h,w): a 1x1, atrous 3x3 and an image pooling branch, joined by a 1x1.

    The branches are called `branch0` (1x1), `branch1` and so on (3x3, one for each of the atrous rates) and `pool`.
    """

    def __init__(self, in_channels: int, parameters: NetworkParameters) -> None:
        super().__init__()
        channels = parameters.channels
        self.branch0 = conv_bn_relu(in_channels, channels, 1, parameters)
        for index, rate in enumerate(parameters.rates, 1):
            self.add_module(f"branch{index}", conv_bn_relu(in_channels, channels, 3, parameters, dilation=rate))
        if parameters.image_pooling:
            self.pool = ImagePooling(in_channels, parameters)
        self.branches = tuple(name for name, _ in self.named_children())
        self.project = conv_bn_relu(len(self.branches) * channels, channels, 1, parameters)
        self.dropout = nn.Dropout(parameters.aspp_dropout)

    def forward(self, features: Tensor) -> Tensor:
        joined = torch.cat([self.get_submodule(name)(features) for name in self.branches], dim=1)
        return self.dropout(self.project(joined))


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


AUXILIARY_DROPOUT = 0.1


class DeepLab(nn.Module):
    """A backbone and what makes logits of its features: image (N,3,H,W) to logits (N,num_classes,H,W).

    Callers who want to upsample in their own way take `logits_at_stride`, and `upsample` for the network's way.
    `widths` says which layers have been pruned; a file that is to be read again must hold it.
    """

    def __init__(self, backbone: Backbone, parameters: NetworkParameters) -> None:
        super().__init__()
        self.widths: Widths = {}
        self.align_corners = parameters.align_corners
        self.backbone = backbone
        self.aspp = ASPP(backbone.high_level_channels, parameters)

    def logits_of(self, features: Features) -> Tensor:
        """Logits of a backbone's features, at the height and width where the network leaves them."""
        raise NotImplementedError

    def logits_at_stride(self, image: Tensor) -> Tensor:
        """Logits before the last upsampling: at the output stride for DeepLabV3, at stride 4 for DeepLabV3+."""
        return self.logits_of(self.backbone(image))

    def upsample(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits to (height, width) as this network was trained to."""
        return upsample(logits, size, align_corners=self.align_corners)

    def forward(self, image: Tensor) -> Tensor:
        return self.upsample(self.logits_at_stride(image), image.shape[-2:])

    def both_logits_at_stride(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits as `logits_at_stride` and those of the auxiliary head, each at its own; needs `auxiliary_head`."""
        features = self.backbone(image)
        return self.logits_of(features), self.get_submodule("auxiliary")(features.middle)

    def forward_with_auxiliary(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and those of the auxiliary head, both (N,num_classes,H,W); needs `auxiliary_head`."""
        logits, auxiliary = self.both_logits_at_stride(image)
        size = image.shape[-2:]
        return self.upsample(logits, size), self.upsample(auxiliary, size)


class DeepLabV3(DeepLab):
    """Backbone, ASPP, one 3x3 convolution where `head_convolution` says so, classifier."""

    def __init__(self, backbone: Backbone, parameters: NetworkParameters, num_classes: int) -> None:
        super().__init__(backbone, parameters)
        channels = parameters.channels
        self.head = conv_bn_relu(channels, channels, 3, parameters) if parameters.head_convolution else nn.Identity()
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        initialize(self.aspp, self.head, self.classifier)

    def logits_of(self, features: Features) -> Tensor:
        return self.classifier(self.head(self.aspp(features.high_level)))


class DeepLabV3Plus(DeepLab):
    """Backbone, ASPP, decoder, classifier."""

    def __init__(self, backbone: Backbone, parameters: NetworkParameters, num_classes: int) -> None:
        super().__init__(backbone, parameters)
        self.decoder = Decoder(backbone.low_level_channels, parameters)
        self.classifier = nn.Conv2d(parameters.channels, num_classes, 1)
        initialize(self.aspp, self.decoder, self.classifier)

    def logits_of(self, features: Features) -> Tensor:
        return self.classifier(self.decoder(features.low_level, self.aspp(features.high_level)))


ARCHITECTURES = {"deeplabv3": DeepLabV3, "deeplabv3plus": DeepLabV3Plus}


def auxiliary_head(in_channels: int, parameters: NetworkParameters, num_classes: int) -> nn.Sequential:
    """Build torchvision's FCN head: a 3x3 convolution to a quarter of the channels, norm, ReLU, dropout, classifier."""
    block = conv_bn_relu(in_channels, in_channels // 4, 3, parameters)
    classifier = nn.Conv2d(in_channels // 4, num_classes, 1)
    head = nn.Sequential(OrderedDict(block.named_children(), dropout=nn.Dropout(AUXILIARY_DROPOUT)))
    head.add_module("classifier", classifier)
    initialize(head)
    return head


def build_network(
    parameters: NetworkParameters,
    num_classes: int,
    *,
    initial_weights: str = "random",
    new_classifier: bool = False,
    widths: Widths | None = None,
) -> DeepLab:
    """Build the network that `parameters` describe, in training mode, on the default device.

    `initial_weights` is "random", "imagenet", which fills the backbone, or the path of any file that `dlv3p.weights`
    knows; what was taken of it is printed. `new_classifier` leaves the file's classifier out, so that the number of
    classes may be another. `widths` narrow the layers of a network that has been pruned; those of a pruned file are
    taken over with its weights. Raises ParameterError for switches that the backbone does not have and for fewer
    classes than one, IntegrityError for widths that do not fit the network.
    """
    check_num_classes(num_classes)
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
    model = ARCHITECTURES[parameters.architecture](backbone, parameters, num_classes)
    if parameters.auxiliary_head:
        model.auxiliary = auxiliary_head(backbone.middle_channels, parameters, num_classes)
    model = use_norm(model, parameters.norm)
    if widths:
        apply_widths(model, widths, source="widths")
    if initial_weights != "random":
        from dlv3p.weights.initial import load_initial_weights  # which builds the file's own network by this function

        print(load_initial_weights(model, parameters, initial_weights, new_classifier=new_classifier), flush=True)
    return model


def build_model(
    architecture: str,
    backbone: str,
    *,
    num_classes: int,
    initial_weights: str = "random",
    new_classifier: bool = False,
    **switches: object,
) -> DeepLab:
    """Build a network from keywords, each a field of NetworkParameters, as `build_network` does."""
    parameters = NetworkParameters.from_mapping({"architecture": architecture, "backbone": backbone, **switches})
    return build_network(parameters, num_classes, initial_weights=initial_weights, new_classifier=new_classifier)


def check_num_classes(num_classes: int) -> None:
    """Raise ParameterError for a number of classes that no network has."""
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ParameterError(f"num_classes={num_classes!r}: give a whole number from 1, that of the data's classes")
