"""Write a tiny PASCAL VOC and SBD, packed like the real archives, with images of the embedded city.

The masks follow each source's conventions: VOC's are palette PNGs with a border of 255 around every object, SBD's are
MATLAB files without one, and SBD annotates some images of VOC's train and val splits as well.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from cityscapes.dataset import open_cityscapes
from cityscapes.demo.city import write_demo_city
from cityscapes.files.atomic import open_atomically, write_text
from cityscapes.files.leftovers import temporary_folder
from cityscapes.generate_gt import generate_masks
from cityscapes.labels import CLASS_NAMES as CITY_CLASSES
from cityscapes.labels import IGNORE
from dlv3p.data.voc import CLASS_NAMES
from dlv3p.data.voc_archives import SBD, VOC, augment_voc, encode_palette_png, file_md5, md5_path, unpack_archive


def city_pictures(count: int) -> list[tuple[Image.Image, np.ndarray]]:
    """Draw `count` frames of 128 x 256 pixels: RGB images with their masks, uint8 (H,W) of train ids, 255 ignored."""
    with temporary_folder("dlv3p-city") as folder:
        root = write_demo_city(Path(folder) / "city", frames={"train": count, "val": 1, "test": 1})
        generate_masks(root, Path(folder) / "masks", splits=("train",), progress=False)
        split = open_cityscapes(root, "train", generated=Path(folder) / "masks")
        return [split.pair(index) for index in range(count)]


COUNTS = {"train": 12, "val": 8, "beyond": 16}
"""Images of VOC's train and val splits, and those that only SBD annotates."""

_VOC_NAMES = {
    "person": "person", "rider": "person", "car": "car", "truck": "car", "bus": "bus", "train": "train",
    "motorcycle": "motorbike", "bicycle": "bicycle",
}  # fmt: skip


def write_demo_voc_archives(folder: Path) -> None:
    """Write both archives to `folder`, each with its MD5 beside it; existing ones are left alone."""
    if all(path.is_file() and md5_path(path).is_file() for path in (folder / VOC.file, folder / SBD.file)):
        return
    names, images, masks = _pictures()
    train, val = names[: COUNTS["train"]], names[COUNTS["train"] : COUNTS["train"] + COUNTS["val"]]
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
    for image, train_ids in city_pictures(sum(COUNTS.values())):
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
