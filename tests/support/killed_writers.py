"""Write with each writer of large files in processes that are killed at one write, fsync or rename after the other.

    python tests/support/killed_writers.py WRITER DATA FOLDER [EVERY]

Prints a line of JSON: how many moments there are, and for each moment that was tried what the next run left.
"""

import builtins
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from cityscapes.dataset import open_cityscapes
from cityscapes.files import atomic
from cityscapes.layout import find_frames

VOLATILE = {".lock"}
"""Files that differ from run to run, or stay on purpose."""


def write_zip(data: Path, folder: Path) -> None:
    from cityscapes.submissions.build import build_submission, save_prediction

    frames = find_frames(data, "test")
    for number, frame in enumerate(frames):
        path = folder / "predictions" / frame.city / f"{frame.name}_labelIds.png"
        save_prediction([[number % 19] * 8] * 4, path)
    build_submission(folder / "predictions", folder / "submission.zip", expected=frames)


def write_shards(data: Path, folder: Path) -> None:
    from dlv3p.data.roots import open_split
    from dlv3p.data.write_shards import write_shards

    write_shards(open_split(data, "train"), folder, samples=3)


def write_animation(data: Path, folder: Path) -> None:
    import numpy as np

    from dlv3p.pictures.gif import write_gif

    frames = [np.full((8, 8, 3), shade, np.uint8) for shade in (0, 128)]
    write_gif(frames, folder / "val.gif")


def write_cache(data: Path, folder: Path) -> None:
    from dlv3p.data.decoded_cache import DecodedCache

    split = open_cityscapes(data, "test", generated=folder / "masks")
    cache = DecodedCache(split)
    cache.folder = folder / "decoded"
    cache.prepare(progress="none")


def write_voc(data: Path, folder: Path) -> None:
    from dlv3p.data.voc_preparation import prepare_voc

    prepare_voc(str(folder / "voc"), archives=str(data / "archives"), with_sbd=True, progress="none")


def write_evaluation(data: Path, folder: Path) -> None:
    from dlv3p.pictures.figures import save_figure
    from dlv3p.pictures.scores import class_iou_bars
    from dlv3p.runs.folders import write_json

    write_json(folder / "evaluation.json", {"mIoU": 0.5})
    save_figure(class_iou_bars({"road": 0.5, "sky": 0.25}, footer=""), folder / "class_iou.png")


def write_masks(data: Path, folder: Path) -> None:
    from cityscapes.generate_gt import generate_masks

    generate_masks(data, folder / "masks", splits=("val",), workers=1, progress=False)


def write_export(data: Path, folder: Path) -> None:
    from cityscapes.files.leftovers import temporary_folder

    with temporary_folder("dlv3p-export", folder) as temporary:
        atomic.write_bytes(temporary / "made.onnx", b"made")
        atomic.write_bytes(folder / "network.onnx", (temporary / "made.onnx").read_bytes())


def write_predictions(data: Path, folder: Path) -> None:
    from dlv3p.data.roots import open_images
    from dlv3p.evaluation.predictions import pack_submission, save_predictions

    os.environ["DLV3P_WORKSPACE"] = str(folder)
    split = open_images(data, "test")
    pack_submission(network(), split, save_predictions(network(), split, progress="none"))


def write_onnx(data: Path, folder: Path) -> None:
    from dlv3p.export.graphs import export_onnx

    export_onnx(network().model, folder / "network.onnx", height=64, width=96, with_argmax=True)


def write_launch(data: Path, folder: Path) -> None:
    from tiny import tiny  # beside this script

    from cityscapes.workspace import run_folder
    from dlv3p.training.launching import launch
    from dlv3p.weights.checksums import weights_sha256
    from dlv3p.weights.loading import load_model

    shutil.rmtree(run_folder("pair"), ignore_errors=True)  # what a killed training leaves is gone on with
    launch(tiny(data, run="pair", epochs=1, processes=2))
    model = load_model(run_folder("pair") / "model.safetensors").model
    (folder / "weights").write_text(weights_sha256(model.state_dict()))


def write_rename(data: Path, folder: Path) -> None:
    from tiny import tiny  # beside this script

    from cityscapes.workspace import output_folder, run_folder
    from dlv3p.runs.listing import rename_run
    from dlv3p.runs.record import HASH_KEY, record_sha256

    os.environ["DLV3P_WORKSPACE"] = str(folder)
    if not (folder / "saved").is_dir():  # as plain files, whose writing is no moment
        for made in (run_folder("old"), run_folder("old-int8"), output_folder("old")):
            made.mkdir(parents=True)
        record = {"run": "old", "parameters": tiny(run="old").as_dict()}
        record |= {HASH_KEY: record_sha256(record)}
        (run_folder("old") / "run.json").write_text(json.dumps(record))
        (run_folder("old-int8") / "quantization.json").write_text("{}")
        (output_folder("old") / "evaluation.json").write_text("{}")
    if run_folder("old").is_dir():
        rename_run("old", "new")


