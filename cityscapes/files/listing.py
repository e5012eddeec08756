"""List the files of a folder: links are followed, hidden files and folders are left out, circles are refused."""

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from cityscapes.errors import InputError


def walk(
    folder: Path,
    *,
    checked: Callable[[Path], Path] = lambda link: link,
    hidden: bool = False,
    above: Sequence[Path] = (),
) -> Iterator[Path]:
    """Yield the files below a folder, with those that are `hidden` if asked for, in no order; none for no such folder.

    `checked` takes the path of each link and returns it, or raises for one that must not be followed. Raises InputError
    for a link to a folder that holds the link; `above` are the real paths of the folders on the way.
    """
    if not folder.is_dir():
        return
    above = (*above, folder.resolve())
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if hidden or not entry.name.startswith(".")]
    for entry in shown:
        is_link = entry.is_symlink()
        path = checked(Path(entry.path)) if is_link else Path(entry.path)
        if not (path.is_dir() if is_link else entry.is_dir()):
            yield path
        elif is_link and path.resolve() in above:
            raise InputError(f"{path}: a circular link; remove it")
        else:
            yield from walk(path, checked=checked, hidden=hidden, above=above)


def files_below(folder: Path, suffix: str, *, checked: Callable[[Path], Path] = lambda link: link) -> list[Path]:
    """Return the files of one suffix, such as `.png`, that `walk` finds below a folder, sorted."""
    return sorted(path for path in walk(folder, checked=checked) if path.suffix == suffix)


def refuse_circles(paths: Iterable[Path]) -> None:
    """Raise InputError where a path leads through a link to a folder that holds the link, as `walk` does."""
    for folder in sorted({parent for path in paths for parent in path.absolute().parents}):
        if folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{folder}: a circular link; remove it")


def in_its_form(path: Path) -> Path:
    """Return the path under which a file exists: the Unicode form of names on disk may differ from that in a list."""
    if str(path).isascii() or path.exists():
        return path
    parent = in_its_form(path.parent)
    forms = (parent / unicodedata.normalize(form, path.name) for form in ("NFC", "NFD"))
    return next((other for other in forms if other.exists()), path)


def is_shown_folder(path: Path) -> bool:
    """Return whether a path is a folder and not hidden, as .ipynb_checkpoints is."""
    return path.is_dir() and not path.name.startswith(".")
