"""Quiet for libraries that talk about themselves while they work: logs, prints and bars."""

import contextlib
import io
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def silence() -> Iterator[None]:
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
