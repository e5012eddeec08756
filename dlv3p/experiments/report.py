"""Set every published table of other systems beside our own results, and say what does not compare and what is missing.

    dlv3p report
    dlv3p report --format markdown --output report.md
    dlv3p report first second --system mmsegmentation

A cell is "published / ours". Where ours is a number in parentheses, the command of that number fills it; where it is a
dash, nothing of ours compares, and the report says why. A score is ranked only among scores of the same images by the
same protocol, after training on the same images.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import run_command
from cityscapes.files.atomic import write_text
from dlv3p.experiments.table import command_of_tables, format_cells, print_or_write

if TYPE_CHECKING:
    import pandas as pd

    from dlv3p.experiments.published_tables import PublishedTable, Report

MEASURED = Path(__file__).with_name("measured.csv")
"""What this suite has measured itself, in the README as well: columns what, result, command, commit, machine."""


def measured_results() -> list[dict[str, str]]:
    """Return what this suite has measured itself, a row per result."""
    with open(MEASURED, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def readme_results() -> str:
    """Return the table of results as it stands in the README."""
    names = ("what", "result", "command", "commit")
    rows = [f"| {' | '.join(row[name] for name in names)} |\n" for row in measured_results()]
    return "".join([f"| {' | '.join(names)} |\n", "|---" * len(names), "|\n", *rows])


def write_report(report: "Report", form: str, system: str = "") -> str:
    """Return a report as text, Markdown or LaTeX: our results, the ranking, and each table; as CSV a row per figure."""
    import pandas as pd

    if form == "csv":
        return report.all_figures(system).to_csv(index=False)
    parts = {"Results of ours": report.own_results(), "Ranking by mIoU": _ranking(report)}
    for table in report.tables(system):
        name = f"{table.system}: {table.title}"
        parts[f"{name}, published / ours"], parts[f"{name}, how its figures were measured"] = _flat(table)
        if len(table.commands):
            parts[f"{name}, commands that fill its cells, in notebooks/"] = table.commands
    parts["What does not compare"] = report.not_comparable(system)
    parts["Notes"] = report.notes(system)
    parts["Measured by this suite itself"] = pd.DataFrame(measured_results())
    return "\n".join(_part(title, table, form) for title, table in parts.items())


def save_report(report: "Report", folder: Path) -> list[Path]:
    """Write a report to a folder as CSV, Markdown and LaTeX; return the paths."""
    paths = [folder / "report.csv", folder / "report.md", folder / "report.tex"]
    for path, form in zip(paths, ("csv", "markdown", "latex"), strict=True):
        write_text(path, write_report(report, form))
    return paths


def _ranking(report: "Report") -> "pd.DataFrame":
    table = report.ranking()
    ours = table["ours"].map({True: "ours: ", False: ""})
    return table.assign(**{"from": ours + table["from"], "mIoU, %": table["mIoU, %"].map("{:.2f}".format)}).drop(
        columns="ours"
    )


def _flat(table: "PublishedTable") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Return a table whose columns have a letter in place of how they were measured, and what the letters mean."""
    import pandas as pd

    ways = list(dict.fromkeys(way for metric, way in table.cells.columns if metric))
    letters = {way: chr(ord("a") + number) for number, way in enumerate(ways)}
    names = [f"{metric} [{letters[name]}]" if metric else name for metric, name in table.cells.columns]
    legend = pd.DataFrame([(f"[{letter}]", way) for way, letter in letters.items()], columns=["", "measured by"])
    return table.cells.set_axis(names, axis=1), legend


def _part(title: str, table: "pd.DataFrame", form: str) -> str:
    heading = {"text": f"{title}\n", "markdown": f"## {title}\n\n", "latex": f"% {title}\n"}[form]
    return heading + (format_cells(table, form) if len(table) else "none\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report, or write it."""
    parser = command_of_tables(
        "dlv3p report",
        "Set the published tables of other systems beside our own results, rank what compares, and say what does not "
        "and which command fills an empty cell.",
    )
    parser.add_argument("--system", default="", help="the tables of this system alone")
    options = parser.parse_args(arguments)
    from dlv3p.experiments.published_tables import Report

    print_or_write(write_report(Report.of(options.runs), options.format, options.system), options.output)
    return 0


if __name__ == "__main__":
    run_command(main)
