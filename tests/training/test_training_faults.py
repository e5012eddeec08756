"""What goes wrong while training, and when a run goes on: where the test of every row of the list of faults is.

Row  Fault                                             Test
T1   a damaged image or mask                           test_loader_faults.py: test_t1_*
T2   a loader's worker dies                            test_loader_faults.py: test_t2_*
T3   a loader's worker hangs                           test_loader_faults.py: test_t3_*
T4   the loss, or the gradient, is no number           here; test_training.py: test_a_loss_*, test_a_gradient_*
T5   a weight or a running statistic is no number      here
T6   memory runs out                                   here
T7   SIGTERM, SIGUSR1                                  test_kill.py; test_launching.py; here, before the first step
T8   SIGINT, once and twice                            test_kill.py
T9   SIGKILL, also within a save                       test_kill.py; test_launching.py
T10  a full disk while a checkpoint is written         test_kill.py; test_atomic.py
T11  metrics.csv cannot be written                     here
T12  the run's folder cannot be written to             test_kill.py; here for a file in its place
T13  the run's folder holds something else             here
T14  two processes, one run                            test_kill.py; test_training.py: test_a_run_that_another_*
T15  the lock of a process that was killed             test_kill.py; test_atomic.py. Nothing breaks a lock by force: it
                                                       goes with its process, and one that is left is held by somebody
T16  the clock is put back                             here
T17  a batch of one, and a rest of one                 here; test_norms.py: test_a_batch_of_one_*
T18  initial weights: missing, damaged, of another net here; test_weights.py, test_imagenet.py, test_hostile_weights.py
T19  unknown and wrong parameters                      test_config.py, test_papermill_engine.py: test_a_wrong_*; here
R1   a damaged checkpoint, half-written files          here; test_kill.py; test_checkpoint.py
R2   a checkpoint of another network, of other data    here. Nothing overrides this: a changed run is another run
R3   a checkpoint of a later version                   here; test_checkpoint.py
R4   other workers, other cadence of checkpoints       here; test_kill.py; test_training.py: test_the_same_run_*
R5   other versions, another machine, other threads    here
R6   metrics.csv is ahead of the checkpoint, or behind here
R7   the run is finished                               here; test_training.py: test_a_finished_run_*
L9   crops without any label                           here; test_loader_faults.py: test_l9_*
"""

import csv
import errno
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from email.message import Message
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from support.after_steps import Stop, around_each_step, stop_after
from support.exactness import leftovers, outcome, steps_of
from support.network_share import without
from support.tiny import EPOCHS, STEPS_PER_EPOCH, tiny

from cityscapes.errors import (
    BusyError,
    DivergedError,
    InputError,
    IntegrityError,
    MachineError,
    MissingInputError,
    NewerFormatError,
    ParameterError,
    StoppedError,
    TerminatedError,
)
from cityscapes.workspace import run_folder
from dlv3p.data import loader
from dlv3p.data.loader import TrainingSamples
from dlv3p.data.roots import open_split, open_training
from dlv3p.data.sampling import epoch_order
from dlv3p.parameters.files import read_config
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs import folders
from dlv3p.runs.folders import checkpoint_path
from dlv3p.runs.record import record_problems, write_record
from dlv3p.train import main, train
from dlv3p.training import callbacks, checkpoints, optimizers, recording, recovery, step, validation
from dlv3p.training.progress import TrainingProgress
from dlv3p.training.recovery import last_checkpoint
from dlv3p.weights.checkpoint import load_checkpoint, save_checkpoint

BLOWN_UP = 5
"""The step, counted from 1, in which something happens: the second one of the second epoch."""


@pytest.fixture(autouse=True)
def _same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed(city, tmp_path_factory):
    """How a run ends that is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(tmp_path_factory.mktemp("undisturbed")))
        return outcome(train(tiny(city, run="run")).folder)


@pytest.fixture(scope="module")
def stopped(city, tmp_path_factory):
    """The folder of a run that ended after its fifth step: "last" is from there, "best" from the first epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(tmp_path_factory.mktemp("stopped")))
        stop_after(patch, 5)
        with pytest.raises(Stop):
            train(tiny(city, run="run"))
        return run_folder("run").resolve()


@pytest.fixture
def folder(stopped, workspace):
    """A copy of such a folder, to be damaged."""
    return shutil.copytree(stopped, workspace / "saved" / "run")


