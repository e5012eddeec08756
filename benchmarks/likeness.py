"""Measure how alike images of two splits are, and images and their changed copies: the distributions behind the limits.

    python -m benchmarks.likeness [--data-root demo_city] [--splits train val]

Each line gives the smallest, the middle and the largest value over the pairs: differing bits of 512, and correlation
of the reduced images, as the audit compares them (`dlv3p.data.likeness`).
"""

import argparse
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from cityscapes.errors import run_command
from dlv3p.data.likeness import Look, correlation, differing_bits, look_at
from dlv3p.data.roots import open_images, resolve_data_root


def saved_anew(image: Image.Image) -> Image.Image:
    """Return an image at two thirds of its size, after JPEG of quality 40."""
    file = BytesIO()
    image.resize((image.width * 2 // 3, image.height * 2 // 3)).save(file, "JPEG", quality=40)
    return Image.open(file)


def of_less_contrast(image: Image.Image) -> Image.Image:
    """Return an image at 70% of its contrast, a little brighter."""
    return image.point(lambda level: level * 0.7 + 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.likeness", description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", default="demo_city", help="a data set of any kind (default: %(default)s)")
    parser.add_argument("--splits", nargs=2, default=["train", "val"], help="default: train val")
    options = parser.parse_args(arguments)
    first, second = (open_images(resolve_data_root(options.data_root), split) for split in options.splits)
    known, looks = looks_of(first), looks_of(second)
    print(f"{options.data_root}: {len(known)} images of {first.split}, {len(looks)} of {second.split}")
    report(f"{second.split} and the nearest of {first.split}", [nearest(look, known) for look in looks])
    report(f"each of {second.split} and the next", list(zip(looks, looks[1:], strict=False)))
    report(f"each of {first.split} and the next", list(zip(known, known[1:], strict=False)))
    for change in (saved_anew, of_less_contrast):
        pairs = zip(looks, looks_of(second, change), strict=True)
        report(f"{second.split} and itself, {change.__name__.replace('_', ' ')}", list(pairs))
    return 0


def looks_of(split, change: Callable[[Image.Image], Image.Image] = lambda image: image) -> list[Look]:
    """Return what the audit keeps of each image, after `change`."""
    return [look_at(split.name(index), b"", change(split.image(index))) for index in range(len(split))]


def nearest(look: Look, known: Sequence[Look]) -> tuple[Look, Look]:
    """Return an image and the one of the others in which the fewest bits differ."""
    return look, min(known, key=lambda other: differing_bits(look.bits, other.bits))


def report(title: str, pairs: Sequence[tuple[Look, Look]]) -> None:
    """Print the range and the median of differing bits and of correlations."""
    bits = [differing_bits(look.bits, other.bits) for look, other in pairs]
    correlations = [correlation(look.levels, other.levels) for look, other in pairs]
    for name, values, digits in (("bits", bits, 0), ("correlation", correlations, 3)):
        low, middle, high = (f"{value:.{digits}f}" for value in np.percentile(values, (0, 50, 100)))
        print(f"  {title}: {name} {low} {middle} {high}")


if __name__ == "__main__":
    run_command(main)
