"""What a killed writer left is removed by the next one; what a living writer is writing is not."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support.network_share import without

from cityscapes.files.atomic import open_atomically, write_bytes
from cityscapes.files.leftovers import hold, machine, remove_leftovers, temporary_folder

WRITER = """
import sys
from cityscapes.files.atomic import open_atomically
with open_atomically(sys.argv[1] + "/big.zip") as file:
    file.write(b"half")
    file.flush()
    print(flush=True)
    input()
"""
FOLDER = """
import sys
from pathlib import Path
from cityscapes.files.leftovers import temporary_folder
with temporary_folder("dlv3p-launch", Path(sys.argv[1])) as folder:
    (folder / "log").write_text("half")
    print(flush=True)
    input()
"""


def started(code: str, folder: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("durable", [True, False])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, number, durable):
    with started(WRITER, tmp_path) as writer:
        write_bytes(tmp_path / "other", b"")
        assert len(list(tmp_path.glob(".*.tmp"))) == 1, "a living writer's file was removed"
        writer.send_signal(number)
        writer.wait()
    if durable:
        write_bytes(tmp_path / "other", b"")
    else:
        code = "import sys; from cityscapes.files.atomic import *; write_bytes(sys.argv[1], b'', durable=False)"
        subprocess.run([sys.executable, "-c", code, tmp_path / "other"], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_folder_is_removed_by_the_next_and_a_living_one_is_not(tmp_path, number):
    with started(FOLDER, tmp_path) as writer:
        with temporary_folder("dlv3p-launch", tmp_path):
            assert len(list(tmp_path.iterdir())) == 2, "a living process's folder was removed"
        with temporary_folder("dlv3p-other", tmp_path):
            pass
        writer.send_signal(number)
        writer.wait()
    assert len(list(tmp_path.iterdir())) == 1
    with temporary_folder("dlv3p-launch", tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


def test_without_flock_the_process_id_tells_who_is_alive(tmp_path, monkeypatch):
    without(monkeypatch, flock=38)
    dead = tmp_path / f".a.{machine()}-999999999.00000000.tmp"
    alive = tmp_path / f".a.{machine()}-{os.getppid()}.00000000.tmp"
    afar = tmp_path / ".a.0badcafe-999999999.00000000.tmp"
    for path in (dead, alive, afar):
        path.touch()
    with open_atomically(tmp_path / "a"):
        write_bytes(tmp_path / "b", b"")
    assert {path.name for path in tmp_path.glob(".*")} == {alive.name, afar.name}


def test_another_machines_file_counts_as_left_after_a_day_or_under_the_lock(tmp_path):
    afar = tmp_path / ".a.0badcafe-999999999.00000000.tmp"
    afar.touch()
    write_bytes(tmp_path / "b", b"")
    assert afar.exists()
    os.utime(afar, (time.time() - 90_000,) * 2)
    write_bytes(tmp_path / "b", b"")
    assert not afar.exists()
    afar.touch()
    remove_leftovers(tmp_path, locked=True)
    assert not afar.exists()


def test_other_peoples_files_are_left_alone(tmp_path):
    others = [".swp.tmp", "a.tmp", ".a.123.tmp", "x.0badcafe-1.00000000.tmp", ".a.12345678.zzzzzzzz.tmp"]
    for name in others:
        (tmp_path / name).touch()
    write_bytes(tmp_path / "b", b"")
    remove_leftovers(tmp_path, locked=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "b"])


def test_a_link_among_the_leftovers_is_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    link = tmp_path / f".a.{machine()}-999999999.00000000.tmp"
    link.symlink_to(tmp_path / "kept")
    write_bytes(tmp_path / "b", b"")
    assert (tmp_path / "kept" / "file").exists()


def test_a_temporary_folder_is_private_and_in_the_systems_place():
    with temporary_folder("dlv3p-test") as folder:
        assert folder.parent == Path(tempfile.gettempdir())
        assert folder.stat().st_mode & 0o077 == 0


def test_a_folder_that_another_process_removes_before_it_is_held_is_made_again(tmp_path, monkeypatch):
    """Two papermills that start at once: one makes its folder while the other removes leftovers."""
    mkdir, made = Path.mkdir, []

    def make(folder, *rest):
        mkdir(folder, *rest)
        made.append(folder)
        if len(made) == 1:
            remove_leftovers(tmp_path, name="kernel", below=False)

    monkeypatch.setattr(Path, "mkdir", make)
    with temporary_folder("kernel", tmp_path) as folder:
        assert [one.exists() for one in made] == [False, True]
        assert folder == made[1]


def test_who_removes_a_leftover_holds_it_until_it_is_gone(tmp_path, monkeypatch):
    """Or who has just created it would hold it, and lose it afterwards."""
    folder = tmp_path / f"kernel.{machine()}-{os.getpid()}.01234567.tmp"
    folder.mkdir()
    held = []

    def remove(path, **options):
        descriptor = os.open(path, os.O_RDONLY)
        held.append(hold(descriptor, path))
        os.close(descriptor)

    monkeypatch.setattr("cityscapes.files.leftovers.shutil.rmtree", remove)
    remove_leftovers(tmp_path, name="kernel", below=False)
    assert held == [False]
