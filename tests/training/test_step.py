"""A step does what its parameters say: loss, length of the gradient, scale of float16, dropout."""

import math
import warnings

import pytest
import torch
from support.tiny import tiny
from torch import distributed

from dlv3p.models.deeplab import build_network
from dlv3p.runs.folders import checkpoint_path
from dlv3p.runtime.processes import Place
from dlv3p.train import train
from dlv3p.training import step as step_module
from dlv3p.training.losses import make_loss
from dlv3p.training.optimizers import make_optimizer
from dlv3p.training.step import SMALLEST_SCALE, build_loss, build_stepper, dropout_seed
from dlv3p.weights.checkpoint import load_checkpoint
from dlv3p.weights.checksums import weights_sha256

CPU = torch.device("cpu")


def make_stepper(**changes):
    torch.manual_seed(0)
    parameters = tiny(**changes)
    model = build_network(parameters, 4).train()
    optimizer = make_optimizer(model, name=parameters.optimizer, learning_rate=parameters.learning_rate)
    return build_stepper(parameters, model, build_loss(parameters, None), optimizer, CPU)


def take_step(stepper, step=0, **options):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 3, 33, 33, generator=generator)
    mask = torch.randint(0, 4, (2, 33, 33), generator=generator)
    return stepper(image, mask, rate=1.0, step=step, **options)


def weights(stepper):
    return weights_sha256(dict(stepper.model.named_parameters()))


@pytest.mark.parametrize(
    "switches",
    [{"loss": "focal", "focal_gamma": 0.5}, {"loss": "hard_pixels", "hard_share": 0.75}],
    ids=lambda switches: switches["loss"],
)
def test_a_switch_of_the_loss_reaches_it(switches):
    logits = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    mask = torch.randint(0, 4, (2, 9, 9), generator=torch.Generator().manual_seed(1))
    options = {name: value for name, value in switches.items() if name != "loss"}
    expected = make_loss(switches["loss"], None, **options)(logits, mask).item()
    assert expected != pytest.approx(make_loss(switches["loss"], None)(logits, mask).item(), rel=1e-3)
    assert make_stepper(**switches).loss(logits, mask).item() == expected


def test_a_band_by_band_loss_gets_its_switches_too():
    logits = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.randint(0, 4, (2, 9, 9), generator=torch.Generator().manual_seed(1))
    values = {
        (gamma, corners): make_stepper(loss="focal", chunked_loss=True, focal_gamma=gamma, align_corners=corners)
        .loss(logits, mask)
        .item()
        for gamma in (0.5, 2.0)
        for corners in (False, True)
    }
    assert len(set(values.values())) == 4


@pytest.mark.parametrize("longest", [0.0, 0.001, 1e6])
def test_a_gradient_is_cut_to_the_length_that_is_asked_for(longest):
    stepper = make_stepper(gradient_norm=longest)
    told = take_step(stepper).gradient_norm
    length = math.sqrt(sum(parameter.grad.square().sum().item() for parameter in stepper.model.parameters()))
    assert told > 0.1  # that of the gradient as it was
    assert length == pytest.approx(0.001 if longest == 0.001 else told, rel=1e-3)


def test_a_gradient_that_does_not_fit_into_float16_changes_nothing_and_lowers_the_scale():
    stepper = make_stepper(precision="float16", average_decay=0.9)
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = weights(stepper)
    result = take_step(stepper)
    assert math.isfinite(result.loss)
    assert not math.isfinite(result.gradient_norm)
    assert stepper.overflowed(result)
    assert weights(stepper) == before
    assert stepper.average.updates == 0
    assert stepper.scaler.get_scale() == 2.0**59


def test_what_is_no_number_without_float16_or_at_its_smallest_scale_is_no_overflow():
    result = take_step(make_stepper())._replace(gradient_norm=math.inf)
    assert not make_stepper().overflowed(result)
    stepper = make_stepper(precision="float16")
    assert stepper.overflowed(result)
    assert not stepper.overflowed(result._replace(loss=math.nan))
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=SMALLEST_SCALE)
    stepper.scaler.scale(torch.ones(()))  # makes the scale
    assert not stepper.overflowed(result)


def test_a_run_goes_on_after_gradients_that_overflow(city, workspace, monkeypatch):
    genuine = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda *words, **options: genuine(*words, init_scale=2.0**60, **options)
    )
    result = train(tiny(city, run="half", precision="float16", class_weights="none"))
    assert all(math.isfinite(row["train_loss"]) for row in result.history)
    assert load_checkpoint(checkpoint_path("half", "last"))["scaler"]["scale"] == 2.0**54


def test_no_two_steps_of_any_two_runs_or_processes_have_the_same_dropout():
    seeds = {dropout_seed(seed, step, rank) for seed in range(5) for step in range(40) for rank in range(4)}
    assert len({seed % 2**32 for seed in seeds}) == 5 * 40 * 4  # torch's generator on CPUs takes the lower half
    assert dropout_seed(1, 2, 3) == 12997252459554536576


def test_dropout_follows_the_seed_and_the_number_of_the_step():
    steps = [(0, 1), (0, 2), (1, 1), (0, 1)]
    losses = [take_step(make_stepper(aspp_dropout=0.5, seed=seed), step).loss for seed, step in steps]
    assert losses[0] == losses[-1]
    assert len(set(losses)) == 3


def test_processes_share_gradients_and_not_the_statistics_of_norms_by_torchs_present_option(tmp_path, monkeypatch):
    monkeypatch.setattr(step_module, "place", lambda: Place(0, 2, 0))
    distributed.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    try:
        with warnings.catch_warnings(action="error", category=FutureWarning):
            stepper = make_stepper()
        assert not getattr(stepper.forward, step_module._SYNC_BUFFERS)
    finally:
        distributed.destroy_process_group()


def test_several_processes_tell_each_other_losses_and_requests_to_stop_in_one_message(monkeypatch):
    """By a stand-in for the reduction, as of three processes of which each was asked."""
    told = []

    def tell(value):
        told.append(value.clone())
        return value.mul_(3)

    monkeypatch.setattr(step_module, "sum_over_processes", tell)
    result = take_step(make_stepper(), asked_to_stop=True)
    assert len(told) == 1
    assert told[0][1] == 1
    assert (result.loss, result.asked_to_stop) == (pytest.approx(3 * float(told[0][0])), 3)
