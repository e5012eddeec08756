"""Write files atomically, complete under their final name or not at all; nothing else in the suite writes files.

A file is written under a temporary name in its own folder, flushed to the disk and then renamed, so that no
reader meets half a file, after a crash or on a full disk either, and a previous file stays until the new one is
complete. The hash of a file, by which it is checked before it is trusted, is computed here, too.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cityscapes.errors import BusyError, MachineError

LEFTOVER = re.compile(r"\..*\.(?P<process>\d{1,9})\.[0-9a-f]{8}\.tmp", re.DOTALL)
"""Name of a file that is being written, or was when its writer was killed."""


@contextmanager
def open_atomically(path: str | Path, *, durable: bool = True, needed: int | None = None) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes; folders are created, and the file appears under its name when the block succeeds.

    `durable` waits until it is on disk (fsync of the file and of its folder); turn it off for files that can be made
    again. Raises MachineError when the disk is full, with the bytes `needed` if known, or not writable; a previous file
    then stays untouched.
    """
    path = Path(path)
    # The end of the name is kept, to recognize it; fifty characters fit even where each takes four bytes.
    temporary = path.with_name(f".{path.name[-50:]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            _fsync_folder(path.parent)
    except OSError as error:
        _explain(error, path, needed)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path` atomically."""
    with open_atomically(path, durable=durable, needed=len(content)) as file:
        file.write(content)


def write_text(path: str | Path, content: str, *, durable: bool = True) -> None:
    """Write `content` to `path` atomically, as UTF-8 with `\\n` line ends."""
    write_bytes(path, content.encode("utf-8"), durable=durable)


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Create `folder` and lock it for this process until the block or the process ends, however it ends.

    Raises BusyError, at once, when another process or thread holds it. The lock file `.lock` remains; only the
    operating system's lock on it counts, so there is nothing to clean up after a crash.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        _explain(error, folder)
        raise
    with open(descriptor, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = file.read(200).strip() or "another process"
            raise BusyError(f"{folder}: {holder} is writing here; wait for it, or choose another folder") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        yield


def remove_leftovers(folder: str | Path) -> None:
    """Remove the unfinished files of killed writers in `folder` and below; the caller holds its lock."""
    for path in Path(folder).rglob(".*.tmp"):
        named = LEFTOVER.fullmatch(path.name)
        if named and not _is_another_process(int(named["process"])):
            with suppress(OSError):
                path.unlink()


def _is_another_process(number: int) -> bool:
    """Return whether another process has this number; in containers, the next one often gets the same."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it exists, but belongs to another user
        return True
    return number != os.getpid()


def _space(error: OSError, path: Path, needed: int | None) -> str:
    """Explain how much space a file needs and how much is free; quotas and size limits have no figure."""
    if needed is None:
        return ""
    free = "a limit is lower"
    if error.errno == errno.ENOSPC:
        folder = next(folder for folder in path.absolute().parents if folder.is_dir())
        free = f"{shutil.disk_usage(folder).free:,} are free"
    return f" ({needed:,} bytes are needed, {free})"


def _explain(error: OSError, path: Path, needed: int | None = None) -> None:
    """Raise MachineError for what a reader can fix; return for everything else."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        space = _space(error, path, needed)
        raise MachineError(f"{path}: no space left to write it{space}; free some and run again") from error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise MachineError(
            f"{path}: no permission to write here; choose another folder or fix its permissions"
        ) from error
    if error.errno == errno.ENOENT and LEFTOVER.fullmatch(Path(error.filename or "").name):
        raise MachineError(f"{path}: no file can be created in this folder; choose another one") from error
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        raise MachineError(f"{path}: a file is where a folder should be, or a folder where a file should be") from error


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal; read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
