"""What a mean hides, each beside a small implementation of another kind: edges, distances, objects, calibration."""

import json
import shutil
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

import dlv3p.evaluation
from cityscapes.errors import InputError, MissingInputError, ParameterError
from dlv3p.data.roots import open_split, resolve_data_root
from dlv3p.evaluation.calibration import BINS, Reliability, fit_temperature, softmax
from dlv3p.evaluation.details import Details, score, score_details
from dlv3p.evaluation.edges import DISTANCES, boundary_counts, boundary_width, distance_counts, object_counts
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.inference import load_saved
from dlv3p.evaluation.metrics import scores
from dlv3p.parameters.protocols import PUBLISHED

SIZE = (24, 40)
RANDOM = np.random.default_rng(0)


def patches(classes=4, ignored=True):
    """A mask of patches of 4 x 4 pixels, some of them ignored."""
    ids = RANDOM.integers(0, classes + ignored, (SIZE[0] // 4, SIZE[1] // 4)).astype(np.uint8)
    ids[ids == classes] = 255
    return np.kron(ids, np.ones((4, 4), np.uint8))


def shifted(mask, by=1):
    moved = np.roll(mask, by, axis=1)
    return np.where(moved == 255, 0, moved)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_boundaries_are_those_of_repeated_erosion(width):
    truth = patches()
    prediction = shifted(truth)
    counts = boundary_counts(truth, prediction, 4, width)
    for index in range(4):
        both = []
        for ids in (truth, prediction):
            region = (ids == index) & (truth != 255)
            both.append(region & ~ndimage.binary_erosion(region, np.ones((3, 3)), iterations=width))
        assert counts[:, index].tolist() == [(both[0] & both[1]).sum(), (both[0] | both[1]).sum()]


def test_the_width_of_a_boundary_follows_the_diagonal():
    assert boundary_width((1024, 2048)) == 46
    assert boundary_width((1024, 2048), 0.005) == 11
    assert boundary_width((5, 5)) == 1


def test_bands_of_distance_are_those_of_every_pair_of_pixels():
    truth = patches()
    truth[:, 20:] = 1  # wide enough for several bands
    prediction = shifted(truth, 3)
    height, width = SIZE
    edges = [
        (y, x)
        for y, x in product(range(height), range(width))
        for v, u in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1))
        if 0 <= v < height and 0 <= u < width and truth[y, x] != truth[v, u] and 255 not in (truth[y, x], truth[v, u])
    ]
    expected = np.zeros((len(DISTANCES) + 1, 4, 4), int)
    for y, x in product(range(height), range(width)):
        if truth[y, x] != 255:
            nearest = 1 + min(np.hypot(y - v, x - u) for v, u in edges)
            expected[sum(nearest > limit for limit in DISTANCES), truth[y, x], prediction[y, x]] += 1
    assert np.array_equal(distance_counts(truth, prediction, 4), expected)
    assert (expected.sum(axis=(1, 2)) > 0).sum() >= 4


def test_the_bands_add_up_to_the_confusion_matrix_and_a_mask_without_edges_is_far_from_them():
    truth, prediction = patches(), patches(ignored=False)
    whole = distance_counts(truth, prediction, 4).sum(axis=0)
    counted = truth != 255
    assert np.array_equal(whole, np.histogram2d(truth[counted], prediction[counted], bins=range(5))[0])
    plain = distance_counts(np.ones(SIZE, np.uint8), np.ones(SIZE, np.uint8), 4)
    assert plain[-1, 1, 1] == plain.sum() == SIZE[0] * SIZE[1]


def test_false_alarms_belong_to_the_nearest_object_of_the_class():
    truth = np.zeros((60, 120), np.uint8)
    objects = np.zeros_like(truth, dtype=np.int64)
    truth[5:15, 5:15], objects[5:15, 5:15] = 1, 7  # 100 pixels: small
    truth[10:50, 60:100], objects[10:50, 60:100] = 1, 9  # 1,600 pixels: medium
    truth[55:58, 110:114] = 255
    prediction = truth.copy()
    prediction[5:15, 5:10] = 0  # misses half of the small one
    prediction[20:24, 18:22] = 1  # 16 false pixels near the small one
    prediction[0:5, 105:110] = 1  # 25 near the medium one
    prediction[55:58, 110:114] = 1  # ignored
    counts, found = object_counts(truth, prediction, objects, 2)
    assert found[:, 1].tolist() == [1, 1, 0]
    assert counts[:, 1].tolist() == [[50, 50, 16], [1600, 0, 25], [0, 0, 0]]
    details = Details.empty(("ground", "car"))
    details.add(truth, prediction, objects)
    table = details.by_size()
    assert table["class"].tolist() == ["car", "car"]
    assert table["IoU"].tolist() == pytest.approx([50 / 116, 1600 / 1625])


