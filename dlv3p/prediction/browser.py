"""Look through predictions in JupyterLab: next and previous, opacity, classes on and off, and confidence."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cityscapes.files.channels import ChannelImage
from cityscapes.labels import IGNORE
from dlv3p.pictures.visualize import overlay
from dlv3p.prediction.predictor import Prediction
from dlv3p.prediction.results import Results
from dlv3p.prediction.sources import ImageFile
from dlv3p.runtime.widgets import plain_label

if TYPE_CHECKING:
    import ipywidgets

LARGEST_SIDE = 1000
"""Pixels of the longer side of the picture; larger images are shown smaller."""


def draw(
    image: np.ndarray, found: Prediction, colors: np.ndarray, *, shown: Sequence[int], opacity: float
) -> np.ndarray:
    """Draw the `shown` classes over an image, and dark where the network is unsure, if confidence is given."""
    labels = np.where(np.isin(found.labels, shown), found.labels, IGNORE).astype(np.uint8)
    picture = overlay(image, labels, alpha=opacity, colors=colors)
    if found.confidence is None:
        return picture
    return np.rint(picture * (found.confidence[..., None] / 255)).astype(np.uint8)


class Browser:
    """Widgets that show one prediction at a time; `box` is what a notebook displays.

    `read` returns the picture of an index of `images`, of a file or of a frame of a video, at any size.
    """

    def __init__(self, results: Results, images: Sequence[ImageFile], read: Callable[[int], Image.Image]) -> None:
        import ipywidgets

        self.results, self.images, self.index, self._read = results, list(images), 0, read
        predictor = results.predictor
        self.title = plain_label()
        self.picture = ipywidgets.Image(format="png")
        self.opacity = ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.1, description="opacity")
        self.confidence = ipywidgets.Checkbox(
            False, description="confidence", indent=False, disabled=not results.outputs.confidence
        )
        self.classes = [
            ipywidgets.Checkbox(True, description=plain(name), indent=False, layout=_in_color(color))
            for name, color in zip(predictor.class_names, predictor.colors, strict=False)
        ]
        for widget in (self.opacity, self.confidence, *self.classes):
            widget.observe(lambda change: self.show(), names="value")
        controls = [self._button("Previous", -1), self._button("Next", 1), self.opacity, self.confidence]
        classes = ipywidgets.Box(self.classes, layout={"flex_flow": "row wrap"})
        self.box = ipywidgets.VBox([ipywidgets.HBox(controls), self.title, classes, self.picture])
        self._open()

    def show(self) -> None:
        """Draw the picture again, as the controls say."""
        shown = [number for number, box in enumerate(self.classes) if box.value]
        found = self._found if self.confidence.value else self._found._replace(confidence=None)
        how = {"shown": shown, "opacity": self.opacity.value}
        self.picture.value = encode(draw(self._image, found, self.results.predictor.colors, **how))

    def step(self, by: int) -> None:
        """Show the next image, or with -1 the previous one; behind the last comes the first."""
        self.index = (self.index + by) % len(self.images)
        self._open()

    def _open(self) -> None:
        file = self.images[self.index]
        image, found = self._read(self.index), self.results.read(file)
        self._image, labels, *sure = shrink(image, *(one for one in found if one is not None))
        self._found = Prediction(labels, *sure)
        self.title.value = f"{file.name}  ({self.index + 1} of {len(self.images)})"
        self.show()

    def _button(self, name: str, by: int) -> "ipywidgets.Button":
        import ipywidgets

        button = ipywidgets.Button(description=name, layout={"width": "110px"})
        button.on_click(lambda pressed: self.step(by))
        return button


def _in_color(color: np.ndarray) -> dict[str, str]:
    """Return the layout of a class's checkbox, whose left edge has the color of the class."""
    red, green, blue = map(int, color)
    return {"width": "150px", "border_left": f"8px solid #{red:02x}{green:02x}{blue:02x}", "padding": "0 0 0 4px"}


def plain(name: str) -> str:
    r"""Return a name that a checkbox in JupyterLab shows as it is: two `$` enclose a formula there, and `\$` do not."""
    return name.replace("$", r"\$") if name.count("$") > 1 else name


def encode(picture: np.ndarray) -> bytes:
    """Return a picture as a PNG file in memory."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


def shrink(image: Image.Image | ChannelImage, *maps: np.ndarray, longest: int = LARGEST_SIDE) -> tuple[np.ndarray, ...]:
    """Return an image as RGB, and maps of its ids or confidence, whose longer side has at most `longest` pixels."""
    colors = image if image.mode == "RGB" else image.convert("RGB")
    scale = min(1, longest / max(colors.size))
    size = tuple(max(1, round(side * scale)) for side in colors.size)
    return (np.asarray(colors.resize(size)), *(smaller(values, size) for values in maps))


def letterbox(shape: tuple[int, int], pixels: np.ndarray, *maps: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return a picture and maps of ids at this height and width: as large as they fit, borders black, and ignored."""
    height, width = pixels.shape[:2]
    scale = min(shape[0] / height, shape[1] / width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (shape[0] - inner[0]) // 2, (shape[1] - inner[1]) // 2
    canvases = np.zeros((*shape, 3), np.uint8), *(np.full(shape, IGNORE, values.dtype) for values in maps)
    fitted = np.asarray(Image.fromarray(pixels).resize(inner[::-1])), *(smaller(values, inner[::-1]) for values in maps)
    for canvas, content in zip(canvases, fitted, strict=True):
        canvas[top : top + inner[0], left : left + inner[1]] = content
    return canvases


def smaller(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a map of ids or confidence at the size (width, height) of a picture, no value mixed with another."""
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.NEAREST))
