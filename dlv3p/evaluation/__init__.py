"""Predictions and scores: inference on whole images, metrics, official scores, comparisons of runs.

`score(truth, prediction)` scores anyone's masks in a line: see `details.py`.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import `score` when it is asked for: most modules of the package do without torch."""
    if name != "score":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dlv3p.evaluation.details import score

    return score
