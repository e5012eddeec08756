"""The papermill engine of the suite's notebooks: early checks of parameters, default output paths, one-line errors.

A notebook of the suite is recognized by its metadata, `"dlv3p": {"parameters": "TrainParameters"}`, which names the
class of `dlv3p.parameters.notebooks` that its parameters cell mirrors. For these notebooks, and no others:

* `papermill train.ipynb -p output_stride 8` needs no OUTPUT_PATH: the executed copy goes to `outputs/<run>/`, and text
  arrives as typed, see `papermill_words.py`. What cells print appears on stderr as it comes, above papermill's bar.
* Unknown parameters, invalid values, and data, weights, and runs that do not exist are refused before a kernel starts
  and before anything is written.
* The executed copy of a training run is also kept with the run, as `saved/<run>/train.ipynb`.
* An error that the user can fix ends with one line and the exit status of its kind, not with a traceback.

For all notebooks, the copy is written atomically and says in which cell a kernel died, or ran longer than
`--execution-timeout` or `DLV3P_CELL_SECONDS` allows. Ctrl-C and SIGTERM reach the kernel, where training saves and
stops; papermill then exits with status 130 or 143.
"""

# ruff: noqa: E402
import ast
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

globals()["SuiteEngine"] = None  # papermill, if imported first below, asks for it at once; it gets it at the end

import click
import nbformat
from jupyter_client.kernelspec import NoSuchKernel, find_kernel_specs, get_kernel_spec
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import LocalHandler
from traitlets.config import Config

from cityscapes import errors
from cityscapes.files.atomic import write_text
from cityscapes.files.leftovers import temporary_folder
from cityscapes.workspace import run_folder
from dlv3p.jupyter.executed_copy import NETWORK, SEAL, add_header, network_sha256, seal, what_is_used, without_header
from dlv3p.jupyter.papermill_errors import (
    USER_ERRORS,
    DeadKernel,
    FailedNotebook,
    MissingNamed,
    RefusedParameters,
    UnwritableCopy,
    explain_failing_machine,
)
from dlv3p.jupyter.papermill_signals import SIGNALS, KernelSignals, StoppedNotebook
from dlv3p.jupyter.papermill_words import check_sources, completed, parameters_class, with_notebook_found
from dlv3p.parameters import notebooks as config
from dlv3p.parameters.base import Parameters
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import find_named_runs, find_run
from dlv3p.runs.listing import read_state
from dlv3p.runs.record import data_root_of, refuse_other_run
from dlv3p.runtime.callbacks import RESUME

CELL_SECONDS = "DLV3P_CELL_SECONDS"
"""Environment variable with the seconds that a cell may run; by default there is no limit."""

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
"""The kernel of the suite's notebooks."""

DIED_AT_START = "Kernel died before replying"
"""What jupyter_client says, without a class of its own, of a kernel that ended before its first cell."""

LONGEST_SOCKET_NAME = 103
"""Bytes that every system accepts as the name of a socket; Linux accepts 107."""

PATH_PARAMETERS = {"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}
"""The parameters that papermill's `--inject-paths` adds."""


class LinesAboveBar:
    """A file whose lines appear on stderr as they are written, above papermill's bar."""

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str) -> None:
        """Show the lines that are complete; keep the rest until the next call."""
        from tqdm import tqdm

        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if not line.endswith(RESUME):  # papermill's last line says it
                tqdm.write(line, file=sys.stderr)

    def flush(self) -> None:
        """Do nothing: a line that has begun waits for its end."""

    def end(self) -> None:
        """Show a line that has begun: its cell has ended, and nothing follows."""
        if self._begun:
            self.write("\n")


