"""Checkpointed activations and the chunked loss change memory, and nothing else."""

import copy

import pytest
import torch
from support.tiny import tiny
from torch import nn
from torch.nn import functional

from dlv3p.models.deeplab import build_model
from dlv3p.parameters.network import BACKBONES
from dlv3p.runs.folders import checkpoint_path
from dlv3p.train import train
from dlv3p.training.activation_checkpointing import blocks, checkpoint_activations, saved_bytes
from dlv3p.training.losses import make_chunked_loss, make_loss
from dlv3p.weights.checkpoint import load_checkpoint

FAMILIES = (
    *("resnet18", "mobilenet_v2"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("vovnet39", "densenet121", "mobilenet_v3_large")),
)


def build(backbone, **switches):
    torch.manual_seed(0)
    return build_model("deeplabv3plus", backbone, num_classes=19, channels=16, **switches)


def batch(height, width):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, height, width, generator=generator)
    return image, torch.randint(0, 19, (2, height, width), generator=generator)


def one_step(model, image, mask):
    """Loss, gradients and state behind one forward and backward pass with dropout."""
    torch.manual_seed(2)
    loss = functional.cross_entropy(model(image), mask)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}, model.state_dict()


@pytest.mark.parametrize("backbone", FAMILIES)
def test_value_gradients_and_running_statistics_are_exactly_the_same(backbone):
    plain, image_and_mask = build(backbone), batch(33, 49)
    with_checkpoints = checkpoint_activations(copy.deepcopy(plain))
    loss, gradients, state = one_step(plain, *image_and_mask)
    again, again_gradients, again_state = one_step(with_checkpoints, *image_and_mask)
    assert torch.equal(loss, again)
    assert list(state) == list(again_state)
    assert [name for name in state if not torch.equal(state[name], again_state[name])] == []
    assert [name for name in gradients if not torch.equal(gradients[name], again_gradients[name])] == []
    moved = [value for name, value in again_state.items() if name.endswith("num_batches_tracked")]
    assert {int(count) for count in moved} == {1}


@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_other_norms_are_recomputed_alike(norm):
    plain, image_and_mask = build("resnet18", norm=norm), batch(33, 49)
    with_checkpoints = checkpoint_activations(copy.deepcopy(plain))
    loss, gradients, _ = one_step(plain, *image_and_mask)
    again, again_gradients, _ = one_step(with_checkpoints, *image_and_mask)
    assert torch.equal(loss, again)
    for name, gradient in gradients.items():
        assert (gradient is None and again_gradients[name] is None) or torch.equal(gradient, again_gradients[name])


def test_dropout_inside_a_block_drops_the_same_when_it_is_repeated():
    plain, image_and_mask = build("resnet18"), batch(33, 49)
    for block in blocks(plain.backbone):
        block.relu1 = nn.Sequential(block.relu1, nn.Dropout(0.5))
    with_checkpoints = checkpoint_activations(copy.deepcopy(plain))
    _, gradients, _ = one_step(plain, *image_and_mask)
    _, again_gradients, _ = one_step(with_checkpoints, *image_and_mask)
    assert all(torch.equal(gradient, again_gradients[name]) for name, gradient in gradients.items())


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name.startswith("resnet")])
def test_the_blocks_of_a_resnet_are_those_of_its_stages(backbone):
    counts = {"resnet18": 8, "resnet34": 16, "resnet50": 16, "resnet101": 33, "resnet152": 50}
    with torch.device("meta"):
        assert len(list(blocks(build(backbone).backbone))) == counts[backbone]


def test_predictions_stay_and_copies_keep_the_checkpoints():
    model, (image, _) = build("resnet18").eval(), batch(64, 64)
    with torch.no_grad():
        expected = model(image)
        twin = copy.deepcopy(checkpoint_activations(model))
        assert torch.equal(model(image), expected)
        for parameter in model.parameters():
            parameter.zero_()
        assert torch.equal(twin(image), expected), "a copy must run its own weights, not those of the original"


@pytest.mark.parametrize("output_stride", [pytest.param(8, marks=pytest.mark.slow), 16])
def test_both_together_halve_what_a_resnet50_saves(output_stride):
    image, mask = batch(128, 128)
    switches = {"num_classes": 19, "output_stride": output_stride}
    model = build_model("deeplabv3plus", "resnet50", **switches)
    plain = saved_bytes(lambda: make_loss("cross_entropy")(model(image), mask), model)
    checkpoint_activations(model)
    chunked = make_chunked_loss("cross_entropy")
    lean = saved_bytes(lambda: chunked(model.logits_at_stride(image), mask), model)
    assert lean <= 0.5 * plain


def test_saved_bytes_counts_each_memory_once_and_no_parameters():
    layer = nn.Linear(10, 10)
    data = torch.randn(4, 10)
    assert saved_bytes(lambda: layer(data).sum(), layer) == data.nbytes
    data.requires_grad_()
    assert saved_bytes(lambda: (data * data).sum(), layer) == data.nbytes


def test_a_run_has_the_same_weights_with_checkpoints_and_nearly_so_with_the_chunked_loss(city, workspace):
    states, losses = {}, {}
    for name in ("plain", "activation_checkpointing", "chunked_loss"):
        switch = {} if name == "plain" else {name: True}
        result = train(tiny(city, run=name, epochs=1, **switch))
        states[name] = load_checkpoint(checkpoint_path(name, "last"))["model"]
        losses[name] = result.history[0]["train_loss"]
    plain, recomputed = states["plain"], states["activation_checkpointing"]
    assert [key for key in plain if not torch.equal(plain[key], recomputed[key])] == []
    assert losses["chunked_loss"] == pytest.approx(losses["plain"], rel=1e-4)
