"""Write what was predicted of an image, know what is finished, and keep the record of how all of it was made.

<output>/ids/<name>.png            ids, one channel; written last, so that a finished image is told by it
<output>/colors/<name>.png         class colors, with a palette
<output>/overlays/<name>.jpg       the image under its class colors
<output>/confidence/<name>.png     the probability of the best class, 255 for 1
<output>/predictions.csv           a line per image: size, seconds, mean confidence, the share of each class
<output>/predictions.json          weights, runtime, protocol, images and versions
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cityscapes.errors import IntegrityError, MachineError, ParameterError, reason
from cityscapes.files.atomic import check_writable, write_bytes
from cityscapes.files.checksums import read_json, read_recorded, write_recorded
from cityscapes.files.images import read_ids
from cityscapes.files.listing import files_below
from cityscapes.files.png_write import encode_png, pack_pixels
from cityscapes.files.stamps import is_made_from, stamped
from cityscapes.labels import CLASS_NAMES, LABEL_ID_TO_TRAIN_ID, TRAIN_ID_TO_LABEL_ID
from dlv3p.data.fingerprints import FOLDERS, PREDICTIONS
from dlv3p.evaluation.predictions import origin_of
from dlv3p.evaluation.results import RECORD
from dlv3p.parameters.choices import BACKENDS, EXACT, OWN_IDS
from dlv3p.pictures.visualize import overlay
from dlv3p.prediction.predictor import ImagePredictor, Prediction, Size
from dlv3p.prediction.sources import ImageFile
from dlv3p.runs.folders import write_json
from dlv3p.runs.provenance import installed_version, provenance

OVERLAY_ALPHA, OVERLAY_QUALITY = 0.5, 92
OVERLAY_ROWS = 256
"""Rows that are mixed at a time, so that a large image needs no second one in floating point."""
FIRST_COLUMNS = ("image", "width", "height", "seconds", "mean_confidence", "note", "sha256")
DECODERS = ("pillow-heif", "imageio-ffmpeg", "tifffile")
"""Packages that read some images and all videos, and that no training uses."""


@dataclass(frozen=True)
class Outputs:
    """What to write of each image beside its ids, and which ids: `own` (of the data set) or `train`."""

    ids: str = OWN_IDS
    colors: bool = True
    overlays: bool = True
    confidence: bool = False

    @property
    def folders(self) -> list[str]:
        """The folders to fill, that of the ids last."""
        return [name for name in FOLDERS if name != "ids" and getattr(self, name)] + ["ids"]


@dataclass(frozen=True)
class Predictions:
    """What is in the folder: the images that are done, those of them that were made now, and a line per problem."""

    folder: Path
    done: tuple[str, ...]
    made: int
    problems: tuple[str, ...]

    @property
    def table(self) -> Path:
        """The CSV file with a line per image."""
        return self.folder / PREDICTIONS


class Results:
    """The results of a predictor in a folder, some of which may be finished; `open_results` opens them."""

    def __init__(self, folder: Path, predictor: ImagePredictor, outputs: Outputs, settings: dict[str, Any]) -> None:
        self.folder, self.predictor, self.outputs, self.settings = folder, predictor, outputs, settings

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """The finished rows of the table by the images' names; a worker, which only makes others, reads none."""
        return _read_rows(self.folder / PREDICTIONS, self._columns)

    def path(self, kind: str, name: str) -> Path:
        """Return the file of a result: `kind` is its folder."""
        return self.folder / kind / f"{name}.{FOLDERS[kind]}"

    def is_done(self, image: ImageFile, sha256: str) -> bool:
        """Return whether everything of an image of these bytes is finished, by this network and in this way."""
        row = self.rows.get(image.name)
        missing = self.outputs.confidence and not (row or {}).get("mean_confidence")
        if row is None or missing:
            return False
        origin = self._origin(sha256, (int(row["height"]), int(row["width"])))
        return all(is_made_from(self.path(kind, image.name), _of_kind(origin, kind)) for kind in self.outputs.folders)

    def others(self, names: Iterable[str]) -> list[Path]:
        """Return the ids in the folder that are of none of the named images: earlier ones, of another source."""
        ours = {self.path("ids", name) for name in names}
        return [path for path in files_below(self.folder / "ids", ".png") if path not in ours]

    def write(
        self, image: ImageFile, pixels: Image.Image, found: Prediction, *, sha256: str, seconds: float, note: str
    ) -> None:
        """Write all files of one image, and note its row of the table, see `make`."""
        self.rows[image.name] = self.make(image, pixels, found, sha256=sha256, seconds=seconds, note=note)

    def make(
        self, image: ImageFile, pixels: Image.Image, found: Prediction, *, sha256: str, seconds: float, note: str
    ) -> dict[str, str]:
        """Write all files of one image, and return its row; what lies there of other pixels is removed."""
        origin = self._origin(sha256, (pixels.height, pixels.width))
        for kind in FOLDERS.keys() - set(self.outputs.folders):
            path = self.path(kind, image.name)
            if path.is_file() and not is_made_from(path, _of_kind(origin, kind)):
                path.unlink()
        packed = pack_pixels(found.labels)
        for kind in self.outputs.folders:
            content = self._encode(kind, pixels, found, packed, _of_kind(origin, kind))
            write_bytes(self.path(kind, image.name), content, durable=False)
        counts = np.bincount(found.labels.ravel(), minlength=len(self.predictor.class_names))
        mean = "" if found.confidence is None else f"{found.confidence.mean() / 255:.4f}"
        facts = (image.name, pixels.width, pixels.height, f"{seconds:.4f}", mean, note, sha256)
        shares = [f"{count / found.labels.size:.6f}" for count in counts[: len(self.predictor.class_names)]]
        return dict(zip(self._columns, [*map(str, facts), *shares], strict=True))

    def read(self, image: ImageFile) -> Prediction:
        """Read the finished results of an image back: its train ids, and its confidence where that is written."""
        ids = read_ids(self.path("ids", image.name))
        labels = LABEL_ID_TO_TRAIN_ID[ids] if self._as_label_ids else ids
        sure = read_ids(self.path("confidence", image.name)) if self.outputs.confidence else None
        return Prediction(labels.astype(np.uint8, copy=False), sure)

    def save_table(self, names: Sequence[str]) -> None:
        """Write the rows of the named images in that order, as far as there are any."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[name] for name in names if name in self.rows)
        content = text.getvalue().encode(errors="backslashreplace").decode()
        write_recorded(self.folder / PREDICTIONS, content.encode())

    def save_record(self, images: Mapping[str, Any], problems: Sequence[str] = ()) -> None:
        """Write how the results were made, of which images, and what could not be predicted."""
        made_by = {name: value for name, value in provenance().items() if name in ("git", "lock_sha256", "versions")}
        made_by["versions"] |= {name: installed_version(name) for name in (*DECODERS, *self._backend)}
        network = self.predictor.network
        if network.meaning is not None:
            made_by["trained_on"] = {"data_root": network.parameters.data_root, "meaning": network.meaning}
        write_json(
            self.folder / RECORD, {**self.settings, "images": dict(images), "problems": list(problems), **made_by}
        )

    @property
    def _columns(self) -> list[str]:
        return [*FIRST_COLUMNS, *(f"share of {name}" for name in self.predictor.class_names)]

    def _encode(self, kind: str, pixels: Image.Image, found: Prediction, packed: bytes, stamp: bytes) -> bytes:
        if kind == "ids" and self._as_label_ids:
            return encode_png(TRAIN_ID_TO_LABEL_ID[found.labels], made_from=stamp)
        if kind == "ids":
            return encode_png(found.labels, made_from=stamp, packed=packed)
        if kind == "colors":
            palette = np.zeros((256, 3), np.uint8)
            palette[: len(self.predictor.colors)] = self.predictor.colors
            return encode_png(found.labels, palette=palette, packed=packed, made_from=stamp)
        if kind == "confidence":
            return encode_png(found.confidence, made_from=stamp)
        shown = pixels.convert("RGB") if self.predictor.rule else pixels
        return stamped(encode_overlay(shown, found.labels, self.predictor.colors), stamp)

    @property
    def _backend(self) -> tuple[str, ...]:
        """The package that runs the network, where torch does not."""
        return (self.predictor.runtime,) if self.predictor.runtime in BACKENDS else ()

    @property
    def _as_label_ids(self) -> bool:
        return self.outputs.ids == OWN_IDS and self.predictor.class_names == CLASS_NAMES

    def _origin(self, sha256: str, size: Size) -> bytes:
        """Return what a result is made from: on the exact path without tiles, that of `save_predictions`."""
        predictor, limit = self.predictor, self.predictor.limit
        origin = origin_of(predictor.network.network_sha256, predictor.protocol, sha256)
        if predictor.rule is not None:
            origin += f" as {predictor.rule.key}".encode()
        if predictor.needs_tiles(size, self.outputs.confidence):
            origin += f" in tiles of {limit.tile} overlapping by {limit.overlap}".encode()
        exact = predictor.runtime == EXACT and self.settings["batch_size"] == 1
        if exact and self._as_label_ids:
            return origin
        return origin + f" {predictor.runtime} {self.settings['batch_size']} {self.outputs.ids}".encode()


def _of_kind(origin: bytes, kind: str) -> bytes:
    """Return what a file is stamped with: ids as those of `save_predictions`, others so that none is taken for them."""
    return origin if kind == "ids" else origin + f" {kind}".encode()


def check_output(folder: Path) -> None:
    """Create the folder of results; raises MachineError, before anything is predicted, where nothing can be written."""
    try:
        check_writable(folder)
    except FileNotFoundError as error:  # of a file system that takes no folders
        raise MachineError(f"output={str(folder)!r}: cannot be created; choose a folder on another disk") from error


def open_results(folder: Path, predictor: ImagePredictor, outputs: Outputs, *, batch_size: int) -> Results:
    """Open a new or a half-filled folder of results.

    Raises ParameterError where it holds those of other weights, another runtime or other settings.
    """
    settings = describe(predictor, outputs, batch_size)
    if (before := _read_record(folder)) is not None:
        found = {**before, "weights": _named_as(before.get("weights"), settings["weights"])}
        # Other tiles are no reason: every result's stamp says in which it was predicted, if in any.
        compared = [name for name in settings if name != "tiles"]
        differing = [f"{name}={found.get(name)!r}" for name in compared if found.get(name) != settings[name]]
        if differing:
            raise ParameterError(
                f"output={str(folder)!r}: holds predictions of {', '.join(differing)}; choose another output, or the "
                "same settings"
            )
    return Results(folder, predictor, outputs, settings)


def say_others(results: Results, names: Sequence[str]) -> None:
    """Say where the folder also holds results of images that were not asked for, or cannot be read, since they stay."""
    if others := results.others(names):
        print(
            f"{results.folder}: also holds results of {len(others)} images that are not among these, the first "
            f"{others[0].relative_to(results.folder)}; {PREDICTIONS} lists only these"
        )


def _named_as(before: Any, now: dict[str, Any]) -> Any:
    """Return recorded weights under the name that they have now: a run may have been renamed, or a file moved."""
    alike = isinstance(before, dict) and now["sha256"] and before.get("sha256") == now["sha256"]
    return now if alike else before


def recorded_runtime(folder: Path) -> str | None:
    """Return the runtime that the results in a folder were made by; None where there are none."""
    record = _read_record(folder)
    return record.get("runtime") if record else None


def _read_record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = read_json(path)
    except ValueError as error:
        raise IntegrityError(f"{path}: cannot be read ({reason(error)}); delete it to predict again") from error
    if not isinstance(record, dict):
        raise IntegrityError(f"{path}: not a record of predictions; delete it to predict again")
    return record


def describe(predictor: ImagePredictor, outputs: Outputs, batch_size: int) -> dict[str, Any]:
    """Return what the pixels of the results depend on beside their images."""
    network, limit = predictor.network, predictor.limit
    return {
        "weights": {
            "name": network.run,
            "file": network.checkpoint.name,
            "epoch": network.epoch,
            "sha256": network.weights_sha256,
        },
        "runtime": predictor.runtime,
        "protocol": predictor.protocol.as_dict(),
        "batch_size": batch_size,
        "ids": outputs.ids,
        "tiles": {"memory_gib": limit.gib, "side": limit.tile, "overlap": limit.overlap},
        "class_names": list(predictor.class_names),
        "colors": predictor.colors.tolist(),
    }


def encode_overlay(pixels: Image.Image, labels: np.ndarray, colors: np.ndarray) -> bytes:
    """Return an image under its class colors as a JPEG file."""
    mixed = np.array(pixels)
    for top in range(0, len(mixed), OVERLAY_ROWS):
        part = slice(top, top + OVERLAY_ROWS)
        mixed[part] = overlay(mixed[part], labels[part], alpha=OVERLAY_ALPHA, colors=colors)
    content = io.BytesIO()
    Image.fromarray(mixed).save(content, "JPEG", quality=OVERLAY_QUALITY)
    return content.getvalue()


def _read_rows(path: Path, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the finished rows of a table by the images' names; none where it is of another kind or damaged."""
    try:
        text = read_recorded(path).decode()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, IntegrityError):
        print(f"{path}: is damaged, so that its images are predicted again")
        return {}
    reader = csv.DictReader(io.StringIO(text))
    if reader.fieldnames != list(columns):
        return {}
    rows = (row for row in reader if None not in row and None not in row.values())
    return {row["image"]: row for row in rows if row["width"].isdecimal() and row["height"].isdecimal()}
