"""The schema of `run.json`, key by key, and the errors of a record that does not follow it; no torch here.

A record carries a sha256 of all the rest of it, so that whoever edits it by hand shows. That is no signature.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cityscapes.errors import ParameterError
from cityscapes.files.untrusted import parse_json
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import write_json


class Key(NamedTuple):
    """A key, the types that its value may have, the first version of run.json with it, and if all of that have it."""

    path: str
    types: tuple[type, ...]
    since: int = 1
    always: bool = True


TEXT, WHOLE, NONE = (str,), (int,), type(None)

FORMAT = 2
"""The version of run.json that is written; all up to it are read."""

SEAL = "sha256"
"""The key of a record's own hash; records that are older than it have none."""

OF_ALL = (
    Key("format", WHOLE),
    Key(SEAL, TEXT, 2, always=False),
    Key("run", TEXT),
    Key("parameters", (dict,)),
    Key("class_names", (list,)),
)
CIRCUMSTANCES = (
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
    Key("hardware.processor", TEXT),
    Key("hardware.cores", (int, NONE)),
    Key("hardware.memory_gib", (int, NONE), 2),
    Key("hardware.system", TEXT),
    Key("hardware.gpu", (str, NONE)),
    Key("hardware.gpu_bytes", (int, NONE)),
)
DETERMINISM = (
    Key("determinism.seed", WHOLE),
    Key("determinism.threads", WHOLE),
    Key("determinism.processes", WHOLE),
    Key("determinism.device", TEXT, 2, always=False),
    *(Key(f"determinism.{name}", (bool,), 2, always=False) for name in ("compile", "activation_checkpointing")),
    Key("determinism.chunked_loss", (bool,), 2, always=False),
    Key("determinism.float32_matmul_precision", TEXT),
    Key("determinism.cudnn_benchmark", (bool,)),
    Key("determinism.cudnn_deterministic", (bool,), 2),
    Key("determinism.cudnn_allow_tf32", (bool,), 2),
    Key("determinism.deterministic_algorithms", (bool,)),
    Key("determinism.cublas_workspace_config", (str, NONE), 2),
)
OF_DATA = (
    Key("root", TEXT),
    Key("images", WHOLE),
    Key("fingerprint", TEXT),
    Key("masks", (str, NONE), 2),
    Key("content", (str, NONE), 2, always=False),
)


def read_record(path: Path) -> dict[str, Any]:
    """Read a run.json strictly; raises ValueError, which says why, for what is not a JSON object."""
    content = parse_json(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a run.json with its own hash."""
    write_json(path, {**content, SEAL: record_sha256(content)})


def add_to_record(path: Path, content: Mapping[str, Any], **changes: Any) -> None:
    """Write a record that was read from `path` with changes; only one that was as it was written gets a new hash.

    One that was edited by hand would look untouched otherwise.
    """
    write = write_record if content.get(SEAL) == record_sha256(content) else write_json
    write(path, {**content, **changes})


def record_sha256(content: Mapping[str, Any]) -> str:
    """Return the sha256 of all of a record but its own hash, whatever the order of its keys and its blanks."""
    rest = {name: value for name, value in content.items() if name != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def planned_epochs(record: Mapping[str, Any]) -> int | None:
    """Return how many epochs a run has when it is finished; None where its run.json does not say.

    A run whose parameters count `steps` has as many epochs as those need, whatever `epochs` says.
    """
    try:
        parameters = TrainParameters.from_mapping(record["parameters"])
        images = record["data"][parameters.train_split]["images"]
        steps_per_epoch = images // min(parameters.batch_size, images)
        return math.ceil(parameters.steps / steps_per_epoch) if parameters.steps else parameters.epochs
    except (ParameterError, LookupError, TypeError, ZeroDivisionError):
        return None


def record_problems(record: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with a run.json: keys that lack or have another type, and parts that contradict each other.

    A network that was imported rather than trained has neither data nor determinism.
    """
    version = record.get("format")
    if not _is_a(version, WHOLE) or not 1 <= version <= FORMAT:
        yield f"format is {version!r}, and this version of the suite knows 1 to {FORMAT}"
        return
    trained = "imported" not in record
    keys = (*OF_ALL, *CIRCUMSTANCES, *DETERMINISM * trained)
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
            if key.always:
                yield f"{inside}{key.path} is missing"
        elif not _is_a(value, key.types):
            yield f"{inside}{key.path} is {value!r:.60}, not {' or '.join(_name(kind) for kind in key.types)}"


def _data_problems(record: Mapping[str, Any], version: int) -> Iterator[str]:
    data = record.get("data")
    if not isinstance(data, dict) or not data:
        yield "data is missing"
        return
    for split, described in data.items():
        yield from _key_problems(described, OF_DATA, version, inside=f"data.{split}.")
    parameters = record.get("parameters")
    wanted = [parameters.get(name) for name in ("train_split", "val_split")] if isinstance(parameters, dict) else []
    yield from (f"data.{split} is missing" for split in wanted if split not in data)


def _continuation_problems(record: Mapping[str, Any], version: int) -> Iterator[str]:
    continued = record.get("continued")
    if not isinstance(continued, list):
        yield "continued is missing, or no list"
        return
    steps = 0
    for index, entry in enumerate(continued):
        inside = f"continued[{index}]."
        keys = (Key("after_steps", WHOLE), *CIRCUMSTANCES, *DETERMINISM)
        yield from _key_problems(entry, keys, version, inside=inside)
        after = entry.get("after_steps") if isinstance(entry, dict) else None
        if _is_a(after, WHOLE) and after < steps:
            yield f"{inside}after_steps is {after}, which is before {steps}"
        steps = after if _is_a(after, WHOLE) else steps


def _parameter_problems(record: Mapping[str, Any], *, trained: bool) -> Iterator[str]:
    try:
        parameters = TrainParameters.from_mapping(record["parameters"])
    except ParameterError as error:
        yield f"parameters: {error}"
        return
    determinism = record.get("determinism")
    if trained and isinstance(determinism, dict) and determinism.get("seed") not in (parameters.seed, None):
        yield f"determinism.seed is {determinism['seed']!r}, and parameters.seed {parameters.seed!r}"


def _is_a(value: Any, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _name(kind: type) -> str:
    names = {int: "a whole number", str: "text", bool: "true or false", list: "a list", dict: "an object"}
    return names.get(kind, "null")
