"""Who follows a run while it trains: the bar or the lines, event files, and the early warning."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dlv3p.data.split import Split
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.bands import BandWatch, band_for
from dlv3p.runtime.processes import place
from dlv3p.runtime.progress import Progress, SilentProgress, make_progress
from dlv3p.training.events import EventFiles


class Watchers:
    """Passes everything on to several followers; a Progress itself."""

    def __init__(self, watchers: Sequence[Progress]) -> None:
        self.watchers = watchers

    def start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        for watcher in self.watchers:
            watcher.start(total_epochs, steps_per_epoch, first_epoch)

    def step(self, epoch: int, step: int, loss: float) -> None:
        for watcher in self.watchers:
            watcher.step(epoch, step, loss)

    def epoch(self, row: Mapping[str, float]) -> None:
        for watcher in self.watchers:
            watcher.epoch(row)

    def finish(self, message: str = "") -> None:
        for watcher in self.watchers:
            watcher.finish(message)

    def failed(self, message: str = "") -> None:
        for watcher in self.watchers:
            watcher.failed(message)


def make_watchers(
    parameters: TrainParameters, folder: Path, training: Split, *, done: int, stop: Callable[[], None]
) -> Progress:
    """Return the followers that `parameters` ask for, in the first process.

    `done` steps lie behind the run, and `stop` is what a stop button calls. Raises what is wrong with `band` or
    `tensorboard` before a step is taken.
    """
    if not place().first:
        return SilentProgress()
    watchers: list[Progress] = [make_progress(parameters.progress, stop=stop)]
    if parameters.tensorboard:
        watchers.append(EventFiles(folder / "events", done=done))
    if band := band_for(parameters, training):
        watchers.append(BandWatch(band, parameters, training))
    return Watchers(watchers)
