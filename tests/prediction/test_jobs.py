"""What parameters ask for: animations of a split, of any images and of a video, in each format."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError, IntegrityError, MissingInputError, ParameterError
from cityscapes.files.images import read_ids
from cityscapes.workspace import output_folder
from dlv3p.export.__main__ import main as export
from dlv3p.parameters.notebooks import PredictParameters, RenderGifParameters
from dlv3p.pictures.gif import animation_size, compose_frame, write_animation
from dlv3p.pictures.video import write_video
from dlv3p.prediction import networks
from dlv3p.prediction import predictor as predictor_module
from dlv3p.prediction.jobs import drive_of, drive_word, first_image, predict, predictor_of
from dlv3p.prediction.results import Outputs, open_results, recorded_runtime
from dlv3p.prediction.sources import find_images
from dlv3p.prediction.tiles import Tiling
from dlv3p.runs.imported import write_stand_in

pytest.importorskip("imageio_ffmpeg", reason="videos need the extra video")
pytestmark = pytest.mark.usefixtures("trained")


@pytest.mark.parametrize("animation", ["gif", "webp", "mp4"])
def test_any_images_become_an_animation_of_each_kind(predictor, photos: Path, animation: str) -> None:
    Image.open(photos / "b.jpg").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(photos / "b.jpg")
    given = {"images": str(photos), "animation": animation, "width": 320, "frames": 2, "progress": "none"}
    drive = drive_of(predictor, RenderGifParameters(**given))
    assert (drive.path.name[:15], drive.path.suffix, drive.names) == ("predict_photos-", f".{animation}", ("a", "b"))
    write_animation(drive.frames, drive.path)
    assert animation_size(drive.path) == (2, 320)


def test_a_split_and_a_video_are_drives_too(predictor, city: Path, tmp_path: Path, picture: Image.Image) -> None:
    drive = drive_of(predictor, RenderGifParameters(data_root=str(city), width=320, progress="none"))
    assert drive.path.name == "val.gif"
    assert len(drive.names) == len(list(drive.frames)) == 3
    write_video([np.asarray(picture.rotate(turn)) for turn in (0, 5, 10)], tmp_path / "drive.mp4", rate=5)
    given = {"images": str(tmp_path / "drive.mp4"), "width": 320, "frames": 2, "progress": "none"}
    drive = drive_of(predictor, RenderGifParameters(**given))
    assert [frame.shape[1] for frame in drive.frames] == [320, 320]


@pytest.mark.parametrize("animation", ["gif", "webp", "mp4"])
@pytest.mark.parametrize("damaged", ["a.png", "b.jpg"])
def test_a_damaged_image_is_left_out_of_an_animation_and_named(
    predictor, photos: Path, animation: str, damaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are drawn, the first too, and the cell that says so fails after the file is written."""
    Image.open(photos / "a.png").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(photos / "c.png")
    (photos / damaged).write_bytes((photos / damaged).read_bytes()[:300])
    given = {"images": str(photos / "*.*"), "animation": animation, "width": 320, "progress": "none"}
    drive = drive_of(predictor, RenderGifParameters(**given))
    assert drive.names == ("a", "b", "c")
    write_animation(drive.frames, drive.path)
    assert animation_size(drive.path) == (2, 320)
    assert capsys.readouterr().out.startswith(f"not drawn: {photos / damaged}: ")
    with pytest.raises(InputError, match=rf"predict_photos-\w+\.{animation}: lacks 1 of 3 frames: .*{damaged}: "):
        drive.refuse_problems()


def test_a_split_with_a_damaged_image_and_a_video_that_breaks_off_are_drawn_as_far_as_they_go(
    predictor, city: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(city, tmp_path / "city")
    image = sorted((root / "leftImg8bit" / "val").glob("*/*.png"))[0]
    image.write_bytes(image.read_bytes()[:300])
    drive = drive_of(predictor, RenderGifParameters(data_root=str(root), width=320, progress="none"))
    assert (len(list(drive.frames)), len(drive.names), len(drive.problems)) == (2, 3, 1)
    assert drive.problems[0].startswith(f"{image}: ")
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), dtype=np.uint8)
    write_video(noise, tmp_path / "whole.mkv", rate=5)
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    drive = drive_of(predictor, RenderGifParameters(images=str(tmp_path / "cut.mkv"), width=320, progress="none"))
    assert 0 < len(list(drive.frames)) < 20
    assert len(drive.problems) == 1
    assert "breaks off after" in drive.problems[0]


