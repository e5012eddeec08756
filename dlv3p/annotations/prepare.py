"""Prepare a folder to train on from annotations of other tools: find, choose, split, draw, and write what is new.

The annotations are read twice, an image at a time: first for the labels and names of all of them, so that classes and
splits are settled before anything is written, then to draw. What was made from the same annotation and image is kept.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cityscapes.errors import InputError, MachineError, ParameterError, reason
from cityscapes.files.atomic import check_writable, explain_refusal, write_bytes, write_text
from cityscapes.files.checksums import read_json
from cityscapes.files.images import TURNED, differ_by_turn, inspect_picture
from cityscapes.files.leftovers import remove_leftovers, unfinished
from cityscapes.files.listing import files_below
from cityscapes.files.locks import lock_folder
from cityscapes.files.png_write import encode_png
from cityscapes.files.stamps import is_made_from
from cityscapes.files.untrusted import given_path, sanitize
from cityscapes.parallel import map_bounded, usable_cores
from cityscapes.workspace import data_folder
from dlv3p.annotations.demo import write_demo_annotations
from dlv3p.annotations.formats import Source, open_source
from dlv3p.annotations.plan import Classes, Plan, choose_classes, plan_splits
from dlv3p.annotations.shapes import NAMED_SPLITS, AnnotatedImage, draw, without_boxes
from dlv3p.data.class_table import CLASSES_FILE, read_class_table
from dlv3p.parameters.annotations import DEMO_ANNOTATIONS, PrepareAnnotationsParameters
from dlv3p.runtime.progress import track

RECORD, SPLITS_FILE = "annotations.json", "splits.csv"
FORMAT = 1
NO_MEANING = {"images", "jpegimages", "data"}
"""Folders of images whose names say nothing of them, and which are left out of the names of results."""


@dataclass(frozen=True)
class Preparation:
    """What is in the folder: its classes, the images of each split, what was made now, and what is worth a look.

    `covered` counts, by (covered class, covering class), pixels and images; `hidden`, by label, shapes of which nothing
    is left, and `outside` those without a pixel in their image. `problems` has a line for each image that could not be
    used.
    """

    folder: Path
    format: str
    class_names: tuple[str, ...]
    splits: dict[str, int]
    groups: dict[str, int]
    made: int
    kept: int
    empty: int
    covered: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    hidden: dict[str, int] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what was done and what was noticed, a line each."""
        splits = [f"{name} {count} ({self.groups[name]} groups)" for name, count in self.splits.items()]
        lines = [f"{self.format}: {len(self.class_names)} classes; images: {', '.join(splits)}"]
        lines += [f"masks: {self.made} drawn, {self.kept} kept, {len(self.problems)} images not used"]
        if self.empty:
            lines += [f"note: {self.empty} images have no shape at all; if they should, annotate or remove them"]
        most = sorted(self.covered.items(), key=lambda item: -item[1][0])
        for (below, above), (pixels, images) in most[:MOST_LINES]:
            lines.append(f"overlap: {above} covers {pixels} pixels of {below}, in {images} images")
        lines += [f"overlap: and {len(most) - MOST_LINES} more pairs of labels"] * (len(most) > MOST_LINES)
        lines += [f"overlap: nothing is left of {count} x {label}" for label, count in sorted(self.hidden.items())]
        lines += [
            f"outside: {count} x {label} has no pixel in its image; check its coordinates, and which image it is of"
            for label, count in sorted(self.outside.items())
        ]
        return [*lines, *(f"note: {note}" for note in self.notes)]


MOST_LINES = 8


class _Job(NamedTuple):
    image: AnnotatedImage
    picture: Path
    name: PurePosixPath
    split: str


class _Result(NamedTuple):
    made: bool = False
    problem: str = ""
    covered: Counter = Counter()
    hidden: Counter = Counter()
    outside: Counter = Counter()


