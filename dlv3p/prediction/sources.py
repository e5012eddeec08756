"""Find the images to predict: one file, a folder with all below it, a glob pattern, a list of files, or a video."""

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cityscapes.errors import InputError, MissingInputError, ParameterError, UserError, reason
from cityscapes.files.listing import refuse_circles, walk
from cityscapes.files.untrusted import given_path, sanitize
from dlv3p.data.fingerprints import result_folders
from dlv3p.data.parts import read_image_list
from dlv3p.data.roots import resolve_data_root
from dlv3p.parameters.data_roots import DEMO_CITY

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
OTHER_VIDEO_SUFFIXES = (".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv")
LIST_SUFFIX = ".txt"


@dataclass(frozen=True)
class ImageFile:
    """An image to predict: its path, and its name below the folders of the results, without a suffix."""

    path: Path
    name: str


@dataclass(frozen=True)
class Source:
    """What was asked for: its title, fit for the name of a folder, and the images in order, or the path of a video.

    `left_out` says in words which files beside the images are none of these, by suffix; "" for none.
    """

    title: str
    images: tuple[ImageFile, ...] = ()
    video: Path | None = None
    left_out: str = ""


def find_images(images: str | Path, *, output: Path | None = None) -> Source:
    """Find what `images` names; earlier results, below `output`, are left out of a folder and of a pattern.

    A list is a text file with one path per line, relative to its folder; empty lines and those that begin with # are
    left out. Raises MissingInputError where there is nothing, InputError where there is no image.
    """
    if str(images) == DEMO_CITY:
        return find_images(Path(resolve_data_root(DEMO_CITY)) / "leftImg8bit" / "test", output=output)
    path = given_path(images, variables=True)
    if path.is_dir():
        return _of_folder(path, output)
    if path.is_file() or path.is_symlink():
        return _of_file(path)
    if glob.has_magic(str(path)):
        return _of_pattern(str(path), output)
    raise MissingInputError(
        f"images={str(images)!r}: no such file or folder; give an image, a folder, a pattern such as 'photos/*.jpg', a "
        f"list ({LIST_SUFFIX}) or a video"
    )


def why_unread(path: Path) -> str:
    """Return why a path that was taken for an image is none, by what it is called; "" for one that is called an image.

    Lists name such paths, and so does who gives a single file; folders and patterns leave them out.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return "is a folder, and a list names files; give the folder itself"
    if suffix in (*VIDEO_SUFFIXES, *OTHER_VIDEO_SUFFIXES):
        return "is a video, and a list names images; give the video itself"
    if suffix == LIST_SUFFIX:
        return "is no image; give a list itself, not in another list"
    allowed = f"is no image of a type that is read; allowed are {' '.join(IMAGE_SUFFIXES)}; convert it, as to PNG"
    return "" if suffix in IMAGE_SUFFIXES or not path.exists() else allowed


def problem_of(path: str | Path, error: Exception) -> str:
    """Return the one line of an image's problem, which begins with its path."""
    text = reason(error)
    if isinstance(error, UserError) and not isinstance(error, InputError):
        text = str(error)
    known = isinstance(error, InputError) and text.startswith(str(path))
    return text if known else f"{path}: {text.removeprefix('image: ')}"


def problem_of_file(path: Path, error: Exception) -> str:
    """Return the one line of a file that could not be opened: for what is no image by its name, what it is."""
    why = why_unread(path) if isinstance(error, InputError) else ""
    return f"{path}: {why}" if why else problem_of(path, error)


def name_results(paths: Sequence[Path], base: Path) -> tuple[ImageFile, ...]:
    """Name each image by its path below `base`, without its suffix, unless two images then had the same name."""
    whole = [os.path.relpath(path, base) for path in paths]
    stems = [os.path.splitext(name)[0] for name in whole]
    taken = Counter(name.casefold() for name in (*whole, *stems))
    names = [name if taken[stem.casefold()] > 1 else stem for name, stem in zip(whole, stems, strict=True)]
    return tuple(ImageFile(path, name) for path, name in zip(paths, names, strict=True))


def _of_file(path: Path) -> Source:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Source(_title(path.stem), video=path)
    if path.suffix.lower() == LIST_SUFFIX:
        return _of_list(path)
    if path.suffix.lower() in OTHER_VIDEO_SUFFIXES:
        raise InputError(
            f"{path}: is a video of a type that is not read; allowed are {' '.join(VIDEO_SUFFIXES)}; convert it, as by "
            f"ffmpeg -i {path.name} {path.stem}.mp4"
        )
    return Source(_title(path.stem), name_results([path], path.parent))


def _of_folder(folder: Path, output: Path | None) -> Source:
    if output is not None and _lies_in(folder, output):
        raise ParameterError(
            f"output={str(output)!r}: holds the images, {folder}, which results must not mix with; choose another "
            "folder, such as one beside it"
        )
    paths = sorted(walk(folder))
    results = set(result_folders(paths))  # they would be predicted as if they were photos
    found = [path for path in paths if results.isdisjoint(path.parents) and not (output and _lies_in(path, output))]
    images, others = _split_by_suffix(found, str(folder))
    return Source(_title(folder.resolve().name), name_results(images, folder), left_out=others)


def _of_pattern(pattern: str, output: Path | None) -> Source:
    found = sorted(Path(path) for path in glob.glob(pattern, recursive=True))
    refuse_circles(found)
    found = [path for path in found if not path.is_dir() and not (output and _lies_in(path, output))]
    if not found:
        raise MissingInputError(f"images={pattern!r}: no file has such a name; `**/` matches folders at any depth")
    paths, others = _split_by_suffix(found, f"images={pattern!r}")
    base = Path(os.path.dirname(re.split(r"[*?\[]", pattern)[0]))  # of day*/ not day/, which need not hold day2/
    return Source(_title(base.resolve().name), name_results(paths, base), left_out=others)


def _of_list(path: Path) -> Source:
    paths = list(dict.fromkeys(read_image_list(path)))
    return Source(_title(path.stem), name_results(paths, Path(os.path.commonpath([entry.parent for entry in paths]))))


def _split_by_suffix(paths: Sequence[Path], asked: str) -> tuple[list[Path], str]:
    """Return the images, and in words the files of other types; raises InputError where there is no image."""
    images = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    others = Counter(path.suffix.lower() for path in paths if path.suffix.lower() not in IMAGE_SUFFIXES)
    if not images:
        there = f"; found {', '.join(sanitize(path.name) for path in paths[:3])}" if paths else "; it is empty"
        raise InputError(f"{asked}: no image; allowed are {' '.join(IMAGE_SUFFIXES)}{there}")
    return images, ", ".join(f"{count} {sanitize(suffix) or 'without a suffix'}" for suffix, count in others.items())


def _lies_in(path: Path, folder: Path) -> bool:
    named = path.absolute().is_relative_to(folder.absolute())
    return named or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _title(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_=." else "-" for letter in name).strip("-.") or "images"
