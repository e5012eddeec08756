"""Shapes of the demo city as arrays: points, planes and looks of their parts, worked out once for a whole street."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cityscapes.demo.shapes import Paint, Part


class Solid(NamedTuple):
    """Parts in arrays: all points (P, 3), their number in each part, its normal (not of unit length), its distance.

    `hulls` says which parts are hulls, `painted` which have a paint, `looks` (see `look`) which one; `near` and `far`
    are the depths between which the points lie.
    """

    labels: list[str | None]
    points: np.ndarray
    counts: np.ndarray
    normals: np.ndarray
    distances: np.ndarray
    hulls: np.ndarray
    painted: np.ndarray
    looks: np.ndarray
    near: float
    far: float


def look(paint: Paint) -> tuple[float, ...]:
    """Return a paint as a row of numbers: red, green, blue, both periods, grain, material, own light."""
    return (*paint.color, *paint.period, paint.grain, paint.material, paint.glow)


UNPAINTED = (0.0,) * len(look(Paint((0, 0, 0))))


def make_solids(shapes: Sequence[list[Part]]) -> list[Solid]:
    """Return the solid of each shape; all of them in one go, which is what makes it fast."""
    parts = [part for shape in shapes for part in shape]
    labels = [part.label for part in parts]
    points = np.array([point for part in parts for point in part.points], np.float64)
    counts = np.array([len(part.points) for part in parts])
    hulls = np.array([part.hull for part in parts])
    painted = np.array([part.paint is not None for part in parts])
    looks = np.array([look(part.paint) if part.paint else UNPAINTED for part in parts], np.float64)
    starts = np.cumsum(counts) - counts
    normals, distances = _planes(points, starts, counts, hulls)
    ends = np.cumsum([len(shape) for shape in shapes]).tolist()
    solids, first, start = [], 0, 0
    for end in ends:
        stop = starts[end - 1] + counts[end - 1]
        depths = points[start:stop, 2]
        arrays = (array[first:end] for array in (counts, normals, distances, hulls, painted, looks))
        depth_range = float(depths.min()), float(depths.max())
        solids.append(Solid(labels[first:end], points[start:stop], *arrays, *depth_range))
        first, start = end, stop
    return solids


def _planes(
    points: np.ndarray, starts: np.ndarray, counts: np.ndarray, hulls: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return normals and distances of parts, from three of their points; hulls face the camera."""
    first, second, third = (points[starts + counts * third // 3] for third in range(3))
    (ax, ay, az), (bx, by, bz) = (second - first).T, (third - first).T
    normals = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)
    degenerate = np.abs(normals).max(1) < 1e-9
    normals[degenerate | hulls] = (0, 0, 1)
    return normals, dot(normals, *first.T)


def dot(normals: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the scalar product of each normal with (x, y, z)."""
    # Written out, because the order in which a matrix product adds differs from machine to machine.
    return normals[:, 0] * x + normals[:, 1] * y + normals[:, 2] * z
