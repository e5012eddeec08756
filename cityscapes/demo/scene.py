"""One frame of a demo street: every part in drawing order, seen through the camera, as polygons and as surfaces."""

import math
from typing import NamedTuple

import numpy as np

from cityscapes.demo.random_numbers import Dice
from cityscapes.demo.shapes import (
    EYE,
    FACADE,
    FAR,
    LANE,
    MIDDLE,
    NEAR,
    SKY,
    Camera,
    Paint,
    Part,
    Polygon,
    Thing,
    convex_hull,
    disc,
    facing,
)
from cityscapes.demo.street import Street, build_street

BONNET: Polygon = [(u / 10, 0.935 + 0.00075 * u * u) for u in range(-14, 15)] + [(1.4, 1.1), (-1.4, 1.1)]
"""The front of the camera car at the bottom of the image."""

UPRIGHT = 2.8
"""Flat figures that face the camera vanish nearer than this, in metres: next to the car they would look like boards."""


class Surface(NamedTuple):
    """A painted part: its outline in image heights and what the painter needs to know about it.

    `plane` are the (p, q, r) for which the depth of a ray (dx, dy, 1) is 1 / (p dx + q dy + r); `axis` is the main
    direction of its normal (0 sideways, 1 up, 2 along the street); `origin` moves the texture with the thing; `side` is
    1 on the left of the street, -1 on its right.
    """

    outline: Polygon
    paint: Paint
    plane: tuple[float, float, float]
    axis: int
    origin: tuple[float, float]
    side: int
    seed: int


class View(NamedTuple):
    """A frame before it has pixels: labelled outlines and surfaces in drawing order, and shadows on the ground."""

    labelled: list[tuple[str, Polygon]]
    surfaces: list[Surface]
    shadows: list[Polygon]


class _Solid(NamedTuple):
    """Parts in arrays: all points (P, 3), their number in each part, its normal (not of unit length), its distance.

    `hulls` says which parts are hulls, `near` and `far` between which depths the points lie.
    """

    parts: list[Part]
    points: np.ndarray
    counts: np.ndarray
    normals: np.ndarray
    distances: np.ndarray
    hulls: np.ndarray
    near: float
    far: float


