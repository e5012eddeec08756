"""Name the results of a run, so that those of other data, splits, checkpoints or protocols never replace its own."""

import hashlib
from pathlib import Path

from cityscapes.dataset import Split
from cityscapes.workspace import output_folder
from dlv3p.data.fingerprints import data_fingerprint
from dlv3p.data.roots import is_root_of
from dlv3p.evaluation.inference import Predictor
from dlv3p.parameters.protocols import WHOLE_IMAGE, Protocol


def result_path(
    predictor: Predictor, split: Split, name: str, protocol: Protocol = WHOLE_IMAGE, *, usual: str | None = None
) -> Path:
    """Return where a result called `name` belongs, for example `outputs/<run>/evaluation.json`.

    What is not the usual comes behind the name's stem: the protocol, the split, the checkpoint "last", and the data
    where it is not the run's own, as in `evaluation_six_scales_flip_train_last_camvid-1f3a9c02.json`. The `usual` split
    is by default the run's validation split.
    """
    path = Path(name.replace("/", "-"))  # a split may lie within another one
    usual = predictor.parameters.val_split if usual is None else usual
    words = [path.stem + protocol.suffix]
    words += [other for other in (split.split, predictor.checkpoint.stem) if other not in (usual, "best")]
    stem = "_".join(words).replace("/", "-") + data_suffix(predictor, split)
    return output_folder(predictor.run) / (stem + path.suffix)


def made_from(predictor: Predictor, split: Split) -> dict[str, str]:
    """Return the hashes of the checkpoint that was loaded, and of the names and sizes of the split's images."""
    return {"checkpoint_sha256": predictor.weights_sha256, "images_sha256": data_fingerprint(split)}


def data_suffix(predictor: Predictor, split: Split) -> str:
    """Return "" for the data that the run was trained on, else `_<folder>-<hash of the whole path>`."""
    if is_root_of(predictor.parameters.data_root, split.root):
        return ""
    root = str(split.root)
    return f"_{Path(root).name}-{hashlib.sha256(root.encode(errors='surrogateescape')).hexdigest()[:8]}"
