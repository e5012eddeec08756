"""Tables and pictures to check generated masks: where they differ from official ones, and the palette of classes."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from cityscapes.errors import InputError
from cityscapes.labels import (
    IGNORE,
    LABEL_BY_ID,
    LABEL_ID_TO_COLOR,
    LABELS,
    TRAIN_ID_TO_LABEL_ID,
)
from cityscapes.layout import INSTANCE_IDS_SUFFIX, LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX
from cityscapes.masks.draw import to_label_ids
from cityscapes.masks.report import Agreement
from dlv3p.pictures.visualize import PICTURE_WIDTH, legend, with_footer, with_legend

DIFFERENCE_COLORS = np.array([(235, 235, 235), (213, 94, 0)], np.uint8)
"""RGB of pixels that agree and differ: light and dark, so that they can be told apart in print."""

_AS_LABEL_IDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    LABEL_IDS_SUFFIX: np.asarray,
    TRAIN_IDS_SUFFIX: TRAIN_ID_TO_LABEL_ID.__getitem__,
    INSTANCE_IDS_SUFFIX: to_label_ids,
}


def agreement_table(agreements: Sequence[Agreement]) -> pd.DataFrame:
    """Tabulate masks, worst first: how many pixels differ, the share that agrees, and what cannot be compared."""
    rows = [
        {
            "frame": f"{pair.frame.split} {pair.frame.name}",
            "mask": _kind(pair),
            "differing pixels": pair.differing,
            "percent equal": 100 * (1 - pair.differing / pair.total) if pair.total else float("nan"),
            "problem": pair.problem,
        }
        for pair in sorted(agreements, key=lambda pair: (not pair.problem, -pair.differing))
    ]
    table = pd.DataFrame(rows, columns=["frame", "mask", "differing pixels", "percent equal", "problem"])
    return table if table["problem"].any() else table.drop(columns="problem")


def agreement_in_words(agreements: Sequence[Agreement]) -> str:
    """Summarize in one line how well generated masks agree with the provided ones, and over how many."""
    if not agreements:
        return "Nothing to compare with: this data set has polygons but no masks of its own."
    differing, total = sum(pair.differing for pair in agreements), sum(pair.total for pair in agreements)
    kinds = ", ".join(dict.fromkeys(map(_kind, agreements)))
    frames = len({pair.frame for pair in agreements})
    what = f"{frames} frames, {total:,} pixels of {kinds}"
    broken = sum(bool(pair.problem) for pair in agreements)
    also = f" {broken} masks could not be compared." if broken else ""
    return (f"{differing:,} pixels differ: {what}." if differing else f"No difference: {what}.") + also


def differences_picture(agreements: Sequence[Agreement], *, count: int = 3) -> Image.Image | None:
    """Show the worst region of up to `count` masks that differ, worst first; None if all agree."""
    worst = sorted((pair for pair in agreements if pair.differing), key=lambda pair: -pair.differing)[:count]
    pictures = [difference_picture(*pair.read(), name=pair.frame.name, suffix=pair.suffix) for pair in worst]
    if not pictures:
        return None
    splits, kinds = (", ".join(dict.fromkeys(said)) for said in ((p.frame.split for p in worst), map(_kind, worst)))
    picture = np.concatenate([np.asarray(picture) for picture in pictures])
    return Image.fromarray(with_footer(picture, f"{splits} · {kinds} · where most pixels of a mask differ"))


def difference_picture(
    official: np.ndarray,
    ours: np.ndarray,
    *,
    name: str,
    suffix: str = LABEL_IDS_SUFFIX,
    window: tuple[int, int] = (24, 48),
) -> Image.Image:
    """Enlarge the `window` (height, width) in which most pixels differ: official, ours, and the difference.

    Both masks are integer (H, W) of the ids that `suffix` names. Raises InputError if their sizes differ.
    """
    if official.shape != ours.shape:
        raise InputError(f"{name}: sizes differ, {official.shape} and {ours.shape} (height, width); they must be equal")
    differs = official != ours
    rows, columns = worst_spot(differs, window)
    labels = [_AS_LABEL_IDS[suffix](mask[rows, columns]) for mask in (official, ours)]
    here = differs[rows, columns]
    panels = {
        f"{name}, official": LABEL_ID_TO_COLOR[labels[0]],
        f"ours, from row {rows.start}, column {columns.start}": LABEL_ID_TO_COLOR[labels[1]],
        f"{here.sum()} of {differs.sum():,} differing pixels": np.where(here[..., None], *DIFFERENCE_COLORS[::-1]),
    }
    present = np.union1d(*labels)
    names = [LABEL_BY_ID[i].name if i in LABEL_BY_ID else f"id {i}" for i in present.tolist()]
    swatches = np.concatenate([LABEL_ID_TO_COLOR[present], DIFFERENCE_COLORS])
    return Image.fromarray(with_legend(panels, [*names, "equal", "different"], swatches))


def worst_spot(differs: np.ndarray, window: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of the window (height, width), or less, with most of `differs`, bool (H, W)."""
    height, width = (min(size, side) for size, side in zip(window, differs.shape, strict=True))
    sums = np.pad(differs.astype(np.int32), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    held = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    best = np.argwhere(held == held.max())
    # Take the central one of equally good windows, so that a single pixel is not shown at the edge.
    top, left = best[np.square(best - best.mean(axis=0)).sum(axis=1).argmin()].tolist()
    return slice(top, top + height), slice(left, left + width)


def palette_picture() -> Image.Image:
    """Show each class's color with its name, train id and label id; those without a train id are void."""
    drawn = sorted((label for label in LABELS if label.label_id >= 0), key=lambda label: label.train_id)
    train_ids = ["void" if label.train_id == IGNORE else f"train {label.train_id}" for label in drawn]
    names = [
        f"{label.name}: {train_id}, label {label.label_id}" for label, train_id in zip(drawn, train_ids, strict=True)
    ]
    colors = LABEL_ID_TO_COLOR[[label.label_id for label in drawn]]
    return Image.fromarray(legend(names, colors, width=PICTURE_WIDTH, columns=3))


def _kind(pair: Agreement) -> str:
    return pair.suffix.removeprefix("_gtFine_").removesuffix(".png")
