"""Decide how a stored image becomes pixels and a stored mask ids: strictly, and in one place for every reader.

An image becomes 8-bit RGB, or the channels of a rule that its data set states (`channels.py`). It is turned as its
EXIF orientation says; 16-bit gray is scaled to 8 bits (divided by 257 and rounded); CMYK of a JPEG is taken as inverted
only where Adobe's marker says so; alpha is ignored. A mask is a PNG whose ids are taken as they are stored, whatever
the bits of a pixel; one that EXIF would turn is refused. A bad file is a one-line error that names it.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

from cityscapes.errors import InputError, MachineError, MissingInputError, reason, require
from cityscapes.files.channels import ChannelImage, PixelRule
from cityscapes.files.png_chunks import has_damaged_chunk, may_be_turned
from cityscapes.files.tiff_read import is_tiff, keeps_all, read_values, tiff_shape
from cityscapes.files.untrusted import MAX_PIXELS, regular

FORMATS = ("PNG", "JPEG")
"""The formats of data sets; Pillow's other decoders never see an untrusted file."""

PICTURE_FORMATS = (*FORMATS, "WEBP", "AVIF", "TIFF", "HEIF")
"""The formats of pictures that are only predicted; the last one needs the package pillow-heif."""

RULE = 2
"""The number of these rules. It belongs to the key of whatever is made from decoded images, and grows when a stored
image becomes other pixels."""

TOO_LARGE = f"more than {MAX_PIXELS >> 20} million pixels; cut the image and its mask into tiles"
"""What is wrong with an image or a mask above the limit, and the remedy."""

NEARLY_BLACK, FEWEST_LEVELS = "nearly black", 64
"""What is said of an image of 16 bits that reaches none of these levels of 256: its values fill at most 14 bits."""
STRETCH = "stretch the values to 0 to 65535, or train with a data.yaml of channels and value_range"
"""What to do with such images."""

_ORIENTATION = 0x0112
_HEIF_BRANDS, _START = (b"heic", b"heix", b"hevc", b"hevx"), 64
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_limit_lock = threading.RLock()
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError)

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # of a limit above ours
warnings.filterwarnings("ignore", message="Corrupt EXIF data")  # viewers ignore it too


class Header(NamedTuple):
    """What an image's header says: (width, height) as it is shown, mode as it is stored, and whether EXIF turns it.

    The mode of colors of 16 bits says so, which Pillow's does not: "RGB, 16 bits".
    """

    size: tuple[int, int]
    mode: str
    turned: bool


def read_image(
    path: Path,
    *,
    formats: tuple[str, ...] = FORMATS,
    most_pixels: int = MAX_PIXELS,
    rule: PixelRule | None = None,
) -> Image.Image | ChannelImage:
    """Read an image as RGB; raises InputError for a file that cannot be decoded, MissingInputError for none.

    A caller that knows its memory may take more formats, and more pixels, than data sets do. With a `rule`, stored
    values become the channels that it states.
    """
    return decode_image(path, str(path), formats=formats, most_pixels=most_pixels, rule=rule)


def decode_image(
    file: Path | BytesIO,
    source: str,
    *,
    remedy: str = "replace the file",
    formats: tuple[str, ...] = FORMATS,
    most_pixels: int = MAX_PIXELS,
    rule: PixelRule | None = None,
) -> Image.Image | ChannelImage:
    """Decode an image as RGB by the rules above; raises as `read_image` does, and `source` begins the message."""
    if rule is not None:
        values, turn = stored_values(file, source, remedy=remedy, most_pixels=most_pixels)
        decoded = rule.image(values, source)
        return decoded if turn is None else decoded.transpose(turn)
    image = _load(file, source, formats, remedy, most_pixels)
    orientation = _orientation(image)
    image = as_rgb(image, source)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def stored_values(
    file: Path | BytesIO, source: str, *, remedy: str = "replace the file", most_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, Image.Transpose | None]:
    """Return an image's values as they are stored, (H,W) or (H,W,n), and how EXIF turns it; errors as for a rule."""
    content = read_file(file) if isinstance(file, Path) else file.getvalue()
    if is_tiff(content) and not _keeps_all(BytesIO(content)):
        return read_values(content, source, most_pixels=most_pixels), None
    image = _load(BytesIO(content), source, (*FORMATS, "TIFF"), remedy, most_pixels)
    if image.mode in ("P", "PA"):
        raise InputError(f"{source}: has a palette, whose indices are no values; store it as gray or in colors")
    values = np.asarray(image)
    if image.format == "PNG" and content[24] == 16 and not image.mode.startswith("I"):
        values = _wide_values(content, source)
    return values.astype(np.uint8) * 255 if image.mode == "1" else values, _TURNS.get(_orientation(image))


def _wide_values(content: bytes, source: str) -> np.ndarray:
    """Return the values of a PNG of colors of 16 bits, of which Pillow keeps eight."""
    from cityscapes.files.png_read import decode_wide_png  # loads numba, which other images do not need

    values = decode_wide_png(content)
    if values is None:
        raise InputError(
            f"{source}: is a PNG of 16-bit colors that is interlaced or has {TOO_LARGE}, or store it as TIFF"
        )
    return values


