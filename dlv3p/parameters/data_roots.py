"""Find the data that a `data_root` parameter means, without opening it, and the nearest folder where there is none.

It needs nothing heavy, so that a misspelt folder is refused together with the other parameters.
"""

import difflib
import shlex
from pathlib import Path
from typing import Any

from cityscapes.errors import MissingInputError
from cityscapes.files.untrusted import given_path
from cityscapes.workspace import data_folder, demo_city_folder, workspace
from dlv3p.parameters.base import text

DEMO_CITY = "demo_city"
"""The embedded city."""
DEMO_VOC = "demo_voc"
"""The embedded PASCAL VOC."""
MISLABELED_CITY = "mislabeled_city"
"""The embedded city with wrong polygons, for a search for label errors to find."""
FLAWED_FOLDER = "flawed_folder"
"""An embedded plain folder with flaws for the audit to find."""
EMBEDDED = (DEMO_CITY, DEMO_VOC, FLAWED_FOLDER, MISLABELED_CITY)
"""The data roots that are no folders of one's own: their data is drawn on first use."""

Root = Path | str
"""The root of a data set: a folder, or for shards a URL."""


def data_root_field(default: str, help: str) -> Any:
    """Return a field that takes a data root, which has to exist once a notebook or a command begins."""
    return text(default, help, find=find_data_root)


def is_url(root: Root) -> bool:
    """Return whether a data root is a URL, such as s3://bucket/shards."""
    return "://" in str(root)


def embedded_folder(data_root: str) -> Path:
    """Return the folder of an embedded data root, which may not be drawn yet."""
    return demo_city_folder() if data_root == DEMO_CITY else data_folder() / data_root


def find_data_root(data_root: str) -> Root:
    """Return the folder of a data root, which of an embedded one may not be drawn yet; a URL as it is.

    A relative path starts at the current folder, else at the workspace; `~` and `$VARIABLES` are expanded. Raises
    MissingInputError, with the nearest name, where there is no such folder.
    """
    if data_root in EMBEDDED:
        return embedded_folder(data_root)
    if is_url(data_root):
        return data_root
    expanded = given_path(data_root, variables=True)
    candidates = [expanded.absolute(), workspace() / expanded]
    for folder in candidates:
        if folder.is_dir():
            return folder.resolve()
    if file := next((path for path in candidates if path.is_file()), None):
        raise MissingInputError(
            f"data_root={data_root!r}: a file, not a folder of data; of annotations, make one with: "
            f"dlv3p annotations prepare {shlex.quote(str(file))}"
        )
    near = [*difflib.get_close_matches(data_root, EMBEDDED, n=1), *filter(None, map(_nearest, candidates))]
    hint = f"; did you mean {str(near[0])!r}? Allowed are" if near else "; allowed are"
    raise MissingInputError(
        f"data_root={data_root!r}: no such folder{hint} {DEMO_CITY!r}, {DEMO_VOC!r}, and folders of data (Cityscapes, "
        "PASCAL VOC, a plain folder, shards: docs/data.md)"
    )


def _nearest(missing: Path) -> Path | None:
    """Return the folder that a path most likely means, by the closest name for each part that is missing, if any."""
    found = Path(missing.anchor)
    for part in missing.relative_to(found).parts:
        if not (found / part).is_dir():
            near = _close(part, found)
            if near is None:
                return None
            part = near
        found /= part
    return found


def _close(name: str, folder: Path) -> str | None:
    """Return the name of the folder within another that is closest to a name, whatever its case; None for none."""
    try:
        within = {entry.name.casefold(): entry.name for entry in folder.iterdir() if entry.is_dir()}
    except OSError:
        return None
    near = difflib.get_close_matches(name.casefold(), within, n=1)
    return within[near[0]] if near else None
