"""Make figures that say in small print what they are of, and save them with their numbers.

They are matplotlib `Figure`s outside pyplot's global state: a notebook shows one by naming it on the last line of a
cell. Where nothing was measured, a `Sentence` takes the place of one.
"""

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import ParameterError
from cityscapes.files.atomic import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORED_WHILE_TRAINING = "val: whole images, after each epoch · train: the crops of its steps"
"""What the legend of a figure says that shows the scores of a training's epochs; a footer would be under it."""

CHARACTERS_PER_INCH = 17
"""So many characters of a footer fit into an inch, if they are not all wide."""

_WITHOUT_DATE = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def new_figure(width: float, height: float, *, footer: str) -> "Figure":
    """Create an empty figure, sized in inches, that a notebook shows when it ends a cell.

    `footer` says in small print what it is of: run, split, protocol, and for times the machine; "" where legend or
    labels say it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from dlv3p.pictures.texts import PlainFigure

    figure = PlainFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    if footer:
        lines = textwrap.fill(footer, int(width * CHARACTERS_PER_INCH), break_on_hyphens=False)
        figure.supxlabel(lines, fontsize=7, color="0.4", x=0.01, ha="left")
    # pyplot would show it, too, but it keeps every figure in memory and shows a returned one twice.
    figure._repr_png_ = lambda: png(figure, dpi=90)
    return figure


def png(figure: "Figure", *, dpi: int = 120) -> bytes:
    """Render a figure as PNG; the same figure gives the same bytes, without a time stamp or version."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()


class Sentence(str):
    """A sentence that takes the place of a figure or a table, shown without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def save_figure(figure: "Figure | str", path: str | Path, *, dpi: int = 120) -> None:
    """Write a figure to `path` as PNG, SVG or PDF, by its suffix, and its numbers beside it as <stem>_figure.csv.

    The same figure gives the same bytes. Where there is a sentence in place of a figure, nothing is written, and an
    older figure is removed with its numbers. Raises ParameterError for any other suffix.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in _WITHOUT_DATE:
        raise ParameterError(f"{path}: no format of a figure; end the name in .png, .svg or .pdf")
    if isinstance(figure, str):
        Path(path).unlink(missing_ok=True)
        data_path(path).unlink(missing_ok=True)
        return
    from matplotlib import rc_context

    from dlv3p.pictures.figure_data import figure_data

    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "dlv3p"}):
        figure.savefig(content, format=kind, dpi=dpi, metadata=_WITHOUT_DATE[kind])
    write_text(data_path(path), figure_data(figure).to_csv(index=False))
    write_bytes(path, content.getvalue())


def data_path(path: str | Path) -> Path:
    """Return where the numbers of a figure are."""
    return Path(path).with_name(f"{Path(path).stem}_figure.csv")
