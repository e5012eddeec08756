"""Read and write CVAT's XML, "CVAT for images 1.1": polygons, rectangles, ellipses, and brushed masks.

Larger `z_order` is drawn later; what has no area (points, polylines, tags, skeletons) is left out and counted. Tracks
("CVAT for video 1.1") are read as the frames that the file states.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError, iterparse
from xml.sax.saxutils import quoteattr

import numpy as np

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.untrusted import safe_reason, sanitize
from dlv3p.annotations.shapes import (
    AnnotatedImage,
    Label,
    Region,
    Shape,
    as_area,
    box,
    check_size,
    decode_runs,
    ellipse,
    named_split,
    outline,
)

HEAD = 4096
MOST_FRAMES = 10**6
WITHOUT_AREA = {"points", "polyline", "tag", "skeleton", "cuboid"}
REMEDY = "export the task again as 'CVAT for images 1.1', which has the shapes of each frame"


class CvatFile:
    """The images of one CVAT file, in its order; `labels` are those of its task or project."""

    problems: Sequence[str] = ()

    def __init__(self, path: Path, subset: str = "") -> None:
        self.path, self.subset = path, subset
        self._video: _Video | None = None
        self.labels, self._count = self._survey()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[AnnotatedImage]:
        known = {label.name for label in self.labels}
        for item in self._video.images() if self._video else self._elements("image"):
            name = item.get("name", "")
            subset = self.subset or item.get("subset", "") or named_split(PurePosixPath(name).parent)
            try:
                if self._video:
                    self._video.refuse_unstated(name)
                yield self._image(item, name, subset, known)
            except InputError as error:
                yield AnnotatedImage(name, subset=subset, problem=str(error))

    def _image(self, item: Element, name: str, subset: str, known: set[str]) -> AnnotatedImage:
        where = f"{self.path}: image {sanitize(name)}"
        if not name:
            raise InputError(f"{self.path}: an image without a name, id {sanitize(item.get('id'))}")
        size = check_size(*(_whole(item, side, where) for side in ("width", "height")), where)
        shapes, notes = [], []
        for number, child in enumerate(item):
            place, label = f"{where}, shape {number} ({sanitize(child.tag)})", child.get("label", "")
            if child.tag in WITHOUT_AREA:
                notes.append(child.tag)
                continue
            if known and label not in known:
                raise InputError(f"{place}: the label {sanitize(label)!r} is not among those of the task")
            if child.tag not in SHAPES:
                raise InputError(f"{place}: not a kind of shape that is known; allowed are {', '.join(SHAPES)}")
            shape = SHAPES[child.tag](child, place)
            if shape.region is None and len(shape.rings[0]) < 3:
                notes.append("outline of fewer than three points")
                continue
            shapes.append(shape._replace(label=label, order=_whole(child, "z_order", place, default=0)))
        return AnnotatedImage(name, size, tuple(shapes), subset, tuple(notes))

    def _survey(self) -> tuple[tuple[Label, ...], int]:
        labels: dict[str, Label] = {}
        count = 0
        task: Element | None = None
        for item in self._elements("label", "image", "track", "task"):
            task = item if item.tag == "task" else task
            if item.tag == "track":
                self._video = self._video or _Video(self.path, task)
                self._video.add(item)
            count += item.tag == "image"
            name = item.findtext("name", "") if item.tag == "label" else ""
            if name and not item.findtext("parent"):
                labels[name] = Label(name, _color(item.findtext("color", "")))
        if self._video:
            return tuple(labels.values()), len(self._video.frames)
        if not count:
            raise InputError(f"{self.path}: holds no <image>; export the task as 'CVAT for images 1.1'")
        return tuple(labels.values()), count

    def _elements(self, *tags: str) -> Iterator[Element]:
        """Yield the elements of these tags; each is gone from memory when the next one is asked for."""
        try:
            with open(self.path, "rb") as file:
                head = file.read(HEAD)
                root_at = head.find(b"<annotations")
                if root_at < 0 or b"<!DOCTYPE" in head[:root_at]:
                    raise InputError(f"{self.path}: does not begin as CVAT's XML, <annotations>, in UTF-8; save it so")
                file.seek(0)
                above: list[Element] = []
                for event, item in iterparse(file, ("start", "end")):
                    if event == "start":
                        above.append(item)
                        continue
                    above.pop()
                    if item.tag in tags:
                        yield item
                    if item.tag in ("image", "track", "label"):
                        item.clear()
                        above[-1].remove(item)
        except FileNotFoundError as error:
            raise MissingInputError(f"{self.path}: no such file") from error
        except (ParseError, OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path}: not valid XML ({safe_reason(error)}); export or copy it again") from error


class _Video:
    """The frames of a video and what its tracks state of them; nothing is interpolated.

    CVAT writes each frame on which an object is seen, and calls frames frame_000000 by their number in the video.
    """

    def __init__(self, path: Path, task: Element | None) -> None:
        self.path = path
        size = None if task is None else task.find("original_size")
        if task is None or size is None:
            raise InputError(f"{path}: holds tracks of a video; {REMEDY} (lacks <original_size> of one video's task)")
        self.size = {side: size.findtext(side, "").strip() for side in ("width", "height")}
        step = re.fullmatch(r"(?:step=([1-9][0-9]{0,5}))?", task.findtext("frame_filter", "").strip())
        facts = Element("task", {key: task.findtext(key, "").strip() or "0" for key in ("start_frame", "size")})
        start, count = (_whole(facts, key, f"{path}: task") for key in ("start_frame", "size"))
        if step is None or start < 0 or not 1 <= count <= MOST_FRAMES:
            raise InputError(f"{path}: its task states no size from 1 to {MOST_FRAMES}, start_frame, or step; {REMEDY}")
        stride = int(step[1] or 1)
        self.frames = range(start, start + count * stride, stride)
        self._shapes: dict[int, list[Element]] = defaultdict(list)
        self._unstated: dict[str, str] = {}

    def add(self, track: Element) -> None:
        """Add the shapes of a track to their frames, and note frames between them of which it says nothing."""
        title = f"track {sanitize(track.get('id'))} ({sanitize(track.get('label'))})"
        before, seen = -1, False
        for item in track:
            frame = _whole(item, "frame", f"{self.path}: {title}")
            if track.get("task_id") or frame not in self.frames or frame <= before:
                raise InputError(f"{self.path}: {title}: frame {frame} is not one task's next; {REMEDY}")
            if seen:
                self._note_between(before, frame, title)
            before, seen = frame, item.get("outside") != "1" and item.tag not in WITHOUT_AREA
            if item.get("outside") != "1":
                item.set("label", track.get("label", ""))
                self._shapes[frame].append(item)
        if seen:
            self._note_between(before, self.frames.stop, title)

    def _note_between(self, before: int, after: int, title: str) -> None:
        for frame in range(before + self.frames.step, after, self.frames.step):
            self._unstated.setdefault(_frame_name(frame), title)

    def refuse_unstated(self, name: str) -> None:
        """Raise InputError for a frame on which an object may be seen, its outline being between two others."""
        if title := self._unstated.get(name):
            raise InputError(f"{self.path}: {name}: {title} would have to be interpolated; {REMEDY}")

    def images(self) -> Iterator[Element]:
        """Yield each frame as the element that an export of images has for it."""
        for frame in self.frames:
            image = Element("image", {"name": _frame_name(frame), **self.size})
            image.extend(self._shapes.get(frame, []))
            yield image


def _frame_name(frame: int) -> str:
    return f"frame_{frame:06d}"


def _polygon(item: Element, where: str) -> Shape:
    texts = item.get("points", "").replace(";", ",").split(",")
    return Shape("", (outline(_numbers(texts, where), where),))


def _box(item: Element, where: str) -> Shape:
    corners = _numbers([item.get(key, "") for key in ("xtl", "ytl", "xbr", "ybr")], where)
    return Shape("", (box(*corners, where, *_numbers([item.get("rotation", "0")], where)),), is_box=True)


def _ellipse(item: Element, where: str) -> Shape:
    values = _numbers([item.get(key, "") for key in ("cx", "cy", "rx", "ry")], where)
    return Shape("", (ellipse(*values, where, *_numbers([item.get("rotation", "0")], where)),))


def _mask(item: Element, where: str) -> Shape:
    left, top, width, height = (_whole(item, key, where) for key in ("left", "top", "width", "height"))
    check_size(width, height, where)
    text = item.get("rle", "")
    if not re.fullmatch(r"[0-9, ]*", text):
        raise InputError(f"{where}: its rle holds something other than numbers")
    runs = [int(word) for word in text.replace(",", " ").split()]
    key = f"{width} {height} {runs}".encode()
    return Shape("", region=Region(left, top, key, partial(decode_runs, runs, height, width, where)))


SHAPES: dict[str, Callable[[Element, str], Shape]] = {
    "polygon": _polygon,
    "box": _box,
    "ellipse": _ellipse,
    "mask": _mask,
}
"""What has an area, by the name of its element."""


def _numbers(texts: Sequence[str], where: str) -> list[float]:
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        raise InputError(f"{where}: coordinates that are not numbers; expected x,y;x,y;...") from error


def _whole(item: Element, key: str, where: str, default: int | None = None) -> int:
    text = item.get(key)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise InputError(f"{where}: {key} is {sanitize(text)}; expected a whole number")
    return int(text)


def _color(text: str) -> tuple[int, int, int] | None:
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}", text.strip()):
        return None
    red, green, blue = bytes.fromhex(text.strip()[1:])
    return red, green, blue


class CvatWriter:
    """Write a CVAT file an image at a time into an open file; `finish` ends it."""

    def __init__(self, file: BinaryIO, class_names: Sequence[str], colors: np.ndarray) -> None:
        self._file, self._count = file, 0
        lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "<version>1.1</version>"]
        lines += ["<meta><task><labels>"]
        for name, color in zip(class_names, colors.tolist(), strict=True):
            shown = "#" + bytes(color).hex()
            lines += [f"<label><name>{_escaped(name)}</name><color>{shown}</color><type>any</type></label>"]
        file.write("\n".join([*lines, "</labels></task></meta>", ""]).encode())

    def add(self, image: AnnotatedImage) -> None:
        """Write the shapes of an image, which are outlines, in their order: a higher z_order each."""
        width, height = image.size
        lines = [f'<image id="{self._count}" name={quoteattr(image.name)} width="{width}" height="{height}">']
        for depth, shape in enumerate(image.shapes):
            for ring in shape.rings:
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in as_area(ring).tolist())
                lines += [
                    f'<polygon label={quoteattr(shape.label)} source="auto" occluded="0" points="{points}" '
                    f'z_order="{depth}"></polygon>'
                ]
        self._count += 1
        self._file.write("\n".join([*lines, "</image>", ""]).encode())

    def finish(self) -> None:
        """Write the end of the file."""
        self._file.write(b"</annotations>\n")


def _escaped(text: str) -> str:
    return quoteattr(text)[1:-1]
