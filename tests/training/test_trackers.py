"""A tracker gets each step once, also of a run that was stopped; what fails in it ends no training."""

import sys
from types import SimpleNamespace

import pytest
from support.after_steps import Stop, around_each_step
from support.tiny import tiny

from cityscapes.errors import MachineError
from dlv3p.train import train


class Store:
    """A tracker in memory, with the three functions; it counts steps as W&B does: none below the current one."""

    def __init__(self):
        self.rows, self.configs, self.finished, self.current = [], [], 0, 0

    def init(self, *, project, name, config, resume, id):
        assert (project, resume, id) == ("dlv3p", "allow", name)
        self.configs.append(config)
        self.current = self.rows[-1][0] + 1 if self.rows else 0
        return SimpleNamespace(step=self.current)

    def log(self, values, *, step):
        if step >= self.current:
            self.rows.append((step, values))
            self.current = step

    def finish(self):
        self.finished += 1

    def steps(self, name):
        return [step for step, values in self.rows if name in values]


class TrackioStore(Store):
    """A tracker that keeps every step it is given, and knows runs by their names, as Trackio does."""

    def init(self, *, project, name, config, resume, embed):
        assert (project, resume, embed) == ("dlv3p", "allow", False)
        return SimpleNamespace(_next_step=self.rows[-1][0] + 1 if self.rows else 0)

    def log(self, values, *, step):
        self.rows.append((step, values))


def installed(monkeypatch, name, store):
    """Have `import name` find what stands in for a tracker."""
    module = SimpleNamespace(init=store.init, log=store.log, finish=store.finish, __spec__=object(), __name__=name)
    monkeypatch.setitem(sys.modules, name, module)
    return store


@pytest.fixture
def store(monkeypatch):
    """W&B, or what stands in for it."""
    return installed(monkeypatch, "wandb", Store())


def stop_after(patch, steps, *, saved):
    """End runs after so many steps, once or before they are saved."""

    def stop(run):
        if run.progress.done == steps:
            raise Stop

    around_each_step(patch, **{"after" if saved else "before": stop})


def test_a_run_logs_each_step_and_epoch(city, workspace, store):
    result = train(tiny(city, run="a", tracker="wandb"))
    assert store.steps("loss/step") == [1, 2, 3, 4, 5, 6]
    assert store.steps("val_mIoU") == [3, 6]
    assert [values["val_mIoU"] for _, values in store.rows if "val_mIoU" in values] == [
        row["val_mIoU"] for row in result.history
    ]
    assert store.configs[0]["channels"] == 8
    assert store.finished == 1


@pytest.mark.parametrize(("name", "kind"), [("wandb", Store), ("trackio", TrackioStore)])
@pytest.mark.parametrize(("steps", "saved"), [(2, False), (3, True), (4, False), (5, True)])
def test_a_run_that_goes_on_logs_each_step_once(city, workspace, monkeypatch, name, kind, steps, saved):
    store = installed(monkeypatch, name, kind())
    with monkeypatch.context() as patch:
        stop_after(patch, steps, saved=saved)
        with pytest.raises(Stop):
            train(tiny(city, run="a", tracker=name))
    train(tiny(city, run="a", tracker=name))
    assert store.steps("loss/step") == [1, 2, 3, 4, 5, 6]
    assert len(store.steps("epoch")) == 2
    assert store.finished == 2


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_a_tracker_that_fails_ends_its_curves_and_not_the_training(city, workspace, store, capsys, broken):
    def fails(*_, **__):
        raise ConnectionError("no network\nand a long story")

    setattr(sys.modules["wandb"], broken, fails)
    result = train(tiny(city, run="a", tracker="wandb"))
    assert len(result.history) == 2
    told = capsys.readouterr().out
    assert told.count("tracker='wandb' failed, so its curves end here: no network\n") == 1


def test_a_missing_tracker_is_one_line_before_anything_is_trained(city, workspace, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    told = r"tracker='trackio' needs trackio; install with: pip install 'dlv3p\[trackio\]'"
    with pytest.raises(MachineError, match=told):
        train(tiny(city, run="a", tracker="trackio"))
    assert not (workspace / "saved").exists()


def test_a_tracker_changes_neither_the_name_of_a_run_nor_what_it_learns(city, workspace, store):
    assert tiny(tracker="wandb").run_name == tiny().run_name
    weights = [
        (train(tiny(city, run=run, tracker=tracker)).folder / "model.safetensors").read_bytes()
        for run, tracker in (("same", "none"), ("same2", "wandb"))
    ]
    assert weights[0][-10_000:] == weights[1][-10_000:]


def test_trackio_holds_each_step_of_a_run_that_goes_on_once(city, workspace, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(workspace / "trackio"))  # it is read when the module is imported
    trackio = pytest.importorskip("trackio", reason="Trackio is not installed: pip install trackio")
    with monkeypatch.context() as patch:
        stop_after(patch, 4, saved=False)
        with pytest.raises(Stop):
            train(tiny(city, run="a", tracker="trackio"))
    train(tiny(city, run="a", tracker="trackio"))
    logs = trackio.sqlite_storage.SQLiteStorage.get_logs("dlv3p", "a")
    assert sorted(row["step"] for row in logs if "loss/step" in row) == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in logs if "epoch" in row] == [1, 2]
