"""Build and check what the Cityscapes server takes: a zip with one label-id PNG for each image of a split.

    python cityscapes/submission.py build outputs/my_run/predictions submission.zip --split test
    python cityscapes/submission.py check submission.zip --split test

A zip gets its name only after each file was opened and looked at, and after the whole came back from the disk sound.
"""

import argparse
import hashlib
import re
import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.atomic import open_atomically, write_bytes
from cityscapes.errors import InputError, MissingInputError, ParameterError, reason, run_command
from cityscapes.layout import SPLITS, Frame, default_root, find_frames

if TYPE_CHECKING:
    import numpy as np

PREDICTION_SUFFIX = "_prediction_labelIds.png"
MAX_DIRECTORY_BYTES = 4 * 2**20

_UNSAFE = re.compile(r"(^|/)\.\.(/|$)|^/|^[A-Za-z]:|[\\\0]")
_LIKE_TRAIN_IDS = (
    "all files: the ids look like train ids (0 to 18); the server counts label ids, as save_prediction writes"
)


@dataclass(frozen=True)
class Manifest:
    """A zip that was built: its path, the names inside in order, its size in bytes and its SHA-256."""

    path: Path
    names: tuple[str, ...]
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Report:
    """What a check found: how many files were looked at, what the server would refuse or misread, what costs score."""

    path: Path
    files: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


