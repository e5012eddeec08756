"""The accuracy that belongs beside a cost: from finished runs that trained and scored the very same network."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cityscapes.workspace import output_folder, run_folder
from dlv3p.network import NetworkParameters
from dlv3p.profiling.measurable import NOT_MEASURED

COLUMNS = ("mIoU", "scored_run", "protocol")


def add_scores(
    rows: list[dict[str, Any]], network: NetworkParameters, num_classes: int, *, run: str
) -> list[dict[str, Any]]:
    """Return the rows of a sweep of `network` with mIoU, scored_run and protocol, the data and split among the latter.

    A score is that of `run` where it has the row's network, else of the newest other run that has: from its
    `outputs/<run>/evaluation.json`. It was taken in float32, and so stands in rows of float32 only; all others, and
    networks that nobody has trained, have "not measured".
    """
    found = _scored_networks(first=run)
    asked = _network(network.as_dict())
    result = []
    for row in rows:
        scores: dict[str, Any] = dict.fromkeys(COLUMNS, NOT_MEASURED)
        wanted = asked | {name: row[name] for name in ("backbone", "output_stride")}
        if row["precision"] == "float32":
            same = (told for has, classes, told in found if has == wanted and classes == num_classes)
            scores = next(same, scores)
        result.append(row | scores)
    return result


def _scored_networks(first: str) -> list[tuple[dict[str, Any], int, dict[str, Any]]]:
    """Return network, number of classes and score of every evaluated run, `first` first and then the newest ones."""
    paths = sorted(output_folder("").glob("*/evaluation.json"), key=lambda path: -path.stat().st_mtime_ns)
    found = []
    for path in sorted(paths, key=lambda path: path.parent.name != first):
        run = path.parent.name
        try:
            trained = json.loads((run_folder(run) / "run.json").read_text(encoding="utf-8"))
            scored = json.loads(path.read_text(encoding="utf-8"))
            told = f"{scored['protocol']}; {scored['data_root']} {scored['split']}, {scored['images']} images"
            score = {"mIoU": round(float(scored["mIoU"]), 4), "scored_run": run, "protocol": told}
            found.append((_network(trained["parameters"]), len(scored["classes"]), score))
        except (OSError, ValueError, KeyError, TypeError):  # a run that is half there says nothing
            continue
    return found


def _network(values: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the switches of a network; one that is younger than the run had no other value than its default."""
    return {item.name: values.get(item.name, item.default) for item in fields(NetworkParameters)}
