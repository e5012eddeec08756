"""PASCAL VOC and SBD: lists in every style, masks as they are stored, and no image of val among those of train."""

import errno
import hashlib
import http.server
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError, IntegrityError, MachineError, MissingInputError
from dlv3p.data.classes import CLASS_NAMES, voc_palette
from dlv3p.data.demo import VOC_COUNTS, write_demo_voc
from dlv3p.data.roots import open_images, open_split, open_training
from dlv3p.data.voc import LISTS, find_kit, open_voc, read_voc_list
from dlv3p.data.voc_archives import SBD, VOC, augment_voc, md5_path, read_sbd_mask, unpack_archive
from dlv3p.data.voc_preparation import prepare_voc
from dlv3p.parameters.training import TrainingDataParameters

pytest.importorskip("scipy", reason="SBD's masks need scipy: pip install 'dlv3p[voc]'")

REAL = Path(__file__).parents[3] / "shared" / "data" / "voc"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_demo_voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made / "VOCdevkit", tmp_path / "VOCdevkit")
    shutil.copytree(made / "benchmark_RELEASE", tmp_path / "benchmark_RELEASE")
    return tmp_path


def names(split):
    return [split.name(index) for index in range(len(split))]


def write_list(root, name, lines):
    path = find_kit(root) / LISTS / f"{name}.txt"
    path.write_text(lines)
    return path


