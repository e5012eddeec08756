"""Losses are what is written of them, by hand and beside public code; what is ignored neither adds nor dilutes."""

import math

import pytest
import torch
from torch.nn import functional

from dlv3p.parameters.choices import LOSSES, PIXEL_MEANS
from dlv3p.training import losses as losses_module
from dlv3p.training.losses import inverse_log_weights, make_loss, valid_weight

WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 3.0])
losses = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 5, generator=generator)
    mask = torch.randint(0, 4, (2, 6, 5), generator=generator)
    return logits, mask


def of_probabilities(*pixels):
    """Logits (1,C,1,W) whose softmax is these probabilities."""
    return torch.tensor(pixels).log().T.reshape(1, len(pixels[0]), 1, len(pixels))


def gradient(loss, logits, mask):
    logits = logits.detach().requires_grad_()
    (result,) = torch.autograd.grad(loss(logits, mask), logits)
    return result


@losses
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_ignored_pixels_change_nothing(name, weights, batch):
    logits, mask = batch
    loss = make_loss(name, weights)
    wider_logits = torch.cat([logits, 100 * torch.randn(2, 4, 6, 7)], dim=3)
    wider_mask = torch.cat([mask, torch.full((2, 6, 7), 255)], dim=2)
    assert loss(wider_logits, wider_mask).item() == pytest.approx(loss(logits, mask).item(), rel=1e-5)
    slopes = gradient(loss, wider_logits, wider_mask)
    assert torch.equal(slopes[..., 5:], torch.zeros(2, 4, 6, 7))
    torch.testing.assert_close(slopes[..., :5], gradient(loss, logits, mask), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["lovasz", "hard_pixels"])
@pytest.mark.parametrize("labels", [4, 2, 0])
def test_a_gpu_which_cannot_skip_what_it_does_not_know_gives_the_same(name, labels, batch, monkeypatch):
    logits, mask = batch
    mask = mask.where(mask < labels, 255)
    loss = make_loss(name)
    value, slopes = loss(logits, mask), gradient(loss, logits, mask)
    monkeypatch.setattr(losses_module, "_costs_no_wait", lambda _: False)
    assert torch.equal(loss(logits, mask), value)
    assert torch.equal(gradient(loss, logits, mask), slopes)


@losses
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_batch_without_a_label_gives_zero_and_a_finite_gradient(name, weights, batch):
    logits, mask = batch
    logits.requires_grad_(True)
    value = make_loss(name, weights)(logits, torch.full_like(mask, 255))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@losses
def test_no_order_of_images_or_pixels_matters(name, batch):
    logits, mask = batch
    mask[0, :2] = 255
    loss = make_loss(name, WEIGHTS)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    shuffled = logits.movedim(1, 3).reshape(60, 4)[order].T.reshape(1, 4, 10, 6)
    moved_mask = mask.flatten()[order].reshape(1, 10, 6)
    assert loss(shuffled, moved_mask).item() == pytest.approx(loss(logits, mask).item(), rel=1e-5)


@losses
@pytest.mark.parametrize("weights", [None, WEIGHTS.double()])
def test_gradients_are_those_of_finite_differences(name, weights):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.randint(0, 3, (2, 3, 3), generator=generator)  # the last class is absent
    mask[0, 0] = 255
    loss = make_loss(name, weights, focal_gamma=1.5, hard_share=0.4)
    assert torch.autograd.gradcheck(lambda logits: loss(logits, mask), logits)


@losses
def test_a_sure_and_right_prediction_costs_nothing(name, batch):
    _, mask = batch
    mask[1] = 255
    logits = 200.0 * functional.one_hot(mask.clamp(max=3), 4).movedim(3, 1)
    assert make_loss(name)(logits, mask).item() == pytest.approx(0, abs=1e-6)
    assert gradient(make_loss(name, focal_gamma=0.5), logits, mask).isfinite().all()


@losses
@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_narrow_logits_are_summed_in_float32_within_autocast(name, narrow, batch):
    logits, mask = batch
    logits = logits.to(narrow)
    with torch.autocast("cpu", torch.bfloat16):
        value = make_loss(name)(logits, mask)
    assert value.dtype == torch.float32
    assert value.item() == make_loss(name)(logits.float(), mask).item()


