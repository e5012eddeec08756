"""Rebuild the published tables of other systems, with ours beside each figure: a score, a count, a profile, a command.

A cell is "published / ours". Where ours is a number in parentheses, the command of that number fills it; where it is a
dash, nothing of ours compares, and the report says why.
"""

import html
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import mean, stdev
from typing import Any

import pandas as pd

from cityscapes.errors import ParameterError
from cityscapes.files.checksums import read_json
from cityscapes.workspace import output_folder
from dlv3p.evaluation.published_figures import SCORES, Figure, choose, published_figures
from dlv3p.experiments.comparable import (
    Result,
    changes_of,
    network_of,
    objection,
    read_recipe,
    read_results,
    recipe_of,
    stage_before,
    stands_beside,
    training_images,
)
from dlv3p.parameters.cases import Case, case_of
from dlv3p.parameters.network import NetworkParameters
from dlv3p.parameters.protocols import PUBLISHED
from dlv3p.profiling.published import SWITCHES, published_backbones

GROUP = ["images", "protocol", "trained on"]
"""What scores of one ranking share."""

NOTHING = "-"

COUNTED = ("parameters", "GMACs")
PROFILED = {
    "latency": "p50_ms",
    "throughput": "images_per_second",
    "memory": "process_mib",
    "energy": "joules_per_image",
    "GMACs": "gmacs",
    "parameters": "parameters",
}
"""Metrics that `profile.ipynb` measures, with their columns; "end to end" is one of its stages."""

PROFILED_SIZE = (513, 513)
"""Height and width at which the networks of the backbone comparison are counted; theirs are not published."""

CLASSES = {"cityscapes": 19, "voc": 21}
"""Classes of the networks of recipes, by how their names begin."""


@dataclass(frozen=True)
class Counterpart:
    """What of ours stands beside a published figure: a text, "" where there is none yet, or never.

    `command` makes it where it is missing; `why` says what keeps ours and theirs from being compared.
    """

    figure: Figure
    text: str = ""
    command: str = ""
    why: str = ""


def find_counterparts(figures: Sequence[Figure], results: Sequence[Result]) -> list[Counterpart]:
    """Find the counterparts of figures among results, networks that are counted, and stored profiles."""
    profiles = _read_profiles()
    return [_find(figure, results, profiles) for figure in figures]


def _find(figure: Figure, results: Sequence[Result], profiles: list[dict[str, Any]]) -> Counterpart:
    if found := [one for one in results if stands_beside(one, figure)]:
        return Counterpart(figure, _mean(figure, found))
    if figure.metric in COUNTED and figure.recipe:
        return Counterpart(figure, f"{_count(figure):.{max(2, len(figure.written.partition('.')[2]))}f}")
    command, why = command_for(figure), _why_apart(figure)
    if "profile.ipynb" in command and (measured := _profiled(figure, command, profiles)):
        value, machine = measured
        return Counterpart(figure, f"{value:.4g}", why=why and f"{why}; ours on {machine}")
    return Counterpart(figure, command=command, why=why)


@dataclass(frozen=True, repr=False)
class PublishedTable:
    """A published table with ours beside it, and by number the commands that fill its cells."""

    system: str
    title: str
    cells: pd.DataFrame
    commands: pd.DataFrame

    def _repr_html_(self) -> str:
        parts = [self.cells, self.commands] if len(self.commands) else [self.cells]
        with pd.option_context("display.max_colwidth", None):
            told = "".join(part.to_html(index=False, border=0, justify="left") for part in parts)
        return f"<h4>{html.escape(repr(self))}</h4>{told}"

    def __repr__(self) -> str:
        return f"{self.system}: {self.title}, published / ours"


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
        return pd.DataFrame(rows, columns=["run", "images", "protocol", "mIoU, %", "rank", "why unranked"])

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


