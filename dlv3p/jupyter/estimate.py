"""Estimate how long the demo takes on this machine, from a few steps of its training."""

from typing import NamedTuple

from cityscapes.demo.city import DEFAULT_FRAMES
from cityscapes.workspace import run_folder
from dlv3p.parameters.training import TrainParameters

BESIDE_STEPS = 0.2
"""Time of loading and scoring, in that of the steps of the same epoch: 8.4 s an epoch of 40 steps of 0.176 s."""
OTHER_NOTEBOOKS = 415
"""Steps that take the time of the six notebooks beside `train`: 73 s at 0.176 s a step (EPYC, AVX-512, 42cfec3)."""


class Estimate(NamedTuple):
    """Seconds of a training step, and how many steps the training has left."""

    step_seconds: float
    steps: int

    @property
    def training_minutes(self) -> float:
        """How long the training takes."""
        return self.steps * (1 + BESIDE_STEPS) * self.step_seconds / 60

    @property
    def minutes(self) -> float:
        """How long all notebooks take."""
        return self.training_minutes + OTHER_NOTEBOOKS * self.step_seconds / 60

    def __str__(self) -> str:
        whole = max(1, round(self.minutes))
        training = f"{self.training_minutes:.0f} of them to train" if self.steps else "since the run is trained already"
        measured = f"a training step takes {self.step_seconds:.2f} s here, measured just now"
        return f"about {whole} minute{'s' * (whole > 1)}, {training}: {measured}; other running programs slow it down"


def estimate_demo(parameters: TrainParameters) -> Estimate:
    """Estimate the time of the demo with these parameters; epochs that the run has behind it are left out."""
    epochs = parameters.epochs - finished_epochs(parameters.run_name)
    return Estimate(step_seconds(parameters), max(0, epochs) * (DEFAULT_FRAMES["train"] // parameters.batch_size))


def finished_epochs(run: str) -> int:
    """Count the epochs in the metrics of a run, 0 for one that has none yet."""
    path = run_folder(run) / "metrics.csv"
    return len(path.read_text(encoding="utf-8").splitlines()) - 1 if path.is_file() else 0


def step_seconds(parameters: TrainParameters) -> float:
    """Return how long a training step takes here, on noise: the network's own step, tried in a process of its own."""
    from cityscapes.labels import NUM_CLASSES
    from dlv3p.training.trial import try_setting

    return try_setting(parameters.of_one_process(), NUM_CLASSES).seconds
