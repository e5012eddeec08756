"""What an audit finds, as data, and how it is told."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found: its kind in plain words, where, what is wrong there, and how to mend it.

    `where` is a file, a frame or a class, printable. An error would stop or spoil training; the rest is worth a look.
    """

    kind: str
    split: str
    where: str
    problem: str
    remedy: str
    is_error: bool = True


def tell(findings: Sequence[Finding], *, most: int) -> list[str]:
    """Tell findings in plain words: a heading a kind, up to `most` places below it, then the remedies."""
    kinds: dict[tuple[str, bool], list[Finding]] = defaultdict(list)
    for finding in findings:
        kinds[finding.kind, finding.is_error].append(finding)
    lines = []
    for (kind, is_error), same in kinds.items():
        lines.append(f"{'error' if is_error else 'note'}: {kind}: {len(same)}")
        lines += [f"  {finding.where}: {finding.problem}" for finding in same[:most]]
        lines += [f"  and {len(same) - most} more"] * (len(same) > most)
        lines += [f"  -> {remedy}" for remedy in dict.fromkeys(finding.remedy for finding in same[:most])]
    return lines
