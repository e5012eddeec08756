"""Show below a cell what a person can read: some errors as a sentence, and tables in which `$` is not a formula.

The errors are a stop that was wished for, a name that no cell has set in this kernel, and a machine that fails under
the suite's code, as it reads a file or takes memory. The second is what a person meets who restarts the kernel, or
opens a notebook, and runs a cell in its middle alone.
"""

import builtins
import difflib
import traceback
from types import TracebackType
from typing import TYPE_CHECKING

from cityscapes import errors
from cityscapes.errors import DRIVE_FAULTS, StoppedError, UserError, machine_failure
from dlv3p.runtime.callbacks import describe_stop, is_wish

if TYPE_CHECKING:
    from IPython.core.formatters import DisplayFormatter
    from IPython.core.interactiveshell import InteractiveShell

MACHINE_ERRORS = (OSError, MemoryError, RuntimeError, ImportError)
"""The kinds of error by which libraries say that the machine fails, among other things."""
SUITE = ("cityscapes", "dlv3p")
"""The packages whose code a reader has not written: any error of the machine below it is told in one line."""

TABLES = (
    *(("pandas", "DataFrame"), ("pandas.io.formats.style", "Styler")),
    ("dlv3p.parameters.base", "Parameters"),
)
"""What is shown as a table, by module and name, so that none of them has to be loaded."""


def explain_cells() -> None:
    """Let this kernel explain these errors, which still end the cell and the queue, and show tables as they are.

    IPython keeps one function for errors, so it serves all kinds. Outside a kernel, nothing happens.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if hasattr(shell, "kernel"):
        shell.set_custom_exc((UserError, NameError, *MACHINE_ERRORS), _show)
        show_dollars(shell.display_formatter)


def show_dollars(formatter: "DisplayFormatter") -> None:
    """Let tables be shown with each `$` as it is, as in a name of a class or a path; JupyterLab would read formulas."""
    for module, name in TABLES:
        formatter.formatters["text/html"].for_type_by_name(module, name, lambda table: as_written(table._repr_html_()))


def as_written(html: str) -> str:
    """Return HTML in which a front end leaves every `$` as it is; where there is none, it is unchanged."""
    return f'<div class="mathjax_ignore">{html}</div>' if "$" in (html or "") else html


def _show(
    shell: "InteractiveShell",
    kind: type,
    error: Exception,
    trace: TracebackType,
    tb_offset: int | None = None,
) -> None:
    if isinstance(error, StoppedError) and is_wish(error):
        print(describe_stop(error), flush=True)
        return
    if isinstance(error, NameError) and _of_a_cell(error, trace, shell):
        error._render_traceback_ = lambda: [_describe(error)]  # IPython shows what this returns
    if isinstance(error, UserError):
        kind = next(one for one in kind.__mro__ if one.__module__ == errors.__name__)  # those that papermill knows
    elif (failure := machine_failure(error)) and (_is_of_drive(error) or _below_suite(trace)):
        kind, error = type(failure), failure  # whose name also tells papermill which status to end with
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


def _of_a_cell(error: NameError, trace: TracebackType, shell: "InteractiveShell") -> bool:
    """Return whether a cell itself uses the name, and no name that is known is so near that it must be misspelled."""
    while trace.tb_next is not None:
        trace = trace.tb_next
    known = [*shell.user_global_ns, *vars(builtins)]
    in_cell = trace.tb_frame.f_globals is shell.user_global_ns and trace.tb_frame.f_code.co_name == "<module>"
    return in_cell and bool(error.name) and not difflib.get_close_matches(error.name, known, n=1, cutoff=0.75)


def _is_of_drive(error: Exception) -> bool:
    """Return whether no code could have avoided an error, so that it is told in one line wherever it is raised."""
    return getattr(error, "errno", None) in DRIVE_FAULTS


def _below_suite(trace: TracebackType) -> bool:
    """Return whether an error was raised in the suite's code, or below it."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(trace))
    return any(module.partition(".")[0] in SUITE for module in modules)


def _describe(error: NameError) -> str:
    return (
        f"NameError: {error.name!r} is not known: the cell above that sets it has not been run since this kernel "
        "started. In the menu: Run, Run All Above Selected Cell; then run this cell again. A training goes on from its "
        "last checkpoint."
    )
