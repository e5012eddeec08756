"""What the jobs of a sweep cost is said before they start: from a few steps or images here, else from jobs alike."""

import itertools
import json
import platform
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from support.tiny import TINY

from cityscapes.errors import OutOfMemoryError, ParameterError
from dlv3p.experiments import costs, least_costs
from dlv3p.experiments.sweep import RunningSweep, main
from dlv3p.parameters.notebooks import SweepParameters
from dlv3p.runtime.lines import format_duration
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


def test_no_step_is_taken_where_nothing_is_shown(write, measured):
    assert RunningSweep(SweepParameters(grid=str(write()), progress="none")).costs == {}
    assert measured == []


@pytest.mark.parametrize("on", ["slurm", "dask"])
def test_for_a_cluster_the_same_is_measured_on_this_machine_and_says_so(write, measured, on, capsys):
    assert main([str(write({"device": "cuda"}, grid={"seed": [0, 1]})), "--dry-run", "--on", on]) == 0
    *_, first, second, total = capsys.readouterr().out.splitlines()
    assert "  seed=0  new  about 6 s, 1.0 GiB of memory, " in first
    assert "; about 12 s of work, 1.0 GiB of memory, " in total
    assert [one.device for one in measured] == ["auto"]
    assert total.endswith(
        f" (memory of one job); measured on this machine, {platform.node()}, of which the cluster's may differ"
    )


def test_a_cluster_without_an_address_is_refused_before_anything_is_measured(write, measured):
    with pytest.raises(ParameterError, match="on='dask': needs the address of its scheduler"):
        main([str(write()), "--on", "dask"])
    assert measured == []


def test_what_does_not_fit_this_machine_is_not_refused_for_a_cluster(write, monkeypatch, capsys):
    def measure(*_):
        raise OutOfMemoryError("out of memory")

    monkeypatch.setattr(costs, "measure_pace", measure)
    monkeypatch.setattr(costs, "predict_bytes", lambda *_: 40 * 2**30)
    assert main([str(write()), "--dry-run", "--on", "slurm"]) == 0
    *_, first, total = capsys.readouterr().out.splitlines()
    assert "  new  time unknown (it does not fit this machine), 40.0 GiB of memory, " in first
    assert "; the time of 1 is unknown until one has run; " in total


def test_elsewhere_the_cost_is_that_of_a_run_alike(trained_once, write, measured, monkeypatch, capsys):
    monkeypatch.setenv("DLV3P_WORKSPACE", str(trained_once[0]))
    fixed, seconds = {"image_scale": 0.5, "epochs": 10_000}, {}
    for name, changes in {"alike": {}, "other": {"channels": 16}}.items():
        path = write({**fixed, **changes}, grid={"seed": [7, 8]})
        known = RunningSweep(SweepParameters(grid=str(path), progress="none")).costs
        seconds[name] = {number: cost.seconds for number, cost in known.items()}
    epoch = trained_once[1].history[0]["seconds"], trained_once[1].history[1]["seconds"]
    assert seconds["alike"] == dict.fromkeys((1, 2), pytest.approx(10_000 * sum(epoch) / 2))
    assert seconds["other"] == {}
    assert main([str(write(fixed)), "--dry-run", "--on", "slurm"]) == 0
    *_, first, _ = capsys.readouterr().out.splitlines()
    assert " (as those that have run), 1.0 GiB of memory, " in first


def uses(path: Path, notebook: str, **fixed: object) -> Path:
    """Write a sweep over a notebook that uses the tiny run."""
    path.write_text(yaml.safe_dump({"notebook": notebook, "fixed": {"run": "done", **fixed}}))
    return path


@pytest.mark.parametrize(
    ("notebook", "fixed", "images"),
    [
        ("evaluate", {"split": "val"}, 3),
        ("save_predictions", {"split": "test"}, 2),
        ("predict", {"images": "{city}/leftImg8bit/test", "threads": 1}, 2),
        ("render_gif", {"images": "{city}/leftImg8bit/train", "frames": 2}, 2),
        ("render_gif", {"split": "val", "frames": 20}, 3),
        ("quantize", {"split": "val", "calibration_images": 4}, 2 * 3 + 4),
    ],
)
def test_what_predicts_at_least_takes_as_long_as_its_images(
    trained_once, city, tmp_path, monkeypatch, capsys, notebook, fixed, images
):
    monkeypatch.setenv("DLV3P_WORKSPACE", str(trained_once[0]))
    monkeypatch.setattr(least_costs, "time", SimpleNamespace(perf_counter=itertools.count(0, 10).__next__))
    fixed = {name: value.format(city=city) if name == "images" else value for name, value in fixed.items()}
    path = uses(tmp_path / "uses.yaml", notebook, **{"device": "cpu"} | fixed)
    assert main([str(path), "--dry-run"]) == 0
    *_, first, total = capsys.readouterr().out.splitlines()
    seconds = format_duration(10 * images)
    assert f"new  at least {seconds} (by a few images, as if none were done), 1.3 GiB of memory, 1 MiB" in first
    assert f"; at least {seconds} of work, {seconds} with 1 at once, 1.3 GiB of memory, 1 MiB of disk" in total


