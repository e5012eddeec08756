"""Time training samples from PNG to tensors: this project against the usual way with torchvision's transforms.

    python -m benchmarks.loader [--root CITYSCAPES] [--frames 6 --repeats 7 --crop 768 --color-jitter 0]

All ways run on one thread, interleaved, on the same files and with the same random draws; files are in the page cache.
The figure is the median of the ratios of process time of the same sample. The usual way decodes the whole image and
mask, resizes both whole, and crops, flips and normalizes; that its samples agree is checked along the way.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options, without torch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="a data set with a train split; the embedded city by default")
    parser.add_argument("--frames", type=int, default=6, help="of the embedded city (default: 6)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count (default: 7)")
    parser.add_argument("--crop", type=int, default=768, help="height and width in pixels (default: 768)")
    parser.add_argument("--color-jitter", type=float, default=0.0, help="its strength (default: 0, none)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parse_options()  # answers --help, and refuses wrong options, before the seconds that the imports below take

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from cityscapes.dataset import Split
from cityscapes.demo.city import write_demo_city
from cityscapes.errors import run_command
from cityscapes.workspace import WORKSPACE_VARIABLE
from dlv3p.data.augment import MEAN, STD, Augmentation
from dlv3p.data.decoded_cache import DecodedCache
from dlv3p.data.loader import TrainingSamples
from dlv3p.data.roots import open_split
from dlv3p.data.sampling import sample_generator


def usual_way(split: Split, augmentation: Augmentation, seed: int, epoch: int, index: int):
    """Make a sample as torchvision scripts do, with the window and flip that this project draws for it."""
    image = decode_image(str(split.image_path(index)), ImageReadMode.RGB)
    mask = decode_image(str(split.mask_path(index)), ImageReadMode.UNCHANGED)
    rng, (height, width) = sample_generator(seed, epoch, index), image.shape[1:]
    window = augmentation.window(height, width, rng)
    size = [round(height * window.height / (window.bottom - window.top)), 0]
    size[1] = round(width * window.width / (window.right - window.left))
    top, left = round(window.top * size[0] / height), round(window.left * size[1] / width)
    image = functional.resize(image, size, antialias=True)
    mask = functional.resize(mask, size, interpolation=InterpolationMode.NEAREST_EXACT)
    box = (top, left, window.height, window.width)
    image, mask = functional.crop(image, *box), functional.crop(mask, *box)
    if rng.random() < 0.5:
        image, mask = functional.horizontal_flip(image), functional.horizontal_flip(mask)
    if augmentation.color_jitter:
        strength = augmentation.color_jitter
        factors = rng.uniform(1 - strength, 1 + strength, size=3).tolist()
        image = functional.adjust_brightness(image, factors[0])
        image = functional.adjust_saturation(functional.adjust_contrast(image, factors[1]), factors[2])
    image = functional.normalize(functional.to_dtype(image, torch.float32, scale=True), MEAN.tolist(), STD.tolist())
    padding = [0, 0, augmentation.crop_width - window.width, augmentation.crop_height - window.height]
    return functional.pad(image, padding), functional.pad(mask, padding, fill=255)[0].to(torch.int64)


def difference(one, other) -> tuple[float, float]:
    """Return the largest difference of two images in levels of 255, and the share of pixels whose labels differ."""
    levels = (one[0] - other[0]).abs().amax(dim=(1, 2)).numpy() * STD * 255
    return float(levels.max()), float((one[1] != other[1]).float().mean())


def measure(split: Split, augmentation: Augmentation, repeats: int) -> tuple[dict[str, list[float]], list]:
    """Return process seconds per sample of each way, and the differences between samples of the usual way and ours."""
    plain = TrainingSamples(split, augmentation, seed=0)
    cached = TrainingSamples(split, augmentation, seed=0, cache=DecodedCache(split))
    cached.cache.prepare(progress="none")
    ways = {
        "usual": lambda key: usual_way(split, augmentation, 0, *key),
        "ours": lambda key: plain[key],
        "ours, decoded cache": lambda key: cached[key],
    }
    times, differences = {name: [] for name in ways}, []
    for epoch in range(repeats + 1):  # the first round is not counted
        for index in range(len(split)):
            samples = {}
            for name, way in ways.items():
                began = time.process_time()
                samples[name] = way((epoch, index))
                if epoch:
                    times[name].append(time.process_time() - began)
            differences.append(difference(samples["usual"], samples["ours"]))
            if not all(map(torch.equal, samples["ours"], samples["ours, decoded cache"])):
                raise SystemExit("the cache changes a sample")
    return times, differences


def main(arguments: Sequence[str] | None = None) -> int:
    """Print milliseconds per sample, samples per second, ratios, and the agreement of samples."""
    options = parse_options(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[WORKSPACE_VARIABLE] = folder
        counts = {"train": options.frames, "val": 1, "test": 1}
        root = options.root or write_demo_city(Path(folder) / "city", height=1024, width=2048, frames=counts)
        split = open_split(root, "train")
        augmentation = Augmentation(options.crop, options.crop, color_jitter=options.color_jitter)
        times, differences = measure(split, augmentation, options.repeats)
        decoded = sum(path.stat().st_size for path in (Path(folder) / "data" / "decoded").rglob("*.npy"))
        stored = sum(split.image_path(index).stat().st_size for index in range(len(split)))
    print(f"PNG to a training sample of {options.crop} x {options.crop}, {len(times['usual'])} samples, one thread")
    for name, values in times.items():
        ratios = [usual / value for usual, value in zip(times["usual"], values, strict=True)]
        median = statistics.median(values)
        ratio = statistics.median(ratios)
        print(f"  {name:<20} {1000 * median:6.1f} ms  {1 / median:6.1f} samples/s  {ratio:5.2f} x usual")
    levels, labels = np.array(differences).T
    print(f"labels equal in {100 * (1 - labels.mean()):.3f} % of pixels, at least {100 * (1 - labels.max()):.3f} %")
    print(f"image within {levels.max():.1f} of 255 levels")
    print(f"a file has {stored / len(split) / 1e6:.2f} MB, a decoded image {decoded / len(split) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    run_command(main)
