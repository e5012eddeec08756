"""Open annotations of any known format, recognized by their files, together with the images that they belong to."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

from cityscapes.errors import InputError, MissingInputError, ParameterError
from cityscapes.files.listing import walk
from cityscapes.files.untrusted import given_path, sanitize
from dlv3p.annotations.coco import CocoFile
from dlv3p.annotations.cvat import CvatFile
from dlv3p.annotations.image_files import ImageIndex, LabelMeFolder, MaskFolder, mask_folders
from dlv3p.annotations.shapes import AnnotatedImage, Label, named_split
from dlv3p.annotations.yolo import YoloFolder
from dlv3p.parameters.annotations import FORMATS

HEAD = 2**16
MOST_OPENED = 16
"""Files of a folder that are opened to recognize a format."""
ARCHIVES = (".zip", ".gz", ".tar", ".tgz", ".7z", ".rar")
LABELME_SIGNS = (b'"shapes"', b'"imageData"')
SIGNS = (
    ("cvat", ".xml", (b"<annotations",)),
    ("labelme", ".json", LABELME_SIGNS),
    ("coco", ".json", (b'"category_id"', b'"categories"')),
)
"""What files of a format have near their beginning or their end."""
YOLO_NAMES = {"data.yaml", "dataset.yaml", "classes.txt", "obj.names"}
IMAGE_FOLDERS = ("images", "JPEGImages", "img", "imgs")


class Reader(Protocol):
    """Annotations that can be read as often as needed, an image at a time."""

    labels: Sequence[Label]
    problems: Sequence[str]

    def __len__(self) -> int:
        """Return how many images are annotated."""

    def __iter__(self) -> Iterator[AnnotatedImage]:
        """Yield what is said of each image."""


class Source:
    """Annotations of one format, in one file or in several, and the images of `images`."""

    def __init__(self, title: str, format: str, readers: Sequence[Reader], images: ImageIndex) -> None:
        self.title, self.format, self.readers, self.images = title, format, tuple(readers), images
        found: dict[str, Label] = {}
        for label in chain.from_iterable(reader.labels for reader in readers):
            if label.name not in found or not found[label.name].color:
                found[label.name] = label
        self.labels = tuple(found.values())

    def __len__(self) -> int:
        return sum(map(len, self.readers))

    def __iter__(self) -> Iterator[AnnotatedImage]:
        return chain.from_iterable(self.readers)

    @property
    def problems(self) -> list[str]:
        """A line for what is wrong and belongs to no image."""
        return [line for reader in self.readers for line in reader.problems]


def open_source(annotations: str | Path, images: str | Path = "", format: str = "auto", *, without: Path) -> Source:
    """Open annotations, a file or a folder, of a format that is named or recognized.

    The images are looked for below `images`, by default where the annotations are, but not below `without`, where
    results go. Raises MissingInputError where there is nothing, InputError for what is not the format.
    """
    path = given_path(annotations, variables=True)
    if not path.exists():
        raise MissingInputError(f"annotations={str(annotations)!r}: no such file or folder")
    if path.suffix.lower() in ARCHIVES and path.is_file():
        raise InputError(f"annotations={str(annotations)!r}: is an archive; unpack it, and give the folder")
    format = _recognize(path) if format == "auto" else format
    folder = given_path(images, variables=True) if images else _image_folder(path, format)
    left_out = [without, *(_own_mask_folders(path, folder) if format == "masks" else [])]
    index = ImageIndex(folder, [place for place in left_out if place.exists()])
    return Source(path.name, format, _readers(path, format, index), index)


def _readers(path: Path, format: str, images: ImageIndex) -> list[Reader]:
    if format == "labelme":
        return [LabelMeFolder(path)]
    if format == "yolo":
        return [YoloFolder(path, images)]
    if format == "masks":
        return [MaskFolder(path, images)]
    suffix, kind = (".json", CocoFile) if format == "coco" else (".xml", CvatFile)
    if path.is_file():
        return [kind(path)]
    files = sorted(found for found in walk(path) if found.suffix.lower() == suffix)
    if not files:
        raise MissingInputError(f"{path}: holds no {suffix} file, as {format} has")
    return [kind(file, named_split(file.relative_to(path))) for file in files]


def _recognize(path: Path) -> str:
    """Return the format of a file or a folder; raises InputError where it shows none, ParameterError for two."""
    if path.is_file():
        kinds = {".xml": "cvat", ".json": _kind_of_json(path), ".yaml": "yolo", ".yml": "yolo"}
        if found := kinds.get(path.suffix.lower()):
            return found
        raise InputError(f"{path}: annotations are .json, .xml, data.yaml, or a folder; found {path.suffix or 'none'}")
    files = sorted(walk(path), key=lambda found: (len(found.parts), found))
    _refuse_two_formats(path, files)
    suffixes = {found.suffix.lower() for found in files}
    names = {found.name for found in files}
    if ".xml" in suffixes:
        return "cvat"
    if names & YOLO_NAMES or any(_is_below_labels(found, path) for found in files):
        return "yolo"
    if texts := [found for found in files if found.suffix.lower() == ".json"][:MOST_OPENED]:
        return "labelme" if "labelme" in map(_kind_of_json, texts) else "coco"  # one of them may be damaged
    if ".yaml" in suffixes:
        return "yolo"
    if ".png" in suffixes:
        return "masks"
    shown = ", ".join(sanitize(found.name) for found in files[:3]) or "nothing"
    raise InputError(f"{path}: no annotations of a known format; found {shown}. Allowed are {', '.join(FORMATS[1:])}")


def _refuse_two_formats(path: Path, files: Sequence[Path]) -> None:
    """Raise ParameterError where files of two formats lie side by side: those of the other would silently not be read.

    Other files of the same suffix are no sign of a format.
    """
    shown: dict[str, Path] = {}
    for format, suffix, signs in SIGNS:
        opened = [found for found in files if found.suffix.lower() == suffix][:MOST_OPENED]
        if found := next((file for file in opened if any(sign in _both_ends(file) for sign in signs)), None):
            shown[format] = found
    if texts := [found for found in files if found.suffix.lower() == ".txt" and _is_below_labels(found, path)]:
        shown["yolo"] = texts[0]
    if len(shown) > 1:
        seen = " and ".join(f"{format} ({sanitize(file.name)})" for format, file in shown.items())
        raise ParameterError(f"format='auto': {path} holds annotations of two formats, {seen}; name the one to read")


def _is_below_labels(file: Path, path: Path) -> bool:
    return "labels" in file.relative_to(path.parent).parts[:-1]


def _both_ends(path: Path) -> bytes:
    """Return the first and the last bytes of a file, which name its parts whatever lies between."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
        file.seek(max(len(head), path.stat().st_size - HEAD))
        return head + file.read()


def _kind_of_json(path: Path) -> str:
    if path.suffix.lower() != ".json":
        return ""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    return "labelme" if any(sign in head for sign in LABELME_SIGNS) else "coco"


def _image_folder(path: Path, format: str) -> Path:
    folder = path.parent if path.is_file() else path
    if format == "masks":
        places = [place / name for place in (folder, folder.parent) for name in IMAGE_FOLDERS]
        if found := next((place for place in places if place.is_dir()), None):
            return found
        if path not in mask_folders(path):  # as in CamVid, where masks are in trainannot/ and so on
            return path
        raise ParameterError(f"images='': the images of {path} are not in a folder images/ beside it; name theirs")
    return folder.parent if format == "coco" and folder.name == "annotations" else folder


def _own_mask_folders(path: Path, images: Path) -> list[Path]:
    """Return the folders of the masks; raises ParameterError where the images are in one, too: who could tell them?"""
    folders = mask_folders(path)
    if any(images.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise ParameterError(
            f"annotations={str(path)!r}: its images and masks lie in one folder; put the masks into a folder masks/ "
            "there, or name the folder that holds the masks alone"
        )
    return folders
