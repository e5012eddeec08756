"""Score a run on a labelled split: whole images, at the size of their masks, ignored pixels left out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cityscapes.dataset import CityscapesSplit
from cityscapes.workspace import output_folder
from dlv3p.inference import Predictor
from dlv3p.metrics import Scores, confusion_matrix, scores
from dlv3p.progress import track
from dlv3p.runs import write_json


@dataclass(frozen=True)
class Evaluation:
    """The scores of one checkpoint on one split; `images` has a row per image, worst mIoU first."""

    predictor: Predictor
    split: CityscapesSplit
    confusion: np.ndarray
    scores: Scores
    images: pd.DataFrame

    def classes(self) -> pd.DataFrame:
        """Return a table with a row per class: IoU, Dice, accuracy, and the share of the split's labelled pixels."""
        pixels = self.confusion.sum(axis=1)
        columns = {
            "IoU": self.scores.iou,
            "Dice": self.scores.dice,
            "accuracy": self.scores.accuracy,
            "share of pixels": pixels / max(1, pixels.sum()),
        }
        return pd.DataFrame(columns, index=pd.Index(self.predictor.class_names, name="class"))

    def save(self) -> Path:
        """Write `outputs/<run>/evaluation.json` and return its path; a class that does not occur is null there."""
        classes = {
            name: {key: None if np.isnan(value) else float(value) for key, value in row.items()}
            for name, row in self.classes().to_dict("index").items()
        }
        content = {
            "run": self.predictor.run,
            "checkpoint": self.predictor.checkpoint.name,
            "epoch": self.predictor.epoch,
            "data_root": str(self.split.root),
            "split": self.split.split,
            "images": len(self.split),
            "protocol": "single scale, whole images, scored at the size of the masks, ignored pixels left out",
            **self.scores.means(),
            "classes": classes,
            "confusion": self.confusion.tolist(),
            "confusion_axes": ["truth", "prediction"],
        }
        path = output_folder(self.predictor.run) / "evaluation.json"
        write_json(path, content)
        return path


def evaluate(predictor: Predictor, split: CityscapesSplit, *, progress: str = "auto") -> Evaluation:
    """Predict and score every image of a split."""
    num_classes = len(predictor.class_names)
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    rows = []
    for index in track(range(len(split)), total=len(split), title=f"evaluate {split.split}", mode=progress):
        image, mask = split.pair(index)
        prediction = predictor.predict(image).cpu()
        counts = confusion_matrix(torch.from_numpy(mask), prediction, num_classes)
        confusion += counts
        one = scores(counts)
        rows.append({"image": split.frames[index].name, "mIoU": one.mean_iou, "pixel_accuracy": one.pixel_accuracy})
    images = pd.DataFrame(rows).sort_values("mIoU", kind="stable").reset_index(drop=True)
    return Evaluation(predictor, split, confusion.numpy(), scores(confusion), images)
