"""Check whether a run folder is complete and unchanged: each file by itself, and against the others.

Nothing is written. A change shows where a file no longer matches its recorded hash, or the other files: run.json has a
hash of itself; it, metrics.csv and model.safetensors repeat what the checkpoints hold. There is no signature:
consistent changes to all files, hashes included, are not detected.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from cityscapes.errors import MissingInputError, UserError, reason
from cityscapes.files.checksums import file_sha256
from cityscapes.files.listing import walk
from cityscapes.files.untrusted import regular
from cityscapes.findings import Finding
from dlv3p.runs.folders import HISTORY_COLUMNS, LATER_COLUMNS, refuse_busy
from dlv3p.runs.inputs import RunInputs
from dlv3p.runs.loading import differences_from_record
from dlv3p.runs.record import HASH_KEY, is_complete, planned_epochs, read_record, record_problems, record_sha256
from dlv3p.weights.checkpoint import load_checkpoint, model_from_checkpoint
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.loading import VARIANCE, load_model

DAMAGED, MISSING, LEFT_OVER = "damaged", "missing", "left over"
"""The kinds of errors; notes have other kinds."""

RESTORE = "restore the file from a backup, or train under another run name"
RUN_AGAIN = "run it again: training continues, and a finished run writes what is missing"


def check_run(folder: Path, *, every_byte: bool = False) -> tuple[list[Finding], str]:
    """Return the findings of a run folder, errors first, and a summary of the data that was compared.

    No finding is an error when the folder is complete and unchanged. Changed data is a note, or an error with
    `every_byte`. Raises MissingInputError when there is no such folder, BusyError while a process trains in it.
    """
    if not folder.is_dir():
        raise MissingInputError(f"{folder}: no such run folder")
    refuse_busy(folder)
    check = _RunCheck(folder, every_byte=every_byte)
    findings = sorted(check.findings(), key=lambda finding: not finding.is_error)
    return findings, check.inputs.summary()


class _RunCheck:
    """Read each file of a run folder once, and keep what later comparisons need."""

    def __init__(self, folder: Path, *, every_byte: bool) -> None:
        self.folder, self.every_byte = folder, every_byte
        self.record: Mapping[str, Any] = {}
        self.states: dict[str, dict[str, Any]] = {}

    def findings(self) -> Iterator[Finding]:
        yield from self._check_record()
        for name in ("last", "best"):
            yield from self._check_checkpoint(name)
        yield from self._check_progress()
        yield from self._check_metrics()
        yield from self._check_weights()
        yield from self._check_notebook()
        for path in sorted(walk(self.folder, hidden=True)):
            if path.name.endswith((".tmp", ".bad")):
                problem = "a writer was killed" if path.suffix == ".tmp" else "a damaged file that was set aside"
                yield self._error(LEFT_OVER, str(path.relative_to(self.folder)), problem, "delete it")
        self.inputs = RunInputs(self.folder.name, self.record, every_byte=self.every_byte)
        yield from self.inputs.findings()

    @property
    def imported(self) -> bool:
        """Whether the network was imported from a file, so that there is no training to check."""
        return "imported" in self.record

    def _error(self, kind: str, where: str, problem: str, remedy: str = RESTORE) -> Finding:
        return Finding(kind, self.folder.name, f"{self.folder.name}/{where}", problem, remedy)

    def _note(self, kind: str, where: str, problem: str, remedy: str) -> Finding:
        return Finding(kind, self.folder.name, where, problem, remedy, is_error=False)

    def _missing(self, where: str, remedy: str = RUN_AGAIN) -> Finding:
        return self._error(MISSING, where, "does not exist", remedy)

    def _check_record(self) -> Iterator[Finding]:
        path = self.folder / "run.json"
        if not path.is_file():
            yield self._missing("run.json", RESTORE)
            return
        try:
            self.record = read_record(path)
        except (OSError, ValueError) as error:
            yield self._error(DAMAGED, "run.json", f"cannot be read: {reason(error)}")
            return
        for problem in record_problems(self.record):
            yield self._error(DAMAGED, "run.json", problem)
        if HASH_KEY not in self.record:
            problem = "has no hash of itself: edits cannot be detected"
            yield self._note(
                "no hash", "run.json", problem, "train under another run name; earlier versions wrote none"
            )
        elif self.record[HASH_KEY] != record_sha256(self.record):
            yield self._error(DAMAGED, "run.json", f"was changed: its {HASH_KEY} does not match")

    def _check_checkpoint(self, name: str) -> Iterator[Finding]:
        where = f"checkpoints/{name}.pt"
        path = self.folder / where
        if not path.is_file():
            scored = self.states.get("last", {"history": True}).get("history")
            if name == "last" or scored:  # there is no best epoch before the first one ends
                yield self._missing(where)
            return
        sidecar = path.with_name(path.name + ".json")
        if not sidecar.is_file():
            yield self._missing(f"{where}.json", "without it, changes to the checkpoint cannot be detected")
        try:
            state = load_checkpoint(path)
            model_from_checkpoint(state)
        except UserError as error:
            yield self._error(DAMAGED, where, str(error).removeprefix(f"{path}: "))
            return
        except (
            RuntimeError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:  # missing entries, or entries that do not match their network
            yield self._error(DAMAGED, where, f"does not describe its network: {reason(error)}")
            return
        if sidecar.is_file() and json.loads(sidecar.read_text())["sha256"] != file_sha256(path):
            problem = "is older than its record: the run was killed while saving"
            yield self._error(MISSING, where, problem, RUN_AGAIN)
        self.states[name] = state
        yield from self._compare_with_record(where, state)
        for part in ("model", "training_model"):
            for entry, value in state.get(part, {}).items():
                if value.is_floating_point() and not torch.isfinite(value).all():
                    yield self._error(DAMAGED, where, f"{part}.{entry} holds a value that is not finite")
                elif entry.endswith(f".{VARIANCE}") and (value < 0).any():
                    yield self._error(DAMAGED, where, f"{part}.{entry} holds a variance below zero")

    def _compare_with_record(self, where: str, state: Mapping[str, Any]) -> Iterator[Finding]:
        for problem in differences_from_record(self.record, state):
            yield self._error(DAMAGED, where, problem)

    def _check_progress(self) -> Iterator[Finding]:
        """Compare the epochs of the two checkpoints with each other and with the planned ones."""
        last, best = self.states.get("last"), self.states.get("best")
        if last is None or self.imported:
            return
        history, where = last.get("history", []), "checkpoints/last.pt"
        if [row.get("epoch") for row in history] != list(range(1, len(history) + 1)) or last["epoch"] != len(history):
            yield self._error(DAMAGED, where, "its epochs are not 1, 2, 3 ...")
            return
        if best is not None and best["epoch"] != last["best_epoch"]:
            problem = f"is of epoch {best['epoch']}, but the best of checkpoints/last.pt is {last['best_epoch']}"
            yield self._error(
                DAMAGED, "checkpoints/best.pt", problem, RUN_AGAIN if best["epoch"] > last["epoch"] else RESTORE
            )
        planned = planned_epochs(self.record)
        if planned is not None and len(history) < planned and not is_complete(self.record, history, last["best_epoch"]):
            yield self._error(MISSING, where, f"{len(history)} of {planned} epochs are finished", RUN_AGAIN)

    def _check_metrics(self) -> Iterator[Finding]:
        path, where = self.folder / "metrics.csv", "metrics.csv"
        history = self.states.get("last", {}).get("history")
        if self.imported or history == []:
            return
        if not path.is_file():
            yield self._missing(where)
            return
        try:
            text = regular(path).read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            yield self._error(DAMAGED, where, f"cannot be read: {reason(error)}")
            return
        header, *rows = list(csv.reader(io.StringIO(text))) or [[]]
        if header != [name for name in HISTORY_COLUMNS if name in header or name not in LATER_COLUMNS]:
            yield self._error(DAMAGED, where, f"its header is not {','.join(HISTORY_COLUMNS)}")
            return
        if not text.endswith("\n"):
            yield self._error(DAMAGED, where, "its last line is incomplete")
            return
        if history is None:
            return
        expected = [[str(row.get(name, "")) for name in header] for row in history]
        if len(rows) != len(expected):
            problem = f"has {len(rows)} epochs, but checkpoints/last.pt has {len(expected)}"
            yield self._error(DAMAGED, where, problem, RUN_AGAIN)
        for number, (row, wanted) in enumerate(zip(rows, expected, strict=False), start=2):
            if row != wanted:
                columns = [name for name, one, other in zip(header, row, wanted, strict=False) if one != other]
                problem = f"line {number} differs from checkpoints/last.pt: {', '.join(columns) or 'its length'}"
                yield self._error(DAMAGED, where, problem, RUN_AGAIN)

    def _check_weights(self) -> Iterator[Finding]:
        path, where, best = self.folder / "model.safetensors", "model.safetensors", self.states.get("best")
        if not path.is_file():
            last = self.states.get("last", {})
            history = last.get("history")
            if self.imported or history and is_complete(self.record, history, last["best_epoch"]):
                yield self._missing(where)
            return
        try:
            loaded = load_model(path)
        except UserError as error:
            yield self._error(DAMAGED, where, str(error).removeprefix(f"{path}: "))
            return
        if best is None:
            return
        if weights_sha256(loaded.model.state_dict()) != weights_sha256(best["model"]):
            yield self._error(
                DAMAGED, where, "its weights are not those of checkpoints/best.pt", f"delete it, and {RUN_AGAIN}"
            )
        if tuple(loaded.class_names or ()) != tuple(best["class_names"]):
            yield self._error(DAMAGED, where, "its class_names are not those of checkpoints/best.pt")

    def _check_notebook(self) -> Iterator[Finding]:
        path, where = self.folder / "train.ipynb", "train.ipynb"
        if not path.is_file():
            return
        try:
            cells = json.loads(regular(path).read_text(encoding="utf-8"))["cells"]
            outputs = [output for cell in cells for output in cell.get("outputs", ())]
            failed = [output.get("ename") for output in outputs if output["output_type"] == "error"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            yield self._error(
                DAMAGED, where, f"not a notebook: {reason(error)}", "delete it, and execute the notebook again"
            )
            return
        if failed:
            yield self._error(DAMAGED, where, f"a cell failed: {failed[0]}", "execute it again with papermill")
