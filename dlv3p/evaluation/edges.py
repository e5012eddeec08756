"""Score where pixels are hard: at the edges of classes, at a distance from them, and in small objects.

Boundary IoU is that of arXiv:2103.16562, section 4, per class and added up over a split, as IoU is. Ignored pixels
belong to no class, in the truth nor in the prediction, so that both have the same edge there.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from cityscapes.labels import IGNORE

BOUNDARY_SHARE = 0.02
"""Width of a boundary, as a share of the image's diagonal; the paper's default, and 0.005 is usual for Cityscapes."""
DISTANCES = (2, 4, 8, 16, 32)
"""Upper limits, in pixels, of the bands by distance to the nearest edge; the last band is what is farther away."""
OBJECT_SIZES = (32**2, 96**2)
"""Limits of small, medium, and large objects in pixels, as COCO sets them."""


def boundary_width(shape: Sequence[int], share: float = BOUNDARY_SHARE) -> int:
    """Return the width in pixels of the boundaries of an image (H, W): at least 1."""
    return max(1, round(share * math.hypot(*shape[:2])))


def boundary_counts(truth: np.ndarray, prediction: np.ndarray, num_classes: int, width: int) -> np.ndarray:
    """Count the boundary pixels of each class, int64 (2, C): those of truth and prediction in common, and of either.

    A class's boundary is the part of its region within `width` pixels of the outside, diagonals included; the edge of
    the image counts as outside, as in the authors' code. `truth` and `prediction` are train ids (H, W).
    """
    counts = np.zeros((2, num_classes), np.int64)
    counted = truth != IGNORE
    for index in np.union1d(truth[counted], prediction[counted]):
        first, second = (_boundary((ids == index) & counted, width) for ids in (truth, prediction))
        counts[:, index] = (first & second).sum(), (first | second).sum()
    return counts


def distance_counts(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Return a confusion matrix for each band of distances to the nearest edge of the truth: int64 (B, C, C).

    The bands end at `DISTANCES`. An edge lies between two pixels of different classes; the border of an ignored region
    is none. Distances are Euclidean, and the pixels beside an edge have distance 1. Without an edge, all is far.
    """
    edges = _edges(truth)
    distance = ndimage.distance_transform_edt(~edges) + 1 if edges.any() else np.full(truth.shape, np.inf)
    band = np.searchsorted(DISTANCES, distance, side="left")
    counted = truth != IGNORE
    cells = (band[counted] * num_classes + truth[counted]) * num_classes + prediction[counted]
    shape = (len(DISTANCES) + 1, num_classes, num_classes)
    return np.bincount(cells, minlength=math.prod(shape)).reshape(shape)


def object_counts(
    truth: np.ndarray, prediction: np.ndarray, objects: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count by the size of objects: hits, misses, and false alarms, int64 (S, C, 3), and the objects, int64 (S, C).

    `objects` holds a number of its own for every object, and 0 elsewhere: (H, W). A false alarm of a class belongs to
    its object nearest to the pixel, so that the IoU of a size is defined; where the image has none, it is left out.
    """
    counts = np.zeros((len(OBJECT_SIZES) + 1, num_classes, 3), np.int64)
    found = np.zeros(counts.shape[:2], np.int64)
    for index in np.unique(truth[(objects > 0) & (truth < num_classes)]):
        of_class = np.where(truth == index, objects, 0)
        numbers, pixels = np.unique(of_class[of_class > 0], return_counts=True)
        size_of = np.zeros(int(objects.max()) + 1, np.int64)
        size_of[numbers] = np.searchsorted(OBJECT_SIZES, pixels, side="right")
        found[:, index] += np.bincount(size_of[numbers], minlength=len(found))
        nearest = ndimage.distance_transform_edt(of_class == 0, return_distances=False, return_indices=True)
        false_alarm = (prediction == index) & (truth != index) & (truth != IGNORE)
        inside, hit = of_class > 0, prediction == index
        for column, (where, owner) in enumerate(
            ((inside & hit, of_class), (inside & ~hit, of_class), (false_alarm, of_class[tuple(nearest)]))
        ):
            counts[:, index, column] += np.bincount(size_of[owner[where]], minlength=len(counts))
    return counts, found


def _boundary(region: np.ndarray, width: int) -> np.ndarray:
    """Return the pixels of a region (H, W) that are at most `width` steps from the outside, diagonal steps included."""
    depth = ndimage.distance_transform_cdt(np.pad(region, 1), metric="chessboard")[1:-1, 1:-1]
    return region & (depth <= width)


def _edges(truth: np.ndarray) -> np.ndarray:
    """Return bool (H, W): pixels that have one of another class to their left, right, above, or below."""
    edges = np.zeros(truth.shape, bool)
    for here, there in (
        ((slice(None), slice(1, None)), (slice(None), slice(-1))),
        ((slice(1, None), slice(None)), (slice(-1), slice(None))),
    ):
        differs = (truth[here] != truth[there]) & (truth[here] != IGNORE) & (truth[there] != IGNORE)
        edges[here] |= differs
        edges[there] |= differs
    return edges
