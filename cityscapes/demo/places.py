"""Static objects of the demo city: buildings, walls, fences, trees, poles with signs and lights, bins."""

import math

from cityscapes.demo.random_numbers import Dice
from cityscapes.demo.shapes import (
    FACADE,
    LEAVES,
    MASONRY,
    PLAIN,
    Paint,
    Part,
    Point,
    along,
    bar,
    box,
    disc,
    facing,
    flat,
    shaded,
    upright,
)
from cityscapes.demo.vehicles import DARK


def building(dice: Dice, side: int, length: float) -> list[Part]:
    """Draw a house along the street from z 0 to `length`, its front at x 0, reaching away (`side` as for cars)."""
    color = (
        dice.color((0, 1), (0, 0.1), (0.35, 0.95))
        if dice.chance(0.4)
        else dice.color((-0.05, 0.16), (0.1, 0.6), (0.35, 0.95))
    )
    if dice.chance(0.15):
        color = dice.color((0, 1), (0.1, 0.4), (0.4, 0.9))
    story, bay = dice.between(2.9, 3.5), dice.between(1.7, 3.0)
    height, depth = story * (2 + dice.below(5)), -side * dice.between(9, 13)
    front = Paint(color, FACADE, (bay, story), dice.between(0.05, 0.14))
    x0, x1 = min(0.0, depth), max(0.0, depth)
    trim = Paint(shaded(color, dice.pick((0.6, 1.25))))
    parts = [
        Part(box(x0, x1, 0, height, 0, length), Paint(shaded(color, 0.8)), "building", hull=True),
        Part(facing(x0, x1, 0, height, 0), front._replace(color=shaded(color, 0.9))),
        Part(along(0, 0, height, 0, length), front),
        Part(along(0.06 * side, height - 0.45, height, 0, length), trim),
        Part(along(0.05 * side, story - 0.25, story, 0, length), trim),
    ]
    if dice.chance(0.6):
        roof, ridge = (
            Paint(dice.color((-0.03, 0.06), (0.05, 0.6), (0.2, 0.6)), MASONRY, (0.5, 0.3), 0.15),
            height + dice.between(1.5, 3),
        )
        slope = [(0, height, 0), (0, height, length), (depth * 0.4, ridge, length), (depth * 0.4, ridge, 0)]
        gable = [(x0, height, 0), (x1, height, 0), (depth * 0.4, ridge, 0)]
        parts += [Part(slope, roof, "building"), Part(gable, front._replace(material=PLAIN), "building")]
    if dice.chance(0.5):
        awning = Paint(dice.color((0, 1), (0.3, 0.9), (0.3, 0.9)))
        start = dice.between(0, length / 2)
        edge = 1.0 * side
        cloth = [(0, 2.8, start), (0, 2.8, start + 3), (edge, 2.35, start + 3), (edge, 2.35, start)]
        parts.append(Part(cloth, awning, "building"))
    return parts


def wall(dice: Dice, length: float) -> list[Part]:
    """Draw a wall of brick, stone or concrete along the street, with a coping and piers."""
    color = dice.color((-0.03, 0.12), (0.05, 0.55), (0.3, 0.85))
    height = dice.between(1.8, 2.9)
    stones = dice.pick(((0.5, 0.25), (0.9, 0.45), (1.6, 0.8)))
    pier = Paint(shaded(color, 0.8), MASONRY, stones, 0.15)
    parts = [Part(along(0, 0, height, 0, length), Paint(color, MASONRY, stones, 0.15), "wall")]
    for index in range(int(length / 4) + 1):
        z = min(index * 4.0, length - 0.5)
        parts.append(Part(along(0, 0, height, z, z + 0.5), pier))
    return [*parts, Part(along(0, height - 0.16, height, 0, length), Paint(shaded(color, 1.25)))]


def fence(dice: Dice, length: float, *, low: bool = False) -> list[Part]:
    """Draw a fence along the street that lets the view through: pickets or bars between rails."""
    wooden = dice.chance(0.5) and not low
    color = dice.color((0.05, 0.12), (0.1, 0.6), (0.3, 0.95)) if wooden else dice.color((0, 1), (0, 0.5), (0.1, 0.75))
    paint, dim = Paint(color, grain=0.12), Paint(shaded(color, 0.7))
    height = 1.05 if low else dice.between(1.4, 1.9)
    spacing, width = (0.3, 0.19) if wooden else (0.26, 0.09)
    parts = [Part(along(0, 0, height, 0, length), None, "fence")]
    parts += [Part(along(0, y, y + 0.1, 0, length), dim) for y in (0.2, height * 0.5, height - 0.14)]
    for index in range(int(length / spacing)):
        z = index * spacing
        parts.append(Part(along(0, 0.02, height, z, z + width), paint))
    for index in range(int(length / 2.5) + 1):
        z = min(index * 2.5, length - 0.16)
        parts.append(Part(along(0, 0, height, z, z + 0.18), dim))
    return parts


