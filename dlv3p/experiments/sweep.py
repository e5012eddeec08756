"""Run a notebook many times, over a grid or a list of parameters, on this machine, on Slurm, or on a Dask cluster.

    dlv3p sweep GRID.yaml --dry-run
    dlv3p sweep GRID.yaml --on slurm

The same command again skips what is finished, resumes what was stopped, and runs again what failed. docs/cluster.md
describes the file.
"""

import argparse
import platform
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from functools import cached_property, partial
from math import nan
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from cityscapes.errors import (
    BusyError,
    MachineError,
    StoppedError,
    TerminatedError,
    UserError,
    reason,
    run_command,
)
from cityscapes.files.atomic import check_writable, write_text
from cityscapes.files.locks import holder_of, lock_folder
from dlv3p.parameters.choices import EXECUTORS, PROGRESS
from dlv3p.parameters.notebooks import SweepParameters

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

    from dlv3p.experiments.costs import JobCost
    from dlv3p.experiments.jobs import Job
    from dlv3p.experiments.process import Outcome

STOP = "stop"
"""The file in the folder of a sweep that stops it: its jobs save and end. Ctrl-C writes it, and so can a person."""
WAKE_SECONDS = 0.5
SIGNALS = {signal.SIGINT: StoppedError, signal.SIGTERM: TerminatedError}


