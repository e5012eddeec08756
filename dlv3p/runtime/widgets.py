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
from dlv3p.runtime.lines import Item, describe_epoch, describe_rate, format_duration
from dlv3p.runtime.waiting_cells import WaitingCells

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.axes import Axes

_SECONDS_BETWEEN_UPDATES = 0.2
_DRAWING_SHARE = 0.01  # of the time; drawing the curves takes about 50 ms
_OLDEST = 10  # seconds after which the next epoch draws them in any case
_VALIDATION_SHARE = 0.1  # of an epoch on the bar, which also moves while images are scored
_CUT = 5  # times the median: where the axis of a loss ends at the latest
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
        self.bar = ipywidgets.FloatProgress(min=0, max=total or 1, layout={"width": "320px"})
        self.text = plain_label(title)
        self.box = ipywidgets.HBox([self.bar, self.text])

    def begin_at(self, done: float, spent: float = 0.0, over: float = 0.0) -> None:
        """Start from `done` instead of 0; the time left follows from the seconds `spent` on the last `over` of it."""
        self.done = self.bar.value = done
        self._offset = done - over
        self._began = self._clock() - spent

    def update(self, done: float, note: str = "") -> None:
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
        """End in the color of `style`, `success`, `danger` or "" for neither; on success the bar is filled."""
        self.bar.bar_style = style
        self.bar.value = self.bar.max if style == "success" else min(self.done, self.bar.max)
        self.text.value = message or f"{self._title}  ·  {self._clock() - self._began:.1f} s"


