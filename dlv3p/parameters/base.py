"""The base of every parameter set: check names, types and ranges, and report an error in one line.

The help of a parameter is written at its field, and nowhere else: the parameters cells of the notebooks and
docs/parameters.md are generated from it by `python tests/support/refresh_notebooks.py --parameters`.
"""

import ast
import difflib
import html
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any, Self, get_type_hints

from cityscapes.errors import ParameterError
from dlv3p.parameters.synonyms import likely, nearest

LISTED_NAMES = 8
"""A set of at most so many parameters is listed in full where one is unknown."""

Row = tuple[str, Any, Any]
"""A parameter's name, its value and its default."""


def text(default: str, help: str, *, find: Callable[..., Any] | None = None, within: str = "", unless: str = "") -> Any:
    """Return a field that takes any text, or with `find` one that names something, which raises where that is not.

    What is named `within` another field's value is found by (name, that value, this field); a name that does not count,
    because the field `unless` is set, need not exist.
    """
    return field(default=default, metadata={"help": help, "find": find, "within": within, "unless": unless})


def several(
    default: str, help: str, *, least: int = 0, find: Callable[..., Any] | None = None, within: str = ""
) -> Any:
    """Return a field that takes several values, separated by spaces, or a list of them, and at least so many.

    Each is found as that of `text` is.
    """
    return field(default=default, metadata={"help": help, "list": True, "least": least, "find": find, "within": within})


def switch(default: bool, help: str) -> Any:
    """Return a field that takes True or False."""
    return field(default=default, metadata={"help": help})


def choice(default: Any, allowed: tuple[Any, ...], help: str, prefix: str | None = None) -> Any:
    """Return a field that takes one of the `allowed` values, or any text that begins with `prefix`."""
    return field(default=default, metadata={"help": help, "allowed": allowed, "prefix": prefix})


def number(default: float, low: float, high: float, help: str) -> Any:
    """Return a field that takes a number from `low` to `high`, both included."""
    return field(default=default, metadata={"help": help, "range": (low, high)})


