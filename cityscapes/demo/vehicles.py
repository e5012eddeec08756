"""Cars, buses, trucks and trams of the demo city, as parts.

`side` is the side seen from the camera's lane: -1 on the right of the street, 1 on its left. `oncoming` vehicles show
their front, the others their back.
"""

from cityscapes.demo.random_numbers import Color, Dice
from cityscapes.demo.shapes import (
    GLASS,
    STRIPES,
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
    wheel,
)

WINDOW = Paint((52, 62, 72), GLASS)
DARK = Paint((24, 24, 26))
TIRE = Paint((22, 22, 24), grain=0.12)
RIM = Paint((140, 142, 146))
RED = Paint((225, 30, 25), glow=True)
WHITE = Paint((250, 246, 225), glow=True)
AMBER = Paint((255, 165, 40), glow=True)


def vehicle_color(dice: Dice) -> Color:
    """Return a car's paint: often white, gray or black, else any color."""
    if dice.chance(0.45):
        return dice.color((0, 1), (0, 0.08), (0.15, 0.95))
    return dice.color((0, 1), (0.35, 0.9), (0.3, 0.9))


def _wheels(side: int, width: float, radius: float, places: list[float]) -> list[Part]:
    x = side * width / 2
    parts = []
    for z in places:
        parts.append(Part(wheel(x, radius, z, radius), TIRE))
        parts.append(Part(wheel(x, radius, z, radius * 0.55, 10), RIM))
        parts.append(Part(wheel(x, radius, z, radius * 0.2, 6), DARK))
    return parts


def _body(label: str, hull: list[Point], feet: list[Point], paint: Paint) -> list[Part]:
    """Return the whole outline, dark as it is below, and the body above it."""
    return [Part(hull + feet, DARK, label, hull=True), Part(hull, paint, None, hull=True)]


def _lamps(width: float, y: float, size: float, z: float, oncoming: bool) -> list[Part]:
    paint = WHITE if oncoming else RED
    edge = width / 2 - 0.08
    return [
        Part(facing(-edge, -edge + size, y, y + size * 0.6, z), paint),
        Part(facing(edge - size, edge, y, y + size * 0.6, z), paint),
    ]


def _plate(y: float, z: float) -> Part:
    return Part(facing(-0.27, 0.27, y, y + 0.13, z), Paint((235, 235, 225)), "license plate")


def car(dice: Dice, side: int, oncoming: bool) -> list[Part]:
    """Draw a sedan, a station wagon or a van: 1.8 x 1.4 to 1.9 x 4.3 meters."""
    width, length, height = dice.between(1.7, 1.9), dice.between(3.9, 4.6), dice.pick((1.42, 1.48, 1.6, 1.85))
    color = vehicle_color(dice)
    body, dim, lit = Paint(color, grain=0.03), Paint(shaded(color, 0.7), grain=0.03), Paint(shaded(color, 1.15))
    hood = dice.between(0.24, 0.3) if height < 1.8 else 0.16
    ends = (-0.5 + hood, 0.47, -0.5 + hood + 0.13, 0.36) if oncoming else (-0.47, 0.5 - hood, -0.36, 0.37 - hood)
    base_near, base_far, roof_near, roof_far = (length * end for end in ends)
    near, half, waist, inset = -length / 2, width / 2, 0.9, 0.16
    x, roof = side * (half - inset * 0.6), half - inset
    glass = [(x, waist, base_near + 0.1), (x, waist, base_far - 0.1)]
    glass += [(x, height - 0.1, roof_far - 0.04), (x, height - 0.1, roof_near + 0.04)]
    middle = (base_near + base_far) / 2
    hull = box(-half, half, 0.3, waist, near, -near) + box(-roof, roof, height, height, roof_near, roof_far)
    screen = [(-half + 0.1, waist, base_near), (half - 0.1, waist, base_near)]
    screen += [(roof, height, roof_near), (-roof, height, roof_near)]
    pane = [(0.86 * px, waist + 0.06 if py == waist else height - 0.08, pz - 0.02) for px, py, pz in screen]
    return [
        *_body("car", hull, box(-half, half, 0.0, 0.0, 0.78 * near, -0.78 * near), dim),
        Part(facing(-half + 0.1, half - 0.1, 0.08, 0.35, near * 0.9), DARK),
        Part(along(side * half, 0.12, 0.34, 0.8 * near, -0.8 * near), DARK),
        Part(along(side * half, 0.32, waist, near, -near), body),
        Part([(x, waist, base_near), (x, waist, base_far), (x, height, roof_far), (x, height, roof_near)], body),
        Part(glass, WINDOW),
        Part(along(x, waist, height - 0.06, middle - 0.05, middle + 0.05), body),
        *_wheels(side, width, 0.33, [0.62 * near, -0.62 * near]),
        Part(flat(-half, half, near, base_near, waist), lit),
        Part(screen, body),
        Part(pane, WINDOW),
        Part(facing(-half, half, 0.3, waist, near), body),
        Part(facing(-half, half, 0.28, 0.42, near), dim),
        Part(facing(-0.5, 0.5, 0.55, 0.7, near), DARK if oncoming else dim),
        *_lamps(width, 0.62, 0.36, near, oncoming),
        _plate(0.44, near),
    ]


