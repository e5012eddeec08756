"""Files appear whole or not at all, and one process at a time writes to a folder."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cityscapes.errors import BusyError, MachineError
from cityscapes.files.atomic import check_writable, open_atomically, write_bytes, write_text
from cityscapes.files.locks import lock_folder


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_arrives_and_folders_are_made(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "ä\n")
    assert (tmp_path / "a/b/c.txt").read_bytes() == "ä\n".encode()
    assert listing(tmp_path / "a" / "b") == ["c.txt"]


@pytest.mark.parametrize("letter", ["a", "ä", "城", "🏙"])
def test_the_longest_name_that_a_disk_takes_can_be_written(tmp_path, letter):
    name = letter * (255 // len(letter.encode()))
    write_bytes(tmp_path / name, b"new")
    assert listing(tmp_path) == [name]


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(TypeError), open_atomically(tmp_path / "file") as file:
        file.writelines([b"half of the new", None])
    assert (tmp_path / "file").read_bytes() == b"old"
    assert listing(tmp_path) == ["file"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_refusing_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, failing, code):
    write_bytes(tmp_path / "file", b"old")

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, failing, refuse)
    with pytest.raises(MachineError, match="file: (no space left|no permission)"):
        write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert listing(tmp_path) == ["file"]


def test_a_full_disk_is_reported_with_what_is_needed_and_free(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1200))
    told = r"file: no space left to write it \(5,000 bytes are needed, 1,200 are free\); free some and run again$"
    with pytest.raises(MachineError, match=told):
        write_bytes(tmp_path / "file", bytes(5000))


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path):
    write_bytes(tmp_path / "file", b"")
    for path in (tmp_path / "file" / "inner", tmp_path / "file" / "below" / "inner"):
        with pytest.raises(MachineError, match=f"^{tmp_path}/file: a file is where a folder should be; move it away"):
            write_bytes(path, b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MachineError, match=f"^{tmp_path}/folder: a folder is where a file should be; move it away"):
        write_bytes(tmp_path / "folder", b"")
    with pytest.raises(MachineError, match="a file is where a folder should be"), lock_folder(tmp_path / "file"):
        pass


def test_a_folder_is_checked_without_a_trace(tmp_path):
    check_writable(tmp_path / "new")
    assert listing(tmp_path / "new") == []
    write_bytes(tmp_path / "file", b"")
    with pytest.raises(MachineError, match=f"^{tmp_path}/file: a file is where a folder should be; move it away"):
        check_writable(tmp_path / "file")
    for folder in ("/proc", "/proc/new", "/proc/new/newer"):
        with pytest.raises(MachineError, match=f"^{folder}.*: no file can be created in this folder"):
            check_writable(folder)
        with (
            pytest.raises(MachineError, match=f"^{folder}: no file can be created in this folder"),
            lock_folder(folder),
        ):
            pass


def test_a_full_disk_in_the_middle_of_a_file_leaves_the_old_one(tmp_path):
    code = """
import resource, signal, sys
from cityscapes.files.atomic import write_bytes
from cityscapes.errors import MachineError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_bytes(sys.argv[1], bytes(100_000))
except MachineError as error:
    print(error)
"""
    write_bytes(tmp_path / "file", b"old")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "file"], capture_output=True, text=True, check=True)
    assert "no space left" in done.stdout
    assert (tmp_path / "file").read_bytes() == b"old"
    assert listing(tmp_path) == ["file"]


def test_the_second_writer_is_refused_and_told_who_holds_the_folder(tmp_path):
    with (
        lock_folder(tmp_path / "out"),
        pytest.raises(BusyError, match=rf"process {os.getpid()} on .* is writing here"),
        lock_folder(tmp_path / "out"),
    ):
        pass
    with lock_folder(tmp_path / "out"):
        pass


def test_a_killed_holder_leaves_no_lock(tmp_path):
    imports = "import sys\nfrom cityscapes.files.locks import lock_folder"
    code = f"{imports}\nwith lock_folder(sys.argv[1]): print(flush=1), input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        with pytest.raises(BusyError, match=f"process {holder.pid} on"), lock_folder(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with lock_folder(tmp_path):
        pass
