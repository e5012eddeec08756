"""The parameters of every notebook, one frozen class per notebook, without torch.

A notebook's parameters cell repeats its class, so that papermill can set the values; it is generated from the class by
`python tests/support/refresh_notebooks.py --parameters`, and a test keeps the two in step. What follows from another
choice (dilations, atrous rates, a run's name) is derived, never set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cityscapes.errors import ParameterError
from dlv3p.parameters.annotations import PrepareAnnotationsParameters
from dlv3p.parameters.base import Parameters, choice, number, several, switch, text
from dlv3p.parameters.cases import NETWORKS, Case, list_cases
from dlv3p.parameters.choices import (
    ANIMATIONS,
    BACKENDS,
    CHECKPOINTS,
    EXACT,
    OWN_IDS,
    PRUNED_PARTS,
    PRUNING_CRITERIA,
    PRUNING_RANKINGS,
    RUNTIMES,
    STORED_IDS,
)
from dlv3p.parameters.comparisons import (
    SHARED,
    CompareRunsParameters,
    ExplorePredictionsParameters,
    FindLabelErrorsParameters,
)
from dlv3p.parameters.data_roots import (
    DEMO_CITY,
    DEMO_VOC,
    FLAWED_FOLDER,
    data_of_run_field,
    data_root_field,
    find_drive,
    split_field,
    splits_field,
)
from dlv3p.parameters.many_runs import (
    ReplayParameters,
    ReportParameters,
    SweepParameters,
    VisualizeTrainingParameters,
    WatchParameters,
)
from dlv3p.parameters.network import ARCHITECTURES, BACKBONE_HELP, BACKBONES, OUTPUT_STRIDES, TIMM
from dlv3p.parameters.protocols import PUBLISHED, ProtocolParameters
from dlv3p.parameters.shared_fields import (
    check_predictor,
    check_timed_size,
    device_field,
    figures_field,
    images_field,
    memory_gib_field,
    name_classes_field,
    predicting_workers_field,
    progress_field,
    threads_field,
    tile_field,
    tile_overlap_field,
    weights_field,
)
from dlv3p.parameters.training import TrainParameters, check_run_name

__all__ = [
    "SHARED",
    "CompareRunsParameters",
    "ExplorePredictionsParameters",
    "FindLabelErrorsParameters",
    "PrepareAnnotationsParameters",
    "ReplayParameters",
    "ReportParameters",
    "SweepParameters",
    "TrainParameters",
    "VisualizeTrainingParameters",
    "WatchParameters",
]


SECOND_PROTOCOLS = ("none", *PUBLISHED)
COLOR_MODES = ("rgba", "palette")
KEPT_FLOAT = ("none", "first", "last", "first last")


@dataclass(frozen=True)
class PrepareCityscapesParameters(Parameters):
    """Draw masks from polygons, compare them with provided ones and audit the data set before anyone trains."""

    data_root: str = data_root_field(DEMO_CITY, "demo_city (embedded), or a folder with leftImg8bit/ and gtFine/")
    splits: str = splits_field("train val", "separated by spaces; the test split has no public masks")
    workers: int = number(0, 0, 256, "threads; 0: one per core")
    force: bool = switch(False, "redraws masks that are up to date")
    color_mode: str = choice("rgba", COLOR_MODES, "of the color masks: rgba like the official files, or palette")
    instances: bool = switch(False, "also instance ids, 16-bit like the official files")
    examples: int = number(2, 1, 50, "images shown under their masks")
    figures: str = figures_field()


@dataclass(frozen=True)
class PrepareVocParameters(Parameters):
    """Unpack PASCAL VOC, join SBD's masks to it, and look at both."""

    data_root: str = text(DEMO_VOC, "demo_voc (embedded), or the folder that holds or will hold VOCdevkit/")
    archives: str = text("", 'where the two archives are, or are downloaded to; "": archives/ in data_root')
    with_sbd: bool = switch(True, "adds the masks of SBD and the list train_aug")
    examples: int = number(2, 1, 50, "images shown with their masks")
    progress: str = progress_field()


@dataclass(frozen=True)
class AuditDataParameters(Parameters):
    """Look through a data set of any kind before anyone trains on it."""

    data_root: str = data_root_field(FLAWED_FOLDER, "flawed_folder (embedded), demo_city, demo_voc, or your folder")
    splits: str = splits_field("train val", "separated by spaces, the one to train on first")
    image_list: str = text("", 'list.txt of images, the only ones to look at; "": all of the splits')
    examples: int = number(2, 1, 50, "images of each split shown with their masks")
    figures: str = figures_field()
    progress: str = progress_field()


