"""Processes that train together do what one does with the whole batch, and so do the parts of a batch."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from support.tiny import TINY, tiny
from torch import nn

from cityscapes.errors import BusyError, InputError, MissingInputError, ParameterError
from cityscapes.workspace import run_folder
from dlv3p.data.sampling import EpochSampler
from dlv3p.parameters.files import read_config
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import checkpoint_path
from dlv3p.runtime.processes import place
from dlv3p.train import main, train
from dlv3p.training import launching
from dlv3p.training.launching import in_turn
from dlv3p.weights.checkpoint import load_checkpoint


def together(city, **changes):
    """Parameters of a run whose curve is the same however many processes share its batches.

    Rounding grows fast in a steep start, and each process draws a dropout of its own.
    """
    alike = {"epochs": 3, "learning_rate": 0.002, "aspp_dropout": 0.0, "checkpoint_minutes": 10.0}
    return tiny(city, **{**alike, **changes})


def test_processes_of_a_group_wait_for_the_one_that_makes_masks(monkeypatch, capsys):
    answers = [BusyError("masks: process 1 is writing here"), BusyError("again"), "opened"]

    def opened():
        answer = answers.pop(0)
        if isinstance(answer, BusyError):
            raise answer
        return answer

    monkeypatch.setattr(launching, "POLL_SECONDS", 0.0)
    with pytest.raises(BusyError):  # two runs that have nothing to do with each other
        in_turn(opened)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert in_turn(opened) == "opened"
    assert capsys.readouterr().out == "waiting: again\n"


def losses(result):
    return [[row[name] for name in ("train_loss", "val_loss")] for row in result.history]


def same_weights(first, second, tolerance):
    first, second = (load_checkpoint(checkpoint_path(run, "last"))["model"] for run in (first, second))
    return all(
        torch.allclose(first[name].float(), second[name].float(), rtol=tolerance, atol=tolerance) for name in first
    )


SIX = {"batch_size": 6}
"""Of two images the image pooling makes two pixels, whose variance magnifies the last bits a hundredfold."""


@pytest.fixture(scope="module")
def alone(city, tmp_path_factory):
    """The workspace of a run that one process has trained with batch norm, and its losses."""
    workspace = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(workspace))
        return workspace, losses(train(together(city, run="alone", **SIX)))


def test_two_forked_processes_follow_the_curve_of_one_with_the_same_batch(trainings, city, alone, monkeypatch):
    workspace, expected = alone
    monkeypatch.setenv("DLV3P_WORKSPACE", str(workspace))
    config = workspace / "forked.json"
    config.write_text(json.dumps(together(city, run="forked", processes=2, **SIX).as_dict()))
    status, log, _ = trainings.train({}, workspace, config=config)
    assert status == 0, log
    result = train(together(city, run="forked", **SIX))  # finished: says so again
    assert losses(result) == [pytest.approx(row, rel=1e-4) for row in expected]
    assert same_weights("alone", "forked", 1e-3)
    assert json.loads((run_folder("forked") / "run.json").read_text())["parameters"]["processes"] == 2


@pytest.mark.slow
def test_two_processes_follow_the_curve_of_one_with_the_same_batch(city, alone, monkeypatch):
    workspace, expected = alone
    monkeypatch.setenv("DLV3P_WORKSPACE", str(workspace))
    result = train(together(city, run="pair", processes=2, **SIX))
    assert losses(result) == [pytest.approx(row, rel=1e-4) for row in expected]
    assert same_weights("alone", "pair", 1e-3)
    record = json.loads((run_folder("pair") / "run.json").read_text())
    assert record["parameters"]["processes"] == 2
    again = train(together(city, run="pair", processes=2, **SIX))  # a finished run starts no process
    assert again.history == result.history


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("weights", ["none", "inverse_log"])
def test_a_batch_in_parts_gives_the_weights_of_the_whole(city, workspace, loss, weights):
    # Group norm sees one image at a time; batch norm would see the parts.
    options = {
        "norm": "group",
        "image_pooling": False,
        "epochs": 1,
        "loss": loss,
        "class_weights": weights,
        "gradient_norm": 0.0,
    }
    whole = train(together(city, run="whole", **options))
    parts = train(together(city, run="parts", accumulation=2, **options))
    assert losses(parts) == [pytest.approx(row, rel=1e-5) for row in losses(whole)]
    assert same_weights("whole", "parts", 1e-4)  # torch 2.11 computes halves of a batch by other kernels


@pytest.fixture
def cut(city, workspace):
    """A copy of the city, and the image in it that is only half there."""
    root = workspace / "city"
    shutil.copytree(city, root)
    path = sorted((root / "leftImg8bit" / "train").rglob("*.png"))[3]
    path.write_bytes(path.read_bytes()[:500])
    return root, path


def test_a_mistake_in_a_forked_process_is_the_one_line_of_the_run(trainings, cut, workspace):
    root, path = cut
    parameters = {**TINY, "data_root": str(root), "run": "cut", "processes": 2, "class_weights": "none"}
    status, log, _ = trainings.train(parameters, workspace)
    assert (status, log.count("\n"), path.name in log) == (InputError.exit_status, 1, True), log


@pytest.mark.slow
def test_a_mistake_in_a_process_is_the_one_line_of_the_run(cut):
    root, path = cut
    with pytest.raises(InputError, match=path.name):
        train(together(root, run="cut", processes=2, class_weights="none"))


def test_a_batch_that_cannot_be_shared_out_is_refused(city):
    with pytest.raises(ParameterError, match="batch_size=3: cannot be split equally over processes=2"):
        together(city, processes=2, batch_size=3)
    with pytest.raises(ParameterError, match="accumulation=4 crops each"):
        together(city, accumulation=4)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_every_step_of_the_one_process(ranks):
    whole = EpochSampler(40, 6, seed=3)
    shares = [EpochSampler(40, 6 // ranks, seed=3, rank=rank, ranks=ranks) for rank in range(ranks)]
    for sampler in (whole, *shares):
        sampler.epoch, sampler.skipped = 5, 2
    expected = list(whole)
    found = [list(share) for share in shares]
    assert len(expected) == 24
    for step in range(4):
        size = 6 // ranks
        of_step = [key for share in found for key in share[step * size : (step + 1) * size]]
        assert sorted(of_step) == sorted(expected[step * 6 : (step + 1) * 6])
        assert sorted(index for _, index in of_step) == sorted(index for _, index in whole.step_keys(step + 2))


SHARED_NORM = """
import torch
from torch import distributed, nn
from dlv3p.models.norms import share_statistics
distributed.init_process_group("gloo")
rank = distributed.get_rank()
torch.manual_seed(0)
whole = torch.randn(5, 3, 4, 6, dtype=torch.float64) * 3 + 100
target = torch.randn_like(whole)
part = (whole[:2], whole[2:])[rank].clone().requires_grad_()
norm = share_statistics(nn.Sequential(nn.BatchNorm2d(3)), torch.device("cpu")).double()
output = norm(part)
(output * (target[:2], target[2:])[rank]).sum().backward()
for parameter in norm.parameters():
    distributed.all_reduce(parameter.grad)
