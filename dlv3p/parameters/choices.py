"""The allowed values of options other than those of the network, and their checks; without torch."""

from collections.abc import Sequence

from cityscapes.errors import ParameterError

DEVICES = ("auto", "cpu", "cuda")
EXECUTORS = ("local", "slurm", "dask")
TRACKERS = ("none", "trackio", "wandb")
PROGRESS = ("auto", "widgets", "lines", "none")
CHECKPOINTS = ("best", "last")
MASK_IDS = ("train", "label")
PRECISIONS = ("float32", "bfloat16", "float16")
"""The names of torch's types."""

HEAD_INITIALIZATIONS = ("he_normal", "fan_out_normal", "xavier", "torch")
"""What the weights of convolutions after the backbone are drawn from; see `dlv3p.models.deeplab.initialize`."""
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("poly", "cosine", "step", "constant")
LOSSES = ("cross_entropy", "focal", "hard_pixels", "dice", "lovasz", "cross_entropy+dice", "cross_entropy+lovasz")
PIXEL_MEANS = ("cross_entropy", "focal")
"""Losses that are means over pixels: over micro-batches, processes or bands, their average, weighted by `valid_weight`,
equals the loss of the whole batch. The others rank or count the pixels of each part: their parts are averaged equally,
which differs from the loss of the whole batch."""
BAD_SAMPLES = ("stop", "skip")
SCALES = ("log_uniform", "uniform")
CLASS_WEIGHTS = ("none", "inverse_log")

BACKENDS = ("onnxruntime", "openvino")
"""The runtimes that quantize a network and run it in 8 bits."""
EXACT, FOLDED, FASTEST = "exact", "folded", "fastest"
RUNTIMES = (EXACT, FOLDED, FASTEST, *BACKENDS)
"""What predicts images: torch on the path that gives the same pixels everywhere, torch with batch norms folded into
convolutions, the fastest here, or another by name."""
CURVES_OVER = ("epoch", "step", "hours", "joules")
"""What the curves of runs are drawn over; batches of other sizes make steps and hours differ."""
ANIMATIONS = ("gif", "webp", "mp4")
OWN_IDS, TRAIN_IDS = "own", "train"
STORED_IDS = (OWN_IDS, TRAIN_IDS)
PRUNING_CRITERIA = ("magnitude", "fpgm", "bn_scale", "taylor")
PRUNING_RANKINGS = ("uniform", "global", "isomorphic")
PRUNED_PARTS = ("all", "backbone")
FIGURES = ("png", "svg", "pdf")
"""Formats of figures: pixels, and two that can be scaled."""


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise ParameterError, which lists the `allowed` values, for any other value."""
    if value not in allowed:
        raise ParameterError(f"{name}={value!r}: allowed are {', '.join(allowed)}")


def check_batch_size(batch_size: int, *, processes: int, accumulation: int = 1) -> None:
    """Raise ParameterError for a batch that processes cannot share equally, or cannot accumulate in that many parts."""
    if batch_size % processes or batch_size // processes < accumulation:
        raise ParameterError(
            f"batch_size={batch_size}: cannot be split equally over processes={processes} with at least "
            f"accumulation={accumulation} crops each; allowed are multiples of {processes}, from "
            f"{processes * accumulation} on"
        )


def check_chunked_loss(loss: str) -> None:
    """Raise ParameterError for a loss that cannot be computed band by band."""
    if loss not in PIXEL_MEANS:
        raise ParameterError(
            f"chunked_loss=True: not with loss={loss!r}, which needs all pixels at once; allowed are "
            f"{' and '.join(PIXEL_MEANS)}"
        )
