"""Read PASCAL VOC 2012 segmentation, with or without the annotations of SBD.

The layout is that of the development kit; masks are palette PNGs whose indices are the classes, 255 the border between
objects. `train_aug` is VOC's train split and the images that SBD annotates beyond VOC: 10,582 in all, none of val.
Lists of images are read in three styles: an id (`2007_000032`), or an image and its mask, with or without a slash in
front (`/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png`).
"""

import re
from pathlib import Path, PurePosixPath

import numpy as np

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.images import decode_ids, read_file
from cityscapes.files.listing import in_its_form
from cityscapes.files.png_chunks import palette_of
from cityscapes.files.untrusted import read_at_most, regular, sanitize
from cityscapes.ids import ids_in
from cityscapes.labels import IGNORE
from dlv3p.data.classes import CLASS_NAMES, Classes, voc_palette
from dlv3p.data.pairs import Pair, PairedSplit, inside
from dlv3p.parameters.data_roots import AUGMENTED_TRAIN, KITS


def read_list(path: Path, root: Path, *, images: str, masks: str) -> list[Pair]:
    """Read a list; a bare id stands for `<root>/<images>/<id>.jpg` and `<root>/<masks>/<id>.png`.

    Blank lines, comments (`#`), trailing blanks and Windows line ends are fine. Raises InputError for a path that
    leaves `root`, for a line of another style and for a duplicate image; MissingInputError if there is no such list.
    """
    try:
        text = regular(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such list of images") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a text file of image names ({error})") from error
    pairs: dict[str, Pair] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        where = f"{path}, line {number}"
        if len(words) == 1 and "/" not in words[0]:
            words = [f"{images}/{words[0]}.jpg", f"{masks}/{words[0]}.png"]
        if len(words) != 2:
            raise InputError(f"{where}: {line.strip()[:80]!r} is neither an id nor an image and its mask")
        image, mask = (_below(root, word, where) for word in words)
        if image.stem in pairs:
            raise InputError(f"{where}: {image.stem} is a duplicate; remove one of the lines")
        pairs[image.stem] = Pair(image.stem, image, mask)
    if not pairs:
        raise MissingInputError(f"{path}: holds no image names")
    return list(pairs.values())


def _below(root: Path, word: str, where: str) -> Path:
    # A leading slash is one of the styles and stands for the root; backslashes belong to no style.
    relative = PurePosixPath(word.removeprefix("/"))
    if relative.is_absolute() or ".." in relative.parts or "\\" in word or ":" in word:
        raise InputError(f"{where}: {word!r} leads out of {root}; name files below it, with forward slashes")
    return inside(root, in_its_form(root / relative))


IMAGES, MASKS, AUGMENTED_MASKS = "JPEGImages", "SegmentationClass", "SegmentationClassAug"
LISTS = "ImageSets/Segmentation"
PUBLISHED_COUNTS = {"train": 1464, "val": 1449, "trainval": 2913, AUGMENTED_TRAIN: 10582}
"""The number of images in the published lists."""


class VocSplit(PairedSplit):
    """One list of the development kit."""

    def read_mask(self, path: Path) -> np.ndarray:
        """Read a mask's ids; raises InputError where its palette shows one of them in a color that is not VOC's."""
        content = read_file(path)
        ids = decode_ids(content, str(path))
        palette = palette_of(content)
        for index in sorted(ids_in(ids)) if palette else ():
            color, usual = tuple(palette[3 * index : 3 * index + 3]), tuple(self.colors[index].tolist())
            if color != usual and len(set(color)) > 1 and (index < self.num_classes or index == IGNORE):
                raise InputError(
                    f"{path}: its palette shows id {index} in the color {color}, PASCAL VOC in {usual}; if the classes "
                    "are your own, make a plain folder with a classes.csv, else store the ids as gray"
                )
        return ids


def open_voc(root: Path, split: str, *, labeled: bool) -> VocSplit:
    """Open one list of the development kit; `split` is its name below ImageSets/Segmentation, or a path to a list.

    A list of bare ids uses the masks of SegmentationClassAug when its name ends in `aug`, else SegmentationClass.
    With `labeled`, images without a mask are refused, and so is a training list that names an image of val.
    """
    kit = find_kit(root)
    _refuse_own_classes(kit)
    pairs = read_voc_list(kit, split)
    _refuse_missing(kit, split, pairs, labeled=labeled)
    if labeled and "train" in Path(split).stem and "trainval" not in Path(split).stem:
        _refuse_leak(kit, split, pairs)
    return VocSplit(kit, split, pairs, Classes(CLASS_NAMES, voc_palette()))


