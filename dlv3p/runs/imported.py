"""Import a network from a weights file as a run folder, so that every notebook that takes a run accepts it."""

import re
from pathlib import Path

import numpy as np
import torch

from cityscapes.errors import ParameterError
from cityscapes.files.atomic import open_atomically
from cityscapes.labels import CLASS_NAMES
from cityscapes.workspace import output_folder
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.network import NetworkParameters
from dlv3p.parameters.training import TrainParameters, check_run_name
from dlv3p.runs.folders import checkpoint_path, hold_run, list_runs
from dlv3p.runs.loading import load_run_checkpoint
from dlv3p.runs.provenance import provenance
from dlv3p.runs.record import FORMAT, write_record
from dlv3p.weights.checkpoint import model_from_checkpoint, save_checkpoint, stated_of
from dlv3p.weights.describe import describe
from dlv3p.weights.loading import LoadedModel, save_model
from dlv3p.weights.names import to_theirs
from dlv3p.weights.recognition import Recognized
from dlv3p.weights.sources import SOURCES

STAND_IN = "stand_in"


def write_stand_in() -> Path:
    """Write an example file in the format of VainF's training script, and return its path.

    Its weights are those of the newest run if that is a plain DeepLabV3+ with a ResNet, otherwise random.
    """
    network, num_classes, model = NetworkParameters(backbone="resnet18", channels=128), len(CLASS_NAMES), None
    if runs := list_runs():
        trained, parameters = model_from_checkpoint(load_run_checkpoint(runs[-1]))
        varied = ("backbone", "output_stride", "channels", "low_level_channels")
        plain = NetworkParameters(**{name: getattr(parameters, name) for name in varied})
        same = all(getattr(parameters, name) == value for name, value in plain.as_dict().items())
        if same and plain.backbone.startswith("resnet") and not trained.widths:
            network, num_classes, model = plain, trained.classifier.out_channels, trained
    if model is None:
        torch.manual_seed(0)
        model = build_network(network, num_classes)
    names = SOURCES["vainf_plus"].names
    state = {to_theirs(name, names): value for name, value in model.state_dict().items()}
    content = {"cur_itrs": 0, "model_state": state, "optimizer_state": {}, "best_score": np.float64(0)}
    path = output_folder("import_weights") / f"{STAND_IN}_os{network.output_stride}.pth"
    with open_atomically(path) as file:
        torch.save(content, file)
    return path


def save_run(
    found: Recognized, loaded: LoadedModel, *, run: str = "", data_root: str = "demo_city", split: str = "val"
) -> str:
    """Write `saved/<run>/` with a checkpoint, the weights as safetensors, and run.json that says where they are from.

    `run` defaults to the file's name. Returns the run's name; raises ParameterError when that run was trained here, and
    BusyError while another process holds it.
    """
    run = run or re.sub(r"[^A-Za-z0-9_=.]+", "-", found.file.path.stem).strip("-.")[:100] or "imported"
    check_run_name(run)
    class_names = list(loaded.class_names or (f"class {index}" for index in range(found.num_classes)))
    switches = {name: getattr(loaded.parameters, name) for name in NetworkParameters().as_dict()}
    parameters = TrainParameters(**switches, run=run, data_root=data_root, val_split=split)
    with hold_run(run) as folder:
        if (folder / "metrics.csv").is_file():
            raise ParameterError(f"run={run!r} was trained here; give the imported network another name")
        state = {
            "epoch": 0,
            "parameters": parameters.as_dict(),
            "class_names": class_names,
            "model": loaded.model.state_dict(),
            **stated_of(loaded.model),
        }
        content = {
            "format": FORMAT,
            "run": run,
            "parameters": parameters.as_dict(),
            "class_names": class_names,
            "imported": describe(found),
            **provenance(),
        }
        write_record(folder / "run.json", content)
        save_model(folder / "model.safetensors", loaded.model, loaded.parameters, class_names)
        for name in ("last", "best"):
            save_checkpoint(checkpoint_path(run, name), state)
    return run
