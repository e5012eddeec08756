"""What a training costs is said before it starts: the arithmetic, and the refusals."""

import shutil
from types import SimpleNamespace

import psutil
import pytest
from support.tiny import TINY, tiny

from cityscapes.errors import MachineError, OutOfMemoryError, ParameterError
from dlv3p.data.roots import open_split
from dlv3p.runs.folders import hold_run
from dlv3p.train import main, train
from dlv3p.training import cost as module
from dlv3p.training import memory
from dlv3p.training.cost import Cost, estimate_cost, step_seconds, validation_seconds
from dlv3p.training.memory import predict_bytes, predict_disk_bytes, what_fits
from dlv3p.training.trial import Trial, try_setting

GIB = 2**30


@pytest.fixture
def untried(monkeypatch):
    """No step is taken: a trial says a second, 900 MiB, and half a second a checkpoint.

    A sample is read in 0.1 s, and a whole image takes 2 s.
    """
    monkeypatch.setattr(module, "try_setting", lambda p, *_: Trial(p.batch_size, p.precision, 1.0, 900.0, 0.5))
    monkeypatch.setattr(module, "read_seconds", lambda *_: 0.1)
    monkeypatch.setattr(module, "validation_seconds", lambda *_: 2.0)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(4)))


def free_memory(monkeypatch, size):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(size)))


def test_time_is_that_of_steps_of_validations_and_of_checkpoints(city, workspace, untried):
    cost = estimate_cost(tiny(city, workers=2))
    assert (cost.steps, cost.step_seconds, cost.memory_mib) == (6, 1.0, 1050.0)
    assert cost.seconds == pytest.approx(6 * 1.0 + 2 * 3 * 2.0 + (2 + 2 + 2) * 0.5)
    assert estimate_cost(tiny(city, workers=2, validate_every=2)).seconds == pytest.approx(
        6 + 3 * 2.0 + (2 + 1 + 2) * 0.5
    )
    assert estimate_cost(tiny(city, workers=2, steps=4)).steps == 4
    assert "6 steps of 1.00 s" in str(cost)
    assert "1.0 GiB of memory" in str(cost)


def test_a_person_sees_what_is_waited_for_and_that_it_is_over(city, workspace, untried, monkeypatch):
    """The steps take half a minute on a busy machine."""
    shown = []
    monkeypatch.setattr("dlv3p.runtime.progress.in_kernel", lambda: True)
    monkeypatch.setattr("IPython.display.display", shown.append)
    during = []
    monkeypatch.setattr(module, "read_seconds", lambda *_: during.append(shown[-1].comm is not None) or 0.1)
    estimate_cost(tiny(city, progress="widgets"))
    (box,) = shown
    assert box.children[1].value == "taking a few steps, to say what the training costs"
    assert during == [True]
    assert box.comm is None, "closed"


def test_a_run_of_other_parameters_is_refused_before_a_step_is_taken(city, workspace, untried, monkeypatch):
    train(tiny(city, run="run", epochs=1))
    monkeypatch.setattr(module, "try_setting", None)
    with pytest.raises(ParameterError, match=r"run='run' was trained with epochs=1 \(asked for 2\)"):
        estimate_cost(tiny(city, run="run", epochs=2))


@pytest.mark.parametrize(
    ("workers", "threads", "cores", "seconds"),
    [(0, 1, 4, 1.8), (1, 1, 4, 1.0), (1, 2, 2, 1.4), (8, 1, 1, 1.8)],
    ids=["one after the other", "at the same time", "shared cores", "one core"],
)
def test_workers_read_while_the_network_computes_and_share_its_cores(monkeypatch, workers, threads, cores, seconds):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(cores)))
    parameters = tiny(workers=workers, threads=threads, batch_size=8)
    assert step_seconds(parameters, 1.0, 0.1) == pytest.approx(seconds)


def test_a_loader_that_is_slower_than_the_network_sets_the_pace(monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(64)))
    assert step_seconds(tiny(workers=2, batch_size=8), 1.0, 0.5) == pytest.approx(2.0)


def test_a_whole_image_takes_as_long_as_its_share_of_a_steps_multiply_adds(city):
    split = open_split(city, "val")
    parameters = tiny(city, workers=1, crop_height=64, crop_width=128, batch_size=2)
    assert validation_seconds(parameters, split, 6.0) == pytest.approx(1.0, rel=1e-6)


def test_what_is_finished_or_trained_elsewhere_costs_nothing(city, workspace, untried):
    with hold_run("run"):
        assert estimate_cost(tiny(city, run="run")).steps == 0
    train(tiny(city, run="run", epochs=1))
    assert (
        str(estimate_cost(tiny(city, run="run", epochs=1)))
        == "nothing is left to train, or another process trains this run"
    )


@pytest.mark.slow  # test_what_keeps_less_takes_less is its quick sibling
def test_memory_before_a_step_is_that_of_a_step(city):
    parameters = tiny(batch_size=8, crop_height=256, crop_width=256, optimizer="adamw", average_decay=0.9)
    measured = try_setting(parameters, 19).mib
    assert predict_bytes(parameters, 19) / 2**20 == pytest.approx(measured, rel=0.25)


