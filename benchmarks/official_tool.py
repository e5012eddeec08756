"""The official scoring script, made compatible with current NumPy and Pillow, for tests and benchmarks."""

from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np


def load() -> ModuleType:
    """Import cityscapesScripts' evaluation of label images; raises ImportError where the package is absent."""
    if not hasattr(np, "in1d"):  # removed in NumPy 2.4; version 2.3.0 of the tool still calls it

        def in1d(ids: np.ndarray, among: list[int], invert: bool = False) -> np.ndarray:
            return np.isin(np.asarray(ids).ravel(), among, invert=invert)

        np.in1d = in1d
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as tool

    return tool


class InMemory:
    """Stand-in for an opened image: `size` as in Pillow, and conversion to an array."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels, self.size = pixels, pixels.shape[::-1]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.pixels


def score(pairs: list[tuple[str, str]], *, instances: bool = True, images: bool = True) -> dict[str, Any]:
    """Score (prediction, truth) files with the tool and return the content of its result file."""
    tool = load()
    tool.args.quiet, tool.args.JSONOutput = True, False
    tool.args.evalInstLevelScore, tool.args.evalPixelAccuracy = instances, images
    with np.errstate(all="ignore"):
        return tool.evaluateImgLists([p for p, _ in pairs], [t for _, t in pairs], tool.args)


def score_arrays(images: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Score (truth, prediction, instances) of label and instance ids; image i is called `<i>_prediction.png`."""
    files: dict[str, np.ndarray] = {}
    for index, (truth, prediction, instances) in enumerate(images):
        files |= {f"{index}_labelIds.png": truth, f"{index}_prediction.png": prediction}
        files[f"{index}_instanceIds.png"] = instances
    with patch.object(load().Image, "open", lambda name: InMemory(files[name])):
        return score([(f"{i}_prediction.png", f"{i}_labelIds.png") for i in range(len(images))])
