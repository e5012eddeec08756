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
    Outline,
    Paint,
    Part,
    Thing,
    convex_hull,
    disc,
    facing,
)
from cityscapes.demo.solids import Solid, dot, look, make_solids
from cityscapes.demo.street import Street, build_street

HOOD = np.array([(u / 10, 0.935 + 0.00075 * u * u) for u in range(-14, 15)] + [(1.4, 1.1), (-1.4, 1.1)])
"""The front of the camera car at the bottom of the image."""

UPRIGHT = 2.8
"""Flat figures that face the camera vanish nearer than this, in meters: next to the car they would look like boards."""

TURNS = [math.tau * index / 16 for index in range(16)]
CIRCLE = np.array([(math.cos(turn), math.sin(turn)) for turn in TURNS])
SHADOWS = {False: CIRCLE, True: np.clip(1.35 * CIRCLE, -1, 1)}
"""Outlines of shadows across and along the street, of things and of vehicles, which have rounded corners."""


class Surfaces(NamedTuple):
    """Painted parts in drawing order: their outlines, and in arrays what the painter needs to know about them.

    `looks` are rows of `look`. `planes` are the (p, q, r) for which the depth of a ray (dx, dy, 1) is
    1 / (p dx + q dy + r); `axes` are the main directions of their normals (0 sideways, 1 up, 2 along the street);
    `origins` move the texture with the thing; `sides` are 1 on the left of the street, -1 on its right.
    """

    outlines: list[Outline]
    looks: np.ndarray
    planes: np.ndarray
    axes: np.ndarray
    origins: np.ndarray
    sides: np.ndarray
    seeds: np.ndarray


class View(NamedTuple):
    """A frame before it has pixels: labeled outlines and surfaces in drawing order, and shadows on the ground."""

    labeled: list[tuple[str, Outline]]
    surfaces: Surfaces
    shadows: list[Outline]


class _Placed(NamedTuple):
    """A solid in the street: the seed of its textures, and where it is."""

    seed: int
    x: float
    z: float
    solid: Solid


class Film:
    """A street with a camera driving through it; `view` gives what it sees at each frame."""

    def __init__(self, seed: int, split: str, number: int) -> None:
        self.split, self.number, self._seed = split, number, seed
        self.street: Street = build_street(self.dice, number)
        shapes = [self.street.ground, _backdrop(self.dice("backdrop"))]
        shapes += [shape for thing in self.street.things for shape in thing.shapes]
        self._ground, self._backdrop, *solids = make_solids(shapes)
        rest = iter(solids)
        self._solids = [[next(rest) for _ in thing.shapes] for thing in self.street.things]

    def dice(self, *names: int | str) -> Dice:
        """Return the dice for something in this street."""
        return Dice(self._seed, self.split, self.number, *names)

    def view(self, frame: int, *, height: int, width: int) -> View:
        """Return what is seen at a frame; the size in pixels only says how wide it is and which details matter."""
        street = self.street
        camera = Camera(street.camera_x, street.step * frame, street.horizon, width / height / 2, 2.0 / height)
        low, far = street.horizon + 0.02, camera.reach + 1
        sky = np.array([(-far, -1.0), (far, -1.0), (far, low), (-far, low)])
        white = Paint((255, 255, 255), SKY)
        staged = self._staged(frame, camera)
        placed = [_Placed(1, 0.0, 0.0, self._ground), _Placed(2, 0.0, camera.z + 140, self._backdrop)]
        placed += [
            _Placed(index + 3, x, z, self._solids[index][frame % len(self._solids[index])]) for index, x, z in staged
        ]
        labeled, surfaces = _seen(placed, camera)
        above = _surface(sky, white, (0.0, 1 / 200.0, 0.0), 1, (0.0, camera.z), 0)
        below = _surface(HOOD, street.hood, (0.0, 0.0, 1 / 1.5), 2, (0.0, 0.0), 2)
        return View(
            [("sky", sky), *labeled, ("ego vehicle", HOOD)],
            _join(above, surfaces, below),
            _shadows(street, [(street.things[index], x, z) for index, x, z in staged], camera),
        )

    def _staged(self, frame: int, camera: Camera) -> list[tuple[int, float, float]]:
        """Return index, x and z of the things of a frame, from the outside of the street inwards, far ones first."""
        staged = []
        for index, thing in enumerate(self.street.things):
            x, z = thing.place(frame)
            if thing.upright and z - camera.z < UPRIGHT:
                continue
            band = LANE if thing.band == MIDDLE and abs(x) > 1.5 else thing.band
            staged.append((band, -z, index, x))
        return [(index, x, -behind) for _, behind, index, x in sorted(staged)]


