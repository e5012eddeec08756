"""A folder of images of other channels than RGB, small enough to train on in seconds."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

CHANNELS, SIDE = 5, 64
COLORS = [[12, 200, 34], [250, 1, 99]]
"""Of the two classes, none of them by default."""
SWITCHES = {"crop_height": 48, "crop_width": 48, "batch_size": 4, "learning_rate": 0.05, "image_scale": 1.0}
SWITCHES |= {"checkpoint_minutes": 60.0}


def write_folder(root: Path, channels: int = CHANNELS, count: int = 4) -> Path:
    """Write 12-bit images whose second class is bright in the last channel, with masks of 0 and 255 by a suffix.

    One channel becomes 16-bit gray, in PNG files.
    """
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for index in range(count):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            top, left = generator.integers(0, SIDE // 2, 2)
            mask[top : top + SIDE // 2, left : left + SIDE // 2] = 255
            values = generator.integers(0, 1000, (SIDE, SIDE, channels)).astype(np.uint16)
            values[..., -1] += np.where(mask == 255, 3000, 0).astype(np.uint16)
            for kind in ("images", "masks"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            path = root / "images" / split / f"{index}.tif"
            if channels == 1:
                Image.fromarray(values[..., 0] * 16).save(path.with_suffix(".png"))
            else:
                tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")
            Image.fromarray(mask).save(root / "masks" / split / f"{index}_mask.png")
    rows = zip(("0,ground", "1,object"), COLORS, (0, 255), strict=True)
    table = "".join(f"{row},{red},{green},{blue},{stored}\n" for row, (red, green, blue), stored in rows)
    (root / "classes.csv").write_text("id,name,red,green,blue,stored\n" + table)
    (root / "data.yaml").write_text(f"mask_suffix: _mask\nchannels: {channels}\n")
    return root
