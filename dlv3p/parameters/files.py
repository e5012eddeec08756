"""Read parameters from files and command lines: a run's run.json, a recipe in YAML, and single values as text.

A duplicate key is refused, where plain parsers would silently keep the last of its values.
"""

import json
from pathlib import Path
from typing import Any

from cityscapes.errors import InputError, MissingInputError, ParameterError, reason


def read_config(path: Path) -> dict[str, Any]:
    """Return the parameters in a run's run.json, in a recipe (YAML), or in a JSON file of parameters alone.

    Raises MissingInputError when there is no such file, InputError when it is none of these.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = _read_json(text) if path.suffix == ".json" else _read_yaml(text)
    except FileNotFoundError:
        raise MissingInputError(f"--config {path}: no such file") from None
    except _KeyTwiceError as error:
        raise ParameterError(f"--config {path}: {error} stands there twice; keep one of them") from None
    except (OSError, ValueError) as error:
        raise InputError(f"--config {path}: cannot be read as JSON or YAML: {reason(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {path}: holds no parameters; give a run.json or a recipe")
    if isinstance(content.get("parameters"), dict):
        return {**content["parameters"], "run": content.get("run", "")}
    return content


class _KeyTwiceError(ValueError):
    """A key that stands twice in one mapping; its words are the key."""


def _refuse_twice(names: list[str]) -> None:
    for position, name in enumerate(names):
        if name in names[:position]:
            raise _KeyTwiceError(name)


def _read_json(text: str) -> Any:
    def construct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_twice([name for name, _ in pairs])
        return dict(pairs)

    return json.loads(text, object_pairs_hook=construct)


def _read_yaml(text: str) -> Any:
    """Read YAML as `yaml.safe_load` does, which would keep the last of two equal keys; raises ValueError."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            _refuse_twice([key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(type(error).__name__) from error


def read_value(name: str, text: str) -> Any:
    try:
        return _read_yaml(text)
    except ValueError:
        raise ParameterError(f"{name}={text!r}: cannot be read as a YAML value; quote it, as in '\"{text}\"'") from None
