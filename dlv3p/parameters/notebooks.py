"""The parameters of every notebook, one frozen class per notebook; this module imports no torch.

A notebook's parameters cell repeats the names and defaults of its class, so that papermill can set them; a test keeps
the two in step. What follows from another choice (dilations, atrous rates, a run's name) is derived, never set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cityscapes.errors import ParameterError
from dlv3p.parameters.base import Parameters, choice, number
from dlv3p.parameters.cases import NETWORKS, Case, list_cases
from dlv3p.parameters.network import ARCHITECTURES, BACKBONES, OUTPUT_STRIDES, TIMM
from dlv3p.parameters.protocols import PUBLISHED, ProtocolParameters
from dlv3p.parameters.training import DEMO_CITY, DEVICES, PROGRESS, TrainParameters, check_run_name

__all__ = ["TrainParameters"]

CHECKPOINTS = ("best", "last")

BACKENDS = ("onnxruntime", "openvino")
"""What quantises and runs a network in 8 bits."""
SMALLEST_IMAGE = 33
"""Height and width, in pixels, from which on every network works."""
PRUNING_CRITERIA = ("magnitude", "fpgm", "bn_scale", "taylor")
PRUNING_RANKINGS = ("uniform", "global", "isomorphic")
PRUNED_PARTS = ("all", "backbone")

DEMO_VOC = "demo_voc"
"""The `data_root` that means the embedded PASCAL VOC, written on first use."""
FLAWED_FOLDER = "flawed_folder"
"""The `data_root` that means an embedded plain folder with mistakes in it, for the audit to find."""


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
        super().check()
        check_run_name(self.run)


@dataclass(frozen=True)
class EvaluateParameters(ProtocolParameters, RunParameters):
    """Score a run on a labelled split."""

    data_root: str = ""  # "" is the run's own data
    split: str = "val"
    second_protocol: str = choice("three_scales_flip", ("none", *PUBLISHED))  # scored beside the first
    examples: int = number(3, 1, 50)  # images shown with their errors
    progress: str = choice("auto", PROGRESS)


@dataclass(frozen=True)
class SavePredictionsParameters(ProtocolParameters, RunParameters):
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
    """Measure what a network costs, over backbones, strides, sizes, batches, precisions, compiled or not.

    Every list is a text with blanks between its values; all combinations are measured.
    """

    network: str = choice("run", NETWORKS)  # whose switches: the run's own, or those that a system published
    backbones: str = ""  # "" is the run's own, or those that the system published
    output_strides: str = "8 16"
    sizes: str = "128x256"  # height x width in pixels
    batch_sizes: str = "1"
    precisions: str = "float32"  # of weights and activations
    compiles: str = "off"  # off, on, or both
    warmup: int = number(3, 0, 1000)  # runs that are not counted
    repeats: int = number(10, 1, 10_000)
    energy_seconds: float = number(5.0, 0.0, 3600.0)  # of predictions without a pause; 0 leaves energy out
    idle_seconds: float = number(2.0, 1.0, 60.0)  # in which the idle power is measured before
    progress: str = choice("auto", PROGRESS)

    LISTS = ("backbones", "output_strides", "sizes", "batch_sizes", "precisions", "compiles")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build the set as all others are; a list of one whole number, which papermill gives as one, is one too."""
        texts = {name: str(values[name]) for name in cls.LISTS if type(values.get(name)) is int}
        return super().from_mapping({**values, **texts})

    def check(self) -> None:
        """Check the run's name, and every value of the lists."""
        super().check()
        self.cases("resnet18")
        if 0 < self.energy_seconds < 1:
            raise ParameterError(f"energy_seconds={self.energy_seconds}: allowed are 0, which leaves it out, and 1 on")

    def cases(self, backbones: str) -> list[Case]:
        """Return all cases to measure; `backbones` is what "" stands for."""
        lists = {name: getattr(self, name) for name in self.LISTS}
        return list_cases(**lists | {"backbones": self.backbones or backbones})


