"""The schema of `run.json`, key by key, and the problems of a record that violates it; without torch.

A record carries a sha256 of the rest of it, so that manual edits are detected. It is not a signature.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from cityscapes.errors import IntegrityError, ParameterError, reason
from cityscapes.files.checksums import call_unchecked, check_content, content_sha256
from cityscapes.files.untrusted import parse_json, regular
from cityscapes.workspace import run_folder
from dlv3p.parameters.training import TRAINED_RUN, TrainParameters
from dlv3p.runs.folders import holds_only_a_start, list_runs, refuse_other_parameters, write_json


class Key(NamedTuple):
    """A key, the types of its value, the first format version that has it, and whether it is required since then."""

    path: str
    types: tuple[type, ...]
    since: int = 1
    required: bool = True


TEXT, INTEGER, NONE = (str,), (int,), type(None)

FORMAT = 2
"""The format version that is written; all up to it are read."""

HASH_KEY = "sha256"
"""The key of a record's own hash, which older records lack."""

COMMON_KEYS = (
    Key("format", INTEGER),
    Key(HASH_KEY, TEXT, 2, required=False),
    Key("run", TEXT),
    Key("parameters", (dict,)),
    Key("class_names", (list,)),
)
ENVIRONMENT_KEYS = (
    Key("started", TEXT),
    Key("command", (list,)),
    Key("git.commit", (str, NONE)),
    Key("git.branch", (str, NONE), 2),
    Key("git.remote", (str, NONE), 2),
    Key("git.changed", (bool, NONE)),
    Key("git.diff_sha256", (str, NONE)),
    Key("lock_sha256", (str, NONE)),
    Key("versions.python", TEXT),
    Key("versions.libc", (str, NONE), 2),
    Key("versions.cuda", (str, NONE), 2),
    Key("versions.cudnn", (int, NONE), 2),
    *(Key(f"versions.{name}", (str, NONE)) for name in ("torch", "torchvision", "numpy", "pillow", "numba")),
    *(Key(f"versions.{name}", (str, NONE)) for name in ("papermill", "safetensors")),
    *(Key(f"versions.{name}", (str, NONE), 2, required=False) for name in ("isal", "timm", "libjpeg", "zlib")),
    *(Key(f"versions.{name}", (str, NONE), 2, required=False) for name in ("mkl", "onednn")),
    Key("hardware.processor", TEXT),
    Key("hardware.cpu_capability", TEXT, 2, required=False),
    Key("hardware.cpu_flags", (str, NONE), 2, required=False),
    *(Key(f"hardware.{name}", (str, NONE), 2, required=False) for name in ("onednn_max_isa", "mkl_cbwr")),
    *(Key(f"hardware.{name}", (str, NONE), 2, required=False) for name in ("mkl_instructions", "nvidia_tf32_override")),
    Key("hardware.cores", (int, NONE)),
    Key("hardware.memory_gib", (int, NONE), 2),
    Key("hardware.system", TEXT),
    Key("hardware.gpu", (str, NONE)),
    Key("hardware.gpu_bytes", (int, NONE)),
)
DETERMINISM_KEYS = (
    Key("determinism.seed", INTEGER),
    Key("determinism.threads", INTEGER),
    Key("determinism.interop_threads", INTEGER, 2, required=False),
    Key("determinism.processes", INTEGER),
    Key("determinism.device", TEXT, 2, required=False),
    *(Key(f"determinism.{name}", (bool,), 2, required=False) for name in ("compile", "activation_checkpointing")),
    Key("determinism.chunked_loss", (bool,), 2, required=False),
    Key("determinism.float32_matmul_precision", TEXT),
    Key("determinism.cudnn_benchmark", (bool,)),
    Key("determinism.cudnn_deterministic", (bool,), 2),
    Key("determinism.cudnn_allow_tf32", (bool,), 2),
    Key("determinism.deterministic_algorithms", (bool,)),
    Key("determinism.cublas_workspace_config", (str, NONE), 2),
)
DATA_KEYS = (
    Key("root", TEXT),
    Key("images", INTEGER),
    Key("fingerprint", TEXT),
    Key("masks", (str, NONE), 2),
    Key("content", (str, NONE), 2, required=False),
    *(Key(name, TEXT, 2, required=False) for name in ("part", "whole", "list")),
)


def read_record(path: Path) -> dict[str, Any]:
    """Read a run.json strictly; raises IntegrityError with the reason if it is not a JSON object in UTF-8."""
    content = regular(path).read_bytes()
    try:
        record = parse_json(content.decode())
    except ValueError as error:
        raise IntegrityError(f"{path}: cannot be read ({reason(error)}); restore it") from error
    if not isinstance(record, dict):
        raise IntegrityError(f"{path}: is not a JSON object; restore it")
    return record


def read_unchanged_record(path: Path) -> dict[str, Any]:
    """Read a run.json as `read_record` does; raises IntegrityError where its own hash shows that it was changed."""
    content = read_record(path)
    check_content(content, path, HASH_KEY)
    if HASH_KEY not in content:
        call_unchecked(path)
    return content


def data_root_of(run: str) -> str:
    """Return the data root that a run, or the newest one, was trained on; "" where its record does not tell."""
    run = run or next(reversed(list_runs()), TRAINED_RUN)
    with suppress(IntegrityError, OSError):
        parameters = read_record(run_folder(run) / "run.json").get("parameters")
        return str(parameters["data_root"]) if isinstance(parameters, dict) and "data_root" in parameters else ""
    return TrainParameters().data_root if run == TRAINED_RUN else ""


