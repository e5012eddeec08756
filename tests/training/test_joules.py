"""The energy of each epoch stands in metrics.csv where a counter could be read from its beginning to its end."""

import time

import pytest
import torch
from support.tiny import tiny

from dlv3p.pictures import curves
from dlv3p.profiling import energy
from dlv3p.profiling.energy import EnergyMeter
from dlv3p.runs.check import check_run
from dlv3p.runs.listing import read_history
from dlv3p.train import train
from dlv3p.training.progress import TrainingProgress


class Meter:
    """A machine that has taken `total` joules."""

    source, limit_watts, total = "a counter", None, 1000.0

    def joules(self):
        return self.total


def begun_epoch(machine, saved=None):
    """The progress of a run of two epochs of two steps, with a step of 40 joules behind it."""
    meter = EnergyMeter([machine], clock=lambda: machine.total)
    progress = TrainingProgress(2, torch.device("cpu"), steps=4, steps_per_epoch=2, meter=meter)
    if saved:
        progress.load_state_dict(saved)
    progress.begin_epoch()
    machine.total += 40
    progress.add_step(rate=1.0, data_wait=0.0)
    return progress


def test_the_energy_of_an_epoch_counts_what_came_before_a_resumption_and_nothing_between():
    machine = Meter()
    saved = begun_epoch(machine).state_dict()
    machine.total += 7000  # while nobody trained
    progress = begun_epoch(machine, saved)
    machine.total += 5  # a validation
    progress.close_epoch(None, learning_rate=0.1)
    assert progress.history[0]["joules"] == pytest.approx(40 + 40 + 5)


def test_an_epoch_that_was_not_measured_from_its_beginning_states_no_energy():
    machine = Meter()
    saved = begun_epoch(machine).state_dict()
    del saved["sums"]["joules"]  # as an earlier version saved it
    progress = begun_epoch(machine, saved)
    progress.close_epoch(None, learning_rate=0.1)
    assert "joules" not in progress.history[0]
    progress.begin_epoch()
    machine.total += 30
    progress.add_step(rate=1.0, data_wait=0.0)
    progress.close_epoch(None, learning_rate=0.1)
    assert progress.history[1]["joules"] == pytest.approx(30)


def test_a_training_writes_the_joules_of_each_epoch_and_its_curves_can_be_drawn_over_them(city, workspace, monkeypatch):
    monkeypatch.setattr(Meter, "joules", lambda self: 100 * time.monotonic())
    monkeypatch.setattr(energy, "open_rapl", Meter)
    result = train(tiny(city, run="measured"))
    for row in result.history:
        assert row["joules"] == pytest.approx(100 * row["seconds"], abs=15)  # a reading may be 0.1 s old
    assert read_history(result.folder / "metrics.csv") == result.history
    assert not [found for found in check_run(result.folder)[0] if found.is_error]
    table = curves.read_metrics(["measured"])
    assert table.joules.max() == pytest.approx(sum(row["joules"] for row in result.history))
    assert curves.plot_curves(table, over="joules").axes[0].get_xlabel() == "joules"
