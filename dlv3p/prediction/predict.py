"""Predict many images into a folder: reading, network and writing overlap, and what is finished is not made again.

Images are read ahead by one thread and written by another, as many at a time as fit into a fixed amount of memory, so
that a thousand images take no more of it than ten. A damaged image is named, and the others are done.
"""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from cityscapes.errors import InputError, ParameterError, UserError, reason
from cityscapes.files.channels import ChannelImage
from cityscapes.files.checksums import file_sha256
from cityscapes.files.images import (
    NEARLY_BLACK,
    PICTURE_FORMATS,
    STRETCH,
    Header,
    explain_nearly_black,
    inspect_picture,
    read_image,
    register_heif,
)
from cityscapes.files.leftovers import remove_leftovers
from cityscapes.files.locks import lock_folder
from dlv3p.data.fingerprints import PREDICTIONS
from dlv3p.prediction.memory import IN_FLIGHT_BYTES
from dlv3p.prediction.networks import LabelsFile
from dlv3p.prediction.predictor import ImagePredictor, Prediction, Size
from dlv3p.prediction.results import Outputs, Results, check_output, open_results
from dlv3p.prediction.sources import ImageFile, Source
from dlv3p.runtime.devices import keep_freed_memory, return_freed_memory
from dlv3p.runtime.progress import track

READ_AHEAD, WRITTEN_BEHIND = 2, 2
"""Groups of images that are decoded before, and written after, the one that the network sees."""
TABLE_SECONDS, TABLE_SHARE = 2.0, 20
"""The table is written at most so often, and takes at most one part in so many of the time."""
LITTLE_SPREAD = 1 / 8
"""An image whose values span less of a deviation is told, for a network was trained on others."""
HEIF_SUFFIXES = (".heic", ".heif")


@dataclass(frozen=True)
class Predictions:
    """What is in the folder: the images that are done, those of them that were made now, and a line per problem."""

    folder: Path
    done: tuple[str, ...]
    made: int
    problems: tuple[str, ...]

    @property
    def table(self) -> Path:
        """The CSV file with a line per image."""
        return self.folder / PREDICTIONS


@dataclass
class _Job:
    """An image on its way: what its header says, then its pixels, or the problem that ends it."""

    image: ImageFile
    header: Header | None = None
    size: Size = (0, 0)
    sha256: str = ""
    note: str = ""
    done: bool = False
    problem: str = ""
    pixels: Image.Image | None = field(default=None, repr=False)

    cost: int = 0


@keep_freed_memory()
def predict_images(
    predictor: ImagePredictor,
    source: Source,
    output: str | Path,
    outputs: Outputs | None = None,
    *,
    batch_size: int = 1,
    progress: str = "auto",
) -> Predictions:
    """Predict the images of a source into the folder `output`, see `results.py`; a killed call is resumed.

    With `batch_size` above 1, neighbors in the list that have the same size are predicted together. Raises
    ParameterError where the folder holds results of other weights, another runtime or other settings, and MachineError
    where nothing can be written; what is wrong with single images is in `problems`.
    """
    output, outputs = Path(output), outputs or Outputs()
    if outputs.confidence and isinstance(predictor.network, LabelsFile):
        raise ParameterError(
            f"confidence=True: {predictor.network.checkpoint} ends in labels; give the run or its weights"
        )
    check_output(output)
    with lock_folder(output):
        remove_leftovers(output, locked=True)
        results = open_results(output, predictor, outputs, batch_size=batch_size)
        results.save_record({"source": source.title, "count": len(source.images)})
        pipeline = _Pipeline(predictor, results, batch_size)
        images = pipeline.run(source.images)
        jobs = track(images, total=len(source.images), title=f"predict {source.title}", mode=progress, unit="images")
        try:
            hashes, problems = hashlib.sha256(), []
            for job in jobs:
                hashes.update(f"{job.image.name} {job.sha256}\n".encode(errors="surrogateescape"))
                problems += [job.problem] * bool(job.problem)
        finally:
            images.close()
            results.save_table([image.name for image in source.images])
        described = {"source": source.title, "count": len(source.images), "sha256": hashes.hexdigest()}
        results.save_record(described, problems)
    done = tuple(image.name for image in source.images if image.name in results.rows)
    say_others(results, done)
    say_nearly_black(results, done)
    return Predictions(output, done, pipeline.made, tuple(problems))


def say_others(results: Results, names: Sequence[str]) -> None:
    """Say where the folder also holds results of images that were not asked for, or cannot be read, since they stay."""
    if others := results.others(names):
        print(
            f"{results.folder}: also holds results of {len(others)} images that are not among these, the first "
            f"{others[0].relative_to(results.folder)}; {PREDICTIONS} lists only these"
        )


def say_nearly_black(results: Results, names: Sequence[str]) -> None:
    """Warn of images of 16 bits that a network saw as nearly black, those of an earlier call, too."""
    dark = [name for name in names if NEARLY_BLACK in results.rows.get(name, {}).get("note", "")]
    if dark:
        print(f"warning: {len(dark)} images of 16 bits came out {NEARLY_BLACK}, the first {dark[0]}; {STRETCH}")