result = {"output": output.detach(), "gradient": part.grad, "state": norm.state_dict(),
          "parameters": [parameter.grad for parameter in norm.parameters()]}
torch.save(result, f"{__file__}.{rank}.pt")
distributed.destroy_process_group()
"""


def test_batch_norm_of_two_unequal_shares_is_that_of_all_images(tmp_path):
    script = tmp_path / "norm.py"
    script.write_text(SHARED_NORM)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = [torch.load(f"{script}.{rank}.pt", weights_only=True) for rank in range(2)]
    torch.manual_seed(0)
    whole = (torch.randn(5, 3, 4, 6, dtype=torch.float64) * 3 + 100).requires_grad_()
    target = torch.randn_like(whole)
    norm = nn.Sequential(nn.BatchNorm2d(3)).double()
    output = norm(whole)
    (output * target).sum().backward()
    exact = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(torch.cat([one["output"] for one in found]), output, **exact)
    torch.testing.assert_close(torch.cat([one["gradient"] for one in found]), whole.grad, **exact)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(found[1]["state"][name], value, **exact)
    for mine, theirs in zip(norm.parameters(), found[0]["parameters"], strict=True):
        torch.testing.assert_close(theirs, mine.grad, **exact)


def test_alone_a_process_is_the_first_of_one():
    assert place() == (0, 1, 0)
    assert place().first


def test_the_command_reads_run_json_recipes_and_single_parameters(city, workspace, capsys):
    parameters = together(city, run="", epochs=1)
    result = train(parameters)
    record = run_folder(result.run) / "run.json"
    assert TrainParameters.from_mapping(read_config(record)) == replace(parameters, run=result.run)
    assert main(["--config", str(record)]) == 0  # finished: says so again
    assert f"saved/{result.run}: best val mIoU {result.best_mean_iou:.4f} at epoch 1" in capsys.readouterr().out
    recipe = workspace / "recipe.yaml"
    recipe.write_text("learning_rate: 0.5\nbackbone: resnet18\n")
    assert read_config(recipe) == {"learning_rate": 0.5, "backbone": "resnet18"}
    with pytest.raises(ParameterError, match="did you mean 'epochs'"):
        main(["--config", str(recipe), "-p", "epoch", "3"])


@pytest.mark.parametrize(("content", "kind"), [(None, MissingInputError), ("[1, 2]", InputError), ("{", InputError)])
def test_a_config_that_is_none_is_told_in_one_line(tmp_path, content, kind):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(kind, match="run.json"):
        read_config(path)