def test_the_palette_is_that_of_the_development_kit():
    colors = voc_palette()
    assert colors[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip
    assert len(np.unique(colors, axis=0)) == 256


def test_sbd_joins_the_train_split_and_no_image_of_val(root):
    train, val, augmented = (set(names(open_split(root, split))) for split in ("train", "val", "train_aug"))
    assert len(augmented) == VOC_COUNTS["train"] + VOC_COUNTS["beyond"]
    assert train < augmented
    assert not augmented & val
    open_training(TrainingDataParameters(data_root=str(root), train_split="train_aug"))


def test_masks_keep_their_ids_and_only_vocs_own_have_borders(root):
    split = open_split(root, "train_aug")
    train = set(names(open_split(root, "train")))
    for index in range(0, len(split), 5):
        mask = split.mask(index)
        assert (255 in mask) == (split.name(index) in train)
        sbd = read_sbd_mask(root / SBD.folder / "cls" / f"{split.name(index)}.mat")
        assert np.array_equal(mask[mask != 255], sbd[mask != 255])
    assert split.class_names[15] == "person"


def test_an_interrupted_conversion_goes_on_and_keeps_what_is_there(root):
    kit, sbd = find_kit(root), root / SBD.folder
    made = sorted((kit / "SegmentationClassAug").iterdir())
    before = {path: path.stat().st_mtime_ns for path in made}
    content = made[3].read_bytes()
    made[3].unlink()
    augment_voc(kit, sbd)
    assert made[3].read_bytes() == content
    assert all(path.stat().st_mtime_ns == before[path] for path in made if path != made[3])


def test_damaged_masks_are_counted_and_the_good_ones_are_made(root):
    kit, sbd = find_kit(root), root / SBD.folder
    shutil.rmtree(kit / "SegmentationClassAug")
    beyond = sorted(set(names(open_images(root, "train_aug"))) - set(names(open_split(root, "train"))))
    (sbd / "cls" / f"{beyond[0]}.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut off")
    (sbd / "cls" / f"{beyond[1]}.mat").unlink()
    with pytest.raises(InputError, match=rf"2 of 36 masks could not be made, the first: .*{beyond[0]}\.mat"):
        augment_voc(kit, sbd)
    assert len(list((kit / "SegmentationClassAug").iterdir())) == sum(VOC_COUNTS.values()) - 2


@pytest.mark.parametrize(
    "line",
    ["{0}", "/JPEGImages/{0}.jpg /SegmentationClass/{0}.png", "JPEGImages/{0}.jpg SegmentationClass/{0}.png"],
    ids=["bare ids", "leading-slash pairs", "relative pairs"],
)
def test_the_three_styles_of_lists_name_the_same_files(root, line):
    expected = open_split(root, "train")
    write_list(root, "mine_train", "".join(line.format(name) + "\n" for name in names(expected)))
    split = open_split(root, "mine_train")
    assert split.pairs == expected.pairs


def test_l3_line_ends_blanks_and_comments_do_not_matter(root):
    first, second = names(open_split(root, "train"))[:2]
    write_list(root, "mine", f"\ufeff# two images\r\n\r\n{first}  \r\n{second}")
    assert names(open_split(root, "mine")) == [first, second]


@pytest.mark.parametrize(
    "word", ["C:\\data\\a", "//etc/passwd x.png", "/JPEGImages/../../a.jpg x.png", "a.jpg ../x.png"]
)
def test_l3_a_path_that_leaves_the_root_is_refused_with_its_line(root, word):
    path = write_list(root, "mine", f"# a list\n{word}\n")
    with pytest.raises(InputError, match=f"{path.name}, line 2: .* leads out of"):
        open_split(root, "mine")


@pytest.mark.parametrize("line", ["a b c", "../../secret", "JPEGImages/a.jpg"])
def test_a_line_of_no_known_style_is_refused(root, line):
    write_list(root, "mine", line)
    with pytest.raises(InputError, match="line 1: .* is neither an id nor an image and its mask"):
        open_split(root, "mine")


def test_a_list_that_names_an_image_twice_is_refused(root):
    name = names(open_split(root, "train"))[0]
    write_list(root, "mine", f"{name}\n{name}\n")
    with pytest.raises(InputError, match=f"line 2: {name} is a duplicate"):
        open_split(root, "mine")


def test_a_training_list_with_an_image_of_val_is_refused(root):
    leaked = names(open_split(root, "val"))[2]
    path = find_kit(root) / LISTS / "train.txt"
    path.write_text(path.read_text() + f"\n{leaked}\n")
    with pytest.raises(InputError, match=f"'train' names 1 images of val, the first {leaked}"):
        open_split(root, "train")


def test_splits_that_share_images_cannot_be_trained_and_scored(root):
    with pytest.raises(InputError, match="'trainval' and 'val' share 8 images"):
        open_training(TrainingDataParameters(data_root=str(root), train_split="trainval"))


def test_missing_files_of_a_list_are_counted(root):
    kit = find_kit(root)
    for name in names(open_split(root, "val"))[:3]:
        (kit / "SegmentationClass" / f"{name}.png").unlink()
    with pytest.raises(MissingInputError, match="3 of 8 masks of 'val' are missing"):
        open_split(root, "val")
    assert len(open_images(root, "val")) == 8


def test_an_unknown_split_names_those_that_there_are(root):
    with pytest.raises(MissingInputError, match="choose one of train, train_aug, trainval, val"):
        open_split(root, "test")


def test_a_mask_in_colors_is_refused_rather_than_converted(root):
    split = open_split(root, "val")
    path = split.pairs[0].mask
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(InputError, match="has mode RGB"):
        split.mask(0)


def test_an_archive_that_is_cut_off_leaves_nothing_behind(made, tmp_path):
    archives, target = tmp_path / "archives", tmp_path / "data"
    archives.mkdir()
    content = (made / "archives" / SBD.file).read_bytes()
    (archives / SBD.file).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"benchmark\.tgz: cannot be unpacked"):
        unpack_archive(SBD, archives, target)
    assert list(target.iterdir()) == []


