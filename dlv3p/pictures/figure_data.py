"""Tell the numbers that a figure shows as a table: its lines, bars, points, bands, and colored cells, axes by axes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from matplotlib.figure import Figure

COLUMNS = ("axes", "x label", "y label", "value label", "kind", "series", "x", "y", "value")
CELLS = ("cell", "cell of the middle row", "cell of the middle column")
COLORS = "<colorbar>"
"""What matplotlib calls the axes that say what colors mean."""

LARGEST_PICTURE = 64
"""Pixels of the longer side of a picture of numbers that is told in full; a table of classes always is."""


def figure_data(figure: "Figure") -> pd.DataFrame:
    """Return a row per number: which axes, its labels, the kind and name of the series, x, y, and a value.

    x and y of a bar are where its far end is, and its length is the value, as a cell's is what its color says. Where an
    axis has names instead of numbers, x or y is the name beside it; a line across the axes has no place on one of them.
    Of a larger picture only the middle row and the middle column are told: its pixels would be a file of megabytes.
    """
    rows = []
    colors = "".join(axes.get_ylabel() for axes in figure.axes if axes.get_label() == COLORS)
    for number, axes in enumerate(figure.axes, start=1):
        if axes.get_label() != COLORS:
            title = axes.get_title() or axes.get_title(loc="left") or str(number)
            labels = (title, axes.get_xlabel(), axes.get_ylabel())
            rows += [(*labels, *row) for row in _rows(axes, colors)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(axes: "Axes", colors: str) -> Iterator[tuple]:
    """Yield the rows of one axes, from the label of their value on; `colors` is the label of what colors mean."""
    from matplotlib.container import BarContainer
    from matplotlib.patches import Rectangle

    x_names, y_names = _names(axes, "x"), _names(axes, "y")
    groups = {bar: group for group in axes.containers if isinstance(group, BarContainer) for bar in group}

    def point(kind: str, series: str, x: float, y: float, value: float | None = None, label: str = colors) -> tuple:
        told = ("", "") if value is None else (label, value)
        return told[0], kind, series, _nearest(x_names, x), _nearest(y_names, y), told[1]

    for line in axes.lines:
        upright, level = (
            line.get_transform() == axis for axis in (axes.get_xaxis_transform(), axes.get_yaxis_transform())
        )
        for x, y in zip(np.ravel(line.get_xdata()), np.ravel(line.get_ydata()), strict=True):
            *named, at_x, at_y, value = point("line", _name(line), x, y)
            yield *named, "" if level else at_x, "" if upright else at_y, value
    for bar in axes.patches:
        if isinstance(bar, Rectangle):
            (x, y), width, height = bar.get_xy(), bar.get_width(), bar.get_height()
            level = getattr(groups.get(bar), "orientation", "horizontal" if y_names else "vertical") == "horizontal"
            end = (x + width, y + height / 2) if level else (x + width / 2, y + height)
            length, label = (width, axes.get_xlabel()) if level else (height, axes.get_ylabel())
            yield point("bar", _name(groups.get(bar, bar)), *end, length, label)
    for one in axes.collections:
        yield from (point(*row) for row in _of_collection(one))
    for image in axes.images:
        values = np.asarray(image.get_array())
        if values.ndim == 2:
            named = bool(x_names and y_names)
            yield from (point(kind, _name(image), x, y, values[y, x]) for kind, y, x in _cells(values.shape, named))


def _cells(shape: tuple[int, int], named: bool) -> Iterator[tuple[str, int, int]]:
    """Yield the kind and the place (y, x) of the cells of a picture that are told."""
    height, width = shape
    if named or max(shape) <= LARGEST_PICTURE:
        yield from ((CELLS[0], y, x) for y, x in np.ndindex(shape))
    else:
        yield from ((CELLS[1], height // 2, x) for x in range(width))
        yield from ((CELLS[2], y, width // 2) for y in range(height))


def _of_collection(one: "Collection") -> Iterator[tuple]:
    from matplotlib.collections import LineCollection, PathCollection, QuadMesh

    if isinstance(one, QuadMesh):
        values = np.ma.filled(np.ma.asarray(one.get_array(), float), np.nan)
        values = values.reshape(np.array(one.get_coordinates().shape[:2]) - 1)
        yield from ((CELLS[0], _name(one), x + 0.5, y + 0.5, values[y, x]) for y, x in np.ndindex(values.shape))
    elif isinstance(one, PathCollection):
        yield from (("point", _name(one), x, y) for x, y in np.ma.filled(one.get_offsets(), np.nan))
    else:
        kind = "interval" if isinstance(one, LineCollection) else "band"
        yield from ((kind, _name(one), x, y) for path in one.get_paths() for x, y in path.vertices)


def _names(axes: "Axes", which: str) -> dict[float, str]:
    """Return the names on an axis by their place; {} where it has numbers, whatever their format."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter

    axis = getattr(axes, f"{which}axis")
    fixed = isinstance(axis.get_major_locator(), FixedLocator)
    texts = axis.get_major_formatter().format_ticks(axis.get_ticklocs())  # also those that a neighbor shows
    named = fixed and isinstance(axis.get_major_formatter(), (FixedFormatter, FuncFormatter))
    if not named or any(text[:1].isdigit() or text[:1] in "-\N{MINUS SIGN}" for text in texts if text):
        return {}
    return {place: text for place, text in zip(axis.get_ticklocs(), texts, strict=False) if text}


def _nearest(names: dict[float, str], place: float) -> float | str:
    """Return the name beside a place, such as that of a group of bars, or the place where there is none."""
    nearest = min(names, key=lambda named: abs(named - place), default=None)
    return place if nearest is None or abs(nearest - place) >= 0.5 else names[nearest]


def _name(artist) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else label