class RunningSweep:
    """A sweep whose jobs run on an executor: its table, what failed, and how to go on."""

    def __init__(self, config: SweepParameters) -> None:
        """Read and check the sweep that `config` names; raises a user's error before anything starts."""
        from dlv3p.experiments.executors import check_executor
        from dlv3p.experiments.grid import read_sweep
        from dlv3p.experiments.jobs import FINISHED, RUNNING, read_job

        if not config.dry_run:
            check_executor(config.on, address=config.address)
        self.config, self.sweep = config, read_sweep(Path(config.grid), here=config.on == "local")
        if not config.dry_run:
            self._refuse_second(holder_of(self.sweep.folder))
        sweep = self.sweep
        self.states = {job.number: read_job(job) for job in sweep.jobs}
        self.outcomes: dict[int, Outcome] = {}
        self.waiting = [job for job in sweep.jobs if self.states[job.number].state not in (FINISHED, RUNNING)]
        self.received: signal.Signals | None = None

    @property
    def stop(self) -> Path:
        """The file that stops the sweep."""
        return self.sweep.folder / STOP

    @property
    def failed(self) -> "list[Job]":
        """The jobs that failed, and were not only stopped."""
        ended = ((job, self.outcomes.get(job.number)) for job in self.waiting)
        return [job for job, outcome in ended if outcome and outcome.failed]

    def table(self) -> "pd.DataFrame":
        """Return a row per job: what is varied, its state, val mIoU of a training, seconds, and its run or notebook."""
        import pandas as pd

        rows = []
        for job in self.sweep.jobs:
            state, outcome = self.states[job.number], self.outcomes.get(job.number)
            rows.append(
                {
                    "job": job.number,
                    **job.varied,
                    "state": self._word(job),
                    **({"val mIoU": nan if state.mean_iou is None else state.mean_iou} if job.trains else {}),
                    "seconds": None if outcome is None else round(outcome.seconds, 1),
                    "run": job.run or job.copy.name,
                }
            )
        return pd.DataFrame(rows).set_index("job")

    def styled_table(self) -> "Styler":
        """Return the table for a notebook: what is varied as it was given, since 0.0006 is not 0.001."""
        table = self.table()
        formats = {name: "{}" for name in table} | {"val mIoU": "{:.3f}", "seconds": "{:.1f}"}
        return table.style.format({name: formats[name] for name in table}, na_rep="")

    def _word(self, job: "Job") -> str:
        return "failed" if job in self.failed else str(self.states[job.number])

    @cached_property
    def at_once(self) -> int:
        """How many jobs run at once on this machine."""
        from dlv3p.experiments.executors import jobs_at_once

        room = self.config.workers or jobs_at_once(self.waiting or self.sweep.jobs, memory_mib=self._memory_mib)
        return min(room, max(1, len(self.waiting)))

    @cached_property
    def costs(self) -> "dict[int, JobCost]":
        """What the jobs cost, by number, where it is known; nobody waits for a trial where nothing is to be shown."""
        from dlv3p.experiments.costs import job_costs
        from dlv3p.experiments.grid import told_of

        measured = self.config.dry_run or self.config.progress != "none"
        how = {"measured": measured, "here": self._here, "progress": self.config.progress}
        with told_of(self.config.grid):
            return job_costs(self.sweep.jobs, self.states, **how)

    @property
    def _here(self) -> bool:
        return self.config.on == "local"

    @property
    def _memory_mib(self) -> float:
        """What the job with the largest memory takes, 0 where it is not known."""
        return max((cost.memory_mib for cost in self.costs.values()), default=0.0)

    def plan(self) -> list[str]:
        """Return what there is to do, job by job, with the cost where it is known, and the total."""
        lines = []
        for job in self.sweep.jobs:
            cost = f"  {self.costs.get(job.number, 'cost unknown')}" if job in self.waiting else ""
            lines.append(f"{job.number:>4}  {job.title}  {self.states[job.number]}{cost}  {job.run or job.copy.name}")
        done, left = len(self.sweep.jobs) - len(self.waiting), len(self.waiting)
        whole = f"{done + left} job" + "s" * (done + left != 1)
        lines.append(f"{whole}: {done} finished or running elsewhere, {left} to run{self._total()}")
        return lines

    def _total(self) -> str:
        from dlv3p.experiments.costs import describe_room
        from dlv3p.runtime.lines import format_duration

        known = [self.costs[job.number] for job in self.waiting if job.number in self.costs]
        timed = [cost.seconds for cost in known if cost.seconds is not None]
        unknown, total = len(self.waiting) - len(timed), ""
        if timed:
            about = "at least" if any(cost.least for cost in known) else "about"
            total = f"; {about} {format_duration(sum(timed))} of work"
            if self._here:
                longest = max(max(timed), sum(timed) / self.at_once)
                total += f", {format_duration(longest)} with {self.at_once} at once"
        if disk := sum(cost.disk_mib for cost in known):
            at_once = self.at_once if self._here else 1
            total += f", {describe_room(at_once * self._memory_mib, disk)}" + " (memory of one job)" * (not self._here)
        if unknown:
            total += f"; the time of {unknown} is unknown until one has run"
        if known and not self._here:
            total += f"; measured on this machine, {platform.node()}, of which the cluster's may differ"
        return total

    def run(self) -> None:
        """Run what is not finished, with a line or a row of the table for each job as it ends; nothing in a dry run.

        SIGINT, SIGTERM and the file `stop` have running jobs save and end. What failed is in `report`.
        """
        from dlv3p.experiments.executors import open_executor
        from dlv3p.runtime.progress import resolve_mode, track

        if self.config.dry_run or not self.waiting:
            return
        show = _LiveTable() if resolve_mode(self.config.progress) == "widgets" else None
        where = {"on": self.config.on, "address": self.config.address, "workers": self.at_once, "jobs": self.waiting}
        with open_executor(**where, folder=self.sweep.folder / "slurm", slurm=self.sweep.slurm) as executor:
            options = {"total": len(self.waiting), "title": "sweep", "mode": self.config.progress}
            for outcome in track(self.finish(executor), **options):
                if show:
                    show(self.styled_table())
                elif self.config.progress != "none":
                    print(self.describe(outcome), flush=True)

    def finish(self, executor: Executor) -> "Iterator[Outcome]":
        """Run what is not finished on an executor, and yield each outcome; the table is written after each.

        Raises BusyError while another process runs this sweep.
        """
        from dlv3p.experiments.jobs import prepare_data

        check_writable(self.sweep.folder)
        with self._held():
            prepare_data(self.waiting)
            yield from self._finish(executor)

    def _finish(self, executor: Executor) -> "Iterator[Outcome]":
        from dlv3p.training.interruption import signals_handled

        self.stop.unlink(missing_ok=True)
        with signals_handled(self._stop, SIGNALS):
            pending = {executor.submit(partial(_run, job, self.stop)): job for job in self.waiting}
            while pending:
                done, _ = wait(pending, timeout=WAKE_SECONDS, return_when=FIRST_COMPLETED)
                if self.stop.exists():
                    done |= {future for future in pending if future.cancel()}
                for future in done:
                    if outcome := self._note(pending.pop(future), future):
                        yield outcome
        self.stop.unlink(missing_ok=True)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the sweep's folder: two processes that run one sweep would take each other's jobs, table, and stop."""
        try:
            with lock_folder(self.sweep.folder):
                yield
        except BusyError:
            self._refuse_second(holder_of(self.sweep.folder))
            raise

    def _refuse_second(self, holder: str) -> None:
        if holder:
            raise BusyError(
                f"sweep {self.config.grid}: {holder} is running it; wait for it, or stop it, by Ctrl-C there or by a "
                f"file {self.stop}, and run the same command again"
            )

    def _note(self, job: "Job", future: "Future[Outcome]") -> "Outcome | None":
        """Note how a job ended; None for one that the stop has kept from beginning."""
        from dlv3p.experiments.jobs import read_job
        from dlv3p.experiments.process import NOT_BEGUN, Outcome

        if future.cancelled():
            return None
        error = future.exception()
        outcome = future.result() if error is None else Outcome(job.number, 4, _reason(error), 0.0)
        if outcome.status == NOT_BEGUN:
            return None
        self.outcomes[job.number] = outcome
        self.states[job.number] = read_job(job)
        write_text(self.sweep.folder / "jobs.csv", self.table().to_csv(), durable=False)
        return outcome

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Take the first signal as the wish to stop; the next has its usual effect."""
        self.received = signal.Signals(number)
        for each in SIGNALS:
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        print("\nstopping: running jobs save and end; press Ctrl-C again to stop without waiting", flush=True)
        write_text(self.stop, "", durable=False)

    def describe(self, outcome: "Outcome") -> str:
        """Return the line of a job that has ended."""
        (job,) = (job for job in self.sweep.jobs if job.number == outcome.number)
        score = self.states[job.number].mean_iou
        told = f"failed: {outcome.line}" if job in self.failed else str(self.states[job.number])
        scored = "" if score is None or job in self.failed else f"  val mIoU {score:.3f}"
        return f"job {job.number} ({job.title}): {told}{scored}  {outcome.seconds:.1f} s"

    def report(self) -> list[str]:
        """Return what failed, with its line and where its log is."""
        lines = []
        for job in self.failed:
            lines.append(f"job {job.number} ({job.title}) failed: {self.outcomes[job.number].line}")
            if (log := job.copy.with_suffix(".log")).is_file():
                lines.append(f"    its log: {log}")
        return lines

    def results(self) -> "pd.DataFrame":
        """Return the scores of the sweep's runs, as `gather_results` does."""
        from dlv3p.experiments.table import gather_results

        return gather_results(sorted({job.run for job in self.sweep.jobs if job.run}))

    def raise_for_end(self) -> None:
        """Raise what ended the sweep early: a stop, or jobs that failed; each with the command that goes on."""
        if self.config.dry_run:
            return
        where = f" --on {self.config.on}" * (self.config.on != "local")
        where += f" --address {self.config.address}" * bool(self.config.address)
        where += f" --workers {self.config.workers}" * bool(self.config.workers)
        command = f"dlv3p sweep {self.config.grid}{where}"
        left = len(self.waiting) - sum(one.elsewhere or not one.status for one in self.outcomes.values())
        if left and (self.received or not self.failed):
            kind = SIGNALS.get(self.received, StoppedError)
            raise kind(f"sweep stopped with {left} of {len(self.sweep.jobs)} jobs left; to continue: {command}")
        if self.failed:
            raise FailedJobs(f"{len(self.failed)} of {len(self.sweep.jobs)} jobs failed; to run them again: {command}")


