"""What run.json says a run was made from: the command that a person typed, and code that differs from its commit."""

import json
import subprocess
import sys

import pytest

from dlv3p.parameters.training import TrainParameters
from dlv3p.runs import provenance
from dlv3p.runtime.processes import Place
from dlv3p.training import recording

KERNEL = ["/opt/site-packages/ipykernel_launcher.py", "-f", "/home/me/kernel-1.json"]


@pytest.fixture
def kernel(monkeypatch):
    """Pretend to be a kernel that a server has started for no notebook."""
    monkeypatch.setattr(sys, "argv", KERNEL)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


def test_a_command_is_recorded_as_typed_but_for_folders(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/me/dlv3p/train.py", "--config", "/home/me/run.json", "-p", "seed", "1"])
    assert provenance.command() == ["train.py", "--config", "run.json", "-p", "seed", "1"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("server", "told"),
    [
        ("papermill", ["papermill", "train.ipynb", "-p", "run", "a"]),
        ("jupyter-lab", ["interactive kernel"]),  # its words may hold a token
    ],
)
def test_in_a_kernel_of_papermill_the_command_is_papermills(kernel, tmp_path, monkeypatch, server, told):
    (tmp_path / server).write_text("print(flush=True); input()")
    words = [sys.executable, tmp_path / server, tmp_path / "train.ipynb", "-p", "run", "a"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        monkeypatch.setattr(provenance.os, "getppid", lambda: process.pid)
        assert provenance.command() == told
        process.kill()


def test_in_a_kernel_of_jupyterlab_the_notebook_is_named(kernel, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/notebooks/train.ipynb")
    assert provenance.command() == ["interactive kernel", "train.ipynb"]


def test_a_process_of_a_group_records_the_command_that_started_the_group(monkeypatch):
    monkeypatch.setenv(provenance.COMMAND, json.dumps(["papermill", "train.ipynb"]))
    assert provenance.command() == ["papermill", "train.ipynb"]


def test_the_processes_on_record_are_those_that_there_are(monkeypatch):
    monkeypatch.setattr(recording, "place", lambda: Place(0, 2, 0))
    assert recording._environment(TrainParameters(processes=1))["determinism"]["processes"] == 2


def test_a_module_that_git_does_not_know_is_a_change(tmp_path, monkeypatch):
    def git(*words):
        identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / ".gitignore").write_text("saved\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    (tmp_path / "saved").write_text("ignored")
    found = provenance._git()
    assert (found["changed"], found["diff_sha256"]) == (False, None)
    hashes = set()
    for content in ("one", "two"):
        (tmp_path / "new é.py").write_text(content)
        found = provenance._git()
        assert found["changed"]
        hashes.add(found["diff_sha256"])
    assert len(hashes) == 2