def test_an_animation_of_damaged_images_alone_leaves_the_earlier_one(predictor, photos: Path) -> None:
    given = {"images": str(photos / "*.*"), "width": 320, "progress": "none"}
    drive = drive_of(predictor, RenderGifParameters(**given))
    write_animation(drive.frames, drive.path)
    drive.refuse_problems()
    earlier = drive.path.read_bytes()
    for path in photos.glob("*.*"):
        path.write_bytes(path.read_bytes()[:300])
    drive = drive_of(predictor, RenderGifParameters(**given))
    with pytest.raises(InputError, match=r"no frame can be drawn: .*a\.png: .* \(and 1 more\)"):
        write_animation(drive.frames, drive.path)
    assert drive.path.read_bytes() == earlier


def test_no_two_drives_share_an_animation() -> None:
    splits, cities, sequences = ("a", "a_b", "a_b_000001", "a_last", "predict_a"), ("", "b", "last"), ("", "000001")
    drives = [RenderGifParameters(split=s, city=c, sequence=n) for s in splits for c in cities for n in sequences]
    words = {drive_word(drive) for drive in drives}
    assert len(words | {"predict_a", "a_last"}) == len(drives) + 2, "nor with images of a folder or the last checkpoint"
    assert {"a", "a_b", "a_b_000001"} <= words, "cities and sequences keep the names of earlier versions"


def test_an_animation_of_any_images_is_of_its_checkpoint(predictor, photos: Path) -> None:
    config = RenderGifParameters(run="done", checkpoint="last", images=str(photos), threads=1, device="cpu")
    name = drive_of(predictor_of(config), config).path.name
    assert re.fullmatch(r"predict_photos-[0-9a-f]{8}_last\.gif", name)


def test_animations_of_two_folders_of_one_name_do_not_replace_one_another(predictor, photos: Path, tmp_path) -> None:
    other = shutil.copytree(photos, tmp_path / "elsewhere" / photos.name)
    paths = {drive_of(predictor, RenderGifParameters(images=str(folder))).path for folder in (photos, other)}
    assert len(paths) == 2
    again = drive_of(predictor, RenderGifParameters(images=os.path.relpath(other)))
    assert again.path in paths


def test_an_image_too_large_to_be_seen_whole_is_animated_in_tiles(trained, tmp_path: Path, monkeypatch) -> None:
    """As `predict` takes it, by the same parameters; the frame is as large as that of a small one."""
    (tmp_path / "images").mkdir()
    Image.effect_noise((1600, 1000), 60).save(tmp_path / "images" / "large.png")
    seen, blended = [], predictor_module.blend
    monkeypatch.setattr(predictor_module, "blend", lambda *given: seen.append(given[1]) or blended(*given))
    given = {"run": "done", "width": 320, "progress": "none", "tile": 256, "tile_overlap": 32, "threads": 1}
    given |= {"images": str(tmp_path / "images"), "device": "cpu"}
    (whole,) = rendered(**given)
    assert not seen
    (tiled,) = rendered(**given, memory_gib=1.31)
    assert seen == [Tiling(1000, 1600, 256, 32)]
    assert whole.shape == tiled.shape
    with pytest.raises(InputError, match=r"large\.png: 1600 x 1000 pixels take .* more than memory_gib=1\.25; allow"):
        rendered(**given, memory_gib=1.25)
    with pytest.raises(ParameterError, match="tile_overlap=300: allowed are 32 to 256, half a tile"):
        RenderGifParameters(tile=512, tile_overlap=300)


def test_a_split_of_large_images_is_animated_in_tiles_too(predictor, city: Path, monkeypatch) -> None:
    """Image, labels and truth of a frame are made smaller alike."""
    monkeypatch.setattr("dlv3p.prediction.jobs.SHARPEST", 0.05)
    given = {"data_root": str(city), "width": 960, "frames": 1, "progress": "none"}
    (whole,) = drive_of(predictor, RenderGifParameters(**given)).frames
    tiling = replace(predictor, limit=replace(predictor.limit, tile=64, overlap=32))
    monkeypatch.setattr(type(predictor.limit), "needs_tiles", lambda *_, **__: True)
    (tiled,) = drive_of(tiling, RenderGifParameters(**given)).frames
    assert tiled.shape == whole.shape
    assert not np.array_equal(tiled, whole)
    monkeypatch.undo()
    small = replace(predictor, limit=replace(predictor.limit, gib=1.0))
    with pytest.raises(
        InputError, match=r"\w_000000_leftImg8bit\.png: .* pixels take .* more than memory_gib=1; allow more"
    ):
        list(drive_of(small, RenderGifParameters(**given)).frames)