def refuse_other_run(parameters: TrainParameters) -> None:
    """Raise ParameterError where the run of a training's name was started with other parameters."""
    path = run_folder(parameters.run_name) / "run.json"
    if path.is_file() and not holds_only_a_start(path.parent):
        refuse_other_parameters(parameters.run_name, read_record(path)["parameters"], parameters)


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a run.json with its own hash."""
    write_json(path, content, key=HASH_KEY)


def add_to_record(path: Path, content: Mapping[str, Any], **changes: Any) -> None:
    """Write a record that was read from `path` with changes; update its hash only if it was valid.

    Otherwise, a manual edit would be hidden.
    """
    key = HASH_KEY if content.get(HASH_KEY) == record_sha256(content) else None
    write_json(path, {**content, **changes}, key=key)


def record_sha256(content: Mapping[str, Any]) -> str:
    """Return the sha256 of a record without its own hash, independent of key order and whitespace."""
    return content_sha256(content, HASH_KEY)


def planned_epochs(record: Mapping[str, Any]) -> int | None:
    """Return how many epochs a run has when it is finished; None if its run.json does not say.

    If its parameters set `steps`, those determine the epochs.
    """
    per_epoch = steps_per_epoch(record)
    if per_epoch is None:
        return None
    parameters = TrainParameters.from_mapping(record["parameters"])
    return math.ceil(parameters.steps / per_epoch) if parameters.steps else parameters.epochs


def steps_per_epoch(record: Mapping[str, Any]) -> int | None:
    """Return how many steps an epoch of a run has; None if its run.json does not say."""
    try:
        parameters = TrainParameters.from_mapping(record["parameters"])
        images = record["data"][parameters.training_split]["images"]
        return images // min(parameters.batch_size, images)
    except (ParameterError, LookupError, TypeError, ZeroDivisionError):
        return None


def patience_is_over(history: Sequence[Mapping[str, float]], best_epoch: int, patience: int) -> bool:
    """Return whether `patience` validations in a row have brought no better mIoU; never with a patience of 0."""
    later = [row for row in history if row["epoch"] > best_epoch and not math.isnan(row["val_loss"])]
    return 0 < patience <= len(later)


def is_complete(record: Mapping[str, Any], history: Sequence[Mapping[str, float]], best_epoch: int) -> bool:
    """Return whether a run has exactly the epochs that its run.json plans, or as many as its patience allowed."""
    planned = planned_epochs(record)
    if planned is None or len(history) >= planned:
        return len(history) == planned
    return patience_is_over(history, best_epoch, TrainParameters.from_mapping(record["parameters"]).patience)


def record_problems(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of a run.json: missing keys, wrong types, and parts that contradict each other.

    An imported network has neither data nor determinism.
    """
    version = record.get("format")
    if not _is_a(version, INTEGER) or not 1 <= version <= FORMAT:
        yield f"format is {version!r}, but this version of the suite reads 1 to {FORMAT}"
        return
    trained = "imported" not in record
    keys = (*COMMON_KEYS, *ENVIRONMENT_KEYS, *DETERMINISM_KEYS * trained)
    yield from _key_problems(record, keys, version)
    if trained:
        yield from _data_problems(record, version)
        yield from _continuation_problems(record, version)
    if isinstance(record.get("parameters"), dict):
        yield from _parameter_problems(record, trained=trained)


def _key_problems(content: Any, keys: tuple[Key, ...], version: int, *, inside: str = "") -> Iterator[str]:
    for key in keys:
        if key.since > version:
            continue
        value = content
        for name in key.path.split("."):
            value = value.get(name, KeyError) if isinstance(value, dict) else KeyError
        if value is KeyError:
            if key.required:
                yield f"{inside}{key.path} is missing"
        elif not _is_a(value, key.types):
            yield f"{inside}{key.path} is {value!r:.60}, not {' or '.join(_name(kind) for kind in key.types)}"


def _data_problems(record: Mapping[str, Any], version: int) -> Iterator[str]:
    data = record.get("data")
    if not isinstance(data, dict) or not data:
        yield "data is missing"
        return
    wanted: tuple[str, ...] = ()
    for split, described in data.items():
        yield from _key_problems(described, DATA_KEYS, version, inside=f"data.{split}.")
    with suppress(ParameterError, TypeError):  # which is a problem of its own
        parameters = TrainParameters.from_mapping(record.get("parameters"))
        wanted = (parameters.training_split, parameters.validation_split)
    yield from (f"data.{split} is missing" for split in wanted if split not in data)


def _continuation_problems(record: Mapping[str, Any], version: int) -> Iterator[str]:
    continued = record.get("continued")
    if not isinstance(continued, list):
        yield "continued is missing, or not a list"
        return
    steps = 0
    for index, entry in enumerate(continued):
        inside = f"continued[{index}]."
        keys = (Key("after_steps", INTEGER), *ENVIRONMENT_KEYS, *DETERMINISM_KEYS)
        yield from _key_problems(entry, keys, version, inside=inside)
        after = entry.get("after_steps") if isinstance(entry, dict) else None
        if _is_a(after, INTEGER) and after < steps:
            yield f"{inside}after_steps is {after}, which is less than {steps}"
        steps = after if _is_a(after, INTEGER) else steps


def _parameter_problems(record: Mapping[str, Any], *, trained: bool) -> Iterator[str]:
    try:
        parameters = TrainParameters.from_mapping(record["parameters"])
    except ParameterError as error:
        yield f"parameters: {error}"
        return
    determinism = record.get("determinism")
    if trained and isinstance(determinism, dict) and determinism.get("seed") not in (parameters.seed, None):
        yield f"determinism.seed is {determinism['seed']!r}, but parameters.seed is {parameters.seed!r}"


def _is_a(value: Any, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _name(kind: type) -> str:
    names = {int: "a whole number", str: "text", bool: "true or false", list: "a list", dict: "an object"}
    return names.get(kind, "null")