def _keeps_all(file: Path | BytesIO) -> bool:
    """Return whether Pillow reads all bits and channels of a TIFF."""
    try:
        with _without_limit(), Image.open(file, formats=("TIFF",)) as image:
            return keeps_all(image)
    except _DAMAGED:
        return False


def as_rgb(image: Image.Image, source: str = "image") -> Image.Image:
    """Return an opened image as RGB by the rules above, but as it is stored; raises InputError for other numbers."""
    if image.mode.startswith("I"):  # 16-bit gray; older Pillow calls that of a PNG file "I"
        if image.mode == "I" and image.format == "TIFF":  # 32 bits, in which 16 need not be the range
            raise InputError(f"{source}: has 32 bits a pixel, whose range is unknown; scale it to 8 or 16 bits")
        pixels = np.asarray(image).astype(np.int64)
        if pixels.size and not 0 <= pixels.min() <= pixels.max() < 2**16:
            raise InputError(f"{source}: has mode {image.mode} and values beyond 16 bits; scale it to 8 bits")
        image = Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise InputError(f"{source}: has mode F, whose range is unknown; scale it to 8 bits")
    elif image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow has taken it as inverted
    return image.convert("RGB")


def inspect_picture(path: Path, *, any_channels: bool = False) -> tuple[Header, tuple[str, ...]]:
    """Return the header of a picture of any of `PICTURE_FORMATS` and any size, and what of it is not looked at.

    With `any_channels` also that of a TIFF that Pillow does not read, and no channel is left out. Raises as
    `read_image` does.
    """
    try:
        if any_channels and is_tiff(_start(regular(path))) and not _keeps_all(path):
            return tiff_header(path), ()
        with _without_limit(), Image.open(regular(path), formats=_readable(PICTURE_FORMATS, path)) as image:
            alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
            frames = getattr(image, "n_frames", 1)
            header = inspect_image(image)
            cut = header.mode != image.mode
            others = f"frames 2 to {frames}" if frames > 2 else "frame 2"
            ignored = ("alpha",) * alpha + (others,) * (frames > 1) + ("the lower 8 bits of its colors",) * cut
            return header, ignored if not any_channels else ignored[alpha : len(ignored) - cut]
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file") from error
    except InputError:
        raise
    except UnidentifiedImageError as error:
        if is_tiff(_start(path)):
            raise InputError(
                f"{path}: is a TIFF of other channels or bits than gray or RGB images have; convert it to 8 bits, or "
                "train with a data.yaml of channels"
            ) from error
        known = " or ".join(PICTURE_FORMATS)
        raise InputError(
            f"{path}: cannot be read as an image (it is not a {known} file); convert or replace it"
        ) from error
    except MachineError as error:  # a HEIC image without its package, which is not damaged
        raise InputError(f"{path}: {error}") from error
    except _DAMAGED as error:
        raise InputError(f"{path}: cannot be read as an image ({reason(error)}); replace the file") from error


def tiff_header(path: Path) -> Header:
    """Return what the header of a TIFF says that Pillow does not read; raises as `read_image` does."""
    width, height, channels = tiff_shape(path)
    return Header((width, height), f"{channels} channels", False)


def inspect_image(image: Image.Image) -> Header:
    """Return what the header of an opened image says, without decoding its pixels."""
    orientation = _orientation(image)
    stored = (image.tag_v2[256], image.tag_v2[257]) if image.format == "TIFF" else image.size  # Pillow turns it itself
    size = stored[::-1] if orientation in (5, 6, 7, 8) else stored
    cut = not image.mode.startswith("I") and any("16" in str(tile[3]) for tile in image.tile)
    return Header(size, f"{image.mode}, 16 bits" if cut else image.mode, orientation in _TURNS)


def explain_nearly_black(header: Header, image: Image.Image) -> str:
    """Explain an image of 16 bits, decoded as RGB, whose values fill far fewer; "" for any other image."""
    highest = max(high for _, high in image.getextrema()) if "16" in header.mode or header.mode == "I" else 255
    if highest >= FEWEST_LEVELS:
        return ""
    return f"it comes out {NEARLY_BLACK}: its 16-bit values reach {highest} of the levels 0 to 255"


