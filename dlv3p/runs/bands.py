"""Reference bands for early warning: the curves of a recipe's first epochs, with tolerances.

A band has an interval for each of the first epochs and each of `METRICS`, from several runs that differ only in their
seed: the mean plus and minus `WIDTH` standard deviations, and at least the metric's floor, since a few runs estimate
their spread poorly. It also has the share of each class among the labeled pixels: consistently permuted label ids give
the same losses and scores, and only the shares show that road is no longer the largest class.

A stored band applies to runs of its recipe on its data, wherever a copy of that lies: data is identified by its images,
since its labels are what may be wrong. On other images, the same parameters are another training.
"""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cityscapes.dataset import Split
from cityscapes.errors import InputError, IntegrityError, MissingInputError, ParameterError, reason
from cityscapes.files.checksums import HASH_KEY, read_json, read_recorded
from cityscapes.files.untrusted import given_path
from dlv3p.data.class_pixels import class_pixels
from dlv3p.data.fingerprints import pixels_fingerprint
from dlv3p.data.roots import open_training
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import write_json
from dlv3p.runs.record import read_unchanged_record
from dlv3p.runtime.callbacks import Callback

STORED = Path(__file__).with_name("stored_bands")
"""The bands that come with the suite, which `band="auto"` chooses from."""

FORMAT = 1
METRICS = {"train_loss": 0.08, "train_mIoU": 0.05, "val_mIoU": 0.05}
"""Metrics compared, and the smallest half-width: a share of the mean for a loss, absolute for a score."""

WIDTH = 4.0
LARGEST_SHIFT = 0.25
"""Warn when more than this share of the labeled pixels would have to change class to match the band's shares."""

MAY_BE_A_MISTAKE = (
    *("data_root", "seed", "learning_rate", "backbone_rate_factor", "warmup_steps", "weight_decay", "gradient_norm"),
    *TrainParameters.NOT_IDENTITY,
)
"""Parameters in which a run may differ from a stored band and is compared nevertheless."""


@dataclass(frozen=True)
class Band:
    """The reference band of a recipe; `intervals` has (low, high) by metric and epoch, None for no score.

    `images_sha256` identifies the training images, see `pixels_fingerprint`; it is "" in older bands.
    """

    parameters: Mapping[str, Any]
    class_names: Sequence[str]
    class_shares: Sequence[float]
    intervals: Mapping[str, Sequence[tuple[float, float] | None]]
    images_sha256: str = ""

    @property
    def epochs(self) -> int:
        """The number of epochs that the band covers."""
        return max(map(len, self.intervals.values()), default=0)

    def applies_to(self, parameters: TrainParameters, training: Split) -> bool:
        """Return whether a run follows this recipe, up to its seed and rates that may have been mistyped.

        Its data is that of the band, by name or by images; another number of classes is left to the warning.
        """
        asked = parameters.as_dict()
        ours = TrainParameters.recorded(self.parameters)
        if any(asked[name] != ours[name] for name in asked if name not in MAY_BE_A_MISTAKE):
            return False
        if asked["data_root"] == ours["data_root"]:
            return True
        return bool(self.images_sha256) and pixels_fingerprint(training) == self.images_sha256


def band_for(parameters: TrainParameters, training: Split) -> Band | None:
    """Return the band that `parameters.band` asks for: for "auto" a stored one that applies, None for "none".

    A file is used whatever its recipe. Raises MissingInputError and InputError for a file that is not a band.
    """
    if parameters.band == "none":
        return None
    if parameters.band != "auto":
        return read_band(given_path(parameters.band))
    stored = map(read_band, sorted(STORED.glob("*.json")))
    return next((band for band in stored if band.applies_to(parameters, training)), None)


def read_band(path: Path) -> Band:
    """Read a band; raises MissingInputError and InputError in one line."""
    if not path.is_file():
        raise MissingInputError(f"band={str(path)!r}: no such file; allowed are auto, none, or a band file")
    try:
        content = dict(read_json(path))
        content.pop(HASH_KEY, None)
        if content.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        band = Band(**content)
        for metric, intervals in band.intervals.items():
            if metric not in METRICS or not all(interval is None or len(interval) == 2 for interval in intervals):
                raise ValueError(f"{metric} is not a metric with an interval for each epoch")
        np.asarray(band.class_shares, dtype=float) + np.zeros(len(band.class_names))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a band file; write one with `dlv3p runs band`: {reason(error)}") from None
    return band


def write_band(path: Path, band: Band) -> None:
    """Write a band as JSON."""
    write_json(path, {"format": FORMAT, **asdict(band)})