class SuiteEngine(NBClientEngine):
    """papermill's default engine, with checks before a notebook of the suite starts and one line when it fails."""

    @classmethod
    @explain_failing_machine()
    def execute_notebook(cls, nb: nbformat.NotebookNode, kernel_name: str, **options: Any) -> nbformat.NotebookNode:
        """Execute a notebook.

        Raises RefusedParameters or MissingNamed before a kernel starts, FailedNotebook for a user's error in a cell.
        """
        _check_kernel(kernel_name)
        options["execution_timeout"] = cell_seconds(options.get("execution_timeout"))
        if "dlv3p" not in nb.metadata:
            return super().execute_notebook(nb, kernel_name, **options)
        without_header(nb)
        nb.metadata["dlv3p"].pop(SEAL, None)
        try:
            parameters = check_parameters(nb)
            refuse_missing(parameters)
        except errors.ParameterError as error:
            raise RefusedParameters(str(error)) from None
        except errors.MissingInputError as error:
            raise MissingNamed(str(error)) from None
        trains, network = isinstance(parameters, TrainParameters), network_sha256(parameters)
        try:
            executed = super().execute_notebook(nb, kernel_name, **options)
            _add_header(executed, parameters)
            _raise_for_failed_cell(executed)
            used = what_is_used(parameters)  # now: of the data, masks may have been made first
            seal(executed, used if trains else {**used, NETWORK: network})
        except (DeadKernel, StoppedNotebook):
            _add_header(nb, parameters)
            with suppress(PapermillExecutionError):
                _raise_for_failed_cell(nb)
            raise
        except PapermillExecutionError as failure:
            if failure.ename in USER_ERRORS:
                raise FailedNotebook(failure) from None
            raise
        if trains:
            kept = run_folder(parameters.run_name) / "train.ipynb"
            copy = nbformat.from_dict(executed)
            add_header(copy, parameters, kept)
            seal(copy, used)
            write_text(kept, nbformat.writes(copy) + "\n")
        return executed

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: Any) -> Any:
        """Run the cells, and mark a cell in which the kernel died or was stopped, which papermill calls completed."""
        with KernelSignals(cell_seconds=options.get("execution_timeout")) as signals, private_sockets() as sockets:
            ours = {"config": sockets, "kernel_manager_class": signals.manager_class}
            ours |= {"on_cell_start": signals.refuse_next_cell, "on_cell_executed": signals.end_cell}
            ours |= {"on_cell_error": _show_error}
            if _runs_as_papermill() and not options.get("log_output") and options.get("stdout_file") is None:
                options["stdout_file"] = lines = LinesAboveBar()
                ours["on_cell_executed"] = partial(_end_cell, signals, lines)
            try:
                executed = super().execute_managed_notebook(nb_man, kernel_name, **{**ours, **options})
            except (RuntimeError, StoppedNotebook, CellTimeoutError) as error:
                ended = isinstance(error, DeadKernelError | CellTimeoutError) or DIED_AT_START in str(error)
                if signals.received is None and not ended:
                    raise
                raise _mark_last_cell(nb_man, signals, error) from None
            if signals.received is not None and _failed_cell(nb_man.nb) not in (None, *USER_ERRORS):
                raise signals.stopped()
            return executed


async def _show_error(cell: nbformat.NotebookNode, execute_reply: dict[str, Any], **_: object) -> None:
    """Give a failed cell the error that its kernel names, where it shows none: a stop is told there in a sentence."""
    told = execute_reply["content"]
    if not any(output.output_type == "error" for output in cell.outputs):
        line = f"{told['ename']}: {told['evalue']}"
        error = {"ename": told["ename"], "evalue": told["evalue"], "traceback": [line]}
        cell.outputs.append(nbformat.v4.new_output("error", **error))


async def _end_cell(signals: KernelSignals, lines: LinesAboveBar, **facts: Any) -> None:
    lines.end()
    await signals.end_cell(**facts)


def _add_header(nb: nbformat.NotebookNode, parameters: Parameters) -> None:
    add_header(nb, parameters, Path(nb.metadata.papermill.output_path or "copy.ipynb"))


