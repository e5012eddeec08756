"""Write small data sets of other layouts from streets of the embedded city: PASCAL VOC with SBD, and a flawed folder.

The VOC is packed like the real archives, and its masks follow each source's conventions: VOC's are palette PNGs with a
border of 255 around every object, SBD's are MATLAB files without one, and SBD annotates some images of VOC's train and
val splits as well. The plain folder has the most frequent mistakes of custom data, for an audit to find.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from cityscapes.dataset import open_cityscapes
from cityscapes.demo.city import write_demo_city
from cityscapes.files.atomic import open_atomically, write_bytes, write_text
from cityscapes.files.leftovers import temporary_folder
from cityscapes.generate_gt import generate_masks
from cityscapes.labels import CLASS_NAMES as CITY_CLASSES
from cityscapes.labels import IGNORE, TRAIN_ID_TO_COLOR, TRAIN_ID_TO_LABEL_ID
from dlv3p.data.class_table import CLASSES_FILE, HEADING
from dlv3p.data.voc import CLASS_NAMES
from dlv3p.data.voc_archives import SBD, VOC, augment_voc, encode_palette_png, file_md5, md5_path, unpack_archive

VOC_COUNTS = {"train": 12, "val": 8, "beyond": 16}
"""Images of VOC's train and val splits, and those that only SBD annotates."""

FLAWED_COUNTS = {"train": 16, "val": 6}
_FINISHED = "README.txt"

_VOC_NAMES = {
    "person": "person", "rider": "person", "car": "car", "truck": "car", "bus": "bus", "train": "train",
    "motorcycle": "motorbike", "bicycle": "bicycle",
}  # fmt: skip


def city_pictures(count: int) -> list[tuple[Image.Image, np.ndarray]]:
    """Draw `count` frames of 128 x 256 pixels: RGB images with their masks, uint8 (H,W) of train ids, 255 ignored."""
    with temporary_folder("dlv3p-city") as folder:
        root = write_demo_city(Path(folder) / "city", frames={"train": count, "val": 1, "test": 1})
        generate_masks(root, Path(folder) / "masks", splits=("train",), progress=False)
        split = open_cityscapes(root, "train", generated=Path(folder) / "masks")
        return [split.pair(index) for index in range(count)]


def write_demo_voc_archives(folder: Path) -> None:
    """Write both archives to `folder`, each with its MD5 beside it; existing ones are left alone."""
    if all(path.is_file() and md5_path(path).is_file() for path in (folder / VOC.file, folder / SBD.file)):
        return
    names, images, masks = _pictures()
    train, val = names[: VOC_COUNTS["train"]], names[VOC_COUNTS["train"] : VOC_COUNTS["train"] + VOC_COUNTS["val"]]
    beyond = names[len(train) + len(val) :]
    kit: dict[str, bytes] = {f"JPEGImages/{name}.jpg": image for name, image in zip(names, images, strict=True)}
    for name, mask in list(zip(names, masks, strict=True))[: len(train) + len(val)]:
        kit[f"SegmentationClass/{name}.png"] = encode_palette_png(_with_borders(mask))
    for split, chosen in (("train", train), ("val", val), ("trainval", sorted(train + val))):
        kit[f"ImageSets/Segmentation/{split}.txt"] = _list(chosen)
    sbd = {"train.txt": _list(beyond[::2] + train[::3]), "val.txt": _list(beyond[1::2] + val[::2])}
    sbd |= {f"cls/{name}.mat": _matlab(mask) for name, mask in zip(names, masks, strict=True)}
    _write_tar(folder / VOC.file, VOC.folder, kit)
    _write_tar(folder / SBD.file, SBD.folder, sbd)


def write_demo_voc(root: Path) -> Path:
    """Write the archives below `root`, unpack both, add SBD's masks to VOC's, and return `root`."""
    archives = root / "archives"
    write_demo_voc_archives(archives)
    augment_voc(unpack_archive(VOC, archives, root), unpack_archive(SBD, archives, root))
    return root


def _pictures() -> tuple[list[str], list[bytes], list[np.ndarray]]:
    """Return names, JPEG files and masks without borders, uint8 (H,W), of all images."""
    classes = np.zeros(256, np.uint8)
    for index, name in enumerate(CITY_CLASSES):
        if name in _VOC_NAMES:
            classes[index] = CLASS_NAMES.index(_VOC_NAMES[name])
    images, masks = [], []
    for image, train_ids in city_pictures(sum(VOC_COUNTS.values())):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=92)
        images.append(buffer.getvalue())
        masks.append(classes[train_ids])
    return [f"2007_{index:06d}" for index in range(1, len(images) + 1)], images, masks


def _with_borders(mask: np.ndarray) -> np.ndarray:
    image = Image.fromarray(mask)
    widest, narrowest = (np.asarray(image.filter(kind(3))) for kind in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
    return np.where(widest != narrowest, np.uint8(IGNORE), mask)


def _matlab(mask: np.ndarray) -> bytes:
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, {"GTcls": {"Segmentation": mask}}, do_compression=True)
    return buffer.getvalue()


def _list(names: list[str]) -> bytes:
    return "\n".join(sorted(names)).encode()  # without a final line end, as in some published lists


def _write_tar(path: Path, folder: str, files: dict[str, bytes]) -> None:
    mode = "w:gz" if path.suffix == ".tgz" else "w"
    with open_atomically(path) as file, tarfile.open(fileobj=file, mode=mode) as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    write_text(md5_path(path), f"{file_md5(path)}  {path.name}\n")


def write_flawed_folder(root: Path) -> Path:
    """Write the folder, unless it exists: 16 images for training, 6 for validation, six mistakes; return `root`.

    The mistakes: label ids in place of train ids, a mask without its image, an image without its mask, a mask of
    another size, an image in both splits, and a truncated mask.
    """
    if (root / _FINISHED).is_file():
        return root
    pictures = city_pictures(sum(FLAWED_COUNTS.values()))
    names = [
        ("train" if index < FLAWED_COUNTS["train"] else "val", f"street_{index:03d}") for index in range(len(pictures))
    ]
    images = {key: _png(np.asarray(image)) for key, (image, _) in zip(names, pictures, strict=True)}
    masks = {key: _png(mask) for key, (_, mask) in zip(names, pictures, strict=True)}
    masks["train", "street_002"] = _png(TRAIN_ID_TO_LABEL_ID[pictures[2][1]])
    masks["train", "street_005"] = _png(pictures[5][1][:-8, :-8])
    masks["train", "street_007"] = masks["train", "street_007"][:400]
    masks["val", "old_street"] = masks["val", "street_016"]
    del masks["train", "street_011"]
    for files in (images, masks):
        files["val", "street_018"] = files["train", "street_003"]
    for folder, files in (("images", images), ("masks", masks)):
        for (split, name), content in files.items():
            write_bytes(root / folder / split / f"{name}.png", content, durable=False)
    colors = (",".join(map(str, color)) for color in TRAIN_ID_TO_COLOR[: len(CITY_CLASSES)].tolist())
    rows = [f"{index},{name},{color}" for index, (name, color) in enumerate(zip(CITY_CLASSES, colors, strict=True))]
    write_text(root / CLASSES_FILE, "\n".join([HEADING, *rows]) + "\n")
    write_text(root / _FINISHED, "A plain folder with six mistakes, made by the notebook audit_data.\n")
    return root


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
