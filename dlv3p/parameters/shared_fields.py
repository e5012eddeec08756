"""The fields that most parameter sets share: how progress is shown, where networks run, how figures are saved."""

from typing import Any

from dlv3p.parameters.base import choice, number
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


def threads_field() -> Any:
    """Return the field that says how many threads they use."""
    return number(2, 1, 256, "CPU threads")
