"""Report the precision in which each node of a network was really computed, so that no fallback to float is missed.

Also here: silence for libraries that log, print and draw progress bars while they quantize.
"""

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

INT8 = "int8"


class Node(NamedTuple):
    """One computed node: its name, the runtime's name of its kind, and `int8` or a float type."""

    name: str
    kind: str
    precision: str


def count_precisions(nodes: dict[str, list[Node]]) -> pd.DataFrame:
    """Count the nodes of each network that were computed in each precision: a row per title."""
    counts = {title: pd.Series([node.precision for node in found]).value_counts() for title, found in nodes.items()}
    return pd.DataFrame(counts).T.fillna(0).astype(int).rename_axis("network")


def float_nodes(nodes: Iterable[Node]) -> pd.DataFrame:
    """Return the nodes that were not computed in 8 bits: name, kind, precision, in the order of the network."""
    return pd.DataFrame([node for node in nodes if node.precision != INT8], columns=list(Node._fields))


@contextlib.contextmanager
def without_output() -> Iterator[None]:
    """Suppress prints, and logs up to warnings, within the block; errors are still raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), _without_bars():
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Keep rich, if installed, from showing its progress bars in a notebook, which redirecting stdout does not stop."""
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
