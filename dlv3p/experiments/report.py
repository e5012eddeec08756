"""Set every published table of other systems beside our own results, and say what does not compare and what is missing.

    dlv3p report
    dlv3p report --format markdown --output report.md
    dlv3p report first second --system mmsegmentation

A cell is "published / ours". Where ours is a number in parentheses, the command of that number fills it; where it is a
dash, nothing of ours compares, and the report says why. A score is ranked only among scores of the same images by the
same protocol, after training on the same images.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cityscapes.errors import ParameterError, run_command
from cityscapes.files.atomic import write_text
from dlv3p.evaluation.published_figures import Figure, choose, published_figures
from dlv3p.experiments.comparable import Result, objection, read_results, training_images
from dlv3p.experiments.counterparts import Counterpart, find_counterparts
from dlv3p.experiments.table import FORMATS, format_cells
from dlv3p.parameters.protocols import PUBLISHED

MEASURED = Path(__file__).with_name("measured.csv")
"""What this suite has measured itself: the results in the README, and the machine of each."""

GROUP = ["images", "protocol", "trained on"]
"""What scores of one ranking share."""

NOTHING = "-"


@dataclass(frozen=True)
class PublishedTable:
    """A published table with ours beside it, and by number the commands that fill its cells."""

    system: str
    title: str
    cells: pd.DataFrame
    commands: pd.DataFrame


@dataclass(frozen=True)
class Report:
    """Published figures, and the results of ours that are compared with them."""

    figures: tuple[Figure, ...]
    results: tuple[Result, ...]

    @classmethod
    def of(cls, runs: Sequence[str] = ()) -> "Report":
        """Read the published figures, and the results of some runs or of all."""
        return cls(published_figures(), tuple(read_results(runs)))

    @property
    def systems(self) -> list[str]:
        """The systems, in the order of the figures."""
        return list(dict.fromkeys(one.system for one in self.figures))

    def counterparts(self, system: str = "") -> list[Counterpart]:
        """Return what of ours stands beside each figure, of one system or of all, in their order."""
        if system and system not in self.systems:
            raise ParameterError(f"system={system!r}: no figures of it; allowed are {', '.join(self.systems)}")
        return find_counterparts([one for one in self.figures if system in ("", one.system)], self.results)

    def ranking(self) -> pd.DataFrame:
        """Return a row per mIoU with its rank among those of the same images, protocol and training split.

        A difference below a point is within the spread of two trainings of one recipe.
        """
        rows: list[tuple[Any, ...]] = []
        for one in choose(self.figures, metric="mIoU"):
            if one.is_score:
                rows.append((one.data, one.protocol, one.training, one.value, one.network, one.origin, False))
        for one in self.results:
            if not objection(one, self.figures):
                images = (one.data, one.protocol, training_images(one, self.figures))
                rows.append((*images, 100 * one.scores["mIoU"], one.network, one.name, True))
        table = pd.DataFrame(rows, columns=[*GROUP, "mIoU, %", "network", "from", "ours"])
        grouped = table.groupby(GROUP)["mIoU, %"]
        table.insert(3, "rank", grouped.rank(method="min", ascending=False).astype(int))
        table.insert(4, "of", grouped.transform("size"))
        order = table["protocol"].map(list(PUBLISHED).index)
        table = table.assign(order=order).sort_values(["images", "order", "trained on", "rank"], kind="stable")
        return table.drop(columns="order").reset_index(drop=True)

    def own_results(self) -> pd.DataFrame:
        """Return a row per result of ours: images, protocol, mIoU, and its rank or why it has none."""
        ranked, rows = self.ranking(), []
        ranks = {
            (one["from"], one["images"], one["protocol"]): f"{one['rank']} of {one['of']}"
            for one in ranked[ranked["ours"]].to_dict("records")
        }
        for one in self.results:
            rank = ranks.get((one.name, one.data, one.protocol), NOTHING)
            why = objection(one, self.figures)
            rows.append((one.name, one.data, one.protocol, f"{100 * one.scores['mIoU']:.2f}", rank, why))
        return pd.DataFrame(rows, columns=["run", "images", "protocol", "mIoU, %", "rank", "why none"])

    def tables(self, system: str = "") -> list[PublishedTable]:
        """Return the published tables, of one system or of all, in the order of the figures."""
        found: dict[tuple[str, str], list[Counterpart]] = {}
        for one in self.counterparts(system):
            found.setdefault((one.figure.system, one.figure.table), []).append(one)
        return [_table(*key, counterparts) for key, counterparts in found.items()]

    def not_comparable(self, system: str = "") -> pd.DataFrame:
        """Return a row per reason why nothing of ours stands beside published figures, and what it concerns."""
        rows: dict[tuple[str, str], list[str]] = {}
        for one in self.counterparts(system):
            if one.why:
                rows.setdefault((one.figure.system, one.why), []).append(one.figure.metric)
        told = [(name, ", ".join(dict.fromkeys(metrics)), why) for (name, why), metrics in rows.items()]
        return pd.DataFrame(told, columns=["system", "figures", "why"])

    def notes(self, system: str = "") -> pd.DataFrame:
        """Return what else has to be known of published figures."""
        rows: dict[tuple[str, str, str], list[str]] = {}
        for one in self.figures:
            if one.note and system in ("", one.system):
                rows.setdefault((one.system, one.network or one.table, one.note), []).append(one.metric)
        told = [(name, network, ", ".join(dict.fromkeys(them)), note) for (name, network, note), them in rows.items()]
        return pd.DataFrame(told, columns=["system", "network", "figures", "note"])

    def all_figures(self, system: str = "") -> pd.DataFrame:
        """Return a row per published figure with all that is known of it, and ours, the command or the reason."""
        names = [name for name in Figure.__dataclass_fields__ if name not in ("written", "command")]
        rows = [
            {name: getattr(one.figure, name) for name in names}
            | {"value": one.figure.written, "ours": one.text, "command": one.command, "why not": one.why}
            for one in self.counterparts(system)
        ]
        return pd.DataFrame(rows)


def _table(system: str, title: str, counterparts: Sequence[Counterpart]) -> PublishedTable:
    """Arrange figures as a published table: a row per network, a column per metric and the way it was measured."""
    rows: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
    commands: dict[tuple[str, ...], dict[str, None]] = {}
    for one in counterparts:
        row = (one.figure.network or one.figure.data, one.figure.variant, one.figure.part)
        if one.command:
            commands.setdefault(row, {}).update(dict.fromkeys(one.command.split(" && ")))
        number = f"({list(commands).index(row) + 1})" if one.command else NOTHING
        rows.setdefault(row, {})[_column(one.figure)] = f"{one.figure.written} / {one.text or number}"
    labels = pd.DataFrame(list(rows), columns=["network", "training", "of"])
    labels = labels.loc[:, (labels != "").any()]
    cells = pd.DataFrame(list(rows.values())).fillna("")
    cells.columns = pd.MultiIndex.from_tuples(cells.columns)
    labels.columns = pd.MultiIndex.from_tuples([("", name) for name in labels.columns])
    listed = [(f"({number})", " && ".join(steps)) for number, steps in enumerate(commands.values(), start=1)]
    return PublishedTable(
        system, title, pd.concat([labels, cells], axis=1), pd.DataFrame(listed, columns=["cell", "command"])
    )


def _column(figure: Figure) -> tuple[str, str]:
    where = [figure.data, figure.protocol, f"on {figure.machine}" if figure.machine else ""]
    unit = f", {figure.unit}" if figure.unit else ""
    return f"{figure.metric}{unit}", ", ".join(filter(None, where))


def measured_results() -> pd.DataFrame:
    """Return what this suite has measured itself: columns what, result, command, commit, machine."""
    return pd.read_csv(MEASURED, dtype=str, keep_default_na=False)


def readme_results() -> str:
    """Return the table of results as it stands in the README."""
    names = ["what", "result", "command", "commit"]
    rows = [" | ".join(cells) for cells in measured_results()[names].itertuples(index=False, name=None)]
    return "".join(
        f"{line}\n" for line in (f"| {' | '.join(names)} |", "|---" * 4 + "|", *(f"| {row} |" for row in rows))
    )


def write_report(report: Report, form: str, system: str = "") -> str:
    """Return a report as text, Markdown or LaTeX: our results, the ranking, and each table; as CSV a row per figure."""
    if form == "csv":
        return report.all_figures(system).to_csv(index=False)
    parts = {
        "Results of ours": report.own_results(),
        "Ranking by mIoU, by images, protocol and training split": _told(report.ranking()),
    }
    for table in report.tables(system):
        flat = table.cells.set_axis([": ".join(filter(None, names)) for names in table.cells.columns], axis=1)
        parts[f"{table.system}: {table.title}, published / ours"] = flat
        if len(table.commands):
            parts[f"{table.system}: {table.title}, commands that fill the cells, in notebooks/"] = table.commands
    parts["What does not compare"] = report.not_comparable(system)
    parts["Notes"] = report.notes(system)
    parts["Measured by this suite itself"] = measured_results()
    return "\n".join(_part(title, table, form) for title, table in parts.items())


def _told(ranking: pd.DataFrame) -> pd.DataFrame:
    ours = ["ours: " * one for one in ranking["ours"]]
    scores = [f"{value:.2f}" for value in ranking["mIoU, %"]]
    return ranking.assign(**{"from": ours + ranking["from"], "mIoU, %": scores}).drop(columns="ours")


def _part(title: str, table: pd.DataFrame, form: str) -> str:
    heading = {"text": f"{title}\n", "markdown": f"## {title}\n\n", "latex": f"% {title}\n"}[form]
    return heading + (format_cells(table, form) if len(table) else "none\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report, or write it."""
    parser = argparse.ArgumentParser(
        prog="dlv3p report",
        description="Set the published tables of other systems beside our own results, rank what compares, and say "
        "what does not and which command fills an empty cell.",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="saved/<run>, or its name; default: all")
    parser.add_argument("--system", default="", help="the tables of this system alone")
    parser.add_argument("--format", choices=FORMATS, default="text", help="text (default), csv, markdown or latex")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it there instead")
    options = parser.parse_args(arguments)
    told = write_report(Report.of(options.runs), options.format, options.system)
    if options.output:
        write_text(options.output, told)
    print(options.output if options.output else told, end="\n" * bool(options.output))
    return 0


if __name__ == "__main__":
    run_command(main)
