"""Gather the results of runs in one table: protocol, commit, seeds, mean and deviation; as CSV, Markdown or LaTeX.

    dlv3p table
    dlv3p table first second --format latex --output table.tex

Runs that differ only in their seed, or in the fold of a split that they leave out, are one row. Scores by different
protocols, or on different images, never are.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cityscapes.errors import MissingInputError, run_command
from cityscapes.files.atomic import write_text
from cityscapes.workspace import run_folder
from dlv3p.parameters.training import TRAINED_RUN

if TYPE_CHECKING:
    import pandas as pd

    from dlv3p.runs.listing import RunState

FORMATS = ("text", "csv", "markdown", "latex")
WHILE_TRAINING = "whole images, while training"
"""The protocol of the score that a training measures after each epoch, on whole images at a single scale."""
LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\~{}", "^": r"\^{}", **{c: f"\\{c}" for c in "%_&#${}"}}
)
"""How the characters that mean something to LaTeX are written in a text."""
SAME = ("recipe", "data", "protocol", "checkpoint", "trained on")
"""What the runs of one row share; the last are the classes, and the fingerprints of the images and masks."""


def gather_results(runs: Sequence[str] = ()) -> "pd.DataFrame":
    """Return a row per run, images and protocol: recipe, data, protocol, checkpoint, seed, mIoU, epochs, commit.

    `recipe` names the parameters in which the runs differ, without the seed. The score of the best epoch comes from
    training itself, the others from `evaluate.ipynb`. Raises MissingInputError where there is no run with a score.
    """
    import pandas as pd

    from dlv3p.evaluation.comparison import read_evaluations
    from dlv3p.runs.listing import differing_parameters

    named, states = [Path(run).name for run in runs], trained_states(runs, told=True)
    differing = [name for name in differing_parameters(states) if name not in ("seed", "fold")]
    rows, evaluations = [], read_evaluations([state.run for state in states])
    for state in states:
        recipe = ", ".join(f"{name} {state.parameters[name]}" for name in differing) or _network(state.parameters)
        facts = {"run": state.run, "recipe": recipe, "seed": state.parameters["seed"], "epochs": state.epoch}
        facts |= _recorded(state.run)
        if state.best_mean_iou is not None:
            data = f"{Path(str(state.parameters['data_root'])).name} {_scored(state.parameters)}"
            protocol = _scaled(WHILE_TRAINING, state.parameters["image_scale"])
            scored = {"data": data, "protocol": protocol, "checkpoint": "best", "mIoU": state.best_mean_iou}
            rows.append(facts | scored)
        for one in (one for one in evaluations if one.run == state.run):
            data, protocol = one.column
            scored = {"data": data, "protocol": protocol, "checkpoint": Path(one.checkpoint).stem}
            rows.append(facts | scored | {"mIoU": one.scores["mIoU"]})
    if not rows:
        where = run_folder("").resolve()
        raise MissingInputError(f"{where}: no run with a score among {', '.join(named) or 'all'}; run train.ipynb")
    order = ["run", *SAME, "seed", "mIoU", "epochs", "commit"]
    return pd.DataFrame(rows)[order].sort_values([*SAME[1:], "recipe", "seed"], kind="stable").reset_index(drop=True)


def trained_states(runs: Sequence[str] = (), *, told: bool = False) -> "list[RunState]":
    """Return the states of runs whose parameters are recorded: the named ones, else all, the stored one if alone.

    With `told`, say on stderr which are not finished, and which are left out since their record cannot be read.
    """
    from dlv3p.runs.folders import METRICS
    from dlv3p.runs.listing import STOPPED, TRAINING, all_runs, read_state

    named = [Path(run).name for run in runs]
    states = [read_state(run) for run in named or [run for run in all_runs() if run != TRAINED_RUN] or all_runs()]
    for state in states if told else ():
        if state.state in (TRAINING, STOPPED) and state.parameters:
            print(f"{state.run}: {state.state}, scored as far as it is", file=sys.stderr, flush=True)
        elif not state.parameters and (run_folder(state.run) / METRICS).is_file():
            print(f"{state.run}: left out; see: dlv3p runs check {state.run}", file=sys.stderr, flush=True)
    return [state for state in states if state.parameters]


def over_seeds(results: "pd.DataFrame") -> "pd.DataFrame":
    """Return a row per recipe, images, and protocol: seeds, mean mIoU and its standard deviation in percent, interval.

    Runs of one seed, such as the folds of a split, count once, with their mean. With five seeds or more there is a 95 %
    interval of the mean (Student's t); below, the deviation is all there is.
    """
    import pandas as pd

    from dlv3p.evaluation.statistics import mean_interval

    rows = []
    for shared, group in results.groupby(list(SAME), sort=False):
        values = 100 * group.groupby("seed")["mIoU"].mean()
        low, high = mean_interval(values.tolist())
        seeds = " ".join(map(str, values.index))
        row = dict(zip(SAME, shared, strict=True))
        row |= {"seeds": seeds, "runs": len(group), "mIoU, %": float(values.mean())}
        row |= {
            "sd": float(values.std()),
            "low": low,
            "high": high,
            "epochs": _shown(group["epochs"]),
            "commit": _shown(group["commit"]),
        }
        rows.append(row)
    table = pd.DataFrame(rows).drop(columns=["trained on"])
    return table.drop(columns=["checkpoint"]) if set(table["checkpoint"]) == {"best"} else table


def format_table(table: "pd.DataFrame", form: str) -> str:
    """Return a table of `over_seeds` as text, csv, markdown or latex; all but csv join mean, deviation and interval."""
    if form == "csv":
        return table.to_csv(index=False)
    return format_cells(_joined(table), form)


def format_cells(table: "pd.DataFrame", form: str) -> str:
    """Return a table as text, csv, markdown or latex, its cells as they are and without its index."""
    if form == "csv":
        return table.to_csv(index=False)
    if form == "latex":
        return table.rename(columns=_escaped).map(_escaped).style.hide(axis="index").to_latex(hrules=True)
    rows = [list(table.columns), *(list(map(str, row)) for row in table.itertuples(index=False))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    if form == "markdown":
        lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        lines.insert(1, ["-" * width for width in widths])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return "".join(f"{'  '.join(line).rstrip()}\n" for line in lines)


def _joined(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table with one column for mean, deviation and interval, as in `61.20 ± 0.35 [60.77, 61.63]`."""
    told = [
        f"{row['mIoU, %']:.2f}"
        + (f" ± {row['sd']:.2f}" if row["sd"] == row["sd"] else "")
        + (f" [{row['low']:.2f}, {row['high']:.2f}]" if row["low"] == row["low"] else "")
        for row in table.to_dict("records")
    ]
    return table.assign(**{"mIoU, %": told}).drop(columns=["sd", "low", "high"])


def _escaped(value: Any) -> str:
    """Return a text for LaTeX."""
    return str(value).translate(LATEX)


def _network(parameters: dict[str, Any]) -> str:
    return f"{parameters['architecture']} {parameters['backbone']} {parameters['output_stride']}"


def _scaled(protocol: str, image_scale: float) -> str:
    return protocol if image_scale == 1 else f"{protocol}, images at {image_scale:g}"


def _scored(parameters: dict[str, Any]) -> str:
    """Name the images that a training scores; the folds of a split have one name, so that they are one row."""
    folds = parameters.get("folds")
    return f"{parameters['train_split']}, {folds} folds" if folds else str(parameters["val_split"])


def _recorded(run: str) -> dict[str, str]:
    """Return the commit of a run, with a plus where there were uncommitted changes, and what its data was."""
    from dlv3p.runs.record import read_record

    try:
        record = read_record(run_folder(run) / "run.json")
        commit = f"{str(record['git']['commit'])[:7]}{'+' * bool(record['git']['changed'])}"
        prints = [f"{record['class_names']}"]
        prints += [
            split.get("whole") or f"{split['fingerprint']}{split.get('masks')}{split.get('content')}"
            for split in record["data"].values()
        ]
    except (OSError, ValueError, LookupError, TypeError):
        return {"commit": "-", "trained on": "-"}
    return {"commit": commit, "trained on": hashlib.sha256("".join(prints).encode()).hexdigest()[:12]}


def _shown(values: Any) -> str:
    return " ".join(dict.fromkeys(map(str, values)))


def command_of_tables(prog: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a command that makes tables of runs: which ones, in which format, and where to."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="saved/<run>, or its name; default: all")
    parser.add_argument("--format", choices=FORMATS, default="text", help="text (default), csv, markdown or latex")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it there instead")
    return parser


def print_or_write(told: str, output: Path | None) -> None:
    """Print tables, or write them to a file and print its path."""
    if output:
        write_text(output, told)
    print(output if output else told, end="\n" * bool(output))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it."""
    parser = command_of_tables(
        "dlv3p table",
        "Gather the results of runs: a row for each recipe, data and protocol, with mean and standard deviation over "
        "seeds, and from five seeds on the 95 % interval of the mean.",
    )
    parser.add_argument("--each", action="store_true", help="a row per run, as CSV, instead of one for all its seeds")
    options = parser.parse_args(arguments)
    results = gather_results(options.runs)
    told = results.to_csv(index=False) if options.each else format_table(over_seeds(results), options.format)
    print_or_write(told, options.output)
    return 0


if __name__ == "__main__":
    run_command(main)
