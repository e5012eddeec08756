"""The fields that many parameter sets share: progress, device, paths, tiles of large images, formats of figures."""

import glob
import os
from functools import partial
from typing import Any

from cityscapes.errors import MissingInputError, ParameterError
from cityscapes.files.untrusted import given_path
from dlv3p.parameters.base import choice, number, several, switch, text
from dlv3p.parameters.choices import DEVICES, FIGURES, PROGRESS

SMALLEST_IMAGE = 33
"""The smallest height and width, in pixels, that every network accepts."""


def progress_field() -> Any:
    """Return the field that says how progress is shown."""
    return choice("auto", PROGRESS, "auto, widgets, lines or none")


def device_field() -> Any:
    """Return the field that says where networks run."""
    return choice("auto", DEVICES, "auto (a GPU where there is one), cpu or cuda")


def figures_field() -> Any:
    """Return the field that says in which format figures are saved."""
    return choice("png", FIGURES, "format of the figures that are saved: png, svg or pdf")


def path_field(default: str, help: str, *, parameter: str, remedy: str, many: bool = False, embedded: str = "") -> Any:
    """Return a field that takes the path of a file or folder, or a pattern, which has to exist; or with `many` several.

    `remedy` is what the error says beyond that, `embedded` the name of data that is drawn on first use.
    """
    kind = several if many else text
    return kind(default, help, find=partial(_find_path, parameter=parameter, remedy=remedy, names=(default, embedded)))


def _find_path(path: str, *, parameter: str, remedy: str, names: tuple[str, str]) -> None:
    expanded = given_path(path, variables=True)
    if path not in names and not os.path.lexists(expanded) and not glob.has_magic(str(expanded)):
        raise MissingInputError(f"{parameter}={path!r}: no such file or folder; {remedy}")


def threads_field() -> Any:
    """Return the field that says how many threads they use."""
    return number(2, 1, 256, "CPU threads")


def predicting_workers_field() -> Any:
    """Return the field that says how many processes predict images."""
    return number(1, 1, 1024, "processes that predict images, each with its own threads")


def images_field(default: str, help: str, *, embedded: str) -> Any:
    """Return the field that says which images are predicted, `embedded` by its name too."""
    remedy = "give an image, a folder, a pattern such as 'photos/*.jpg', a list (.txt) or a video"
    return path_field(default, help, parameter="images", remedy=remedy, embedded=embedded)


def weights_field(help: str = 'a checkpoint, weights, ONNX or OpenVINO file; "" takes the run') -> Any:
    """Return the field that takes a weights file."""
    return path_field("", help, parameter="weights", remedy="give a weights file; of a run, its name as run")


def name_classes_field() -> Any:
    """Return the field that says whether pictures name their classes."""
    return switch(False, "outlines the classes and writes their names on them")


def memory_gib_field() -> Any:
    """Return the field that says how much memory a prediction may take, in GiB."""
    return number(4.0, 1.25, 4096.0, "of a process; larger images are predicted in tiles")


def tile_field() -> Any:
    """Return the field that says how large the tiles of an image are that does not fit."""
    return number(1024, 256, 8192, "side of a tile, in pixels")


def tile_overlap_field() -> Any:
    """Return the field that says by how much neighboring tiles overlap."""
    return number(128, 32, 4096, "pixels over which neighboring tiles are blended")


def check_predictor(*, run: str, weights: str, tile: int, overlap: int) -> None:
    """Raise ParameterError for a run beside weights, and for an overlap of more than half a tile."""
    if run and weights:
        raise ParameterError(f"run={run!r}, weights={weights!r}: give one of them")
    if overlap > tile // 2:
        raise ParameterError(f"tile_overlap={overlap}: allowed are 32 to {tile // 2}, half a tile")


def check_timed_size(height: int, width: int) -> None:
    """Check the size of an image that is timed: both sides or none, and large enough for every network."""
    if bool(height) != bool(width) or 0 < min(height, width) < SMALLEST_IMAGE:
        raise ParameterError(f"height={height}, width={width}: give both, {SMALLEST_IMAGE} or more each, or 0 for both")
