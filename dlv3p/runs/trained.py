"""Store a finished run with the repository, and let it stand in for a user's own where there is none yet.

`notebooks/trained/` holds `model.safetensors`, `metrics.csv` and `run.json`, in which `stored` has the hash of the
first. Matrices and kernels are stored at half precision; vectors, which are few and include the statistics of batch
norm, in full.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cityscapes.errors import IntegrityError, MissingInputError
from cityscapes.files.atomic import write_bytes
from cityscapes.files.checksums import file_sha256, read_recorded
from cityscapes.workspace import NOTEBOOKS
from dlv3p.parameters.training import TRAINED_RUN, TrainParameters
from dlv3p.runs.folders import METRICS, checkpoint_path, hold_run, refuse_busy, write_metrics
from dlv3p.runs.loading import load_run_checkpoint
from dlv3p.runs.record import read_record, read_unchanged_record, write_record
from dlv3p.weights.checkpoint import model_from_checkpoint, save_checkpoint, save_weights, stated_of
from dlv3p.weights.loading import load_model, save_model

TRAINED = NOTEBOOKS / "trained"
"""The folder of the run that comes with the repository."""


def store_run(run: str, folder: Path = TRAINED) -> Path:
    """Write the best network of a finished run to a folder, with its metrics and its record without local paths.

    Raises BusyError while the run is trained, and IntegrityError where one of its files was changed.
    """
    source = checkpoint_path(run, "best").parents[1]
    refuse_busy(source)
    if not (source / METRICS).is_file():
        raise MissingInputError(f"{source / METRICS}: no such file; only a run that was trained here can be stored")
    state = load_run_checkpoint(run)
    model, parameters = model_from_checkpoint(state)
    model.load_state_dict(halved(model.state_dict()), assign=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    save_weights(path, model, {"parameters": parameters.as_dict(), "class_names": list(state["class_names"])})
    record = read_unchanged_record(source / "run.json")
    for described in record["data"].values():
        described["root"] = parameters.data_root
    record["stored"] = {"file": path.name, "sha256": file_sha256(path), "epoch": state["epoch"]}
    write_bytes(folder / "metrics.csv", read_recorded(source / "metrics.csv"))
    write_record(folder / "run.json", record)
    return path


def install_trained_run(folder: Path = TRAINED) -> str:
    """Write the stored run to `saved/trained_demo/`, unless it is there, and return its name.

    Raises MissingInputError where nothing is stored, and IntegrityError when the file is not the one that was stored.
    """
    if checkpoint_path(TRAINED_RUN, "best").is_file():
        return TRAINED_RUN
    path = folder / "model.safetensors"
    if not path.is_file():
        raise MissingInputError(f"{path}: no trained run comes with this installation; run train.ipynb first")
    record = read_record(folder / "run.json")
    if file_sha256(path) != record["stored"]["sha256"]:
        raise IntegrityError(f"{path}: not the file that was stored (its sha256 differs); check out notebooks/trained")
    model, parameters = load_model(path).model, TrainParameters.from_mapping(record["parameters"])
    metrics = (folder / "metrics.csv").read_text(encoding="utf-8")
    history = [_numbers(row) for row in csv.DictReader(io.StringIO(metrics))]
    content = {
        "history": history,
        "best_epoch": record["stored"]["epoch"],
        "parameters": parameters.as_dict(),
        "class_names": record["class_names"],
        "model": model.state_dict(),
        **stated_of(model),
    }
    with hold_run(TRAINED_RUN) as run:
        write_record(run / "run.json", record | {"run": TRAINED_RUN})
        write_metrics(run, history)
        save_model(run / "model.safetensors", model, parameters, record["class_names"])
        for name, epoch in (("last", len(history)), ("best", record["stored"]["epoch"])):
            save_checkpoint(checkpoint_path(TRAINED_RUN, name), content | {"epoch": epoch})
    return TRAINED_RUN


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as they are stored: what has two dimensions or more in float16, everything else as it is."""
    wide = {name for name, value in state.items() if value.ndim > 1 and value.is_floating_point()}
    return {name: value.half() if name in wide else value for name, value in state.items()}


def _numbers(row: Mapping[str, str]) -> dict[str, float | int]:
    return {name: int(value) if value.isdecimal() else float(value) for name, value in row.items() if value}
