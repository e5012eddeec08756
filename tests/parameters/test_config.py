"""Parameters are checked when they are set, and a wrong one is told in one line that helps."""

import dataclasses
import re
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from cityscapes.errors import ParameterError
from dlv3p.jupyter.parameters_cell import cell_source
from dlv3p.parameters import notebooks as config
from dlv3p.parameters.files import read_value
from dlv3p.parameters.notebooks import (
    EvaluateParameters,
    ProfileParameters,
    QuickstartParameters,
    RenderGifParameters,
    TrainParameters,
    VisualizeTrainingParameters,
)
from dlv3p.parameters.synonyms import SYNONYMS

FAMILIES = [
    value
    for value in vars(config).values()
    if isinstance(value, type) and issubclass(value, config.Parameters) and value is not config.Parameters
]


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_allowed(family):
    assert family.from_mapping(family().as_dict()) == family()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ouput_stride": 8}, ["'ouput_stride'", "did you mean 'output_stride'"]),
        ({"output_stride": 12}, ["output_stride=12", "8, 16"]),
        ({"output_stride": "8"}, ["output_stride='8'", "whole number"]),
        ({"output_stride": 8.0}, ["output_stride=8.0", "whole number"]),
        ({"backbone": "resnet51"}, ["backbone='resnet51'", "did you mean resnet50"]),
        ({"learning_rate": "1e-2"}, ["learning_rate='1e-2'", "0.01"]),
        ({"learning_rate": float("nan")}, ["learning_rate=nan", "allowed"]),
        ({"epochs": True}, ["epochs=True", "whole number"]),
        ({"epochs": 0}, ["epochs=0", "1 to"]),
        ({"run": "../elsewhere"}, ["run='../elsewhere'", "letters"]),
        ({"run": "a/b"}, ["run='a/b'"]),
        ({"val_split": "train"}, ["val_split='train'", "differ"]),
    ],
)
def test_a_wrong_parameter_is_told_in_one_line_with_its_remedy(values, words):
    with pytest.raises(ParameterError) as refusal:
        TrainParameters.from_mapping(values)
    message = str(refusal.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_whole_number_is_taken_for_a_real_one():
    assert TrainParameters.from_mapping({"learning_rate": 1}).learning_rate == 1.0


def parameters_cell(kind, old: str = "", new: str = "") -> dict[str, Any]:
    """The variables of a kernel that has run the notebook's parameters cell, in which `old` was changed to `new`."""
    source = cell_source(kind).replace(old, new, 1) if old else cell_source(kind)
    variables: dict[str, Any] = {"In": ["", source, "settings = 3", "not(python"]}
    exec(source, variables)
    return variables


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("epochs: int = 17", "epoch: int = 3", "unknown parameter 'epoch': did you mean 'epochs'"),
        ("epochs: int = 17", "epochs: int = 17\nlr = 0.1", "unknown parameter 'lr': did you mean 'learning_rate'"),
    ],
    ids=["annotated", "a line of one's own"],
)
def test_a_misspelled_name_in_the_parameters_cell_does_not_leave_the_default_unnoticed(old, new, told):
    with pytest.raises(ParameterError, match=told):
        TrainParameters.from_cell(parameters_cell(TrainParameters, old, new))


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_parameters_cell_of_every_notebook_is_taken_as_it_is(kind):
    assert kind.from_cell(parameters_cell(kind)) == kind()


def test_a_cell_that_was_corrected_and_run_again_counts_and_the_earlier_one_does_not():
    wrong = parameters_cell(TrainParameters, "epochs: int = 17", "epoch: int = 3")
    right = parameters_cell(TrainParameters, "epochs: int = 17", "epochs: int = 3")
    assert TrainParameters.from_cell({**wrong, **right, "In": wrong["In"] + right["In"]}).epochs == 3


