"""Name and hold what a writer has not finished, a file or a folder, and remove what a killed writer left of it.

The writer holds a lock (flock) on what it writes, which ends with its process however that ends, so that nobody takes
a living writer's for a dead one's. Where a file system has no such locks, the name says which process on which machine
was writing.
"""

import fcntl
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFTOVER = re.compile(r".+\.(?:(?P<machine>[0-9a-f]{8})-)?(?P<process>\d{1,9})\.[0-9a-f]{8}\.tmp", re.DOTALL)
"""Name of what is being written, or was when its writer was killed; earlier versions did not name the machine."""

PATIENCE = 24 * 3600
"""Seconds without a change after which another machine's leftover counts as one: not all locks are seen from afar."""


def unfinished(path: Path) -> Path:
    """Return a new name beside `path` to write it under."""
    # The end of the name is kept, to recognize it; fifty characters fit even where each takes four bytes.
    return path.with_name(f".{path.name[-50:]}.{machine()}-{os.getpid()}.{secrets.token_hex(4)}.tmp")


def hold(descriptor: int, path: Path) -> bool:
    """Lock what was created as `path` until it is closed; return whether it is there, and not taken for a leftover."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        pass
    return path.exists()


@contextmanager
def temporary_folder(name: str, parent: Path | None = None) -> Iterator[Path]:
    """Create a folder, by default in the system's for temporary files, and remove it when the block ends.

    Those that killed processes left under the same name are removed first.
    """
    parent = Path(parent or tempfile.gettempdir())
    remove_leftovers(parent, name=name, below=False)
    while True:
        folder = parent / f"{name}.{machine()}-{os.getpid()}.{secrets.token_hex(4)}.tmp"
        folder.mkdir(0o700)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # another process took it for a leftover, as nobody held it yet
            continue
        if hold(descriptor, folder):
            break
        os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def remove_leftovers(folder: Path, *, name: str = "", below: bool = True, locked: bool = False) -> None:
    """Remove what killed writers left in `folder`, also further `below`, of names that begin with `name`.

    `locked` says that the caller holds the folder's lock: then no other machine writes there.
    """
    for path in _candidates(folder, below=below):
        named = LEFTOVER.fullmatch(path.name)
        if not (named and path.name.startswith(name or ".")):
            continue
        with _held_if_abandoned(path, named, locked=locked) as abandoned:
            if abandoned and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif abandoned:
                with suppress(OSError):
                    path.unlink()


def remove_others(paths: Iterable[Path], pattern: str) -> None:
    """Remove the files beside `paths` that match a pattern and are not among them: an earlier call made more of them.

    Where there are no paths, nothing is removed.
    """
    kept = set(paths)
    for path in [other for folder in {path.parent for path in kept} for other in folder.glob(pattern)]:
        if path not in kept:
            with suppress(OSError):
                path.unlink()


def machine() -> str:
    """Return eight digits that stand for this machine, or for this container with process numbers of its own."""
    name = socket.gethostname()
    with suppress(OSError):
        name += f" {os.stat('/proc/self/ns/pid').st_ino}"
    return f"{zlib.crc32(name.encode()):08x}"


def is_running(process: int) -> bool:
    """Return whether a process of this machine has this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it exists, but belongs to another user
        return True
    return True


def _candidates(folder: Path, *, below: bool) -> list[Path]:
    if below:
        return list(Path(folder).rglob("*.tmp"))
    with suppress(OSError):
        return [Path(folder, name) for name in os.listdir(folder) if name.endswith(".tmp")]
    return []


@contextmanager
def _held_if_abandoned(path: Path, named: re.Match[str], *, locked: bool) -> Iterator[bool]:
    """Yield whether nobody writes `path`, and hold it if so: who has just created it takes another name instead."""
    process, ours = int(named["process"]), named["machine"] in (None, machine())
    if named["machine"] is None:  # an earlier version held no lock; in containers, numbers of processes come again
        yield process == os.getpid() or not is_running(process)
        return
    try:
        if not ours and not locked and time.time() - path.lstat().st_mtime < PATIENCE:
            yield False
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        abandoned = True
    except BlockingIOError:
        abandoned = False
    except OSError:  # no locks here, so another thread of this process may be writing
        abandoned = ours and not is_running(process)
    try:
        yield abandoned
    finally:
        os.close(descriptor)
