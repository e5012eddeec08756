"""Run papermill as users do, on small notebooks: in a terminal, in a pipe, and with a pipe as stdin."""

import asyncio
import json
import os
import pickle
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import nbformat
import papermill
import pytest
from click.testing import CliRunner
from jupyter_client.manager import AsyncKernelManager, start_new_kernel
from nbclient.exceptions import DeadKernelError
from papermill.cli import papermill as papermill_command
from papermill.exceptions import PapermillExecutionError
from support.terminal import in_terminal

from cityscapes.demo.city import write_demo_city
from cityscapes.errors import MachineError, ParameterError
from dlv3p.jupyter import papermill_engine
from dlv3p.jupyter.papermill_engine import (
    DeadKernel,
    FailedNotebook,
    RefusedParameters,
    UnwritableCopy,
    cell_seconds,
)
from dlv3p.jupyter.papermill_signals import KernelSignals, StoppedNotebook
from dlv3p.jupyter.papermill_words import completed
from dlv3p.parameters.training import TrainParameters

ROOT = Path(__file__).parents[2]
PAPERMILL = str(Path(sys.executable).with_name("papermill"))
SHOW = "print(output_stride, type(output_stride).__name__)"
PARAMETERS = "output_stride: int = 16  # 8 or 16\nlearning_rate: float = 0.002\nrun: str = ''"


def write_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    """Write a notebook of the suite: a parameters cell and the given code cells."""
    notebook = nbformat.v4.new_notebook(metadata={"dlv3p": {"parameters": "TrainParameters"}})
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *cells)]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with `notebooks/train.ipynb`, which shows its output stride."""
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    write_notebook(tmp_path / "notebooks" / "train.ipynb", SHOW)
    return tmp_path


def run(*words: str, cwd: Path, **streams: object) -> subprocess.CompletedProcess[str]:
    """Run papermill without a terminal, with an empty pipe as stdin unless told otherwise."""
    streams = streams or {"input": ""}
    return subprocess.run(
        [PAPERMILL, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=120, **streams
    )


def printed(path: Path) -> str:
    """What the last cell of an executed copy printed."""
    return nbformat.read(path, as_version=4).cells[-1].outputs[0].text


def last_line(text: str) -> str:
    """The last line of what a command wrote to stderr."""
    return text.strip().splitlines()[-1]


def test_command_works_as_typed_in_a_terminal(workspace: Path) -> None:
    status, shown = in_terminal(PAPERMILL, "train.ipynb", "-p", "output_stride", "8", cwd=workspace / "notebooks")
    assert status == 0, shown
    copy = workspace / "outputs" / TrainParameters(output_stride=8).run_name / "train.ipynb"
    assert printed(copy) == "8 int\n"
    assert str(copy) in shown


@pytest.mark.parametrize("streams", [{"input": ""}, {"stdin": subprocess.DEVNULL}], ids=["pipe", "null"])
def test_command_works_as_typed_without_a_terminal(workspace: Path, streams: dict[str, object]) -> None:
    notebook = workspace / "notebooks" / "train.ipynb"
    before = notebook.read_bytes()
    result = run("train.ipynb", "-p", "output_stride", "8", cwd=notebook.parent, **streams)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert printed(workspace / "outputs" / TrainParameters(output_stride=8).run_name / "train.ipynb") == "8 int\n"
    assert notebook.read_bytes() == before


def test_an_explicit_path_is_left_alone(workspace: Path) -> None:
    words = "notebooks/train.ipynb outputs/x.ipynb -p output_stride 8 --prepare-only"
    result = run(*words.split(), cwd=workspace)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in (workspace / "outputs").iterdir()] == ["x.ipynb"]
    assert (
        nbformat.read(workspace / "outputs" / "x.ipynb", as_version=4).cells[1].source.endswith("output_stride = 8\n")
    )


MEET = """
import json, os, pathlib, time
from ipykernel import get_connection_info
pathlib.Path(f"../met/{os.getpid()}").touch()
while len(os.listdir("../met")) < 4:
    time.sleep(0.1)
