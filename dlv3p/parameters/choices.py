"""The values that options may take, once for notebooks, library and tests, and how one is checked; no torch here."""

from collections.abc import Sequence

from cityscapes.errors import ParameterError

DEVICES = ("auto", "cpu", "cuda")
PROGRESS = ("auto", "widgets", "lines", "none")
CHECKPOINTS = ("best", "last")
PRECISIONS = ("float32", "bfloat16", "float16")
"""Named as torch names its types."""

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("poly", "cosine", "step", "constant")
LOSSES = ("cross_entropy", "focal", "hard_pixels", "dice", "lovasz", "cross_entropy+dice", "cross_entropy+lovasz")
PIXEL_MEANS = ("cross_entropy", "focal")
"""Losses that a batch's parts give as well as the whole: average those of micro-batches, processes or bands, each
weighed by its `valid_weight`. The others rank or count the pixels of what they are given: average theirs equally, as
the loss of a batch in parts, which is not that of the whole batch."""
BAD_SAMPLES = ("stop", "skip")
SCALES = ("log_uniform", "uniform")
CLASS_WEIGHTS = ("none", "inverse_log")

BACKENDS = ("onnxruntime", "openvino")
"""What quantizes and runs a network in 8 bits."""
PRUNING_CRITERIA = ("magnitude", "fpgm", "bn_scale", "taylor")
PRUNING_RANKINGS = ("uniform", "global", "isomorphic")
PRUNED_PARTS = ("all", "backbone")


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among the `allowed` ones; raises ParameterError that lists them."""
    if value not in allowed:
        raise ParameterError(f"{name}={value!r}: allowed are {', '.join(allowed)}")


def check_batch_size(batch_size: int, *, processes: int, accumulation: int = 1) -> None:
    """Refuse a batch that processes cannot share equally, or cannot go through in so many parts."""
    if batch_size % processes or batch_size // processes < accumulation:
        raise ParameterError(
            f"batch_size={batch_size}: cannot be shared by {processes} processes in {accumulation} parts each; take a "
            f"multiple of {processes}, {processes * accumulation} or more"
        )


def check_chunked_loss(loss: str) -> None:
    """Refuse a loss that cannot be computed band by band."""
    if loss not in PIXEL_MEANS:
        raise ParameterError(
            f"chunked_loss=True: not with loss={loss!r}, which needs all pixels at once; with "
            f"{' and '.join(PIXEL_MEANS)}"
        )
