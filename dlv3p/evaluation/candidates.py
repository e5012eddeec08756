"""Take up what is compared: runs that were evaluated, a network in memory, or a folder of predicted masks."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import torch

from cityscapes.dataset import Split
from cityscapes.errors import InputError, IntegrityError, MissingInputError, ParameterError, UserError, reason
from cityscapes.files.checksums import file_sha256, read_json
from cityscapes.files.images import read_ids
from cityscapes.files.listing import files_below
from cityscapes.ids import EVALUATED_IDS
from cityscapes.labels import CLASS_NAMES, IGNORE, LABEL_ID_TO_TRAIN_ID
from cityscapes.workspace import output_folder, run_folder
from dlv3p.data.classes import numbered_otherwise
from dlv3p.data.fingerprints import ContentHash, describe_others, predicted_files
from dlv3p.data.roots import open_split, resolve_data_root
from dlv3p.evaluation.benchmarks import data_name
from dlv3p.evaluation.comparison import StoredEvaluation, read_evaluations
from dlv3p.evaluation.evaluate import Evaluation, evaluate, hash_scored, scored_pair
from dlv3p.evaluation.image_counts import ImageCounts, read_groups, read_image_counts
from dlv3p.evaluation.inference import Predictor, load_run_predictor
from dlv3p.evaluation.metrics import confusion_matrix, scores
from dlv3p.evaluation.results import CHECKPOINT, RECORD, MadeFrom, means_otherwise
from dlv3p.parameters.choices import OWN_IDS
from dlv3p.parameters.notebooks import SHARED, CompareRunsParameters, RunParameters
from dlv3p.parameters.protocols import PUBLISHED, WHOLE_IMAGE, Protocol
from dlv3p.runs.folders import checkpoint_path, dense_of, find_run
from dlv3p.runs.record import read_unchanged_record
from dlv3p.runtime.progress import track

SMALLER = 0.75
"""The factor of height and width at which a run is compared with itself."""

IDS = {"train": np.arange(256, dtype=np.uint8), "label": LABEL_ID_TO_TRAIN_ID}
"""What the pixels of a folder's masks mean: train ids, or the label ids of Cityscapes."""


@dataclass(frozen=True)
class Candidate:
    """One of the compared: its confusion counts by image, what was scored, and how to predict an image again.

    `made_from` identifies the images, masks and checkpoint that were scored, and `changed` says in a sentence that the
    files are others now, or were when they were predicted. `training` holds the parameters that a run was trained with,
    and `cost` what its stored profile measured, at what size and where. `predict` takes the split and an index.
    """

    name: str
    counts: ImageCounts
    data: str
    root: str
    split: str
    protocol: Protocol
    predict: Callable[[Split, int], np.ndarray]
    made_from: MadeFrom = MadeFrom()
    image_scale: float = 1.0
    training: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, float | str] = field(default_factory=dict)
    changed: str = ""

    def open_split(self) -> Split:
        """Open the split that was scored."""
        return open_split(resolve_data_root(self.root), self.split)

    @cached_property
    def confusions(self) -> np.ndarray:
        """The confusion counts of each image: int64 (N,C,C)."""
        return self.counts.confusions()

    @property
    def mean_iou(self) -> float:
        """The mean IoU over all images, 0 to 1."""
        return scores(self.confusions.sum(axis=0)).mean_iou


def from_evaluation(evaluation: Evaluation, name: str) -> Candidate:
    """Take an evaluation that was made just now, under a name of its own."""
    predictor, split, protocol = evaluation.predictor, evaluation.split, evaluation.protocol

    def predict(split: Split, index: int) -> np.ndarray:
        return predictor(scored_pair(split, index, protocol)[0], protocol)

    scale, where = predictor.parameters.image_scale, (data_name(split), str(split.root), split.split)
    return Candidate(name, evaluation.counts, *where, protocol, predict, evaluation.made_from, scale)


def usual_pair(predictor: Predictor, *, threads: int = 2, progress: str = "auto") -> list[Candidate]:
    """Score a pruned run after the run that it was pruned from; any other run at its size, and at `SMALLER` of it."""
    parameters = predictor.parameters
    split = open_split(resolve_data_root(parameters.data_root), parameters.validation_split)
    if dense := dense_of(predictor.run):
        asked = RunParameters(run=dense, device=predictor.device.type, threads=threads)
        networks = {dense: load_run_predictor(asked), predictor.run: predictor}
    else:
        smaller = replace(predictor, parameters=replace(parameters, image_scale=parameters.image_scale * SMALLER))
        networks = {predictor.run: predictor, f"{predictor.run} at {SMALLER:.0%} of the size": smaller}
    return [from_evaluation(evaluate(one, split, progress=progress), name) for name, one in networks.items()]


