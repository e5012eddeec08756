"""Tell the numbers that a figure shows as a table: its lines, bars, points, bands, and colored cells, axes by axes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from matplotlib.figure import Figure

COLUMNS = ("axes", "x label", "y label", "kind", "series", "x", "y", "value")


def figure_data(figure: "Figure") -> pd.DataFrame:
    """Return a row per number: which axes, its labels, the kind and name of the series, x, y, and a cell's value.

    x and y of a bar are where its far end is; where an axis has names instead of numbers, they are the names.
    """
    rows = []
    for number, axes in enumerate(figure.axes, start=1):
        if axes.get_label() != "<colorbar>":
            title = axes.get_title() or axes.get_title(loc="left") or str(number)
            labels = (title, axes.get_xlabel(), axes.get_ylabel())
            rows += [(*labels, *row) for row in _rows(axes)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(axes: "Axes") -> Iterator[tuple]:
    from matplotlib.patches import Rectangle

    x_names, y_names = _names(axes, "x"), _names(axes, "y")

    def point(kind: str, series: str, x: float, y: float, value: float | str = "") -> tuple:
        return kind, series, x_names.get(x, x), y_names.get(y, y), value

    for line in axes.lines:
        for x, y in zip(np.ravel(line.get_xdata()), np.ravel(line.get_ydata()), strict=True):
            yield point("line", _name(line), x, y)
    for bar in axes.patches:
        if isinstance(bar, Rectangle):
            (x, y), width, height = bar.get_xy(), bar.get_width(), bar.get_height()
            lying = bool(y_names)
            yield point("bar", _name(bar), x + (width if lying else width / 2), y + (height / 2 if lying else height))
    for one in axes.collections:
        yield from (point(*row) for row in _of_collection(one))
    for image in axes.images:
        values = np.asarray(image.get_array())
        if values.ndim == 2:
            yield from (point("cell", _name(image), x, y, values[y, x]) for y, x in np.ndindex(values.shape))


def _of_collection(one: "Collection") -> Iterator[tuple]:
    from matplotlib.collections import LineCollection, PathCollection, QuadMesh

    if isinstance(one, QuadMesh):
        values = np.ma.filled(np.ma.asarray(one.get_array(), float), np.nan)
        values = values.reshape(np.array(one.get_coordinates().shape[:2]) - 1)
        yield from (("cell", _name(one), x + 0.5, y + 0.5, values[y, x]) for y, x in np.ndindex(values.shape))
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
    texts = [label.get_text() for label in axis.get_ticklabels()]
    named = fixed and isinstance(axis.get_major_formatter(), (FixedFormatter, FuncFormatter))
    if not named or any(text[:1].isdigit() or text[:1] in "-\N{MINUS SIGN}" for text in texts if text):
        return {}
    return {place: text for place, text in zip(axis.get_ticklocs(), texts, strict=False) if text}


def _name(artist) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else label