def _check_kernel(name: str) -> None:
    try:
        get_kernel_spec(name)
    except NoSuchKernel:
        installed = ", ".join(sorted(find_kernel_specs())) or "none"
        raise RefusedParameters(
            f"kernel {name!r}: not installed; take one of {installed} (papermill -k NAME), or install it with: "
            "python -m ipykernel install --user --name NAME"
        ) from None


def cell_seconds(given: int | None) -> int | None:
    """Return the seconds that a cell may run: those given, else the environment's, else None for no limit."""
    text = os.environ.get(CELL_SECONDS, "") if given is None else str(given)
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or not int(text):
        raise RefusedParameters(f"{CELL_SECONDS}={text!r}: give a whole number of seconds from 1, or nothing")
    return int(text)


def _mark_last_cell(nb_man: NotebookExecutionManager, signals: KernelSignals, cause: Exception) -> Exception:
    """Record in the running cell how it ended, and return the error that says so."""
    started = [entry for entry in enumerate(nb_man.nb.cells) if entry[1].metadata.papermill.start_time]
    index, cell = started[-1] if started else (0, nb_man.nb.cells[0])
    if signals.received is not None:
        error: Exception = signals.stopped(f" in cell {index + 1}")
        name, line = SIGNALS[signals.received].__name__, str(error)
    elif isinstance(cause, CellTimeoutError):
        line = (
            f"cell {index + 1} ran longer than allowed; raise --execution-timeout, or {CELL_SECONDS}, or leave it out"
        )
        name, error = "CellTimeoutError", DeadKernel(line)
    else:
        line = f"the kernel died in cell {index + 1}, most likely for lack of memory; reduce the batch or image size"
        name, error = "DeadKernelError", DeadKernel(line)
    if cell.cell_type == "code":
        cell.outputs.append(nbformat.v4.new_output("error", ename=name, evalue=line, traceback=[line]))
    nb_man.cell_exception(cell, cell_index=index)
    return error


def _failed_cell(nb: nbformat.NotebookNode) -> str | None:
    """Return the name of the error of the cell that failed, if any."""
    outputs = [output for cell in nb.cells for output in cell.get("outputs", ())]
    return next((output.ename for output in outputs if output.output_type == "error"), None)


@contextmanager
def private_sockets() -> Iterator[Config]:
    """Let one kernel communicate through sockets in a folder of its own, which is removed afterwards.

    Only this user can read them, whereas TCP is open to all users of the machine, about which ipykernel warns. If the
    folder's name is too long for a socket, TCP is used after all.
    """
    with temporary_folder("dlv3p-kernel") as folder:
        address = str(Path(folder, "kernel"))  # jupyter_client would use the current folder, which may be shared
        fits = os.name == "posix" and len(os.fsencode(address)) + len("-5") <= LONGEST_SOCKET_NAME
        sockets = {"transport": "ipc", "ip": address} if fits else {}
        # By default, the file that names them would stay in the system's folder for temporary files after a kill.
        yield Config({"KernelManager": {"connection_file": str(folder / "connection.json"), **sockets}})


def _raise_for_failed_cell(nb: nbformat.NotebookNode) -> None:
    """Raise papermill's error for a failed cell, after saving the copy with papermill's red marker above the cell."""
    from papermill.execute import raise_for_execution_errors  # papermill.execute imports this module

    raise_for_execution_errors(nb, nb.metadata.papermill.output_path)


def check_parameters(nb: nbformat.NotebookNode) -> Parameters:
    """Check what a notebook's parameters cell and papermill's cell below it assign; raises ParameterError."""
    for name in nb.metadata.papermill.get("parameters", {}):
        if not str(name).isidentifier():  # papermill would inject it into the cell, and the kernel would run it
            raise errors.ParameterError(f"{name!r} is not a parameter name; use letters, digits, and '_'")
    if not any("parameters" in cell.metadata.get("tags", []) for cell in nb.cells):
        raise errors.ParameterError(
            "no cell is tagged 'parameters', so that none could be set; restore the notebook, or tag that cell"
        )
    values: dict[str, Any] = {}
    for tag in ("parameters", "injected-parameters"):
        for cell in nb.cells:
            if tag in cell.metadata.get("tags", []):
                values |= assigned_literals(cell.source)
    kind = nb.metadata["dlv3p"]["parameters"]
    return getattr(config, kind).from_mapping({name: values[name] for name in values if name not in PATH_PARAMETERS})


