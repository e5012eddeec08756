"""The parameters of a training run, as one flat set; this module imports no torch."""

import hashlib
import json
from dataclasses import dataclass, fields

from cityscapes.errors import ParameterError
from dlv3p.parameters.base import Parameters, choice, number
from dlv3p.parameters.network import NetworkParameters

DEVICES = ("auto", "cpu", "cuda")
PROGRESS = ("auto", "widgets", "lines", "none")

DEMO_CITY = "demo_city"
"""The `data_root` that means the embedded city, which is written on first use."""

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("poly", "cosine", "step", "constant")
LOSSES = ("cross_entropy", "focal", "hard_pixels", "dice", "lovasz", "cross_entropy+dice", "cross_entropy+lovasz")
PIXEL_MEANS = ("cross_entropy", "focal")
"""Losses that a batch's parts give as well as the whole: average those of micro-batches, processes or bands, each
weighed by its `valid_weight`. The others rank or count the pixels of what they are given: average theirs equally, as
the loss of a batch in parts, which is not that of the whole batch."""
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TrainingDataParameters(Parameters):
    """What is trained on, and the folder where the result goes."""

    run: str = ""  # name of the folder below saved/; "" derives it from the parameters
    data_root: str = DEMO_CITY  # demo_city, demo_voc, a folder (Cityscapes, VOC, your own, shards), or a URL
    train_split: str = "train"
    val_split: str = "val"


