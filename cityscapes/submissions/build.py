"""Write predictions as the server reads them, and pack a folder of them into a reproducible zip."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import InputError, MissingInputError, ParameterError
from cityscapes.files.atomic import open_atomically, write_bytes
from cityscapes.files.checksums import file_sha256
from cityscapes.files.listing import files_below
from cityscapes.files.untrusted import regular
from cityscapes.findings import ProblemsError
from cityscapes.layout import Frame
from cityscapes.submissions.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np


def save_prediction(train_ids: "np.ndarray", path: str | Path, *, made_from: bytes | None = None) -> None:
    """Write one prediction, integer (H, W) of train ids 0 to 18, as the label-id PNG that the server reads.

    With `made_from`, which identifies the image and the network, the file is stamped, see `is_made_from`. Raises
    ParameterError for other shapes and ids. 255 is not allowed, since a pixel without a class only costs score.
    """
    import numpy as np

    from cityscapes.files.png_write import encode_png
    from cityscapes.labels import NUM_CLASSES, TRAIN_ID_TO_LABEL_ID

    train_ids = np.asarray(train_ids)
    if train_ids.ndim != 2 or train_ids.size == 0 or not np.issubdtype(train_ids.dtype, np.integer):
        raise ParameterError(f"{path}: expected train ids, integer (H, W), found {train_ids.dtype} {train_ids.shape}")
    if train_ids.min() < 0 or train_ids.max() >= NUM_CLASSES:
        wrong = sorted(set(np.unique(train_ids).tolist()) - set(range(NUM_CLASSES)))[:10]
        raise ParameterError(f"{path}: train ids are 0 to {NUM_CLASSES - 1}, found also {', '.join(map(str, wrong))}")
    write_bytes(path, encode_png(TRAIN_ID_TO_LABEL_ID[train_ids], made_from=made_from), durable=False)


def build_submission(
    predictions: str | Path,
    output_zip: str | Path,
    *,
    expected: Sequence[Frame],
    size: tuple[int, int] | None = None,
    progress: bool | None = False,
) -> Manifest:
    """Zip the predictions below a folder, one for each `expected` frame; the same files give the same bytes.

    A manifest with the hashes is written beside the zip. `size` is (height, width) of every image, None for any. Raises
    ProblemsError with every problem, and then writes no zip and keeps an old one; MachineError when the disk is full.
    """
    predictions, output_zip = Path(predictions), Path(output_zip)
    if not predictions.is_dir():
        raise MissingInputError(f"{predictions}: no such folder of predictions")
    from cityscapes.ids import EVALUATED_IDS, looks_like_train_ids
    from cityscapes.layout import match_names
    from cityscapes.submissions.rules import LIKE_TRAIN_IDS, inspect_files

    problems: list[str] = []

    def refused(link: Path) -> Path:
        what = "folder" if link.is_dir() else "file"
        problems.append(f"{link}: a symbolic link; copy the {what} itself")
        return link

    paths = files_below(predictions, ".png", checked=refused)
    files = [(path.name, path) for path in paths if not path.is_symlink()]
    matched, mismatches = match_names(files, [frame.name for frame in expected])
    problems = sorted(problems) + mismatches
    used: set[int] = set()
    hashes: dict[str, str] = {}
    with open_atomically(output_zip) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            inspections = inspect_files(matched, _read_file, size=size, allowed=EVALUATED_IDS, progress=progress)
            for name, inspection in inspections:
                used |= inspection.ids
                if inspection.problem:
                    problems.append(inspection.problem)
                elif not problems:
                    archive.writestr(_member(name), inspection.content)
                    hashes[name] = hashlib.sha256(inspection.content).hexdigest()
        if problems:
            listed = [LIKE_TRAIN_IDS] * looks_like_train_ids(used) + problems
            raise ProblemsError(predictions, "no zip written", listed)
        file.flush()
        manifest = _verify(Path(file.name), output_zip, hashes)
    manifest.save()
    return manifest


def _read_file(path: Path) -> bytes:
    from cityscapes.submissions.rules import MAX_FILE_BYTES

    with open(regular(path), "rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    member.create_system, member.external_attr = 3, 0o100644 << 16
    return member


def _verify(written: Path, output_zip: Path, hashes: dict[str, str]) -> Manifest:
    """Read the zip back, still under its temporary name, and return its manifest."""
    with zipfile.ZipFile(written) as archive:
        if archive.testzip() is not None or archive.namelist() != list(hashes):
            raise InputError(f"{written}: damaged when read back; build it again on another disk")
    return Manifest(output_zip, hashes, written.stat().st_size, file_sha256(written))
