"""Read a plain folder of images and masks with a CSV table of its classes: the layout for your own data.

my_data/
  classes.csv                     id,name,red,green,blue: ids from 0, a row each; colors are optional (class_table.py)
  images/train/*.jpg (or .png)    any names, also in subfolders
  data.yaml                       optional: other images than RGB, and masks named by a suffix (data_file.py)
  masks/train/*.png               the same names: one channel of ids (255 is ignored), the same ids in three equal
                                  channels, or the colors of classes.csv
  images/val/ masks/val/ ...      further splits; a split without masks can be predicted, not trained on

Hidden files and folders are left out. Links are followed within the data set. Names are compared whatever their Unicode
form.
"""

import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.channels import PixelRule
from cityscapes.files.images import decode_mask, ids_or_colors, read_file
from cityscapes.files.listing import is_shown_folder, walk
from cityscapes.files.png_chunks import palette_of
from cityscapes.ids import ids_in
from cityscapes.labels import IGNORE
from dlv3p.data.class_table import CLASSES_FILE, ClassTable, read_class_table
from dlv3p.data.data_file import measure, read_data_file
from dlv3p.data.pairs import Pair, PairedSplit, inside, printable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
TIFF_SUFFIXES = (".tif", ".tiff")
"""Also those of images, where `data.yaml` states their channels."""
MASK_SUFFIXES = (".png",)
RGB_MODES = ("RGB", "RGBA")
UNREAD_SUFFIXES = (".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".ppm", ".pgm", ".avif", ".heic", ".jfif", ".npy")
"""The suffixes of images that are not read; they are counted and named."""


class FolderSplit(PairedSplit):
    """One split of a plain folder, whose masks hold ids or the colors of its class table."""

    def __init__(
        self,
        root: Path,
        split: str,
        pairs: Sequence[Pair],
        table: ClassTable,
        rule: PixelRule | None,
        **more: Sequence[str],
    ) -> None:
        super().__init__(root, split, pairs, table.classes, **more)
        self.pixel_rule = rule
        self._table, self.label_rule = table, table.rule
        self.shown: dict[tuple[int, tuple[int, ...]], str] = {}

    @cached_property
    def meaning(self) -> str:
        """What turns stored masks into classes; the first one tells whether they hold colors."""
        path = next((pair.mask for pair in self.pairs if pair.mask.is_file()), None)
        if self.label_rule or path is None:
            return self.label_rule
        with suppress(InputError):  # which whoever reads the mask explains
            return self._table.color_rule if decode_mask(read_file(path), str(path)).mode in RGB_MODES else ""
        return ""

    def read_mask(self, path: Path) -> np.ndarray:
        """Read ids as they are stored, or as `classes.csv` says; in a mask of three channels, look up its colors.

        Without colors in the table, three equal channels are ids. Raises InputError where the colors of a palette, or
        a white that is stored as gray, belong to another class than the ids.
        """
        content = read_file(path)
        mask = ids_or_colors(content, str(path))
        if isinstance(mask, np.ndarray):
            if self.label_rule:
                return self._table.ids(mask, str(path))
            self._refuse_contradiction(mask, palette_of(content), path)
            return mask
        if mask.mode not in RGB_MODES:
            raise InputError(f"{path}: has mode {mask.mode}; a mask holds one channel of ids, or RGB colors")
        pixels = np.asarray(mask.convert("RGB"))
        if self._table.id_of_color:
            return self._ids_of_colors(pixels, path)
        if (pixels != pixels[..., :1]).any():
            raise InputError(
                f"{path}: holds RGB colors and {CLASSES_FILE} has none; add the columns red,green,blue to the table, "
                "or store ids in one channel"
            )
        return self._table.ids(np.ascontiguousarray(pixels[..., 0]), str(path))

    def _refuse_contradiction(self, ids: np.ndarray, palette: bytes, path: Path) -> None:
        """Raise InputError where the colors under which ids are stored are those of other classes."""
        of_color, found = self._table.id_of_color, sorted(ids_in(ids))
        for index in found if palette else ():
            color = tuple(palette[3 * index : 3 * index + 3])
            if len(set(color)) == 1:  # the gray ramp of a palette says nothing
                continue
            if not of_color:
                self.shown.setdefault((index, color), str(path))
            wanted = of_color.get(color, index)
            if wanted != index:
                raise InputError(
                    f"{path}: its palette shows id {index} ({self._called(index)}) in the color {color} of id {wanted} "
                    f"({self._called(wanted)}) in {CLASSES_FILE}; correct the table, or store the ids of the table"
                )
        white = of_color.get((IGNORE, IGNORE, IGNORE), IGNORE)
        if white != IGNORE and IGNORE in found and all((gray, gray, gray) in of_color for gray in found):
            raise InputError(
                f"{path}: holds {IGNORE}, which in one channel marks ignored pixels, and {CLASSES_FILE} shows id "
                f"{white} ({self._called(white)}) in white; store {white} for it, or the mask as RGB colors"
            )

    def _called(self, index: int) -> str:
        return self.class_names[index] if index < self.num_classes else "ignored" if index == IGNORE else "no class"

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
                f"{path}: {unknown.size} pixels have colors that are not in {CLASSES_FILE}, the first RGB "
                f"{color >> 16}, {color >> 8 & 255}, {color & 255}; add a row (id {IGNORE} ignores it) or store ids"
            )
        return ids[places]


