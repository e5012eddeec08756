"""What names images: a file, a folder, a pattern, a list; and what does not, in one line."""

from pathlib import Path

import pytest
from PIL import Image

from cityscapes.errors import InputError, MissingInputError, ParameterError
from dlv3p.prediction.sources import Source, find_images


def names(source: Source) -> list[str]:
    """The names of the results."""
    return [image.name for image in source.images]


def test_a_folder_is_searched_to_its_depths_in_order(photos: Path) -> None:
    (photos / "notes.txt").write_text("no image")
    (photos / ".hidden.png").write_bytes(b"")
    (photos / "anim.gif").write_bytes(b"")
    (photos / "below" / "b.GIF").write_bytes(b"")
    assert names(find_images(photos)) == ["a", "b", "below/a"]
    assert find_images(photos).title == "photos"
    assert find_images(photos).left_out == "2 .gif, 1 .txt"
    assert find_images(f"{photos}/*").left_out == "1 .gif, 1 .txt"


def test_two_images_never_get_the_same_name(photos: Path) -> None:
    (photos / "A.jpg").write_bytes((photos / "b.jpg").read_bytes())
    assert names(find_images(photos)) == ["A.jpg", "a.png", "b", "below/a"]
    (photos / "a.png.jpg").write_bytes((photos / "b.jpg").read_bytes())
    assert names(find_images(photos)) == ["A.jpg", "a.png", "a.png.jpg", "b", "below/a"]


def test_an_image_and_a_pattern_are_found(photos: Path) -> None:
    assert names(find_images(photos / "b.jpg")) == ["b"]
    assert names(find_images(f"{photos}/*.png")) == ["a"]
    assert names(find_images(f"{photos}/**/*.png")) == ["a", "below/a"]


def test_results_of_a_pattern_of_folders_lie_below_one_folder_whatever_folders_there_are(tmp_path: Path) -> None:
    for name in ("day/a.png", "day2/a.png", "day2/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    source = find_images(f"{tmp_path}/day*/*.png")
    assert names(source) == ["day/a", "day2/a", "day2/b"]
    assert names(find_images(f"{tmp_path}/day[2]/*.png")) == ["day2/a", "day2/b"]
    assert source.title == tmp_path.name


def test_a_list_is_relative_to_its_folder_and_keeps_its_order(photos: Path) -> None:
    listed = photos.parent / "wanted.txt"
    listed.write_text("# first\nphotos/below/a.png\n\nphotos/gone.png\nphotos/b.jpg\nphotos/b.jpg\n")
    source = find_images(listed)
    assert names(source) == ["below/a", "gone", "b"]
    assert source.title == "wanted"


def test_a_video_is_told_by_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "drive.MP4").write_bytes(b"")
    assert find_images(tmp_path / "drive.MP4").video == tmp_path / "drive.MP4"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no image; write one path per line"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"a\0b", "not a text file; a list has one path per line"),
    ],
)
def test_a_list_that_is_none_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "wanted.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        find_images(tmp_path / "wanted.txt")


def test_nothing_to_predict_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no image; allowed are \.png .*; it is empty"):
        find_images(tmp_path)
    (tmp_path / "notes.doc").write_text("text")
    with pytest.raises(InputError, match=r"no image; allowed are \.png .*found notes\.doc"):
        find_images(tmp_path)
    with pytest.raises(MissingInputError, match="no such file or folder; give an image, a folder"):
        find_images(tmp_path / "gone")
    with pytest.raises(MissingInputError, match="no file has such a name"):
        find_images(f"{tmp_path}/*.png")


@pytest.mark.parametrize("name", ["clip.ts", "clip.MPG"])
def test_a_video_of_another_type_is_not_taken_for_an_image(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"G")
    with pytest.raises(InputError, match=r"a video of a type that is not read; allowed are \.mp4 .*ffmpeg -i clip"):
        find_images(tmp_path / name)


def test_a_circle_of_links_is_named(photos: Path) -> None:
    (photos / "below" / "up").symlink_to(photos)
    with pytest.raises(InputError, match="up: a circular link; remove it"):
        find_images(photos)


def test_earlier_results_inside_a_folder_are_not_predicted(photos: Path) -> None:
    output = photos / "results"
    output.mkdir()
    (output / "a.png").write_bytes((photos / "a.png").read_bytes())
    assert names(find_images(photos, output=output)) == ["a", "b", "below/a"]
    for around in (photos, photos.parent):
        with pytest.raises(ParameterError, match=r"holds the images, .*choose another folder"):
            find_images(photos, output=around)


def test_a_pattern_that_leads_in_circles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "below" / "a.png")
    assert len(find_images(str(tmp_path / "**" / "*.png")).images) == 1
    (tmp_path / "below" / "again").symlink_to(tmp_path)
    with pytest.raises(InputError, match="below/again: a circular link; remove it"):
        find_images(str(tmp_path / "**" / "*.png"))


def test_results_of_an_earlier_predict_below_a_folder_are_no_photos(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 40))
    for name in ("a.png", "done/ids/a.png", "done/colors/a.png", "done/overlays/a.jpg", "done/confidence/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / name)
    assert len(find_images(str(tmp_path)).images) == 5  # folders of one's own may have these names
    (tmp_path / "done" / "predictions.csv").touch()
    assert [image.name for image in find_images(str(tmp_path)).images] == ["a"]
    assert [image.name for image in find_images(str(tmp_path / "done" / "colors")).images] == ["a"]
