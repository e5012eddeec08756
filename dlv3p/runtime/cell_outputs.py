"""Show below a cell what a person can read: two errors as a sentence, and tables in which `$` is not a formula.

The errors are a stop that was wished for, and a name that no cell has set in this kernel. The second is what a person
meets who restarts the kernel, or opens a notebook, and runs a cell in its middle alone.
"""

import builtins
import difflib
from types import TracebackType
from typing import TYPE_CHECKING

from cityscapes.errors import StoppedError
from dlv3p.runtime.callbacks import describe_stop, is_wish

if TYPE_CHECKING:
    from IPython.core.formatters import DisplayFormatter
    from IPython.core.interactiveshell import InteractiveShell

TABLES = (
    *(("pandas", "DataFrame"), ("pandas.io.formats.style", "Styler")),
    ("dlv3p.parameters.base", "Parameters"),
)
"""What is shown as a table, by module and name, so that none of them has to be loaded."""


def explain_cells() -> None:
    """Let this kernel explain these errors, which still end the cell and the queue, and show tables as they are.

    IPython keeps one function for errors, so it serves both kinds. Outside a kernel, nothing happens.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if hasattr(shell, "kernel"):
        shell.set_custom_exc((StoppedError, NameError), _show)
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
    error: StoppedError | NameError,
    trace: TracebackType,
    tb_offset: int | None = None,
) -> None:
    if isinstance(error, StoppedError) and is_wish(error):
        print(describe_stop(error), flush=True)
        return
    if isinstance(error, NameError) and _of_a_cell(error, trace, shell):
        error._render_traceback_ = lambda: [_describe(error)]  # IPython shows what this returns
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


def _of_a_cell(error: NameError, trace: TracebackType, shell: "InteractiveShell") -> bool:
    """Return whether a cell itself uses the name, and no name that is known is so near that it must be misspelled."""
    while trace.tb_next is not None:
        trace = trace.tb_next
    known = [*shell.user_global_ns, *vars(builtins)]
    in_cell = trace.tb_frame.f_globals is shell.user_global_ns and trace.tb_frame.f_code.co_name == "<module>"
    return in_cell and bool(error.name) and not difflib.get_close_matches(error.name, known, n=1, cutoff=0.75)


def _describe(error: NameError) -> str:
    return (
        f"NameError: {error.name!r} is not known: the cell above that sets it has not been run since this kernel "
        "started. In the menu: Run, Run All Above Selected Cell; then run this cell again. A training goes on from its "
        "last checkpoint."
    )