@dataclass(frozen=True)
class RunParameters(Parameters):
    """The parameters of every notebook that uses a finished run; the rest is read from the run's folder."""

    run: str = text("", 'folder below saved/; "" is the newest run, or the stored one if there is none')
    checkpoint: str = choice("best", CHECKPOINTS, "best or last")
    device: str = device_field()
    threads: int = threads_field()

    def check(self) -> None:
        """Check the run's name, which is a folder."""
        super().check()
        check_run_name(self.run)


@dataclass(frozen=True)
class EvaluateParameters(ProtocolParameters, RunParameters):
    """Score a run on a labeled split."""

    data_root: str = data_of_run_field()
    split: str = split_field("val", "a split with masks")
    details: bool = switch(True, "edges, object sizes and calibration too, in a second pass")
    temperature_split: str = split_field("", 'fits a temperature on another split with masks; "": none')
    second_protocol: str = choice("none", SECOND_PROTOCOLS, "scored as well, after the first is saved; none: not")
    examples: int = number(3, 1, 50, "images shown with their errors")
    name_classes: bool = name_classes_field()
    figures: str = figures_field()
    progress: str = progress_field()


@dataclass(frozen=True)
class SavePredictionsParameters(ProtocolParameters, RunParameters):
    """Predict a split as label-id PNGs and pack them for the official server."""

    data_root: str = data_of_run_field()
    split: str = split_field("test", "the split; the server expects test")
    workers: int = predicting_workers_field()
    progress: str = progress_field()


@dataclass(frozen=True)
class PredictParameters(ProtocolParameters, RunParameters):
    """Predict images of any kind: one, a folder, a list, a video."""

    weights: str = weights_field()
    images: str = images_field(
        DEMO_CITY, "an image, a folder, 'a pattern*.jpg', a list.txt, a video, or demo_city", embedded=DEMO_CITY
    )
    output: str = text("", 'folder of the results; "" is outputs/<run>/predict_<images>')
    runtime: str = choice(EXACT, RUNTIMES, "exact or folded (both torch), fastest, onnxruntime or openvino")
    ids: str = choice(OWN_IDS, STORED_IDS, "own (label ids for Cityscapes' classes) or train")
    colors: bool = switch(True, "also writes the class colors")
    overlays: bool = switch(True, "also writes the image under its class colors, as JPEG")
    confidence: bool = switch(False, "also writes the probability of the best class, 255 for 1")
    batch_size: int = number(1, 1, 256, "images per batch, of one size; above 1, last bits may differ")
    memory_gib: float = memory_gib_field()
    tile: int = tile_field()
    tile_overlap: int = tile_overlap_field()
    workers: int = predicting_workers_field()
    progress: str = progress_field()

    def check(self) -> None:
        """Check that network and tiles are possible."""
        super().check()
        check_predictor(run=self.run, weights=self.weights, tile=self.tile, overlap=self.tile_overlap)


@dataclass(frozen=True)
class RenderGifParameters(RunParameters):
    """Show a drive: image, prediction, overlay and, where there is one, the truth."""

    weights: str = weights_field()
    data_root: str = data_of_run_field()
    split: str = split_field("val", "which images", unless="images")
    city: str = text("", 'one city; "" takes all')
    sequence: str = text("", 'six digits, in quotes in a cell, as in 000001; "" takes all')
    frames: int = number(20, 1, 10_000, "at most this many")
    width: int = number(960, 128, 4096, "of the picture, in pixels")
    seconds_per_frame: float = number(0.5, 0.02, 60.0, "how long a frame stays")
    alpha: float = number(0.5, 0.0, 1.0, "share of the class colors in the overlay")
    show_truth: bool = switch(True, "adds the truth where every frame has one")
    name_classes: bool = name_classes_field()
    images: str = images_field(
        "", 'an image, folder, pattern, list or video, as for predict; "" takes the split', embedded=DEMO_CITY
    )
    memory_gib: float = memory_gib_field()
    tile: int = tile_field()
    tile_overlap: int = tile_overlap_field()
    animation: str = choice("gif", ANIMATIONS, "gif, webp or mp4 (H.264, needs the extra video)")
    progress: str = progress_field()

    def check(self) -> None:
        """Check that network and tiles are possible, that there is data, and that a video can have this width."""
        super().check()
        check_predictor(run=self.run, weights=self.weights, tile=self.tile, overlap=self.tile_overlap)
        if self.weights and not (self.images or self.data_root):
            raise ParameterError(f"weights={self.weights!r}: belong to no data set; give images, or a data_root")
        if self.animation == "mp4" and self.width % 2:
            raise ParameterError(f"width={self.width}: a video has an even one; take {self.width + 1}, or a gif")

    def find_inputs(self, **known: str) -> None:
        """Find the drive as well."""
        super().find_inputs(**known)
        if not self.images:
            find_drive(self.city, self.sequence, self.data_root or known.get("data_root", ""), self.split)


