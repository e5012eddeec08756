"""A range test suggests the rate at which the loss falls most steeply, and leaves the run alone."""

import math

import pytest
from support.tiny import TINY, tiny

from cityscapes.errors import DivergedError
from dlv3p.parameters.training import TrainParameters
from dlv3p.pictures.curves import plot_range_test
from dlv3p.train import main
from dlv3p.training import range_test as module
from dlv3p.training.range_test import LOWEST, RangeTest, find_rate, rate_at


def curve(steepest, *, lowest=0.5, highest=3.0, steps=100):
    """Losses that fall as a logistic function of the rate's logarithm, and rise from a rate of 0.1 on."""
    rates = [rate_at(step, steps, 1.0) for step in range(steps)]
    falling = [lowest + (highest - lowest) / (1 + (rate / steepest) ** 2) for rate in rates]
    return RangeTest(rates, [loss + 40 * max(0.0, rate - 0.1) for loss, rate in zip(falling, rates, strict=True)])


@pytest.mark.parametrize("steepest", [1e-4, 1e-3, 1e-2])
def test_the_suggestion_is_where_the_loss_falls_most_steeply(steepest):
    assert curve(steepest).suggestion == pytest.approx(steepest, rel=0.2)


def test_a_loss_that_never_falls_suggests_nothing():
    rates = [rate_at(step, 30, 1.0) for step in range(30)]
    never = RangeTest(rates, [1.0 + step for step in range(30)])
    assert never.suggestion is None
    assert "nothing to suggest" in never.describe(tiny())


def test_the_average_of_equal_losses_is_that_loss_from_the_first_on():
    assert RangeTest([1e-6] * 4, [2.0] * 4).smoothed == pytest.approx([2.0] * 4)


def test_the_rates_grow_by_the_same_factor_up_to_the_highest():
    rates = [rate_at(step, 4, 1.0) for step in range(4)]
    assert rates == pytest.approx([LOWEST, LOWEST * 100, LOWEST * 1e4, 1.0])


def test_it_goes_on_over_epochs_until_the_loss_blows_up_and_writes_nothing(city, workspace):
    found = find_rate(tiny(city, gradient_norm=0.0), steps=40)
    assert 10 < len(found.losses) <= 40
    assert found.rates[0] == LOWEST
    assert found.losses == find_rate(tiny(city, gradient_norm=0.0), steps=40).losses, "the same losses again"
    assert not (workspace / "saved").exists()


def test_a_loss_that_is_not_finite_from_the_start_is_one_line(city, workspace, monkeypatch):
    monkeypatch.setattr(module, "LOWEST", 1e36)
    monkeypatch.setattr(module, "HIGHEST", {"sgd": 1e38})
    with pytest.raises(DivergedError, match="the loss is not finite after"):
        find_rate(tiny(city))


def test_the_command_says_the_suggestion_and_saves_the_curve(city, workspace, capsys, monkeypatch):
    monkeypatch.setattr("dlv3p.training.range_test.find_rate", lambda parameters: curve(1e-3))
    words = [
        word for name, value in {**TINY, "data_root": city, "run": "a"}.items() for word in ("-p", name, str(value))
    ]
    assert main(["--range-test", *words]) == 0
    assert "The loss falls most steeply at a rate of 0.00" in capsys.readouterr().out
    assert (workspace / "outputs" / "a" / "range_test.png").is_file()
    assert main(["--range-test", *words, "-p", "figures", "svg"]) == 0
    assert (workspace / "outputs" / "a" / "range_test.svg").is_file()


def test_the_curve_marks_the_suggestion():
    found = curve(1e-3)
    (axes,) = plot_range_test(found, TrainParameters(run="a")).axes
    assert [line.get_label() for line in axes.lines] == [
        "loss of a step",
        "smoothed",
        f"suggestion: {found.suggestion:.2g}",
    ]
    assert math.isclose(axes.lines[2].get_xdata()[0], found.suggestion)
