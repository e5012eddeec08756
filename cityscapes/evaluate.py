"""Score a folder of Cityscapes predictions with the official numbers: IoU and iIoU of classes and categories.

    python cityscapes/evaluate.py --truth /data/cityscapes --predictions my_predictions --output scores.json

Takes label-id or train-id PNGs from any program, one for each image of the split, found by `<city>_<seq>_<frame>*.png`.
The numbers and the JSON's keys are those of the official script. Needs no torch; call `score_folder` from Python.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import run_command
from cityscapes.findings import ProblemsError, print_problems
from cityscapes.layout import SPLITS

if TYPE_CHECKING:
    from cityscapes.scores.official_scores import OfficialScores
    from cityscapes.scores.score_files import FolderScores

MEANING = {"label": "label ids (road is 7)", "train": "train ids (road is 0)"}


def main() -> int:
    """Run the command line and return its exit status: 0, or 3 when files are bad and nothing was scored."""
    arguments = _parser().parse_args()
    from cityscapes.files.atomic import check_writable
    from cityscapes.scores.score_files import score_folder
    from cityscapes.scores.truth_files import find_truth

    if arguments.output:
        check_writable(arguments.output.parent)
    truth = find_truth(arguments.truth, arguments.split)
    print(f"truth: {len(truth)} images below {arguments.truth}", flush=True)
    try:
        found = score_folder(arguments.predictions, truth, ids=arguments.ids, workers=arguments.workers)
    except ProblemsError as error:
        print_problems("error", error.problems)
        print(f"error: {arguments.predictions}: not scored, problems found: {len(error.problems)}", file=sys.stderr)
        return error.exit_status
    print(f"predictions: {MEANING[found.encoding]}: {found.because}\n")
    print_problems("warning", found.warnings)
    print("\n".join(score_tables(found.scores)))
    if without := sum(not files.has_instances for files in truth):
        print(f"\nno iIoU: {without} images have neither instanceIds nor polygons beside their labelIds")
    if arguments.output:
        write_scores(arguments.output, found)
        print(f"\n{arguments.output}")
    return 0


def write_scores(path: Path, found: "FolderScores") -> None:
    """Write the official result file, with one more key: `predictionIds`, label or train."""
    from cityscapes.files.atomic import write_text

    content = {**found.scores.as_official_json(), "predictionIds": found.encoding}
    write_text(path, json.dumps(content, sort_keys=True, indent=4, allow_nan=False) + "\n")


def score_tables(scores: "OfficialScores") -> list[str]:
    """Return the two tables of the official script as lines of text, classes and categories, each with its average."""
    averages = scores.averages
    lines = _table("classes", scores.class_iou, scores.class_iiou)
    lines += _row("average", averages["averageScoreClasses"], averages["averageScoreInstClasses"])
    lines += ["", *_table("categories", scores.category_iou, scores.category_iiou)]
    return lines + _row("average", averages["averageScoreCategories"], averages["averageScoreInstCategories"])


def _table(title: str, iou: Mapping[str, float], iiou: Mapping[str, float] | None) -> list[str]:
    rows = [_row(name, value, (iiou or {}).get(name))[0] for name, value in iou.items()]
    line = "-" * 34
    return [f"{title:<16}{'IoU':>8}{'iIoU':>10}", line, *rows, line]


def _row(name: str, iou: float | None, iiou: float | None) -> list[str]:
    shown = ["-" if value is None else "nan" if math.isnan(value) else f"{value:.4f}" for value in (iou, iiou)]
    return [f"{name:<16}{shown[0]:>8}{shown[1]:>10}"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Score a folder of Cityscapes predictions with the official numbers.",
        epilog="Exit status: 0 scored, 2 wrong usage, 3 bad, missing or extra files (all are listed, nothing is scored "
        "or written), 4 the result cannot be written.",
    )
    parser.add_argument(
        "--truth",
        type=Path,
        required=True,
        metavar="DIR",
        help="a Cityscapes root, one split of its gtFine/, or a folder of generated masks",
    )
    parser.add_argument("--predictions", type=Path, required=True, metavar="DIR", help="the folder of prediction PNGs")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="where to write the official result file")
    parser.add_argument(
        "--ids", choices=("auto", "label", "train"), default="auto", help="what pixels hold (default: auto, detected)"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="threads (default: 0, one per core)")
    parser.add_argument("--split", choices=SPLITS, help="the split of the truth, if there are several (default: val)")
    return parser


if __name__ == "__main__":
    run_command(main)
