"""The building blocks of the demo city, flat parts in meters with a paint, a label or both, and its camera.

Local axes: x to the right, y up from the ground, z away from the camera. A shape is a list of parts in drawing order;
the same list gives the pixels and the polygons, so that the two cannot disagree. In the image x is 0 in the middle and
y is 0 at the top, both in image heights, so that a scene is the same at any size.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cityscapes.demo.random_numbers import Color

Point = tuple[float, float, float]

PLAIN, SKY, ASPHALT, PAVING, GRASS, MASONRY, FACADE, LEAVES, STRIPES, GLASS = range(10)
"""Materials: what `paint` draws on a surface besides its color."""


class Paint(NamedTuple):
    """How a surface looks: color in 0 to 255, material, its period in meters along and across, grain, own light."""

    color: Color
    material: int = PLAIN
    period: tuple[float, float] = (1.0, 1.0)
    grain: float = 0.06
    glow: bool = False


class Part(NamedTuple):
    """A flat polygon, or with `hull` the convex outline of its points; unpainted or unlabeled where None."""

    points: Sequence[Point]
    paint: Paint | None = None
    label: str | None = None
    hull: bool = False


BUILDINGS, BEHIND, BOUNDARY, BESIDE, AT_CURB, LANE, MIDDLE = range(7)
"""Bands of a street from the outside inwards. A thing never hides one of a later band, so this is a drawing order."""


class Thing(NamedTuple):
    """Parts with a place in the street, x and z in meters, and a speed per frame.

    It has one shape for each phase of its walk and a shadow of some width and length. `upright` figures are flat and
    face the camera.
    """

    shapes: tuple[list[Part], ...]
    x: float
    z: float
    band: int
    speed: tuple[float, float] = (0.0, 0.0)
    shadow: tuple[float, float] | None = None
    upright: bool = False

    def place(self, frame: int) -> tuple[float, float]:
        """Return x and z at a frame."""
        return self.x + self.speed[0] * frame, self.z + self.speed[1] * frame


def shaded(color: Color, factor: float) -> Color:
    """Return the color made darker (below 1) or lighter (above 1)."""
    red, green, blue = color
    return min(red * factor, 255), min(green * factor, 255), min(blue * factor, 255)


def facing(x0: float, x1: float, y0: float, y1: float, z: float) -> list[Point]:
    """Return a rectangle that faces the camera."""
    return [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]


def along(x: float, y0: float, y1: float, z0: float, z1: float) -> list[Point]:
    """Return an upright rectangle along the street."""
    return [(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)]


def flat(x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> list[Point]:
    """Return a rectangle parallel to the ground."""
    return [(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)]


def box(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> list[Point]:
    """Return the eight corners of a box, for a hull."""
    return [(x, y, z) for x in (x0, x1) for y in (y0, y1) for z in (z0, z1)]


def upright(points: Iterable[tuple[float, float]], z: float = 0.0) -> list[Point]:
    """Return a drawing in x and y set upright at depth z."""
    return [(x, y, z) for x, y in points]


def disc(x: float, y: float, radius: float, z: float = 0.0, corners: int = 16) -> list[Point]:
    """Return a disc that faces the camera; few corners make it a triangle (3), a diamond (4) or an octagon (8)."""
    turns = [math.tau * (index + 0.5) / corners - math.pi / 2 for index in range(corners)]
    return [(x + radius * math.cos(turn), y + radius * math.sin(turn), z) for turn in turns]


def wheel(x: float, y: float, z: float, radius: float, corners: int = 16) -> list[Point]:
    """Return a disc along the street."""
    turns = [math.tau * index / corners for index in range(corners)]
    return [(x, y + radius * math.sin(turn), z + radius * math.cos(turn)) for turn in turns]


def ring(x: float, y: float, outer: float, inner: float, z: float = 0.0) -> list[Point]:
    """Return a ring that faces the camera, as one polygon with a seam."""
    outside, inside = disc(x, y, outer, z), disc(x, y, inner, z)
    return [*outside, outside[0], inside[0], *reversed(inside)]


def bar(start: tuple[float, float], end: tuple[float, float], width: float, z: float = 0.0) -> list[Point]:
    """Return a straight bar that faces the camera."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    scale = width / 2 / max(math.hypot(dx, dy), 1e-6)
    nx, ny = -dy * scale, dx * scale
    corners = [(start[0] + nx, start[1] + ny), (end[0] + nx, end[1] + ny)]
    corners += [(end[0] - nx, end[1] - ny), (start[0] - nx, start[1] - ny)]
    return upright(corners, z)


def mirrored(parts: list[Part], direction: int) -> list[Part]:
    """Return the parts, turned to the other side where `direction` is -1."""
    if direction > 0:
        return parts
    return [part._replace(points=[(-x, y, z) for x, y, z in part.points]) for part in parts]


Polygon = list[tuple[float, float]]
Outline = np.ndarray
"""Corners float64 (N, 2) in the image."""

EYE, NEAR, FAR, FOCAL = 1.5, 0.5, 270.0, 1.05
"""Height of the camera, nearest and farthest visible depth in meters; focal length in image heights."""


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
        """Return where a point appears that is x to the right of the camera, y above the ground and `depth` ahead."""
        return FOCAL * x / depth, self.horizon - FOCAL * (y - EYE) / depth

    def see_all(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where points (P, 3) relative to the camera's eye appear; those too near are taken as if at NEAR."""
        depth = np.maximum(points[:, 2], NEAR)
        return FOCAL * points[:, 0] / depth, self.horizon - FOCAL * points[:, 1] / depth

    def see_clipped(self, points: Sequence[Sequence[float]], *, hull: bool) -> Polygon:
        """Return the outline of what lies beyond NEAR of a polygon (or of a convex hull); empty where nothing does."""
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


def convex_hull(points: Polygon | Outline) -> Polygon:
    """Return the convex outline of points in the image (Andrew's monotone chain)."""
    ordered = sorted({(x, y) for x, y in (points.tolist() if isinstance(points, np.ndarray) else points)})
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
