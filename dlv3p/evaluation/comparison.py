"""Compare the scores of several runs with each other and with published ones, a column per protocol and set of images.

A run that sees its images at another scale has its own column, too: at half the resolution it is another task. Only
published numbers whose protocol is known are here, each with its source; they come from other trainings than yours, and
a difference below a point is within the spread of two runs of one recipe.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cityscapes.errors import InputError, IntegrityError, reason
from cityscapes.files.checksums import read_json
from cityscapes.workspace import output_folder
from dlv3p.evaluation.published_figures import FIGURES, choose, published_figures
from dlv3p.evaluation.results import MadeFrom
from dlv3p.parameters.protocols import Protocol, protocol_from


class PublishedScore(NamedTuple):
    """A published mIoU, from 0 to 1."""

    network: str
    data: str
    protocol: str
    mean_iou: float
    source: str


@dataclass(frozen=True)
class StoredEvaluation:
    """One file that `Evaluation.save` wrote: run, images, protocol, and scores from 0 to 1.

    `image_scale` is the factor by which the run resizes images before anything else; `root` and `made_from` say which
    images were scored, where they are not told by their name.
    """

    path: Path
    run: str
    checkpoint: str
    data: str
    protocol: Protocol
    image_scale: float
    scores: dict[str, float]
    root: str = ""
    made_from: MadeFrom = MadeFrom()

    @property
    def column(self) -> tuple[str, str]:
        """The images, and the name of the protocol with the scale of the images where they are resized."""
        scaled = "" if self.image_scale == 1 else f", images at {self.image_scale:g}"
        return self.data, f"{self.protocol.name}{scaled}"


def read_evaluations(runs: Sequence[str]) -> list[StoredEvaluation]:
    """Read all evaluations of these runs, by any protocol.

    Different images under one name, such as those of two folders called `city`, get names of their own. Raises
    InputError for a file that states no protocol, and IntegrityError for one that was changed since.
    """
    paths = [path for run in runs for path in sorted(output_folder(run).glob("evaluation*.json"))]
    return _told_apart([_read(path) for path in paths])


def _told_apart(evaluations: Sequence[StoredEvaluation]) -> list[StoredEvaluation]:
    """Add the folder, and a part of the images' hash, to a name that different images share."""
    contents: dict[tuple[str, str], set[str]] = {}
    for one in evaluations:
        contents.setdefault((one.data, one.made_from.images_sha256), set()).add(one.made_from.image_contents_sha256)

    def identity(one: StoredEvaluation) -> str:
        sizes, bytes_ = one.made_from.images_sha256, one.made_from.image_contents_sha256
        return bytes_ or sizes if len(contents[one.data, sizes] - {""}) > 1 else sizes

    known: dict[str, set[str]] = {}
    for one in evaluations:
        known.setdefault(one.data, set()).add(identity(one))
    return [
        replace(one, data=f"{one.data} of {one.root}, {identity(one)[:6] or 'unchecked'}")
        if len(known[one.data]) > 1
        else one
        for one in evaluations
    ]


def score_table(
    evaluations: Sequence[StoredEvaluation], score: str = "mIoU", *, published: bool = True
) -> pd.DataFrame:
    """Return a table of one score with a row for every run and a column for every `StoredEvaluation.column`.

    A run that was not scored by a column's protocol has nan there. With `published`, a mIoU column also gets the
    published scores of the same images by the same protocol at full size, named with their source.
    """
    cells = {}
    for one in evaluations:
        row = f"{one.run}, {Path(one.checkpoint).stem}"
        cells.setdefault(one.column, {})[row] = one.scores[score]
    if published and score == "mIoU":
        for row in published_scores():
            if (column := (row.data, row.protocol)) in cells:
                cells[column][f"{row.network} ({row.source})"] = row.mean_iou
    table = pd.DataFrame(cells)
    return table.rename_axis(columns=["images", "protocol"])


def published_scores(path: Path = FIGURES) -> list[PublishedScore]:
    """Return the published mIoU by protocols that we have; raises InputError as `published_figures` does."""
    return [
        PublishedScore(one.network, one.data, one.protocol, round(one.value / 100, 6), one.origin)
        for one in choose(published_figures(path), metric="mIoU")
        if one.is_score
    ]


def _read(path: Path) -> StoredEvaluation:
    try:
        content: dict[str, Any] = read_json(path)
        protocol = protocol_from(content["protocol_switches"])
        scores = {name: content[name] for name in ("mIoU", "mDice", "mPA", "pixel_accuracy")}
        run, checkpoint, data = path.parent.name, content["checkpoint"], content["data"]  # the run may be renamed
        which = (str(content.get("data_root", "")), MadeFrom.recorded(content.get("made_from")))
        return StoredEvaluation(path, run, checkpoint, data, protocol, float(content["image_scale"]), scores, *which)
    except IntegrityError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: does not say by which protocol it was scored ({type(error).__name__}: {reason(error)}), so it "
            "cannot be compared; evaluate that run again, or move the file away"
        ) from error
