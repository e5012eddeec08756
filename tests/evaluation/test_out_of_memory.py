"""Memory that runs out is one line with the status of a failing machine, whatever was being done."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from support.tiny import TINY

from cityscapes.files.tiff_read import tiff_shape
from cityscapes.submissions.rules import inspect_files
from dlv3p.evaluation.image_counts import read_image_counts
from dlv3p.weights.reading import read_weights

ADVICE = {
    "load": "the network does not fit",
    "load a file": "the network does not fit",
    "predict": "predict it in windows",
    "evaluate": "predict it in windows",
    "save": "predict it in windows",
    "export": "tracing the network does not fit",
    "profile": "use a smaller image or batch",
    "train": "accumulation=2",
}
"""What is done, and what is advised when it does not fit."""

LIMITED = """
import json, os, resource, sys, tempfile
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from cityscapes.errors import run_command
from dlv3p.data.roots import open_split
from dlv3p.evaluation import predictions
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.inference import load_saved
from dlv3p.export.graphs import export_program
from dlv3p.parameters.notebooks import TrainParameters
from dlv3p.profiling.latency import measure_latency
from dlv3p.train import train
from dlv3p.weights.loading import load_model

def limit(megabytes):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)

def use_up():
    "Take what is free within the limit, in pieces that are smaller than any network, and give the last few back."
    pieces = []
    try:
        while True:
            pieces.append(bytearray(2**16))
    except MemoryError:
        return pieces[:-8]

city, out, *everything = sys.argv[1:]
predictor = load_saved("done", device="cpu", threads=1)
split = open_split(Path(city), "val")
huge = Image.new("RGB", (6000, 6000))
predictions.read_image = lambda path: huge
split.pair = lambda index: (huge, np.zeros((6000, 6000), np.uint8))
saved = Path(os.environ["DLV3P_WORKSPACE"], "saved", "done")

def main():
    limit(4 if what.startswith("load") else 300)
    taken = use_up() if what.startswith("load") else []
    if what == "load":
        load_saved("done", device="cpu", threads=1)
    elif what == "load a file":
        load_model(saved / "model.safetensors")
    elif what == "predict":
        predictor(huge)
    elif what == "evaluate":
        evaluate(predictor, split, progress="none")
    elif what == "save":
        predictions.save_predictions(predictor, split, progress="none")
    elif what == "train":
        train(TrainParameters(**json.loads(os.environ["TINY"]), data_root=city, run="too-large"))
    elif what == "export":
        export_program(predictor.model, Path(out, "x.pt2"), height=8000, width=8000)
    else:
        measure_latency(predictor.model, height=8000, width=8000, repeats=1)
    return 0

said = {}
for what in everything:
    with tempfile.TemporaryFile() as errors:
        if not os.fork():
            os.dup2(errors.fileno(), 2)
            run_command(main)
        status = os.waitstatus_to_exitcode(os.wait()[1])
        errors.seek(0)
        said[what] = status, errors.read().decode()
print(json.dumps(said))
"""


@pytest.mark.usefixtures("trained")
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_lack_of_memory_is_one_line_with_advice(city, tmp_path):
    large = TINY | {"crop_height": 2049, "crop_width": 2049}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TINY": json.dumps(large)}
    words = [sys.executable, "-c", LIMITED, str(city), str(tmp_path), *ADVICE]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    for what, (status, line) in json.loads(done.stdout.splitlines()[-1]).items():
        assert (what, status, line.count("\n")) == (what, 4, 1), line[-2000:]
        assert line.startswith("error: out of memory: ")
        assert ADVICE[what] in line
    assert list(tmp_path.iterdir()) == []


def run_out(*_: object, **__: object) -> None:
    raise MemoryError


def test_a_lack_of_memory_is_not_called_damage_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(1))
    with pytest.raises(MemoryError):
        list(inspect_files([("a", ("a.png", path))], run_out, size=None, allowed=(), progress=None))
    for module, name, read in (
        (np, "load", read_image_counts),
        (np, "load", read_weights),
        (tifffile, "TiffFile", tiff_shape),
    ):
        monkeypatch.setattr(module, name, run_out)
        with pytest.raises(MemoryError):
            read(path)
