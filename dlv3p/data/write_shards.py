"""Write a data set's split as shards for streaming, and check shards that were copied.

    dlv3p shards write --root data/cityscapes --split train --output data/shards
    dlv3p shards check --root data/shards --splits train val

`<output>/<split>/` receives tar files in WebDataset's format and `index.json`. A sample is three files of one key: the
image as it is stored, `.mask.png`, and `.json` with its name; a mask file that holds class ids is stored unchanged, any
other mask as a PNG of class ids. The same data gives the same bytes.
"""

import argparse
import contextlib
import hashlib
import io
import json
import random
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cityscapes.errors import IntegrityError, ParameterError, run_command
from cityscapes.files.atomic import open_atomically, write_text
from cityscapes.files.checksums import HASH_KEY, file_sha256, read_json, with_checksum
from cityscapes.files.leftovers import remove_leftovers, remove_others
from cityscapes.files.locks import lock_folder
from cityscapes.files.untrusted import regular

if TYPE_CHECKING:
    from cityscapes.dataset import Split

FORMAT = 1
SAMPLES_PER_SHARD = 100


def write_shards(
    split: "Split",
    output: Path,
    *,
    samples: int = SAMPLES_PER_SHARD,
    order_seed: int | None = None,
    force: bool = False,
    progress: str = "none",
) -> Path:
    """Write a split to `<output>/<split>/`; return the path of its index.

    Samples are in the split's order, or for readers that only stream, shuffled by `order_seed`. An existing shard with
    the right hash and from the same files, to the byte, is kept; `force` writes it again. Raises MachineError when
    the disk is full; finished shards then stay for the next time.
    """
    from dlv3p.data.fingerprints import data_fingerprint, part_fingerprint
    from dlv3p.runtime.progress import track

    folder = Path(output) / split.split
    indices = list(range(len(split)))
    if order_seed is not None:
        random.Random(order_seed).shuffle(indices)
    parts = [indices[start : start + samples] for start in range(0, len(indices), samples)]
    with lock_folder(folder):
        remove_leftovers(folder, locked=True)
        known = {} if force else _known_shards(folder)
        shards, notes = [], []
        for number, part in enumerate(track(parts, title="shards", mode=progress)):
            name = f"{split.split.replace('/', '-')}-{number:06d}.tar"  # beside the index of a split within another
            source = part_fingerprint(split, part)
            shard, note = known.get(name), folder / f".{name}.json"
            if shard is None or shard["source"] != source or _sha256(folder / name) != shard["sha256"]:
                shard = _write_shard(split, part, folder / name) | {"source": source}
                write_text(note, json.dumps(with_checksum(shard)))
            shards.append(shard)
            notes.append(note)
        index = {
            "format": FORMAT,
            "split": split.split,
            "fingerprint": data_fingerprint(split),
            "classes": list(split.class_names),
            "colors": split.colors[: split.num_classes].tolist(),
            "order_seed": order_seed,
            **({"pixels": split.pixel_rule.as_dict()} if split.pixel_rule else {}),
            "samples": len(split),
            "shards": shards,
        }
        write_text(folder / "index.json", json.dumps(with_checksum(index), indent=1) + "\n")
        for path in notes:
            path.unlink(missing_ok=True)
        remove_others([folder / shard["name"] for shard in shards], "*-[0-9][0-9][0-9][0-9][0-9][0-9].tar")
    return folder / "index.json"


def check_shards(folder: Path) -> list[str]:
    """Return a line for each shard of a split's folder that is missing or differs from its index."""
    from dlv3p.data.shards import open_shards

    open_shards(folder.parent, folder.name, labeled=False)  # raises IntegrityError for an invalid index
    faults = []
    for shard in read_json(folder / "index.json")["shards"]:
        found = _sha256(folder / shard["name"])
        if found != shard["sha256"]:
            faults.append(f"{folder / shard['name']}: sha256 expected {shard['sha256']}, found {found or 'no file'}")
    return faults


