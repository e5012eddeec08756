"""Write animations of predictions: `compose_frame` lays out one frame, `write_gif` writes frames as GIF or WebP.

A GIF frame has at most 256 colors. All frames share one color table: first the flat colors (classes, text, background),
which are reproduced exactly, then the colors that suit the photographs best. So nothing flickers between frames.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np

from cityscapes.errors import InputError, ParameterError
from cityscapes.files.atomic import open_atomically
from cityscapes.labels import CLASS_NAMES, TRAIN_ID_TO_COLOR
from dlv3p.pictures.regions import name_regions
from dlv3p.pictures.video import open_video, write_video
from dlv3p.pictures.visualize import (
    ERROR_COLORS,
    ERROR_NAMES,
    colorize,
    column_width,
    error_map,
    ignored_color,
    legend,
    overlay,
    with_footer,
    with_legend,
)

PANELS = ("image", "prediction", "overlay", "truth", "errors")
"""The panels of a frame; the last two need the truth."""

_SAMPLED_FRAMES = 16
_SAMPLED_PIXELS = 50_000  # of these frames together; twenty times as many take 27 times as long for 3 % less error
_TABLE_SIZE = 255  # the 256th index is transparent: it marks pixels that do not change
_FLAT_COLORS = 96


def compose_frame(
    image: np.ndarray,
    prediction: np.ndarray,
    *,
    truth: np.ndarray | None = None,
    width: int = 960,
    panels: Sequence[str] = (),
    columns: int | None = None,
    class_names: Sequence[str] = CLASS_NAMES,
    colors: np.ndarray = TRAIN_ID_TO_COLOR,
    alpha: float = 0.5,
    title: str = "",
    footer: str = "",
    name_classes: bool = False,
) -> np.ndarray:
    """Lay out one frame, uint8 (h, `width`, 3): titled panels in a grid above a legend of the classes.

    `image` is uint8 (H, W, 3), `prediction` and `truth` are train ids (H, W). `panels` names what to show, of `PANELS`;
    by default everything but the errors. `alpha` is the share of class color in the overlay. `title` follows the name
    of the first panel, and `footer` says in small print what the frame is of. With `name_classes`, the classes are
    outlined and named. Raises ParameterError for an unknown panel, and for one that needs a missing truth.
    """
    panels = tuple(panels) or ("image", "prediction", "overlay", *(("truth",) if truth is not None else ()))
    for name in panels:
        if name not in PANELS:
            raise ParameterError(f"panels: {name!r} is unknown; choose from {', '.join(PANELS)}")
        if name in ("truth", "errors") and truth is None:
            raise ParameterError(f"panels: {name!r} needs the truth, which this data lacks; leave it out")
    columns = columns or (2 if len(panels) % 2 == 0 else len(panels))

    def named(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if not name_classes:
            return picture
        return name_regions(picture, labels, class_names, width=column_width(width, columns))

    draw = {
        "image": lambda: image,
        "prediction": lambda: named(colorize(prediction, colors), prediction),
        "overlay": lambda: named(overlay(image, prediction, alpha=alpha, colors=colors), prediction),
        "truth": lambda: named(colorize(truth, colors), truth),
        "errors": lambda: error_map(prediction, truth),
    }
    titles = [f"{name} · {title}" if title and index == 0 else name for index, name in enumerate(panels)]
    pictures = {shown: draw[name]() for shown, name in zip(titles, panels, strict=True)}
    if "truth" in panels:
        class_names, colors = (*class_names, "ignored"), np.vstack([colors[: len(class_names)], ignored_color(colors)])
    frame = with_legend(pictures, class_names, colors, width=width, columns=columns)
    if "errors" in panels:
        frame = np.concatenate([frame, legend(ERROR_NAMES, ERROR_COLORS, width=width)])
    return with_footer(frame, footer)


LARGEST = {".gif": 2**16 - 1, ".webp": 2**14 - 1}
"""The most pixels per side that each format allows."""


def write_gif(frames: Iterable[np.ndarray], path: str | Path, *, seconds_per_frame: float = 0.5) -> float:
    """Write frames uint8 (H, W, 3) of one size as a looping animation: GIF, or WebP if `path` ends in `.webp`.

    Frames may come from a generator. The same frames give the same bytes. In a GIF, a repeated frame extends the
    duration of the one before it. Return the seconds that a frame stays: a GIF counts in hundredths, a WebP in
    thousandths. Raises InputError for no frames and for frames of different sizes.
    """
    path = Path(path)
    if path.suffix.lower() not in LARGEST:
        raise ParameterError(f"{path}: unknown format; end the name in .gif or .webp")
    if not seconds_per_frame > 0:
        raise ParameterError(f"seconds_per_frame: {seconds_per_frame} is not allowed; give more than 0")
    frames = _checked(frames, path)
    is_gif = path.suffix.lower() == ".gif"
    unit = 10 if is_gif else 1  # milliseconds
    duration = max(unit, unit * round(1000 * seconds_per_frame / unit))
    options = {"duration": duration, "loop": 0}
    if is_gif:
        sample = list(islice(frames, _SAMPLED_FRAMES))
        table = _shared_table(sample)
        frames = (_indices(frame, table) for frame in chain(sample, frames))
        # Pillow accepts indices into one table for the whole file as gray frames with a palette.
        options |= {"palette": _packed(table), "optimize": True, "transparency": _TABLE_SIZE}
    else:
        options |= {"quality": 90, "method": 4}
    _encode(frames, path, options)
    return duration / 1000


def write_animation(frames: Iterable[np.ndarray], path: str | Path, *, seconds_per_frame: float = 0.5) -> float:
    """Write frames as `write_gif` does, or as H.264 if `path` ends in `.mp4`, which needs the extra `video`.

    Return the seconds that a frame stays.
    """
    if Path(path).suffix.lower() != ".mp4":
        return write_gif(frames, path, seconds_per_frame=seconds_per_frame)
    write_video(frames, path, rate=1 / seconds_per_frame)
    return seconds_per_frame


def animation_size(path: Path) -> tuple[int, int]:
    """Return the number of frames and the width of an animation, read back from its file."""
    from PIL import Image

    if path.suffix.lower() == ".mp4":
        video = open_video(path)
        return len(video.ticks), video.size[1]
    with Image.open(path) as animation:
        return animation.n_frames, animation.width


def _encode(frames: Iterable[np.ndarray], path: Path, options: dict) -> None:
    import imageio.v3 as imageio

    content = io.BytesIO()
    with imageio.imopen(content, "w", plugin="pillow", extension=path.suffix.lower()) as animation:
        for frame in frames:
            animation.write(frame, is_batch=False, **options)
    with open_atomically(path) as file:
        file.write(content.getbuffer())


def _checked(frames: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    size = None
    for number, frame in enumerate(frames, start=1):
        size = size or frame.shape
        if max(frame.shape[:2]) > LARGEST[path.suffix.lower()]:
            raise InputError(
                f"{path}: frame {number} has {frame.shape[1]}x{frame.shape[0]} pixels, more than the "
                f"{LARGEST[path.suffix.lower()]} per side that the format allows; make it smaller"
            )
        if frame.shape != size:
            raise InputError(
                f"{path}: frame {number} has {frame.shape[1]}x{frame.shape[0]} pixels, frame 1 {size[1]}x{size[0]}; "
                "all frames must have the same size"
            )
        yield frame
    if size is None:
        raise InputError(f"{path}: no frames to write; choose at least one image")


def _shared_table(sample: Sequence[np.ndarray]) -> np.ndarray:
    """Choose the colors uint8 (n <= 255, 3) of a whole animation from some of its frames."""
    from PIL import Image

    # A pixel is flat if it equals its right and lower neighbors; photographs have few of these.
    codes, counts = np.unique(np.concatenate([_flat_codes(frame) for frame in sample]), return_counts=True)
    flat = codes[np.lexsort((codes, -counts))][:_FLAT_COLORS]
    pixels = np.concatenate([frame[::3, ::3].reshape(-1, 3) for frame in sample])
    others = pixels[~np.isin(_codes(pixels), flat)]
    if not len(others):
        return _colors(flat)
    others = others[:: -(-len(others) // _SAMPLED_PIXELS)]
    # Median cut without the flat colors, so that large flat areas do not use up its boxes.
    mosaic = Image.fromarray(others[None]).quantize(_TABLE_SIZE - len(flat), method=Image.Quantize.MEDIANCUT, kmeans=1)
    photo = _codes(np.array(mosaic.getpalette(), np.uint8).reshape(-1, 3))
    return _colors(np.concatenate([flat, np.setdiff1d(photo, flat)]))


def _indices(frame: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each pixel by the index of its color in `table`, or of a similar one: uint8 (H, W)."""
    from PIL import Image

    palette = Image.new("P", (1, 1))
    palette.putpalette(_packed(table)[: 3 * len(table)])
    near = np.array(Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE))
    codes, known = _codes(frame), _codes(table)
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known[order], codes), len(known) - 1)
    return np.where(known[order][place] == codes, order[place], near).astype(np.uint8)


def _packed(table: np.ndarray) -> bytes:
    """Pack `table` as 256 RGB triples, padded with colors that are not in it, because Pillow merges equal ones."""
    free = np.setdiff1d(np.arange(512), _codes(table))[: 256 - len(table)]
    return np.concatenate([table, _colors(free)]).tobytes()


def _codes(colors: np.ndarray) -> np.ndarray:
    wide = colors.astype(np.int32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def _colors(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8)


def _flat_codes(frame: np.ndarray) -> np.ndarray:
    codes = _codes(frame)
    corner = codes[:-1, :-1]
    return corner[(corner == codes[1:, :-1]) & (corner == codes[:-1, 1:]) & (corner == codes[1:, 1:])]
