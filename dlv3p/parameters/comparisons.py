"""The parameters with which predictions are compared and explored, and three fields that most notebooks share."""

from dataclasses import dataclass
from typing import Any

from dlv3p.parameters.base import Parameters, choice, number, several, text
from dlv3p.parameters.choices import DEVICES, FIGURES, MASK_IDS, PROGRESS
from dlv3p.parameters.protocols import PUBLISHED
from dlv3p.parameters.training import DEMO_CITY

SHARED = "shared"
"""The `protocol` of a comparison that takes the one by which all runs were scored."""


def progress_field() -> Any:
    """Return the field that says how progress is shown."""
    return choice("auto", PROGRESS, "auto, widgets, lines or none")


def device_field() -> Any:
    """Return the field that says where networks run."""
    return choice("auto", DEVICES, "auto (a GPU where there is one), cpu or cuda")


def threads_field() -> Any:
    """Return the field that says how many threads they use."""
    return number(2, 1, 256, "CPU threads")


def figures_field() -> Any:
    """Return the field that says in which format figures are saved."""
    return choice("png", FIGURES, "format of the figures that are saved: png, svg or pdf")


@dataclass(frozen=True)
class CompareRunsParameters(Parameters):
    """Compare runs, or folders of predicted masks, on the same images by the same protocol."""

    candidates: str = several("", 'runs or folders of masks, reference first; "": a run at two sizes')
    protocol: str = choice(SHARED, (SHARED, *PUBLISHED), "shared: the one by which all were scored")
    image_groups: str = text("", 'CSV table image,group, such as videos; "": folders of the images')
    data_root: str = text("", 'what folders of masks are scored on; "": the data of the first run')
    split: str = text("val", "a split with masks")
    ids: str = choice("train", MASK_IDS, "what the pixels of a folder's masks are: train or label ids")
    examples: int = number(2, 1, 50, "images shown that got better, and that got worse")
    figures: str = figures_field()
    device: str = device_field()
    threads: int = threads_field()
    progress: str = progress_field()


@dataclass(frozen=True)
class ExplorePredictionsParameters(Parameters):
    """Look at predictions of a labeled split, the images worth a look first."""

    predictions: str = several("", 'one folder of masks or two to compare; "": predicts with the newest run')
    data_root: str = text(DEMO_CITY, "the data set of the images, with masks")
    split: str = text("val", "a split with masks")
    ids: str = choice("train", MASK_IDS, "pixels of masks without a predictions.json: train or label ids")
    sort: str = text("mIoU", "what comes first: low mIoU, 'IoU rider', confidence; or high disagreement")
    device: str = device_field()
    threads: int = threads_field()
    progress: str = progress_field()
