"""Tables and pictures of an audit show every split and class, for Cityscapes and for any other data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.audit import audit as audit_cityscapes
from cityscapes.audit_rules import AuditReport, SplitCounts
from cityscapes.dataset import open_cityscapes
from cityscapes.errors import MissingInputError
from cityscapes.generate_gt import generate_masks
from cityscapes.labels import CLASS_NAMES
from dlv3p.data.audit import audit, usable_pairs
from dlv3p.data.demo import write_flawed_folder
from dlv3p.pictures.audits import class_share_bars, class_table, overlays_picture, split_table
from dlv3p.pictures.figures import png


@pytest.fixture
def drawn(city: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The embedded city's root, and masks that were made of its two labeled splits."""
    generate_masks(city, tmp_path / "made", splits=["train", "val"], progress=False)
    return city, tmp_path / "made"


@pytest.fixture(scope="module")
def flawed(tmp_path_factory) -> AuditReport:
    return audit(write_flawed_folder(tmp_path_factory.mktemp("flawed")), ["train", "val"], progress="none")


def test_bars_are_as_long_as_their_classes_are_frequent(drawn):
    city, made = drawn
    report = audit_cityscapes(city, ["train", "val"], made, progress=False)
    figure = class_share_bars(report)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["train, images: 6", "val, images: 3"]
    assert figure.get_supxlabel() == city.name
    (axis,) = figure.axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert axis.get_xscale() == "log"
    for bars, counts in zip(axis.containers, report.splits, strict=True):
        widths = dict(zip(names, (bar.get_width() for bar in bars), strict=True))
        assert widths["road"] == pytest.approx(counts.pixels[0] / sum(counts.pixels[:19]))
        assert widths["rider"] == pytest.approx(counts.pixels[12] / sum(counts.pixels[:19]))
    png(figure)


def test_bars_show_every_class_the_most_frequent_on_top(flawed):
    names = [label.get_text() for label in class_share_bars(flawed).axes[0].get_yticklabels()]
    assert names[-1] == class_table(flawed)["train, share of pixels"].idxmax()
    assert len(names) == 19


def test_a_split_without_a_labeled_pixel_has_bars_that_say_so():
    groups = {"cities": {}, "masks": {}}
    report = AuditReport(Path("city"), (SplitCounts("val", CLASS_NAMES, groups=groups),), ())
    texts = [text.get_text() for text in class_share_bars(report).axes[0].texts]
    assert texts == ["none"] * 19
    assert split_table(report).loc["val"].tolist() == [0, 0, "", "", "", "", 0.0]


def test_the_table_of_splits_has_a_row_each(drawn):
    city, made = drawn
    table = split_table(audit_cityscapes(city, ["train", "val"], made, progress=False))
    assert table.index.tolist() == ["train", "val"]
    assert table["images"].tolist() == [6, 3]
    assert table["usable masks"].tolist() == [6, 3]
    assert table["sizes"].tolist() == ["128 x 64 (6)", "128 x 64 (3)"]
    assert table["modes"].tolist() == ["RGB (6)", "RGB (3)"]
    assert table["masks"].tolist() == ["generated (6)", "generated (3)"]
    assert (table["ignored pixels"] > 0).all()


def test_overlays_show_the_image_where_it_is_void(drawn):
    city, made = drawn
    split = open_cityscapes(city, "val", generated=made)
    picture = overlays_picture([(split, 0), (split, 1)])
    colors = {color for _, color in picture.convert("RGB").getcolors(2**24)}
    assert picture.width == 1200
    assert {tuple(split.colors[i].tolist()) for i in np.unique(split.mask(0)) if i < 19} <= colors


def test_overlays_show_only_images_without_an_error(flawed):
    pairs = usable_pairs(flawed, count=100)
    shown = {(split.split, split.name(index)) for split, index in pairs}
    assert len(shown) == 16 - 4 + 6 - 1
    assert not shown & {(finding.split, finding.where) for finding in flawed.errors}
    assert overlays_picture(pairs[:3]).width == 1200


def test_overlays_need_an_image_with_a_usable_mask(tmp_path):
    root = write_flawed_folder(tmp_path / "flawed")
    for path in root.glob("masks/*/*.png"):
        Image.fromarray(np.full((8, 8), 77, np.uint8)).save(path)
    with pytest.raises(MissingInputError, match="no image has a mask that can be used"):
        usable_pairs(audit(root, ["train", "val"], progress="none"), count=2)
