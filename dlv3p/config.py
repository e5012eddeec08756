"""The parameters of every notebook, one frozen class a notebook; this module imports no torch.

A notebook's parameters cell repeats the names and defaults of its class, so that papermill can set them; a test keeps
the two in step. What follows from another choice (dilations, atrous rates, a run's name) is derived, never set.
"""

import hashlib
import json
from dataclasses import dataclass

from cityscapes.errors import ParameterError
from dlv3p.backbones.catalog import BACKBONES, TIMM
from dlv3p.network import ARCHITECTURES, OUTPUT_STRIDES, NetworkParameters
from dlv3p.parameters import Parameters, choice, number

DEVICES = ("auto", "cpu", "cuda")
PROGRESS = ("auto", "widgets", "lines", "none")
CHECKPOINTS = ("best", "last")

DEMO_CITY = "demo_city"
"""The `data_root` that means the embedded city, which is written on first use."""
DEMO_VOC = "demo_voc"
"""The `data_root` that means the embedded PASCAL VOC, written on first use as well."""
FLAWED_FOLDER = "flawed_folder"
"""The `data_root` that means an embedded plain folder with mistakes in it, for the audit to find."""


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
    batch_size: int = number(8, 1, 1024)
    optimizer: str = choice("adamw", ("adamw", "sgd"))
    learning_rate: float = number(0.003, 1e-7, 10.0)  # of ASPP, decoder and classifier
    backbone_rate_factor: float = number(1.0, 0.0, 10.0)  # the backbone learns at learning_rate times this; 0.1 = usual
    weight_decay: float = number(0.01, 0.0, 1.0)
    loss: str = choice("cross_entropy", ("cross_entropy", "focal"))
    class_weights: str = choice("inverse_log", ("none", "inverse_log"))  # "inverse_log" lifts rare classes (ENet)
    precision: str = choice("float32", ("float32", "bfloat16"))
    activation_checkpointing: bool = False  # computes the backbone twice and keeps half as much; same weights
    chunked_loss: bool = False  # upsamples logits band by band within the loss; other last bits
    seed: int = number(0, 0, 2**31 - 1)
    workers: int = number(1, 0, 64)  # processes that load data; 0 loads in the notebook itself
    decoded_cache: bool = False  # keeps decoded images on disk: faster, at height x width x 3 bytes an image
    on_bad_sample: str = choice("stop", ("stop", "skip"))  # "skip" replaces a damaged file by the next sample
    loader_timeout: int = number(300, 1, 86_400)  # seconds after which a worker that gives no batch is an error
    threads: int = number(2, 1, 256)  # CPU threads of torch; other counts change the last bits
    device: str = choice("auto", DEVICES)  # "auto" takes a GPU when there is one
    progress: str = choice("auto", PROGRESS)

    LOADING = ("workers", "decoded_cache", "on_bad_sample", "loader_timeout")
    NOT_IDENTITY = ("run", "activation_checkpointing", "chunked_loss", *LOADING, "threads", "device", "progress")
    """What may differ when a run goes on, because it does not say what is trained."""

    def check(self) -> None:
        """Check the network's switches, and the names, which become folders."""
        super().check()
        check_run_name(self.run)
        if self.train_split == self.val_split:
            raise ParameterError(
                f"val_split={self.val_split!r}: must differ from train_split, or the score means nothing"
            )

    @property
    def run_name(self) -> str:
        """The run's folder: `run`, or what is trained and a short hash of everything that says how."""
        if self.run:
            return self.run
        identity = {name: value for name, value in self.as_dict().items() if name not in self.NOT_IDENTITY}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6]
        backbone = self.backbone.replace(":", "-")  # of timm:<name>; not every file system takes a colon
        return f"{self.architecture}-{backbone}-os{self.output_stride}-{digest}"


@dataclass(frozen=True)
class PrepareCityscapesParameters(Parameters):
    """Draw masks from polygons, compare them with provided ones and audit the data set before anyone trains."""

    data_root: str = DEMO_CITY
    splits: str = "train val"  # separated by blanks
    workers: int = number(0, 0, 256)  # 0 takes all cores
    force: bool = False
    color_mode: str = choice("rgba", ("rgba", "palette"))
    instances: bool = False
    examples: int = number(2, 1, 50)

    def check(self) -> None:
        """Check that there is a split to prepare."""
        if not self.splits.split():
            raise ParameterError(f"splits={self.splits!r}: name at least one split, as in 'train val'")


@dataclass(frozen=True)
class PrepareVocParameters(Parameters):
    """Unpack PASCAL VOC, join SBD's masks to it, and look at both."""

    data_root: str = DEMO_VOC
    archives: str = ""
    with_sbd: bool = True
    examples: int = number(2, 1, 50)
    progress: str = choice("auto", PROGRESS)


