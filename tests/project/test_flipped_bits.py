"""A flipped bit in a file that the suite wrote and reads again is refused, or changes nothing: it is never silent.

The files are those of a tiny run, its evaluation, predictions with overlays, cache, regions and shards, and of the
city's own masks. Each flip keeps a file's size and time, as a failing disk does, and the file is then read in the ways
that users take.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support.exactness import outcome
from support.tiny import tiny

from cityscapes.errors import UserError
from cityscapes.submissions.build import build_submission
from cityscapes.workspace import output_folder, run_folder
from dlv3p.data.decoded_cache import DecodedCache
from dlv3p.data.roots import open_split
from dlv3p.data.sampling import class_regions
from dlv3p.data.write_shards import write_shards
from dlv3p.evaluation.comparison import read_evaluations, score_table
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.inference import load_run_predictor
from dlv3p.evaluation.predictions import pack_submission, save_predictions
from dlv3p.parameters.files import read_config
from dlv3p.parameters.notebooks import RunParameters
from dlv3p.pictures.curves import best_epochs, read_metrics
from dlv3p.prediction.predict import predict_images
from dlv3p.prediction.predictor import load_predictor as load_image_predictor
from dlv3p.prediction.results import Outputs
from dlv3p.prediction.sources import find_images
from dlv3p.train import train
from dlv3p.training import checkpoints
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.loading import load_model

SEED = 20261126
RUN, HALF = "done", "half"


class Way(NamedTuple):
    """Files, and how a user reads them: a function whose result has to stay the same."""

    files: list[Path]
    read: Callable[[], object]


class Stop(Exception):
    """The end of a training after its first epoch."""


def digest(*arrays: np.ndarray) -> str:
    """One hash of arrays, with their shapes."""
    return hashlib.sha256(
        b"".join(repr(a.shape).encode() + np.ascontiguousarray(a).tobytes() for a in arrays)
    ).hexdigest()


def loaded() -> object:
    model, parameters, names = load_model(run_folder(RUN) / "model.safetensors")
    return weights_sha256(model.state_dict()), parameters, names


def predictor_of_run() -> object:
    predictor = load_run_predictor(RunParameters(run=RUN, device="cpu"))
    parameters, names = predictor.parameters, tuple(predictor.class_names)
    return weights_sha256(predictor.model.state_dict()), parameters, names, predictor.epoch


def curves() -> object:
    metrics = read_metrics([RUN])
    return metrics.to_csv(), best_epochs(metrics).to_csv()


@pytest.fixture(scope="module")
def ways(trained, city, tmp_path_factory) -> dict[str, Way]:
    """All that is written, and all the ways to read it."""
    patch = pytest.MonkeyPatch()

    def stops(*arguments: object, **options: object) -> None:
        raise Stop

    patch.setattr(checkpoints.Checkpoints, "stop_between_epochs", stops)
    half = tiny(city, run=HALF)
    with pytest.raises(Stop):
        train(half)
    patch.undo()
    kept = shutil.copytree(run_folder(HALF), tmp_path_factory.mktemp("half") / HALF)

    own = shutil.copytree(city, tmp_path_factory.mktemp("own") / "city")
    training, validation = (open_split(own, split) for split in ("train", "val"))
    predictor = load_run_predictor(RunParameters(run=RUN, device="cpu"))
    evaluate(predictor, open_split(city, "val"), progress="none").save()
    predictions = save_predictions(predictor, validation, progress="none")
    pack_submission(predictor, validation, predictions)
    images, found = find_images(own / "leftImg8bit" / "val"), tmp_path_factory.mktemp("found")
    pictures = load_image_predictor(RUN, device="cpu", threads=1)
    cache, shards = DecodedCache(training), tmp_path_factory.mktemp("shards")
    cache.prepare(progress="none")
    class_regions(training, progress="none")
    write_shards(training, shards, samples=4)

    def resumed() -> object:
        folder = run_folder(HALF)
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        train(half)
        return outcome(folder), curves()

    def cached() -> object:
        images = [cache.open(index) for index in range(len(training))]
        return digest(*(image.corner(image.height, image.width) for image in images))

    def sharded() -> object:
        split = open_split(shards, "train")
        pairs = [split.pair(index) for index in range(len(split))]
        names = [split.name(index) for index in range(len(split))]
        arrays = [np.asarray(part) for pair in pairs for part in pair]
        return digest(*arrays, split.colors), names, split.class_names

    def packed() -> object:
        return build_submission(predictions, output_folder(RUN) / "again.zip", expected=validation.frames).sha256

    def predicted_images() -> object:
        predict_images(pictures, images, found, Outputs(confidence=True), progress="none")
        return {path: path.read_bytes() for path in files(found, "*.png", "*.jpg")}

    def predicted_again() -> object:
        save_predictions(predictor, validation, progress="none")
        return packed()

    def masks() -> object:
        return digest(*(training.mask(index) for index in range(len(training))))

    def files(folder: Path, *patterns: str) -> list[Path]:
        return sorted(path for pattern in patterns for path in folder.rglob(pattern) if path.is_file())

    predicted_images()
    saved, data = run_folder(RUN), cache.folder.parent
    zips = output_folder(RUN)
    return {
        "load": Way([saved / "model.safetensors"], loaded),
        "predict": Way(files(saved / "checkpoints", "best.pt*"), predictor_of_run),
        "plot": Way([saved / "metrics.csv", saved / "metrics.csv.json", saved / "run.json"], curves),
        "train as": Way([saved / "run.json"], lambda: read_config(saved / "run.json")),
        "resume": Way([path for path in files(kept, "*") if path.name != ".lock"], resumed),
        "compare": Way(files(zips, "evaluation*.json"), lambda: score_table(read_evaluations([RUN])).to_csv()),
        "train from the cache": Way(files(cache.folder, "*.npy"), cached),
        "favor rare classes": Way(
            files(data / "class_regions", "*.npy"), lambda: digest(class_regions(training, progress="none").table)
        ),
        "train from shards": Way(files(shards, "*.tar", "index.json"), sharded),
        "pack": Way(files(predictions, "*.png"), packed),
        "predict again": Way(files(predictions, "*.png"), predicted_again),
        "predict images again": Way(files(found, "*.png", "*.jpg", "*.csv", "*.json"), predicted_images),
        "train on masks": Way([training.mask_path(index) for index in range(len(training))], masks),
    }


def flips(ways: dict[str, Way], number: int, seed: int) -> Counter:
    """Flip so many bits, one at a time; return how often each way refused, kept or silently changed its result."""
    rng, counts = np.random.default_rng(seed), Counter()
    expected = {name: way.read() for name, way in ways.items()}
    names = list(ways)
    for turn in range(number):
        name = names[turn % len(names)]
        path = ways[name].files[rng.integers(len(ways[name].files))]
        content, times = path.read_bytes(), path.stat()
        damaged = bytearray(content)
        # Every other flip is in the first kilobytes, where the headers are.
        byte = int(rng.integers(len(content) if turn // len(names) % 2 else min(len(content), 4096)))
        damaged[byte] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        try:
            result = "unchanged" if ways[name].read() == expected[name] else "SILENT"
        except UserError:
            result = "refused"
        except Exception as error:
            result = f"TRACEBACK {type(error).__name__}"
        if result not in ("unchanged", "refused"):
            print(f"{name}: {result}: {path.name} byte {byte}, {content[byte]:#x} became {damaged[byte]:#x}")
        counts[name, result] += 1
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return counts


def check(counts: Counter) -> None:
    total = Counter()
    for (name, result), count in counts.items():
        total[result] += count
        print(f"{name}: {count} {result}")
    print(json.dumps(total))
    assert set(total) <= {"refused", "unchanged"}, total
    assert total["refused"]


def test_sixty_flipped_bits_change_no_result_in_silence(ways):
    check(flips(ways, 60, SEED))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 6))
def test_five_hundred_flipped_bits_change_no_result_in_silence(ways, part):
    check(flips(ways, 100, SEED + part))
