"""A figure that draws every text as it is written: `$` in the name of a class is not a formula."""

from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

NUMBERS = r"\mathdefault"
"""What is in matplotlib's own formulas, the powers of ten beside a logarithmic axis."""


class PlainFigure(Figure):
    """A figure whose texts are not parsed; those of ticks have to be set before it is drawn, not by a formatter."""

    def draw(self, renderer: RendererBase) -> None:
        for text in self.findobj(Text):
            if "$" in text.get_text() and NUMBERS not in text.get_text():
                text.set_parse_math(False)
        super().draw(renderer)
