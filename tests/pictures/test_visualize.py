"""Pictures show what the arrays say: exact colors, untouched ignored pixels, requested sizes."""

import sys

import numpy as np
import pytest

from cityscapes.errors import InputError, ParameterError
from cityscapes.labels import CLASS_NAMES, IGNORE, TRAIN_ID_TO_COLOR
from dlv3p.pictures import figures, scores, visualize


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


@pytest.fixture
def mask():
    mask = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16) % 20
    mask[mask == 19] = IGNORE
    return mask


def colors_in(picture):
    return {tuple(color) for color in picture.reshape(-1, 3).tolist()}


def test_every_class_gets_its_own_color_and_ignored_pixels_are_black(mask):
    picture = visualize.colorize(mask)
    assert picture.dtype == np.uint8
    for train_id in range(19):
        assert colors_in(picture[mask == train_id]) == {tuple(TRAIN_ID_TO_COLOR[train_id].tolist())}
    assert colors_in(picture[mask == IGNORE]) == {(0, 0, 0)}


def test_a_short_color_table_serves_other_data_sets():
    colors = np.array([(1, 2, 3), (4, 5, 6)], np.uint8)
    picture = visualize.colorize(np.array([[0, 1, IGNORE]]), colors)
    assert picture.tolist() == [[[1, 2, 3], [4, 5, 6], [0, 0, 0]]]


def test_overlay_shows_the_image_where_pixels_are_ignored(image, mask):
    mixed = visualize.overlay(image, mask, alpha=0.7)
    assert np.array_equal(mixed[mask == IGNORE], image[mask == IGNORE])
    assert not np.array_equal(mixed, image)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_overlay_alpha_is_the_share_of_the_class_color(image, mask, alpha):
    mask = np.where(mask == IGNORE, 0, mask)
    expected = visualize.colorize(mask) if alpha else image
    assert np.array_equal(visualize.overlay(image, mask, alpha=alpha), expected)


def test_error_map_tells_right_wrong_and_ignored_apart():
    truth, prediction = np.array([[3, 3, IGNORE, IGNORE]]), np.array([[3, 4, 4, IGNORE]])
    right, wrong, ignored = visualize.ERROR_COLORS.tolist()
    assert visualize.error_map(prediction, truth).tolist() == [[right, wrong, ignored, ignored]]


def test_error_colors_differ_in_lightness_so_that_hue_is_not_needed():
    lightness = np.sort(visualize.ERROR_COLORS @ [0.2126, 0.7152, 0.0722])
    assert np.all(np.diff(lightness) > 60)


def test_sizes_that_differ_are_refused_in_one_line(image, mask):
    with pytest.raises(InputError, match=r"\(6, 16\)") as caught:
        visualize.overlay(image, mask[:6])
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="error_map"):
        visualize.error_map(mask, mask[:6])


@pytest.mark.parametrize("width", [160, 640, 1920])
def test_legend_has_the_width_asked_for_and_every_color(width):
    strip = visualize.legend(CLASS_NAMES, TRAIN_ID_TO_COLOR, width=width)
    assert strip.shape[1:] == (width, 3)
    assert {tuple(color) for color in TRAIN_ID_TO_COLOR[:19].tolist()} <= colors_in(strip)


def test_legend_text_grows_with_the_width():
    def height(width):
        return visualize.legend(["road"], TRAIN_ID_TO_COLOR, width=width).shape[0]

    assert height(1800) > 1.5 * height(600)


def test_legend_shows_only_the_classes_given():
    strip = visualize.legend(["sky"], TRAIN_ID_TO_COLOR[10:11], width=320)
    assert (70, 130, 180) in colors_in(strip)
    assert (128, 64, 128) not in colors_in(strip)


def test_legend_shortens_names_that_do_not_fit():
    strip = visualize.legend(["a name that no column could hold"] * 4, TRAIN_ID_TO_COLOR, width=200, columns=4)
    assert strip.shape[1] == 200


def test_legend_survives_having_nothing_to_show():
    assert visualize.legend([], TRAIN_ID_TO_COLOR, width=200).shape[1] == 200


@pytest.mark.parametrize("columns", [None, 1, 2, 9])
def test_panels_of_class_maps_keep_exact_colors_when_scaled(mask, columns):
    picture = visualize.colorize(mask)
    sheet = visualize.side_by_side({"one": picture, "two": picture, "three": picture}, width=601, columns=columns)
    assert sheet.shape[1] == 601
    assert colors_in(picture) <= colors_in(sheet)
    saturated = {color for color in colors_in(sheet) if max(color) - min(color) > 8}
    assert saturated <= colors_in(picture)


