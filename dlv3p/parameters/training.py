"""The parameters of a training run, one flat set, without torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from cityscapes.errors import MissingInputError, ParameterError
from cityscapes.files.untrusted import given_path
from dlv3p.parameters.base import Parameters, choice, number, switch, text
from dlv3p.parameters.choices import (
    BAD_SAMPLES,
    CLASS_WEIGHTS,
    LOSSES,
    OPTIMIZERS,
    PRECISIONS,
    SCALES,
    SCHEDULES,
    TRACKERS,
    check_batch_size,
    check_chunked_loss,
)
from dlv3p.parameters.data_roots import DEMO_CITY, data_root_field, split_field
from dlv3p.parameters.network import BACKBONE_HELP, BACKBONES, TIMM, NetworkParameters
from dlv3p.parameters.shared_fields import device_field, figures_field, progress_field

TRAINED_RUN = "trained_demo"
"""The name of the trained run that comes with the repository; no training may have it."""


WITHOUT_FILE = ("random", "imagenet")
"""The `initial_weights` that are no file, and saw no image of a data set for segmentation."""


def find_weights(source: str) -> None:
    """Raise MissingInputError where `initial_weights` names a file that is not there."""
    if source not in WITHOUT_FILE and not given_path(source).is_file():
        raise MissingInputError(f"initial_weights={source!r}: no such file; allowed are 'random', 'imagenet' or a path")


@dataclass(frozen=True)
class TrainingDataParameters(Parameters):
    """The data to train on, and the run's folder."""

    run: str = text("", 'name of the folder below saved/; "" derives one from the parameters')
    data_root: str = data_root_field(DEMO_CITY, "demo_city, demo_voc, a URL or a folder: Cityscapes, VOC, own, shards")
    train_split: str = split_field("train", "split to train on")
    val_split: str = split_field("val", "split whose score is measured after each epoch", unless="folds")
    train_list: str = text("", 'list.txt of images of train_split, all others are left out; "": none')
    folds: int = number(0, 0, 100, "parts of train_split, by city, video or drive; 0: no cross-validation")
    fold: int = number(0, 0, 99, "the part that is left out, and scored in place of val_split")

    @property
    def training_split(self) -> str:
        """The name of the split that is trained on; with folds, all of `train_split` but the fold."""
        return f"{self.train_split}.without{self.fold}of{self.folds}" if self.folds else self.train_split

    @property
    def validation_split(self) -> str:
        """The name of the split that is scored; with folds, the fold of `train_split`."""
        return f"{self.train_split}.fold{self.fold}of{self.folds}" if self.folds else self.val_split