def band_of_runs(folders: Sequence[Path], *, epochs: int = 0) -> Band:
    """Return the band of runs that differ only in their seed, over the first `epochs`; 0: as many as all have.

    The runs need not be finished. Raises ParameterError for fewer than three, or for different recipes, and
    MissingInputError when run.json, metrics.csv or the data is missing.
    """
    if len(folders) < 3:
        raise ParameterError("a band needs three or more runs, each with a different seed")
    records = [_record(folder) for folder in folders]
    first = records[0]["parameters"]
    for folder, record in zip(folders, records, strict=True):
        compared = set(first) - {"seed", *TrainParameters.NOT_IDENTITY}
        if differing := sorted(name for name in compared if record["parameters"].get(name) != first[name]):
            raise ParameterError(f"{folder.name} and {folders[0].name} differ in {', '.join(differing)}")
    seeds = [record["parameters"].get("seed") for record in records]
    if len(set(seeds)) < len(seeds):
        raise ParameterError(f"the runs have the seeds {', '.join(map(str, seeds))}; each needs a different one")
    tables = [_table(folder / "metrics.csv") for folder in folders]
    common = min(len(table[metric]) for table in tables for metric in METRICS)
    if not 1 <= (epochs or common) <= common:
        raise ParameterError(f"epochs={epochs}: allowed are 0 to {common}, which all runs have")
    intervals = {
        metric: [_interval(metric, values) for values in zip(*(table[metric] for table in tables), strict=False)][
            : epochs or common
        ]
        for metric in METRICS
    }
    split, _ = open_training(TrainParameters.from_mapping(TrainParameters.recorded(first)))
    pixels = class_pixels(split, skip_bad=True)
    shares = [round(share, 4) for share in _class_shares(pixels, split.num_classes).tolist()]
    recipe = {name: value for name, value in first.items() if name not in TrainParameters.NOT_IDENTITY}
    return Band(recipe, list(split.class_names), shares, intervals, pixels_fingerprint(split))


def _class_shares(pixels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return each class's share of the labeled pixels, float64 (C,), given the pixels by id."""
    return pixels[:num_classes] / max(1, pixels[:num_classes].sum())


class EarlyWarning(Callback):
    """Warn, once for each metric, when a run leaves the band of its recipe.

    `pixels` counts those of each id in the training masks, int64 (256,).
    """

    def __init__(self, band: Band, parameters: TrainParameters, class_names: Sequence[str], pixels: np.ndarray) -> None:
        self.band, self.parameters, self.class_names, self.pixels = band, parameters, class_names, pixels
        self._warned: set[str] = set()

    def on_start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        """Compare the class shares before the first step."""
        names, expected = self.class_names, np.asarray(self.band.class_shares)
        if len(names) != len(expected):
            self._warn(f"the data set has {len(names)} classes, but runs of this recipe had {len(expected)}")
            self._warned.update(METRICS)  # the curves of other classes are not comparable
            return
        shares = _class_shares(self.pixels, len(names))
        if np.abs(shares - expected).sum() / 2 > LARGEST_SHIFT:
            worst = int(np.abs(shares - expected).argmax())
            self._warn(
                f"{shares[worst]:.1%} of the labeled pixels are {names[worst]!r}, {expected[worst]:.1%} in the band"
            )

    def on_epoch(self, row: Mapping[str, float]) -> None:
        number = int(row["epoch"])
        for metric, intervals in self.band.intervals.items():
            interval = intervals[number - 1] if number <= len(intervals) else None
            value = row.get(metric)
            # NaN compares as false: a skipped score is within any band.
            if metric in self._warned or interval is None or value is None:
                continue
            low, high = interval
            if value < low or value > high:
                self._warned.add(metric)
                side = "below" if value < low else "above"
                band = f"the reference band {low:.3f} to {high:.3f} of this recipe"
                self._warn(f"epoch {number}: {metric} {value:.3f} is {side} {band}")

    def _warn(self, what: str) -> None:
        print(f"warning: {what}; likely {self._causes()}", flush=True)

    def _causes(self) -> str:
        asked = self.parameters.as_dict()
        ignored = ("seed", "data_root", *TrainParameters.NOT_IDENTITY)
        differing = [
            f"{name} (now {asked[name]}, in the band {value})"
            for name, value in self.band.parameters.items()
            if name in asked and name not in ignored and asked[name] != value
        ]
        return ", or ".join(
            [*differing[:3], "masks with wrong ids (label ids instead of train ids) or of other images"]
        )


def _interval(metric: str, values: Sequence[float]) -> tuple[float, float] | None:
    if any(map(math.isnan, values)):
        return None
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    floor = METRICS[metric] * mean if metric.endswith("loss") else METRICS[metric]
    half = max(WIDTH * deviation, floor)
    return round(mean - half, 4), round(mean + half, 4)


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not path.is_file():
        raise MissingInputError(f"{path}: no such run")
    try:
        record = read_unchanged_record(path)
        TrainParameters.from_mapping(record["parameters"])
    except IntegrityError:
        raise
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}") from None
    return record


def _table(path: Path) -> dict[str, list[float]]:
    if not path.is_file():
        raise MissingInputError(f"{path}: no epoch is finished yet")
    try:
        rows = list(csv.DictReader(io.StringIO(read_recorded(path).decode(), newline="")))
        return {metric: [float(row[metric]) for row in rows] for metric in METRICS}
    except IntegrityError:
        raise
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}") from None
