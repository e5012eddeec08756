"""Say whether one run is better than another, where, and at what cost; no winner is called inside the noise."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cityscapes.errors import ParameterError
from cityscapes.files.atomic import write_text
from cityscapes.files.leftovers import remove_others
from cityscapes.workspace import output_folder
from dlv3p.evaluation.candidates import Candidate
from dlv3p.evaluation.comparison import published_scores
from dlv3p.evaluation.metrics import class_iou, scores
from dlv3p.evaluation.results import MadeFrom
from dlv3p.evaluation.statistics import (
    FEWEST_BLOCKS,
    FEWEST_SEEDS,
    Comparison,
    Estimate,
    compare,
    compare_seeds,
    correct_for_many,
)
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import write_json

MOST_NAMED = 4
"""The most classes that a sentence names on either side."""
MOST_TIMES = 100
"""Beyond so many times as many, no realistic number of images or seeds decides a difference."""


@dataclass(frozen=True)
class RunComparison:
    """Several candidates on the same images; the first is the reference. Differences are in points of IoU."""

    candidates: Sequence[Candidate]

    @property
    def reference(self) -> Candidate:
        """The candidate that the others are compared with."""
        return self.candidates[0]

    @property
    def others(self) -> Sequence[Candidate]:
        """The candidates that are compared with the reference."""
        return self.candidates[1:]

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The comparison of each other candidate with the reference."""
        first = self.reference
        return [compare(first.confusions, one.confusions, first.counts.groups) for one in self.others]

    @cached_property
    def means(self) -> list[Estimate]:
        """The difference of each other candidate's mIoU; p is Holm's over the candidates."""
        return correct_for_many([one.mean for one in self.comparisons])

    def table(self) -> pd.DataFrame:
        """Return a row per candidate: mIoU, difference, interval, blocks of independent images, p and verdict.

        Scores that others have published of the same images by the same protocol follow; they have no images to test.
        """
        first = self.reference
        rows = [{"candidate": first.name, "mIoU": first.mean_iou, "verdict": "reference"}]
        for one, mean in zip(self.others, self.means, strict=True):
            rows.append({"candidate": one.name, "mIoU": one.mean_iou, **_columns(mean), "verdict": _verdict(mean)})
        rows += [
            {"candidate": f"{one.network} ({one.source})", "mIoU": one.mean_iou, "verdict": "published, not tested"}
            for one in published_scores()
            if (one.data, one.protocol, 1) == (first.data, first.protocol.name, first.image_scale)
        ]
        order = ["mIoU", "difference", "low", "high", "blocks", "p", "verdict"]
        return _with_whole_numbers(pd.DataFrame(rows).set_index("candidate").reindex(columns=order))

    def classes(self, which: int = 0) -> pd.DataFrame:
        """Return a row per class for one of the others: both IoUs, difference, interval, blocks, p and verdict."""
        names, other = self.reference.counts.class_names, self.others[which]
        before, after = (class_iou(one.confusions.sum(axis=0)) for one in (self.reference, other))
        rows = [
            {"IoU, reference": before[index], "IoU": after[index], **_columns(estimate), "verdict": _verdict(estimate)}
            for index, estimate in enumerate(self.comparisons[which].classes)
        ]
        for row, one, two in zip(rows, before, after, strict=True):
            if math.isnan(one) != math.isnan(two):  # it lowers the mean of whoever predicts it
                by = other.name if math.isnan(one) else self.reference.name
                row["verdict"] = f"does not occur, predicted by {by} alone"
        return pd.DataFrame(rows, index=pd.Index(names, name="class"))

    def flows(self, which: int = 0, *, count: int = 10) -> pd.DataFrame:
        """Return the cells of the confusion matrix that changed most, in pixels: true class, predicted, before, after.

        `change` is in points of the true class's pixels.
        """
        names, other = self.reference.counts.class_names, self.others[which]
        before, after = (one.confusions.sum(axis=0) for one in (self.reference, other))
        moved = after - before
        order = np.argsort(-np.abs(moved), axis=None, kind="stable")[:count]
        truth, prediction = np.unravel_index(order, moved.shape)
        share = 100 * moved[truth, prediction] / np.maximum(1, before.sum(axis=1)[truth])
        columns = {
            "true class": [names[index] for index in truth],
            "predicted as": [names[index] for index in prediction],
            "pixels before": before[truth, prediction],
            "pixels after": after[truth, prediction],
            "change": share,
        }
        return pd.DataFrame(columns)[moved[truth, prediction] != 0].reset_index(drop=True)

    def images(self, which: int = 0) -> pd.DataFrame:
        """Return a row per image, worst change first: image, group, both mIoUs, and the change in points."""
        counts, other = self.reference.counts, self.others[which]
        before, after = (
            np.array([scores(confusion).mean_iou for confusion in one.confusions]) for one in (self.reference, other)
        )
        columns = {"image": counts.names, "group": counts.groups, "mIoU, reference": before, "mIoU": after}
        table = pd.DataFrame(columns).assign(change=100 * (after - before))
        return table.sort_values("change", kind="stable").reset_index(drop=True)

    def sentences(self) -> list[str]:
        """Return a sentence or two for each of the others, and what is unchecked or has changed since."""
        pairs = zip(self.others, self.comparisons, self.means, strict=True)
        said = [self._sentence(one, comparison, mean) for one, comparison, mean in pairs]
        unchecked = [one.name for one in self.candidates if not one.made_from.image_contents_sha256]
        if unchecked:
            said.append(
                f"Unchecked: {', '.join(unchecked)} did not record the bytes of the images and masks, as earlier "
                "versions did not; evaluate again to be sure that they are the same."
            )
        return said + [one.changed for one in self.candidates if one.changed]

    def _sentence(self, other: Candidate, comparison: Comparison, mean: Estimate) -> str:
        if np.array_equal(self.reference.confusions, other.confusions):
            count = len(self.reference.counts.names)
            return (
                f"{other.name} and {self.reference.name} are alike: the pixels of each class are predicted as the same "
                f"classes, as often, in each of the {count} images, as by identical predictions; there is nothing to "
                "decide."
            )
        if not mean.known:
            return (
                f"{other.name} and {self.reference.name}: too few independent images, {mean.blocks} where "
                f"{FEWEST_BLOCKS} are needed; no winner (mIoU {mean.value:+.2f} points)."
            )
        names = self.reference.counts.class_names
        parts = [
            f"{word} on {_named([(names[i], e.value) for i, e in enumerate(comparison.classes) if e.sign == sign])}"
            for word, sign in (("better", 1), ("worse", -1))
            if any(estimate.sign == sign for estimate in comparison.classes)
        ]
        what = {1: "the mean is better", -1: "the mean is worse", 0: "the mean is undecided"}[mean.sign]
        said = f"{', '.join(parts)}; " if parts else ""
        line = f"{other.name} is {said}" if parts else f"{other.name}: no class differs beyond chance; "
        line += f"{what}: {mean.value:+.2f} [{mean.low:.2f}, {mean.high:.2f}] points of mIoU."
        return line + (_needed(mean, len(self.reference.counts.names)) if mean.sign == 0 else "")

    def seeds(self) -> pd.DataFrame:
        """Return a row per recipe that was trained with several seeds: seeds, mean and deviation of the mIoU.

        Of several runs with one seed, which say nothing about chance, the first counts.
        With five seeds of both, the difference from the first recipe has an interval; with fewer it is only shown.
        """
        recipes: dict[tuple, dict[Any, Candidate]] = {}
        for one in self.candidates:
            recipes.setdefault(_recipe(one), {}).setdefault(one.training.get("seed"), one)
        rows, first = [], None
        for members in (list(by_seed.values()) for by_seed in recipes.values()):
            values = [100 * one.mean_iou for one in members]
            first = values if first is None else first
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            row = {"recipe": members[0].name, "seeds": len(values), "mIoU, %": float(np.mean(values)), "sd": spread}
            difference = compare_seeds(first, values)
            if values is not first:
                tested = difference.known
                row |= _columns(difference) if tested else {"difference": difference.value}
                row["verdict"] = (
                    _verdict_of_seeds(difference) if tested else f"not tested below {FEWEST_SEEDS} seeds each"
                )
            rows.append(row)
        table = _with_whole_numbers(pd.DataFrame(rows).set_index("recipe"))
        return table if (table["seeds"] > 1).any() else table.iloc[:0]

    def costs(self) -> pd.DataFrame:
        """Return a row per candidate: mIoU, what its stored profile measured, and whether it is on the Pareto front.

        A candidate is on the front where no other one is at least as good and as cheap, and better in one of the two.
        The price is the latency if all have been profiled, else the GMACs. It is unknown, and so is the front, unless
        all were profiled at the same size; latencies also need the same machine.
        """
        rows = [{"candidate": one.name, "mIoU": one.mean_iou, **one.cost} for one in self.candidates]
        table = _with_whole_numbers(pd.DataFrame(rows).set_index("candidate"))
        price = self.price
        table["on the front"] = _front(table["mIoU"], table[price]) if price else "unknown"
        return table

    @property
    def price(self) -> str:
        """The column of `costs` by which all candidates can be compared; "" where there is none."""

        def alike(*names: str) -> bool:
            return len({tuple(one.cost.get(name) for name in names) for one in self.candidates}) == 1

        comparable = {"latency, ms": alike("size", "machine"), "GMACs": alike("size")}
        known = (name for name, same in comparable.items() if same and all(name in one.cost for one in self.candidates))
        return next(known, "")

    @property
    def footer(self) -> str:
        """What a figure of this comparison is of, in a line: images, their number, and the protocol."""
        first, count = self.reference, f"{len(self.reference.counts.names)} images"
        images = first.data if count in first.data else f"{first.data}, {count}"
        return f"{images} · {first.protocol.name}"

    @property
    def folder(self) -> Path:
        """Where the results belong: a folder of their own in `outputs/`, named after what is compared, and how."""
        name = "_and_".join(re.sub(r"[^\w.-]+", "-", Path(one.name).name) for one in self.candidates)
        first = self.reference
        what = [
            *(one.name for one in self.candidates),
            first.data,
            first.made_from.images_sha256,
            first.split,
            first.protocol,
            first.counts.groups,
        ]
        digest = hashlib.sha256("\0".join(map(str, what)).encode(errors="surrogateescape")).hexdigest()[:8]
        return output_folder(f"{name[:100]}-{digest}")

    def save(self, folder: Path) -> list[Path]:
        """Write every table as CSV to `folder`, and beside them what they were made from; return the paths."""
        tables = {"candidates": self.table(), "costs": self.costs(), "seeds": self.seeds()}
        for which in range(len(self.others)):
            number = f"_{which + 2}" if len(self.others) > 1 else ""
            of_one = {"classes": self.classes, "flows": self.flows, "images": self.images}
            tables |= {f"{name}{number}": make(which) for name, make in of_one.items()}
        paths = [folder / f"compared_{name}.csv" for name in tables]
        for path, table in zip(paths, tables.values(), strict=True):
            write_text(path, table.to_csv(index=table.index.name is not None))
        remove_others(paths, "compared_*.csv")
        record = folder / "compared.json"
        write_json(record, {"candidates": [_made_from(one) for one in self.candidates]})
        return [*paths, record]


