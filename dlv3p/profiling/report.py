"""What stays of a profile: one file with the counts, the measured rows, and what they were measured on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cityscapes.workspace import output_folder
from dlv3p.profiling.machine import machine
from dlv3p.profiling.strides import StrideComparison
from dlv3p.runs.folders import write_json


def save_profile(
    run: str,
    asked: Mapping[str, Any],
    counts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    comparison: StrideComparison | None = None,
) -> Path:
    """Write `outputs/<run>/profile.json` and return its path.

    `asked` are the notebook's parameters. Without a `comparison` of strides, which comes after the rows and may fail,
    the file holds all the rest.
    """
    strides = {} if comparison is None else comparison.table.to_dict("index")
    content = {"run": run, "asked": dict(asked), "machine": machine(), "counts": counts, "rows": rows}
    path = output_folder(run) / "profile.json"
    write_json(path, {**content, "strides": strides})
    return path