def continued(city, folder):
    """Where a run would go on: the steps that are behind it."""
    parameters = tiny(city, run=folder.name)
    training, _ = open_training(tiny(city))
    saved = last_checkpoint(folder, parameters, training)
    if saved is None:
        return 0
    progress = TrainingProgress(
        training.num_classes, torch.device("cpu"), steps=EPOCHS * STEPS_PER_EPOCH, steps_per_epoch=STEPS_PER_EPOCH
    )
    progress.load_state_dict(saved)
    return progress.done


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def finite(path):
    return all(value.isfinite().all() for value in load_checkpoint(path)["model"].values())


# T4 to T6: what a step does


def test_t4_a_rate_that_is_far_too_high_stops_and_leaves_what_explains_it(city, workspace, monkeypatch):
    factor = optimizers.rate_factor
    monkeypatch.setattr(
        optimizers,
        "rate_factor",
        lambda done, *rest, **schedule: 1e38 if done + 1 >= BLOWN_UP else factor(done, *rest, **schedule),
    )
    with pytest.raises(DivergedError, match=r"step \d+: the (loss|gradient norm) is (nan|inf)") as caught:
        train(tiny(city, run="run", checkpoint_minutes=10.0, learning_rate=0.01))
    assert caught.value.exit_status == 5
    assert "Lower learning_rate (now 0.01)" in str(caught.value)
    assert f"the last checkpoint, {checkpoint_path('run', 'last')}, is older" in str(caught.value)
    assert steps_of(checkpoint_path("run", "last")) == STEPS_PER_EPOCH
    (path,) = (run_folder("run") / "diverged").glob("step_[0-9].json")
    number = int(path.stem.removeprefix("step_"))
    assert number > BLOWN_UP
    told = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert told["learning_rate"] == pytest.approx(1e36)
    assert len(told["recent_losses"]) == number
    assert all(0 < loss < 10 for loss in told["recent_losses"][:BLOWN_UP])
    assert {"nan", "inf"} & {told["loss"], told["gradient_norm"]}
    epoch, first = 1 + (number - 1) // STEPS_PER_EPOCH, (number - 1) % STEPS_PER_EPOCH * 2
    split = open_split(city, "train")
    assert told["samples"] == [split.name(index) for index in epoch_order(0, epoch, 6)[first : first + 2]]


@pytest.mark.parametrize(("minutes", "kept"), [(0.0, BLOWN_UP - 1), (10.0, STEPS_PER_EPOCH)])
def test_t5_a_statistic_that_is_no_number_is_never_saved(city, workspace, monkeypatch, minutes, kept):
    def spoils(run):
        if run.progress.done == BLOWN_UP:
            dict(run.stepper.model.named_buffers())["aspp.project.bn.running_var"].fill_(math.nan)

    around_each_step(monkeypatch, before=spoils)
    with pytest.raises(DivergedError, match="running_var holds a value that is not finite"):
        train(tiny(city, run="run", checkpoint_minutes=minutes))
    assert steps_of(checkpoint_path("run", "last")) == kept
    assert finite(checkpoint_path("run", "last"))
    assert not leftovers(run_folder("run"))


def runs_out_of_gpu_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def asks_for_an_exabyte():
    torch.empty(1 << 60, dtype=torch.uint8)


def gets_no_workspace():
    raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")


def finds_no_heap():
    raise RuntimeError("std::bad_alloc")


@pytest.mark.parametrize("happens", [runs_out_of_gpu_memory, asks_for_an_exabyte, gets_no_workspace, finds_no_heap])
def test_t6_memory_that_runs_out_is_told_with_what_to_change(city, workspace, monkeypatch, undisturbed, happens):
    make, steps = step.make_loss, []

    def loss(*arguments):
        steps.append(1)
        if len(steps) == BLOWN_UP:
            happens()
        return make("cross_entropy", None)(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(step, "make_loss", lambda *_, **__: loss)
        with pytest.raises(MachineError) as caught:
            train(tiny(city, run="run", class_weights="none"))
    told = str(caught.value)
    assert told.startswith("out of memory: a step of batch_size=2 (accumulation=1, crop 33x33, output stride 16)")
    assert "accumulation=2" in told
    assert "\n" not in told
    assert caught.value.exit_status == 4
    assert steps_of(checkpoint_path("run", "last")) == BLOWN_UP - 1


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, TerminatedError), (signal.SIGINT, StoppedError)])
def test_t7_t8_a_signal_before_the_first_step_does_not_wait_for_it(
    city, workspace, monkeypatch, undisturbed, number, kind
):
    def slow(*_, **__):
        assert (run_folder("run") / ".lock").read_text()
        os.kill(os.getpid(), number)
        time.sleep(60)

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "class_weights", slow)
        with pytest.raises(kind) as caught:
            train(tiny(city, run="run"))
    assert type(caught.value) is kind
    assert str(caught.value) == "run='run': stopped before the first step; run again to continue"
    assert outcome(train(tiny(city, run="run")).folder) == undisturbed


