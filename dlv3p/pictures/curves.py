"""Read the metrics of runs into one table, plot curves over epochs or learning rates, find each run's best epoch."""

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from itertools import product
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cityscapes.errors import InputError, IntegrityError, MissingInputError
from cityscapes.files.checksums import call_unchecked, check_recorded, record_path
from cityscapes.files.untrusted import refuse_duplicates, regular
from cityscapes.workspace import run_folder
from dlv3p.parameters.training import TrainParameters
from dlv3p.pictures.figures import SCORED_WHILE_TRAINING, new_figure
from dlv3p.runs.folders import HISTORY_COLUMNS, LATER_COLUMNS, find_run
from dlv3p.runs.listing import differences, read_state
from dlv3p.runs.record import read_unchanged_record, steps_per_epoch
from dlv3p.runtime.widgets import limit_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dlv3p.training.range_test import RangeTest

METRICS = ("loss", "mIoU", "mDice", "mPA")
"""What `plot_curves` shows: the loss, and three means over the classes, from 0 to 1."""

MOST_DIFFERENCES, SHORT_NAME = 4, 20
"""At most so many parameters, and characters of its name, label a run beside others."""

_DASHES = {"val": "", "train": (3, 1.5)}
_MARKERS = {"val": "o", "train": "X"}
_SCORES = (*METRICS, "pixel_accuracy")
_ONE_RUN = "#0072B2"
_TWO_COLUMNS = 60  # characters of a label that fit beside another one
_MARKED_EPOCHS = 40  # more points than this merge into a thick line


def read_metrics(runs: Sequence[str] = ()) -> pd.DataFrame:
    """Read saved/<run>/metrics.csv of each run, or of all runs that have one: a row per run, epoch, and split.

    Columns: run, output_stride, epoch, step, hours and joules (since the run began, at the end of the epoch; nan where
    not known), split ("train" or "val"), loss, mIoU, mDice, mPA, pixel_accuracy, learning_rate, seconds (of the epoch,
    both splits). Raises MissingInputError, which names the existing runs, and InputError or IntegrityError for a
    damaged file.
    """
    runs = list(dict.fromkeys(runs)) or sorted(path.parent.name for path in run_folder("").glob("*/metrics.csv"))
    if not runs:
        raise MissingInputError(f"{run_folder('').resolve()}: no run with a metrics.csv yet; run train.ipynb first")
    return pd.concat([_read_run(find_run(run)) for run in runs], ignore_index=True)


