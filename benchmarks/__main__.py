"""Run benchmarks with their defaults, one after the other; each is also a command with options of its own."""

import argparse
from collections.abc import Sequence
from importlib import import_module

from cityscapes.errors import ParameterError, run_command

BENCHMARKS = {
    "startup": "what --help and the imports of notebooks take",
    "masks": "masks from polygons, against cityscapesScripts",
    "official_scores": "the official scores, against cityscapesScripts",
    "likeness": "how alike images of two splits are",
    "loader": "from a PNG to a training sample, against torchvision",
    "models": "prediction, against segmentation-models-pytorch and torchvision",
    "training": "a training step, against segmentation-models-pytorch and torchvision",
    "side_by_side": "two trainings at the same time, against one alone",
    "cost": "what a training is said to cost before it starts, against what it costs",
    "gpu": "training and prediction on an NVIDIA GPU, into one JSON file",
    "scale": "time, memory and open files as the number of frames grows",
    "parallel": "two workers of one command, against two commands",
    "label_errors": "how many wrong polygons that are planted a search for label errors finds",
    "accuracy": "the accuracy of a training, against segmentation-models-pytorch",
}
"""The modules whose `main(arguments)` runs each, and their help text."""

ONLY_BY_NAME = ("gpu", "scale", "parallel", "label_errors", "accuracy")
"""Benchmarks that take many minutes, or a GPU, and are left out unless they are asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benchmarks, or all but those in `ONLY_BY_NAME`."""
    listed = "\n".join(f"  {name:<16} {purpose}" for name, purpose in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\n\nbenchmarks:\n{listed}",
        epilog="`python -m benchmarks.NAME --help` lists the options of a benchmark.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = [name for name in BENCHMARKS if name not in ONLY_BY_NAME]
    text = f"which to run (default: all but {', '.join(ONLY_BY_NAME)})"
    parser.add_argument("names", nargs="*", metavar="NAME", help=text)
    names = parser.parse_args(arguments).names or usual
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise ParameterError(f"{unknown[0]}: no such benchmark; allowed are {', '.join(BENCHMARKS)}")
    for name in names:
        print(f"== python -m benchmarks.{name}", flush=True)
        import_module(f"benchmarks.{name}").main([])
    return 0


if __name__ == "__main__":
    run_command(main)
