"""Knowledge distillation: softened predictions of another network as targets beside the labels (arXiv:1503.02531)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cityscapes.errors import IntegrityError, ParameterError
from cityscapes.files.channels import PixelRule, refuse_other_rule
from cityscapes.files.untrusted import given_path, sanitize
from cityscapes.labels import IGNORE
from dlv3p.data.classes import numbered_otherwise
from dlv3p.models.deeplab import DeepLab, upsample
from dlv3p.runs.folders import find_run
from dlv3p.runs.loading import load_run_checkpoint
from dlv3p.runtime.devices import LAYOUT
from dlv3p.weights.checkpoint import model_from_checkpoint
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.loading import load_model, refuse_impossible

TEMPERATURE = 2.0
"""The temperature that the logits of teacher and student are divided by (section 2)."""


def load_teacher(
    name: str,
    num_classes: int,
    device: torch.device,
    rule: PixelRule | None = None,
    class_names: Sequence[str] = (),
) -> DeepLab | None:
    """Load the teacher from the run or weights file `name`; return None for "".

    It is in evaluation mode and its weights are frozen; of a run, the best checkpoint is used. Raises MissingInputError
    when neither exists, ParameterError when it has other classes, as far as they are known, InputError when its images
    are of another `rule`, and IntegrityError for weights that no training leaves, such as nan.
    """
    if not name:
        return None
    path = given_path(name)
    if path.is_file() or path.suffix in (".pt", ".pth", ".safetensors", ".npz") or len(path.parts) > 1:
        teacher, _, taught = load_model(path)
    else:
        state = load_run_checkpoint(find_run(name))
        (teacher, _), taught = model_from_checkpoint(state), state["class_names"]
    if teacher.classifier.out_channels != num_classes:
        raise ParameterError(
            f"teacher={name!r}: has {teacher.classifier.out_channels} classes, the data {num_classes}; choose one that "
            "was trained on the same classes"
        )
    if moved := numbered_otherwise(taught or (), class_names):
        index, theirs, ours = moved
        raise ParameterError(
            f"teacher={name!r}: numbers the classes in another way: id {index} is {sanitize(theirs)!r} and in the data "
            f"{sanitize(ours)!r}; choose one that was trained on the same classes"
        )
    refuse_other_rule(teacher.rule, rule, f"teacher={name!r}")
    refuse_impossible(teacher.state_dict(), f"teacher={name!r}")
    return teacher.requires_grad_(False).to(device, memory_format=LAYOUT)


def refuse_other_teacher(teacher: DeepLab | None, saved: Mapping[str, Any] | None) -> str:
    """Return the hash of a teacher's weights, "" without one; raises IntegrityError where others taught until `saved`.

    `saved` is the checkpoint that a run is resumed from, if any.
    """
    found = weights_sha256(teacher.state_dict()) if teacher else ""
    if (saved or {}).get("teacher_sha256", found) != found:
        raise IntegrityError(
            "teacher: its weights are not those that taught the run so far; restore them, or train as another run"
        )
    return found


@torch.no_grad()
def teach(teacher: DeepLab, image: Tensor) -> Tensor:
    """Return the teacher's logits (N,C,h,w) before their last upsampling, without a gradient."""
    return teacher.logits_at_stride(image)


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor, *, align_corners: bool = False
) -> Tensor:
    """Return the mean over the valid pixels of T^2 KL(teacher || student) at temperature T; 0 where none is valid.

    Logits are (N,C,h,w) before or after the last upsampling; the teacher's are resized to the student's size, with the
    student's `align_corners`. At the stride, a pixel represents stride x stride pixels of the image, which costs as
    much less; it is valid where the nearest pixel of `mask` (N,H,W) is not ignored. T^2 preserves the scale of the
    gradient (section 2.1).
    """
    size = student_logits.shape[-2:]
    if teacher_logits.shape[-2:] != size:
        teacher_logits = upsample(teacher_logits.float(), size, align_corners=align_corners)
    if mask.shape[-2:] != size:
        mask = functional.interpolate(mask[:, None].float(), size=size, mode="nearest-exact")[:, 0]
    student = functional.log_softmax(student_logits.float() / TEMPERATURE, dim=1)
    teacher = functional.log_softmax(teacher_logits.float() / TEMPERATURE, dim=1)
    divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    valid = mask != IGNORE
    return TEMPERATURE**2 * (divergence * valid).sum() / valid.sum().clamp(min=1)
