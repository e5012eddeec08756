"""Compare the scores of several runs with each other and with published ones, a column per protocol and set of images.

A run that sees its images at another scale has a column of its own, too: half of the pixels is another task. Of what
others have published only numbers whose protocol is known are here, each with its source; they stand for other
trainings than yours, and a difference below a point is within what two runs of one recipe differ by.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cityscapes.errors import InputError, reason
from cityscapes.workspace import output_folder
from dlv3p.parameters.protocols import Protocol, protocol_from


class PublishedScore(NamedTuple):
    """A mIoU, 0 to 1; `data` and `protocol` are named as in an evaluation of ours."""

    network: str
    data: str
    protocol: str
    mean_iou: float
    source: str


def _scores(data: str, protocol: str, source: str, percents: dict[str, float]) -> list[PublishedScore]:
    return [PublishedScore(network, data, protocol, round(p / 100, 4), source) for network, p in percents.items()]


CITYSCAPES, VOC = "Cityscapes val", "PASCAL VOC 2012 val"

PUBLISHED_SCORES = (
    *_scores(
        CITYSCAPES,
        "whole_image",
        "mmsegmentation, 80k steps of 512x1024",
        {
            "DeepLabV3 ResNet-18 stride 8": 76.70,
            "DeepLabV3 ResNet-50 stride 8": 79.32,
            "DeepLabV3 ResNet-101 stride 8": 80.20,
            "DeepLabV3 ResNet-101 stride 16, multi-grid": 78.36,
            "DeepLabV3+ ResNet-18 stride 8": 76.89,
            "DeepLabV3+ ResNet-50 stride 8": 80.09,
            "DeepLabV3+ ResNet-101 stride 8": 80.97,
            "DeepLabV3+ ResNet-101 stride 16, multi-grid": 79.90,
        },
    ),
    *_scores(
        CITYSCAPES,
        "six_scales_flip",
        "mmsegmentation, 80k steps of 512x1024",
        {
            "DeepLabV3 ResNet-18 stride 8": 78.27,
            "DeepLabV3 ResNet-50 stride 8": 80.57,
            "DeepLabV3 ResNet-101 stride 8": 81.21,
            "DeepLabV3 ResNet-101 stride 16, multi-grid": 79.84,
            "DeepLabV3+ ResNet-18 stride 8": 78.76,
            "DeepLabV3+ ResNet-50 stride 8": 81.13,
            "DeepLabV3+ ResNet-101 stride 8": 82.03,
            "DeepLabV3+ ResNet-101 stride 16, multi-grid": 81.33,
        },
    ),
    *_scores(
        CITYSCAPES,
        "windows_769",
        "mmsegmentation, 80k steps of 769x769",
        {"DeepLabV3 ResNet-50 stride 8": 79.89, "DeepLabV3 ResNet-101 stride 8": 79.67},
    ),
    *_scores(
        CITYSCAPES,
        "windows_769_six_scales_flip",
        "mmsegmentation, 80k steps of 769x769",
        {"DeepLabV3 ResNet-50 stride 8": 81.06, "DeepLabV3 ResNet-101 stride 8": 80.81},
    ),
    *_scores(
        CITYSCAPES,
        "whole_image",
        "VainF/DeepLabV3Plus-Pytorch",
        {"DeepLabV3+ MobileNetV2 stride 16": 72.1, "DeepLabV3+ ResNet-101 stride 16": 76.2},
    ),
    *_scores(
        VOC,
        "voc_padded_513",
        "chenxi116/DeepLabv3.pytorch",
        {"DeepLabV3 ResNet-101 stride 16": 76.49, "DeepLabV3 ResNet-101 stride 16, group norm": 77.20},
    ),
    *_scores(
        VOC,
        "voc_padded_513",
        "stigma0617/VoVNet-DeepLabV3",
        {
            "DeepLabV3 ResNet-50 stride 16": 74.27,
            "DeepLabV3 ResNet-101 stride 16": 76.81,
            "DeepLabV3 DenseNet-161 stride 16": 76.13,
            "DeepLabV3 DenseNet-201 stride 16": 75.63,
            "DeepLabV3 VoVNet-39 stride 16": 75.71,
            "DeepLabV3 VoVNet-57 stride 16": 77.40,
        },
    ),
    *_scores(
        VOC,
        "voc_long_side_513",
        "MindSpore model zoo",
        {"DeepLabV3 ResNet-101 stride 16": 77.37, "DeepLabV3 ResNet-101 stride 8": 78.84},
    ),
    *_scores(VOC, "voc_long_side_513_five_scales", "MindSpore model zoo", {"DeepLabV3 ResNet-101 stride 8": 79.70}),
    *_scores(
        VOC, "voc_long_side_513_five_scales_flip", "MindSpore model zoo", {"DeepLabV3 ResNet-101 stride 8": 79.89}
    ),
    *_scores(
        VOC,
        "voc_center_crop_513",
        "VainF/DeepLabV3Plus-Pytorch",
        {
            "DeepLabV3 MobileNetV2 stride 16": 70.1,
            "DeepLabV3 ResNet-50 stride 16": 76.9,
            "DeepLabV3 ResNet-101 stride 16": 77.3,
            "DeepLabV3+ MobileNetV2 stride 16": 71.1,
            "DeepLabV3+ ResNet-50 stride 16": 77.2,
            "DeepLabV3+ ResNet-101 stride 16": 78.3,
        },
    ),
    *_scores(
        VOC,
        "voc_center_crop_513",
        "jfzhang95/pytorch-deeplab-xception",
        {"DeepLabV3+ MobileNetV2 stride 16": 70.81, "DeepLabV3+ ResNet-101 stride 16": 78.43},
    ),
)


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
