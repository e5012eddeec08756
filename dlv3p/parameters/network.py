"""The parameters of a network, one flat set of switches, and the names of all backbones, without torch.

The defaults are DeepLabV3+ as VainF/DeepLabV3Plus-Pytorch publishes it. Each switch names the sources of its values:

* V3: the paper of DeepLabV3 (arXiv:1706.05587). V3+: that of DeepLabV3+ (arXiv:1802.02611).
* VainF/DeepLabV3Plus-Pytorch and torchvision; chenxi116/DeepLabv3.pytorch and its fork stigma0617/VoVNet-DeepLabV3;
  yoR-rihsihS/deeplabv3plus; the MindSpore model zoo's DeepLabV3.
"""

import difflib
from dataclasses import dataclass, fields

from cityscapes.errors import ParameterError
from dlv3p.parameters.base import Parameters, choice, number, several, switch
from dlv3p.parameters.choices import HEAD_INITIALIZATIONS

BACKBONES = {
    "resnet18": "dlv3p.models.backbones.resnet",
    "resnet34": "dlv3p.models.backbones.resnet",
    "resnet50": "dlv3p.models.backbones.resnet",
    "resnet101": "dlv3p.models.backbones.resnet",
    "resnet152": "dlv3p.models.backbones.resnet",
    "vovnet39": "dlv3p.models.backbones.vovnet",
    "vovnet57": "dlv3p.models.backbones.vovnet",
    "densenet121": "dlv3p.models.backbones.densenet",
    "densenet161": "dlv3p.models.backbones.densenet",
    "densenet169": "dlv3p.models.backbones.densenet",
    "densenet201": "dlv3p.models.backbones.densenet",
    "mobilenet_v2": "dlv3p.models.backbones.mobilenet",
    "mobilenet_v3_large": "dlv3p.models.backbones.mobilenet",
}
"""Name: the module whose `build(name, options)` builds it."""

TIMM = "timm:"
"""The prefix of timm's backbones: `timm:resnet50d` is its resnet50d."""