def test_images_of_other_sizes_are_animated_at_that_of_the_first(predictor, photos: Path) -> None:
    """Scaled to fit, within a border that has no class, a single pixel too."""
    for name, size in (("b.jpg", (40, 90)), ("below/a.png", (1, 1))):
        Image.new("RGB", size, "white").save(photos / name)
    first, high, dot = rendered(run="done", images=str(photos), width=320, progress="none")
    assert first.shape == high.shape == dot.shape
    photo = high[40:60, :100].reshape(-1, 3).max(axis=0), high[40:60, 10:20].reshape(-1, 3).max()
    assert (photo[0] > 200).all(), "the image is in the middle of its panel"
    assert photo[1] < 20, "the border is black"


def test_the_embedded_city_is_animated_by_its_name_as_it_is_predicted() -> None:
    for parameters in (PredictParameters, RenderGifParameters):
        parameters(images="demo_city").find_inputs()
        with pytest.raises(MissingInputError, match="no such file or folder; give an image"):
            parameters(images="demo_town").find_inputs()


def test_more_memory_takes_a_refused_image_into_the_same_folder(photos: Path, tmp_path: Path) -> None:
    """As the line that refuses it advises; what other tiles do not change is kept."""
    Image.effect_noise((1600, 1000), 60).save(photos / "large.png")
    given = {"run": "done", "images": str(photos), "output": str(tmp_path / "out"), "tile": 256, "tile_overlap": 32}
    given |= {"threads": 1, "device": "cpu", "progress": "none"}
    for gib, made in ((1.28, 3), (1.31, 1), (1.31, 0), (4, 1)):
        found = predict(PredictParameters(**given, memory_gib=gib))
        assert (found.made, len(found.problems)) == (made, gib == 1.28)


def rendered(**given: object) -> list[np.ndarray]:
    """Return the frames that a notebook with these parameters draws."""
    config = RenderGifParameters(**given)
    return list(drive_of(predictor_of(config), config).frames)


