"""Estimate how long the demo takes on this machine, from a few steps of its training."""

import statistics
import time
from typing import NamedTuple

from cityscapes.demo.city import DEFAULT_FRAMES
from cityscapes.workspace import run_folder
from dlv3p.parameters.training import TrainParameters

PROBED_STEPS = 4
BESIDE_STEPS = 0.4
"""Processor time of loading, scoring and updating, in that of the forward and backward passes of the same epoch."""
OTHER_NOTEBOOKS = 270
"""Steps that take the processor time of the six notebooks beside `train`: 103 s at 0.385 s a step (EPYC, AVX-512)."""


class Estimate(NamedTuple):
    """Seconds of one forward and backward pass, and how many such passes the training has left."""

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
    """Return the median time of a forward and backward pass of a new network, on noise; the first is not counted."""
    import torch
    from torch.nn.functional import cross_entropy

    from cityscapes.labels import NUM_CLASSES
    from dlv3p.models.deeplab import build_network
    from dlv3p.runtime.devices import choose_device

    device = choose_device(parameters.device)
    torch.set_num_threads(parameters.threads)
    size = (parameters.crop_height, parameters.crop_width)
    model = build_network(parameters, NUM_CLASSES).train().to(device)
    images = torch.rand(parameters.batch_size, 3, *size, device=device)
    masks = torch.randint(NUM_CLASSES, (parameters.batch_size, *size), device=device)
    times = []
    for _ in range(1 + PROBED_STEPS):
        began = time.perf_counter()
        loss = cross_entropy(model(images), masks)
        loss.backward()
        loss.item()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