@dataclass(frozen=True)
class ArchitectureParameters(Parameters):
    """Look at a network: shapes, dilations, receptive fields, and its size beside that of the others."""

    architecture: str = choice("deeplabv3plus", ARCHITECTURES, "deeplabv3plus or deeplabv3")
    backbone: str = choice("resnet18", tuple(BACKBONES), BACKBONE_HELP, prefix=TIMM)
    channels: int = number(256, 8, 1024, "width of ASPP and decoder")
    num_classes: int = number(19, 2, 256, "outputs of the classifier")
    height: int = number(512, 33, 4096, "pixels, of the image whose shapes and MACs are shown; 1024 for Cityscapes")
    width: int = number(1024, 33, 8192, "pixels; 2048 for Cityscapes")
    field_height: int = number(257, 33, 2049, "pixels, of the pictures of receptive fields")
    field_width: int = number(513, 33, 2049, "pixels")
    threads: int = threads_field()
    figures: str = figures_field()


@dataclass(frozen=True)
class ProfileParameters(RunParameters):
    """Measure what a network costs, over backbones, strides, sizes, batches, precisions, compiled or not.

    Every list is a text of values separated by spaces; all combinations are measured.
    """

    network: str = choice("run", NETWORKS, "whose switches: run, or as published: vovnet_system, notebook_system")
    backbones: str = several("", 'resnet50 vovnet39 ...; "" is the run\'s own, or what the system published')
    output_strides: str = several("8 16", "8, 16, 32, separated by spaces, as in all lists")
    sizes: str = several("128x256", "height x width in pixels; 1024x2048 for Cityscapes")
    batch_sizes: str = several("1", "images at a time")
    precisions: str = several("float32", "of weights and activations: float32, bfloat16, float16")
    compiles: str = several("off", "torch.compile: off, on, or both")
    warmup: int = number(3, 0, 1000, "predictions before timing starts")
    repeats: int = number(10, 1, 10_000, "timed predictions")
    energy_seconds: float = number(5.0, 0.0, 3600.0, "of continuous predictions, to measure energy; 0 skips it")
    idle_seconds: float = number(2.0, 1.0, 60.0, "of idle power, measured before")
    figures: str = figures_field()
    progress: str = progress_field()

    LISTS = ("backbones", "output_strides", "sizes", "batch_sizes", "precisions", "compiles")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build the set from names and values; a list of one integer may be a number, as papermill passes it."""
        texts = {name: str(values[name]) for name in cls.LISTS if type(values.get(name)) is int}
        return super().from_mapping({**values, **texts})

    def check(self) -> None:
        """Check the run's name, and every value of the lists."""
        super().check()
        self.cases("resnet18")
        if 0 < self.energy_seconds < 1:
            raise ParameterError(f"energy_seconds={self.energy_seconds}: allowed are 0, to skip it, or at least 1")

    def cases(self, backbones: str) -> list[Case]:
        """Return all cases to measure; `backbones` replaces an empty list."""
        lists = {name: getattr(self, name) for name in self.LISTS}
        return list_cases(**lists | {"backbones": self.backbones or backbones})


@dataclass(frozen=True)
class PruneParameters(RunParameters):
    """Take channels out of a run's network, fine-tune what is left, and see what that gains and costs."""

    run: str = text("", 'folder below saved/; "" is the newest unpruned run, or the stored one if none')
    pruned_run: str = text("", 'folder below saved/ for the result; "" is the run\'s name and -pruned')
    data_root: str = data_root_field("", 'where the run\'s data is now; "" is where it was')
    sparsity: float = number(0.5, 0.01, 0.99, "share of the channels to remove")
    criterion: str = choice("magnitude", PRUNING_CRITERIA, "of channels, by magnitude, fpgm, bn_scale or taylor")
    ranking: str = choice("uniform", PRUNING_RANKINGS, "uniform (the same share of every layer), global or isomorphic")
    parts: str = choice("all", PRUNED_PARTS, "all, or backbone, which keeps the widths of ASPP and decoder")
    round_to: int = number(16, 1, 256, "widths are rounded to a multiple of this, for faster kernels")
    batches: int = number(8, 1, 10_000, "of training crops, to recompute norm statistics, and for taylor")
    epochs: int = number(2, 1, 10_000, "of fine-tuning")
    rate_factor: float = number(0.5, 1e-6, 10.0, "fine-tuning starts at the run's learning_rate times this")
    distillation: bool = switch(True, "fine-tunes with the dense network as teacher")
    height: int = number(0, 0, 4096, "pixels of the image that is timed, 33 or more; 0 is the size of the data")
    width: int = number(0, 0, 8192, "pixels; 0 together with height")
    repeats: int = number(9, 5, 10_000, "rounds of interleaved timing")
    largest_loss: float = number(2.0, 0.0, 100.0, "largest accepted loss, in points of mIoU")
    largest_time: float = number(0.55, 0.01, 1.0, "largest accepted latency, as a share of the dense network's")
    figures: str = figures_field()
    progress: str = progress_field()

    def check(self) -> None:
        """Check the names, and the size that is timed."""
        super().check()
        check_run_name(self.pruned_run, parameter="pruned_run")
        if self.pruned_run and self.pruned_run == self.run:
            raise ParameterError(f"pruned_run={self.pruned_run!r}: would replace the dense run; give another name")
        check_timed_size(self.height, self.width)


