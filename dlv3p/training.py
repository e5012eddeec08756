"""One training run: from parameters to `saved/<run>/`, the same weights every time, continued where it was stopped.

The order of the samples, each sample's augmentation and each step's dropout are functions of the seed and of a counter,
so a checkpoint needs no random state, and a run that was killed ends with the weights that it would have had.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cityscapes.errors import DivergedError, InputError, IntegrityError, ParameterError
from cityscapes.labels import IGNORE
from dlv3p.activation_checkpointing import checkpoint_activations
from dlv3p.checkpoint import load_checkpoint, model_from_checkpoint, save_checkpoint, save_weights
from dlv3p.chunked_loss import make_chunked_loss
from dlv3p.data import open_training, resolve_data_root
from dlv3p.deeplab import build_network
from dlv3p.devices import LAYOUT, choose_device
from dlv3p.losses import Loss, cross_entropy, inverse_log_weights, make_loss
from dlv3p.metrics import confusion_matrix, scores
from dlv3p.progress import Progress, make_progress
from dlv3p.provenance import data_fingerprint, provenance
from dlv3p.runs import checkpoint_path, hold_run, refuse_other_parameters, write_json, write_metrics
from dlv3p.samples.batches import Batches, worker_faults
from dlv3p.samples.crops import make_samples
from dlv3p.samples.loader import WholeImages, training_loader, validation_loader
from dlv3p.split import Split
from dlv3p.training_parameters import TrainParameters
from dlv3p.upsampling import upsample_argmax

POLY_POWER = 0.9
MOMENTUM = 0.9
AUXILIARY_WEIGHT = 0.4
"""How much the auxiliary head's loss counts (PSPNet, arXiv:1612.01105, section 4.1)."""
GRADIENT_NORM = 5.0
"""Longer gradients are cut to this length, which only a bad batch ever reaches."""


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run has to show; `history` has a dict per epoch with the columns of metrics.csv."""

    run: str
    folder: Path
    history: list[dict[str, float]]
    best_epoch: int
    best_mean_iou: float


def train(parameters: TrainParameters) -> TrainingResult:
    """Train, or go on from the last checkpoint of the same run; a finished run returns at once.

    Raises ParameterError when the run's folder holds a run with other parameters, DivergedError when the loss is no
    longer a finite number (nothing good is overwritten), and BusyError when another process trains the run.
    """
    torch.set_num_threads(parameters.threads)
    root = resolve_data_root(parameters.data_root)
    training, validation = open_training(root, parameters.train_split, parameters.val_split)
    with hold_run(parameters.run_name) as folder:
        run = TrainingRun(parameters, folder, training, validation)
        return run.fit()


class TrainingRun:
    """The state of a run: model, optimiser, schedule, history and best score; `fit` takes it to its last epoch."""

    def __init__(self, parameters: TrainParameters, folder: Path, training: Split, validation: Split) -> None:
        self.parameters, self.folder, self.training, self.validation = parameters, folder, training, validation
        self.device = choose_device(parameters.device)
        self.history: list[dict[str, float]] = []
        self.best_epoch, self.best_mean_iou = 0, -1.0
        torch.manual_seed(parameters.seed)
        saved = self._last_checkpoint()
        weights = "random" if saved else parameters.initial_weights
        model = build_network(parameters, training.num_classes, initial_weights=weights)
        self.model = model.to(self.device, memory_format=LAYOUT)
        if parameters.activation_checkpointing:
            checkpoint_activations(self.model)
        self.optimizer = make_optimizer(self.model, parameters)
        if saved:
            self._restore(saved)
        else:
            self._record_start()

    def fit(self) -> TrainingResult:
        """Run the epochs that are still to do, with a checkpoint after each."""
        first, parameters = len(self.history) + 1, self.parameters
        if first <= parameters.epochs:
            loader, whole = self._loaders()
            loss = self._loss()
            progress = make_progress(parameters.progress)
            progress.start(parameters.epochs, len(loader), first)
            try:
                with worker_faults(parameters.loader_timeout):
                    for epoch in range(first, parameters.epochs + 1):
                        self._epoch(epoch, loader, whole, loss, progress)
            except BaseException as error:
                progress.failed(f"stopped by {type(error).__name__}; run again to go on from the last epoch")
                raise
            progress.finish(f"best val mIoU {self.best_mean_iou:.4f} at epoch {self.best_epoch}")
        self._export_best()
        run = self.folder.name
        return TrainingResult(run, self.folder, self.history, self.best_epoch, self.best_mean_iou)

    def _epoch(self, epoch: int, loader: Batches, whole: Batches, loss: Loss, progress: Progress) -> None:
        started = time.monotonic()
        rate, train_row = self._train_epoch(epoch, loader, loss, progress)
        val_row = validate(self.model, whole, self.training.num_classes, self.device)
        row = {"epoch": epoch, "learning_rate": rate, "seconds": round(time.monotonic() - started, 3)}
        row["data_wait"] = round(loader.waited, 3)
        row |= {f"train_{name}": value for name, value in train_row.items()}
        row |= {f"val_{name}": value for name, value in val_row.items()}
        self.history.append(row)
        improved = not row["val_mIoU"] <= self.best_mean_iou  # nan, where nothing is labelled, counts too
        if improved:
            self.best_epoch, self.best_mean_iou = epoch, row["val_mIoU"]
        state = self._state(epoch)
        for name in ("best", "last") if improved else ("last",):  # "last" commits the epoch, so it comes last
            save_checkpoint(checkpoint_path(self.folder.name, name), state)
        write_metrics(self.folder, self.history)
        progress.epoch(row)

    def _train_epoch(
        self, epoch: int, loader: Batches, loss: Loss, progress: Progress
    ) -> tuple[float, dict[str, float]]:
        """Return the learning rate of the epoch's last step, and the scores of its augmented crops."""
        self.model.train()
        loader.sampler.epoch = epoch
        total, rate = 0.0, 0.0
        confusion = torch.zeros(2 * (self.training.num_classes,), dtype=torch.int64, device=self.device)
        for step, (image, mask) in enumerate(loader):
            done = (epoch - 1) * len(loader) + step
            rate = self._set_rate(done, self.parameters.epochs * len(loader))
            torch.manual_seed(self.parameters.seed + done)  # dropout follows the step, not what happened before
            image = image.to(self.device, non_blocking=True, memory_format=LAYOUT)
            mask = mask.to(self.device, non_blocking=True)
            value, prediction = self._step(image, mask, loss, done)
            total += value
            confusion += confusion_matrix(mask, prediction, self.training.num_classes)
            progress.step(epoch, step + 1, value)
        return rate, {"loss": total / len(loader), **scores(confusion.cpu()).means()}

    def _step(self, image: Tensor, mask: Tensor, loss: Loss, done: int) -> tuple[float, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.parameters.precision == "bfloat16"):
            logits, *auxiliary = self._logits(image)
        value = loss(logits.float(), mask)
        for other in auxiliary:
            value = value + AUXILIARY_WEIGHT * loss(other.float(), mask)
        self._refuse_not_finite("loss", value, done)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        length = nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self._refuse_not_finite("gradient's length", length, done)  # an epoch's last step must not spoil what is saved
        self.optimizer.step()
        if self.parameters.chunked_loss:
            size, align_corners = mask.shape[-2:], self.model.align_corners
            return value.item(), upsample_argmax(logits.detach().float(), size, align_corners=align_corners)
        return value.item(), logits.detach().argmax(dim=1)

    def _refuse_not_finite(self, what: str, value: Tensor, done: int) -> None:
        if not torch.isfinite(value):
            raise DivergedError(
                f"step {done + 1}: the {what} is {value.item()}; the last checkpoint in {self.folder} is from before. "
                f"Lower learning_rate (now {self.parameters.learning_rate}) and train as another run"
            )

    def _logits(self, image: Tensor) -> tuple[Tensor, ...]:
        """Logits, and behind them those of the auxiliary head, if any; at their strides for a chunked loss."""
        model, chunked = self.model, self.parameters.chunked_loss
        if self.parameters.auxiliary_head:
            return model.both_logits_at_stride(image) if chunked else model.forward_with_auxiliary(image)
        return (model.logits_at_stride(image) if chunked else model(image),)

    def _set_rate(self, step: int, steps: int) -> float:
        """Follow the poly schedule, (1 - step / steps)^0.9 (DeepLabV3, section 4.1); return the head's rate."""
        factor = (1 - step / steps) ** POLY_POWER
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_rate"] * factor
        return self.parameters.learning_rate * factor

    def _loaders(self) -> tuple[Batches, Batches]:
        p = self.parameters
        samples = make_samples(p, self.training)
        options = {"workers": p.workers, "timeout": p.loader_timeout}
        return (
            training_loader(samples, batch_size=p.batch_size, skip_bad=p.on_bad_sample == "skip", **options),
            validation_loader(WholeImages(self.validation, image_scale=p.image_scale), **options),
        )

    def _loss(self) -> Loss:
        name, weights = self.parameters.loss, self._class_weights()
        if self.parameters.chunked_loss:
            return make_chunked_loss(name, weights, align_corners=self.parameters.align_corners)
        return make_loss(name, weights)

    def _class_weights(self) -> Tensor | None:
        if self.parameters.class_weights == "none":
            return None
        counts = torch.zeros(self.training.num_classes, dtype=torch.int64)
        for index in range(len(self.training)):
            try:
                mask = torch.from_numpy(self.training.mask(index).astype("int64"))
            except InputError:
                if self.parameters.on_bad_sample == "stop":
                    raise
                continue  # told of by the loader, when its turn comes
            counts += torch.bincount(mask[mask != IGNORE], minlength=len(counts))
        return inverse_log_weights(counts).to(self.device)

    def _state(self, epoch: int) -> dict:
        return {
            "epoch": epoch,
            "parameters": self.parameters.as_dict(),
            "class_names": list(self.training.class_names),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_mean_iou": self.best_mean_iou,
        }

    def _last_checkpoint(self) -> dict | None:
        """Read "last", or "best" where "last" is damaged; raises IntegrityError when neither can be read."""
        last, best = (checkpoint_path(self.folder.name, name) for name in ("last", "best"))
        if not last.is_file() and not best.is_file():
            return None
        try:
            return load_checkpoint(last)
        except (IntegrityError, FileNotFoundError) as error:
            print(f"warning: {error}; going on from the best checkpoint", flush=True)
            return load_checkpoint(best)

    def _restore(self, state: dict) -> None:
        if "optimizer" not in state:
            raise ParameterError(
                f"run={self.folder.name!r} was imported, not trained, and cannot go on; train as another run, with "
                f"initial_weights={str(self.folder / 'model.safetensors')!r}"
            )
        refuse_other_parameters(self.folder.name, state["parameters"], self.parameters)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]
        self.best_epoch, self.best_mean_iou = state["best_epoch"], state["best_mean_iou"]

    def _record_start(self) -> None:
        content = {
            "format": 1,
            "run": self.folder.name,
            "parameters": self.parameters.as_dict(),
            "data": {
                split.split: {"root": str(split.root), "images": len(split), "fingerprint": data_fingerprint(split)}
                for split in (self.training, self.validation)
            },
            "class_names": list(self.training.class_names),
            **provenance(),
        }
        write_json(self.folder / "run.json", content)

    def _export_best(self) -> None:
        weights = self.folder / "model.safetensors"
        best = checkpoint_path(self.folder.name, "best")
        if weights.is_file() and weights.stat().st_mtime_ns >= best.stat().st_mtime_ns:
            return
        state = load_checkpoint(best)
        model, parameters = model_from_checkpoint(state)
        metadata = {"parameters": parameters.as_dict(), "class_names": state["class_names"], "epoch": state["epoch"]}
        save_weights(weights, model, metadata)


