"""Draw regions of doubtful labels: a part of the image with the outline, the labels as given, and as suggested."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from cityscapes.dataset import Split
from cityscapes.files.leftovers import remove_others
from dlv3p.evaluation.label_regions import LabelRegion
from dlv3p.pictures.visualize import (
    PICTURE_WIDTH,
    column_width,
    legend,
    overlay,
    save_picture,
    side_by_side,
    with_footer,
)

AROUND = 1.0
"""What is shown around a region, on each side, as a share of its box."""
SMALLEST_VIEW = 48
"""Pixels of a side of what is shown, at least."""
COLUMNS = 3
OUTLINE = ((255, 255, 255), (0, 0, 0))
"""RGB of the inner and the outer line around a region, which show on any image."""


def regions_picture(split: Split, regions: Sequence[LabelRegion], *, footer: str, first: int = 1) -> Image.Image:
    """Show regions by rank, a row each, above a legend of the classes that occur; the first has rank `first`.

    `footer` says in small print who judged which images.
    """
    panels, seen = {}, set()
    for rank, region in enumerate(regions, start=first):
        image, given = split.pair(region.image)
        suggested = given.copy()
        suggested[region.place][region.mask()] = region.suggested
        view = _view(region, given.shape)
        inside = np.zeros(given.shape, bool)
        inside[region.place] = region.mask()
        pixels = np.asarray(image.convert("RGB"))[view]
        names = [split.class_names[index] for index in (region.given, region.suggested)]
        masks = (mask[view] for mask in (given, suggested))
        shown = [pixels, *(overlay(pixels, mask, alpha=0.6, colors=split.colors) for mask in masks)]
        titles = (split.name(region.image), f"given: {names[0]}", f"suggested: {names[1]}")
        for title, panel in zip(titles, shown, strict=True):
            panels[f"{rank}. {title}"] = _outlined(panel, inside[view])
        seen |= {*np.unique(given[view]).tolist(), region.suggested} & {*range(split.num_classes)}
    if not panels:
        return Image.fromarray(np.full((40, PICTURE_WIDTH, 3), 255, np.uint8))
    classes = sorted(seen)
    strip = legend([split.class_names[index] for index in classes], split.colors[classes], width=PICTURE_WIDTH)
    picture = np.concatenate([side_by_side(panels, width=PICTURE_WIDTH, columns=COLUMNS), strip])
    return Image.fromarray(with_footer(picture, footer))


def save_pictures(split: Split, regions: Sequence[LabelRegion], folder: Path, *, footer: str) -> list[Path]:
    """Write a picture of each region, named by its rank, to `regions/` in a folder; return the paths."""
    paths = [folder / "regions" / f"{rank:04d}.png" for rank in range(1, len(regions) + 1)]
    for rank, (region, path) in enumerate(zip(regions, paths, strict=True), start=1):
        save_picture(np.asarray(regions_picture(split, [region], footer=footer, first=rank)), path)
    remove_others(paths, "[0-9][0-9][0-9][0-9].png")
    return paths


def _view(region: LabelRegion, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns to show: a region and what is around it, twice as wide as high, within the image."""
    height = max(SMALLEST_VIEW, region.shape[0] * (1 + 2 * AROUND), region.shape[1] * (1 + 2 * AROUND) / 2)
    sides = []
    for start, length, wanted, whole in zip(
        (region.top, region.left), region.shape, (height, 2 * height), shape, strict=True
    ):
        wanted = min(round(wanted), whole)
        first = min(max(0, start + length // 2 - wanted // 2), whole - wanted)
        sides.append(slice(first, first + wanted))
    return sides[0], sides[1]


def _outlined(panel: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Enlarge a picture (h,w,3) to its column, and draw two lines around the pixels (h,w) of a region."""
    width = column_width(PICTURE_WIDTH, COLUMNS)
    size = (width, max(1, round(panel.shape[0] * width / panel.shape[1])))
    large = np.array(Image.fromarray(panel).resize(size, Image.Resampling.BICUBIC))
    region = np.asarray(Image.fromarray(inside).resize(size, Image.Resampling.NEAREST))
    for color in OUTLINE:
        wider = ndimage.binary_dilation(region, iterations=2)
        large[wider & ~region] = color
        region = wider
    return large
