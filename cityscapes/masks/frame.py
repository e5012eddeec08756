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
_RULE = "fill rule 1"  # raise the number when masks come out differently, so that old ones are seen as stale


@dataclass(frozen=True)
class Job:
    """One frame, where its polygons are (`root`), where its masks go (`output`), and as what: rgba or palette.

    `instances` asks for instance ids too. `table` None is the Cityscapes table.
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
    """What became of one frame; `compared` has (differing, all) pixels of each provided mask, by its suffix."""

    path: Path
    written: bool = False
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    compared: dict[str, tuple[int, int]] = field(default_factory=dict)


class State(Enum):
    """What is there of a frame's masks: all of them, not all, or one that does not fit the polygons."""

    DONE = 0
    MISSING = 1
    STALE = 2


def inspect_masks(job: Job) -> tuple[Frame, State]:
    """Tell what is there; reads only. Masks of a polygon file that cannot be read are missing."""
    from cityscapes.masks.polygons import read_polygon_bytes

    present = [suffix for suffix in job.targets if job.targets[suffix].exists()]
    if job.force or not present:
        return job.frame, State.MISSING
    try:
        wanted = _wanted(job, _origins(job, read_polygon_bytes(job.polygons)))
    except UserError:
        return job.frame, State.MISSING
    if set(wanted) & set(present):
        return job.frame, State.STALE
    return job.frame, State.MISSING if wanted else State.DONE


def make_masks(job: Job) -> Result:
    """Make the masks that are missing and compare them with provided ones; a bad file becomes the result's problem.

    Raises MachineError alone: what stops one frame from being written stops all.
    """
    from cityscapes.labels import CITYSCAPES
    from cityscapes.masks.draw import draw_label_ids, draw_with_instances
    from cityscapes.masks.polygons import parse_polygons, read_polygon_bytes

    result, table = Result(job.polygons), job.table or CITYSCAPES
    try:
        content = read_polygon_bytes(job.polygons)
        annotation = parse_polygons(
            content, job.polygons, table=table
        )  # first: a damaged file makes masks look changed
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
    """Raise InputError where a mask that is wanted is there already, and differs; `force` allows to replace it."""
    stale = [job.targets[suffix] for suffix in wanted if job.targets[suffix].exists()]
    if stale and not job.force:
        raise InputError(
            f"{stale[0]}: is not what {job.polygons.name} gives as {job.color_mode} with this label table, or changed "
            "since; look at it, then make it again with --force"
        )


def _wanted(job: Job, origins: dict[str, bytes]) -> list[str]:
    """The masks that are not there, or not what the polygons give."""
    from cityscapes.files.png_write import is_made_from

    return [s for s in job.targets if job.force or not is_made_from(job.targets[s], origins[s])]


def _origins(job: Job, content: bytes) -> dict[str, bytes]:
    """What each mask is made from: the polygon file, the label table, the rule, and what the mask shows of them."""
    from cityscapes.labels import CITYSCAPES

    table, polygons = (job.table or CITYSCAPES).digest, hashlib.sha256(content).hexdigest()
    modes = {suffix: job.color_mode if suffix == COLOR_SUFFIX else "grey" for suffix in job.targets}
    return {suffix: f"{suffix} {modes[suffix]} {_RULE} {table} {polygons}".encode() for suffix in job.targets}


def _encode(job: Job, wanted: list[str], rasters: dict[str, "np.ndarray"], table: "LabelTable", origins):
    """Yield (suffix, PNG file); label ids and a palette mask hold the same pixels, which are packed once."""
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
