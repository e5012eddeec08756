"""Generate the masks of one frame: check whether they are up to date, make them, and compare them with provided ones.

numpy, numba and Pillow are imported where they are used, so that a command line answers `--help` at once. Jobs and
results are small and can be pickled, for executors in other processes and on other machines.
"""

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import InputError, MachineError, UserError
from cityscapes.files.atomic import write_bytes
from cityscapes.layout import (
    COLOR_SUFFIX,
    INSTANCE_IDS_SUFFIX,
    LABEL_IDS_SUFFIX,
    POLYGONS_SUFFIX,
    TRAIN_IDS_SUFFIX,
    Frame,
)

if TYPE_CHECKING:
    import numpy as np

    from cityscapes.labels import LabelTable

SUFFIXES = (LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX, COLOR_SUFFIX)
_RULE = "fill rule 1"  # raise the number when the pixels change, so that old masks become stale


@dataclass(frozen=True)
class Job:
    """One frame to draw: the root of its polygons, the folder of its masks, and the color mask's kind, rgba or palette.

    `instances` adds instance ids. Without a `table` it is the Cityscapes table.
    """

    frame: Frame
    root: Path
    output: Path
    color_mode: str
    force: bool = False
    instances: bool = False
    table: "LabelTable | None" = None

    @cached_property
    def polygons(self) -> Path:
        """The polygon file."""
        return self.frame.annotation(self.root, POLYGONS_SUFFIX)

    @cached_property
    def targets(self) -> dict[str, Path]:
        """The masks asked for, by suffix."""
        suffixes = (*SUFFIXES, INSTANCE_IDS_SUFFIX) if self.instances else SUFFIXES
        return {suffix: self.frame.generated(self.output, suffix) for suffix in suffixes}


@dataclass
class Result:
    """The result of one frame; `compared` has (differing, all) pixels of each provided mask, by its suffix."""

    path: Path
    written: bool = False
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    compared: dict[str, tuple[int, int]] = field(default_factory=dict)


class State(Enum):
    """The state of a frame's masks: up to date, to be made, made from other polygons, or with damaged polygons."""

    DONE = 0
    TO_MAKE = 1
    STALE = 2
    DAMAGED = 3


@dataclass(frozen=True)
class Inspection:
    """What was found of a frame's masks before any is made; `refused` is the result of a frame that is not made."""

    frame: Frame
    state: State
    refused: Result | None = None


def is_of_its_polygons(job: Job) -> bool:
    """Return whether a frame's train ids were made from its polygons, whatever became of the file since."""
    from cityscapes.files.stamps import claims_origin
    from cityscapes.masks.polygons import read_polygon_bytes

    try:
        origins = _origins(job, read_polygon_bytes(job.polygons))
    except InputError:
        return False
    return claims_origin(job.targets[TRAIN_IDS_SUFFIX], origins[TRAIN_IDS_SUFFIX])


def inspect_masks(job: Job) -> Inspection:
    """Return the state of a frame's masks; raises only MachineError.

    Where a mask is missing, the polygons are not read: `make_masks` reads them, and refuses stale masks itself.
    """
    from cityscapes.labels import CITYSCAPES
    from cityscapes.masks.polygons import parse_polygons, read_polygon_bytes

    if job.force or not all(target.exists() for target in job.targets.values()):
        return Inspection(job.frame, State.TO_MAKE)
    state = State.DAMAGED
    try:
        content = read_polygon_bytes(job.polygons)
        wanted = _wanted(job, _origins(job, content))
        if not wanted:
            return Inspection(job.frame, State.DONE)
        parse_polygons(content, job.polygons, table=job.table or CITYSCAPES)  # before: it would make masks look stale
        state = State.STALE
        _refuse_stale(job, wanted)
    except MachineError:
        raise
    except UserError as error:
        return Inspection(job.frame, state, Result(job.polygons, problem=str(error)))
    return Inspection(job.frame, State.TO_MAKE)  # a stale mask was removed just now


