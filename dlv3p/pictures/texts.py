"""Draw texts as they are written: `$` is not a formula, and what the default font lacks comes from an installed one."""

import warnings
from functools import cache, lru_cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

DEFAULT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
"""The font that ships with matplotlib, so that pictures look the same on every machine."""
NUMBERS = r"\mathdefault"
"""What is in matplotlib's own formulas, the powers of ten beside a logarithmic axis."""

LAST_RESORT = "Last Resort"
"""A font that has every character, as the same box."""


class PlainFigure(Figure):
    """A figure whose texts are not parsed; those of ticks have to be set before it is drawn, not by a formatter."""

    def draw(self, renderer: RendererBase) -> None:
        for text in self.findobj(Text):
            words = text.get_text()
            if NUMBERS in words:
                continue
            if "$" in words:
                text.set_parse_math(False)
            if not words.isascii():
                _choose_family(text)
        with warnings.catch_warnings():
            # One line from `font_of` says what is missing, instead of one for every character.
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
            super().draw(renderer)


def font_of(text: str) -> Path:
    """Return the file of a font that has all characters of a text: the default one, or an installed one, by name.

    Says in a line, once for the same characters, where no font has them; they are then drawn as boxes.
    """
    return _font_with(frozenset(character for character in text if character.isprintable()) - _characters(DEFAULT))


def _choose_family(text: Text) -> None:
    path = font_of(text.get_text())
    if path != DEFAULT:
        name = font_manager.get_font(path).family_name
        text.set_fontfamily([*text.get_fontfamily(), name])


@cache
def _font_with(characters: frozenset[str]) -> Path:
    """Return the first installed font, by name, that has these characters, which the default font lacks."""
    if not characters:
        return DEFAULT
    for entry in sorted(font_manager.fontManager.ttflist, key=_order):
        if not entry.name.startswith(LAST_RESORT) and characters <= _characters(Path(entry.fname)):
            return Path(entry.fname)
    print(
        f"note: no installed font has {''.join(sorted(characters))!r}, drawn as boxes; install one and start again, "
        "for example by: apt-get install fonts-noto-cjk",
        flush=True,  # no warning, which a notebook would show in red, with the line of code
    )
    return DEFAULT


def _order(entry: font_manager.FontEntry) -> tuple:
    """Order upright fonts of normal weight before others, and then by name, so that the choice is always the same."""
    return (entry.style != "normal", str(entry.weight) not in ("400", "normal", "regular"), entry.name, entry.fname)


@lru_cache(maxsize=512)
def _characters(path: Path) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(str(path)).get_charmap()))
    except (OSError, RuntimeError):  # removed since matplotlib listed it, or of a kind that cannot be read
        return frozenset()
