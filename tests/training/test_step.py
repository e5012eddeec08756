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
from dlv3p.training import findings
from dlv3p.training import step as step_module
from dlv3p.training.losses import make_loss
from dlv3p.training.optimizers import make_optimizer
from dlv3p.training.step import SMALLEST_SCALE, build_loss, build_stepper, dropout_seed
from dlv3p.weights.checkpoint import load_checkpoint

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
    told = take_step(stepper).gradient_norm.item()
    length = math.sqrt(sum(parameter.grad.square().sum().item() for parameter in stepper.model.parameters()))
    assert told > 0.1  # that of the gradient as it was
    assert length == pytest.approx(0.001 if longest == 0.001 else told, rel=1e-3)


def everything(stepper):
    """Copies of all tensors that a step may change: weights, statistics of norms, momentum, and the average."""
    states = [state for state in stepper.optimizer.state_dict()["state"].values()]
    averages = stepper.average.module.state_dict() if stepper.average else {}
    tensors = [*stepper.model.state_dict().values(), *averages.values()]
    tensors += [value for state in states for value in state.values() if value is not None]
    return [value.clone() for value in tensors]


def same(left, right):
    return len(left) == len(right) and all(map(torch.equal, left, right))


def half_stepper(scale, **changes):
    stepper = make_stepper(precision="float16", average_decay=0.9, **changes)
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return stepper


def test_a_gradient_that_does_not_fit_into_float16_changes_nothing_and_lowers_the_scale():
    stepper = half_stepper(2.0**60)
    before = everything(stepper)
    result = take_step(stepper)
    assert result.loss.isfinite()
    assert not result.gradient_norm.isfinite()
    assert not result.diverged
    assert same(before, everything(stepper)[: len(before)])  # followed by momentum, which begins
    assert stepper.average.updates == 0
    assert (result.scale, stepper.scaler.get_scale()) == (2.0**60, 2.0**59)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("bad", [0, 1], ids=["the first step", "the second"])
def test_after_a_step_that_overflowed_training_goes_on_as_if_it_had_not_been(monkeypatch, optimizer, bad):
    monkeypatch.setattr(torch, "empty_like", lambda value: torch.full_like(value, math.nan))  # as memory may be
    left_out, without = (half_stepper(1024.0, optimizer=optimizer) for _ in range(2))
    for step in range(3):
        if step == bad:
            left_out.scaler.load_state_dict(left_out.scaler.state_dict() | {"scale": 2.0**60})
            assert not take_step(left_out, step).gradient_norm.isfinite()
            left_out.scaler.load_state_dict(without.scaler.state_dict())
        else:
            take_step(left_out, step)
            take_step(without, step)
    assert same(everything(left_out), everything(without))
    assert left_out.average.updates == without.average.updates == 2


def spoil(stepper, value):
    with torch.no_grad():
        stepper.model.classifier.weight.view(-1)[0] = value


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw"}, {"precision": "bfloat16"}, {"norm": "group"}], ids=str)
@pytest.mark.parametrize(("value", "decay"), [(math.inf, 0.0), (3e38, 0.9)])
def test_a_step_that_diverges_and_all_after_it_change_nothing(changes, value, decay):
    stepper = make_stepper(average_decay=decay, **changes)
    assert not take_step(stepper).diverged
    sound = stepper.model.classifier.weight.view(-1)[0].item()
    spoil(stepper, value)
    before = everything(stepper)
    assert take_step(stepper, 1).diverged
    assert same(before, everything(stepper))
    spoil(stepper, sound)
    before = everything(stepper)
    result = take_step(stepper, 2)
    assert result.loss.isfinite()
    assert result.diverged
    assert same(before, everything(stepper))


@pytest.mark.parametrize(("scale", "diverged"), [(2 * SMALLEST_SCALE, False), (SMALLEST_SCALE, True)])
def test_what_overflows_float16_at_the_smallest_scale_has_diverged(scale, diverged):
    stepper = half_stepper(scale)
    loss = stepper.loss
    # The root is 0 and steeper than any number there: a loss that is finite, and a gradient that is not.
    stepper.loss = lambda logits, mask: loss(logits, mask) + (logits - logits.detach()).sum().abs().sqrt()
    result = take_step(stepper)
    assert result.loss.isfinite()
    assert bool(result.diverged) is diverged


def test_a_loss_that_is_no_number_has_diverged_in_float16_too():
    stepper = half_stepper(1024.0)
    spoil(stepper, math.nan)
    assert take_step(stepper).diverged


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
    losses = [take_step(make_stepper(aspp_dropout=0.5, seed=seed), step).loss.item() for seed, step in steps]
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


def test_several_processes_tell_each_other_losses_each_step_and_all_else_in_one_message_a_read(monkeypatch):
    """By a stand-in for the reduction, as of three processes of which each was asked to stop."""
    told = []

    def tell(value):
        told.append(value.clone())
        return value.mul_(3)

    for module in (step_module, findings):
        monkeypatch.setattr(module, "sum_over_processes", tell)
    monkeypatch.setattr(findings, "place", lambda: Place(0, 3, 0))
    unread, stepper, confusion = findings.UnreadFindings(4, CPU), make_stepper(), torch.ones(4, 4, dtype=torch.int64)
    unread.every = 4
    for step in range(2):
        assert not unread.due(step + 1, last=False, asked_to_stop=True)
        unread.add(take_step(stepper, step), confusion, step=step, rate=1.0)
    assert [value.shape for value in told] == [()] * 2
    found = unread.read(asked_to_stop=True)
    assert len(told) == 3
    assert [each.loss for each in found.steps] == [pytest.approx(3 * float(loss)) for loss in told[:2]]
    assert (found.asked_to_stop, found.confusion.tolist()) == (3, [[6] * 4] * 4)