def test_t7_a_signal_after_all_have_agreed_to_go_on_waits_for_the_next_step(city, workspace, monkeypatch):
    def late(run):
        if run.progress.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    around_each_step(monkeypatch, after=late)
    with pytest.raises(TerminatedError, match="stopped after step 2 of 6"):
        train(tiny(city, run="run", checkpoint_minutes=10.0))
    assert steps_of(checkpoint_path("run", "last")) == 2


# T11 to T19: the folder, the clock, sizes and words


def test_t11_a_table_that_cannot_be_written_leaves_all_checkpoints(city, workspace, monkeypatch, undisturbed):
    write, path = folders.write_metrics, run_folder("run") / "metrics.csv"

    def refused(*arguments):
        path.mkdir(exist_ok=True)
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(folders, "write_metrics", refused)
        with pytest.raises(MachineError, match="metrics.csv: a folder is where a file should be") as caught:
            train(tiny(city, run="run"))
    assert caught.value.exit_status == 4
    for name in ("last", "best"):
        assert steps_of(checkpoint_path("run", name)) == STEPS_PER_EPOCH
    with pytest.raises(MachineError, match=r"metrics\.csv"):
        train(tiny(city, run="run"))
    assert steps_of(checkpoint_path("run", "last")) == STEPS_PER_EPOCH
    path.rmdir()
    assert outcome(train(tiny(city, run="run")).folder) == undisturbed


@pytest.mark.parametrize("name", ["saved", "saved/run"])
def test_t12_a_file_in_place_of_the_folder_is_told_before_the_first_step(city, workspace, monkeypatch, name):
    (workspace / name).parent.mkdir(exist_ok=True)
    (workspace / name).write_bytes(b"mine")
    monkeypatch.setattr(recovery, "last_checkpoint", None)
    with pytest.raises(MachineError, match="a file is where a folder should be") as caught:
        train(tiny(city, run="run"))
    assert caught.value.exit_status == 4
    assert (workspace / name).read_bytes() == b"mine"


def test_t13_a_run_on_a_disk_without_flock_is_not_stopped_by_its_own_lock(city, workspace, monkeypatch, undisturbed):
    without(monkeypatch, flock=errno.ENOSYS)
    train(tiny(city, run="run"))
    assert outcome(run_folder("run")) == undisturbed
    assert [path.name for path in run_folder("run").glob(".*")] == [".lock"]


def test_t13_a_folder_with_anything_else_in_it_is_left_alone(city, workspace):
    mine = run_folder("run") / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = contents(run_folder("run"))
    with pytest.raises(BusyError, match=r"has no checkpoint, but holds notes\.txt; choose another run") as caught:
        train(tiny(city, run="run"))
    assert caught.value.exit_status == 7
    assert contents(run_folder("run")) == before


