"""Train one network on one data set, or go on with a run: what the notebook calls, and a command for many machines.

dlv3p train --config notebooks/recipes/cityscapes_deeplabv3plus_resnet50_os16.yaml -p seed 1
torchrun --nnodes 2 --nproc-per-node 4 ... -m dlv3p.train --config saved/<run>/run.json

torchrun passes SIGTERM on, and the run saves, but torchrun itself then ends with a traceback and status 1. On one
machine `-p processes 4` does the same as `torchrun --nproc-per-node 4`, and ends with one line and status 143.
"""

import argparse
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import run_command
from cityscapes.workspace import run_folder
from dlv3p.parameters.files import read_config, read_value
from dlv3p.parameters.training import TrainParameters

if TYPE_CHECKING:
    from dlv3p.training.run import TrainingResult


def train(parameters: TrainParameters) -> "TrainingResult":
    """Train, or go on from the last checkpoint of the same run; a finished run returns at once.

    With `processes` above 1, so many are started here, unless this one was started for a group already.
    Raises ParameterError when the run's folder holds a run with other parameters, DivergedError when the loss is no
    longer a finite number (nothing good is overwritten), BusyError when another process trains the run, and
    StoppedError when it was asked to stop, after a checkpoint.
    """
    import torch

    from dlv3p.data.roots import open_training, resolve_data_root
    from dlv3p.runs.folders import hold_run
    from dlv3p.runtime.devices import choose_device
    from dlv3p.runtime.processes import joined_processes, place, started_in_group
    from dlv3p.training.interruption import Interruption
    from dlv3p.training.launching import launch, reported_errors
    from dlv3p.training.run import TrainingRun

    torch.set_num_threads(parameters.threads)
    root = resolve_data_root(parameters.data_root)
    training, validation = open_training(root, parameters.train_split, parameters.val_split)
    if parameters.processes > 1 and not started_in_group():
        launch(parameters)
    run = parameters.run_name
    with (
        joined_processes(choose_device(parameters.device).type),
        reported_errors(),
        Interruption(run) as interruption,
        hold_run(run) if place().first else nullcontext(run_folder(run)) as folder,
    ):
        return TrainingRun(parameters, folder, training, validation, interruption).fit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the parameters, train, and say how well it went."""
    from dlv3p.training.launching import end_with_parent, reported_errors, started_by_launch

    end_with_parent()
    parser = argparse.ArgumentParser(prog="dlv3p train", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--config", type=Path, help="saved/<run>/run.json, or a recipe of notebooks/recipes")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="one more parameter"
    )
    options = parser.parse_args(arguments)
    with reported_errors():
        values = read_config(options.config) if options.config else {}
        values |= {name: read_value(name, text) for name, text in options.parameter}
        result = train(TrainParameters.from_mapping(values))
    if int(os.environ.get("RANK", 0)) == 0 and not started_by_launch():
        print(f"saved/{result.run}: best val mIoU {result.best_mean_iou:.4f} at epoch {result.best_epoch}")
    return 0


if __name__ == "__main__":
    run_command(main)
