"""Make a folder to train on from annotations of other tools, or write masks for a person to correct in one.

    dlv3p annotations prepare instances.json --images photos --output my_data
    dlv3p annotations prepare exported_by_cvat --class-table classes_of_labels.csv --image-groups '(.+)_[0-9]+'
    dlv3p annotations correct outputs/demo/predict_photos --images photos --format cvat

A killed command is resumed by the same command. At its end, `prepare` audits what it wrote. Exit status 3 says that
some images could not be used, or that the audit found an error.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from cityscapes.errors import InputError, ParameterError, run_command
from cityscapes.findings import print_problems
from dlv3p.parameters.annotations import PrepareAnnotationsParameters
from dlv3p.parameters.files import read_options

PREPARE, CORRECT = "prepare", "correct"
HELP = f"""usage: dlv3p annotations {{{PREPARE},{CORRECT}}} ...

  {PREPARE}  make a folder to train on from COCO, LabelMe, CVAT, YOLO, or masks of colors
  {CORRECT}  write predictions, or other masks, as COCO's or CVAT's polygons

`dlv3p annotations {PREPARE} --help` lists its options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        if words:
            raise SystemExit(0)
        return ParameterError.exit_status
    if words[0] not in (PREPARE, CORRECT):
        raise ParameterError(f"dlv3p annotations {words[0]}: no such command; allowed are {PREPARE} and {CORRECT}")
    return (_prepare if words[0] == PREPARE else _correct)(words[1:])


def _prepare(arguments: Sequence[str]) -> int:
    description = "Make a folder to train on from annotations of other tools."
    parser = argparse.ArgumentParser(prog=f"dlv3p annotations {PREPARE}", description=description)
    without = ("corrections", "examples", "figures")
    parameters = read_options(
        parser, PrepareAnnotationsParameters, arguments, positional="annotations", without=without
    )
    from dlv3p.annotations.prepare import prepare_annotations
    from dlv3p.data.audit import audit

    prepared = prepare_annotations(parameters)
    print(*prepared.lines(), sep="\n")
    report = audit(prepared.folder, list(prepared.splits), progress=parameters.progress)
    for line in report.lines():
        print(line)
    print_problems("not used", prepared.problems)
    print(f"{prepared.folder}: {'fit to train on' if not report.errors else 'errors, see above'}")
    if not report.errors:
        print(f"next, in notebooks/: papermill train.ipynb -p data_root {shlex.quote(str(prepared.folder.absolute()))}")
    return InputError.exit_status if prepared.problems or report.errors else 0


def _correct(arguments: Sequence[str]) -> int:
    description = "Write masks of ids as polygons, for a person to correct in an annotation tool."
    parser = argparse.ArgumentParser(prog=f"dlv3p annotations {CORRECT}", description=description)
    parser.add_argument("masks", help="a folder of dlv3p predict, or one with classes.csv and masks/")
    parser.add_argument(
        "--images", default="", help="folder of the images, or the video (default: images/ in the folder)"
    )
    parser.add_argument("--format", default="cvat", help="cvat or coco (default: %(default)s)")
    parser.add_argument("--output", default="", help="file to write (default: annotations.xml or .json in the folder)")
    parser.add_argument("--tolerance", type=float, default=1.0, help="pixels by which outlines may deviate; 0 is exact")
    parser.add_argument("--smallest", type=int, default=16, help="regions of fewer pixels go to what is around them")
    options = parser.parse_args(arguments)
    from dlv3p.annotations.correct import write_corrections

    written = write_corrections(**vars(options))
    print_problems("not written", written.problems)
    print(f"{written.path.parent}: {written.line()}")
    return InputError.exit_status if written.problems else 0


if __name__ == "__main__":
    run_command(main)
