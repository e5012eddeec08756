"""Find label errors: regions whose labels are contradicted with confidence by networks that were not trained on them.

    dlv3p find-label-errors data/my_data --split train --folds 5 --recipe notebooks/recipes/NAME.yaml
    dlv3p find-label-errors data/my_data --split val --runs mine

Results go to outputs/label_errors_<data>_<split>-<hash of the path>/: a table, pictures, and polygons to correct in
CVAT or COCO's tools.
"""

import argparse
import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd

from cityscapes.dataset import Split
from cityscapes.errors import IntegrityError, ParameterError, run_command
from cityscapes.files.atomic import write_text
from cityscapes.files.untrusted import given_path
from cityscapes.labels import IGNORE
from cityscapes.workspace import output_folder
from dlv3p.annotations.correct import FILES, open_writer, trace
from dlv3p.annotations.plan import IGNORE_CLASS
from dlv3p.annotations.shapes import AnnotatedImage, Shape
from dlv3p.data.demo_mislabeled import read_planted, read_planted_pixels
from dlv3p.data.fingerprints import ContentHash, shared_images
from dlv3p.data.roots import is_root_of, open_split, resolve_data_root
from dlv3p.evaluation.calibration import softmax
from dlv3p.evaluation.confident_learning import ConfidentJoint, Thresholds
from dlv3p.evaluation.evaluate import data_name, refuse_other_classes
from dlv3p.evaluation.inference import Predictor, load_run_predictor
from dlv3p.evaluation.label_regions import BestRegions, LabelRegion, find_regions, usual_mistakes
from dlv3p.evaluation.results import MadeFrom, split_word
from dlv3p.parameters.data_roots import EMBEDDED
from dlv3p.parameters.files import read_config, read_options
from dlv3p.parameters.notebooks import FindLabelErrorsParameters, RunParameters, TrainParameters
from dlv3p.parameters.protocols import WHOLE_IMAGE
from dlv3p.runs.folders import find_run, write_json
from dlv3p.runs.inputs import open_trained_on, unknown_origins
from dlv3p.runtime.devices import SCORING_ADVICE, explain_out_of_memory
from dlv3p.runtime.progress import track
from dlv3p.train import train
from dlv3p.training.cost import say_cost

TABLE = "label_errors.csv"
COLUMNS = ("rank", "image", "given", "suggested", "score", "odds", "coverage", "pixels")
COLUMNS += ("left", "top", "width", "height", "run")
CHECKPOINT = "last"
"""The best checkpoint of a fold was chosen by the very labels that it is to judge."""


@dataclass(frozen=True)
class LabelErrors:
    """What was found in a split: the most suspicious regions first, of `found` in all, and the confident joint.

    `joint` counts pixels by given class and the one that a network is confident of, int64 (C,C). `runs` names the
    network that judged each image, `weights` the bytes of each, and `hashed` the images and masks.
    """

    split: Split
    regions: Sequence[LabelRegion]
    found: int
    joint: np.ndarray
    thresholds: np.ndarray
    runs: Sequence[str]
    weights: Mapping[str, str] = field(default_factory=dict)
    hashed: ContentHash = field(default_factory=ContentHash)

    @property
    def footer(self) -> str:
        """What a picture of these regions is of: the networks that judged, and the images."""
        return f"{', '.join(dict.fromkeys(self.runs))} · {data_name(self.split)} · {WHOLE_IMAGE.name}"

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per region, from rank 1; odds are against its given class, coverage is its share of that object."""
        names = self.split.class_names
        rows = [
            {
                "rank": rank,
                "image": self.split.name(region.image),
                "given": names[region.given],
                "suggested": names[region.suggested],
                "score": region.score,
                "odds": math.exp(region.log_odds),
                "coverage": region.coverage,
                "pixels": region.pixels,
                "left": region.left,
                "top": region.top,
                "width": region.shape[1],
                "height": region.shape[0],
                "run": self.runs[region.image],
            }
            for rank, region in enumerate(self.regions, start=1)
        ]
        return pd.DataFrame(rows, columns=[*COLUMNS])

    def flows(self, count: int = 10) -> pd.DataFrame:
        """Return the pairs of classes with the most pixels off the diagonal, and their share of the given class."""
        names, totals = self.split.class_names, self.joint.sum(axis=1)
        off = np.where(np.eye(len(names), dtype=bool), 0, self.joint)
        order = np.argsort(-off, axis=None, kind="stable")[:count].tolist()
        pairs = [pair for pair in (divmod(cell, len(names)) for cell in order) if off[pair]]
        rows = [(names[one], names[other], off[one, other], off[one, other] / totals[one]) for one, other in pairs]
        return pd.DataFrame(rows, columns=["given", "suggested", "pixels", "share of given"])

    @property
    def folder(self) -> Path:
        """Where the results belong: a folder for each split, with a hash of its path where the data is one's own."""
        root, split = str(self.split.root), split_word(self.split.split)
        name = Path(root).name
        if name not in EMBEDDED or not is_root_of(name, self.split.root):
            split += f"-{hashlib.sha256(root.encode(errors='surrogateescape')).hexdigest()[:8]}"
        return output_folder(f"label_errors_{name}_{split}")

    def save(self, polygons: str = "cvat") -> list[Path]:
        """Write the table and, unless `polygons` is none, the regions in a tool's format; return the paths."""
        path = self.folder / TABLE
        write_text(path, self.table.to_csv(index=False))
        where = {"data_root": str(self.split.root), "split": self.split.split}
        judged = MadeFrom.of(self.split, self.hashed).as_dict() | {"checkpoints": dict(self.weights)}
        write_json(path.with_suffix(".json"), {"made_from": where | judged})
        return [path] if polygons == "none" else [path, self.write_polygons(polygons)]

    def write_polygons(self, format: str) -> Path:
        """Write the regions as polygons of their suggested classes, which give back each pixel, and return the path."""
        names = self.split.class_names
        base = os.path.commonpath([self.split.image_path(index).parent for index in range(len(self.split))])
        path = self.folder / FILES[format]
        with open_writer(path, format, names, self.split.colors) as writer:
            for index in sorted({region.image for region in self.regions}):
                mask = np.full(self.split.mask(index).shape, IGNORE, np.uint8)
                for region in (region for region in self.regions if region.image == index):
                    mask[region.place][region.mask()] = region.suggested
                name = os.path.relpath(self.split.image_path(index), base)
                writer.add(AnnotatedImage(name, mask.shape[::-1], tuple(_outlines(mask, names))))
        return path


