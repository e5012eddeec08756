"""Report an acceptance check: a row per network and its verdict by the limits, as table, text and JSON."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cityscapes.workspace import output_folder
from dlv3p.evaluation.statistics import Estimate
from dlv3p.profiling.counters import NOT_MEASURED
from dlv3p.profiling.timing import InterleavedTimes, Speedup
from dlv3p.runs.folders import write_json
from dlv3p.runs.provenance import hardware

NOT_FASTER = "fewer MACs, not faster"
RED = "color: #ffffff; background-color: #b00020; font-weight: bold"
GREEN = "color: #00600f"

FEWER = 0.99
"""A network with less than this share of another's MACs has fewer."""
FASTER = 1.03
"""A network is faster when the median ratio reaches this and the lower bound is above 1; else it is noise."""


@dataclass(frozen=True)
class Limits:
    """The largest loss of a candidate, in points of mIoU, and its smallest speed-up over the reference.

    A `smallest_speedup` above 0 also requires that the gain exceeds noise; 0 requires nothing, as for an export.
    `smallest_agreement` is the share of pixels that must get the reference's class, for networks that should be
    equivalent: where weights were changed on purpose, scores decide.
    """

    largest_loss: float = 0.5
    smallest_speedup: float = 1.0
    smallest_agreement: float = 0.0


@dataclass(frozen=True)
class AcceptanceRow:
    """The measurements of one network: `change` in points of mIoU, None for the reference; memory in MiB, or None."""

    title: str
    mean_iou: float
    change: Estimate | None
    agreement: float
    memory_mib: float | None
    size_bytes: int | None
    gmacs: float | None
    parameters: int | None