class SubmissionError(InputError):
    """Predictions that cannot be submitted; `problems` lists all of them, a line each."""

    def __init__(self, source: Path, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{source}: no zip written: {problems[0]}{more}")
        self.problems = tuple(problems)


def save_prediction(train_ids: "np.ndarray", path: str | Path) -> None:
    """Write one prediction, integer (H, W) of train ids 0 to 18, as the label-id PNG that the server reads.

    Raises ParameterError for another shape or for other ids; 255 is none, since a pixel without a class only costs.
    """
    import numpy as np

    from cityscapes.labels import NUM_CLASSES, TRAIN_ID_TO_LABEL_ID
    from cityscapes.mask_files import encode_png

    train_ids = np.asarray(train_ids)
    if train_ids.ndim != 2 or train_ids.size == 0 or not np.issubdtype(train_ids.dtype, np.integer):
        raise ParameterError(f"{path}: expected train ids, integer (H, W), found {train_ids.dtype} {train_ids.shape}")
    if train_ids.min() < 0 or train_ids.max() >= NUM_CLASSES:
        wrong = sorted(set(np.unique(train_ids).tolist()) - set(range(NUM_CLASSES)))[:10]
        raise ParameterError(f"{path}: train ids are 0 to {NUM_CLASSES - 1}, found also {', '.join(map(str, wrong))}")
    write_bytes(path, encode_png(TRAIN_ID_TO_LABEL_ID[train_ids]), durable=False)


def build_submission(
    predictions: str | Path,
    output_zip: str | Path,
    *,
    expected: Sequence[Frame],
    size: tuple[int, int] | None = None,
    progress: bool | None = False,
) -> Manifest:
    """Zip the predictions below a folder, one for each `expected` frame; the same files give the same bytes.

    `size` is (height, width) of every image, None for any. Raises SubmissionError with every problem, after which no
    zip is written and an old one stays; MachineError when the disk is full.
    """
    predictions, output_zip = Path(predictions), Path(output_zip)
    if not predictions.is_dir():
        raise MissingInputError(f"{predictions}: no such folder of predictions")
    from cityscapes.submission_rules import EVALUATED_IDS, inspect_files, looks_like_train_ids, match_frames

    paths = sorted(predictions.rglob("*.png"))
    problems = [f"{path}: a link; copy the file itself" for path in paths if path.is_symlink()]
    chosen, mismatches = match_frames([(path.name, path) for path in paths if not path.is_symlink()], expected)
    problems += mismatches
    used: set[int] = set()
    with open_atomically(output_zip) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            findings = inspect_files(chosen, _read_file, size=size, allowed=EVALUATED_IDS, progress=progress)
            for name, finding in findings:
                used |= finding.ids
                if finding.problem:
                    problems.append(finding.problem)
                elif not problems:
                    archive.writestr(_member(name), finding.content)
        if problems:
            raise SubmissionError(predictions, [_LIKE_TRAIN_IDS] * looks_like_train_ids(used) + problems)
        file.flush()
        size_bytes, digest = _verify(Path(file.name), [name for name, _ in chosen])
    return Manifest(output_zip, tuple(name for name, _ in chosen), size_bytes, digest)


def check_submission(
    zip_path: str | Path,
    *,
    expected: Sequence[Frame],
    size: tuple[int, int] | None = None,
    progress: bool | None = False,
) -> Report:
    """Check a zip from anywhere against the `expected` frames and `size` (height, width), and list every problem.

    Nothing is unpacked to disk, and limits on counts and sizes hold whatever the zip claims. Raises MissingInputError
    when there is no such file; everything else is a problem in the report.
    """
    zip_path = Path(zip_path)
    if not zip_path.is_file():
        raise MissingInputError(f"{zip_path}: no such zip file")
    from cityscapes.submission_rules import (
        EVALUATED_IDS,
        MAX_FILE_BYTES,
        TABLE_IDS,
        inspect_files,
        looks_like_train_ids,
        match_frames,
    )

    chosen: list[tuple[str, zipfile.ZipInfo]] = []
    problems: list[str] = []
    used: set[int] = set()
    try:
        _refuse_huge_directory(zip_path)
        with zipfile.ZipFile(zip_path) as archive:

            def read(member: zipfile.ZipInfo) -> bytes:
                if member.file_size > MAX_FILE_BYTES:
                    raise InputError(f"{member.filename}: unpacks to more than {MAX_FILE_BYTES >> 20} MB")
                return archive.read(member)

            safe, problems = _safe_members(archive.infolist())
            chosen, mismatches = match_frames(safe, expected)
            problems += mismatches
            for _, finding in inspect_files(chosen, read, size=size, allowed=TABLE_IDS, progress=progress):
                used |= finding.ids
                problems += [finding.problem] if finding.problem else []
    except Exception as error:  # a damaged or hostile zip may raise nearly anything
        problems.append(f"{zip_path}: not a zip that can be read ({reason(error)})")
    problems = [_LIKE_TRAIN_IDS] * looks_like_train_ids(used) + problems
    spare = ", ".join(map(str, sorted(used - EVALUATED_IDS)))
    warnings = (
        (f"label ids {spare} are never counted as right; predict the 19 evaluated classes only",) if spare else ()
    )
    return Report(zip_path, len(chosen), tuple(problems), warnings)


def _safe_members(members: Iterable[zipfile.ZipInfo]) -> tuple[list[tuple[str, zipfile.ZipInfo]], list[str]]:
    safe, problems = [], []
    for member in members:
        name = member.orig_filename
        if _UNSAFE.search(name):
            problems.append(f"{name!r}: unsafe name; plain file names only")
        elif (member.external_attr >> 16) & 0o170000 == 0o120000:
            problems.append(f"{name!r}: a link; put the file itself into the zip")
        elif not member.is_dir():
            safe.append((name.rsplit("/", 1)[-1], member))
    return safe, problems


def _read_file(path: Path) -> bytes:
    from cityscapes.submission_rules import MAX_FILE_BYTES

    with open(path, "rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    member.create_system, member.external_attr = 3, 0o100644 << 16
    return member


def _verify(path: Path, names: list[str]) -> tuple[int, str]:
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None or archive.namelist() != names:
            raise InputError(f"{path}: came back from the disk damaged; build it again, on another disk")
    with open(path, "rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_huge_directory(path: Path) -> None:
    """Look at the zip's end record before its directory is loaded, which a bomb may fill with millions of names."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 66_000))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        raise InputError("no end record; the file is cut off or no zip")
    if (
        tail[end - 20 : end - 16] == b"PK\6\7"
        or int.from_bytes(tail[end + 12 : end + 16], "little") > MAX_DIRECTORY_BYTES
    ):
        raise InputError("its directory is far larger than a submission needs")


def main() -> int:
    """Run the command line and return its exit status: 0 fine, 3 bad."""
    arguments = _parser().parse_args()
    root = arguments.root or default_root()
    expected = find_frames(root, arguments.split)
    size = tuple(arguments.size) if arguments.size else _image_size(expected[0].image(root))
    print(f"{root}: split {arguments.split} holds {len(expected)} images of {size[1]} x {size[0]}")
    if arguments.action == "check":
        report = check_submission(arguments.zip, expected=expected, size=size, progress=None)
        problems = report.problems
        _print_lines("warning", report.warnings)
        summary = f"{arguments.zip}: {report.files} files, ready to upload"
    else:
        try:
            manifest = build_submission(
                arguments.predictions, arguments.zip, expected=expected, size=size, progress=None
            )
            problems = ()
            megabytes = manifest.size_bytes / 2**20
            summary = f"{manifest.path}: {len(manifest.names)} files, {megabytes:.1f} MB, sha256 {manifest.sha256}"
        except SubmissionError as error:
            problems = error.problems
    _print_lines("error", problems)
    if problems:
        print(f"error: {arguments.zip}: problems found: {len(problems)}", file=sys.stderr)
        return InputError.exit_status
    print(summary)
    return 0


def _image_size(path: Path) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path}: not an image; copy it again, or give --size HEIGHT WIDTH") from error


def _print_lines(kind: str, lines: Sequence[str], most: int = 50) -> None:
    for line in lines[:most]:
        print(f"{kind}: {line}", file=sys.stderr)
    if len(lines) > most:
        print(f"{kind}: and {len(lines) - most} more", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Build or check a submission to the Cityscapes server.")
    actions = parser.add_subparsers(dest="action", required=True)
    build = actions.add_parser("build", help="zip a folder of label-id PNGs, after looking at each")
    build.add_argument("predictions", type=Path, help="the folder that save_prediction wrote to")
    check = actions.add_parser("check", help="list every problem of a zip")
    for action in (build, check):
        action.add_argument("zip", type=Path, help="the zip file")
        action.add_argument("--root", type=Path, metavar="DIR", help="the data set whose images are expected")
        action.add_argument("--split", choices=SPLITS, default="test", help="default: test")
        action.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="default: as the images")
    return parser


if __name__ == "__main__":
    run_command(main)
