"""Write with each writer to disks that are too small, in processes of their own, and again once there is room.

    unshare --map-root-user --mount python tests/support/full_disk.py WRITER DATA FOLDER [SIZES]

Prints a line of JSON for each size: how the writer ended, what it said, what stayed on the disk, and whether the next
run, with room, had the result of one that was never disturbed. The last one finds that result on a disk without a byte.
"""

import csv
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from killed_writers import PREPARED, WRITERS, _content, masks_for_shards  # beside this script

from cityscapes.errors import run_command

if TYPE_CHECKING:
    from dlv3p.prediction.predictor import ImagePredictor

ROOM, PAGE = 2**26, 4096


def write_cache(data: Path, folder: Path) -> None:
    from cityscapes.dataset import open_cityscapes
    from dlv3p.data.decoded_cache import DecodedCache

    cache = DecodedCache(open_cityscapes(data, "test", generated=folder / "masks"))
    cache.folder = folder / "decoded"
    for index in range(len(cache.split)):  # as a training does whose disk filled after `prepare` had looked
        cache.open(index)


def write_checkpoints(data: Path, folder: Path) -> None:
    from tiny import tiny  # beside this script

    from dlv3p.train import train

    train(tiny(data, run="small", epochs=1))


def write_images(data: Path, folder: Path) -> None:
    from dlv3p.prediction.predict import predict_images
    from dlv3p.prediction.results import Outputs
    from dlv3p.prediction.sources import find_images

    images = find_images(data / "leftImg8bit" / "val")
    predict_images(predictor(), images, folder / "found", Outputs(confidence=True), progress="none")


@functools.cache
def predictor() -> "ImagePredictor":
    """The stored run, as `predict` loads it."""
    from dlv3p.prediction.predictor import load_predictor

    stored = Path(__file__).parents[2] / "notebooks" / "trained" / "model.safetensors"
    return load_predictor(stored, device="cpu", threads=1)


def without_seconds(folder: Path) -> dict[str, str]:
    """What predictions end with, but for the table's seconds and its checksum."""
    found = _content(folder)
    with open(folder / "found" / "predictions.csv", newline="") as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    del found["found/predictions.csv.json"]
    return found | {"found/predictions.csv": str(rows)}


def weights(folder: Path) -> dict[str, str]:
    """What a training ends with: its record and metrics hold times."""
    from dlv3p.weights.checksums import weights_sha256
    from dlv3p.weights.loading import load_model

    run = folder / "saved" / "small"
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*") if "events.out" not in path.name)
    model = load_model(run / "model.safetensors").model
    return {"weights": weights_sha256(model.state_dict()), "names": " ".join(names)}


WRITERS |= {name.removeprefix("write_"): value for name, value in dict(globals()).items() if name.startswith("write_")}
PREPARED |= {"images": predictor, "checkpoints": masks_for_shards}
CONTENT: dict[str, Callable[[Path], dict[str, str]]] = {
    "checkpoints": weights,
    "images": without_seconds,
}


def main() -> None:
    """Try one writer on disks of several sizes, up to the one that it needs."""
    name, data, root, *sizes = sys.argv[1:]
    write, found, disk = WRITERS[name], CONTENT.get(name, _content), Path(root, "disk")
    number = int(sizes[0]) if sizes else 8
    disk.mkdir(parents=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(root, "inductor"))  # which torch keeps
    PREPARED.get(name, lambda: None)()
    _mount(disk, ROOM)
    status, said = _end(write, Path(data), disk)
    if status:
        raise SystemExit(f"{name} failed where there was room: {said}")
    expected, used = found(disk), shutil.disk_usage(disk).used
    for part in range(number):
        subprocess.run(["umount", disk], check=True)
        _mount(disk, max(PAGE, used * part // number))
        status, said = _end(write, Path(data), disk)
        left = _unfinished(disk)
        _mount(disk, ROOM, "remount")
        again, more = _end(write, Path(data), disk)
        same = found(disk) == expected if not again else more
        print(json.dumps({"status": status, "said": said, "left": left, "same": same}))
    with open(disk / "filler", "wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(PAGE))
    status, said = _end(write, Path(data), disk)
    (disk / "filler").unlink()
    print(json.dumps({"status": status, "said": said, "left": _unfinished(disk), "same": found(disk) == expected}))
    subprocess.run(["umount", disk], check=True)


def _mount(disk: Path, size: int, *more: str) -> None:
    options = ",".join((f"size={size}", *more))
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "disk", disk], check=True)


def _end(write: Callable[[Path, Path], None], data: Path, disk: Path) -> tuple[int, str]:
    """Write in a process of its own; return its exit status and what it said at its end."""
    with tempfile.TemporaryFile() as said:
        process = os.fork()
        if not process:
            status = 1
            try:
                tempfile.tempdir = os.environ["TMPDIR"] = str(disk / "tmp")
                os.environ["DLV3P_WORKSPACE"] = str(disk)
                (disk / "tmp").mkdir(exist_ok=True)
                os.dup2(said.fileno(), 2)
                run_command(lambda: write(data, disk) or 0)
            except SystemExit as end:
                status = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(process, 0)
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read().decode().strip()


def _unfinished(disk: Path) -> list[str]:
    return sorted(str(path.relative_to(disk)) for path in disk.rglob("*") if path.name.endswith(".tmp"))


if __name__ == "__main__":
    main()