def test_t16_a_clock_that_runs_backwards_changes_nothing(city, workspace, monkeypatch, undisturbed):
    """By a stand-in for `time.time`; the next test has a clock of the whole process."""
    now = iter(range(2_000_000_000, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    folder = train(tiny(city, run="run", workers=1)).folder
    assert outcome(folder) == undisturbed
    with open(folder / "metrics.csv") as file:
        for row in csv.DictReader(file):
            assert float(row["seconds"]) > 0
            assert float(row["data_wait"]) >= 0


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

static long set_back = 0;

int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec -= 1000 * set_back++;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec found;
    int status = clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec, now->tv_usec = found.tv_nsec / 1000;
    return status;
}

time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}
"""
"""A library for LD_PRELOAD: each look at the date sees it a quarter of an hour before the last one."""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler, for a clock that runs backwards")
def test_t16_a_process_whose_clock_runs_backwards_ends_the_same(city, workspace, undisturbed):
    """By a library that answers for libc's clocks: Linux has no date of its own for a process or a namespace."""
    source, library, config = (workspace / name for name in ("clock.c", "clock.so", "tiny.json"))
    source.write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    config.write_text(json.dumps(tiny(city, run="back", workers=1).as_dict()))
    backwards = os.environ | {"LD_PRELOAD": str(library)}
    look = [sys.executable, "-c", "import time; print(time.time() > time.time() + 900)"]
    assert subprocess.run(look, env=backwards, capture_output=True, text=True, check=True).stdout == "True\n"
    words = [sys.executable, "-m", "dlv3p.train", "--config", str(config)]
    done = subprocess.run(words, env=backwards, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = run_folder("back")
    assert outcome(folder) == undisturbed
    with open(folder / "metrics.csv") as file:
        for row in csv.DictReader(file):
            assert float(row["seconds"]) > 0
            assert float(row["data_wait"]) >= 0


def test_t16_what_counts_is_how_far_a_file_is_and_not_its_date(city, folder, undisturbed):
    os.utime(checkpoint_path("run", "last"), (0, 0))
    assert continued(city, folder) == 5
    assert outcome(train(tiny(city, run="run")).folder) == undisturbed
    os.utime(checkpoint_path("run", "best"), (2**32, 2**32))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    train(tiny(city, run="run"))
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 6), (5, 1)])
def test_t17_a_batch_of_one_trains_and_a_rest_of_one_is_left_out(city, workspace, batch_size, steps):
    result = train(tiny(city, batch_size=batch_size, epochs=1, workers=1))
    saved = load_checkpoint(result.folder / "checkpoints" / "last.pt")
    assert saved["model"]["aspp.project.bn.num_batches_tracked"] == steps
    assert finite(result.folder / "checkpoints" / "last.pt")
    assert math.isfinite(result.history[0]["train_loss"])


class Offline:
    def __init__(self, *_: object) -> None:
        raise URLError("no route to host")


class WrongBytes(io.BytesIO):
    def __init__(self, *_: object) -> None:
        super().__init__(b"somebody else's weights")

    def info(self) -> Message:
        return Message()


@pytest.mark.parametrize(
    ("weights", "answer", "kind", "told"),
    [
        ("nowhere.pth", None, MissingInputError, "initial_weights='nowhere.pth': no such file"),
        (
            "imagenet",
            Offline,
            MachineError,
            r"cannot download .*\.pth .*no route to host.*; fetch resnet18-",
        ),
        ("imagenet", WrongBytes, IntegrityError, "resnet18-.* is damaged, on disk or in transit .*invalid hash value"),
    ],
    ids=["missing", "offline", "wrong hash"],
)
def test_t18_initial_weights_that_cannot_be_had_end_the_run_before_it_begins(
    city, workspace, monkeypatch, weights, answer, kind, told
):
    monkeypatch.setenv("TORCH_HOME", str(workspace / "torch"))
    monkeypatch.setattr(torch.hub, "urlopen", answer)
    with pytest.raises(kind, match=told) as caught:
        train(tiny(city, run="run", backbone="resnet18", initial_weights=weights))
    assert "\n" not in str(caught.value)
    assert not contents(run_folder("run"))


def test_t18_a_download_through_a_network_that_is_down_ends_the_run_before_it_begins(city, workspace, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(workspace / "torch"))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr("urllib.request._opener", None)  # the one of an earlier download keeps its proxies
    with pytest.raises(MachineError, match=r"cannot download https://.*resnet18-.* \(.*refused.*\); fetch resnet18-"):
        train(tiny(city, run="run", backbone="resnet18", initial_weights="imagenet"))
    assert not contents(run_folder("run"))
    assert not [path for path in (workspace / "torch").rglob("*") if path.is_file()]


def test_t18_damaged_initial_weights_from_an_earlier_download_are_named(city, workspace, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(workspace / "torch"))
    path = workspace / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    with pytest.raises(IntegrityError, match=rf"delete {path}, if it is there"):
        train(tiny(city, run="run", backbone="resnet18", initial_weights="imagenet"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("bach_size: 2", "'batch_size'"),
        ("batch_size: two", "batch_size='two'"),
        ("batch_size: 0", "batch_size=0"),
        ("optimizer: sdg", "did you mean sgd?"),
        ("- 1", "holds no parameters"),
        ("{", "cannot be read as JSON or YAML"),
        ("1: 2", "unknown parameter 1"),
        ("seed: 1\nepochs: 2\nseed: 2", "duplicate key 'seed'"),
    ],
)
def test_t19_a_mistake_in_a_recipe_is_told_before_anything_happens(workspace, line, told):
    recipe = workspace / "recipe.yaml"
    recipe.write_text(line + "\n")
    with pytest.raises((ParameterError, InputError)) as caught:
        main(["--config", str(recipe)])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(workspace.iterdir()) == [recipe]


