"""Take images through reading, network and writing, here or by the workers of any `concurrent.futures.Executor`.

Here, images are read ahead by one thread and written behind by another, as many at a time as fit into a fixed amount of
memory. A worker reads, predicts and writes a group on its own; only rows of the table come back.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from cityscapes.errors import InputError, UserError
from cityscapes.files.channels import ChannelImage
from cityscapes.files.checksums import file_sha256
from cityscapes.files.images import PICTURE_FORMATS, Header, explain_nearly_black, inspect_picture, read_image
from cityscapes.freed_memory import return_freed_memory
from cityscapes.parallel import map_bounded
from dlv3p.prediction.memory import IN_FLIGHT_BYTES
from dlv3p.prediction.predictor import ImagePredictor, Prediction, PredictorFile, Size, file_of, load_again
from dlv3p.prediction.results import Outputs, Results
from dlv3p.prediction.sources import ImageFile, problem_of, problem_of_file

READ_AHEAD, WRITTEN_BEHIND = 2, 2
"""Groups of images that are decoded before, and written after, the one that the network sees."""
IN_FLIGHT = 256
"""Groups that an executor is given at a time: enough that no worker waits."""
TABLE_SECONDS, TABLE_SHARE = 2.0, 20
"""The table is written at most so often, and takes at most one part in so many of the time."""
LITTLE_SPREAD = 1 / 8
"""An image whose values span less of a deviation is told, for a network was trained on others."""


@dataclass
class Job:
    """An image on its way: what its header says, then its pixels and its row of the table, or what ends it.

    `done` is one that was finished before, and `problem` says what is wrong with one that cannot be predicted.
    """

    image: ImageFile
    header: Header | None = None
    size: Size = (0, 0)
    sha256: str = ""
    note: str = ""
    done: bool = False
    problem: str = ""
    pixels: Image.Image | None = field(default=None, repr=False)
    cost: int = 0
    row: dict[str, str] | None = None


class Pipeline:
    """What takes images to results: `run` does it in this process, `run_by` with an executor."""

    def __init__(self, predictor: ImagePredictor, results: Results, batch_size: int) -> None:
        self.predictor, self.results, self.batch_size = predictor, results, batch_size
        self.budget = _Budget(IN_FLIGHT_BYTES)
        self.made = 0

    def run(self, images: Sequence[ImageFile]) -> Iterator[Job]:
        """Yield each image when the network is done with it, or when it turns out to be finished or broken."""
        saving = _Saving(self.results, images)
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            writing: deque[Future] = deque()
            try:
                for group in _ahead(self._decoded(images), reader, READ_AHEAD):
                    found, seconds = self._predict(group)
                    writing.append(writer.submit(self._finish, group, found, seconds))
                    while len(writing) > WRITTEN_BEHIND:
                        writing.popleft().result()
                    if saving.due:
                        writer.submit(saving.save).result()
                    yield from group
                while writing:
                    writing.popleft().result()
            finally:
                self.budget.close()

    def run_by(self, executor: Executor, images: Sequence[ImageFile]) -> Iterator[Job]:
        """Yield each image when a worker of the executor is done with it, in the order in which they are.

        Groups are made here, of the same images as without an executor, since a batch decides on last bits.
        """
        saving, given = _Saving(self.results, images), {image.name: image.path for image in images}
        work = partial(_make_elsewhere, _Place.of(self.predictor, self.results))
        groups = ([_with_absolute_path(job) for job in group] for group in self._groups(images))
        with closing(map_bounded(executor, work, groups, in_flight=IN_FLIGHT)) as made:
            for group in made:
                for job in group:
                    path = given[job.image.name]
                    job.problem = job.problem.replace(str(job.image.path), str(path), 1)
                    self._note(job)
                if saving.due:
                    saving.save()
                yield from group

    def make(self, group: list[Job]) -> None:
        """Read, predict and write a group, as a worker of an executor does."""
        for job in group:
            self._decode(job)
        found, seconds = self._predict(group)
        self._write(group, found, seconds)

    def _decoded(self, images: Sequence[ImageFile]) -> Iterator[list[Job]]:
        """Yield groups of images to predict together, decoded; finished and broken ones are in groups of their own."""
        for group in self._groups(images):
            if _is_to_make(group):
                for job in group:
                    job.cost = job.size[0] * job.size[1] * self.predictor.limit.held_bytes
                self.budget.take(sum(job.cost for job in group))  # at once: a part of it would wait for itself
                for job in group:
                    self._decode(job)
            yield group

    def _groups(self, images: Sequence[ImageFile]) -> Iterator[list[Job]]:
        group: list[Job] = []
        for job in map(self._inspect, images):
            alike = group and not job.problem and job.size == group[0].size and len(group) < self.batch_size
            if group and not alike:
                yield group
                group = []
            group.append(job)
            if job.problem or not self.predictor.sees_whole(job.size, self.results.outputs.confidence):
                yield group
                group = []
        if group:
            yield group

    def _inspect(self, image: ImageFile) -> Job:
        job = Job(image)
        try:
            header, ignored = inspect_picture(image.path, any_channels=self.predictor.rule is not None)
            job.header, job.size = header, header.size[::-1]
            job.note = " and ".join(f"{what} ignored" for what in ignored)
            self.predictor.needs_tiles(job.size, self.results.outputs.confidence)  # which refuses what is too large
            job.sha256 = file_sha256(image.path)
            job.done = self.results.is_done(image, job.sha256)
        except (UserError, OSError) as error:
            job.problem = problem_of_file(image.path, error)
        return job

    def _decode(self, job: Job) -> None:
        try:
            if self.predictor.needs_tiles(job.size, self.results.outputs.confidence):
                return_freed_memory()
            most = {"most_pixels": job.size[0] * job.size[1]}
            job.pixels = read_image(job.image.path, formats=PICTURE_FORMATS, rule=self.predictor.rule, **most)
            told = ""
            if not isinstance(job.pixels, ChannelImage):
                told = explain_nearly_black(job.header, job.pixels)
            elif (spread := job.pixels.spread) < LITTLE_SPREAD:
                told = f"its values span {spread:.2g} of the deviation in data.yaml"
            job.note = " and ".join(filter(None, (job.note, told)))
        except (UserError, OSError) as error:
            job.problem = problem_of(job.image.path, error)

    def _predict(self, group: list[Job]) -> tuple[dict[str, Prediction], float]:
        jobs = [job for job in group if job.pixels is not None]
        if not jobs:
            return {}, 0.0
        began = time.perf_counter()
        try:
            found = self.predictor.predict([job.pixels for job in jobs], confidence=self.results.outputs.confidence)
        except InputError as error:
            for job in jobs:
                job.problem = problem_of(job.image.path, error)
            found = [None] * len(jobs)
        seconds = (time.perf_counter() - began) / len(jobs)
        return dict(zip([job.image.name for job in jobs], found, strict=True)), seconds

    def _finish(self, group: list[Job], found: dict[str, Prediction], seconds: float) -> None:
        self._write(group, found, seconds)
        for job in group:
            self._note(job)
        self.budget.give(sum(job.cost for job in group))

    def _write(self, group: list[Job], found: dict[str, Prediction], seconds: float) -> None:
        for job in group:
            if job.pixels is not None and not (job.problem or job.done):
                how = {"sha256": job.sha256, "seconds": seconds, "note": job.note}
                job.row = self.results.make(job.image, job.pixels, found[job.image.name], **how)
            job.pixels = None

    def _note(self, job: Job) -> None:
        if job.row:
            self.results.rows[job.image.name] = job.row
            self.made += 1
        elif job.problem:
            self.results.rows.pop(job.image.name, None)  # of the file that was there before


class _Place(NamedTuple):
    """What a worker needs beside the images: the file of the network, and where results go and how."""

    file: PredictorFile
    outputs: Outputs
    folder: Path
    settings: dict[str, Any]

    @classmethod
    def of(cls, predictor: ImagePredictor, results: Results) -> "_Place":
        return cls(file_of(predictor), results.outputs, results.folder.absolute(), results.settings)


def _make_elsewhere(place: _Place, group: list[Job]) -> list[Job]:
    """Make a group in a process that sees the same folders, and return it without pixels."""
    if _is_to_make(group):
        predictor = load_again(place.file)
        results = Results(place.folder, predictor, place.outputs, place.settings)
        Pipeline(predictor, results, len(group)).make(group)
    return group


def _is_to_make(group: list[Job]) -> bool:
    return not all(job.done or job.problem for job in group)


def _with_absolute_path(job: Job) -> Job:
    """Return a job for a worker, which may run in another folder."""
    return replace(job, image=replace(job.image, path=job.image.path.absolute()))


class _Saving:
    """When the table of a prediction that goes on is to be written, and its writing."""

    def __init__(self, results: Results, images: Sequence[ImageFile]) -> None:
        self._results, self._names = results, [image.name for image in images]
        self._saved, self._pause = time.monotonic(), TABLE_SECONDS

    @property
    def due(self) -> bool:
        return time.monotonic() - self._saved > self._pause

    def save(self) -> None:
        began = time.monotonic()
        self._results.save_table(self._names)
        self._saved = time.monotonic()
        self._pause = max(TABLE_SECONDS, TABLE_SHARE * (self._saved - began))


class _Budget:
    """Bytes that groups on their way may take together; one that is larger than all waits until it is alone."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = threading.Condition()
        self._closed = False

    def take(self, size: int) -> None:
        size = min(size, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size or self._closed)
            self._free -= size

    def give(self, size: int) -> None:
        with self._changed:
            self._free += min(size, self._size)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _ahead(groups: Iterator[list[Job]], reader: ThreadPoolExecutor, count: int) -> Iterator[list[Job]]:
    """Yield what an iterator gives, whose next items are made in another thread meanwhile."""
    pending = deque(reader.submit(next, groups, None) for _ in range(count))
    try:
        while (group := pending.popleft().result()) is not None:
            pending.append(reader.submit(next, groups, None))
            yield group
    finally:
        for future in pending:
            future.cancel()
