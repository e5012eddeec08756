"""The command `dlv3p runs`: list, stop, check, rename, remove and store runs, and record reference bands.

dlv3p runs list
dlv3p runs stop RUN
dlv3p runs check saved/<run>
dlv3p runs band RUN RUN RUN --output FILE
dlv3p runs store RUN --output FOLDER
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cityscapes.errors import IntegrityError, MissingInputError, ParameterError, run_command
from cityscapes.workspace import run_folder

PLACES_LISTED = 20
"""How many places are listed for each kind of finding; all are counted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    return options.run(options)


def list_runs(options: argparse.Namespace) -> int:
    """Print a table of the named runs, or of all."""
    from dlv3p.runs.listing import all_runs, format_runs, read_state

    runs = [_folder(run).name for run in options.runs] or all_runs()
    if not runs:
        print(f"{run_folder('').resolve()}: no run yet; train.ipynb or dlv3p train makes one")
        return 0
    for line in format_runs([read_state(run) for run in runs]):
        print(line)
    return 0


def stop_run(options: argparse.Namespace) -> int:
    """Ask for a stop, and say whom."""
    from dlv3p.runs.folders import request_stop

    holder = request_stop(_folder(options.run_name).name)
    print(f"{options.run_name}: asked {holder} to stop after its current step")
    return 0


def remove_runs(options: argparse.Namespace) -> int:
    """Delete runs, after a question unless `--yes` is given; the answer is no where nobody can be asked."""
    from dlv3p.runs.listing import read_state, remove_run

    for run in options.runs:
        state = read_state(run)
        what = f"{run_folder(run)} ({state.state}, {state.epoch} epochs)"
        if not options.yes:
            if not sys.stdin.isatty():
                raise ParameterError(f"{what}: give --yes to remove it where nobody can be asked")
            if input(f"Remove {what}? [y/N] ").strip().lower() not in ("y", "yes"):
                print(f"{run}: kept")
                continue
        for folder in remove_run(run, outputs=options.outputs):
            print(f"{folder}: removed")
    return 0


def rename_run(options: argparse.Namespace) -> int:
    """Rename a run, and say what still has its former name."""
    from dlv3p.runs import listing

    for folder in listing.rename_run(options.run_name, options.name):
        print(f"{folder}: was {options.run_name}")
    print(f"To resume or show it in a notebook, give run={options.name!r}; results keep the name they were made under")
    return 0


def check_runs(options: argparse.Namespace) -> int:
    """Check run folders one after another: status 0, 6 when one of them is damaged, else 3 when anything is missing."""
    from cityscapes.findings import format_findings
    from dlv3p.runs.check import MISSING, check_run

    status = 0
    for folder in map(_folder, options.runs):
        findings, compared = check_run(folder, every_byte=options.data)
        for line in format_findings(findings, limit=PLACES_LISTED):
            print(line)
        errors = [finding for finding in findings if finding.is_error]
        if not errors:
            print(f"{folder}: complete and unchanged; {compared}", flush=True)
            continue
        damaged = [finding for finding in errors if finding.kind != MISSING]
        print(f"{folder}: {'damaged' if damaged else 'incomplete'}; errors found: {len(errors)}", flush=True)
        status = IntegrityError.exit_status if damaged else status or MissingInputError.exit_status
    return status


def record_band(options: argparse.Namespace) -> int:
    """Write the reference band of several runs of one recipe."""
    from dlv3p.runs.bands import band_of_runs, write_band

    band = band_of_runs([_folder(run) for run in options.runs], epochs=options.epochs)
    write_band(options.output, band)
    print(f"{options.output}: {len(options.runs)} runs, {band.epochs} epochs, {', '.join(band.intervals)}")
    return 0


def store_run(options: argparse.Namespace) -> int:
    """Store a run in a folder."""
    from dlv3p.runs import trained

    path = trained.store_run(_folder(options.run_name).name, options.output)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _folder(run: str) -> Path:
    """Return the run's folder, given `saved/<run>` or the name alone, which no folder here stands in for."""
    path = Path(run)
    if path.is_dir() and not (path.name == run and run_folder(run).is_dir()):
        return path
    return run_folder(path.name) if path.parent.name in ("", "saved") else path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dlv3p runs", description="List, stop, check, rename, remove and store runs, and record reference bands."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listed = commands.add_parser(
        "list",
        help="list runs with state, epoch, score, time left, data, and what differs between them",
        description="List runs: state, finished epochs of how many, best mIoU on the validation split, time left, "
        "data, and the parameters in which they differ. Reads small files only, also of a run in progress.",
    )
    listed.add_argument("runs", nargs="*", metavar="RUN", help="saved/<run>, or its name; default: all")
    listed.set_defaults(run=list_runs)
    stop = commands.add_parser(
        "stop",
        help="ask the process that trains a run to stop, with a checkpoint",
        description="Ask the process that trains a run, on this machine or on one that shares the folder, to stop "
        "after its current step, with a checkpoint. The same training command resumes it.",
    )
    stop.add_argument("run_name", metavar="RUN", help="its name")
    stop.set_defaults(run=stop_run)
    remove = commands.add_parser(
        "remove",
        help="delete runs, after asking",
        description="Delete saved/<run>/, after asking. A run in progress is refused.",
    )
    remove.add_argument("runs", nargs="+", metavar="RUN", help="its name")
    remove.add_argument("--yes", action="store_true", help="without asking")
    remove.add_argument("--outputs", action="store_true", help="outputs/<run>/ as well, all that was made from it")
    remove.set_defaults(run=remove_runs)
    rename = commands.add_parser(
        "rename",
        help="rename a run",
        description="Rename saved/<run>/, and outputs/<run>/ with it. A run in progress is refused.",
    )
    rename.add_argument("run_name", metavar="RUN", help="its name")
    rename.add_argument("name", metavar="NAME", help="the new name")
    rename.set_defaults(run=rename_run)
    check = commands.add_parser(
        "check",
        help="check whether run folders are complete and unchanged",
        description="Check whether run folders are complete and unchanged, and whether their data has changed: by "
        "names and sizes, or byte by byte. Writes nothing.",
        epilog="Exit status: 0 complete and unchanged, 3 incomplete, 6 damaged, 7 in training.",
    )
    check.add_argument("runs", nargs="+", metavar="RUN", help="saved/<run>, or its name")
    check.add_argument(
        "--data", action="store_true", help="compare every byte of images and masks, which takes a while"
    )
    check.set_defaults(run=check_runs)
    band = commands.add_parser(
        "band",
        help="record the reference band of a recipe",
        description="Record the reference band of a recipe from the curves of runs that differ only in their seed.",
    )
    band.add_argument("runs", nargs="+", metavar="RUN", help="saved/<run>, or its name; three or more")
    band.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="file to write; pass it to a training as `band`"
    )
    band.add_argument(
        "--epochs", type=int, default=0, help="number of epochs, from the first; 0: as many as all runs have"
    )
    band.set_defaults(run=record_band)
    store = commands.add_parser(
        "store",
        help="store a run at half precision, to be shared or committed",
        description="Store the best network of a finished run at half precision, with its metrics and its record, "
        "which then names no local path. notebooks/trained/ is the run that stands in where a user has none.",
    )
    store.add_argument("run_name", metavar="RUN", help="saved/<run>, or its name")
    store.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for example notebooks/trained")
    store.set_defaults(run=store_run)
    return parser


if __name__ == "__main__":
    run_command(main)
