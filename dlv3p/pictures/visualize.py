"""Draw arrays as pictures: class colors, overlays, error maps, legends, titled panels: uint8 arrays (H, W, 3)."""

import io
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cityscapes.errors import InputError
from cityscapes.files.atomic import write_bytes
from cityscapes.labels import IGNORE, TRAIN_ID_TO_COLOR

if TYPE_CHECKING:
    from PIL import ImageFont

ERROR_NAMES = ("right", "wrong", "ignored")
ERROR_COLORS = np.array([(204, 224, 240), (213, 94, 0), (38, 38, 38)], np.uint8)
"""RGB of `ERROR_NAMES`: light, medium, and dark, so that color-blind readers and print can tell them apart."""

PICTURE_WIDTH = 1200
"""Width of a notebook's picture in pixels."""

_CREAM = (224, 224, 192)  # of ignored pixels in PASCAL VOC, whose background is black
_INK = (32, 32, 32)
_SMALL_PRINT = (102, 102, 102)
_PAPER = (255, 255, 255)


def colorize(train_ids: np.ndarray, colors: np.ndarray = TRAIN_ID_TO_COLOR) -> np.ndarray:
    """Paint a mask of train ids (H, W) in its class colors: uint8 (H, W, 3).

    `colors` is uint8 (K, 3), row k for train id k. Ids without a row, such as 255 in a table of 11 classes, are black,
    or cream where a class is black.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    table[IGNORE] = ignored_color(colors)
    return table[np.asarray(train_ids, np.uint8)]


def ignored_color(colors: np.ndarray) -> tuple[int, int, int]:
    """Return the color of ignored pixels: the table's own for id 255, else black, or cream where a class is black."""
    if len(colors) > IGNORE:
        return tuple(int(value) for value in colors[IGNORE])
    return _CREAM if (np.asarray(colors) == 0).all(axis=1).any() else (0, 0, 0)


def overlay(
    image: np.ndarray, train_ids: np.ndarray, *, alpha: float = 0.5, colors: np.ndarray = TRAIN_ID_TO_COLOR
) -> np.ndarray:
    """Overlay a picture uint8 (H, W, 3) with class colors; `alpha` is their share, and ignored pixels get none."""
    _check_same_size("overlay", image[..., 0], train_ids)
    mixed = (1 - alpha) * image + alpha * colorize(train_ids, colors)
    counted = (np.asarray(train_ids) != IGNORE)[..., None]
    return np.where(counted, np.rint(mixed), image).astype(np.uint8)