@dataclass(frozen=True)
class AuditDataParameters(Parameters):
    """Look through a data set of any kind before anyone trains on it."""

    data_root: str = FLAWED_FOLDER
    splits: str = "train val"  # separated by blanks
    examples: int = number(2, 1, 50)
    progress: str = choice("auto", PROGRESS)

    def check(self) -> None:
        """Check that there is a split to look at."""
        if not self.splits.split():
            raise ParameterError(f"splits={self.splits!r}: name at least one split, as in 'train val'")


@dataclass(frozen=True)
class RunParameters(Parameters):
    """What every notebook that looks at a finished run takes; all else it reads from the run's folder."""

    run: str = ""  # folder below saved/; "" is the newest run, and trains the demo when there is none
    checkpoint: str = choice("best", CHECKPOINTS)
    device: str = choice("auto", DEVICES)
    threads: int = number(2, 1, 256)

    def check(self) -> None:
        """Check the run's name, which is a folder."""
        check_run_name(self.run)


@dataclass(frozen=True)
class EvaluateParameters(RunParameters):
    """Score a run on a labelled split."""

    data_root: str = ""  # "" is the run's own data
    split: str = "val"
    examples: int = number(3, 1, 50)  # images shown with their errors
    progress: str = choice("auto", PROGRESS)


@dataclass(frozen=True)
class SavePredictionsParameters(RunParameters):
    """Predict a split as label-id PNGs and pack them for the official server."""

    data_root: str = ""
    split: str = "test"
    progress: str = choice("auto", PROGRESS)


@dataclass(frozen=True)
class RenderGifParameters(RunParameters):
    """Show a drive: image, prediction, overlay and, where there is one, the truth."""

    data_root: str = ""
    split: str = "val"
    city: str = ""  # "" takes all cities of the split
    sequence: str = ""  # six digits; "" takes all sequences
    frames: int = number(20, 1, 10_000)  # at most so many
    width: int = number(960, 128, 4096)  # of the picture, in pixels
    seconds_per_frame: float = number(0.5, 0.02, 60.0)
    alpha: float = number(0.5, 0.0, 1.0)  # of the overlay's colours
    show_truth: bool = True  # adds the truth where the split has it
    progress: str = choice("auto", PROGRESS)


@dataclass(frozen=True)
class ArchitectureParameters(Parameters):
    """Look at a network: shapes, dilations, receptive fields, and its size beside that of the others."""

    architecture: str = choice("deeplabv3plus", ARCHITECTURES)
    backbone: str = choice("resnet18", tuple(BACKBONES), prefix=TIMM)
    channels: int = number(256, 8, 1024)  # width of ASPP and decoder
    num_classes: int = number(19, 2, 256)
    height: int = number(512, 33, 4096)  # of the image whose shapes and MACs are told
    width: int = number(1024, 33, 8192)
    field_height: int = number(257, 33, 2049)  # of the pictures of receptive fields
    field_width: int = number(513, 33, 2049)
    threads: int = number(2, 1, 256)


@dataclass(frozen=True)
class ProfileParameters(RunParameters):
    """Count parameters and MACs, and measure latency and memory, at both output strides."""

    height: int = number(128, 33, 4096)
    width: int = number(256, 33, 8192)
    batch_size: int = number(1, 1, 256)
    warmup: int = number(3, 0, 1000)  # runs that are not counted
    repeats: int = number(10, 1, 10_000)
    precision: str = choice("float32", ("float32", "bfloat16"))


@dataclass(frozen=True)
class ImportWeightsParameters(Parameters):
    """Bring a weights file from elsewhere, see what it is, score it, and keep it as a run."""

    weights: str = ""  # "" writes a stand-in in the layout of a public file
    run: str = ""  # name of the folder below saved/; "" is the file's name
    output_stride: int = choice(0, (0, *OUTPUT_STRIDES))  # 0 is what the file says, or what was published
    data_root: str = DEMO_CITY
    split: str = "val"
    examples: int = number(2, 1, 50)  # images shown with their predictions
    device: str = choice("auto", DEVICES)
    threads: int = number(2, 1, 256)
    progress: str = choice("auto", PROGRESS)

    def check(self) -> None:
        """Check the run's name, which is a folder."""
        check_run_name(self.run)


@dataclass(frozen=True)
class VisualizeTrainingParameters(Parameters):
    """Overlay the curves of several runs."""

    runs: str = ""  # folders below saved/, separated by blanks; "" is all of them


@dataclass(frozen=True)
class QuickstartParameters(Parameters):
    """The whole story on the embedded city."""

    output_stride: int = choice(16, OUTPUT_STRIDES)
    epochs: int = number(26, 1, 1000)
    seed: int = number(0, 0, 2**31 - 1)
    threads: int = number(2, 1, 256)
    progress: str = choice("auto", PROGRESS)


def check_run_name(run: str) -> None:
    """Refuse a run name that is not one plain folder name; raises ParameterError."""
    plain = run.replace("-", "").replace("_", "").replace(".", "").replace("=", "")
    if run and (not plain.isalnum() or not plain.isascii() or run.startswith((".", "-")) or len(run) > 100):
        raise ParameterError(
            f"run={run!r}: allowed are up to 100 letters, digits, '-', '_', '=' and '.', a letter first"
        )
