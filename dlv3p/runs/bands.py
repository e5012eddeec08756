"""Reference bands for early warning: curves of the first epochs, with the tolerance that runs of a recipe keep to.

A band holds, for each of the first epochs, an interval for each of `METRICS`, from several runs that differ in their
seed alone: their mean, plus and minus `WIDTH` standard deviations, and at least plus and minus the metric's floor,
since few runs tell little about their spread. It also holds the share of each class among the labeled pixels:
label ids that are permuted all alike give the same losses and scores, since names mean nothing to a network, and only
there does one see that road is no longer the largest class.

A stored band is for runs of its recipe on its data, wherever a copy of that lies and whatever its masks hold: data is
known by its images, since its labels are what may be wrong. On other images the same parameters are another training.
"""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from cityscapes.dataset import Split
from cityscapes.errors import InputError, MissingInputError, ParameterError, reason
from cityscapes.labels import IGNORE
from dlv3p.data.fingerprints import pixels_fingerprint
from dlv3p.data.roots import open_split, resolve_data_root
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import write_json
from dlv3p.runs.record import read_record
from dlv3p.runtime.callbacks import Callback

STORED = Path(__file__).with_name("stored_bands")
"""The bands that come with the suite, which `band="auto"` chooses from."""

FORMAT = 1
METRICS = {"train_loss": 0.08, "train_mIoU": 0.05, "val_mIoU": 0.05}
"""What is compared, and the floor of half an interval: a share of the mean for a loss, points of a score."""

WIDTH = 4.0
LARGEST_SHIFT = 0.25
"""Warn when more than this share of the labelled pixels would have to change its class to get the band's shares."""

MOST_MASKS = 200
"""So many masks, evenly spaced, tell the shares of the classes."""

MAY_BE_A_MISTAKE = (
    *("data_root", "seed", "learning_rate", "backbone_rate_factor", "warmup_steps", "weight_decay", "gradient_norm"),
    *TrainParameters.NOT_IDENTITY,
)
"""Parameters in which a run may differ from a stored band's and is compared all the same."""


@dataclass(frozen=True)
class Band:
    """What runs of one recipe have in common; `intervals` has (low, high) by metric and epoch, None for no score.

    `images_sha256` is that of the images that were trained on, see `pixels_fingerprint`; "" in bands of before.
    """

    parameters: Mapping[str, Any]
    class_names: Sequence[str]
    class_shares: Sequence[float]
    intervals: Mapping[str, Sequence[tuple[float, float] | None]]
    images_sha256: str = ""

    @property
    def epochs(self) -> int:
        """How many epochs the band covers."""
        return max(map(len, self.intervals.values()), default=0)

    def suits(self, parameters: TrainParameters, training: Split) -> bool:
        """Whether a run is one of this recipe, but for its seed and for rates that somebody may have mistyped.

        Its data is that of the band, by its name or by its images; how many classes it has is left to the warning.
        """
        asked = parameters.as_dict()
        ours = {item.name: item.default for item in fields(parameters)} | dict(self.parameters)
        if any(asked[name] != ours[name] for name in asked if name not in MAY_BE_A_MISTAKE):
            return False
        if asked["data_root"] == ours["data_root"]:
            return True
        return bool(self.images_sha256) and pixels_fingerprint(training) == self.images_sha256


def band_for(parameters: TrainParameters, training: Split) -> Band | None:
    """Return the band that `parameters.band` asks for: a stored one for "auto" where one suits, None for "none".

    A file is taken whatever recipe it is of. Raises MissingInputError and InputError for a file that is none.
    """
    if parameters.band == "none":
        return None
    if parameters.band != "auto":
        return read_band(Path(parameters.band).expanduser())
    stored = map(read_band, sorted(STORED.glob("*.json")))
    return next((band for band in stored if band.suits(parameters, training)), None)


def read_band(path: Path) -> Band:
    """Read a band; raises MissingInputError and InputError in one line."""
    if not path.is_file():
        raise MissingInputError(f"band={str(path)!r}: no such file; allowed are auto, none, or the file of a band")
    try:
        content = read_record(path)
        if content.pop("format") != FORMAT:
            raise ValueError(f"has another format than {FORMAT}")
        band = Band(**content)
        for metric, intervals in band.intervals.items():
            if metric not in METRICS or not all(interval is None or len(interval) == 2 for interval in intervals):
                raise ValueError(f"{metric} is no metric with an interval for each epoch")
        np.asarray(band.class_shares, dtype=float) + np.zeros(len(band.class_names))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is no band, as `dlv3p runs band` writes one: {reason(error)}") from None
    return band


def write_band(path: Path, band: Band) -> None:
    """Write a band as JSON."""
    write_json(path, {"format": FORMAT, **asdict(band)})


