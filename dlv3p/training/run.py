"""The training loop of one run, with validation: the same weights every time, also when it was stopped and continued.

The order of the samples, each sample's augmentation and each step's dropout are functions of the seed and of a counter,
so a checkpoint needs no random state, and a run that was killed ends with the weights that it would have had. After an
epoch whole images are scored at a single scale, shared among the processes that train.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cityscapes.errors import DivergedError
from dlv3p.data.batches import Batches, worker_faults
from dlv3p.data.loader import WholeImages, make_samples, training_loader, validation_loader
from dlv3p.data.split import Split
from dlv3p.evaluation.metrics import confusion_matrix, scores
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import write_metrics
from dlv3p.runtime.devices import LAYOUT, choose_device, memory_faults
from dlv3p.runtime.processes import place, sum_over_processes, wait_for_all
from dlv3p.runtime.progress import Progress
from dlv3p.training.callbacks import make_watchers
from dlv3p.training.interruption import Interruption
from dlv3p.training.losses import cross_entropy
from dlv3p.training.optimizers import rate_factor
from dlv3p.training.recording import keep_metrics_ahead, record_continuation, record_divergence, record_start
from dlv3p.training.state import RunState
from dlv3p.training.step import StepResult


@torch.inference_mode()
def validate(
    model: nn.Module,
    loader: Batches,
    num_classes: int,
    device: torch.device,
    *,
    images: int,
    after_each: Callable[[], None],
) -> dict[str, float]:
    """Return loss, mIoU, mDice, mPA and pixel accuracy over `images` whole images, at the size of their masks.

    `after_each` is called after each image, and may raise to end the validation.
    """
    model.eval()
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for image, mask in loader:
        image, mask = image.to(device, memory_format=LAYOUT), mask.to(device)
        logits = model.upsample(model.logits_at_stride(image), mask.shape[-2:])
        total += cross_entropy(logits, mask)
        confusion += confusion_matrix(mask, logits.argmax(dim=1), num_classes)
        after_each()
    confusion, total = sum_over_processes(confusion), sum_over_processes(total)
    return {"loss": total.item() / images, **scores(confusion.cpu()).means()}


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run has to show; `history` has a dict per epoch with the columns of metrics.csv."""

    run: str
    folder: Path
    history: list[dict[str, float]]
    best_epoch: int
    best_mean_iou: float


