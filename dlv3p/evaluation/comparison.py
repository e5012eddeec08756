"""Compare the scores of several runs with each other and with published ones, a column per protocol and set of images.

A run that sees its images at another scale has its own column, too: at half the resolution it is another task. Only
published numbers whose protocol is known are here, each with its source; they come from other trainings than yours, and
a difference below a point is within the spread of two runs of one recipe.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cityscapes.errors import InputError, IntegrityError, reason
from cityscapes.files.checksums import HASH_KEY, call_unchecked, file_sha256, read_json
from cityscapes.workspace import output_folder, run_folder
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


def read_evaluations(runs: Sequence[str], *, current: bool = True) -> list[StoredEvaluation]:
    """Read all evaluations of these runs, by any protocol.

    Different images or masks under one name, such as those of two folders called `city`, get names of their own. With
    `current`, what was scored of another checkpoint than the run has now is left out, with a warning. Raises InputError
    for a file that states no protocol, and IntegrityError for one that was changed since.
    """
    paths = [path for run in runs for path in sorted(output_folder(run).glob("evaluation*.json"))]
    evaluations = [_read(path) for path in paths]
    return _told_apart(_only_current(evaluations) if current else evaluations)


def _only_current(evaluations: Sequence[StoredEvaluation]) -> list[StoredEvaluation]:
    """Leave out, with a warning, the scores of checkpoints that a later training has replaced."""
    sha256 = cache(file_sha256)
    found = []
    for one in evaluations:
        path, scored = run_folder(one.run) / "checkpoints" / one.checkpoint, one.made_from.checkpoint_sha256
        if scored and path.is_file() and sha256(path) != scored:
            problem = f"is of another checkpoint than {one.run} has now; evaluate it again"
            print(f"warning: its scores are left out: {one.path}: {problem}", file=sys.stderr, flush=True)
        else:
            found.append(one)
    return found


def _told_apart(evaluations: Sequence[StoredEvaluation]) -> list[StoredEvaluation]:
    """Add the folder, and a part of a hash of what was scored, to a name that different images or masks share."""
    identities: list[tuple[str, ...]] = [(one.data,) for one in evaluations]
    for name in ("images_sha256", "image_contents_sha256", "mask_contents_sha256"):
        # A protocol may crop, so that the masks that it scores are others.
        apart = [one.protocol.name if name == "mask_contents_sha256" else "" for one in evaluations]
        keys = list(zip(identities, apart, strict=True))
        hashes = [getattr(one.made_from, name) for one in evaluations]
        known: dict[tuple, set[str]] = {}
        for key, value in zip(keys, hashes, strict=True):
            known.setdefault(key, set()).add(value)
        unknown = {""} if "contents" in name else set()  # earlier versions have not kept them, and tell nothing apart
        identities = [
            (*key[0], value) if len(known[key] - unknown) > 1 else key[0]
            for key, value in zip(keys, hashes, strict=True)
        ]
    return [
        replace(one, data=f"{one.data} of {one.root}, {last[:6] or 'unchecked'}") if more else one
        for one, (_, *more, last) in zip(evaluations, (("", *identity) for identity in identities), strict=True)
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
    images, protocols = [images for images, _ in cells], [protocol for _, protocol in cells]
    return pd.DataFrame(cells, columns=pd.MultiIndex.from_arrays([images, protocols], names=["images", "protocol"]))


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
        scores = {name: _score(content[name], name) for name in ("mIoU", "mDice", "mPA", "pixel_accuracy")}
        if HASH_KEY not in content:
            call_unchecked(path)
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


def _score(value: Any, name: str) -> float | None:
    """Return a stored score, None where it is not defined; raises ValueError for what is none."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
        raise ValueError(f"{name} is {value!r}, not a number from 0 to 1")
    return value
