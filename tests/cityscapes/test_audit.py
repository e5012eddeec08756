"""The audit of Cityscapes: every injected mistake is found, named and given a remedy; a sound data set passes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.audit import audit
from cityscapes.audit_frames import explain_ids
from cityscapes.audit_rules import AuditReport
from cityscapes.errors import MissingInputError, ParameterError
from cityscapes.labels import CLASS_NAMES, LABEL_ID_TO_COLOR, LABEL_ID_TO_TRAIN_ID, LABELS, TRAIN_ID_TO_COLOR
from cityscapes.layout import IMAGE_SUFFIX, LABEL_IDS_SUFFIX, POLYGONS_SUFFIX, TRAIN_IDS_SUFFIX, Frame

COMMAND = Path(__file__).parents[2] / "cityscapes" / "audit.py"
FRAMES = [
    Frame(split, city, "000000", f"{i:06}") for split, city in (("train", "ulm"), ("train", "bonn"), ("val", "jena"))
    for i in range(2)
]  # fmt: skip
FIRST = FRAMES[0]
HEIGHT, WIDTH = 19, 32
TRAIN_IDS = np.repeat(np.arange(19, dtype=np.uint8)[:, None], WIDTH, axis=1)
TRAIN_IDS[:, 0] = 255
LABEL_IDS = np.array([label.label_id for label in sorted(LABELS, key=lambda x: x.train_id) if 0 <= label.train_id < 19])


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i, frame in enumerate(FRAMES):
        pixels = np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        save(frame.image(tmp_path / "city"), pixels)
        save(frame.annotation(tmp_path / "city", TRAIN_IDS_SUFFIX), TRAIN_IDS)
        frame.annotation(tmp_path / "city", POLYGONS_SUFFIX).write_text("{}")
        frame.annotation(tmp_path / "city", "_gtFine_color.png").write_bytes(b"")
    return tmp_path / "city"


def check(root: Path, *splits: str, workers: int = 1) -> AuditReport:
    return audit(root, splits or ("train", "val"), root.parent / "generated", workers=workers, progress=False)


def tree(root: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}


def test_a_good_data_set_has_no_findings_and_is_counted(root):
    before = tree(root)
    report = check(root)
    assert (report.findings, report.lines()) == ((), [])
    train, val = report.splits
    assert (train.split, train.images, dict(train.groups["cities"])) == ("train", 4, {"ulm": 2, "bonn": 2})
    assert {title: dict(counts) for title, counts in val.groups.items()} == {
        "cities": {"jena": 2},
        "masks": {"provided": 2},
    }
    assert (dict(val.sizes), dict(val.modes), val.labeled) == ({(WIDTH, HEIGHT): 2}, {"RGB": 2}, 2)
    assert train.pixels[:19] == [4 * (WIDTH - 1)] * 19
    assert (train.pixels[255], sum(train.pixels)) == (4 * HEIGHT, 4 * HEIGHT * WIDTH)
    assert val.images_with[:20] == [2] * 19 + [0]
    assert tree(root) == before


def test_a_row_a_class_holds_pixels_and_images_of_each_split(root):
    rows = check(root).class_rows()
    assert [row["class"] for row in rows] == list(CLASS_NAMES)
    pixels = {"train pixels": 124, "val pixels": 62, "train images": 4, "val images": 2}
    assert rows[18] == {"class": "bicycle", **pixels}


def test_masks_are_read_as_training_reads_them(root):
    """Generated ones come first, provided label ids last; what nobody would read does not count."""
    all_road = np.zeros((HEIGHT, WIDTH), np.uint8)
    save(FIRST.generated(root.parent / "generated", TRAIN_IDS_SUFFIX), all_road)
    save(FRAMES[5].generated(root.parent / "generated", TRAIN_IDS_SUFFIX), TRAIN_IDS)
    other = FRAMES[1].annotation(root, TRAIN_IDS_SUFFIX)
    other.unlink()
    save(FRAMES[1].annotation(root, LABEL_IDS_SUFFIX), np.full((HEIGHT, WIDTH), 26, np.uint8))
    save(
        Frame("train", "otherdata", "000000", "000000").generated(root.parent / "generated", TRAIN_IDS_SUFFIX),
        TRAIN_IDS,
    )
    report = check(root)
    assert report.findings == ()
    assert dict(report.splits[0].groups["masks"]) == {"generated": 1, "provided": 3}
    assert report.splits[0].pixels[0] == HEIGHT * WIDTH + 2 * (WIDTH - 1)
    assert report.splits[0].pixels[13] == HEIGHT * WIDTH + 2 * (WIDTH - 1)


def overwrite(kind: str, content: bytes | None) -> Callable[[Path], None]:
    """Replace the first frame's file by these bytes, or by its own without the end."""

    def inject(root: Path) -> None:
        path = FIRST.image(root) if kind == IMAGE_SUFFIX else FIRST.annotation(root, kind)
        path.write_bytes(path.read_bytes()[:-40] if content is None else content)

    return inject