def test_a_drive_shows_the_truth_only_where_there_is_one(predictor, city: Path) -> None:
    given = {"data_root": str(city), "width": 320, "frames": 1, "progress": "none"}
    (with_truth,) = drive_of(predictor, RenderGifParameters(**given)).frames
    (without,) = drive_of(predictor, RenderGifParameters(**given, split="test")).frames
    (hidden,) = drive_of(predictor, RenderGifParameters(**given, show_truth=False)).frames
    assert with_truth.shape[1] == without.shape[1] == 320
    assert with_truth.shape != without.shape == hidden.shape


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that predict without the run: an exported one, and one in the layout of VainF."""
    pytest.importorskip("onnxruntime")
    exported = tmp_path_factory.mktemp("files") / "network.onnx"
    export(["--run", "done", "--output", str(exported)])
    return {"exported": exported, "foreign": write_stand_in()}


@pytest.mark.parametrize("kind", ["exported", "foreign"])
def test_a_file_is_animated_as_predict_takes_it(files, photos: Path, city: Path, tmp_path: Path, kind: str) -> None:
    """A frame shows the ids that `predict` writes; of a split, whose truth is shown too, the data has to be named."""
    given = {"weights": str(files[kind]), "threads": 1, "device": "cpu", "progress": "none"}
    images, out = str(photos / "*.png"), tmp_path / "out"
    predict(PredictParameters(images=images, output=str(out), ids="train", **given))
    config = RenderGifParameters(images=images, width=320, **given)
    predictor = predictor_of(config)
    drive = drive_of(predictor, config)
    assert drive.path.parent == output_folder(predictor.network.run)
    assert re.fullmatch(r"predict_photos-[0-9a-f]{8}\.gif", drive.path.name)
    frames = list(drive.frames)
    write_animation(frames, drive.path)
    assert animation_size(drive.path) == (1, 320)
    how = {"class_names": predictor.class_names, "colors": predictor.colors, "width": 320, "title": "a"}
    footer = f"{predictor.network.run} · photos · whole_image"
    image = np.asarray(Image.open(photos / "a.png").convert("RGB"))
    assert np.array_equal(frames[0], compose_frame(image, read_ids(out / "ids" / "a.png"), footer=footer, **how))
    drive = drive_of(predictor, RenderGifParameters(data_root=str(city), frames=1, width=320, **given))
    assert drive.path.name.startswith("val_")
    assert len(list(drive.frames)) == 1


def test_a_file_belongs_to_no_data_and_no_run(files) -> None:
    with pytest.raises(ParameterError, match="belong to no data set; give images, or a data_root"):
        RenderGifParameters(weights=str(files["foreign"]))
    for kind in (PredictParameters, RenderGifParameters):
        with pytest.raises(ParameterError, match="run='done', weights=.*: give one of them"):
            kind(run="done", weights=str(files["foreign"]), images="photos")


def test_what_is_no_image_in_a_list_costs_its_own_frame_alone(predictor, photos: Path) -> None:
    (photos / "drive.mp4").touch()
    (photos / "list.txt").write_text("drive.mp4\na.png\ngone.png\n")
    drive = drive_of(predictor, RenderGifParameters(images=str(photos / "list.txt"), width=320, progress="none"))
    assert len(list(drive.frames)) == 1
    video, missing = drive.problems
    assert video == f"{photos / 'drive.mp4'}: is a video, and a list names images; give the video itself"
    assert missing.startswith(f"{photos / 'gone.png'}: no such file")


def test_the_image_to_show_is_the_first_that_can_be_predicted(predictor, photos: Path) -> None:
    """A damaged one, and one that is too large, are named with the others, and do not end a notebook before those."""
    (photos / "0.png").write_bytes((photos / "a.png").read_bytes()[:300])
    Image.new("L", (6000, 6000)).save(photos / "1.png")
    small = replace(predictor, limit=replace(predictor.limit, gib=1.3))
    assert first_image(find_images(photos), small).size == (96, 64)
    with pytest.raises(InputError, match=r"6000 x 6000 pixels take .* more than memory_gib=1\.3"):
        first_image(find_images(photos / "1.png"), small)
    with pytest.raises(InputError, match="0.png: cannot be read"):
        first_image(find_images(photos / "0.png"), small)


def test_a_video_of_an_odd_width_is_refused_before_it_is_made() -> None:
    with pytest.raises(ParameterError, match="width=321: a video has an even one; take 322"):
        RenderGifParameters(width=321, animation="mp4")


def test_what_the_fastest_runtime_began_is_resumed_by_the_same(photos: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("onnxruntime")
    given = {"run": "done", "images": str(photos), "output": str(tmp_path / "out"), "runtime": "fastest"}
    parameters = PredictParameters(**given, threads=1, device="cpu", progress="none")
    monkeypatch.setattr(networks, "_seconds", lambda one: isinstance(one.model, networks.ExportedNetwork))
    assert predict(parameters).made == 3
    assert recorded_runtime(tmp_path / "out") == "exact"
    monkeypatch.setattr(networks, "_seconds", lambda one: not isinstance(one.model, networks.ExportedNetwork))
    (tmp_path / "out" / "ids" / "a.png").unlink()
    assert predict(parameters).made == 1
    assert recorded_runtime(tmp_path / "out") == "exact"


@pytest.mark.parametrize("runtime", ["folded", "onnxruntime", "openvino"])
def test_a_folder_is_predicted_and_resumed_in_each_runtime(predictor, photos: Path, tmp_path: Path, runtime) -> None:
    """Its stamps are of the network that another runtime runs, which has no weights of its own to hash."""
    if runtime != "folded":
        pytest.importorskip(runtime)
    given = {"run": "done", "images": str(photos), "output": str(tmp_path / "out"), "runtime": runtime}
    parameters = PredictParameters(**given, threads=1, device="cpu", progress="none", ids="train")
    assert predictor_of(parameters).network.network_sha256 == predictor.network.network_sha256
    for made in (3, 1):
        found = predict(parameters)
        assert (found.made, found.problems) == (made, ())
        assert (read_ids(tmp_path / "out" / "ids" / "b.png") == predictor(photos / "b.jpg")).mean() > 0.999
        (tmp_path / "out" / "ids" / "b.png").unlink()


def test_a_damaged_record_is_one_line(predictor, tmp_path: Path) -> None:
    (tmp_path / "predictions.json").write_text("[]")
    with pytest.raises(IntegrityError, match=r"predictions\.json: not a record of predictions; delete it"):
        recorded_runtime(tmp_path)
    (tmp_path / "predictions.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"predictions\.json: cannot be read \(not valid JSON"):
        open_results(tmp_path, predictor, Outputs(), batch_size=1)
