"""Check a submission's zip without trusting anything in it, and without unpacking it to disk."""

import hashlib
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import InputError, MissingInputError, reason
from cityscapes.files.untrusted import regular
from cityscapes.layout import Frame
from cityscapes.submissions.manifest import compare_with_manifest

if TYPE_CHECKING:
    from cityscapes.scores.official_scores import OfficialScores, ScoreAccumulator
    from cityscapes.scores.truth_files import TruthFiles
    from cityscapes.submissions.rules import Inspection

MAX_DIRECTORY_BYTES = 4 * 2**20

_UNSAFE = re.compile(r"(^|/)\.\.(/|$)|^/|^[A-Za-z]:|[\\\0]")


@dataclass(frozen=True)
class SubmissionReport:
    """What a check found: the number of files inspected, what the server would refuse or misread, what costs score.

    `scores` are the server's, if the truth is known and there is no problem.
    """

    path: Path
    files: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    scores: "OfficialScores | None" = None


def check_submission(
    zip_path: str | Path,
    *,
    expected: Sequence[Frame],
    size: tuple[int, int] | None = None,
    truth: Mapping[str, "TruthFiles"] | None = None,
    progress: bool | None = False,
) -> SubmissionReport:
    """Check a zip from anywhere against the `expected` frames and `size` (height, width), and list every problem.

    With `truth`, by frame name, the zip's own PNGs are scored too. A manifest beside the zip has to agree with it.
    Limits on counts and sizes hold whatever the zip claims. Raises MissingInputError when there is no such file;
    everything else is a problem in the report.
    """
    zip_path = Path(zip_path)
    if not zip_path.is_file():
        raise MissingInputError(f"{zip_path}: no such zip file")
    from cityscapes.ids import EVALUATED_IDS, looks_like_train_ids
    from cityscapes.scores.official_scores import ScoreAccumulator
    from cityscapes.submissions.rules import LIKE_TRAIN_IDS

    problems: list[str] = []
    used: set[int] = set()
    hashes: dict[str, str] = {}
    accumulator = ScoreAccumulator() if truth else None
    files = 0
    try:
        _refuse_huge_directory(zip_path)
        with zipfile.ZipFile(zip_path) as archive:
            for name, inspection in _inspect(archive, expected, size, truth, progress, problems):
                files += 1
                used |= inspection.ids
                if inspection.problem:
                    problems.append(inspection.problem)
                    continue
                hashes[name] = hashlib.sha256(inspection.content).hexdigest()
                _count(accumulator, name, inspection)
    except MemoryError:
        raise
    except Exception as error:  # a damaged or hostile zip may raise nearly anything
        problems.append(f"{zip_path}: not a readable zip ({reason(error)})")
    problems += compare_with_manifest(zip_path, hashes)
    problems = [LIKE_TRAIN_IDS] * looks_like_train_ids(used) + problems
    spare = ", ".join(map(str, sorted(used - EVALUATED_IDS)))
    warnings = (
        (f"label ids {spare} are never counted as right; predict the 19 evaluated classes only",) if spare else ()
    )
    scores = accumulator.result() if accumulator and not problems else None
    return SubmissionReport(zip_path, files, tuple(problems), warnings, scores)


def _inspect(
    archive: zipfile.ZipFile,
    expected: Sequence[Frame],
    size: tuple[int, int] | None,
    truth: Mapping[str, "TruthFiles"] | None,
    progress: bool | None,
    problems: list[str],
) -> Iterable[tuple[str, "Inspection"]]:
    """Yield each file of the zip with its inspection, after adding the problems of all names to `problems`."""
    from cityscapes.ids import TABLE_IDS
    from cityscapes.layout import match_names
    from cityscapes.submissions.rules import MAX_FILE_BYTES, inspect_files

    def read(member: zipfile.ZipInfo) -> bytes:
        if member.file_size > MAX_FILE_BYTES:
            raise InputError(f"{member.filename}: unpacks to more than {MAX_FILE_BYTES >> 20} MB")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{member.filename}: unsupported compression; zip it again with deflate, the usual method")
        with archive.open(member) as file:  # a lying size must not make it unpack more
            return file.read(MAX_FILE_BYTES + 1)

    safe, unsafe = _safe_members(archive.infolist())
    matched, mismatches = match_names(safe, [frame.name for frame in expected])
    problems += unsafe + mismatches
    return inspect_files(matched, read, size=size, allowed=TABLE_IDS, truth=truth, progress=progress)


def _count(accumulator: "ScoreAccumulator | None", name: str, inspection: "Inspection") -> None:
    if accumulator is not None and inspection.counts is not None:
        accumulator.add_counts(name, inspection.counts)


def _safe_members(members: Iterable[zipfile.ZipInfo]) -> tuple[list[tuple[str, zipfile.ZipInfo]], list[str]]:
    safe, problems = [], []
    for member in members:
        name = member.orig_filename
        if _UNSAFE.search(name):
            problems.append(f"{name!r}: unsafe name; plain file names only")
        elif (member.external_attr >> 16) & 0o170000 == 0o120000:
            problems.append(f"{name!r}: a symbolic link; put the file itself into the zip")
        elif not member.is_dir():
            safe.append((name.rsplit("/", 1)[-1], member))
    return safe, problems


def _refuse_huge_directory(path: Path) -> None:
    """Check the zip's end record before its directory is loaded, which a zip bomb may fill with millions of names."""
    with open(regular(path), "rb") as file:
        file.seek(max(0, path.stat().st_size - 66_000))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        raise InputError("no end record; the file is truncated or not a zip")
    if (
        tail[end - 20 : end - 16] == b"PK\6\7"
        or int.from_bytes(tail[end + 12 : end + 16], "little") > MAX_DIRECTORY_BYTES
    ):
        raise InputError("its directory is far larger than a submission needs")