def from_folder(folder: Path, split: Split, *, ids: str = "train", progress: str = "auto") -> Candidate:
    """Score a folder of predicted masks, in any subfolders, against a split, or what `predict` wrote.

    Raises MissingInputError for an image without a mask, InputError for two, another size, or an id that is no class,
    and ParameterError for label ids of other data than Cityscapes.
    """
    if ids == "label" and tuple(split.class_names) != tuple(CLASS_NAMES):
        raise ParameterError(f"ids={ids!r}: {split.root} has no label ids, which are those of Cityscapes; use 'train'")
    masks, ids = masks_of(folder, split, ids)
    paths = find_masks(masks, split)

    def predict(split: Split, index: int) -> np.ndarray:
        return np.take(IDS[ids], read_ids(paths[index]))

    made_of, others = predicted_files(masks.parent), []
    # Kept one by one, they would lie between the freed pixels, and the heap would grow by an image each time.
    confusions, hashed = np.zeros((len(split), split.num_classes, split.num_classes), np.int64), ContentHash()
    for index in track(range(len(split)), total=len(split), title=f"score {folder.name}", mode=progress):
        truth, prediction = split.mask(index), predict(split, index)
        hashed.add(split, index, truth)
        known = made_of.get(paths[index].relative_to(masks).as_posix(), "")
        others += [split.name(index)] * (known not in ("", hashed.image(split, index)))
        if truth.shape != prediction.shape:
            sizes = " and the truth ".join(f"{mask.shape[1]} x {mask.shape[0]}" for mask in (prediction, truth))
            raise InputError(f"{paths[index]}: has {sizes} pixels; both must have the same size")
        judged = prediction[truth < split.num_classes]
        if judged.size and judged.max() >= split.num_classes:
            stored = read_ids(paths[index])[(truth < split.num_classes) & (prediction >= split.num_classes)]
            raise InputError(f"{paths[index]}: {_no_class(int(stored.max()), ids, split)}")
        pair = map(torch.from_numpy, (truth, prediction))
        confusions[index] = confusion_matrix(*pair, split.num_classes).numpy()
    used = np.flatnonzero(confusions.sum(axis=(0, 1))).tolist()
    if ids == "train" and tuple(split.class_names) == tuple(CLASS_NAMES) and EVALUATED_IDS.issuperset(used):
        print(f"warning: {folder}: its ids fit train ids and label ids; taken as train ids, else say ids=label")
    counts = ImageCounts.of(split, confusions, split.class_names)
    where = (data_name(split), str(split.root), split.split)
    changed = describe_others(folder, others, str(split.root))
    return Candidate(str(folder), counts, *where, WHOLE_IMAGE, predict, MadeFrom.of(split, hashed), changed=changed)


def _no_class(stored: int, ids: str, split: Split) -> str:
    """Say what is wrong with an id that is predicted where the truth has a class."""
    if ids == "label":
        return f"holds label id {stored}, which is not a scored class, where the truth has one; predict a scored class"
    if stored == IGNORE:
        return (
            f"holds {IGNORE} where the truth has a class; in the truth it means that a pixel is ignored, and a "
            f"prediction has a class for each pixel, 0 to {split.num_classes - 1}"
        )
    return (
        f"holds id {stored}, and the classes are 0 to {split.num_classes - 1}; give the kind of ids, one of "
        f"{', '.join(IDS)}"
    )


def from_runs(
    runs: Sequence[str], protocol: str = SHARED, *, device: str = "auto", threads: int = 2
) -> list[Candidate]:
    """Read the evaluations of runs on the same images by the same protocol, the chosen one or the one that all have.

    Raises ParameterError where they share none or, without a choice, several other than whole images.
    """
    best = [one for one in read_evaluations(list(dict.fromkeys(runs)), current=False) if one.checkpoint == "best.pt"]
    stored = {run: {one.column: one for one in best if one.run == run} for run in runs}
    for run, columns in stored.items():
        if not columns:
            raise MissingInputError(
                f"outputs/{run}: no evaluation; make one with: papermill evaluate.ipynb -p run {run}"
            )
    shared = [column for column in stored[runs[0]] if all(column in columns for columns in stored.values())]
    if protocol != SHARED:
        shared = [column for column in shared if stored[runs[0]][column].protocol == PUBLISHED[protocol]]
    if len(shared) > 1:
        shared = [column for column in shared if stored[runs[0]][column].protocol == WHOLE_IMAGE] or shared
    if len(shared) != 1:
        raise ParameterError(_not_one(shared, stored, protocol))
    return [_from_stored(columns[shared[0]], device, threads) for columns in stored.values()]