@dataclass(frozen=True)
class Parameters:
    """A frozen, flat, validated set of scalars: the contents of one notebook's parameters cell."""

    FIRST = ()
    """The fields that people change first, listed first; all others follow in their order."""
    HEADINGS = {}
    """Field: the heading above it and those that follow; a repeated heading continues its group."""

    def __post_init__(self) -> None:
        types_by_name = get_type_hints(type(self))
        for item in fields(self):
            value = getattr(self, item.name)
            value = _joined(value) if item.metadata.get("list") else value
            value = _checked_type(item.name, value, types_by_name[item.name])
            _check_range(item, value)
            object.__setattr__(self, item.name, value)
        self.check()

    def check(self) -> None:
        """Check constraints between parameters; subclasses override it and raise ParameterError."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build the set from names and values; raises ParameterError for an unknown name or an invalid value."""
        names = [item.name for item in fields(cls)]
        for name in values:
            if name not in names:
                raise ParameterError(f"unknown parameter {name!r}: {_allowed_names(str(name), names)}")
        return cls(**values)

    @classmethod
    def from_cell(cls, variables: Mapping[str, Any]) -> Self:
        """Build the set from a notebook's variables (`globals()`), and find the inputs that it names.

        Raises ParameterError for a name that the parameters cell sets and that is not a parameter, which would leave
        the one that was meant at its default, and where that cell has not been run. All other variables are ignored.
        """
        names = [item.name for item in fields(cls)]
        values = {name: variables[name] for name in names if name in variables}
        if "In" in variables and not values:
            raise ParameterError("no parameter has been set since the kernel started; run the parameters cell above")
        for name in _names_of_cell(variables.get("In", ()), names):
            values.setdefault(name, None)
        parameters = cls.from_mapping(values)
        parameters.find_inputs()
        return parameters

    def find_inputs(self, **known: str) -> None:
        """Raise MissingInputError for an input that is named and is not there, before anything heavy is loaded.

        `known` are fields that are left empty and follow from a run. It is no part of the checks of a new set: that of
        a stored run may name data that has moved.
        """
        for item in fields(self):
            find, within, unless = (item.metadata.get(key) for key in ("find", "within", "unless"))
            named = getattr(self, item.name)
            if not find or (unless and getattr(self, unless)):
                continue
            for name in named.split() if item.metadata.get("list") else [named] if named else []:
                where = (getattr(self, within) or known.get(within, ""), item.name) if within else ()
                find(name, *where)

    @classmethod
    def groups(cls) -> dict[str, list[Field]]:
        """Return the fields in reading order, grouped by heading, which may be empty."""
        left = {item.name: item for item in fields(cls)}
        first = [left.pop(name) for name in cls.FIRST]
        found = {"What people change first": first} if first else {}
        heading = ""
        for name, item in left.items():
            heading = cls.HEADINGS.get(name, heading)
            found.setdefault(heading, []).append(item)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return names and values, in the order of the fields."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """Show the values in a notebook."""
        return _html_table(self._rows())

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        """Show the values in a notebook and in a terminal; `__repr__`, which names them all, is for programs."""
        return {"text/plain": _plain_text(self._rows()), "text/html": self._repr_html_()}

    def _rows(self) -> list[Row]:
        shown = [item for group in self.groups().values() for item in group]
        return [(item.name, getattr(self, item.name), item.default) for item in shown]


def _allowed_names(name: str, names: Sequence[str]) -> str:
    """Return the name that is meant, and the names that are allowed: all if they are few, else the nearest."""
    meant = likely(name, names)
    hint = f"did you mean {meant!r}? " if meant else ""
    if len(names) <= LISTED_NAMES:
        return f"{hint}Allowed are {', '.join(names)}"
    near = nearest(name, names)
    said = f"The nearest are {', '.join(near)}; " if len(near) > 1 else ""
    return f"{hint}{said}docs/parameters.md lists all {len(names)}"


def _names_of_cell(inputs: Sequence[str], names: Sequence[str]) -> set[str]:
    """Return the names that the parameters cell sets, as it was last run: that with most of `names`, annotated."""
    for source in reversed(inputs):
        with suppress(SyntaxError, ValueError):
            statements = ast.parse(source).body
            annotated = {ast.unparse(one.target) for one in statements if isinstance(one, ast.AnnAssign)}
            if 2 * len(annotated & set(names)) > len(names):
                plain = [target for one in statements if isinstance(one, ast.Assign) for target in one.targets]
                return annotated | {target.id for target in plain if isinstance(target, ast.Name)}
    return set()


def _joined(value: Any) -> Any:
    """Return the values of a list, or of text such as "[8, 16]", separated by spaces; anything else as it is."""
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        words = [word.strip(" '\"") for word in value.strip()[1:-1].split(",")]
        return " ".join(words) if all(words) else value
    if isinstance(value, list | tuple) and value and all(type(item) in (int, float, str) for item in value):
        return " ".join(map(str, value))
    return value


def _checked_type(name: str, value: Any, expected: type | types.UnionType) -> Any:
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not expected:
        remedy = ""
        if expected is float and isinstance(value, str):
            remedy = "; YAML reads 1e-2 as text; write 0.01 or 1.0e-2"
        kind = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}[expected]
        raise ParameterError(f"{name}={value!r}: expected {kind}{remedy}")
    return value


def _check_range(item: Field, value: Any) -> None:
    allowed, prefix = item.metadata.get("allowed"), item.metadata.get("prefix")
    if prefix is not None and value.startswith(prefix):
        return
    if allowed is not None and value not in allowed:
        near = difflib.get_close_matches(str(value), [str(choice) for choice in allowed], n=1)
        hint = f"; did you mean {near[0]}?" if near and isinstance(value, str) else ""
        listed = ", ".join([*map(str, allowed), *([f"{prefix}<name>"] if prefix else [])])
        raise ParameterError(f"{item.name}={value!r}: allowed are {listed}{hint}")
    if len(str(value).split()) < item.metadata.get("least", 0):
        raise ParameterError(f"{item.name}={value!r}: name at least one, as in {item.default!r}")
    low, high = item.metadata.get("range", (None, None))
    if low is not None and not low <= value <= high:  # also refuses NaN
        default = "" if item.default is MISSING else f" (default {item.default})"
        raise ParameterError(f"{item.name}={value!r}: allowed are {low} to {high}{default}")


def _plain_text(rows: Sequence[Row]) -> str:
    """Return the values that differ, a line each, and the number of defaults."""
    changed, rest = _split(rows)
    lines = [f"{name} = {value!r}" for name, value, _ in changed]
    return "\n".join([*lines, _summary(len(changed), len(rest))])


def _html_table(rows: Sequence[Row]) -> str:
    """Return a table of the values that differ beside their defaults, and a folded table of the rest."""
    changed, rest = _split(rows)
    table = _table(("parameter", "value", "default"), changed) if changed else ""
    folded = _table(("parameter", "value"), [row[:2] for row in rest])
    return f"{table}<details><summary>{_summary(len(changed), len(rest))}</summary>{folded}</details>"


def _split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    return [row for row in rows if row[1] != row[2]], [row for row in rows if row[1] == row[2]]


def _summary(changed: int, rest: int) -> str:
    if not changed:
        return "Nothing differs from the defaults"
    return f"{rest} other at its default" if rest == 1 else f"{rest} others at their defaults"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    titles = "".join(f"<th>{title}</th>" for title in head)
    lines = [[name, *map(repr, values)] for name, *values in rows]
    cells = ["".join(f"<td>{html.escape(cell, quote=False)}</td>" for cell in line) for line in lines]
    return f"<table><tr>{titles}</tr>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"