def find(name: str) -> str:
    """Return the module whose `build(name, options)` builds the backbone called `name`.

    Raises ParameterError, with the nearest names, for one that is not in `BACKBONES` and does not begin with `TIMM`;
    timm checks its own names when the backbone is built.
    """
    if name.startswith(TIMM):
        return "dlv3p.models.backbones.timm_backbone"
    if name in BACKBONES:
        return BACKBONES[name]
    near = difflib.get_close_matches(name, BACKBONES, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ParameterError(f"backbone={name!r}: allowed are {', '.join(BACKBONES)}, {TIMM}<name>{hint}")


ARCHITECTURES = ("deeplabv3plus", "deeplabv3")
OUTPUT_STRIDES = (8, 16, 32)
NORMS = ("batch", "sync", "frozen", "group")
DILATIONS = ("previous", "new")
POOLINGS = ("dropped", "dilated")
PADDINGS = ("torchvision", "fixed")
SEPARABLE = ("off", "plain", "normalized")
STANDARDIZATIONS = ("with_group", "always", "never")
CONCATENATIONS = ("low_level_first", "aspp_first")
BACKBONE_HELP = "resnet50, vovnet39, ... (docs/parameters.md), or timm:<name>"
LARGEST_RATE = 512
LACKED = {
    "deeplabv3plus": ("head_convolution",),
    "deeplabv3": ("low_level_channels", "decoder_convolutions", "concatenation"),
}
"""Architecture: the switches that do not apply to it."""


@dataclass(frozen=True)
class NetworkParameters(Parameters):
    """A network up to its weights and its number of classes, which the data set determines."""

    architecture: str = choice("deeplabv3plus", ARCHITECTURES, "deeplabv3plus or deeplabv3")
    backbone: str = choice("resnet18", tuple(BACKBONES), BACKBONE_HELP, prefix=TIMM)
    output_stride: int = choice(16, OUTPUT_STRIDES, "8, 16 or 32: how much smaller the features are; V3, section 3.1")
    channels: int = number(256, 8, 1024, "width of ASPP and decoder; V3, section 3.3")

    multi_grid: str = several("1 1 1", "factors of the last stage's dilations; V3, 3.2.1, and MindSpore: 1 2 4")
    first_dilation: str = choice("previous", DILATIONS, "of a dilated stage: previous, or new (MindSpore, MobileNetV3)")
    pooling: str = choice("dropped", POOLINGS, "in dilated VoVNets and DenseNets: dropped (stigma0617) or dilated")
    mobilenet_padding: str = choice("torchvision", PADDINGS, "of MobileNetV2: torchvision, or fixed (VainF)")

    norm: str = choice("batch", NORMS, "batch, sync (over GPUs), frozen (V3, 4.1), group (weights standardized)")
    weight_standardization: str = choice(
        "with_group", STANDARDIZATIONS, "with_group (norm; chenxi116), always or never"
    )
    norm_epsilon: float = number(1e-5, 1e-8, 0.1, "of norms after the backbone; 0.0003: stigma0617's VoVNet, DenseNet")
    norm_momentum: float = number(0.1, 0.0, 1.0, "of norms after the backbone; 0.0003: V3, section 4.1, chenxi116")
    backbone_norm_momentum: float = number(0.0, 0.0, 1.0, "0: the family's own, mostly 0.1; VainF 0.01, chenxi116 0.05")

    atrous_rates: str = several("", 'of ASPP; "": 6 12 18 at stride 16, doubled at 8 (V3, section 3.3)')
    image_pooling: bool = switch(True, "the branch of ASPP that sees the whole image; V3, section 3.3")
    aspp_dropout: float = number(0.1, 0.0, 0.9, "0.1: VainF; 0: chenxi116, yoR; 0.5: torchvision; 0.7: MindSpore")
    convolution_bias: bool = switch(False, "biases in ASPP and decoder, before the norms; True: yoR")
    separable: str = choice("off", SEPARABLE, "3x3 after the backbone: off, plain (VainF), normalized (V3+, 3.1)")

    head_convolution: bool = switch(True, "3x3 between ASPP and classifier of V3; False: chenxi116, MindSpore")
    low_level_channels: int = number(48, 1, 1024, "width of V3+'s early features; V3+, section 4.1; 64: yoR")
    decoder_convolutions: int = choice(1, (1, 2), "3x3 in V3+'s decoder: 1 (VainF, yoR) or 2 (V3+, section 4.1)")
    concatenation: str = choice("low_level_first", CONCATENATIONS, "in V3+: low_level_first or aspp_first (yoR)")
    align_corners: bool = switch(False, "of all upsampling; True: chenxi116, stigma0617, yoR, MindSpore")
    auxiliary_head: bool = switch(False, "a second, small head on middle features, for training; torchvision")
    head_initialization: str = choice(
        "he_normal", HEAD_INITIALIZATIONS, "he_normal (VainF), fan_out_normal, xavier or torch (yoR)"
    )

    def check(self) -> None:
        """Check the lists of numbers and combinations; a switch without effect must keep its default."""
        _numbers("multi_grid", self.multi_grid)
        if self.atrous_rates:
            _numbers("atrous_rates", self.atrous_rates)
        if self.norm == "group" and self.convolution_bias:
            raise ParameterError("convolution_bias=True: not with norm='group', which needs convolutions without bias")
        if self.standardizes_weights and self.convolution_bias:
            raise ParameterError("convolution_bias=True: not with weight_standardization='always'; change one of them")
        for item in fields(NetworkParameters):
            value = getattr(self, item.name)
            if item.name in LACKED[self.architecture] and value != item.default:
                raise ParameterError(
                    f"{item.name}={value!r}: {self.architecture} allows {item.default!r}; change it or choose another "
                    "architecture"
                )

    @property
    def classifier_initialization(self) -> str:
        """That of the head, but chenxi116 draws only the weights that it standardizes; its classifier is PyTorch's."""
        unstandardized = self.standardizes_weights and self.head_initialization == "fan_out_normal"
        return "torch" if unstandardized else self.head_initialization

    @property
    def standardizes_weights(self) -> bool:
        """Whether the weights of convolutions are standardized before use, which changes no name and no shape."""
        return self.weight_standardization == "always" or (
            self.weight_standardization == "with_group" and self.norm == "group"
        )

    @property
    def grids(self) -> tuple[int, ...]:
        """The factors of the dilations of the last stage's blocks."""
        return _numbers("multi_grid", self.multi_grid)

    @property
    def rates(self) -> tuple[int, ...]:
        """The dilations of ASPP's 3x3 convolutions: those given, or (6, 12, 18) in pixels of stride 16."""
        if self.atrous_rates:
            return _numbers("atrous_rates", self.atrous_rates)
        return tuple(rate * 16 // self.output_stride for rate in (6, 12, 18))


def _numbers(name: str, text: str) -> tuple[int, ...]:
    words = text.split()
    if not words or not all(word.isdecimal() and 1 <= int(word) <= LARGEST_RATE for word in words):
        raise ParameterError(f"{name}={text!r}: give whole numbers from 1 to {LARGEST_RATE} separated by spaces")
    return tuple(int(word) for word in words)
