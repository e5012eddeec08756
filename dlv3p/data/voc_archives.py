"""Fetch and unpack PASCAL VOC 2012 and SBD; archives that lie on the disk already are not fetched again."""

import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from torchvision.datasets import SBDataset
from torchvision.datasets.utils import download_url
from torchvision.datasets.voc import DATASET_YEAR_DICT

from cityscapes.errors import InputError, MachineError, reason


class Archive(NamedTuple):
    """An archive: its file name, where the world finds it, its MD5, and the folder inside that is wanted."""

    file: str
    url: str
    md5: str
    folder: str


_VOC_2012 = DATASET_YEAR_DICT["2012"]
VOC = Archive(_VOC_2012["filename"], _VOC_2012["url"], _VOC_2012["md5"], "VOCdevkit/VOC2012")
SBD = Archive(SBDataset.filename, SBDataset.url, SBDataset.md5, "benchmark_RELEASE/dataset")


def unpack_archive(archive: Archive, archives: Path, root: Path) -> Path:
    """Return `<root>/<archive.folder>`, unpacked from `<archives>/<archive.file>`, which is downloaded if absent.

    What is unpacked is left as it is; an interrupted call leaves nothing behind under the final name. Raises
    MachineError when the download fails, InputError for a damaged archive.
    """
    target = root / archive.folder
    if target.is_dir():
        return target
    path = archives / archive.file
    if not path.is_file():
        _download(archive, archives)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=root) as folder:
        try:
            with tarfile.open(path) as tar:
                tar.extractall(folder, filter="data")  # refuses members that would land outside the folder
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{path}: cannot be unpacked ({reason(error)}); fetch it again") from error
        unpacked = Path(folder) / archive.folder
        if not unpacked.is_dir():
            raise InputError(f"{path}: holds no {archive.folder}/; it is not the archive that {archive.url} is")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(unpacked, target)
    return target


def _download(archive: Archive, archives: Path) -> None:
    try:
        download_url(archive.url, archives, archive.file, archive.md5)
    except (OSError, RuntimeError) as error:
        raise MachineError(
            f"cannot download {archive.url} ({reason(error)}); fetch {archive.file} on a machine with a "
            f"network and put it into {archives}"
        ) from error
