"""Show progress by widgets: a bar with the time left, a stop button, and curves updated after every epoch.

A click on the button is delivered while its cell runs if the front end sends widget messages to a subshell of the
kernel, as JupyterLab 4.4 and later does with ipykernel 7 (commsOverSubshells, on by default). Elsewhere it waits for
the end of the cell; the toolbar's stop button, which interrupts the kernel, stops the run everywhere.
"""

import io
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from dlv3p.runtime.callbacks import Callback
from dlv3p.runtime.lines import Item, describe_epoch, format_duration

if TYPE_CHECKING:
    import ipywidgets

_SECONDS_BETWEEN_UPDATES = 0.2
_DRAWING_SHARE = 0.01  # of the time; drawing the curves takes about 50 ms
_TRAIN, _VAL = "#E69F00", "#0072B2"

CURVES_INCHES = (9, 2.8)
CURVES_WIDTH, CURVES_HEIGHT = "720px", "224px"
"""Size of the curves as drawn and on the page, with the same aspect ratio."""


class Bar:
    """A bar and a line of text, updated at most five times a second."""

    def __init__(self, total: int | None, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        import ipywidgets

        self._clock, self._title, self._shown = clock, title, -math.inf
        self._began = clock()
        self.total = total
        self.done = self._offset = 0
        self.bar = ipywidgets.IntProgress(min=0, max=total or 1, layout={"width": "320px"})
        self.text = ipywidgets.Label(title)
        self.box = ipywidgets.HBox([self.bar, self.text])

    def begin_at(self, done: int) -> None:
        """Start from `done` instead of 0, without counting it in the time left."""
        self.done = self._offset = self.bar.value = done

    def update(self, done: int, note: str = "") -> None:
        """Advance to `done`; the display is updated at most five times a second."""
        self.done = done
        now = self._clock()
        if now - self._shown < _SECONDS_BETWEEN_UPDATES:
            return
        self._shown = now
        self.bar.value = min(done, self.bar.max)
        worked = done - self._offset
        parts = [self._title, note]
        if self.total and worked > 0 and done < self.total:
            parts.append(f"eta {format_duration((now - self._began) / worked * (self.total - done))}")
        self.text.value = "  ·  ".join(part for part in parts if part)

    def close(self, style: str, message: str = "") -> None:
        """End in the color of `style`, `success` or `danger`; on success the bar is filled."""
        self.bar.bar_style = style
        self.bar.value = self.bar.max if style == "success" else min(self.done, self.bar.max)
        self.text.value = message or f"{self._title}  ·  {self._clock() - self._began:.1f} s"


class WidgetProgress(Callback):
    """Show the training: the bar counts steps, the curves show loss and mIoU of train and val."""

    def __init__(self, *, stop: Callable[[], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._stop = clock, stop
        self._rows: list[Mapping[str, float]] = []
        self._next_drawing = -math.inf

    def on_start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        import ipywidgets
        from IPython.display import display

        self._epochs, self._steps = total_epochs, steps_per_epoch
        self._bar = Bar(total_epochs * steps_per_epoch, "", clock=self._clock)
        self._bar.begin_at((first_epoch - 1) * steps_per_epoch)
        self._button = ipywidgets.Button(
            description="Stop",
            icon="stop",
            tooltip="Stop after this step, with a checkpoint; run the cell again to continue",
            layout={"width": "100px"},
        )
        if self._stop is not None:
            self._button.on_click(self._request_stop)
            self._bar.box.children = (self._bar.bar, self._button, self._bar.text)
        self._last = ipywidgets.Label("")
        # Hidden until there is a picture; a browser would show a broken one.
        hidden = {"width": CURVES_WIDTH, "height": "0px", "visibility": "hidden"}
        self._curves = ipywidgets.Image(format="png", layout=hidden)
        display(ipywidgets.VBox([self._bar.box, self._last, self._curves]))
        # ipykernel 7.4 sends replies to the subshell that created the widget, which is busy; without this entry, it
        # uses the subshell that the front end asks for.
        vars(self._button.comm).pop("_reply_subshell_id", None)

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        note = f"epoch {epoch}/{self._epochs}  ·  step {step}/{self._steps}  ·  loss {loss:.4f}"
        self._bar.update((epoch - 1) * self._steps + step, note)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        self._rows.append(dict(row))
        self._last.value = "  ·  ".join([f"after epoch {int(row['epoch'])}", *describe_epoch(row)])
        if self._clock() >= self._next_drawing:
            self._draw()

    def on_finish(self, message: str = "") -> None:
        self._end("success", message)

    def on_failure(self, message: str = "") -> None:
        self._end("danger", message)

    def _request_stop(self, button: "ipywidgets.Button") -> None:
        button.disabled, button.description = True, "Stopping"
        self._stop()

    def _end(self, style: str, message: str) -> None:
        self._button.disabled, self._button.description = True, "Stop"
        if self._rows:
            self._draw()
        self._bar.close(style, message)
        if message:
            print(message)  # widgets are not saved in a notebook; the printed line is

    def _draw(self) -> None:
        began = self._clock()
        self._curves.value = draw_curves(self._rows, self._epochs)
        self._curves.layout.height, self._curves.layout.visibility = CURVES_HEIGHT, "visible"
        cost = self._clock() - began
        self._next_drawing = began + cost / _DRAWING_SHARE


def draw_curves(rows: Iterable[Mapping[str, float]], epochs: int) -> bytes:
    """Draw loss and mIoU over the epochs, train dashed and val solid, as PNG; missing values leave gaps."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = list(rows)
    figure = Figure(figsize=CURVES_INCHES, layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "mIoU"), strict=True):
        for split, color, line in (("train", _TRAIN, "--"), ("val", _VAL, "-")):
            values = [row.get(f"{split}_{metric}") for row in rows]
            points = [math.nan if value is None else value for value in values]
            axes.plot([row["epoch"] for row in rows], points, line, color=color, marker="o", markersize=3, label=split)
        axes.set(title=metric, xlabel="epoch", xlim=(0.5, epochs + 0.5))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def track_with_bar(iterable: Iterable[Item], total: int | None, title: str) -> Iterator[Item]:
    """Yield the items and count them on a bar, which turns red when the loop ends early."""
    from IPython.display import display

    bar = Bar(total, title)
    display(bar.box)
    done = 0
    try:
        for done, item in enumerate(iterable, start=1):
            yield item
            bar.update(done, f"{done}/{total}" if total else f"{done}")
    except BaseException:
        bar.close("danger", f"{title}  ·  stopped after {done}")
        raise
    bar.close("success")
    print(f"{title}  {done}/{total or done}")  # widgets are not saved in a notebook; the printed line is