class _LiveTable:
    """A table in a notebook that is filled while the jobs run."""

    def __init__(self) -> None:
        self._handle = None

    def __call__(self, table: "Styler") -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(table, display_id=True)
        else:
            self._handle.update(table)


class FailedJobs(UserError):
    """A sweep of which some jobs have failed; the others are finished."""


def _run(job: "Job", stop: Path) -> "Outcome":
    from dlv3p.experiments.process import run_job

    return run_job(job, stop)


def _reason(error: BaseException) -> str:
    if isinstance(error, MachineError):
        return str(error)
    return f"the executor lost it ({type(error).__name__}: {reason(error)})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the sweep, and run it or print what it would run."""
    sweep = RunningSweep(SweepParameters(**vars(_parser().parse_args(arguments))))
    plan = sweep.plan()
    print("\n".join(plan if sweep.config.dry_run else plan[-1:]), flush=True)
    sweep.run()
    if sweep.outcomes:
        print(sweep.table().to_string(na_rep="-"))
    for line in sweep.report():
        print(line)
    sweep.raise_for_end()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dlv3p sweep",
        description="Run a notebook many times, over a grid or a list of parameters. All jobs are checked before the "
        "first one starts. The same command again skips what is finished, resumes what was stopped, and runs again "
        "what failed.",
        epilog="The file: docs/cluster.md. Ctrl-C lets running jobs save.",
    )
    add = parser.add_argument
    add("grid", metavar="GRID.yaml", help="notebook, fixed parameters, grid and list")
    add("--on", choices=EXECUTORS, default="local", help="where: processes of this machine (default), Slurm, or Dask")
    add("--address", default="", help="of the scheduler, with --on dask: tcp://host:8786")
    add("--workers", type=int, default=0, metavar="N", help="jobs at once, with --on local; 0: as there is room for")
    add("--dry-run", action="store_true", help="print the jobs, what each and all cost, and run none")
    add("--progress", choices=PROGRESS, default="auto", help="auto, widgets, lines or none")
    return parser


if __name__ == "__main__":
    run_command(main)
