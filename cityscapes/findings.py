"""Represent the findings of an audit as data, and the problems of many files as one error.

All bad files are named, so that one run finds them all; the first one is quoted in the one-line message.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cityscapes.errors import InputError


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found: its kind in plain words, where, what is wrong there, and how to fix it.

    `where` is a file, a frame or a class, printable. An error would stop or spoil training; the rest is worth a look.
    `shows` names the images, by split and name, in which it can be seen, where those are not `where` itself; among the
    findings of a kind the one of the largest `severity` is the worst.
    """

    kind: str
    split: str
    where: str
    problem: str
    remedy: str
    is_error: bool = True
    shows: tuple[tuple[str, str], ...] = ()
    severity: float = 0.0


def format_findings(findings: Sequence[Finding], *, limit: int) -> list[str]:
    """Format findings in plain words: a heading a kind, up to `limit` places below it, then the remedies."""
    kinds: dict[tuple[str, bool], list[Finding]] = defaultdict(list)
    for finding in findings:
        kinds[finding.kind, finding.is_error].append(finding)
    lines = []
    for (kind, is_error), same in kinds.items():
        lines.append(f"{'error' if is_error else 'note'}: {kind}: {len(same)}")
        lines += [f"  {finding.where}: {finding.problem}" for finding in same[:limit]]
        lines += [f"  and {len(same) - limit} more"] * (len(same) > limit)
        lines += [f"  -> {remedy}" for remedy in dict.fromkeys(finding.remedy for finding in same[:limit])]
    return lines


def worst_of_each_kind(findings: Iterable[Finding]) -> list[Finding]:
    """Return the most severe finding of each kind, the first of several, in the order of kinds."""
    worst: dict[str, Finding] = {}
    for finding in findings:
        if finding.kind not in worst or finding.severity > worst[finding.kind].severity:
            worst[finding.kind] = finding
    return list(worst.values())


class ProblemsError(InputError):
    """Files that cannot be used; `problems` lists all of them, a line each."""

    def __init__(self, source: str | Path, outcome: str, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{source}: {outcome}: {problems[0]}{more}")
        self.problems = tuple(problems)


def refuse_problems(source: str | Path, outcome: str, problems: Sequence[str]) -> None:
    """Raise ProblemsError where there are any: the last word of what has done all that could be done."""
    if problems:
        raise ProblemsError(source, outcome, problems)


def print_problems(kind: str, lines: Sequence[str], limit: int = 50) -> None:
    """Print one line a problem on stderr, at most `limit`, and how many there are beyond."""
    for line in lines[:limit]:
        print(f"{kind}: {line}", file=sys.stderr)
    if len(lines) > limit:
        print(f"{kind}: and {len(lines) - limit} more", file=sys.stderr)
