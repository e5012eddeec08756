"""Every reader makes the same pixels of a stored image: files, shards, the decoded cache and the crops of training."""

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError
from dlv3p.data import decoded_cache
from dlv3p.data.audit import audit
from dlv3p.data.decoded_cache import DecodedCache, open_image
from dlv3p.data.fingerprints import image_fingerprint
from dlv3p.data.folder import open_folder
from dlv3p.data.roots import open_split
from dlv3p.data.shards import open_shards
from dlv3p.data.write_shards import write_shards

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 24, 40
PICTURE = RNG.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def cmyk_of_other_programs(path):
    Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)).save(path, quality=100)
    content = path.read_bytes()
    start = content.index(b"\xff\xee")  # the marker of Adobe
    path.write_bytes(content[:start] + content[start + 2 + int.from_bytes(content[start + 2 : start + 4]) :])


GRAY = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 68).astype(np.uint16)
STORED = {
    "16-bit gray.png": (
        lambda path: Image.fromarray(GRAY).save(path),
        np.repeat(((GRAY.astype(int) + 128) // 257)[..., None], 3, 2),
    ),
    "half a turn.png": (lambda path: Image.fromarray(PICTURE).save(path, exif=oriented(3)), PICTURE[::-1, ::-1]),
    "a quarter turn.png": (
        lambda path: Image.fromarray(np.rot90(PICTURE)).save(path, exif=oriented(6)),
        PICTURE,
    ),
    "a mirror in a text.png": (
        lambda path: Image.fromarray(PICTURE[:, ::-1]).save(path, pnginfo=xmp('tiff:Orientation="2"')),
        PICTURE,
    ),
    "alpha.png": (lambda path: Image.fromarray(np.dstack([PICTURE, PICTURE[..., 0]])).save(path), PICTURE),
    "cmyk.jpg": (
        lambda path: Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)).save(path, quality=100),
        np.broadcast_to([255, 0, 0], PICTURE.shape),
    ),
    "cmyk without adobe.jpg": (cmyk_of_other_programs, np.broadcast_to([0, 0, 0], PICTURE.shape)),
}


def xmp(text):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", f"<x {text}/>")
    return info


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "classes.csv").write_text("id,name\n0,road\n1,sky\n")
    for kind in ("images", "masks"):
        (tmp_path / kind / "train").mkdir(parents=True)
    return tmp_path


def add(folder, name, ids=None):
    """Write one of the stored images, and a mask of two classes that fits how it is shown."""
    write, expected = STORED[name]
    write(folder / "images" / "train" / name)
    ids = np.indices(expected.shape[:2])[1] % 2 if ids is None else ids
    Image.fromarray(ids.astype(np.uint8)).save(folder / "masks" / "train" / f"{name.split('.')[0]}.png")
    return expected


@pytest.mark.parametrize("name", STORED)
def test_all_readers_make_the_same_pixels(folder, name, workspace):
    expected = add(folder, name)
    split = open_split(folder, "train")
    write_shards(split, folder / "shards")
    sharded, cache = open_shards(folder / "shards", "train"), DecodedCache(split)
    lazy = {"crop": open_image(split, 0), "crop of shards": open_image(sharded, 0), "cache": cache.open(0)}
    whole = {how: image.corner(image.height, image.width) for how, image in lazy.items()}
    whole |= {"file": split.pair(0)[0], "shards": sharded.pair(0)[0], "kept": cache.open(0).corner(HEIGHT, WIDTH)}
    for how, pixels in whole.items():
        assert np.abs(np.asarray(pixels).astype(int) - expected).max() <= (3 if name.endswith("jpg") else 0), how
        assert np.array_equal(pixels, whole["file"]), how
    corner = lazy["crop"].corner(5, 7)[:5, :7]
    assert np.array_equal(corner, np.asarray(whole["file"])[:5, :7])
    assert audit(folder, ["train"], progress="none").errors == ()


def test_a_cache_that_was_decoded_by_another_rule_is_not_used(folder, workspace, monkeypatch):
    add(folder, "half a turn.png")
    split = open_split(folder, "train")
    digest = image_fingerprint(split, 0)
    cache = DecodedCache(split)
    first = cache.folder / digest[:2] / f"{digest[2:34]}.npy"  # where the first version kept it, not turned
    first.parent.mkdir(parents=True)
    np.save(first, PICTURE)
    assert np.array_equal(cache.open(0).corner(HEIGHT, WIDTH), PICTURE[::-1, ::-1])
    kept = cache.path(0)
    monkeypatch.setattr(decoded_cache, "RULE", decoded_cache.RULE + 1)
    assert cache.path(0) != kept


def test_sizes_that_differ_by_a_turn_name_exif(folder):
    add(folder, "a quarter turn.png", ids=np.zeros((WIDTH, HEIGHT)))
    with pytest.raises(InputError, match="must have the same size; they differ by a quarter turn, probably an EXIF"):
        open_split(folder, "train").pair(0)
    report = audit(folder, ["train"], progress="none")
    assert ["an EXIF orientation" in finding.problem for finding in report.errors][0]
    assert ("image turned by EXIF", False) in {(finding.kind, finding.is_error) for finding in report.findings}


def test_a_very_large_image_is_refused_by_every_reader(folder, workspace):
    Image.new("RGB", (8 * 1024, 8 * 1024 + 1)).save(folder / "images/train/a.png", compress_level=1)
    Image.new("L", (4, 4)).save(folder / "masks/train/a.png")
    split = open_split(folder, "train")
    write_bad = [split.image, lambda index: open_image(split, index), DecodedCache(split).open]
    for read in write_bad:
        with pytest.raises(InputError, match=r"a\.png: has 8192 x 8193 pixels, more than 64 million .* into tiles"):
            read(0)
    (finding,) = (f for f in audit(folder, ["train"], progress="none").findings if "cannot be read" in f.kind)
    assert "into tiles" in finding.problem


def test_a_mask_that_exif_would_turn_is_refused(folder):
    """Nobody can tell whether its pixels are turned already, as those of most masks of turned images."""
    add(folder, "half a turn.png")
    path = folder / "masks/train/half a turn.png"
    ids, split = np.asarray(Image.open(path)), open_folder(folder, "train", labeled=True)
    Image.fromarray(ids).save(path, exif=oriented(1))
    assert np.array_equal(split.mask(0), ids)
    Image.fromarray(ids).save(path, exif=oriented(3))
    with pytest.raises(InputError, match=r"has the EXIF orientation 3, and masks are read as they are stored; save it"):
        split.mask(0)
