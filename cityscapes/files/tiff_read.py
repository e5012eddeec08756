"""Read the values of TIFF files as they are stored: any number of channels, 8 to 32 bits, integers or floats.

Pillow reads gray and 8-bit colors; of more bits it keeps the upper eight, and more channels it refuses. Those are left
to tifffile, which the extra `tiff` brings.
"""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cityscapes.errors import InputError, reason, require
from cityscapes.files.untrusted import MAX_PIXELS

if TYPE_CHECKING:
    from PIL import Image

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _ORIENTATION, _SAMPLES = 258, 274, 277


def is_tiff(content: bytes) -> bool:
    """Return whether a file's content is a TIFF, or a BigTIFF."""
    return content.startswith(MAGIC)


def keeps_all(image: "Image.Image") -> bool:
    """Return whether Pillow reads all of a TIFF that it has opened: one page of gray, or of colors of 8 bits."""
    if image.n_frames > 1:
        return False
    tags = image.tag_v2
    bits = tags.get(_BITS, (1,))
    return tags.get(_SAMPLES, 1) == 1 or set(bits if isinstance(bits, tuple) else (bits,)) == {8}


def tiff_shape(path: Path) -> tuple[int, int, int]:
    """Return width, height and channels of a TIFF from its header; raises as `read_values` does."""
    require(f"{path}: a TIFF of more than 8 bits a channel, or of many channels", ("tifffile",), "tiff")
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            return page.imagewidth, page.imagelength, page.samplesperpixel
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise nearly anything
        raise InputError(f"{path}: cannot be read as a TIFF ({reason(error)}); replace the file") from error


def read_values(content: bytes, source: str, *, most_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the values of a TIFF's first image, (H,W) or (H,W,n), channels last however they lie in the file.

    Raises InputError, which `source` begins, for a damaged file, and MachineError without tifffile.
    """
    require(f"{source}: a TIFF of more than 8 bits a channel, or of many channels", ("tifffile",), "tiff")
    import tifffile

    try:
        with tifffile.TiffFile(BytesIO(content)) as file:
            series = file.series[0]
            page = file.pages[0]
            if page.imagewidth * page.imagelength > most_pixels:
                raise ValueError(f"it has {page.imagewidth} x {page.imagelength} pixels, more than {most_pixels}")
            turned = file.pages[0].tags.valueof(_ORIENTATION, default=1) != 1
            values, axes = series.asarray(), series.axes
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file may raise nearly anything
        raise InputError(f"{source}: cannot be read as a TIFF ({reason(error)}); replace the file") from error
    if turned:
        raise InputError(f"{source}: its orientation tag turns it, as its mask does not; store it upright")
    if values.ndim == 3 and axes.index("X") != 1:  # planes of channels, or pages
        values = np.moveaxis(values, 0, -1)
    return np.ascontiguousarray(values)
