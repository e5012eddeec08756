"""The demo says how long it will take, from steps measured on this machine, and which picture to open first."""

import re

import pytest

from dlv3p.jupyter import demo, estimate
from dlv3p.jupyter.estimate import Estimate, estimate_demo, finished_epochs
from dlv3p.parameters.training import TrainParameters

SMALL = {"backbone": "mobilenet_v2", "channels": 8, "crop_height": 33, "crop_width": 33, "batch_size": 2, "threads": 1}


def test_the_estimate_is_of_steps_measured_here(workspace, monkeypatch):
    found = estimate_demo(TrainParameters(**SMALL, epochs=3))
    assert found.steps == 240
    assert 0 < found.step_seconds < 10
    monkeypatch.setattr(estimate, "step_seconds", lambda parameters: 0.2)
    slow, fast = Estimate(0.4, 1040), estimate_demo(TrainParameters())
    assert fast.step_seconds == 0.2
    assert slow.minutes == pytest.approx(2 * Estimate(0.2, 1040).minutes)
    assert str(Estimate(0.2, 1040)) == (
        "about 6 minutes, 4 of them to train: a training step takes 0.20 s here, measured just now; "
        "other running programs slow it down"
    )


def test_finished_epochs_are_not_counted_again(workspace, monkeypatch):
    monkeypatch.setattr(estimate, "step_seconds", lambda parameters: 0.2)
    parameters = TrainParameters()
    assert finished_epochs(parameters.run_name) == 0
    metrics = workspace / "saved" / parameters.run_name / "metrics.csv"
    metrics.parent.mkdir(parents=True)
    metrics.write_text("epoch\n" + "1\n" * (parameters.epochs - 1))
    assert estimate_demo(parameters).steps == 40
    metrics.write_text("epoch\n" + "1\n" * parameters.epochs)
    assert str(estimate_demo(parameters)).startswith("about 1 minute, since the run is trained already: ")


def test_the_demo_names_minutes_first_and_the_picture_to_open_last(workspace, monkeypatch, capsys):
    monkeypatch.setattr(estimate, "step_seconds", lambda parameters: 0.2)

    def stages():
        yield "train", workspace / "outputs" / "demo" / "2_train.ipynb", 60.0

    monkeypatch.setattr(demo, "run_stages", stages)
    assert demo.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("about ")
    assert lines[lines.index("Done in 1.0 minutes. Open this picture first:") + 1].endswith("/examples.png")
    assert re.search(r"saved/\S+/ +checkpoints", lines[-1])


def test_the_first_picture_is_one_that_evaluate_writes():
    notebook = (demo.NOTEBOOKS / "evaluate.ipynb").read_text(encoding="utf-8")
    assert f'evaluation.path(\\"{demo.FIRST_PICTURE}\\")' in notebook
