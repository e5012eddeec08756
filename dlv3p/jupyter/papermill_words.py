"""Complete papermill's command line for a notebook of the suite: its folder, where the copy goes, and text as typed.

papermill 2.7 requires an OUTPUT_PATH in a terminal, writes to stdout in a pipe and, with a pipe as stdin, takes the
notebook for the path and overwrites it. And it reads `-p run 001` as the number 1.
"""

import base64
import difflib
import io
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from cityscapes.errors import MissingInputError, ParameterError
from cityscapes.files.untrusted import regular
from cityscapes.workspace import NOTEBOOKS, output_folder, workspace
from dlv3p.parameters import notebooks as config
from dlv3p.parameters.base import Parameters
from dlv3p.parameters.files import read_config, read_text
from dlv3p.parameters.training import TRAINED_RUN, TrainParameters
from dlv3p.runs.folders import list_runs

OPTION_VALUES = dict.fromkeys(("-p", "--parameters", "-r", "--parameters_raw"), 2) | dict.fromkeys(
    (
        *("-f", "--parameters_file", "-y", "--parameters_yaml", "-b", "--parameters_base64"),
        *("-k", "--kernel", "-l", "--language", "--engine", "--cwd", "--autosave-cell-every", "--log-level"),
        *("--stdout-file", "--stderr-file", "--start-timeout", "--start_timeout", "--execution-timeout"),
    ),
    1,
)
"""The number of values of each option of papermill's command line; a test compares it with papermill."""

INFORMATIVE = {"-h", "--help", "--help-notebook", "--version"}
"""Options that print something and run no notebook."""

TYPED, RAW = ("-p", "--parameters"), ("-r", "--parameters_raw")
YAML, YAML_FILE = ("-y", "--parameters_yaml"), ("-f", "--parameters_file")

NEAREST, SURE = 3, 0.75
"""At most so many notebooks are named in place of one that does not exist; from this likeness on, only the nearest."""
LONGEST_NAME = 60
"""Characters of an executed copy's name, without `.ipynb`."""


@dataclass(frozen=True)
class Option:
    """An option of a command line: its values, and the words from `start` to `end` that it takes up."""

    name: str
    values: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True)
class CommandLine:
    """A papermill command line: the positions of its paths, and its options."""

    words: tuple[str, ...]
    paths: list[int] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)

    @property
    def notebook(self) -> Path | None:
        """The notebook to execute, if it is named and is not stdin."""
        named = self.words[self.paths[0]] if self.paths else "-"
        return None if named == "-" or "://" in named else Path(named)

    @property
    def informative(self) -> bool:
        """Whether something is printed, and no notebook executed."""
        return any(option.name in INFORMATIVE for option in self.options)

    def given(self) -> dict[str, Any]:
        """Return the parameters that the words set, in papermill's order; of unreadable YAML none."""
        values: dict[str, Any] = {}
        for kind in (YAML, YAML_FILE, TYPED, RAW):
            for option in self.options:
                if option.name in kind and len(option.values) == OPTION_VALUES[option.name]:
                    values |= _values(option)
        return values


def parse(words: Sequence[str]) -> CommandLine:
    """Tell the paths of a papermill command line from its options and their values."""
    line = CommandLine(tuple(words))
    position = 0
    while position < len(words):
        start, word = position, words[position]
        position += 1
        if word == "--":
            line.paths.extend(range(position, len(words)))
            break
        if word == "-" or not word.startswith("-"):
            line.paths.append(start)
            continue
        name, attached, number = _option(word)
        values = (*attached, *words[position : position + number - len(attached)])
        position = min(position + number - len(attached), len(words))
        line.options.append(Option(name, values, start, position))
    return line


def completed(words: Sequence[str]) -> list[str]:
    """Return the words for a notebook of the suite with text as typed, and with a default OUTPUT_PATH if it lacks one.

    All other command lines are returned as they are.
    """
    line = parse(words)
    if (
        line.informative
        or line.notebook is None
        or len(line.paths) > 2
        or not (kind := parameters_class(line.notebook))
    ):
        return list(words)
    line = parse(_as_typed(line, kind))
    if len(line.paths) == 2:
        return list(line.words)
    output = str(default_output_path(line.notebook, kind, line.given())).replace("{", "{{").replace("}", "}}")
    after = line.paths[0] + 1
    return [*line.words[:after], output, *line.words[after:]]  # papermill formats the path


def _as_typed(line: CommandLine, kind: type[Parameters]) -> list[str]:
    """Return the words with `-r NAME VALUE`, which papermill takes as text, for numbers given to parameters of text."""
    texts = {item.name for item in fields(kind) if item.type in (str, "str")}
    words, end = [], 0
    for option in line.options:
        words += line.words[end : option.start]
        end = option.end
        text = option.name in TYPED and len(option.values) == 2 and option.values[0] in texts
        raw = text and _number(option.values[1]) is not None
        words += ["-r", *option.values] if raw else line.words[option.start : end]
    return [*words, *line.words[end:]]


