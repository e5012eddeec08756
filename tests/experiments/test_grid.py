"""A sweep's file becomes jobs, and every mistake in it is one line before any of them starts."""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import yaml

from cityscapes.errors import BusyError, InputError, MachineError, MissingInputError, ParameterError, StoppedError
from cityscapes.files.locks import lock_folder
from dlv3p.experiments import costs, executors, jobs, process
from dlv3p.experiments.grid import NOTEBOOKS, read_sweep
from dlv3p.experiments.jobs import JobState
from dlv3p.experiments.process import Outcome, command, run_job
from dlv3p.experiments.sweep import FailedJobs, RunningSweep, main
from dlv3p.parameters.notebooks import SweepParameters

CPU = {"device": "cpu", "threads": 1}


@pytest.fixture(autouse=True)
def untried(monkeypatch):
    """No step is taken; test_job_costs.py has what the steps say."""
    monkeypatch.setattr(costs, "tried_costs", lambda *_, **__: {})


@pytest.fixture
def sweep(tmp_path, workspace):
    """A function that writes a sweep with these keys, and returns its path."""

    def write(**content: object) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"fixed": CPU, **content}, sort_keys=False))
        return path

    return write


def test_a_grid_is_every_combination_and_a_list_is_combined_with_it(sweep):
    path = sweep(grid={"seed": [0, 1]}, list=[{"backbone": "resnet18"}, {"channels": 32, "epochs": 2}])
    read = read_sweep(path)
    assert [dict(job.varied) for job in read.jobs] == [
        {"backbone": "resnet18", "seed": 0},
        {"backbone": "resnet18", "seed": 1},
        {"channels": 32, "epochs": 2, "seed": 0},
        {"channels": 32, "epochs": 2, "seed": 1},
    ]
    assert read.varied == ["backbone", "seed", "channels", "epochs"]
    assert all(job.values["device"] == "cpu" for job in read.jobs)
    assert len({job.run for job in read.jobs}) == 4
    assert [job.copy.name for job in read.jobs][3] == "train_channels=32_epochs=2_seed=1.ipynb"
    assert [job.copy.parent.name for job in read.jobs] == [job.run for job in read.jobs]


def test_a_recipe_is_what_the_sweep_starts_from(sweep):
    (job,) = read_sweep(
        sweep(
            recipe="cityscapes_deeplabv3plus_resnet50_os16.yaml",
            fixed={**CPU, "data_root": "demo_city", "initial_weights": "random"},
        )
    ).jobs
    assert job.parameters.backbone == "resnet50"
    assert job.parameters.threads == 1


def test_any_notebook_can_be_swept_and_its_copies_go_to_the_sweep_where_there_is_no_run(sweep):
    read = read_sweep(sweep(notebook="architecture", fixed={}, grid={"backbone": ["resnet18", "mobilenet_v2"]}))
    assert [job.copy.relative_to(read.folder.parent).as_posix() for job in read.jobs] == [
        "mine/architecture_backbone=resnet18.ipynb",
        "mine/architecture_backbone=mobilenet_v2.ipynb",
    ]