def test_figures_are_the_same_bytes_each_time_and_carry_no_software_version(tmp_path):
    confusion = np.array([[9, 1, 0], [0, 5, 5], [0, 0, 0]])
    for name in ("a.png", "b.png"):
        figures.save_figure(scores.confusion_heatmap(confusion, ["x", "y", "z"], footer=""), tmp_path / name)
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert b"Software" not in content
    assert b"Matplotlib" not in content


def test_heatmap_rows_are_percent_of_the_truth_and_empty_rows_stay_empty():
    figure = scores.confusion_heatmap(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 7]]), ["x", "y", "z"], footer="")
    values = figure.axes[0].collections[0].get_array().filled(np.nan).reshape(3, 3)
    assert values[0].tolist() == [75, 25, 0]
    assert np.isnan(values[1]).all()


def test_iou_bars_name_classes_that_never_occur_and_leave_them_out_of_the_mean():
    figure = scores.class_iou_bars({"road": 0.9, "train": float("nan"), "car": 0.5}, footer="")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(texts) == ["0.500", "0.900", "does not occur"]
    assert "mean 0.700" in [text.get_text() for text in figure.legends[0].get_texts()]
    figures.png(scores.class_iou_bars({"train": float("nan")}, footer=""))


def test_figures_show_themselves_in_a_notebook_and_stay_out_of_pyplot():
    figure = scores.class_iou_bars({"road": 0.9}, footer="")
    assert figure._repr_png_().startswith(b"\x89PNG")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_a_picture_saved_is_the_picture_read(tmp_path, image):
    from PIL import Image

    visualize.save_picture(image, tmp_path / "new" / "picture.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "picture.png")), image)


def test_a_black_class_and_ignored_pixels_never_look_the_same():
    colors = np.array([(0, 0, 0), (128, 0, 0)], np.uint8)
    black, ignored = visualize.colorize(np.array([[0, IGNORE]]), colors)[0].tolist()
    assert black == [0, 0, 0]
    assert ignored == list(visualize.ignored_color(colors)) != black
    assert visualize.ignored_color(TRAIN_ID_TO_COLOR) == (0, 0, 0)


@pytest.mark.parametrize(("suffix", "begin"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_a_figure_is_written_in_the_format_of_its_suffix_with_the_same_bytes_each_time(tmp_path, suffix, begin):
    for name in ("a", "b"):
        figures.save_figure(scores.class_iou_bars({"road": 0.9}, footer=""), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes().startswith(begin)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_figure_in_another_format_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"end the name in \.png, \.svg or \.pdf"):
        figures.save_figure(scores.class_iou_bars({"road": 0.9}, footer=""), tmp_path / "a.jpg")


def test_a_footer_says_what_a_figure_is_of():
    footer = "demo, epoch 3 · city val, 8 images · whole_image"
    for figure in (
        scores.class_iou_bars({"road": 0.9}, footer=footer),
        scores.confusion_heatmap(np.eye(3, dtype=np.int64), ["x", "y", "z"], footer=footer),
    ):
        assert figure.get_supxlabel() == footer


def test_a_long_line_is_broken_at_blanks_and_only_a_word_longer_than_a_line_within():
    letters = visualize.font(20, "")
    room = letters.getlength("whole words are") + 1
    words = "whole words are kept together, and a " + "w" * 60 + " is not"
    lines = visualize._wrapped(words, letters, room)
    assert lines[:3] == ["whole words are", "kept together,", "and a " + "w" * lines[2].count("w")]
    assert all(letters.getlength(line) <= room for line in lines)
    assert "".join(lines).replace(" ", "") == words.replace(" ", "")
    assert visualize._wrapped("", letters, room) == [""]
    assert "".join(visualize._wrapped("道" * 9, visualize.font(20, "道"), -1)) == "道" * 9, "a letter a line at least"


def test_small_print_below_a_picture_leaves_it_as_it_is_and_is_smaller_than_its_titles(image):
    wide = np.repeat(image, 1200 // image.shape[1], axis=1)
    footed = visualize.with_footer(wide, "demo, epoch 3 · city val, 8 images · whole_image")
    assert np.array_equal(footed[: len(wide)], wide)
    assert 0 < len(footed) - len(wide) < len(visualize.text_lines(["demo"], width=wide.shape[1]))
    assert (footed[len(wide) :] < 200).any()
    assert visualize.with_footer(wide, "") is wide


def test_long_lines_of_text_are_continued_rather_than_cut():
    short, long = (visualize.text_lines(["x" * count], width=600) for count in (10, 300))
    assert short.shape[1] == long.shape[1] == 600
    assert long.shape[0] > short.shape[0]