def test_an_archive_with_a_flipped_bit_is_refused_and_leaves_nothing_behind(made, tmp_path):
    archives = shutil.copytree(made / "archives", tmp_path / "archives")
    path = archives / VOC.file
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        content[next(member for member in tar if member.name.endswith(".jpg")).offset_data + 500] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"2012\.tar: its MD5 is \w{32}, not \w{32}, .*delete it"):
        unpack_archive(VOC, archives, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_local_archive_is_the_published_one_unless_its_md5_is_stated(made, tmp_path):
    archives = shutil.copytree(made / "archives", tmp_path / "archives")
    stated = md5_path(archives / SBD.file)
    text = stated.read_text()
    stated.unlink()
    with pytest.raises(IntegrityError, match=f"not {SBD.md5}, .*md5sum {SBD.file} > {stated.name}"):
        unpack_archive(SBD, archives, tmp_path / "data")
    stated.write_text(text.upper())
    assert (unpack_archive(SBD, archives, tmp_path / "data") / "train.txt").is_file()


@pytest.mark.parametrize("text", [b"", b"\xff\x00", b"\x1b[2J" * 9])
def test_a_statement_of_no_md5_takes_no_archive(made, tmp_path, text):
    archives = shutil.copytree(made / "archives", tmp_path / "archives")
    md5_path(archives / SBD.file).write_bytes(text)
    with pytest.raises(IntegrityError) as caught:
        unpack_archive(SBD, archives, tmp_path / "data")
    assert str(caught.value).isprintable()


def test_an_archive_that_would_write_elsewhere_is_refused(tmp_path):
    (tmp_path / "evil.txt").write_text("evil")
    with tarfile.open(tmp_path / VOC.file, "w") as tar:
        tar.add(tmp_path / "evil.txt", arcname="../../evil.txt")
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack_archive(VOC, tmp_path, tmp_path / "deep" / "data")
    assert not (tmp_path / "evil.txt.1").exists()
    assert not (tmp_path / "deep" / "evil.txt").exists()


def test_a_kit_is_found_by_a_path_with_variables(root, monkeypatch):
    monkeypatch.setenv("MY_DATA", str(root))
    assert prepare_voc("$MY_DATA", archives="", with_sbd=False) == find_kit(root)


def test_archives_are_those_that_torchvision_knows():
    from torchvision.datasets import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    known = DATASET_YEAR_DICT["2012"]
    assert VOC[:3] == (known["filename"], known["url"], known["md5"])
    assert SBD[:3] == (SBDataset.filename, SBDataset.url, SBDataset.md5)


def test_without_a_network_the_archive_to_fetch_is_named(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    with pytest.raises(MachineError, match=r"cannot download https?://.*VOCtrainval_11-May-2012\.tar .* put it into"):
        unpack_archive(VOC, tmp_path, tmp_path)


OWN = {
    "class_names.txt": "_background_\nwall\nroof\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\nwall:128,0,0::\n",
    "labels.txt": "__ignore__\n_background_\nwall\n",
    "classes.csv": "id,name\n0,wall\n1,roof\n",
    "_classes.csv": "Pixel Value, Class\n0, background\n1, wall\n",
    "classes.names": "background\nwall\n",
    "label_colors.txt": "background: 0 0 0\nwall: 255 0 0\n",
}


@pytest.mark.parametrize("name", OWN)
def test_classes_of_ones_own_are_refused_with_the_way_to_a_plain_folder(root, name):
    (find_kit(root) / name).write_text(OWN[name])
    for open_one in (open_split, open_images):
        with pytest.raises(InputError, match=rf"{name}: lists \d classes of your own .*wall.* plain folder: "):
            open_one(root, "train")


@pytest.mark.parametrize("name", ["labels.json", "classes.yaml", "label_map.pbtxt"])
def test_classes_in_a_format_that_is_not_read_have_to_be_those_of_voc(root, name):
    (find_kit(root) / name).write_text("wall, roof")
    with pytest.raises(InputError, match=rf"{name}: does not list the classes of PASCAL VOC .* plain folder: "):
        open_split(root, "train")
    (find_kit(root) / name).write_text(str([*reversed(CLASS_NAMES)]))
    assert open_split(root, "train").class_names == CLASS_NAMES


@pytest.mark.parametrize("color", [(192, 128, 128), (255, 0, 0)], ids=["another class's", "of no class"])
def test_a_palette_in_other_colors_than_those_of_voc_is_refused(root, color):
    split = open_split(root, "val")
    path = split.pairs[0].mask
    with Image.open(path) as mask:
        ids = np.asarray(mask).copy()
        ids[0, 0] = 1
        changed = Image.fromarray(ids, mode="P")
        colors = voc_palette().copy()
        colors[1] = color
        changed.putpalette(colors.tobytes())
    changed.save(path)
    with pytest.raises(
        InputError, match=r"its palette shows id 1 in the color \(.*\), PASCAL VOC in \(128, 0, 0\); .*"
    ):
        split.mask(0)
    changed.putpalette([value for gray in range(256) for value in (gray, gray, gray)])
    changed.save(path)
    assert split.mask(0).tolist() == ids.tolist()


@pytest.mark.parametrize("name", ["class_names.txt", "labelmap.txt"])
def test_a_list_of_the_classes_of_voc_is_no_reason(root, name):
    lines = ["_background_", *[word.replace(" ", "").replace("/", "") for word in CLASS_NAMES[1:]]]
    if name == "labelmap.txt":
        lines = [f"{word}:0,0,0::" for word in lines]
    (find_kit(root) / name).write_text("\n".join(["__ignore__", *lines]) + "\n")
    assert open_split(root, "train").class_names == CLASS_NAMES


def test_a_list_and_its_files_may_differ_in_unicode_form(root):
    kit = find_kit(root)
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    first = read_voc_list(kit, "val")[0]
    shutil.copy(first.image, kit / "JPEGImages" / f"{decomposed}.jpg")
    shutil.copy(first.mask, kit / "SegmentationClass" / f"{decomposed}.png")
    write_list(root, "own", f"{composed}\n")
    assert open_split(root, "own").pair(0)[1].ndim == 2


@pytest.fixture
def served(made, tmp_path):
    """The archives of the embedded VOC as a server offers them: its folder, and one of them with its address there."""
    folder = tmp_path / "server"
    folder.mkdir()
    content = (made / "archives" / VOC.file).read_bytes()
    (folder / VOC.file).write_bytes(content)
    handler = partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{VOC.file}"
        yield folder, VOC._replace(url=url, md5=hashlib.md5(content, usedforsecurity=False).hexdigest())
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_broken_download_is_no_archive_and_the_next_run_downloads_it_whole(served, tmp_path):
    folder, archive = served
    whole = (folder / VOC.file).read_bytes()
    (folder / VOC.file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MachineError, match=r"cannot download http://.* \(File not found or corrupted"):
        unpack_archive(archive, tmp_path / "archives", tmp_path / "data")
    assert list((tmp_path / "archives").iterdir()) == []
    (folder / VOC.file).write_bytes(whole)
    kit = unpack_archive(archive, tmp_path / "archives", tmp_path / "data")
    assert (kit / LISTS / "val.txt").is_file()
    assert [path.name for path in (tmp_path / "archives").iterdir()] == [VOC.file]


def test_a_killed_download_leaves_nothing_once_the_next_has_run(served, tmp_path):
    _, archive = served
    code = f"""
import os, signal
from pathlib import Path
import torchvision.datasets.utils
from dlv3p.data import voc_archives
def killed(url, folder, file, md5):
    Path(folder, file).write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGTERM)
torchvision.datasets.utils.download_url = killed
voc_archives.unpack_archive(voc_archives.VOC, Path({str(tmp_path / "archives")!r}), Path("data"))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGTERM
    assert VOC.file not in os.listdir(tmp_path / "archives")
    unpack_archive(archive, tmp_path / "archives", tmp_path / "data")
    assert os.listdir(tmp_path / "archives") == [VOC.file]


def test_two_preparations_at_once_make_one_kit(made, tmp_path):
    shutil.copytree(made / "archives", tmp_path / "archives")
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(2)
    both = [context.Process(target=_prepare, args=(tmp_path, ready)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    kit = tmp_path / VOC.folder
    assert not (kit / "VOC2012").exists()
    assert os.listdir(kit.parent) == ["VOC2012"]
    expected = sorted(path.relative_to(made) for path in (made / VOC.folder).rglob("*"))
    assert sorted(path.relative_to(tmp_path) for path in kit.rglob("*")) == expected


def _prepare(root, ready):
    from dlv3p.data import voc_archives

    rename = os.rename

    def together(source, target):
        ready.wait(60)  # each sees that the kit is not there yet
        rename(source, target)

    voc_archives.os.rename = together
    unpack_archive(VOC, root / "archives", root)
    voc_archives.os.rename = rename
    prepare_voc(str(root), archives="", with_sbd=True, progress="none")


def test_a_full_disk_is_no_fault_of_the_archive(made, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tarfile.TarFile, "makefile", full)
    with pytest.raises(MachineError, match="no space left"):
        unpack_archive(VOC, made / "archives", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.skipif(not REAL.is_dir(), reason="the VOC frames are not beside this checkout")
def test_real_frames_of_voc_are_read_with_their_borders():
    split = open_voc(REAL, "train", labeled=False)
    ids = {int(value) for index in range(len(split)) for value in np.unique(split.pair(index)[1])}
    assert 255 in ids
    assert ids - {255} <= set(range(21))
    assert len(ids) > 2
    assert read_voc_list(find_kit(REAL), "val")
