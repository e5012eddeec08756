"""Evaluation protocols: how an image is scaled, flipped, cropped or windowed for scoring, without torch.

Scores are comparable only under the same protocol: several scales with flip add a point or two, and a center crop
scores other pixels. So every score comes with its protocol, in words and in the name of its file.
"""

from dataclasses import asdict, dataclass
from typing import Any

from cityscapes.errors import ParameterError
from dlv3p.parameters.base import Parameters, choice, number, several, switch

SMALLEST_SCALE, LARGEST_SCALE = 0.1, 4.0


@dataclass(frozen=True)
class Protocol:
    """How an image is predicted, and which of its pixels are scored; lengths in pixels, 0 for none.

    The image is predicted at each of the `scales`, relative to its own size or, with `long_side`, to the size with that
    long side; with `flip` also mirrored. The softmax probabilities of all views are summed. `padded` is the side of the
    square to which an image of scale 1 is padded, at the bottom and right, with the mean color; at scale s it is
    int((padded - 1) * s) + 1, and `long_side` is scaled alike. A view is predicted whole, or in windows whose logits
    are averaged where they overlap. With `center_crop` only a center square of image and mask is predicted and scored,
    after their short sides are resized to that length.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    long_side: int = 0
    padded: int = 0
    window_height: int = 0
    window_width: int = 0
    overlap: int = 0
    center_crop: int = 0

    @property
    def name(self) -> str:
        """A unique name, fit for file names: that of a published protocol, or the switches."""
        for name, protocol in PUBLISHED.items():
            if protocol == self:
                return name
        words = ["scales-" + "-".join(map(str, self.scales))]
        words += ["flip"] if self.flip else []
        words += [
            f"{field.replace('_', '-')}-{getattr(self, field)}"
            for field in ("long_side", "padded", "center_crop")
            if getattr(self, field)
        ]
        if self.window_height:
            words.append(f"windows-{self.window_height}x{self.window_width}-overlap-{self.overlap}")
        return "_".join(words)

    @property
    def suffix(self) -> str:
        """The suffix of file names, so that protocols do not overwrite each other; empty for whole images."""
        return "" if self == WHOLE_IMAGE else f"_{self.name}"

    def __str__(self) -> str:
        several = len(self.scales) > 1
        scales = f"scale{'s' * several} {' '.join(map(str, self.scales))}"
        words = ["single scale" if self.scales == (1.0,) else scales]
        words += ["with flip"] if self.flip else []
        words += ["probabilities summed"] if several or self.flip else []
        words += [f"long side resized to {self.long_side}"] if self.long_side else []
        words += [f"padded to {self.padded}x{self.padded}"] if self.padded else []
        if self.window_height:
            size = f"{self.window_height}x{self.window_width}"
            words.append(f"windows of {size} that overlap by {self.overlap}, their logits averaged")
        elif not self.center_crop:
            words.append("whole images")
        if self.center_crop:
            size = f"{self.center_crop}x{self.center_crop}"
            words.append(f"short side resized to {self.center_crop} and only its center {size} scored, masks alike")
        else:
            words.append("scored at the size of the masks")
        return ", ".join([*words, "ignored pixels left out"])

    def as_dict(self) -> dict[str, Any]:
        """Return the switches as plain JSON, which `protocol_from` reads."""
        return asdict(self) | {"scales": list(self.scales)}


def protocol_from(switches: dict[str, Any]) -> Protocol:
    """Return the protocol that `as_dict` described; raises TypeError or KeyError for anything else."""
    return Protocol(**switches | {"scales": tuple(map(float, switches["scales"]))})


SIX_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
MINDSPORE_SCALES = (0.5, 0.75, 1.0, 1.25, 1.75)
"""Without the 1.5 of the paper."""

PUBLISHED = {
    # Cityscapes at 1024x2048: VainF/DeepLabV3Plus-Pytorch, mmsegmentation; VOC: each image at its own size.
    "whole_image": Protocol(),
    # Cityscapes: tensorflow/models, research/deeplab/g3doc/model_zoo.md, "[0.75:0.25:1.25]" with flips.
    "three_scales_flip": Protocol(scales=(0.75, 1.0, 1.25), flip=True),
    # DeepLabV3, section 4.1, and the "MS+flip" of mmsegmentation.
    "six_scales_flip": Protocol(scales=SIX_SCALES, flip=True),
    # mmsegmentation's models of 769x769 crops for Cityscapes: stride 513.
    "windows_769": Protocol(window_height=769, window_width=769, overlap=256),
    "windows_769_six_scales_flip": Protocol(SIX_SCALES, flip=True, window_height=769, window_width=769, overlap=256),
    # chenxi116/DeepLabv3.pytorch and stigma0617/VoVNet-DeepLabV3, which score the padded image: its padding is ignored.
    "voc_padded_513": Protocol(padded=513),
    # The MindSpore model zoo's DeepLabV3: sizes 257, 385, 513, 641 and 897.
    "voc_long_side_513": Protocol(long_side=513, padded=513),
    "voc_long_side_513_five_scales": Protocol(MINDSPORE_SCALES, long_side=513, padded=513),
    "voc_long_side_513_five_scales_flip": Protocol(MINDSPORE_SCALES, flip=True, long_side=513, padded=513),
    # VainF's --crop_val and jfzhang95/pytorch-deeplab-xception: not the scores of whole images.
    "voc_center_crop_513": Protocol(center_crop=513),
}
"""Published protocols, by a name of ours, with their sources."""

WHOLE_IMAGE = PUBLISHED["whole_image"]
CUSTOM = "custom"
PROTOCOLS = (CUSTOM, *PUBLISHED)


@dataclass(frozen=True)
class ProtocolParameters(Parameters):
    """The protocol of a notebook that predicts: a published one by its name, or "custom" with switches of its own."""

    protocol: str = choice(CUSTOM, PROTOCOLS, "custom: the six lines below; or a published one, see docs/parameters.md")
    scales: str = several("1.0", "of the image; the predictions of several, as in 0.5 1.0, are summed")
    flip: bool = switch(False, "also predicts each scale mirrored")
    long_side: int = number(0, 0, 8192, "pixels, to which the long side is resized, padded to a square; 0: own size")
    window_height: int = number(0, 0, 8192, "pixels of a sliding window; 0: whole images")
    window_width: int = number(0, 0, 8192, "pixels of a sliding window; 0: whole images")
    overlap: int = number(0, 0, 8191, "pixels that windows share, where their logits are averaged")

    SWITCHES = ("scales", "flip", "long_side", "window_height", "window_width", "overlap")

    def check(self) -> None:
        """Check that switches and protocol do not contradict each other."""
        super().check()
        changed = [name for name in self.SWITCHES if getattr(self, name) != getattr(ProtocolParameters, name)]
        if self.protocol != CUSTOM and changed:
            raise ParameterError(
                f"{changed[0]}={getattr(self, changed[0])!r}: protocol={self.protocol!r} sets this already; "
                f"leave it out, or use protocol={CUSTOM!r}"
            )
        parse_scales(self.scales)
        sides = (self.window_height, self.window_width)
        if any(sides) and min(sides) < 33:
            raise ParameterError(
                f"window_height={sides[0]}, window_width={sides[1]}: give both, 33 or more, or 0 for whole images"
            )
        if self.overlap >= max(1, min(sides)):
            limit = f"less than {min(sides)}, the window's side" if any(sides) else "0 without windows"
            raise ParameterError(f"overlap={self.overlap}: allowed is {limit}")
        if 0 < self.long_side < 33:
            raise ParameterError(f"long_side={self.long_side}: allowed are 33 to 8192, or 0 for the image's own size")
        if self.long_side and any(sides):
            raise ParameterError(f"long_side={self.long_side}: not with windows, which take images at their own size")

    def chosen_protocol(self) -> Protocol:
        """Return the protocol that the parameters specify."""
        if self.protocol != CUSTOM:
            return PUBLISHED[self.protocol]
        return Protocol(
            scales=parse_scales(self.scales),
            flip=self.flip,
            long_side=self.long_side,
            padded=self.long_side,
            window_height=self.window_height,
            window_width=self.window_width,
            overlap=self.overlap,
        )


def parse_scales(text: str) -> tuple[float, ...]:
    """Read a list of scales, sorted; raises ParameterError for what is not a number, out of range or repeated."""
    try:
        scales = sorted(float(word) for word in text.split())
    except ValueError:
        scales = []
    within = all(SMALLEST_SCALE <= scale <= LARGEST_SCALE for scale in scales)  # also refuses nan
    if not scales or not within or len(set(scales)) < len(scales):
        raise ParameterError(
            f"scales={text!r}: give different numbers from {SMALLEST_SCALE} to {LARGEST_SCALE}, separated by "
            "spaces, as in '0.75 1.0 1.25'"
        )
    return tuple(scales)