@dataclass
class _Tally:
    """What came of all jobs: images made and kept, problems, and by (covered, covering) label pixels and images."""

    made: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)
    covered: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    hidden: Counter = field(default_factory=Counter)
    outside: Counter = field(default_factory=Counter)

    def add(self, result: _Result) -> None:
        self.problems += [result.problem] * bool(result.problem)
        self.made += result.made
        self.kept += not result.made and not result.problem
        self.hidden.update(result.hidden)
        self.outside.update(result.outside)
        for pair, pixels in result.covered.items():
            before = self.covered.get(pair, (0, 0))
            self.covered[pair] = before[0] + pixels, before[1] + 1


@dataclass
class _Survey:
    """What all annotations say: the name of each usable image, in their order, and "" for one that is not; its path."""

    names: list[str] = field(default_factory=list)
    pictures: set[str] = field(default_factory=set)
    subset_of: dict[str, str] = field(default_factory=dict)
    labels: Counter = field(default_factory=Counter)
    left_out: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    empty: int = 0


def prepare_annotations(parameters: PrepareAnnotationsParameters) -> Preparation:
    """Write the folder that the parameters describe, or what of it is missing, and say what was noticed.

    Raises ParameterError and InputError, before anything is written, for settings and labels that do not fit; what is
    wrong with single images is in `problems`. A killed call is resumed by the same call.
    """
    p = parameters
    annotations, images = Path(p.annotations), Path(p.images) if p.images else ""
    if p.annotations in DEMO_ANNOTATIONS:
        annotations, images = write_demo_annotations(p.annotations)
    output = given_path(p.output) if p.output else data_folder() / Path(p.annotations).stem
    source = open_source(annotations, images, p.format, without=output)
    for place in (annotations.resolve(), source.images.folder.resolve()):
        if place.is_relative_to(output.resolve()):
            raise ParameterError(f"output={str(output)!r}: holds what is read, {place}; choose another folder")
    survey = _survey(source, p)
    options = {"class_table": p.class_table, "unlabeled": p.unlabeled, "covering": source.format == "masks"}
    with _naming_problems(survey):
        chosen = choose_classes(source.labels, survey.labels, **options)
    check_writable(output)
    with lock_folder(output):
        remove_leftovers(output, locked=True)
        settings = _settings(p, source, chosen)
        before = _earlier_splits(output, settings)
        plan = _plan(survey, p, before)
        write_text(output / CLASSES_FILE, chosen.to_csv())
        write_text(output / SPLITS_FILE, plan.to_csv())
        write_text(output / RECORD, json.dumps(settings, indent=1) + "\n")
        writer = _Writer(output, chosen, p)
        found = _write_all(writer, source, survey, plan, p)
    return _describe(output, source, chosen, plan, survey, found)


def _survey(source: Source, p: PrepareAnnotationsParameters) -> _Survey:
    survey, usable = _Survey(), {}
    images = track(source, total=len(source), title="read annotations", mode=p.progress)
    for image in images:
        image = without_boxes(image, p.boxes)
        problem = image.problem
        if not problem:
            try:
                picture = source.images.find(image.name)
                _refuse_other_size(picture, image)
                usable[len(survey.names)] = image, PurePosixPath(source.images.name(picture))
            except InputError as error:
                problem = str(error)
        survey.problems += [problem] * bool(problem)
        survey.names.append("")
        if not problem:
            survey.labels.update(shape.label for shape in image.shapes)
            survey.left_out.update(image.notes)
            survey.empty += not image.shapes
    _name_results(survey, usable)
    survey.problems += source.problems
    if not survey.subset_of:
        first = f", the first: {survey.problems[0]}" if survey.problems else ""
        raise InputError(f"{source.title}: none of {len(survey.names)} annotated images can be used{first}")
    return survey


def _plan(survey: _Survey, p: PrepareAnnotationsParameters, before: dict[str, str]) -> Plan:
    options = {"shares": p.splits, "split_list": p.split_list, "groups": p.image_groups, "seed": p.seed}
    with _naming_problems(survey):
        return plan_splits(survey.subset_of, before=before, **options)


@contextmanager
def _naming_problems(survey: _Survey) -> Iterator[None]:
    """Add to an error of the whole data set what was wrong with single images, which may be its reason."""
    try:
        yield
    except InputError as error:
        if not survey.problems:
            raise
        unused = f"{len(survey.problems)} images could not be used, the first: {survey.problems[0]}"
        raise InputError(f"{error} ({unused})") from error


