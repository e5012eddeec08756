"""Check the frames of a split for an audit: sort files by frame, and inspect each image's header and each mask's ids.

No image is decoded, only masks are; a damaged image shows in its header or in its last bytes.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.audit_rules import find_mode, find_sizes, find_turned, find_unlabeled
from cityscapes.errors import reason
from cityscapes.files.untrusted import MAX_PIXELS, regular
from cityscapes.findings import Finding
from cityscapes.layout import IMAGE_SUFFIX, LABEL_IDS_SUFFIX, POLYGONS_SUFFIX, TRAIN_IDS_SUFFIX, Frame, frame_of

if TYPE_CHECKING:
    from cityscapes.files.images import Header

OTHER_SUFFIXES = (
    "_gtFine_color.png",
    "_gtFine_instanceIds.png",
    "_gtFine_instanceTrainIds.png",
    "_leftImg8bit.txt",
)
"""Other files of a frame, which training does not read."""

_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
"""The last bytes of a whole file of each format; some programs append more after them."""


@dataclass
class FrameFiles:
    """The files of one frame by suffix: image, polygons and masks of the data set, and the generated train ids."""

    frame: Frame
    provided: dict[str, Path] = field(default_factory=dict)
    generated: Path | None = None

    @property
    def image(self) -> Path | None:
        """The camera image."""
        return self.provided.get(IMAGE_SUFFIX)

    @property
    def masks(self) -> list[Path]:
        """The masks that hold classes; training reads the first."""
        found = (self.generated, self.provided.get(TRAIN_IDS_SUFFIX), self.provided.get(LABEL_IDS_SUFFIX))
        return [path for path in found if path is not None]


@dataclass
class FrameAudit:
    """What one frame's files hold: the image's (width, height) and mode, and pixels by train id of a usable mask."""

    files: FrameFiles
    findings: list[Finding] = field(default_factory=list)
    size: tuple[int, int] | None = None
    mode: str = ""
    pixels: list[int] | None = None


def shown(path: str | Path, root: Path | None = None) -> str:
    """Return a path as it can be printed anywhere, below `root` if it lies there."""
    path = Path(path)
    text = str(path.relative_to(root)) if root is not None and path.is_relative_to(root) else str(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def list_files(root: Path, split: str, generated: Path) -> tuple[dict[Frame, FrameFiles], list[Finding]]:
    """Group a split's files by frame; a file that belongs to no frame is a finding.

    Of the generated masks only those of known frames count, for several data sets may share that folder.
    """
    frames: dict[Frame, FrameFiles] = {}
    orphans: list[tuple[Path, str | None]] = []
    wanted = {"leftImg8bit": (IMAGE_SUFFIX,), "gtFine": (LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX, POLYGONS_SUFFIX)}
    for kind, suffixes in wanted.items():
        folder = root / kind / split
        for path in _files(folder):
            suffix = next((suffix for suffix in suffixes if path.name.endswith(suffix)), None)
            frame = frame_of(path, split, suffix) if suffix else None
            if frame is not None and path.parent.parent == folder:
                frames.setdefault(frame, FrameFiles(frame)).provided[suffix] = path
            elif not path.name.endswith(OTHER_SUFFIXES):
                orphans.append((path, suffix))
    for frame, files in frames.items():
        mask = frame.generated(generated, TRAIN_IDS_SUFFIX)
        files.generated = mask if mask.is_file() else None
    known = {path.stem.lower() for files in frames.values() for path in files.provided.values()}
    return dict(sorted(frames.items())), [_orphan(*orphan, split, root, known) for orphan in orphans]


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder as training finds them: without hidden ones, and in the linked folder of a city.

    Links are not followed below that, so that none leads in a circle.
    """
    for parent, folders, names in os.walk(folder, followlinks=True):
        deep = Path(parent) != folder
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not (deep and os.path.islink(f"{parent}/{name}"))
        )
        yield from (Path(parent) / name for name in sorted(names) if not name.startswith("."))


def _orphan(path: Path, suffix: str | None, split: str, root: Path, known: set[str]) -> Finding:
    where = shown(path, root)
    if path.stem.lower() in known:
        remedy = "remove one of them; training reads the one that is named and placed like the official files"
        return Finding("duplicate frame", split, where, "another file has the same name", remedy)
    if suffix is not None:
        remedy = f"name it <city>/<city>_<six digits>_<six digits>{suffix}, in the folder of its city, or remove it"
        return Finding("malformed name", split, where, "it is left out of training", remedy)
    remedy = "remove it if nothing else needs it; training does not read it"
    return Finding("unused file", split, where, "it belongs to no frame", remedy, is_error=False)