def queue(dice: Dice, side: int, oncoming: bool) -> list[Part]:
    """Draw three cars close together, under one outline because far away they cannot be told apart (`cargroup`)."""
    parts: list[Part] = []
    for z in (5.2, 0.0, -5.2):
        for part in car(dice, side, oncoming):
            parts.append(part._replace(points=[(px, py, pz + z) for px, py, pz in part.points], label=None))
    outline = [point for part in parts if part.hull for point in part.points]
    return [Part(outline, None, "cargroup", hull=True), *parts]


def bus(dice: Dice, side: int, oncoming: bool) -> list[Part]:
    """Draw a city bus: 2.5 x 3.1 x 10.5 meters, with a band of windows, doors and a lit destination."""
    width, length, height = 2.5, dice.between(9.5, 11.5), dice.between(2.95, 3.25)
    color = dice.color((0, 1), (0.4, 0.95), (0.45, 0.95))
    body, trim = Paint(color, grain=0.03), Paint(dice.color((0, 1), (0, 0.7), (0.25, 0.95)), grain=0.03)
    near, half, x = -length / 2, width / 2, side * width / 2
    hull = box(-half, half, 0.28, height, near, -near)
    parts = [
        *_body("bus", hull, box(-half, half, 0, 0, 0.7 * near, -0.7 * near), Paint(shaded(color, 0.75))),
        Part(along(x, 0.28, height, near, -near), body),
        Part(along(x, 0.28, 0.75, near, -near), trim),
        Part(along(x, height - 0.3, height, near, -near), trim),
        Part(along(x, 1.2, 2.55, near + 0.25, -near - 0.25), WINDOW),
    ]
    count = 6
    for index in range(1, count):
        z = near + length * index / count
        parts.append(Part(along(x, 1.2, 2.55, z - 0.06, z + 0.06), body))
    for z in (near + 0.8, 0.4):
        parts.append(Part(along(x, 0.4, 2.5, z, z + 1.2), DARK))
        parts.append(Part(along(x, 0.5, 2.4, z + 0.08, z + 0.56), WINDOW))
        parts.append(Part(along(x, 0.5, 2.4, z + 0.64, z + 1.12), WINDOW))
    parts += _wheels(side, width, 0.5, [0.52 * near, -0.55 * near])
    low = 1.05 if oncoming else 1.6
    return [
        *parts,
        Part(facing(-half, half, 0.28, height, near), body),
        Part(facing(-half, half, 0.28, 0.75, near), trim),
        Part(facing(-half + 0.12, half - 0.12, low, 2.45, near), WINDOW),
        Part(facing(-half + 0.15, half - 0.15, height - 0.5, height - 0.12, near), DARK),
        Part(facing(-0.75, 0.75, height - 0.44, height - 0.18, near), AMBER),
        Part(bar((-0.5, low), (0.35, low + 0.75), 0.04, near), DARK),
        *_lamps(width, 0.8, 0.42, near, oncoming),
        Part(facing(-half, half, 0.22, 0.36, near), DARK),
        _plate(0.48, near),
    ]