def masks_for_shards() -> None:
    """Make the masks that the first writer would make, and only the first."""
    from dlv3p.data.roots import open_split

    open_split(Path(sys.argv[2]), "train")


def masks_for_launch() -> None:
    """Make the masks that a launched training finds, as `train` does before it launches."""
    from dlv3p.data.roots import open_training
    from dlv3p.parameters.training import TrainingDataParameters

    os.environ["DLV3P_WORKSPACE"] = str(Path(sys.argv[3]).with_name("workspace"))
    open_training(TrainingDataParameters(data_root=sys.argv[2]))


@cache
def network() -> Any:
    """A small untrained network, as a run's predictor."""
    import torch

    from cityscapes.labels import CLASS_NAMES
    from dlv3p.evaluation.inference import Predictor
    from dlv3p.models.deeplab import build_network
    from dlv3p.parameters.notebooks import TrainParameters

    torch.manual_seed(0)
    torch.set_num_threads(1)  # a fork has no other threads
    parameters = TrainParameters(data_root=sys.argv[2], backbone="resnet18", channels=8)
    model = build_network(parameters, len(CLASS_NAMES)).eval()
    return Predictor("run", Path("best.pt"), 1, model, parameters, CLASS_NAMES, torch.device("cpu"), "0" * 64)


PREPARED = {"predictions": network, "onnx": network, "launch": masks_for_launch, "shards": masks_for_shards}
"""What is made once, before a process is forked for each moment."""

WRITERS: dict[str, Callable[[Path, Path], None]] = {
    name.removeprefix("write_"): value for name, value in dict(globals()).items() if name.startswith("write_")
}


def main() -> None:
    """Try the moments of one writer, and print what was found."""
    name, data, folder, *every = sys.argv[1:]
    write, root = WRITERS[name], Path(folder)
    PREPARED.get(name, lambda: None)()
    tempfile.tempdir = os.environ["TMPDIR"] = str(root / "tmp")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(root / "inductor")  # which torch keeps
    (root / "tmp").mkdir(parents=True)
    _run(write, Path(data), root / "first", kill_at=-1)  # what numba compiles it stores, by a rename of its own
    expected, moments = _run(write, Path(data), root / "undisturbed", kill_at=-1)
    found = []
    for moment in range(0, moments, int(every[0]) if every else 1):
        target = root / str(moment)
        _run(write, Path(data), target, kill_at=moment)
        again, _ = _run(write, Path(data), target, kill_at=-1)
        found.append(again == expected)
        shutil.rmtree(target)
    print(json.dumps({"moments": moments, "same": found, "temporary": os.listdir(root / "tmp")}))


def _run(write: Callable[[Path, Path], None], data: Path, folder: Path, *, kill_at: int) -> tuple[dict[str, str], int]:
    """Write in a process of its own; return what is then in the folder, and how many moments the process passed."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        status = 1
        try:
            _count(folder, writing, kill_at)
            folder.mkdir(exist_ok=True)
            write(data, folder)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        passed = len(pipe.read())
    _, status = os.waitpid(process, 0)
    wanted = 0 if kill_at < 0 else -signal.SIGKILL
    if os.waitstatus_to_exitcode(status) != wanted:
        raise SystemExit(f"the writer ended with {os.waitstatus_to_exitcode(status)} at {kill_at}, not {wanted}")
    return _content(folder), passed


def _content(folder: Path) -> dict[str, str]:
    paths = [path for path in sorted(folder.rglob("*")) if path.name not in VOLATILE]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in paths
    }


def _count(folder: Path, passed: int, kill_at: int) -> None:
    """Let this process kill itself at a moment: in the middle of a write, before or after an fsync or a rename."""
    count, fsync, replace, rename = 0, os.fsync, os.replace, os.rename
    me, one_at_a_time = os.getpid(), threading.Lock()

    def moment() -> None:
        nonlocal count
        if os.getpid() != me:
            return
        with one_at_a_time:  # some writers write with threads, of which two could pass the same moment
            os.write(passed, b".")
            if count == kill_at:
                os.kill(me, signal.SIGKILL)
            count += 1

    class Halves(io.FileIO):
        def write(self, content: Any) -> int:
            content = memoryview(content).cast("B")
            done = super().write(content[: len(content) // 2])
            moment()
            while done < len(content):
                done += super().write(content[done:])
            return done

    def opened(name: Any, mode: str = "r", **options: Any) -> Any:
        return io.BufferedWriter(Halves(name, mode)) if mode == "xb" else builtins.open(name, mode, **options)

    def surrounded(call: Callable[..., None]) -> Callable[..., None]:
        def called(*arguments: Any) -> None:
            moment()
            call(*arguments)
            moment()

        return called

    atomic.open = opened
    os.fsync, os.replace, os.rename = surrounded(fsync), surrounded(replace), surrounded(rename)


if __name__ == "__main__":
    main()
