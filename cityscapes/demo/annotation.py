"""The polygons file of a demo frame, in whole pixels, as an annotator of Cityscapes would have drawn it."""

import numpy as np

from cityscapes.demo.scene import View
from cityscapes.demo.shapes import Outline, Polygon

BORDER = 0.06
"""How far polygons may reach out of the image, as a share of its height."""

BROAD = ("sky", "road", "terrain", "sidewalk", "building")
"""Labels whose outlines are so large that half a pixel more does not matter."""


def annotation(view: View, *, height: int, width: int, secret: bool = False) -> dict:
    """Return the content of `*_gtFine_polygons.json` for an image of `height` x `width` pixels.

    `secret` leaves out everything but the camera car and the image border, as the official test split does.
    """
    labeled = [entry for entry in view.labeled if not secret or entry[0] == "ego vehicle"]
    labels, outlines = zip(*labeled, strict=True)
    slim = np.array([label not in BROAD for label in labels])
    polygons = _pixels(outlines, slim, height, width)
    objects = [
        {"label": label, "polygon": polygon}
        for label, polygon in zip(labels, polygons, strict=True)
        if len(polygon) > 2
    ]
    objects.append({"label": "out of roi", "polygon": _frame(height, width)})
    return {"imgHeight": height, "imgWidth": width, "objects": objects}


def _frame(height: int, width: int) -> list[list[int]]:
    """Return the border of the image, as a polygon with a seam around a hole."""
    rim = max(1, round(height / 200))
    right, low = width - 1, height
    outer = [[0, 0], [right, 0], [right, low], [0, low], [0, 0]]
    inner = [[rim, rim], [rim, low - rim], [right - rim, low - rim], [right - rim, rim], [rim, rim]]
    return outer + inner


def _pixels(outlines: tuple[Outline, ...], slim: np.ndarray, height: int, width: int) -> list[list[list[int]]]:
    """Round outlines to pixels; empty where they lie outside the image.

    Filling includes the pixels of both side edges, so a `slim` outline is drawn in by half a pixel on either side:
    without that, a thin pole would be a third too wide in a small image.
    """
    counts = np.array([len(outline) for outline in outlines])
    corners = np.concatenate(outlines) * height
    corners[:, 0] += width / 2
    stops = np.cumsum(counts)
    starts = stops - counts
    (left, top), (right, bottom) = np.minimum.reduceat(corners, starts).T, np.maximum.reduceat(corners, starts).T
    inside = (right >= 0.5) & (left <= width - 0.5) & (bottom >= 0.5) & (top <= height - 0.5)
    kept = np.flatnonzero(inside & ((right - left) * (bottom - top) >= 0.5))
    margin = BORDER * height
    reach = (left < -margin) | (right > width + margin) | (top < -margin) | (bottom > height + margin)
    pieces = [corners[starts[index] : stops[index]] for index in kept]
    pieces = [
        _clip(piece, margin, height, width) if far else piece for piece, far in zip(pieces, reach[kept], strict=True)
    ]
    owners = np.repeat(kept, [len(piece) for piece in pieces])
    x, y = np.concatenate(pieces).T
    inwards = np.where(slim, 0.5, 0.0)[owners]
    x = x - 0.5 + np.clip(((left + right) / 2)[owners] - x, -inwards, inwards)
    points = np.rint(np.stack([x, y], axis=1)).astype(np.int64)
    fresh = np.ones(len(points), bool)
    fresh[1:] = (points[1:] != points[:-1]).any(axis=1) | (owners[1:] != owners[:-1])
    points, counts = points[fresh].tolist(), np.bincount(owners[fresh], minlength=len(outlines))
    polygons = [points[stop - count : stop] for stop, count in zip(np.cumsum(counts), counts, strict=True)]
    # Thinner than a pixel: a line is still a polygon that fills the pixels it runs through.
    return [[*polygon, polygon[0]] if len(polygon) == 2 else polygon for polygon in polygons]


def _clip(outline: Outline, margin: float, height: int, width: int) -> Outline:
    """Return the part of an outline that reaches at most `margin` out of the image."""
    corners = outline.tolist()
    for axis, bound, sign in ((0, -margin, 1), (0, width + margin, -1), (1, -margin, 1), (1, height + margin, -1)):
        corners = _half(corners, axis, bound, sign)
    return np.array(corners).reshape(-1, 2)


def _half(corners: Polygon, axis: int, bound: float, sign: int) -> Polygon:
    """Return the part of a polygon with `sign * (coordinate - bound) >= 0` (Sutherland and Hodgman)."""
    kept: Polygon = []
    for index, corner in enumerate(corners):
        before = corners[index - 1]
        here, there = sign * (corner[axis] - bound), sign * (before[axis] - bound)
        if (here >= 0) != (there >= 0):
            share = there / (there - here)
            x, y = (before[i] + share * (corner[i] - before[i]) for i in (0, 1))
            kept.append((x, y))
        if here >= 0:
            kept.append(corner)
    return kept
