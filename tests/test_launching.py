"""Processes that train together are stopped, killed and resumed as one run is, and say what has ended them.

Rows T7 and T9 of the table in test_training_faults.py, for runs of more than one process.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from exactness import STEPS_PER_EPOCH, outcome, steps_of, tiny

from cityscapes.atomic import lock_folder
from cityscapes.errors import MachineError, TerminatedError
from cityscapes.workspace import run_folder
from dlv3p.checkpoint import load_checkpoint
from dlv3p.runs import checkpoint_path
from dlv3p.train import main, train
from dlv3p.training import launching

pytest.importorskip("timm", reason="the small backbone of these tests is one of timm's")

EPOCHS = 5
WHOLE = EPOCHS * STEPS_PER_EPOCH


def pair(city, **changes):
    return tiny(city, **{"run": "run", "processes": 2, "epochs": EPOCHS, **changes})


def processes_of(parent):
    """The numbers of the processes that train for a parent, by their rank."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    ranks = {}
    for number in found.stdout.split():
        with suppress(OSError):  # ps itself is gone by now
            words = Path(f"/proc/{number}/environ").read_bytes().decode().split("\0")
            ranks |= {int(word[5:]): int(number) for word in words if word.startswith("RANK=")}
    return ranks


@contextmanager
def once_saved(steps, act):
    """Call `act`, from a thread, as soon as a checkpoint of the run has so many steps behind it."""
    ended = threading.Event()

    def watch():
        path = checkpoint_path("run", "last").with_name("last.pt.json")
        while not ended.wait(0.01):
            try:
                told = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if told["epoch"] * STEPS_PER_EPOCH + told["step"] >= steps:
                return act()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def undisturbed(city, tmp_path_factory):
    """How a run of two processes ends that is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(tmp_path_factory.mktemp("undisturbed")))
        return outcome(train(pair(city)).folder)


def kill_second():
    os.kill(processes_of(os.getpid())[1], signal.SIGKILL)


def test_t7_t9_two_processes_that_are_killed_and_stopped_end_the_same(city, workspace, undisturbed, capsys):
    told = r"process 1 of the 2 that train together was ended by SIGKILL, .* the last checkpoint stays.*processes\.log"
    with once_saved(1, kill_second), pytest.raises(MachineError, match=told) as caught:
        train(pair(city))
    assert caught.value.exit_status == 4
    log = run_folder("run") / launching.LOG
    assert str(log) in str(caught.value)
    killed_after = steps_of(checkpoint_path("run", "last"))
    with (
        once_saved(killed_after + 1, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        pytest.raises(TerminatedError) as caught,
    ):
        train(pair(city))
    stopped_after = steps_of(checkpoint_path("run", "last"))
    assert str(caught.value) == f"run='run': stopped after step {stopped_after} of {WHOLE}; run again to go on"
    assert caught.value.exit_status == 143
    assert killed_after < stopped_after < WHOLE
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    (workspace / "run.yaml").write_text(yaml.safe_dump(pair(city).as_dict()))
    capsys.readouterr()
    assert main(["--config", str(workspace / "run.yaml")]) == 0
    assert outcome(run_folder("run")) == undisturbed
    assert [line[:14] for line in capsys.readouterr().out.splitlines()] == ["saved/run: bes"]


def test_t9_processes_whose_parent_was_killed_save_and_leave(city, workspace):
    (workspace / "run.json").write_text(json.dumps(pair(city, epochs=1000).as_dict()))
    command = [sys.executable, "-m", "dlv3p.train", "--config", str(workspace / "run.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as parent:
        while not checkpoint_path("run", "last").exists():
            assert parent.poll() is None, parent.stdout.read()
            time.sleep(0.02)
        processes = processes_of(parent.pid).values()
        parent.kill()
    assert len(processes) == 2
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{process}").exists() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [process for process in processes if Path(f"/proc/{process}").exists()]
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert left == []
    with lock_folder(run_folder("run")):
        assert steps_of(checkpoint_path("run", "last")) >= 1


STOPPED_WHILE_SCORED = """
import os
if os.environ.get("RANK") == "1":
    import signal
    from dlv3p.training import run
    genuine = run.validate
    def validate(*words, after_each, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return genuine(*words, after_each=after_each, **options)
    run.validate = validate
"""


def test_t7_two_processes_stop_together_while_they_score_an_epoch(city, workspace, monkeypatch):
    (workspace / "sitecustomize.py").write_text(STOPPED_WHILE_SCORED)
    monkeypatch.setenv("PYTHONPATH", str(workspace))
    with pytest.raises(TerminatedError, match=f"stopped after step {STEPS_PER_EPOCH} of {WHOLE}"):
        train(pair(city, checkpoint_minutes=10.0))  # of three images, the first process has two, the second one
    saved = load_checkpoint(checkpoint_path("run", "last"))
    assert (saved["epoch"], saved["step"]) == (0, STEPS_PER_EPOCH)


MISTAKE = """
import os
if os.environ.get("RANK") == "1":
    from dlv3p.training import step
    def make_loss(*arguments, **options):
        raise KeyError("logits")
    step.make_loss = make_loss
"""


def test_a_mistake_of_ours_is_told_with_its_process_and_not_with_the_connections_that_it_broke(
    city, workspace, monkeypatch
):
    (workspace / "sitecustomize.py").write_text(MISTAKE)
    monkeypatch.setenv("PYTHONPATH", str(workspace))
    with pytest.raises(MachineError, match=r"process 1 of the 2 .* ended with KeyError: 'logits'") as caught:
        train(pair(city))
    log = run_folder("run") / launching.LOG
    assert str(log) in str(caught.value)
    assert "KeyError: 'logits'" in log.read_text()
    assert "\n" not in str(caught.value)