def _write_shard(split: "Split", part: list[int], path: Path) -> dict[str, Any]:
    samples = []
    with open_atomically(path) as file:
        writer = _HashingWriter(file)
        with tarfile.open(fileobj=writer, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            for index in part:
                key = f"{index:08d}"
                sample: dict[str, Any] = {"key": key, "index": index, "name": split.name(index)}
                sample["image"] = _add(tar, key, *_image(split, index))
                if split.has_mask(index):
                    sample["mask"] = _add(tar, key, "mask.png", _mask(split, index))
                _add(tar, key, "json", json.dumps({"name": split.name(index), "index": index}).encode())
                samples.append(sample)
    return {"name": path.name, "bytes": writer.written, "sha256": writer.digest.hexdigest(), "samples": samples}


def _add(tar: tarfile.TarFile, key: str, suffix: str, content: bytes) -> list[Any]:
    """Add a file; return suffix, offset of its bytes in the tar file, size and CRC-32."""
    member = tarfile.TarInfo(
        f"{key}.{suffix}"
    )  # time, owner and group are 0, so that the same files give the same bytes
    member.size, member.mode = len(content), 0o644
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, io.BytesIO(content))
    return [suffix, offset, len(content), zlib.crc32(content)]


def _image(split: "Split", index: int) -> tuple[str, bytes]:
    content = split.image_bytes(index)
    from cityscapes.files.tiff_read import is_tiff  # loads numpy

    split.image(index)  # raises InputError for an unreadable image
    return ("png" if content[:4] == b"\x89PNG" else "tif" if is_tiff(content) else "jpg"), content


def _mask(split: "Split", index: int) -> bytes:
    import numpy as np
    from PIL import Image

    from cityscapes.errors import InputError
    from cityscapes.files.images import read_ids

    ids, path = split.mask(index), split.mask_path(index)
    with contextlib.suppress(InputError):  # colors, or not a file: store the classes
        if path.suffix.lower() == ".png" and np.array_equal(read_ids(path), ids):
            return regular(path).read_bytes()
    stream = io.BytesIO()
    Image.fromarray(ids).save(stream, "PNG")
    return stream.getvalue()


def _known_shards(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of finished shards, from an index or from an interrupted run."""
    known = {}
    for path in (folder / "index.json", *sorted(folder.glob(".*.tar.json"))):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged: write again
            content = read_json(path)
            content.pop(HASH_KEY, None)
            known |= {shard["name"]: shard for shard in content.get("shards", [content]) if shard["source"]}
    return known


def _sha256(path: Path) -> str:
    return file_sha256(path) if path.is_file() else ""


class _HashingWriter:
    """Write bytes to a file, and keep their number and sha256."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file, self.digest, self.written = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        self.written += len(content)
        return self.file.write(content)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="dlv3p shards", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    purpose = "write a split as shards; finished ones are kept"
    write = commands.add_parser("write", help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    write.add_argument("--root", required=True, help="a data set: a folder, or demo_city")
    write.add_argument("--split", default="train", help="one of its splits (default %(default)s)")
    write.add_argument("--output", required=True, type=Path, help="shards go to OUTPUT/SPLIT/")
    write.add_argument("--samples", type=int, default=SAMPLES_PER_SHARD, help="samples per shard (default %(default)s)")
    write.add_argument("--order-seed", type=int, help="shuffle the samples across the shards, for readers that stream")
    write.add_argument("--force", action="store_true", help="write finished shards again")
    purpose = "compare shards with the sha256 in their index"
    check = commands.add_parser("check", help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
    check.add_argument("--root", required=True, type=Path, help="the folder that holds the splits' folders")
    check.add_argument("--splits", nargs="+", default=["train"], help="the splits to check (default: train)")
    options = parser.parse_args(arguments)
    if options.command == "check":
        return _check(options.root, options.splits)
    if options.samples < 1:
        raise ParameterError(f"--samples {options.samples}: must be at least 1")
    from dlv3p.data.roots import open_split, resolve_data_root

    split = open_split(resolve_data_root(options.root), options.split)
    chosen = {"samples": options.samples, "order_seed": options.order_seed, "force": options.force}
    print(write_shards(split, options.output, progress="lines", **chosen))
    return 0


def _check(root: Path, splits: list[str]) -> int:
    faults = [line for split in splits for line in check_shards(root / split)]
    if faults:
        raise IntegrityError(f"{len(faults)} shards differ from what was written: {'; '.join(faults)}")
    print(f"{root}: {' '.join(splits)} as written")
    return 0


if __name__ == "__main__":
    run_command(main)