print(json.loads(get_connection_info())["ip"])
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """An empty folder whose name is short enough for a socket in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_four_at_once_in_one_folder_do_not_meet_and_leave_nothing_behind(workspace: Path, temporary: Path) -> None:
    """Each kernel has its own address; with one in the current folder, they would read each other's messages."""
    folder = workspace / "notebooks"
    write_notebook(folder / "train.ipynb", MEET)
    (workspace / "met").mkdir()
    environment = os.environ | {"TMPDIR": str(temporary), "JUPYTER_RUNTIME_DIR": str(workspace / "runtime")}
    words = [[PAPERMILL, "train.ipynb", f"{number}.ipynb", "-p", "output_stride", "8"] for number in range(4)]
    started = [
        subprocess.Popen(each, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for each in words
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0, 0], errors
    addresses = {Path(printed(folder / f"{number}.ipynb").strip()).parent for number in range(4)}
    assert len(addresses) == 4
    assert {address.parent for address in addresses} == {temporary}
    assert sorted(path.name for path in folder.iterdir()) == ["0.ipynb", "1.ipynb", "2.ipynb", "3.ipynb", "train.ipynb"]
    assert list(temporary.iterdir()) == []


def test_python_dash_m_papermill_gets_the_path_too(workspace: Path) -> None:
    words = [sys.executable, "-m", "papermill", "notebooks/train.ipynb", "--prepare-only"]
    subprocess.run(words, cwd=workspace, check=True, input=b"", capture_output=True, timeout=60)
    assert (workspace / "outputs" / TrainParameters().run_name / "train.ipynb").exists()


REFUSED = {
    "unknown": (["-p", "ouput_stride", "8"], ["'ouput_stride'", "'output_stride'"]),
    "value": (["-p", "output_stride", "12"], ["output_stride=12", "8, 16"]),
    "type": (["-r", "output_stride", "8"], ["output_stride='8'", "whole number"]),
    "code": (["-p", "output_stride=8;print", "1"], ["'output_stride=8;print'", "not a parameter name"]),
    "two lines": (["-p", "output_stride\nepochs", "1"], ["not a parameter name"]),
    "not a number": (["-p", "learning_rate", "nan"], ["learning_rate=nan"]),
    "yaml": (["-y", "{learning_rate: 1e-2}"], ["learning_rate='1e-2'", "YAML"]),
}


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_parameter_is_refused_in_one_line(workspace: Path, words: list[str], said: list[str]) -> None:
    copy = workspace / "outputs" / "x.ipynb"
    copy.parent.mkdir()
    copy.write_text("an earlier copy")
    result = CliRunner().invoke(papermill_command, [str(workspace / "notebooks" / "train.ipynb"), str(copy), *words])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert all(part in result.stderr for part in said), result.stderr
    assert copy.read_text() == "an earlier copy"


def test_a_refusal_in_a_terminal_ends_with_its_line(workspace: Path) -> None:
    status, shown = in_terminal(PAPERMILL, "notebooks/train.ipynb", "-p", "ouput_stride", "8", cwd=workspace)
    assert status == 2
    assert last_line(shown).startswith("Error: unknown parameter 'ouput_stride'")
    assert "Traceback" not in shown
    assert not (workspace / "outputs").exists()


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("lr", "learning_rate backbone_rate_factor final_rate_factor"),
        ("bs", "batch_size"),
        ("amp", "precision"),
        ("encoder", "backbone backbone_rate_factor backbone_norm_momentum"),
        ("lerning_rate", "learning_rate final_rate_factor backbone_rate_factor"),
    ],
)
def test_a_misspelled_parameter_names_the_nearest_five_and_no_noise_before_anything_slow_is_loaded(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, typed: str, near: str
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # names every module that any of its processes imports
    status, shown = in_terminal(PAPERMILL, "notebooks/train.ipynb", "-p", typed, "8", cwd=workspace)
    imported = set(re.findall(r"^import time:.*\| +(\S+)\r?$", shown, re.MULTILINE))
    assert "dlv3p.parameters.training" in imported
    assert imported & {"torch", "matplotlib", "numba"} == set()
    assert status == 2
    line = last_line(shown)
    names = near.split()
    assert f"Error: unknown parameter {typed!r}: did you mean {names[0]!r}? " in line
    listed = re.search(r"(?:The nearest are (.*); )?docs/parameters\.md lists all \d+$", line)[1]
    assert (listed.split(", ") if listed else names[:1]) == names
    assert len(names) <= 5
    assert set(names) <= TrainParameters().as_dict().keys()
    assert len(line) < 250


MISSING = {
    "data": ("train", ["data_root", "my_dat"], 3, "data_root='my_dat': no such folder; did you mean '{}/my_data'? "),
    "weights": ("train", ["initial_weights", "a.pth"], 3, "initial_weights='a.pth': no such file; "),
    "run": ("evaluate", ["run", "mien"], 3, "run='mien': no such run; did you mean 'mine'? Existing runs: mine"),
    "a split": ("train", ["val_split", "vall"], 3, "val_split='vall': no such split; did you mean 'val'? {}/data/demo"),
    "a split of a run's data": ("evaluate", ["split", "vall"], 3, "split='vall': no such split; did you mean 'val'? "),
    "a run to watch": (
        "watch",
        ["run", "mien"],
        3,
        "run='mien': no such run in {}/saved; did you mean 'mine'? Existing",
    ),
    "a run to repeat": ("replay", ["run", "mien"], 3, "run='mien': no such run in {}/saved; did you mean 'mine'? Exi"),
    "a city": ("render_gif", ["city", "nix"], 3, "city='nix', sequence='': not in val; choose from eschenwalde 000000"),
    "a sequence": ("render_gif", ["sequence", "7"], 3, "city='', sequence='7': not in val; choose from eschenwalde 0"),
    "one of several runs": (
        "visualize_training",
        ["runs", "mine thine"],
        3,
        "runs='thine': no such run; did you mean ",
    ),
    "a candidate": ("compare_runs", ["candidates", "mine thine"], 3, "candidates='thine': no such run; did you"),
    "predictions": ("explore_predictions", ["predictions", "mine"], 3, "predictions='mine': no such file or folder; "),
    "an order": ("explore_predictions", ["sort", "mIuO"], 2, "sort='mIuO': allowed are mIoU, confidence, disagree"),
    "pictures": ("predict", ["images", "my_pictures"], 3, "images='my_pictures': no such file or folder; give an "),
    "a run of others": ("train", ["run", "mine"], 2, "run='mine' was trained with epochs=3 (asked for 17); choose "),
}


@pytest.mark.parametrize(("notebook", "words", "status", "told"), MISSING.values(), ids=MISSING)
def test_what_does_not_exist_is_refused_before_anything_slow_is_loaded(
    workspace: Path,
    city: Path,
    monkeypatch: pytest.MonkeyPatch,
    notebook: str,
    words: list[str],
    status: int,
    told: str,
) -> None:
    (workspace / "my_data").mkdir()
    (workspace / "data").mkdir()
    (workspace / "data" / "demo_city").symlink_to(city)
    run_folder = workspace / "saved" / "mine"
    (run_folder / "checkpoints").mkdir(parents=True)
    for name in ("checkpoints/best.pt", "metrics.csv"):
        (run_folder / name).touch()
    (run_folder / "run.json").write_text(json.dumps({"parameters": TrainParameters(run="mine", epochs=3).as_dict()}))
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    path = str(ROOT / "notebooks" / f"{notebook}.ipynb")
    seen, shown = in_terminal(PAPERMILL, path, "-p", *words, cwd=workspace)
    assert seen == status
    assert last_line(shown).startswith("Error: " + told.format(workspace))
    imported = set(re.findall(r"^import time:.*\| +(\S+)\r?$", shown, re.MULTILINE))
    assert imported & {"torch", "matplotlib", "numba", "ipykernel.kernelapp"} == set()
    assert not (workspace / "outputs").exists()


def test_what_cells_print_appears_in_a_terminal_as_it_comes(workspace: Path) -> None:
    """The second line is printed only once the first has been seen."""
    wait = "import time, pathlib\nprint('epoch 1')\nwhile not pathlib.Path('seen').exists(): time.sleep(0.1)"
    write_notebook(workspace / "train.ipynb", wait, "print('epoch 2')")

    def watch(text: str) -> None:
        if "epoch 1" in text:
            (workspace / "seen").touch()

    status, shown = in_terminal(PAPERMILL, "train.ipynb", cwd=workspace, watch=watch)
    assert status == 0, shown
    lines = [line.rpartition("\r")[2] for line in shown.replace("\r\n", "\n").splitlines()]
    assert [line for line in lines if line.startswith("epoch")] == ["epoch 1", "epoch 2"]


def test_a_line_without_an_end_is_shown_once_its_cell_has_ended(workspace: Path) -> None:
    write_notebook(workspace / "train.ipynb", "print('What to do: this', end='')", "print('that', end='')")
    status, shown = in_terminal(PAPERMILL, "train.ipynb", cwd=workspace)
    assert status == 0, shown
    lines = [line.split("\r")[-1].strip() for line in shown.splitlines()]
    assert "What to do: this" in lines
    assert "that" in lines


def test_an_idle_kernel_is_shut_down_without_an_interrupt_which_it_may_log_as_an_error(monkeypatch) -> None:
    sent = []

    async def interrupt(manager: AsyncKernelManager) -> None:
        sent.append(signals._computing)

    monkeypatch.setattr(AsyncKernelManager, "_async_interrupt_kernel", interrupt)
    with KernelSignals() as signals:
        manager = signals.manager_class()
        manager.shutting_down = True
        for begun in (False, True):
            if begun:
                asyncio.run(signals.refuse_next_cell())
            asyncio.run(manager._async_interrupt_kernel())
        asyncio.run(signals.end_cell())
        asyncio.run(manager._async_interrupt_kernel())
    assert sent == [True]


def test_a_refusal_is_a_value_error_for_programs(workspace: Path) -> None:
    with pytest.raises(ParameterError, match="output_stride=12") as refusal:
        papermill.execute_notebook(
            workspace / "notebooks" / "train.ipynb", None, {"output_stride": 12}, progress_bar=False
        )
    assert isinstance(refusal.value, ValueError)
    assert isinstance(refusal.value, click.ClickException)


@pytest.mark.parametrize("cell", ["output_stride: int = 8 * 2", "import os", "print('hello')", "a = ("])
def test_a_parameters_cell_holds_literals_only(workspace: Path, cell: str) -> None:
    notebook = write_notebook(workspace / "notebooks" / "own.ipynb", parameters=cell)
    with pytest.raises(RefusedParameters, match="parameters cell, line 1"):
        papermill.execute_notebook(notebook, None, progress_bar=False)


def test_a_mistake_found_by_a_cell_ends_with_its_line_and_status(workspace: Path) -> None:
    cells = [
        "from cityscapes.errors import InputError",
        "raise InputError('a.json: no objects; fix it')",
        "print('later')",
    ]
    notebook = write_notebook(workspace / "notebooks" / "evaluate.ipynb", *cells)
    result = run(str(notebook), cwd=workspace)
    assert result.returncode == 3
    assert last_line(result.stderr) == "Error: a.json: no objects; fix it"
    assert "Traceback" not in result.stderr
    copy = nbformat.read(workspace / "outputs" / TrainParameters().run_name / "evaluate.ipynb", as_version=4)
    marks = [cell for cell in copy.cells if "papermill-error-cell-tag" in cell.metadata.get("tags", [])]
    assert len(marks) == 2
    assert copy.metadata.papermill.exception is True
    assert copy.cells[-1].metadata.papermill.status == "pending"
    assert [output.ename for output in copy.cells[-2].outputs] == ["InputError"]


def test_another_error_keeps_its_traceback(workspace: Path) -> None:
    notebook = write_notebook(workspace / "notebooks" / "evaluate.ipynb", "1 / 0")
    with pytest.raises(PapermillExecutionError, match="ZeroDivisionError") as failure:
        papermill.execute_notebook(notebook, None, progress_bar=False)
    assert type(failure.value) is PapermillExecutionError


def test_a_dead_kernel_is_told_in_the_copy(workspace: Path) -> None:
    notebook = write_notebook(workspace / "notebooks" / "evaluate.ipynb", "import os; os._exit(9)", "print('later')")
    result = run(str(notebook), cwd=workspace)
    assert result.returncode == 4
    assert last_line(result.stderr).startswith("Error: the kernel died in cell 2")
    assert "Traceback" not in result.stderr
    copy = nbformat.read(workspace / "outputs" / TrainParameters().run_name / "evaluate.ipynb", as_version=4)
    assert copy.metadata.papermill.exception is True
    states = [cell.metadata.papermill.status for cell in copy.cells if cell.cell_type == "code"]
    assert states == ["completed", "failed", "pending"]
    assert "An Exception was encountered" in copy.cells[0].source


def test_a_kernel_that_dies_before_its_first_cell_is_a_failing_machine(workspace: Path, monkeypatch) -> None:
    folder = workspace / "kernels" / "dying"
    folder.mkdir(parents=True)
    words = [sys.executable, "-c", "import os; os._exit(9)"]
    (folder / "kernel.json").write_text(json.dumps({"argv": words, "display_name": "dying", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(workspace))
    result = run("train.ipynb", "-k", "dying", cwd=workspace / "notebooks")
    assert result.returncode == 4, result.stderr
    assert last_line(result.stderr).startswith("Error: the kernel died in cell 1, most likely for lack of memory")
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="reads a file of Linux that fails as a bad drive does")
def test_a_drive_that_fails_under_papermill_itself_is_one_line(workspace: Path, monkeypatch) -> None:
    monkeypatch.setattr(papermill_engine, "network_sha256", lambda _: Path("/proc/self/mem").read_bytes())
    done = CliRunner().invoke(papermill_command, [str(workspace / "notebooks" / "train.ipynb"), "-"])
    assert done.exit_code == 4
    assert "Error: /proc/self/mem: [Errno 5] Input/output error; check the drive or the share" in done.output


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_cell_that_takes_longer_than_asked_for_is_one_line(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    notebook = write_notebook(workspace / "notebooks" / "evaluate.ipynb", "import time; time.sleep(100)")
    if by == "environment":
        monkeypatch.setenv("DLV3P_CELL_SECONDS", "2")
    result = run(str(notebook), *(["--execution-timeout", "2"] if by == "option" else []), cwd=workspace)
    assert result.returncode == 4
    assert last_line(result.stderr).startswith("Error: cell 2 ran longer than allowed; raise --execution-timeout")
    assert "Traceback" not in result.stderr
    copy = nbformat.read(workspace / "outputs" / TrainParameters().run_name / "evaluate.ipynb", as_version=4)
    assert copy.metadata.papermill.exception is True


@pytest.mark.parametrize("text", ["0", "-1", "a minute", "²"])
def test_a_time_limit_that_is_none_is_refused(workspace: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DLV3P_CELL_SECONDS", text)
    with pytest.raises(RefusedParameters, match=r"^DLV3P_CELL_SECONDS=.*: give a whole number of seconds from 1"):
        cell_seconds(None)


def test_there_is_no_time_limit_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLV3P_CELL_SECONDS", raising=False)
    assert cell_seconds(None) is None
    monkeypatch.setenv("DLV3P_CELL_SECONDS", "30")
    assert (cell_seconds(None), cell_seconds(5)) == (30, 5)


def test_an_unknown_kernel_is_one_line_that_names_the_known_ones(workspace: Path) -> None:
    notebook = write_notebook(workspace / "notebooks" / "evaluate.ipynb", SHOW)
    result = run(str(notebook), "-k", "nosuch", cwd=workspace)
    assert result.returncode == 2
    assert re.match(r"Error: kernel 'nosuch': not installed; take one of .*\bpython3\b", last_line(result.stderr))
    assert "Traceback" not in result.stderr
    assert not (workspace / "outputs" / TrainParameters().run_name).exists()


@pytest.mark.parametrize(
    ("option", "value", "status", "told"),
    [("-f", "nosuch.yaml", 3, "nosuch.yaml: no such file"), ("-y", "output_stride: [8", 2, "cannot be read as YAML")],
)
def test_parameters_that_cannot_be_read_are_one_line(
    workspace: Path, option: str, value: str, status: int, told: str
) -> None:
    result = run(str(workspace / "notebooks" / "train.ipynb"), option, value, cwd=workspace)
    assert result.returncode == status, result.stderr
    assert re.fullmatch(rf"Error: {option} .*{told}.*\n", result.stderr)


def test_parameters_from_files_and_text_still_arrive(workspace: Path) -> None:
    (workspace / "recipe.yaml").write_text("output_stride: 8\n")
    result = run(str(workspace / "notebooks" / "train.ipynb"), "copy.ipynb", "-f", "recipe.yaml", cwd=workspace)
    assert result.returncode == 0, result.stderr
    assert printed(workspace / "copy.ipynb") == "8 int\n"


def rewritten(path: Path, change: Callable[[nbformat.NotebookNode], None]) -> Path:
    """Change a stored notebook, as people and their tools do."""
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)
    return path


def test_n6_a_kernel_that_the_notebook_names_and_nobody_has_is_one_line(workspace: Path) -> None:
    path = workspace / "notebooks" / "train.ipynb"
    rewritten(path, lambda notebook: notebook.metadata.kernelspec.update(name="conda-env-old"))
    result = run(str(path), cwd=workspace)
    assert result.returncode == 2
    assert last_line(result.stderr).startswith("Error: kernel 'conda-env-old': not installed; take one of ")
    assert "Traceback" not in result.stderr


def test_n6_a_notebook_whose_kernel_a_tool_has_stripped_runs_as_before(workspace: Path) -> None:
    path = workspace / "notebooks" / "train.ipynb"
    rewritten(path, lambda notebook: notebook.metadata.pop("kernelspec"))
    result = run(str(path), str(workspace / "copy.ipynb"), "-p", "output_stride", "8", cwd=workspace)
    assert result.returncode == 0, result.stderr
    assert printed(workspace / "copy.ipynb") == "8 int\n"


def test_n6_a_notebook_without_a_parameters_cell_is_refused_before_its_values_are_ignored(workspace: Path) -> None:
    path = workspace / "notebooks" / "train.ipynb"
    rewritten(path, lambda notebook: notebook.cells[0].metadata.pop("tags"))
    result = run(str(path), "-p", "output_stride", "8", cwd=workspace)
    assert result.returncode == 2
    assert last_line(result.stderr).startswith("Error: no cell is tagged 'parameters', so that none could be set; ")
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, which takes no files")
def test_a_copy_that_cannot_be_written_is_one_line_before_a_cell_runs(workspace: Path) -> None:
    ran = workspace / "ran"
    notebook = write_notebook(workspace / "notebooks" / "evaluate.ipynb", f"open({str(ran)!r}, 'w').close()")
    result = run(str(notebook), "/proc/x.ipynb", cwd=workspace)
    assert result.returncode == 4
    assert "\nError: /proc/x.ipynb: no file can be created in this folder; choose another one\n" in result.stderr
    assert "Traceback" not in result.stderr
    assert not ran.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_papermill_leaves_no_sockets_once_the_next_has_run(workspace: Path, number: signal.Signals) -> None:
    temporary = workspace / "tmp"
    temporary.mkdir()
    notebook = write_notebook(
        workspace / "notebooks" / "own.ipynb", "import os, time; os.mkfifo('ready')", "time.sleep(9)"
    )
    environment = os.environ | {"TMPDIR": str(temporary), "JUPYTER_RUNTIME_DIR": str(workspace / "runtime")}
    words = [PAPERMILL, str(notebook), str(workspace / "own.ipynb"), "--cwd", str(workspace / "notebooks")]
    process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not (workspace / "notebooks" / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    process.wait(timeout=60)
    (workspace / "notebooks" / "ready").unlink()
    quick = write_notebook(workspace / "notebooks" / "quick.ipynb", SHOW)
    subprocess.run(
        [PAPERMILL, str(quick), str(workspace / "x.ipynb")], env=environment, check=True, capture_output=True
    )
    assert list(temporary.iterdir()) == []
    names = [path.name for path in (workspace / "notebooks").iterdir()]
    assert sorted(names) == ["own.ipynb", "quick.ipynb", "train.ipynb"]


def test_other_notebooks_are_left_to_papermill(workspace: Path) -> None:
    notebook = write_notebook(workspace / "own.ipynb", SHOW)
    content = json.loads(notebook.read_text())
    del content["metadata"]["dlv3p"]
    notebook.write_text(json.dumps(content))
    executed = papermill.execute_notebook(notebook, None, {"output_stride": 12, "other": 1}, progress_bar=False)
    assert executed.cells[-1].outputs[0].text == "12 int\n"
    assert completed([str(notebook)]) == [str(notebook)]


def test_a_copy_is_written_whole_or_not_at_all(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = workspace / "outputs" / "x.ipynb"
    copy.parent.mkdir()
    copy.write_text("an earlier copy")

    def refuse(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(MachineError, match="no space left"):
        papermill.execute_notebook(workspace / "notebooks" / "train.ipynb", copy, progress_bar=False)
    assert copy.read_text() == "an earlier copy"
    assert list(copy.parent.iterdir()) == [copy]


def test_a_copy_may_go_to_a_device(workspace: Path) -> None:
    result = run("notebooks/train.ipynb", "/dev/stdout", "--prepare-only", cwd=workspace)
    assert json.loads(result.stdout)["nbformat"] == 4


def test_a_copy_may_go_to_a_new_folder_and_through_a_link(workspace: Path) -> None:
    link = workspace / "link.ipynb"
    link.symlink_to("new/x.ipynb")
    papermill.execute_notebook(workspace / "notebooks" / "train.ipynb", link, prepare_only=True)
    assert link.is_symlink()
    assert (workspace / "new" / "x.ipynb").is_file()


def test_errors_survive_the_way_back_from_another_process() -> None:
    failure = PapermillExecutionError(3, 2, "cell", "InputError", "a line", [])
    for error in (
        FailedNotebook(failure),
        RefusedParameters("a line"),
        UnwritableCopy("a line"),
        StoppedNotebook("a line", 143),
        DeadKernel("a line"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.exit_code, str(copy)) == (type(error), error.exit_code, "a line")
    assert FailedNotebook(failure).cell_index == 3
    assert issubclass(DeadKernelError, RuntimeError)


def test_importing_the_engine_imports_no_torch() -> None:
    modules = "'dlv3p.jupyter.papermill_engine' in sys.modules and 'torch' not in sys.modules"
    check = f"import papermill, sys; assert {modules}"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


def test_the_engine_may_be_imported_before_papermill() -> None:
    used = "all(papermill_engines.get_engine(name) is SuiteEngine for name in (None, 'dlv3p'))"
    check = f"from dlv3p.jupyter.papermill_engine import SuiteEngine, papermill_engines; assert {used}"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


def stop(workspace: Path, number: signal.Signals, *cells: str, wait_for: str = "ready") -> tuple[int, str, Path]:
    """Send papermill a signal once a cell has created a file; return its status, its last line, and the copy."""
    status, shown, copy = stop_and_read(workspace, number, *cells, wait_for=wait_for)
    return status, last_line(shown), copy


def stop_and_read(
    workspace: Path, number: signal.Signals, *cells: str, wait_for: str = "ready"
) -> tuple[int, str, Path]:
    """Do so, and return all that papermill shows in place of its last line."""
    notebook, copy, ready = workspace / "notebooks" / "own.ipynb", workspace / "own.ipynb", workspace / wait_for
    write_notebook(notebook, *cells)
    os.mkfifo(ready)
    words = [PAPERMILL, str(notebook), str(copy)]
    process = subprocess.Popen(words, cwd=workspace, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert closed_by_a_writer(ready), "no cell has created it"
        process.send_signal(number)
        _, shown = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, shown, copy


def closed_by_a_writer(pipe: Path, seconds: int = 120) -> bool:
    """Return whether another process has opened and closed a named pipe in this time."""
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(descriptor)
        return bool(poll.poll(1000 * seconds))
    finally:
        os.close(descriptor)


READY = "import os, signal, threading\nopen('ready', 'w').close()"
WAITS = f"{READY}\nthreading.Event().wait(100)"
SAVES = """
from cityscapes.errors import TerminatedError
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
open('ready', 'w').close()
stop.wait(100)
raise TerminatedError('stopped after step 3; run again to continue')
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"])
def test_a_signal_ends_whatever_a_cell_does(workspace: Path, number: signal.Signals, status: int) -> None:
    ended, line, copy = stop(workspace, number, WAITS, "print('later')")
    assert (ended, line.startswith(f"Error: stopped by {number.name}")) == (status, True), line
    cells = nbformat.read(copy, as_version=4).cells
    states = [cell.metadata.papermill.status for cell in cells if cell.cell_type == "code"]
    assert states == ["completed", "failed", "pending"]
    assert "An Exception was encountered" in cells[0].source


def test_a_cell_that_saves_upon_a_signal_has_the_last_word(workspace: Path) -> None:
    status, line, copy = stop(workspace, signal.SIGTERM, "import signal, threading\n" + SAVES, "print('later')")
    assert (status, line) == (143, "Error: stopped after step 3; run again to continue")
    assert [output.ename for output in nbformat.read(copy, as_version=4).cells[-2].outputs] == ["TerminatedError"]


def test_a_cell_that_tells_of_a_stop_in_a_sentence_ends_the_notebook_as_a_stop(workspace: Path) -> None:
    """Such as training upon Ctrl-C, its button, or `dlv3p runs stop`: in JupyterLab that is no error."""
    interrupted = SAVES.replace("TerminatedError", "StoppedError").replace("SIGTERM", "SIGINT")
    known = "import signal, threading, dlv3p\n" + interrupted
    status, shown, copy = stop_and_read(workspace, signal.SIGINT, known, "print('later')")
    assert (status, last_line(shown)) == (130, "Error: stopped after step 3; run again to continue")
    assert shown.lower().count("stopped after step 3") == 1, "it is told once in a terminal"
    cell = nbformat.read(copy, as_version=4).cells[-2]
    assert [output.get("ename") for output in cell.outputs] == [None, "StoppedError"]
    assert cell.outputs[0].text == "Stopped after step 3. Run this cell again to resume.\n"


def test_a_signal_that_a_cell_survives_ends_the_notebook_before_the_next_one(workspace: Path) -> None:
    survives = SAVES.replace("raise TerminatedError", "print")
    status, line, copy = stop(workspace, signal.SIGTERM, "import signal, threading\n" + survives, "print('later')")
    assert (status, line) == (143, "Error: stopped by SIGTERM in cell 3")
    assert "later" not in copy.read_text().replace("print('later')", "")


def test_after_a_notebook_signals_do_what_they_did_before(workspace: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    papermill.execute_notebook(workspace / "notebooks" / "train.ipynb", None, progress_bar=False)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_kernel_of_these_tests_is_forked_and_nobody_can_take_its_group_for_that_of_the_tests() -> None:
    """An interrupt goes to the group, which Jupyter asks for as soon as the kernel is launched."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        reply = client.execute_interactive(
            "import sys; assert 'torch' in sys.modules; assert 'dlv3p' not in sys.modules"
        )
        assert reply["content"]["status"] == "ok"
        assert manager.provisioner.pgid == manager.provisioner.pid != os.getpgrp()
    finally:
        client.stop_channels()
        manager.shutdown_kernel()


def test_training_that_papermill_is_told_to_end_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The train notebook itself: SIGTERM after its first line, then once more to the end."""
    from dlv3p.parameters.notebooks import TrainParameters
    from dlv3p.train import train
    from dlv3p.weights.checkpoint import load_checkpoint
    from dlv3p.weights.checksums import weights_sha256

    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    city = str(write_demo_city(tmp_path / "city", height=64, width=128, frames={"train": 6, "val": 3, "test": 2}))
    values = {"data_root": city, "channels": 8, "crop_height": 64, "crop_width": 64, "batch_size": 2, "epochs": 8}
    values |= {"workers": 0, "threads": 1, "device": "cpu", "backbone": "mobilenet_v2"}
    options = [word for name, value in values.items() for word in ("-p", name, str(value))]
    words = [
        PAPERMILL,
        str(ROOT / "notebooks" / "train.ipynb"),
        str(tmp_path / "copy.ipynb"),
        *options,
        "-p",
        "run",
        "a",
    ]
    words += ["--log-output"]
    process = subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    shown = []
    for line in process.stderr:
        shown.append(line)
        if "epoch 1/8" in line:
            process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 143, "".join(shown)
    assert re.fullmatch(r"Error: run='a': stopped after step \d+ of 24; run again to continue\n", shown[-1])
    assert load_checkpoint(tmp_path / "saved" / "a" / "checkpoints" / "last.pt")["epoch"] < 8
    copy = nbformat.read(tmp_path / "copy.ipynb", as_version=4)
    assert "running" not in {cell.metadata.get("papermill", {}).get("status") for cell in copy.cells}
    again = CliRunner().invoke(papermill_command, words[1:])
    assert again.exit_code == 0, again.stderr
    train(TrainParameters.from_mapping(values | {"run": "b", "progress": "none"}))
    hashes = {
        weights_sha256(load_checkpoint(tmp_path / "saved" / run / "checkpoints" / "last.pt")["model"]) for run in "ab"
    }
    assert len(hashes) == 1
