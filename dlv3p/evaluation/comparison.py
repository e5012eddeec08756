"""Scores of several runs side by side: a column for every protocol on every set of images, never two in one.

A run that sees its images at another scale has a column of its own, too: half of the pixels is another task.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cityscapes.errors import InputError, reason
from cityscapes.workspace import output_folder
from dlv3p.evaluation.published_scores import PUBLISHED_SCORES
from dlv3p.parameters.protocols import Protocol, protocol_from


@dataclass(frozen=True)
class StoredEvaluation:
    """One file that `Evaluation.save` wrote: whose scores, of which images, by which protocol; scores from 0 to 1.

    `image_scale` is by how much the run resizes images before anything else.
    """

    path: Path
    run: str
    checkpoint: str
    data: str
    protocol: Protocol
    image_scale: float
    scores: dict[str, float]

    @property
    def column(self) -> tuple[str, str]:
        """The images, and the name of the protocol with the images' scale where they are resized."""
        scaled = "" if self.image_scale == 1 else f", images at {self.image_scale:g}"
        return self.data, f"{self.protocol.name}{scaled}"


def read_evaluations(runs: Sequence[str]) -> list[StoredEvaluation]:
    """Read all evaluations of these runs, whatever the protocol; raises InputError for a file that states none."""
    paths = [path for run in runs for path in sorted(output_folder(run).glob("evaluation*.json"))]
    return [_read(path) for path in paths]


def score_table(
    evaluations: Sequence[StoredEvaluation], score: str = "mIoU", *, published: bool = True
) -> pd.DataFrame:
    """Return a table of one score with a row for every run and a column for every `StoredEvaluation.column`.

    A run that was not scored by a column's protocol has nan there. With `published`, a mIoU column also gets the rows
    that others have published for the same images by the same protocol at full size, named with their source.
    """
    cells = {}
    for one in evaluations:
        row = f"{one.run}, {Path(one.checkpoint).stem}"
        cells.setdefault(one.column, {})[row] = one.scores[score]
    if published and score == "mIoU":
        for row in PUBLISHED_SCORES:
            if (column := (row.data, row.protocol)) in cells:
                cells[column][f"{row.network} ({row.source})"] = row.mean_iou
    table = pd.DataFrame(cells)
    return table.rename_axis(columns=["images", "protocol"])


def _read(path: Path) -> StoredEvaluation:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        protocol = protocol_from(content["protocol_switches"])
        scores = {name: content[name] for name in ("mIoU", "mDice", "mPA", "pixel_accuracy")}
        run, checkpoint, data = content["run"], content["checkpoint"], content["data"]
        return StoredEvaluation(path, run, checkpoint, data, protocol, float(content["image_scale"]), scores)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: does not say by which protocol it was scored ({type(error).__name__}: {reason(error)}), so it "
            "stands beside no other; evaluate that run again, or move the file away"
        ) from error
