"""Remember which data set the masks of a folder were made from, so that a mix-up of two is told as what it is.

All data sets share one default folder for masks. Most have cities of their own and never meet; where two have frames of
equal names, their masks would stand in one another's place.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cityscapes.errors import InputError
from cityscapes.files.atomic import write_text
from cityscapes.layout import Frame

RECORD = ".made_from.json"
"""The file in the output folder: an object from `<split>/<city>` to the root of the data set."""


def refuse_another_source(output: Path, stale: Iterable[Frame], root: Path) -> None:
    """Raise InputError when one of the frames whose masks fit no more was made from another data set that is there."""
    sources = _read(output)
    for frame in stale:
        source = sources.get(f"{frame.split}/{frame.city}", "")
        if source and source != str(root.resolve()) and Path(source).is_dir():
            raise InputError(
                f"{output / frame.split / frame.city}: holds masks made from {source}, which has frames of the same "
                f"names as {root}; give each data set its own folder with --output, or replace the masks with --force"
            )


def record_source(output: Path, frames: Iterable[Frame], root: Path) -> None:
    """Write down that the masks of these frames are made from `root`; the caller holds the folder's lock."""
    sources = _read(output)
    known = dict(sources)
    sources.update({f"{frame.split}/{frame.city}": str(root.resolve()) for frame in frames})
    if sources != known:
        write_text(output / RECORD, json.dumps(sources, indent=1, sort_keys=True) + "\n", durable=False)


def _read(output: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):  # without it, or with a damaged one, stale masks are still refused one by one
        sources = json.loads((output / RECORD).read_text(encoding="utf-8"))
        if isinstance(sources, dict) and all(isinstance(source, str) for source in sources.values()):
            return sources
    return {}