def plot_curves(metrics: pd.DataFrame, *, over: str = "epoch", join_seeds: bool = False) -> "Figure":
    """Plot loss, mIoU, mDice, and mPA over epochs, steps, hours or joules: a color per run, val solid, train dashed.

    With `join_seeds`, runs that differ only in their seed share a color: their mean, and a band from the lowest to the
    highest. Raises InputError where a run does not say how many steps its epochs have, or what energy they took.
    """
    import seaborn
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    table = _labeled(metrics, over, join_seeds=join_seeds)
    labels = list(dict.fromkeys(table.label))
    palette = _run_colors(len(labels))
    statistics = {"estimator": "mean", "errorbar": ("pi", 100)} if join_seeds else {"estimator": None}
    few, measured = table.epoch.max() <= _MARKED_EPOCHS, over in ("hours", "joules")
    figure = new_figure(11, 7.2 + 0.25 * len(labels), footer="")
    for axes, metric in zip(figure.subplots(2, 2).flat, METRICS, strict=True):
        for (label, color), (split, dashes) in product(zip(labels, palette, strict=True), _DASHES.items()):
            known = len(axes.collections)
            seaborn.lineplot(
                table[(table.label == label) & (table.split == split)], x=over, y=metric, color=color, ax=axes,
                linestyle=(0, dashes) if dashes else "-", marker=_MARKERS[split] if few else None,
                markersize=5, markeredgewidth=0, label=f"{label}, {split}", legend=False, **statistics,
            )  # fmt: skip
            for band in axes.collections[known:]:
                band.set_label(f"{label}, {split}")
        margin = 0.5 * table[over].max() / table.epoch.max()
        axes.set(title=metric, xlabel=over, ylabel="", xlim=(0 if measured else margin, table[over].max() + margin))
        limit_axis(axes, metric, table[metric])
        if metric == "mIoU":
            _mark_best(axes, table, over, dict(zip(labels, palette, strict=True)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=not measured, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    star = Line2D(
        [], [], linestyle="", marker="*", markersize=10, color="0.6", markeredgecolor="0.2", label="best epoch"
    )
    splits = [_split_line(split, few) for split in _DASHES]
    fits = max(map(len, labels)) <= _TWO_COLUMNS
    figure.legend(
        handles=[Line2D([], [], color=color, linewidth=3) for color in palette],
        labels=labels, loc="outside lower center", ncols=2 if len(labels) > 6 and fits else 1, frameon=False,
        title=SCORED_WHILE_TRAINING, title_fontsize=8,
    )  # fmt: skip
    # Above the panels: inside one, the star of the legend would look like a mark of its curve.
    figure.legend(handles=[*splits, star], loc="outside upper right", ncols=3, frameon=False)
    return figure


def plot_range_test(found: "RangeTest", parameters: TrainParameters) -> "Figure":
    """Plot the loss of a range test of `parameters` over its learning rates, and mark the suggestion."""
    p, smoothed, suggestion = parameters, found.smoothed, found.suggestion
    data = f"{Path(p.data_root).name} {p.train_split}, batch_size {p.batch_size}"
    figure = new_figure(8, 4.2, footer=f"{p.run_name} · {data} · {p.optimizer}")
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color="0.75", linewidth=1, label="loss of a step")
    axes.plot(found.rates, smoothed, color="C0", linewidth=2, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color="C3", linestyle="--", linewidth=1, label=f"suggestion: {suggestion:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0, 1.5 * max(smoothed[:10])))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left")
    return figure


def run_labels(runs: Sequence[tuple[str, int]]) -> list[str]:
    """Return a label for each (run, output stride): of several runs, a short name and what differs between them."""
    known = [read_state(run) for run, _ in runs if (run_folder(run) / "run.json").is_file()]
    different = differences(known)
    if len(runs) < 2 or len(known) < len(runs) or not any(different):
        return [_label(*pair) for pair in runs]
    return [_short(run) + _told(values) for (run, _), values in zip(runs, different, strict=True)]


def _told(values: Mapping[str, Any]) -> str:
    told = [f"{name} {value}".replace("_", " ") for name, value in list(values.items())[:MOST_DIFFERENCES]]
    return f" ({', '.join(told)})" if told else ""


def _short(run: str) -> str:
    return run if len(run) <= SHORT_NAME else f"{run[: SHORT_NAME - 8]}…{run[-7:]}"  # a derived name ends in its hash


def _labeled(metrics: pd.DataFrame, over: str, *, join_seeds: bool) -> pd.DataFrame:
    """Add the label of each row's run, or of the runs that share its curve, whose steps and hours are averaged."""
    runs = list(dict.fromkeys(zip(metrics.run, metrics.output_stride, strict=True)))
    labels = dict(zip((run for run, _ in runs), run_labels(runs), strict=True))
    if join_seeds:
        groups: dict[str, list[str]] = {}
        for run in labels:
            groups.setdefault(_without_seed(run), []).append(run)
        joined = {group[0]: group for group in groups.values()}
        names = run_labels([pair for pair in runs if pair[0] in joined])
        labels = {
            run: f"{name}, {len(group)} seeds" if len(group) > 1 else name
            for name, group in zip(names, joined.values(), strict=True)
            for run in group
        }
    table = metrics.assign(label=metrics.run.map(labels))
    if table[over].isna().any():
        run = table.run[table[over].isna()].iloc[0]
        if over == "joules":
            raise InputError(
                f"{run_folder(run)}/metrics.csv: states no joules of some epoch, as where no energy counter can be "
                "read; draw over='hours'"
            )
        raise InputError(f"{run_folder(run)}/run.json: does not say how many steps an epoch has; draw over='epoch'")
    table[over] = table.groupby(["label", "epoch"])[over].transform("mean")
    return table


def _without_seed(run: str) -> str:
    """Return what a run was trained with but for the seed, as a text to be compared."""
    parameters = read_state(run).parameters
    left_out = {"seed", *TrainParameters.NOT_IDENTITY}
    return (
        repr(sorted((name, value) for name, value in parameters.items() if name not in left_out)) if parameters else run
    )


def _mark_best(axes: "Axes", table: pd.DataFrame, over: str, colors: Mapping[str, Any]) -> None:
    """Mark the best epoch by val mIoU of each curve that is of a single run with a star."""
    for label, color in colors.items():
        val = table[(table.label == label) & (table.split == "val")].dropna(subset="mIoU")
        if len(val) and val.run.nunique() == 1:
            best = val.loc[val.mIoU.idxmax()]
            style = {"marker": "*", "edgecolors": "0.2", "zorder": 5, "label": f"{label}, best epoch"}
            axes.scatter([best[over]], [best.mIoU], 140, [color], **style)


def best_epochs(metrics: pd.DataFrame) -> pd.DataFrame:
    """Find the epoch with the highest val mIoU of each run, the first one of a tie.

    Columns: run, output_stride, best_epoch, val_mIoU, val_mDice, val_mPA at that epoch, last_epoch, seconds (of all
    epochs). A run whose val mIoU was never a number has NaN there.
    """
    rows = []
    for run, of_run in metrics.groupby("run", sort=False):
        val = of_run[of_run.split == "val"]
        known = val.dropna(subset="mIoU")
        best = known.loc[known.mIoU.idxmax()] if len(known) else dict.fromkeys(("epoch", *METRICS), float("nan"))
        rows.append(
            {
                "run": run,
                "output_stride": of_run.output_stride.iloc[0],
                "best_epoch": best["epoch"],
                **{f"val_{name}": best[name] for name in ("mIoU", "mDice", "mPA")},
                "last_epoch": int(of_run.epoch.max()),
                "seconds": round(float(val.seconds.sum()), 1),
            }
        )
    return pd.DataFrame(rows).astype({"best_epoch": "Int64", "output_stride": "Int64"})


def _read_run(run: str) -> pd.DataFrame:
    path = run_folder(run) / "metrics.csv"
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file; {run!r} was not trained, choose the run that it was made from")
    try:
        content = regular(path).read_bytes()
        _check_lines(content.decode())
        wide = pd.read_csv(io.BytesIO(content))
        # Runs from before a column was added are complete without it.
        missing = [name for name in HISTORY_COLUMNS if name not in wide and name not in LATER_COLUMNS]
        if missing or wide.empty:
            raise ValueError(f"no column {missing[0]!r}" if missing else "no epoch")
        wide = wide.astype({name: int if name == "epoch" else float for name in HISTORY_COLUMNS if name in wide})
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}); delete it and run train.ipynb to resume") from error
    check_recorded(path, hashlib.sha256(content).hexdigest())
    if not record_path(path).is_file():
        call_unchecked(path)
    splits = []
    for split in ("train", "val"):
        scores = {name: wide[f"{split}_{name}"] for name in _SCORES}
        rest = {
            "learning_rate": wide.learning_rate,
            "seconds": wide.seconds,
            "joules_of_epoch": wide.get("joules", nan),
        }
        splits.append(pd.DataFrame({"epoch": wide.epoch, "split": split, **scores, **rest}))
    table = pd.concat(splits).sort_values("epoch", kind="stable")
    output_stride, steps = _read_facts(path.with_name("run.json"))
    for place, (name, values) in enumerate({"run": run, "output_stride": output_stride}.items()):
        table.insert(place, name, values)
    table.insert(3, "step", table.epoch * (steps or float("nan")))
    table.insert(4, "hours", table.groupby("split").seconds.cumsum() / 3600)
    table.insert(5, "joules", table.pop("joules_of_epoch").groupby(table.split).cumsum(skipna=False))
    return table


