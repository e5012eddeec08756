"""The errors with which papermill ends over a notebook of the suite: one line at the command line, a kind elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from papermill.exceptions import PapermillExecutionError

from cityscapes import errors

USER_ERRORS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.UserError)
}
"""The errors that are reported in one line, by the name under which a notebook's cell raises them."""


class RefusedParameters(click.ClickException, errors.ParameterError):
    """Parameters that a notebook does not accept: one line at the command line, a ValueError elsewhere."""

    exit_code = errors.ParameterError.exit_status


class MissingNamed(click.ClickException, errors.MissingInputError):
    """Data, weights, or a run that the parameters name and that do not exist: one line and the status of an input."""

    exit_code = errors.MissingInputError.exit_status


class FailingMachine(click.ClickException, errors.MachineError):
    """A machine that fails: one line and its status."""

    exit_code = errors.MachineError.exit_status


class UnwritableCopy(FailingMachine):
    """An executed copy that cannot be written, for lack of space or permission."""

    def show(self, file: Any = None) -> None:
        """Print the message on a line of its own, below papermill's bar."""
        click.echo(err=True)
        super().show(file)


class DeadKernel(FailingMachine):
    """A kernel that died, or a cell that took too long."""


class FailedNotebook(click.ClickException, PapermillExecutionError):
    """A cell that ended with a user's error: its line at the command line, papermill's own error elsewhere."""

    def __init__(self, failure: PapermillExecutionError) -> None:
        Exception.__init__(self, failure)
        vars(self).update(vars(failure), message=failure.evalue, show_color=None)
        self.exit_code = USER_ERRORS[failure.ename].exit_status


@contextmanager
def explain_failing_machine() -> Iterator[None]:
    """Raise FailingMachine for an error of papermill's own process that says so, as of a drive; also a decorator."""
    try:
        yield
    except (OSError, MemoryError) as error:
        if isinstance(error, click.ClickException) or (failure := errors.machine_failure(error)) is None:
            raise
        raise FailingMachine(str(failure)) from error
