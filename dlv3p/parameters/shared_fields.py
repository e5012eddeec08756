"""The fields that many parameter sets share: how progress is shown, where networks run, paths, formats of figures."""

import glob
import os
from functools import partial
from typing import Any

from cityscapes.errors import MissingInputError
from dlv3p.parameters.base import choice, number, several, text
from dlv3p.parameters.choices import DEVICES, FIGURES, PROGRESS


def progress_field() -> Any:
    """Return the field that says how progress is shown."""
    return choice("auto", PROGRESS, "auto, widgets, lines or none")


def device_field() -> Any:
    """Return the field that says where networks run."""
    return choice("auto", DEVICES, "auto (a GPU where there is one), cpu or cuda")


def figures_field() -> Any:
    """Return the field that says in which format figures are saved."""
    return choice("png", FIGURES, "format of the figures that are saved: png, svg or pdf")


def path_field(default: str, help: str, *, parameter: str, remedy: str, many: bool = False) -> Any:
    """Return a field that takes the path of a file or folder, or a pattern, which has to exist; or with `many` several.

    `remedy` is what the error says beyond that.
    """
    kind = several if many else text
    return kind(default, help, find=partial(_find_path, parameter=parameter, remedy=remedy, default=default))


def _find_path(path: str, *, parameter: str, remedy: str, default: str) -> None:
    expanded = os.path.expanduser(os.path.expandvars(path))
    if path != default and not os.path.lexists(expanded) and not glob.has_magic(expanded):
        raise MissingInputError(f"{parameter}={path!r}: no such file or folder; {remedy}")


def threads_field() -> Any:
    """Return the field that says how many threads they use."""
    return number(2, 1, 256, "CPU threads")
