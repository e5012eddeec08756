"""Plant wrong polygons in the embedded city, search for label errors, and say how many are found.

    python -m benchmarks.label_errors [--seed 0 --count 50 --folds 4 --epochs 26 --threads 2]

A region is right where a planted polygon has half of its pixels or more. Precision at k is the share of right ones
among the first k regions, recall the share of the planted polygons that one of them is right about. Each fold is
trained as the demo is; one that is finished is not trained again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from cityscapes.errors import run_command


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options, without torch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_errors", description=__doc__.splitlines()[0])
    parser.add_argument("--folds", type=int, default=4, help="networks, each judges the part that it has not seen")
    parser.add_argument("--epochs", type=int, default=26, help="of each fold")
    parser.add_argument("--count", type=int, default=50, help="wrong polygons to plant, each in an image of its own")
    for name, default, what in (
        ("seed", 0, "of the polygons"),
        ("threads", 2, "of the CPU"),
        ("border", 2, "in pixels"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=what)
    parser.add_argument("--smallest", type=int, default=30, help="pixels of a region, without its border")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parse_options()  # answers --help, and refuses wrong options, before the seconds that the imports below take

import pandas as pd

from cityscapes.files.atomic import write_text
from cityscapes.workspace import data_folder
from dlv3p.data.demo_mislabeled import Planted, read_planted, write_mislabeled_city
from dlv3p.data.roots import open_split
from dlv3p.parameters.notebooks import FindLabelErrorsParameters, TrainParameters
from dlv3p.prediction.label_errors import fold_parameters, judge, match_planted
from dlv3p.train import train


def measure(matched: pd.DataFrame, planted: Sequence[Planted], ranks: Sequence[int]) -> pd.DataFrame:
    """Return precision and recall among the first regions, for each number of them, and the recall of each kind."""
    kinds = {"recall": planted}
    kinds |= {f"of {kind}": [one for one in planted if one.kind == kind] for kind in ("relabeled", "missing")}
    rows = []
    for rank in sorted({min(rank, len(matched)) for rank in ranks}):
        first = matched[matched["rank"] <= rank]
        found = set(first["polygon"])
        recall = {name: sum(one.image in found for one in some) / len(some) for name, some in kinds.items() if some}
        rows.append({"regions": rank, "right": int(first["right"].sum()), "precision": first["right"].mean(), **recall})
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant, train, search, and print precision and recall; the matches go to the outputs of the search."""
    options = parse_options(arguments)
    title = f"mislabeled_city-{options.seed}" + (f"-{options.count}" if options.count != 50 else "")
    root = write_mislabeled_city(data_folder() / title, count=options.count, seed=options.seed)
    search = FindLabelErrorsParameters(
        data_root=str(root), split="train", folds=options.folds, epochs=options.epochs, run=title, count=100_000,
        threads=options.threads, device="cpu", border=options.border, smallest=options.smallest,
    )  # fmt: skip
    folds: list[TrainParameters] = [fold_parameters(search, fold) for fold in range(options.folds)]
    for fold in folds:
        train(replace(fold, validate_every=options.epochs))
    errors = judge(open_split(root, "train"), [fold.run_name for fold in folds], search)
    matched, planted = match_planted(errors), read_planted(root)
    write_text(errors.folder / "planted_regions.csv", matched.to_csv(index=False))
    errors.save("none")
    count = options.count
    print(f"{count} wrong polygons in {len(errors.split)} images, seed {options.seed}; {errors.found} regions")
    print(
        measure(matched, planted, [count // 2, count, 2 * count, 4 * count, len(matched)])
        .round(3)
        .to_string(index=False)
    )
    return 0


if __name__ == "__main__":
    run_command(main)
