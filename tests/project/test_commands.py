"""Every command of the README as users type it: in a terminal and in a pipe, from the root and from a folder."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from support.terminal import in_terminal

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMMANDS = sorted(
    path.relative_to(ROOT)
    for folder in ("cityscapes", "dlv3p", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if "run_command(main)" in path.read_text()
)


def in_pipe(*words: str, cwd: Path = ROOT) -> tuple[int, str]:
    """Run a command with an empty pipe as stdin; return its status and what it wrote."""
    result = subprocess.run(
        words, cwd=cwd, input="", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=300
    )
    return result.returncode, result.stdout


RUNS = (in_terminal, in_pipe)
both = pytest.mark.parametrize("run", RUNS)


def test_the_commands_are_found() -> None:
    assert {Path("cityscapes/generate_gt.py"), Path("cityscapes/submission.py"), Path("dlv3p/jupyter/demo.py")} <= set(
        COMMANDS
    )


def ways_to_call(command: Path) -> list[tuple[list[str], Path]]:
    """The words of a command line, and the folder to run it in."""
    if command.parts[0] == "benchmarks":  # which build on each other, and are called as modules of the root
        return [(["-m", f"benchmarks.{command.stem}"], ROOT)]
    return [([str(command)], ROOT), ([command.name], ROOT / command.parent)]


CALLS = [(command, *way) for command in COMMANDS for way in ways_to_call(command)]


def helped(run, words: list[str], cwd: Path) -> None:
    """Ask for help and check the answer."""
    status, shown = run(sys.executable, *words, "--help", cwd=cwd)
    assert status == 0, shown
    assert shown.startswith("usage: ")


@pytest.mark.parametrize("index", range(len(CALLS)), ids=lambda index: f"{CALLS[index][0]} {CALLS[index][2].name}")
def test_a_file_answers_for_help_from_the_root_and_from_its_folder(index: int) -> None:
    """Each command in each place, alternating between a terminal and a pipe; `slow` covers all combinations."""
    _, words, cwd = CALLS[index]
    helped(RUNS[index % 2], words, cwd)


@pytest.mark.slow
@both
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_file_answers_for_help_in_a_terminal_and_in_a_pipe_from_both_places(run, command: Path) -> None:
    for words, cwd in ways_to_call(command):
        helped(run, words, cwd)


@both
def test_a_wrong_option_is_a_usage_error_without_a_traceback(run) -> None:
    status, shown = run(sys.executable, "cityscapes/generate_gt.py", "--colour-mode", "palette")
    assert status == 2
    assert "Traceback" not in shown


def test_output_that_nobody_reads_ends_quietly(city: Path, workspace: Path) -> None:
    words = f"'{sys.executable}' cityscapes/generate_gt.py --root '{city}' --output '{workspace}/masks' | true"
    result = subprocess.run(["bash", "-c", words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert result.stderr == ""


def test_train_with_output_stride_8_works_as_typed_in_a_terminal(city: Path, workspace: Path) -> None:
    """`cd notebooks && papermill train.ipynb -p output_stride 8`, on a smaller city."""
    small = {
        "data_root": city,
        "epochs": 1,
        "backbone": "mobilenet_v2",
        "channels": 8,
        "crop_height": 64,
        "crop_width": 64,
        "batch_size": 2,
        "workers": 0,
        "threads": 1,
        "run": "a",
    }
    options = [word for name, value in small.items() for word in ("-p", name, str(value))]
    words = [str(BIN / "papermill"), "train.ipynb", "-p", "output_stride", "8", *options]
    before = (ROOT / "notebooks" / "train.ipynb").read_bytes()
    status, shown = in_terminal(*words, cwd=ROOT / "notebooks")
    assert (ROOT / "notebooks" / "train.ipynb").read_bytes() == before
    assert status == 0, shown
    assert "epoch 1/1  loss " in shown
    (copy,) = (workspace / "outputs").rglob("*.ipynb")
    assert copy == workspace / "outputs" / "a" / "train.ipynb"
    assert "exception" not in str(nbformat.read(copy, as_version=4).cells[0].source)
    assert (workspace / "saved" / "a" / "model.safetensors").exists()
