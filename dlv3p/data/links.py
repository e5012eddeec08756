"""Symbolic links inside a data set: allowed where they stay inside, refused where they lead a reader elsewhere."""

import os
from functools import lru_cache
from pathlib import Path

from cityscapes.errors import InputError, MissingInputError

VARIABLE = "DLV3P_FOLLOW_LINKS"
"""Set this environment variable to 1 for data sets that are made of links to files elsewhere."""


def inside(root: Path, path: Path) -> Path:
    """Return `path`; raises InputError for a link that leaves `root` or goes in circles.

    A dead link raises MissingInputError; `root` itself may be a link. Folders are looked at once, so that lists of
    thousands of files cost no time.
    """
    if path != root and os.environ.get(VARIABLE) != "1":
        _check(root, path.parent, _follow(path.parent))
        if path.is_symlink():
            _check(root, path, _resolve(path))
    return path


@lru_cache(maxsize=1024)
def _follow(folder: Path) -> Path:
    return _resolve(folder) if folder.is_dir() else folder.resolve()


def _resolve(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: a link to nothing; copy the file or mend the link") from error
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: a link that leads in circles; remove it") from error


def _check(root: Path, path: Path, real: Path) -> None:
    if not real.is_relative_to(_follow(root)):
        raise InputError(f"{path}: a link out of {root}; copy the file, or set {VARIABLE}=1 where links are meant")
