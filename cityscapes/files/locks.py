"""Lock a folder for one writer, by a lock that ends with its process, however that ends.

The lock is the operating system's (flock), on the file `.lock`. Where a file system has none (Lustre without
`-o flock`, some of FUSE), a file `.lock.<machine>.<process>.<token>` is the lock: each writer creates its own, and then
gives way to any other whose process may be running. Of two that start at the same moment both may give way, but never
do both write.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from cityscapes.errors import BusyError, MachineError
from cityscapes.files.atomic import explain_refusal
from cityscapes.files.leftovers import is_running, machine
from cityscapes.files.untrusted import regular

LOCK = ".lock"
"""The file that is locked; it remains, and names the last holder."""

CLAIM = re.compile(r"\.lock\.(?P<machine>[0-9a-f]{8})\.(?P<process>\d{1,9})\.(?P<token>[0-9a-f]{8})")
"""Name of a file that is a lock where there is no flock."""

HOLDER = re.compile(r"process (?P<process>\d{1,9}) on (?P<host>\S+) since ")
"""What the lock file says of its holder."""

WORKERS_END = 15.0
"""Seconds within which the workers of a killed process end; they inherit its lock."""

NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK)
"""What file systems without flock say."""

_ours: set[str] = set()
"""The claims of this process; any other with its number is a dead process's."""


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Create `folder` and lock it for this process until the block or the process ends, however it ends.

    Raises BusyError, at once, when another process or thread holds it; a process that was killed may leave workers
    that hold it a little longer, which are waited for. The lock file `.lock` remains; only the operating system's lock
    on it counts, so there is nothing to clean up after a crash. A folder that was created here is removed again where
    the block fails and has left nothing in it.
    """
    folder = Path(folder)
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(regular(folder / LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        explain_refusal(error, folder)
        raise
    with open(descriptor, "r+", encoding="utf-8") as file:
        claim = None
        try:
            _lock(file, folder)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise MachineError(
                    f"{folder}: cannot be locked ({error.strerror}); choose a folder on another disk"
                ) from error
            claim = _claim(folder)
        try:
            _sign(file, folder)
            if not _is_there(file, folder):
                raise BusyError(f"{folder}: another process has just removed it; run again")
            yield
        except BaseException:
            if new and [path.name for path in folder.glob("*") if path != claim] == [LOCK] and _is_there(file, folder):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            if claim:
                claim.unlink(missing_ok=True)
                _ours.discard(claim.name)


def _lock(file: TextIO, folder: Path) -> None:
    """Take the operating system's lock; raises BusyError where another holds it, and OSError where there is none."""
    deadline = time.monotonic() + WORKERS_END
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            if not _has_ended(holder) or time.monotonic() > deadline:
                raise BusyError(f"{folder}: {holder} is writing here; wait for it, or choose another folder") from error
        time.sleep(0.05)


def _sign(file: TextIO, folder: Path) -> None:
    try:
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), f"{_me()}\n".encode(), 0)  # past the buffer, whose rest would fail again at the end
    except OSError as error:
        explain_refusal(error, folder / LOCK)
        raise


def _is_there(file: TextIO, folder: Path) -> bool:
    """Return whether what was locked still is the folder's lock file, and not that of a folder that was removed."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK))
    return False


def _has_ended(holder: str) -> bool:
    """Return whether a holder, named as by `_me`, was a process of this machine that runs no more."""
    named = HOLDER.match(holder)
    return bool(named) and named["host"] == socket.gethostname() and not is_running(int(named["process"]))


def is_lock(name: str) -> bool:
    """Return whether a file of this name is a lock, which may lie in any folder that is written to."""
    return name == LOCK or CLAIM.fullmatch(name) is not None


def holder_of(folder: Path) -> str:
    """Return who has locked `folder`, "" for nobody; nothing is changed."""
    try:
        with open(regular(folder / LOCK), encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(200).strip() or "another process"
            except OSError:  # no such locks here
                return next((_text(path) for path in _claims(folder) if not _is_dead(path)), "")
    except FileNotFoundError:
        pass
    return ""


def _claim(folder: Path) -> Path:
    """Create this process's claim; raises BusyError, without one, where another's may be alive."""
    mine = folder / f"{LOCK}.{machine()}.{os.getpid()}.{secrets.token_hex(4)}"
    _ours.add(mine.name)
    try:
        mine.write_text(f"{_me()}\n", encoding="utf-8")
        for other in _claims(folder):
            if other == mine:
                continue
            if not _is_dead(other):
                raise BusyError(
                    f"{folder}: {_text(other)} is writing here; wait for it, or choose another folder "
                    f"(this file system has no locks: if that process no longer runs, delete {other.name})"
                )
            other.unlink(missing_ok=True)
    except BaseException as error:
        _ours.discard(mine.name)
        mine.unlink(missing_ok=True)
        if isinstance(error, OSError):
            explain_refusal(error, folder)
        raise
    return mine


def _claims(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob(f"{LOCK}.*")) if CLAIM.fullmatch(path.name)]


def _is_dead(claim: Path) -> bool:
    """Return whether a claim's process has certainly ended; nothing is certain about another machine's."""
    named = CLAIM.fullmatch(claim.name)
    process = int(named["process"])
    if named["machine"] != machine() or claim.name in _ours:
        return False
    return process == os.getpid() or not is_running(process)


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")[:200].strip() or "another process"
    return "another process"


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
