"""Arrange pictures for the notebooks: a network's inputs, its predictions, and the frames of a drive."""

import numpy as np
import pandas as pd
from PIL import Image

from cityscapes.dataset import CityscapesSplit, Split
from cityscapes.errors import ParameterError, UserError
from cityscapes.files.channels import ChannelImage, PixelRule
from cityscapes.labels import IGNORE
from cityscapes.layout import choose_drive
from dlv3p.data.augment import MEAN, STD
from dlv3p.data.batches import CheckedSamples
from dlv3p.data.loader import make_samples
from dlv3p.evaluation.evaluate import Evaluation, data_name
from dlv3p.evaluation.inference import Predictor
from dlv3p.parameters.protocols import WHOLE_IMAGE
from dlv3p.parameters.training import TrainParameters
from dlv3p.pictures.regions import name_regions
from dlv3p.pictures.visualize import (
    ERROR_COLORS,
    ERROR_NAMES,
    PICTURE_WIDTH,
    colorize,
    column_width,
    error_map,
    legend,
    overlay,
    side_by_side,
    text_lines,
    with_footer,
    with_legend,
)


def samples_picture(split: Split, indices: list[int]) -> Image.Image:
    """Show images next to their masks, with a legend of the classes that occur, and say of which data they are."""
    panels, seen = {}, set()
    for index in indices:
        image, mask = split.pair(index)
        panels[split.name(index)] = np.asarray(image.convert("RGB"))
        panels[f"{split.name(index)}, mask"] = colorize(mask, split.colors)
        seen.update(np.unique(mask).tolist())
    picture = _with_legend(panels, sorted(seen - {IGNORE}), split, columns=2)
    return Image.fromarray(with_footer(picture, data_name(split)))


def crops_picture(parameters: TrainParameters, split: Split, *, count: int = 4) -> Image.Image:
    """Show the first crops of an epoch as the network receives them, augmented and overlaid with their masks."""
    samples = CheckedSamples(make_samples(parameters, split), skip=parameters.on_bad_sample == "skip")
    panels = {}
    for index in range(min(count, len(split))):
        sample = samples[1, index]
        if isinstance(sample, UserError):
            raise sample
        image, mask, _ = sample
        picture = shown_input(image.numpy(), split.pixel_rule)
        panels[split.name(index)] = overlay(picture, mask.numpy().astype(np.uint8), alpha=0.4, colors=split.colors)
    size = f"crops of {parameters.crop_height} x {parameters.crop_width}"
    footer = f"{parameters.run_name} · {data_name(split)} · {size}, as in epoch 1"
    return Image.fromarray(with_footer(side_by_side(panels, width=PICTURE_WIDTH, columns=2), footer))


def shown_input(image: np.ndarray, rule: PixelRule | None) -> np.ndarray:
    """Return a network's input, normalized (C,h,w), as a picture, uint8 (h,w,3): of channels as they are shown."""
    if rule is None:
        colors = 255 * (image.transpose(1, 2, 0) * STD + MEAN).clip(0, 1)
        return np.round(colors).astype(np.uint8)
    factors, offsets = rule.normalization
    shares = ((image.transpose(1, 2, 0) - offsets) / factors).clip(0, 1)
    return np.asarray(ChannelImage(shares, rule).convert("RGB"))


def examples_picture(evaluation: Evaluation, names: list[str], *, name_classes: bool = False) -> Image.Image:
    """Show images with prediction, truth, and errors side by side, one image per row; `names` are frame names.

    With `name_classes`, two of them share a row, and the classes are outlined and named where there is room.
    """
    columns = 2 if name_classes else 4
    predictor, split = evaluation.predictor, evaluation.split
    index_of = {split.name(index): index for index in range(len(split))}
    panels, seen = {}, set()
    for row, name in enumerate(names, start=1):
        image, truth = evaluation.scored_pair(index_of[name])
        prediction = predictor(image, evaluation.protocol)
        panels[f"{row}. image"] = np.asarray(image.convert("RGB"))
        for title, labels in (("prediction", prediction), ("truth", truth)):
            shown = colorize(labels, split.colors)
            if name_classes:
                shown = name_regions(shown, labels, split.class_names, width=column_width(PICTURE_WIDTH, columns))
            panels[f"{row}. {title}"] = shown
        panels[f"{row}. errors"] = error_map(prediction, truth)
        seen.update(np.unique(prediction).tolist(), np.unique(truth).tolist())
    picture = _with_legend(panels, sorted(seen - {IGNORE}), split, columns=columns)
    errors = legend(ERROR_NAMES, ERROR_COLORS, width=PICTURE_WIDTH)
    listed = text_lines([f"{row}. {name}" for row, name in enumerate(names, start=1)], width=PICTURE_WIDTH)
    return Image.fromarray(with_footer(np.concatenate([picture, errors, listed]), evaluation.footer))


def predictions_picture(predictor: Predictor, split: Split, *, count: int) -> Image.Image:
    """Show images next to a network's predictions, in the colors of its own classes, with a legend."""
    colors = predictor.colors
    panels, seen = {}, set()
    for index in range(min(count, len(split))):
        row = index + 1
        image = split.image(index)
        prediction = predictor(image)
        panels[split.name(index)] = np.asarray(image.convert("RGB"))
        panels[f"{row}. prediction"] = colorize(prediction, colors)
        panels[f"{row}. overlay"] = overlay(np.asarray(image.convert("RGB")), prediction, colors=colors)
        seen.update(np.unique(prediction).tolist())
    classes = sorted(seen)
    names = [predictor.class_names[index] for index in classes]
    picture = with_legend(panels, names, colors[classes], columns=3)
    return Image.fromarray(with_footer(picture, f"{predictor.name} · {data_name(split)} · {WHOLE_IMAGE.name}"))


def choose_frames(split: Split, *, city: str = "", sequence: str = "", count: int) -> list[int]:
    """Choose up to `count` frames of a drive in order; raises MissingInputError that names the existing drives.

    Only Cityscapes has drives; from any other data set, the first images are taken.
    """
    if not isinstance(split, CityscapesSplit):
        if city or sequence:
            raise ParameterError(f"city={city!r}, sequence={sequence!r}: {split.root} has no drives; leave both empty")
        return list(range(len(split)))[:count]
    return choose_drive(split.frames, city, sequence)[:count]


def class_shares(split: Split) -> pd.DataFrame:
    """Count a split's classes: a row per class with its share of the labeled pixels and images, most frequent first."""
    pixels, images = np.zeros(split.num_classes, np.int64), np.zeros(split.num_classes, np.int64)
    for index in range(len(split)):
        counts = np.bincount(split.mask(index).ravel(), minlength=256)[: split.num_classes]
        pixels += counts
        images += counts > 0
    columns = {"share of pixels": pixels / max(1, pixels.sum()), "share of images": images / len(split)}
    table = pd.DataFrame(columns, index=pd.Index(split.class_names, name="class"))
    return table.sort_values("share of pixels", ascending=False, kind="stable")


def is_labeled(split: Split, index: int) -> bool:
    """Return whether an image of a split has a mask with more than ignored pixels."""
    return split.has_mask(index) and bool((split.mask(index) != IGNORE).any())


def _with_legend(panels: dict[str, np.ndarray], train_ids: list[int], split: Split, *, columns: int) -> np.ndarray:
    names = [split.class_names[train_id] for train_id in train_ids]
    return with_legend(panels, names, split.colors[train_ids], columns=columns)
