"""Find images of two splits that look nearly alike, such as neighboring frames of a video, by a perceptual hash.

The hash is that of gradients (dHash) in both directions: of an image reduced to 17 x 17 gray pixels, 512 bits say where
it grows brighter to the right and downwards. Images are alike where few bits differ and the reduced images correlate;
flat ones, whose bits are noise, never are, nor are those of fewer pixels than the reduced image. The limits lie between
measured distributions (docs/data.md). An image is kept as 320 bytes, so that memory hardly grows.
"""

from contextlib import suppress
from typing import NamedTuple

import numpy as np
from PIL import Image

from cityscapes.audit_rules import find_alike
from cityscapes.dataset import Split
from cityscapes.errors import InputError
from cityscapes.findings import Finding

SIDE = 16
MOST_BITS = 100
"""The most of the 512 bits in which images that are alike differ."""

LEAST_CORRELATION = 0.96
"""The least correlation of the reduced images of a pair that is alike."""

FLAT = 4.0
"""The deviation, in levels of 255, of a reduced image below which it has nothing to compare."""

CHEAP = 2**26
"""The most bytes of two splits' image files that are decoded before a training, a few seconds of one core."""


class Look(NamedTuple):
    """What is kept of an image: its name, its content's digest, 512 bits, and 16 x 16 gray levels."""

    name: str
    digest: bytes
    bits: np.ndarray
    levels: np.ndarray


def look_at(name: str, digest: bytes, image: Image.Image) -> Look:
    """Reduce an image to its hash and its gray levels, all equal where it is too small to compare."""
    if min(image.size) <= SIDE:
        return Look(name, digest, np.zeros(SIDE * SIDE // 4, np.uint8), np.zeros(SIDE * SIDE, np.uint8))
    reduced = image.convert("L").resize((SIDE + 1, SIDE + 1), Image.Resampling.BOX)
    levels = np.asarray(reduced, np.int16)
    across, down = levels[:SIDE, 1:] > levels[:SIDE, :-1], levels[1:, :SIDE] > levels[:-1, :SIDE]
    bits = np.packbits(np.concatenate([across.ravel(), down.ravel()]))
    return Look(name, digest, bits, levels[:SIDE, :SIDE].astype(np.uint8).ravel())


def find_alike_in_splits(looks: dict[str, list[Look]]) -> list[Finding]:
    """Find images that look nearly like one of an earlier split, each with the nearest; equal ones are left out."""
    findings, splits = [], [(split, found) for split, found in looks.items() if found]
    for number, (split, found) in enumerate(splits):
        for other_split, others in splits[:number]:
            bits, levels = (np.stack([getattr(other, part) for other in others]) for part in ("bits", "levels"))
            for look in found:
                index, likeness = _nearest(look, bits, levels)
                if likeness and others[index].digest != look.digest:
                    findings.append(find_alike(split, look.name, other_split, others[index].name, likeness))
    return findings


def describe_alike(split: Split, other: Split) -> str:
    """Return a line about images of a split that look nearly like another's, such as one saved anew; "" for none.

    Only splits of at most `CHEAP` bytes are looked into, and no shards: the audit looks at all of them.
    """
    if split.fingerprint or other.fingerprint:
        return ""
    looks: dict[str, list[Look]] = {}
    with suppress(OSError, InputError):  # an image is gone or damaged, which reading it explains
        paths = (one.image_path(index) for one in (other, split) for index in range(len(one)))
        if sum(path.stat().st_size for path in paths) > CHEAP:
            return ""
        # A digest of its own for each image: those of equal pixels are alike, too.
        for kind, one in (("other", other), ("own", split)):
            looks[kind] = [look_at(one.name(i), f"{kind}{i}".encode(), one.image(i)) for i in range(len(one))]
    found = find_alike_in_splits(looks)
    if not found:
        return ""
    (_, first), (_, second) = found[0].shows
    return (
        f"{split.root}: {len(found)} images of {split.split!r} look nearly like images of {other.split!r}, the first "
        f"{second} like {first}; a score on one image saved twice, or on neighboring frames, says little about new "
        "images: look at them in audit_data, and split by video, place or patient"
    )


def _nearest(look: Look, bits: np.ndarray, levels: np.ndarray) -> tuple[int, float]:
    """Return the index of the image that is most alike, and the share of equal bits; 0 where none is alike."""
    differing = differing_bits(bits, look.bits)
    for index in np.argsort(differing, kind="stable")[: (differing <= MOST_BITS).sum()].tolist():
        if correlation(look.levels, levels[index]) >= LEAST_CORRELATION:
            return index, 1 - int(differing[index]) / (8 * bits.shape[1])
    return 0, 0.0


def differing_bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return in how many bits hashes differ, uint8 (...,64): a number for each pair."""
    return np.bitwise_count(first ^ second).sum(axis=-1)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two reduced images; 0 where one of them is flat."""
    first, second = first - first.mean(dtype=np.float64), second - second.mean(dtype=np.float64)
    if min(first.std(), second.std()) < FLAT:
        return 0.0
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))
