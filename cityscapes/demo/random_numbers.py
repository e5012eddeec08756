"""Random numbers of the demo city that depend on names alone, not on the order in which they are drawn."""

import colorsys
import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Color = tuple[float, float, float]


class Dice:
    """A counter-based generator (Philox) keyed by any names, such as `Dice(seed, "train", 3, "light")`.

    Only `Generator.random` and raw bytes are used, whose streams are the same on every machine and numpy version.
    """

    def __init__(self, *names: int | str) -> None:
        digest = hashlib.blake2b(repr(names).encode(), digest_size=16).digest()
        self._generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return float(self._generator.random()) < probability

    def below(self, count: int) -> int:
        """Return a whole number in [0, count)."""
        return min(int(self._generator.random() * count), count - 1)

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """Return the items in random order."""
        keys = [float(self._generator.random()) for _ in items]
        return [items[index] for index in sorted(range(len(items)), key=keys.__getitem__)]

    def color(self, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Color:
        """Return RGB in 0 to 255 from ranges of hue (turns, may exceed 1), saturation and value (0 to 1)."""
        red, green, blue = colorsys.hsv_to_rgb(self.between(*hue) % 1, self.between(*saturation), self.between(*value))
        return 255 * red, 255 * green, 255 * blue

    def bytes(self, *shape: int) -> np.ndarray:
        """Return a uint8 array of the given shape, uniform."""
        count = int(np.prod(shape))
        return np.frombuffer(self._generator.bytes(count), np.uint8).reshape(shape)