def _shadows(street: Street, staged: list[tuple[Thing, float, float]], camera: Camera) -> list[Outline]:
    """Lay the shadows of things on the ground: rounded under vehicles, away from the sun."""
    lit = [
        (x, z - camera.z, *thing.shadow)
        for thing, x, z in staged
        if thing.shadow is not None and NEAR < z - camera.z < 70
    ]
    if not lit:
        return []
    x, depth, width, length = np.array(lit).T[:, :, None]
    across, ahead = np.array([SHADOWS[length > 3] for *_, length in lit]).transpose(2, 0, 1)
    lean = 0.4 if street.light.left > street.light.right else -0.4
    px, pz = x - camera.x + lean + 0.6 * width * across, depth + 0.52 * length * ahead
    points = np.stack([px, np.full_like(px, -EYE), pz], axis=2).reshape(-1, 3)
    return list(np.stack(camera.see_all(points), axis=1).reshape(*px.shape, 2))


def _seen(placed: list[_Placed], camera: Camera) -> tuple[list[tuple[str, Outline]], Surfaces]:
    """Return what the camera sees of things, labeled outlines and surfaces; all of them in one go."""
    placed = [thing for thing in placed if _in_sight(thing.solid, thing.z - camera.z)]
    seeds, xs, zs, solids = zip(*placed, strict=True)
    shifts = np.array([(x - camera.x, -EYE, z - camera.z) for x, z in zip(xs, zs, strict=True)])
    points = np.concatenate([solid.points for solid in solids])
    points += np.repeat(shifts, [len(solid.points) for solid in solids], axis=0)
    image = np.stack(camera.see_all(points), axis=1)
    labels = [label for solid in solids for label in solid.labels]
    owners = np.repeat(np.arange(len(solids)), [len(solid.counts) for solid in solids])
    counts, hulls, painted, looks = (
        np.concatenate([getattr(solid, name) for solid in solids]) for name in ("counts", "hulls", "painted", "looks")
    )
    stops = np.cumsum(counts)
    starts = stops - counts
    nearest = np.array([solid.near for solid in solids]) + shifts[:, 2]
    whole = (nearest >= NEAR)[owners]
    low, high = np.minimum.reduceat(image, starts), np.maximum.reduceat(image, starts)
    seen = (high[:, 0] > -camera.reach) & (low[:, 0] < camera.reach) & (high[:, 1] > 0) & (low[:, 1] < 1)
    width, height = np.minimum(high - low, 1).T
    large = width + height > camera.fine
    kept = np.flatnonzero((seen & large) | ~whole)
    labeled, outlines, parts = [], [], []
    columns = (array[kept].tolist() for array in (starts, stops, whole, hulls, painted))
    for part, start, stop, is_whole, is_hull, is_painted in zip(kept.tolist(), *columns, strict=True):
        outline = image[start:stop]
        if is_hull or not is_whole:
            corners = outline if is_whole else camera.see_clipped(points[start:stop].tolist(), hull=is_hull)
            outline = np.array(convex_hull(corners) if is_hull else corners)
        if len(outline) < 3:
            continue
        if labels[part]:
            labeled.append((labels[part], outline))
        if is_painted:
            outlines.append(outline)
            parts.append(part)
    planes, axes, origins = _planes(solids, shifts, owners, hulls, np.maximum(nearest, NEAR))
    owners = owners[parts]
    sides = np.where(shifts[owners, 0] < 0, 1, -1)
    surfaces = Surfaces(
        outlines, looks[parts], planes[parts], axes[parts], origins[parts], sides, np.array(seeds)[owners]
    )
    return labeled, surfaces


def _in_sight(solid: Solid, ahead: float) -> bool:
    return solid.far + ahead > NEAR and solid.near + ahead <= FAR


def _planes(
    solids: tuple[Solid, ...], shifts: np.ndarray, owners: np.ndarray, hulls: np.ndarray, nearest: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return plane, axis and origin of each part (see `Surfaces`); hulls and what is seen edge-on face the camera."""
    normals = np.concatenate([solid.normals for solid in solids])
    x, y, z = shifts[owners].T
    distances = np.concatenate([solid.distances for solid in solids]) + dot(normals, x, y, z)
    facing_camera = hulls | (np.abs(distances) < 1e-6)
    normals[facing_camera] = (0, 0, 1)
    distances = np.where(facing_camera, nearest[owners], distances)
    axes = np.abs(normals).argmax(axis=1)
    origins = np.stack([np.choose(axes, (-z, -x, -x)), np.choose(axes, (-y, -z, -y))], axis=1)
    return normals / distances[:, None], axes, origins


def _surface(
    outline: Outline,
    paint: Paint,
    plane: tuple[float, float, float],
    axis: int,
    origin: tuple[float, float],
    seed: int,
) -> Surfaces:
    """Return a surface that is on no side of the street."""
    arrays = (np.array([value]) for value in (look(paint), plane, axis, origin, 0, seed))
    return Surfaces([outline], *arrays)


def _join(*groups: Surfaces) -> Surfaces:
    outlines, *columns = zip(*groups, strict=True)
    return Surfaces(sum(outlines, []), *(np.concatenate(column) for column in columns))


def _backdrop(dice: Dice) -> list[Part]:
    """Return the far end of the street: roofs and tree tops on the horizon."""
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
