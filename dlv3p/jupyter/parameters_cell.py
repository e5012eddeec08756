"""Generate text from a parameters class: the parameters cell of its notebook, and its section of docs/parameters.md."""

import html
from collections.abc import Mapping
from dataclasses import Field
from decimal import Decimal
from typing import Any

from dlv3p.parameters.base import Parameters

RULE = 80
"""Columns of a heading line, which has to stand out among many others."""

PAGE_HEAD = """# Parameters

All parameters of every notebook, to be set in its parameters cell or with `papermill NAME.ipynb -p PARAMETER VALUE`.
Unknown names and invalid values are refused before anything runs. This page is generated from the fields in
`dlv3p/parameters/` by `python tests/support/refresh_notebooks.py --parameters`.

"V3" is the DeepLabV3 paper (arXiv:1706.05587), "V3+" the DeepLabV3+ paper (arXiv:1802.02611), and "V3, 4.1" a section.
"VainF" is VainF/DeepLabV3Plus-Pytorch, "chenxi116" is chenxi116/DeepLabv3.pytorch, "stigma0617" is its fork
stigma0617/VoVNet-DeepLabV3, "yoR" is yoR-rihsihS/deeplabv3plus, and "MindSpore" is the DeepLabV3 of its model zoo.
"""


def cell_source(kind: type[Parameters]) -> str:
    """Return the parameters cell: headings as comments, and a line `name: type = literal  # help` per parameter.

    papermill parses it line by line, and cannot parse a line with a second "=".
    """
    lines = []
    for heading, group in kind.groups().items():
        lines += [f"# --- {heading} ".ljust(RULE, "-")] if heading else []
        lines += [f"{item.name}: {_type(item)} = {_literal(item.default)}  # {item.metadata['help']}" for item in group]
    return "\n".join(lines)


def reference_page(notebooks: Mapping[str, type[Parameters]]) -> str:
    """Return the page of all parameters, with one section of tables per notebook."""
    sections = [_section(name, kind) for name, kind in notebooks.items()]
    return "\n".join([PAGE_HEAD, *sections])


def _section(name: str, kind: type[Parameters]) -> str:
    lines = [f"## {name}", "", (kind.__doc__ or "").partition("\n\n")[0], ""]
    for heading, group in kind.groups().items():
        lines += [f"### {heading}", ""] if heading else []
        lines += ["| name | type | default | allowed | help |", "| --- | --- | --- | --- | --- |"]
        for item in group:
            cells = (f"`{item.name}`", _type(item), f"`{_literal(item.default)}`", _allowed(item), _markdown(item))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _type(item: Field) -> str:
    return getattr(item.type, "__name__", str(item.type))


def _literal(value: Any) -> str:
    """Format a value as readable Python: 0.00001 for 1e-05, and text with the formatter's quotes."""
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f")
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _allowed(item: Field) -> str:
    if "range" in item.metadata:
        low, high = item.metadata["range"]
        return f"{_number(low)} to {_number(high)}"
    if isinstance(item.default, bool):
        return "`True`, `False`"
    values = [f"`{value}`" for value in item.metadata.get("allowed", ())] or ["text"]
    prefix = item.metadata.get("prefix")
    return ", ".join([*values, *([f"`{prefix}<name>`"] if prefix else [])])


def _number(value: float) -> str:
    """Format a bound without superfluous digits: 10,000 and 0.00001."""
    return format(Decimal(repr(value)).normalize(), ",f")


def _markdown(item: Field) -> str:
    return html.escape(item.metadata["help"], quote=False).replace("|", "\\|")
