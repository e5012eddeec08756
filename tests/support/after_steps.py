"""Let something happen after each step of a run, once what is due is saved: the one seam for stops and faults."""

from collections.abc import Callable

import pytest

from dlv3p.training.checkpoints import Checkpoints


class Stop(Exception):
    """The end of a run at a place that the test chooses."""


def around_each_step(
    patch: pytest.MonkeyPatch,
    *,
    before: Callable[[Checkpoints], None] = lambda run: None,
    after: Callable[[Checkpoints], None] = lambda run: None,
) -> None:
    """Call `before` and `after` around what a run does once a step is taken: to save and to stop."""
    genuine = Checkpoints.after_step

    def after_step(run: Checkpoints, asked: float) -> None:
        before(run)
        genuine(run, asked)
        after(run)

    patch.setattr(Checkpoints, "after_step", after_step)


def stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Let runs end after so many steps, once they are saved."""

    def stop(run: Checkpoints) -> None:
        if run.progress.done == steps:
            raise Stop

    around_each_step(patch, after=stop)
