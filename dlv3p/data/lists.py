"""Read the lists that name a split's images, in the three styles in use.

A line is an id (`2007_000032`), or an image and its mask, with or without a slash in front
(`/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png`); all count from the data set's root.
"""

from pathlib import Path, PurePosixPath

from cityscapes.errors import InputError, MissingInputError
from dlv3p.data.links import inside
from dlv3p.data.pairs import Pair


def read_list(path: Path, root: Path, *, images: str, masks: str) -> list[Pair]:
    """Read a list; a bare id means `<root>/<images>/<id>.jpg` and `<root>/<masks>/<id>.png`.

    Blank lines, comments (`#`), blanks at line ends and Windows line ends are fine. Raises InputError for a path that
    leaves `root`, for a line of another style and for an image that is named twice; MissingInputError for no such list.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such list of images") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a text file of image names ({error})") from error
    pairs: dict[str, Pair] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        where = f"{path}, line {number}"
        if len(words) == 1 and "/" not in words[0]:
            words = [f"{images}/{words[0]}.jpg", f"{masks}/{words[0]}.png"]
        if len(words) != 2:
            raise InputError(f"{where}: {line.strip()[:80]!r} is neither an id nor an image and its mask")
        image, mask = (_below(root, word, where) for word in words)
        if image.stem in pairs:
            raise InputError(f"{where}: {image.stem} is named a second time; remove one of the lines")
        pairs[image.stem] = Pair(image.stem, image, mask)
    if not pairs:
        raise MissingInputError(f"{path}: names no image")
    return list(pairs.values())


def _below(root: Path, word: str, where: str) -> Path:
    # A leading slash is one of the styles and counts from the root; the other system's separator is nobody's style.
    relative = PurePosixPath(word.removeprefix("/"))
    if relative.is_absolute() or ".." in relative.parts or "\\" in word or ":" in word:
        raise InputError(f"{where}: {word!r} leads out of {root}; name files below it, with forward slashes")
    return inside(root, root / relative)
