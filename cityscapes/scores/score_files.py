"""Score a folder of prediction PNGs from any program against the truth of a split."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cityscapes.errors import MissingInputError, ParameterError, UserError
from cityscapes.files.listing import files_below
from cityscapes.files.png_read import read_label_image
from cityscapes.findings import ProblemsError
from cityscapes.ids import ENCODINGS, explain_prediction, ids_in, recognize
from cityscapes.labels import TRAIN_ID_TO_LABEL_ID
from cityscapes.layout import match_names
from cityscapes.parallel import number_of_workers
from cityscapes.scores.official_scores import OfficialScores, ScoreAccumulator
from cityscapes.scores.pixel_counts import PixelCounts, count_pixels
from cityscapes.scores.truth_files import TruthFiles


@dataclass(frozen=True)
class FolderScores:
    """The scores of a folder, the encoding that its files were read as, label or train, and why that one."""

    scores: OfficialScores
    encoding: str
    because: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Prediction:
    """One prediction: its problem, or its ids and its counts under each encoding that they fit."""

    name: str
    problem: str | None
    ids: frozenset[int] = frozenset()
    counts: tuple[tuple[str, PixelCounts], ...] = ()


def score_folder(
    predictions: str | Path,
    truth: Sequence[TruthFiles],
    *,
    ids: str = "auto",
    workers: int = 0,
    progress: bool | None = None,
) -> FolderScores:
    """Score the PNGs below a folder, one for each frame of `truth`, named `<city>_<seq>_<frame>*.png`.

    `ids` is label or train, or auto, which decides by the ids themselves and refuses undecided ones. `workers` is the
    number of threads, 0 for one per core; `progress` shows a bar, by default only on a terminal. Raises ProblemsError
    with every bad, missing or extra file, MissingInputError, ParameterError.
    """
    predictions = Path(predictions)
    if ids not in ("auto", *ENCODINGS):
        raise ParameterError(f"ids is {ids!r}; choose auto, {' or '.join(ENCODINGS)}")
    count = number_of_workers(workers)
    if not predictions.is_dir():
        raise MissingInputError(f"{predictions}: no such folder of predictions")
    by_name = {files.name: files for files in truth}
    files = [(path.name, path) for path in files_below(predictions, ".png")]
    matched, problems = match_names(files, list(by_name))
    added, ids_of = {encoding: ScoreAccumulator() for encoding in ENCODINGS}, {}
    for finding in _each(lambda item: _score(item[1][1], by_name[item[0]], ids), matched, count, progress):
        problems += [finding.problem] * bool(finding.problem)
        ids_of[finding.name] = finding.ids
        for encoding, counts in finding.counts:
            added[encoding].add_counts(finding.name, counts)
    if problems:
        raise ProblemsError(predictions, "not scored", problems)
    encoding, because, warnings = _decide(ids, ids_of, predictions)
    return FolderScores(added[encoding].result(), encoding, because, warnings)


def _decide(ids: str, ids_of: Mapping[str, Collection[int]], source: Path) -> tuple[str, str, tuple[str, ...]]:
    believed, because = recognize(ids_of)
    if ids == "auto":
        if believed is None:
            raise ProblemsError(source, "not scored", [because])
        return believed, because, ()
    doubt = () if believed in (None, ids) else (f"read as {ids} ids, as asked, although they look like {believed} ids",)
    return ids, "as asked", doubt


def _score(path: Path, files: TruthFiles, ids: str) -> _Prediction:
    try:
        truth, instances = files.read()
        prediction = read_label_image(path, size=truth.shape)
        found = ids_in(prediction)
        if wrong := explain_prediction(found, ids):
            return _Prediction(str(path), f"{path}: {wrong}")
        counts = []
        for encoding in ENCODINGS if ids == "auto" else (ids,):
            if not explain_prediction(found, encoding):
                table = TRAIN_ID_TO_LABEL_ID if encoding == "train" else None
                counts.append((encoding, count_pixels(str(path), truth, prediction, instances, label_ids=table)))
        return _Prediction(str(path), None, found, tuple(counts))
    except UserError as error:
        return _Prediction(str(path), str(error))


def _each(work: Callable, items: Sequence, workers: int, progress: bool | None) -> Iterator:
    """Yield the results in order; with threads, since decoding and counting release the interpreter's lock."""
    from tqdm import tqdm

    hidden = None if progress is None else not progress
    pool = ThreadPoolExecutor(workers)
    try:
        yield from tqdm(pool.map(work, items), "score", len(items), unit="image", leave=False, disable=hidden)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