def _refuse_other_size(picture: Path, image: AnnotatedImage) -> None:
    size = inspect_picture(picture)[0].size
    if size != image.size:
        turned = TURNED if differ_by_turn(image.size, size) else "annotate this image again"
        raise InputError(
            f"{picture}: has {size[0]} x {size[1]} pixels and is annotated with {image.size[0]} x {image.size[1]}; "
            f"{turned}"
        )


def _name_results(survey: _Survey, usable: Mapping[int, tuple[AnnotatedImage, PurePosixPath]]) -> None:
    """Name the results of the usable images, by their place in the survey; those that share a name are left out.

    Folders that name a split are left out of names, unless images of one name lie in several of them.
    """
    short, whole = ([_name(path, without) for _, path in usable.values()] for without in (NAMED_SPLITS, ()))
    names = whole if len(set(whole)) > len(set(short)) else short
    taken, seen = Counter(names), set()
    for (index, (image, path)), name in zip(usable.items(), names, strict=True):
        if taken[name] == 1:
            survey.names[index], survey.subset_of[name] = name, image.subset
            survey.pictures.add(str(path))
        elif name in seen:  # neither mask would have all shapes, or one is of another image
            what = "is annotated twice, or has another's name, and is left out; merge or rename them"
            survey.problems.append(f"{image.name}: {what}")
        seen.add(name)


def _name(path: PurePosixPath, without: Iterable[str]) -> str:
    """Return an image's path without suffix, and without folders of no meaning and those called as in `without`."""
    telling = [part for part in path.parent.parts if part.lower() not in NO_MEANING.union(without)]
    return str(PurePosixPath(*[part.lstrip(".") or "_" for part in (*telling, path.stem)]))


def _write_all(
    writer: "_Writer", source: Source, survey: _Survey, plan: Plan, p: PrepareAnnotationsParameters
) -> _Tally:
    workers, tally = p.workers or usable_cores(), _Tally()
    with ThreadPoolExecutor(workers) as pool:
        results = map_bounded(pool, writer.write, _jobs(source, survey, plan, p), in_flight=2 * workers)
        with closing(results):
            for result in track(results, total=len(plan.split_of), title="draw masks", mode=p.progress, unit="images"):
                tally.add(result)
    return tally


def _jobs(source: Source, survey: _Survey, plan: Plan, p: PrepareAnnotationsParameters) -> Iterator[_Job]:
    for name, image in zip(survey.names, source, strict=True):
        if split := plan.split_of.get(name):
            picture = source.images.find(image.name)
            yield _Job(without_boxes(image, p.boxes), picture, PurePosixPath(name), split)


class _Writer:
    """Write the image and the mask of single jobs, in several threads."""

    def __init__(self, output: Path, chosen: Classes, p: PrepareAnnotationsParameters) -> None:
        self.output, self.chosen, self.p = output, chosen, p
        self.palette = read_class_table(output / CLASSES_FILE).classes.colors
        kinds = (chosen.id_of, chosen.unlabeled, p.draw_order)
        self.origin = hashlib.sha256(repr(kinds).encode()).digest()

    def write(self, job: _Job) -> _Result:
        try:
            return self._write(job)
        except MachineError:
            raise
        except InputError as error:
            return _Result(problem=str(error))
        except OSError as error:
            explain_refusal(error, self.output)
            return _Result(problem=f"{job.picture}: {reason(error)}")

    def _write(self, job: _Job) -> _Result:
        image = self.output / "images" / job.split / f"{job.name}{job.picture.suffix.lower()}"
        mask = self.output / "masks" / job.split / f"{job.name}.png"
        content = job.picture.read_bytes()
        stamp = self.origin + job.image.digest() + hashlib.sha256(content).digest()
        stored = image.is_file() and image.read_bytes() == content
        drawn = draw(job.image, self.chosen.id_of, unlabeled=self.chosen.unlabeled, by_area=self.p.draw_order == "area")
        if stored and is_made_from(mask, stamp):
            return _Result(False, "", *drawn[1:])
        self._place(job.picture, image, content)
        write_bytes(mask, encode_png(drawn.mask, made_from=stamp, palette=self.palette), durable=False)
        return _Result(True, "", *drawn[1:])

    def _place(self, picture: Path, image: Path, content: bytes) -> None:
        if self.p.image_files == "copy":
            write_bytes(image, content, durable=False)
            return
        image.parent.mkdir(parents=True, exist_ok=True)
        linked = unfinished(image)
        try:
            os.link(picture.resolve(), linked)
            os.replace(linked, image)
        except OSError as error:
            raise MachineError(
                f"{image}: cannot be a hard link to {picture} ({reason(error)}); choose image_files=copy"
            ) from error
        finally:
            linked.unlink(missing_ok=True)


