"""Training samples as other libraries make them, with the window and the flip that this project draws.

Each way reads the whole image and mask, resizes both, crops, flips, and normalizes. The transforms are torchvision's,
behind the decoder of each library, or OpenCV's and albumentations' own, which resize without antialiasing.
"""

import os
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from cityscapes.dataset import Split
from cityscapes.errors import UserError, require
from cityscapes.labels import IGNORE
from dlv3p.data.augment import MEAN, STD, Augmentation
from dlv3p.data.sampling import sample_generator

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks PyPI for a newer one

Sample = tuple[Tensor, Tensor]
Decode = Callable[[Path, bool], Tensor]
"""Decodes a file, uint8 (C, H, W); an image in color, a mask as it is stored."""


class Draw(NamedTuple):
    """What is drawn for a sample: the size to resize to, the box in it, the flip, and the factors of the jitter."""

    size: tuple[int, int]
    box: tuple[int, int, int, int]
    flip: bool
    factors: tuple[float, ...]


def draw(augmentation: Augmentation, shape: tuple[int, int], key: tuple[int, int]) -> Draw:
    """Draw what this project draws for a sample of an image of this height and width."""
    rng, (height, width) = sample_generator(0, *key), shape
    window = augmentation.window(height, width, rng)
    size = (
        round(height * window.height / (window.bottom - window.top)),
        round(width * window.width / (window.right - window.left)),
    )
    top, left = round(window.top * size[0] / height), round(window.left * size[1] / width)
    flip, strength = rng.random() < 0.5, augmentation.color_jitter
    factors = tuple(rng.uniform(1 - strength, 1 + strength, size=3).tolist()) if strength else ()
    return Draw(size, (top, left, window.height, window.width), flip, factors)


def by_torchvision(decode: Decode, split: Split, augmentation: Augmentation, key: tuple[int, int]) -> Sample:
    """Make a sample as torchvision's scripts do, behind any decoder."""
    image, mask = decode(split.image_path(key[1]), True), decode(split.mask_path(key[1]), False)
    drawn = draw(augmentation, image.shape[1:], key)
    image = functional.resize(image, drawn.size, antialias=True)
    mask = functional.resize(mask, drawn.size, interpolation=InterpolationMode.NEAREST_EXACT)
    image, mask = functional.crop(image, *drawn.box), functional.crop(mask, *drawn.box)
    if drawn.flip:
        image, mask = functional.horizontal_flip(image), functional.horizontal_flip(mask)
    if drawn.factors:
        brightness, contrast, saturation = drawn.factors
        image = functional.adjust_contrast(functional.adjust_brightness(image, brightness), contrast)
        image = functional.adjust_saturation(image, saturation)
    image = functional.normalize(functional.to_dtype(image, torch.float32, scale=True), MEAN.tolist(), STD.tolist())
    padding = [0, 0, augmentation.crop_width - drawn.box[3], augmentation.crop_height - drawn.box[2]]
    return functional.pad(image, padding), functional.pad(mask, padding, fill=IGNORE)[0].to(torch.int64)