def test_names_of_parameters_in_braces_name_the_run(sweep):
    read = read_sweep(sweep(fixed={**CPU, "run": "os{output_stride}-{seed}"}, grid={"seed": [3, 4]}))
    assert [job.run for job in read.jobs] == ["os16-3", "os16-4"]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ({"gird": {}}, ParameterError, r"unknown key 'gird': allowed are notebook, .*did you mean 'grid'\?"),
        (
            {"notebook": "trian"},
            MissingInputError,
            r"notebook='trian': .* did you mean train\? Allowed are architecture,",
        ),
        ({"notebook": "sweep"}, MissingInputError, "notebook='sweep': no notebook that a sweep can run"),
        ({"grid": {"sead": [1]}}, ParameterError, r"job 1 \(sead=1\): unknown parameter 'sead': did you mean 'seed'\?"),
        ({"grid": {"seed": [1, "two", "three"]}}, ParameterError, r"job 2 \(seed=two\): .*of 3 jobs, 2 are wrong"),
        ({"grid": {"seed": []}}, ParameterError, "grid.seed is .*give one value or more, each once"),
        ({"grid": {"seed": [1, 1]}}, ParameterError, "grid.seed is .*give one value or more, each once"),
        ({"grid": [1]}, ParameterError, "grid is .*; give lines of 'name: value' below it"),
        ({"list": {"seed": 1}}, ParameterError, "list is .*; give entries"),
        ({"grid": {"seed": [1]}, "list": [{"seed": 2}]}, ParameterError, "seed is in both grid and list"),
        ({"grid": {"threads": [1, 2]}}, ParameterError, r"jobs 1 \(threads=1\) and 2 \(threads=2\) are one: .*'mine-"),
        ({"fixed": {"run": "x"}, "grid": {"seed": [1, 2]}}, ParameterError, r"2 \(seed=2\) would both be called x;"),
        ({"fixed": {"initial_weights": ""}}, ParameterError, "initial_weights='': allowed are 'random'"),
        ({"fixed": {"run": "{sead}"}, "grid": {"seed": [1]}}, ParameterError, "'sead' is no parameter"),
        ({"fixed": {"run": "{seed.real}"}}, ParameterError, "'seed.real' is no parameter"),
        ({"fixed": {"run": "{seed:>99999}"}}, ParameterError, "'>99999' is too long; write as in"),
        ({"fixed": {"run": "{seed:.1q}"}}, ParameterError, "run='{seed:.1q}': .*; write as in 'mine-{seed}'"),
        ({"fixed": {"run": "{seed"}}, ParameterError, "run='{seed': .*; write as in 'mine-{seed}'"),
        ({"fixed": {"data_root": "/none"}}, MissingInputError, r"job 1 \(train\): data_root='/none': no such folder"),
        ({"notebook": "render_gif", "fixed": {"data_root": "/none"}}, MissingInputError, "data_root='/none': no such"),
        ({"fixed": {"initial_weights": "none.pt"}}, MissingInputError, "initial_weights='none.pt': no such file"),
        ({"fixed": {"teacher": "none"}}, MissingInputError, "teacher='none'|no run yet"),
        ({"fixed": {"backbone": "timm:none"}}, ParameterError, "timm:none"),
        ({"recipe": "none.yaml"}, MissingInputError, "recipe .*none.yaml: no such file"),
        ({"notebook": "evaluate", "fixed": {"run": "none"}}, MissingInputError, "run='none': no such run|no run yet"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(sweep, workspace, content, kind, message):
    with pytest.raises(kind, match=message) as told:
        main([str(sweep(**content))])
    assert str(told.value).startswith(f"sweep {workspace / 'mine.yaml'}: ")
    assert "\n" not in str(told.value)
    assert sorted(path.name for path in workspace.iterdir()) == ["mine.yaml"]


def test_a_tracker_that_is_not_installed_is_told_before_anything_starts(sweep, workspace, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(MachineError, match=r"job 1 \(seed=0\): tracker='trackio' needs trackio; .* 2 are wrong$"):
        read_sweep(sweep(fixed={"tracker": "trackio"}, grid={"seed": [0, 1]}))


def test_what_is_no_sweep_is_one_line(tmp_path, workspace):
    with pytest.raises(MissingInputError, match="sweep .*none.yaml: no such file"):
        read_sweep(tmp_path / "none.yaml")
    (tmp_path / "torn.yaml").write_text("fixed: {device: cpu}\ngrid:\n  seed: [7, 8\nlist: []\n")
    with pytest.raises(InputError, match=r"torn.yaml: cannot be read as JSON or YAML: line 4, column 5: expected ','"):
        read_sweep(tmp_path / "torn.yaml")
    (tmp_path / "text.yaml").write_text("just text")
    with pytest.raises(InputError, match="holds no sweep; its keys are notebook, recipe"):
        read_sweep(tmp_path / "text.yaml")


def test_a_run_with_other_parameters_is_refused_before_anything_starts(trained_once, monkeypatch, tmp_path):
    monkeypatch.setenv("DLV3P_WORKSPACE", str(trained_once[0]))
    (tmp_path / "mine.yaml").write_text("fixed: {run: done, epochs: 3, device: cpu}")
    with pytest.raises(ParameterError, match="run='done' was trained with .*choose another run name"):
        read_sweep(tmp_path / "mine.yaml")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("sweeps/*.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_that_come_with_the_notebooks_are_valid(path, workspace):
    assert len(read_sweep(path).jobs) == 4


def test_the_command_of_a_job_is_what_a_person_would_type(sweep):
    (job,) = read_sweep(
        sweep(notebook="profile", fixed={"output_strides": [8, 16], "energy_seconds": 0.0, "sizes": "64x64"})
    ).jobs
    assert command(job)[3:] == ["-p", "output_strides", "8 16", "-p", "energy_seconds", "0.0", "-r", "sizes", "64x64"]


def test_as_many_jobs_run_at_once_as_their_threads_leave_room_for(sweep, monkeypatch):
    monkeypatch.setattr(executors, "usable_cores", lambda: 8)
    at_once = lambda **fixed: executors.jobs_at_once(read_sweep(sweep(fixed={**CPU, **fixed})).jobs)  # noqa: E731
    assert at_once(threads=2) == 4
    assert at_once(threads=2, processes=2) == 2
    assert at_once(threads=16) == 1
    mib = psutil.virtual_memory().available / 2**20
    few = read_sweep(sweep(fixed=CPU)).jobs
    assert [executors.jobs_at_once(few, memory_mib=part * mib) for part in (0.3, 0.6, 2.0)] == [3, 1, 1]


def test_each_job_has_a_gpu_of_its_own(sweep, monkeypatch):
    read = read_sweep(sweep(fixed={"device": "auto"}, grid={"seed": [0, 1, 2]}))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert executors.jobs_at_once(read.jobs) == 2
    with executors.local_processes(2, executors.free_gpus(read.jobs)) as executor:
        barrier = executors.threading.Barrier(2)
        used = list(executor.map(lambda _: (barrier.wait(), process.slot.gpu)[1], range(2)))
    assert sorted(used) == ["2", "5"]
    assert executors.free_gpus(read_sweep(sweep()).jobs) == []


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(sweep, workspace, capsys):
    assert main([str(sweep(grid={"seed": [0, 1]})), "--dry-run"]) == 0
    first, _, last = capsys.readouterr().out.splitlines()
    assert first.startswith("   1  seed=0  new  cost unknown  deeplabv3plus-mobilenet_v2-os16-")
    assert last == "2 jobs: 0 finished or running elsewhere, 2 to run; the time of 2 is unknown until one has run"
    assert [path.name for path in workspace.iterdir()] == ["mine.yaml"]


@pytest.fixture
def prepared(monkeypatch):
    """No data is drawn."""
    monkeypatch.setattr(jobs, "prepare_data", lambda waiting: None)


def test_what_failed_is_listed_with_its_line_and_the_others_go_on(sweep, prepared, monkeypatch, capsys):
    def run(job, stop):
        return Outcome(job.number, 2 if job.number == 2 else 0, "seed=1: no such thing" * (job.number == 2), 1.0)

    monkeypatch.setattr(process, "run_job", run)
    with pytest.raises(FailedJobs, match=r"^1 of 3 jobs failed; to run them again: dlv3p sweep .*mine.yaml$"):
        main([str(sweep(grid={"seed": [0, 1, 2]}))])
    shown = capsys.readouterr().out
    assert "\njob 2 (seed=1) failed: seed=1: no such thing\n" in shown
    assert shown.count(" failed") >= 2


def test_the_table_shows_what_is_varied_as_it_was_given_and_no_nan(sweep, prepared):
    """To three decimals, 0.0006 would read 0.001."""
    running = RunningSweep(SweepParameters(grid=str(sweep(grid={"learning_rate": [0.0006, 2e-7]}))))
    running.outcomes[1] = Outcome(1, 0, "", 9.87)
    shown = running.styled_table().to_html()
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown)
    assert cells[:5] == ["0.0006", "new", "", "9.9", running.sweep.jobs[0].run]
    assert cells[5:9] == ["2e-07", "new", "", ""]


def test_a_second_sweep_of_that_name_is_refused_before_anything_is_measured(sweep, workspace, monkeypatch, capsys):
    """It would run the same jobs, and remove the file that stops the first."""
    path, folder = sweep(grid={"seed": [0, 1]}), workspace / "outputs" / "mine"
    begun = RunningSweep(SweepParameters(grid=str(path)))  # before the first has its folder
    monkeypatch.setattr(costs, "tried_costs", lambda *_, **__: pytest.fail("was measured"))
    monkeypatch.setattr(jobs, "prepare_data", lambda waiting: pytest.fail("has begun"))
    message = rf"^sweep {path}: process {os.getpid()} on .* is running it; wait for it, or stop it, by Ctrl-C there or "
    with lock_folder(folder):
        (folder / "stop").touch()
        with pytest.raises(BusyError, match=message):
            main([str(path)])
        with ThreadPoolExecutor(1) as executor, pytest.raises(BusyError, match=message):
            list(begun.finish(executor))
        assert (folder / "stop").exists()
        monkeypatch.setattr(costs, "tried_costs", lambda *_, **__: {})
        assert main([str(path), "--dry-run"]) == 0


def test_a_run_that_another_process_trains_has_not_failed_and_one_that_it_finished_stays(
    sweep, prepared, workspace, monkeypatch, capsys
):
    def wait(process, stop):
        process.communicate()
        return BusyError.exit_status

    path = sweep(grid={"seed": [0, 1]})
    first, second = read_sweep(path).jobs
    running = RunningSweep(SweepParameters(grid=str(path), progress="none"))
    finished = {first.number: JobState("running elsewhere"), second.number: JobState("finished")}
    monkeypatch.setattr(jobs, "read_job", lambda job: finished[job.number])
    monkeypatch.setattr(process, "read_job", lambda job: finished[job.number])
    monkeypatch.setattr(process, "_wait", wait)
    monkeypatch.setattr(process, "START", "")
    with ThreadPoolExecutor(1) as executor:
        assert {outcome.number: outcome.status for outcome in running.finish(executor)} == {1: 7, 2: 0}
    assert (running.failed, running.report()) == ([], [])
    assert list(running.table()["state"]) == ["running elsewhere", "finished"]
    assert list(first.copy.parent.iterdir()) == []
    assert not second.copy.parent.exists()
    running.raise_for_end()


def test_an_executor_that_loses_a_job_fails_that_job_alone(sweep, prepared, workspace):
    class Losing(ThreadPoolExecutor):
        def submit(self, *_: object) -> Future:
            future: Future = Future()
            future.set_exception(RuntimeError("gone"))
            return future

    running = RunningSweep(SweepParameters(grid=str(sweep(grid={"seed": [0, 1]}))))
    with Losing(1) as executor:
        assert [outcome.status for outcome in running.finish(executor)] == [4, 4]
    assert running.report()[0] == "job 1 (seed=0) failed: the executor lost it (RuntimeError: gone)"
    assert (workspace / "outputs" / "mine" / "jobs.csv").read_text().count("failed") == 2


def test_an_interrupt_tells_the_running_job_and_keeps_the_others_from_beginning(sweep, prepared, monkeypatch, capsys):
    def run(job, stop):
        if stop.exists():
            return Outcome(job.number, process.NOT_BEGUN, "", 0.0)
        os.kill(os.getpid(), signal.SIGINT)
        while not stop.exists():
            pass
        return Outcome(job.number, 130, "", 1.0)

    monkeypatch.setattr(process, "run_job", run)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(StoppedError, match="to continue: dlv3p sweep .* --workers 1$") as told:
        main([str(sweep(grid={"seed": [0, 1, 2]})), "--workers", "1"])
    assert str(told.value).startswith("sweep stopped with 3 of 3 jobs left; ")
    assert told.value.exit_status == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert "press Ctrl-C again to stop without waiting" in capsys.readouterr().out


@pytest.mark.parametrize("ends", ["echo Aborted!; exit 1", "kill -INT $$"], ids=["papermill", "python"])
def test_a_job_that_is_stopped_before_papermill_listens_has_not_failed(sweep, workspace, monkeypatch, ends):
    (job,) = read_sweep(sweep()).jobs
    stop = workspace / "stop"
    words = ["sh", "-c", f"touch {stop}; {ends}"]
    monkeypatch.setattr(process, "_start", lambda job, log: subprocess.Popen(words, stdout=log, start_new_session=True))
    assert run_job(job, stop).stopped
    assert not job.copy.with_suffix(".log").exists()


def test_a_job_does_not_begin_once_the_sweep_is_stopped(sweep, tmp_path):
    (job,) = read_sweep(sweep()).jobs
    (tmp_path / "stop").touch()
    outcome = run_job(job, tmp_path / "stop")
    assert outcome.status == process.NOT_BEGUN
    assert outcome.stopped
    assert not job.copy.parent.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--address", "tcp://host:1"),
            r"^address='tcp://host:1': belongs to on='dask', and on='local'; leave one out$",
        ),
        (("--on", "slurm", "--workers", "3"), "^workers=3: belongs to on='local'; slurm is limited by .*parallelism"),
        (("--on", "dask", "--address", "tcp://h:1", "--workers", "3"), "; dask is limited by its workers$"),
    ],
)
def test_what_would_change_nothing_there_is_refused(sweep, words, message):
    with pytest.raises(ParameterError, match=message):
        main([str(sweep()), "--dry-run", *words])


@pytest.mark.parametrize(
    ("on", "address", "kind", "message"),
    [
        ("dask", "", ParameterError, "on='dask': needs the address of its scheduler"),
        ("dask", "nonsense", MachineError, "address='nonsense': no Dask scheduler answers"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(tmp_path, monkeypatch, on, address, kind, message):
    pytest.importorskip("distributed", reason="needs the extra cluster")
    monkeypatch.setattr(executors, "CONNECT_SECONDS", 0.2)
    with pytest.raises(kind, match=message), executors.open_executor(on, address=address, folder=tmp_path, slurm={}):
        pass


def test_a_machine_without_slurm_says_so(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="needs the extra slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="on='slurm': Could not detect \"srun\".*has sbatch and srun"):
        executors.SlurmArray(tmp_path, {})
