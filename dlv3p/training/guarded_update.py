"""Change a network, its optimizer, and its average by sound steps only: their device decides, so the host never waits.

Whether a step is `sound` is a bool on the device. One that is not changes nothing: neither weights, nor momentum, nor
the statistics of norms, nor the average of the weights.
"""

from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_weights(optimizer: torch.optim.Optimizer, sound: Tensor) -> None:
    """Let a fused optimizer take its step if that is sound, by the attribute through which GradScaler tells it so."""
    first = not optimizer.state
    optimizer.found_inf = (~sound).float()
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf
    # A first step that is left out leaves SGD's momentum as it was allocated, with any value in it.
    for state in optimizer.state.values() if first else ():
        if (momentum := state.get("momentum_buffer")) is not None:
            momentum.masked_fill_(~sound, 0.0)


class NormStatistics:
    """The buffers of a network as they were before a forward pass, which changes the statistics of norms.

    They are kept in one tensor of each type, so that a GPU has few operations to do.
    """

    def __init__(self, model: nn.Module) -> None:
        self._groups: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            self._groups.setdefault(buffer.dtype, []).append(buffer)
        self.keep()

    def keep(self) -> None:
        """Keep the buffers as they are now."""
        self._before = self._joined()

    def restore_unless(self, sound: Tensor) -> None:
        """Set the buffers back to what was kept, unless the step that changed them is sound."""
        for buffers, before, now in zip(self._groups.values(), self._before, self._joined(), strict=True):
            parts = torch.where(sound, now, before).split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(buffers, [part.view_as(buffer) for part, buffer in zip(parts, buffers, strict=True)])

    def _joined(self) -> list[Tensor]:
        return [torch.cat([buffer.flatten() for buffer in buffers]) for buffers in self._groups.values()]


class WeightAverage:
    """The exponential moving average of a network's weights: average = decay * average + (1 - decay) * weights.

    Floating point buffers, the statistics of the norms, are averaged alike; counters are copied. Early on the decay is
    at most (1 + updates) / (10 + updates), as in TensorFlow's ExponentialMovingAverage, so that the random start fades.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module, self.decay = deepcopy(model).eval().requires_grad_(False), decay
        self._updates = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)

    @property
    def updates(self) -> int:
        """How often the average has been updated; the host waits for it."""
        return int(self._updates)

    def resume(self, weights: dict[str, Tensor], updates: int) -> None:
        """Continue from averaged weights after so many updates."""
        self.module.load_state_dict(weights)
        self._updates.fill_(updates)

    @torch.no_grad()
    def update(self, model: nn.Module, sound: Tensor) -> None:
        """Take the weights into the average if the step that led to them is sound.

        They are finite: where a step has made one infinite, the next one has diverged, and the average is not used.
        """
        decay = ((1 + self._updates) / (10 + self._updates)).clamp(max=self.decay)
        share = torch.where(sound, 1 - decay, 0.0).float()
        self._updates += sound
        ours, theirs = (chain(network.parameters(), network.buffers()) for network in (self.module, model))
        pairs = list(zip(ours, theirs, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([average for average, _ in floats], [value for _, value in floats], [share] * len(floats))
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)
