"""Processes that train together are stopped, killed and resumed as one run is, and say what has ended them.

Rows T7 and T9 of the table in test_training_faults.py, for runs of more than one process. Each is tested twice: with
processes that are forked (see trainings.py), and, which takes longer, with those that a run starts itself.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from support.exactness import outcome, steps_of
from support.tiny import STEPS_PER_EPOCH, TINY, tiny

from cityscapes.errors import MachineError, TerminatedError
from cityscapes.files.locks import lock_folder
from cityscapes.workspace import run_folder
from dlv3p.runs.folders import checkpoint_path
from dlv3p.train import main, train
from dlv3p.training import launching
from dlv3p.weights.checkpoint import load_checkpoint

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


def asked(city, **changes):
    return {**TINY, "data_root": str(city), "run": "run", "processes": 2, "epochs": EPOCHS, **changes}


@pytest.fixture(scope="module")
def forked_undisturbed(trainings, city, tmp_path_factory):
    """How a run of two forked processes ends that is left alone."""
    workspace = tmp_path_factory.mktemp("undisturbed")
    status, log, _ = trainings.train(asked(city), workspace)
    assert status == 0, log
    return outcome(workspace / "saved" / "run")


AFTER_A_STEP = """
import os, signal, time
from dlv3p.training.checkpoints import Checkpoints
def act(run, rank): {act}
genuine = Checkpoints.after_step
def after_step(self, asked):
    genuine(self, asked)
    act(self, int(os.environ["RANK"]))
Checkpoints.after_step = after_step
"""
SECOND_IS_KILLED = "rank == 1 and run.progress.done == 2 and os.kill(os.getpid(), signal.SIGKILL)"
PARENT_IS_STOPPED = """
    if rank == 0 and run.progress.done == 4:
        os.kill(os.getppid(), signal.SIGTERM)
        while run.interruption.kind is None:  # until it is passed on
            time.sleep(0.001)
"""
PARENT_IS_KILLED = """
    (run.folder / f"process{rank}").write_text(str(os.getpid()))
    if rank == 0 and run.progress.done == 2:
        os.kill(os.getppid(), signal.SIGKILL)
"""


def test_t7_t9_two_forked_processes_that_are_killed_and_stopped_end_the_same(
    trainings, forked_undisturbed, city, workspace
):
    fault = AFTER_A_STEP.format(act=SECOND_IS_KILLED)
    status, log, _ = trainings.train(asked(city), workspace, fault=fault)
    told = r"process 1 of 2 was killed by SIGKILL, .* the last checkpoint is kept.*processes\.log"
    assert (status, bool(re.fullmatch(rf"error: .*{told}.*\n", log))) == (4, True), log
    assert str(run_folder("run") / launching.LOG) in log
    assert steps_of(checkpoint_path("run", "last")) == 2
    status, log, _ = trainings.train(asked(city), workspace, fault=AFTER_A_STEP.format(act=PARENT_IS_STOPPED))
    assert status == 143, log
    assert log == f"error: run='run': stopped after step 5 of {WHOLE}; run again to continue\n"
    assert steps_of(checkpoint_path("run", "last")) == 5
    status, log, _ = trainings.train(asked(city), workspace)
    result, *more = log.splitlines()
    assert (status, result[:14], more[:2]) == (0, "saved/run: bes", ["", "What to do next:"]), log
    assert {line.split(" ")[0] for line in more[2:]} == {"#", "papermill"}, log
    assert outcome(run_folder("run")) == forked_undisturbed


def test_t9_forked_processes_whose_parent_was_killed_save_and_leave(trainings, city, workspace):
    fault = AFTER_A_STEP.format(act=PARENT_IS_KILLED)
    status, log, _ = trainings.train(asked(city, epochs=1000), workspace, fault=fault)
    assert status == -signal.SIGKILL, log
    processes = [Path("/proc", (run_folder("run") / f"process{rank}").read_text()) for rank in range(2)]
    deadline = time.monotonic() + 60
    while any(process.exists() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [process for process in processes if process.exists()]
    for process in left:
        os.kill(int(process.name), signal.SIGKILL)
    assert left == []
    with lock_folder(run_folder("run")):
        assert steps_of(checkpoint_path("run", "last")) >= 2


def kill_second():
    os.kill(processes_of(os.getpid())[1], signal.SIGKILL)


@pytest.mark.slow
def test_t7_t9_two_processes_that_are_killed_and_stopped_end_the_same(city, workspace, undisturbed, capsys):
    told = r"process 1 of 2 was killed by SIGKILL, .* the last checkpoint is kept.*processes\.log"
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
    assert str(caught.value) == f"run='run': stopped after step {stopped_after} of {WHOLE}; run again to continue"
    assert caught.value.exit_status == 143
    assert killed_after < stopped_after < WHOLE
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    (workspace / "run.yaml").write_text(yaml.safe_dump(pair(city).as_dict()))
    capsys.readouterr()
    assert main(["--config", str(workspace / "run.yaml")]) == 0
    assert outcome(run_folder("run")) == undisturbed
    said = capsys.readouterr().out
    assert said.count("What to do next:") == 1
    assert said.startswith("saved/run: bes")


@pytest.mark.slow
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
    from dlv3p.training import validation
    genuine = validation.validate
    def validate(*words, after_each, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return genuine(*words, after_each=after_each, **options)
    validation.validate = validate
"""


def test_t7_two_forked_processes_stop_together_while_they_score_an_epoch(trainings, city, workspace):
    parameters = asked(city, checkpoint_minutes=10.0)
    status, log, _ = trainings.train(parameters, workspace, fault=STOPPED_WHILE_SCORED)
    assert (status, f"stopped after step {STEPS_PER_EPOCH} of {WHOLE}" in log) == (143, True), log
    saved = load_checkpoint(checkpoint_path("run", "last"))
    assert (saved["epoch"], saved["step"]) == (0, STEPS_PER_EPOCH)


@pytest.mark.slow
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


def test_a_mistake_of_ours_is_told_with_its_forked_process_and_not_with_the_connections_that_it_broke(
    trainings, city, workspace
):
    status, told, _ = trainings.train(asked(city), workspace, fault=MISTAKE)
    assert (status, told.count("\n")) == (4, 1), told
    assert re.search(r"process 1 of 2 failed with KeyError: 'logits'", told)
    log = run_folder("run") / launching.LOG
    assert str(log) in told
    assert "KeyError: 'logits'" in log.read_text()


@pytest.mark.slow
def test_a_mistake_of_ours_is_told_with_its_process_and_not_with_the_connections_that_it_broke(
    city, workspace, monkeypatch
):
    (workspace / "sitecustomize.py").write_text(MISTAKE)
    monkeypatch.setenv("PYTHONPATH", str(workspace))
    with pytest.raises(MachineError, match=r"process 1 of 2 failed with KeyError: 'logits'") as caught:
        train(pair(city))
    log = run_folder("run") / launching.LOG
    assert str(log) in str(caught.value)
    assert "KeyError: 'logits'" in log.read_text()
    assert "\n" not in str(caught.value)