@dataclass(frozen=True)
class PruneParameters(RunParameters):
    """Take channels out of a run's network, fine-tune what is left, and see what that gains and costs."""

    pruned_run: str = ""  # folder below saved/ for the result; "" is the run's name and -pruned
    data_root: str = ""  # "" is the run's own data, of which the training split teaches and the other one scores
    sparsity: float = number(0.5, 0.01, 0.99)  # share of the channels that go
    criterion: str = choice("magnitude", PRUNING_CRITERIA)
    ranking: str = choice("uniform", PRUNING_RANKINGS)  # "uniform" takes the same share of every layer
    parts: str = choice("all", PRUNED_PARTS)  # "backbone" leaves ASPP and decoder as wide as they are
    round_to: int = number(16, 1, 256)  # what is left of a layer is a multiple, which kernels like
    batches: int = number(8, 1, 10_000)  # of training crops: for new norm statistics, and the gradients of "taylor"
    epochs: int = number(2, 1, 10_000)  # of fine-tuning
    rate_factor: float = number(0.5, 1e-6, 10.0)  # fine-tuning starts at the run's learning_rate times this
    distillation: bool = True  # the dense network teaches the smaller one
    height: int = number(0, 0, 4096)  # of the image that is timed; 0 is the data's own
    width: int = number(0, 0, 8192)
    repeats: int = number(9, 5, 10_000)  # turns in which the networks are timed
    largest_loss: float = number(2.0, 0.0, 100.0)  # points of mIoU that may be lost
    largest_time: float = number(0.55, 0.01, 1.0)  # part of the dense network's latency that may be left
    progress: str = choice("auto", PROGRESS)

    def check(self) -> None:
        """Check the names, and the size that is timed."""
        super().check()
        check_run_name(self.pruned_run)
        if self.pruned_run and self.pruned_run == self.run:
            raise ParameterError(f"pruned_run={self.pruned_run!r}: would replace the dense run; give another name")
        _check_timed_size(self.height, self.width)


@dataclass(frozen=True)
class QuantizeParameters(RunParameters):
    """Export a run, quantise it to 8 bits, and let the gate say what was lost and what was gained, on the CPU."""

    device: str = choice("cpu", ("cpu",))  # where 8 bits are computed here
    compared_with: str = ""  # run to measure against, such as the one before pruning; "" is the run itself
    data_root: str = ""  # "" is the run's own data
    split: str = "val"  # scored by the gate; calibration takes the run's train split
    calibration_images: int = number(32, 1, 100_000)
    backends: str = "onnxruntime openvino"  # separated by blanks
    keep_float: str = choice("first", ("none", "first", "last", "first last"))  # convolutions that are not quantised
    largest_loss: float = number(0.5, 0.0, 100.0)  # points of mIoU
    smallest_speedup: float = number(1.0, 0.0, 1000.0)  # over PyTorch in float32; 0 asks for none
    height: int = number(0, 0, 4096)  # of the image that is timed, in pixels; 0 takes the split's first as it is
    width: int = number(0, 0, 8192)
    warmup: int = number(1, 0, 1000)  # turns that are not counted
    repeats: int = number(11, 3, 10_000)  # turns that are
    memory: bool = True  # measures each network's memory in a process of its own
    compile: bool = False  # adds a row for torch.compile, which takes a minute or more
    progress: str = choice("auto", PROGRESS)

    def check(self) -> None:
        """Check the list of backends, and that height and width come together."""
        super().check()
        named = self.backends.split()
        if not named or not set(named) <= set(BACKENDS) or len(set(named)) < len(named):
            raise ParameterError(f"backends={self.backends!r}: name each once, from {', '.join(BACKENDS)}")
        _check_timed_size(self.height, self.width)

    @property
    def latency_size(self) -> tuple[int, int] | None:
        """Height and width of the image that is timed; None for the split's first as it is."""
        return (self.height, self.width) if self.height else None


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

    data_root: str = DEMO_CITY
    output_stride: int = choice(16, OUTPUT_STRIDES)
    epochs: int = number(26, 1, 1000)
    seed: int = number(0, 0, 2**31 - 1)
    threads: int = number(2, 1, 256)
    progress: str = choice("auto", PROGRESS)


def _check_timed_size(height: int, width: int) -> None:
    """Check the size of an image that is timed: both sides or none, and large enough for every network."""
    if bool(height) != bool(width) or 0 < min(height, width) < SMALLEST_IMAGE:
        raise ParameterError(f"height={height}, width={width}: give both, {SMALLEST_IMAGE} or more each, or 0 for both")