def with_notebook_found(words: Sequence[str], *, stdin_is_terminal: bool) -> list[str]:
    """Return the words with a notebook that exists: a bare name that is not here is that of one of the suite's.

    Raises MissingInputError, with the nearest, for one that does not exist. With a pipe as stdin, a single path is
    where papermill writes what comes through the pipe, if that is a notebook; what was read of it is then there to be
    read again.
    """
    line = parse(words)
    path = line.notebook
    if path is None or path.is_file():
        return list(words)
    if len(line.paths) == 1 and not stdin_is_terminal and not line.informative and _brings_notebook():
        return list(words)
    if path.parent == Path() and (NOTEBOOKS / path).is_file():
        return _from_notebooks(line)
    if path.is_dir():
        raise MissingInputError(f"{path}: a folder, not a notebook; name one of its .ipynb files")
    known = {file.stem: file for folder in (NOTEBOOKS, path.parent) for file in sorted(folder.glob("*.ipynb"))}
    sure = difflib.get_close_matches(path.stem, known, n=1, cutoff=SURE)
    within = [name for name in known if path.stem in name][:NEAREST]
    near = sure or within or difflib.get_close_matches(path.stem, known, n=NEAREST, cutoff=0.5)
    named = " or ".join(os.path.relpath(known[name]) for name in near)
    hint = f"; did you mean {named}?" if near else "; the suite's are in notebooks/"
    raise MissingInputError(f"{path}: no such notebook{hint}")


def _from_notebooks(line: CommandLine) -> list[str]:
    """Return the words with the notebook, and with recipes that are not here, as named from the current folder.

    So the commands of the README do the same whether or not `cd notebooks` was typed before.
    """
    words = list(line.words)
    for place in (line.paths[0], *(option.end - 1 for option in line.options if option.name in YAML_FILE)):
        beside = NOTEBOOKS / words[place]
        if not Path(words[place]).is_file() and beside.is_file():
            words[place] = os.path.relpath(beside)
    return words


def _brings_notebook() -> bool:
    """Return whether stdin brings a notebook: JSON with cells, not nothing, as /dev/null and a job's stdin do."""
    text = sys.stdin.read() if sys.stdin is not None else ""
    sys.stdin = io.StringIO(text)
    with suppress(ValueError, RecursionError, LookupError, TypeError):
        return isinstance(json.loads(text)["cells"], list)
    return False


def check_sources(words: Sequence[str]) -> None:
    """Raise a user's error where papermill could not read the parameters of a suite's notebook from a file or YAML."""
    line = parse(words)
    if not line.informative and line.notebook is not None and parameters_class(line.notebook):
        for option in line.options:
            for value in option.values:
                check_source(option.name, value)


def check_source(option: str, value: str) -> None:
    """Raise a user's error for a file, or YAML, from which papermill could not read parameters; return for the rest."""
    if option in YAML_FILE and "://" not in value:
        read_config(Path(value), option=option)
    elif option in YAML:
        read_text(option, value)
    elif option in ("-b", "--parameters_base64"):
        try:
            text = base64.b64decode(value).decode()
        except ValueError as error:
            raise ParameterError(f"{option} {value[:80]!r}: not YAML in base64 ({error})") from None
        read_text(option, text)


def parameters_class(path: Path) -> type[Parameters] | None:
    """Return the class of parameters that a notebook of the suite names; None for any other file."""
    try:
        name = json.loads(regular(path).read_text(encoding="utf-8"))["metadata"]["dlv3p"]["parameters"]
        return getattr(config, name) if path.suffix == ".ipynb" else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def default_output_path(notebook: Path, kind: type[Parameters], given: Mapping[str, Any]) -> Path:
    """Return where the executed copy goes: into its run's folder, under a short name with the other parameters."""
    folder, told = workspace() / "outputs", {"run"}
    try:
        parameters = kind.from_mapping(given)
    except ParameterError:  # the notebook is refused before anything is written
        given = {}
    else:
        if isinstance(parameters, TrainParameters):  # whose run's name depends on all of them
            folder, told = output_folder(parameters.run_name), set(given)
        elif hasattr(parameters, "run"):
            folder = output_folder(parameters.run or [TRAINED_RUN, *list_runs()][-1])
    parts = [notebook.stem, *(f"{name}={value}" for name, value in given.items() if name not in told)]
    name = re.sub(r"[^A-Za-z0-9.,=_+-]+", "-", "_".join(parts))[:LONGEST_NAME]
    path = folder / f"{name}.ipynb"
    return path.with_stem(f"{name}_again") if path == notebook.resolve() else path


def _option(word: str) -> tuple[str, list[str], int]:
    """Split `--kernel=python3` or `-kpython3` into option and attached value; return its number of values, too."""
    option, sign, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:], word[2:])
    return option, [value] if sign else [], OPTION_VALUES.get(option, 0)


def _values(option: Option) -> dict[str, Any]:
    if option.name in RAW:
        return dict([option.values])
    if option.name in TYPED:
        name, text = option.values
        number = _number(text)
        return {name: {"True": True, "False": False, "None": None}.get(text, text) if number is None else number}
    with suppress(OSError, ValueError, TypeError, yaml.YAMLError, RecursionError):
        text = option.values[0] if option.name in YAML else regular(Path(option.values[0])).read_text(encoding="utf-8")
        return dict(yaml.safe_load(text))
    return {}


def _number(text: str) -> int | float | None:
    """Return the number as which papermill reads a value; None if it reads text."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return None
