"""Compare runs, or folders of predicted masks, on the same images by the same protocol.

    dlv3p compare first second
    dlv3p compare first outputs/other_framework/masks --ids label

The first is the reference.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cityscapes.errors import run_command
from dlv3p.parameters.choices import MASK_IDS
from dlv3p.parameters.notebooks import SHARED, CompareRunsParameters
from dlv3p.parameters.protocols import PUBLISHED


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
    titles = [f"{other.name} against {comparison.reference.name}" for other in comparison.others]
    tables = {"": comparison.table()} | {title: comparison.classes(which) for which, title in enumerate(titles)}
    for title, table in (tables | {"seeds": comparison.seeds(), "cost": comparison.costs()}).items():
        if len(table):
            print(f"\n{title}\n{table.round(4).to_string(na_rep='')}")
    for path in comparison.save(options.output) if options.output else ():
        print(path)
    return 0


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
