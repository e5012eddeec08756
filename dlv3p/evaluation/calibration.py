"""Say whether a network is as sure as it is right: the expected calibration error, and the temperature that mends it.

Confidence is the softmax of the winner (arXiv:1706.04599). A temperature divides the logits; it never changes which
class wins, and it is fitted on images other than those that are scored.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import optimize

from cityscapes.errors import ParameterError
from cityscapes.labels import IGNORE

BINS = 20
FITTED_PIXELS = 2000
"""Pixels of an image that a temperature is fitted to, drawn evenly."""


@dataclass
class Reliability:
    """How often pixels of a confidence are right: counts in `BINS` equal bins, added up image by image."""

    pixels: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    right: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, confidence: np.ndarray, right: np.ndarray) -> None:
        """Add pixels, (N,) each: the confidence, 0 to 1, and whether the winner is right."""
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        self.pixels += np.bincount(bins, minlength=BINS)
        self.right += np.bincount(bins[right], minlength=BINS)
        self.confidence += np.bincount(bins, weights=confidence, minlength=BINS)

    @property
    def error(self) -> float:
        """The expected calibration error (ECE), 0 to 1: the mean distance of confidence and accuracy, over pixels."""
        return float(np.abs(self.confidence - self.right).sum() / max(1, self.pixels.sum()))

    def table(self) -> pd.DataFrame:
        """Return a row per bin: limits, mean confidence, accuracy, and share of the pixels; nan where it is empty."""
        with np.errstate(invalid="ignore"):
            columns = {
                "from": np.arange(BINS) / BINS,
                "to": (np.arange(BINS) + 1) / BINS,
                "confidence": self.confidence / self.pixels,
                "accuracy": self.right / self.pixels,
                "share of pixels": self.pixels / max(1, self.pixels.sum()),
            }
        return pd.DataFrame(columns)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities (N, C) of logits (N, C) divided by a temperature."""
    scaled = (logits - logits.max(axis=1, keepdims=True)) / temperature
    powers = np.exp(scaled)
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature, 0.05 to 20, under which logits (N, C) make the truth (N,) of train ids most likely.

    Raises ParameterError without a labeled pixel.
    """
    counted = truth != IGNORE
    if not counted.any():
        raise ParameterError("temperature_split: holds no labeled pixel; name another split, or none")
    logits, truth = logits[counted].astype(np.float64), truth[counted].astype(np.int64)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        peak = scaled.max(axis=1)
        total = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        return float((total - scaled[np.arange(len(truth)), truth]).mean())

    found = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))
