"""Predict images of any kind, with a run, a weights file, or an exported file.

    dlv3p predict photos/ --run demo
    dlv3p predict 'drive/*.jpg' --weights best.pt --runtime fastest --output results

Results go to outputs/<run>/predict_<images>/: ids, colors, overlays, a table, and predictions.json, which says how they
were made. A killed command is resumed by the same command. Exit status 3 says that some images could not be predicted.
"""

import argparse
from collections.abc import Sequence

from cityscapes.errors import InputError, run_command
from cityscapes.findings import print_problems
from dlv3p.parameters.files import read_options
from dlv3p.parameters.notebooks import PredictParameters


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict what the arguments name, and print where the results are."""
    parser = argparse.ArgumentParser(prog="dlv3p predict", description="Predict images, large ones in tiles.")
    parameters = read_options(parser, PredictParameters, arguments, positional="images")
    from dlv3p.prediction.jobs import predict

    predictions = predict(parameters)
    print_problems("not predicted", predictions.problems)
    kept = len(predictions.done) - predictions.made
    print(f"{predictions.folder}: {predictions.made} predicted, {kept} kept, {len(predictions.problems)} not predicted")
    return InputError.exit_status if predictions.problems else 0


if __name__ == "__main__":
    run_command(main)
