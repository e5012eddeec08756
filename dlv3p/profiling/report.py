"""Write a profile to one file: counts, measured rows, the machine, and the mIoU of runs of the same network."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cityscapes.errors import IntegrityError
from cityscapes.files.checksums import file_sha256, read_json
from cityscapes.workspace import output_folder
from dlv3p.evaluation.results import CHECKPOINT, MadeFrom
from dlv3p.parameters.cases import case_of
from dlv3p.parameters.network import NetworkParameters
from dlv3p.profiling.counters import NOT_MEASURED
from dlv3p.profiling.machine import machine
from dlv3p.profiling.profiled_model import ProfiledModel
from dlv3p.profiling.strides import StrideComparison
from dlv3p.runs.folders import checkpoint_path, write_json
from dlv3p.runs.loading import load_run_checkpoint

COLUMNS = ("mIoU", "scored_run", "protocol")
MEASUREMENTS = {
    "p50_ms": "median, ms",
    "p10_ms": "p10, ms",
    "p90_ms": "p90, ms",
    "images_per_second": "images per second",
    "allocated_mib": "allocated, MiB",
    "reserved_mib": "reserved, MiB",
    "process_mib": "process, MiB",
    "above_weights_mib": "above weights, MiB",
    "joules_per_image": "energy per image, J",
    "mIoU": "mIoU",
}
"""What matters of a measured row, by the title of its column; the file holds the rest."""


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
    path, checkpoint = output_folder(run) / "profile.json", checkpoint_path(run, "best")
    if checkpoint.is_file():
        content[CHECKPOINT] = file_sha256(checkpoint)
    write_json(path, {**content, "strides": strides})
    return path


def add_scores(rows: Sequence[dict[str, Any]], profiled: ProfiledModel, *, run: str) -> list[dict[str, Any]]:
    """Return the rows of a sweep with mIoU, scored_run and protocol, the data and split among the latter.

    A score comes from the `outputs/<run>/evaluation.json` of `run` where it has the row's network, else of the newest
    other run that has. It was taken in float32, and so appears in rows of float32 only; all others, and networks that
    nobody has trained, have "not measured".
    """
    paths = sorted(output_folder("").glob("*/evaluation.json"), key=lambda path: -path.stat().st_mtime_ns)
    paths = sorted(paths, key=lambda path: path.parent.name != run)
    found = [scored for scored in map(_scored, paths) if scored]
    result = []
    for row in rows:
        case, scores = case_of(row), dict.fromkeys(COLUMNS, NOT_MEASURED)
        if case.precision == "float32":
            wanted = _Network(
                profiled.network_in(case).as_dict(),
                profiled.num_classes,
                {name: dict(values) for name, values in profiled.widths_in(case).items()},
            )
            scores = next((score for network, score in found if network == wanted), scores)
        result.append(row | scores)
    return result


def measurements_table(rows: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, str]:
    """Return a table with a row per case and the columns that matter, and a sentence about what was not measured."""
    measured = [name for name in MEASUREMENTS if any(not isinstance(row.get(name, ""), str) for row in rows)]
    absent = [title for name, title in MEASUREMENTS.items() if name not in measured]
    columns = {MEASUREMENTS[name]: [row.get(name, NOT_MEASURED) for row in rows] for name in measured}
    columns["status"] = [row["status"] for row in rows]
    table = pd.DataFrame(columns, index=pd.Index([case_of(row).title for row in rows], name="case"))
    return table, f"not measured here: {'; '.join(absent)}" if absent else ""


class _Network(NamedTuple):
    switches: dict[str, Any]
    num_classes: int
    widths: dict[str, Any]


def _scored(path: Path) -> tuple[_Network, dict[str, Any]] | None:
    """Return the network that an evaluation scored, with its scores; None where a run is incomplete.

    What was changed since it was written, or is of an earlier checkpoint, is left out with a warning.
    """
    run = path.parent.name
    try:
        scored = read_json(path)
        state = load_run_checkpoint(run, Path(scored["checkpoint"]).stem)
        if state["sha256"] != MadeFrom.recorded(scored.get("made_from")).checkpoint_sha256 != "":
            raise IntegrityError(f"{path}: is of another checkpoint than {run} has now; evaluate it again")
        switches = {item.name: state["parameters"].get(item.name, item.default) for item in fields(NetworkParameters)}
        protocol = f"{scored['protocol']}; {scored['data_root']} {scored['split']}, {scored['images']} images"
        score = {"mIoU": round(float(scored["mIoU"]), 4), "scored_run": run, "protocol": protocol}
        return _Network(switches, len(scored["classes"]), state.get("widths") or {}), score
    except IntegrityError as error:
        print(f"warning: its score is left out: {error}", flush=True)
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
