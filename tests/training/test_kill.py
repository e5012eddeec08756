"""Runs that are stopped, killed or refused by the machine end, once they go on, as if nothing had happened.

Each test injects faults into processes of its own (see trainings.py), and compares weights, optimizer and metrics with
those of a run that was left alone. The rows are those of the table in test_training_faults.py.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from support.exactness import leftovers, outcome, steps_of
from support.tiny import EPOCHS, STEPS_PER_EPOCH, TINY, tiny
from support.trainings import MOMENTS_PER_WRITE

from cityscapes.errors import BusyError
from dlv3p.train import train

ROOT = Path(__file__).parents[2]
WHOLE = EPOCHS * STEPS_PER_EPOCH
RECORD = MOMENTS_PER_WRITE  # run.json comes first
SAVE = 2 * MOMENTS_PER_WRITE  # a checkpoint comes second, its sha256 before itself
STOPPED = {signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def undisturbed(trainings, city, tmp_path_factory):
    """How a run ends that is left alone; how many moments it has, and how many seconds it takes."""
    workspace, began = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    status, log, moments = trainings.train(asked(city), workspace)
    assert status == 0, log
    return outcome(workspace / "saved" / "run"), moments, time.monotonic() - began


def asked(city: Path, **changes: object) -> dict[str, object]:
    return {**TINY, "data_root": str(city), "run": "run", **changes}


def last(workspace: Path, run: str = "run") -> Path:
    return workspace / "saved" / run / "checkpoints" / "last.pt"


def test_two_runs_are_equal_whatever_the_cadence_of_checkpoints(trainings, undisturbed, city, workspace):
    status, log, moments = trainings.train(asked(city, checkpoint_minutes=10.0, workers=1), workspace)
    assert status == 0, log
    assert moments == undisturbed[1] - WHOLE * SAVE
    assert outcome(workspace / "saved" / "run") == undisturbed[0]


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGUSR1, 0), (signal.SIGINT, 1)], ids=["TERM", "USR1", "INT"]
)
def test_t7_t8_a_signal_at_any_moment_saves_the_step_and_says_so(
    trainings, undisturbed, city, workspace, number, workers
):
    moment = int(np.random.default_rng([number, workers]).integers(RECORD, undisturbed[1] // 2))
    status, log, _ = trainings.train(asked(city, workers=workers), workspace, signals=(number,), moment=moment)
    assert status == STOPPED[number], log
    step = steps_of(last(workspace))
    assert log == f"error: run='run': stopped after step {step} of {WHOLE}; run again to continue\n"
    assert not leftovers(workspace)
    status, log, _ = trainings.train(asked(city, workers=1 - workers), workspace)
    assert status == 0, log
    assert outcome(workspace / "saved" / "run") == undisturbed[0]


@pytest.mark.slow
def test_t7_the_command_itself_saves_when_it_is_told_to_end(trainings, city, workspace):
    """A real `python -m dlv3p.train`, and a signal whenever its first checkpoint is seen."""
    longer = asked(city, epochs=12)
    for run in ("alone", "run"):
        (workspace / f"{run}.json").write_text(json.dumps({**longer, "run": run}))
    status, log, _ = trainings.train({**longer, "run": "alone"}, workspace)
    assert status == 0, log
    command = [sys.executable, "-m", "dlv3p.train", "--config", str(workspace / "run.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while not last(workspace).exists():
            with suppress(subprocess.TimeoutExpired):
                pytest.fail(f"ended with status {process.wait(timeout=0.02)}")
        process.send_signal(signal.SIGTERM)
        told = process.stdout.read()
    assert process.returncode == 143, told
    step = steps_of(last(workspace))
    assert told == f"error: run='run': stopped after step {step} of {12 * STEPS_PER_EPOCH}; run again to continue\n"
    status, log, _ = trainings.train(longer, workspace)
    assert status == 0, log
    assert outcome(workspace / "saved" / "run") == outcome(workspace / "saved" / "alone")


def test_t8_a_second_interrupt_does_not_wait_for_the_checkpoint(trainings, undisturbed, city, workspace):
    in_second_save = RECORD + SAVE + MOMENTS_PER_WRITE  # when half of the checkpoint is there
    interrupts = (signal.SIGINT, signal.SIGINT)
    status, log, _ = trainings.train(asked(city, workers=1), workspace, signals=interrupts, moment=in_second_save)
    assert (status, log) == (130, "interrupted\n")
    assert steps_of(last(workspace)) == 1
    assert not leftovers(workspace)
    status, log, _ = trainings.train(asked(city), workspace)
    assert status == 0, log
    assert outcome(workspace / "saved" / "run") == undisturbed[0]


@pytest.mark.slow
def test_t9_a_notebook_whose_kernel_was_killed_goes_on_when_it_is_run_again(trainings, city, workspace):
    longer = asked(city, epochs=8, workers=1)
    del longer["checkpoint_minutes"]
    status, log, _ = trainings.train({**longer, "run": "alone"}, workspace)
    assert status == 0, log
    words = [word for name, value in longer.items() for word in ("-p", name, str(value))]
    command = [
        Path(sys.executable).with_name("papermill"),
        ROOT / "notebooks" / "train.ipynb",
        workspace / "copy.ipynb",
    ]
    with subprocess.Popen(
        [*command, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while not last(workspace).exists():
            with suppress(subprocess.TimeoutExpired):
                pytest.fail(f"ended with status {process.wait(timeout=0.02)}: {process.stdout.read()}")
        kernel = (workspace / "saved" / "run" / ".lock").read_text().split()[1]
        os.kill(int(kernel), signal.SIGKILL)
        told = process.stdout.read()
    assert "the kernel died in cell" in told
    subprocess.run([*command, *words], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=600)
    (entry,) = json.loads((workspace / "saved" / "run" / "run.json").read_text())["continued"]
    assert entry["after_steps"] >= STEPS_PER_EPOCH
    assert outcome(workspace / "saved" / "run") == outcome(workspace / "saved" / "alone")


@pytest.mark.parametrize("written", [pytest.param("its sha256", marks=pytest.mark.slow), "the checkpoint"])
def test_t9_killed_at_every_moment_of_a_save_it_ends_the_same(trainings, undisturbed, city, workspace, written):
    status, log, _ = trainings.train(asked(city), workspace, signals=(signal.SIGTERM,), moment=RECORD)
    assert status == 143, log
    first = RECORD + (written == "the checkpoint") * MOMENTS_PER_WRITE
    for moment in [*range(first, first + MOMENTS_PER_WRITE), None]:
        status, log, _ = trainings.train(asked(city), workspace, signals=(signal.SIGKILL,), moment=moment)
        assert status == (0 if moment is None else -signal.SIGKILL), log
        assert "warning" not in log  # the last checkpoint is always good
    assert outcome(workspace / "saved" / "run") == undisturbed[0]
    assert not leftovers(workspace)


def kill(trainings, undisturbed, city, workspace, *, kills: int, seed: int) -> int:
    """Kill runs at random moments of their writes and at random times, until `kills` have hit; return how many ended.

    The number of workers changes from start to start.
    """
    expected, moments, seconds = undisturbed
    rng, hit, ended = np.random.default_rng(seed), 0, 0
    while True:
        when = {"moment": int(rng.integers(moments))} if rng.random() < 0.5 else {"seconds": rng.uniform(0, seconds)}
        parameters = asked(city, run=f"run{ended}", workers=int(rng.integers(3)))
        disturbed = {"signals": (signal.SIGKILL,), **when} if hit < kills else {}
        status, log, _ = trainings.train(parameters, workspace, **disturbed)
        assert status in (0, -signal.SIGKILL), log
        assert "warning" not in log  # the last checkpoint is always good
        hit += status != 0
        if status == 0:
            assert outcome(workspace / "saved" / f"run{ended}") == expected, (ended, hit)
            assert not leftovers(workspace)
            ended += 1
            if hit >= kills:
                return ended


@pytest.mark.slow
def test_t9_killed_10_times_at_random_it_ends_the_same(trainings, undisturbed, city, workspace):
    assert kill(trainings, undisturbed, city, workspace, kills=10, seed=0) >= 1


@pytest.mark.slow
def test_t9_killed_100_times_at_random_it_ends_the_same(trainings, undisturbed, city, workspace):
    assert kill(trainings, undisturbed, city, workspace, kills=100, seed=1) >= 1


def test_t10_a_full_disk_leaves_the_previous_checkpoint(trainings, undisturbed, city, workspace):
    one_step = RECORD + SAVE
    status, log, _ = trainings.train(asked(city), workspace, signals=(signal.SIGTERM,), moment=one_step - 1)
    assert status == 143, log
    before = last(workspace).read_bytes()
    status, log, _ = trainings.train(asked(city), workspace, largest_file=1_000_000)
    assert status == 4
    figures = r"([\d,]+) bytes are needed, a quota or size limit is lower"
    told = rf"error: {last(workspace)}: no space left to write it \({figures}\); free some and run again\n"
    assert 1_000_000 < int(re.fullmatch(told, log)[1].replace(",", "")) < 10_000_000
    assert last(workspace).read_bytes() == before
    assert steps_of(last(workspace)) >= 1
    assert not leftovers(workspace)
    status, log, _ = trainings.train(asked(city), workspace)
    assert status == 0, log
    assert outcome(workspace / "saved" / "run") == undisturbed[0]


@pytest.mark.parametrize("folder", ["saved", "saved/run"])
def test_t12_a_folder_that_may_not_be_written_to_is_told_before_the_first_step(trainings, city, workspace, folder):
    (workspace / "saved" / "run").mkdir(parents=True)
    if folder == "saved":
        (workspace / "saved" / "run").rmdir()
    (workspace / folder).chmod(0o555)
    status, log, moments = trainings.train(asked(city, class_weights="none"), workspace, powerless=True)
    (workspace / folder).chmod(0o755)
    assert (status, moments) == (4, 0), log
    run = workspace / "saved" / "run"
    assert log == f"error: {run}: no permission to write here; choose another folder or fix its permissions\n"


def test_t12_a_folder_of_a_run_that_became_read_only_is_told_before_the_next_step(trainings, city, workspace):
    train(tiny(city, run="run", epochs=1))
    for path in (last(workspace), last(workspace).with_name("best.pt")):
        path.unlink()
    (workspace / "saved" / "run" / "model.safetensors").unlink()
    for name in ("metrics.csv", "metrics.csv.json"):
        (workspace / "saved" / "run" / name).unlink()
    (workspace / "saved" / "run").chmod(0o555)
    status, log, moments = trainings.train(asked(city, epochs=1), workspace, powerless=True)
    (workspace / "saved" / "run").chmod(0o755)
    assert (status, moments) == (4, 0), log
    assert "run.json: no permission to write here" in log


def test_t14_a_second_process_is_refused_and_the_first_does_not_notice(trainings, undisturbed, city, workspace):
    status, log, _ = trainings.train(asked(city), workspace, signals=(signal.SIGSTOP,), moment=undisturbed[1] // 2)
    assert status == -signal.SIGSTOP, log
    with pytest.raises(BusyError, match=r"run='run': another process is training it; .* process \d+ on") as caught:
        train(tiny(city, run="run"))
    assert caught.value.exit_status == 7
    status, log, _ = trainings.go_on()
    assert status == 0, log
    assert outcome(workspace / "saved" / "run") == undisturbed[0]


def test_t15_r1_what_a_killed_process_leaves_does_not_disturb_the_next(trainings, undisturbed, city, workspace):
    in_second_save = RECORD + SAVE + MOMENTS_PER_WRITE
    status, log, _ = trainings.train(asked(city), workspace, signals=(signal.SIGKILL,), moment=in_second_save)
    assert status == -signal.SIGKILL, log
    assert [name[:9] for name in leftovers(workspace)] == [".last.pt."]
    assert (workspace / "saved" / "run" / ".lock").read_text().startswith("process ")
    foreign = workspace / "saved" / "run" / "checkpoints" / f".last.pt.{os.getppid()}.00000000.tmp"
    foreign.write_bytes(b"somebody is writing this")
    train(tiny(city, run="run"))
    assert leftovers(workspace) == [foreign.name]
    assert outcome(workspace / "saved" / "run") == undisturbed[0]
