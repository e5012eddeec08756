"""The camera of the demo city: from points in metres to points in image heights, and what to do with those behind it.

In the image x is 0 in the middle and y is 0 at the top, both in image heights, so that a scene is the same at any size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Polygon = list[tuple[float, float]]

EYE, NEAR, FAR, FOCAL = 1.5, 0.5, 270.0, 1.05
"""Height of the camera, nearest and farthest visible depth in metres; focal length in image heights."""


class Camera(NamedTuple):
    """A camera that looks along the street: its place, where the horizon is, half its image's width in heights.

    `fine` is the size in image heights below which details need not be drawn.
    """

    x: float
    z: float
    horizon: float
    reach: float
    fine: float

    def see(self, x: float, y: float, depth: float) -> tuple[float, float]:
        """Where a point appears that is x to the right of the camera, y above the ground and `depth` ahead."""
        return FOCAL * x / depth, self.horizon - FOCAL * (y - EYE) / depth

    def see_all(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points (P, 3) relative to the camera's eye appear; those too near are taken as if at NEAR."""
        depth = np.maximum(points[:, 2], NEAR)
        return FOCAL * points[:, 0] / depth, self.horizon - FOCAL * points[:, 1] / depth

    def see_clipped(self, points: Sequence[Sequence[float]], *, hull: bool) -> Polygon:
        """The outline of what lies beyond NEAR of a polygon (or of a convex hull); empty where nothing does."""
        count = len(points)
        pairs = [(a, b) for a in range(count) for b in range(a)] if hull else [(i - 1, i) for i in range(count)]
        kept = [tuple(point) for point in points if point[2] >= NEAR] if hull else []
        for first, second in pairs:
            (ax, ay, az), (bx, by, bz) = points[first], points[second]
            if (az >= NEAR) != (bz >= NEAR):
                share = (NEAR - az) / (bz - az)
                kept.append((ax + share * (bx - ax), ay + share * (by - ay), NEAR))
            if not hull and bz >= NEAR:
                kept.append((bx, by, bz))
        return [self.see(x, y + EYE, z) for x, y, z in kept] if len(kept) > 2 else []


def convex_hull(points: Polygon) -> Polygon:
    """The convex outline of points in the image (Andrew's monotone chain)."""
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered

    def chain(sequence: Polygon) -> Polygon:
        kept: Polygon = []
        for x, y in sequence:
            while len(kept) > 1:
                (ax, ay), (bx, by) = kept[-2], kept[-1]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                kept.pop()
            kept.append((x, y))
        return kept[:-1]

    return chain(ordered) + chain(ordered[::-1])
