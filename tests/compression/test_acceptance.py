"""The gate tells what a smaller network lost and gained, and believes neither counts nor noise."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cityscapes.errors import InputError, ParameterError
from dlv3p.compression.acceptance import Variant, check_acceptance, size_on_disk
from dlv3p.compression.acceptance_report import NOT_FASTER, Limits
from dlv3p.evaluation.statistics import Estimate
from dlv3p.export.torch_runtime import TorchPredictor
from dlv3p.models.deeplab import build_model
from dlv3p.profiling.process_memory import measure_process_memory
from dlv3p.profiling.timing import Speedup, time_interleaved

CLASSES = 4


class Masks:
    """A split whose images show their own truth: red is ten times the class."""

    root, split, num_classes = "here", "val", CLASSES

    def __init__(self, images=24, size=(12, 20), seed=0):
        self.masks = np.random.default_rng(seed).integers(0, CLASSES, (images, *size)).astype(np.uint8)

    def __len__(self):
        return len(self.masks)

    def group(self, index):
        return ""

    def image(self, index):
        return Image.fromarray(np.stack([self.masks[index] * 10] * 3, axis=2))

    def pair(self, index):
        return self.image(index), self.masks[index]


@dataclass
class Clock:
    """A clock that goes on only when somebody works."""

    now: float = 0.0

    def __call__(self):
        return self.now


def read_truth(image):
    return np.rint((image[:, 0].numpy() * 0.229 + 0.485) * 25.5).astype(np.uint8)


def network(title, clock, *, seconds=1.0, noise=0.0, wrong_rows=0, **costs):
    """A candidate that sees the truth but for the first rows, where class 0 becomes 1, and works for some seconds."""
    random = np.random.default_rng(len(title))

    def predict(image):
        clock.now += seconds * (1 + noise * random.standard_normal())
        labels = read_truth(image)
        top = labels[:, :wrong_rows]
        top[top == 0] = 1
        return labels

    return Variant(title, predict, **costs)


def judge(*networks, clock, split=None, **options):
    first, *others = networks
    options = {"limits": Limits(0.5, 1.0), "threads": 1, "memory": False, "progress": "none", **options}
    return check_acceptance(first, others, Masks() if split is None else split, clock=clock, **options)


def mean_iou_by_hand(truth, labels):
    return np.mean(
        [((truth == c) & (labels == c)).sum() / ((truth == c) | (labels == c)).sum() for c in range(CLASSES)]
    )


def test_the_change_is_that_of_the_pooled_mean_iou_and_lies_in_its_interval():
    clock, split = Clock(), Masks()
    report = judge(network("dense", clock), network("small", clock, wrong_rows=3), clock=clock, split=split)
    labels = split.masks.copy()
    top = labels[:, :3]
    top[top == 0] = 1
    expected = 100 * (mean_iou_by_hand(split.masks, labels) - 1)
    row = report.table().loc["small"]
    assert row["change"] == pytest.approx(expected, abs=1e-9)
    assert row["change_low"] < expected < row["change_high"] < 0
    assert row["agreement"] == pytest.approx((labels == split.masks).mean(), abs=1e-12)
    assert report.table().loc["dense", "mIoU"] == 1


def test_fewer_macs_without_speed_are_red_whatever_the_counts_promise():
    clock = Clock()
    slow = network("pruned <b>", clock, seconds=1.04, gmacs=41.0, parameters=3)
    fast = network("pruned well", clock, seconds=0.5, gmacs=41.0)
    report = judge(network("dense", clock, gmacs=100.0), slow, fast, clock=clock, limits=Limits(0.5, 0.0))
    verdict, remarks = report.verdict(report.rows[1])
    assert (verdict, remarks) == ("fail", [NOT_FASTER])
    assert report.verdict(report.rows[2]) == ("pass", [])
    assert report.table().loc["pruned well", "speedup"] == pytest.approx(2)
    assert not report.passed
    assert str(report).count(NOT_FASTER) == 1
    page = report._repr_html_()
    assert "pruned &lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count("#b00020") >= 1


def test_an_identical_network_never_wins():
    clock = Clock()
    for noise in (0.0, 0.01, 0.1):
        twins = network("dense", clock, noise=noise, gmacs=1.0), network("twin", clock, noise=noise, gmacs=1.0)
        report = judge(*twins, clock=clock)
        row = report.table().loc["twin"]
        verdict, (reason, *remarks) = report.verdict(report.rows[1])
        slower = f"{row['speedup']:.2f}x the speed, less than 1x"
        assert (verdict, reason) == ("fail", slower if row["speedup"] < 1 else "not faster by more than noise")
        assert remarks == ["the interval includes the limit of 1x"]
        assert 0.8 < row["speedup"] < 1.25
        assert (row["change"], row["change_low"], row["change_high"], row["agreement"]) == (0, 0, 0, 1)
        export = judge(*twins, clock=clock, limits=Limits(0.0, 0.0))
        assert export.passed, "an export need not be faster"


def test_the_limits_decide_by_the_measured_change_and_say_when_the_interval_includes_them():
    clock = Clock()
    networks = network("dense", clock), network("small", clock, seconds=0.25, wrong_rows=3)
    loss = -judge(*networks, clock=clock).table().loc["small", "change"]
    for limit, expected in ((loss + 0.01, "pass"), (loss - 0.01, "fail")):
        report = judge(*networks, clock=clock, limits=Limits(limit, 3.0))
        verdict, remarks = report.verdict(report.rows[1])
        assert verdict == expected
        assert any("interval includes the limit" in remark for remark in remarks)
    report = judge(*networks, clock=clock, limits=Limits(100.0, 4.5))
    assert report.verdict(report.rows[1]) == ("fail", ["4.00x the speed, less than 4.5x"])


def test_a_speed_up_whose_interval_includes_the_limit_is_not_settled():
    clock = Clock()
    report = judge(
        network("dense", clock, noise=0.1), network("fast", clock, seconds=0.5, noise=0.1), clock=clock, limits=Limits()
    )
    times, low, high = report.speedup("fast")
    assert 1 < low < times < high
    assert report.verdict(report.rows[1]) == ("pass", [])
    for limit, verdict in (((low + times) / 2, "pass"), ((times + high) / 2, "fail")):
        asked = replace(report, limits=Limits(smallest_speedup=limit))
        assert asked.verdict(asked.rows[1])[0] == verdict
        assert f"the interval includes the limit of {limit:g}x" in str(asked)
    settled = replace(report, limits=Limits(smallest_speedup=high + 0.1))
    assert "interval includes" not in str(settled)


@pytest.mark.parametrize(("low", "times", "faster"), [(0.97, 1.1, False), (1.01, 1.1, True), (1.01, 1.02, False)])
def test_faster_is_what_exceeds_the_noise_and_a_few_percent(low, times, faster):
    clock = Clock()
    report = judge(network("dense", clock, gmacs=2.0), network("small", clock, gmacs=1.0), clock=clock)
    timings = SimpleNamespace(speedup=lambda title, over: Speedup(times, low, 1.2))
    measured = replace(report, timings=timings)
    assert measured.is_faster(measured.rows[1]) == faster
    assert measured.verdict(measured.rows[1])[0] == ("pass" if faster else "fail")


def test_what_is_not_a_number_does_not_pass():
    clock = Clock()
    report = judge(network("dense", clock), network("small", clock, seconds=0.5), clock=clock, limits=Limits())
    row = report.rows[1]
    assert report.verdict(row)[0] == "pass"
    unknown = Estimate(np.nan, np.nan, np.nan, np.nan, 0)
    for change in ({"change": unknown}, {"agreement": np.nan}):
        assert report.verdict(replace(row, **change))[0] == "fail"


def test_an_export_that_predicts_otherwise_fails_however_well_it_scores():
    clock = Clock()
    truth = network("truth", clock).predict
    first, second = (Variant(f"off by {n}", lambda image, n=n: (truth(image) + n) % CLASSES) for n in (1, 2))
    report = judge(first, second, clock=clock, limits=Limits(0.5, 0.0))
    assert report.passed, "both are wrong everywhere, and so nothing is lost"
    asked = replace(report, limits=Limits(0.5, 0.0, smallest_agreement=0.999))
    assert asked.verdict(asked.rows[1]) == ("fail", ["0.000% same pixels, less than 99.900%"])
    assert judge(first, replace(first, title="same"), clock=clock, limits=asked.limits).passed


def test_speeds_are_compared_turn_by_turn_so_that_a_machine_that_slows_down_changes_nothing():
    clock, order = Clock(), []

    def work(title, seconds):
        def run():
            order.append(title)
            clock.now += seconds * 1.1 ** len(order) * (1000 if len(order) == 158 else 1)  # and once it stalls

        return run

    runs = {"reference": work("reference", 3.0), "candidate": work("candidate", 1.0)}
    turns = time_interleaved(runs, warmup=0, repeats=40, clock=clock)
    # Neighbors in time differ by two steps of 1.1; means over all turns would be ruled by the last one.
    assert 3 / 1.1**2 <= turns.speedup("candidate", over="reference").times <= 3 * 1.1**2
    assert turns.speedup("reference", over="reference") == (1, 1, 1)
    firsts = [title for title in order[::4]]
    assert {"reference", "candidate"} == set(firsts), "the order changes from turn to turn"


def test_too_few_images_give_no_interval_and_say_so():
    clock = Clock()
    report = judge(network("dense", clock), network("other", clock), clock=clock, split=Masks(images=9))
    assert "too few independent images (9) for an interval" in str(report)
    assert report.as_json()["rows"][1]["change_low"] is None
    assert report.as_json()["rows"][1]["change_blocks"] == 9


def test_the_interval_is_of_the_groups_of_the_split():
    clock, split = Clock(), Masks(images=48)
    split.group = lambda index: f"patient {index // 4}"
    report = judge(network("dense", clock), network("small", clock, wrong_rows=3), clock=clock, split=split)
    assert report.as_json()["rows"][1]["change_blocks"] == 12


def test_the_saved_report_is_plain_json_with_limits_machine_and_all_rows(workspace):
    clock = Clock()
    report = judge(network("dense", clock, size_bytes=80, gmacs=2.0), network("b", clock, size_bytes=20), clock=clock)
    content = json.loads(report.save("run", "gate").read_text())
    assert (workspace / "outputs" / "run" / "gate.json").is_file()
    assert content["limits"] == {"largest_loss": 0.5, "smallest_speedup": 1.0, "smallest_agreement": 0.0}
    assert content["measured"]["images"] == 24
    assert content["machine"]["cores"]
    assert [row["size_ratio"] for row in content["rows"]] == [1, 0.25]
    assert content["rows"][1]["macs_ratio"] is None
    assert content["rows"][1]["memory_mib"] is None
    assert "not measured" in str(report)
    assert {title: len(times) for title, times in content["seconds"].items()} == {"dense": 15, "b": 15}


def test_labels_at_another_scale_are_fitted_and_what_is_no_label_map_is_refused():
    clock, split = Clock(), Masks()
    whole = network("dense", clock)
    cut = Variant("cut", lambda image: whole.predict(image)[:, :11, :19])
    assert 0.3 < judge(whole, cut, clock=clock, split=split).table().loc["cut", "agreement"] < 1
    for wrong in (lambda image: read_truth(image).astype(np.int64), lambda image: read_truth(image)[0]):
        with pytest.raises(ParameterError, match="bad: predicts .*expected uint8"):
            judge(network("dense", clock), Variant("bad", wrong), clock=clock)
    with pytest.raises(ParameterError, match="predicts class 7, and the split has 4 classes"):
        judge(network("dense", clock), Variant("bad", lambda image: read_truth(image) + 4), clock=clock)
    with pytest.raises(ParameterError, match="duplicate titles"):
        judge(network("dense", clock), network("dense", clock), clock=clock)
    with pytest.raises(InputError, match="no images in the val split"):
        judge(network("dense", clock), clock=clock, split=Masks(images=0))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_is_measured_in_a_process_of_its_own_or_not_at_all():
    peak = measure_process_memory(torch.nn.Upsample(scale_factor=8), (256, 384), threads=1)
    assert 3 * 2048 * 3072 * 4 / 2**20 == 72
    assert 71 <= peak <= 78
    assert measure_process_memory(lambda image: image, (32, 48), threads=1) is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_the_hosts_memory_is_not_taken_for_that_of_a_gpu():
    predict = torch.nn.Upsample(scale_factor=8)
    peak = measure_process_memory(predict, (256, 384), threads=1, device="cuda")
    assert peak is None, "what runs on the host although it names a GPU leaves nothing there to measure"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_on_a_gpu_is_what_torch_held_there():
    model = build_model("deeplabv3plus", "resnet18", num_classes=CLASSES, channels=16).cuda()
    weights = sum(value.nbytes for value in model.state_dict().values()) / 2**20
    predict = TorchPredictor(model)
    assert weights < measure_process_memory(predict, (256, 384), threads=1, device=predict.device) < weights + 300


def test_size_on_disk_counts_a_folder_whole(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "model.xml").write_bytes(b"123")
    (tmp_path / "deep" / "model.bin").write_bytes(b"4567")
    assert size_on_disk(tmp_path) == 7
    linked = tmp_path.with_name("linked")
    linked.mkdir()
    (linked / "folder").symlink_to(tmp_path)
    assert size_on_disk(linked) == 7
    assert size_on_disk(tmp_path / "model.xml") == 3


def test_a_report_without_limits_asks_for_half_a_point_and_a_gain():
    clock = Clock()
    report = judge(network("dense", clock), network("fast", clock, seconds=0.5), clock=clock, limits=None)
    assert report.limits == Limits(0.5, 1.0)
    assert report.passed
    assert not replace(report, limits=Limits(0.5, 2.5)).passed


def test_what_cannot_run_here_is_a_row_that_says_so():
    clock = Clock()
    networks = network("dense", clock), network("fast", clock, seconds=0.5), network("faster", clock, seconds=0.2)
    report = judge(*networks, clock=clock, absent={"float16": "not supported here: <no kernels>"})
    assert report.passed
    assert report.formatted().loc["float16", "verdict"] == "not supported here: <no kernels>"
    assert "&lt;no kernels&gt;" in report._repr_html_()
    assert report.as_json()["absent"] == {"float16": "not supported here: <no kernels>"}
    assert report.speedup("faster", over="fast").times == pytest.approx(2.5)
