"""Fixtures for experiments: a notebook of two cells that trains the tiny run, and files of sweeps over it."""

from pathlib import Path

import nbformat
import pytest
import yaml
from support.exactness import outcome
from support.sweeps import SEEDS
from support.tiny import TINY, tiny

from dlv3p.train import train

TRAIN = """
import os
import signal

from cityscapes.workspace import workspace
from dlv3p.train import TrainParameters, train
from dlv3p.training.checkpoints import Checkpoints

fault, after_step, taken = workspace() / f"fault-{seed}", Checkpoints.after_step, [0]
if fault.exists():
    number, levels = map(int, fault.read_text().split())
    fault.unlink()
    chain = [os.getpid()]
    for _ in range(levels):
        with open(f"/proc/{chain[-1]}/stat") as stat:
            chain.append(int(stat.read().rpartition(")")[2].split()[1]))
    told = chain[::-1] if number == signal.SIGKILL else chain[-1:]

    def fail(self, asked):
        after_step(self, asked)
        taken[0] += 1
        if taken[0] == 3:
            for process in told:
                os.kill(process, number)

    Checkpoints.after_step = fail
train(TrainParameters.from_cell(globals()))
"""
"""The cell that trains. Where a file `fault-<seed>` asks for it, that signal reaches the process so many levels above
the kernel after the third step; SIGKILL also those below, as when the power fails."""


@pytest.fixture(scope="session")
def trainer(city, tmp_path_factory) -> Path:
    """A notebook whose defaults are the tiny run, without the tables and pictures of `train`."""
    values = {**TINY, "data_root": str(city), "run": "", "seed": 0}
    cells = [
        nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in values.items())),
        nbformat.v4.new_code_cell(TRAIN),
    ]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"dlv3p": {"parameters": "TrainParameters"}, "kernelspec": kernel}
    path = tmp_path_factory.mktemp("notebooks") / "trainer.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


@pytest.fixture
def write_sweep(tmp_path, trainer, city):
    """A function that writes a sweep over the tiny run, with some of its keys and fixed parameters changed."""

    def write(name: str = "seeds", **content: object) -> Path:
        path = tmp_path / f"{name}.yaml"
        fixed = {"data_root": str(city), "device": "cpu", "run": "tiny-{seed}", **content.pop("fixed", {})}
        path.write_text(yaml.safe_dump({"notebook": str(trainer), "fixed": fixed, **content}, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def by_hand(city, tmp_path_factory):
    """How the runs end when each is trained by hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(tmp_path_factory.mktemp("by_hand")))
        return [outcome(train(tiny(city, run=f"tiny-{seed}", seed=seed)).folder) for seed in SEEDS]
