"""Explore predictions in JupyterLab: sorted images under an opacity slider, and what lies under the pointer."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cityscapes.errors import UserError
from cityscapes.labels import TRAIN_ID_TO_LABEL_ID
from dlv3p.pictures.visualize import error_map, overlay
from dlv3p.prediction.browser import encode, shrink, smaller
from dlv3p.prediction.exploration import Exploration, View
from dlv3p.runtime.widgets import plain_label

if TYPE_CHECKING:
    import anywidget
    import ipywidgets


TITLES = ("prediction", "second prediction")


@cache
def panels_class() -> type["anywidget.AnyWidget"]:
    """Return the widget that shows pictures side by side and names what is under the pointer, without the kernel."""
    import anywidget
    import traitlets

    class Panels(anywidget.AnyWidget):
        _esm = Path(__file__).with_name("panels.js").read_text(encoding="utf-8")
        view = traitlets.Dict().tag(sync=True)

    return Panels


class Explorer:
    """Widgets that show one image at a time, in a chosen order; `box` is what a notebook displays."""

    def __init__(self, exploration: Exploration, *, sort: str = "mIoU") -> None:
        import ipywidgets

        exploration.order(sort)  # which refuses one that is no key
        self.exploration, self.chosen = exploration, set()
        self.sort = ipywidgets.Dropdown(options=exploration.keys, value=sort, description="sort by")
        self.opacity = ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.1, description="opacity")
        self.choose = ipywidgets.ToggleButton(description="Choose", layout={"width": "90px"})
        self.title, self.told = plain_label(), plain_label()
        self.panels = panels_class()()
        self.sort.observe(lambda change: self._sort(), names="value")
        self.opacity.observe(lambda change: self._draw(), names="value")
        self.choose.observe(self._mark, names="value")
        buttons = [self._button(name, act) for name, act in self._actions().items()]
        rows = [[self.sort, self.opacity], [*buttons, self.choose]]
        self.box = ipywidgets.VBox([*map(ipywidgets.HBox, rows), self.title, self.told, self.panels])
        self._sort()

    @property
    def index(self) -> int:
        """The index in the split of the image that is shown."""
        return self._order[self._place]

    def step(self, by: int) -> None:
        """Show the next image in the order, or with -1 the previous one; behind the last comes the first."""
        self._place = (self._place + by) % len(self._order)
        self._open()

    def export(self) -> None:
        """Write the list of the chosen images, and say where it is."""
        try:
            path = self.exploration.export(sorted(self.chosen), self.exploration.folder / "chosen.txt")
            self.told.value = f"chosen: {len(self.chosen)}, listed in {path}"
        except UserError as error:
            self.told.value = str(error)

    def _actions(self) -> dict[str, Any]:
        return {"Previous": lambda: self.step(-1), "Next": lambda: self.step(1), "Export": self.export}

    def _sort(self) -> None:
        self._order, self._place = self.exploration.order(self.sort.value), 0
        self._open()

    def _open(self) -> None:
        self._view = self.exploration.view(self.index)
        value = self.exploration.table[self.sort.value].iloc[self.index]
        name = self.exploration.split.name(self.index)
        self._draw()
        self.choose.value = self.index in self.chosen
        self.title.value = f"{name}  ({self._place + 1} of {len(self._order)})  ·  {self.sort.value} {value:.4f}"

    def _mark(self, change: Any) -> None:
        (self.chosen.add if self.choose.value else self.chosen.discard)(self.index)

    def _draw(self) -> None:
        split, view = self.exploration.split, self._view
        pictures = draw_panels(view, split.colors, opacity=self.opacity.value)
        self.panels.view = {
            "width": view.image.width,
            "height": view.image.height,
            "panels": [{"title": title, "png": encode(picture)} for title, picture in pictures.items()],
            "layers": self._layers(),
        }

    def _layers(self) -> list[dict[str, Any]]:
        names, view = list(self.exploration.split.class_names), self._view
        layers = [{"title": "truth", "ids": view.truth.tobytes(), "confidence": None, "names": names}]
        stored_by = zip(TITLES, self.exploration.masks, view.stored, view.confidence, strict=False)
        for title, masks, stored, sure in stored_by:
            called = dict(enumerate(names))
            if masks.ids == "label":
                called = {int(TRAIN_ID_TO_LABEL_ID[index]): name for index, name in enumerate(names)}
            confidence = None if sure is None else sure.tobytes()
            by_id = [called.get(index, "ignored") for index in range(256)]
            layers.append({"title": title, "ids": stored.tobytes(), "confidence": confidence, "names": by_id})
        return layers

    def _button(self, name: str, act: Any) -> "ipywidgets.Button":
        import ipywidgets

        button = ipywidgets.Button(description=name, layout={"width": "90px"})
        button.on_click(lambda pressed: act())
        return button


def draw_panels(view: View, colors: np.ndarray, *, opacity: float) -> dict[str, np.ndarray]:
    """Draw image and truth, and of each folder the prediction, its errors and, where it is stored, its confidence."""
    image, truth, *predictions = shrink(view.image, view.truth, *view.predictions)
    panels = {"image": image, "truth": overlay(image, truth, alpha=opacity, colors=colors)}
    for title, found, sure in zip(TITLES, predictions, view.confidence, strict=False):
        errors = error_map(found, truth)
        panels[title] = overlay(image, found, alpha=opacity, colors=colors)
        panels[f"errors of the {title}"] = errors
        if sure is not None:
            panels[f"confidence of the {title}"] = np.repeat(smaller(sure, image.shape[1::-1])[..., None], 3, axis=2)
    return panels