def test_cross_entropy_is_the_mean_over_valid_pixels_as_torch_weighs_them(batch):
    logits, mask = batch
    mask[0, 0] = 255
    for weights in (None, WEIGHTS):
        expected = functional.cross_entropy(logits, mask, weight=weights, ignore_index=255).item()
        assert make_loss("cross_entropy", weights)(logits, mask).item() == pytest.approx(expected, rel=1e-6)


def test_focal_loss_of_one_pixel_is_as_computed_by_hand():
    logits, truth = of_probabilities((0.25, 0.75)), torch.tensor([[[1]]])
    assert make_loss("focal")(logits, truth).item() == pytest.approx(0.25**2 * -math.log(0.75), rel=1e-5)
    half = make_loss("focal", focal_gamma=0.5)(logits, truth).item()
    assert half == pytest.approx(0.25**0.5 * -math.log(0.75), rel=1e-5)


def test_focal_loss_of_gamma_0_is_cross_entropy(batch):
    logits, mask = batch
    mask[1, 2:] = 255
    value = make_loss("focal", WEIGHTS, focal_gamma=0.0)(logits, mask).item()
    assert value == pytest.approx(make_loss("cross_entropy", WEIGHTS)(logits, mask).item(), rel=1e-6)


@pytest.mark.parametrize("name", PIXEL_MEANS)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_parts_of_a_batch_add_up_to_the_whole(name, weights, batch):
    logits, mask = batch
    mask[0, :4] = 255
    loss = make_loss(name, weights)
    shares = [valid_weight(mask[index : index + 1], weights) / valid_weight(mask, weights) for index in range(2)]
    parts = [loss(logits[index : index + 1], mask[index : index + 1]) * share for index, share in enumerate(shares)]
    assert sum(parts).item() == pytest.approx(loss(logits, mask).item(), rel=1e-6)


def test_hard_pixels_are_the_worst_of_the_valid_ones():
    logits = of_probabilities((0.1, 0.9), (0.5, 0.5), (0.8, 0.2), (0.9, 0.1), (0.01, 0.99), (0.3, 0.7))
    truth = torch.tensor([[[0, 0, 0, 0, 255, 255]]])
    assert make_loss("hard_pixels", hard_share=0.25)(logits, truth).item() == pytest.approx(-math.log(0.1), rel=1e-5)
    half = make_loss("hard_pixels", hard_share=0.5)
    assert half(logits, truth).item() == pytest.approx(-(math.log(0.1) + math.log(0.5)) / 2, rel=1e-5)
    assert gradient(half, logits, truth).abs().sum(dim=1).flatten().gt(0).tolist() == [True, True, *4 * [False]]


def test_hard_pixels_of_all_are_the_mean_and_of_few_at_least_one(batch):
    logits, mask = batch
    mask[0] = 255
    for weights in (None, WEIGHTS):
        every = make_loss("hard_pixels", weights, hard_share=1.0)(logits, mask).item()
        assert every == pytest.approx(make_loss("cross_entropy", weights)(logits, mask).item(), rel=1e-6)
    worst = functional.cross_entropy(logits, mask, ignore_index=255, reduction="none").max().item()
    assert make_loss("hard_pixels", hard_share=0.001)(logits, mask).item() == pytest.approx(worst, rel=1e-6)


def test_equally_hard_pixels_share_what_room_there_is():
    """Two of four equal pixels have room: each of the four learns, half as much."""
    logits, truth = torch.zeros(1, 2, 1, 4), torch.zeros(1, 1, 4, dtype=torch.int64)
    slopes = gradient(make_loss("hard_pixels", hard_share=0.5), logits, truth)
    assert torch.allclose(slopes[:, 0], torch.full((1, 1, 4), -0.5 / 4))


def test_equally_hard_pixels_take_no_room_from_a_harder_one():
    logits, truth = of_probabilities((0.1, 0.9), *3 * [(0.5, 0.5)]), torch.zeros(1, 1, 4, dtype=torch.int64)
    expected = -(math.log(0.1) + math.log(0.5)) / 2
    assert make_loss("hard_pixels", hard_share=0.5)(logits, truth).item() == pytest.approx(expected, rel=1e-5)


def test_dice_is_as_computed_by_hand():
    """Class 0: P and T 0.8, |P| 0.8 + 0.4, |T| 1; class 1: P and T 0.6, |P| 0.2 + 0.6, |T| 1; class 2 is absent."""
    logits = of_probabilities((0.8, 0.2, 0.0), (0.4, 0.6, 0.0), (0.0, 0.1, 0.9))
    truth = torch.tensor([[[0, 1, 255]]])
    expected = 1 - (2 * 0.8 / 2.2 + 2 * 0.6 / 1.8) / 2
    assert make_loss("dice")(logits, truth).item() == pytest.approx(expected, rel=1e-5)


