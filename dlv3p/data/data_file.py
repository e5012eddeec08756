"""Read what a plain folder states about its files beside their classes: `data.yaml`, whose every line is optional.

mask_suffix: _mask              the mask of a.jpg is a_mask.png
channels: 4                     images of one, four or any number of channels, PNG, JPEG or TIFF, not of RGB
value_range: [0, 4095]          the lowest and the highest stored value; others are clipped
mean: [812.5, ...]              of each channel, in stored values
deviation: [301.2, ...]         of each channel, in stored values

The last three are measured by `measure`, in the images of a split, and written into the file.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cityscapes.errors import InputError, ParameterError
from cityscapes.files.atomic import write_text
from cityscapes.files.channels import KEYS, PixelRule, channels_of, pixel_rule, refuse_not_finite
from cityscapes.files.images import stored_values
from dlv3p.parameters.files import read_mapping

DATA_FILE = "data.yaml"
ALLOWED = ("mask_suffix", *KEYS)


class DataFile(NamedTuple):
    """What the file says; `channels` is None for images that become RGB, `rule` also where it is not measured yet."""

    mask_suffix: str = ""
    channels: int | None = None
    rule: PixelRule | None = None


def read_data_file(root: Path, *, measured: bool = True) -> DataFile:
    """Read the file in a folder; without one, images are RGB. `measured=False` accepts one that is to be measured.

    YOLO's file of the same name says nothing of this. Raises InputError for names that are not known and values that
    are not allowed.
    """
    content, path = _content(root), root / DATA_FILE
    if "names" in content and not content.keys() & set(ALLOWED):  # that of YOLO
        return DataFile()
    if unknown := sorted(content.keys() - set(ALLOWED)):
        raise InputError(f"{path}: {unknown[0]}: not known; allowed are {', '.join(ALLOWED)}")
    suffix = content.get("mask_suffix", "")
    if not isinstance(suffix, str) or "/" in suffix:
        raise InputError(f"{path}: mask_suffix: {suffix!r}; give what a mask's name has behind its image's, as _mask")
    if "channels" not in content:
        if given := [key for key in KEYS if key in content]:
            raise InputError(f"{path}: {given[0]}: given without channels; add channels, the number of an image")
        return DataFile(suffix)
    channels = channels_of(content, str(path))
    whole = all(key in content for key in KEYS)
    return DataFile(suffix, channels, pixel_rule(content, str(path)) if whole or measured else None)


def measure(root: Path, images: Iterable[Path]) -> PixelRule:
    """Measure what a folder's file leaves open in `images`, one at a time, add it to the file, and return the rule.

    The range is that of all values. Raises InputError for an image that cannot be read or has other channels.
    """
    content, path = _content(root), root / DATA_FILE
    channels = channels_of(content, str(path))
    count, low, high = 0, np.inf, -np.inf
    total, squares = np.zeros(channels), np.zeros(channels)
    for image in images:
        values = _by_channel(image, channels)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        count += len(values)
        total, squares = total + values.sum(axis=0), squares + (values**2).sum(axis=0)
    if not count or low == high:
        raise InputError(f"{path}: no two values differ in the images to measure; check them")
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    found = {"value_range": [low, high], "mean": _rounded(mean), "deviation": _rounded(np.maximum(deviation, 1e-6))}
    whole = found | content
    rule = pixel_rule(whole, str(path))
    lines = path.read_text(encoding="utf-8").rstrip("\n")
    added = [f"{key}: {value}  # measured" for key, value in found.items() if key not in content]
    write_text(path, "\n".join([lines, *added]) + "\n")
    return rule


def _content(root: Path) -> dict[str, Any]:
    path = root / DATA_FILE
    _refuse_misnamed(root, path)
    return _read(path) if path.is_file() else {}


def _refuse_misnamed(root: Path, path: Path) -> None:
    """Raise InputError for a file of another name, such as data.yml, that states what only `path` is read for."""
    for other in root.iterdir():
        misnamed = other.name.lower() in (DATA_FILE, "data.yml") and other.name != DATA_FILE and other.is_file()
        if misnamed and not (path.exists() and path.samefile(other)) and _read(other).keys() & set(ALLOWED):
            raise InputError(f"{other}: is not read under this name; call it {DATA_FILE}")


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path, option="", wanted=f"allowed are lines of {', '.join(ALLOWED)}")
    except ParameterError as error:
        raise InputError(str(error)) from error


def _by_channel(path: Path, channels: int) -> np.ndarray:
    values, _ = stored_values(path, str(path))
    found = values.shape[2] if values.ndim == 3 else 1
    if found != channels:
        raise InputError(f"{path}: has {found} channels, {DATA_FILE} says channels: {channels}; correct one of them")
    refuse_not_finite(values, str(path))
    return values.reshape(-1, channels).astype(np.float64)


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