def test_a_large_network_on_small_crops_takes_the_memory_of_its_checkpoints(city):
    """ResNet-18's once took 600 MiB more than was said: nobody had counted them."""
    crops = {"crop_height": 33, "crop_width": 33}
    parameters = tiny(backbone="resnet18", channels=256, optimizer="adamw", average_decay=0.9, **crops)
    predicted = predict_bytes(parameters, 19) - memory.BESIDE_BYTES
    assert predicted / 2**20 == pytest.approx(try_setting(parameters, 19).mib, rel=0.1)


def test_what_keeps_less_takes_less():
    usual = tiny(batch_size=8, crop_height=256, crop_width=256)
    for changes in ({"accumulation": 4}, {"activation_checkpointing": True}, {"chunked_loss": True}):
        assert predict_bytes(tiny(**{**usual.as_dict(), **changes}), 19) < predict_bytes(usual, 19)
    assert predict_disk_bytes(tiny(optimizer="adamw"), 19) == pytest.approx(predict_disk_bytes(tiny(), 19) * 7 / 5)


def test_what_cannot_fit_is_refused_before_a_step_with_what_would(city, workspace, monkeypatch):
    monkeypatch.setattr(module, "try_setting", None)
    free_memory(monkeypatch, 1.2 * GIB)
    parameters = tiny(city, batch_size=16, crop_height=512, crop_width=512)
    with pytest.raises(
        OutOfMemoryError, match=r"a step takes about [\d.]+ GiB, and 1\.2 are free; what would fit: -p "
    ):
        estimate_cost(parameters)
    words = what_fits(parameters, 19, int(1.2 * GIB)).removeprefix("what would fit: ").partition(",")[0].split()
    changes = {name: int(value) for name, value in zip(words[1::3], words[2::3], strict=True)}
    fitting = tiny(city, **{"batch_size": 16, "crop_height": 512, "crop_width": 512, **changes})
    assert predict_bytes(fitting, 19) <= 1.2 * GIB
    assert "take a smaller network" in what_fits(parameters, 19, 1)


def test_few_settings_are_traced_on_the_way_to_what_would_fit_and_it_is_the_same_one(monkeypatch):
    """Crops of 4096 in a batch of 64 once took the traces of a dozen settings, two seconds each."""
    parameters, free = tiny(batch_size=64, crop_height=512, crop_width=512), 2 * GIB
    memory._traced.cache_clear()
    words = what_fits(parameters, 19, free)
    few = memory._traced.cache_info().misses
    assert few <= 5
    monkeypatch.setattr(memory, "CERTAIN", float("inf"))
    assert what_fits(parameters, 19, free) == words
    assert memory._traced.cache_info().misses > few


def test_memory_that_may_be_enough_is_tried(city, workspace, monkeypatch, untried):
    needed = predict_bytes(tiny(city), 19)
    free_memory(monkeypatch, needed / memory.CERTAIN + 1)
    assert estimate_cost(tiny(city)).steps == 6
    free_memory(monkeypatch, needed / memory.CERTAIN - 1)
    with pytest.raises(OutOfMemoryError):
        estimate_cost(tiny(city))


def test_steps_that_run_out_of_memory_say_what_would_fit(city, workspace, monkeypatch):
    def full(*_):
        raise OutOfMemoryError("out of memory: it does not fit")

    monkeypatch.setattr(module, "try_setting", full)
    with pytest.raises(OutOfMemoryError, match="it does not fit; what would fit: -p activation_checkpointing True"):
        estimate_cost(tiny(city))


def test_a_disk_that_is_too_small_is_refused_before_a_step(city, workspace, monkeypatch):
    monkeypatch.setattr(module, "try_setting", None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    with pytest.raises(MachineError, match=r"takes \d+ MiB of disk, and 1 are free"):
        estimate_cost(tiny(city, run="run"))
    assert not (workspace / "saved").exists()


def test_a_long_run_has_to_be_meant():
    cost = Cost(3601.0, 100, 36.0, 900.0, 60.0)
    with pytest.raises(ParameterError, match=r"takes about 60 min here, more than an hour.*long_run=True"):
        cost.refuse_long(tiny(run="run"))
    cost.refuse_long(tiny(run="run", long_run=True))
    cost._replace(seconds=3600.0).refuse_long(tiny(run="run"))
    assert tiny(long_run=True).run_name == tiny().run_name


def test_the_command_says_the_cost_before_it_trains_unless_it_is_to_be_silent(city, workspace, untried, capsys):
    words = [word for name, value in {**TINY, "data_root": city}.items() for word in ("-p", name, str(value))]
    main([*words, "-p", "run", "a", "-p", "progress", "lines"])
    assert capsys.readouterr().out.startswith("a: about 2")
    main([*words, "-p", "run", "b"])
    main([*words, "-p", "run", "c", "-p", "progress", "lines", "--no-estimate"])
    assert "steps of" not in capsys.readouterr().out
