"""Name the results of a run, so that they never replace one another, and record what each was made from."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cityscapes.dataset import Split
from cityscapes.workspace import output_folder
from dlv3p.data.fingerprints import ContentHash, data_fingerprint
from dlv3p.data.roots import is_root_of
from dlv3p.evaluation.inference import Predictor
from dlv3p.parameters.protocols import PUBLISHED, WHOLE_IMAGE, Protocol

CHECKPOINT = "checkpoint_sha256"
"""The key of the checkpoint whose network a profile measured; those of earlier versions lack it."""

RECORD = "predictions.json"
"""The file in which `predict` says how it made a folder of predictions, and of what network."""

_WORDS = {word for name in PUBLISHED.keys() - {WHOLE_IMAGE.name} for word in name.split("_")} - {"voc"}
_MISTAKABLE = re.compile(rf"/|-[0-9a-f]{{8}}$|(^|_)(last|{'|'.join(sorted(_WORDS))})([_-]|$)")
"""What the name of a split has in common with a protocol, the checkpoint "last", data, or a split within another."""


def split_word(split: str, *, also: re.Pattern[str] | None = None) -> str:
    """Return what stands for a split in names of files: its name, and a hash where that could be something else's.

    So `a/b` and `a-b`, or a split called `last` and the checkpoint, never share a file. `also` is found in names that
    are mistakable in one place alone.
    """
    if not _MISTAKABLE.search(split) and not (also and also.search(split)):
        return split
    return f"{split.replace('/', '-')}-{short_hash(split)}"


def short_hash(name: str) -> str:
    """Return what tells a name, such as a whole path, from another one in the name of a file."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]


def result_path(
    predictor: Predictor, split: Split, name: str, protocol: Protocol = WHOLE_IMAGE, *, usual: str | None = None
) -> Path:
    """Return where a result called `name` belongs, for example `outputs/<run>/evaluation.json`.

    What is not the usual comes behind the name's stem: the protocol, the split, the checkpoint "last", and the data
    where it is not the run's own, as in `evaluation_six_scales_flip_train_last_camvid-1f3a9c02.json`. The `usual` split
    is by default the run's validation split.
    """
    path = Path(name)
    usual = predictor.parameters.validation_split if usual is None else usual
    words = [path.stem + protocol.suffix]
    words += [split_word(split.split)] if split.split != usual else []
    words += checkpoint_words(predictor)
    return output_folder(predictor.run) / ("_".join(words) + data_suffix(predictor, split) + path.suffix)


def checkpoint_words(predictor: Predictor) -> list[str]:
    """Return what names of results say of a checkpoint: "last", and nothing of the best one or of a file of weights."""
    return ["last"] if predictor.checkpoint.stem == "last" else []


@dataclass(frozen=True)
class MadeFrom:
    """What a result was made from, `made_from` in its file: sha256 hashes, each "" where it is not known.

    `images_sha256` is over the names and sizes of the images, all that earlier versions kept; `image_contents_sha256`
    over their names and bytes; `mask_contents_sha256` over their names and the ids of the masks that were scored.
    """

    checkpoint_sha256: str = ""
    images_sha256: str = ""
    image_contents_sha256: str = ""
    mask_contents_sha256: str = ""

    @classmethod
    def of(cls, split: Split, hashed: ContentHash | None = None, *, checkpoint: str = "") -> "MadeFrom":
        """Describe a result of a split; `hashed` is what was hashed as it was read, None to read the images now."""
        if hashed is None:
            hashed = ContentHash()
            for index in range(len(split)):
                hashed.add(split, index)
        return cls(checkpoint, data_fingerprint(split), hashed.images, hashed.masks)

    @classmethod
    def recorded(cls, content: Any) -> "MadeFrom":
        """Return what a file of any version holds."""
        found = content if isinstance(content, Mapping) else {}
        return cls(**{item.name: str(found.get(item.name) or "") for item in fields(cls)})

    def as_dict(self) -> dict[str, str]:
        """Return what is known, as JSON."""
        return {name: value for name, value in asdict(self).items() if value}


def means_otherwise(data_root: str, meaning: str | None, split: Split) -> bool:
    """Return whether a split is of the data of a training, `data_root`, whose masks meant other classes then.

    `meaning` is what turned the masks into classes; where it is not known, they are taken to mean the same.
    """
    return meaning not in (None, split.meaning) and is_root_of(data_root, split.root)


def data_suffix(predictor: Predictor, split: Split) -> str:
    """Return "" for the data that the run was trained on, else `_<folder>-<hash of the whole path>`."""
    if is_root_of(predictor.parameters.data_root, split.root):
        return ""
    root = str(split.root)
    return f"_{Path(root).name}-{short_hash(root)}"