class TrainingRun:
    """A run's data, its state, and how many steps it shall take; `fit` takes those that are still to do."""

    def __init__(
        self,
        parameters: TrainParameters,
        folder: Path,
        training: Split,
        validation: Split,
        interruption: Interruption | None = None,
    ) -> None:
        self.parameters, self.folder, self.training, self.validation = parameters, folder, training, validation
        self.interruption = interruption or Interruption()
        self.device = choose_device(parameters.device)
        self.steps_per_epoch = len(training) // min(parameters.batch_size, len(training))
        self.steps = parameters.steps or parameters.epochs * self.steps_per_epoch
        self.epochs = math.ceil(self.steps / self.steps_per_epoch)
        self.state = RunState(parameters, folder, training, self.device)
        self.recent_losses: deque[float] = deque(maxlen=100)
        self.saved_at = 0.0

    @property
    def done(self) -> int:
        """How many steps are behind the run."""
        progressed = self.state.progressed
        return min(len(progressed.history) * self.steps_per_epoch + progressed.sums.steps, self.steps)

    def fit(self) -> TrainingResult:
        """Take the steps that are still to do, and leave weights to share; raises StoppedError when asked to stop."""
        progressed = self.state.progressed
        if place().first and progressed.history:  # a run may have died between the checkpoint and its table
            keep_metrics_ahead(self.folder, len(progressed.history))
            write_metrics(self.folder, progressed.history)
        if len(progressed.history) < self.epochs:
            if place().first:
                self._record()
            with memory_faults(self._advice()):
                self._train()
        if place().first:
            self.state.export_best()
        run, best = self.folder.name, progressed.best_mean_iou
        return TrainingResult(run, self.folder, progressed.history, progressed.best_epoch, best)

    def _record(self) -> None:
        splits = (self.training, self.validation)
        if self.done:
            record_continuation(self.folder, self.parameters, splits, steps=self.done)
        else:
            record_start(self.folder, self.parameters, splits)

    def _train(self) -> None:
        loader, whole = self._loaders()
        stop = self.interruption.request
        timeout = self.parameters.loader_timeout
        with closing(loader), closing(whole), worker_faults(timeout, loader.next_names):
            watchers = make_watchers(self.parameters, self.folder, self.training, done=self.done, stop=stop)
            first = len(self.state.progressed.history) + 1
            watchers.start(self.epochs, self.steps_per_epoch, first)
            self.saved_at = time.monotonic()
            self.interruption.after_steps()
            try:
                for epoch in range(first, self.epochs + 1):
                    self._take_steps(epoch, loader, watchers)
                    self._close_epoch(epoch, whole, watchers)
            except BaseException as error:
                watchers.failed(f"stopped by {type(error).__name__}; run again to go on")
                raise
        best = self.state.progressed
        watchers.finish(f"best val mIoU {best.best_mean_iou:.4f} at epoch {best.best_epoch}")

    def _take_steps(self, epoch: int, loader: Batches, watchers: Progress) -> None:
        sums = self.state.progressed.sums
        loader.sampler.epoch, loader.sampler.skipped = epoch, sums.steps
        seconds, data_wait, began = sums.seconds, sums.data_wait, time.monotonic()
        self.state.model.train()
        for image, mask in loader if self.done < self.steps else ():
            sums.rate = rate_factor(self.parameters, self.done, self.steps, self.steps_per_epoch)
            result = self.state.stepper(image, mask, rate=sums.rate, step=self.done)
            self._refuse_not_finite(result, loader)
            counts = confusion_matrix(mask.to(self.device), result.prediction, self.training.num_classes)
            sums.confusion += sum_over_processes(counts)
            sums.loss += result.loss
            sums.steps += 1
            sums.seconds = seconds + time.monotonic() - began
            sums.data_wait = data_wait + loader.waited
            watchers.step(epoch, sums.steps, result.loss)
            stopping = self.interruption.wanted(self.device)
            self._save_if_due(stopping=stopping)
            if stopping:
                self._stop()
            if self.done == self.steps:
                return

    def _close_epoch(self, epoch: int, whole: Batches, watchers: Progress) -> None:
        """Score the network where it is time to, and commit the epoch."""
        progressed, sums, began = self.state.progressed, self.state.progressed.sums, time.monotonic()
        rows = {"train": {"loss": sums.loss / sums.steps, **scores(sums.confusion.cpu()).means()}}
        rows["val"] = dict.fromkeys(rows["train"], math.nan)
        validated = epoch % self.parameters.validate_every == 0 or epoch == self.epochs
        if validated:
            rows["val"] = self._validate(whole)
        row = {"epoch": epoch, "learning_rate": self.parameters.learning_rate * sums.rate}
        row["seconds"] = round(sums.seconds + time.monotonic() - began, 3)
        row["data_wait"] = round(sums.data_wait, 3)
        row |= {f"{split}_{name}": value for split, values in rows.items() for name, value in values.items()}
        progressed.history.append(row)
        # The mean IoU is nan where nothing is labelled, and counts then, since nothing else can.
        improved = validated and not row["val_mIoU"] <= progressed.best_mean_iou
        if improved:
            progressed.best_epoch, progressed.best_mean_iou = epoch, row["val_mIoU"]
        progressed.sums = self.state.no_sums()
        if place().first:
            self._save("best", "last") if improved else self._save("last")  # "last" commits, so it comes last
            write_metrics(self.folder, progressed.history)
        watchers.epoch(row)
        if self.interruption.wanted(self.device) and epoch < self.epochs:
            self._stop()

    def _validate(self, whole: Batches) -> dict[str, float]:
        """Score the network; who is asked to stop in the middle does so, and scores again when the run goes on."""
        images, classes = len(self.validation), self.training.num_classes
        left = images // place().ranks  # of each process; one may have one more, and nobody to ask with after that

        def stop_if_wanted() -> None:
            nonlocal left
            left -= 1
            if left >= 0 and self.interruption.wanted(self.device):
                self._save_if_due(stopping=True)
                self._stop()

        return validate(self.state.scored, whole, classes, self.device, images=images, after_each=stop_if_wanted)

    def _save_if_due(self, *, stopping: bool) -> None:
        minutes = (time.monotonic() - self.saved_at) / 60
        if place().first and (stopping or minutes >= self.parameters.checkpoint_minutes):
            self._save("last")

    def _save(self, *names: str) -> None:
        self.state.save(*names)
        self.saved_at = time.monotonic()

    def _stop(self) -> None:
        """End what all processes have agreed to end, see `Interruption.wanted`, once the first one has saved."""
        wait_for_all()  # one that is gone while another still writes would look like a failure
        done = f"stopped after step {self.done} of {self.steps}"
        raise self.interruption.kind(f"run={self.folder.name!r}: {done}; run again to go on")

    def _refuse_not_finite(self, result: StepResult, loader: Batches) -> None:
        self.recent_losses.append(result.loss)
        if math.isfinite(result.loss) and math.isfinite(result.gradient_norm) or self.state.stepper.overflowed(result):
            return
        what = "gradient's length" if math.isfinite(result.loss) else "loss"
        value = result.gradient_norm if math.isfinite(result.loss) else result.loss
        if place().first:
            indices = loader.sampler.step_indices(self.state.progressed.sums.steps).tolist()
            facts = {
                "loss": result.loss,
                "gradient_norm": result.gradient_norm,
                "recent_losses": list(self.recent_losses),
                "learning_rate": self.parameters.learning_rate * self.state.progressed.sums.rate,
                "samples": [self.training.name(index) for index in indices],
            }
            record_divergence(self.folder, self.done + 1, facts)
        raise DivergedError(
            f"step {self.done + 1}: the {what} is {value}; the last checkpoint in {self.folder} is from before. "
            f"Lower learning_rate (now {self.parameters.learning_rate}) and train as another run"
        )

    def _advice(self) -> str:
        p = self.parameters
        return (
            f"a step of batch_size={p.batch_size} (accumulation={p.accumulation}, crop {p.crop_height}x{p.crop_width}, "
            f"output stride {p.output_stride}) does not fit; accumulation={2 * p.accumulation} holds half as much at a "
            "time, activation_checkpointing and chunked_loss trade memory for time"
        )

    def _loaders(self) -> tuple[Batches, Batches]:
        p = self.parameters
        samples = make_samples(p, self.training)
        options = {"workers": p.workers, "timeout": p.loader_timeout}
        return (
            training_loader(samples, batch_size=p.batch_size, skip_bad=p.on_bad_sample == "skip", **options),
            validation_loader(WholeImages(self.validation, image_scale=p.image_scale), **options),
        )
