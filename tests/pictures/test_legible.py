"""Every figure that the suite draws can be read: it says what it is of, and no text hides another or is cut off."""

import ast
import io
import warnings
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from cityscapes.audit_rules import AuditReport, SplitCounts
from cityscapes.labels import CLASS_NAMES
from dlv3p.evaluation.calibration import Reliability
from dlv3p.evaluation.details import Details
from dlv3p.evaluation.published_figures import published_figures
from dlv3p.experiments.published_tables import Report
from dlv3p.parameters.notebooks import ProfileParameters
from dlv3p.parameters.training import TrainParameters
from dlv3p.pictures import anatomy, audits, comparisons, curves, figures, profiles, scores
from dlv3p.pictures.figure_data import figure_data
from dlv3p.training.range_test import RangeTest

MODULES = (anatomy, audits, comparisons, curves, profiles, scores)
NAMES = (*CLASS_NAMES[:17], "price in $ or $2", "a class whose name is as long as names of classes get")
"""Names of nineteen classes, as the tables of users have them."""
RUN = "deeplabv3plus-mobilenet_v2-os16-e7e405"
FOOTER = f"{RUN}, epoch 26 · demo_city val, 40 images · whole_image"
MACHINE = f"{RUN} · Intel(R) Xeon(R) Processor @ 2.90GHz, 2 threads"
RANDOM = np.random.default_rng(0)


def details() -> Details:
    truth = np.repeat(np.arange(19, dtype=np.uint8), 20)[None].repeat(40, 0)
    found = Details.empty(NAMES)
    found.add(truth, np.roll(truth, 3, axis=1))
    found.reliability = Reliability()
    found.reliability.add(RANDOM.random(1000), RANDOM.random(1000) > 0.3)
    found.temperature, found.tempered = 1.5, found.reliability
    return found


def rows() -> list[dict[str, object]]:
    parts = {"backbone": 15.5, "aspp": 10.5, "decoder": 4.0, "classifier": 0.1, "upsampling": 9.0}
    times = {"times_ms": [40.0, 41.0, 80.0], "p10_ms": 40.0, "p50_ms": 1041.0, "p90_ms": 80.0, "parts_ms": parts}
    stages = {name: 3.0 + number for number, name in enumerate(profiles.STAGES)}
    measured = dict.fromkeys([*profiles.MEMORY, *profiles.ENERGY], 123.4)
    made = ProfileParameters(backbones="vovnet39 mobilenet_v2", precisions="float32 bfloat16").cases("")
    return [case.as_dict() | times | measured | {"stages_ms": stages, "status": "ok"} for case in made]


def counts() -> dict[str, dict[str, dict[str, int]]]:
    part = {"parameters": 1_811_712, "macs": 2_120_000_000}
    return {profiles._title(row): dict.fromkeys(["backbone", "aspp", "decoder", "classifier"], part) for row in rows()}


def comparison() -> SimpleNamespace:
    values = np.linspace(-4, 3, 19)
    table = pd.DataFrame({"difference": values, "low": values - 1, "high": values + 1}, index=list(NAMES))
    costs = pd.DataFrame({"latency, ms": [10.0, 30.0], "mIoU": [0.5, 0.6], "on the front": "yes"}, index=[RUN, "other"])
    one = SimpleNamespace(name=RUN, cost={"size": "256 x 512", "machine": MACHINE})
    return SimpleNamespace(
        classes=lambda which: table.assign(verdict="worse"),
        table=lambda: pd.DataFrame([{}, {"difference": 0.1, "low": 0.0, "high": 0.2, "verdict": "better"}]),
        costs=lambda: costs, price="latency, ms", reference=one, others=[one], footer=FOOTER,
    )  # fmt: skip


def shapes() -> pd.DataFrame:
    facts = {"channels": 320, "height": 16, "width": 32, "stride": 16}
    return pd.DataFrame.from_dict(dict.fromkeys(anatomy.DRAWN, facts), orient="index")


def metrics(*losses: float) -> pd.DataFrame:
    made = [
        {"run": run, "output_stride": 16, "epoch": epoch, "split": split, "loss": loss, "mIoU": 1 / (1 + loss)}
        for run in (RUN, f"{RUN}-again")
        for split in ("train", "val")
        for epoch, loss in enumerate(losses, start=1)
    ]
    return pd.DataFrame(made).assign(mDice=0.5, mPA=0.5, step=0, hours=0.0)


def history() -> list[dict[str, float]]:
    return [{"epoch": epoch, "train_loss": 1 / epoch, "val_mIoU": 0.02 * epoch} for epoch in range(1, 27)]