def read_candidates(config: CompareRunsParameters, names: Sequence[str]) -> list[Candidate]:
    """Take up runs and folders of masks by their names, in order; a run's name comes before a folder's.

    Folders are scored on `data_root` and `split`, by default those of the first run.
    """
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ParameterError(f"candidates: {repeated[0]} is named twice; name each once")
    folders = {name: Path(name) for name in names if not _is_run(name) and Path(name).is_dir()}
    runs = [find_run(name, parameter="candidates") for name in names if name not in folders]
    options = {"device": config.device, "threads": config.threads}
    found = dict(zip(runs, from_runs(runs, config.protocol, **options), strict=True)) if runs else {}
    if runs and not folders:  # whose masks are scored on the files as they are now
        found[runs[0]] = replace(found[runs[0]], changed=_describe_change(found[runs[0]], config.progress))
    if folders:
        training = found[runs[0]].training if runs else {}
        root = config.data_root or training.get("data_root", "")
        if not root:
            raise ParameterError('data_root="": name the data set that the folders of masks belong to')
        split = open_split(resolve_data_root(root), config.split)
        for name, folder in folders.items():
            found[name] = from_folder(folder, split, ids=config.ids, progress=config.progress)
    candidates = [found[name] for name in names]
    return with_groups(candidates, Path(config.image_groups)) if config.image_groups else candidates


def _is_run(name: str) -> bool:
    return "/" not in name and checkpoint_path(name, "best").is_file()


def _not_one(shared: list, stored: Mapping[str, Mapping], protocol: str) -> str:
    if shared:
        return f"{', '.join(stored)}: scored alike by {'; '.join(map(' by '.join, shared))}; choose one with protocol"
    have = "; ".join(f"{run} has {', '.join(map(' by '.join, columns))}" for run, columns in stored.items())
    wanted = f" by {protocol}" if protocol != SHARED else ""
    return f"scored on no common images by one protocol{wanted}: {have}; evaluate all of them alike with evaluate.ipynb"


def _from_stored(stored: StoredEvaluation, device: str, threads: int) -> Candidate:
    content, training = read_json(stored.path), _training(stored.run)
    path = stored.path.with_name(stored.path.stem.replace("evaluation", "evaluation_images", 1) + ".npz")
    counts = read_image_counts(path)
    if counts.confusions().sum(axis=0).tolist() != content["confusion"]:
        raise IntegrityError(f"{path}: does not add up to {stored.path.name}; evaluate the run again")

    made_from = MadeFrom.recorded(content.get("made_from"))
    weights = made_from.checkpoint_sha256
    if weights and file_sha256(checkpoint_path(stored.run, "best")) != weights:
        raise InputError(f"saved/{stored.run}: was trained further after it was scored; evaluate it again")

    @lru_cache(maxsize=1)
    def predictor():
        return load_run_predictor(RunParameters(run=stored.run, device=device, threads=threads))

    def predict(split: Split, index: int) -> np.ndarray:
        return predictor()(scored_pair(split, index, stored.protocol)[0], stored.protocol)

    return Candidate(
        stored.run,
        counts,
        stored.data,
        content["data_root"],
        content["split"],
        stored.protocol,
        predict,
        made_from,
        stored.image_scale,
        training,
        _cost(stored.run, training),
    )


def _describe_change(one: Candidate, progress: str) -> str:
    """Say what of the data is not as it was scored, "" where all is; all that is compared has the same hashes."""
    if not one.made_from.image_contents_sha256:
        return ""  # which is said of each candidate
    again = f"the scores are of what it held then; evaluate {one.name} and the others again"
    try:
        hashed = hash_scored(one.open_split(), one.protocol, progress=progress)
    except (UserError, OSError) as error:
        return f"Changed since: {one.root} cannot be read any more ({reason(error)}); {again}."
    other = ["images"] * (hashed.images != one.made_from.image_contents_sha256)
    other += ["masks"] * (hashed.masks != one.made_from.mask_contents_sha256)
    return f"Changed since: {one.root} has other {' and '.join(other)} now; {again}." if other else ""


def _training(run: str) -> dict[str, Any]:
    path = run_folder(run) / "run.json"
    return read_unchanged_record(path)["parameters"] if path.is_file() else {}


