"""Published figures: read with their sources, refused where a row is wrong, and the digits that were published."""

import csv
import re
from collections import Counter

import pytest

from cityscapes.errors import InputError
from dlv3p.evaluation.comparison import published_scores
from dlv3p.evaluation.published_figures import COLUMNS, FIGURES, choose, published_figures
from dlv3p.parameters.protocols import PUBLISHED

SOUND = {
    "system": "me", "table": "results", "architecture": "deeplabv3", "backbone": "resnet50", "output_stride": "8",
    "data": "VOC", "protocol": "whole_image", "training": "VOC train", "metric": "mIoU", "value": "76.10", "unit": "%",
    "source": "README.md",
}  # fmt: skip


def write(path, *rows, columns=COLUMNS):
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return path


def test_a_row_that_was_added_is_read(tmp_path):
    path = write(tmp_path / "figures.csv", SOUND)
    (read,) = published_figures(path)
    assert (read.network, read.value, read.written) == ("DeepLabV3 ResNet-50 stride 8", 76.1, "76.10")
    (score,) = published_scores(path)
    assert score == ("DeepLabV3 ResNet-50 stride 8", "VOC", "whole_image", 0.761, "me")
    write(path, SOUND, SOUND | {"variant": "longer", "value": "77"})
    assert [one.value for one in published_figures(path)] == [76.1, 77], "a table that grew is read again"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": "76.x"}, "value='76.x': not a number"),
        ({"value": ""}, "value='': not a number"),
        ({"value": "nan"}, "value='nan': not a number"),
        ({"value": "761"}, "value='761': not a number in %"),
        ({"value": "-1"}, "value='-1': not a number"),
        ({"protocol": "whole"}, "unknown protocol 'whole'; known are whole_image"),
        ({"protocol": " "}, "protocol is empty"),
        ({"source": ""}, "source is empty"),
        ({"system": ""}, "system is empty"),
        ({"training": ""}, "a score by whole_image names its data and what the network was trained on"),
        ({"data": ""}, "a score by whole_image names its data"),
        ({"metric": "miou"}, "'miou' in '%'; allowed are mIoU in %"),
        ({"unit": "points"}, "'mIoU' in 'points'; allowed are mIoU in %"),
        ({"architecture": "deeplab"}, "deeplab at output stride '8'; allowed are deeplabv3plus, deeplabv3 at 8, 16"),
        ({"output_stride": "4"}, "deeplabv3 at output stride '4'"),
        ({"backbone": "resnet55"}, "backbone='resnet55': allowed are"),
    ],
)
def test_a_wrong_row_is_refused_in_one_line_that_names_it(change, said, tmp_path):
    path = write(tmp_path / "figures.csv", SOUND, SOUND | {"variant": "other"} | change)
    with pytest.raises(InputError, match=re.escape(said)) as refusal:
        published_figures(path)
    assert str(refusal.value).startswith(f"{path}, line 3: ")
    assert "\n" not in str(refusal.value)


def test_the_same_figure_twice_is_refused(tmp_path):
    path = write(tmp_path / "figures.csv", SOUND, SOUND | {"value": "77"})
    with pytest.raises(InputError, match="line 3: mIoU of DeepLabV3 ResNet-50 stride 8 is there already"):
        published_figures(path)


def test_another_kind_of_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "figures.csv"
    with pytest.raises(InputError, match="cannot be read as a table of published figures"):
        published_figures(path)
    path.write_text("network,score\na net,76.1\n")
    with pytest.raises(InputError, match="not a table with the columns system, table"):
        published_figures(path)
    write(path, SOUND)
    path.write_text(path.read_text() + "me,results" + "," * len(COLUMNS) + "\n")
    with pytest.raises(InputError, match="line 3: more values than columns"):
        published_figures(path)