def backbone_costs() -> pd.DataFrame:
    """Return the backbones of the published comparison: mIoU and latency as published, multiply-adds counted here."""
    switches, classes = SWITCHES["vovnet_system"]
    rows = {}
    for name, published in published_backbones().items():
        network = NetworkParameters(**switches | {"backbone": name, "output_stride": 16})
        macs = _counts(network, classes, *PROFILED_SIZE)["GMACs"]
        rows[name] = (published.mean_iou, published.milliseconds, macs)
    columns = ["mIoU [%] on VOC val, as published", "latency [ms] on a V100, as published", "GMACs, counted here"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def command_for(figure: Figure) -> str:
    """Return the commands, joined by &&, after which there is a counterpart; "" where there can be none."""
    run = run_name(figure)
    before = figure.command.replace("{run}", run)
    if not (figure.is_score and figure.recipe):
        return before
    evaluate = f"papermill evaluate.ipynb -p run {run} -p protocol {figure.protocol}"
    return " && ".join(filter(None, [before, *_trainings(figure.recipe, figure.changes, run), evaluate]))


def run_name(figure: Figure) -> str:
    """Return the name under which the commands train a figure's recipe: the recipe's own, or what it is called."""
    if not figure.recipe:
        return ""
    changed = changes_of(figure.changes).values()
    return "-".join([recipe_of(figure).run or figure.recipe, *(re.sub(r"\W", "_", value) for value in changed)])


def _trainings(recipe: str, changes: str, run: str) -> list[str]:
    """Return the commands that train a recipe, those of the stages first that it starts from."""
    options = [f"-p {name} {shlex.quote(value)}" for name, value in changes_of(changes).items()]
    words = ["papermill train.ipynb", f"-f recipes/{recipe}.yaml", *options, f"-p run {run}", "-p long_run True"]
    before = stage_before(recipe)
    return [*(_trainings(before, "", read_recipe(before).run) if before else []), " ".join(words)]


def _why_apart(figure: Figure) -> str:
    """Return what keeps a figure from being compared, "" if nothing does."""
    if figure.machine:
        return f"measured on another machine, {figure.machine}: side by side, never ranked"
    if figure.data == "Cityscapes test":
        return "scored by the official server alone, to which the zip is uploaded"
    if figure.unit in ("%", "") and figure.metric != "agreement" and figure.protocol not in PUBLISHED:
        return f"by none of our protocols: {figure.protocol}"
    if not figure.recipe and not figure.command:
        return figure.note or "no recipe of ours trains this network"
    return ""


def _mean(figure: Figure, results: Sequence[Result]) -> str:
    """Return the mean score over seeds in percent, with the standard deviation and the number of seeds."""
    by_seed: dict[Any, list[float]] = {}
    for one in results:
        by_seed.setdefault(one.parameters["seed"], []).append(100 * one.scores[SCORES[figure.metric]])
    values = [mean(scores) for scores in by_seed.values()]
    told = f"{mean(values):.2f}"
    return told if len(values) == 1 else f"{told} ± {stdev(values):.2f}, {len(values)} seeds"


def _count(figure: Figure) -> float:
    """Count the parameters in millions, or the multiply-adds in 10^9, of the network of a figure's recipe."""
    size = re.search(r"\d+ x (\d+) x (\d+)", figure.protocol) if figure.metric == "GMACs" else None
    height, width = map(int, size.groups()) if size else (0, 0)
    told = re.search(r"(\d+) classes", figure.protocol)
    classes = int(told[1]) if told else CLASSES[figure.recipe.partition("_")[0]]
    return _counts(network_of(figure), classes, height, width)[figure.metric]


@lru_cache(maxsize=64)
def _counts(network: NetworkParameters, classes: int, height: int, width: int) -> dict[str, float]:
    import torch

    from dlv3p.models.anatomy import count_macs, count_parameters
    from dlv3p.models.deeplab import build_network

    if height:
        return {"GMACs": count_macs(lambda: build_network(network, classes), height, width)["total"] / 1e9}
    with torch.device("meta"):
        return {"parameters": count_parameters(build_network(network, classes))["total"] / 1e6}


def _read_profiles() -> list[dict[str, Any]]:
    """Read the stored profiles, the newest first; those of earlier versions that miss something are left out."""
    paths = sorted(output_folder("").glob("*/profile.json"), key=lambda path: -path.stat().st_mtime_ns)
    profiles = []
    for path in paths:
        try:
            content = read_json(path)
            if isinstance(content, dict) and isinstance(content["rows"], list) and content["asked"]:
                profiles.append(content)
        except (OSError, ValueError, KeyError):
            continue
    return profiles


def _profiled(figure: Figure, command: str, profiles: Sequence[dict[str, Any]]) -> tuple[float, str] | None:
    """Return what the profile that a command makes has measured, and the machine; None without such a profile."""
    wanted = dict(re.findall(r"-p (\w+) (\S+)", command.rpartition("papermill ")[2]))
    height, width = map(int, wanted["sizes"].split("x"))
    case = Case(figure.backbone, figure.output_stride, height, width)
    for content in profiles:
        asked = content["asked"].get("network", "run")
        if asked != wanted.get("network", "run") or (asked == "run" and content["run"] != wanted["run"]):
            continue
        for row in content["rows"]:
            value = _measured(figure.metric, row) if case_of(row) == case and row["status"] == "ok" else None
            if isinstance(value, int | float):
                gpu = content["machine"].get("gpu") if row["device"].startswith("cuda") else None
                return float(value), str(gpu or content["machine"].get("processor"))
    return None


def _measured(metric: str, row: dict[str, Any]) -> Any:
    if metric == "end to end":
        return row["stages_ms"].get(metric)
    value = row.get(PROFILED[metric])
    return value / 1e6 if metric == "parameters" and isinstance(value, int) else value


def _table(system: str, title: str, counterparts: Sequence[Counterpart]) -> PublishedTable:
    """Arrange figures as a published table: a row per network, a column per metric and the way it was measured."""
    rows: dict[tuple[str, ...], list[Counterpart]] = {}
    for one in counterparts:
        row = (one.figure.network or one.figure.data, one.figure.variant, one.figure.part)
        rows.setdefault(row, []).append(one)
    commands = {row: _joined(one.command for one in cells) for row, cells in rows.items()}
    listed = [command for command in dict.fromkeys(commands.values()) if command]
    numbers = {command: f"({number})" for number, command in enumerate(listed, start=1)}
    cells = pd.DataFrame(
        {_column(one.figure): _told(one, numbers[commands[row]] if one.command else NOTHING) for one in cells}
        for row, cells in rows.items()
    )
    labels = pd.DataFrame(list(rows), columns=["network", "training", "of"])
    labels = labels.loc[:, (labels != "").any()]
    cells.columns = pd.MultiIndex.from_tuples(cells.columns)
    labels.columns = pd.MultiIndex.from_tuples([("", name) for name in labels.columns])
    told = pd.DataFrame({"cell": numbers.values(), "command": listed})
    return PublishedTable(system, title, pd.concat([labels, cells.fillna("")], axis=1), told)


def _told(counterpart: Counterpart, otherwise: str) -> str:
    return f"{counterpart.figure.written} / {counterpart.text or otherwise}"


def _joined(commands: Iterable[str]) -> str:
    """Join the commands of a row, each step once."""
    return " && ".join(dict.fromkeys(step for command in commands for step in command.split(" && ") if step))


def _column(figure: Figure) -> tuple[str, str]:
    where = [figure.data, figure.protocol, f"on {figure.machine}" if figure.machine else ""]
    unit = "" if figure.metric.startswith(figure.unit) else f", {figure.unit}"  # GMACs have their G
    return f"{figure.metric}{unit}", ", ".join(filter(None, where))
