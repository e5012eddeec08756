"""Tell whether a split is a published benchmark or other data in its layout, and name the images that were scored.

Nothing that is known of a benchmark's content is at hand, so it is known by what lies around it: the kind of split, the
names and number of its images, their size, and the files that the names lead to. Other images under exactly the names
and paths of a benchmark are taken for it.
"""

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from cityscapes.dataset import CityscapesSplit, Split
from cityscapes.demo.city import DESCRIPTION
from dlv3p.data.classes import CLASS_NAMES as VOC_NAMES
from dlv3p.data.voc import AUGMENTED_MASKS, IMAGES, MASKS, VocSplit

BENCHMARKS = {(CityscapesSplit, "val", 500): "Cityscapes val", (VocSplit, "val", 1449): "PASCAL VOC 2012 val"}
"""Standard benchmarks, by kind of split, its name and number of images."""

CITIES = {"frankfurt": 267, "lindau": 59, "munster": 174}
"""The cities of Cityscapes val and their images, which other data sets in its layout do not have."""

SIZE = (2048, 1024)
"""The width and height of the images of Cityscapes, which smaller copies of it do not have."""

_LOOKED_AT = 5
"""The number of images, evenly spaced, whose size is read."""

_WEATHER = "adverse|beta|blur(red)?|corrupt(ed)?|dark|fog(gy)?|night|nois[ey]|rainy?|snowy?"
_VARIANT = re.compile(rf"(?<![a-z])({_WEATHER})(?![a-z])")


def data_name(split: Split) -> str:
    """Name the scored images, so that two runs share the name only where they are the same images.

    An embedded city is never a benchmark, however many frames it has, nor is other data in the layout of one.
    """
    benchmark = BENCHMARKS.get((type(split), split.split, len(split)))
    if benchmark and not (Path(split.root) / DESCRIPTION).exists() and _is_named_as_one(split) and _leads_to_one(split):
        return benchmark
    return f"{Path(split.root).name} {split.split}, {len(split)} images"


def is_variant(root: Path | str) -> bool:
    """Return whether a path says, in its last folders, that images are a benchmark's in fog, rain, and the like."""
    return any(_VARIANT.search(part.lower()) for part in Path(root).parts[-2:])


def _is_named_as_one(split: Split) -> bool:
    if isinstance(split, CityscapesSplit):
        return Counter(frame.city for frame in split.frames) == CITIES
    named = all(re.fullmatch(r"\d{4}_\d{6}", split.name(index)) for index in range(len(split)))
    return named and tuple(split.class_names) == tuple(VOC_NAMES)


def _leads_to_one(split: Split) -> bool:
    """Return whether images and masks, links followed, are files that the benchmark has, none of them a variant's."""
    if is_variant(split.root) or any(not _is_own(split, index) for index in range(len(split))):
        return False
    if not isinstance(split, CityscapesSplit):
        return True
    for index in np.linspace(0, len(split) - 1, _LOOKED_AT).round().astype(int).tolist():
        with Image.open(split.image_path(index)) as image:
            if image.size != SIZE:
                return False
    return True


def _is_own(split: Split, index: int) -> bool:
    image = split.image_path(index)
    real = Path(os.path.realpath(image))
    if isinstance(split, CityscapesSplit):
        own = split.frames[index].image(Path())
        return real.parts[-len(own.parts) :] == own.parts and not is_variant(real.parents[len(own.parts) - 1])
    masks = split.mask_path(index).parent.name
    return real.parts[-2:] == (IMAGES, f"{split.name(index)}.jpg") and masks in (MASKS, AUGMENTED_MASKS)
