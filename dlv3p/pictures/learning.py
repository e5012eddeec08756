"""Show how a network learns: the predictions of a few fixed validation images, epoch by epoch, and a film of them."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cityscapes.dataset import Split
from cityscapes.errors import MissingInputError
from cityscapes.files.images import read_image
from cityscapes.workspace import output_folder
from dlv3p.pictures.figures import Sentence
from dlv3p.pictures.gif import write_gif
from dlv3p.pictures.visualize import colorize, save_picture, side_by_side, with_footer
from dlv3p.runs.folders import film_folder
from dlv3p.runtime.processes import place

if TYPE_CHECKING:
    from IPython import display

DRAWING_SHARE = 0.01
"""Share of a training's time that drawing its sample predictions for a person may take."""


class SamplePredictions:
    """Show a few fixed images with their truth and the newest prediction, below a cell, in a film, or in both.

    Nothing is predicted for it: a validation hands over what it has computed. Drawing below a cell takes about a
    hundredth of the time, so that after short epochs not every one is drawn; a film has every validation.
    """

    def __init__(
        self,
        split: Split,
        epoch: Callable[[], int],
        *,
        shown: bool = True,
        film: Path | None = None,
        footer: str = "",
        count: int = 3,
        width: int = 720,
    ) -> None:
        self._split, self._epoch, self._shown, self._film, self._width = split, epoch, shown, film, width
        self._footer = footer
        every, last = place().ranks, (len(split) - 1) // place().ranks  # a process sees its share of the images
        self.indices = sorted({every * round(index) for index in np.linspace(0, last, min(count, last + 1))})
        self._known: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._found: dict[int, np.ndarray] = {}
        self._next, self._handle = -math.inf, None

    def look(self, index: int, prediction: Tensor) -> None:
        """Take the predicted classes (1, H, W) of an image; draw once all are there."""
        if index not in self.indices:
            return
        self._found[index] = prediction[0].to("cpu", torch.uint8).numpy()
        if index != self.indices[-1]:
            return
        due = self._shown and time.monotonic() >= self._next
        if not (due or self._film):
            return
        began = time.monotonic()
        picture = self.picture()
        if self._film:
            save_picture(picture, self._film / f"epoch_{self._epoch():05d}.png")
        if due:
            self._display(Image.fromarray(picture))
            self._next = began + (time.monotonic() - began) / DRAWING_SHARE

    def picture(self) -> np.ndarray:
        """Arrange image, newest prediction, and truth of each image in a row: uint8 (h, w, 3)."""
        panels = {}
        for row, index in enumerate(self.indices, start=1):
            if index not in self._known:
                image, mask = self._split.pair(index)
                self._known[index] = (np.asarray(image.convert("RGB")), colorize(mask, self._split.colors))
            image, truth = self._known[index]
            panels[f"{row}. {self._split.name(index)}"] = image
            panels[f"{row}. epoch {self._epoch()}"] = colorize(self._found[index], self._split.colors)
            panels[f"{row}. truth"] = truth
        return with_footer(side_by_side(panels, width=self._width, columns=3), self._footer)

    def _display(self, picture: Image.Image) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)


def film_of(run: str, *, seconds_per_frame: float = 0.25) -> "display.Image | str":
    """Return a run's film as a notebook shows it, or a sentence where the run keeps none."""
    from IPython import display

    try:
        path = write_film(run, seconds_per_frame=seconds_per_frame)
    except MissingInputError:
        return Sentence(f"{run} keeps no film; a training with film=True does")
    return display.Image(path.read_bytes(), format="gif")


def write_film(run: str, *, seconds_per_frame: float = 0.25) -> Path:
    """Write the pictures of a run's film as outputs/<run>/learning.gif; raises MissingInputError where it has none."""
    paths = sorted(film_folder(run).glob("epoch_*.png"))
    if not paths:
        raise MissingInputError(f"{film_folder(run)}: no picture; train the run with film=True")
    frames = (np.asarray(read_image(path)) for path in paths)
    path = output_folder(run) / "learning.gif"
    write_gif(frames, path, seconds_per_frame=seconds_per_frame)
    return path