def test_t19_a_key_that_stands_twice_in_json_is_refused_and_a_merged_one_in_yaml_is_not(workspace):
    record, recipe = workspace / "run.json", workspace / "recipe.yaml"
    record.write_text('{"parameters": {"seed": 1, "seed": 2}}')
    with pytest.raises(ParameterError, match=r"run\.json: duplicate key 'seed'; keep one of them"):
        read_config(record)
    recipe.write_text("base: &base {seed: 1}\nmine:\n  <<: *base\n  seed: 2\n")
    assert read_config(recipe)["mine"] == {"seed": 2}


def test_t19_a_value_that_is_no_yaml_is_told_in_one_line(workspace):
    with pytest.raises(ParameterError, match=r"^seed='\[': cannot be read as a YAML value; quote it[^\n]*$") as caught:
        main(["-p", "seed", "["])
    assert caught.value.exit_status == 2


# R1 to R7: going on


@pytest.mark.parametrize("share", [tenth / 10 for tenth in range(10)])
def test_r1_a_truncated_checkpoint_is_put_aside_and_the_best_one_goes_on(city, folder, capsys, share):
    last = folder / "checkpoints" / "last.pt"
    damaged = last.read_bytes()[: int(share * last.stat().st_size)]
    last.write_bytes(damaged)
    assert continued(city, folder) == STEPS_PER_EPOCH
    told = capsys.readouterr().out
    assert told.startswith("warning: ")
    assert "last.pt: its bytes are not those that were written" in told
    assert "resuming from the best checkpoint, of epoch 1" in told
    assert (folder / "checkpoints" / "last.pt.bad").read_bytes() == damaged
    assert not last.exists()


def test_r1_a_run_whose_checkpoint_was_damaged_ends_the_same(city, folder, undisturbed):
    last = folder / "checkpoints" / "last.pt"
    last.write_bytes(bytes(last.stat().st_size))
    assert outcome(train(tiny(city, run="run")).folder) == undisturbed


def test_r1_every_one_of_100_flipped_bits_is_found(folder):
    last, rng = folder / "checkpoints" / "last.pt", np.random.default_rng(0)
    whole = np.frombuffer(last.read_bytes(), np.uint8)
    for position in rng.integers(len(whole), size=100):
        damaged = whole.copy()
        damaged[position] ^= 1 << rng.integers(8)
        last.write_bytes(damaged.tobytes())
        with pytest.raises(IntegrityError, match="its bytes are not those that were written"):
            load_checkpoint(last)


@pytest.mark.parametrize("best", ["damaged", "absent"])
def test_r1_without_any_good_checkpoint_nothing_starts_afresh_and_nothing_moves(city, folder, best):
    (folder / "checkpoints" / "last.pt").write_bytes(b"")
    if best == "damaged":
        (folder / "checkpoints" / "best.pt").write_bytes(b"")
    else:
        (folder / "checkpoints" / "best.pt").unlink()
    before = contents(folder)
    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"last\.pt: .* nor can best\.pt be read") as caught:
            train(tiny(city, run="run"))
        assert caught.value.exit_status == 6
    assert contents(folder) == before


CHANGES = {
    "architecture": ("deeplabv3plus", "deeplabv3"),
    "backbone": ("timm:test_resnet.r160_in1k", "resnet18"),
    "output_stride": (16, 8),
    "channels": (8, 16),
    "loss": ("cross_entropy", "focal"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_r2_another_network_is_refused_with_what_differs(city, folder, name):
    before = contents(folder)
    old, new = CHANGES[name]
    with pytest.raises(ParameterError) as caught:
        train(tiny(city, run="run", **{name: new}))
    assert f"run='run' was trained with {name}={old!r} (asked for {new!r}); choose another run" in str(caught.value)
    assert caught.value.exit_status == 2
    assert contents(folder) == before


@pytest.fixture
def plain(city, workspace, monkeypatch):
    """A plain folder with three classes, and a run on it that ended after its first step."""
    root = workspace / "plain"
    for name in ("train", "val"):
        split = open_split(city, name)
        for kind in ("images", "masks"):
            (root / kind / name).mkdir(parents=True)
        for index in range(len(split)):
            split.image(index).save(root / "images" / name / f"{index}.png")
            mask = np.where(split.mask(index) == 255, 255, split.mask(index) % 2).astype(np.uint8)
            Image.fromarray(mask).save(root / "masks" / name / f"{index}.png")
    (root / "classes.csv").write_text("id,name\n0,one\n1,two\n2,three\n")
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Stop):
            train(tiny(root, run="run"))
    return root


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ("0,one\n1,two\n2,three\n3,four", "with 3 classes, .* has 4; they differ in four"),
        ("0,one\n1,three\n2,two", "order"),
    ],
)
def test_r2_other_classes_are_refused(plain, classes, told):
    before = contents(run_folder("run"))
    (plain / "classes.csv").write_text(f"id,name\n{classes}\n")
    with pytest.raises(IntegrityError, match=told) as caught:
        train(tiny(plain, run="run"))
    assert caught.value.exit_status == 6
    assert contents(run_folder("run")) == before


