"""Time training samples from image files to tensors: this project against other libraries of today.

    python -m benchmarks.loader [--root DATA] [--jpeg] [--frames 6 --repeats 7 --crop 768 --color-jitter 0]

All ways run on one thread, interleaved, on the same files and with the same random draws; files are in the page cache.
A ratio is the median over the samples of process time over that of ours, and comes with the agreement of the samples: a
peer whose images differ by more than two levels of 255 does another operation. Peers that are not installed are named:
pip install 'dlv3p[bench]'. `--cold` drops the files from the page cache before each sample, and times by the wall.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options, without torch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="a data set with a train split; the embedded city by default")
    parser.add_argument("--frames", type=int, default=6, help="of the embedded city (default: 6)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count (default: 7)")
    parser.add_argument("--crop", type=int, default=768, help="height and width in pixels (default: 768)")
    parser.add_argument("--jpeg", action="store_true", help="store the embedded city's images as JPEG, as VOC's are")
    parser.add_argument("--cold", action="store_true", help="read each file from the disk, not from the page cache")
    parser.add_argument("--color-jitter", type=float, default=0.0, help="its strength (default: 0, none)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    parse_options()  # answers --help, and refuses wrong options, before the seconds that the imports below take

import numpy as np
import torch
from PIL import Image

from benchmarks.loader_peers import Peer, usable_peers, versions
from cityscapes.dataset import Split
from cityscapes.demo.city import write_demo_city
from cityscapes.errors import run_command
from cityscapes.workspace import WORKSPACE_VARIABLE
from dlv3p.data.augment import STD, Augmentation
from dlv3p.data.decoded_cache import DecodedCache
from dlv3p.data.loader import TrainingSamples
from dlv3p.data.roots import open_split

OURS, CACHED = "ours", "ours, decoded cache"


def write_jpeg_folder(city: Path, folder: Path) -> Path:
    """Write the train split of a city as a plain folder with JPEG images of quality 95, and return it."""
    split = open_split(city, "train")
    for kind in ("images", "masks"):
        (folder / kind / "train").mkdir(parents=True)
    for index in range(len(split)):
        image, mask = split.pair(index)
        image.save(folder / "images" / "train" / f"{index}.jpg", quality=95)
        Image.fromarray(mask).save(folder / "masks" / "train" / f"{index}.png")
    rows = [f"{number},{name}" for number, name in enumerate(split.class_names)]
    (folder / "classes.csv").write_text("\n".join(["id,name", *rows]) + "\n", encoding="utf-8")
    return folder


def drop_from_page_cache(split: Split, index: int) -> None:
    """Have the next reading of a sample's files come from the disk."""
    for path in (split.image_path(index), split.mask_path(index)):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def difference(one, other) -> tuple[float, float]:
    """Return the largest difference of two images in levels of 255, and the share of pixels whose labels differ."""
    levels = (one[0] - other[0]).abs().amax(dim=(1, 2)).numpy() * STD * 255
    return float(levels.max()), float((one[1] != other[1]).float().mean())


def measure(
    split: Split, augmentation: Augmentation, peers: dict[str, Peer], repeats: int, *, cold: bool
) -> tuple[dict[str, list[float]], dict[str, list[tuple[float, float]]]]:
    """Return seconds per sample of each way, and the differences between each peer's samples and ours."""
    plain = TrainingSamples(split, augmentation, seed=0)
    cached = TrainingSamples(split, augmentation, seed=0, cache=DecodedCache(split))
    cached.cache.prepare(progress="none")
    ways: dict[str, Callable] = {OURS: lambda key: plain[key], CACHED: lambda key: cached[key]}
    ways |= {name: lambda key, peer=peer: peer.make(split, augmentation, key) for name, peer in peers.items()}
    times, differences = {name: [] for name in ways}, {name: [] for name in peers}
    clock = time.perf_counter if cold else time.process_time
    for epoch in range(repeats + 1):  # the first round is not counted
        for index in range(len(split)):
            samples = {}
            for name in np.random.default_rng(epoch * len(split) + index).permutation(list(ways)).tolist():
                if cold:
                    drop_from_page_cache(split, index)
                began = clock()
                samples[name] = ways[name]((epoch, index))
                if epoch:
                    times[name].append(clock() - began)
            for name in peers:
                differences[name].append(difference(samples[name], samples[OURS]))
            if not all(map(torch.equal, samples[OURS], samples[CACHED])):
                raise SystemExit("the cache changes a sample")
    return times, differences


def report(times: dict[str, list[float]], differences: dict[str, list[tuple[float, float]]]) -> None:
    """Print milliseconds a sample of each way, how many times as fast ours is, and how the samples agree."""
    for name, values in times.items():
        ratio = statistics.median(value / own for value, own in zip(values, times[OURS], strict=True))
        line = f"  {name:<20} {1000 * statistics.median(values):6.1f} ms, ours is {ratio:5.2f} times as fast"
        if name in differences:
            levels, labels = np.array(differences[name]).T
            line += f"; labels equal in {100 * (1 - labels.mean()):.3f} % of pixels, images within {levels.max():.1f}"
        print(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the time of every way, its ratio to ours, and the agreement of samples."""
    options = parse_options(arguments)
    torch.set_num_threads(1)
    peers, left_out = usable_peers(jpeg=options.jpeg, jitter=options.color_jitter > 0)
    if "cv2" in {package for peer in peers.values() for package in peer.packages}:
        import cv2

        cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[WORKSPACE_VARIABLE] = folder
        counts = {"train": options.frames, "val": 1, "test": 1}
        root = options.root or write_demo_city(Path(folder) / "city", height=1024, width=2048, frames=counts)
        split = open_split(write_jpeg_folder(root, Path(folder) / "jpeg") if options.jpeg else root, "train")
        augmentation = Augmentation(options.crop, options.crop, color_jitter=options.color_jitter)
        times, differences = measure(split, augmentation, peers, options.repeats, cold=options.cold)
        decoded = sum(path.stat().st_size for path in (Path(folder) / "data" / "decoded").rglob("*.npy"))
        stored = sum(split.image_path(index).stat().st_size for index in range(len(split)))
    kind = "wall time, files from the disk" if options.cold else "processor time"
    print(f"{'JPEG' if options.jpeg else 'PNG'} to a training sample of {options.crop} x {options.crop}, "
          f"{len(times[OURS])} samples, one thread, {kind}; {versions(peers)}")  # fmt: skip
    report(times, differences)
    for line in left_out:
        print(f"  left out: {line}")
    print(f"a file has {stored / len(split) / 1e6:.2f} MB, a decoded image {decoded / len(split) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    run_command(main)
