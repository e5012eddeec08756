"""The `dlv3p` command: every command of the suite as a subcommand.

    dlv3p train --config notebooks/recipes/cityscapes_deeplabv3plus_resnet50_os16.yaml -p seed 1
    dlv3p runs check saved/<run>

`python -m dlv3p` is the same. Only what the chosen command needs is imported.
"""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from cityscapes.errors import ParameterError, run_command

COMMANDS = {
    "train": ("dlv3p.train", "train a network, or resume a run"),
    "runs": ("dlv3p.runs.__main__", "list, stop, check, rename, remove or store runs, or record a reference band"),
    "weights": ("dlv3p.weights.__main__", "inspect or convert a weights file"),
    "predict": ("dlv3p.prediction.__main__", "predict images of any kind: one, a folder, a list, a video"),
    "annotations": ("dlv3p.annotations.__main__", "make a folder to train on from COCO, LabelMe, CVAT, YOLO or masks"),
    "compare": ("dlv3p.evaluation.__main__", "say whether one run is better than another, and where"),
    "find-label-errors": ("dlv3p.prediction.label_errors", "find wrong labels, by networks that have not seen them"),
    "sweep": ("dlv3p.experiments.sweep", "run a notebook over a grid of parameters, here or on a cluster"),
    "replay": ("dlv3p.experiments.replay", "execute a run again from its record, and say whether it is identical"),
    "table": ("dlv3p.experiments.table", "gather the results of runs: mean and deviation over seeds"),
    "report": ("dlv3p.experiments.report", "set published tables beside our results, and rank what compares"),
    "export": ("dlv3p.export.__main__", "write a run as ONNX or torch.export"),
    "shards": ("dlv3p.data.write_shards", "write a data set as shards, or check them"),
    "demo": ("dlv3p.jupyter.demo", "run the pipeline's notebooks on the embedded city"),
    "gallery": ("dlv3p.jupyter.gallery", "write all notebooks, executed, as HTML pages"),
}
"""Subcommands: the module whose `main(arguments)` runs each, and its help text."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that the first argument names; return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else ParameterError.exit_status
    name = words[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ParameterError(f"dlv3p {name}: no such command; allowed are {', '.join(COMMANDS)}{hint}")
    return import_module(COMMANDS[name][0]).main(words[1:])


def console() -> None:
    """Run `main` as the console script."""
    run_command(main)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()]
    commands = "\n".join(lines)
    return f"usage: dlv3p COMMAND ...\n\n{commands}\n\n`dlv3p COMMAND --help` lists the options of a command."


if __name__ == "__main__":
    run_command(main)
