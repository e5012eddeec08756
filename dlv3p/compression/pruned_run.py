"""Turn a run into a smaller one: prune, recalibrate, fine-tune, and compare the two in the acceptance check.

The result is an ordinary run, `saved/<run>-pruned/`, with one more folder: `pruning/start.safetensors` is the pruned
network before fine-tuning, and `pruning/settings.json` holds the settings of the pruning.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from cityscapes.dataset import Split
from cityscapes.errors import InputError, IntegrityError, ParameterError
from cityscapes.files.channels import refuse_other_rule
from cityscapes.files.checksums import read_json
from cityscapes.workspace import run_folder
from dlv3p.compression.acceptance import Variant, check_acceptance, size_on_disk
from dlv3p.compression.acceptance_report import AcceptanceReport, Limits
from dlv3p.compression.pruning import prune_model, recalibrate
from dlv3p.data.fingerprints import content_fingerprint
from dlv3p.data.loader import make_samples, training_loader
from dlv3p.data.roots import open_split, open_training, resolve_data_root
from dlv3p.evaluation.evaluate import refuse_other_classes
from dlv3p.evaluation.inference import Predictor, load_run_predictor
from dlv3p.export.torch_runtime import TorchPredictor
from dlv3p.models.anatomy import count_macs, count_parameters
from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.parameters.notebooks import PruneParameters
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import PRUNED, find_run, hold_run, list_runs, write_json
from dlv3p.runs.loading import load_run_checkpoint
from dlv3p.runs.record import read_unchanged_record
from dlv3p.runtime.devices import LAYOUT, choose_device
from dlv3p.train import train
from dlv3p.training.progress import TrainingResult
from dlv3p.weights.checkpoint import model_from_checkpoint
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.loading import load_model, save_model

START = Path("pruning", "start.safetensors")
DATA = "data_sha256"
"""The key of the bytes of the data that the network was recalibrated on, which earlier versions did not store."""
SETTINGS = ("sparsity", "criterion", "ranking", "parts", "round_to", "batches")
"""The parameters of the pruning, as stored in `settings.json`."""


@dataclass(frozen=True)
class PrunedRun:
    """A dense network, its pruned one before fine-tuning, and the parameters of the fine-tuning."""

    parameters: PruneParameters
    dense: Predictor
    start: DeepLab
    training: TrainParameters

    @property
    def folder(self) -> Path:
        """The folder of the pruned run."""
        return run_folder(self.training.run)

    def fine_tune(self) -> TrainingResult:
        """Train the pruned network as a run, or resume it; a finished run returns at once."""
        return train(self.training)

    def widths(self) -> pd.DataFrame:
        """Return the output channels of every convolution, of the dense network and of the pruned one."""
        rows = {
            name: {"dense": module.out_channels, "pruned": self.start.get_submodule(name).out_channels}
            for name, module in self.dense.model.named_modules()
            if isinstance(module, nn.Conv2d)
        }
        return pd.DataFrame(rows).T.rename_axis("convolution")

    def compare(self, *, memory: bool = True) -> AcceptanceReport:
        """Compare the dense, pruned and fine-tuned networks on the validation split, interleaved; writes nothing.

        `memory` is measured in a separate process for each of them, which takes some seconds.
        """
        parameters, trained = self.parameters, self.dense.parameters
        split = open_split(resolve_data_root(self.training.data_root), trained.validation_split)
        refuse_other_classes(self.dense, split)
        image = split.image(0)
        size = (parameters.height, parameters.width)
        if not parameters.height:
            size = tuple(max(1, round(side * trained.image_scale)) for side in (image.height, image.width))
        best, _ = model_from_checkpoint(load_run_checkpoint(self.training.run))
        dense_file = run_folder(self.dense.run) / "model.safetensors"
        networks = {
            "dense": (self.dense.model, dense_file),
            "pruned": (self.start, self.folder / START),
            "fine-tuned": (best, self.folder / "model.safetensors"),
        }
        reference, *candidates = (self._variant(title, *what, size) for title, what in networks.items())
        return check_acceptance(
            reference,
            candidates,
            split,
            image_scale=trained.image_scale,
            limits=Limits(parameters.largest_loss, 1 / parameters.largest_time),
            latency_size=size,
            threads=parameters.threads,
            repeats=parameters.repeats,
            memory=memory,
            progress=parameters.progress,
        )

    def _variant(self, title: str, model: DeepLab, file: Path, size: tuple[int, int]) -> Variant:
        trained = self.dense.parameters
        model = model.to(self.dense.device, memory_format=LAYOUT)
        build = partial(build_network, trained, len(self.dense.class_names), widths=model.widths, rule=model.rule)
        return Variant(
            title,
            TorchPredictor(model, image_scale=trained.image_scale),
            size_bytes=size_on_disk(file) if file.is_file() else None,
            gmacs=count_macs(build, *size)["total"] / 1e9,
            parameters=count_parameters(model)["total"],
            device=self.dense.device,
        )


def prune_run(parameters: PruneParameters) -> PrunedRun:
    """Prune and recalibrate a run's network, and save it as the start of a run; one that was pruned before is loaded.

    Raises ParameterError when the pruned run's folder holds a network that was pruned or fine-tuned in another way,
    BusyError while another process trains it, and the errors of `prune_model`; the dense run is only read.
    """
    dense = load_run_predictor(replace(parameters, run=dense_run(parameters.run)))
    training = _fine_tuning(parameters, dense)
    training_split, _ = open_training(replace(dense.parameters, data_root=training.data_root))
    refuse_other_classes(dense, training_split)
    refuse_other_rule(dense.rule, training_split.pixel_rule, f"run={dense.run!r}")
    record = {
        "run": dense.run,
        "weights_sha256": weights_sha256(dense.model.state_dict()),
        DATA: training_split.fingerprint or content_fingerprint(training_split),
        **{key: getattr(parameters, key) for key in SETTINGS},
    }
    with hold_run(training.run) as folder:
        if _has_start(folder, record):
            _refuse_other_fine_tuning(folder, training, dense)
        else:
            model = _pruned(dense, parameters, training_split)
            save_model(folder / START, model, dense.parameters, list(dense.class_names))
            write_json(folder / PRUNED, record)
        start = load_model(folder / START).model
    return PrunedRun(parameters, dense, start, training)


def fine_tuning_of(parameters: PruneParameters) -> TrainParameters:
    """Return the parameters of the fine-tuning that `prune_run` prepares; nothing is written."""
    return _fine_tuning(parameters, load_run_predictor(replace(parameters, run=dense_run(parameters.run))))


def dense_run(run: str) -> str:
    """Return `run`, or for "" the newest run that is not the result of pruning; raises MissingInputError for none."""
    if run:
        return run
    dense = (name for name in reversed(list_runs()) if not (run_folder(name) / PRUNED).is_file())
    return next(dense, None) or find_run("")


def training_batches(parameters: TrainParameters, split: Split, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the first batches of a run's training crops, always the same; batch norm needs at least two images."""
    samples = make_samples(parameters, split)
    batch_size, skip = max(2, parameters.batch_size), parameters.on_bad_sample == "skip"
    loader = training_loader(samples, batch_size=batch_size, workers=0, skip_bad=skip)
    return islice(_epochs(loader), number)


