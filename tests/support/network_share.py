"""Stand in for a file system without flock (Lustre, some of FUSE) or without fsync of folders (old CIFS)."""

import fcntl
import os
import stat

HOLDER = """
import fcntl, os, sys
def no_flock(descriptor, operation):
    raise OSError(int(sys.argv[1]), os.strerror(int(sys.argv[1])))
fcntl.flock = no_flock
from cityscapes.files.locks import lock_folder
with lock_folder(sys.argv[2]):
    print(flush=True)
    input()
"""
"""A process that holds the lock of a folder, its second argument, without flock."""


def without(monkeypatch, *, flock: int = 0, folder_fsync: int = 0) -> None:
    """Let flock, or fsync of a folder, fail with an error's number."""
    whole_fsync = os.fsync

    def no_flock(descriptor, operation):
        raise OSError(flock, os.strerror(flock))

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(folder_fsync, os.strerror(folder_fsync))
        return whole_fsync(descriptor)

    if flock:
        monkeypatch.setattr(fcntl, "flock", no_flock)
    if folder_fsync:
        monkeypatch.setattr(os, "fsync", fsync)