class _Pipeline:
    def __init__(self, predictor: ImagePredictor, results: Results, batch_size: int) -> None:
        self.predictor, self.results, self.batch_size = predictor, results, batch_size
        self.budget = _Budget(IN_FLIGHT_BYTES)
        self.made = 0

    def run(self, images: Sequence[ImageFile]) -> Iterator[_Job]:
        """Yield each image when the network is done with it, or when it turns out to be finished or broken."""
        names = [image.name for image in images]
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            writing: deque[Future] = deque()
            saved, pause = time.monotonic(), TABLE_SECONDS
            try:
                for group in _ahead(self._decoded(images), reader, READ_AHEAD):
                    found, seconds = self._predict(group)
                    writing.append(writer.submit(self._write, group, found, seconds))
                    while len(writing) > WRITTEN_BEHIND:
                        writing.popleft().result()
                    if time.monotonic() - saved > pause:
                        began = time.monotonic()
                        writer.submit(self.results.save_table, names).result()
                        saved = time.monotonic()
                        pause = max(TABLE_SECONDS, TABLE_SHARE * (saved - began))
                    yield from group
                while writing:
                    writing.popleft().result()
            finally:
                self.budget.close()

    def _decoded(self, images: Sequence[ImageFile]) -> Iterator[list[_Job]]:
        """Yield groups of images to predict together, decoded; finished and broken ones are in groups of their own."""
        for group in self._groups(images):
            if not all(job.done or job.problem for job in group):
                for job in group:
                    job.cost = job.size[0] * job.size[1] * self.predictor.limit.held_bytes
                self.budget.take(sum(job.cost for job in group))  # at once: a part of it would wait for itself
                for job in group:
                    self._decode(job)
            yield group

    def _groups(self, images: Sequence[ImageFile]) -> Iterator[list[_Job]]:
        group: list[_Job] = []
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

    def _inspect(self, image: ImageFile) -> _Job:
        job = _Job(image)
        try:
            if image.path.suffix.lower() in HEIF_SUFFIXES:
                register_heif()
            header, ignored = inspect_picture(image.path, any_channels=self.predictor.rule is not None)
            job.header, job.size = header, header.size[::-1]
            job.note = " and ".join(f"{what} ignored" for what in ignored)
            if self.predictor.needs_tiles(job.size, self.results.outputs.confidence):
                return_freed_memory()
            job.sha256 = file_sha256(image.path)
            job.done = self.results.is_done(image, job.sha256)
        except (UserError, OSError) as error:
            job.problem = _line(image, error)
        return job

    def _decode(self, job: _Job) -> None:
        try:
            most = {"most_pixels": job.size[0] * job.size[1]}
            job.pixels = read_image(job.image.path, formats=PICTURE_FORMATS, rule=self.predictor.rule, **most)
            told = ""
            if not isinstance(job.pixels, ChannelImage):
                told = explain_nearly_black(job.header, job.pixels)
            elif (spread := job.pixels.spread) < LITTLE_SPREAD:
                told = f"its values span {spread:.2g} of the deviation in data.yaml"
            job.note = " and ".join(filter(None, (job.note, told)))
        except (UserError, OSError) as error:
            job.problem = _line(job.image, error)

    def _predict(self, group: list[_Job]) -> tuple[dict[str, Prediction], float]:
        jobs = [job for job in group if job.pixels is not None]
        if not jobs:
            return {}, 0.0
        began = time.perf_counter()
        try:
            found = self.predictor.predict([job.pixels for job in jobs], confidence=self.results.outputs.confidence)
        except InputError as error:
            for job in jobs:
                job.problem = _line(job.image, error)
            found = [None] * len(jobs)
        seconds = (time.perf_counter() - began) / len(jobs)
        return dict(zip([job.image.name for job in jobs], found, strict=True)), seconds

    def _write(self, group: list[_Job], found: dict[str, Prediction], seconds: float) -> None:
        for job in group:
            if job.problem:
                self.results.rows.pop(job.image.name, None)  # of the file that was there before
            elif job.pixels is not None and not job.done:
                how = {"sha256": job.sha256, "seconds": seconds, "note": job.note}
                self.results.write(job.image, job.pixels, found[job.image.name], **how)
                self.made += 1
            job.pixels = None
        self.budget.give(sum(job.cost for job in group))


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


def _ahead(groups: Iterator[list[_Job]], reader: ThreadPoolExecutor, count: int) -> Iterator[list[_Job]]:
    """Yield what an iterator gives, whose next items are made in another thread meanwhile."""
    pending = deque(reader.submit(next, groups, None) for _ in range(count))
    try:
        while (group := pending.popleft().result()) is not None:
            pending.append(reader.submit(next, groups, None))
            yield group
    finally:
        for future in pending:
            future.cancel()


def _line(image: ImageFile, error: Exception) -> str:
    """Return the one line of an image's problem, which begins with its path."""
    text = reason(error)
    if isinstance(error, UserError) and not isinstance(error, InputError):
        text = str(error)
    known = isinstance(error, InputError) and text.startswith(str(image.path))
    return text if known else f"{image.path}: {text.removeprefix('image: ')}"