def differ_by_turn(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """Return whether the sizes of a mask and an image are those of one picture before and after a quarter turn."""
    return mask == image[::-1] and mask != image


TURNED = "they differ by a quarter turn, probably an EXIF orientation, which is applied to images, never to masks"
"""What to say about such sizes."""


def read_ids(path: Path) -> np.ndarray:
    """Read a mask's ids, uint8 (H,W); those of a palette image are its indices, never its colors.

    Raises InputError for an image of more channels, and for a damaged one; MissingInputError for none.
    """
    return decode_ids(read_file(path), str(path))


def decode_ids(content: bytes, source: str) -> np.ndarray:
    """Decode the ids of a mask's file as `read_ids` does; `source` begins the messages."""
    found = ids_or_colors(content, source)
    if isinstance(found, Image.Image):
        raise InputError(f"{source}: has mode {found.mode}; a mask is a PNG with one channel of ids (mode L or P)")
    return found


def ids_or_colors(content: bytes, source: str) -> np.ndarray | Image.Image:
    """Decode a mask's file: its ids as they are stored, uint8 (H,W), or the image where it has more channels."""
    from cityscapes.files.png_read import decode_gray_png  # loads numba, which images do not need

    if may_be_turned(content) and (orientation := _orientation(decode_mask(content, source))) in _TURNS:
        raise InputError(
            f"{source}: has the EXIF orientation {orientation}, and masks are read as they are stored; save it "
            "upright, without EXIF"
        )
    ids = decode_gray_png(content, bits=8, palette=True)  # fast, and None for what is rarer
    if ids is not None:
        return ids
    image = decode_mask(content, source)
    ids = stored_ids(image)
    return image if ids is None else ids


def decode_mask(content: bytes, source: str) -> Image.Image:
    """Decode a mask's PNG as it is stored, whatever its mode; raises InputError."""
    if content.startswith(b"\xff\xd8"):
        raise InputError(f"{source}: is a JPEG, which changes ids when it compresses; store the mask as PNG")
    image = _load(BytesIO(content), source, ("PNG",), "replace the file")
    image.info["bits"] = content[24]  # of a channel, from the header
    return image


def stored_ids(mask: Image.Image) -> np.ndarray | None:
    """Return the ids of a mask from `decode_mask` as they are stored, uint8 (H,W); None where it has more channels."""
    if mask.mode not in ("1", "L", "P"):
        return None
    pixels = np.array(mask).astype(np.uint8, copy=False)
    # Pillow stretches gray of two and four bits to 255, which is right for images.
    return pixels // (255 // (2 ** mask.info["bits"] - 1)) if mask.mode == "L" else pixels


def read_file(path: Path) -> bytes:
    """Return a file's bytes; raises MissingInputError where there is none, InputError where it cannot be read."""
    try:
        return regular(path).read_bytes()
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an image ({reason(error)}); replace the file") from error


def _load(
    file: Path | BytesIO, source: str, formats: tuple[str, ...], remedy: str, most_pixels: int = MAX_PIXELS
) -> Image.Image:
    try:
        with _without_limit() if most_pixels > MAX_PIXELS else nullcontext():
            opened = regular(file) if isinstance(file, Path) else file
            image = Image.open(opened, formats=_readable(formats, opened))
        if image.width * image.height > most_pixels:
            raise InputError(f"{source}: has {image.width} x {image.height} pixels, {TOO_LARGE}")
        image.load()
        if image.format == "PNG" and has_damaged_chunk(file):  # Pillow may have read other pixels, without an error
            raise InputError(f"{source}: cannot be read as an image (a chunk has a wrong checksum); {remedy}")
    except FileNotFoundError as error:
        raise MissingInputError(f"{source}: no such file") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{source}: has {TOO_LARGE}") from error
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"{source}: cannot be read as an image (it is not a {' or '.join(formats)} file); {remedy}"
        ) from error
    except MachineError as error:
        raise InputError(f"{source}: {error}") from error
    except _DAMAGED as error:
        raise InputError(f"{source}: cannot be read as an image ({reason(error)}); {remedy}") from error
    return image


def _readable(formats: tuple[str, ...], file: Path | BytesIO) -> tuple[str, ...]:
    """Return the formats that Pillow can read here: HEIF, that of phones, is one once a file is of that kind.

    Whatever its name; raises MachineError where pillow-heif is not installed, or cannot be imported.
    """
    if "HEIF" not in formats:
        return formats
    start = _start(file)
    if start[4:8] == b"ftyp" and any(brand in start for brand in _HEIF_BRANDS):
        require("a HEIC image", ("pillow_heif",), "heic")
        try:
            from pillow_heif import register_heif_opener
        except ImportError as error:  # it is there, but its library does not load
            raise MachineError(
                f"a HEIC image needs pillow_heif, which cannot be imported ({reason(error)}); install it again with: "
                "pip install --force-reinstall pillow-heif"
            ) from error

        register_heif_opener()
    return tuple(name for name in formats if name != "HEIF" or name in Image.OPEN)


def _start(file: Path | BytesIO) -> bytes:
    """Return the first bytes of a file, which tell its kind."""
    if isinstance(file, BytesIO):
        return file.getvalue()[:_START]
    with open(file, "rb") as opened:
        return opened.read(_START)


@contextmanager
def _without_limit() -> Iterator[None]:
    """Lift Pillow's own limit of pixels, which a header must pass, for a caller with a limit of its own."""
    with _limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, as stored, where there is none or viewers could not read it either."""
    with suppress(Exception):  # damaged metadata may raise nearly anything
        # The method of the base class: that of PNG files would decode the pixels.
        return int(Image.Image.getexif(image).get(_ORIENTATION, 1))
    return 1
