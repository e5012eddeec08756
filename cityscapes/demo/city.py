"""Write the embedded city: street scenes in the layout and the annotation format of Cityscapes, made from a seed.

    python cityscapes/demo/city.py                      160 + 40 + 20 frames of 128 x 256 in data/demo_city/
    python cityscapes/demo/city.py --height 1024 --width 2048 --train 4 --val 2 --test 1 --output /tmp/city

The same arguments give the same scene at any size, the same polygons everywhere, and the same pixels with the same
Pillow, whose polygon fill differs from version to version by a few edge pixels. Nothing is downloaded; the cities
do not exist.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cityscapes.errors import InputError, ParameterError, run_command
from cityscapes.files.atomic import write_bytes, write_text
from cityscapes.files.untrusted import regular
from cityscapes.layout import POLYGONS_SUFFIX, Frame
from cityscapes.workspace import demo_city_folder

Progress = Callable[[str, int, int], None]

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
    progress: Progress | None = None,
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
                f"{root}: holds another demo city ({_difference(found, city)}); "
                "choose another folder, or replace it with --force (in Python: force=True)"
            )
        # Interrupted while removing, the old city has to count as unfinished.
        write_text(root / DESCRIPTION, json.dumps({**found, "complete": False}) + "\n")
        _remove(root)
    write_text(root / DESCRIPTION, json.dumps({**city, "complete": False}) + "\n")
    for split in city["frames"]:
        _write_split(root, split, city, progress)
    write_text(root / DESCRIPTION, json.dumps({**city, "complete": True}) + "\n")
    return root


def is_finished(root: Path) -> bool:
    """Return whether a folder holds a demo city with all its frames."""
    return ((root / DESCRIPTION).is_file() and _found(root) or {}).get("complete") is True


def describe(*, height: int, width: int, frames: Mapping[str, int] | None, seed: int) -> dict:
    """Return the description that is kept with a city; raises ParameterError for values that no city can have."""
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
    """Return the description of the city in a folder; None where there is nothing. Other data is refused."""
    description = root / DESCRIPTION
    if description.is_file():
        try:
            found = json.loads(regular(description).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {"demo_city": None}
        except (ValueError, RecursionError):
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


def frame_names(split: str, count: int) -> Iterator[tuple[int, int, Frame]]:
    """Return the first frames of a split in the order in which they are written: street, frame of its drive, name."""
    cities, drive = CITIES[split], DRIVES[split]
    for index in range(count):
        street, place = divmod(index, len(drive))
        sequence, city = divmod(street, len(cities))
        yield street, drive[place], Frame(split, cities[city], f"{sequence:06d}", f"{drive[place]:06d}")


def _write_split(root: Path, split: str, city: dict, progress: Progress | None) -> None:
    from cityscapes.demo.scene import Film

    film: Film | None = None
    total = city["frames"][split]
    for done, (street, number, frame) in enumerate(frame_names(split, total), start=1):
        image, polygons = frame.image(root), frame.annotation(root, POLYGONS_SUFFIX)
        if not (image.is_file() and polygons.is_file()):
            if film is None or film.number != street:
                film = Film(city["seed"], split, street)
            pixels, annotation = _draw(film, number, height=city["height"], width=city["width"])
            write_bytes(polygons, annotation, durable=False)
            write_bytes(image, pixels, durable=False)
        if progress:
            progress(split, done, total)


def _draw(film, number: int, *, height: int, width: int) -> tuple[bytes, bytes]:
    """Return the PNG and the polygons file of one frame."""
    from io import BytesIO

    from PIL import Image

    from cityscapes.demo.annotation import annotation
    from cityscapes.demo.paint import paint

    view = film.view(number, height=height, width=width)
    stream = BytesIO()
    pixels = paint(view, film.street, height=height, width=width, dice=film.dice("noise", number))
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1)
    polygons = annotation(view, height=height, width=width, secret=film.split == "test")
    return stream.getvalue(), json.dumps(polygons, separators=(",", ":")).encode() + b"\n"


def main() -> int:
    """Parse the arguments, write the city, and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write to (default: data/demo_city)")
    parser.add_argument("--height", type=int, default=128, help="of the images in pixels, 64 to 1024 (default: 128)")
    parser.add_argument("--width", type=int, default=256, help="of the images in pixels, 64 to 2048 (default: 256)")
    for split, count in DEFAULT_FRAMES.items():
        parser.add_argument(f"--{split}", type=int, default=count, help=f"frames in {split} (default: {count})")
    parser.add_argument("--seed", type=int, default=0, help="a different seed draws a different city (default: 0)")
    parser.add_argument("--force", action="store_true", help="replace a demo city that is already there")
    options = vars(parser.parse_args())
    root, force = options.pop("output") or demo_city_folder(), options.pop("force")
    options["frames"] = {split: options.pop(split) for split in DEFAULT_FRAMES}
    describe(**options)  # Refuses wrong values before anything slow is imported.
    with _bar(sum(options["frames"].values())) as progress:
        write_demo_city(root, **options, force=force, progress=progress)
    counts = ", ".join(f"{count} {split}" for split, count in options["frames"].items())
    print(f"{root}: {counts} frames of {options['height']} x {options['width']} pixels, seed {options['seed']}")
    return 0


@contextmanager
def _bar(total: int) -> Iterator[Progress]:
    from tqdm import tqdm

    with tqdm(total=total, unit="frame", disable=None, leave=False) as bar:
        yield lambda split, done, frames: bar.update()


if __name__ == "__main__":
    run_command(main)
