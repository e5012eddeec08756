"""A plain folder of images and masks: the layout for data of one's own.

my_data/
  classes.csv                     id,name,red,green,blue: ids from 0, a row each; colours may be left out
  images/train/*.jpg (or .png)    any names, sub-folders as well
  masks/train/*.png               the same names: one channel of ids (255 is ignored), or the colours of classes.csv
  images/val/ masks/val/ ...      further splits; a split without masks can be predicted, not trained on
"""

from collections import defaultdict
from pathlib import Path

import numpy as np

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.images import open_image
from cityscapes.labels import IGNORE
from dlv3p.data.class_table import read_class_table
from dlv3p.data.links import inside
from dlv3p.data.pairs import Pair, PairedSplit, printable

CLASSES_FILE = "classes.csv"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class FolderSplit(PairedSplit):
    """One split of a plain folder; `labelled` asks for a mask of each image and lists those that lack one."""

    def __init__(self, root: Path, split: str, *, labelled: bool) -> None:
        images, masks = _files(root, "images", split, IMAGE_SUFFIXES), _files(root, "masks", split, (".png",))
        if not images:
            raise MissingInputError(f"{root / 'images' / split}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
        if labelled:
            _refuse_unpaired(root, split, images, masks)
        folder = root / "masks" / split
        pairs = [Pair(printable(name), path, masks.get(name, folder / f"{name}.png")) for name, path in images.items()]
        self._table = read_class_table(root / CLASSES_FILE)
        strays = sorted(map(printable, masks.keys() - images.keys()))
        super().__init__(root, split, pairs, self._table.classes, strays=strays)

    def read_mask(self, path: Path) -> np.ndarray:
        """Read ids as they are stored, or find them by the colours of `classes.csv` in a mask of three channels."""
        image = open_image(path)
        if image.mode in ("L", "P"):
            return np.array(image)
        if image.mode not in ("RGB", "RGBA"):
            raise InputError(f"{path}: has mode {image.mode}; a mask holds one channel of ids, or RGB colours")
        return self._ids_of_colors(np.asarray(image.convert("RGB")), path)

    def _ids_of_colors(self, pixels: np.ndarray, path: Path) -> np.ndarray:
        by_code = {
            red << 16 | green << 8 | blue: index for (red, green, blue), index in self._table.id_of_color.items()
        }
        codes = np.array(sorted(by_code))
        ids = np.array([by_code[code] for code in codes], np.uint8)
        wanted = (pixels.astype(np.int32) << np.array([16, 8, 0])).sum(axis=2)
        places = np.searchsorted(codes, wanted).clip(max=len(codes) - 1)
        unknown = wanted[codes[places] != wanted]
        if unknown.size:
            color = int(unknown[0])
            raise InputError(
                f"{path}: {unknown.size} pixels have colours that {CLASSES_FILE} does not name, the first RGB "
                f"{color >> 16}, {color >> 8 & 255}, {color & 255}; add a row (id {IGNORE} ignores it) or store ids"
            )
        return ids[places]


def is_folder(root: Path) -> bool:
    """Say whether a folder has this layout."""
    return (root / "images").is_dir()


def _files(root: Path, kind: str, split: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """List files by name without suffix, sorted; raises InputError when two differ in the suffix alone."""
    folder = root / kind / split
    if kind == "images" and not folder.is_dir():
        found = sorted(entry.name for entry in folder.parent.iterdir() if entry.is_dir())
        raise MissingInputError(f"{folder}: no such split; {folder.parent} holds {', '.join(found) or 'none'}")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            found[path.relative_to(folder).with_suffix("").as_posix()].append(inside(root, path))
    for paths in found.values():
        if len(paths) > 1:
            raise InputError(f"{paths[1]}: {paths[0].name} has the same name; remove one, or rename it with its mask")
    return {name: paths[0] for name, paths in found.items()}


def _refuse_unpaired(root: Path, split: str, images: dict[str, Path], masks: dict[str, Path]) -> None:
    lonely = {
        f"images without a mask in masks/{split}": sorted(map(printable, images.keys() - masks.keys())),
        f"masks without an image in images/{split}": sorted(map(printable, masks.keys() - images.keys())),
    }
    texts = [
        f"{len(names)} {what}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        for what, names in lonely.items()
        if names
    ]
    if texts:
        raise InputError(f"{root}: {'; '.join(texts)}; an image and its mask have the same name up to the suffix")
