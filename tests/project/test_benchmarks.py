"""The benchmarks time what they say: the step of a run itself, and training without scoring."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import accuracy, gpu, loader, loader_peers, plain_loop, scale, side_by_side, training
from benchmarks.label_errors import measure
from benchmarks.training import Bench
from cityscapes.errors import ParameterError
from cityscapes.layout import POLYGONS_SUFFIX, find_frames
from dlv3p.data.augment import Augmentation
from dlv3p.data.demo_mislabeled import Planted
from dlv3p.data.roots import open_split
from dlv3p.evaluation.image_counts import ImageCounts
from dlv3p.evaluation.metrics import confusion_matrix
from dlv3p.models.deeplab import build_model
from dlv3p.parameters.training import TrainParameters
from dlv3p.profiling.counters import NotMeasurable
from dlv3p.training import step as step_module
from dlv3p.training.step import Stepper


def test_our_step_is_that_of_a_run_and_counts_its_predictions(monkeypatch):
    steps, counted = [], []

    class Watched(Stepper):
        def __call__(self, *batch, **options):
            steps.append(super().__call__(*batch, **options))
            return steps[-1]

    def count(mask, prediction, classes):
        counted.append(prediction)
        return confusion_matrix(mask, prediction, classes)

    monkeypatch.setattr(step_module, "Stepper", Watched)
    monkeypatch.setattr(training, "confusion_matrix", count)
    bench = Bench(argparse.Namespace(batch=2, height=64, width=64, device="cpu", threads=1, turns=1))
    step = bench.our_step(
        TrainParameters(optimizer="sgd", learning_rate=0.01),
        lambda: build_model("deeplabv3plus", "mobilenet_v2", num_classes=training.CLASSES, channels=8),
    )
    losses = [step(), step()]
    assert losses == [result.loss for result in steps]
    assert losses[1] != losses[0]
    assert all(torch.equal(one, result.prediction) for one, result in zip(counted, steps, strict=True))


def test_kept_counts_are_those_of_the_same_settings(city, workspace):
    split, works = open_split(city, "val"), []

    def work():
        works.append(len(works))
        diagonal = np.diag(np.full(split.num_classes, len(works)))
        return ImageCounts.of(split, [diagonal] * len(split), split.class_names)

    path = workspace / "counts.npz"
    first = accuracy.kept_counts(path, {"seed": 0, "scales": (1.0, 2.0)}, work)
    again = accuracy.kept_counts(path, {"seed": 0, "scales": (1.0, 2.0)}, work)
    assert works == [0]
    assert np.array_equal(first.confusions(), again.confusions())
    other = accuracy.kept_counts(path, {"seed": 1, "scales": (1.0, 2.0)}, work)
    assert works == [0, 1]
    assert other.confusions()[0, 0, 0] == 2
    path.with_suffix(".json").unlink()  # as if killed between the two files
    accuracy.kept_counts(path, {"seed": 1, "scales": (1.0, 2.0)}, work)
    assert works == [0, 1, 2]


def test_a_comparison_of_seeds_gives_intervals_from_blocks():
    good, bad = np.array([[95, 5], [0, 100]]), np.array([[60, 40], [0, 100]])
    names = tuple(f"{number:02d}" for number in range(20))

    def counts(confusion):
        places = np.argwhere(confusion)
        pixels = confusion[tuple(places.T)]
        cells = [np.column_stack([np.full(len(places), image), places, pixels]) for image in range(20)]
        return ImageCounts(names, names, ("road", "sky"), np.concatenate(cells))

    table = accuracy.report({"ours": [counts(good)] * 2, "smp": [counts(bad)] * 2}, (0, 1)).splitlines()
    assert table[1].split()[:3] == ["0", "95.12", "65.71"]
    change = next(line for line in table if "from blocks" in line)
    assert "from seeds on these images: +29.40 no interval from fewer than 5 seeds" in table[4]
    assert change == "ours - smp, in points, from blocks of images: +29.40 [29.4, 29.4]"
    assert [line.split()[:2] for line in table[-2:]] == [["road", "+35.00"], ["sky", "+23.81"]]


def test_every_recipe_of_the_peer_trains_another_network(city):
    sizes = {"channels": 8, "image_scale": 0.5, "crop_height": 32, "crop_width": 32, "batch_size": 2, "epochs": 1}
    split = open_split(city, "train")
    weights = set()
    for recipe in plain_loop.PEER_RECIPES.values():
        settings = {"backbone": "mobilenet_v2", "output_stride": 16, **sizes, "precision": "float32", "workers": 0}
        model = plain_loop.train_plainly(plain_loop.PlainSettings(**{**settings, **recipe}), split)
        weights.add(sum(value.detach().abs().sum().item() for value in model.parameters()))
    assert len(weights) == len(plain_loop.PEER_RECIPES) == len(accuracy.OURS)


def test_crops_that_the_peer_cannot_take_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        accuracy.parse_options(["--crop-height", "100"])
    assert "multiples of 16" in capsys.readouterr().err


def test_jobs_beside_each_other_are_compared_with_one_alone(trained_once, monkeypatch, capsys):
    workspace, result = trained_once
    seconds = side_by_side.epoch_seconds(workspace / "saved" / "done" / "metrics.csv")
    assert seconds == pytest.approx(sum(row["seconds"] for row in result.history))
    monkeypatch.setattr(side_by_side, "write_demo_city", lambda root, frames: root)
    took = {
        ("spinning", 1): (2.0, 3.0),
        ("spinning", 2): (10.0, 9.0),
        ("briefly", 1): (2.0, 3.0),
        ("briefly", 2): (6.0, 4.0),
        ("sleeping", 1): (2.0, 3.0),
        ("sleeping", 2): (4.0, 3.0),
    }
    monkeypatch.setattr(side_by_side, "train_together", lambda count, city, policy, options: took[policy, count])
    side_by_side.main(["--turns", "1"])
    lines = capsys.readouterr().out.splitlines()
    told = [line.split(" times")[0].split() for line in lines]
    assert told == [["spinning", "5.00"], ["briefly", "3.00"], ["sleeping", "2.00"]]
    assert lines[0].endswith("processor seconds of a run: 3 alone, 9 beside another")


def test_policies_reach_the_trainings_and_one_that_fails_is_no_figure(workspace, monkeypatch):
    started = []

    class Training:
        def __init__(self, words, *, env, stdout):
            started.append((env["OMP_WAIT_POLICY"], env["GOMP_SPINCOUNT"]))

        def wait(self):
            return len(started) - 1

    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setattr(side_by_side.subprocess, "Popen", Training)
    options = argparse.Namespace(threads=1, epochs=1)
    for policy in side_by_side.POLICIES:
        with pytest.raises(SystemExit, match="a training has failed"):
            side_by_side.train_together(2, workspace, policy, options)
    assert started == [("passive", count) for count in ("300000", "10000", "0") for _ in range(2)]


def test_a_polygon_counts_once_for_recall_and_each_region_for_precision():
    planted = [
        Planted(name, kind, "car", "bus", 9) for name, kind in (("a", "relabeled"), ("b", "missing"), ("c", "missing"))
    ]
    matched = pd.DataFrame(
        [(1, True, "a"), (2, True, "a"), (3, False, ""), (4, True, "b")], columns=["rank", "right", "polygon"]
    )
    table = measure(matched, planted, [2, 3, 100])
    assert table["regions"].tolist() == [2, 3, 4]
    assert table["precision"].tolist() == pytest.approx([1, 2 / 3, 3 / 4])
    assert table["recall"].tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert table["of missing"].tolist() == pytest.approx([0, 0, 1 / 2])


def test_every_stage_handles_all_linked_frames(city, tmp_path):
    frames = find_frames(city, "val", suffix=POLYGONS_SUFFIX)
    drawn = [(frame.image(city), frame.annotation(city, POLYGONS_SUFFIX)) for frame in frames]
    count = len(drawn) + 1
    scale.link(drawn, tmp_path / "data", count)
    for stage in scale.STAGES:
        assert scale.run_stage(stage, tmp_path)["frames"] == count, stage
    assert len(list((tmp_path / "predictions" / "ids").rglob("*.png"))) == count


def test_the_benchmark_of_a_gpu_measures_every_part_and_leaves_the_settings_of_torch(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "measure_energy", lambda *_, **__: pytest.fail("a counter was read"))
    monkeypatch.setattr(gpu, "open_counter", missing_counter)
    before = torch.backends.cudnn.conv.fp32_precision
    words = "--device cpu --backbone resnet18 --batch 2 --crop 33 --height 64 --width 64 --turns 1 --threads 1"
    threads = torch.get_num_threads()
    try:
        gpu.main([*words.split(), "--no-compile", "--output", str(tmp_path / "gpu.json")])
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert set(found["training"]) == {"plain, TF32", "plain, float32", "ours, float32", "ours, bfloat16"}
    assert found["training"]["plain, TF32"]["over_plain_tf32"] == [1, 1, 1]
    assert [row["equal_twice"] for row in found["determinism"].values()] == [True, True]
    assert found["prediction"]["stride 8, bfloat16, folded"]["energy_status"] == "not measured: no counter"
    assert torch.backends.cudnn.conv.fp32_precision == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_part_that_fails_on_a_gpu_leaves_the_others(tmp_path):
    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    assert gpu.measured(fail) == {"failed": "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."}


def missing_counter(device):
    raise NotMeasurable("no counter")


@pytest.mark.parametrize("jpeg", [False, True])
def test_the_loader_of_torchvision_is_given_what_ours_draws(city, tmp_path, jpeg):
    root = loader.write_jpeg_folder(city, tmp_path / "jpeg") if jpeg else city
    split, augmentation = open_split(root, "train"), Augmentation(64, 64)
    peers = {"torchvision": loader_peers.PEERS["torchvision"]}
    times, differences = loader.measure(split, augmentation, peers, 1, cold=False)
    levels, labels = zip(*differences["torchvision"], strict=True)
    assert max(levels) < 2.1
    assert sum(labels) / len(labels) < 1e-2
    assert {len(values) for values in times.values()} == {len(split)}


def test_the_cost_of_a_frame_is_the_slope_of_a_line():
    counts = [10, 100, 1000, 5000]
    assert scale.fit(counts, [2 + 0.03 * count for count in counts]) == pytest.approx((2, 0.03, 0), abs=1e-9)
    _, slope, error = scale.fit(counts, [2 + 0.03 * count * (1 + count / 5000) for count in counts])
    assert error > 0.1 * slope


@pytest.mark.parametrize(
    ("words", "run"),
    [(["masks", "loader"], ["masks", "loader"]), ([], list(command.BENCHMARKS)[: -len(command.ONLY_BY_NAME)])],
)
def test_the_named_benchmarks_run_with_their_defaults(words, run, monkeypatch):
    called = []
    module = lambda name: argparse.Namespace(main=lambda arguments: called.append((name, arguments)))  # noqa: E731
    monkeypatch.setattr(command, "import_module", module)
    assert command.main(words) == 0
    assert called == [(f"benchmarks.{name}", []) for name in run]


def test_none_runs_where_one_is_misspelled():
    with pytest.raises(ParameterError, match="^loaders: no such benchmark; allowed are startup, masks, "):
        command.main(["masks", "loaders"])


def test_every_benchmark_is_listed():
    files = [path for path in Path(command.__file__).parent.glob("*.py") if "run_command(main)" in path.read_text()]
    assert {path.stem for path in files} == {*command.BENCHMARKS, "__main__"}
