"""Small data is named before training, a validation loss out of proportion when it comes, and what to do at the end."""

import csv
import math
from pathlib import Path

import pytest
import torch
from support.tiny import tiny

from cityscapes.workspace import NOTEBOOKS
from dlv3p.train import train
from dlv3p.training.callbacks import Hints
from dlv3p.training.progress import TrainingProgress, TrainingResult


def hints(capsys, *rows, epochs=10, steps=20, first=1, given=0):
    """What is printed for a training of so many epochs and steps an epoch, with such losses."""
    callback = Hints(steps=given)
    callback.on_start(epochs, steps, first)
    for train_loss, val_loss in rows:
        callback.on_epoch({"epoch": 1, "train_loss": train_loss, "val_loss": val_loss})
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("epochs", "steps", "given"), [(4, 12, 0), (100, 2, 0), (1, 1, 0), (10, 20, 49)])
def test_few_steps_are_said_before_training_with_what_helps(capsys, epochs, steps, given):
    (line,) = hints(capsys, epochs=epochs, steps=steps, given=given)
    assert line.startswith(f"note: {given or epochs * steps} steps in all, {steps} per epoch, are few ")
    assert "initial_weights='imagenet'" in line
    assert "norm='frozen'" in line
    assert "norm='group'" in line


def test_enough_steps_and_a_resumed_run_get_no_hint(capsys):
    assert hints(capsys, epochs=10, steps=5) == []
    assert hints(capsys, epochs=2, steps=2, first=2) == []


@pytest.mark.parametrize(("warmup", "said"), [(24, True), (13, True), (12, False), (0, False)])
def test_a_warmup_that_takes_most_of_a_training_is_said_before_it(capsys, warmup, said):
    callback = Hints(warmup_steps=warmup)
    callback.on_start(6, 4)
    lines = [line for line in capsys.readouterr().out.splitlines() if "warmup_steps" in line]
    assert len(lines) == said
    assert all(line.startswith(f"note: warmup_steps={warmup} of 24 steps in all: ") for line in lines)
    assert all(line.endswith("What helps: warmup_steps=2, or more epochs") for line in lines)


def test_a_validation_loss_out_of_proportion_is_explained_once(capsys):
    first, *others = hints(capsys, (0.8, 4305.0), (0.7, 900.0))
    assert others == []
    assert first.startswith("note: the validation loss is 4.3e+03 beside a training loss of 0.8. Validation uses batch")
    assert hints(capsys, (0.8, 9.9), (2.0, 19.0), (0.5, math.nan)) == []


def test_a_training_on_a_few_images_says_so_in_its_first_line(city: Path, workspace: Path, capsys):
    train(tiny(city, run="few", progress="lines"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("note: 6 steps in all, 3 per epoch, are few")
    assert any(line.startswith("epoch 1/2  ") for line in lines[1:])


@pytest.mark.parametrize(
    ("score", "classes", "learned"),
    [(0.11, 19, True), (0.10, 19, False), (0.67, 3, True), (0.66, 3, False), (0.76, 2, True), (0.5, 2, False)],
)
def test_nothing_learned_says_what_to_do(score, classes, learned):
    """Of two classes, 2 / classes would be a score that no network reaches."""
    result = TrainingResult("run", Path("saved/run"), [{"train_loss": 2.5}], 1, score)
    assert result.learned(classes) is learned
    advice = result.advice(classes)
    assert bool(advice) is not learned
    if advice:
        assert advice.startswith("What to do: ")
        assert "ended at 2.5" in advice


def test_the_next_steps_name_the_run(monkeypatch):
    monkeypatch.chdir(NOTEBOOKS)
    steps = TrainingResult("mine", Path("saved/mine"), [], 1, 0.5).next_steps.splitlines()
    assert all(line.startswith("# ") for line in steps[::2])
    assert [line.split() for line in steps[1:4:2]] == [
        ["papermill", "evaluate.ipynb", "-p", "run", "mine"],
        ["papermill", "visualize_training.ipynb", "-p", "runs", "mine"],
    ]


@pytest.fixture
def best_first(monkeypatch):
    """Validations whose score falls from the first epoch on."""
    from dlv3p.training import validation

    genuine, scores = validation.validate, iter(0.9 - 0.01 * number for number in range(100))
    monkeypatch.setattr(validation, "validate", lambda *a, **k: genuine(*a, **k) | {"mIoU": next(scores)})


def epochs_of(result):
    with open(result.folder / "metrics.csv") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(("scores", "best"), [([0.1, 0.3, 0.2], 2), ([math.nan, math.nan, math.nan], 3)])
def test_the_best_epoch_has_the_highest_score_or_where_nothing_is_labeled_is_the_last(scores, best, tmp_path):
    progress = TrainingProgress(2, torch.device("cpu"), steps=3, steps_per_epoch=1)
    for score in scores:
        progress.begin_epoch()
        progress.add_step(rate=1.0, data_wait=0.0)
        improved = progress.close_epoch({"loss": 0.7, "mIoU": score}, learning_rate=0.1)
        assert improved == (progress.best_epoch == progress.history[-1]["epoch"])
    assert progress.finished
    assert progress.result(tmp_path).best_epoch == best


def test_patience_ends_a_run_that_gets_no_better_and_says_so(city, workspace, best_first):
    result = train(tiny(city, run="early", epochs=9, patience=2))
    assert epochs_of(result) == [1, 2, 3]
    assert result.summary.endswith("at epoch 1; ended after epoch 3 of 9, patience=2")
    assert (result.folder / "model.safetensors").is_file()


def test_patience_counts_validations_and_a_finished_run_stays_finished(city, workspace, best_first):
    parameters = tiny(city, run="every_other", epochs=9, patience=1, validate_every=2)
    assert epochs_of(train(parameters)) == [1, 2, 3, 4]
    assert epochs_of(train(parameters)) == [1, 2, 3, 4]


def test_a_run_that_its_patience_ended_is_complete_and_one_that_was_cut_is_not(city, workspace, best_first):
    from dlv3p.runs.check import check_run
    from dlv3p.runs.record import is_complete, read_record

    result = train(tiny(city, run="early", epochs=9, patience=2))
    assert [finding for finding in check_run(result.folder)[0] if finding.is_error] == []
    record = read_record(result.folder / "run.json")
    assert is_complete(record, result.history, result.best_epoch)
    assert not is_complete(record, result.history[:2], result.best_epoch)


def test_until_it_ends_the_run_patience_changes_no_weight(city, workspace):
    from dlv3p.weights.checkpoint import load_checkpoint
    from dlv3p.weights.checksums import weights_sha256

    folders = [train(tiny(city, run=f"p{patience}", patience=patience)).folder for patience in (0, 5)]
    hashes = {weights_sha256(load_checkpoint(folder / "checkpoints" / "last.pt")["model"]) for folder in folders}
    assert len(hashes) == 1
    assert tiny(city, patience=0).run_name == tiny(city).run_name != tiny(city, patience=5).run_name
