"""Download and unpack PASCAL VOC 2012 and SBD, and convert SBD's annotations from MATLAB files to PNG.

Archives that are already on disk are not downloaded again, and their files are used only if the MD5 is right. SBD
annotates VOC's own images; with VOC's train split, they make the 10,582 images that most published VOC results are
trained on.
"""

import hashlib
import os
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from shutil import copyfileobj
from typing import NamedTuple

import numpy as np
from PIL import Image

from cityscapes.errors import InputError, IntegrityError, MachineError, MissingInputError, reason, require
from cityscapes.files.atomic import NO_PERMISSION, NO_SPACE, explain_refusal, open_atomically, write_bytes, write_text
from cityscapes.files.leftovers import remove_leftovers, temporary_folder
from cityscapes.files.untrusted import read_at_most, regular, sanitize
from cityscapes.ids import invalid_ids
from dlv3p.data.classes import voc_palette
from dlv3p.data.voc import AUGMENTED_MASKS, AUGMENTED_TRAIN, CLASS_NAMES, LISTS, read_voc_list
from dlv3p.runtime.progress import track


class Archive(NamedTuple):
    """An archive: its file name, URL and MD5, and the folder inside to unpack."""

    file: str
    url: str
    md5: str
    folder: str


VOC = Archive(
    "VOCtrainval_11-May-2012.tar",
    "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "6cd6e144f989b92b3379bac3b3de84fd",
    "VOCdevkit/VOC2012",
)
SBD = Archive(
    "benchmark.tgz",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "82b4d87ceb2ed10f6038a1cba92111cb",
    "benchmark_RELEASE/dataset",
)


def unpack_archive(archive: Archive, archives: Path, root: Path) -> Path:
    """Return `<root>/<archive.folder>`, unpacked from `<archives>/<archive.file>`, which is downloaded if absent.

    An existing folder is left alone, and of several calls at once the first to finish makes it; an interrupted call
    leaves nothing behind under the final name. Raises MachineError when the download fails or the disk is full,
    InputError for an archive that cannot be unpacked, IntegrityError for one of another MD5.
    """
    target = root / archive.folder
    if target.is_dir():
        return target
    path = archives / archive.file
    if not path.is_file():
        _download(archive, archives)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(f".unpacking-{target.name}", target.parent) as folder:
            _unpack(path, folder)
            if not (folder / archive.folder).is_dir():
                raise InputError(f"{path}: holds no {archive.folder}/; it is not the archive at {archive.url}")
            _check_md5(archive, path)
            _rename_unless_made(folder / archive.folder, target)
    except OSError as error:
        explain_refusal(error, target)
        raise
    finally:
        with suppress(OSError):
            target.parent.rmdir()  # it is empty where nothing was unpacked
    return target


def _unpack(path: Path, folder: Path) -> None:
    try:
        with tarfile.open(regular(path)) as tar:
            tar.extractall(folder, filter="data")  # refuses members outside the folder
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno in (*NO_SPACE, *NO_PERMISSION):
            explain_refusal(error, folder.parent)
        raise InputError(f"{path}: cannot be unpacked ({reason(error)}); delete it and download it again") from error


def md5_path(path: Path) -> Path:
    """Return the path of the file that states an archive's own MD5, as `md5sum` prints it, beside the archive."""
    return path.with_name(path.name + ".md5")