def make_masks(job: Job) -> Result:
    """Make the masks that are missing and compare them with provided ones; a bad file becomes the result's problem.

    Raises only MachineError: what stops one frame from being written stops all.
    """
    from cityscapes.labels import CITYSCAPES
    from cityscapes.masks.draw import draw_label_ids, draw_with_instances
    from cityscapes.masks.polygons import parse_polygons, read_polygon_bytes

    result, table = Result(job.polygons), job.table or CITYSCAPES
    try:
        content = read_polygon_bytes(job.polygons)
        annotation = parse_polygons(
            content, job.polygons, table=table
        )  # before the masks are checked: a damaged file would make them look changed
        origins = _origins(job, content)
        wanted = _wanted(job, origins)
        _refuse_stale(job, wanted)
        result.warnings = annotation.warnings
        if job.instances:
            label_ids, instance_ids = draw_with_instances(annotation, job.polygons)
            rasters = {LABEL_IDS_SUFFIX: label_ids, INSTANCE_IDS_SUFFIX: instance_ids}
        else:
            rasters = {LABEL_IDS_SUFFIX: draw_label_ids(annotation)}
        for suffix, file in _encode(job, wanted, rasters, table, origins):
            write_bytes(job.targets[suffix], file, durable=False)
        result.written = True
        _compare(job, result, rasters, table)
    except MachineError:
        raise
    except UserError as error:
        result.problem = str(error)
    return result


def _refuse_stale(job: Job, wanted: list[str]) -> None:
    """Raise InputError where a mask exists but differs from what the polygons give, unless `force` replaces it."""
    stale = [job.targets[suffix] for suffix in wanted if job.targets[suffix].exists()]
    if stale and not job.force:
        raise InputError(
            f"{stale[0]}: does not match {job.polygons.name} as {job.color_mode} with this label table, or was "
            "changed since; check it, then make it again with --force"
        )


def _wanted(job: Job, origins: dict[str, bytes]) -> list[str]:
    """Return the suffixes of masks that are missing or do not match the polygons."""
    from cityscapes.files.stamps import is_made_from

    return [s for s in job.targets if job.force or not is_made_from(job.targets[s], origins[s])]


def _origins(job: Job, content: bytes) -> dict[str, bytes]:
    """Return what identifies the input of each mask: suffix, color mode, fill rule, label table and polygon file."""
    from cityscapes.labels import CITYSCAPES

    table, polygons = (job.table or CITYSCAPES).digest, hashlib.sha256(content).hexdigest()
    # "grey" is part of the stamp in every mask ever written: another word would make all of them stale.
    modes = {suffix: job.color_mode if suffix == COLOR_SUFFIX else "grey" for suffix in job.targets}
    return {suffix: f"{suffix} {modes[suffix]} {_RULE} {table} {polygons}".encode() for suffix in job.targets}


def _encode(job: Job, wanted: list[str], rasters: dict[str, "np.ndarray"], table: "LabelTable", origins):
    """Yield (suffix, PNG file); label ids and a palette mask have the same pixels, compressed once."""
    from cityscapes.files.png_write import encode_png, pack_pixels
    from cityscapes.masks.draw import rgba_of_label_ids

    label_ids, packed = rasters[LABEL_IDS_SUFFIX], None
    looks = {TRAIN_IDS_SUFFIX: {"table": table.label_id_to_train_id}, COLOR_SUFFIX: {"table": rgba_of_label_ids(table)}}
    if job.color_mode == "palette":
        looks[COLOR_SUFFIX] = {"palette": table.label_id_to_color}
    for suffix in wanted:
        look = looks.get(suffix, {})
        if suffix in (LABEL_IDS_SUFFIX, COLOR_SUFFIX) and "table" not in look:
            look["packed"] = packed = packed or pack_pixels(label_ids)
        yield suffix, encode_png(rasters.get(suffix, label_ids), made_from=origins[suffix], **look)


def _compare(job: Job, result: Result, rasters: dict[str, "np.ndarray"], table: "LabelTable") -> None:
    """Compare with the masks that the data set provides, where it does; raises InputError for a damaged one."""
    import numpy as np

    from cityscapes.files.png_read import read_instance_image, read_label_image
    from cityscapes.masks.draw import to_train_ids

    for suffix in (LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX, INSTANCE_IDS_SUFFIX):
        path = job.frame.annotation(job.root, suffix)
        if suffix not in job.targets or not path.is_file():
            continue
        ours = rasters.get(suffix)
        if ours is None:
            ours = to_train_ids(rasters[LABEL_IDS_SUFFIX], table=table)
        read = read_instance_image if suffix == INSTANCE_IDS_SUFFIX else read_label_image
        theirs = read(path, size=ours.shape)
        result.compared[suffix] = (int(np.count_nonzero(ours != theirs)), ours.size)