def test_r2_another_number_of_images_is_refused_and_a_changed_one_is_told(plain, capsys):
    images = sorted((plain / "images" / "train").iterdir())
    Image.open(images[0]).save(images[0], compress_level=0)
    whole = {path: path.read_bytes() for path in (images[1], plain / "masks" / "train" / images[1].name)}
    for path in whole:
        path.unlink()
    with pytest.raises(IntegrityError, match="5 images in train, but had 6 when the run began"):
        train(tiny(plain, run="run"))
    for path, content in whole.items():
        path.write_bytes(content)
    for _ in range(2):  # it is finished the second time
        train(tiny(plain, run="run", epochs=EPOCHS))
        assert "files of train have changed since the run began" in capsys.readouterr().out
    for path in whole:
        path.unlink()
    with pytest.raises(IntegrityError, match="5 images in train, but had 6 when the run began"):
        train(tiny(plain, run="run", epochs=EPOCHS))


def test_r3_a_checkpoint_of_a_later_version_is_left_as_it_is(city, folder):
    last = folder / "checkpoints" / "last.pt"
    save_checkpoint(last, {**load_checkpoint(last), "format": 99})
    before = contents(folder)
    with pytest.raises(NewerFormatError, match=r"last\.pt: has format 99, this version reads up to") as caught:
        train(tiny(city, run="run"))
    assert caught.value.exit_status == 6
    assert contents(folder) == before


def test_r4_another_way_of_loading_and_watching_ends_the_same(city, folder, undisturbed):
    other = {"workers": 2, "decoded_cache": True, "loader_timeout": 7, "on_bad_sample": "skip", "progress": "lines"}
    assert outcome(train(tiny(city, run="run", checkpoint_minutes=5.0, **other)).folder) == undisturbed


@pytest.mark.parametrize("part", ["versions", "hardware"])
def test_r5_another_machine_goes_on_with_a_warning_and_on_record(city, folder, monkeypatch, capsys, undisturbed, part):
    changed = {"versions": {"torch": "9.0"}, "hardware": {"processor": "abacus"}}[part]
    genuine = recording.provenance

    def elsewhere():
        found = genuine()
        return {**found, part: found[part] | changed}

    monkeypatch.setattr(recording, "provenance", elsewhere)
    assert outcome(train(tiny(city, run="run")).folder) == undisturbed
    said = f"warning: {part} changed since the last start: the last bits of the result may differ"
    assert said in capsys.readouterr().out
    (entry,) = json.loads((folder / "run.json").read_text())["continued"]
    assert entry["after_steps"] == 5
    assert changed.items() <= entry[part].items()


@pytest.mark.parametrize(
    ("name", "value"), [("threads", 2), ("chunked_loss", True), ("activation_checkpointing", True)], ids=str
)
def test_r5_other_means_go_on_with_a_warning_and_on_record(city, folder, capsys, name, value):
    train(tiny(city, run="run", **{name: value}))
    assert "warning: determinism changed since the last start" in capsys.readouterr().out
    (entry,) = json.loads((folder / "run.json").read_text())["continued"]
    assert entry["determinism"][name] == value


def test_r5_every_means_is_on_record_as_what_the_last_bits_follow(city, folder):
    record = json.loads((folder / "run.json").read_text())["determinism"]
    assert record.keys() >= set(TrainParameters.MEANS)
    assert (record["device"], record["processes"]) == ("cpu", 1)