def _check_lines(text: str) -> None:
    """Raise ValueError for lines of a metrics.csv that pandas would read as something else, without a word."""
    header, *rows = list(csv.reader(io.StringIO(text))) or [[]]
    refuse_duplicates(header)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"line {number + 1} has {len(row)} values for {len(header)} columns")
        if "epoch" in header and row[header.index("epoch")] != str(number):
            raise ValueError(f"line {number + 1} is not that of epoch {number}")
    if not text.endswith("\n"):
        raise ValueError("the last line is incomplete")


def _read_facts(path: Path) -> tuple[int, int | None]:
    """Return the output stride of a run, and how many steps an epoch has, if its record says so."""
    try:
        record = read_unchanged_record(path)
        return int(record["parameters"]["output_stride"]), steps_per_epoch(record)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file; a run's folder holds it next to metrics.csv") from error
    except IntegrityError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged: parameters.output_stride cannot be read; restore the file") from error


def _label(run: str, output_stride: int) -> str:
    return f"{run} (output stride {output_stride})"


def _run_colors(count: int) -> list[tuple[float, float, float]]:
    """Return colors that differ in lightness, for color-blind eyes and gray print, none as light as paper."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    return [colormaps["viridis"](at)[:3] for at in np.linspace(0, 0.85, count)] if count > 1 else [to_rgb(_ONE_RUN)]


def _split_line(split: str, marked: bool):
    from matplotlib.lines import Line2D

    line = Line2D([], [], color="0.3", marker=_MARKERS[split] if marked else None, markersize=5, label=split)
    if _DASHES[split]:
        line.set_dashes(_DASHES[split])
    return line
