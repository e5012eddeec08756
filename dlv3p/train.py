"""Train one network on one data set, or go on with a run: what the notebook calls, and a command for many machines.

python -m dlv3p.train --config notebooks/recipes/cityscapes_deeplabv3plus_resnet50_os16.yaml -p seed 1
torchrun --nproc-per-node 4 -m dlv3p.train --config saved/<run>/run.json
"""

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cityscapes.errors import InputError, MissingInputError, UserError, run_command
from cityscapes.workspace import run_folder
from dlv3p.training_parameters import TrainParameters

if TYPE_CHECKING:
    from dlv3p.training.run import TrainingResult


def train(parameters: TrainParameters) -> "TrainingResult":
    """Train, or go on from the last checkpoint of the same run; a finished run returns at once.

    With `processes` above 1, so many are started here by torchrun, unless torchrun has started this one.
    Raises ParameterError when the run's folder holds a run with other parameters, DivergedError when the loss is no
    longer a finite number (nothing good is overwritten), BusyError when another process trains the run, and
    StoppedError when it was asked to stop, after a checkpoint.
    """
    import torch

    from dlv3p.data import open_training, resolve_data_root
    from dlv3p.devices import choose_device
    from dlv3p.processes import joined_processes, place, started_by_torchrun
    from dlv3p.runs import hold_run
    from dlv3p.training.launching import launch
    from dlv3p.training.run import TrainingRun

    torch.set_num_threads(parameters.threads)
    root = resolve_data_root(parameters.data_root)
    training, validation = open_training(root, parameters.train_split, parameters.val_split)
    if parameters.processes > 1 and not started_by_torchrun():
        launch(parameters)
    with joined_processes(choose_device(parameters.device).type):
        run = parameters.run_name
        with hold_run(run) if place().first else nullcontext(run_folder(run)) as folder:
            return TrainingRun(parameters, folder, training, validation).fit()


def read_config(path: Path) -> dict[str, Any]:
    """Return the parameters in a run's run.json, in a recipe (YAML), or in a JSON file of parameters alone.

    Raises MissingInputError when there is no such file, InputError when it is none of these.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise MissingInputError(f"--config {path}: no such file") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"--config {path}: cannot be read as JSON or YAML: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {path}: holds no parameters; give a run.json or a recipe")
    if isinstance(content.get("parameters"), dict):
        return {**content["parameters"], "run": content.get("run", "")}
    return content


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the parameters, train, and say how well it went."""
    import yaml

    from dlv3p.training.launching import report_error

    parser = argparse.ArgumentParser(prog="python -m dlv3p.train", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--config", type=Path, help="saved/<run>/run.json, or a recipe of notebooks/recipes")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="one more parameter"
    )
    options = parser.parse_args(arguments)
    try:
        values = read_config(options.config) if options.config else {}
        values |= {name: yaml.safe_load(value) for name, value in options.parameter}
        result = train(TrainParameters.from_mapping(values))
    except UserError as error:
        report_error(error)
        raise
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"saved/{result.run}: best val mIoU {result.best_mean_iou:.4f} at epoch {result.best_epoch}")
    return 0


if __name__ == "__main__":
    run_command(main)
