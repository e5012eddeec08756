"""The parameters with which runs are started, watched, repeated, and shown beside one another, without torch."""

from dataclasses import dataclass

from cityscapes.errors import ParameterError
from dlv3p.parameters.base import Parameters, choice, number, several, switch, text
from dlv3p.parameters.choices import CURVES_OVER, EXECUTORS
from dlv3p.parameters.shared_fields import figures_field, progress_field
from dlv3p.parameters.training import check_run_name


@dataclass(frozen=True)
class VisualizeTrainingParameters(Parameters):
    """Overlay the curves of several runs."""

    runs: str = several("", 'folders below saved/, separated by spaces; "" takes all of them')
    over: str = choice("epoch", CURVES_OVER, "epoch; or step, hours, or joules so far, for batches of several sizes")
    join_seeds: bool = switch(False, "draws runs that differ only in their seed as a mean and a band")
    figures: str = figures_field()


@dataclass(frozen=True)
class WatchParameters(Parameters):
    """Follow a training that goes on elsewhere, and see what it has learned."""

    run: str = text("", 'folder below saved/; "" is the run that is being trained, else the newest')
    film_seconds: float = number(0.25, 0.02, 10.0, "how long an epoch stays in the film")
    figures: str = figures_field()
    progress: str = progress_field()

    def check(self) -> None:
        """Check the run's name, which is a folder."""
        super().check()
        check_run_name(self.run)


@dataclass(frozen=True)
class SweepParameters(Parameters):
    """Run a notebook over a grid or a list of parameters, on this machine or a cluster."""

    grid: str = text("sweeps/learning_rates.yaml", "the sweep, a YAML file: see docs/cluster.md")
    on: str = choice("local", EXECUTORS, "local (processes of this machine), slurm, or dask")
    address: str = text("", "of the Dask scheduler, as in tcp://host:8786")
    workers: int = number(0, 0, 1024, "jobs at once with local; 0: as many as fit")
    dry_run: bool = switch(False, "lists the jobs and their cost, and runs none")
    figures: str = figures_field()
    progress: str = progress_field()

    def check(self) -> None:
        """Check that what belongs to one way to run is not given with another, where it would change nothing."""
        super().check()
        if self.address and self.on != "dask":
            raise ParameterError(f"address={self.address!r}: belongs to on='dask', and on={self.on!r}; leave one out")
        if self.workers and self.on != "local":
            instead = "slurm: array_parallelism in the sweep's file" if self.on == "slurm" else "its workers"
            raise ParameterError(f"workers={self.workers}: belongs to on='local'; {self.on} is limited by {instead}")


@dataclass(frozen=True)
class ReplayParameters(Parameters):
    """Execute a run again from its record, and see whether it is identical."""

    run: str = text("", 'folder below saved/; "" trains a small run first')
    figures: str = figures_field()
    progress: str = progress_field()


@dataclass(frozen=True)
class ReportParameters(Parameters):
    """Set the published tables of other systems beside our own results."""

    runs: str = several("", 'folders below saved/, separated by spaces; "" takes all of them')
    figures: str = figures_field()