def test_r6_a_table_that_is_ahead_of_the_checkpoint_is_cut_before_the_next_step(city, folder, monkeypatch, undisturbed):
    path = folder / "metrics.csv"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[1].replace("1,", "2,", 1) + "\n3,")
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "make_callbacks", lambda *_, **__: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            train(tiny(city, run="run"))
    assert path.read_text() == whole
    header, first = whole.splitlines(keepends=True)
    ahead = header + first.replace("1,", "2,", 1) + "3,"
    assert (folder / "metrics.after_epoch_1.csv").read_text() == ahead
    assert outcome(train(tiny(city, run="run")).folder) == undisturbed


@pytest.mark.parametrize("epoch", [1, EPOCHS])
def test_r6_a_run_that_dies_between_checkpoint_and_table_has_both_in_the_end(
    city, workspace, monkeypatch, undisturbed, epoch
):
    write = folders.write_metrics

    def dies(folder, history):
        if len(history) == epoch:
            raise Stop
        write(folder, history)

    with monkeypatch.context() as patch:
        patch.setattr(folders, "write_metrics", dies)
        with pytest.raises(Stop):
            train(tiny(city, run="run"))
    assert outcome(train(tiny(city, run="run")).folder) == undisturbed


def test_r7_a_run_that_dies_before_its_weights_are_shared_shares_them_and_is_then_finished(
    city, workspace, monkeypatch, undisturbed
):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "export_best", lambda folder, **_options: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            train(tiny(city, run="run"))
    monkeypatch.setattr(loader, "training_loader", None)
    folder = train(tiny(city, run="run")).folder
    assert outcome(folder) == undisturbed
    before = contents(folder)
    train(tiny(city, run="run"))
    assert contents(folder) == before


@pytest.mark.parametrize("steps", [4, 5, 6])
def test_going_on_after_any_step_of_an_epoch_ends_the_same(city, workspace, monkeypatch, undisturbed, steps):
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Stop):
            train(tiny(city, run="run"))
    assert steps_of(checkpoint_path("run", "last")) == steps
    assert outcome(train(tiny(city, run="run", workers=1)).folder) == undisturbed


def test_going_on_with_everything_that_a_run_may_have_ends_the_same(city, workspace, monkeypatch):
    everything = {
        **{"precision": "float16", "average_decay": 0.9, "optimizer": "adamw", "accumulation": 2, "warmup_steps": 2},
        **{"auxiliary_head": True, "class_uniform": 0.5, "norm": "group", "loss": "focal", "schedule": "cosine"},
    }
    whole = outcome(train(tiny(city, run="whole", **everything)).folder)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Stop):
            train(tiny(city, run="run", **everything))
    again = outcome(train(tiny(city, run="run", workers=1, **everything)).folder)
    assert again == whole
    assert len({again[name] for name in ("weights", "training weights", "optimizer")}) == 3
    assert again["average updates"] == again["scaler"]["_growth_tracker"] == EPOCHS * STEPS_PER_EPOCH


def test_going_on_after_a_stop_while_the_epoch_is_scored_ends_the_same(city, workspace, monkeypatch, undisturbed):
    validate, images = validation.validate, []

    def stops(model, loader, *arguments, after_each, **options):
        def noted():
            images.append(1)
            if len(images) == 5:  # the second image of the second epoch
                os.kill(os.getpid(), signal.SIGTERM)
            after_each()

        return validate(model, loader, *arguments, after_each=noted, **options)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "validate", stops)
        with pytest.raises(TerminatedError, match="stopped after step 6 of 6"):
            train(tiny(city, run="run", checkpoint_minutes=10.0))
    assert len(images) == 5
    assert outcome(train(tiny(city, run="run")).folder) == undisturbed


def test_a_number_of_steps_may_end_within_an_epoch(city, workspace, monkeypatch):
    whole = train(tiny(city, run="whole", steps=4, epochs=1))
    assert [row["epoch"] for row in whole.history] == [1, 2]
    assert all(math.isfinite(row["val_loss"]) for row in whole.history)
    saved = load_checkpoint(checkpoint_path("whole", "last"))
    assert saved["model"]["aspp.project.bn.num_batches_tracked"] == 4
    for steps in (2, 4):
        name = f"after-{steps}"
        with monkeypatch.context() as patch:
            stop_after(patch, steps)
            with pytest.raises(Stop):
                train(tiny(city, run=name, steps=4, epochs=1))
        assert outcome(train(tiny(city, run=name, steps=4, epochs=1)).folder) == outcome(whole.folder)


