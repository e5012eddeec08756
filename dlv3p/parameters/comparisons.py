"""The parameters with which predictions are compared, explored, and set against labels, without torch."""

from dataclasses import dataclass

from cityscapes.errors import ParameterError
from dlv3p.parameters.annotations import CORRECTIONS
from dlv3p.parameters.base import Parameters, choice, number, several, text
from dlv3p.parameters.choices import MASK_IDS
from dlv3p.parameters.data_roots import DEMO_CITY, data_root_field, split_field
from dlv3p.parameters.protocols import PUBLISHED
from dlv3p.parameters.shared_fields import device_field, figures_field, path_field, progress_field, threads_field
from dlv3p.parameters.training import check_run_name

SHARED = "shared"
"""The `protocol` of a comparison that takes the one by which all runs were scored."""


@dataclass(frozen=True)
class CompareRunsParameters(Parameters):
    """Compare runs, or folders of predicted masks, on the same images by the same protocol."""

    candidates: str = several("", 'runs or mask folders, reference first; "": dense and pruned, or two sizes')
    protocol: str = choice(SHARED, (SHARED, *PUBLISHED), "shared: the one by which all were scored")
    image_groups: str = text("", 'CSV table image,group, such as videos; "": folders of the images')
    data_root: str = data_root_field("", 'what folders of masks are scored on; "": the data of the first run')
    split: str = split_field("val", "a split with masks")
    ids: str = choice("train", MASK_IDS, "what the pixels of a folder's masks are: train or label ids")
    examples: int = number(2, 1, 50, "images shown that got better, and that got worse")
    figures: str = figures_field()
    device: str = device_field()
    threads: int = threads_field()
    progress: str = progress_field()


@dataclass(frozen=True)
class ExplorePredictionsParameters(Parameters):
    """Look at predictions of a labeled split, the images worth a look first."""

    predictions: str = path_field(
        "", 'one folder of masks or two to compare; "": predicts with the newest run',
        parameter="predictions", remedy="predict.ipynb writes one", many=True,
    )  # fmt: skip
    data_root: str = data_root_field(DEMO_CITY, "the data set of the images, with masks")
    split: str = split_field("val", "a split with masks")
    ids: str = choice("train", MASK_IDS, "pixels of masks without a predictions.json: train or label ids")
    sort: str = choice(
        "mIoU", ("mIoU", "confidence", "disagreement"),
        "what comes first: low mIoU, 'IoU rider', confidence; or high disagreement", prefix="IoU ",
    )  # fmt: skip
    device: str = device_field()
    threads: int = threads_field()
    progress: str = progress_field()


@dataclass(frozen=True)
class FindLabelErrorsParameters(Parameters):
    """Find regions whose labels networks that have not seen them contradict with confidence."""

    data_root: str = data_root_field(DEMO_CITY, "the data set; mislabeled_city: demo_city with 50 wrong polygons")
    split: str = split_field("val", "the split whose labels are judged")
    runs: str = several("", 'runs that judge what they were not trained on; "": the newest')
    folds: int = number(0, 0, 100, "trains so many runs, each judges the part that it has not seen; 0: none")
    recipe: str = text("", 'how folds are trained: a recipe, or a run.json; "": as the demo')
    epochs: int = number(0, 0, 10_000, "of a fold; 0: as the recipe says")
    run: str = text("", 'folds are saved/<run>-fold0 ...; "" derives a name from the recipe')
    border: int = number(2, 0, 64, "pixels by which borders between classes are uncertain")
    smallest: int = number(30, 1, 1_000_000, "pixels of a region beyond that; smaller ones are left out")
    count: int = number(200, 1, 100_000, "regions to keep, the most suspicious")
    polygons: str = choice("cvat", CORRECTIONS, "regions as polygons to correct: cvat, coco or none")
    examples: int = number(8, 1, 100, "regions shown")
    device: str = device_field()
    threads: int = threads_field()
    progress: str = progress_field()

    def check(self) -> None:
        """Check that networks are named in one way, and the names, which become folders."""
        check_run_name(self.run)
        if self.folds and self.runs:
            raise ParameterError(f"folds={self.folds}, runs={self.runs!r}: give one of them")
        if self.folds == 1:
            raise ParameterError("folds=1: allowed are 2 to 100, or 0 for runs that are trained already")
        if not self.folds and (self.recipe or self.epochs or self.run):
            raise ParameterError("recipe, epochs and run say how folds are trained; give folds, such as 5, as well")