def _settings(p: PrepareAnnotationsParameters, source: Source, chosen: Classes) -> dict[str, Any]:
    """Return what the results depend on beside the annotations and the images."""
    listed = ""
    if p.split_list and given_path(p.split_list).is_file():
        listed = hashlib.sha256(given_path(p.split_list).read_bytes()).hexdigest()
    names = ("unlabeled", "draw_order", "boxes", "image_files", "splits", "split_list", "image_groups", "seed")
    classes = [list(chosen.names), [list(color) for color in chosen.colors], dict(chosen.id_of)]
    return {"format": FORMAT, "kind": source.format, "classes": classes, "list": listed} | {
        name: getattr(p, name) for name in names
    }


def _earlier_splits(output: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Return the split of each image of an earlier call with the same settings; refuse those of others."""
    path = output / RECORD
    if not path.is_file():
        if (output / CLASSES_FILE).exists() or any((output / name).exists() for name in ("images", "masks")):
            raise ParameterError(f"output={str(output)!r}: holds another data set; choose an empty or new folder")
        return {}
    try:
        before = read_json(path)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); choose another output") from error
    if differing := [name for name in settings if before.get(name) != settings[name]]:
        shown = [f"{name}={before.get(name)!r}"[:80] for name in differing]
        raise ParameterError(
            f"output={str(output)!r}: was prepared with {', '.join(shown)}; choose another output, or the same settings"
        )
    with open(output / SPLITS_FILE, newline="", encoding="utf-8") as file:
        return {row["image"]: row["split"] for row in csv.DictReader(file)}


def _describe(output: Path, source: Source, chosen: Classes, plan: Plan, survey: _Survey, found: _Tally) -> Preparation:
    splits, counts = plan.splits(), Counter(plan.split_of.values())
    groups = {split: len({plan.group_of[name] for name, s in plan.split_of.items() if s == split}) for split in splits}
    notes = [f"{count} x {kind} left out" for kind, count in sorted(survey.left_out.items())]
    return Preparation(
        folder=output,
        format=source.format,
        class_names=chosen.names,
        splits={split: counts[split] for split in splits},
        groups=groups,
        made=found.made,
        kept=found.kept,
        empty=survey.empty,
        covered=found.covered,
        hidden=dict(found.hidden),
        outside=dict(found.outside),
        notes=(*chosen.notes, *plan.notes, *notes, *_without_annotation(source, survey), *_strays(output, plan)),
        problems=(*survey.problems, *found.problems),
    )


def _without_annotation(source: Source, survey: _Survey) -> list[str]:
    """Return a line where images lie that no annotation is of, or none that can be used."""
    names = (source.images.name(path) for path in source.images)
    left = [name for name in names if name not in survey.pictures]
    if not left:
        return []
    return [
        f"{len(left)} images of {source.images.folder} have no annotation that can be used, the first "
        f"{sanitize(left[0])}; they are left out"
    ]


def _strays(output: Path, plan: Plan) -> list[str]:
    """Return a line where masks of images lie that are annotated no longer."""
    expected = {f"{split}/{name}" for name, split in plan.split_of.items()}
    masks = output / "masks"
    there = (path.relative_to(masks).with_suffix("").as_posix() for path in files_below(masks, ".png"))
    strays = sorted(name for name in there if name not in expected)
    if not strays:
        return []
    return [
        f"{masks} holds {len(strays)} masks of images no longer annotated, the first {sanitize(strays[0])}; remove "
        "them with their images"
    ]