def compare_candidates(candidates: Sequence[Candidate]) -> RunComparison:
    """Compare candidates; raises ParameterError unless they are two or more with the same images, classes, protocol."""
    if len(candidates) < 2:
        raise ParameterError("compare needs two or more runs or folders of masks; name the reference first")
    first = candidates[0]
    for one in candidates[1:]:
        for what, mine, theirs in (
            ("the images", first.counts.names, one.counts.names),
            *_contents(first.made_from, one.made_from),
            ("the classes", first.counts.class_names, one.counts.class_names),
            ("the protocol", first.protocol, one.protocol),
        ):
            if mine != theirs and mine and theirs:
                shown = f": {theirs} and {mine}" if what == "the protocol" else ""
                raise ParameterError(
                    f"{one.name} and {first.name} differ in {what}{shown}; score both on the same images alike"
                )
        if (first.confusions.sum(axis=2) != one.confusions.sum(axis=2)).any():
            raise ParameterError(
                f"{one.name} and {first.name} were scored on other masks of the same images, perhaps before they were "
                "corrected; score both again"
            )
    return RunComparison(candidates)


def _contents(mine: MadeFrom, theirs: MadeFrom) -> list[tuple[str, str, str]]:
    """Return what identifies the images and masks of two candidates, each "" where it is not known."""
    return [
        ("the sizes of the images", mine.images_sha256, theirs.images_sha256),
        ("the content of the images", mine.image_contents_sha256, theirs.image_contents_sha256),
        ("the content of the masks", mine.mask_contents_sha256, theirs.mask_contents_sha256),
    ]


