"""Record what is needed to reproduce a run: run.json, written when it starts and extended each time it is resumed."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from cityscapes.dataset import Split
from cityscapes.errors import BusyError, IntegrityError, MissingInputError
from cityscapes.files.atomic import write_text
from cityscapes.files.locks import is_lock
from cityscapes.files.untrusted import regular
from dlv3p.data.fingerprints import content_fingerprint, data_fingerprint, masks_fingerprint
from dlv3p.data.parts import Part, image_list
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import TRAIN_IMAGES, write_metrics
from dlv3p.runs.provenance import provenance
from dlv3p.runs.record import FORMAT, add_to_record, read_record, refuse_other_run, write_record
from dlv3p.runtime.devices import choose_device
from dlv3p.runtime.processes import place
from dlv3p.training.progress import TrainingProgress

OWN_FILES = {"run.json", "checkpoints", "events", "pruning", "processes.log", TRAIN_IMAGES}
"""Files that a run may find in its folder before its first checkpoint: leftovers of a killed start, or its inputs."""

SAME_BITS = ("versions", "hardware", "lock_sha256", "determinism")
"""Parts of run.json that must be equal for bit-identical results."""


def record_run(folder: Path, parameters: TrainParameters, splits: Sequence[Split], progress: TrainingProgress) -> None:
    """Synchronize metrics.csv with the checkpoint and, unless the run is finished, update run.json.

    Only the first process writes. Raises IntegrityError, or warns, where the data has changed since the run began, also
    of a finished run, which would pass for one on the data that there is now.
    """
    if not place().first:
        return
    if progress.history:  # a run may have died between the checkpoint and its table
        set_aside_later_metrics(folder, len(progress.history))
        write_metrics(folder, progress.history)
    if progress.finished:
        with suppress(MissingInputError, FileNotFoundError):  # without its record or a file, nothing can be said
            _refuse_other_data(folder, read_record(folder / "run.json"), splits)
        return
    if progress.done:
        record_resumption(folder, parameters, splits, steps=progress.done)
    else:
        record_start(folder, parameters, splits)


def record_start(folder: Path, parameters: TrainParameters, splits: Sequence[Split]) -> None:
    """Write run.json of a new run; raises BusyError for a folder that holds other files."""
    found = [path for path in folder.iterdir() if path.name not in OWN_FILES and not is_lock(path.name)]
    foreign = sorted(path.name for path in found if path.suffix != ".tmp")
    if foreign:
        raise BusyError(
            f"{folder}: has no checkpoint, but holds {', '.join(foreign[:5])}; choose another run, or empty the folder"
        )
    refuse_other_run(parameters)
    content = {
        "format": FORMAT,
        "run": folder.name,
        "parameters": parameters.as_dict(),
        "data": {split.split: _describe(split) for split in splits},
        "class_names": list(splits[0].class_names),
        **_environment(parameters),
        "continued": [],
    }
    if splits[0].part:
        write_text(folder / TRAIN_IMAGES, image_list(splits[0], range(len(splits[0]))))
    else:
        (folder / TRAIN_IMAGES).unlink(missing_ok=True)  # of a start that was killed
    write_record(folder / "run.json", content)


def record_resumption(folder: Path, parameters: TrainParameters, splits: Sequence[Split], *, steps: int) -> None:
    """Add to run.json that the run resumes after `steps`; warn where the last bits may now differ.

    Raises IntegrityError when the images are others than when the run began; changed files give a warning.
    """
    if not (folder / "run.json").is_file():
        print(f"warning: {folder / 'run.json'} is missing: the provenance of this run is lost", flush=True)
        return
    content = read_record(folder / "run.json")
    _refuse_other_data(folder, content, splits)
    now, then = _environment(parameters), (content.get("continued") or [content])[-1]
    differing = [name for name in SAME_BITS if name in then and _differ(now[name], then[name])]
    if differing:
        print(
            f"warning: {', '.join(differing)} changed since the last start: the last bits of the result may differ "
            f"({'; '.join(line for name in differing for line in _differences(name, now[name], then[name]))})",
            flush=True,
        )
    continued = [*content.get("continued", []), {"after_steps": steps, **now}]
    add_to_record(folder / "run.json", content, continued=continued)


def _refuse_other_data(folder: Path, content: dict[str, Any], splits: Sequence[Split]) -> None:
    """Raise IntegrityError where a run's record states other images; warn where their files, or masks, have changed."""
    for split in splits:
        now, then = _describe(split), content.get("data", {}).get(split.split, {})
        if now["images"] != then.get("images", now["images"]):
            raise IntegrityError(
                f"run={folder.name!r}: {split.root} has {now['images']} images in {split.split}, but had "
                f"{then['images']} when the run began; restore those, or train under another run name"
            )
        if now.get("part", "") != then.get("part", now.get("part", "")):
            raise IntegrityError(
                f"run={folder.name!r}: other images of {split.root} are in {split.split} than when the run began; "
                f"{folder / TRAIN_IMAGES} lists those that it trains on; restore them, or train under another run name"
            )
        if any(now[name] != then[name] for name in ("fingerprint", "masks", "content") if name in then):
            print(f"warning: {split.root}: files of {split.split} have changed since the run began", flush=True)


