"""Write files atomically, complete under their final name or not at all; nothing else in the suite writes files.

A file is written under a temporary name in its own folder, flushed to the disk and then renamed, so that no
reader meets half a file, after a crash or on a full disk either, and a previous file stays until the new one is
complete.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cityscapes.errors import MachineError
from cityscapes.files.leftovers import LEFTOVER, hold, remove_leftovers, unfinished

NO_FOLDER_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EBADF)
"""What file systems say that cannot wait for a folder (CIFS, some of FUSE); there is nothing to wait for, then."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)

_tidied: set[str] = set()


def check_writable(folder: str | Path) -> None:
    """Create `folder`, and a file in it for a moment; raises MachineError before work is done that cannot be kept."""
    with suppress(_Undone), open_atomically(Path(folder) / "check", durable=False):
        raise _Undone


class _Undone(Exception):
    """Leave a block, and no file."""


@contextmanager
def open_atomically(path: str | Path, *, durable: bool = True, needed: int | None = None) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes; folders are created, and the file appears under its name when the block succeeds.

    `durable` waits until it is on disk (fsync of the file and of its folder); turn it off for files that can be made
    again. What killed writers left in the folder is removed first: each time before a durable file, else once in a
    process. Raises MachineError when the disk is full, with the bytes `needed` if known, or not writable; a previous
    file then stays untouched.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _tidy(path.parent, always=durable)
        temporary, file = _create(path)
        with file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.replace(temporary, path)  # while the file is held, so that it never looks abandoned
        if durable:
            _fsync_folder(path.parent)
    except OSError as error:
        explain_refusal(error, path, needed)
        raise
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path` atomically."""
    with open_atomically(path, durable=durable, needed=len(content)) as file:
        file.write(content)


def write_text(path: str | Path, content: str, *, durable: bool = True) -> None:
    """Write `content` to `path` atomically, as UTF-8 with `\\n` line ends."""
    write_bytes(path, content.encode("utf-8"), durable=durable)


def _create(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        temporary = unfinished(path)
        file = open(temporary, "xb")  # noqa: SIM115 - the caller closes it
        if hold(file.fileno(), temporary):
            return temporary, file
        file.close()


def _tidy(folder: Path, *, always: bool) -> None:
    key = os.path.abspath(folder)
    if always or key not in _tidied:
        _tidied.add(key)
        remove_leftovers(folder, below=False)


def _space(error: OSError, path: Path, needed: int | None) -> str:
    """Explain how much space a file needs and how much is free; quotas and size limits have no figure."""
    if needed is None:
        return ""
    free = "a quota or size limit is lower"
    if error.errno == errno.ENOSPC:
        folder = next(folder for folder in path.absolute().parents if folder.is_dir())
        free = f"{shutil.disk_usage(folder).free:,} are free"
    return f" ({needed:,} bytes are needed, {free})"


def explain_refusal(error: OSError, path: Path, needed: int | None = None) -> None:
    """Raise MachineError for what a reader can fix; return for everything else."""
    if error.errno in NO_SPACE:
        space = _space(error, path, needed)
        raise MachineError(f"{path}: no space left to write it{space}; free some and run again") from error
    if error.errno in NO_PERMISSION:
        raise MachineError(
            f"{path}: no permission to write here; choose another folder or fix its permissions"
        ) from error
    refused = Path(error.filename or "")
    ours = LEFTOVER.fullmatch(refused.name) or path in (refused, refused.parent) or refused in path.parents
    if error.errno == errno.ENOENT and ours:
        raise MachineError(f"{path}: no file can be created in this folder; choose another one") from error
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        file = next((above for above in (path, *path.parents) if os.path.lexists(above) and not above.is_dir()), None)
        what = f"{file}: a file is where a folder should be" if file else f"{path}: a folder is where a file should be"
        raise MachineError(f"{what}; move it away, or choose another place") from error


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_FSYNC:
            raise
    finally:
        os.close(descriptor)
