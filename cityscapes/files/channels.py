"""Images of any number of channels and any range of values, by a rule that a data set states about its files.

Stored values between the rule's lowest and highest become shares of that range, 0 to 1 in float32, values beyond them
the nearest share: 16 bits, and whatever else fits into 24, stay as they are until a network sees value minus mean over
deviation. Shown are the first three channels as red, green and blue, or the first one as gray where there are fewer.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from cityscapes.errors import InputError

MOST_CHANNELS = 64
KEYS = ("channels", "value_range", "mean", "deviation")


@dataclass(frozen=True)
class PixelRule:
    """How stored values become pixels; range, mean and deviation are in stored values, the last two by channel."""

    channels: int
    value_range: tuple[float, float]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the rule as plain numbers and lists, as files state it."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def __str__(self) -> str:
        low, high = self.value_range
        mean = ", ".join(f"{value:g}" for value in self.mean)
        return f"{self.channels} channels of {low:g} to {high:g} (mean {mean})"

    @property
    def key(self) -> str:
        """A digest of the rule, which belongs to the key of whatever is made from its pixels."""
        content = {"pixels": "shares", **asdict(self)}  # earlier versions made levels, 0 to 255
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @property
    def normalization(self) -> tuple[np.ndarray, np.ndarray]:
        """Factor and offset of each channel, float64 (n,): a network sees share * factor + offset."""
        low, high = self.value_range
        mean, deviation = np.array(self.mean), np.array(self.deviation)
        return (high - low) / deviation, (low - mean) / deviation

    def image(self, values: np.ndarray, source: str) -> "ChannelImage":
        """Return the image of stored values (H,W) or (H,W,n); `source` begins the error for another number, and nan."""
        values = values[..., None] if values.ndim == 2 else values
        if values.ndim != 3 or values.shape[2] != self.channels:
            found = values.shape[2] if values.ndim == 3 else f"{values.ndim} axes and no"
            raise InputError(
                f"{source}: has {found} channels, and data.yaml says channels: {self.channels}; correct the one that "
                "is wrong"
            )
        refuse_not_finite(values, source)
        low, high = self.value_range
        shares = np.empty(values.shape, np.float32)
        for index in range(self.channels):  # one at a time, since float64 takes twice the memory
            shares[..., index] = ((values[..., index].astype(np.float64) - low) / (high - low)).clip(0, 1)
        return ChannelImage(shares, self)


def pixel_rule(content: Mapping[str, Any], source: str) -> PixelRule:
    """Check a rule as read from a file; raises InputError, which `source` begins."""
    if missing := [key for key in KEYS if key not in content]:
        raise InputError(f"{source}: lacks {', '.join(missing)}; audit_data.ipynb measures and adds them")
    channels, (low, high) = channels_of(content, source), _numbers(content["value_range"], 2, "value_range", source)
    if not low < high:
        raise InputError(f"{source}: value_range: [{low:g}, {high:g}]; give the lowest value first, then the highest")
    mean, deviation = (_numbers(content[key], channels, key, source) for key in ("mean", "deviation"))
    if min(deviation) <= 0:
        raise InputError(f"{source}: deviation: {min(deviation):g}; give numbers above 0, one for each channel")
    return PixelRule(channels, (low, high), mean, deviation)


def refuse_not_finite(values: np.ndarray, source: str) -> None:
    """Raise InputError, which `source` begins, for stored values that hold nan or infinity."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{source}: holds nan or infinity; replace them, for a network learns nothing from them")


def refuse_other_rule(trained: PixelRule | None, given: PixelRule | None, source: str) -> None:
    """Raise InputError, which `source` begins, where images become other pixels than those of the training."""
    if trained != given:
        was, now = (str(rule) if rule else "RGB" for rule in (trained, given))
        raise InputError(
            f"{source}: takes images of {was}, and given are images of {now}; restore the data.yaml of the training, "
            "or train anew"
        )


def channels_of(content: Mapping[str, Any], source: str) -> int:
    """Return the number of channels that a file states; raises InputError, which `source` begins."""
    channels = content.get("channels")
    if type(channels) is not int or not 1 <= channels <= MOST_CHANNELS:
        raise InputError(f"{source}: channels: {channels!r}; give a whole number from 1 to {MOST_CHANNELS}")
    return channels


def _numbers(values: Any, count: int, key: str, source: str) -> tuple[float, ...]:
    good = isinstance(values, list | tuple) and len(values) == count
    if not good or not all(type(value) in (int, float) and np.isfinite(value) for value in values):
        raise InputError(f"{source}: {key}: {values!r}; give a list of {count} numbers")
    return tuple(float(value) for value in values)


class ChannelImage:
    """Shares of the range, float32 (H,W,n), with the part of Pillow's interface that readers of RGB images use."""

    def __init__(self, pixels: np.ndarray, rule: PixelRule) -> None:
        self.pixels, self.rule = pixels, rule
        self.height, self.width = pixels.shape[:2]
        self.size = (self.width, self.height)
        self.mode = f"{pixels.shape[2]} channels"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.pixels, dtype=dtype, copy=copy)

    @property
    def spread(self) -> float:
        """How many deviations lie between the lowest and the highest value of the channel where it is most."""
        factors, _ = self.rule.normalization
        return max(float(np.ptp(self.pixels[..., index])) * factor for index, factor in enumerate(factors))

    def tobytes(self) -> bytes:
        """Return the shares, row by row."""
        return self.pixels.tobytes()

    def convert(self, mode: str) -> Image.Image:
        """Show the first three channels as red, green and blue, or the first as gray, in Pillow's `mode`."""
        shown = self.pixels[..., :3] if self.pixels.shape[2] >= 3 else self.pixels[..., 0]
        return Image.fromarray(np.rint(shown * np.float32(255)).astype(np.uint8)).convert(mode)

    def resize(self, size: tuple[int, int], resample: int = Image.Resampling.BILINEAR) -> "ChannelImage":
        """Resize each channel as Pillow resizes gray, in floats."""
        channels = [Image.fromarray(self.pixels[..., i]).resize(size, resample) for i in range(self.pixels.shape[2])]
        return ChannelImage(np.stack(channels, axis=2), self.rule)

    def crop(self, box: tuple[int, int, int, int]) -> "ChannelImage":
        """Cut out (left, top, right, bottom), which lies inside."""
        left, top, right, bottom = box
        return ChannelImage(np.ascontiguousarray(self.pixels[top:bottom, left:right]), self.rule)

    def transpose(self, method: int) -> "ChannelImage":
        """Turn or flip each channel as Pillow does."""
        channels = [Image.fromarray(self.pixels[..., i]).transpose(method) for i in range(self.pixels.shape[2])]
        return ChannelImage(np.stack(channels, axis=2), self.rule)
