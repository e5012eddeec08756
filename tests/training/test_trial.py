"""A few steps say how long a training takes here, and what mixed precision and larger batches would gain."""

import psutil
import pytest
from support.tiny import TINY, tiny

from cityscapes.errors import OutOfMemoryError
from dlv3p.train import main
from dlv3p.training import trial
from dlv3p.training.trial import Trial, describe_trials, trial_table, try_settings


def machine(seconds, *, fits=10**9, mib=100):
    """Stand in for the trials: `seconds` of an image by precision, and the largest batch that fits."""

    def try_elsewhere(parameters, num_classes, rule):
        if parameters.batch_size > fits:
            raise OutOfMemoryError("does not fit")
        spent = seconds[parameters.precision] * (parameters.batch_size + 4)
        return Trial(parameters.batch_size, parameters.precision, spent, 500.0 + mib * parameters.batch_size)

    return try_elsewhere


def settings(monkeypatch, try_elsewhere, **changes):
    monkeypatch.setattr(trial, "try_setting", try_elsewhere)
    return [(one.batch_size, one.precision) for one in try_settings(tiny(**changes), 5)]


def test_the_batch_doubles_in_the_faster_precision_until_it_gains_no_more(monkeypatch):
    tried = settings(monkeypatch, machine({"float32": 1.0, "bfloat16": 0.5}))
    assert tried[:3] == [(2, "float32"), (2, "bfloat16"), (4, "bfloat16")]
    assert tried[-1] == (128, "bfloat16"), "64 images share the fixed cost of 4 already"
    slower = settings(monkeypatch, machine({"float32": 1.0, "bfloat16": 2.0}))
    assert slower[:3] == [(2, "float32"), (2, "bfloat16"), (4, "float32")]


def test_what_does_not_fit_ends_the_trials_and_not_the_command(monkeypatch):
    assert settings(monkeypatch, machine({"float32": 1.0, "bfloat16": 2.0}, fits=4))[-1] == (4, "float32")
    with pytest.raises(OutOfMemoryError):
        settings(monkeypatch, machine({"float32": 1.0}, fits=1))


def test_a_batch_that_would_take_all_free_memory_is_not_tried(monkeypatch):
    free = psutil.virtual_memory()._replace(available=1500 * 2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert settings(monkeypatch, machine({"float32": 1.0, "bfloat16": 2.0}))[-1] == (8, "float32"), "16 take 2,100 MiB"


def test_what_is_faster_is_offered_with_the_words_that_set_it():
    tried = [Trial(4, "float32", 0.4, 900.0), Trial(4, "bfloat16", 0.2, 800.0), Trial(8, "bfloat16", 0.2, 0.0)]
    table = trial_table(tried)
    assert table.loc[(8, "bfloat16"), "times as fast"] == 4.0
    assert table.loc[(4, "float32"), "s / step"] == 0.4
    assert table["memory, MiB"].isna().tolist() == [False, False, True]
    said = describe_trials(tried, images=400, epochs=3)
    assert said.startswith("The steps of 3 epochs take about 2 min here; not counting loading and validation. ")
    assert "4.0 times as fast: -p batch_size 8 -p precision bfloat16. It changes the result" in said
    assert describe_trials(tried[:1], 400, 3).endswith("Neither mixed precision nor a larger batch makes it faster.")


def test_a_trial_takes_real_steps_in_a_process_of_its_own(city, workspace):
    parameters = tiny(city)
    (tried,) = [trial.try_setting(parameters, 19)]
    assert tried[:2] == (2, "float32")
    assert 0 < tried.seconds < 60
    assert 100 < tried.mib < 4000
    assert list(workspace.iterdir()) == [], "nothing is trained or written"


@pytest.mark.slow
def test_the_command_tries_and_trains_nothing(city, workspace, capsys):
    words = [word for name, value in {**TINY, "data_root": city}.items() for word in ("-p", name, str(value))]
    assert main(["--try", *words]) == 0
    shown = capsys.readouterr().out
    assert "float32" in shown
    assert "bfloat16" in shown
    assert "The steps of 2 epochs take about" in shown
    assert not (workspace / "saved").exists()
