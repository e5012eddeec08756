"""Identify a weights file, and convert it to this project's self-describing safetensors.

    dlv3p weights inspect best_deeplabv3plus_resnet101_cityscapes_os16.pth
    dlv3p weights convert best_deeplabv3plus_resnet101_cityscapes_os16.pth r101.safetensors

Reads the files of VainF, chenxi116, stigma0617, yoR-rihsihS, torchvision and MindSpore (as .npz), and our own. Code in
a file is never run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import ParameterError, run_command

if TYPE_CHECKING:
    from dlv3p.weights.recognition import Recognized


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    return options.run(options)


def inspect_file(arguments: argparse.Namespace) -> int:
    """Print the description of a file, then check that every one of its weights fits that network."""
    from dlv3p.weights.describe import describe
    from dlv3p.weights.loading import build_recognized, check_backbone

    found = _recognize(arguments)
    for name, line in describe(found).items():
        print(f"{name:<14} {line}", flush=True)
    if found.parameters is None:
        check_backbone(found)
    else:
        build_recognized(found)
    print(f"{'fits':<14} every entry matches in name and shape")
    return 0


def convert_file(arguments: argparse.Namespace) -> int:
    """Write a file's network as safetensors with its description."""
    from dlv3p.weights.loading import build_recognized, save_model

    if arguments.output.suffix != ".safetensors":
        raise ParameterError(f"{arguments.output}: the output is a safetensors file; end its name in .safetensors")
    if arguments.output.exists() and arguments.output.samefile(arguments.file):
        raise ParameterError(f"{arguments.output}: is the file to convert; give another output, which keeps that one")
    found = _recognize(arguments)
    model, parameters, class_names = build_recognized(found)
    names = class_names or [f"class {index}" for index in range(found.num_classes)]
    save_model(arguments.output, model, parameters, names)
    print(arguments.output)
    return 0


def _recognize(arguments: argparse.Namespace) -> "Recognized":
    from dlv3p.weights.reading import read_weights
    from dlv3p.weights.recognition import recognize

    switches = {"output_stride": arguments.output_stride, "weight_standardization": arguments.weight_standardization}
    return recognize(read_weights(arguments.file), **switches)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dlv3p weights",
        description="Identify a weights file, or convert it.",
        epilog="Exit status: 0 done, 2 wrong usage, 3 no such file, 4 the output cannot be written, 6 the file is "
        "damaged, unknown or does not fit its network.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="identify a file", description="Identify a file.")
    inspect.set_defaults(run=inspect_file)
    convert = commands.add_parser(
        "convert",
        help="write a file as safetensors",
        description="Write a file as self-describing safetensors.",
    )
    convert.set_defaults(run=convert_file)
    for command in (inspect, convert):
        command.add_argument("file", type=Path, metavar="FILE", help="a public weights file, a checkpoint, safetensors")
        command.add_argument(
            "--output-stride", type=int, choices=(8, 16, 32), help="of the network (default: that of the file)"
        )
        command.add_argument(
            "--weight-standardization",
            choices=("always", "never"),
            help="whether the network standardizes its weights, which files do not show (default: as published)",
        )
    convert.add_argument("output", type=Path, metavar="OUTPUT.safetensors", help="the file to write")
    return parser


if __name__ == "__main__":
    run_command(main)