def set_aside_later_metrics(folder: Path, epochs: int) -> None:
    """Move the rows of metrics.csv after `epochs`, which are ahead of the checkpoint, to a separate file.

    This happens when "last" was damaged and the run resumes from "best". It then reaches the same numbers again, unless
    the machine has changed in between.
    """
    path = folder / "metrics.csv"
    if not path.is_file():
        return
    header, *rows = regular(path).read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) or [""]
    if len(rows) > epochs:
        write_text(folder / f"metrics.after_epoch_{epochs}.csv", "".join([header, *rows[epochs:]]))


def memory_advice(parameters: TrainParameters) -> str:
    """Return what to change when a step does not fit into memory."""
    p = parameters
    return (
        f"a step of batch_size={p.batch_size} (accumulation={p.accumulation}, crop {p.crop_height}x{p.crop_width}, "
        f"output stride {p.output_stride}) does not fit; accumulation={2 * p.accumulation} halves what is held at "
        "once, activation_checkpointing and chunked_loss trade time for memory"
    )


def _describe(split: Split) -> dict[str, Any]:
    return {
        "root": str(split.root),
        "images": len(split),
        "fingerprint": data_fingerprint(split),
        "masks": masks_fingerprint(split),
        "content": content_fingerprint(split),
        **_describe_part(split),
    }


def _describe_part(split: Split) -> dict[str, str]:
    """Return, of a part of a split, which images it has, what it is a part of, and where they are listed, if at all."""
    if not isinstance(split, Part):
        return {}
    whole = split.whole.whole if isinstance(split.whole, Part) else split.whole  # of a list, of a fold
    prints = [data_fingerprint(whole), masks_fingerprint(whole), content_fingerprint(whole)]
    digest = hashlib.sha256(json.dumps(prints).encode()).hexdigest()
    return {"part": split.part, "whole": digest, **({"list": TRAIN_IMAGES} if split.listed else {})}


def _differ(now: Any, then: Any) -> bool:
    """Return whether two values differ in the keys that both have; later versions record more."""
    if isinstance(now, dict) and isinstance(then, dict):
        return any(now[name] != then[name] for name in now.keys() & then.keys())
    return now != then


def _differences(name: str, now: Any, then: Any) -> list[str]:
    """Return a few words for each value that differs, of sets of flags those that came and went."""
    if isinstance(now, dict) and isinstance(then, dict):
        both = [key for key in now if key in then and now[key] != then[key]]
        return [line for key in both for line in _differences(f"{name}.{key}", now[key], then[key])]
    if name.endswith("_flags") and now and then:
        came, went = set(now.split()) - set(then.split()), set(then.split()) - set(now.split())
        return [
            f"{name}: " + " ".join([*(f"+{flag}" for flag in sorted(came)), *(f"-{flag}" for flag in sorted(went))])
        ]
    return [f"{name}: {_short(then)}, now {_short(now)}"]


def _short(value: Any) -> Any:
    return value[:12] if isinstance(value, str) and len(value) == 64 else value  # a sha256


def _environment(parameters: TrainParameters) -> dict[str, Any]:
    determinism = {
        "seed": parameters.seed,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
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