def fence_across(dice: Dice, width: float) -> list[Part]:
    """Draw a fence from x 0 to `width` that faces the camera."""
    color = dice.color((0, 1), (0, 0.5), (0.15, 0.95))
    paint, height = Paint(color, grain=0.12), dice.between(1.2, 1.7)
    parts = [Part(facing(0, width, 0, height, 0), None, "fence")]
    parts += [Part(facing(0, width, y, y + 0.1, 0), paint) for y in (0.25, height - 0.2)]
    for index in range(int(width / 0.28)):
        parts.append(Part(facing(index * 0.28, index * 0.28 + 0.14, 0.0, height, 0), paint))
    return parts


def _blob(dice: Dice, x: float, y: float, rx: float, ry: float, corners: int = 44) -> list[Point]:
    """Return a leafy outline: large bulges with small ones on them."""
    bulges = [dice.between(0.82, 1.12) for _ in range(corners // 4)]
    points = []
    for index in range(corners):
        low, share = divmod(index, 4)
        bulge = bulges[low] + (bulges[(low + 1) % len(bulges)] - bulges[low]) * share / 4
        turn, reach = math.tau * index / corners, bulge * dice.between(0.93, 1.05)
        points.append((x + rx * reach * math.cos(turn), y + ry * reach * math.sin(turn), 0.0))
    return points


def tree(dice: Dice, season: tuple[float, float]) -> list[Part]:
    """Draw a tree: a trunk and a crown of leaves; `season` is the range of hues."""
    color = dice.color(season, (0.3, 0.75), (0.2, 0.6))
    height, reach = dice.between(5, 8.5), dice.between(1.5, 2.4)
    if dice.chance(0.25):
        height, reach = dice.between(6, 9), dice.between(0.9, 1.3)
    stem = dice.between(1.6, 2.6)
    crown = _blob(dice, 0, (height + stem) / 2, reach, (height - stem) / 2)
    bark = Paint(dice.color((0.05, 0.12), (0.15, 0.4), (0.15, 0.45)), grain=0.25)
    lit = _blob(dice, -0.25 * reach, 0.6 * height + 0.4 * stem, 0.55 * reach, 0.28 * (height - stem))
    return [
        Part(upright([(-0.16, 0), (0.16, 0), (0.1, stem + 0.4), (-0.1, stem + 0.4)]), bark, "vegetation"),
        Part(crown, Paint(color, LEAVES, grain=0.5), "vegetation"),
        Part(lit, Paint(shaded(color, 1.25), LEAVES, grain=0.5)),
    ]


def bush(dice: Dice, season: tuple[float, float]) -> list[Part]:
    """Draw a bush or a piece of hedge."""
    color = dice.color(season, (0.3, 0.75), (0.18, 0.55))
    width, height = dice.between(0.8, 1.6), dice.between(0.5, 0.9)
    outline = [(x, max(y, 0.0), z) for x, y, z in _blob(dice, 0, height * 0.8, width, height, 24)]
    return [Part(outline, Paint(color, LEAVES, grain=0.5), "vegetation")]


def _post(width: float, height: float, paint: Paint) -> list[Part]:
    half = width / 2
    light = Paint(shaded(paint.color, 1.3))
    return [
        Part(facing(-half, half, 0, height, 0), paint, "pole"),
        Part(facing(-half, -half * 0.3, 0, height, 0), light),
        Part(facing(-half * 1.5, half * 1.5, 0, 0.25, 0), paint, "pole"),
    ]


def _metal(dice: Dice) -> Paint:
    return Paint(dice.color((0, 1), (0, 0.25), (0.12, 0.65)), grain=0.08)


def lamp_post(dice: Dice, side: int) -> list[Part]:
    """Draw a street lamp whose arm reaches over the road."""
    paint, height = _metal(dice), dice.between(6.5, 8.0)
    reach = 1.8 * side
    head = upright([(reach, height), (reach * 1.4, height - 0.1), (reach * 1.4, height + 0.1), (reach, height + 0.14)])
    return [
        *_post(0.28, height, paint),
        Part(bar((0, height - 0.3), (reach, height + 0.05), 0.14), paint, "pole"),
        Part(head, Paint((235, 225, 190), glow=dice.chance(0.5)), "pole"),
    ]


def _sign_face(dice: Dice, y: float) -> list[Part]:
    ink, white = DARK, Paint((240, 240, 235), grain=0.02)
    red, blue, yellow = (
        Paint((200, 25, 35), grain=0.02),
        Paint((25, 75, 170), grain=0.02),
        Paint((235, 190, 40), grain=0.02),
    )
    size = dice.between(0.42, 0.52)
    kind = dice.below(6)
    if kind == 0:
        face = [Part(disc(0, y, size), red, "traffic sign"), Part(disc(0, y, size * 0.74), white)]
        return [*face, Part(bar((-0.16, y), (-0.03, y), 0.3), ink), Part(bar((0.05, y), (0.18, y), 0.3), ink)]
    if kind == 1:
        face = [Part(disc(0, y, size * 1.1, corners=8), red, "traffic sign")]
        return [*face, Part(bar((-0.3, y), (0.3, y), 0.2), white)]
    if kind == 2:
        face = [Part(upright([(-size * 1.1, y - size), (size * 1.1, y - size), (0, y + size)]), red, "traffic sign")]
        face.append(
            Part(upright([(-size * 0.75, y - size * 0.8), (size * 0.75, y - size * 0.8), (0, y + size * 0.6)]), white)
        )
        return [*face, Part(bar((0, y - 0.3), (0, y + 0.05), 0.09), ink)]
    if kind == 3:
        face = [Part(facing(-size, size, y - size, y + size, 0), blue, "traffic sign")]
        face.append(Part(upright([(-0.26, y - 0.3), (0.26, y - 0.3), (0.0, y + 0.32)]), white))
        return face
    if kind == 4:
        corners = [(-size * 1.2, y), (0, y - size * 1.2), (size * 1.2, y), (0, y + size * 1.2)]
        face = [Part(upright(corners), white, "traffic sign")]
        return [*face, Part(upright([(x * 0.72, y + (py - y) * 0.72) for x, py in corners]), yellow)]
    face = [Part(disc(0, y, size), blue, "traffic sign"), Part(ring_mark(y, size), white)]
    return face


def ring_mark(y: float, size: float) -> list[Point]:
    """Return an arrow pointing up, as on a blue round sign."""
    return upright(
        [
            (-0.07, y - size * 0.6),
            (0.07, y - size * 0.6),
            (0.07, y),
            (0.22, y),
            (0, y + size * 0.65),
            (-0.22, y),
            (-0.07, y),
        ]
    )


def sign_post(dice: Dice) -> list[Part]:
    """Draw a pole with one or two traffic signs."""
    y = dice.between(2.2, 2.7)
    parts = [*_post(0.24, y + 0.6, _metal(dice)), *_sign_face(dice, y)]
    if dice.chance(0.4):
        parts += _sign_face(dice, y - 1.0)
    return parts


def _lamps(dice: Dice, x: float, y: float) -> list[Part]:
    case = Paint(dice.pick(((28, 30, 30), (40, 55, 45), (60, 58, 40))))
    lit = dice.below(3)
    colors = ((235, 40, 30), (250, 180, 40), (50, 225, 110))
    parts = [Part(facing(x - 0.27, x + 0.27, y - 0.65, y + 0.65, 0), case, "traffic light")]
    for index, color in enumerate(colors):
        paint = Paint(color, glow=True) if index == lit else Paint(shaded(color, 0.28))
        parts.append(Part(disc(x, y + 0.4 - 0.4 * index, 0.165, corners=12), paint))
    return parts


def traffic_light(dice: Dice, side: int, *, arm: bool) -> list[Part]:
    """Draw a pole with traffic lights; with `arm` a second set hangs over the road."""
    paint = _metal(dice)
    parts = [*_post(0.26, 5.6 if arm else 3.4, paint)]
    if arm:
        reach = 3.2 * side
        parts.append(Part(bar((0, 5.4), (reach, 5.5), 0.16), paint, "pole"))
        parts += _lamps(dice, reach, 4.9)
    return [*parts, *_lamps(dice, 0.12 * side, 2.85)]


def bin_or_box(dice: Dice) -> list[Part]:
    """Draw a trash can or a gray cabinet: things of no class (`static`)."""
    paint, width, height = (
        Paint(dice.color((0, 1), (0, 0.7), (0.2, 0.7))),
        dice.between(0.25, 0.45),
        dice.between(0.8, 1.2),
    )
    shape = facing(-width, width, 0, height, 0)
    return [Part(shape, paint, "static"), Part(facing(-width, width, height - 0.2, height - 0.1, 0), DARK)]


def suitcase(dice: Dice) -> list[Part]:
    """Draw a suitcase left on wheels (`dynamic`)."""
    paint = Paint(dice.color((0, 1), (0.2, 0.9), (0.2, 0.8)))
    return [Part(facing(-0.25, 0.25, 0.05, 0.75, 0), paint, "dynamic"), Part(bar((0, 0.75), (0, 1.0), 0.08), DARK)]


def zebra(left: float, right: float) -> list[Part]:
    """Draw a pedestrian crossing from x `left` to `right`, 3 meters along the street."""
    white = Paint((225, 225, 220), grain=0.12)
    starts = [left + 1.0 * index for index in range(int(right - left))]
    return [Part(flat(x + 0.2, x + 0.75, 0, 3.0), white) for x in starts]