def test_a_restarted_kernel_without_the_parameters_cell_does_not_go_on_with_the_defaults():
    with pytest.raises(ParameterError, match="no parameter has been set since the kernel started; run the parameters"):
        TrainParameters.from_cell({"In": ["", "config = 3"]})


def test_from_cell_takes_the_parameters_among_other_variables():
    assert TrainParameters.from_cell({"output_stride": 8, "np": object(), "_": 3}).output_stride == 8


def test_the_run_name_says_what_is_trained_and_changes_with_every_parameter_that_matters():
    names = {TrainParameters().run_name}
    assert TrainParameters().run_name.startswith("deeplabv3plus-mobilenet_v2-os16-")
    changes = {"output_stride": 8, "seed": 1, "epochs": 7, "learning_rate": 0.002, "loss": "focal", "image_scale": 0.5}
    for name, value in changes.items():
        names.add(TrainParameters.from_mapping({name: value}).run_name)
    assert len(names) == 1 + len(changes)


@pytest.mark.parametrize(("name", "value"), [("workers", 0), ("threads", 1), ("device", "cpu"), ("progress", "none")])
def test_the_run_name_stays_when_only_the_machine_changes(name, value):
    assert TrainParameters.from_mapping({name: value}).run_name == TrainParameters().run_name


def test_the_run_name_is_that_of_earlier_versions_whatever_the_order_of_the_fields():
    """Somebody's run goes on in its folder: these names were given before fields moved and defaults changed."""
    assert TrainParameters(**TrainParameters.FORMER_DEFAULTS).run_name == "deeplabv3plus-resnet18-os16-44136f"
    changed = TrainParameters(output_stride=8, seed=3, blur=1.0, loss="focal", **TrainParameters.FORMER_DEFAULTS)
    assert changed.run_name == "deeplabv3plus-resnet18-os8-0ea3da"
    backwards = dict(reversed(changed.as_dict().items()))
    assert TrainParameters.from_mapping(backwards).run_name == changed.run_name


def test_a_given_run_name_is_kept():
    assert TrainParameters(run="my_first-run").run_name == "my_first-run"


@pytest.mark.parametrize("name", ["-first", ".first"])
def test_a_run_name_that_begins_as_an_option_or_a_hidden_file_is_refused(name):
    assert TrainParameters(run=f"1{name}").run_name == f"1{name}"
    with pytest.raises(ParameterError, match=r"with neither '-' nor '\.' at the beginning$"):
        TrainParameters(run=name)


def test_parameters_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainParameters().epochs = 3


@pytest.mark.parametrize(("unknown", "meant"), [("imgsz", ["crop_height", "crop_width"]), ("num_workers", ["workers"])])
def test_a_name_from_elsewhere_leads_to_the_parameter(unknown, meant):
    listed = f"The nearest are {', '.join(meant)}; " if len(meant) > 1 else ""
    told = f"'{unknown}': did you mean '{meant[0]}'? {listed}docs/parameters.md lists all "
    with pytest.raises(ParameterError, match=re.escape(told)):
        TrainParameters.from_mapping({unknown: 8})


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [("decoder_channels", "channels"), ("stride_output", "output_stride"), ("cache_images", "decoded_cache")],
)
def test_a_word_of_a_name_counts_more_than_how_alike_the_letters_are(unknown, meant):
    with pytest.raises(ParameterError, match=f"'{unknown}': did you mean '{meant}'"):
        TrainParameters.from_mapping({unknown: 8})


def test_every_synonym_is_of_a_parameter_and_none_is_a_parameter_of_the_same_notebook():
    for family in FAMILIES:
        names = family().as_dict().keys()
        assert not {word for name in names for word in SYNONYMS.get(name, ())} & names, family
    assert SYNONYMS.keys() <= {name for family in FAMILIES for name in family().as_dict()}


def test_a_small_set_lists_all_its_names():
    with pytest.raises(ParameterError, match=r"'foo': Allowed are runs, over, join_seeds, figures$"):
        VisualizeTrainingParameters.from_mapping({"foo": 1})


