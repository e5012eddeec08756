"""Predict a split as label-id PNGs, pack them for the official server, and check the zip without trusting it."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from math import isnan
from pathlib import Path

import torch

from cityscapes.dataset import CityscapesSplit, Split
from cityscapes.errors import IntegrityError, ParameterError
from cityscapes.files.checksums import file_sha256
from cityscapes.files.images import RULE, read_image
from cityscapes.files.leftovers import remove_leftovers
from cityscapes.files.stamps import is_made_from
from cityscapes.freed_memory import keep_freed_memory
from cityscapes.layout import Frame
from cityscapes.parallel import map_bounded, worker_processes_beside
from cityscapes.scores.truth_files import truth_of_frames
from cityscapes.submissions.build import build_submission, save_prediction
from cityscapes.submissions.check import SubmissionReport, check_submission
from cityscapes.submissions.manifest import Manifest
from cityscapes.workspace import output_folder
from dlv3p.data.fingerprints import ContentHash
from dlv3p.evaluation.inference import Predictor, read_predictor, refuse_other_weights
from dlv3p.evaluation.results import MadeFrom, data_suffix, result_path, split_word
from dlv3p.parameters.protocols import WHOLE_IMAGE, Protocol
from dlv3p.runs.folders import write_json
from dlv3p.runtime.devices import SCORING_ADVICE, explain_out_of_memory
from dlv3p.runtime.progress import track

IN_FLIGHT = 256
"""Images that an executor is given at a time: enough that no worker waits."""


@dataclass(frozen=True)
class Submission:
    """The folder of predictions, the zip that was built from it, and the report of the check of that zip.

    On a labeled split `report.scores` are the official scores, read from the zip as the server would.
    """

    folder: Path
    manifest: Manifest
    report: SubmissionReport


@explain_out_of_memory(SCORING_ADVICE)
@keep_freed_memory()
def save_predictions(
    predictor: Predictor,
    split: Split,
    protocol: Protocol = WHOLE_IMAGE,
    *,
    progress: str = "auto",
    workers: int = 1,
    executor: Executor | None = None,
) -> Path:
    """Write one label-id PNG per image, `<folder>/<city>/<name>_labelIds.png`, and return the folder.

    The folder's name identifies the network, the protocol and, where it is not the run's own, the data. Each file is
    stamped with what it was made from: the bytes of its image, the network, the rule that decodes images, and the
    protocol. So a training that is repeated to the same weights has the same files. An interrupted call resumes where
    it stopped, and predicts again what is damaged or was made from something else. The work is done by `workers`
    processes, or in place of them by `executor`, any `concurrent.futures.Executor` on machines that see the same
    folders; each worker reads the checkpoint once.

    Raises ParameterError for data that is not Cityscapes, and for a protocol that leaves a part of the image out;
    MachineError when the executor has lost a worker, and IntegrityError when a worker finds another checkpoint.
    """
    split = _cityscapes(split)
    if protocol.center_crop:
        raise ParameterError(f"protocol={protocol.name!r}: sees the center only, and the server expects whole images")
    name = f"{split_word(split.split)}-{predictor.checkpoint.stem}-{predictor.network_sha256[:8]}{protocol.suffix}"
    folder = output_folder(predictor.run) / "predictions" / (name + data_suffix(predictor, split))
    remove_leftovers(folder)
    images = (split.image_path(index) for index in range(len(split)))
    paths = (prediction_path(folder, frame) for frame in split.frames)
    pairs = zip(images, paths, strict=True)
    with nullcontext(executor) if executor else worker_processes_beside(workers) as pool:
        made = _predict(predictor, protocol, pairs, pool)
        with closing(made):
            anew = sum(track(made, total=len(split), title=f"predict {split.split}", mode=progress))
    if anew:
        print(f"{anew} of {len(split)} predictions were damaged or of other images and were made again")
    return folder


def _predict(
    predictor: Predictor, protocol: Protocol, pairs: Iterator[tuple[Path, Path]], executor: Executor | None
) -> Iterator[bool]:
    """Yield what `_predict_one` returns of each image, in this process or by an executor."""
    if executor is None:
        return (_predict_one(predictor, protocol, pair) for pair in pairs)
    # Paths are absolute, since a worker may run in another folder.
    checkpoint, device, threads = predictor.checkpoint.absolute(), predictor.device.type, torch.get_num_threads()
    network = predictor.run, checkpoint, predictor.weights_sha256, device, threads
    absolute = ((image.absolute(), path.absolute()) for image, path in pairs)
    return map_bounded(executor, partial(_predict_elsewhere, network, protocol), absolute, in_flight=IN_FLIGHT)


def _predict_one(predictor: Predictor, protocol: Protocol, pair: tuple[Path, Path]) -> bool:
    """Write the prediction of an image to a path, unless it is there; return whether another one was there."""
    image, path = pair
    origin = origin_of(predictor.network_sha256, protocol, file_sha256(image))
    if is_made_from(path, origin):
        return False
    anew = path.is_file()
    save_prediction(predictor(read_image(image), protocol), path, made_from=origin)
    return anew


def _predict_elsewhere(network: tuple[str, Path, str, str, int], protocol: Protocol, pair: tuple[Path, Path]) -> bool:
    """Do the same in a process that sees the same folders, by the network that `_read_once` takes."""
    return _predict_one(_read_once(*network), protocol, pair)


@lru_cache(maxsize=1)
def _read_once(run: str, checkpoint: Path, weights_sha256: str, device: str, threads: int) -> Predictor:
    predictor = read_predictor(run, checkpoint, device=device, threads=threads)
    refuse_other_weights(checkpoint, predictor.weights_sha256, weights_sha256)
    return predictor


def _hash_predicted(predictor: Predictor, split: Split, folder: Path, protocol: Protocol) -> ContentHash:
    """Hash the images; raises IntegrityError for a prediction that the network has not made of its image.

    Missing ones are left to whoever packs them.
    """
    hashed = ContentHash()
    for index, frame in enumerate(split.frames):
        hashed.add(split, index)
        path = prediction_path(folder, frame)
        origin = origin_of(predictor.network_sha256, protocol, hashed.image(split, index))
        if path.is_file() and not is_made_from(path, origin):
            raise IntegrityError(
                f"{path}: is not what {predictor.checkpoint.name} of {predictor.run} predicts of this image; run the "
                "cell above again, which makes it anew, or pack files of your own with: python cityscapes/submission.py"
            )
    return hashed


def prediction_path(folder: Path, frame: Frame) -> Path:
    """Return where the prediction of a frame lies below a folder."""
    return folder / frame.city / f"{frame.name}_labelIds.png"


def origin_of(network_sha256: str, protocol: Protocol, image_sha256: str) -> bytes:
    """Return what a prediction is made from: the network, the protocol, and the image by the rule that decodes it."""
    return f"{network_sha256} {protocol.as_dict()} {image_sha256} by rule {RULE}".encode()


def pack_submission(predictor: Predictor, split: Split, folder: Path, protocol: Protocol = WHOLE_IMAGE) -> Submission:
    """Zip the predictions of a split to `outputs/<run>/submission.zip`, and describe it in `submission.json`.

    Another split than test, another protocol, checkpoint or data is in the name too: see `result_path`.
    """
    split = _cityscapes(split)
    name = "submission.zip" if split.split == "test" else f"submission_{split_word(split.split)}.zip"
    path = result_path(predictor, split, name, protocol, usual=split.split)
    size = split.image(0).size[::-1]
    hashed = _hash_predicted(predictor, split, folder, protocol)
    manifest = build_submission(folder, path, expected=split.frames, size=size)
    truth = truth_of_frames(split.frames, split.root, split.generated, split.foreign)
    report = check_submission(path, expected=split.frames, size=size, truth=truth)
    content = {
        "run": predictor.run,
        "checkpoint": predictor.checkpoint.name,
        "epoch": predictor.epoch,
        "made_from": MadeFrom.of(split, hashed, checkpoint=predictor.weights_sha256).as_dict(),
        "split": split.split,
        "protocol": str(protocol),
        "protocol_switches": protocol.as_dict(),
        "files": len(manifest.names),
        "bytes": manifest.size_bytes,
        "sha256": manifest.sha256,
        "problems": list(report.problems),
        "warnings": list(report.warnings),
        "official": _averages(report),
    }
    write_json(path.with_suffix(".json"), content)
    return Submission(folder, manifest, report)


def _cityscapes(split: Split) -> CityscapesSplit:
    if not isinstance(split, CityscapesSplit):
        raise ParameterError(
            f"data_root: {split.root} is not laid out as Cityscapes, whose server takes Cityscapes only"
        )
    return split


def _averages(report: SubmissionReport) -> dict[str, float | None] | None:
    """Return the four official scores for a JSON file, null where undefined; None where the truth is not known."""
    if report.scores is None:
        return None
    return {name: None if value is None or isnan(value) else value for name, value in report.scores.averages.items()}
