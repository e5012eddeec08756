"""Protocols: told in words, told apart by name, and refused in one line where they contradict themselves."""

import json
import subprocess
import sys

import pytest

from cityscapes.errors import ParameterError
from dlv3p.evaluation.comparison import published_scores
from dlv3p.evaluation.multi_scale import multi_scale_views
from dlv3p.parameters.notebooks import EvaluateParameters, SavePredictionsParameters
from dlv3p.parameters.protocols import PUBLISHED, WHOLE_IMAGE, Protocol, protocol_from

SLIDING = {"window_height": 64, "window_width": 96, "overlap": 32}


def chosen(**values):
    return EvaluateParameters.from_mapping(values).chosen_protocol()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scales": ""}, ["scales=''", "0.1 to 4.0"]),
        ({"scales": "half"}, ["scales='half'", "numbers"]),
        ({"scales": "0.5,1.0"}, ["scales='0.5,1.0'", "spaces"]),
        ({"scales": "0 1"}, ["scales='0 1'"]),
        ({"scales": "1 nan"}, ["scales='1 nan'"]),
        ({"scales": "1.0 inf"}, ["scales='1.0 inf'"]),
        ({"scales": "1.0 -0.5"}, ["scales='1.0 -0.5'"]),
        ({"scales": "1.0 1"}, ["scales='1.0 1'", "different"]),
        ({"scales": 1.0}, ["scales=1.0", "text"]),
        ({"flip": "True"}, ["flip='True'", "True or False"]),
        ({"protocol": "six_scales"}, ["protocol='six_scales'", "did you mean six_scales_flip"]),
        ({"protocol": "six_scales_flip", "flip": True}, ["flip=True", "protocol='custom'"]),
        ({"protocol": "whole_image", "scales": "0.5 1.0"}, ["scales='0.5 1.0'", "protocol='custom'"]),
        ({"window_height": 64}, ["window_height=64, window_width=0", "give both"]),
        ({"window_height": 16, "window_width": 16}, ["33 or more"]),
        ({**SLIDING, "overlap": 64}, ["overlap=64", "less than 64"]),
        ({"overlap": 1}, ["overlap=1", "0 without windows"]),
        ({"overlap": -1}, ["overlap=-1"]),
        ({"long_side": 20}, ["long_side=20", "33 to 8192"]),
        ({"long_side": 513, **SLIDING}, ["long_side=513", "not with windows"]),
        ({"flips": True}, ["'flips'", "did you mean 'flip'"]),
    ],
)
@pytest.mark.parametrize("family", [EvaluateParameters, SavePredictionsParameters])
def test_a_wrong_protocol_is_refused_in_one_line(family, values, words):
    with pytest.raises(ParameterError) as refusal:
        family.from_mapping(values)
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


def test_a_wrong_run_name_is_still_refused():
    with pytest.raises(ParameterError, match="run='a/b'"):
        EvaluateParameters(run="a/b")


def test_the_default_is_the_whole_image_at_a_single_scale():
    assert chosen() == WHOLE_IMAGE == chosen(protocol="whole_image") == chosen(scales=" 1 ")
    assert WHOLE_IMAGE.suffix == ""
    assert str(WHOLE_IMAGE).startswith("single scale, whole images, scored at the size of the masks")


def test_switches_that_say_what_is_published_have_its_name():
    assert chosen(scales="1.25 0.75 1", flip=True).name == "three_scales_flip"
    assert chosen(long_side=513).name == "voc_long_side_513"
    assert chosen(window_height=769, window_width=769, overlap=256) == PUBLISHED["windows_769"]


def test_names_tell_all_protocols_apart_and_are_fit_for_files():
    other = [Protocol((0.5,)), Protocol(flip=True), Protocol((0.5, 1.0)), Protocol(long_side=320, padded=320)]
    other += [chosen(**SLIDING), chosen(**{**SLIDING, "overlap": 0}), chosen(**SLIDING, flip=True), Protocol(padded=99)]
    protocols = [*PUBLISHED.values(), *other]
    names = {protocol.name for protocol in protocols}
    assert len(names) == len({str(protocol) for protocol in protocols}) == len(protocols)
    assert all(name.replace("-", "").replace("_", "").replace(".", "").isalnum() for name in names)
    assert chosen(**SLIDING, flip=True).suffix == "_scales-1.0_flip_windows-64x96-overlap-32"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_protocol_is_told_in_words_and_survives_json(name):
    protocol = chosen(protocol=name)
    assert protocol_from(json.loads(json.dumps(protocol.as_dict()))) == protocol
    assert protocol.name == name
    assert "ignored pixels left out" in str(protocol)
    assert ("flip" in name) == ("with flip" in str(protocol))
    assert ("scales" in name) == ("probabilities summed" in str(protocol))
    assert ("center_crop" in name) == ("only its center 513x513 scored" in str(protocol))
    assert ("windows" in name) == ("windows of 769x769" in str(protocol)) == ("whole images" not in str(protocol)) or (
        "center_crop" in name
    )


def test_published_sizes():
    protocol = PUBLISHED["voc_long_side_513_five_scales_flip"]
    views = multi_scale_views(375, 500, protocol)
    assert [view.padded[0] for view in views[::2]] == [257, 385, 513, 641, 897]
    assert [(view.height, view.width) for view in views[::2]] == [
        (192, 257),
        (288, 385),
        (384, 513),
        (480, 641),
        (672, 897),
    ]
    assert [view.flipped for view in views] == [False, True] * 5
    (padded,) = multi_scale_views(375, 500, PUBLISHED["voc_padded_513"])
    assert (padded.height, padded.width, padded.padded) == (375, 500, (513, 513))
    (sliding,) = multi_scale_views(1024, 2048, PUBLISHED["windows_769"])
    assert sorted({left for _, left, _, _ in sliding.windows}) == [0, 513, 1026, 1279]
    assert sorted({top for top, _, _, _ in sliding.windows}) == [0, 255]
    sizes = [(view.height, view.width) for view in multi_scale_views(1024, 2048, PUBLISHED["three_scales_flip"])]
    assert sizes == [(768, 1536)] * 2 + [(1024, 2048)] * 2 + [(1280, 2560)] * 2


def test_published_scores_name_protocols_that_exist_and_are_percentages_of_one():
    for row in published_scores():
        assert row.protocol in PUBLISHED
        assert 0.5 < row.mean_iou < 0.9
        assert row.source
        assert row.data.startswith("PASCAL") == (row.protocol.startswith("voc"))
    keys = [(row.network, row.data, row.protocol, row.source) for row in published_scores()]
    assert len(set(keys)) == len(keys)


def test_protocols_are_read_without_torch():
    code = "import sys, dlv3p.parameters.protocols, dlv3p.parameters.notebooks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
