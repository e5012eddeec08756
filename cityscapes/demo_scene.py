"""One frame of a demo street: every part in drawing order, seen through the camera, as polygons and as surfaces."""

import math
from typing import NamedTuple

import numpy as np

from cityscapes.demo_random import Dice
from cityscapes.demo_shapes import SKY, Paint, Part, disc, facing
from cityscapes.demo_street import LANE, MIDDLE, Street, Thing

EYE, NEAR, FAR, FOCAL = 1.45, 0.5, 170.0, 1.15
"""Height of the camera, nearest and farthest visible depth in metres, focal length in image heights."""

Polygon = list[tuple[float, float]]

BONNET: Polygon = [(u / 10, 0.935 + 0.00075 * u * u) for u in range(-14, 15)] + [(1.4, 1.1), (-1.4, 1.1)]
"""The front of the camera car at the bottom of the image."""


class Surface(NamedTuple):
    """A painted part: its outline in image heights and what the painter needs to know about it.

    `plane` are the (p, q, r) for which the depth of a ray (dx, dy, 1) is 1 / (p dx + q dy + r); `axis` is the main
    direction of its normal (0 sideways, 1 up, 2 along the street); `origin` moves the texture with the thing.
    """

    outline: Polygon
    paint: Paint
    plane: tuple[float, float, float]
    axis: int
    origin: tuple[float, float]
    side: int
    seed: int


class View(NamedTuple):
    """A frame before it has pixels: labelled outlines and surfaces in drawing order, in image heights.

    The outlines have x 0 in the middle of the image and y 0 at its top. `shadows` are outlines on the ground.
    """

    labelled: list[tuple[str, Polygon]]
    surfaces: list[Surface]
    shadows: list[Polygon]


class _Solid(NamedTuple):
    """Parts in arrays: all points (P, 3), where each part starts, its unit normal and its distance along it."""

    parts: list[Part]
    points: np.ndarray
    starts: list[int]
    normals: np.ndarray
    distances: np.ndarray