def audit_frame(files: FrameFiles, root: Path) -> FrameAudit:
    """Check one frame's image header and masks; every problem becomes a finding, nothing is raised."""
    audit = FrameAudit(files)
    _find_missing(audit, root)
    if files.image is not None and (header := _read_header(audit, files.image, root)):
        audit.size, audit.mode = header.size, header.mode
        where = shown(files.image, root)
        audit.findings += find_mode(files.frame.split, where, audit.mode)
        audit.findings += find_turned(files.frame.split, where, turned=header.turned)
    for number, path in enumerate(files.masks):
        pixels = _mask_pixels(audit, path, root)
        if number == 0:
            audit.pixels = pixels
    if audit.pixels is not None:
        audit.findings += find_unlabeled(files.frame.split, files.frame.name, audit.pixels)
    return audit


def _add(audit: FrameAudit, kind: str, where: str, problem: str, remedy: str, *, is_error: bool = True) -> None:
    audit.findings.append(Finding(kind, audit.files.frame.split, where, problem, remedy, is_error))


def _find_missing(audit: FrameAudit, root: Path) -> None:
    files, name, split = audit.files, audit.files.frame.name, audit.files.frame.split
    if files.image is None:
        remedy = "copy the image again, or remove the frame's other files"
        other = shown(next(iter(files.provided.values())), root)
        _add(audit, "mask without an image", name, f"there is {other}, but no image", remedy)
    elif not files.masks and split != "test":  # the test split is not trained on, and its masks are not public
        if POLYGONS_SUFFIX in files.provided:
            remedy = f"make them: python cityscapes/generate_gt.py --root {shown(root)} --splits {split}"
            _add(audit, "masks not made yet", name, "has polygons, but no masks", remedy, is_error=False)
        else:
            remedy = "copy its annotation again, or remove the image"
            _add(audit, "image without a mask", name, "has neither polygons nor masks", remedy)


def _read_header(audit: FrameAudit, path: Path, root: Path) -> "Header | None":
    """Read an image's header and its last bytes; None where they are damaged."""
    from PIL import Image

    from cityscapes.files.images import TOO_LARGE, inspect_image

    try:
        with Image.open(regular(path), formats=tuple(_ENDS)) as image:
            header, end = inspect_image(image), _ENDS[image.format]
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 1024))
            if end not in file.read():
                raise ValueError("it is cut off")
        if header.size[0] * header.size[1] > MAX_PIXELS:
            raise ValueError(f"it has {header.size[0]} x {header.size[1]} pixels, {TOO_LARGE}")
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise nearly anything
        remedy = "copy it again from the original archive"
        _add(audit, "damaged file", shown(path, root), f"not a whole image ({_reason(error, path)})", remedy)
        return None
    return header


def _mask_pixels(audit: FrameAudit, path: Path, root: Path) -> list[int] | None:
    """Decode a mask and count its pixels by train id, 256 numbers; None where it cannot be used."""
    from PIL import Image

    from cityscapes.labels import LABEL_ID_TO_TRAIN_ID

    where, as_train_ids = shown(path, root), path.name.endswith(TRAIN_IDS_SUFFIX)
    remake = "remove it and make it again: python cityscapes/generate_gt.py"
    try:
        with Image.open(regular(path), formats=("PNG",)) as image:
            mode, size = image.mode, image.size
            if size[0] * size[1] > MAX_PIXELS:
                raise ValueError(f"{size[0]} x {size[1]} is more than {MAX_PIXELS >> 20} million pixels")
            counts = image.histogram() if mode in ("L", "P") else []
    except MemoryError:
        raise
    except Exception as error:  # a damaged PNG may raise nearly anything
        _add(audit, "damaged file", where, f"not a whole PNG ({_reason(error, path)})", remake)
        return None
    audit.findings += find_sizes(audit.files.frame.split, where, size, audit.size)
    if not counts:
        problem = f"its mode is {mode}; a mask holds ids in one 8-bit channel"
        _add(audit, "wrong kind of mask", where, problem, f"it may be the color mask under this name: {remake}")
        return None
    ids = {value: count for value, count in enumerate(counts) if count}
    if problem := explain_ids(ids, "train" if as_train_ids else "label"):
        _add(audit, "ids outside the table", where, problem, remake)
        return None
    pixels = [0] * 256
    for value, count in ids.items():
        pixels[value if as_train_ids else int(LABEL_ID_TO_TRAIN_ID[value])] += count
    return pixels


def explain_ids(ids: Mapping[int, int], encoding: str) -> str | None:
    """Say which ids (with their pixels) a mask must not hold and what they look like; None where all are allowed."""
    from cityscapes.ids import ALLOWED_IDS, list_ids, resemblance

    invalid = set(ids) - ALLOWED_IDS[encoding]
    if not invalid:
        return None
    pixels = sum(ids[value] for value in invalid)
    return f"holds {list_ids(invalid)} ({pixels:,} pixels), which are not {encoding} ids{resemblance(ids, encoding)}"


def _reason(error: Exception, path: Path) -> str:
    """Return what a library says about a damaged file, without the file's name, which the finding has already."""
    if not path.exists():
        return "a broken link"
    if path.stat().st_size == 0:
        return "it is empty"
    text = reason(error)
    return "unreadable" if str(path) in text or "cannot identify" in text else shown(text)
