"""Write a plain folder with the most frequent mistakes of custom data, for an audit to find."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from cityscapes.files.atomic import write_bytes, write_text
from cityscapes.labels import CLASS_NAMES, TRAIN_ID_TO_COLOR, TRAIN_ID_TO_LABEL_ID
from dlv3p.data.class_table import CLASSES_FILE, HEADING
from dlv3p.data.demo_voc import city_pictures

COUNTS = {"train": 16, "val": 6}
_FINISHED = "README.txt"


def write_flawed_folder(root: Path) -> Path:
    """Write the folder, unless it exists: 16 images for training, 6 for validation, six mistakes; return `root`.

    The mistakes: label ids in place of train ids, a mask without its image, an image without its mask, a mask of
    another size, an image in both splits, and a truncated mask.
    """
    if (root / _FINISHED).is_file():
        return root
    pictures = city_pictures(sum(COUNTS.values()))
    names = [("train" if index < COUNTS["train"] else "val", f"street_{index:03d}") for index in range(len(pictures))]
    images = {key: _png(np.asarray(image)) for key, (image, _) in zip(names, pictures, strict=True)}
    masks = {key: _png(mask) for key, (_, mask) in zip(names, pictures, strict=True)}
    masks["train", "street_002"] = _png(TRAIN_ID_TO_LABEL_ID[pictures[2][1]])
    masks["train", "street_005"] = _png(pictures[5][1][:-8, :-8])
    masks["train", "street_007"] = masks["train", "street_007"][:400]
    masks["val", "old_street"] = masks["val", "street_016"]
    del masks["train", "street_011"]
    for files in (images, masks):
        files["val", "street_018"] = files["train", "street_003"]
    for folder, files in (("images", images), ("masks", masks)):
        for (split, name), content in files.items():
            write_bytes(root / folder / split / f"{name}.png", content, durable=False)
    colors = (",".join(map(str, color)) for color in TRAIN_ID_TO_COLOR[: len(CLASS_NAMES)].tolist())
    rows = [f"{index},{name},{color}" for index, (name, color) in enumerate(zip(CLASS_NAMES, colors, strict=True))]
    write_text(root / CLASSES_FILE, "\n".join([HEADING, *rows]) + "\n")
    write_text(root / _FINISHED, "A plain folder with six mistakes, made by the notebook audit_data.\n")
    return root


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