def test_epochs_that_are_not_scored_are_not_numbers_and_never_the_best(city, workspace, monkeypatch):
    whole = train(tiny(city, run="whole", validate_every=2, epochs=3))
    assert [math.isfinite(row["val_loss"]) for row in whole.history] == [False, True, True]
    assert whole.best_epoch in (2, 3)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Stop):
            train(tiny(city, run="run", validate_every=2, epochs=3))
    assert not checkpoint_path("run", "best").exists()
    assert outcome(train(tiny(city, run="run", validate_every=2, epochs=3)).folder) == outcome(whole.folder)


@pytest.mark.parametrize("blank", [1, 2], ids=["all", "half"])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "hard_pixels", "dice", "lovasz"])
def test_l9_crops_without_any_label_do_no_harm(city, workspace, monkeypatch, loss, blank):
    crop = TrainingSamples.__getitem__

    def blanked(self, key):
        image, mask = crop(self, key)
        return image, torch.full_like(mask, 255) if key[1] % blank == 0 else mask

    monkeypatch.setattr(TrainingSamples, "__getitem__", blanked)
    result = train(tiny(city, loss=loss, epochs=1, checkpoint_minutes=10.0))
    assert math.isfinite(result.history[0]["train_loss"])
    assert (result.history[0]["train_loss"] > 0) == (blank == 2)
    assert finite(result.folder / "checkpoints" / "last.pt")


@pytest.mark.parametrize(
    ("part", "name", "then", "said"),
    [
        ("hardware", "cpu_capability", "AVX2", "hardware.cpu_capability: AVX2, now "),
        ("hardware", "cpu_flags", "avx2 invented", "hardware.cpu_flags: +"),
        ("hardware", "onednn_max_isa", "AVX2", "hardware.onednn_max_isa: AVX2, now None"),
        ("versions", "libjpeg", "1.0", "versions.libjpeg: 1.0, now "),
        ("versions", "isal", "0.1", "versions.isal: 0.1, now "),
        ("determinism", "interop_threads", 99, "determinism.interop_threads: 99, now "),
    ],
)
def test_r5_what_the_last_bits_follow_is_named_when_a_run_goes_on_elsewhere(
    city, folder, capsys, part, name, then, said
):
    path = folder / "run.json"
    record = json.loads(path.read_text())
    record[part][name] = then
    write_record(path, record)
    recording.record_resumption(folder, tiny(city, run="run"), open_training(tiny(city)), steps=3)
    assert said in capsys.readouterr().out
    (*_, entry) = json.loads(path.read_text())["continued"]
    assert name in entry[part]
    assert not list(record_problems(json.loads(path.read_text())))


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="a processor without vector instructions for torch"
)
def test_r5_other_instructions_of_each_library_go_on_with_a_warning_and_on_record(city, folder):
    config = folder.parent / "run.json"
    config.write_text(json.dumps(tiny(city, run="run").as_dict()))
    words = [sys.executable, "-m", "dlv3p.train", "--config", str(config)]
    chosen = {"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}
    done = subprocess.run(words, env=os.environ | chosen, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"hardware\.cpu_capability: AVX\w+, now (DEFAULT|NO AVX)", done.stdout)
    (entry,) = json.loads((folder / "run.json").read_text())["continued"]
    assert entry["hardware"]["cpu_capability"] in ("DEFAULT", "NO AVX")
    for name, value in (("onednn_max_isa", "AVX2"), ("mkl_cbwr", "COMPATIBLE")):
        assert f"hardware.{name}: None, now {value}" in done.stdout
        assert entry["hardware"][name] == value


def test_r5_a_record_of_an_earlier_version_lacks_what_is_newer_and_warns_of_nothing(city, folder, capsys):
    path = folder / "run.json"
    record = json.loads(path.read_text())
    for part, name in (("hardware", "cpu_flags"), ("hardware", "cpu_capability"), ("versions", "zlib")):
        del record[part][name]
    write_record(path, record)
    recording.record_resumption(folder, tiny(city, run="run"), open_training(tiny(city)), steps=3)
    assert "changed since the last start" not in capsys.readouterr().out
    assert not list(record_problems(record))


def test_a_parameter_given_as_an_option_is_refused_with_the_way_to_set_it(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--learning_rate", "0.1"])
    error = capsys.readouterr().err
    assert "unrecognized arguments: --learning_rate 0.1; set a parameter by -p NAME VALUE" in error
