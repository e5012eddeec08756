"""Tables and pictures of an audit: what each split holds, how frequent each class is, and images under their masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from cityscapes.audit_rules import AuditReport
from cityscapes.dataset import Split
from cityscapes.errors import UserError
from cityscapes.findings import Finding
from dlv3p.pictures.figures import new_figure
from dlv3p.pictures.visualize import overlay, side_by_side, text_lines, with_footer, with_legend

_COLORS = ("#0072B2", "#D55E00", "#009E73")
_MOST_VALUES = 4


def split_table(report: AuditReport) -> pd.DataFrame:
    """Return a row a split: images, usable masks, sizes and modes of images, other counts, the share to ignore."""
    rows = {
        counts.split: {
            "images": counts.images,
            "usable masks": counts.labeled,
            "sizes": _counted({f"{width} x {height}": n for (width, height), n in counts.sizes.items()}),
            "modes": _counted(counts.modes),
            **{title: _counted(group) for title, group in counts.groups.items()},
            "ignored pixels": counts.ignored_share,
        }
        for counts in report.splits
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def overlap_table(covered: Mapping[tuple[str, str], tuple[int, int]], *, most: int = 10) -> pd.DataFrame:
    """Return a row for each pair of labels whose shapes overlap, the most pixels first.

    `covered` has pixels and images by (covered label, covering label).
    """
    rows = [(below, above, *counts) for (below, above), counts in covered.items()]
    table = pd.DataFrame(rows, columns=["label", "covered by", "pixels", "images"])
    return table.sort_values("pixels", ascending=False, kind="stable").head(most).reset_index(drop=True)


def class_table(report: AuditReport) -> pd.DataFrame:
    """Return a row a class: its share of the labeled pixels, and of the labeled images, in each split."""
    columns = {}
    for counts in report.splits:
        pixels = np.array(counts.class_pixels)
        columns[f"{counts.split}, share of pixels"] = pixels / max(1, pixels.sum())
        columns[f"{counts.split}, share of images"] = np.array(counts.images_with[: len(pixels)]) / max(
            1, counts.labeled
        )
    return pd.DataFrame(columns, index=pd.Index(report.splits[0].class_names, name="class"))


def class_share_bars(report: AuditReport) -> Figure:
    """Draw shares of pixels on a logarithmic scale: a row a class, the largest on top, a bar for each split."""
    shares = class_table(report).filter(like="share of pixels")
    shares.columns = [f"{counts.split}, images: {counts.images}" for counts in report.splits]
    shares = shares.loc[shares.iloc[:, 0].sort_values(kind="stable").index]
    figure = new_figure(8, 1.4 + 0.36 * len(shares), footer=report.name)
    axes = figure.subplots()
    thickness = 0.8 / len(shares.columns)
    smallest = shares.to_numpy()[shares.to_numpy() > 0].min(initial=1)
    left = 10.0 ** np.floor(np.log10(smallest) - 0.1)
    for number, column in enumerate(shares):
        rows = np.arange(len(shares)) - (number - (len(shares.columns) - 1) / 2) * thickness
        axes.barh(rows, shares[column], height=thickness, color=_COLORS[number % 3], label=column)
        for row, value in zip(rows, shares[column], strict=True):
            axes.text(max(value, left) * 1.1, row, f"{value:.3%}" if value else "none", va="center", fontsize=7)
    scale = "log" if shares.to_numpy().any() else "linear"
    axes.set(xscale=scale, xlim=(left, 3), xlabel="share of the labeled pixels", ylim=(-0.6, len(shares) - 0.4))
    axes.set_yticks(range(len(shares)), shares.index)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=len(shares.columns), frameon=False)
    return figure


def overlays_picture(pairs: Sequence[tuple[Split, int]]) -> Image.Image:
    """Show images, by split and index, beside themselves under their masks, with the classes that occur.

    What a mask ignores shows the image. All splits are of one data set.
    """
    panels, seen, (first, _) = {}, set(), pairs[0]
    for split, index in pairs:
        stored, mask = split.pair(index)
        image = np.asarray(stored.convert("RGB"))
        title = f"{split.split}: {split.name(index)}"
        panels[title] = image
        panels[f"{title}, mask over it"] = overlay(image, mask, alpha=0.65, colors=split.colors)
        seen.update(i for i in np.unique(mask).tolist() if i < split.num_classes)
    classes = sorted(seen)
    names = [first.class_names[i] for i in classes]
    picture = with_legend(panels, names, first.colors[classes], columns=2)
    return Image.fromarray(with_footer(picture, Path(first.root).name))


def findings_picture(shown: Sequence[tuple[Finding, Sequence[tuple[Split, int]]]]) -> Image.Image:
    """Show findings, two in a row: an image beside itself under its mask, or two images that should not be alike.

    A mask of another size lies in its own pixels at the upper left; one that cannot be used leaves the place empty.
    """
    if not shown:
        return Image.fromarray(text_lines(["No finding can be shown by an image."]))
    panels = {}
    for finding, places in shown:
        (split, _), *_ = places
        images = [split.image(index).convert("RGB") for split, index in places]
        if len(places) == 1:
            images.append(_under_its_mask(images[0], *places[0]))
        names = " | ".join(split.name(index) for split, index in places)
        about = "" if finding.where in names else f" {finding.where}"
        panels[f"{finding.kind}{about}: {names}"] = _beside(*images)
    return Image.fromarray(with_footer(side_by_side(panels, columns=2), Path(split.root).name))


def _under_its_mask(image: Image.Image, split: Split, index: int) -> Image.Image:
    try:
        mask = split.mask(index)
    except UserError:
        return Image.new("RGB", image.size, "white")
    shown = np.array(image)
    height, width = min(image.height, len(mask)), min(image.width, mask.shape[1])
    part = np.ascontiguousarray(mask[:height, :width])
    shown[:height, :width] = overlay(shown[:height, :width], part, alpha=0.65, colors=split.colors)
    return Image.fromarray(shown)


def _beside(first: Image.Image, second: Image.Image) -> np.ndarray:
    """Return two images side by side, the second at the height of the first."""
    width = max(1, round(second.width * first.height / second.height))
    return np.concatenate([np.asarray(first), np.asarray(second.resize((width, first.height)))], axis=1)


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(ordered) - _MOST_VALUES} more" if len(ordered) > _MOST_VALUES else ""
    return ", ".join(f"{name} ({n})" for name, n in ordered[:_MOST_VALUES]) + more
