"""The polygons file of a demo frame, in whole pixels, as an annotator of Cityscapes would have drawn it."""

from cityscapes.demo.scene import View
from cityscapes.demo.shapes import Polygon

BORDER = 0.06
"""How far polygons may reach out of the image, as a share of its height."""


def annotation(view: View, *, height: int, width: int, secret: bool = False) -> dict:
    """The content of `*_gtFine_polygons.json` for an image of `height` x `width` pixels.

    `secret` leaves out everything but the camera car and the image border, as the official test split does.
    """
    objects = []
    for label, outline in view.labelled:
        if secret and label != "ego vehicle":
            continue
        polygon = _pixels(outline, height, width, slim=label not in ("sky", "road", "terrain", "sidewalk", "building"))
        if len(polygon) > 2:
            objects.append({"label": label, "polygon": polygon})
    objects.append({"label": "out of roi", "polygon": _frame(height, width)})
    return {"imgHeight": height, "imgWidth": width, "objects": objects}


def _frame(height: int, width: int) -> list[list[int]]:
    """The border of the image, as a polygon with a seam around a hole."""
    rim = max(1, round(height / 200))
    right, low = width - 1, height
    outer = [[0, 0], [right, 0], [right, low], [0, low], [0, 0]]
    inner = [[rim, rim], [rim, low - rim], [right - rim, low - rim], [right - rim, rim], [rim, rim]]
    return outer + inner


def _pixels(outline: Polygon, height: int, width: int, *, slim: bool) -> list[list[int]]:
    """Round an outline to pixels; empty where it lies outside the image.

    Filling includes the pixels of both side edges, so a `slim` outline is drawn in by half a pixel on either side:
    without that, a thin pole would be a third too wide in a small image.
    """
    middle = width / 2
    corners = [(u * height + middle, v * height) for u, v in outline]
    left, right = min(x for x, _ in corners), max(x for x, _ in corners)
    top, bottom = min(y for _, y in corners), max(y for _, y in corners)
    if right < 0.5 or left > width - 0.5 or bottom < 0.5 or top > height - 0.5 or (right - left) * (bottom - top) < 0.5:
        return []
    center = (left + right) / 2
    margin = BORDER * height
    if left < -margin or right > width + margin or top < -margin or bottom > height + margin:
        for axis, bound, sign in ((0, -margin, 1), (0, width + margin, -1), (1, -margin, 1), (1, height + margin, -1)):
            corners = _clip(corners, axis, bound, sign)
    polygon: list[list[int]] = []
    for x, y in corners:
        inwards = max(-0.5, min(0.5, center - x)) if slim else 0.0
        point = [round(x - 0.5 + inwards), round(y)]
        if not polygon or polygon[-1] != point:
            polygon.append(point)
    if len(polygon) == 2:
        # Thinner than a pixel: a line is still a polygon that fills the pixels it runs through.
        polygon.append(list(polygon[0]))
    return polygon


def _clip(corners: Polygon, axis: int, bound: float, sign: int) -> Polygon:
    """The part of a polygon with `sign * (coordinate - bound) >= 0` (Sutherland and Hodgman)."""
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
