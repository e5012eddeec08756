"""The building blocks of the demo city: flat parts in metres, each with a paint, a label, or both.

Local axes: x to the right, y up from the ground, z away from the camera. A shape is a list of parts in drawing order;
the same list gives the pixels and the polygons, so that the two cannot disagree.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cityscapes.demo.random_numbers import Color

Point = tuple[float, float, float]

PLAIN, SKY, ASPHALT, PAVING, GRASS, MASONRY, FACADE, LEAVES, STRIPES, GLASS = range(10)
"""Materials: what `paint` draws on a surface besides its colour."""


class Paint(NamedTuple):
    """How a surface looks: colour in 0 to 255, material, its period in metres along and across, grain, own light."""

    color: Color
    material: int = PLAIN
    period: tuple[float, float] = (1.0, 1.0)
    grain: float = 0.06
    glow: bool = False


class Part(NamedTuple):
    """A flat polygon, or with `hull` the convex outline of its points; unpainted or unlabelled where None."""

    points: Sequence[Point]
    paint: Paint | None = None
    label: str | None = None
    hull: bool = False


BUILDINGS, BEHIND, BOUNDARY, BESIDE, AT_KERB, LANE, MIDDLE = range(7)
"""Bands of a street from the outside inwards. A thing never hides one of a later band, so this is a drawing order."""


class Thing(NamedTuple):
    """Parts with a place in the street, x and z in metres, and a speed per frame.

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
        """x and z at a frame."""
        return self.x + self.speed[0] * frame, self.z + self.speed[1] * frame


def shaded(color: Color, factor: float) -> Color:
    """The colour made darker (below 1) or lighter (above 1)."""
    red, green, blue = color
    return min(red * factor, 255), min(green * factor, 255), min(blue * factor, 255)


def facing(x0: float, x1: float, y0: float, y1: float, z: float) -> list[Point]:
    """A rectangle that faces the camera."""
    return [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]


def along(x: float, y0: float, y1: float, z0: float, z1: float) -> list[Point]:
    """An upright rectangle along the street."""
    return [(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)]


def flat(x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> list[Point]:
    """A rectangle parallel to the ground."""
    return [(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)]


def box(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> list[Point]:
    """The eight corners of a box, for a hull."""
    return [(x, y, z) for x in (x0, x1) for y in (y0, y1) for z in (z0, z1)]


def upright(points: Iterable[tuple[float, float]], z: float = 0.0) -> list[Point]:
    """A drawing in x and y set upright at depth z."""
    return [(x, y, z) for x, y in points]


def disc(x: float, y: float, radius: float, z: float = 0.0, corners: int = 16) -> list[Point]:
    """A disc that faces the camera; few corners make it a triangle (3), a diamond (4) or an octagon (8)."""
    turns = [math.tau * (index + 0.5) / corners - math.pi / 2 for index in range(corners)]
    return [(x + radius * math.cos(turn), y + radius * math.sin(turn), z) for turn in turns]


def wheel(x: float, y: float, z: float, radius: float, corners: int = 16) -> list[Point]:
    """A disc along the street."""
    turns = [math.tau * index / corners for index in range(corners)]
    return [(x, y + radius * math.sin(turn), z + radius * math.cos(turn)) for turn in turns]


def ring(x: float, y: float, outer: float, inner: float, z: float = 0.0) -> list[Point]:
    """A ring that faces the camera, as one polygon with a seam."""
    outside, inside = disc(x, y, outer, z), disc(x, y, inner, z)
    return [*outside, outside[0], inside[0], *reversed(inside)]


def bar(start: tuple[float, float], end: tuple[float, float], width: float, z: float = 0.0) -> list[Point]:
    """A straight bar that faces the camera."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    scale = width / 2 / max(math.hypot(dx, dy), 1e-6)
    nx, ny = -dy * scale, dx * scale
    corners = [(start[0] + nx, start[1] + ny), (end[0] + nx, end[1] + ny)]
    corners += [(end[0] - nx, end[1] - ny), (start[0] - nx, start[1] - ny)]
    return upright(corners, z)


def mirrored(parts: list[Part], direction: int) -> list[Part]:
    """The parts, turned to the other side where `direction` is -1."""
    if direction > 0:
        return parts
    return [part._replace(points=[(-x, y, z) for x, y, z in part.points]) for part in parts]
