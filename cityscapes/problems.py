"""Many bad files at once: all are named, so that one run finds them all, and the first makes the one-line message."""

import sys
from collections.abc import Sequence
from pathlib import Path

from cityscapes.errors import InputError


class ProblemsError(InputError):
    """Files that cannot be used; `problems` lists all of them, a line each."""

    def __init__(self, source: str | Path, outcome: str, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{source}: {outcome}: {problems[0]}{more}")
        self.problems = tuple(problems)


def print_problems(kind: str, lines: Sequence[str], most: int = 50) -> None:
    """Print one line a problem on stderr, at most `most`, and how many there are beyond."""
    for line in lines[:most]:
        print(f"{kind}: {line}", file=sys.stderr)
    if len(lines) > most:
        print(f"{kind}: and {len(lines) - most} more", file=sys.stderr)
