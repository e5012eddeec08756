"""The charts of what a mean hides: a row per class, a band per place, and a sentence where nothing was asked for."""

import numpy as np
import pandas as pd

from dlv3p.evaluation.calibration import Reliability
from dlv3p.evaluation.details import Details
from dlv3p.pictures.figures import png
from dlv3p.pictures.scores import (
    NO_OBJECTS,
    NOT_ASKED,
    NOT_OFFICIAL,
    describe_least_sure,
    distances_chart,
    edges_chart,
    reliability_chart,
    score_table,
)


def example():
    truth = np.zeros((40, 60), np.uint8)
    truth[:, 30:] = 1
    details = Details.empty(("road", "sky", "nowhere"))
    prediction = np.zeros_like(truth)
    prediction[:, 33:] = 1
    details.add(truth, prediction)
    details.reliability = Reliability()
    details.reliability.add(np.array([0.5, 0.52, 0.9]), np.array([True, False, True]))
    return details


def test_charts_have_a_row_for_each_class_that_occurs_and_a_place_for_each_band():
    details = example()
    edges = edges_chart(details, footer="run · split")
    lowest, top = (text.get_text() for text in edges.axes[0].get_yticklabels())
    losses = details.classes()["difference"]
    assert {lowest, top} == {"road", "sky"}
    assert losses[top] > losses[lowest]
    assert edges.get_supxlabel() == "run · split"
    bands = distances_chart(details, footer="")
    (accuracy, score) = bands.axes[0].get_lines()
    assert accuracy.get_ydata()[0] < 1
    assert accuracy.get_ydata()[4] == score.get_ydata()[4] == 1, "17 to 32 pixels from the edge all is right"
    assert [text.get_text() for text in bands.axes[0].get_xticklabels()][-1] == "33 and more"
    for figure in (edges, bands):
        assert png(figure).startswith(b"\x89PNG")


def test_the_curve_of_calibration_names_its_error_and_the_temperature():
    details = example()
    assert len(reliability_chart(details, footer="").axes[0].get_lines()) == 2, "the diagonal and the network"
    details.temperature, details.tempered = 1.5, details.reliability
    figure = reliability_chart(details, footer="")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().y0 >= figure.axes[0].get_window_extent().y1 - 1, "it hides no curve"
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[1].startswith("temperature 1.50: ECE ")
    assert labels[0].split(": ")[1] == labels[1].split(": ")[1]


def test_a_table_of_scores_has_three_digits_and_a_dash_where_there_is_none():
    page = score_table(pd.DataFrame({"IoU": [0.25, np.nan]}, index=["road", "sky"]), NOT_OFFICIAL).to_html()
    assert ">0.250<" in page
    assert ">-<" in page
    assert describe_least_sure(example()) == "errors among the least sure tenth of the pixels: 15%"


def test_a_sentence_stands_where_no_details_were_asked_for():
    nothing = Details.empty(("road",))
    assert {chart(nothing, footer="") for chart in (edges_chart, distances_chart, reliability_chart)} == {NOT_ASKED}
    assert describe_least_sure(nothing) == NOT_ASKED
    assert repr(NOT_ASKED) == str(NOT_ASKED), "without quotation marks"
    sizes = nothing.by_size().pivot(index="class", columns="size", values="IoU")
    assert score_table(sizes, NO_OBJECTS) is NO_OBJECTS
    assert nothing.save("nowhere/details.csv") == []