def open_folder(root: Path, split: str, *, labeled: bool) -> FolderSplit:
    """Open one split of a plain folder; `labeled` requires a mask for each image and lists missing ones."""
    stated = read_data_file(root)
    suffixes = (*IMAGE_SUFFIXES, *TIFF_SUFFIXES) if stated.channels else IMAGE_SUFFIXES
    listed = _Listing(root, "images", split, suffixes)
    stored = _Listing(root, "masks", split, MASK_SUFFIXES, end=stated.mask_suffix)
    images, masks = listed.files, stored.files
    unread = [text for text in (listed.unread(), stored.unread()) if text]
    if not images:
        more = f"; {'; '.join(unread)}" if unread else ""
        raise MissingInputError(f"{root / 'images' / split}: holds no image ({', '.join(IMAGE_SUFFIXES)}){more}")
    if labeled:
        _refuse_unpaired(root, split, images, masks, unread)
    folder = root / "masks" / split
    names = {key: path.relative_to(listed.folder).with_suffix("").as_posix() for key, path in images.items()}
    end = f"{stated.mask_suffix}.png"
    pairs = [Pair(printable(name), images[key], masks.get(key, folder / f"{name}{end}")) for key, name in names.items()]
    orphans = sorted(map(printable, masks.keys() - images.keys()))
    table = read_class_table(root / CLASSES_FILE)
    return FolderSplit(root, split, pairs, table, stated.rule, orphans=orphans, unread=unread)


def measure_data_file(root: Path, split: str) -> None:
    """Measure, in the images of a split, what `data.yaml` leaves open, and add it to the file; else change nothing."""
    stated = read_data_file(root, measured=False)
    if stated.channels and stated.rule is None:
        listed = _Listing(root, "images", split, (*IMAGE_SUFFIXES, *TIFF_SUFFIXES))
        measure(root, listed.files.values())


def is_folder(root: Path) -> bool:
    """Return whether a folder has this layout."""
    return (root / "images").is_dir()


class _Listing:
    """The images or masks of a split, `files` by name without suffix and in one Unicode form, in the order of paths.

    Raises InputError when two files differ only in the suffix or in the Unicode form of their names.
    """

    def __init__(self, root: Path, kind: str, split: str, suffixes: Sequence[str], *, end: str = "") -> None:
        self.folder = root / kind / split
        if kind == "images" and not self.folder.is_dir():
            found = sorted(entry.name for entry in self.folder.parent.iterdir() if is_shown_folder(entry))
            remedy = (
                f"; annotations, and masks without splits, become such a folder by: dlv3p annotations prepare "
                f"{shlex.quote(str(root))} --output FOLDER"
            )
            raise MissingInputError(
                f"{self.folder}: no such split; {self.folder.parent} holds {', '.join(found) or 'none'}"
                f"{'' if found else remedy}"
            )
        found: dict[str, list[Path]] = defaultdict(list)
        left_out: list[Path] = []
        for path in sorted(walk(self.folder, checked=partial(inside, root))):
            if path.suffix.lower() in suffixes:
                name = path.relative_to(self.folder).with_suffix("").as_posix()
                found[unicodedata.normalize("NFC", name).removesuffix(end)].append(path)
            elif path.suffix.lower() in (*UNREAD_SUFFIXES, *IMAGE_SUFFIXES):
                left_out.append(path)
        for paths in found.values():
            if len(paths) > 1:
                what = "has the same name"
                if paths[0].name != paths[1].name and paths[0].suffix == paths[1].suffix:
                    what = "has the same name in another Unicode form"
                raise InputError(f"{paths[1]}: {paths[0].name} {what}; remove one, or rename it with its mask")
        self.kind, self.files, self._left_out = kind, {name: paths[0] for name, paths in found.items()}, left_out

    def unread(self) -> str:
        """Return what is left out for the type of its files, with the remedy; "" where there is none."""
        if not self._left_out:
            return ""
        counts = Counter(path.suffix.lower() for path in self._left_out)
        listed = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())
        kinds, target = ("images", "PNG or JPEG") if self.kind == "images" else ("masks", "PNG")
        return (
            f"{self.folder} holds {listed} files, the first {printable(self._left_out[0].name)}, which are not read; "
            f"convert them to {target}, which {kinds} must be, or remove them"
        )


def _refuse_unpaired(
    root: Path, split: str, images: dict[str, Path], masks: dict[str, Path], unread: Sequence[str]
) -> None:
    unpaired = {
        f"images without a mask in masks/{split}": sorted(map(printable, images.keys() - masks.keys())),
        f"masks without an image in images/{split}": sorted(map(printable, masks.keys() - images.keys())),
    }
    texts = [
        f"{len(names)} {what}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        for what, names in unpaired.items()
        if names
    ]
    if texts:
        texts += ["an image and its mask have the same name up to the suffix", *unread]
        raise InputError(f"{root}: {'; '.join(texts)}")
