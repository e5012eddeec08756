"""The server's rules for a submission: one file for each image, one 8-bit channel of full size, and label ids inside.

The server pairs files with images by name, `<city>_<seq>_<frame>*.png`, and reads label ids, not train ids: a wrong
encoding is scored without an error.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from cityscapes.errors import UserError, reason
from cityscapes.files.png_read import MAX_FILE_BYTES, read_label_bytes
from cityscapes.ids import ids_in
from cityscapes.layout import File, MatchedFile
from cityscapes.scores.pixel_counts import PixelCounts, count_pixels
from cityscapes.scores.truth_files import TruthFiles

LIKE_TRAIN_IDS = (
    "all files: the ids look like train ids (0 to 18); the server expects label ids, as save_prediction writes them"
)


class Inspection(NamedTuple):
    """The inspection of one file: its bytes, its problem or None, the ids of its pixels, and counts if asked for."""

    content: bytes
    problem: str | None
    ids: frozenset[int]
    counts: PixelCounts | None = None


def inspect_files(
    matched: Sequence[MatchedFile],
    read: Callable[[File], bytes],
    *,
    size: tuple[int, int] | None,
    allowed: Collection[int],
    truth: Mapping[str, TruthFiles] | None = None,
    progress: bool | None,
) -> Iterator[tuple[str, Inspection]]:
    """Read each matched file with `read` and yield its name and Inspection; only a few files are in memory at a time.

    `size` is (height, width), None for any; `allowed` are the ids that pixels may hold. With `truth`, by image, the
    pixels are counted for the scores too.
    """

    def inspect(item: MatchedFile) -> Inspection:
        image, (name, file) = item
        return _inspect(name, file, read, size, allowed, truth[image] if truth else None)

    hidden = None if progress is None else not progress
    with ThreadPoolExecutor() as pool, tqdm(total=len(matched), unit="file", leave=False, disable=hidden) as bar:
        for start in range(0, len(matched), 32):
            batch = matched[start : start + 32]
            for (_, (name, _)), inspection in zip(batch, pool.map(inspect, batch), strict=True):
                bar.update()
                yield name, inspection


def _inspect(
    name: str,
    file: File,
    read: Callable[[File], bytes],
    size: tuple[int, int] | None,
    allowed: Collection[int],
    truth: TruthFiles | None,
) -> Inspection:
    try:
        content = read(file)
        if len(content) > MAX_FILE_BYTES:
            return Inspection(b"", f"{name}: larger than {MAX_FILE_BYTES >> 20} MB", frozenset())
        label_ids = read_label_bytes(content, name, size=size)
        ids = ids_in(label_ids)
        if wrong := ", ".join(map(str, sorted(ids - set(allowed))[:10])):
            return Inspection(content, f"{name}: holds ids that are not allowed in a submission: {wrong}", ids)
        return Inspection(content, None, ids, _count(name, label_ids, truth))
    except MemoryError:
        raise
    except UserError as error:
        return Inspection(b"", str(error), frozenset())
    except Exception as error:  # encrypted, damaged, vanished or not readable
        return Inspection(b"", f"{name}: cannot be read ({reason(error)})", frozenset())


def _count(name: str, label_ids, truth: TruthFiles | None) -> PixelCounts | None:
    if truth is None:
        return None
    true_ids, instances = truth.read()
    return count_pixels(name, true_ids, label_ids, instances)
