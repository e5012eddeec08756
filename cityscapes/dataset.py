"""Read the images and masks of one split, one at a time and without torch: the base class, and Cityscapes."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.channels import ChannelImage, PixelRule
from cityscapes.files.images import TURNED, differ_by_turn, read_ids, read_image
from cityscapes.files.untrusted import regular
from cityscapes.ids import explain_mask
from cityscapes.labels import CLASS_NAMES, LABEL_ID_TO_TRAIN_ID, NUM_CLASSES, TRAIN_ID_TO_COLOR
from cityscapes.layout import (
    IMAGE_SUFFIX,
    LABEL_IDS_SUFFIX,
    POLYGONS_SUFFIX,
    TRAIN_IDS_SUFFIX,
    Frame,
    find_frames,
    list_frames_without_image,
    list_misnamed_images,
)


class Split(ABC):
    """The images of one split and, where they exist, their masks, by index; every kind of data set subclasses this.

    `root` and `split` say what was opened. Classes are numbered 0 to `num_classes` - 1 as in `class_names`; `colors`,
    uint8 (256,3), is RGB by class, black where there is none.
    """

    root: Path | str
    split: str
    class_names: Sequence[str]
    colors: np.ndarray
    num_classes: int

    orphans: Sequence[str] = ()
    """The names of masks that belong to no image."""

    unread: Sequence[str] = ()
    """A line for each folder with files of types that are not read, with the remedy."""

    fingerprint: str = ""
    """A digest of the content, where a data set keeps one; "" for plain files, identified by size and time."""

    label_rule: str = ""
    """What turns the values of stored masks into classes; "" where they are ids. It belongs to every fingerprint."""

    pixel_rule: PixelRule | None = None
    """How stored values become the channels of images; None for images that become RGB."""

    source_fingerprint: str = ""
    """The data fingerprint of the files that a packed data set was made from; "" for those files themselves."""

    shown: Mapping[tuple[int, tuple[int, ...]], str] = MappingProxyType({})
    """The ids and the colors in which palettes have shown them so far, where no table says which are right, and the
    first mask of each."""

    part: str = ""
    """A digest of the names of the images, of what is only a part of a split; "" for a whole one."""

    @property
    def meaning(self) -> str:
        """What turns stored masks into classes, colors too, as far as masks hold them; a network is trained by it."""
        return self.label_rule

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """Return the name of an image, unique in its split and without a suffix."""

    def group(self, index: int) -> str:
        """Return what an image belongs to together with others, such as a city, a video or a patient: its folder."""
        return self.image_path(index).parent.name

    @abstractmethod
    def image_path(self, index: int) -> Path:
        """Return the path of an image; in a packed data set it is only a name, not a file."""

    @abstractmethod
    def mask_path(self, index: int) -> Path:
        """Return the path of a mask, in any format; raises MissingInputError where there is none."""

    @abstractmethod
    def has_mask(self, index: int) -> bool:
        """Return whether an image has a mask."""

    @abstractmethod
    def mask(self, index: int) -> np.ndarray:
        """Read a mask: uint8 (H,W) of classes, 255 where ignored; raises InputError for any other value."""

    def image(self, index: int) -> Image.Image | ChannelImage:
        """Read an image as RGB, or by `pixel_rule`; raises InputError for a file that cannot be decoded."""
        return read_image(self.image_path(index), rule=self.pixel_rule)

    def image_bytes(self, index: int) -> bytes:
        """Return the content of an image's file; raises OSError when it cannot be read."""
        return regular(self.image_path(index)).read_bytes()

    def pair(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """Read an image and its mask; raises InputError when their sizes differ."""
        image, mask = self.image(index), self.mask(index)
        if image.size != mask.shape[::-1]:
            turned = f"; {TURNED}" if differ_by_turn(mask.shape[::-1], image.size) else ""
            raise InputError(
                f"{self.mask_path(index)}: has {mask.shape[1]} x {mask.shape[0]} pixels and its image "
                f"{image.width} x {image.height}; both must have the same size{turned}"
            )
        return image, mask


class CityscapesSplit(Split):
    """One split below a Cityscapes root; frames are in the order of a drive.

    A mask is the one generated from the polygons (below `generated`) where there is one, else the provided
    `labelTrainIds.png`, else the provided `labelIds.png` through the label table; of a frame without polygons, a
    generated one comes last. `foreign` are the cities whose
    generated masks are those of another data set with frames of the same names.
    """

    class_names: Sequence[str] = CLASS_NAMES
    colors: np.ndarray = TRAIN_ID_TO_COLOR
    num_classes: int = NUM_CLASSES

    def __init__(
        self,
        root: Path,
        split: str,
        frames: Sequence[Frame],
        *,
        generated: Path,
        foreign: Collection[str] = (),
    ) -> None:
        self.root, self.split, self.frames = root, split, frames
        self.generated, self.foreign = generated, foreign

    @cached_property
    def unread(self) -> tuple[str, ...]:
        """A line for images under other names or of other types, and one for annotated frames without an image."""
        lines, images = [], f"leftImg8bit/{self.split}"
        if misnamed := list_misnamed_images(self.root, self.split):
            lines.append(
                f"{self.root / images} holds {len(misnamed)} images that are not read, the first {misnamed[0].name}; "
                f"they must be PNG files named <city>/<city>_<seq>_<frame>{IMAGE_SUFFIX}"
            )
        if bare := list_frames_without_image(self.root, self.split, self.frames):
            lines.append(
                f"{self.root}: {len(bare)} annotated frames of {self.split!r} are left out, the first {bare[0].name}, "
                f"because they have no image in {images}; copy the images again if they should count"
            )
        return tuple(lines)

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        """Return a frame's name, such as `aachen_000000_000019`."""
        return self.frames[index].name

    def image_path(self, index: int) -> Path:
        """Return the path of a frame's image."""
        return self.frames[index].image(self.root)

    def mask_path(self, index: int) -> Path:
        """Return the path of a frame's mask, the first of three; raises MissingInputError where there is none."""
        frame = self.frames[index]
        for path in self._mask_paths(frame):
            if path.is_file():
                return path
        raise MissingInputError(
            f"{frame.name}: no mask for this {self.split} image in {self.generated} nor in {self.root / 'gtFine'}; "
            f"make them with: python cityscapes/generate_gt.py --root {self.root} --splits {self.split}"
        )

    def has_mask(self, index: int) -> bool:
        """Return whether the frame has a mask in any of the three places."""
        return any(path.is_file() for path in self._mask_paths(self.frames[index]))

    def mask(self, index: int) -> np.ndarray:
        """Read a mask: uint8 (H,W) train ids, 255 where ignored; raises InputError for ids that are not train ids."""
        path = self.mask_path(index)
        ids = read_ids(path)
        if path.name.endswith(LABEL_IDS_SUFFIX):
            return np.take(LABEL_ID_TO_TRAIN_ID, ids)
        if problem := explain_mask(ids):
            raise InputError(f"{path}: {problem}; make train-id masks with: python cityscapes/generate_gt.py")
        return ids

    def _mask_paths(self, frame: Frame) -> tuple[Path, ...]:
        provided = tuple(frame.annotation(self.root, suffix) for suffix in (TRAIN_IDS_SUFFIX, LABEL_IDS_SUFFIX))
        generated = frame.generated(self.generated, TRAIN_IDS_SUFFIX)
        if frame.city in self.foreign:
            return provided
        if not frame.annotation(self.root, POLYGONS_SUFFIX).is_file():  # which it would have been made from
            return (*provided, generated)
        return (generated, *provided)


def open_cityscapes(root: Path, split: str, *, generated: Path, foreign: Collection[str] = ()) -> CityscapesSplit:
    """Open one split below a Cityscapes root; raises MissingInputError where it has no image."""
    return CityscapesSplit(root, split, find_frames(root, split), generated=generated, foreign=foreign)
