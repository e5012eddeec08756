"""Compare runs, or folders of predicted masks, on the same images by the same protocol.

    dlv3p compare first second
    dlv3p compare first outputs/other_framework/masks --ids label

The first is the reference.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import run_command
from dlv3p.parameters.choices import MASK_IDS
from dlv3p.parameters.notebooks import SHARED, CompareRunsParameters
from dlv3p.parameters.protocols import PUBLISHED

if TYPE_CHECKING:
    import pandas as pd

    from dlv3p.evaluation.run_comparison import RunComparison

MOST_FLOWS, MOST_IMAGES = 6, 3
"""How many flows between classes are printed, and how many images at either end; the CSV files have them all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare what the command line names, and print sentences and tables."""
    options = _parser().parse_args(arguments)
    values = {name: value for name, value in vars(options).items() if name != "output"}
    config = CompareRunsParameters.from_mapping(values | {"candidates": " ".join(options.candidates)})
    config.find_inputs()

    from dlv3p.evaluation.candidates import read_candidates  # not for --help
    from dlv3p.evaluation.run_comparison import compare_candidates

    comparison = compare_candidates(read_candidates(config, options.candidates))
    print(f"{comparison.reference.data}; {comparison.reference.protocol}", *comparison.sentences(), sep="\n")
    for title, table in _tables(comparison):
        if len(table):
            numbered = table.index.name is None
            print(f"\n{title}\n{table.round(4).to_string(na_rep='', index=not numbered)}")
    for path in comparison.save(options.output) if options.output else ():
        print(path)
    return 0


def _tables(comparison: "RunComparison") -> Iterator[tuple[str, "pd.DataFrame"]]:
    """Yield what is printed, each with its title: all of the short tables, and the ends of the long ones."""
    import pandas as pd

    yield "IoU from 0 to 1; difference, low, and high in points (hundredths) of it", comparison.table()
    for which, other in enumerate(comparison.others):
        images = comparison.images(which)
        moved = images[images["change"].abs() > 0]
        ends = pd.concat([moved.head(MOST_IMAGES), moved.tail(MOST_IMAGES)]).drop_duplicates("image")
        pair = f"{other.name} against {comparison.reference.name}"
        yield pair, comparison.classes(which)
        yield f"{pair}: pixels that are predicted otherwise", comparison.flows(which, count=MOST_FLOWS)
        yield f"{pair}: images that changed most, in points of their mIoU", ends.reset_index(drop=True)
    yield "seeds", comparison.seeds()
    yield "cost", comparison.costs()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dlv3p compare", description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("candidates", nargs="+", help="runs below saved/, or folders of predicted masks; the first is the reference")
    add(
        "--protocol",
        default=SHARED,
        metavar="NAME",
        help=f"where runs share several: {SHARED} (default), {', '.join(PUBLISHED)}",
    )
    add(
        "--image-groups",
        default="",
        metavar="FILE",
        help="CSV table image,group: the patient, video or city of each image",
    )
    add("--data-root", default="", metavar="DIR", help="what folders are scored on (default: the first run's data)")
    add("--split", default="val", help="its split (default: val)")
    add("--ids", default="train", choices=MASK_IDS, help="what the pixels of a folder's masks are (default: train)")
    add("--output", type=Path, metavar="DIR", help="also write every table as CSV to this folder")
    return parser


if __name__ == "__main__":
    run_command(main)
