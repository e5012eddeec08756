"""A sweep has a row for every case, whatever happens to it, and goes on where it was killed."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cityscapes.errors import OutOfMemoryError, ParameterError
from cityscapes.files.atomic import write_text
from cityscapes.files.channels import PixelRule
from dlv3p.models.anatomy import count_parameters
from dlv3p.parameters.cases import Case, case_of
from dlv3p.parameters.network import NetworkParameters
from dlv3p.parameters.notebooks import ProfileParameters
from dlv3p.parameters.training import TrainParameters
from dlv3p.pictures.figures import png, save_figure
from dlv3p.pictures.profiles import draw_energy, draw_latencies, draw_memory, draw_parts, draw_stages
from dlv3p.profiling import strides as strides_module
from dlv3p.profiling import sweep as sweep_module
from dlv3p.profiling.counters import NOT_MEASURED, NotMeasurable
from dlv3p.profiling.energy import Energy
from dlv3p.profiling.machine import machine_name
from dlv3p.profiling.profiled_model import ProfiledModel, choose_profiled_model, count_columns
from dlv3p.profiling.published import backbone_table, notebook_table, plausible_joules, published_backbones
from dlv3p.profiling.report import add_scores, measurements_table, save_profile
from dlv3p.profiling.strides import compare_strides
from dlv3p.profiling.sweep import Effort, measure_case, sweep
from dlv3p.profiling.timing import InterleavedTimes
from dlv3p.runs.folders import checkpoint_path, write_json
from dlv3p.weights.checkpoint import save_checkpoint

NETWORK = NetworkParameters(backbone="mobilenet_v2", channels=8)
SUBJECT = ProfiledModel(NETWORK, 5, "mobilenet_v2")
QUICK = Effort(warmup=0, repeats=2, energy_seconds=0)
PICTURE = Image.fromarray(np.zeros((33, 65, 3), np.uint8))


def cases(**lists):
    return ProfileParameters(sizes="33x65", **lists).cases("mobilenet_v2")


@pytest.fixture
def quick_memory(monkeypatch):
    """Memory without a process of its own."""
    memory = dict.fromkeys(("allocated_mib", "reserved_mib", "process_mib"), NOT_MEASURED)
    monkeypatch.setattr(sweep_module, "measure_memory", lambda model, **options: memory | {"above_weights_mib": 12.5})


@pytest.mark.parametrize(
    ("lists", "told"),
    [
        ({"sizes": "128"}, "sizes='128': '128' is not height x width, such as 1024x2048"),
        ({"sizes": "128x256 1x9"}, "sizes='128x256 1x9': '1x9' is not height"),
        ({"output_strides": "8,16"}, "allowed are 8, 16, 32; separate values by spaces, not by commas"),
        ({"output_strides": "16 4"}, "output_strides='16 4': '4' is unknown; allowed are 8, 16, 32"),
        ({"backbones": "resnet5"}, "did you mean resnet5"),
        ({"batch_sizes": "0"}, "batch_sizes='0': '0' is not a batch size; allowed are 1 to 256"),
        ({"batch_sizes": "²"}, "is not a batch size"),
        ({"precisions": "fp16"}, "allowed are float32, bfloat16, float16"),
        ({"compiles": "yes"}, "allowed are off, on"),
        ({"precisions": " "}, "give at least one value"),
        ({"energy_seconds": 0.5}, "energy_seconds=0.5: allowed are 0"),
        ({"network": "mine"}, "network='mine': allowed are run, vovnet_system, notebook_system"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(lists, told):
    with pytest.raises(ParameterError) as caught:
        ProfileParameters(**lists)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_combinations_are_cases_and_what_comes_twice_counts_once():
    parameters = ProfileParameters(
        output_strides="16 8 16", sizes="33x65 1024x2048", batch_sizes="1 4", precisions="bfloat16", compiles="off on"
    )
    found = parameters.cases("resnet18")
    assert len(found) == len(set(found)) == 2 * 2 * 2 * 2
    assert found[1] == Case("resnet18", 16, 33, 65, 1, "bfloat16", True)
    assert found[-1].title == "resnet18, stride 8, 4 x 1024 x 2048, bfloat16, compiled"


def test_a_single_number_that_papermill_reads_as_one_is_taken():
    parameters = ProfileParameters.from_mapping({"output_strides": 16, "batch_sizes": 2})
    assert parameters.cases("resnet18") == [Case("resnet18", 16, 128, 256, 2)]


def test_a_network_of_other_channels_is_measured_on_its_own_images(quick_memory):
    rule = PixelRule(5, (0.0, 4095.0), (0.0,) * 5, (1.0,) * 5)
    profiled, case = choose_profiled_model("run", NETWORK, 5, None, rule), cases()[1]
    row = measure_case(lambda: profiled.build(case), case, effort=QUICK, picture=PICTURE)
    assert row["status"] == "ok"
    assert row["p50_ms"] > 0
    assert row["stages_ms"] == {}, "a PNG of RGB is not what it reads"
    more, fewer = (one.count([case])[case.title]["total"] for one in (profiled, SUBJECT))
    assert more["parameters"] - fewer["parameters"] == 2 * 32 * 3 * 3
    assert row["gmacs"] == pytest.approx(more["macs"] / 1e9, abs=1e-3)


def test_a_row_is_plain_json_and_says_what_was_measured(quick_memory):
    row = measure_case(lambda: SUBJECT.build(cases()[1]), cases()[1], effort=QUICK, picture=PICTURE)
    assert json.loads(json.dumps(row)) == row
    assert row["status"] == "ok"
    assert row["gflops"] == pytest.approx(2 * row["gmacs"], abs=2e-3)
    assert row["parameters"] == count_parameters(SUBJECT.build(cases()[1]))["total"]
    assert list(row["parts_ms"]) == ["backbone", "aspp", "decoder", "classifier", "upsampling"]
    assert row["stages_ms"]["end to end"] > row["stages_ms"]["forward"] > 0
    assert row["images_per_second"] == pytest.approx(1000 / row["p50_ms"], abs=0.01)
    assert row["joules_per_image"] == NOT_MEASURED
    assert row["energy_status"] == "not measured: left out by energy_seconds=0"


def test_what_does_not_fit_or_is_refused_is_a_row_and_the_others_go_on(workspace, monkeypatch, quick_memory):
    def latency(model, **options):
        if options["batch"] == 2:
            raise OutOfMemoryError("out of memory")
        if options["batch"] == 3:
            raise RuntimeError("no such kernel\nand a long story")
        return original(model, **options)

    original = sweep_module.measure_latency
    monkeypatch.setattr(sweep_module, "measure_latency", latency)
    rows = sweep(
        SUBJECT,
        cases(batch_sizes="3 2 1", output_strides="16"),
        run="demo",
        effort=QUICK,
        progress="none",
    )
    assert [row["status"] for row in rows] == ["failed: no such kernel", "out of memory", "ok"]
    assert rows[1]["p50_ms"] == NOT_MEASURED
    assert rows[1]["above_weights_mib"] == 12.5, "what was measured before is kept"
    assert rows[2]["p50_ms"] > 0


def test_a_network_whose_process_ran_out_of_memory_is_not_timed(monkeypatch):
    def refuse(*arguments, **options):
        raise OutOfMemoryError("out of memory")

    monkeypatch.setattr(sweep_module, "measure_memory", refuse)
    monkeypatch.setattr(sweep_module, "measure_latency", lambda *arguments, **options: pytest.fail("was timed"))
    row = measure_case(lambda: SUBJECT.build(cases()[0]), cases()[0], effort=QUICK)
    assert row["status"] == "out of memory"
    assert row["gmacs"] > 0


def test_real_lack_of_memory_is_a_row(quick_memory):
    case = Case("mobilenet_v2", 16, 2**20, 2**20)
    assert measure_case(lambda: SUBJECT.build(case), case, effort=QUICK)["status"] == "out of memory"


def test_a_compiled_network_has_no_parts_and_one_whose_compiler_fails_says_so(monkeypatch, quick_memory):
    seen = []

    def compile_network(model):
        seen.append("compiled")
        return model

    monkeypatch.setattr("dlv3p.profiling.latency.compile_network", compile_network)
    (case,) = cases(compiles="on", output_strides="16")
    row = measure_case(lambda: SUBJECT.build(case), case, effort=QUICK, picture=PICTURE)
    assert (seen, row["parts_ms"], row["stages_ms"], row["status"]) == (["compiled"], {}, {}, "ok")

    def fail(model):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr("dlv3p.profiling.latency.compile_network", fail)
    row = measure_case(lambda: SUBJECT.build(case), case, effort=QUICK)
    assert row["status"] == "failed: no C++ compiler"


@pytest.fixture
def counted(monkeypatch):
    """Cases that are measured at once, and the list of those that were; the case whose batch is in `deadly` kills."""

    class Measured(list):
        deadly = ()

    measured = Measured()

    def measure(build, case, **options):
        if case.batch_size in measured.deadly:
            raise KeyboardInterrupt
        measured.append(case.batch_size)
        return case.as_dict() | {"status": "ok", "number": len(measured)}

    monkeypatch.setattr(sweep_module, "measure_case", measure)
    return measured


def run_sweep(**options):
    asked = {"run": "demo", "effort": QUICK, "progress": "none"} | options
    return sweep(SUBJECT, cases(batch_sizes="1 2 3", output_strides="16"), **asked)


def test_a_killed_sweep_goes_on_where_it_was(workspace, counted):
    counted.deadly = (3,)
    with pytest.raises(KeyboardInterrupt):
        run_sweep()
    counted.deadly = ()
    rows = run_sweep()
    assert counted == [1, 2, 3]
    assert [row["number"] for row in rows] == [1, 2, 3]
    (path,) = (workspace / "outputs" / "demo").glob("sweep-*.json")
    assert json.loads(path.read_text())["rows"] == rows


def test_a_finished_sweep_is_measured_anew(workspace, counted):
    run_sweep()
    run_sweep()
    assert counted == [1, 2, 3] * 2


def test_rows_of_another_effort_machine_or_network_are_not_taken_over(workspace, counted, monkeypatch):
    for change in range(3):
        counted.deadly = (3,)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(effort=Effort(energy_seconds=0, repeats=11) if change == 0 else QUICK)
        counted.deadly = ()
        counted.clear()
        if change == 1:
            monkeypatch.setattr(sweep_module, "machine", lambda: {"processor": "another"})
        if change == 2:
            monkeypatch.setattr(
                f"{__name__}.SUBJECT", ProfiledModel(NetworkParameters(backbone="mobilenet_v2"), 5, "mobilenet_v2")
            )
        run_sweep()
        assert counted == [1, 2, 3]


def test_a_file_that_cannot_be_read_starts_the_sweep_anew(workspace, counted):
    run_sweep()
    (path,) = (workspace / "outputs" / "demo").glob("sweep-*.json")
    for content in ("half a fi", "[]", '{"finished": false, "rows": [{"backbone": 1}]}'):
        write_text(path, content)
        counted.clear()
        run_sweep()
        assert counted == [1, 2, 3]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_everything_in_a_row_is_measured_in_its_precision(monkeypatch, precision):
    """Memory, energy, and every image that the network sees, by whatever is timed."""
    asked, seen = [], set()

    def memory(model, **options):
        asked.append(options["dtype"])
        return {}

    def energy(predict, counter, **options):
        seen.clear()
        predict()
        asked.append(seen.pop())
        return Energy()

    def build():
        model = SUBJECT.build(case)
        model.backbone.register_forward_pre_hook(lambda module, inputs: seen.add(inputs[0].dtype))
        return model

    def watched(name):
        original = getattr(sweep_module, name)

        def measure(*arguments, **options):
            seen.clear()
            result = original(*arguments, **options)
            asked.append(seen.pop())
            return result

        monkeypatch.setattr(sweep_module, name, measure)

    for name in ("measure_latency", "measure_parts", "measure_stages"):
        watched(name)
    monkeypatch.setattr(sweep_module, "measure_memory", memory)
    monkeypatch.setattr(sweep_module, "open_counter", lambda device: None)
    monkeypatch.setattr(sweep_module, "measure_energy", energy)
    (case,) = cases(output_strides="16", precisions=precision)
    row = measure_case(build, case, effort=Effort(0, 1, 4, 3), picture=PICTURE)
    assert row["status"] == "ok"
    assert asked == [getattr(torch, precision)] * 5


def test_a_compiled_row_compiles_for_energy_and_memory_and_waits_for_the_device(monkeypatch):
    compiled, log = [], []

    def compile_network(model):
        compiled.append("energy")
        return lambda images: log.append("predict")

    def memory(model, **options):
        compiled.extend(["memory"] if options["compiled"] else [])
        return {}

    def energy(predict, counter, **options):
        log.clear()
        predict()
        return Energy()

    monkeypatch.setattr(sweep_module, "measure_memory", memory)
    monkeypatch.setattr("dlv3p.profiling.latency.compile_network", lambda model: model)
    monkeypatch.setattr(sweep_module, "compile_network", compile_network)
    monkeypatch.setattr(sweep_module, "clock_of", lambda device: SimpleNamespace(wait=lambda: log.append("wait")))
    monkeypatch.setattr(sweep_module, "open_counter", lambda device: None)
    monkeypatch.setattr(sweep_module, "measure_energy", energy)
    (case,) = cases(compiles="on", output_strides="16")
    measure_case(lambda: SUBJECT.build(case), case, effort=Effort(0, 1, 4, 3))
    assert compiled == ["memory", "energy"]
    assert log == ["predict", "wait"]


def test_energy_is_measured_by_the_counter_of_the_device(monkeypatch, quick_memory):
    def measured(predict, counter, **options):
        predict()
        assert (counter, options) == ("counter of cpu", {"images": 2, "seconds": 4, "idle_seconds": 3})
        return Energy(joules_per_image=1.5, energy_status="measured")

    monkeypatch.setattr(sweep_module, "open_counter", lambda device: f"counter of {device}")
    monkeypatch.setattr(sweep_module, "measure_energy", measured)
    (case,) = cases(batch_sizes="2", output_strides="16")
    row = measure_case(lambda: SUBJECT.build(case), case, effort=Effort(0, 1, 4, 3))
    assert (row["joules_per_image"], row["energy_status"]) == (1.5, "measured")

    def refuse(device):
        raise NotMeasurable("no such counter")

    monkeypatch.setattr(sweep_module, "open_counter", refuse)
    row = measure_case(lambda: SUBJECT.build(case), case, effort=Effort(0, 1, 4, 3))
    assert (row["joules_per_image"], row["energy_status"]) == (NOT_MEASURED, "not measured: no such counter")


@pytest.mark.parametrize(
    "backbone",
    [name if name == "vovnet39" else pytest.param(name, marks=pytest.mark.slow) for name in published_backbones()],
)
def test_the_published_networks_are_built_as_published(backbone):
    profiled = choose_profiled_model("vovnet_system", NETWORK, 5)
    case = Case(backbone, 16, 513, 513)
    parts = profiled.count([case])[case.title]
    assert parts["total"]["parameters"] == published_backbones()[backbone].parameters
    assert backbone in profiled.backbones.split()
    columns = count_columns({case.title: parts})
    assert columns[case.title, "flops"]["total"] == 2 * columns[case.title, "macs"]["total"]


def test_the_notebook_system_is_built_as_published():
    profiled = choose_profiled_model("notebook_system", NETWORK, 5)
    case = Case("resnet50", 16, 1024, 2048)
    total = profiled.count([case])[case.title]["total"]
    assert total["parameters"] == 39_804_436
    assert total["macs"] / 1e9 == pytest.approx(481.8, abs=0.2)


def test_a_pruned_run_is_profiled_with_its_own_widths():
    dense = SUBJECT.build(cases()[1])
    name, layer = next((n, m) for n, m in dense.decoder.named_modules() if hasattr(m, "out_channels"))
    widths = {f"decoder.{name}": {"out_channels": layer.out_channels}}
    profiled = choose_profiled_model("run", NETWORK, 5, widths)
    assert profiled.widths_in(cases()[1]) == widths
    assert profiled.build(cases()[1]).widths == widths
    assert profiled.widths_in(Case("resnet18", 16, 33, 65)) == {}


def test_only_one_published_energy_cannot_be():
    told = {name: plausible_joules(figures) for name, figures in published_backbones().items()}
    assert told.pop("resnet101") == "implausible: 15.8 J means 494 W, the limit is 300 W"
    assert all(isinstance(value, float) for value in told.values())


def example_rows():
    rows = []
    for case in cases(backbones="vovnet39 mobilenet_v2", precisions="float32 bfloat16"):
        row = {"device": "cpu", "parameters": 29_513_621, "gmacs": 53.8, "p10_ms": 1.0, "p50_ms": 2.0, "p90_ms": 4.0}
        row |= {"allocated_mib": NOT_MEASURED, "reserved_mib": NOT_MEASURED, "process_mib": 100.0}
        row |= {"above_weights_mib": 20.0, "status": "ok"}
        row |= {"times_ms": [1.0, 2.0, 5.0], "parts_ms": {"backbone": 1.5, "aspp": 0.5}, **Energy().as_dict()}
        rows.append(case.as_dict() | row | {"stages_ms": {"decode": 1.0, "forward": 2.0, "end to end": 3.0}})
    rows[-1] |= {"status": "out of memory", "times_ms": [], "parts_ms": {}, "stages_ms": {}, "p50_ms": NOT_MEASURED}
    rows[0] |= {"joules_per_image": 3.0, "net_joules_per_image": 2.0, "mIoU": 0.5}
    return rows


def test_published_figures_stand_beside_ours_in_columns_of_their_own():
    rows = example_rows()
    table = backbone_table(rows).set_index(("", "backbone"))
    theirs = next(name for name in table.columns.levels[0] if "V100" in name)
    assert len(table) == len(rows) + len(published_backbones()) - 1
    stride16 = table.loc["vovnet39"].iloc[2]
    assert (stride16["ours", "ms"], stride16[theirs, "ms"], stride16[theirs, "mIoU, %"]) == (2.0, 19, 75.71)
    assert table.loc["vovnet39"].iloc[0][theirs, "ms"] == "", "theirs are of stride 16 alone"
    assert table.loc["vovnet39"].iloc[0]["ours", "mIoU, %"] == 50
    assert table.loc["resnet101"]["ours", "ms"] == NOT_MEASURED
    assert table.loc["resnet101"][theirs, "J/frame"].startswith("implausible")
    told = notebook_table(rows)
    theirs = next(name for name in told.columns.levels[0] if "1024 x 2048" in name)
    assert told[theirs, "end to end, ms"].tolist() == [207.6, 207.6, 138.6, 138.6] * 2
    assert told["ours", "end to end, ms"].tolist() == [3.0] * 7 + [NOT_MEASURED]


def test_pictures_have_a_row_a_case_and_say_what_is_not_there():
    rows = example_rows()
    counts = choose_profiled_model("run", NETWORK, 5).count(
        cases(backbones="vovnet39 mobilenet_v2", precisions="float32")
    )
    counts |= {f"{title}, bfloat16": parts for title, parts in counts.items()}
    rows[1] |= {"p50_ms": 1042.5}
    assert "1042" in [text.get_text() for text in draw_latencies(rows, footer="").axes[0].texts], "no power of ten"
    for figure in (draw_latencies(rows, footer=""), draw_parts(rows, counts, footer=""), draw_stages(rows, footer="")):
        words = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert words.count("out of memory") == 1
        assert len(figure.axes[0].get_yticks()) == len(rows)
        assert png(figure).startswith(b"\x89PNG")
    words = [text.get_text() for text in draw_energy(rows, footer="").axes[0].texts]
    assert words == ["all 3", "above idle 2", *[NOT_MEASURED] * (len(rows) - 1)]
    words = [text.get_text() for text in draw_memory(rows, footer="").axes[0].texts]
    assert words[:2] == ["process 100", "above weights 20"], "what no row has measured is not drawn"


def test_a_sentence_stands_for_a_figure_of_what_was_not_measured(tmp_path):
    names = ("joules_per_image", "net_joules_per_image")
    rows = [row | dict.fromkeys(names, NOT_MEASURED) | {"energy_status": "no counter"} for row in example_rows()]
    sentence = draw_energy(rows, footer="")
    assert repr(sentence) == sentence == "energy per image: nothing was measured here (no counter)."
    (tmp_path / "energy.png").write_bytes(b"of an older profile")
    save_figure(sentence, tmp_path / "energy.png")
    assert not (tmp_path / "energy.png").exists()


def write_run(name, *, miou, widths=None, **switches):
    parameters = TrainParameters(backbone="mobilenet_v2", channels=8, run=name, **switches)
    state = {"epoch": 1, "parameters": parameters.as_dict(), "class_names": list("abcde"), "model": {}}
    save_checkpoint(checkpoint_path(name, "best"), state | {"widths": widths or {}})
    scored = {"checkpoint": "best.pt", "mIoU": miou, "protocol": "whole images", "data_root": "city", "split": "val"}
    scored |= {"images": 3, "classes": dict.fromkeys("abcde", {})}
    path = checkpoint_path(name, "best").parents[3] / "outputs" / name / "evaluation.json"
    write_json(path, scored)


def test_scores_are_those_of_runs_with_the_very_same_network(workspace):
    rows = [case.as_dict() for case in cases(precisions="float32 bfloat16")]
    assert {row["mIoU"] for row in add_scores(rows, SUBJECT, run="own")} == {NOT_MEASURED}
    write_run("own", miou=0.25, output_stride=16)
    write_run("wider", miou=0.9, output_stride=8, low_level_channels=16)
    write_run("pruned", miou=0.8, output_stride=8, widths={"classifier": {"in_channels": 4}})
    write_run("other", miou=0.5, output_stride=16)
    scored = add_scores(rows, SUBJECT, run="own")
    assert [(row["output_stride"], row["precision"], row["mIoU"]) for row in scored] == [
        (8, "float32", NOT_MEASURED),
        (8, "bfloat16", NOT_MEASURED),
        (16, "float32", 0.25),
        (16, "bfloat16", NOT_MEASURED),
    ]
    assert scored[2]["protocol"] == "whole images; city val, 3 images"
    assert add_scores(rows, SUBJECT, run="pruned")[2]["scored_run"] in ("own", "other")
    checkpoint_path("own", "best").write_bytes(b"damaged")
    assert add_scores(rows, SUBJECT, run="own")[2]["mIoU"] == 0.5


def test_strides_are_compared_in_turns_with_the_largest_as_measure(monkeypatch):
    rows = [row | {"gmacs": 32.0 / row["output_stride"]} for row in example_rows()[4:]]
    times = iter(range(100))
    monkeypatch.setattr(strides_module, "prepare", lambda model, *arguments: lambda images: next(times))
    table, remark = compare_strides(SUBJECT, rows, device="cpu", warmup=1, repeats=3)
    assert remark == ""
    assert list(table.index) == [
        "mobilenet_v2, stride 16, 1 x 33 x 65",
        "mobilenet_v2, stride 8, 1 x 33 x 65",
    ]
    assert table["MAC ratio"].tolist() == [1, 2]
    assert table["time ratio"].iloc[0] == 1
    for fewer in (rows[:1], [row | {"status": "out of memory"} for row in rows]):
        table, remark = compare_strides(SUBJECT, fewer, device="cpu")
        assert table.empty
        assert remark == "no case was measured at two output strides"


def stride_rows():
    return [row | {"gmacs": 32.0 / row["output_stride"]} for row in example_rows()[4:]]


def test_the_interval_of_a_stride_is_from_its_lower_to_its_upper_end(monkeypatch):
    waits = []

    def turns(runs, **options):
        for run in runs.values():
            run()
        small, large = runs  # the largest stride first
        return InterleavedTimes({small: [1.0] * 100, large: [float(time) for time in range(1, 101)]})

    monkeypatch.setattr(strides_module, "prepare", lambda model, *arguments: lambda images: None)
    monkeypatch.setattr(strides_module, "clock_of", lambda device: SimpleNamespace(wait=lambda: waits.append("wait")))
    monkeypatch.setattr(strides_module, "time_interleaved", turns)
    row = compare_strides(SUBJECT, stride_rows(), device="cpu").table.iloc[1]
    assert row[["from", "to"]].tolist() == pytest.approx([41, 60])
    assert row["from"] < row["time ratio"] < row["to"]
    assert waits == ["wait", "wait"], "a prediction ends with the device's work"


def test_strides_that_do_not_fit_together_leave_a_remark_and_the_profile(workspace, monkeypatch):
    def refuse(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA: tried to allocate 2 GiB")

    monkeypatch.setattr(strides_module, "prepare", lambda model, *arguments: lambda images: None)
    monkeypatch.setattr(strides_module, "time_interleaved", refuse)
    rows = stride_rows()
    path = save_profile("demo", {"run": "demo"}, {}, rows)
    assert json.loads(path.read_text())["rows"] == rows
    comparison = compare_strides(SUBJECT, rows, device="cpu")
    assert comparison.table.empty
    assert comparison.remark.startswith("out of memory: each fits alone, but they do not fit together; take")
    save_profile("demo", {"run": "demo"}, {}, rows, comparison)
    content = json.loads(path.read_text())
    assert (content["rows"], content["strides"], content["asked"]) == (rows, {}, {"run": "demo"})
    assert content["machine"]["torch"] == torch.__version__


def test_the_notebook_keeps_its_rows_before_the_strides_are_compared():
    notebook = json.loads((Path(__file__).parents[2] / "notebooks" / "profile.ipynb").read_text(encoding="utf-8"))
    source = "".join(line for cell in notebook["cells"] for line in cell["source"])
    assert (
        source.index("sweep(profiled, cases")
        < source.index("save_profile(predictor.run")
        < source.index("compare_strides(")
    )


def test_the_table_of_measurements_names_its_columns_and_says_what_was_not_measured():
    rows = example_rows()
    table, absent = measurements_table(rows)
    assert list(table.index) == [case_of(row).title for row in rows]
    assert table["median, ms"].iloc[0] == rows[0]["p50_ms"]
    assert table["above weights, MiB"].iloc[0] == 20
    assert "allocated, MiB" not in table
    assert "allocated, MiB; reserved, MiB" in absent
    assert absent.startswith("not measured here: ")
    assert {"times_ms", "parts_ms", "stages_ms", "load"}.isdisjoint(table)
    assert list(table["status"]) == [row["status"] for row in rows]


def test_a_figure_of_times_names_the_machine():
    footer = f"demo · {machine_name('cpu')}"
    assert re.fullmatch(r"demo · .+, \d+ threads", footer)
    for draw in (draw_latencies, draw_stages, draw_memory, draw_energy):
        assert draw(example_rows(), footer=footer).get_supxlabel() == footer