def seeds() -> pd.DataFrame:
    made = {"recipe": [RUN, RUN, "other"], "data": "demo_city val, 40 images", "protocol": "whole_image"}
    return pd.DataFrame(made | {"mIoU": [0.5, 0.52, 0.6]})


def audited() -> AuditReport:
    split = [
        SplitCounts(name, NAMES, pixels=[3**index for index in range(19)] + [0] * 237) for name in ("train", "val")
    ]
    return AuditReport(Path("data/demo_city"), tuple(split), ())


RATES = np.geomspace(1e-6, 1, 100).tolist()
DRAWN: dict[str, tuple[Callable[[], Figure], str]] = {
    "class_iou_bars": (lambda: scores.class_iou_bars(dict.fromkeys(NAMES, 0.9), footer=FOOTER), FOOTER),
    "confusion_heatmap": (lambda: scores.confusion_heatmap(np.eye(19) + 1, NAMES, footer=FOOTER), FOOTER),
    "edges_chart": (lambda: scores.edges_chart(details(), footer=FOOTER), FOOTER),
    "distances_chart": (lambda: scores.distances_chart(details(), footer=FOOTER), FOOTER),
    "reliability_chart": (lambda: scores.reliability_chart(details(), footer=FOOTER), FOOTER),
    "class_share_bars": (lambda: audits.class_share_bars(audited()), "demo_city"),
    "draw_parts": (lambda: profiles.draw_parts(rows(), counts(), footer=MACHINE), MACHINE),
    "draw_stages": (lambda: profiles.draw_stages(rows(), footer=MACHINE), MACHINE),
    "draw_latencies": (lambda: profiles.draw_latencies(rows(), footer=MACHINE), MACHINE),
    "draw_memory": (lambda: profiles.draw_memory(rows(), footer=MACHINE), MACHINE),
    "draw_energy": (lambda: profiles.draw_energy(rows(), footer=MACHINE), MACHINE),
    "draw_widths": (
        lambda: profiles.draw_widths(pd.DataFrame({"dense": [64, 9000] * 30, "pruned": [3, 40] * 30}), footer=MACHINE),
        MACHINE,
    ),
    "draw_speedups": (lambda: profiles.draw_speedups(dict.fromkeys(NAMES, 8.57), footer=MACHINE), MACHINE),
    "difference_chart": (lambda: comparisons.difference_chart(comparison()), FOOTER),
    "cost_chart": (lambda: comparisons.cost_chart(comparison()), MACHINE),
    "seeds_chart": (lambda: comparisons.seeds_chart(seeds()), "demo_city val, 40 images; whole_image"),
    "ranking_chart": (lambda: comparisons.ranking_chart(Report(published_figures(), ()).ranking()), "whole_image"),
    "tradeoff_chart": (
        lambda: comparisons.tradeoff_chart(pd.DataFrame({"mIoU": [1, 2], "GMACs": [3, 4]}, ["a", "b"]), footer=FOOTER),
        FOOTER,
    ),
    "overlaid_chart": (lambda: comparisons.overlaid_chart(history(), history(), (RUN, "again")), RUN),
    "plot_curves": (lambda: curves.plot_curves(metrics(4305.0, *np.geomspace(2, 0.5, 25))), RUN),
    "plot_range_test": (
        lambda: curves.plot_range_test(RangeTest(RATES, [2.5] * 90 + [9.0] * 10), TrainParameters(run="mine")),
        "mine · demo_city train, batch_size 4 · adamw",
    ),
    "draw_shapes": (lambda: anatomy.draw_shapes(dict.fromkeys((8, 16, 32), shapes()), footer=FOOTER), FOOTER),
    "draw_fields": (
        lambda: anatomy.draw_fields(dict.fromkeys((8, 16), np.ones((129, 257))), {8: 99, 16: 299}, footer=FOOTER),
        FOOTER,
    ),
}
"""A figure of each function, of the numbers and names of a hard day, and what it has to say in it."""