@dataclass(frozen=True)
class QuantizeParameters(RunParameters):
    """Export a run, quantize it to 8 bits, and compare accuracy and speed on the CPU in the acceptance check."""

    device: str = choice("cpu", ("cpu",), "cpu, where 8 bits are computed here")
    threads: int = number(2, 1, 256, "CPU threads, of every runtime")
    compared_with: str = text("", 'baseline run, such as the one before pruning; "" is the run itself')
    data_root: str = data_of_run_field()
    split: str = split_field("val", "a split with masks, to score; calibration takes the train split")
    calibration_images: int = number(32, 1, 100_000, "of the train split; all if there are fewer")
    backends: str = several("onnxruntime openvino", "separated by spaces")
    keep_float: str = choice("first", KEPT_FLOAT, "convolutions not quantized: none, first, last or first last")
    largest_loss: float = number(0.5, 0.0, 100.0, "largest accepted loss, in points of mIoU")
    smallest_speedup: float = number(1.0, 0.0, 1000.0, "smallest accepted speedup over PyTorch in float32; 0: any")
    height: int = number(0, 0, 4096, "pixels of the image that is timed; 0 takes the split's first as it is")
    width: int = number(0, 0, 8192, "pixels; 0 together with height")
    warmup: int = number(1, 0, 1000, "rounds before timing starts")
    repeats: int = number(11, 3, 10_000, "timed rounds")
    memory: bool = switch(True, "measures each network's memory in a process of its own")
    compile: bool = switch(False, "adds a row for torch.compile, which takes a minute or more")
    figures: str = figures_field()
    progress: str = progress_field()

    def check(self) -> None:
        """Check the list of backends, and that height and width come together."""
        super().check()
        named = self.backends.split()
        if not named or not set(named) <= set(BACKENDS) or len(set(named)) < len(named):
            raise ParameterError(f"backends={self.backends!r}: allowed are {', '.join(BACKENDS)}, each at most once")
        check_timed_size(self.height, self.width)

    @property
    def latency_size(self) -> tuple[int, int] | None:
        """Height and width of the image that is timed; None for the split's first as it is."""
        return (self.height, self.width) if self.height else None


@dataclass(frozen=True)
class ImportWeightsParameters(Parameters):
    """Bring a weights file from elsewhere, see what it is, score it, and keep it as a run."""

    weights: str = weights_field('path; "" writes a stand-in in VainF\'s layout, of the newest run if there is one')
    run: str = text("", 'name of the folder below saved/; "" is the file\'s name')
    output_stride: int = choice(0, (0, *OUTPUT_STRIDES), "8, 16 or 32; 0 is what the file says, or what was published")
    weight_standardization: str = choice("", ("", "always", "never"), '"": as published; else always or never')
    data_root: str = data_root_field(DEMO_CITY, "demo_city, demo_voc, or the folder of a data set")
    split: str = split_field("val", "a split with masks")
    examples: int = number(2, 1, 50, "images shown with their predictions")
    device: str = device_field()
    threads: int = threads_field()
    progress: str = progress_field()

    def check(self) -> None:
        """Check the run's name, which is a folder."""
        check_run_name(self.run)


@dataclass(frozen=True)
class QuickstartParameters(Parameters):
    """The whole story on the embedded city."""

    data_root: str = data_root_field(DEMO_CITY, "the embedded city, or a folder in the layout of Cityscapes")
    output_stride: int = choice(16, OUTPUT_STRIDES, "8, 16 or 32; 8 is finer and about three times slower than 16")
    epochs: int = number(17, 1, 1000, "passes over the training images")
    seed: int = number(0, 0, 2**31 - 1, "a different seed gives a different run")
    threads: int = threads_field()
    figures: str = figures_field()
    progress: str = progress_field()

    @property
    def training(self) -> TrainParameters:
        """The parameters of the story's training."""
        return TrainParameters.from_mapping(self.as_dict())