@dataclass(frozen=True)
class TrainParameters(NetworkParameters, TrainingDataParameters):
    """One training run of any network. Defaults are the demo: minutes on two CPU cores; real runs are recipes."""

    backbone: str = choice("mobilenet_v2", tuple(BACKBONES), BACKBONE_HELP, prefix=TIMM)
    channels: int = number(64, 8, 1024, "width of ASPP and decoder; 256 in V3, section 3.3")
    initial_weights: str = text(
        "random", "random, imagenet, or any file that import_weights.ipynb takes", find=find_weights
    )
    new_classifier: bool = switch(False, "reinitializes the classifier of initial_weights, for other classes")

    image_scale: float = number(1.0, 0.05, 2.0, "images are resized by this before anything else")
    class_uniform: float = number(0.5, 0.0, 1.0, "share of crops around a uniformly drawn class, for rare ones; 0: off")
    decoded_cache: bool = switch(False, "keeps decoded images on disk: faster, 6.3 MB per 1024 x 2048 image")
    on_bad_sample: str = choice("stop", BAD_SAMPLES, "stop, or skip: warn of a damaged file and take the next sample")

    crop_height: int = number(128, 33, 4096, "pixels, after scaling; 768 for Cityscapes")
    crop_width: int = number(256, 33, 4096, "pixels, after scaling; 768 for Cityscapes")
    scale_low: float = number(0.8, 0.1, 1.0, "random scale of a crop, from here ...")
    scale_high: float = number(1.25, 1.0, 4.0, "... to here")
    scale_distribution: str = choice("log_uniform", SCALES, "log_uniform (halving as likely as doubling) or uniform")
    color_jitter: float = number(0.1, 0.0, 1.0, "strength of random brightness, contrast and saturation; 0: off")
    blur: float = number(0.0, 0.0, 10.0, "half of the crops get a Gaussian blur of up to this many pixels; 0: off")

    epochs: int = number(17, 1, 10_000, "passes over the training split")
    steps: int = number(0, 0, 10_000_000, "length of the training, for recipes that count steps; 0: epochs decides")
    validate_every: int = number(1, 1, 10_000, "epochs between validations; the last epoch always has one")
    patience: int = number(0, 0, 10_000, "ends training after so many validations without a better mIoU; 0: off")
    batch_size: int = number(4, 1, 4096, "crops in a step, over all processes")
    accumulation: int = number(1, 1, 1024, "micro-batches per step and process (gradient accumulation), to save memory")
    optimizer: str = choice("adamw", OPTIMIZERS, "adamw or sgd")
    learning_rate: float = number(0.008, 1e-7, 10.0, "peak, for ASPP, decoder and classifier")
    backbone_rate_factor: float = number(1.0, 0.0, 10.0, "times learning_rate, for the backbone; 0.1 if pretrained")
    schedule: str = choice("poly", SCHEDULES, "of the learning rate: poly (V3, section 4.1), cosine, step or constant")
    final_rate_factor: float = number(0.0, 0.0, 1.0, "times learning_rate, below which poly and cosine never fall")
    step_epochs: int = number(10, 1, 10_000, "of schedule step: epochs after which the rate is multiplied ...")
    step_factor: float = number(0.5, 0.0, 1.0, "... by this factor")
    warmup_steps: int = number(40, 0, 1_000_000, "steps of linear warmup, from 0 to the schedule's rate")
    weight_decay: float = number(0.01, 0.0, 1.0, "of the optimizer; 0.0001 with sgd")
    gradient_norm: float = number(5.0, 0.0, 1_000_000.0, "gradients are clipped to this norm; 0: off")
    average_decay: float = number(0.98, 0.0, 0.99999, "of an average (EMA) of the weights, scored and exported; 0: off")

    loss: str = choice("cross_entropy", LOSSES, "or focal, hard_pixels, dice, lovasz, cross_entropy+dice or +lovasz")
    focal_gamma: float = number(2.0, 0.0, 10.0, "of focal (arXiv:1708.02002); 0 makes it cross entropy")
    hard_share: float = number(0.25, 0.001, 1.0, "share of the valid pixels, of highest loss, for hard_pixels")
    class_weights: str = choice("inverse_log", CLASS_WEIGHTS, "inverse_log (ENet) favors rare classes; none: all equal")
    teacher: str = text("", 'run or weights file to distill, in addition to the labels; "": none')
    teacher_weight: float = number(1.0, 0.0, 100.0, "weight of the distillation loss")

    seed: int = number(0, 0, 2**31 - 1, "a different seed gives a different run")
    precision: str = choice("float32", PRECISIONS, "float32, bfloat16 or float16")
    compile: bool = switch(False, "torch.compile: a minute or more at the start, faster steps on GPUs")
    activation_checkpointing: bool = switch(False, "less memory: computes the backbone twice; same weights")
    chunked_loss: bool = switch(False, "less memory: upsamples logits band by band; changes the last bits")
    workers: int = number(1, 0, 64, "processes that load data; 0 loads in the notebook itself")
    loader_timeout: int = number(300, 1, 86_400, "seconds to wait for a worker's batch before giving up")
    processes: int = number(1, 1, 64, "data-parallel, on this machine; each on its own GPU if there are any")
    threads: int = number(2, 1, 256, "CPU threads; another count changes the last bits of a result")
    device: str = device_field()
    checkpoint_minutes: float = number(10.0, 0.0, 1440.0, "between checkpoints within an epoch; 0: after each step")
    tensorboard: bool = switch(False, "writes events to saved/<run>/events, for tensorboard --logdir saved")
    tracker: str = choice("none", TRACKERS, "none, trackio or wandb: logs steps and epochs, a resumed run goes on")
    film: bool = switch(False, "keeps what three validation images look like after each epoch, for watch.ipynb")
    range_test: bool = switch(False, "train.ipynb first shows the loss over growing learning rates, 100 steps")
    long_run: bool = switch(False, "True: yes, a run of more than an hour is meant, which else is refused")
    band: str = text("auto", "reference curves for early warnings: auto, none, or a file")
    figures: str = figures_field()
    progress: str = progress_field()

    FIRST = (
        *("run", "data_root", "architecture", "backbone", "output_stride", "initial_weights", "epochs", "batch_size"),
        *("crop_height", "crop_width", "learning_rate", "seed"),
    )
    HEADINGS = {
        "train_split": "Data",
        "channels": "Network (V3, V3+: the papers of DeepLabV3 and DeepLabV3+)",
        "image_scale": "Data",
        "scale_low": "Augmentation",
        "steps": "Schedule",
        "loss": "Loss",
        "precision": "Machine",
    }

    LOADING = ("workers", "decoded_cache", "on_bad_sample", "loader_timeout")
    MEANS = ("compile", "activation_checkpointing", "chunked_loss", "processes", "threads", "device")
    OUTPUT = ("figures", "progress")
    WATCHING = ("checkpoint_minutes", "tensorboard", "tracker", "film", "range_test", "long_run", "band", *OUTPUT)
    NOT_IDENTITY = ("run", *LOADING, *MEANS, *WATCHING)
    """Parameters that may differ when a run is resumed, because they do not define the training."""

    FORMER_DEFAULTS = {
        **{"backbone": "resnet18", "channels": 128, "class_uniform": 0.0, "color_jitter": 0.3, "batch_size": 8},
        **{"warmup_steps": 0, "average_decay": 0.0},
    }
    """Where another default came first: what records without the parameter mean, and what names leave out."""

    def check(self) -> None:
        """Check the network's switches, the names, which become folders, and the batch."""
        super().check()
        check_run_name(self.run)
        if not self.initial_weights:
            raise ParameterError("initial_weights='': allowed are 'random', 'imagenet' or a path")
        if self.folds == 1 or self.fold >= max(1, self.folds):
            raise ParameterError(
                f"folds={self.folds}, fold={self.fold}: folds are 2 to 100, or 0, and fold is 0 to one less than folds"
            )
        if self.train_split == self.val_split and not self.folds:
            raise ParameterError(
                f"val_split={self.val_split!r}: must differ from train_split, or the score means nothing"
            )

        check_batch_size(self.batch_size, processes=self.processes, accumulation=self.accumulation)
        if self.run == TRAINED_RUN:
            raise ParameterError(f"run={self.run!r}: is the name of the run that comes with the suite; choose another")
        if self.teacher and self.teacher == self.run_name:
            raise ParameterError(
                f"teacher={self.teacher!r}: a run cannot teach itself; give another run, or a weights file"
            )
        if self.chunked_loss:
            check_chunked_loss(self.loss)

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a record with those that parameters younger than the record had at the time."""
        return {item.name: item.default for item in fields(cls)} | cls.FORMER_DEFAULTS | dict(values)

    def of_one_process(self) -> Self:
        """Return the same with the share of one of its processes, alone."""
        return replace(self, processes=1, batch_size=max(1, self.batch_size // self.processes))

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this another training than the default one; neither a new parameter nor a new default does."""
        defaults, values = self.recorded({}), self.as_dict().items()
        return {name: value for name, value in values if name not in self.NOT_IDENTITY and value != defaults[name]}

    @property
    def run_name(self) -> str:
        """The run's folder: `run`, or the network and a short hash of what makes it another training."""
        if self.run:
            return self.run
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:6]
        backbone = self.backbone.replace(":", "-")  # of timm:<name>; not every file system accepts a colon
        return f"{self.architecture}-{backbone}-os{self.output_stride}-{digest}"


def check_run_name(run: str, *, parameter: str = "run") -> None:
    """Raise ParameterError, which names the `parameter`, for a run name that is not a plain folder name."""
    plain = run.replace("-", "").replace("_", "").replace(".", "").replace("=", "")
    if run and (not plain.isalnum() or not plain.isascii() or run.startswith((".", "-")) or len(run) > 100):
        raise ParameterError(
            f"{parameter}={run!r:.120}: allowed are up to 100 letters, digits, '-', '_', '=' and '.', with neither '-' "
            "nor '.' at the beginning"
        )