def file_md5(path: Path) -> str:
    """Return the MD5 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _check_md5(archive: Archive, path: Path) -> None:
    """Raise IntegrityError for an archive that is neither the published one nor the one that its `.md5` states."""
    stated, known, found = md5_path(path), archive.md5, file_md5(path)
    if stated.is_file():
        text = read_at_most(stated, 4096, missing="no such file", too_large="too large for a line of md5sum")
        known = (text.decode("utf-8", "replace").split() or [""])[0].lower()
    if found != known:
        raise IntegrityError(
            f"{path}: its MD5 is {found}, not {sanitize(known)}, so it is damaged or another archive; delete it to "
            f"download it again, or write its MD5 to {stated.name} (md5sum {path.name} > {stated.name}) to take it"
        )


def _rename_unless_made(folder: Path, target: Path) -> None:
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():  # else another process has unpacked the same archive meanwhile
            raise


def _download(archive: Archive, archives: Path) -> None:
    """Download an archive to a folder of its own, and move it to its place when its checksum is right."""
    from torchvision.datasets.utils import download_url  # torchvision takes seconds to import, and downloads are rare

    try:
        archives.mkdir(parents=True, exist_ok=True)
        with temporary_folder(f".downloading-{archive.file}", archives) as folder:
            download_url(archive.url, folder, archive.file, archive.md5)
            os.replace(folder / archive.file, archives / archive.file)
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in (*NO_SPACE, *NO_PERMISSION):
            explain_refusal(error, archives / archive.file)
        raise MachineError(
            f"cannot download {archive.url} ({reason(error)}); download {archive.file} on a machine with "
            f"network access and put it into {archives}"
        ) from error


def read_sbd_mask(path: Path) -> np.ndarray:
    """Read the class mask of one `cls/<id>.mat`: uint8 (H,W), 0 to 20; SBD does not mark borders.

    Raises MachineError where scipy is missing, InputError for another file.
    """
    require("reading SBD", ("scipy",), "voc")
    from scipy.io import loadmat

    try:
        ids = np.asarray(loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise nearly anything
        raise InputError(f"{path}: not a class mask of SBD ({reason(error)}); unpack benchmark.tgz again") from error
    if ids.ndim != 2 or ids.dtype != np.uint8 or invalid_ids(ids, len(CLASS_NAMES)):
        raise InputError(f"{path}: holds {ids.dtype} {ids.shape}, expected uint8 (H,W), 0 to {len(CLASS_NAMES) - 1}")
    return ids


def augment_voc(kit: Path, sbd: Path, *, progress: str = "none") -> list[str]:
    """Add SBD's masks to a development kit and write the list `train_aug`; returns its ids, sorted.

    `sbd` holds cls/, train.txt and val.txt. SegmentationClassAug gets a palette PNG for each SBD image beyond VOC's
    train and val, and a copy of VOC's own masks, so that any of the published lists finds its files there. Existing
    files are kept, so an interrupted call continues. Raises InputError that counts all damaged files.
    """
    train = {pair.name: pair for pair in read_voc_list(kit, "train")}
    val = {pair.name: pair for pair in read_voc_list(kit, "val")}
    folder = kit / AUGMENTED_MASKS
    beyond = sorted((_ids(sbd / "train.txt") | _ids(sbd / "val.txt")) - train.keys() - val.keys())
    problems, total = [], len(beyond) + len(train) + len(val)
    remove_leftovers(folder)
    jobs = [(sbd / "cls" / f"{name}.mat", folder / f"{name}.png") for name in beyond]
    jobs += [(pair.mask, folder / f"{pair.name}.png") for pair in (train | val).values()]
    with ThreadPoolExecutor() as pool:
        for problem in track(pool.map(_add, jobs), total=total, title="masks of VOC and SBD", mode=progress):
            problems += [problem] if problem else []
    if problems:
        raise InputError(f"{len(problems)} of {total} masks could not be made, the first: {problems[0]}")
    names = sorted({*beyond, *train})
    write_text(kit / LISTS / f"{AUGMENTED_TRAIN}.txt", "".join(f"{name}\n" for name in names))
    return names


def encode_palette_png(ids: np.ndarray) -> bytes:
    """Encode ids, uint8 (H,W), as a PNG with VOC's palette, so that viewers show colors and readers get ids."""
    image = Image.fromarray(ids, mode="P")
    image.putpalette(voc_palette().tobytes())
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _ids(path: Path) -> set[str]:
    # Strip line ends: a last line without one would otherwise be another id, and leak into training.
    try:
        return {line.strip() for line in regular(path).read_text().splitlines() if line.strip()}
    except OSError as error:
        raise MissingInputError(f"{path}: no such list; SBD holds train.txt, val.txt and cls/") from error


def _add(job: tuple[Path, Path]) -> str | None:
    source, target = job
    if target.is_file():
        return None
    try:
        if source.suffix == ".mat":
            write_bytes(target, encode_palette_png(read_sbd_mask(source)), durable=False)
        else:
            with open(source, "rb") as original, open_atomically(target, durable=False) as copy:
                copyfileobj(original, copy)
    except MachineError:
        raise
    except (InputError, OSError) as error:
        return str(error)
    return None