def mask(pixels: np.ndarray, suffix: str = TRAIN_IDS_SUFFIX) -> Callable[[Path], None]:
    return lambda root: save(FIRST.annotation(root, suffix), pixels)


def remove(*suffixes: str) -> Callable[[Path], None]:
    def inject(root: Path) -> None:
        for suffix in suffixes:
            (FIRST.image(root) if suffix == IMAGE_SUFFIX else FIRST.annotation(root, suffix)).unlink()

    return inject


def copy_image(frame: Frame, name: str | None = None) -> Callable[[Path], None]:
    """Copy the first frame's image to another frame's place, or to another name in its folder."""

    def inject(root: Path) -> None:
        target = frame.image(root) if name is None else frame.image(root).with_name(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FIRST.image(root), target)

    return inject


def dangling(root: Path) -> None:
    FIRST.image(root).unlink()
    FIRST.image(root).symlink_to(root / "nowhere")


def void_as_19(pixels: np.ndarray) -> np.ndarray:
    return np.where(pixels == 255, 19, pixels).astype(np.uint8)


IN_VAL = Frame("val", "ulm", "000000", "000000")
GRAY = np.array(Image.fromarray(TRAIN_ID_TO_COLOR[TRAIN_IDS]).convert("L"))
FOREIGN, MISNAMED, TWICE = "ids outside the table", "malformed name", "duplicate frame"
SIZES = "image and mask of different sizes"
NO_BICYCLE = np.where(TRAIN_IDS == 18, 17, TRAIN_IDS).astype(np.uint8)
A_BICYCLE = NO_BICYCLE.copy()
A_BICYCLE[3, 3] = 18
Fault = tuple[Callable[[Path], None], str, str, str]
"""How it is injected, and what the finding says: its kind, a part of where and what, a part of the remedy."""

