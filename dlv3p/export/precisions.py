"""The precision in which each node of a network was really computed, so that no fallback to float goes unnoticed.

Also here: quiet for libraries that talk about themselves while they work, in logs, prints and bars.
"""

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

INT8 = "int8"


class Node(NamedTuple):
    """One computed node: its name, its kind in the runtime's words, and `int8` or a float type."""

    name: str
    kind: str
    precision: str


def count_precisions(nodes: dict[str, list[Node]]) -> pd.DataFrame:
    """Return a row for each network, by title, of how many nodes were computed in each precision."""
    counts = {title: pd.Series([node.precision for node in found]).value_counts() for title, found in nodes.items()}
    return pd.DataFrame(counts).T.fillna(0).astype(int).rename_axis("network")


def float_nodes(nodes: Iterable[Node]) -> pd.DataFrame:
    """Return the nodes that were not computed in 8 bits: name, kind, precision, in the order of the network."""
    return pd.DataFrame([node for node in nodes if node.precision != INT8], columns=list(Node._fields))


@contextlib.contextmanager
def without_output() -> Iterator[None]:
    """Hold back what is logged up to warnings, and what is printed, until the block ends; errors are raised still."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), _without_bars():
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Keep rich, where it is there, from placing its bars in a notebook, which no redirection of stdout holds back."""
    try:
        import rich
    except ImportError:
        yield
        return
    console = rich.get_console()
    was_jupyter, was_quiet = console.is_jupyter, console.quiet
    console.is_jupyter, console.quiet = False, True
    try:
        yield
    finally:
        console.is_jupyter, console.quiet = was_jupyter, was_quiet