def refuse_missing(parameters: Parameters) -> None:
    """Raise a user's error for data, weights, or a run that are named and do not exist, or a run that is another."""
    uses_run = isinstance(parameters, config.RunParameters)
    if uses_run and parameters.run:
        find_run(parameters.run)
    if isinstance(parameters, config.WatchParameters | config.ReplayParameters) and parameters.run:
        read_state(parameters.run)  # which takes runs that have no checkpoint yet
    find_named_runs(parameters)
    parameters.find_inputs(data_root=data_root_of(parameters.run) if uses_run else "")
    with suppress(errors.IntegrityError):  # what a damaged record is, the cells tell
        if isinstance(parameters, TrainParameters):
            refuse_other_run(parameters)


def assigned_literals(source: str) -> dict[str, Any]:
    """Return the names and values that a cell assigns; raises ParameterError for anything but `name = literal`."""
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise errors.ParameterError(f"parameters cell, line {error.lineno}: {error.msg}") from None
    values = {}
    for statement in statements:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=node)
                | ast.AnnAssign(target=ast.Name(id=name), value=node)
            ):
                values[name] = _literal(node, statement)
            case _:
                raise _no_literal(statement)
    return values


def _literal(node: ast.expr | None, statement: ast.stmt) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value="nan" | "inf" | "-inf" as value)]):
            return float(value)  # the form in which papermill writes them
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise _no_literal(statement) from None


def _no_literal(statement: ast.stmt) -> errors.ParameterError:
    return errors.ParameterError(
        f"parameters cell, line {statement.lineno}: {ast.unparse(statement)!r} is not `name = literal`; "
        "compute derived values in a later cell"
    )


def _runs_as_papermill() -> bool:
    """Return whether this process is `papermill ...` or `python -m papermill ...`, not a program that imports it."""
    return Path(sys.argv[0]).name == "papermill" or (sys.argv[0] == "-m" and "papermill" in sys.orig_argv)


def _read_with_kernel(handler: LocalHandler, path: str) -> str:
    """Read a notebook; one of the suite gets the kernel and language that tools have stripped from its metadata."""
    text = _read(handler, path)
    if not parameters_class(Path(handler._cwd or "", path)):
        return text
    notebook = json.loads(text)
    found = notebook["metadata"].get("kernelspec") or {}
    notebook["metadata"]["kernelspec"] = KERNEL | {name: value for name, value in found.items() if value}
    return json.dumps(notebook)


def _write_whole(handler: LocalHandler, text: str, path: str) -> None:
    """Write an executed copy atomically; write to anything but a regular file, such as /dev/stdout, in place."""
    target = Path(handler._cwd or "", path)
    if target.exists() and not target.is_file():
        return _write_in_place(handler, text, path)
    try:
        return write_text(target.resolve(), text, durable=False)
    except errors.MachineError as error:
        raise UnwritableCopy(str(error)) from None


# papermill offers no way to replace its handler of local files or its default engine, nor to supply its argument.
_read, _write_in_place = LocalHandler.read, LocalHandler.write
LocalHandler.read = _read_with_kernel
LocalHandler.write = _write_whole
for _name in (None, "dlv3p"):
    papermill_engines.register(_name, SuiteEngine)
if _runs_as_papermill():
    try:
        _terminal = sys.stdin is not None and sys.stdin.isatty()
        sys.argv[1:] = with_notebook_found(sys.argv[1:], stdin_is_terminal=_terminal)
        check_sources(sys.argv[1:])
        sys.argv[1:] = completed(sys.argv[1:])
    except errors.UserError as refusal:
        click.echo(f"Error: {refusal}", err=True)
        sys.exit(refusal.exit_status)
