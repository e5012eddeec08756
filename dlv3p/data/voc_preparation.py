"""Prepare PASCAL VOC and SBD: unpack their archives into a development kit to train on, and count its images."""

from pathlib import Path

import pandas as pd

from cityscapes.files.leftovers import remove_leftovers
from cityscapes.files.untrusted import given_path
from cityscapes.workspace import data_folder
from dlv3p.data.demo import write_demo_voc
from dlv3p.data.voc import LISTS, PUBLISHED_COUNTS, find_kit, is_voc, read_voc_list
from dlv3p.data.voc_archives import SBD, VOC, augment_voc, unpack_archive
from dlv3p.parameters.data_roots import DEMO_VOC


def prepare_voc(data_root: str, *, archives: str, with_sbd: bool, progress: str = "auto") -> Path:
    """Unpack VOC below `data_root`, after a download if needed, add SBD's masks, and return the kit's folder.

    `data_root` is "demo_voc" for the embedded one. `archives` is the folder of the two archives, "" for
    `<data_root>/archives`. An existing kit is used as it is. Raises what `unpack_archive` and `augment_voc`
    raise.
    """
    if data_root == DEMO_VOC:
        return find_kit(write_demo_voc(data_folder() / DEMO_VOC))
    root = given_path(data_root, variables=True)
    source = given_path(archives, variables=True) if archives else root / "archives"
    for folder in (source, *((root / archive.folder).parent for archive in (VOC, SBD))):
        remove_leftovers(folder, below=False)
    kit = find_kit(root) if is_voc(root) else unpack_archive(VOC, source, root)
    if with_sbd:
        augment_voc(kit, unpack_archive(SBD, source, root), progress=progress)
    return kit


def count_lists(kit: Path) -> pd.DataFrame:
    """Return a row a list of a kit: its images, the published count, and how many are also in val."""
    val = {pair.name for pair in read_voc_list(kit, "val")}
    rows = []
    for path in sorted((kit / LISTS).glob("*.txt")):
        pairs = read_voc_list(kit, path.stem)
        rows.append(
            {
                "list": path.stem,
                "images": len(pairs),
                "published": PUBLISHED_COUNTS.get(path.stem),
                "also in val": len(val & {pair.name for pair in pairs}),
                "masks in": pairs[0].mask.parent.name,
            }
        )
    return pd.DataFrame(rows).set_index("list").astype({"published": "Int64"})
