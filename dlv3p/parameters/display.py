"""Show parameters in a notebook: the values that differ from their defaults, and the rest folded below."""

import html
from collections.abc import Sequence
from typing import Any

Row = tuple[str, Any, Any]
"""A parameter's name, its value and its default."""


def plain_text(rows: Sequence[Row]) -> str:
    """Return the values that differ, a line each, and the number of defaults."""
    changed, rest = _split(rows)
    lines = [f"{name} = {value!r}" for name, value, _ in changed]
    return "\n".join([*lines, _summary(len(changed), len(rest))])


def html_table(rows: Sequence[Row]) -> str:
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
