"""Predictions on disk that need no network: the truth of a split, a part of which is wrong."""

from pathlib import Path

import numpy as np

from cityscapes.dataset import Split
from cityscapes.files.checksums import file_sha256, write_recorded
from cityscapes.files.png_write import encode_png
from cityscapes.labels import CLASS_NAMES, IGNORE, TRAIN_ID_TO_COLOR, TRAIN_ID_TO_LABEL_ID
from dlv3p.runs.folders import write_json


def write_predictions(folder: Path, split: Split, *, shares: list[float], label_ids: bool = False) -> Path:
    """Write what `predict` would: image i has the share i of its rows, from the top, as the next class."""
    colors = TRAIN_ID_TO_COLOR[: len(CLASS_NAMES)].tolist()
    record = {"ids": "own" if label_ids else "train", "class_names": list(CLASS_NAMES), "colors": colors}
    for index, share in enumerate(shares):
        truth = split.mask(index)
        found, wrong = np.where(truth == IGNORE, 0, truth), round(share * len(truth))
        found[:wrong] = (found[:wrong] + 1) % split.num_classes
        sure = np.full(found.shape, 255, np.uint8)
        sure[:wrong] = 51
        ids = TRAIN_ID_TO_LABEL_ID[found].astype(np.uint8) if label_ids else found.astype(np.uint8)
        for kind, values in (("ids", ids), ("confidence", sure)):
            path = folder / kind / f"{split.name(index)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(values))
    rows = [f"{split.name(index)},{file_sha256(split.image_path(index))}\n" for index in range(len(shares))]
    write_recorded(folder / "predictions.csv", f"image,sha256\n{''.join(rows)}".encode())
    write_json(folder / "predictions.json", record)
    return folder