def _made_from(one: Candidate) -> dict[str, Any]:
    return {
        "name": one.name,
        "made_from": one.made_from.as_dict(),
        "data_root": one.root,
        "split": one.split,
        "protocol": one.protocol.name,
        "mIoU": None if math.isnan(one.mean_iou) else one.mean_iou,
    }


def _columns(estimate: Estimate) -> dict[str, float]:
    return {
        "difference": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "blocks": estimate.blocks,
        "p": estimate.p,
    }


def _with_whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Make counts whole numbers again, which a row without one has made fractions; there it stays nan."""
    whole = {
        name: pd.Series([one if math.isnan(one) else int(one) for one in table[name]], table.index, dtype=object)
        for name in ("blocks", "parameters")
        if name in table
    }
    return table.assign(**whole)


def _verdict(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "does not occur"
    if not estimate.known:
        return "too few independent images"
    return {1: "better", -1: "worse", 0: "undecided"}[estimate.sign]


def _verdict_of_seeds(difference: Estimate) -> str:
    verdict, factor = _verdict(difference), _times_as_many(difference)
    if difference.sign or factor > MOST_TIMES:
        return verdict
    return f"{verdict}; about {math.ceil(factor * difference.blocks):,} seeds each would decide it"


def _named(differences: list[tuple[str, float]]) -> str:
    ranked = sorted(differences, key=lambda item: -abs(item[1]))
    more = f" and {len(ranked) - MOST_NAMED} more" if len(ranked) > MOST_NAMED else ""
    return ", ".join(f"{name} ({value:+.1f})" for name, value in ranked[:MOST_NAMED]) + more


def _needed(mean: Estimate, images: int) -> str:
    """Say how many images would decide a difference of this size."""
    factor = _times_as_many(mean)
    if factor > MOST_TIMES:
        return " No realistic number of images would decide a difference this small."
    return f" About {math.ceil(factor * images):,} images like these ({factor:.1f} times as many) would decide it."


def _times_as_many(difference: Estimate) -> float:
    """Return how many times as many images or seeds would decide it; the width shrinks with the root of that."""
    width = (difference.high - difference.low) / 2
    return (width / difference.value) ** 2 if difference.value else math.inf


def _recipe(one: Candidate) -> tuple:
    if not one.training:
        return (one.name,)
    apart = ("seed", *TrainParameters.NOT_IDENTITY)
    return tuple(sorted((name, str(value)) for name, value in one.training.items() if name not in apart))


def _front(quality: pd.Series, price: pd.Series) -> list[str]:
    pairs = list(zip(quality, price, strict=True))
    return [
        "no" if any(q >= mine and p <= cost and (q, p) != (mine, cost) for q, p in pairs) else "yes"
        for mine, cost in pairs
    ]