class WidgetProgress(Callback):
    """Show the training: the bar counts steps, the curves show loss and mIoU of train and val."""

    def __init__(
        self,
        *,
        stop: Callable[[], None] | None = None,
        history: Iterable[Mapping[str, float]] = (),
        spent: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._stop, self._spent = clock, stop, spent
        self._rows = [dict(row) for row in history]
        self._next_drawing = -math.inf
        self._first_told = math.inf

    def on_start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        import ipywidgets
        from IPython.display import display

        self._epochs, self._steps = total_epochs, steps_per_epoch
        self._bar = Bar(total_epochs * steps_per_epoch, "", clock=self._clock)
        self._bar.text.value = f"epoch {first_epoch}/{total_epochs}  ·  first step"
        done = (first_epoch - 1) * steps_per_epoch
        self._known = (self._spent, done) if self._spent else self._last_epoch()
        self._bar.begin_at(done, *self._known)
        if self._spent:
            self._show_end_of(first_epoch - 1)
        self._button = ipywidgets.Button(
            description="Stop",
            icon="stop",
            tooltip="Stop after this step, with a checkpoint; run the cell again to continue",
            layout={"width": "100px"},
        )
        if self._stop is not None:
            self._button.on_click(self._request_stop)
            self._bar.box.children = (self._bar.bar, self._button, self._bar.text)
        self._last = plain_label()
        # Hidden until there is a picture; a browser would show a broken one.
        hidden = {"width": CURVES_WIDTH, "height": "0px", "visibility": "hidden"}
        self._curves = ipywidgets.Image(format="png", layout=hidden)
        display(ipywidgets.VBox([self._bar.box, self._last, self._curves]))
        # ipykernel 7.4 sends replies to the subshell that created the widget, which is busy; without this entry, it
        # uses the subshell that the front end asks for.
        vars(self._button.comm).pop("_reply_subshell_id", None)
        self._waiting = WaitingCells()
        if self._rows:
            self._show_last()
            self._draw()
        self._tell_waiting()

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        note = f"epoch {epoch}/{self._epochs}  ·  step {step}/{self._steps}  ·  loss {loss:.4f}"
        self._advance((epoch - 1) * self._steps + step * (1 - _VALIDATION_SHARE), note)

    def on_image(self, epoch: int, image: int, images: int) -> None:
        note = f"epoch {epoch}/{self._epochs}  ·  validating, image {image}/{images}"
        part = 1 - _VALIDATION_SHARE * (1 - image / images)
        self._advance((epoch - 1 + part) * self._steps, note)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        self._rows.append(dict(row))
        self._show_last()
        self._show_end_of(int(row["epoch"]))
        self._tell_waiting()
        if self._clock() >= self._next_drawing:
            self._draw()

    def on_finish(self, message: str = "") -> None:
        self._end("success", message)

    def on_failure(self, message: str = "") -> None:
        self._end("danger", message)

    def on_stop(self, message: str = "") -> None:
        self._end("", message, printed=False)  # `cell_outputs` has it printed

    def _last_epoch(self) -> tuple[float, float]:
        """Return the seconds and the steps of the last epoch, as far as they are known: the pace of the next."""
        seconds = self._rows[-1].get("seconds") or math.nan if self._rows else math.nan
        return (seconds, self._steps) if seconds > 0 else (0.0, 0.0)

    def _advance(self, done: float, note: str) -> None:
        """Move the bar. The pace is that after the first step, which also starts workers and, resumed, skips steps."""
        self._first_told = min(self._first_told, self._clock())
        if self._clock() - self._first_told < _SECONDS_BETWEEN_UPDATES:  # several steps of a GPU are told at once
            self._bar.begin_at(done, *self._known)
        self._bar.update(done, note)
        self._tell_waiting()

    def _request_stop(self, button: "ipywidgets.Button") -> None:
        if button.disabled:  # the second click of two; a second request would stop at once, without a checkpoint
            return
        button.disabled, button.description = True, "Stopping"
        self._stop()

    def _end(self, style: str, message: str, *, printed: bool = True) -> None:
        self._button.disabled, self._button.description = True, "Stop"
        if self._rows:
            self._draw()
        self._bar.close(style, message)
        self._tell_waiting()
        self._waiting.close()
        if message and printed:
            print(message)  # widgets are not saved in a notebook; the printed line is

    def _show_last(self) -> None:
        row = self._rows[-1]
        self._last.value = "  ·  ".join([f"after epoch {int(row['epoch'])}", *describe_epoch(row)])

    def _show_end_of(self, epoch: int) -> None:
        self._bar.update(epoch * self._steps, f"epoch {epoch}/{self._epochs} is over")

    def _tell_waiting(self) -> None:
        self._waiting.show("text/plain", "\n".join(filter(None, (self._bar.text.value, self._last.value))))

    def _draw(self) -> None:
        began = self._clock()
        self._curves.value = draw_curves(self._rows, self._epochs)
        self._curves.layout.height, self._curves.layout.visibility = CURVES_HEIGHT, "visible"
        self._waiting.show("image/png", self._curves.value)
        cost = self._clock() - began
        self._next_drawing = began + min(cost / _DRAWING_SHARE, _OLDEST)


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
        limit_axis(axes, metric, [value for line in axes.lines for value in line.get_ydata()])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def plain_label(text: str = "") -> "ipywidgets.Label":
    """Return a label that shows what is written: in others, JupyterLab takes what stands between two `$` for a formula.

    No other label is made, as `tests/runtime/test_progress.py` checks.
    """
    import ipywidgets

    label = ipywidgets.Label(text)
    label.add_class("mathjax_ignore")
    return label


def show_waiting(title: str) -> "ipywidgets.HBox":
    """Display a bar without an end beside its title, until somebody closes the box."""
    import ipywidgets
    from IPython.display import display

    bar = ipywidgets.FloatProgress(value=1, min=0, max=1, bar_style="info", layout={"width": "320px"})
    box = ipywidgets.HBox([bar, plain_label(title)])
    display(box)
    return box


def limit_axis(axes: "Axes", metric: str, values: Iterable[float]) -> None:
    """Let an axis begin at 0 and end above the values; a loss far above the others is cut off, and the title says so.

    The first epochs of a validation loss can be a thousand times what follows, and would leave a flat line.
    """
    known = sorted(value for value in values if math.isfinite(value))
    highest = known[-1] if known else 0.0
    top = _CUT * known[(len(known) - 1) // 2] if metric == "loss" and known else highest
    if 0 < top < highest:
        axes.set_title(f"{metric} (up to {highest:,.4g}, cut off)")
        highest = top
    axes.set_ylim(0, 1.05 * highest if highest > 0 else 1)


def track_with_bar(iterable: Iterable[Item], total: int | None, title: str, *, unit: str = "") -> Iterator[Item]:
    """Yield the items and count them on a bar, which turns red when the loop ends early."""
    from IPython.display import display

    bar = Bar(total, title)
    bar.text.value = f"{title}  ·  0/{total}" if total else title  # the first item may take minutes
    display(bar.box)
    done, began = 0, time.monotonic()
    try:
        for done, item in enumerate(iterable, start=1):
            yield item
            rate = f"  ·  {describe_rate(done, time.monotonic() - began, unit)}" * bool(unit)
            bar.update(done, (f"{done}/{total}" if total else f"{done}") + rate)
    except BaseException:
        bar.close("danger", f"{title}  ·  stopped after {done}")
        raise
    bar.close("success")
    print(f"{title}  {done}/{total or done}")  # widgets are not saved in a notebook; the printed line is