FAULTS: dict[str, Fault] = {
    "no annotation": (remove(TRAIN_IDS_SUFFIX, POLYGONS_SUFFIX), "image without a mask", FIRST.name, "remove"),
    "no image": (remove(IMAGE_SUFFIX), "mask without an image", FIRST.name, "copy the image again"),
    "empty image": (overwrite(IMAGE_SUFFIX, b""), "damaged file", "it is empty", "copy it again"),
    "cut image": (overwrite(IMAGE_SUFFIX, None), "damaged file", "it is cut off", "copy it again"),
    "HTML as an image": (overwrite(IMAGE_SUFFIX, b"<html>"), "damaged file", "unreadable", "copy it"),
    "a broken link": (dangling, "damaged file", "broken link", "copy it again"),
    "cut mask": (overwrite(TRAIN_IDS_SUFFIX, None), "damaged file", TRAIN_IDS_SUFFIX, "generate_gt.py"),
    "empty mask": (overwrite(TRAIN_IDS_SUFFIX, b""), "damaged file", "it is empty", "generate_gt.py"),
    "another size": (mask(TRAIN_IDS[:-1]), SIZES, "32 x 18 pixels, its image 32 x 19", "one size"),
    "colors": (mask(TRAIN_ID_TO_COLOR[TRAIN_IDS]), "wrong kind of mask", "mode is RGB", "color mask"),
    "16 bits": (mask(TRAIN_IDS.astype(np.uint16)), "wrong kind of mask", "mode is I;16", "generate_gt.py"),
    "label ids": (mask(LABEL_IDS[TRAIN_IDS % 19].astype(np.uint8)), FOREIGN, "look like Cityscapes label ids", "make"),
    "train ids": (mask(TRAIN_IDS, LABEL_IDS_SUFFIX), FOREIGN, "look like train ids", "generate_gt.py"),
    "void as 19": (
        mask(void_as_19(TRAIN_IDS)), FOREIGN, "19 looks like an id for unlabeled pixels", "generate_gt.py"
    ),
    "gray colors": (mask(GRAY), FOREIGN, "color mask converted to gray", "generate_gt.py"),
    "an id of its own": (mask(np.where(TRAIN_IDS == 3, 99, TRAIN_IDS)), FOREIGN, "99 (31 pixels)", "make"),
    "other name": (copy_image(FIRST, "a_leftImg8bit.png"), MISNAMED, "a_leftImg8bit.png", "six digits"),
    "other city": (copy_image(FIRST, f"jena_000000_000007{IMAGE_SUFFIX}"), MISNAMED, "jena", "its city"),
    "the same as JPEG": (
        copy_image(FIRST, FIRST.name + "_leftImg8bit.jpg"), TWICE, ".jpg", "remove"
    ),
    "in capitals": (copy_image(FIRST, FIRST.name.upper() + IMAGE_SUFFIX), TWICE, "ULM", "remove"),
    "in train and val": (copy_image(IN_VAL), "frame in two splits", f"{FIRST.name}: it is in train and in", "score"),
    "in val under another name": (copy_image(FRAMES[5]), "image in two splits", FIRST.name, "score"),
    "no bicycle in train": (
        lambda root: [save(f.annotation(root, TRAIN_IDS_SUFFIX), NO_BICYCLE) for f in FRAMES[:4]],
        "class that cannot be learned", "bicycle: occurs in val and never in train", "drop the class",
    ),
    "no images in val": (lambda root: shutil.rmtree(root / "leftImg8bit/val"), "empty split", "val", "leave the"),
}  # fmt: skip
NOTES: dict[str, Fault] = {
    "polygons only": (remove(TRAIN_IDS_SUFFIX), "masks not made yet", FIRST.name, "generate_gt.py --root"),
    "all void": (mask(np.full_like(TRAIN_IDS, 255)), "mask without a labeled pixel", FIRST.name, "leave it out"),
    "an unused file": (lambda root: (root / "gtFine/train/ulm/notes.txt").touch(), "unused file", "notes", "it"),
    "a copy": (copy_image(FRAMES[1]), "duplicate image", FIRST.name, "counts twice"),
    "a gray image": (
        lambda root: save(FIRST.image(root), TRAIN_IDS), "image that is not RGB", "mode is L", "photo"
    ),
    "a larger frame": (
        lambda root: [save(FIRST.image(root), np.zeros((9, 9, 3), np.uint8)), mask(TRAIN_IDS[:9, :9])(root)],
        "images of several sizes", "9 x 9 (1 frames)", "camera",
    ),
    "a rare class": (
        lambda root: [
            save(f.annotation(root, TRAIN_IDS_SUFFIX), A_BICYCLE if f == FIRST else NO_BICYCLE) for f in FRAMES[:4]
        ],
        "rare class", "bicycle: 0.0424% of the labeled pixels in train", "class_weights",
    ),
    "absent classes": (
        lambda root: [save(f.annotation(root, TRAIN_IDS_SUFFIX), TRAIN_IDS % 17) for f in FRAMES[4:]],
        "classes that never occur", "val: no pixel is motorcycle, bicycle", "undefined",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS | NOTES)
def test_what_is_wrong_is_found_with_its_remedy(root, name):
    inject, kind, place, remedy = (FAULTS | NOTES)[name]
    inject(root)
    report = check(root)
    found = [finding for finding in report.findings if finding.kind == kind]
    assert len(found) == 1, report.lines()
    assert place in f"{found[0].where}: {found[0].problem}"
    assert remedy in found[0].remedy
    assert found[0].is_error == (name in FAULTS)
    assert bool(report.errors) == (name in FAULTS)
    assert f"{'error' if name in FAULTS else 'note'}: {kind}: 1" in report.lines()


def test_one_fault_does_not_hide_another(root):
    FRAMES[0].image(root).unlink()
    save(FRAMES[1].annotation(root, TRAIN_IDS_SUFFIX), TRAIN_IDS.astype(np.uint16))
    FRAMES[2].image(root).write_bytes(b"")
    path = FRAMES[2].annotation(root, TRAIN_IDS_SUFFIX)
    path.write_bytes(path.read_bytes()[:50])
    (root / "gtFine" / "train" / "ulm" / "x_labelIds.png").touch()
    report = check(root)
    assert sorted(finding.kind for finding in report.errors) == [
        "damaged file", "damaged file", "mask without an image", "wrong kind of mask",
    ]  # fmt: skip
    assert [finding.is_error for finding in report.findings] == [True] * 4 + [False]
    assert report.splits[0].pixels[0] == 2 * (WIDTH - 1)


def test_frames_of_the_test_split_need_no_masks(root):
    for frame in FRAMES[:2]:
        (target := frame._replace(split="test").image(root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(frame.image(root), target)
    shutil.rmtree(root / "gtFine" / "train" / "ulm")
    assert check(root, "train", "val", "test").findings == ()


def test_the_number_of_threads_does_not_change_the_report(root):
    for inject, *_ in (FAULTS["label ids"], NOTES["an unused file"], FAULTS["other name"]):
        inject(root)
    one, four = check(root, workers=1), check(root, workers=4)
    assert (one.findings, one.splits) == (four.findings, four.splits)


def test_names_from_anywhere_are_shown_in_one_printable_line(root):
    folder = os.fsencode(root / "leftImg8bit" / "train" / "ulm")
    for name in (
        b"\xff_leftImg8bit.png",
        b"two\nlines_leftImg8bit.png",
        b"\x1b[2J.png",
        b"x" * 230 + b"_leftImg8bit.png",
    ):
        with open(folder + b"/" + name, "wb"):
            pass
    report = check(root)
    assert len(report.findings) == 4
    assert all(line.isprintable() for line in report.lines())


def test_many_findings_of_a_kind_are_counted_and_a_few_shown(root):
    for i in range(30):
        (root / "gtFine" / "train" / "ulm" / f"{i}.txt").touch()
    lines = check(root).lines(limit=5)
    assert lines[0] == "note: unused file: 30"
    assert lines[6] == "  and 25 more"
    assert lines[7].startswith("  -> remove")
    assert len(lines) == 8


@pytest.mark.parametrize("workers", [-1, 2000, True, 1.5])
def test_a_wrong_number_of_threads_is_refused(root, workers):
    with pytest.raises(ParameterError, match="choose 1 to 1024, or 0"):
        check(root, workers=workers)


def test_wrong_arguments_are_refused(root, tmp_path):
    with pytest.raises(MissingInputError, match="neither leftImg8bit/ nor gtFine/"):
        audit(tmp_path / "nothing")
    for splits in ("train", []):
        with pytest.raises(ParameterError, match="list of splits"):
            audit(root, splits)


@pytest.mark.parametrize("palette", [LABEL_ID_TO_COLOR, None])
def test_ids_of_a_palette_image_are_its_indices(root, palette):
    image = Image.fromarray(TRAIN_IDS)
    if palette is not None:
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(palette.tobytes())
    image.save(FIRST.annotation(root, TRAIN_IDS_SUFFIX))
    assert check(root).findings == ()


def test_ids_are_explained_by_what_they_look_like():
    assert explain_ids(dict.fromkeys([*range(19), 255], 1), "train") is None
    assert explain_ids(dict.fromkeys(range(34), 1), "label") is None
    assert "-1, the license plate" in explain_ids(dict.fromkeys([*range(34), 255], 1), "label")
    assert explain_ids({0: 9, 77: 5, 99: 2}, "train") == "holds 77, 99 (7 pixels), which are not train ids"
    assert "and 205 more" in explain_ids(dict.fromkeys(range(34, 249), 1), "train")
    assert set(np.unique(LABEL_ID_TO_TRAIN_ID[LABEL_IDS])) == set(range(19))


def run(*arguments: object) -> subprocess.CompletedProcess:
    words = [sys.executable, str(COMMAND), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_command_ends_with_zero_or_three_and_prints_what_it_found(root):
    done = run("--root", root, "--generated", root.parent / "none")
    assert (done.returncode, done.stderr) == (0, "")
    assert "train: 4 frames, 3.1% void; bonn 2, ulm 2" in done.stdout
    assert "0 errors, 0 notes" in done.stdout
    FAULTS["label ids"][0](root)
    done = run("--root", root, "--splits", "train", "--workers", "2")
    assert (done.returncode, done.stderr) == (3, "")
    assert f"{FIRST.name}{TRAIN_IDS_SUFFIX}: holds 19, 20, 21, 22, 23, 24, 25, 26, 27, 28 and 3 more" in done.stdout
    assert "1 error, 0 notes" in done.stdout
    done = run("--root", root / "nothing")
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (3, 1, "")
    assert run("--splits", "trian").returncode == 2


def test_the_audit_needs_no_torch_and_its_help_nothing_at_all(root):
    code = (
        "import sys; sys.modules['torch'] = None\nimport cityscapes.audit as a; a._parser().format_help()\n"
        "print([m for m in ('numpy', 'numba', 'PIL', 'tqdm') if m in sys.modules])\n"
        "print(a.audit(sys.argv[1]).splits[0].images)"
    )
    done = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n4\n", done.stderr


def test_a_linked_city_is_audited_as_it_is_trained_on_and_hidden_folders_are_not(root):
    for kind in ("leftImg8bit", "gtFine"):
        city = root / kind / "train" / "ulm"
        city.rename(root / f"{kind}_ulm")
        city.symlink_to(f"../../{kind}_ulm")
        save(root / kind / "train" / ".ipynb_checkpoints" / "a-checkpoint.png", TRAIN_IDS)
        (root / f"{kind}_ulm" / "circle").symlink_to("..")
    report = check(root)
    assert report.findings == ()
    assert report.splits[0].images == 4


def test_an_image_that_exif_turns_is_a_note_and_sizes_say_so(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (WIDTH, HEIGHT, 3), np.uint8)
    Image.fromarray(pixels).save(FIRST.image(root), exif=exif)
    assert {(f.kind, f.is_error) for f in check(root).findings} == {("image turned by EXIF", False)}
    Image.fromarray(pixels).save(FIRST.image(root))
    (found,) = check(root).errors
    assert "they differ by a quarter turn, probably an EXIF orientation" in found.problem


def test_a_class_that_never_occurs_in_training_is_an_error(root):
    for frame in FRAMES:
        path = frame.annotation(root, TRAIN_IDS_SUFFIX)
        save(path, np.where(TRAIN_IDS == 18, 17, TRAIN_IDS).astype(np.uint8))
    found = {(finding.kind, finding.split, finding.is_error) for finding in check(root).findings}
    assert found == {("classes that never occur", "train", True), ("classes that never occur", "val", False)}
