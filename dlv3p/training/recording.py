"""Record what is needed to repeat a run: run.json at its start, and the batch of a step that failed.

run.json is written once, when the run starts; each time that it goes on elsewhere or later, a line is added.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cityscapes.dataset import Split
from cityscapes.errors import BusyError, IntegrityError
from cityscapes.files.atomic import write_text
from dlv3p.data.fingerprints import content_fingerprint, data_fingerprint, masks_fingerprint
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import refuse_other_parameters, write_metrics
from dlv3p.runs.provenance import provenance
from dlv3p.runs.record import FORMAT, add_to_record, write_record
from dlv3p.runtime.devices import choose_device
from dlv3p.runtime.processes import place
from dlv3p.training.progress import TrainingProgress

OWN_FILES = {".lock", "run.json", "checkpoints", "events", "pruning", "processes.log"}
"""What a run may have left behind that was killed before its first checkpoint, or has been given to start from."""

SAME_BITS = ("versions", "hardware", "lock_sha256", "determinism")
"""What has to be equal for the last bits to be."""


def record_run(folder: Path, parameters: TrainParameters, splits: Sequence[Split], progress: TrainingProgress) -> None:
    """Bring metrics.csv in step with the checkpoint and, unless the run is finished, run.json up to date.

    Only the first process writes.
    """
    if not place().first:
        return
    if progress.history:  # a run may have died between the checkpoint and its table
        keep_metrics_ahead(folder, len(progress.history))
        write_metrics(folder, progress.history)
    if progress.finished:
        return
    if progress.done:
        record_continuation(folder, parameters, splits, steps=progress.done)
    else:
        record_start(folder, parameters, splits)


def record_start(folder: Path, parameters: TrainParameters, splits: Sequence[Split]) -> None:
    """Write run.json of a new run; raises BusyError for a folder that holds anything else."""
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in OWN_FILES and path.suffix != ".tmp")
    if foreign:
        raise BusyError(
            f"{folder}: has no checkpoint, but holds {', '.join(foreign[:5])}; choose another run, or empty the folder"
        )
    if (folder / "run.json").is_file():
        refuse_other_parameters(folder.name, _read(folder)["parameters"], parameters)
    content = {
        "format": FORMAT,
        "run": folder.name,
        "parameters": parameters.as_dict(),
        "data": {split.split: _described(split) for split in splits},
        "class_names": list(splits[0].class_names),
        **_circumstances(parameters),
        "continued": [],
    }
    write_record(folder / "run.json", content)


def record_continuation(folder: Path, parameters: TrainParameters, splits: Sequence[Split], *, steps: int) -> None:
    """Add to run.json that the run goes on after `steps`; warns where the last bits may now differ.

    Raises IntegrityError when the data has another number of images than the run began with; a file that was mended is
    worth a warning.
    """
    if not (folder / "run.json").is_file():
        print(f"warning: {folder / 'run.json'} is gone: what this run was made from is no longer known", flush=True)
        return
    content = _read(folder)
    for split in splits:
        now, then = _described(split), content["data"].get(split.split, {})
        if now["images"] != then.get("images", now["images"]):
            raise IntegrityError(
                f"run={folder.name!r}: {split.root} has {now['images']} images in {split.split}, and had "
                f"{then['images']} when the run began; bring those back, or train as another run"
            )
        if any(now[name] != then[name] for name in ("fingerprint", "masks", "content") if name in then):
            print(f"warning: {split.root}: files of {split.split} have changed since the run began", flush=True)
    now, then = _circumstances(parameters), (content.get("continued") or [content])[-1]
    differing = [name for name in SAME_BITS if name in then and _differ(now[name], then[name])]
    if differing:
        print(f"warning: other {', '.join(differing)} than before: the last bits of the result may differ", flush=True)
    continued = [*content.get("continued", []), {"after_steps": steps, **now}]
    add_to_record(folder / "run.json", content, continued=continued)


def keep_metrics_ahead(folder: Path, epochs: int) -> None:
    """Put lines of metrics.csv that are ahead of the checkpoint, after so many `epochs`, into a file of their own.

    They are when "last" was damaged and the run goes on from "best". It then comes to the same numbers once more, but
    somebody may have changed the machine in between.
    """
    path = folder / "metrics.csv"
    if not path.is_file():
        return
    header, *rows = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) or [""]
    if len(rows) > epochs:
        write_text(folder / f"metrics.after_epoch_{epochs}.csv", "".join([header, *rows[epochs:]]))


def memory_advice(parameters: TrainParameters) -> str:
    """Say what to change where a step does not fit into memory."""
    p = parameters
    return (
        f"a step of batch_size={p.batch_size} (accumulation={p.accumulation}, crop {p.crop_height}x{p.crop_width}, "
        f"output stride {p.output_stride}) does not fit; accumulation={2 * p.accumulation} holds half as much at a "
        "time, activation_checkpointing and chunked_loss trade memory for time"
    )


def _described(split: Split) -> dict[str, Any]:
    return {
        "root": str(split.root),
        "images": len(split),
        "fingerprint": data_fingerprint(split),
        "masks": masks_fingerprint(split),
        "content": content_fingerprint(split),
    }


def _differ(now: Any, then: Any) -> bool:
    """Whether two values differ in what both hold; what only later versions record says nothing."""
    if isinstance(now, dict) and isinstance(then, dict):
        return any(now[name] != then[name] for name in now.keys() & then.keys())
    return now != then


def _circumstances(parameters: TrainParameters) -> dict[str, Any]:
    determinism = {
        "seed": parameters.seed,
        "threads": torch.get_num_threads(),
        "processes": place().ranks,
        "device": choose_device(parameters.device).type,
        **{name: getattr(parameters, name) for name in ("compile", "activation_checkpointing", "chunked_loss")},
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cublas_workspace_config": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }
    return {**provenance(), "determinism": determinism}


def _read(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except ValueError:
        raise IntegrityError(f"{folder / 'run.json'}: is no JSON any more; restore it, or delete it") from None
