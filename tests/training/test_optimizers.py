"""Learning rates move as their schedules say, each part at its own, and the average of the weights is one."""

import math

import pytest
import torch
from support.tiny import tiny
from torch import nn

from cityscapes.errors import DivergedError, ParameterError
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import checkpoint_path
from dlv3p.train import train
from dlv3p.training.guarded_update import WeightAverage
from dlv3p.training.optimizers import make_optimizer, rate_factor, set_rates
from dlv3p.weights.checkpoint import load_checkpoint, model_from_checkpoint


def factors(steps=100, per_epoch=10, **changes):
    return [rate_factor(step, steps, per_epoch, **changes) for step in range(steps)]


def test_poly_is_the_published_curve():
    # Half of 30,000 steps of VainF's recipe, from 0.01.
    assert 0.01 * rate_factor(15_000, 30_000, 500) == pytest.approx(0.0053589, abs=1e-7)
    assert factors()[0] == 1.0
    assert factors(final_rate_factor=0.5)[-1] == 0.5


def test_cosine_is_half_at_half_time_and_falls_all_the_way():
    values = factors(schedule="cosine")
    assert values[0] == 1.0
    assert values[50] == pytest.approx(0.5)
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx((1 + math.cos(math.pi * 0.99)) / 2)


def test_step_falls_once_after_so_many_epochs():
    values = factors(schedule="step", step_epochs=4, step_factor=0.5)
    assert values == [1.0] * 40 + [0.5] * 40 + [0.25] * 20


def test_constant_stays_and_a_warm_up_grows_in_a_line_to_any_schedule():
    assert factors(schedule="constant") == [1.0] * 100
    assert factors(schedule="constant", warmup_steps=4)[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert factors(schedule="cosine", warmup_steps=4)[10:] == factors(schedule="cosine")[10:]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_each_part_learns_at_its_own_rate(optimizer):
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    made = make_optimizer(model, name=optimizer, learning_rate=0.1, backbone_rate_factor=0.1, weight_decay=0.0)
    set_rates(made, 0.5)
    assert [group["lr"] for group in made.param_groups] == pytest.approx([0.005, 0.05])
    assert [len(group["params"]) for group in made.param_groups] == [2, 2]
    if optimizer == "sgd":
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        made.step()
        for name, value in model.state_dict().items():
            assert torch.allclose(before[name] - value, torch.tensor(0.005 if "backbone" in name else 0.05))


def test_the_average_follows_the_weights_by_its_rule_and_counters_are_copied():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    average = WeightAverage(model, decay=0.9)
    expected = model[0].weight.detach().clone()
    for update in range(40):
        with torch.no_grad():
            model[0].weight.fill_(float(update))
            model[1].num_batches_tracked.fill_(update)
        average.update(model, torch.tensor(True))
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
    torch.testing.assert_close(average.module[0].weight, expected)
    assert average.module[1].num_batches_tracked == 39
    assert not average.module[0].weight.requires_grad


def test_a_run_with_an_average_scores_and_shares_the_average(city, workspace):
    parameters = tiny(city, run="average", average_decay=0.9)
    train(parameters)
    state = load_checkpoint(checkpoint_path("average", "last"))
    assert state["average_updates"] == 6
    model, _ = model_from_checkpoint(state)
    same = [torch.equal(state["model"][name], state["training_model"][name]) for name in state["model"]]
    assert not all(same)
    assert torch.equal(model.classifier.weight, state["model"]["classifier.weight"])


def test_steps_end_a_run_within_an_epoch_and_validation_can_be_rare(city, workspace):
    parameters = tiny(city, run="steps", steps=8, validate_every=2)
    result = train(parameters)  # three steps an epoch
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    assert [math.isnan(row["val_mIoU"]) for row in result.history] == [True, False, False]
    assert result.history[-1]["learning_rate"] == pytest.approx(TrainParameters().learning_rate * (1 - 7 / 8) ** 0.9)


def test_float16_trains_and_a_gradient_that_overflows_is_left_out(city, workspace):
    result = train(tiny(city, run="half", epochs=1, precision="float16"))
    assert math.isfinite(result.history[0]["train_loss"])
    assert load_checkpoint(checkpoint_path("half", "last"))["scaler"]["scale"] > 0


@pytest.mark.parametrize("loss", ["hard_pixels", "dice", "lovasz", "cross_entropy+dice", "cross_entropy+lovasz"])
def test_every_loss_trains_but_not_every_one_band_by_band(city, workspace, loss):
    assert math.isfinite(train(tiny(city, epochs=1, loss=loss)).history[0]["train_loss"])
    with pytest.raises(ParameterError, match="chunked_loss"):
        train(tiny(city, run="chunked", epochs=1, loss=loss, chunked_loss=True))


def test_weights_that_are_not_finite_are_not_saved(city, workspace, monkeypatch):
    def spoil(optimizer, factor):
        optimizer.param_groups[0]["params"][0].data.fill_(math.inf)

    monkeypatch.setattr("dlv3p.training.step.set_rates", spoil)
    with pytest.raises(DivergedError):
        train(tiny(city, run="spoilt"))
    assert not checkpoint_path("spoilt", "last").is_file()
