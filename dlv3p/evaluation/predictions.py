"""Predict a split as label-id PNGs, pack them for the official server, and check the zip without trusting it."""

import json
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from cityscapes.dataset import CityscapesSplit, Split
from cityscapes.errors import ParameterError
from cityscapes.scores.truth_files import truth_of_frames
from cityscapes.submissions.build import build_submission, save_prediction
from cityscapes.submissions.check import SubmissionReport, check_submission
from cityscapes.submissions.manifest import Manifest
from cityscapes.workspace import output_folder
from dlv3p.evaluation.inference import Predictor
from dlv3p.parameters.protocols import WHOLE_IMAGE, Protocol
from dlv3p.runs.folders import write_json
from dlv3p.runtime.progress import track


@dataclass(frozen=True)
class Submission:
    """The folder of predictions, the zip that was built from it, and the report of the check of that zip.

    On a labeled split `report.scores` are the official scores, read from the zip as the server would.
    """

    folder: Path
    manifest: Manifest
    report: SubmissionReport


def save_predictions(
    predictor: Predictor, split: Split, protocol: Protocol = WHOLE_IMAGE, *, progress: str = "auto"
) -> Path:
    """Write one label-id PNG per image, `<folder>/<city>/<name>_labelIds.png`, and return the folder.

    The folder's name identifies weights and protocol, so that an interrupted call resumes where it stopped and never
    mixes the predictions of two networks. Raises ParameterError for data that is not Cityscapes, and for a protocol
    that leaves a part of the image out.
    """
    split = _cityscapes(split)
    if protocol.center_crop:
        raise ParameterError(f"protocol={protocol.name!r}: sees the center only, and the server wants whole images")
    weights = json.loads(predictor.checkpoint.with_name(predictor.checkpoint.name + ".json").read_text())["sha256"]
    folder = output_folder(predictor.run) / "predictions" / f"{split.split}-{predictor.checkpoint.stem}-{weights[:8]}"
    folder = folder.with_name(folder.name + protocol.suffix)
    for index in track(range(len(split)), total=len(split), title=f"predict {split.split}", mode=progress):
        frame = split.frames[index]
        path = folder / frame.city / f"{frame.name}_labelIds.png"
        if not path.is_file():
            save_prediction(predictor(split.image(index), protocol), path)
    return folder


def pack_submission(predictor: Predictor, split: Split, folder: Path, protocol: Protocol = WHOLE_IMAGE) -> Submission:
    """Zip the predictions of a split to `outputs/<run>/submission.zip`.

    Splits other than test are named `submission_<split>.zip`; a protocol other than whole images is in the name too.
    """
    split = _cityscapes(split)
    name = "submission" if split.split == "test" else f"submission_{split.split}"
    path = output_folder(predictor.run) / f"{name}{protocol.suffix}.zip"
    size = split.image(0).size[::-1]
    manifest = build_submission(folder, path, expected=split.frames, size=size)
    truth = truth_of_frames(split.frames, split.root, split.generated)
    report = check_submission(path, expected=split.frames, size=size, truth=truth)
    content = {
        "run": predictor.run,
        "checkpoint": predictor.checkpoint.name,
        "epoch": predictor.epoch,
        "split": split.split,
        "protocol": str(protocol),
        "protocol_switches": protocol.as_dict(),
        "files": len(manifest.names),
        "bytes": manifest.size_bytes,
        "sha256": manifest.sha256,
        "problems": list(report.problems),
        "warnings": list(report.warnings),
        "official": _averages(report),
    }
    write_json(path.with_suffix(".json"), content)
    return Submission(folder, manifest, report)


def _cityscapes(split: Split) -> CityscapesSplit:
    if not isinstance(split, CityscapesSplit):
        raise ParameterError(
            f"data_root: {split.root} is not laid out as Cityscapes, whose server takes Cityscapes only"
        )
    return split


def _averages(report: SubmissionReport) -> dict[str, float | None] | None:
    """Return the four official scores for a JSON file, null where undefined; None where the truth is not known."""
    if report.scores is None:
        return None
    return {name: None if value is None or isnan(value) else value for name, value in report.scores.averages.items()}
