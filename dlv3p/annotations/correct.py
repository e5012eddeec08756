"""Write masks of ids, such as predictions, as COCO's or CVAT's polygons, for a person to correct in a tool.

Each connected region becomes one polygon with its holes filled, and what lies in a hole is drawn after it. With
tolerance=0, the polygons give back every pixel when `prepare.py` draws them.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from cityscapes.errors import InputError, MissingInputError, ParameterError, reason
from cityscapes.files.atomic import open_atomically
from cityscapes.files.checksums import file_sha256, read_json
from cityscapes.files.images import inspect_picture, read_ids
from cityscapes.files.listing import walk
from cityscapes.files.untrusted import given_path
from cityscapes.labels import CLASS_NAMES, IGNORE, LABEL_ID_TO_TRAIN_ID
from dlv3p.annotations.coco import CocoWriter
from dlv3p.annotations.cvat import CvatWriter
from dlv3p.annotations.image_files import ImageIndex
from dlv3p.annotations.plan import IGNORE_CLASS
from dlv3p.annotations.shapes import AnnotatedImage, Shape, draw
from dlv3p.data.class_table import CLASSES_FILE, read_class_table
from dlv3p.data.fingerprints import describe_others, predicted_files
from dlv3p.runtime.progress import track

FILES = {"coco": "annotations.json", "cvat": "annotations.xml"}
"""The tools' formats, and what the file is called that each expects."""
FRAME = re.compile("frame_[0-9]{6,}")
"""What `dlv3p predict` and CVAT call the frames of a video."""
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Right, down, left, up: a turn to the right each, where y grows downward."""


@dataclass(frozen=True)
class Correction:
    """What was written for a person to correct; `differing` is the share of pixels that polygons do not give back."""

    path: Path
    images: int
    shapes: int
    points: int
    differing: float
    problems: tuple[str, ...] = ()

    def line(self) -> str:
        """Return what was written, and how exact it is, in one line."""
        return (
            f"{self.path.name}: {self.shapes} polygons of {self.points} points in {self.images} images; read again, "
            f"{self.differing:.3%} of the pixels differ"
        )


def write_corrections(
    masks: str | Path,
    images: str | Path,
    *,
    format: str = "cvat",
    output: str | Path = "",
    tolerance: float = 1.0,
    smallest: int = 16,
    progress: str = "auto",
) -> Correction:
    """Write the masks of a folder as polygons over its images, below `images`, into one file.

    `masks` is a folder of `dlv3p predict`, or a plain folder with classes.csv. Outlines deviate by at most `tolerance`
    pixels, which saves a person from moving thousands of points; regions of fewer than `smallest` pixels go to what is
    around them. For the frames of a video, `images` is the video, and CVAT calls them as `masks` does. `output` is the
    file, by default beside the masks. Raises ParameterError, InputError and MissingInputError; what is wrong with
    single masks is in `problems`.
    """
    if format not in FILES:
        raise ParameterError(f"format={format!r}: allowed are {', '.join(FILES)}")
    folder = given_path(masks)
    kept = _Masks(folder)
    pictures = given_path(images) if images else folder / "images"
    index = None if pictures.is_file() else ImageIndex(pictures, [kept.folder])
    if index is None and (other := next((one for one in kept.paths if not FRAME.fullmatch(one.stem)), None)):
        raise ParameterError(
            f"images={str(images)!r}: is a file, as for frames of a video, and {other} is no frame; give the folder of "
            "the images"
        )
    path = given_path(output) if output else folder / FILES[format]
    if path.suffix.lower() != (suffix := Path(FILES[format]).suffix):
        raise ParameterError(f"output={str(output)!r}: names a file that ends in {suffix}; add it")
    made_of, others = predicted_files(folder), []
    ids = {name: number for number, name in enumerate(kept.class_names)} | {IGNORE_CLASS: IGNORE}
    shapes = points = differing = pixels = done = 0
    problems: list[str] = []
    with open_writer(path, format, kept.class_names, kept.colors) as writer:
        for mask_path in track(kept.paths, title=f"write {format}", mode=progress, unit="images"):
            try:
                image, mask = _trace_file(mask_path, kept, index, tolerance=tolerance, smallest=smallest)
            except InputError as error:
                problems.append(str(error))
                continue
            writer.add(image)
            predicted_of = made_of.get(mask_path.relative_to(kept.folder).as_posix())
            if index is not None and predicted_of and file_sha256(index.find_named(mask_path)) != predicted_of:
                others.append(image.name)
            differing += int((draw(image, ids, unlabeled=IGNORE).mask != mask).sum())
            shapes, pixels, done = shapes + len(image.shapes), pixels + mask.size, done + 1
            points += sum(len(ring) for shape in image.shapes for ring in shape.rings)
    if others:
        print(f"warning: {describe_others(folder, others, str(index.folder))}", flush=True)
    return Correction(path, done, shapes, points, differing / max(1, pixels), tuple(problems))


@contextmanager
def open_writer(
    path: Path, format: str, class_names: Sequence[str], colors: np.ndarray
) -> Iterator[CocoWriter | CvatWriter]:
    """Open the file of a tool's format, to which the shapes of images are added one after another.

    `colors` are RGB by class. The file is there when the block ends, and not when it fails.
    """
    shown = np.concatenate([colors[: len(class_names)], np.zeros((1, 3), np.uint8)])
    with open_atomically(path) as file:
        writer = (CocoWriter if format == "coco" else CvatWriter)(file, [*class_names, IGNORE_CLASS], shown)
        yield writer
        writer.finish()


class _Masks:
    """The masks of a folder, their classes and colors; `read` returns train ids."""

    def __init__(self, folder: Path) -> None:
        record, table = folder / "predictions.json", folder / CLASSES_FILE
        self.as_label_ids = False
        if record.is_file():
            try:
                described = read_json(record)
                self.class_names = tuple(described["class_names"])
                self.colors = np.array(described["colors"], np.uint8)
                self.as_label_ids = described["ids"] == "own" and self.class_names == tuple(CLASS_NAMES)
            except (ValueError, LookupError, TypeError) as error:
                raise InputError(f"{record}: not a record of predictions ({reason(error)}); predict again") from error
            self.folder = folder / "ids"
        elif table.is_file():
            self.class_names, colors = read_class_table(table).classes
            self.colors, self.folder = colors[: len(self.class_names)], folder / "masks"
        else:
            raise MissingInputError(
                f"{folder}: holds neither predictions.json, as results of dlv3p predict do, nor {CLASSES_FILE}"
            )
        self.paths = sorted(path for path in walk(self.folder) if path.suffix.lower() == ".png")
        if not self.paths:
            raise MissingInputError(f"{self.folder}: holds no mask; expected PNG files of ids")

    def read(self, path: Path) -> np.ndarray:
        ids = read_ids(path)
        ids = LABEL_ID_TO_TRAIN_ID[ids] if self.as_label_ids else ids
        wrong = ids[(ids >= len(self.class_names)) & (ids != IGNORE)]
        if wrong.size:
            raise InputError(f"{path}: holds id {wrong[0]}; allowed are 0 to {len(self.class_names) - 1} and {IGNORE}")
        return ids


def _trace_file(
    path: Path, kept: _Masks, index: ImageIndex | None, *, tolerance: float, smallest: int
) -> tuple[AnnotatedImage, np.ndarray]:
    mask = kept.read(path)
    name, size = path.stem, mask.shape[::-1]
    if index is not None:
        picture = index.find_named(path)
        name, size = index.name(picture), inspect_picture(picture)[0].size
    if size != mask.shape[::-1]:
        raise InputError(f"{path}: has {mask.shape[1]} x {mask.shape[0]} pixels and its image {size[0]} x {size[1]}")
    cleaned = without_specks(mask, smallest)
    names = [*kept.class_names, *[IGNORE_CLASS] * (IGNORE + 1 - len(kept.class_names))]
    return AnnotatedImage(name, size, trace(cleaned, names, tolerance=tolerance)), mask


def trace(mask: np.ndarray, names: Sequence[str], *, tolerance: float = 0.0) -> tuple[Shape, ...]:
    """Return the regions of a mask of ids, uint8 (H,W), as outlines in the order in which to draw them.

    `names` are the labels by id. With `tolerance`, in pixels, outlines lose points that matter less than that.
    """
    found = []
    for id_ in np.unique(mask).tolist():
        for (rows, columns), region in connected_regions(mask == id_):
            filled = ndimage.binary_fill_holes(region)
            ring = _boundary(filled, mask.shape[1] - columns.start) + (columns.start, rows.start)
            found.append((int(filled.sum()), Shape(names[id_], (simplify(ring, tolerance),))))
    return tuple(shape for _, shape in sorted(found, key=lambda item: -item[0]))


def without_specks(mask: np.ndarray, smallest: int) -> np.ndarray:
    """Return a mask whose regions of fewer than `smallest` pixels have the id that is most frequent around them."""
    cleaned = mask.copy()
    for id_ in np.unique(mask).tolist():
        for (rows, columns), region in connected_regions(mask == id_):
            if region.sum() < smallest:
                around = (
                    slice(max(rows.start - 1, 0), rows.stop + 1),
                    slice(max(columns.start - 1, 0), columns.stop + 1),
                )
                inner = np.zeros(cleaned[around].shape, bool)
                top, left = rows.start - around[0].start, columns.start - around[1].start
                inner[top : top + region.shape[0], left : left + region.shape[1]] = region
                border = cleaned[around][ndimage.binary_dilation(inner) & ~inner]
                if border.size:
                    cleaned[around][inner] = np.bincount(border).argmax()
    return cleaned


def connected_regions(same: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Yield the connected regions, over edges, not corners: the slices around each, and its pixels there."""
    numbers, _ = ndimage.label(same)
    for number, place in enumerate(ndimage.find_objects(numbers), start=1):
        yield place, numbers[place] == number