def is_voc(root: Path) -> bool:
    """Return whether a folder is a development kit or holds one."""
    return _kit(root) is not None


def find_kit(root: Path) -> Path:
    """Return the folder with JPEGImages: `root`, or VOC2012 or VOCdevkit/VOC2012 below it."""
    kit = _kit(root)
    if kit is None:
        raise MissingInputError(f"{root}: not PASCAL VOC, which holds {IMAGES}/ and {LISTS}/, or VOCdevkit/VOC2012/")
    return kit


def read_voc_list(kit: Path, split: str) -> list[Pair]:
    """Read the list of a split, in any of the three styles."""
    path = Path(split) if "/" in split else kit / LISTS / f"{split}.txt"
    if not path.is_file() and split == AUGMENTED_TRAIN:
        raise MissingInputError(f"{path}: no such list; the notebook prepare_voc makes it from SBD")
    if not path.is_file():
        known = sorted(entry.stem for entry in (kit / LISTS).glob("*.txt"))
        raise MissingInputError(f"{path}: no such list; choose one of {', '.join(known) or 'none'}")
    masks = AUGMENTED_MASKS if path.stem.replace("_", "").endswith("aug") else MASKS
    return read_list(path, kit, images=IMAGES, masks=masks)


def _kit(root: Path) -> Path | None:
    for folder in (root / kit for kit in KITS):
        if (folder / IMAGES).is_dir() and (folder / LISTS).is_dir():
            return inside(root, folder)
    return None


CLASS_FILES = re.compile(
    r"_?(class(es)?|labels?)([_-]?(names|map|list|colou?rs))?\.(txt|csv|json|names|ya?ml|pbtxt)", re.IGNORECASE
)
"""The names of files in which annotation tools list the classes of one's own, beside JPEGImages/."""


def _refuse_own_classes(kit: Path) -> None:
    """Raise InputError for classes that are not those of PASCAL VOC, whose names the ids would get."""
    usual = [_letters(name) for name in CLASS_NAMES]
    for path in sorted(path for path in kit.iterdir() if CLASS_FILES.fullmatch(path.name) and path.is_file()):
        text = read_at_most(path, 2**20, missing="no such file", too_large="too large for a list of classes")
        content = text.decode("utf-8-sig", "replace")
        if path.suffix.lower() not in (".txt", ".csv", ".names"):  # of a format that is not read
            if all(name in _letters(content) for name in usual[1:]):
                continue
            what = "does not list the classes of PASCAL VOC"
        else:
            names = _listed_classes(content, table=path.suffix.lower() == ".csv")
            if [_letters(name) for name in names if _letters(name) not in IGNORED] == usual:
                continue
            listed = ", ".join(sanitize(name) for name in names[:4]) + (", ..." if len(names) > 4 else "")
            what = f"lists {len(names)} classes of your own ({listed})"
        raise InputError(
            f"{path}: {what} and this layout has the {len(usual)} of PASCAL VOC; make a plain folder: {IMAGES}/ to "
            f"images/<split>/, {MASKS}/ to masks/<split>/ by the lists of {LISTS}/, and the classes to classes.csv "
            "(id,name,red,green,blue)"
        )


IGNORED = ("ignore", "void", "border", "boundary", "unlabeled")


def _listed_classes(content: str, *, table: bool) -> list[str]:
    """Return the names that a file lists, one per line: up to a colon, or in a table after the id."""
    lines = [line.strip() for line in content.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if table:
        return [(line.split(",") + [""])[1].strip() for line in lines[1:]]
    return [line.split(":")[0].strip() for line in lines]


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalpha())


def _refuse_missing(kit: Path, split: str, pairs: list[Pair], *, labeled: bool) -> None:
    for what, paths in (
        ("images", [pair.image for pair in pairs]),
        ("masks", [pair.mask for pair in pairs] if labeled else []),
    ):
        missing = [path.relative_to(kit).as_posix() for path in paths if not path.is_file()]
        if missing:
            remedy = "; the notebook prepare_voc makes them from SBD" if AUGMENTED_MASKS in missing[0] else ""
            raise MissingInputError(
                f"{kit}: {len(missing)} of {len(pairs)} {what} of {split!r} are missing, the first {missing[0]}{remedy}"
            )


def _refuse_leak(kit: Path, split: str, pairs: list[Pair]) -> None:
    if not (kit / LISTS / "val.txt").is_file():
        return
    leaked = sorted({pair.name for pair in read_voc_list(kit, "val")} & {pair.name for pair in pairs})
    if leaked:
        raise InputError(
            f"{split!r} names {len(leaked)} images of val, the first {leaked[0]}; a score on val would mean nothing: "
            "remove them from the list"
        )
