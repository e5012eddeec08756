"""What the jobs of a sweep cost is said before they start: from a few steps here, else from jobs alike."""

from pathlib import Path

import pytest
import yaml
from support.tiny import TINY

from cityscapes.errors import OutOfMemoryError
from dlv3p.experiments import costs, jobs
from dlv3p.experiments.costs import known_costs
from dlv3p.experiments.grid import read_sweep
from dlv3p.experiments.sweep import RunningSweep, main
from dlv3p.parameters.notebooks import SweepParameters
from dlv3p.training.cost import Pace


@pytest.fixture
def write(city, workspace):
    """A function that writes a sweep over the tiny run, with some of its fixed parameters changed."""

    def write(fixed: dict | None = None, **content: object) -> Path:
        path = workspace / "mine.yaml"
        fixed = {**TINY, "data_root": str(city), **(fixed or {})}
        path.write_text(yaml.safe_dump({"fixed": fixed, **content}))
        return path

    return write


@pytest.fixture
def measured(monkeypatch):
    """The trainings whose pace was measured, which says a second a step, none for the rest, and 1024 MiB."""
    seen = []

    def measure(parameters, training, validation):
        seen.append(parameters)
        return Pace(1.0, 0.0, 0.0, 1024.0)

    monkeypatch.setattr(costs, "measure_pace", measure)
    return seen


def test_steps_are_taken_once_for_jobs_of_one_network_crop_and_batch(write, measured, capsys, monkeypatch):
    monkeypatch.setattr("dlv3p.experiments.executors.usable_cores", lambda: 2)
    grid = {"seed": [0, 1], "epochs": [2, 20], "channels": [8, 16]}
    assert main([str(write(grid=grid)), "--dry-run", "--progress", "lines"]) == 0
    waits, *lines, total = (line for line in capsys.readouterr().out.splitlines() if "/2 " not in line)
    assert waits == "taking a few steps, to say what the jobs cost, once for each of 2 networks, crops or batches"
    assert [one.channels for one in measured] == [8, 16]
    assert "  channels=8 epochs=2 seed=0  new  about 6 s, 1.0 GiB of memory, " in lines[0]
    assert "  channels=8 epochs=20 seed=0  new  about 60 s, 1.0 GiB of memory, " in lines[2]
    each = [int(line.rpartition(" MiB of disk")[0].rpartition(" ")[2]) for line in lines]
    assert total.startswith(
        "8 jobs: 0 finished or running elsewhere, 8 to run; about 4 min of work, 2 min with 2 at once"
    )
    assert ", 2.0 GiB of memory, " in total
    assert int(total.rpartition(" MiB of disk")[0].rpartition(" ")[2]) == pytest.approx(sum(each), abs=8)


def test_a_job_that_cannot_fit_is_refused_before_any_of_them_starts(write, monkeypatch):
    def measure(parameters, *_):
        if parameters.channels == 16:
            raise OutOfMemoryError("out of memory: what would fit: less")

    monkeypatch.setattr(costs, "estimate_cost", lambda p, measure: measure(p))
    monkeypatch.setattr(costs, "measure_pace", measure)
    monkeypatch.setattr(costs, "JobCost", lambda *_: None)
    path = write(list=[{"channels": 16}])
    with pytest.raises(
        OutOfMemoryError, match=rf"^sweep {path}: job 1 \(channels=16\): out of memory: what would fit: "
    ):
        main([str(path)])


@pytest.mark.parametrize("options", [{"on": "slurm", "dry_run": True}, {"progress": "none"}])
def test_no_step_is_taken_for_a_cluster_nor_where_nothing_is_shown(write, measured, options):
    assert RunningSweep(SweepParameters(grid=str(write()), **options)).costs == {}
    assert measured == []


def test_elsewhere_the_cost_is_that_of_a_run_alike(trained_once, write, monkeypatch, capsys):
    monkeypatch.setenv("DLV3P_WORKSPACE", str(trained_once[0]))
    fixed, seconds = {"image_scale": 0.5, "epochs": 10_000}, {}
    for name, changes in {"alike": {}, "other": {"channels": 16}}.items():
        found = read_sweep(write({**fixed, **changes}, grid={"seed": [7, 8]})).jobs
        known = known_costs(found, {job.number: jobs.read_job(job) for job in found})
        seconds[name] = {number: cost.seconds for number, cost in known.items()}
    epoch = trained_once[1].history[0]["seconds"], trained_once[1].history[1]["seconds"]
    assert seconds["alike"] == dict.fromkeys((1, 2), pytest.approx(10_000 * sum(epoch) / 2))
    assert seconds["other"] == {}
    assert main([str(write(fixed)), "--dry-run", "--on", "slurm"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert "  new  about " in first
    assert last.endswith(" of work")
