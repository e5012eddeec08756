"""Read YOLO's segmentation text, a file per image, and the names of its classes."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.images import inspect_picture
from cityscapes.files.listing import in_its_form, walk
from cityscapes.files.untrusted import safe_reason, sanitize
from dlv3p.annotations.image_files import ImageIndex, file_text
from dlv3p.annotations.shapes import AnnotatedImage, Label, Shape, box, named_split, outline, split_at_bridges
from dlv3p.parameters.files import parse_yaml


class YoloFolder:
    """Images with YOLO's segmentation text: `labels/` beside `images/`, or the text beside the image.

    `labels` are the `names` of data.yaml, or the lines of classes.txt, obj.names or labels.txt.
    """

    def __init__(self, path: Path, images: ImageIndex) -> None:
        self.problems: list[str] = []
        self._folder, self._images = path if path.is_dir() else path.parent, images
        self.labels = tuple(Label(name) for name in _yolo_names(path))
        self._paths = list(images)
        self._count_of = Counter(path.stem for path in self._paths)
        self.problems += self._strays()

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        for path in self._paths:
            name = self._images.name(path)
            subset = named_split(PurePosixPath(name).parent)
            try:
                yield self._image(path, name, subset)
            except InputError as error:
                yield AnnotatedImage(name, subset=subset, problem=str(error))

    def _image(self, path: Path, name: str, subset: str) -> AnnotatedImage:
        header, _ = inspect_picture(path)
        text = self._text_of(path)
        if text is None:
            return AnnotatedImage(name, header.size, subset=subset)
        if text.parent == self._folder != path.parent and self._count_of[path.stem] > 1:
            raise InputError(f"{text}: fits {self._count_of[path.stem]} images; put it beside the one that it is of")
        shapes = []
        for number, line in enumerate(file_text(text).splitlines(), start=1):
            if line.strip():
                shapes.append(self._shape(line.split(), header.size, f"{text}, line {number}"))
        return AnnotatedImage(name, header.size, tuple(shapes), subset)

    def _text_of(self, path: Path) -> Path | None:
        parts = list(path.parts)
        places = [index for index, part in enumerate(parts) if part == "images"]
        candidates = [path.with_suffix(".txt")]
        for index in places[-1:]:
            candidates.insert(0, Path(*parts[:index], "labels", *parts[index + 1 :]).with_suffix(".txt"))
        candidates.append(self._folder / f"{path.stem}.txt")
        return next((found for found in map(in_its_form, candidates) if found.is_file()), None)

    def _strays(self) -> list[str]:
        """Return a line where texts of labels belong to no image."""
        used = {self._text_of(path) for path in self._paths}
        texts = (path for path in walk(self._folder) if path.suffix == ".txt" and "labels" in path.parts)
        strays = sorted(path for path in texts if path not in used and path.name not in YOLO_NAMES)
        if not strays:
            return []
        return [f"{strays[0]}: is of no image, and so are {len(strays) - 1} more; images and texts have the same names"]

    def _shape(self, words: Sequence[str], size: tuple[int, int], where: str) -> Shape:
        if not re.fullmatch(r"[0-9]{1,4}", words[0]) or int(words[0]) >= len(self.labels):
            raise InputError(f"{where}: class {sanitize(words[0])}; allowed are 0 to {len(self.labels) - 1}")
        label = self.labels[int(words[0])].name
        try:
            values = [float(word) for word in words[1:]]
        except ValueError as error:
            raise InputError(f"{where}: {safe_reason(error)}; expected class x y x y ...") from error
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise InputError(f"{where}: {len(values)} numbers after the class; expected x y pairs, three or more")
        points = outline(values, where)
        if np.abs(points - 0.5).max() > 1:
            raise InputError(f"{where}: coordinates of {np.abs(points).max():g}; expected shares of the image, 0 to 1")
        points = points * size
        if len(values) == 4:
            (x, y), (width, height) = points.tolist()
            return Shape(
                label, (box(x - width / 2, y - height / 2, x + width / 2, y + height / 2, where),), is_box=True
            )
        return Shape(label, split_at_bridges(points), nested=True)


YOLO_NAMES = ("classes.txt", "obj.names", "labels.txt")
"""Files that name the classes of YOLO, a line each."""


def _yolo_names(path: Path) -> list[str]:
    folder = path if path.is_dir() else path.parent
    configs = [path] if path.is_file() else [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*.yml"))]
    for config in configs:
        try:
            content = parse_yaml(file_text(config)) or {}
            names = content.get("names")
        except InputError:
            raise
        except (ValueError, AttributeError) as error:
            raise InputError(f"{config}: not YAML with a list of names ({safe_reason(error)})") from error
        if isinstance(names, list):
            names = dict(enumerate(names))
        if isinstance(names, dict):
            if set(names) != set(range(len(names))):
                raise InputError(f"{config}: names does not number its classes from 0 without gaps; write one for each")
            if content.get("nc", len(names)) != len(names):
                raise InputError(f"{config}: nc is {sanitize(content['nc'])}, and it names {len(names)}; correct one")
            return [str(names[index]) for index in range(len(names))]
    for name in YOLO_NAMES:
        for place in (folder, folder / "labels"):
            if (place / name).is_file():
                names = [line.strip() for line in file_text(place / name).rstrip().splitlines()]
                if "" in names:
                    line = names.index("") + 1
                    raise InputError(f"{place / name}, line {line}: is empty, and ids count lines; name that class")
                return names
    raise MissingInputError(f"{folder}: no data.yaml with names, nor classes.txt; write the names of YOLO's classes")
