"""Learning from a teacher: what its loss is, and which teachers are taken."""

import pytest
import torch
from torch.nn import functional

from cityscapes.errors import InputError, IntegrityError, MissingInputError, ParameterError
from cityscapes.files.channels import PixelRule
from cityscapes.labels import IGNORE
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.notebooks import TrainParameters
from dlv3p.training.distillation import TEMPERATURE, distillation_loss, load_teacher, refuse_other_teacher, teach
from dlv3p.weights.loading import save_model

SMALL = {"architecture": "deeplabv3", "channels": 8}


def logits(seed, size=(6, 10)):
    return torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_student_that_says_the_same_has_nothing_to_learn():
    mask = torch.zeros(2, 6, 10, dtype=torch.int64)
    student = logits(0).requires_grad_()
    loss = distillation_loss(student, logits(0) + 3, mask)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.abs().max() < 1e-6


def test_the_loss_is_the_divergence_of_softened_predictions_over_the_valid_pixels():
    mask = torch.zeros(2, 6, 10, dtype=torch.int64)
    mask[0, :, 5:] = IGNORE
    mask[1, 2] = IGNORE
    p = functional.softmax(logits(1).float() / TEMPERATURE, dim=1)
    q = functional.softmax(logits(0).float() / TEMPERATURE, dim=1)
    pixels = (p * (p / q).log()).sum(dim=1)[mask != IGNORE]
    assert len(pixels) == 80
    expected = TEMPERATURE**2 * pixels.mean()
    assert distillation_loss(logits(0), logits(1), mask).item() == pytest.approx(expected.item(), rel=1e-5)


def test_ignored_pixels_neither_teach_nor_dilute():
    mask = torch.zeros(2, 6, 10, dtype=torch.int64)
    mask[:, :3] = IGNORE
    student = logits(0).requires_grad_()
    distillation_loss(student, logits(1), mask).backward()
    assert student.grad[:, :, :3].abs().max() == 0
    assert student.grad[:, :, 3:].abs().min() > 0
    alone = distillation_loss(logits(0)[:, :, 3:], logits(1)[:, :, 3:], mask[:, 3:])
    assert distillation_loss(logits(0), logits(1), mask).item() == pytest.approx(alone.item(), rel=1e-6)
    assert distillation_loss(logits(0), logits(1), torch.full_like(mask, IGNORE)).item() == 0


def test_logits_of_other_strides_meet_at_the_students_size():
    mask = torch.zeros(2, 24, 40, dtype=torch.int64)
    mask[:, :12] = IGNORE
    student, teacher = logits(0), logits(1, (3, 5))
    larger = functional.interpolate(teacher.float(), size=(6, 10), mode="bilinear")
    small = mask[:, ::4, ::4]
    expected = distillation_loss(student, larger, small).item()
    assert distillation_loss(student, teacher, mask).item() == pytest.approx(expected, rel=1e-6)


def test_a_teacher_is_a_weights_file_that_learns_nothing(tmp_path):
    torch.manual_seed(0)
    parameters = TrainParameters(**SMALL)
    model = build_network(parameters, 5).eval()
    path = tmp_path / "teacher.safetensors"
    save_model(path, model, parameters, list("abcde"))
    teacher = load_teacher(str(path), 5, torch.device("cpu"))
    image = torch.randn(1, 3, 65, 97)
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert torch.allclose(teach(teacher, image), model.logits_at_stride(image).detach(), atol=1e-4)
    with pytest.raises(ParameterError, match="has 5 classes, the data 19"):
        load_teacher(str(path), 19, torch.device("cpu"))


def test_a_teacher_that_was_trained_on_since_is_refused():
    torch.manual_seed(0)
    teacher = build_network(TrainParameters(**SMALL), 5).eval()
    known = refuse_other_teacher(teacher, None)
    assert refuse_other_teacher(teacher, {"teacher_sha256": known}) == known
    assert refuse_other_teacher(teacher, {}) == known  # a checkpoint of an earlier version
    assert refuse_other_teacher(None, {"teacher_sha256": ""}) == ""
    teacher.classifier.weight.data[0] += 1
    with pytest.raises(IntegrityError, match="teacher: its weights are not those that taught the run so far"):
        refuse_other_teacher(teacher, {"teacher_sha256": known})


def test_a_teacher_that_is_not_finite_is_named(tmp_path):
    model = build_network(TrainParameters(**SMALL), 5).eval()
    model.classifier.bias.data[0] = torch.inf
    save_model(tmp_path / "t.safetensors", model, TrainParameters(**SMALL), list("abcde"))
    with pytest.raises(IntegrityError, match="1 of its tensors hold nan or infinity, the first classifier.bias"):
        load_teacher(str(tmp_path / "t.safetensors"), 5, torch.device("cpu"))


def test_no_teacher_is_none_and_an_absent_one_is_told(workspace):
    assert load_teacher("", 19, torch.device("cpu")) is None
    with pytest.raises(MissingInputError, match="no run yet"):
        load_teacher("dense", 19, torch.device("cpu"))
    with pytest.raises(MissingInputError, match=r"none\.safetensors"):
        load_teacher("none.safetensors", 19, torch.device("cpu"))
    with pytest.raises(ParameterError, match="a run cannot teach itself"):
        TrainParameters(run="a", teacher="a")


def test_a_teacher_of_other_images_is_refused(tmp_path):
    path, switches = tmp_path / "teacher.safetensors", TrainParameters(**SMALL)
    save_model(path, build_network(switches, 2), switches, ["a", "b"])
    rule = PixelRule(5, (0.0, 1.0), (0.0,) * 5, (1.0,) * 5)
    with pytest.raises(InputError, match="takes images of RGB, and given are images of 5 channels of 0 to 1"):
        load_teacher(str(path), 2, torch.device("cpu"), rule)