def _solid(parts: list[Part]) -> _Solid:
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part.points))
    points = np.array([point for part in parts for point in part.points], np.float64)
    corners = [
        (part.points[0], part.points[len(part.points) // 3], part.points[2 * len(part.points) // 3]) for part in parts
    ]
    first, second, third = np.array(corners, np.float64).transpose(1, 0, 2)
    (ax, ay, az), (bx, by, bz) = (second - first).T, (third - first).T
    normals = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)
    upright = np.abs(normals).sum(1) < 1e-9
    normals[upright | np.array([part.hull for part in parts])] = (0, 0, 1)
    distances = normals[:, 0] * first[:, 0] + normals[:, 1] * first[:, 1] + normals[:, 2] * first[:, 2]
    return _Solid(parts, points, starts, normals, distances)


class Film:
    """A street in front of a camera; `view(frame)` gives what it sees at each frame."""

    def __init__(self, street: Street, seed: int, split: str, sequence: int) -> None:
        self.street = street
        self._ground = _solid(street.ground)
        self._things = [(thing, [_solid(parts) for parts in thing.shapes]) for thing in street.things]
        self._backdrop = _solid(_backdrop(Dice(seed, split, sequence, "backdrop")))

    def view(self, frame: int) -> View:
        """The frame's outlines and surfaces."""
        street = self.street
        camera_z = street.step * frame
        view = View([], [], [])
        haze = Paint((255, 255, 255), SKY)
        sky = [(-9.0, -1.0), (9.0, -1.0), (9.0, street.horizon + 0.02), (-9.0, street.horizon + 0.02)]
        view.labelled.append(("sky", sky))
        view.surfaces.append(Surface(sky, haze, (0.0, 1 / 200.0, 0.0), 1, (0.0, camera_z), 0, 0))
        self._add(view, self._ground, (0.0, 0.0, 0.0), camera_z, 1)
        self._add(view, self._backdrop, (0.0, 0.0, camera_z + FAR - 30), camera_z, 2)
        staged = []
        for index, (thing, solids) in enumerate(self._things):
            x, z = thing.place(frame)
            band = LANE if thing.band == MIDDLE and abs(x) > 1.5 else thing.band
            staged.append((band, -z, index, x, z, solids[frame % len(solids)]))
            self._cast(view, thing, x, z - camera_z)
        for _, _, index, x, z, solid in sorted(staged, key=lambda entry: entry[:3]):
            self._add(view, solid, (x, 0.0, z), camera_z, index + 3)
        view.labelled.append(("ego vehicle", BONNET))
        view.surfaces.append(Surface(BONNET, street.bonnet, (0.0, 0.0, 1 / 1.5), 2, (0.0, 0.0), 0, 2))
        return view

    def _cast(self, view: View, thing: Thing, x: float, z: float) -> None:
        if thing.shadow is None or not NEAR < z < 70:
            return
        width, length = thing.shadow
        lean = 0.5 if self.street.light.left > self.street.light.right else -0.5
        turns = [(math.cos(math.tau * i / 16), math.sin(math.tau * i / 16)) for i in range(16)]
        square = 1.0 if length > 3 else 0.7
        ring = [
            (x + lean + width * 0.6 * _square(c, square), 0.0, max(z + length * 0.52 * _square(s, square), NEAR))
            for c, s in turns
        ]
        view.shadows.append([self._project(px, py, pz) for px, py, pz in ring])

    def _project(self, x: float, y: float, z: float) -> tuple[float, float]:
        return FOCAL * (x - self.street.camera_x) / z, self.street.horizon - FOCAL * (y - EYE) / z

    def _add(self, view: View, solid: _Solid, place: tuple[float, float, float], camera_z: float, seed: int) -> None:
        shift = np.array([place[0] - self.street.camera_x, place[1] - EYE, place[2] - camera_z])
        points = solid.points + shift
        depth = points[:, 2]
        nearest, farthest = float(depth.min()), float(depth.max())
        if farthest <= NEAR or nearest > FAR + 100:
            return
        safe = np.maximum(depth, NEAR)
        us = FOCAL * points[:, 0] / safe
        vs = self.street.horizon - FOCAL * points[:, 1] / safe
        if float(us.min()) > 4 or float(us.max()) < -4:
            return
        flat_points = list(zip(us.tolist(), vs.tolist(), strict=True))
        distances = solid.distances + solid.normals @ shift
        normals, lengths = solid.normals.tolist(), distances.tolist()
        whole = nearest >= NEAR
        side = -1 if shift[0] > 0 else 1
        for index, part in enumerate(solid.parts):
            start, stop = solid.starts[index], solid.starts[index + 1]
            if whole:
                outline = flat_points[start:stop]
            else:
                outline = self._clipped(points[start:stop].tolist(), part.hull)
                if not outline:
                    continue
            if part.hull:
                outline = convex_hull(outline)
            if part.label:
                view.labelled.append((part.label, outline))
            if part.paint is not None:
                view.surfaces.append(
                    _surface(
                        outline, part, normals[index], lengths[index], nearest, place, camera_z, side, seed, self.street
                    )
                )

    def _clipped(self, points: list[list[float]], hull: bool) -> Polygon:
        """The outline of what lies beyond the nearest visible depth."""
        kept: list[tuple[float, float, float]] = []
        count = len(points)
        pairs = [(a, b) for a in range(count) for b in range(a)] if hull else [(i - 1, i) for i in range(count)]
        if hull:
            kept += [tuple(point) for point in points if point[2] >= NEAR]
        for first, second in pairs:
            (ax, ay, az), (bx, by, bz) = points[first], points[second]
            if (az >= NEAR) != (bz >= NEAR):
                t = (NEAR - az) / (bz - az)
                kept.append((ax + t * (bx - ax), ay + t * (by - ay), NEAR))
            if not hull and bz >= NEAR:
                kept.append((bx, by, bz))
        if len(kept) < 3:
            return []
        return [(FOCAL * x / z, self.street.horizon - FOCAL * y / z) for x, y, z in kept]


def _square(value: float, power: float) -> float:
    """Push a cosine towards -1 and 1, which makes an ellipse out of it more of a box."""
    return max(-1.0, min(1.0, value * 1.35)) if power == 1.0 else value


def _surface(
    outline: Polygon,
    part: Part,
    normal: list[float],
    distance: float,
    nearest: float,
    place: tuple[float, float, float],
    camera_z: float,
    side: int,
    seed: int,
    street: Street,
) -> Surface:
    p, q, r = normal
    if part.hull or abs(distance) < 1e-6:
        p, q, r, distance = 0.0, 0.0, 1.0, max(nearest, NEAR)
    sizes = (abs(p), abs(q), abs(r))
    axis = sizes.index(max(sizes))
    x, y, z = street.camera_x - place[0], EYE - place[1], camera_z - place[2]
    origin = ((z, y), (x, z), (x, y))[axis]
    return Surface(outline, part.paint, (p / distance, q / distance, r / distance), axis, origin, side, seed)


def _backdrop(dice: Dice) -> list[Part]:
    """The far end of the street: roofs and tree tops on the horizon."""
    parts = []
    x = -150.0
    while x < 150:
        width, height = dice.between(9, 22), dice.between(8, 26)
        color = dice.color((0, 1), (0, 0.25), (0.3, 0.8))
        parts.append(Part(facing(x, x + width, -2, height, 0), Paint(color), "building"))
        x += width * 0.9
    x = -150.0
    while x < 150:
        color = dice.color((0.15, 0.35), (0.2, 0.6), (0.2, 0.5))
        parts.append(Part(disc(x, dice.between(0, 3), dice.between(4, 7), -1.0), Paint(color), "vegetation"))
        x += dice.between(5, 14)
    return parts


def convex_hull(points: Polygon) -> Polygon:
    """The convex outline of the points (Andrew's monotone chain)."""
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered

    def chain(sequence: list[tuple[float, float]]) -> Polygon:
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
