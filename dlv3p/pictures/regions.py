"""Outline the regions of a class map and write the names of their classes on them, where colors are not enough.

The official colors of a family, such as those of car, truck, bus, and motorcycle, differ by little.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from cityscapes.labels import IGNORE
from dlv3p.pictures.visualize import font

SMALLEST_TEXT, LARGEST_TEXT = 9, 18
"""Pixels of the height of a name, which follows the size of its region."""
STROKE = 2
"""Pixels of black around the letters."""
Box = tuple[float, float, float, float]
"""Left, upper, right, and lower edge, in pixels."""
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def name_regions(picture: np.ndarray, train_ids: np.ndarray, class_names: Sequence[str], *, width: int) -> np.ndarray:
    """Outline every class in a picture uint8 (H, W, 3), and name each region that has room: uint8 (h, `width`, 3).

    `train_ids` is (H, W); both are scaled to `width` first, so that lines and names keep their size. Ignored pixels are
    outlined, but not named; where two names would overlap, that of the larger region stays.
    """
    size = (width, max(1, round(picture.shape[0] * width / picture.shape[1])))
    ids = np.asarray(Image.fromarray(np.asarray(train_ids, np.uint8)).resize(size, Image.Resampling.NEAREST))
    scaled = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    scaled[_edges(ids)] = _WHITE
    sheet = Image.fromarray(scaled)
    found = [
        (room, place, class_names[index])
        for index in np.unique(ids)
        if index != IGNORE and index < len(class_names)
        for place, room in _places(ids == index)
    ]
    taken: list[Box] = []
    for room, place, name in sorted(found, key=lambda one: -one[0]):
        _write(ImageDraw.Draw(sheet), name, place, room, taken)
    return np.asarray(sheet)


def _edges(ids: np.ndarray) -> np.ndarray:
    """Return bool (h, w): the pixels whose right or lower neighbor is of another class."""
    edges = np.zeros(ids.shape, bool)
    edges[:, :-1] |= ids[:, 1:] != ids[:, :-1]
    edges[:-1] |= ids[1:] != ids[:-1]
    return edges


def _places(region: np.ndarray) -> list[tuple[tuple[int, int], float]]:
    """Return the point (x, y) deepest inside of each connected part, and its distance to the edge in pixels."""
    parts, count = ndimage.label(region)
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    deepest = ndimage.maximum_position(depth, parts, range(1, count + 1))
    return [((int(x), int(y)), float(depth[y, x])) for y, x in deepest]


def _write(draw: ImageDraw.ImageDraw, name: str, place: tuple[int, int], room: float, taken: list[Box]) -> None:
    """Write a name around a point, within the picture, if a legible text as high as the room there meets no other."""
    size = min(LARGEST_TEXT, int(1.2 * room))
    if size < SMALLEST_TEXT:
        return
    letters = font(size, name)
    half = letters.getlength(name) / 2 + STROKE
    x = min(max(place[0], half), max(half, draw.im.size[0] - half))
    box = (x - half, place[1] - size / 2, x + half, place[1] + size / 2)
    if not any(_meet(box, other) for other in taken):
        taken.append(box)
        draw.text((x, place[1]), name, fill=_WHITE, font=letters, anchor="mm", stroke_width=STROKE, stroke_fill=_BLACK)


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