def test_a_profile_at_least_takes_its_passes_of_which_those_of_the_smallest_case_are_timed(
    trained_once, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DLV3P_WORKSPACE", str(trained_once[0]))
    monkeypatch.setattr(least_costs, "time", SimpleNamespace(perf_counter=itertools.count(0, 10).__next__))
    monkeypatch.setattr(least_costs, "count_macs", lambda build, height, width: {"total": height * width})
    cases = {"sizes": "64x128 128x128", "batch_sizes": "1 2", "output_strides": "16", "warmup": 1, "repeats": 2}
    assert main([str(uses(tmp_path / "uses.yaml", "profile", device="cpu", **cases)), "--dry-run"]) == 0
    first, _ = capsys.readouterr().out.splitlines()
    seconds = format_duration(10 * 3 * (1 + 2 + 2 + 4))
    assert f"  new  at least {seconds} (by a few images, as if none were done), 1.0 GiB of memory" in first


def test_what_fine_tunes_takes_steps_as_if_it_were_dense_once_for_all_and_is_not_refused(
    trained_once, tmp_path, monkeypatch, measured, capsys
):
    monkeypatch.setenv("DLV3P_WORKSPACE", str(trained_once[0]))
    jobs = [{"pruned_run": f"p{epochs}", "epochs": epochs} for epochs in (3, 30)]
    path = tmp_path / "uses.yaml"
    path.write_text(yaml.safe_dump({"notebook": "prune", "fixed": {"run": "done"}, "list": jobs}))
    assert main([str(path), "--dry-run", "--progress", "none"]) == 0
    first, second, _ = capsys.readouterr().out.splitlines()
    on_top = "(to fine-tune, if it were dense; scoring and timing come on top), 1.0 GiB of memory"
    assert f"  new  about {format_duration(9)} {on_top}" in first
    assert f"  new  about {format_duration(90)} {on_top}" in second
    assert [(one.run, bool(one.teacher)) for one in measured] == [("p3", True)]

    def refuse(*_):
        raise OutOfMemoryError("out of memory")

    monkeypatch.setattr(costs, "measure_pace", refuse)
    assert main([str(path), "--dry-run", "--progress", "none"]) == 0
    assert "  new  time unknown (no prune.ipynb was executed here to its end, " in capsys.readouterr().out


def test_the_story_takes_as_long_as_its_training(workspace, tmp_path, measured, capsys):
    path = tmp_path / "story.yaml"
    path.write_text(yaml.safe_dump({"notebook": "quickstart", "fixed": {"epochs": 1}}))
    assert main([str(path), "--dry-run", "--progress", "none"]) == 0
    assert " (to train; what it shows comes on top), 1.0 GiB of memory" in capsys.readouterr().out
    assert [one.epochs for one in measured] == [1]


def test_one_job_is_not_divided_by_how_many_had_room(write, measured, monkeypatch, capsys):
    monkeypatch.setattr("dlv3p.experiments.executors.usable_cores", lambda: 8)
    assert main([str(write(list=[{"epochs": 2}, {"epochs": 20}])), "--dry-run", "--progress", "none"]) == 0
    total = capsys.readouterr().out.splitlines()[-1]
    assert f"; about {format_duration(66)} of work, {format_duration(60)} with 2 at once, 2.0 GiB of memory" in total


def test_any_other_notebook_takes_as_long_as_it_last_did_or_says_that_nothing_is_known(
    trained_once, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    shutil.copytree(trained_once[0] / "saved", tmp_path / "saved")
    path = tmp_path / "uses.yaml"
    path.write_text(yaml.safe_dump({"notebook": "explore_predictions"}))
    assert main([str(path), "--dry-run"]) == 0
    first, total = capsys.readouterr().out.splitlines()
    unknown = (
        "  new  time unknown (no explore_predictions.ipynb was executed here to its end, from which it would follow)"
    )
    assert unknown in first
    assert total.endswith("; the time of 1 is unknown until one has run")
    for name, facts in {"demo": {"exception": None}, "failed": {"exception": True}}.items():
        facts |= {"input_path": "notebooks/explore_predictions.ipynb", "duration": 70.0}
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / "7_explore.ipynb").write_text(json.dumps({"metadata": {"papermill": facts}}))
    assert main([str(path), "--dry-run"]) == 0
    assert "  new  about 70 s (as outputs/demo/7_explore.ipynb took)  " in capsys.readouterr().out