def _boundary(region: np.ndarray, border: int) -> np.ndarray:
    """Return the outline of one region without holes, float64 (P,2), that the fill rule turns into just its pixels.

    The rule fills from a left edge at x to a right edge at x, both pixels included. So the way around the pixels is
    followed clockwise, and the x of its right sides is one less, unless that is the image's `border`, so that tools
    show no gap along it.
    """
    padded = np.pad(region, 1).tolist()
    y, x = 1, padded[1].index(True)
    start, heading, turned, ring = (x, y), 0, True, []
    while True:
        step_x, step_y = STEPS[heading]
        x, y = x + step_x, y + step_y
        if step_y:
            side = x - (step_y > 0 and x - 1 != border)
            if not turned:
                ring.pop()
            ring += [(side, y - step_y), (side, y)][not turned :]
        right_x, right_y = STEPS[(heading + 1) % 4]
        ahead_right = padded[y + min(step_y + right_y, 0)][x + min(step_x + right_x, 0)]
        ahead_left = padded[y + min(step_y - right_y, 0)][x + min(step_x - right_x, 0)]
        turn = 1 if not ahead_right else -1 if ahead_left else 0
        turned, heading = turn != 0, (heading + turn) % 4
        if (x, y) == start and heading == 0:
            return np.array(ring, np.float64) - 1


def simplify(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Return a closed outline without the points that lie within `tolerance` pixels of it (Douglas and Peucker)."""
    if tolerance <= 0 or len(ring) < 5:
        return ring
    far = int(np.hypot(*(ring - ring[0]).T).argmax())
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), bool)
    keep[[0, far, len(ring)]] = True
    parts = [(0, far), (far, len(ring))]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        line, offsets = closed[last] - closed[first], closed[first + 1 : last] - closed[first]
        length = np.hypot(*line)
        if length:
            distances = np.abs(line[0] * offsets[:, 1] - line[1] * offsets[:, 0]) / length
        else:
            distances = np.hypot(*offsets.T)
        worst = int(distances.argmax())
        if distances[worst] > tolerance:
            keep[first + 1 + worst] = True
            parts += [(first, first + 1 + worst), (first + 1 + worst, last)]
    kept = closed[:-1][keep[:-1]]
    return kept if len(kept) > 2 else ring