@pytest.mark.parametrize("given", ["8 16", "[8, 16]", "[8,16]", "['8', '16']", [8, 16], (8, 16), ["8", "16"]])
def test_a_list_is_taken_where_several_values_are(given):
    assert ProfileParameters.from_mapping({"output_strides": given}) == ProfileParameters()
    assert EvaluateParameters(scales=[0.5, 1.0]).scales == "0.5 1.0"
    assert VisualizeTrainingParameters(runs="[a, b]").runs == "a b"


@pytest.mark.parametrize("given", [[], "[]", "[8, ]", [[8]], [True], [None]])
def test_an_empty_or_nested_list_is_refused(given):
    with pytest.raises(ParameterError, match="output_strides="):
        ProfileParameters.from_mapping({"output_strides": given})


def test_a_list_is_refused_where_one_value_is_taken():
    with pytest.raises(ParameterError, match=r"output_stride=\[8, 16\]: expected a whole number"):
        TrainParameters.from_mapping({"output_stride": [8, 16]})
    assert RenderGifParameters(city="[a, b]").city == "[a, b]"


@pytest.mark.parametrize("typed", ["", "001", "2024_01", "1e5", "2024-01-01", "0.50", "off", "yes"])
def test_text_for_the_train_command_arrives_as_typed(typed):
    assert read_value("run", typed) == typed
    assert read_value("seed", "7") == 7
    assert read_value("compile", "on") is True


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_one_help_and_one_place_in_the_order_in_which_it_is_read(family):
    fields = {item.name: item for item in dataclasses.fields(family)}
    shown = [item.name for group in family.groups().values() for item in group]
    assert sorted(shown) == sorted(fields)
    assert all(item.metadata["help"] for item in fields.values())
    assert set(family.FIRST) | set(family.HEADINGS) <= set(fields)
    assert not set(family.FIRST) & set(family.HEADINGS), "a heading above a field that stands first is never shown"


def test_a_notebook_shows_what_differs_from_the_defaults_and_folds_the_rest():
    page = TrainParameters(seed=3, blur=0.5, epochs=7)._repr_html_()
    open_table, folded = page.split("<details>")
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", open_table)
    assert rows == [("epochs", "7", "17"), ("seed", "3", "0"), ("blur", "0.5", "0.0")]
    others = len(dataclasses.fields(TrainParameters)) - 3
    assert folded.startswith(f"<summary>{others} others at their defaults</summary>")
    assert folded.endswith("</details>")
    assert folded.count("<tr><td>") == others
    assert "<tr><td>learning_rate</td><td>0.008</td></tr>" in folded


def plain_text(parameters):
    """The text that a notebook stores beside the table, and a terminal shows."""
    shown, _ = DisplayFormatter().format(parameters)
    assert shown["text/html"] == parameters._repr_html_()
    return shown["text/plain"]


def test_plain_text_shows_what_differs_and_counts_the_rest():
    others = len(dataclasses.fields(TrainParameters)) - 2
    shown = plain_text(TrainParameters(run="mine", seed=3))
    assert shown == f"run = 'mine'\nseed = 3\n{others} others at their defaults"
    assert plain_text(QuickstartParameters()) == "Nothing differs from the defaults"
    assert plain_text(VisualizeTrainingParameters(runs="a b")) == "runs = 'a b'\n3 others at their defaults"


def test_the_table_of_defaults_alone_is_folded_whole():
    page = QuickstartParameters()._repr_html_()
    assert page.startswith("<details><summary>Nothing differs from the defaults</summary><table>")
    assert page.count("<tr><td>") == len(dataclasses.fields(QuickstartParameters))


def test_the_table_shown_in_a_notebook_escapes_markup():
    page = TrainParameters(data_root="<img src=x>")._repr_html_()
    assert "<img" not in page
    assert "&lt;img src=x&gt;" in page