def _solid(parts: list[Part]) -> _Solid:
    counts = np.array([len(part.points) for part in parts])
    hulls = np.array([part.hull for part in parts])
    points = np.array([point for part in parts for point in part.points], np.float64)
    thirds = [(0, len(part.points) // 3, 2 * len(part.points) // 3) for part in parts]
    corners = np.array([[part.points[i] for i in three] for part, three in zip(parts, thirds, strict=True)], np.float64)
    first, second, third = corners.transpose(1, 0, 2)
    (ax, ay, az), (bx, by, bz) = (second - first).T, (third - first).T
    normals = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)
    degenerate = np.abs(normals).max(1) < 1e-9
    normals[degenerate | hulls] = (0, 0, 1)
    near, far = float(points[:, 2].min()), float(points[:, 2].max())
    return _Solid(parts, points, counts, normals, _dot(normals, *first.T), hulls, near, far)


def _dot(normals: np.ndarray, x, y, z) -> np.ndarray:
    # Written out, because the order in which a matrix product adds differs from machine to machine.
    return normals[:, 0] * x + normals[:, 1] * y + normals[:, 2] * z


class Film:
    """A street with a camera driving through it; `view` gives what it sees at each frame."""

    def __init__(self, seed: int, split: str, number: int) -> None:
        self.split, self.number, self._seed = split, number, seed
        self.street: Street = build_street(self.dice, number)
        self._ground = _solid(self.street.ground)
        self._backdrop = _solid(_backdrop(self.dice("backdrop")))
        self._solids: dict[tuple[int, int], _Solid] = {}

    def dice(self, *names: int | str) -> Dice:
        """Dice for something in this street."""
        return Dice(self._seed, self.split, self.number, *names)

    def view(self, frame: int, *, height: int, width: int) -> View:
        """What is seen at a frame; the size in pixels only says how wide the view is and which details matter."""
        street = self.street
        camera = Camera(street.camera_x, street.step * frame, street.horizon, width / height / 2, 2.0 / height)
        view = View([], [], [])
        low, far = street.horizon + 0.02, camera.reach + 1
        sky = [(-far, -1.0), (far, -1.0), (far, low), (-far, low)]
        view.labelled.append(("sky", sky))
        paint = Paint((255, 255, 255), SKY)
        view.surfaces.append(Surface(sky, paint, (0.0, 1 / 200.0, 0.0), 1, (0.0, camera.z), 0, 0))
        placed = [(1, 0.0, 0.0, self._ground), (2, 0.0, camera.z + 140, self._backdrop)]
        for index, x, z, solid in self._staged(frame, camera):
            _cast(view, street, street.things[index], x, z, camera)
            placed.append((index + 3, x, z, solid))
        _add(view, placed, camera)
        view.labelled.append(("ego vehicle", BONNET))
        view.surfaces.append(Surface(BONNET, street.bonnet, (0.0, 0.0, 1 / 1.5), 2, (0.0, 0.0), 0, 2))
        return view

    def _staged(self, frame: int, camera: Camera) -> list[tuple[int, float, float, _Solid]]:
        """The things of a frame from back to front: from the outside of the street inwards, then by distance."""
        staged = []
        for index, thing in enumerate(self.street.things):
            x, z = thing.place(frame)
            if thing.upright and z - camera.z < UPRIGHT:
                continue
            band = LANE if thing.band == MIDDLE and abs(x) > 1.5 else thing.band
            staged.append(((band, -z, index), x, z, self._shape(index, frame % len(thing.shapes))))
        return [(key[2], x, z, solid) for key, x, z, solid in sorted(staged, key=lambda entry: entry[0])]

    def _shape(self, index: int, phase: int) -> _Solid:
        key = (index, phase)
        if key not in self._solids:
            self._solids[key] = _solid(self.street.things[index].shapes[phase])
        return self._solids[key]


def _cast(view: View, street: Street, thing: Thing, x: float, z: float, camera: Camera) -> None:
    """Lay the shadow of a thing on the ground: rounded under vehicles, away from the sun."""
    depth = z - camera.z
    if thing.shadow is None or not NEAR < depth < 70:
        return
    width, length = thing.shadow
    lean = 0.4 if street.light.left > street.light.right else -0.4
    corner = 1.35 if length > 3 else 1.0
    outline = []
    for index in range(16):
        turn = math.tau * index / 16
        across = max(-1.0, min(1.0, corner * math.cos(turn)))
        ahead = max(-1.0, min(1.0, corner * math.sin(turn)))
        px, pz = x - camera.x + lean + 0.6 * width * across, max(depth + 0.52 * length * ahead, NEAR)
        outline.append(camera.see(px, 0.0, pz))
    view.shadows.append(outline)


def _add(view: View, placed: list[tuple[int, float, float, _Solid]], camera: Camera) -> None:
    """Add what the camera sees of things, each a seed, its x and z and its parts; all of them in one go."""
    placed = [(*thing, solid) for *thing, solid in placed if _in_sight(solid, thing[2] - camera.z)]
    solids = [solid for *_, solid in placed]
    shifts = np.array([(x - camera.x, -EYE, z - camera.z) for _, x, z, _ in placed])
    points = np.concatenate([solid.points for solid in solids])
    points += np.repeat(shifts, [len(solid.points) for solid in solids], axis=0)
    us, vs = camera.see_all(points)
    parts = [part for solid in solids for part in solid.parts]
    owners = np.repeat(np.arange(len(solids)), [len(solid.parts) for solid in solids])
    stops = np.cumsum(np.concatenate([solid.counts for solid in solids]))
    starts = np.concatenate([[0], stops[:-1]])
    nearest = np.array([solid.near for solid in solids]) + shifts[:, 2]
    whole = (nearest >= NEAR)[owners]
    low_u, high_u = np.minimum.reduceat(us, starts), np.maximum.reduceat(us, starts)
    low_v, high_v = np.minimum.reduceat(vs, starts), np.maximum.reduceat(vs, starts)
    seen = (high_u > -camera.reach) & (low_u < camera.reach) & (high_v > 0) & (low_v < 1)
    large = np.minimum(high_u - low_u, 1) + np.minimum(high_v - low_v, 1) > camera.fine
    kept = np.flatnonzero((seen & large) | ~whole)
    planes, axes, origins = _planes(solids, shifts, owners, np.maximum(nearest, NEAR))
    us, vs = us.tolist(), vs.tolist()
    columns = (array[kept].tolist() for array in (starts, stops, whole, owners, planes, axes, origins))
    for index, start, stop, is_whole, owner, plane, axis, origin in zip(kept.tolist(), *columns, strict=True):
        part = parts[index]
        if is_whole:
            outline = list(zip(us[start:stop], vs[start:stop], strict=True))
        else:
            outline = camera.see_clipped(points[start:stop].tolist(), hull=part.hull)
        if part.hull:
            outline = convex_hull(outline)
        if len(outline) < 3:
            continue
        if part.label:
            view.labelled.append((part.label, outline))
        if part.paint:
            seed, x, *_ = placed[owner]
            side = 1 if x - camera.x < 0 else -1
            view.surfaces.append(Surface(outline, part.paint, plane, axis, origin, side, seed))


def _in_sight(solid: _Solid, ahead: float) -> bool:
    return solid.far + ahead > NEAR and solid.near + ahead <= FAR


def _planes(solids: list[_Solid], shifts: np.ndarray, owners: np.ndarray, nearest: np.ndarray) -> tuple:
    """Plane, axis and origin of each part, as `Surface` has them; hulls and what is seen edge-on face the camera."""
    normals = np.concatenate([solid.normals for solid in solids])
    x, y, z = shifts[owners].T
    distances = np.concatenate([solid.distances for solid in solids]) + _dot(normals, x, y, z)
    facing_camera = np.concatenate([solid.hulls for solid in solids]) | (np.abs(distances) < 1e-6)
    normals[facing_camera] = (0, 0, 1)
    distances = np.where(facing_camera, nearest[owners], distances)
    axes = np.abs(normals).argmax(axis=1)
    origins = np.stack([np.choose(axes, (-z, -x, -x)), np.choose(axes, (-y, -z, -y))], axis=1)
    return normals / distances[:, None], axes, origins


def _backdrop(dice: Dice) -> list[Part]:
    """The far end of the street: roofs and tree tops on the horizon."""
    parts = []
    x = -150.0
    while x < 150:
        width, height = dice.between(9, 22), dice.between(8, 26)
        paint = Paint(dice.color((0, 1), (0, 0.25), (0.3, 0.8)), FACADE, (3.5, 3.2))
        parts.append(Part(facing(x, x + width, -2, height, 0), paint, "building"))
        x += width * 0.9
    x = -150.0
    while x < 150:
        paint = Paint(dice.color((0.15, 0.35), (0.2, 0.6), (0.2, 0.5)))
        parts.append(Part(disc(x, dice.between(0, 3), dice.between(4, 7), -1.0), paint, "vegetation"))
        x += dice.between(5, 14)
    return parts
