"""Masks from polygons: this project beside the plain way with Pillow, from the JSON file to three PNG files.

    python -m benchmarks.masks [--height 1024 --width 2048 --frames 8 --repeats 5]

Both ways run on one thread, by turns, on the same frames of the embedded city; the figure is the ratio of the medians
of process time. The plain way is what the field's scripts do: parse, draw each mask with ImageDraw, save with Pillow.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw

from cityscapes.demo.city import write_demo_city
from cityscapes.frame_masks import Job, make_masks
from cityscapes.labels import LABEL_BY_NAME
from cityscapes.layout import POLYGONS_SUFFIX, Frame, find_frames


def plain_way(frame: Frame, root: Path, output: Path) -> None:
    """Draw label ids, train ids and colours one after the other with Pillow, and save each."""
    annotation = json.loads(frame.annotation(root, POLYGONS_SUFFIX).read_text())
    size = (annotation["imgWidth"], annotation["imgHeight"])
    output.mkdir(parents=True, exist_ok=True)
    for name, mode in (("labelIds", "L"), ("labelTrainIds", "L"), ("color", "RGBA")):
        image = Image.new(mode, size, {"labelIds": 0, "labelTrainIds": 255, "color": (0, 0, 0, 255)}[name])
        draw = ImageDraw.Draw(image)
        for item in annotation["objects"]:
            found = item["label"] if item["label"] in LABEL_BY_NAME else item["label"].removesuffix("group")
            label = LABEL_BY_NAME[found]
            if label.label_id < 0 or len(item["polygon"]) < 2:
                continue
            fill = {"labelIds": label.label_id, "labelTrainIds": label.train_id, "color": (*label.color, 255)}[name]
            draw.polygon([tuple(point) for point in item["polygon"]], fill=fill)
        image.save(output / f"{frame.name}_{name}.png")


def measure(frames: list[Frame], root: Path, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Return process seconds a frame of each way, measured by turns after one round that is not counted."""
    ours = {mode: [] for mode in ("rgba", "palette")}
    times: dict[str, list[float]] = {"plain": [], **ours}
    for turn in range(repeats + 1):
        for frame in frames:
            ways = {"plain": lambda frame=frame: plain_way(frame, root, folder / "plain")}
            for mode in ours:
                job = Job(frame, root, folder / mode, mode, force=True)
                ways[mode] = lambda job=job: make_masks(job)
            for name, way in ways.items():
                began = time.process_time()
                way()
                if turn:
                    times[name].append(time.process_time() - began)
    return times


def main() -> None:
    """Print milliseconds a frame and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("height", 1024), ("width", 2048), ("frames", 8), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = {"train": options.frames, "val": 1, "test": 1}
        root = write_demo_city(Path(folder) / "city", height=options.height, width=options.width, frames=counts)
        frames = find_frames(root, "train", suffix=POLYGONS_SUFFIX)
        times = measure(frames, root, Path(folder), options.repeats)
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    print(f"polygons to three PNG files, {options.height} x {options.width}, {options.frames} frames, one thread")
    for name, value in medians.items():
        print(f"  {name:<8} {value:8.1f} ms   {medians['plain'] / value:5.2f} x the plain way's speed")


if __name__ == "__main__":
    main()