def match_planted(errors: LabelErrors) -> pd.DataFrame:
    """Return a row for each region: whether a planted polygon has half of its pixels or more, and its image if so.

    The table is empty for data in which nothing was planted.
    """
    root, split, rows = Path(str(errors.split.root)), errors.split, []
    planted = {one.image: one for one in read_planted(root)}
    for rank, region in enumerate(errors.regions if planted else (), start=1):
        name = split.name(region.image)
        changed = read_planted_pixels(root, name)[region.place] if name in planted else np.zeros(region.shape, bool)
        right = bool(changed[region.mask()].mean() >= 0.5)
        rows.append((rank, right, name if right else ""))
    return pd.DataFrame(rows, columns=["rank", "right", "polygon"]).astype({"right": bool})


def find_label_errors(config: FindLabelErrorsParameters) -> LabelErrors:
    """Judge the labels of a split by runs that have not seen them, or by folds that are trained first.

    Raises ParameterError for a split without labels, and where every run was trained on an image that is to be judged.
    """
    split = open_split(resolve_data_root(config.data_root), config.split)
    if not any((split.mask(index) != IGNORE).any() for index in range(len(split))):
        raise ParameterError(f"split={config.split!r}: has no labels to judge, only ignored pixels; name another split")
    given = config.runs.split() or [""]
    runs = train_folds(config) if config.folds else [find_run(run, parameter="runs") for run in given]
    return judge(split, runs, config)


def train_folds(config: FindLabelErrorsParameters) -> list[str]:
    """Train the folds of a split, or resume them, and return the names of their runs; finished ones return at once."""
    folds = [fold_parameters(config, fold) for fold in range(config.folds)]
    for fold in folds:
        say_cost(fold)
        train(fold)
    return [fold.run_name for fold in folds]


def fold_parameters(config: FindLabelErrorsParameters, fold: int) -> TrainParameters:
    """Return how a fold is trained: by the recipe, on all of the split that is not judged by it."""
    values = read_config(given_path(config.recipe), option="recipe") if config.recipe else {}
    values |= {"data_root": config.data_root, "train_split": config.split, "folds": config.folds, "fold": 0, "run": ""}
    values |= {name: getattr(config, name) for name in ("device", "threads", "progress")}
    values |= {"epochs": config.epochs, "steps": 0} if config.epochs else {}
    parameters = TrainParameters.from_mapping(values)
    return replace(parameters, fold=fold, run=f"{config.run or parameters.run_name}-fold{fold}")