def test_the_calibration_error_is_that_of_a_loop_over_the_bins():
    confidence = RANDOM.random(5000) ** 0.3
    right = RANDOM.random(5000) < confidence * 0.8
    reliability = Reliability()
    for part in range(5):
        reliability.add(confidence[part::5], right[part::5])
    expected = 0.0
    for number in range(BINS):
        inside = (confidence >= number / BINS) & (confidence < (number + 1) / BINS)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert reliability.error == pytest.approx(expected, abs=1e-12)
    assert reliability.error > 0.1
    reliability.add(np.array([1.0]), np.array([True]))
    assert reliability.table()["share of pixels"].sum() == pytest.approx(1)


def test_a_temperature_undoes_the_factor_on_logits_that_were_calibrated():
    logits = 2 * RANDOM.normal(size=(40_000, 5))
    drawn = softmax(logits).cumsum(axis=1)
    truth = (RANDOM.random((40_000, 1)) > drawn).sum(axis=1).clip(max=4)
    truth[:100] = 255
    assert fit_temperature(logits, truth) == pytest.approx(1, rel=0.03)
    assert fit_temperature(3 * logits, truth) == pytest.approx(3, rel=0.03)
    with pytest.raises(ParameterError, match="no labeled pixel"):
        fit_temperature(logits[:9], truth[:9])


def test_errors_among_the_least_sure_are_found_on_the_curve():
    details = Details.empty(("a", "b"))
    assert np.isnan(details.errors_among_least_sure())
    details.reliability = Reliability()
    details.reliability.add(np.repeat([0.3, 0.99], [10, 90]), np.repeat([False, True, False], [10, 80, 10]))
    assert details.errors_among_least_sure() == pytest.approx(0.5)


def test_the_frequency_weighted_iou_weights_classes_by_their_pixels():
    confusion = np.array([[50, 10, 0], [5, 30, 0], [0, 0, 0]])
    found = scores(confusion)
    expected = sum(confusion[k].sum() / confusion.sum() * found.iou[k] for k in range(2))
    assert found.frequency_weighted_iou == pytest.approx(expected)


def test_anyones_masks_are_scored_in_a_line(tmp_path):
    truth, prediction = [patches() for _ in range(3)], [patches(ignored=False) for _ in range(3)]
    details = dlv3p.evaluation.score(truth, prediction)
    assert details.class_names == ("class 0", "class 1", "class 2", "class 3")
    counted = [mask != 255 for mask in truth]
    hits = sum(((a == 2) & (b == 2) & c).sum() for a, b, c in zip(truth, prediction, counted, strict=True))
    either = sum((((a == 2) | (b == 2)) & c).sum() for a, b, c in zip(truth, prediction, counted, strict=True))
    assert details.scores.iou[2] == pytest.approx(hits / either)
    for name, masks in (("truth", truth), ("prediction", prediction)):
        (tmp_path / name / "street").mkdir(parents=True)
        for number, mask in enumerate(masks):
            Image.fromarray(mask).save(tmp_path / name / "street" / f"{number}.png")
    from_files = score(tmp_path / "truth", str(tmp_path / "prediction"))
    assert np.array_equal(from_files.bands, details.bands)
    assert np.array_equal(from_files.boundary, details.boundary)
    one = score(truth[0], prediction[0], class_names=("road", "car", "tree", "sky"))
    assert one.classes().index.tolist() == ["road", "car", "tree", "sky"]


def test_masks_that_do_not_fit_are_refused_by_name(tmp_path):
    mask = patches(ignored=False)
    with pytest.raises(InputError, match=r"image 1: shapes \(24, 40\) and \(24, 39\)"):
        score(mask, mask[:, 1:])
    with pytest.raises(InputError, match="2 true masks and 1 predictions"):
        score([mask, mask], [mask])
    with pytest.raises(InputError, match="the prediction holds id 3; ids are 0 to 1; only truth is ignored"):
        score(mask % 2, np.full_like(mask, 3), num_classes=2)
    with pytest.raises(MissingInputError, match="holds no PNG"):
        score(tmp_path, tmp_path)
    (tmp_path / "truth").mkdir()
    Image.fromarray(mask).save(tmp_path / "truth" / "a.png")
    with pytest.raises(MissingInputError, match=r"none/a.png: is missing"):
        score(tmp_path / "truth", tmp_path / "none")


