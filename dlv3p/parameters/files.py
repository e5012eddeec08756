"""Read parameters from files and command lines: a run's run.json, a recipe in YAML, options, single values as text.

Duplicate keys are errors; plain parsers would silently keep the last value.
"""

import argparse
from collections.abc import Sequence
from dataclasses import Field, fields
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from cityscapes.errors import InputError, IntegrityError, MissingInputError, ParameterError, reason
from cityscapes.files.checksums import check_content
from cityscapes.files.untrusted import DuplicateKeyError, parse_json, refuse_duplicates, regular
from dlv3p.parameters.base import Parameters
from dlv3p.parameters.training import TrainParameters

Set = TypeVar("Set", bound=Parameters)


def read_config(path: Path, *, option: str = "--config") -> dict[str, Any]:
    """Return the parameters in a run's run.json, in a recipe (YAML), or in a JSON file of parameters alone.

    `option` is what messages call it. Raises MissingInputError when there is no such file, InputError when it holds no
    parameters, and IntegrityError when it has a checksum, and was changed.
    """
    content = read_mapping(path, option=option, wanted="holds no parameters; give a run.json or a recipe")
    if isinstance(content.get("parameters"), dict):
        return {**TrainParameters.recorded(content["parameters"]), "run": content.get("run", "")}
    return content


def read_mapping(path: Path, *, option: str, wanted: str) -> dict[str, Any]:
    """Return the names and values in a file of JSON or YAML; `wanted` tells of one that holds something else.

    Raises as `read_config` does.
    """
    where = f"{option} {path}".strip()
    try:
        text = regular(path).read_text(encoding="utf-8-sig")
        content = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
        check_content(content, where, "sha256")
    except FileNotFoundError:
        raise MissingInputError(f"{where}: no such file") from None
    except DuplicateKeyError as error:
        raise ParameterError(f"{where}: {error}") from None
    except IntegrityError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: cannot be read as JSON or YAML: {reason(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{where}: {wanted}")
    return content


def parse_yaml(text: str) -> Any:
    """Read YAML as `yaml.safe_load` does, but raise DuplicateKeyError for duplicate keys.

    What else is wrong is a ValueError, which says where: in which line, counted from 1, and column.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            refuse_duplicates([key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise ValueError(reason(error)) from error
    except RecursionError as error:
        raise ValueError("brackets or lists nested too deeply") from error


def read_text(option: str, text: str) -> dict[str, Any]:
    """Read the parameters that an `option` gives as YAML; raises ParameterError that names it."""
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise ParameterError(f"{option} {text[:80]!r}: cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise ParameterError(f"{option} {text[:80]!r}: holds no parameters; give 'name: value', one per line")
    return content


def read_value(name: str, text: str) -> Any:
    """Read one value as YAML, but text that is empty, or looks like a number, a date or a switch, as it was typed.

    Raises ParameterError that names the parameter.
    """
    try:
        value = parse_yaml(text)
        takes_text = get_type_hints(TrainParameters).get(name) is str
        return text if takes_text and (not text or type(value) in (int, float, date, bool)) else value
    except ValueError:
        raise ParameterError(f"{name}={text!r}: cannot be read as a YAML value; quote it, as in '\"{text}\"'") from None


def read_options(
    parser: argparse.ArgumentParser,
    kind: type[Set],
    arguments: Sequence[str] | None,
    *,
    positional: str,
    without: Sequence[str] = (),
) -> Set:
    """Read a parameter set from a command line: `positional` stands alone, all others but `without` are options.

    Texts are taken as they are, numbers as YAML. Raises ParameterError for invalid values,
    and MissingInputError for inputs that are not there.
    """
    options = {item.name: item for item in fields(kind) if item.name not in without}
    parser.add_argument(positional, help=options[positional].metadata["help"].replace("%", "%%"))
    for name, item in options.items():
        if name != positional:
            parser.add_argument(f"--{name.replace('_', '-')}", dest=name, **_as_option(item))
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    texts = {name for name, item in options.items() if item.type in (str, "str", bool, "bool")}
    parameters = kind.from_mapping(
        {name: value if name in texts else read_value(name, value) for name, value in given.items()}
    )
    parameters.find_inputs()
    return parameters


def _as_option(item: Field) -> dict[str, Any]:
    help = f"{item.metadata['help']} (default: {item.default!r})".replace("%", "%%")
    if isinstance(item.default, bool):
        return {"action": argparse.BooleanOptionalAction, "default": None, "help": help}
    return {"metavar": type(item.default).__name__.upper(), "help": help}
