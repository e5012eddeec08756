"""Build and check a submission to the Cityscapes server: a zip with one label-id PNG for each image of a split.

    python cityscapes/submission.py build outputs/my_run/predictions submission.zip --split test
    python cityscapes/submission.py check submission.zip --split test
    python cityscapes/submission.py check submission_val.zip --split val      also computes the server's score

A zip appears under its name only after each file was inspected and the whole zip was read back intact.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import InputError, run_command
from cityscapes.files.untrusted import regular
from cityscapes.findings import ProblemsError, print_problems
from cityscapes.layout import SPLITS, Frame, default_root, find_frames

if TYPE_CHECKING:
    from cityscapes.scores.truth_files import TruthFiles


def main() -> int:
    """Run the command line and return its exit status: 0, or 3 when there are problems."""
    arguments = _parser().parse_args()
    root = arguments.root or default_root()
    expected = find_frames(root, arguments.split)
    size = tuple(arguments.size) if arguments.size else _image_size(expected[0].image(root))
    print(f"{root}: split {arguments.split} holds {len(expected)} images of {size[1]} x {size[0]}")
    action = _check if arguments.action == "check" else _build
    problems, summary = action(arguments, root, expected, size)
    print_problems("error", problems)
    if problems:
        print(f"error: {arguments.zip}: problems found: {len(problems)}", file=sys.stderr)
        return InputError.exit_status
    print(summary)
    return 0


def _build(
    arguments: argparse.Namespace, root: Path, expected: Sequence[Frame], size: tuple[int, int]
) -> tuple[tuple[str, ...], str]:
    from cityscapes.submissions.build import build_submission

    try:
        manifest = build_submission(arguments.predictions, arguments.zip, expected=expected, size=size, progress=None)
    except ProblemsError as error:
        return error.problems, ""
    megabytes = manifest.size_bytes / 2**20
    return (), f"{manifest.path}: {len(manifest.files)} files, {megabytes:.1f} MB, sha256 {manifest.sha256}"


def _check(
    arguments: argparse.Namespace, root: Path, expected: Sequence[Frame], size: tuple[int, int]
) -> tuple[tuple[str, ...], str]:
    from cityscapes.submissions.check import check_submission

    truth = _truth(root, expected)
    report = check_submission(arguments.zip, expected=expected, size=size, truth=truth, progress=None)
    print_problems("warning", report.warnings)
    lines = [f"{arguments.zip}: {report.files} files, ready to upload"]
    if report.scores:
        lines.append("the server's score, if these were its images:")
        for name, value in report.scores.averages.items():
            lines.append(f"  {name:<28}{'absent' if value is None else f'{value:.4f}'}")
    return report.problems, "\n".join(lines)


def _truth(root: Path, expected: Sequence[Frame]) -> "dict[str, TruthFiles] | None":
    from cityscapes.masks.report import cities_of_others
    from cityscapes.scores.truth_files import truth_of_frames
    from cityscapes.workspace import generated_masks_folder

    generated = generated_masks_folder()
    return truth_of_frames(expected, root, generated, cities_of_others(generated, expected[0].split, root))


def _image_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    from cityscapes.files.images import FORMATS, inspect_image

    try:
        with Image.open(regular(path), formats=FORMATS) as image:
            width, height = inspect_image(image).size
            return height, width
    except Exception as error:  # a damaged file may raise nearly anything
        raise InputError(f"{path}: not an image; copy it again, or give --size HEIGHT WIDTH") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Build or check a submission to the Cityscapes server.")
    actions = parser.add_subparsers(dest="action", required=True)
    purpose = "zip a folder of label-id PNGs, after inspecting each"
    build = actions.add_parser("build", help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    build.add_argument("predictions", type=Path, help="the folder that save_prediction wrote to")
    purpose = "list every problem of a zip; on a labeled split, also score it"
    check = actions.add_parser("check", help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    for action in (build, check):
        action.add_argument("zip", type=Path, help="the zip file")
        action.add_argument("--root", type=Path, metavar="DIR", help="the data set whose images are expected")
        action.add_argument("--split", choices=SPLITS, default="test", help="default: test")
        action.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="default: as the images")
    return parser


if __name__ == "__main__":
    run_command(main)
