"""One process at a time writes to a folder, also where the file system has no locks, and cannot wait for folders."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.network_share import HOLDER, without

from cityscapes.errors import BusyError
from cityscapes.files import locks
from cityscapes.files.atomic import write_bytes
from cityscapes.files.locks import holder_of, lock_folder


@pytest.mark.parametrize("code", [22, 37, 38, 95])
def test_without_flock_one_process_at_a_time_writes(tmp_path, monkeypatch, code):
    without(monkeypatch, flock=code)
    with lock_folder(tmp_path):
        assert holder_of(tmp_path).startswith(f"process {os.getpid()} on ")
        told = rf"process {os.getpid()} on .* is writing here; .* has no locks"
        with pytest.raises(BusyError, match=told), lock_folder(tmp_path):
            pass
    assert holder_of(tmp_path) == ""
    with lock_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_without_flock_a_living_process_is_told_from_a_killed_one(tmp_path, monkeypatch):
    without(monkeypatch, flock=38)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "38", tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        with pytest.raises(BusyError, match=f"process {holder.pid} on"), lock_folder(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with lock_folder(tmp_path):
        assert len(list(tmp_path.glob(".lock.*"))) == 1
    assert not list(tmp_path.glob(".lock.*"))


def test_without_flock_another_machines_lock_is_respected_and_named(tmp_path, monkeypatch):
    without(monkeypatch, flock=38)
    claim = tmp_path / ".lock.0badcafe.999999999.00000000"
    claim.write_text("process 999999999 on node7 since 2026-01-01 00:00:00\n")
    with (
        pytest.raises(BusyError, match=rf"process 999999999 on node7 .*, delete {claim.name}\)"),
        lock_folder(tmp_path),
    ):
        pass
    assert claim.exists()


def test_without_flock_a_claim_of_an_earlier_process_with_this_number_is_dead(tmp_path, monkeypatch):
    from cityscapes.files.leftovers import machine

    without(monkeypatch, flock=38)
    dead = tmp_path / f".lock.{machine()}.{os.getpid()}.00000000"
    dead.write_text("an earlier container\n")
    with lock_folder(tmp_path):
        (claim,) = tmp_path.glob(".lock.*.*")
        assert claim.name != dead.name
    assert not dead.exists()


KILLED_WITH_A_WORKER = """
import os, sys, time
from cityscapes.files.locks import lock_folder

with lock_folder(sys.argv[1]):
    if os.fork():
        os.kill(os.getpid(), 9)
    time.sleep(float(sys.argv[2]))
"""


def test_the_last_worker_of_a_killed_process_is_waited_for(tmp_path):
    command = [sys.executable, "-c", KILLED_WITH_A_WORKER, tmp_path, "0.3"]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == -signal.SIGKILL
    assert holder_of(tmp_path)
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_worker_that_does_not_end_keeps_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "WORKERS_END", 0.1)
    command = [sys.executable, "-c", KILLED_WITH_A_WORKER, tmp_path, "3"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    with pytest.raises(BusyError, match="is writing here"), lock_folder(tmp_path):
        pass


@pytest.mark.parametrize("code", [22, 95])
def test_a_folder_that_cannot_be_waited_for_is_no_failure(tmp_path, monkeypatch, code):
    without(monkeypatch, folder_fsync=code)
    write_bytes(tmp_path / "file", b"new")
    assert Path(tmp_path / "file").read_bytes() == b"new"


def test_a_disk_that_fails_while_a_folder_is_waited_for_still_is_one(tmp_path, monkeypatch):
    without(monkeypatch, folder_fsync=5)
    with pytest.raises(OSError, match="Input/output error"):
        write_bytes(tmp_path / "file", b"new")