def _cost(run: str, training: Mapping[str, Any]) -> dict[str, float | str]:
    """Return what the stored profile says of a run's network in float32, an image at a time, at what size and where.

    {} without such a profile.
    """
    path = output_folder(run) / "profile.json"
    try:
        profile = read_json(path)
        rows = profile["rows"] if profile["asked"]["network"] == "run" else []  # else it is of a published network
        machine = profile["machine"]
        name = f"{machine.get('gpu') or machine['processor']}, {machine['threads']} threads"
        if profile.get(CHECKPOINT, now := file_sha256(checkpoint_path(run, "best"))) != now:
            print(f"warning: left out: {path}: is of another checkpoint than {run} has now; run profile.ipynb again")
            return {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a profile ({reason(error)}); run profile.ipynb again") from error
    own = ("backbone", "output_stride")
    for row in rows:
        alike = all(row.get(name) == training.get(name) for name in own)
        usual = {"precision": "float32", "batch_size": 1, "compiled": False, "status": "ok"}
        if alike and usual.items() <= row.items():
            names = {
                "parameters": "parameters",
                "GMACs": "gmacs",
                "latency, ms": "p50_ms",
                "memory, MiB": "above_weights_mib",
            }
            values = {title: row.get(name) for title, name in names.items()}
            found = {title: float(value) for title, value in values.items() if isinstance(value, (int, float))}
            size = f"{row.get('height')} x {row.get('width')}"
            return {**found, "size": size, "machine": f"{row.get('device')}, {name}"}
    return {}


def masks_of(folder: Path, split: Split, ids: str) -> tuple[Path, str]:
    """Return the folder of the masks, and the kind of their ids: of what `predict` wrote, what its record says.

    `folder` is that of the record or the one of the ids below it. Raises ParameterError for predictions of other
    classes.
    """
    for base in (folder, *[folder.resolve().parent] * (folder.name == "ids")):
        if (record := read_stored(base / RECORD)) is not None:
            names = tuple(record.get("class_names", ()))
            _refuse_other_classes(folder, names, split)
            _refuse_other_meaning(folder, record.get("trained_on"), split)
            own = record.get("ids") == OWN_IDS and names == tuple(CLASS_NAMES)
            return base / "ids", "label" if own else "train"
    return folder, ids


def _refuse_other_classes(folder: Path, names: tuple[str, ...], split: Split) -> None:
    if names and (len(names) != split.num_classes or numbered_otherwise(names, split.class_names)):
        raise ParameterError(
            f"{folder}: was predicted by a network of other classes ({', '.join(names[:3])}, ...) "
            f"than {split.root} has ({', '.join(split.class_names[:3])}, ...); give the data set of its classes"
        )


def _refuse_other_meaning(folder: Path, trained_on: Any, split: Split) -> None:
    known = trained_on if isinstance(trained_on, dict) else {}  # earlier versions did not record it
    if means_otherwise(known.get("data_root", ""), known.get("meaning"), split):
        raise ParameterError(
            f"{folder}: was predicted by a network for which the values or colors of the masks in {split.root} were "
            "other classes than now; restore its table of classes, or predict with a run that was trained since"
        )


def read_stored(path: Path) -> dict | None:
    """Read a JSON object that can be made again, None where there is none; raises IntegrityError for a damaged one."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise IntegrityError(f"{path}: cannot be read ({reason(error)}); delete it to make it again") from error
    return content if isinstance(content, dict) else None


def find_masks(folder: Path, split: Split) -> list[Path]:
    """Find the mask of each image in any subfolder: its PNG is named as the image, or begins so, with an underscore.

    Names are compared whatever their Unicode form. Where images in several folders share a name, it is the one in the
    same folder. Raises MissingInputError for an image without a mask, and InputError for two.
    """
    whole = [normalize("NFC", split.name(index)) for index in range(len(split))]
    names = [name.rsplit("/", 1)[-1] for name in whole]
    by_path = len(set(names)) < len(names)
    wanted = set(whole if by_path else names)
    exact: dict[str, list[Path]] = {}
    longer: dict[str, list[Path]] = {}
    for path in files_below(folder, ".png"):
        name = normalize("NFC", path.relative_to(folder).with_suffix("").as_posix() if by_path else path.stem)
        (exact if name in wanted else longer).setdefault(_image_of(name, wanted), []).append(path)
    if not (exact or longer):
        raise MissingInputError(f"{folder}: holds no PNG; give a run below saved/, or a folder of predicted masks")
    return [_only_mask(name, exact.get(name) or longer.get(name, []), folder) for name in (whole if by_path else names)]


def _image_of(name: str, wanted: Set[str]) -> str:
    """Return the longest of the `wanted` that a mask's name is, or begins with before an underscore; "" if none."""
    while name and name not in wanted:
        name = name.rpartition("_")[0]
    return name


def _only_mask(name: str, paths: Sequence[Path], folder: Path) -> Path:
    if not paths:
        raise MissingInputError(f"{folder}: holds no mask of the image {name}, such as {name}.png")
    if len(paths) > 1:
        raise InputError(f"{folder}: holds {len(paths)} masks of the image {name}, {paths[0].name} and {paths[1].name}")
    return paths[0]


def with_groups(candidates: Sequence[Candidate], path: Path) -> list[Candidate]:
    """Give the images of all candidates the groups of a CSV table."""
    groups = read_groups(path, candidates[0].counts.names)
    return [replace(one, counts=replace(one.counts, groups=groups)) for one in candidates]