def test_lovasz_is_as_computed_by_hand():
    """Class 0, errors 0.4 (false) and 0.2 (true): 0.4 (1 - 1/2) + 0.2 (1/2); class 1: 0.4 (1) + 0.2 (0)."""
    logits = of_probabilities((0.8, 0.2, 0.0), (0.4, 0.6, 0.0), (0.0, 0.1, 0.9))
    truth = torch.tensor([[[0, 1, 255]]])
    assert make_loss("lovasz")(logits, truth).item() == pytest.approx(((0.2 + 0.1) + 0.4) / 2, rel=1e-5)


@pytest.mark.parametrize("wrong", [0, 1, 7])
@pytest.mark.parametrize(("name", "measure"), [("lovasz", lambda i, u: i / u), ("dice", lambda i, u: 2 * i / (i + u))])
def test_of_sure_predictions_the_score_itself_is_lost(name, measure, wrong, batch):
    """Where probabilities are 0 and 1, the losses are 1 - IoU and 1 - Dice of the regions."""
    _, mask = batch
    mask[0, 0] = 255
    prediction = mask.clone().clamp(max=3)
    prediction.view(-1)[10 : 10 + wrong] = 2
    logits = 200.0 * functional.one_hot(prediction, 4).movedim(3, 1)
    valid, scores = mask != 255, []
    for label in range(4):
        found, true = (prediction == label) & valid, mask == label
        scores.append(measure((found & true).sum(), (found | true).sum()))
    assert make_loss(name)(logits, mask).item() == pytest.approx(1 - sum(scores).item() / 4, abs=1e-6)


@pytest.mark.parametrize(("name", "theirs"), [("dice", "DiceLoss"), ("lovasz", "LovaszLoss")])
def test_region_losses_agree_with_segmentation_models_pytorch(name, theirs, batch):
    """With all classes present; of absent ones it makes a Dice loss of 0, which its mean takes in."""
    peers = pytest.importorskip("segmentation_models_pytorch.losses", reason="needs dlv3p[bench]")
    logits, mask = batch
    mask[1, 3:] = 255
    assert len(mask.unique()) == 5
    expected = getattr(peers, theirs)("multiclass", ignore_index=255)
    assert make_loss(name)(logits, mask).item() == pytest.approx(expected(logits, mask).item(), rel=1e-5)
    torch.testing.assert_close(gradient(make_loss(name), logits, mask), gradient(expected, logits, mask))


def test_focal_loss_agrees_with_segmentation_models_pytorch(batch):
    """Its focal loss is of a sigmoid for each class; of two classes, half of that is ours."""
    peers = pytest.importorskip("segmentation_models_pytorch.losses", reason="needs dlv3p[bench]")
    difference, mask = batch[0][:, :1], batch[1] % 2
    expected = peers.FocalLoss("binary", gamma=2.0)(difference, mask[:, None]).item()
    logits = torch.cat([torch.zeros_like(difference), difference], dim=1)
    assert make_loss("focal")(logits, mask).item() == pytest.approx(expected, rel=1e-5)


def test_lovasz_keeps_its_digits_over_a_million_pixels():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 2, 1024, 1024, generator=generator)
    mask = torch.randint(0, 2, (1, 1024, 1024), generator=generator)
    slopes = gradient(make_loss("lovasz"), logits, mask)
    exact = gradient(make_loss("lovasz"), logits.double(), mask)
    assert (slopes - exact).norm() <= 1e-5 * exact.norm()


def test_a_sum_of_losses_is_their_sum(batch):
    logits, mask = batch
    for other in ("dice", "lovasz"):
        expected = make_loss("cross_entropy", WEIGHTS)(logits, mask) + make_loss(other)(logits, mask)
        assert make_loss(f"cross_entropy+{other}", WEIGHTS)(logits, mask).item() == pytest.approx(expected.item())


def test_rare_classes_weigh_more_and_the_mean_over_a_pixel_is_one():
    counts = torch.tensor([900, 90, 10, 0])
    weights = inverse_log_weights(counts)
    assert torch.all(weights[1:] > weights[:-1])
    assert (weights * counts).sum().item() / 1000 == pytest.approx(1)
    assert (weights.max() / weights.min()).item() < 50
