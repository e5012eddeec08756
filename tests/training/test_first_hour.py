"""What a newcomer meets in a terminal: a hint before the first epoch, and commands for what comes next, which work."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from support.own_folder import write_own_folder
from support.terminal import in_terminal
from support.tiny import TINY

NEXT = ("evaluate", "visualize_training", "render_gif", "profile")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as people have it, whose name has a space."""
    return write_own_folder(tmp_path_factory.mktemp("own") / "my data")


@pytest.fixture(scope="module")
def trained_in_terminal(own: Path, tmp_path_factory: pytest.TempPathFactory):
    """What the training of a tiny network on that folder showed, and the workspace with its run."""
    workspace = tmp_path_factory.mktemp("first hour")
    parameters = TINY | {"run": "mine", "data_root": str(own), "progress": "auto", "crop_height": 33}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(workspace))
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        words = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
        status, shown = in_terminal("dlv3p", "train", *words, cwd=workspace)
        assert status == 0, shown
        yield shown.replace("\r\n", "\n"), workspace


def test_few_steps_are_said_before_the_first_epoch(trained_in_terminal) -> None:
    shown, _ = trained_in_terminal
    note = re.search(r"note: 2 steps in all, 1 per epoch, are few .*What helps: .*imagenet", shown)
    assert note, shown
    assert note.start() < shown.index("epoch 1/2")
    assert "epoch 2/2" in shown
    best, *again = re.findall(r"best val mIoU .*", shown)
    assert "1.0000" not in best
    assert not again, "the score is told twice"


@pytest.mark.parametrize("name", [one if one == NEXT[1] else pytest.param(one, marks=pytest.mark.slow) for one in NEXT])
def test_what_is_offered_next_works_as_typed(trained_in_terminal, name: str) -> None:
    shown, folder = trained_in_terminal
    before = sorted(folder.iterdir())
    commands = [line for line in shown.split("What to do next:")[1].splitlines() if line.startswith("papermill ")]
    assert [Path(command.split()[1]).name for command in commands] == [f"{one}.ipynb" for one in NEXT]
    (command,) = [command for command in commands if f"{name}.ipynb" in command]
    assert command.endswith("mine")
    status, told = in_terminal(*shlex.split(command), cwd=folder)
    assert status == 0, told
    assert "Traceback" not in told
    assert {*folder.iterdir()} <= {*before, folder / "outputs"}
