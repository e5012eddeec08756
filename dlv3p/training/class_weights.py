"""The weights of the classes in the loss, from how often each occurs in what is trained on."""

import torch
from torch import Tensor

from cityscapes.errors import InputError
from cityscapes.labels import IGNORE
from dlv3p.data.split import Split
from dlv3p.parameters.training import TrainParameters
from dlv3p.runtime.processes import from_first, place
from dlv3p.training.losses import inverse_log_weights


def class_weights(parameters: TrainParameters, split: Split) -> Tensor | None:
    """Return weights float32 (C,) as `parameters.class_weights` wants them, None for "none"; one process counts."""
    if parameters.class_weights == "none":
        return None
    counts = _count(split, skip_bad=parameters.on_bad_sample == "skip") if place().first else None
    return inverse_log_weights(from_first(counts))


def _count(split: Split, *, skip_bad: bool) -> Tensor:
    counts = torch.zeros(split.num_classes, dtype=torch.int64)
    for index in range(len(split)):
        try:
            mask = torch.from_numpy(split.mask(index).astype("int64"))
        except InputError:
            if not skip_bad:
                raise
            continue  # told of by the loader, when its turn comes
        counts += torch.bincount(mask[mask != IGNORE], minlength=len(counts))
    return counts