@dataclass(frozen=True)
class TrainParameters(NetworkParameters, TrainingDataParameters):
    """One training run of any network. Defaults are the demo: minutes on two CPU cores; real runs are recipes."""

    channels: int = number(128, 8, 1024)  # width of ASPP and decoder; 256 in the papers
    initial_weights: str = "random"  # "random", "imagenet", or any file that `python -m dlv3p.weights inspect` knows
    new_classifier: bool = False  # leaves the classifier of that file out, whose classes may then be others
    image_scale: float = number(1.0, 0.05, 2.0)  # images are resized by this before anything else
    crop_height: int = number(128, 33, 4096)  # pixels after scaling; 768 for Cityscapes
    crop_width: int = number(256, 33, 4096)
    scale_low: float = number(0.75, 0.1, 1.0)  # random scale, drawn from low to high
    scale_high: float = number(1.5, 1.0, 4.0)
    scale_distribution: str = choice("log_uniform", ("log_uniform", "uniform"))
    color_jitter: float = number(0.3, 0.0, 1.0)  # strength of random brightness, contrast and saturation; 0 = off
    blur: float = number(0.0, 0.0, 10.0)  # every second crop is blurred by 0 to so many pixels; 0 = off
    class_uniform: float = number(0.0, 0.0, 1.0)  # share of crops around a class that is drawn uniformly; 0 = off
    epochs: int = number(26, 1, 10_000)
    steps: int = number(0, 0, 10_000_000)  # how many to train, where a recipe counts steps; 0 = `epochs` decides
    validate_every: int = number(1, 1, 10_000)  # epochs; the last one is validated in any case
    batch_size: int = number(8, 1, 4096)  # images in a step, of all processes together
    accumulation: int = number(1, 1, 1024)  # parts in which a process goes through its share of a step, to save memory
    optimizer: str = choice("adamw", OPTIMIZERS)
    learning_rate: float = number(0.003, 1e-7, 10.0)  # of ASPP, decoder and classifier
    backbone_rate_factor: float = number(1.0, 0.0, 10.0)  # the backbone learns at learning_rate times this; 0.1 = usual
    schedule: str = choice("poly", SCHEDULES)  # of the learning rate, moved after every step; V3, section 4.1: "poly"
    final_rate_factor: float = number(0.0, 0.0, 1.0)  # "poly" and "cosine" stay above learning_rate times this
    step_epochs: int = number(10, 1, 10_000)  # "step" lowers the rate each time so many epochs are over
    step_factor: float = number(0.5, 0.0, 1.0)  # "step" lowers the rate to this part
    warmup_steps: int = number(0, 0, 1_000_000)  # in which the rate grows from 0 to what the schedule says
    weight_decay: float = number(0.01, 0.0, 1.0)
    gradient_norm: float = number(5.0, 0.0, 1_000_000.0)  # longer gradients are cut to this length; 0 = off
    loss: str = choice("cross_entropy", LOSSES)
    focal_gamma: float = number(2.0, 0.0, 10.0)  # of "focal" (arXiv:1708.02002); 0 is cross entropy
    hard_share: float = number(0.25, 0.001, 1.0)  # of the valid pixels that "hard_pixels" learns from, the worst ones
    class_weights: str = choice("inverse_log", ("none", "inverse_log"))  # "inverse_log" lifts rare classes (ENet)
    average_decay: float = number(0.0, 0.0, 0.99999)  # of a running average of the weights, which is scored; 0 = off
    teacher: str = ""  # a run, or a weights file, whose predictions are learned as well (distillation); "" = none
    teacher_weight: float = number(1.0, 0.0, 100.0)
    precision: str = choice("float32", PRECISIONS)
    compile: bool = False  # lets torch.compile fuse the network: a minute or more at the start, faster steps on GPUs
    activation_checkpointing: bool = False  # computes the backbone twice and keeps half as much; same weights
    chunked_loss: bool = False  # upsamples logits band by band within the loss; other last bits
    seed: int = number(0, 0, 2**31 - 1)
    workers: int = number(1, 0, 64)  # processes that load data; 0 loads in the notebook itself
    decoded_cache: bool = False  # keeps decoded images on disk: faster, at height x width x 3 bytes an image
    on_bad_sample: str = choice("stop", ("stop", "skip"))  # "skip" replaces a damaged file by the next sample
    loader_timeout: int = number(300, 1, 86_400)  # seconds after which a worker that gives no batch is an error
    processes: int = number(1, 1, 64)  # that train together on this machine, each with a GPU of its own if there are
    threads: int = number(2, 1, 256)  # CPU threads of torch; other counts change the last bits
    device: str = choice("auto", DEVICES)  # "auto" takes a GPU when there is one
    checkpoint_minutes: float = number(10.0, 0.0, 1440.0)  # between checkpoints within an epoch; 0 = after each step
    tensorboard: bool = False  # writes event files to saved/<run>/events, for `tensorboard --logdir saved`
    band: str = "auto"  # stored curves that an early warning compares with: "auto", "none", or a file
    progress: str = choice("auto", PROGRESS)

    LOADING = ("workers", "decoded_cache", "on_bad_sample", "loader_timeout")
    MEANS = ("compile", "activation_checkpointing", "chunked_loss", "processes", "threads", "device")
    WATCHING = ("checkpoint_minutes", "tensorboard", "band", "progress")
    NOT_IDENTITY = ("run", *LOADING, *MEANS, *WATCHING)
    """What may differ when a run goes on, because it does not say what is trained."""

    def check(self) -> None:
        """Check the network's switches, and the names, which become folders."""
        super().check()
        check_run_name(self.run)
        if self.train_split == self.val_split:
            raise ParameterError(
                f"val_split={self.val_split!r}: must differ from train_split, or the score means nothing"
            )

        if self.batch_size % self.processes or self.batch_size // self.processes < self.accumulation:
            raise ParameterError(
                f"batch_size={self.batch_size}: cannot be shared by {self.processes} processes in {self.accumulation} "
                "parts each; take a multiple of both"
            )
        if self.chunked_loss and self.loss not in PIXEL_MEANS:
            raise ParameterError(
                f"chunked_loss=True: not with loss={self.loss!r}, which needs all pixels at once; with "
                f"{' and '.join(PIXEL_MEANS)}"
            )

    @property
    def run_name(self) -> str:
        """The run's folder: `run`, or what is trained and a short hash of everything that says how."""
        if self.run:
            return self.run
        defaults = {item.name: item.default for item in fields(self)}  # left out: a new parameter renames no run
        identity = {
            name: value
            for name, value in self.as_dict().items()
            if name not in self.NOT_IDENTITY and value != defaults[name]
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6]
        backbone = self.backbone.replace(":", "-")  # of timm:<name>; not every file system takes a colon
        return f"{self.architecture}-{backbone}-os{self.output_stride}-{digest}"


def check_run_name(run: str) -> None:
    """Refuse a run name that is not one plain folder name; raises ParameterError."""
    plain = run.replace("-", "").replace("_", "").replace(".", "").replace("=", "")
    if run and (not plain.isalnum() or not plain.isascii() or run.startswith((".", "-")) or len(run) > 100):
        raise ParameterError(
            f"run={run!r}: allowed are up to 100 letters, digits, '-', '_', '=' and '.', a letter first"
        )
