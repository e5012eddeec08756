"""What a submission's files must be: one for each image, one 8-bit channel of full size, and label ids inside.

The server pairs files with images by name, `<city>_<seq>_<frame>*.png`, and reads label ids, not train ids: a wrong
encoding is scored without a word.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from cityscapes.errors import UserError, reason
from cityscapes.labels import LABEL_BY_ID, NUM_CLASSES, TRAINED_LABELS
from cityscapes.layout import Frame
from cityscapes.mask_files import read_label_png

MAX_FILE_BYTES = 16 * 2**20
EVALUATED_IDS = frozenset(label.label_id for label in TRAINED_LABELS)
TABLE_IDS = frozenset(LABEL_BY_ID)

_NAME = re.compile(r"([A-Za-z][A-Za-z-]*_[0-9]{6}_[0-9]{6})(?![0-9])[A-Za-z0-9._-]*\.png")
_File = TypeVar("_File")


class Finding(NamedTuple):
    """What one file turned out to be: its bytes, the problem that it has or None, and the ids in its pixels."""

    content: bytes
    problem: str | None
    ids: frozenset[int]


def match_frames(
    files: Sequence[tuple[str, _File]], expected: Sequence[Frame]
) -> tuple[list[tuple[str, _File]], list[str]]:
    """Pair (name, file) with frames; return one file a frame, sorted by name, and what is missing, extra or double."""
    problems = []
    wanted: dict[str, list[tuple[str, _File]]] = {frame.name: [] for frame in expected}
    for name, file in files:
        match = _NAME.fullmatch(name)
        if match and match[1] in wanted:
            wanted[match[1]].append((name, file))
        else:
            problems.append(f"{name!r}: extra; no image of the split is called so")
    for frame_name, matches in wanted.items():
        if not matches:
            problems.append(f"{frame_name}*.png: missing")
        elif len(matches) > 1:
            names = ", ".join(name for name, _ in matches[:4])
            problems.append(f"{frame_name}*.png: {len(matches)} files, one is allowed: {names}")
    chosen = [matches[0] for matches in wanted.values() if len(matches) == 1]
    return sorted(chosen, key=lambda item: item[0]), problems


def inspect_files(
    chosen: Sequence[tuple[str, _File]],
    read: Callable[[_File], bytes],
    *,
    size: tuple[int, int] | None,
    allowed: Collection[int],
    progress: bool | None,
) -> Iterator[tuple[str, Finding]]:
    """Read each (name, file) with `read` and yield its name and Finding; only a few files are in memory at a time.

    `size` is (height, width), None for any; `allowed` are the ids that pixels may hold.
    """

    def inspect(item: tuple[str, _File]) -> Finding:
        return _inspect(item[0], item[1], read, size, allowed)

    hidden = None if progress is None else not progress
    with ThreadPoolExecutor() as pool, tqdm(total=len(chosen), unit="file", leave=False, disable=hidden) as bar:
        for start in range(0, len(chosen), 32):
            batch = chosen[start : start + 32]
            for (name, _), finding in zip(batch, pool.map(inspect, batch), strict=True):
                bar.update()
                yield name, finding


def looks_like_train_ids(ids: Collection[int]) -> bool:
    """Tell from the ids of all files together: train ids stay below 19, where most label ids are not evaluated."""
    return set(ids) <= {*range(NUM_CLASSES), 255} and not set(ids) <= EVALUATED_IDS


def _inspect(
    name: str, file: _File, read: Callable[[_File], bytes], size: tuple[int, int] | None, allowed: Collection[int]
) -> Finding:
    try:
        content = read(file)
        if len(content) > MAX_FILE_BYTES:
            return Finding(b"", f"{name}: larger than {MAX_FILE_BYTES >> 20} MB", frozenset())
        label_ids = read_label_png(BytesIO(content), source=name, size=size)
    except UserError as error:
        return Finding(b"", str(error), frozenset())
    except Exception as error:  # encrypted, damaged, vanished or not readable
        return Finding(b"", f"{name}: cannot be read ({reason(error)})", frozenset())
    ids = frozenset(np.flatnonzero(np.bincount(label_ids.ravel(), minlength=256)).tolist())
    wrong = ", ".join(map(str, sorted(ids - set(allowed))[:10]))
    return Finding(content, f"{name}: holds ids that no submission may: {wrong}" if wrong else None, ids)