def by_opencv(split: Split, augmentation: Augmentation, key: tuple[int, int]) -> Sample:
    """Make a sample with OpenCV alone; its linear resizing does not average where it shrinks."""
    import cv2

    image = cv2.imread(str(split.image_path(key[1])), cv2.IMREAD_COLOR_RGB)
    mask = cv2.imread(str(split.mask_path(key[1])), cv2.IMREAD_UNCHANGED)
    drawn = draw(augmentation, mask.shape, key)
    top, left, height, width = drawn.box
    image = cv2.resize(image, drawn.size[::-1], interpolation=cv2.INTER_LINEAR)[top : top + height, left : left + width]
    mask = cv2.resize(mask, drawn.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    mask = mask[top : top + height, left : left + width]
    if drawn.flip:
        image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
    scale, shift = (1 / (255 * STD)).tolist(), (MEAN / STD).tolist()
    image = cv2.subtract(cv2.multiply(image, (*scale, 0.0), dtype=cv2.CV_32F), (*shift, 0.0))
    return _padded(image, mask, augmentation)


def by_albumentations(split: Split, augmentation: Augmentation, key: tuple[int, int]) -> Sample:
    """Make a sample with OpenCV's decoder and albumentations' transforms, composed as drawn."""
    import albumentations
    import cv2

    image = cv2.imread(str(split.image_path(key[1])), cv2.IMREAD_COLOR_RGB)
    mask = cv2.imread(str(split.mask_path(key[1])), cv2.IMREAD_UNCHANGED)
    drawn = draw(augmentation, mask.shape, key)
    top, left, height, width = drawn.box
    steps = [
        albumentations.Resize(*drawn.size, mask_interpolation=cv2.INTER_NEAREST_EXACT),
        albumentations.Crop(left, top, left + width, top + height),
        albumentations.HorizontalFlip(p=float(drawn.flip)),
        albumentations.Normalize(MEAN.tolist(), STD.tolist()),
    ]
    made = albumentations.Compose(steps)(image=image, mask=mask)
    return _padded(made["image"], made["mask"], augmentation)


def _padded(image: np.ndarray, mask: np.ndarray, augmentation: Augmentation) -> Sample:
    padding = [0, 0, augmentation.crop_width - mask.shape[1], augmentation.crop_height - mask.shape[0]]
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    labels = torch.from_numpy(np.ascontiguousarray(mask))[None]
    return functional.pad(tensor, padding), functional.pad(labels, padding, fill=IGNORE)[0].to(torch.int64)


def _torchvision(path: Path, color: bool) -> Tensor:
    # Since 0.29 it is deprecated in favor of torchcodec, and says so at every call.
    warnings.filterwarnings("ignore", "The image decoding and encoding capabilities", DeprecationWarning)
    return decode_image(str(path), ImageReadMode.RGB if color else ImageReadMode.UNCHANGED)


def _torchcodec(path: Path, color: bool) -> Tensor:
    from torchcodec.decoders import decode_image

    return decode_image(path, mode="RGB" if color else "UNCHANGED")


def _opencv(path: Path, color: bool) -> Tensor:
    import cv2

    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB if color else cv2.IMREAD_UNCHANGED)
    return torch.from_numpy(pixels.transpose(2, 0, 1) if color else pixels[None])


def _simplejpeg(path: Path, color: bool) -> Tensor:
    import simplejpeg

    if not color:
        return _torchvision(path, color)
    return torch.from_numpy(simplejpeg.decode_jpeg(path.read_bytes()).transpose(2, 0, 1))


class Peer(NamedTuple):
    """Another way to make a sample: the packages that it needs, and whether it reads JPEG only or knows no jitter."""

    make: Callable[[Split, Augmentation, tuple[int, int]], Sample]
    packages: tuple[str, ...] = ()
    jpeg_only: bool = False
    jitters: bool = True


PEERS = {
    "torchvision": Peer(partial(by_torchvision, _torchvision), ("torchvision",)),
    "torchcodec": Peer(partial(by_torchvision, _torchcodec), ("torchcodec",)),
    "OpenCV's decoder": Peer(partial(by_torchvision, _opencv), ("cv2",)),
    "simplejpeg": Peer(partial(by_torchvision, _simplejpeg), ("simplejpeg",), jpeg_only=True),
    "OpenCV": Peer(by_opencv, ("cv2",), jitters=False),
    "albumentations": Peer(by_albumentations, ("albumentations", "cv2"), jitters=False),
}
"""All peers; albumentations 2.0.8 is under the MIT license, and later releases, AlbumentationsX, under the AGPL."""

DISTRIBUTIONS = {"cv2": "opencv-python-headless"}


def usable_peers(*, jpeg: bool, jitter: bool) -> tuple[dict[str, Peer], list[str]]:
    """Return the peers that do what is asked, and a line on each of the others."""
    peers, left_out = {}, []
    for name, peer in PEERS.items():
        if missing := _missing(name, peer):
            left_out.append(missing)
        elif peer.jpeg_only and not jpeg:
            left_out.append(f"{name}: reads JPEG only")
        elif jitter and not peer.jitters:
            left_out.append(f"{name}: its jitter is another operation")
        else:
            peers[name] = peer
    return peers, left_out


def versions(peers: dict[str, Peer]) -> str:
    """Name the version of every package that the peers need."""
    packages = dict.fromkeys(package for peer in peers.values() for package in peer.packages)
    names = [DISTRIBUTIONS.get(package, package) for package in packages]
    return ", ".join(f"{name} {version(name)}" for name in names)


def _missing(name: str, peer: Peer) -> str:
    """Return why a peer cannot be imported, "" where it can."""
    try:
        require(name, peer.packages, "bench")
        for package in peer.packages:
            import_module(package)
    except UserError as error:
        return str(error)
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec's without FFmpeg's libraries is a RuntimeError
        return f"{name}: {str(error).splitlines()[0]}"
    return ""