def error_map(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Show where `prediction` (H, W) is right, wrong, or not counted because `truth` is 255: uint8 (H, W, 3)."""
    _check_same_size("error_map", prediction, truth)
    kind = np.where(prediction == truth, 0, 1)
    return ERROR_COLORS[np.where(truth == IGNORE, 2, kind)]


def legend(class_names: Sequence[str], colors: np.ndarray, *, width: int, columns: int | None = None) -> np.ndarray:
    """Draw a swatch and a name for each class, in reading order, on a strip uint8 (h, `width`, 3).

    The text size grows with `width`, and names that do not fit their column are shortened. Pass only classes to show.
    """
    from PIL import Image, ImageDraw

    size = _text_size(width)
    letters = font(size, "".join(class_names))
    gap = round(0.55 * size)
    swatch = (round(1.5 * size), size)
    room = max((letters.getlength(name) for name in class_names), default=0) + swatch[0] + 3 * gap
    fitting = max(1, int((width - gap) // room))
    columns = columns or math.ceil(len(class_names) / math.ceil(max(1, len(class_names)) / fitting)) or 1
    column_width, row_height = (width - gap) / columns, round(1.75 * size)
    rows = math.ceil(len(class_names) / columns)

    picture = Image.new("RGB", (width, rows * row_height + gap), _PAPER)
    draw = ImageDraw.Draw(picture)
    for index, name in enumerate(class_names):
        x = round(gap + (index % columns) * column_width)
        middle = gap // 2 + row_height // 2 + (index // columns) * row_height
        top = middle - swatch[1] // 2
        fill = tuple(int(value) for value in colors[index])
        draw.rectangle((x, top, x + swatch[0], top + swatch[1]), fill=fill, outline=_INK)
        text = _shortened(name, letters, column_width - swatch[0] - 2 * gap)
        draw.text((x + swatch[0] + gap, middle), text, fill=_INK, font=letters, anchor="lm")
    return np.asarray(picture)


def with_footer(picture: np.ndarray, footer: str) -> np.ndarray:
    """Return a picture uint8 (h, w, 3) above small print that says what it is of: run, split, protocol.

    That of a figure is told in the same way, see `figures.py`. With no words, it is returned as it is.
    """
    if not footer:
        return picture
    width = picture.shape[1]
    return np.concatenate([picture, text_lines([footer], width=width, size=_small_print(width), ink=_SMALL_PRINT)])


def text_lines(
    lines: Sequence[str], *, width: int = PICTURE_WIDTH, size: int = 0, ink: tuple[int, int, int] = _INK
) -> np.ndarray:
    """Write lines of text on a strip uint8 (h, `width`, 3); a line that is too long is continued on the next.

    They are `size` pixels high, by default as high as titles are.
    """
    from PIL import Image, ImageDraw

    size = size or _text_size(width)
    letters = font(size, "".join(lines))
    wrapped = [part for line in lines for part in _wrapped(line, letters, width - 2 * size)]
    picture = Image.new("RGB", (width, round((1.4 * len(wrapped) + 0.8) * size)), _PAPER)
    draw = ImageDraw.Draw(picture)
    for row, line in enumerate(wrapped):
        draw.text((size // 2, round((1.4 * row + 0.4) * size)), line, fill=ink, font=letters)
    return np.asarray(picture)


def side_by_side(
    panels: Mapping[str, np.ndarray], *, width: int = PICTURE_WIDTH, columns: int | None = None
) -> np.ndarray:
    """Arrange titled pictures uint8 (h, w, 3) in a grid, in order: uint8 (H, `width`, 3).

    Each is scaled to its column; pictures with few colors, such as class maps, keep their colors exactly.
    """
    from PIL import Image, ImageDraw

    columns = min(columns or len(panels), len(panels))
    size, gap, cell_width = _text_size(width), _gap(width), column_width(width, columns)
    bar, letters = round(1.7 * size), font(size, "".join(panels))
    cells = [_scaled(picture, cell_width) for picture in panels.values()]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [bar + max(cell.height for cell in row) for row in rows]

    sheet = Image.new("RGB", (width, sum(heights) + gap), _PAPER)
    draw = ImageDraw.Draw(sheet)
    titles = iter(panels)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            x = gap + column * (cell_width + gap)
            title = _shortened(next(titles), letters, cell_width)
            draw.text((x, top + bar // 2 + 1), title, fill=_INK, font=letters, anchor="lm")
            sheet.paste(cell, (x, top + bar))
        top += height
    return np.asarray(sheet)


def column_width(width: int, columns: int) -> int:
    """Return the width in pixels of a picture in a grid of `columns` that is `width` pixels wide."""
    return (width - _gap(width) * (columns + 1)) // columns


def with_legend(
    panels: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    colors: np.ndarray,
    *,
    width: int = PICTURE_WIDTH,
    columns: int | None = None,
) -> np.ndarray:
    """Arrange titled pictures in a grid above a legend of the given classes: uint8 (H, `width`, 3)."""
    grid = side_by_side(panels, width=width, columns=columns)
    return np.concatenate([grid, legend(class_names, colors, width=width)])


def save_picture(picture: np.ndarray, path: str | Path) -> None:
    """Write a picture uint8 (H, W, 3) to `path` as PNG."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    write_bytes(path, content.getvalue())


def font(size: int, text: str) -> "ImageFont.FreeTypeFont":
    """Return the font for a text in a picture, `size` pixels high: the default one, if it has all characters."""
    from dlv3p.pictures.texts import font_of

    return _open_font(font_of(text), size)


def _check_same_size(name: str, first: np.ndarray, second: np.ndarray) -> None:
    if first.shape != second.shape:
        raise InputError(f"{name}: sizes differ, {first.shape} and {second.shape} (height, width); resize one of them")


def _scaled(picture: np.ndarray, width: int):
    from PIL import Image

    image = Image.fromarray(picture)
    height = max(1, round(image.height * width / image.width))
    few_colors = image.getcolors(256) is not None
    return image.resize((width, height), Image.Resampling.NEAREST if few_colors else Image.Resampling.LANCZOS)


def _gap(width: int) -> int:
    return max(2, _text_size(width) // 2)


def _text_size(width: int) -> int:
    return min(36, max(10, round(width / 60)))


def _small_print(width: int) -> int:
    return max(10, round(0.75 * _text_size(width)))


@cache
def _open_font(path: Path, size: int) -> "ImageFont.FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _wrapped(line: str, font: "ImageFont.FreeTypeFont", room: float) -> list[str]:
    """Break a line at blanks, and a word that is longer than a line wherever the line is full."""
    parts = []
    while font.getlength(line) > room and len(line) > 1:
        fitting = bisect_right(range(2, len(line) + 1), room, key=lambda count: font.getlength(line[:count])) + 1
        blank = line.rfind(" ", 1, fitting + 1)
        fits_alone = font.getlength(line[blank + 1 :].partition(" ")[0]) <= room
        end = blank if blank > 0 and fits_alone else fitting
        parts.append(line[:end])
        line = line[end:].lstrip(" ")
    return [*parts, line]


def _shortened(text: str, font: "ImageFont.FreeTypeFont", room: float) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…"