def _epochs(loader: Any) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in count(1):
        loader.sampler.epoch = epoch
        yield from loader


def _pruned(dense: Predictor, parameters: PruneParameters, split: Split) -> DeepLab:
    trained = dense.parameters
    options = {key: getattr(parameters, key) for key in SETTINGS if key != "batches"}
    batches = training_batches(trained, split, parameters.batches) if parameters.criterion == "taylor" else ()
    pruned = prune_model(dense.model, trained, **options, batches=batches)
    model = pruned.model.to(choose_device(parameters.device), memory_format=LAYOUT)
    recalibrate(model, (image for image, _ in training_batches(trained, split, parameters.batches)))
    return model.cpu()


def _has_start(folder: Path, record: dict[str, Any]) -> bool:
    """Return whether a folder holds the start that `record` describes; raises ParameterError when it holds another."""
    if not (folder / PRUNED).is_file():
        if (folder / "run.json").is_file():
            raise ParameterError(f"pruned_run={folder.name!r}: is a run that was not pruned; give another name")
        return False
    found = _read(folder / PRUNED, folder)
    same_weights = found.get("weights_sha256") == record["weights_sha256"]  # of a run that may have been renamed
    settings = {key: value for key, value in record.items() if key != DATA and not (key == "run" and same_weights)}
    _refuse_other(folder.name, "pruned", {key: found.get(key) for key in settings}, settings)
    if found.get(DATA, record[DATA]) != record[DATA]:
        raise ParameterError(
            f"pruned_run={folder.name!r} was pruned and recalibrated on other data; restore the files of that data, or "
            "give another name (-p pruned_run NAME)"
        )
    return (folder / START).is_file()


def _refuse_other_fine_tuning(folder: Path, training: TrainParameters, dense: Predictor) -> None:
    """Refuse to resume fine-tuning that began with other settings, in the notebook's own terms."""
    if not (folder / "run.json").is_file():
        return
    begun = TrainParameters.from_mapping(_read(folder / "run.json", folder)["parameters"])
    found, asked = (
        {
            "epochs": one.epochs,
            "rate_factor": float(f"{one.learning_rate / dense.parameters.learning_rate:.6g}"),
            "distillation": bool(one.teacher),
        }
        for one in (begun, training)
    )
    _refuse_other(folder.name, "fine-tuned", found, asked)


def _refuse_other(name: str, done: str, found: dict[str, Any], asked: dict[str, Any]) -> None:
    differing = [f"{key}={found[key]!r} (asked for {value!r})" for key, value in asked.items() if found[key] != value]
    if differing:
        raise ParameterError(
            f"pruned_run={name!r} was {done} with {', '.join(differing)}; give another name (-p pruned_run NAME), or "
            "the same settings"
        )


def _read(path: Path, folder: Path) -> dict[str, Any]:
    try:
        return dict(read_unchanged_record(path) if path.name == "run.json" else read_json(path))
    except IntegrityError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read; restore it, or delete {folder} to prune again") from error


def _fine_tuning(parameters: PruneParameters, dense: Predictor) -> TrainParameters:
    """Return the parameters of the fine-tuning: those of the dense run, but shorter and from the pruned weights."""
    trained, name = dense.parameters, parameters.pruned_run or f"{dense.run}-pruned"
    if name == dense.run:
        raise ParameterError(f"pruned_run={name!r}: would replace the dense run; give another name")
    # As teacher, a run's name means its best checkpoint, but the pruned one may be its last.
    teacher = dense.run if parameters.checkpoint == "best" else str(dense.checkpoint)
    return replace(
        trained,
        run=name,
        data_root=parameters.data_root or trained.data_root,
        initial_weights=str(run_folder(name) / START),
        new_classifier=False,
        epochs=parameters.epochs,
        steps=0,
        warmup_steps=0,
        learning_rate=trained.learning_rate * parameters.rate_factor,
        teacher=teacher if parameters.distillation else "",
        threads=parameters.threads,
        device=parameters.device,
        band="none",
        progress=parameters.progress,
    )