@pytest.mark.parametrize(
    ("truth", "prediction", "said"),
    [
        (np.zeros((8, 9), np.float32), np.zeros((8, 9), np.uint8), "image 1: holds float32; a mask holds ids"),
        (np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9, 3), np.uint8), r"shape \(8, 9, 3\) looks like \(H, W, chann"),
        (np.full((8, 9), 26001), np.zeros((8, 9), int), "the largest id is 26001; ids are 0 to 254, or 255, ignored"),
        (np.zeros((8, 9), np.uint8), "folder", "masks on one side and a folder on the other"),
        ("folder", np.zeros((8, 9), np.uint8), "masks on one side and a folder on the other"),
        (7, 7, "int is no mask; give arrays"),
        ([], [], "0 true masks and 0 predictions"),
        (np.zeros((8, 9), np.uint8), np.full((8, 9), 255, np.uint8), "prediction holds id 255; .* only truth is ign"),
    ],
)
def test_what_is_no_mask_is_refused_in_a_line(truth, prediction, said):
    with pytest.raises(InputError, match=said):
        score(truth, prediction)


def test_names_and_a_number_of_classes_that_disagree_are_refused():
    mask = patches(ignored=False) % 2
    assert score(mask, mask, num_classes=2, class_names=("a", "b")).scores.mean_iou == 1
    with pytest.raises(InputError, match="2 class_names and num_classes=4; give one of them"):
        score(mask, mask, num_classes=4, class_names=("a", "b"))


def test_tensors_and_stacks_are_scored_as_arrays():
    masks = np.stack([patches(), patches(ignored=False)])
    seen = np.where(masks == 255, 0, masks)
    expected = score(list(masks), list(seen)).bands
    assert np.array_equal(score(masks, seen).bands, expected)
    one = score(torch.tensor(masks[0]), torch.tensor(seen[0])).bands
    assert np.array_equal(one, score(masks[0], seen[0]).bands)


def test_the_details_of_a_run_add_up_to_its_evaluation(trained, tmp_path):
    predictor = load_saved(trained.run, device="cpu", threads=1)
    root = resolve_data_root(predictor.parameters.data_root)
    validation, training = (open_split(root, name) for name in ("val", "train"))
    details = score_details(predictor, validation, temperature_split=training, progress="none")
    evaluation = evaluate(predictor, validation, progress="none")
    assert np.array_equal(details.bands.sum(axis=0), evaluation.confusion)
    scaled = replace(evaluation, protocol=PUBLISHED["six_scales_flip"])
    assert "six_scales_flip" in scaled.footer
    assert scaled.details_footer == evaluation.footer, "the details are of whole images, and say so"
    assert scaled.details_path("details.csv") == evaluation.path("details.csv")
    means = details.means()
    assert means["mIoU"] == evaluation.scores.mean_iou
    assert details.reliability.pixels.sum() == evaluation.confusion.sum()
    assert details.reliability.right.sum() == np.trace(evaluation.confusion)
    assert 0.05 <= means["temperature"] <= 20
    assert set(details.by_size()["class"]) <= {
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    }
    assert details.by_size()["objects"].sum() > 0
    written = details.save(tmp_path / "details.csv")
    names = {f"details_{name}.csv" for name in ("classes", "distances", "objects", "reliability")}
    assert {path.name for path in written} == {*names, "details.json"}
    made_from = json.loads((tmp_path / "details.json").read_text())["made_from"]
    assert evaluation.made_from.as_dict().items() <= made_from.items()
    assert made_from["temperature_split"] == "train"
    with pytest.raises(ParameterError, match="holds images that are scored"):
        score_details(predictor, validation, temperature_split=validation, progress="none")
    copies = shutil.copytree(validation.root, tmp_path / "copies")
    with pytest.raises(ParameterError, match="holds images that are scored"):
        score_details(predictor, validation, temperature_split=open_split(copies, "val"), progress="none")