def read(figure: Figure) -> dict[Text, tuple[float, float, float, float]]:
    """Return the place of each text as it is drawn, in pixels; texts that are not shown are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.png(figure)
        figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    axes = {axis: axis.get_window_extent() for each in figure.axes for axis in (each.xaxis, each.yaxis)}
    return {text: text.get_window_extent().extents for text in texts if _shown(text, axes)}


def _shown(text: Text, axes: dict) -> bool:
    """Return whether a text is drawn: the label of a tick outside the limits is not."""
    for axis in axes:
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if text in (tick.label1, tick.label2):
                low, high = sorted(axis.get_view_interval())
                return axis.axes.axison and low <= tick.get_loc() <= high
        if text is axis.label:
            return axis.axes.axison
    return True


def complaints(figure: Figure) -> Iterator[str]:
    """Yield what cannot be read: texts beyond the edge of the figure, and pairs that lie on one another."""
    places = read(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for text, (left, bottom, right, top) in places.items():
        if left < -1 or bottom < -1 or right > width + 1 or top > height + 1:
            yield f"is cut off: {text.get_text()!r}"
    annotations = {text for axes in figure.axes for text in axes.texts}
    for one, other in combinations((text for text in places if text not in annotations), 2):
        (a, b, c, d), (e, f, g, h) = places[one], places[other]
        if min(c, g) - max(a, e) > 1 and min(d, h) - max(b, f) > 1:
            yield f"lie on one another: {one.get_text()!r} and {other.get_text()!r}"


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_can_be_read_and_says_what_it_is_of(name: str) -> None:
    draw, said = DRAWN[name]
    figure = draw()
    assert list(complaints(figure)) == []
    assert said in " ".join(" ".join(text.get_text().split()) for text in read(figure))


@pytest.mark.parametrize("name", DRAWN)
def test_the_numbers_of_a_figure_say_what_they_are_of(name: str) -> None:
    """A number has a name on an axis, or stands in a named series; two points alone are a line that guides the eye."""
    table = figure_data(DRAWN[name][0]())
    numbers = table[["x", "y"]].map(lambda place: not isinstance(place, str)).all(axis=1)
    nameless = table[numbers & (table["series"] == "") & ~table["kind"].str.startswith("cell")]
    assert (nameless.groupby(["axes", "kind"]).size() <= 2).all()
    curves = table[(table["kind"] == "line") & numbers & (table["series"] != "")]
    repeated = curves.groupby(["axes", "series"])["x"].apply(lambda places: places.duplicated().any())
    assert name == "draw_fields" or not repeated.any(), "two curves of one name"


def test_there_is_one_for_each_function_that_draws_a_figure() -> None:
    drawing = [
        node.name
        for module in MODULES
        for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and "Figure" in ast.unparse(node)
        and node.returns is not None and "Figure" in ast.unparse(node.returns)
    ]  # fmt: skip
    assert sorted(drawing) == sorted(DRAWN)


OF_NO_DATA = {"palette_picture", "difference_picture"}
"""Pictures of a table of classes, and of what `differences_picture` writes the small print under."""


def test_every_picture_has_small_print_that_says_what_it_is_of() -> None:
    root = Path(figures.__file__).parents[2]
    sources = {path.stem: path.read_text(encoding="utf-8") for path in (root / "dlv3p" / "pictures").glob("*.py")}
    drawing = [
        node
        for source in sources.values()
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.returns is not None
        and "Image.Image" in ast.unparse(node.returns)
    ]  # fmt: skip
    assert len(drawing) > 8
    assert {node.name for node in drawing if "with_footer(" not in ast.unparse(node)} == OF_NO_DATA
    cells = [
        cell.source
        for path in sorted((root / "notebooks").glob("*.ipynb"))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code" and "Image.fromarray(" in cell.source
    ]
    assert [cell for cell in cells if "with_footer(" not in cell and "legend(split.class_names" not in cell] == []


def test_the_mark_of_the_best_epoch_is_on_the_curve_of_the_score_and_nowhere_else() -> None:
    figure = curves.plot_curves(metrics(3.0, 1.0, 2.0))
    figure.draw_without_rendering()
    by_title = {axes.get_title(): axes for axes in figure.axes}
    marks = {title: sum(len(drawn.get_offsets()) for drawn in axes.collections) for title, axes in by_title.items()}
    assert marks == {"loss": 0, "mIoU": 2, "mDice": 0, "mPA": 0}
    assert [drawn.get_offsets().tolist() for drawn in by_title["mIoU"].collections] == [[[2, 0.5]]] * 2
    for legend in figure.legends:
        assert not any(legend.get_window_extent().overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_the_line_of_the_mean_does_not_cross_the_value_of_a_class() -> None:
    """Values near the mean are written where its dashed line would go through them."""
    figure = scores.class_iou_bars({"a": 0.98, "b": 0.92, "c": 0.88}, footer="")
    figure.savefig(io.BytesIO(), dpi=100)
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    orange = (abs(pixels - (213, 94, 0)) < 60).all(axis=2)
    values = [text for text in figure.axes[0].texts if text.get_text().startswith("0.")]
    assert len(values) == 3
    for text in values:
        left, bottom, right, top = text.get_window_extent().extents.astype(int)
        assert not orange[len(pixels) - top : len(pixels) - bottom, left:right].any(), text.get_text()
