"""Outline the regions of a class map and write the names of their classes on them, where colors are not enough.

The official colors of a family, such as those of car, truck, bus, and motorcycle, differ by little.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cityscapes.labels import IGNORE
from dlv3p.pictures.visualize import font

SMALLEST_TEXT, LARGEST_TEXT = 9, 18
"""Pixels of the height of a name, which follows the size of its region."""
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def name_regions(picture: np.ndarray, train_ids: np.ndarray, class_names: Sequence[str], *, width: int) -> np.ndarray:
    """Outline every class in a picture uint8 (H, W, 3), and name each region that has room: uint8 (h, `width`, 3).

    `train_ids` is (H, W); both are scaled to `width` first, so that lines and names keep their size. Ignored pixels are
    outlined, but not named.
    """
    size = (width, max(1, round(picture.shape[0] * width / picture.shape[1])))
    ids = np.asarray(Image.fromarray(np.asarray(train_ids, np.uint8)).resize(size, Image.Resampling.NEAREST))
    scaled = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    scaled[_edges(ids)] = _WHITE
    sheet = Image.fromarray(scaled)
    draw = ImageDraw.Draw(sheet)
    for index in np.unique(ids):
        if index != IGNORE and index < len(class_names):
            for place, room in _places(ids == index):
                _write(draw, class_names[index], place, room)
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


def _write(draw: ImageDraw.ImageDraw, name: str, place: tuple[int, int], room: float) -> None:
    """Write a name centered on a point if a text of legible size, as high as the room around it, is possible."""
    size = min(LARGEST_TEXT, int(1.2 * room))
    if size < SMALLEST_TEXT:
        return
    letters: ImageFont.FreeTypeFont = font(size, name)
    draw.text(place, name, fill=_WHITE, font=letters, anchor="mm", stroke_width=2, stroke_fill=_BLACK)
