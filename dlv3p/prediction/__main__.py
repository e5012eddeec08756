"""Predict images of any kind, with a run, a weights file, or an exported file.

    dlv3p predict photos/ --run demo
    dlv3p predict 'drive/*.jpg' --weights best.pt --runtime fastest --output results

Results go to outputs/<run>/predict_<images>/: ids, colors, overlays, a table, and predictions.json, which says how they
were made. A killed command is resumed by the same command. Exit status 3 says that some images could not be predicted.
"""

import argparse
from collections.abc import Sequence
from dataclasses import Field, fields

from cityscapes.errors import InputError, run_command
from cityscapes.findings import print_problems
from dlv3p.parameters.files import read_value
from dlv3p.parameters.notebooks import PredictParameters

POSITIONAL = "images"


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict what the arguments name, and print where the results are."""
    parameters = PredictParameters.from_mapping(_read(arguments))
    from dlv3p.prediction.jobs import predict

    predictions = predict(parameters)
    print_problems("not predicted", predictions.problems)
    kept = len(predictions.done) - predictions.made
    print(f"{predictions.folder}: {predictions.made} predicted, {kept} kept, {len(predictions.problems)} not predicted")
    return InputError.exit_status if predictions.problems else 0


def _read(arguments: Sequence[str] | None) -> dict[str, object]:
    """Return the parameters that are given, by name; texts are taken as they are, numbers as YAML."""
    parser = argparse.ArgumentParser(prog="dlv3p predict", description="Predict images, large ones in tiles.")
    options = {item.name: item for item in fields(PredictParameters)}
    parser.add_argument(POSITIONAL, help=options[POSITIONAL].metadata["help"].replace("%", "%%"))
    for name, item in options.items():
        if name != POSITIONAL:
            parser.add_argument(f"--{name.replace('_', '-')}", dest=name, **_as_option(item))
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    texts = {name for name, item in options.items() if item.type in (str, "str", bool, "bool")}
    return {name: value if name in texts else read_value(name, value) for name, value in given.items()}


def _as_option(item: Field) -> dict[str, object]:
    help = f"{item.metadata['help']} (default: {item.default!r})".replace("%", "%%")
    if isinstance(item.default, bool):
        return {"action": argparse.BooleanOptionalAction, "default": None, "help": help}
    return {"metavar": type(item.default).__name__.upper(), "help": help}


if __name__ == "__main__":
    run_command(main)
