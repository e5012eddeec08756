"""Sweeps end with the same weights as runs by hand, wherever they run and whatever is killed on the way."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from support.exactness import outcome
from support.sweeps import ITSELF, PARENT, SEEDS, kill, resumed, saved
from support.tiny import tiny

from dlv3p.experiments.grid import NOTEBOOKS
from dlv3p.experiments.sweep import FailedJobs, main
from dlv3p.jupyter.stored_outputs import complaints
from dlv3p.train import train


def sweep_with_a_kill(path: Path, workspace: Path, by_hand: list, seeds: tuple[int, ...], capsys) -> None:
    """Sweep, a job killed in the middle, and again: the killed one is resumed, the others are left as they are."""
    kill(workspace, 1, ITSELF)
    with pytest.raises(FailedJobs, match=rf"^1 of {len(seeds)} jobs failed; to run them again: dlv3p sweep {path}$"):
        main([str(path)])
    shown = capsys.readouterr().out
    assert "job 2 (seed=1) failed: killed by SIGKILL, most likely because memory ran out" in shown
    first = workspace / "outputs" / "tiny-0" / "trainer_seed=0.ipynb"
    before = first.read_bytes()
    assert main([str(path)]) == 0
    assert (
        f"{len(seeds)} jobs: {len(seeds) - 1} finished or running elsewhere, 1 to run; about" in capsys.readouterr().out
    )
    assert first.read_bytes() == before
    assert resumed(workspace, 0) == []
    assert resumed(workspace, 1) == [3]
    assert saved(workspace, seeds) == by_hand[: len(seeds)]
    for seed in seeds:
        assert (workspace / "saved" / f"tiny-{seed}" / "train.ipynb").is_file()
    assert main([str(path), "--dry-run"]) == 0
    assert f"{len(seeds)} jobs: {len(seeds)} finished or running elsewhere, 0 to run\n" in capsys.readouterr().out


def test_a_job_that_is_killed_is_resumed_to_the_same_weights(by_hand, workspace, write_sweep, capsys):
    sweep_with_a_kill(write_sweep(grid={"seed": [0, 1]}), workspace, by_hand, (0, 1), capsys)


@pytest.mark.slow
def test_four_processes_of_which_one_is_killed(by_hand, workspace, write_sweep, capsys):
    sweep_with_a_kill(write_sweep(grid={"seed": list(SEEDS)}), workspace, by_hand, SEEDS, capsys)


@pytest.mark.slow
def test_a_dask_cluster_runs_the_job_of_a_killed_worker_again(by_hand, workspace, write_sweep):
    distributed = pytest.importorskip("distributed", reason="needs the extra cluster")
    path = write_sweep(grid={"seed": list(SEEDS)})
    kill(workspace, 1, PARENT)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        assert main([str(path), "--on", "dask", "--address", cluster.scheduler_address]) == 0
    assert resumed(workspace, 1) == [3]
    assert saved(workspace) == by_hand


@pytest.mark.slow
def test_an_interrupt_lets_running_jobs_save_and_says_how_to_go_on(city, workspace, write_sweep):
    path = write_sweep(grid={"seed": [0, 1]}, fixed={"epochs": 40})
    kill(workspace, 0, PARENT, signal.SIGINT)
    command = [sys.executable, "-m", "dlv3p", "sweep", str(path), "--workers", "1"]
    stopped = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert stopped.returncode == 130, stopped.stdout
    assert (
        stopped.stderr == f"error: sweep stopped with 2 of 2 jobs left; to continue: dlv3p sweep {path} --workers 1\n"
    )
    assert "to resume, epoch" in stopped.stdout
    assert not (workspace / "saved" / "tiny-1").exists()
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (steps,) = resumed(workspace, 0)
    assert 3 <= steps < 120
    again = train(tiny(city, run="by-hand", epochs=40))
    assert outcome(workspace / "saved" / "tiny-0") == outcome(again.folder)


def test_the_notebook_comes_to_its_stored_outputs_in_a_small_sweep(trained_once, workspace, write_sweep, city):
    """One run that is finished, but has no notebook yet, so that nothing is trained."""
    shutil.copytree(trained_once[0] / "saved", workspace / "saved")
    path = write_sweep(fixed={"run": "done", "image_scale": 0.5})
    copy, notebook = workspace / "sweep.ipynb", NOTEBOOKS / "sweep.ipynb"
    options = {"kernel_name": "python3", "progress_bar": False}
    papermill.execute_notebook(notebook, copy, {"grid": str(path)}, **options)
    cells = [nbformat.read(one, as_version=4).cells for one in (copy, notebook)]
    checked = [
        [output.text for cell in of_one if "check" in cell.metadata.get("tags", []) for output in cell.outputs]
        for of_one in cells
    ]
    assert checked[0] == checked[1]
    assert "finished" in checked[0][0]
    assert [found for cell in cells[0] if cell.cell_type == "code" for found in complaints(cell.outputs)] == []
    written = {file.name for file in (workspace / "outputs" / "seeds").iterdir()}
    assert written >= {"results.md", "results.tex", "results.csv", "seeds.png"}
    assert json.loads((workspace / "saved" / "done" / "run.json").read_text())["continued"] == []
