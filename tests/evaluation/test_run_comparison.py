"""Runs and folders of masks are compared on the same images, and nobody wins inside the noise."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.stored_predictions import write_predictions

from cityscapes.errors import InputError, IntegrityError, MissingInputError, ParameterError
from cityscapes.workspace import output_folder, run_folder
from dlv3p.data.roots import open_split
from dlv3p.evaluation import candidates
from dlv3p.evaluation.__main__ import main
from dlv3p.evaluation.candidates import Candidate, find_masks, from_folder, read_candidates
from dlv3p.evaluation.comparison import read_evaluations, score_table
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.image_counts import ImageCounts, read_groups
from dlv3p.evaluation.results import MadeFrom
from dlv3p.evaluation.run_comparison import compare_candidates
from dlv3p.evaluation.statistics import compare_seeds
from dlv3p.parameters.notebooks import CompareRunsParameters
from dlv3p.parameters.protocols import PUBLISHED, WHOLE_IMAGE
from dlv3p.pictures.comparisons import CHANGE_COLORS, change_map, changed_picture, cost_chart, difference_chart
from dlv3p.pictures.visualize import legend, text_lines
from dlv3p.profiling.report import save_profile
from dlv3p.runs.folders import write_json

NAMES = tuple(f"frame{index:02d}" for index in range(40))
CLASSES = ("road", "sky", "car")

MADE_FROM = MadeFrom(images_sha256="1" * 64, image_contents_sha256="2" * 64, mask_contents_sha256="3" * 64)


def counts(accuracy, *, seed=0, names=NAMES):
    """Confusion counts of independent images of which each class is right at its rate, give or take."""
    random = np.random.default_rng(seed)
    rates = np.clip(np.asarray(accuracy) + random.normal(0, 0.03, (len(names), len(CLASSES))), 0, 1)
    confusions = np.zeros((len(names), 3, 3), np.int64)
    for index, rate in enumerate(rates.T):
        right = np.rint(1000 * rate).astype(int)
        confusions[:, index, index], confusions[:, index, (index + 1) % 3] = right, 1000 - right
    places = np.argwhere(confusions)
    cells = np.column_stack([places, confusions[tuple(places.T)]])
    return ImageCounts(names, ("",) * len(names), CLASSES, cells)


def candidate(name, accuracy=(0.9, 0.8, 0.7), **changed):
    made = {"counts": counts(accuracy, seed=len(name)), "made_from": MADE_FROM} | changed
    where = {"data": "streets val", "root": "streets", "split": "val", "protocol": WHOLE_IMAGE}
    return Candidate(name=name, predict=lambda split, index: None, **where | made)


FIRST, SECOND = candidate("first"), candidate("second", (0.9, 0.9, 0.5))


def test_each_class_and_the_mean_get_a_verdict_and_a_sentence_says_it():
    comparison = compare_candidates([FIRST, SECOND])
    classes = comparison.classes()
    assert classes["verdict"].to_dict() == {"road": "worse", "sky": "better", "car": "worse"}
    (sentence,) = comparison.sentences()
    sky, road, car = (f"{name} ({classes['difference'][name]:+.1f})" for name in ("sky", "road", "car"))
    assert sentence.startswith(f"second is better on {sky}, worse on {car}, {road}; the mean is worse: -")
    mean = comparison.table().loc["second"]
    assert mean["difference"] == pytest.approx(100 * (SECOND.mean_iou - FIRST.mean_iou))
    assert mean["low"] < mean["difference"] < mean["high"]
    assert mean["verdict"] == "worse"


def test_published_scores_of_the_same_images_and_protocol_are_set_beside_and_not_tested():
    pair = [replace(one, data="Cityscapes val") for one in (FIRST, SECOND)]
    published = compare_candidates(pair).table().iloc[2:]
    row = published.loc["DeepLabV3+ ResNet-50 stride 8 (mmsegmentation, 80k steps of 512x1024)"]
    assert row["mIoU"] == 0.8009
    assert row[["difference", "low", "high", "p"]].isna().all()
    assert set(published["verdict"]) == {"published, not tested"}
    assert len(compare_candidates([FIRST, SECOND]).table()) == 2, "nobody published anything about these images"
    flipped = compare_candidates([replace(one, protocol=PUBLISHED["six_scales_flip"]) for one in pair])
    assert flipped.table().loc[row.name, "mIoU"] == 0.8113
    smaller = compare_candidates([replace(one, image_scale=0.5) for one in pair])
    assert len(smaller.table()) == 2, "at another scale it is another task"


def test_blocks_and_parameters_are_whole_numbers_beside_a_row_without():
    priced = replace(SECOND, cost={"parameters": 2_494_003.0})
    comparison = compare_candidates([FIRST, priced])
    assert comparison.table().to_csv().splitlines()[2].split(",")[5] == "40"
    assert comparison.costs().to_csv().splitlines()[2].split(",")[2] == "2494003"
    printed = comparison.table().to_string(na_rep="").splitlines()
    assert printed[2].split() == ["first", f"{FIRST.mean_iou:.6f}", "reference"], "nothing where nothing is known"


def test_a_class_that_only_one_predicts_where_it_does_not_occur_is_called_so():
    without_cars = np.delete(FIRST.counts.cells, np.any(FIRST.counts.cells[:, 1:3] == 2, axis=1).nonzero(), axis=0)
    plain = candidate("plain", counts=replace(FIRST.counts, cells=without_cars))
    stray = np.vstack([without_cars, [0, 0, 2, 5]])
    stray[(stray[:, :3] == 0).all(axis=1), 3] -= 5  # five pixels of road are called car
    wrong = candidate("wrong", counts=replace(FIRST.counts, cells=stray))
    forth, back = (compare_candidates(pair).classes().verdict["car"] for pair in ([plain, wrong], [wrong, plain]))
    assert forth == back == "does not occur, predicted by wrong alone"
    assert compare_candidates([plain, plain]).classes().verdict["car"] == "does not occur"


def test_tables_of_an_earlier_comparison_do_not_stay_beside_those_of_another(tmp_path):
    (tmp_path / "compared.txt").touch()
    compare_candidates([FIRST, SECOND, candidate("third one")]).save(tmp_path)
    saved = compare_candidates([FIRST, SECOND]).save(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*saved, tmp_path / "compared.txt"])


def test_swapping_the_two_flips_the_sign_and_nothing_else():
    there, back = compare_candidates([FIRST, SECOND]).table(), compare_candidates([SECOND, FIRST]).table()
    assert there.loc["second", "difference"] == pytest.approx(-back.loc["first", "difference"])
    assert there.loc["second", "low"] == pytest.approx(-back.loc["first", "high"])
    assert there.loc["second", "p"] == pytest.approx(back.loc["first", "p"])


def test_a_run_never_wins_against_itself_and_an_undecided_mean_says_what_would_decide_it():
    itself = compare_candidates([FIRST, replace(FIRST, name="again")])
    assert set(itself.classes()["verdict"]) == {"undecided"}
    assert itself.sentences()[0].startswith("again and first are alike: ")
    assert "there is nothing to decide" in itself.sentences()[0]
    close = compare_candidates([FIRST, candidate("another", (0.903, 0.803, 0.703))])
    mean = close.means[0]
    assert mean.sign == 0
    factor = ((mean.high - mean.low) / 2 / mean.value) ** 2
    assert f"({factor:.1f} times as many) would decide it" in close.sentences()[0]


def test_few_images_have_no_winner():
    few = [replace(one, counts=counts((rate,) * 3, names=NAMES[:9])) for one, rate in ((FIRST, 0.5), (SECOND, 0.9))]
    comparison = compare_candidates(few)
    assert "too few independent images, 9 where 10 are needed; no winner" in comparison.sentences()[0]
    assert set(comparison.classes()["verdict"]) == {"too few independent images"}


def test_classes_flow_where_the_confusion_changed():
    flows = compare_candidates([FIRST, SECOND]).flows()
    before, after = (one.confusions.sum(axis=0) for one in (FIRST, SECOND))
    top = flows.iloc[0]
    assert (top["true class"], top["predicted as"]) in {("car", "car"), ("car", "road")}
    assert top["pixels after"] - top["pixels before"] == np.abs(after - before).max() * np.sign(
        top["pixels after"] - top["pixels before"]
    )
    assert flows["change"].abs().iloc[0] == pytest.approx(100 * np.abs(after - before).max() / 40_000)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"counts": counts((0.5,) * 3, names=tuple(reversed(NAMES)))}, "differ in the images;"),
        ({"made_from": replace(MADE_FROM, images_sha256="4" * 64)}, "differ in the sizes of the images;"),
        ({"made_from": replace(MADE_FROM, image_contents_sha256="4" * 64)}, "differ in the content of the images;"),
        ({"made_from": replace(MADE_FROM, mask_contents_sha256="4" * 64)}, "differ in the content of the masks;"),
        ({"protocol": PUBLISHED["six_scales_flip"]}, "differ in the protocol: scales 0.5 "),
        ({"counts": replace(counts((0.5,) * 3), class_names=("a", "b", "c"))}, "differ in the classes;"),
    ],
)
def test_other_images_classes_or_protocols_are_refused(changed, said):
    with pytest.raises(ParameterError, match="second and first differ") as refusal:
        compare_candidates([FIRST, replace(SECOND, **changed)])
    assert said in str(refusal.value)


def test_images_whose_bytes_an_earlier_version_did_not_record_are_called_unchecked(two_runs):
    path = output_folder("copy") / "evaluation.json"
    content = json.loads(path.read_text())
    assert set(content["made_from"]) == {item.name for item in fields(MadeFrom)}
    del content["made_from"]["image_contents_sha256"], content["made_from"]["mask_contents_sha256"]
    path.write_text(json.dumps(content))
    config = CompareRunsParameters(device="cpu", threads=1, progress="none")
    said = compare_candidates(read_candidates(config, two_runs)).sentences()
    assert said[-1].startswith("Unchecked: copy did not record the bytes of the images and masks")
    assert len(compare_candidates([FIRST, SECOND]).sentences()) == 1


def stored_as(run, **made_from):
    path = output_folder(run) / "evaluation.json"
    content = json.loads(path.read_text())
    content.pop("content_sha256", None)
    content["made_from"] |= made_from
    path.write_text(json.dumps(content))


def test_data_that_has_changed_since_both_runs_were_scored_is_said(two_runs, city, capsys):
    config = CompareRunsParameters(device="cpu", threads=1, progress="none")
    assert len(compare_candidates(read_candidates(config, two_runs)).sentences()) == 1

    image = open_split(city, "val").image_path(1)
    content = image.read_bytes()
    try:
        image.write_bytes(content + b"mended")
        assert main([*two_runs]) == 0
        assert f"Changed since: {city} has other images now; the scores are of what it held then" in (
            capsys.readouterr().out
        )
        image.unlink()
        assert (
            f"Changed since: {city} has other images and masks now"
            in (compare_candidates(read_candidates(config, two_runs)).sentences()[-1])
        )
    finally:
        image.write_bytes(content)

    for run in two_runs:
        stored_as(run, mask_contents_sha256="0" * 64)
    comparison = compare_candidates(read_candidates(config, two_runs))
    assert f"Changed since: {city} has other masks now" in comparison.sentences()[-1]
    split = comparison.reference.open_split()
    silent = compare_candidates([replace(one, changed="") for one in comparison.candidates])
    with_line, without = (changed_picture(one, split, [split.name(0)]) for one in (comparison, silent))
    assert with_line.height > without.height, "the line is below the pictures, which show the files as they are"


def test_images_of_equal_sizes_and_masks_of_equal_counts_are_told_apart(tmp_path):
    root = tmp_path / "data"
    for kind in ("images", "masks", "found"):
        (root / kind / "val").mkdir(parents=True)
    (root / "classes.csv").write_text("id,name\n0,road\n1,sky\n")
    save(root / "found" / "val" / "a.png", 0, (8, 8))

    def scored(image: int, mask: np.ndarray) -> Candidate:
        Image.new("RGB", (8, 8), (image,) * 3).save(root / "images" / "val" / "a.png")
        Image.fromarray(mask).save(root / "masks" / "val" / "a.png")
        return from_folder(root / "found", open_split(root, "val"), progress="none")

    mask = np.repeat(np.array([[0], [1]], np.uint8), 4, 0).repeat(8, 1)
    first, other_image, other_mask = scored(7, mask), scored(8, mask), scored(7, mask[::-1])
    for other, what in ((other_image, "the content of the images"), (other_mask, "the content of the masks")):
        with pytest.raises(ParameterError, match=f"differ in {what}; score both on the same images alike"):
            compare_candidates([first, other])
    assert len(compare_candidates([first, scored(7, mask)]).sentences()) == 1


def test_one_candidate_is_refused():
    with pytest.raises(ParameterError, match="two or more"):
        compare_candidates([FIRST])


def test_seeds_of_one_recipe_are_replicates_shown_below_five_and_tested_from_five_on():
    def seeds(name, accuracy, count, rate):
        return [
            candidate(f"{name}{seed}", (accuracy + 0.004 * seed,) * 3, training={"learning_rate": rate, "seed": seed})
            for seed in range(count)
        ]

    shown = compare_candidates(seeds("slow", 0.8, 2, 0.1) + seeds("fast", 0.9, 5, 0.2)).seeds()
    assert shown["seeds"].to_dict() == {"slow0": 2, "fast0": 5}
    assert shown.loc["fast0", "verdict"] == "not tested below 5 seeds each"
    tested = compare_candidates(seeds("slow", 0.8, 5, 0.1) + seeds("fast", 0.9, 5, 0.2)).seeds()
    assert tested.loc["fast0", "verdict"] == "better"
    close = compare_candidates(seeds("slow", 0.8, 5, 0.1) + seeds("fast", 0.803, 5, 0.2)).seeds().loc["fast0"]
    factor = ((close["high"] - close["low"]) / 2 / close["difference"]) ** 2
    assert 1 < factor < 100
    assert close["verdict"] == f"undecided; about {np.ceil(5 * factor):.0f} seeds each would decide it"
    slow = seeds("slow", 0.8, 5, 0.1)
    alike = [replace(one, training={**one.training, "learning_rate": 1}) for one in slow]
    assert compare_candidates(slow + alike).seeds().iloc[1]["verdict"] == "undecided"
    assert compare_candidates([FIRST, SECOND]).seeds().empty


def test_the_test_of_seeds_is_welchs():
    from scipy import stats

    first, second = [0.1, 0.4, 0.2, 0.3, 0.35], [0.5, 0.45, 0.6, 0.2, 0.7, 0.65]
    ours, theirs = compare_seeds(first, second), stats.ttest_ind(second, first, equal_var=False)
    interval = theirs.confidence_interval()
    assert (ours.p, ours.low, ours.high) == pytest.approx((theirs.pvalue, interval.low, interval.high))


def test_the_front_has_those_whom_nobody_beats_in_quality_and_price():
    dear, cheap, beaten = ({"latency, ms": value} for value in (30.0, 10.0, 20.0))
    best, worst = (0.95, 0.95, 0.95), (0.6, 0.6, 0.6)
    chosen = [
        candidate("a", best, cost=dear),
        candidate("bb", (0.8,) * 3, cost=cheap),
        candidate("c", worst, cost=beaten),
    ]
    comparison = compare_candidates(chosen)
    assert comparison.costs()["on the front"].to_dict() == {"a": "yes", "bb": "yes", "c": "no"}
    assert cost_chart(comparison).axes[0].get_xlabel() == "latency, ms of an image"
    assert cost_chart(comparison).get_supxlabel() == comparison.footer
    images = f"city val, {len(NAMES)} images"
    named = compare_candidates([candidate(name, data=images) for name in ("a", "b")])
    assert named.footer == f"{images} · whole_image", "their number is said once"
    unknown = compare_candidates([FIRST, SECOND])
    assert set(unknown.costs()["on the front"]) == {"unknown"}
    assert "profile.ipynb measures it" in cost_chart(unknown)


def test_costs_are_not_compared_across_sizes_or_latencies_across_machines():
    def priced(second):
        first = {"latency, ms": 30.0, "GMACs": 3.0, "size": "128 x 256", "machine": "here"}
        costs = {"a": first, "b": first | second}
        return compare_candidates([candidate(name, (0.9,) * 3, cost=cost) for name, cost in costs.items()])

    assert priced({}).price == "latency, ms"
    assert cost_chart(priced({})).get_supxlabel().endswith(" · 128 x 256 · here")
    assert priced({"machine": "there"}).price == "GMACs"
    assert cost_chart(priced({"machine": "there"})).get_supxlabel().endswith(" · 128 x 256")
    other_size = priced({"size": "256 x 512"})
    assert set(other_size.costs()["on the front"]) == {"unknown"}
    assert "at the same size on the same machine" in cost_chart(other_size)


def test_the_chart_has_a_row_for_each_class_and_the_mean():
    axes = difference_chart(compare_candidates([FIRST, SECOND])).axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert set(labels) == {*CLASSES, "mean"}
    assert labels[-1] == "mean"
    assert "second\nminus first" in axes.get_xlabel()


def test_a_change_map_tells_mended_from_broken():
    truth, before, after = (np.array([row], np.uint8) for row in ([0, 0, 1, 255, 1], [0, 1, 1, 0, 0], [0, 0, 0, 1, 2]))
    same, mended, broken, ignored = range(4)
    assert np.array_equal(change_map(before, after, truth), CHANGE_COLORS[[[same, mended, broken, ignored, same]]])


def test_groups_come_from_a_table_of_images(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("image,group\n" + "".join(f"{name},{int(name[-2:]) // 4}\n" for name in NAMES))
    assert read_groups(path, NAMES)[:5] == ("0", "0", "0", "0", "1")
    grouped = [replace(one, counts=replace(one.counts, groups=read_groups(path, NAMES))) for one in (FIRST, SECOND)]
    assert compare_candidates(grouped).means[0].blocks == 10
    with pytest.raises(InputError, match="names no group of 1 images, the first 'frame99'"):
        read_groups(path, ["frame99"])
    path.write_text("image,group\na,1\na,2\n")
    with pytest.raises(InputError, match="duplicate image 'a'"):
        read_groups(path, ["a"])
    path.write_text("picture,street\na,1\n")
    with pytest.raises(InputError, match="not a table with the columns image,group"):
        read_groups(path, ["a"])
    for text, why in (("image;group\na;1\n", "semicolons"), ("image\tgroup\na\t1\n", "tabs")):
        path.write_text(text)
        with pytest.raises(InputError, match=f"its columns are separated by {why}, save it with commas"):
            read_groups(path, ["a"])
    path.write_text("image,group\na,1\n", encoding="utf-16")
    with pytest.raises(InputError, match="save it as CSV in UTF-8"):
        read_groups(path, ["a"])
    with pytest.raises(MissingInputError, match="no such table"):
        read_groups(tmp_path / "absent.csv", ["a"])
    path.write_text("image,group\na,Springfield, east\n")
    with pytest.raises(InputError, match="line 2: more values than columns"):
        read_groups(path, ["a"])


@pytest.mark.parametrize("group", ["", "  ", "\t", "\u3000", "nan", "NaN", "None", "<NA>"])
def test_images_without_a_group_are_not_taken_as_one_block(tmp_path, group):
    path = tmp_path / "groups.csv"
    path.write_text(f"image,group\na,street\nb,{group}\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 3: .* is no group of the image 'b', and images without one would"):
        read_groups(path, ["a", "b"])
    path.write_text("image,group\na,street\nb\n")
    with pytest.raises(InputError):
        read_groups(path, ["a", "b"])
    path.write_text("image,group\na,street\nb, street \n")
    assert read_groups(path, ["a", "b"]) == ("street", "street")


@pytest.fixture
def two_runs(evaluation, trained):
    """The evaluated tiny run and a copy of it under another name."""
    evaluation.save()
    for folder in (run_folder, output_folder):
        shutil.copytree(folder("done"), folder("copy"), dirs_exist_ok=True)
    path = output_folder("copy") / "evaluation.json"
    content = json.loads(path.read_text()) | {"run": "copy"}
    content.pop("content_sha256", None)
    path.write_text(json.dumps(content))
    yield "done", "copy"
    for folder in (run_folder, output_folder):
        shutil.rmtree(folder("copy"))


def test_runs_and_a_folder_of_their_masks_agree(two_runs, evaluation, city, tmp_path, capsys):
    split, predictor = open_split(city, "val"), evaluation.predictor
    for index in range(len(split)):
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(predictor(split.image(index))).save(tmp_path / "masks" / f"{split.name(index)}_pred.png")
    arguments = [*two_runs, str(tmp_path / "masks"), "--output", str(tmp_path / "tables")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'masks'} and done are alike: " in printed
    assert "images that changed most" not in printed, "there are none"
    table = pd.read_csv(tmp_path / "tables" / "compared_candidates.csv")
    assert table["mIoU"].tolist() == pytest.approx([evaluation.scores.mean_iou] * 3, abs=1e-12)
    assert (pd.read_csv(tmp_path / "tables" / "compared_images_2.csv")["change"] == 0).all()


def test_the_terminal_shows_the_flows_and_the_images_that_changed_most(two_runs, evaluation, city, tmp_path, capsys):
    split, worst = open_split(city, "val"), 1
    for index in range(len(split)):
        mask = evaluation.predictor(split.image(index))
        mask = np.where(split.mask(index) < 19, split.mask(index), mask) if index == worst else mask
        Image.fromarray(mask).save(tmp_path / f"{split.name(index)}.png")
    assert main(["done", str(tmp_path)]) == 0
    pair, printed = f"{tmp_path} against done", capsys.readouterr().out
    flows = printed.split(f"{pair}: pixels that are predicted otherwise\n")[1].splitlines()
    assert flows[0].split() == ["true", "class", "predicted", "as", "pixels", "before", "pixels", "after", "change"]
    assert flows[7] == "", "six, and no more"
    images = printed.split(f"{pair}: images that changed most, in points of their mIoU\n")[1].split("\n\n")[0]
    assert [line.split()[0] for line in images.splitlines()] == ["image", split.name(worst)]


def test_pictures_show_what_changed_in_chosen_images_and_say_of_which_networks(two_runs, monkeypatch):
    told, legends = [], []
    monkeypatch.setattr("dlv3p.pictures.comparisons.text_lines", lambda lines: told.append(lines) or text_lines(lines))
    monkeypatch.setattr(
        "dlv3p.pictures.visualize.legend", lambda names, *given, **options: legends.append(tuple(names)) or
        legend(names, *given, **options),
    )  # fmt: skip
    config = CompareRunsParameters(device="cpu", threads=1, progress="none")
    comparison = compare_candidates(read_candidates(config, two_runs))
    split = comparison.reference.open_split()
    picture = np.asarray(changed_picture(comparison, split, [split.name(1)]))
    for color in CHANGE_COLORS[1:3]:  # in the legend, and nowhere in the picture of two equal networks
        assert (picture[: picture.shape[0] // 2] == color).all(axis=-1).sum() == 0
    occurs = np.unique(np.append(split.mask(1), comparison.reference.predict(split, 1)))
    assert legends[0] == tuple(split.class_names[one] for one in occurs[occurs < split.num_classes])
    names = [one.name for one in comparison.candidates]
    assert told == [[f"1. {split.name(1)}", f"reference: {names[0]}", f"other: {names[1]}"]]


def test_a_run_that_was_trained_on_since_is_not_compared(two_runs):
    path = output_folder("copy") / "evaluation.json"
    content = json.loads(path.read_text())
    content["made_from"]["checkpoint_sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    config = CompareRunsParameters(device="cpu", threads=1, progress="none")
    with pytest.raises(InputError, match="saved/copy: was trained further after it was scored; evaluate it again"):
        read_candidates(config, two_runs)


def test_the_cost_of_a_network_that_was_replaced_is_left_out(two_runs, capsys):
    row = {"status": "ok", "precision": "float32", "batch_size": 1, "compiled": False, "p50_ms": 5.0}
    training = read_candidates(CompareRunsParameters(device="cpu", threads=1), ["copy"])[0].training
    row |= {name: training[name] for name in ("backbone", "output_stride")}
    save_profile("copy", {"network": "run"}, {}, [row])
    config = CompareRunsParameters(device="cpu", threads=1)
    assert read_candidates(config, ["copy"])[0].cost["latency, ms"] == 5.0
    path = output_folder("copy") / "profile.json"
    write_json(path, {**json.loads(path.read_text()), "checkpoint_sha256": "0" * 64})
    assert read_candidates(config, ["copy"])[0].cost == {}
    assert f"{path}: is of another checkpoint than copy has now; run profile.ipynb again" in capsys.readouterr().out


def test_a_renamed_run_is_compared_as_itself(two_runs):
    path = output_folder("copy") / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": "done", "mIoU": 0.0}))
    config = CompareRunsParameters(device="cpu", threads=1, progress="none")
    assert [one.name for one in read_candidates(config, two_runs)] == ["done", "copy"]
    with pytest.raises(ParameterError, match="candidates: done is named twice; name each once"):
        read_candidates(config, ["done", "done"])


def test_masks_that_were_corrected_in_between_are_noticed():
    other = counts((0.9, 0.9, 0.5))
    cells = other.cells.copy()
    cells[0, 3] += 7
    with pytest.raises(ParameterError, match="second and first were scored on other masks of the same images"):
        compare_candidates([FIRST, replace(SECOND, counts=replace(other, cells=cells))])


def test_a_seed_counts_once():
    recipe = {"backbone": "resnet18", "seed": 0}
    again = replace(FIRST, name="again", training=recipe)
    table = compare_candidates(
        [replace(FIRST, training=recipe), again, replace(SECOND, training={**recipe, "seed": 1})]
    )
    assert table.seeds()["seeds"].tolist() == [2]


def test_results_by_another_protocol_have_a_folder_of_their_own(tmp_path):
    one, flipped = (
        compare_candidates([replace(a, protocol=p) for a in (FIRST, SECOND)]) for p in list(PUBLISHED.values())[:2]
    )
    assert one.folder != flipped.folder
    one.save(tmp_path)
    stored = json.loads((tmp_path / "compared.json").read_text())["candidates"]
    assert [(entry["name"], entry["made_from"]["images_sha256"]) for entry in stored] == [
        ("first", "1" * 64),
        ("second", "1" * 64),
    ]


def test_runs_without_a_common_protocol_say_what_each_has(two_runs, evaluation):
    config = CompareRunsParameters(protocol="six_scales_flip")
    with pytest.raises(ParameterError, match="by one protocol by six_scales_flip: done has .* whole_image.*; copy has"):
        read_candidates(config, two_runs)
    (output_folder("copy") / "evaluation.json").unlink()
    with pytest.raises(MissingInputError, match="papermill evaluate.ipynb -p run copy"):
        read_candidates(CompareRunsParameters(), two_runs)


def test_counts_of_another_evaluation_are_refused(two_runs, evaluation, predictor, city):
    flipped = evaluate(predictor, open_split(city, "train"), progress="none")
    flipped.counts.save(output_folder("copy") / "evaluation_images.npz")
    with pytest.raises(IntegrityError, match="does not add up to evaluation.json"):
        read_candidates(CompareRunsParameters(), two_runs)


def test_a_mask_belongs_to_the_image_with_the_longest_name(tmp_path):
    root = tmp_path / "data"
    for kind in ("images", "masks"):
        (root / kind / "val").mkdir(parents=True)
        for name in ("street", "street_2"):
            Image.new("RGB" if kind == "images" else "L", (8, 8)).save(root / kind / "val" / f"{name}.png")
    (root / "classes.csv").write_text("id,name\n0,road\n1,sky\n")
    split = open_split(root, "val")
    (tmp_path / "found").mkdir()
    save(tmp_path / "found" / "street_2_pred.png", 0, (8, 8))
    with pytest.raises(MissingInputError, match="holds no mask of the image street, such as street.png"):
        from_folder(tmp_path / "found", split, progress="none")
    save(tmp_path / "found" / "street_pred.png", 1, (8, 8))
    found = from_folder(tmp_path / "found", split, progress="none")
    assert found.confusions[:, 0].tolist() == [[0, 64], [64, 0]]
    with pytest.raises(ParameterError, match="ids='label': .* has no label ids, which are those of Cityscapes"):
        from_folder(tmp_path / "found", split, ids="label", progress="none")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda folder, names: None, "holds no PNG"),
        (lambda folder, names: save(folder / f"{names[0]}.png", 0), "holds no mask of the image"),
        (lambda folder, names: [save(folder / f"{name}.png", 0, (9, 9)) for name in names], "has 9 x 9 and the truth"),
        (
            lambda folder, names: [save(folder / f"{name}.png", 33) for name in names],
            "holds id 33, and the classes are",
        ),
        (
            lambda folder, names: [save(folder / f"{name}.png", 255) for name in names],
            "holds 255 where the truth has a class; in the truth it means that a pixel is ignored, and a prediction",
        ),
        (
            lambda folder, names: [save(folder / f"{name}_{kind}.png", 0) for name in names for kind in "ab"],
            "holds 2 masks of the image",
        ),
    ],
)
def test_folders_that_are_no_predictions_are_refused_in_one_line(city, tmp_path, write, said):
    split = open_split(city, "val")
    write(tmp_path, [split.name(index) for index in range(len(split))])
    with pytest.raises((InputError, MissingInputError), match=said) as refusal:
        from_folder(tmp_path, split, progress="none")
    assert "\n" not in str(refusal.value)


def test_names_are_matched_whatever_their_unicode_form(tmp_path):
    root = tmp_path / "data"
    for folder in ("images/val", "masks/val", "predicted"):
        (root / folder).mkdir(parents=True)
    (root / "classes.csv").write_text("id,name\n0,a\n1,b\n")
    for folder, name in (("images/val", "\u00fc"), ("masks/val", "\u00fc"), ("predicted", "u\u0308")):
        save(root / folder / f"{name}.png", 1)
    split = open_split(root, "val")
    assert from_folder(root / "predicted", split, progress="none").mean_iou == 1.0
    (tmp_path / "groups.csv").write_text("image,group\nu\u0308,one\n", encoding="utf-8")
    assert read_groups(tmp_path / "groups.csv", ["\u00fc"]) == ("one",)
    save(root / "predicted" / "\u00fc.png", 1)
    with pytest.raises(InputError, match="holds 2 masks of the image"):
        from_folder(root / "predicted", split, progress="none")


def save(path: Path, label: int, size=(128, 64)):
    Image.fromarray(np.full(size[::-1], label, np.uint8)).save(path)


def test_label_ids_of_cityscapes_are_taken_when_asked(city, tmp_path):
    split = open_split(city, "val")
    for index in range(len(split)):
        save(tmp_path / f"{split.name(index)}.png", 7)
    road = from_folder(tmp_path, split, ids="label", progress="none")
    assert road.confusions[:, :, 0].sum() == road.confusions.sum() > 0
    for index in range(len(split)):
        save(tmp_path / f"{split.name(index)}.png", 4)
    with pytest.raises(InputError, match="holds label id 4, which is not a scored class"):
        from_folder(tmp_path, split, ids="label", progress="none")


def test_masks_whose_ids_fit_both_kinds_are_a_warning(city, tmp_path, capsys):
    split = open_split(city, "val")
    for label, warned in ((8, True), (1, False)):
        for index in range(len(split)):
            save(tmp_path / f"{split.name(index)}.png", label)
        from_folder(tmp_path, split, progress="none")
        assert ("its ids fit train ids and label ids; taken as train ids" in capsys.readouterr().out) == warned


def test_what_predict_wrote_is_scored_by_the_ids_of_its_record_whatever_was_asked(city, tmp_path):
    split = open_split(city, "val")
    folder = write_predictions(tmp_path / "out", split, shares=[0.0] * len(split), label_ids=True)
    for given in (folder, folder / "ids"):
        for asked in ("train", "label"):
            assert from_folder(given, split, ids=asked, progress="none").mean_iou == 1.0
    record = {"ids": "own", "class_names": ["sky", "road"]}
    write_json(folder / "predictions.json", record)
    with pytest.raises(ParameterError, match="out/ids: was predicted by a network of other classes .sky, road, ...."):
        from_folder(folder / "ids", split, ids="label", progress="none")


def test_other_masks_of_the_same_images_have_a_column_of_their_own(two_runs, predictor, city, tmp_path):
    path = output_folder("copy") / "evaluation.json"
    content = json.loads(path.read_text())
    content["made_from"]["mask_contents_sha256"] = "a" * 64
    path.write_text(json.dumps(content))
    evaluations = read_evaluations(two_runs)
    assert len({one.data for one in evaluations}) == 2
    assert {one.run for one in evaluations if one.data.endswith(" of " + one.root + ", aaaaaa")} == {"copy"}
    assert score_table(evaluations, published=False).shape == (2, 2)
    content["made_from"].pop("mask_contents_sha256")  # as an earlier version left it
    path.write_text(json.dumps(content))
    assert score_table(read_evaluations(two_runs), published=False).shape == (2, 1)


def test_scores_of_a_checkpoint_that_is_replaced_are_left_out_and_said(two_runs, capsys):
    path = output_folder("copy") / "evaluation.json"
    content = json.loads(path.read_text())
    content["made_from"]["checkpoint_sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    assert {one.run for one in read_evaluations(two_runs)} == {"done"}
    assert f"{path}: is of another checkpoint than copy has now; evaluate it again" in capsys.readouterr().err
    assert score_table(read_evaluations(["copy"]), published=False).empty
    assert {one.run for one in read_evaluations(two_runs, current=False)} == {"done", "copy"}


def test_other_images_in_a_folder_of_the_same_name_have_a_column_of_their_own(two_runs, predictor, city, tmp_path):
    (own,) = read_evaluations(["done"])
    other = shutil.copytree(city, tmp_path / city.name)
    path = open_split(other, "val").image_path(0)
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    stored = evaluate(predictor, open_split(other, "val"), progress="none").save()
    try:
        names = {one.root: one.data for one in read_evaluations(["done"])}
        assert names[str(city)].startswith(f"{own.data} of {city}, ")
        assert names[str(other)].startswith(f"{own.data} of {other}, ")
        assert score_table(read_evaluations(two_runs), published=False).shape == (2, 2)
        runs = [one.name for one in read_candidates(CompareRunsParameters(device="cpu", threads=1), two_runs)]
        assert runs == list(two_runs)
    finally:
        for path in stored.parent.glob(f"evaluation*{stored.stem[10:]}*"):
            path.unlink()
    assert {one.data for one in read_evaluations(two_runs)} == {own.data}


def test_masks_of_images_that_share_a_name_are_told_apart_by_their_folder(tmp_path):
    root = tmp_path / "data"
    for kind in ("images", "masks"):
        for folder in "ab":
            (root / kind / "val" / folder).mkdir(parents=True)
            Image.new("RGB" if kind == "images" else "L", (8, 8)).save(root / kind / "val" / folder / "1.png")
    (root / "classes.csv").write_text("id,name\n0,road\n1,sky\n")
    split = open_split(root, "val")
    (tmp_path / "found" / "b").mkdir(parents=True)
    (tmp_path / "found" / "a").mkdir()
    save(tmp_path / "found" / "1.png", 0, (8, 8))
    with pytest.raises(MissingInputError, match="holds no mask of the image a/1"):
        from_folder(tmp_path / "found", split, progress="none")
    save(tmp_path / "found" / "a" / "1.png", 0, (8, 8))
    save(tmp_path / "found" / "b" / "1_pred.png", 1, (8, 8))
    found = from_folder(tmp_path / "found", split, progress="none")
    assert found.confusions[:, 0].tolist() == [[64, 0], [0, 64]]


class Named(list):
    """A split of which only the names are known."""

    name = list.__getitem__


def test_the_masks_of_many_images_are_found_in_a_time_that_grows_as_their_number(monkeypatch, tmp_path):
    names = [f"{index:05d}" for index in range(10_000)]
    paths = [tmp_path / f"{name}_pred.png" for name in names]
    monkeypatch.setattr(candidates, "files_below", lambda folder, suffix: paths)
    before = time.process_time()
    found = find_masks(tmp_path, Named(names))
    assert found == paths
    assert time.process_time() - before < 5, "each mask is compared with every image"


def test_a_linked_folder_of_masks_is_read(city, tmp_path):
    split = open_split(city, "val")
    (tmp_path / "there").mkdir()
    for index in range(len(split)):
        save(tmp_path / "there" / f"{split.name(index)}.png", 0)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "linked").symlink_to(tmp_path / "there")
    assert from_folder(tmp_path / "here", split, progress="none").confusions.sum() > 0


def test_a_comparison_has_the_same_folder_wherever_the_data_lies_and_another_for_other_images():
    here, moved, others = (
        compare_candidates([replace(one, **changed) for one in (FIRST, SECOND)]).folder
        for changed in ({"root": "/here"}, {"root": "/moved"}, {"made_from": MadeFrom(images_sha256="2" * 64)})
    )
    assert here == moved != others


PEAK = """
import resource, sys
from pathlib import Path
from dlv3p.data.roots import open_split
from dlv3p.evaluation.candidates import from_folder
split = open_split(sys.argv[1], sys.argv[2])
from_folder(Path(sys.argv[3]), split, progress="none")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_the_memory_of_scoring_large_masks_does_not_grow_with_their_number(tmp_path):
    root, peaks = tmp_path / "data", []
    root.mkdir()
    (root / "classes.csv").write_text("id,name\n0,road\n1,sky\n")
    save(root / "mask.png", 1, (512, 1024))
    Image.new("RGB", (1024, 512)).save(root / "image.png")
    for split, count in (("few", 5), ("many", 55)):
        for index in range(count):
            for kind, source in (("images", "image"), ("masks", "mask"), ("found", "mask")):
                path = root / kind / split / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.hardlink_to(root / f"{source}.png")
        words = [sys.executable, "-c", PEAK, str(root), split, str(root / "found" / split)]
        peaks.append(float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 50, "MiB: an image more keeps 4"