def test_every_figure_of_the_suite_is_read_and_names_what_it_is_of():
    figures = published_figures()
    assert len(figures) == len(FIGURES.read_text().splitlines()) - 1 >= 300
    assert all(one.network for one in figures if one.metric != "agreement")
    assert all(one.protocol.startswith("voc") == one.data.startswith("PASCAL") for one in figures if one.is_score)
    assert all(one.machine for one in figures if one.metric in ("latency", "throughput", "energy", "training memory"))
    assert {one.data for one in figures if one.is_score} == {"Cityscapes val", "PASCAL VOC 2012 val"}


def test_every_table_of_the_systems_is_there_whole():
    """As many figures as each published table has cells."""
    cells = Counter((one.system, one.table) for one in published_figures())
    assert cells["yoR-rihsihS/deeplabv3plus", "official server"] == 4
    assert cells["yoR-rihsihS/deeplabv3plus", "official server, classes"] == 19 + 8
    assert cells["yoR-rihsihS/deeplabv3plus", "official server, categories"] == 7 + 2
    assert cells["yoR-rihsihS/deeplabv3plus", "last epoch of the training"] == 2 * (4 + 4 + 1)
    assert cells["yoR-rihsihS/deeplabv3plus", "speed and memory"] == 2 * 4
    assert cells["chenxi116/DeepLabv3.pytorch", "PASCAL VOC"] == 3
    assert cells["stigma0617/VoVNet-DeepLabV3", "backbones"] == 6 * (4 + 1), "with the parameters, which we counted"
    assert cells["MindSpore model zoo", "training accuracy"] == 4 * 2
    assert cells["Deep-Spark/DeepSparkHub", "results"] == 2 * 2
    assert cells["ICT-ANS/StarLight", "compression"] == 4 * 6
    assert cells["detectron2", "Cityscapes"] == 4
    assert cells["mmsegmentation", "Cityscapes"] == 38 * 2 - 2 + 29 + 28
    assert cells["mmsegmentation", "PASCAL VOC"] == 8 * 2 + 4 * 2


@pytest.mark.parametrize(
    ("system", "values", "written"),
    [
        ("ICT-ANS/StarLight", {"details": "half of the backbone pruned, 8 bits"},
         "68.08 77.35 94.09 261.79 19.30 139.8"),
        ("stigma0617/VoVNet-DeepLabV3", {"backbone": "vovnet39"}, "75.71 19 1901 3.1 29.513621"),
        ("chenxi116/DeepLabv3.pytorch", {"table": "PASCAL VOC"}, "77.21 76.49 77.20"),
        ("MindSpore model zoo", {"table": "training accuracy"}, "77.37 77.21 78.84 78.51 79.70 79.45 79.89 79.77"),
        ("Deep-Spark/DeepSparkHub", {}, "73.86 1.465 74.53 1.716"),
        ("detectron2", {}, "76.7 78.5 78.1 80.0"),
        ("yoR-rihsihS/deeplabv3plus", {"table": "official server"}, "74.8344 53.7077 89.1668 77.2356"),
        ("mmsegmentation", {"output_stride": 16},
         "76.71 78.63 4.7 6.96 78.36 79.84 79.09 80.36 5.8 7.48 79.90 81.33 9.9"),
    ],
)  # fmt: skip
def test_figures_have_the_digits_of_their_sources(system, values, written):
    found = choose(published_figures(), system=system, **values)
    assert " ".join(one.written for one in found) == written


def test_what_no_protocol_of_ours_does_is_told_in_words_and_is_no_score():
    by_words = [one for one in published_figures() if one.protocol not in PUBLISHED]
    assert all(" " in one.protocol and not one.is_score for one in by_words)
    own = choose(by_words, system="yoR-rihsihS/deeplabv3plus", metric="mIoU", data="Cityscapes val")
    assert {one.written for one in own} == {"65.09", "65.22", "63.04", "65.07"}
    assert all("void pixels count against a class" in one.protocol for one in own)