def band_of_runs(folders: Sequence[Path], *, epochs: int = 0) -> Band:
    """Make the band of runs that differ in their seed alone, over the first `epochs`, 0 for as many as all have.

    The runs need not be finished. Raises ParameterError for fewer than three, or for different recipes, and
    MissingInputError where run.json, metrics.csv or the data is gone.
    """
    if len(folders) < 3:
        raise ParameterError("a band needs three runs or more, each with a seed of its own")
    records = [_record(folder) for folder in folders]
    first = records[0]["parameters"]
    for folder, record in zip(folders, records, strict=True):
        compared = set(first) - {"seed", *TrainParameters.NOT_IDENTITY}
        if differing := sorted(name for name in compared if record["parameters"].get(name) != first[name]):
            raise ParameterError(f"{folder.name} and {folders[0].name} differ in {', '.join(differing)}")
    seeds = [record["parameters"].get("seed") for record in records]
    if len(set(seeds)) < len(seeds):
        raise ParameterError(f"the runs have the seeds {', '.join(map(str, seeds))}; each needs one of its own")
    tables = [_table(folder / "metrics.csv") for folder in folders]
    common = min(len(table[metric]) for table in tables for metric in METRICS)
    if not 1 <= (epochs or common) <= common:
        raise ParameterError(f"epochs={epochs}: all runs together have {common}")
    intervals = {
        metric: [_interval(metric, values) for values in zip(*(table[metric] for table in tables), strict=False)][
            : epochs or common
        ]
        for metric in METRICS
    }
    split = open_split(resolve_data_root(first["data_root"]), first["train_split"])
    shares = [round(share, 4) for share in class_shares(split).tolist()]
    recipe = {name: value for name, value in first.items() if name not in TrainParameters.NOT_IDENTITY}
    return Band(recipe, list(split.class_names), shares, intervals, pixels_fingerprint(split))


def class_shares(split: Split) -> np.ndarray:
    """Return each class's share of the labelled pixels, float64 (C,), over up to `MOST_MASKS` masks of a split.

    A mask that cannot be read is left to the loader, which knows what to do about it.
    """
    counts = np.zeros(split.num_classes, dtype=np.int64)
    for index in range(0, len(split), -(-len(split) // MOST_MASKS)):
        try:
            mask = split.mask(index)
        except InputError:
            continue
        counts += np.bincount(mask[mask != IGNORE].ravel(), minlength=len(counts))[: len(counts)]
    return counts / max(1, counts.sum())


class EarlyWarning(Callback):
    """Warn, once for each metric, when a run leaves the band of its recipe."""

    def __init__(self, band: Band, parameters: TrainParameters, training: Split) -> None:
        self.band, self.parameters, self.training = band, parameters, training
        self._warned: set[str] = set()

    def on_start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        """Compare the labels, before the first step: that costs no training."""
        names, expected = self.training.class_names, np.asarray(self.band.class_shares)
        if len(names) != len(expected):
            self._warn(f"the data set has {len(names)} classes, and runs of this recipe had {len(expected)}")
            self._warned.update(METRICS)  # curves of other classes say no more
            return
        shares = class_shares(self.training)
        if np.abs(shares - expected).sum() / 2 > LARGEST_SHIFT:
            worst = int(np.abs(shares - expected).argmax())
            self._warn(f"{shares[worst]:.1%} of the labelled pixels are {names[worst]!r}, {expected[worst]:.1%} before")

    def on_epoch(self, row: Mapping[str, float]) -> None:
        number = int(row["epoch"])
        for metric, intervals in self.band.intervals.items():
            interval = intervals[number - 1] if number <= len(intervals) else None
            value = row.get(metric)
            # What is no number compares as false: a score that was not asked for is within any band.
            if metric in self._warned or interval is None or value is None:
                continue
            low, high = interval
            if value < low or value > high:
                self._warned.add(metric)
                side = "below" if value < low else "above"
                told = f"epoch {number}: {metric} {value:.3f} is {side} the band {low:.3f} to {high:.3f}"
                self._warn(f"{told} that runs of this recipe keep to")

    def _warn(self, what: str) -> None:
        print(f"warning: {what}; likely {self._causes()}", flush=True)

    def _causes(self) -> str:
        asked = self.parameters.as_dict()
        ignored = ("seed", "data_root", *TrainParameters.NOT_IDENTITY)
        differing = [
            f"{name} (now {asked[name]}, then {value})"
            for name, value in self.band.parameters.items()
            if name in asked and name not in ignored and asked[name] != value
        ]
        return ", or ".join([*differing[:3], "masks of the wrong ids (label ids for train ids) or of other images"])


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
        record = read_record(path)
        TrainParameters.from_mapping(record["parameters"])
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}") from None
    return record


def _table(path: Path) -> dict[str, list[float]]:
    if not path.is_file():
        raise MissingInputError(f"{path}: no epoch is done yet")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {metric: [float(row[metric]) for row in rows] for metric in METRICS}
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}") from None