def make_optimizer(model: nn.Module, parameters: TrainParameters) -> torch.optim.Optimizer:
    """Return SGD or AdamW with two groups: the backbone, and the head that starts from random weights."""
    backbone = list(model.backbone.parameters())
    inside = {id(parameter) for parameter in backbone}
    head = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    rate = parameters.learning_rate
    groups = [
        {"params": backbone, "peak_rate": rate * parameters.backbone_rate_factor},
        {"params": head, "peak_rate": rate},
    ]
    if parameters.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, weight_decay=parameters.weight_decay)
    return torch.optim.AdamW(groups, lr=rate, weight_decay=parameters.weight_decay)


@torch.inference_mode()
def validate(model: nn.Module, loader: Batches, num_classes: int, device: torch.device) -> dict[str, float]:
    """Return loss, mIoU, mDice, mPA and pixel accuracy over whole images, at the size of their masks."""
    model.eval()
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    total = 0.0
    for image, mask in loader:
        image, mask = image.to(device, memory_format=LAYOUT), mask.to(device)
        logits = model.upsample(model.logits_at_stride(image), mask.shape[-2:])
        total += cross_entropy(logits, mask).item()
        confusion += confusion_matrix(mask, logits.argmax(dim=1), num_classes)
    return {"loss": total / len(loader), **scores(confusion.cpu()).means()}
