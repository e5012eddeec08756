"""Write the embedded city: street scenes in the layout and the annotation format of Cityscapes, made from a seed.

    python cityscapes/demo_city.py                      160 + 40 + 20 frames of 128 x 256 in data/demo_city/
    python cityscapes/demo_city.py --height 1024 --width 2048 --train 4 --val 2 --test 1 --output /tmp/city

The same arguments give the same scenes, at any size; nothing is downloaded. Split, city and frame names are real in
form and invented in substance.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from cityscapes.errors import InputError, ParameterError, run_command
from cityscapes.workspace import demo_city_folder

DEFAULT_FRAMES = {"train": 160, "val": 40, "test": 20}
CITIES = {
    "train": ("alderbruck", "brunnhafen", "cedernach", "dornfelden"),
    "val": ("eschenwalde", "falkenmund"),
    "test": ("gilsterau", "hohenried"),
}
DRIVES = {"train": range(0, 10, 2), "val": range(8), "test": range(10)}
"""Which frames of each street a split has: for training more streets and longer steps, else drives to look at."""

DESCRIPTION = "demo_city.json"
VERSION = 1
"""Raised whenever the same arguments give other pixels or polygons, so that folders made before are not mistaken."""


def write_demo_city(
    root: Path,
    *,
    height: int = 128,
    width: int = 256,
    frames: Mapping[str, int] | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Write the demo city below `root`, in the layout of Cityscapes, and return `root`.

    `height` (64 to 1024) and `width` (64 to 2048) are in pixels; `frames` says how many frames train, val and test have
    (default 160, 40 and 20; DRIVES says how many make one drive). A finished city is left as it is, an interrupted one
    is continued. `progress(split, done, total)` is called after each frame. Raises ParameterError for values outside
    these ranges, and InputError when `root` holds other data; `force` replaces another demo city, nothing else.
    """
    root = Path(root)
    city = describe(height=height, width=width, frames=frames, seed=seed)
    found = _found(root)
    if found == {**city, "complete": True} and not force:
        return root
    if found and (force or not _same(found, city)):
        if not force:
            raise InputError(
                f"{root}: holds another demo city ({_difference(found, city)}); choose another folder or force it"
            )
        _remove(root)
    from cityscapes.atomic import write_text

    write_text(root / DESCRIPTION, json.dumps({**city, "complete": False}) + "\n")
    for split, count in city["frames"].items():
        _write_split(root, split, count, height=height, width=width, seed=seed, progress=progress)
    write_text(root / DESCRIPTION, json.dumps({**city, "complete": True}) + "\n")
    return root


def describe(*, height: int, width: int, frames: Mapping[str, int] | None, seed: int) -> dict:
    """The description that is kept with a city; raises ParameterError for values that no city can have."""
    counts = {**DEFAULT_FRAMES, **(frames or {})}
    if unknown := sorted(set(counts) - set(DEFAULT_FRAMES)):
        raise ParameterError(f"frames: no split named {unknown[0]!r}; the splits are train, val and test")
    limits = {"height": (height, 64, 1024), "width": (width, 64, 2048), "seed": (seed, 0, 2**63 - 1)}
    limits |= {split: (count, 0, 100_000) for split, count in counts.items()}
    for name, (value, low, high) in limits.items():
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ParameterError(f"{name}: {value!r} is not a whole number from {low} to {high}")
    return {"demo_city": VERSION, "height": height, "width": width, "seed": seed, "frames": counts}


def _found(root: Path) -> dict | None:
    """The description of the city in a folder; None where there is nothing. Other data is refused."""
    description = root / DESCRIPTION
    if description.is_file():
        try:
            found = json.loads(description.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {"demo_city": None}
        except ValueError:
            return {"demo_city": None}
    for name in ("leftImg8bit", "gtFine"):
        if (root / name).exists():
            raise InputError(
                f"{root}: holds {name}/ but no {DESCRIPTION}, so it is not a demo city; choose another folder"
            )
    return None


def _same(found: dict, city: dict) -> bool:
    return all(found.get(key) == value for key, value in city.items())


def _difference(found: dict, city: dict) -> str:
    return ", ".join(
        f"{key} {found.get(key)} where {value} is asked for" for key, value in city.items() if found.get(key) != value
    )


def _remove(root: Path) -> None:
    """Remove the cities of this module, and only those."""
    for split, names in CITIES.items():
        for city in names:
            for kind in ("leftImg8bit", "gtFine"):
                shutil.rmtree(root / kind / split / city, ignore_errors=True)


def _write_split(
    root: Path,
    split: str,
    count: int,
    *,
    height: int,
    width: int,
    seed: int,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    from cityscapes.demo_scene import Film
    from cityscapes.layout import POLYGONS_SUFFIX, Frame

    names = CITIES[split]
    film: Film | None = None
    for index in range(count):
        sequence, place = divmod(index, len(DRIVES[split]))
        number = DRIVES[split][place]
        if place == 0:
            film = None
        turn, city = divmod(sequence, len(names))
        frame = Frame(split, names[city], f"{turn:06d}", f"{number:06d}")
        image, polygons = frame.image(root), frame.annotation(root, POLYGONS_SUFFIX)
        if not (image.is_file() and polygons.is_file()):
            film = film or Film(seed, split, sequence)
            _write_frame(
                film, number, image, polygons, height=height, width=width, noise=(seed, split, sequence, number)
            )
        if progress:
            progress(split, index + 1, count)


def _write_frame(film, number: int, image: Path, polygons: Path, *, height: int, width: int, noise: tuple) -> None:
    from io import BytesIO

    from PIL import Image

    from cityscapes.atomic import write_bytes
    from cityscapes.demo_annotation import annotation
    from cityscapes.demo_paint import paint
    from cityscapes.demo_random import Dice

    view = film.view(number, height=height, width=width)
    content = annotation(view, height=height, width=width, secret=noise[1] == "test")
    street = film.street
    pixels = paint(view, street.light, height=height, width=width, horizon=street.horizon, dice=Dice(*noise, "noise"))
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1)
    write_bytes(polygons, json.dumps(content, separators=(",", ":")).encode() + b"\n", durable=False)
    write_bytes(image, stream.getvalue(), durable=False)


def main() -> int:
    """Parse the arguments, write the city, and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write to (default: data/demo_city)")
    parser.add_argument("--height", type=int, default=128, help="height of the images in pixels (default: %(default)s)")
    parser.add_argument("--width", type=int, default=256, help="width of the images in pixels (default: %(default)s)")
    for split, count in DEFAULT_FRAMES.items():
        parser.add_argument(f"--{split}", type=int, default=count, help=f"frames in {split} (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another city (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a demo city that is already there")
    arguments = parser.parse_args()
    root = arguments.output or demo_city_folder()
    frames = {split: getattr(arguments, split) for split in DEFAULT_FRAMES}
    describe(height=arguments.height, width=arguments.width, frames=frames, seed=arguments.seed)
    write_demo_city(
        root, height=arguments.height, width=arguments.width, frames=frames, seed=arguments.seed, force=arguments.force
    )
    counts = ", ".join(f"{count} {split}" for split, count in frames.items())
    print(f"{root}: {counts} frames of {arguments.height} x {arguments.width} pixels, seed {arguments.seed}")
    return 0


if __name__ == "__main__":
    run_command(main)