def truck(dice: Dice, side: int, oncoming: bool) -> list[Part]:
    """Draw a box truck: a cab with its own color and a tall ribbed load, 2.5 x 3.6 x 8.5 meters."""
    width, length, height = 2.5, dice.between(7.5, 9.5), dice.between(3.3, 3.9)
    cab_color, load_color = vehicle_color(dice), dice.color((0, 1), (0, 0.6), (0.4, 0.97))
    cab, load = Paint(cab_color, grain=0.03), Paint(load_color, STRIPES, (dice.pick((0.25, 0.5)), 1.0), 0.05)
    near, half, x, cab_height, cab_length = -length / 2, width / 2, side * width / 2, 2.75, 2.0
    split = near + cab_length if oncoming else -near - cab_length
    cab_near, cab_far = (near, split - 0.15) if oncoming else (split + 0.15, -near)
    load_near, load_far = (split, -near) if oncoming else (near, split)
    hull = box(-half, half, 0.95, height, load_near, load_far) + box(-half, half, 0.4, cab_height, cab_near, cab_far)
    feet = box(-half, half, 0, 0, 0.8 * near, -0.8 * near)
    cab_side = [
        Part(along(x, 0.45, cab_height, cab_near, cab_far), cab),
        Part(along(x, 1.6, 2.4, cab_near + 0.3, cab_far - 0.5), WINDOW),
    ]
    load_side = [
        Part(along(x, 0.55, 1.0, load_near, load_far), DARK),
        Part(along(x, 1.0, height, load_near, load_far), load),
        Part(along(x, 1.7, 2.6, load_near + 1.2, load_far - 1.2), Paint(cab_color, grain=0.1)),
        Part(along(x, 1.0, 1.12, load_near, load_far), DARK),
    ]
    wheels = _wheels(
        side,
        width,
        0.5,
        [0.7 * near, -0.45 * near, -0.72 * near] if oncoming else [-0.7 * near, 0.45 * near, 0.72 * near],
    )
    parts = _body("truck", hull, feet, Paint(shaded(load_color, 0.5)))
    parts += (load_side + cab_side if oncoming else cab_side + load_side) + wheels
    if oncoming:
        parts += [
            Part(facing(-half, half, 1.0, height, load_near), Paint(shaded(load_color, 0.85))),
            Part(facing(-half, half, 0.4, cab_height, near), cab),
            Part(facing(-half + 0.15, half - 0.15, 1.55, 2.45, near), WINDOW),
            Part(facing(-0.9, 0.9, 0.85, 1.35, near), DARK),
        ]
    else:
        parts += [
            Part(facing(-half + 0.1, half - 0.1, 0.35, 1.0, near), DARK),
            Part(facing(-half, half, 1.0, height, near), Paint(shaded(load_color, 0.9), grain=0.05)),
            Part(facing(-half + 0.1, -0.05, 1.12, height - 0.12, near), Paint(load_color, grain=0.05)),
            Part(facing(0.05, half - 0.1, 1.12, height - 0.12, near), Paint(load_color, grain=0.05)),
            Part(facing(-0.3, -0.22, 1.12, height - 0.12, near), RIM),
            Part(facing(0.22, 0.3, 1.12, height - 0.12, near), RIM),
        ]
    stripes = [
        Part(facing(-half + i * 0.5, -half + i * 0.5 + 0.25, 0.42, 0.62, near), RED._replace(glow=False))
        for i in range(5)
    ]
    return [*parts, Part(facing(-half, half, 0.42, 0.62, near), WHITE._replace(glow=False)), *stripes,
            *_lamps(width, 0.68, 0.34, near, oncoming), _plate(0.45, near)]  # fmt: skip


def tram(dice: Dice, side: int, oncoming: bool) -> list[Part]:
    """Draw a tram of three cars, 2.4 x 3.4 x 18 meters: tapered ends, skirts to the rails, tall glass, a pantograph."""
    width, length, height = 2.4, dice.between(17, 20), 3.35
    color, band = dice.color((0, 1), (0.1, 0.95), (0.5, 0.97)), dice.color((0, 1), (0.2, 0.9), (0.25, 0.9))
    body, stripe = Paint(color, grain=0.03), Paint(band, grain=0.03)
    near, half, x, slim = -length / 2, width / 2, side * width / 2, 0.95
    hull = box(-half, half, 0.12, height, near + 1.1, -near) + box(-slim, slim, 0.2, 2.9, near, near)
    parts = [
        Part(hull, Paint(shaded(color, 0.8)), "train", hull=True),
        Part(along(x, 0.12, height, near + 1.1, -near), body),
        Part(along(x, 0.12, 0.5, near + 1.1, -near), Paint((60, 60, 64))),
        Part(along(x, 0.5, 1.05, near + 1.1, -near), stripe),
        Part(along(x, 1.3, 2.7, near + 1.3, -near - 1.2), WINDOW),
    ]
    cars = 3
    for index in range(cars):
        start, size = near + length * index / cars, length / cars
        for panel in range(1, 4):
            z = start + size * panel / 4
            parts.append(Part(along(x, 1.3, 2.7, z - 0.07, z + 0.07), body))
        z = start + size * 0.45
        parts.append(Part(along(x, 0.4, 2.75, z - 0.7, z + 0.7), stripe))
        parts.append(Part(along(x, 0.5, 2.65, z - 0.6, z - 0.05), WINDOW))
        parts.append(Part(along(x, 0.5, 2.65, z + 0.05, z + 0.6), WINDOW))
        if index:
            parts.append(Part(along(x, 0.2, height, start - 0.3, start + 0.3), Paint((45, 45, 48), STRIPES, (0.15, 1))))
    cheek = [(x, 0.2, near + 1.1), (side * slim, 0.2, near), (side * slim, 2.9, near), (x, height, near + 1.1)]
    brow = [(-slim, 2.9, near), (slim, 2.9, near), (half, height, near + 1.1), (-half, height, near + 1.1)]
    return [
        *parts,
        Part(cheek, body),
        Part(brow, stripe),
        Part(facing(-slim, slim, 0.2, 2.9, near), body),
        Part(facing(-slim, slim, 0.2, 0.95, near), stripe),
        Part(facing(-slim + 0.08, slim - 0.08, 1.25, 2.55, near), WINDOW),
        Part(facing(-0.6, 0.6, 2.6, 2.84, near), AMBER),
        Part(disc(0, 1.08, 0.15, near), WHITE if oncoming else RED),
        *_lamps(2 * slim, 0.62, 0.26, near, oncoming),
        Part(facing(-0.6, 0.6, 0.18, 0.42, near), DARK),
        *(Part(bar((x, 4.3), (x * 0.3, 3.3), 0.06), DARK) for x in (-0.7, 0.7)),
        Part(bar((-0.8, 4.3), (0.8, 4.3), 0.08), DARK),
    ]
