"""Predictions of folders, made without showing progress, and what lies in the folder of their results."""

import csv
from pathlib import Path

from dlv3p.prediction.predict import predict_images
from dlv3p.prediction.predictor import ImagePredictor
from dlv3p.prediction.results import Outputs, Predictions
from dlv3p.prediction.sources import find_images

ALL = Outputs(confidence=True)
VARYING = (".lock", "predictions.csv.json")


def predict(
    predictor: ImagePredictor, images: Path | str, output: Path, outputs: Outputs = ALL, **options: object
) -> Predictions:
    """Predict without showing progress."""
    return predict_images(predictor, find_images(images, output=output), output, outputs, progress="none", **options)


def contents(folder: Path) -> dict[str, object]:
    """Every file below a folder, the table without seconds; its checksum and locks are left out."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    found: dict[str, object] = {name: path.read_bytes() for name, path in files.items() if name not in VARYING}
    with open(folder / "predictions.csv", newline="") as file:
        found["predictions.csv"] = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    return found
