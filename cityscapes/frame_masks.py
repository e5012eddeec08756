"""The three masks of one frame: whether they are up to date, how they are made, and how they compare.

numpy, numba and Pillow are imported where they are used, so that a command line answers `--help` at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.atomic import write_bytes
from cityscapes.errors import InputError, MachineError, UserError
from cityscapes.layout import COLOR_SUFFIX, LABEL_IDS_SUFFIX, POLYGONS_SUFFIX, TRAIN_IDS_SUFFIX, Frame

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX, COLOR_SUFFIX)
_RULE = b"fill rule 1"  # raise the number when masks come out differently, so that old ones are seen as stale


@dataclass(frozen=True)
class Job:
    """One frame, where its polygons are (`root`), where its masks go (`output`), and as what: rgba or palette."""

    frame: Frame
    root: Path
    output: Path
    color_mode: str
    force: bool = False

    @property
    def polygons(self) -> Path:
        """The polygon file."""
        return self.frame.annotation(self.root, POLYGONS_SUFFIX)

    def target(self, suffix: str) -> Path:
        """The mask of one suffix."""
        return self.frame.generated(self.output, suffix)


@dataclass
class Result:
    """What became of one frame; `compared` says that masks were provided, and the pixel counts are of those."""

    path: Path
    written: bool = False
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    compared: bool = False
    differing_pixels: int = 0
    total_pixels: int = 0


def is_up_to_date(job: Job) -> bool:
    """Tell whether all masks are there, whole, and made from the polygons as they are now; reads only."""
    from cityscapes.polygons import read_polygon_bytes

    try:
        return not job.force and not _wanted(job, read_polygon_bytes(job.polygons))
    except UserError:
        return False


def make_masks(job: Job) -> Result:
    """Make the masks that are missing and compare them with provided ones; a bad file becomes the result's problem.

    Raises MachineError alone: what stops one frame from being written stops all.
    """
    result = Result(job.polygons)
    try:
        _make(job, result)
    except MachineError:
        raise
    except UserError as error:
        result.problem = str(error)
    return result


def _make(job: Job, result: Result) -> None:
    from cityscapes.masks import draw_label_ids
    from cityscapes.polygons import parse_polygons, read_polygon_bytes

    content = read_polygon_bytes(job.polygons)
    annotation = parse_polygons(content, job.polygons)  # first, for a damaged file makes every mask look changed
    wanted = _wanted(job, content)
    stale = [job.target(suffix) for suffix in wanted if job.target(suffix).exists()]
    if stale and not job.force:
        raise InputError(
            f"{stale[0]}: is not what {job.polygons.name} gives as {job.color_mode}, or changed since; "
            "look at it, then make it again with --force"
        )
    result.warnings = annotation.warnings
    label_ids = draw_label_ids(annotation)
    for suffix in wanted:
        write_bytes(job.target(suffix), _encode(job, suffix, label_ids, content), durable=False)
    result.written = True
    _compare(job, result, label_ids)


def _wanted(job: Job, content: bytes) -> list[str]:
    from cityscapes.mask_files import is_made_from

    return [
        suffix
        for suffix in SUFFIXES
        if job.force or not is_made_from(job.target(suffix), _origin(job, suffix, content))
    ]


def _origin(job: Job, suffix: str, content: bytes) -> bytes:
    """What a mask is made from: the polygon file, the rule, and what the mask shows of them."""
    mode = job.color_mode if suffix == COLOR_SUFFIX else "L"
    return b"%s %s %s %s" % (suffix.encode(), mode.encode(), _RULE, content)


def _encode(job: Job, suffix: str, label_ids: "np.ndarray", content: bytes) -> bytes:
    from cityscapes.labels import LABEL_ID_TO_COLOR
    from cityscapes.mask_files import encode_png
    from cityscapes.masks import to_rgba, to_train_ids

    pixels, palette = label_ids, None
    if suffix == TRAIN_IDS_SUFFIX:
        pixels = to_train_ids(label_ids)
    elif suffix == COLOR_SUFFIX and job.color_mode == "rgba":
        pixels = to_rgba(label_ids)
    elif suffix == COLOR_SUFFIX:
        palette = LABEL_ID_TO_COLOR
    return encode_png(pixels, made_from=_origin(job, suffix, content), palette=palette)


def _compare(job: Job, result: Result, label_ids: "np.ndarray") -> None:
    """Compare with the masks that the data set provides, where it does; raises InputError for a damaged one."""
    import numpy as np

    from cityscapes.mask_files import read_label_png
    from cityscapes.masks import to_train_ids

    for suffix, ours in ((LABEL_IDS_SUFFIX, label_ids), (TRAIN_IDS_SUFFIX, to_train_ids(label_ids))):
        path = job.frame.annotation(job.root, suffix)
        if path.is_file():
            theirs = read_label_png(path, size=label_ids.shape)
            result.compared = True
            result.differing_pixels += int(np.count_nonzero(ours != theirs))
            result.total_pixels += ours.size
