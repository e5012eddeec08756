"""A running average of the weights, which scores better than the weights of any one step (arXiv:1306.0239v3's idea)."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """A second network whose weights follow those of `model`: average = decay * average + (1 - decay) * weights.

    Floating point buffers, the statistics of the norms, are averaged alike; counters are copied. Early on the decay is
    at most (1 + updates) / (10 + updates), as in TensorFlow's ExponentialMovingAverage, so that the random start fades.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the weights of one more step in."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, values = self.model.state_dict(), model.state_dict()
        floating = [name for name, value in values.items() if value.is_floating_point()]
        torch._foreach_lerp_([averages[name] for name in floating], [values[name] for name in floating], 1 - decay)
        for name, value in values.items():
            if not value.is_floating_point():
                averages[name].copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights, under the names of the network's own."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor], updates: int) -> None:
        """Go on from averaged weights after so many updates."""
        self.model.load_state_dict(state)
        self.updates = updates
