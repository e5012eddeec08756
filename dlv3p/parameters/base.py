"""The base class of all parameter sets: check names, types and ranges, and refuse a wrong value in one line."""

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any, Self, get_type_hints

from cityscapes.errors import ParameterError


def choice(default: Any, allowed: tuple[Any, ...], prefix: str | None = None) -> Any:
    """A field that takes one of the `allowed` values, or any text that follows the `prefix`."""
    return field(default=default, metadata={"allowed": allowed, "prefix": prefix})


def number(default: float, low: float, high: float) -> Any:
    """A field that takes a number from `low` to `high`, both included."""
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class Parameters:
    """A frozen, flat set of scalars that has been checked: the contents of one notebook's parameters cell."""

    def __post_init__(self) -> None:
        types_by_name = get_type_hints(type(self))
        for item in fields(self):
            value = _checked_type(item.name, getattr(self, item.name), types_by_name[item.name])
            _check_range(item, value)
            object.__setattr__(self, item.name, value)
        self.check()

    def check(self) -> None:
        """Check what concerns several parameters at once; subclasses override it and raise ParameterError."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build the set from names and values; raises ParameterError for an unknown name or a value not allowed."""
        names = [item.name for item in fields(cls)]
        for name in values:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ParameterError(f"unknown parameter {name!r}: {hint}Known are {', '.join(names)}")
        return cls(**values)

    @classmethod
    def from_cell(cls, variables: Mapping[str, Any]) -> Self:
        """Build the set from a notebook's variables (`globals()`), taking those that are named like a parameter."""
        return cls.from_mapping({item.name: variables[item.name] for item in fields(cls) if item.name in variables})

    def as_dict(self) -> dict[str, Any]:
        """Return names and values, in the order of the parameters cell."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """Show the values as a table in a notebook, those that differ from the default in bold."""
        defaults = {item.name: item.default for item in fields(self)}
        rows = []
        for name, value in self.as_dict().items():
            cell = _escape(repr(value))
            rows.append(f"<tr><td>{name}</td><td>{cell if value == defaults[name] else f'<b>{cell}</b>'}</td></tr>")
        return f"<table><tr><th>parameter</th><th>value</th></tr>{''.join(rows)}</table>"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _checked_type(name: str, value: Any, expected: type | types.UnionType) -> Any:
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not expected:
        remedy = ""
        if expected is float and isinstance(value, str):
            remedy = "; YAML reads 1e-2 as text: write 0.01 or 1.0e-2"
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
    low, high = item.metadata.get("range", (None, None))
    if low is not None and not low <= value <= high:  # also refuses NaN
        default = "" if item.default is MISSING else f" (default {item.default})"
        raise ParameterError(f"{item.name}={value!r}: allowed are {low} to {high}{default}")