@explain_out_of_memory(SCORING_ADVICE)
def judge(split: Split, runs: Sequence[str], config: FindLabelErrorsParameters) -> LabelErrors:
    """Judge each label of a split by the first of the runs that was not trained on its image, in two passes."""
    judged_by = find_judges(split, runs)
    thresholds, weights, hashed = Thresholds(split.num_classes), {}, ContentHash()
    predicted = partial(_predicted, split, runs, judged_by, config, weights)
    for index, given, pixels in predicted("learn thresholds"):
        hashed.add(split, index, given)
        for part, probabilities in pixels:
            thresholds.add(given[part].ravel(), probabilities)
    joint, best = ConfidentJoint(thresholds.values), BestRegions(config.count)
    for index, given, pixels in predicted("judge labels"):
        suggested, odds, differing = np.full_like(given, IGNORE), np.zeros(given.shape, np.float32), 0
        for part, probabilities in pixels:
            doubts, shape = joint.add(given[part].ravel(), probabilities), given[part].shape
            suggested[part], odds[part] = doubts.suggested.reshape(shape), doubts.log_odds.reshape(shape)
            differing += doubts.disagreeing
        mistakes = usual_mistakes(thresholds.confusion, differing / max(1, (given != IGNORE).sum()))
        limits = {"border": config.border, "smallest": config.smallest}
        for region in find_regions(index, given, suggested, odds, mistakes, **limits):
            best.add(region)
    names = [runs[number] for number in judged_by]
    return LabelErrors(split, best.ranked(), best.found, joint.counts, thresholds.values, names, weights, hashed)


def find_judges(split: Split, runs: Sequence[str]) -> list[int]:
    """Return for each image the first run, by its number, that was not trained on it, by the bytes of the image."""
    judges = np.full(len(split), -1)
    for number, run in enumerate(runs):
        seen = shared_images(split, open_trained_on(run))
        if origins := " and ".join(unknown_origins(run)):
            print(f"warning: {run} learned from {origins}; if trained on these images, {run} cannot judge them")
        unseen = [index for index in np.flatnonzero(judges < 0).tolist() if index not in seen]
        judges[unseen] = number
    if (left := np.flatnonzero(judges < 0)).size:
        raise ParameterError(
            f"runs={' '.join(runs)!r}: trained on {left.size} of the {len(split)} images of {split.split!r}, the first "
            f"{split.name(int(left[0]))}, so that they cannot judge their labels; train folds, as with folds=5"
        )
    return judges.tolist()


def _predicted(
    split: Split,
    runs: Sequence[str],
    judged_by: Sequence[int],
    config: FindLabelErrorsParameters,
    weights: dict[str, str],
    title: str,
) -> Iterator[tuple[int, np.ndarray, Iterator]]:
    """Yield each image's index, its mask, and its probabilities, some rows at a time; one network is in memory.

    `weights` receives the hash of each network as it was read; raises IntegrityError where a later pass reads others.
    """
    order = sorted(range(len(split)), key=lambda index: judged_by[index])
    predictor: Predictor | None = None
    for index in track(order, total=len(split), title=title, mode=config.progress):
        run = runs[judged_by[index]]
        if predictor is None or predictor.run != run:
            options = {"checkpoint": CHECKPOINT, "device": config.device, "threads": config.threads}
            predictor = load_run_predictor(RunParameters(run=run, **options))
            refuse_other_classes(predictor, split)
            if weights.setdefault(run, predictor.weights_sha256) != predictor.weights_sha256:
                raise IntegrityError(f"run={run!r}: was trained on while it judged; wait until it has ended, run again")
        image, given = split.pair(index)
        pixels = predictor.pixel_logits(predictor.whole_logits(image), image)
        yield index, given, ((part, softmax(logits)) for part, logits in pixels)


def _outlines(mask: np.ndarray, names: Sequence[str]) -> Iterator[Shape]:
    """Yield the outlines of the classes in a mask, and those of the holes in them; what is around them has none."""
    labels = [*names, *[IGNORE_CLASS] * (IGNORE + 1 - len(names))]
    height, width = mask.shape
    for shape in trace(mask, labels):
        low, high = shape.rings[0].min(axis=0), shape.rings[0].max(axis=0)
        at_edge = low.min() <= 0 or high[0] >= width - 1 or high[1] >= height
        if shape.label != IGNORE_CLASS or not at_edge:
            yield shape


def main(arguments: Sequence[str] | None = None) -> int:
    """Find label errors, write what was found, and print the first of them."""
    parser = argparse.ArgumentParser(
        prog="dlv3p find-label-errors",
        description="Find regions whose labels are contradicted with confidence by networks that have not seen them.",
    )
    config = read_options(parser, FindLabelErrorsParameters, arguments, positional="data_root")
    errors = find_label_errors(config)
    print(errors.table.head(config.examples).round(3).to_string(index=False))
    print(f"{len(errors.regions)} of {errors.found} regions in {len(errors.split)} images:")
    from dlv3p.pictures.label_errors import save_pictures

    shown = save_pictures(errors.split, errors.regions[: config.examples], errors.folder, footer=errors.footer)
    for path in (*errors.save(config.polygons), *shown):
        print(path)
    return 0


if __name__ == "__main__":
    run_command(main)