@dataclass(frozen=True, repr=False)
class AcceptanceReport:
    """The rows, the reference first; `measured` are the conditions. Displayed as a table with failures in red.

    `timings` are all times; `absent` are titles and reasons of networks that cannot run here.
    """

    rows: tuple[AcceptanceRow, ...]
    timings: InterleavedTimes
    limits: Limits
    measured: dict[str, Any]
    absent: tuple[tuple[str, str], ...] = ()
    machine: dict[str, Any] = field(default_factory=hardware)

    def verdict(self, row: AcceptanceRow) -> tuple[str, list[str]]:
        """Return "reference", "pass" or "fail", and the remarks about a row: why it fails, and what is uncertain.

        The verdict follows the measured values; a remark says where the interval includes the limit.
        """
        if row.change is None:
            return "reference", []
        worse, perhaps_worse = self._judge_scores(row)
        slow, perhaps_slow = self._judge_speed(row)
        return "fail" if worse or slow else "pass", [*worse, *slow, *perhaps_worse, *perhaps_slow]

    def _judge_scores(self, row: AcceptanceRow) -> tuple[list[str], list[str]]:
        """Return why the predictions of a row fail, and what is uncertain about them."""
        reasons, remarks = [], []
        limits, change = self.limits, row.change
        if not -change.value <= limits.largest_loss:
            reasons.append(f"loses {-change.value:.2f} points of mIoU, more than {limits.largest_loss:g}")
        if not row.agreement >= limits.smallest_agreement:
            reasons.append(f"{row.agreement:.3%} same pixels, less than {limits.smallest_agreement:.3%}")
        if change.low <= -limits.largest_loss <= change.high:
            remarks.append(f"the interval includes the limit of {limits.largest_loss:g} points")
        elif not change.known:
            remarks.append(str(change))
        return reasons, remarks

    def _judge_speed(self, row: AcceptanceRow) -> tuple[list[str], list[str]]:
        """Return why the speed of a row fails, and what is uncertain about it."""
        reasons, remarks = [], []
        limit, speedup = self.limits.smallest_speedup, self.speedup(row.title)
        if self.not_faster(row):
            reasons.append(NOT_FASTER)
        if speedup.times < limit:
            reasons.append(f"{speedup.times:.2f}x the speed, less than {limit:g}x")
        elif limit > 0 and not self.is_faster(row):
            reasons.append("not faster by more than noise")
        if limit > 0 and speedup.low <= limit <= speedup.high:
            remarks.append(f"the interval includes the limit of {limit:g}x")
        return reasons, remarks

    def speedup(self, title: str, over: str = "") -> Speedup:
        """Return how many times faster a network is than another one of the report, by default the reference."""
        return self.timings.speedup(title, over or self.rows[0].title)

    def is_faster(self, row: AcceptanceRow) -> bool:
        """Return whether a network is faster than the reference by more than noise."""
        speedup = self.speedup(row.title)
        return speedup.times >= FASTER and speedup.low > 1

    def not_faster(self, row: AcceptanceRow) -> bool:
        """Return whether a row has fewer MACs than the reference without being faster."""
        first = self.rows[0]
        counted = row.gmacs is not None and first.gmacs is not None
        return counted and row.gmacs < FEWER * first.gmacs and not self.is_faster(row)

    @property
    def passed(self) -> bool:
        """Whether no candidate fails."""
        return all(self.verdict(row)[0] != "fail" for row in self.rows)

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        first, records = self.rows[0], []
        for row in self.rows:
            verdict, remarks = self.verdict(row)
            change, speedup = row.change or Estimate(0.0, 0.0, 0.0, 1.0, 0), self.speedup(row.title)
            records.append(
                {
                    "title": row.title,
                    "mIoU": row.mean_iou,
                    "change": change.value,
                    "change_low": change.low,
                    "change_high": change.high,
                    "change_blocks": change.blocks,
                    "agreement": row.agreement,
                    "milliseconds": self.timings.milliseconds(row.title),
                    "speedup": speedup.times,
                    "speedup_low": speedup.low,
                    "speedup_high": speedup.high,
                    "memory_mib": row.memory_mib,
                    "memory_ratio": _ratio(row.memory_mib, first.memory_mib),
                    "size_bytes": row.size_bytes,
                    "size_ratio": _ratio(row.size_bytes, first.size_bytes),
                    "parameters": row.parameters,
                    "gmacs": row.gmacs,
                    "macs_ratio": _ratio(row.gmacs, first.gmacs),
                    "verdict": verdict,
                    "remarks": "; ".join(remarks),
                }
            )
        return records

    def table(self) -> pd.DataFrame:
        """Return a row per network, by title, with every number; ratios are candidate to reference, speed-ups inverse.

        Changes are in points of mIoU, memory in MiB, sizes in bytes; unknown values are missing.
        """
        return pd.DataFrame(self._records).set_index("title")

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values, unknown ones as null."""
        rows = [{name: None if _missing(value) else value for name, value in row.items()} for row in self._records]
        return {
            "limits": asdict(self.limits),
            "measured": self.measured,
            "machine": self.machine,
            "rows": rows,
            "absent": dict(self.absent),
            "seconds": self.timings.seconds,
        }

    def save(self, run: str, name: str) -> Path:
        """Write `outputs/<run>/<name>.json` and return its path."""
        path = output_folder(run) / f"{name}.json"
        write_json(path, self.as_json())
        return path

    def formatted(self) -> pd.DataFrame:
        """Return the table as formatted text for display."""
        columns = {
            "mIoU": lambda row: f"{row['mIoU']:.4f}",
            "change in points [95 %]": _change,
            "same pixels": lambda row: f"{row['agreement']:.2%}",
            "ms": lambda row: f"{row['milliseconds']:.1f}",
            "speed-up [95 %]": _speedup,
            "memory MiB": lambda row: _with_ratio(row["memory_mib"], "{:.0f}", row["memory_ratio"]),
            "size MB": lambda row: _with_ratio(row["size_bytes"], "{:.1f}", row["size_ratio"], unit=1e6),
            "M parameters": lambda row: "" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f}",
            "GMACs": lambda row: "" if row["gmacs"] is None else _with_ratio(row["gmacs"], "{:.2f}", row["macs_ratio"]),
            "verdict": lambda row: row["verdict"] + (f": {row['remarks']}" if row["remarks"] else ""),
        }
        rows = {row["title"]: [show(row) for show in columns.values()] for row in self._records}
        rows |= {title: [""] * (len(columns) - 1) + [reason] for title, reason in self.absent}
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(columns)).rename_axis("network")

    def __str__(self) -> str:
        return f"{self.formatted().to_string()}\n{self._caption()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Show the table in a notebook: failures red, passes green; all text escaped."""
        styler = self.formatted().style.format(escape="html").format_index(escape="html")
        return styler.apply(self._colors, axis=None).set_caption(self._caption()).to_html()

    def _colors(self, shown: pd.DataFrame) -> pd.DataFrame:
        colors = pd.DataFrame("", index=shown.index, columns=shown.columns)
        for row in self.rows:
            verdict, _ = self.verdict(row)
            if verdict != "reference":
                colors.loc[row.title, "verdict"] = RED if verdict == "fail" else GREEN
            if self.not_faster(row):
                colors.loc[row.title, ["speed-up [95 %]", "GMACs"]] = RED
        return colors

    def _caption(self) -> str:
        measured = self.measured
        threads = "1 thread" if measured["threads"] == 1 else f"{measured['threads']} threads"
        return (
            f"{measured['images']} images of the {measured['split']} split; times of "
            f"{measured['latency_height']} x {measured['latency_width']} pixels, {threads}, "
            f"{measured['repeats']} interleaved rounds"
        )


def _ratio(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _change(row: dict[str, Any]) -> str:
    if row["verdict"] == "reference":
        return ""
    interval = "" if np.isnan(row["change_low"]) else f" [{row['change_low']:+.2f}, {row['change_high']:+.2f}]"
    return f"{row['change']:+.2f}{interval}"


def _speedup(row: dict[str, Any]) -> str:
    if row["verdict"] == "reference":
        return ""
    return f"{row['speedup']:.2f}x [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"


def _with_ratio(value: float | None, shape: str, ratio: float | None, unit: float = 1.0) -> str:
    if value is None:
        return NOT_MEASURED
    return shape.format(value / unit) + ("" if ratio in (None, 1) else f" ({ratio:.2f}x)")
