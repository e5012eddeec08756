"""Find labels that a network contradicts with confidence, in a stream of pixels: confident learning (arXiv:1911.00068).

The predictions must come from a network that was not trained on the labels that they judge. The first pass learns from
what probability on the network is confident of a class: its mean probability where the class is the given label. The
second pass counts pixels by their given label and the class that the network is confident of, the confident joint; what
lies off its diagonal is an error of the label. It is what cleanlab 2.9 does with `filter_by="confident_learning"`, with
memory for a few pixels at a time.
"""

from typing import NamedTuple

import numpy as np

from cityscapes.labels import IGNORE

LEAST = 1e-3
"""No probability counts as smaller in odds: below it, a network knows little."""
NEARLY = 1e-6
"""By so much a probability may fall short of a threshold, or of the largest one, and still count, as in cleanlab."""


class Thresholds:
    """Sum up how probable the network finds the given labels, pixel by pixel; ignored pixels do not count.

    `confusion` counts pixels by given label and most probable class, int64 (C,C).
    """

    def __init__(self, num_classes: int) -> None:
        self._sums = np.zeros(num_classes)
        self.confusion = np.zeros((num_classes, num_classes), np.int64)

    def add(self, given: np.ndarray, probabilities: np.ndarray) -> None:
        """Add pixels: labels (N,), of which 255 is ignored, and probabilities (N, C)."""
        counted = np.flatnonzero(given != IGNORE)
        labels, found = given[counted].astype(np.int64), probabilities[counted]
        classes = len(self._sums)
        self._sums += np.bincount(labels, weights=found[np.arange(len(labels)), labels], minlength=classes)
        cells = np.bincount(labels * classes + found.argmax(axis=1), minlength=classes**2)
        self.confusion += cells.reshape(classes, classes)

    @property
    def values(self) -> np.ndarray:
        """From what probability on the network is confident of each class: float64 (C,), inf for one without pixels."""
        pixels = self.confusion.sum(axis=1)
        means = np.maximum(self._sums / np.maximum(1, pixels), 2 * NEARLY)
        return np.where(pixels > 0, means, np.inf)


class Doubts(NamedTuple):
    """Of each pixel, the class that its label should rather be, uint8 (N,), 255 where it may stay, and how clearly.

    `log_odds` is the logarithm of how many times as probable that class is as the given one, float32 (N,), 0 where the
    label may stay. `disagreeing` is the number of pixels of which another class than the given one is most probable.
    """

    suggested: np.ndarray
    log_odds: np.ndarray
    disagreeing: int


class ConfidentJoint:
    """Count pixels by given label and confident class, and tell which labels are in doubt."""

    def __init__(self, thresholds: np.ndarray) -> None:
        self.thresholds = thresholds
        self.counts = np.zeros((len(thresholds), len(thresholds)), np.int64)

    def add(self, given: np.ndarray, probabilities: np.ndarray) -> Doubts:
        """Add pixels, labels (N,) and probabilities (N, C), and return what is in doubt about them."""
        counted = np.flatnonzero(given != IGNORE)
        labels, found = given[counted].astype(np.int64), probabilities[counted]
        confident = found >= self.thresholds - NEARLY
        several, likeliest = confident.sum(axis=1) > 1, found.argmax(axis=1)
        guess = np.where(several, likeliest, confident.argmax(axis=1))
        known = confident.any(axis=1)
        classes = len(self.thresholds)
        cells = np.bincount(labels[known] * classes + guess[known], minlength=classes**2)
        self.counts += cells.reshape(classes, classes)
        doubted = np.flatnonzero(known & (guess != labels) & ~_is_likeliest(labels, found))
        likelier, given_one = (np.maximum(found[doubted, which[doubted]], LEAST) for which in (guess, labels))
        suggested, log_odds = np.full(len(given), IGNORE, np.uint8), np.zeros(len(given), np.float32)
        doubts = Doubts(suggested, log_odds, int((likeliest != labels).sum()))
        doubts.suggested[counted[doubted]] = guess[doubted]
        doubts.log_odds[counted[doubted]] = np.log(likelier / given_one)
        return doubts


def _is_likeliest(labels: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return whether the given label is the most probable class, or nearly: its doubt comes from a threshold alone."""
    raised = found.copy()
    raised[np.arange(len(labels)), labels] += NEARLY
    return raised.argmax(axis=1) == labels
