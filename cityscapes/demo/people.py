"""People, bicycles and motorcycles of the demo city as parts; `phase` says how far they are in a step or a turn."""

from cityscapes.demo.random_numbers import Color, Dice
from cityscapes.demo.shapes import Paint, Part, bar, disc, mirrored, ring, shaded, upright
from cityscapes.demo.vehicles import DARK, RED, RIM, TIRE, vehicle_color

STRIDE = (0.3, 0.12)
"""How far the feet are apart in each phase of a walk, in meters."""

PEDALS = (0.08, 0.0, -0.08, 0.0)
"""How far the near foot is above the axle of the cranks in each phase of a turn, in meters."""


def _cloth(color: Color) -> Paint:
    return Paint(color, grain=0.1)


def _wardrobe(dice: Dice) -> tuple[Color, Color, Color, Color]:
    """Return jacket, pants, skin and hair."""
    jacket = dice.color((0, 1), (0, 0.9), (0.15, 0.95))
    pants = dice.color((0, 1), (0, 0.5), (0.1, 0.6))
    skin = dice.color((0.04, 0.09), (0.25, 0.6), (0.35, 0.95))
    return jacket, pants, skin, dice.color((0.03, 0.12), (0.1, 0.6), (0.05, 0.6))


def person(dice: Dice, phase: int) -> list[Part]:
    """Draw a walking person, about 1.75 meters tall."""
    jacket, pants, skin, hair = _wardrobe(dice)
    size, skirt, bag = dice.between(0.9, 1.07), dice.chance(0.2), dice.chance(0.35)
    step = STRIDE[phase]
    outline = [
        (-step - 0.12, 0),
        (-0.19, 0.78),
        (-0.28, 0.86),
        (-0.3, 1.36),
        (-0.2, 1.48),
        (-0.09, 1.52),
        (-0.14, 1.66),
    ]
    outline += [(-0.09, 1.78), (0.09, 1.78), (0.14, 1.66), (0.09, 1.52), (0.2, 1.48), (0.3, 1.36), (0.28, 0.86)]
    outline += [(0.19, 0.78), (step + 0.12, 0), (step - 0.06, 0), (0.0, 0.6), (-step + 0.06, 0)]
    arm = shaded(jacket, 0.78)
    parts = [
        Part(upright(outline), _cloth(pants), "person"),
        Part(bar((-step - 0.03, 0.05), (-step + 0.05, 0.05), 0.1), DARK),
        Part(bar((step - 0.05, 0.05), (step + 0.03, 0.05), 0.1), DARK),
        Part(upright([(-0.21, 0.8), (0.21, 0.8), (0.22, 1.46), (-0.22, 1.46)]), _cloth(jacket)),
        Part(bar((-0.24, 1.42), (-0.23, 0.98), 0.11), _cloth(arm)),
        Part(bar((0.24, 1.42), (0.23, 0.98), 0.11), _cloth(arm)),
        Part(disc(-0.23, 0.92, 0.055, corners=6), Paint(skin)),
        Part(disc(0.23, 0.92, 0.055, corners=6), Paint(skin)),
        Part(disc(0, 1.64, 0.13, corners=10), Paint(skin)),
        Part(
            upright([(-0.13, 1.64), (-0.1, 1.77), (0.1, 1.77), (0.13, 1.64), (0.08, 1.71), (-0.08, 1.71)]), Paint(hair)
        ),
    ]
    if skirt:
        parts.append(
            Part(upright([(-0.2, 0.85), (0.2, 0.85), (0.24, 0.55), (-0.24, 0.55)]), _cloth(shaded(jacket, 0.85)))
        )
    if bag:
        parts.append(
            Part(
                upright([(0.1, 0.75), (0.3, 0.75), (0.3, 1.02), (0.1, 1.02)]),
                Paint(dice.color((0, 1), (0.2, 0.8), (0.1, 0.7))),
            )
        )
    return [part._replace(points=[(x * size, y * size, z) for x, y, z in part.points]) for part in parts]


def crowd(dice: Dice) -> list[Part]:
    """Draw several people who cannot be told apart, under one outline."""
    parts: list[Part] = []
    reach = 1.2
    for index in range(6):
        x = -reach + 2 * reach * index / 5
        for part in person(Dice(dice.below(10**6), "crowd", index), 1):
            parts.append(Part([(px + x, py, 0) for px, py, _ in part.points], part.paint))
    top = [(-reach - 0.3, 0), (-reach - 0.3, 1.4), (-reach, 1.78), (reach, 1.78), (reach + 0.3, 1.4), (reach + 0.3, 0)]
    return [Part(upright(top), None, "persongroup"), *parts]


def _spokes(x: float, radius: float) -> list[Part]:
    spoke = Paint((95, 95, 98))
    return [
        Part(bar((x - radius, radius), (x + radius, radius), 0.025), spoke),
        Part(bar((x, 0), (x, 2 * radius), 0.025), spoke),
        Part(ring(x, radius, radius, radius * 0.8), TIRE),
        Part(disc(x, radius, 0.06, corners=6), RIM),
    ]


def bicycle_side(dice: Dice) -> list[Part]:
    """Draw a bicycle seen from its side, 1.8 meters long, heading right."""
    frame = Paint(vehicle_color(dice))
    radius, rear, front, crank = 0.36, -0.54, 0.54, (-0.06, 0.33)
    outline = [(-0.9, 0.36), (-0.8, 0.1), (-0.54, 0), (0.54, 0), (0.8, 0.1), (0.9, 0.36), (0.8, 0.64), (0.56, 0.74)]
    outline += [
        (0.56, 1.08),
        (0.3, 1.1),
        (0.26, 0.84),
        (-0.06, 0.88),
        (-0.06, 1.0),
        (-0.38, 1.0),
        (-0.36, 0.78),
        (-0.8, 0.62),
    ]
    tubes = [((rear, radius), crank), (crank, (-0.2, 0.9)), (crank, (0.38, 0.8)), ((-0.17, 0.78), (0.36, 0.84))]
    tubes += [((rear, radius), (-0.17, 0.78)), ((front, radius), (0.36, 0.9))]
    return [
        Part(upright(outline), None, "bicycle"),
        *_spokes(rear, radius),
        *_spokes(front, radius),
        *(Part(bar(start, end, 0.07), frame) for start, end in tubes),
        Part(bar((-0.36, 0.94), (-0.08, 0.94), 0.09), DARK),
        Part(bar((0.34, 0.86), (0.38, 1.05), 0.06), RIM),
        Part(bar((0.32, 1.05), (0.54, 1.04), 0.07), DARK),
        Part(disc(crank[0], crank[1], 0.1, corners=8), DARK),
    ]


def motorcycle_side(dice: Dice) -> list[Part]:
    """Draw a motorcycle seen from its side, 2.1 meters long, heading right."""
    color = vehicle_color(dice)
    body = Paint(color, grain=0.03)
    outline = [(-1.05, 0.33), (-0.9, 0.08), (-0.7, 0), (0.72, 0), (0.95, 0.1), (1.06, 0.34), (0.94, 0.6), (0.66, 0.74)]
    outline += [(0.6, 1.12), (0.3, 1.15), (0.2, 0.98), (-0.2, 0.84), (-0.9, 0.92), (-0.98, 0.72)]
    return [
        Part(upright(outline), None, "motorcycle"),
        Part(upright([(-0.7, 0.2), (0.6, 0.2), (0.5, 0.8), (-0.6, 0.8)]), Paint((48, 48, 50), grain=0.2)),
        *(Part(disc(x, 0.33, 0.34), TIRE) for x in (-0.7, 0.72)),
        *(Part(disc(x, 0.33, 0.19, corners=12), RIM) for x in (-0.7, 0.72)),
        *(Part(disc(x, 0.33, 0.09, corners=8), DARK) for x in (-0.7, 0.72)),
        Part(bar((0.72, 0.33), (0.4, 1.0), 0.09), RIM),
        Part(disc(-0.02, 0.42, 0.2, corners=8), RIM),
        Part(bar((-0.9, 0.3), (0.1, 0.24), 0.1), RIM),
        Part(upright([(-0.1, 0.7), (0.42, 0.72), (0.44, 1.0), (0.1, 1.02)]), body),
        Part(upright([(-0.98, 0.74), (-0.3, 0.62), (-0.1, 0.82), (-0.9, 0.92)]), body),
        Part(bar((-0.75, 0.88), (-0.05, 0.86), 0.1), DARK),
        Part(upright([(0.38, 0.74), (0.66, 0.74), (0.6, 1.12), (0.42, 1.0)]), Paint(shaded(color, 0.8))),
        Part(bar((0.28, 1.12), (0.48, 1.06), 0.06), DARK),
        Part(disc(0.66, 0.88, 0.09, corners=8), Paint((250, 246, 225), glow=True)),
    ]


def rider_side(dice: Dice, phase: int, *, motor: bool) -> list[Part]:
    """Draw a person riding a bicycle or a motorcycle to the right, seen from the side."""
    jacket, pants, skin, _ = _wardrobe(dice)
    helmet = Paint(vehicle_color(dice), grain=0.03)
    machine = motorcycle_side(dice) if motor else bicycle_side(dice)
    lift = 0.0 if motor else PEDALS[phase]
    hip, knee, foot = (-0.22, 0.92), (0.18, 0.72 + lift), (0.0, 0.26 + lift)
    outline = [(-0.4, 0.84), (-0.1, 0.8), (-0.02, 0.66), (-0.1, 0.22 + lift), (0.14, 0.2 + lift), (0.3, 0.72 + lift)]
    outline += [
        (0.06, 1.02),
        (0.12, 1.18),
        (0.5, 0.98),
        (0.54, 1.1),
        (0.3, 1.32),
        (0.36, 1.52),
        (0.32, 1.74),
        (0.16, 1.8),
    ]
    outline += [(0.02, 1.74), (0.0, 1.54), (-0.2, 1.46), (-0.38, 1.1)]
    torso = [(-0.38, 0.9), (-0.06, 0.9), (0.12, 1.2), (0.24, 1.42), (0.04, 1.54), (-0.2, 1.44), (-0.36, 1.12)]
    return [
        *machine,
        Part(upright(outline), _cloth(shaded(jacket, 0.7)), "rider"),
        Part(bar(hip, knee, 0.2), _cloth(pants)),
        Part(bar(knee, foot, 0.15), _cloth(pants)),
        Part(bar((foot[0] - 0.08, foot[1]), (foot[0] + 0.14, foot[1]), 0.09), DARK),
        Part(upright(torso), _cloth(jacket)),
        Part(bar((0.1, 1.4), (0.26, 1.12), 0.13), _cloth(shaded(jacket, 0.8))),
        Part(bar((0.26, 1.12), (0.5, 1.04), 0.1), _cloth(shaded(jacket, 0.8))),
        Part(disc(0.18, 1.62, 0.15, corners=10), Paint(skin)),
        Part(upright([(0.0, 1.6), (0.04, 1.76), (0.16, 1.81), (0.3, 1.76), (0.34, 1.64), (0.18, 1.68)]), helmet),
    ]


def rider_back(dice: Dice, phase: int, *, motor: bool) -> list[Part]:
    """Draw a person riding away from the camera on a bicycle or a motorcycle."""
    jacket, pants, _, _ = _wardrobe(dice)
    helmet, body = Paint(vehicle_color(dice), grain=0.03), Paint(vehicle_color(dice))
    thick, grip, low = (0.1, 0.42, 0.3) if motor else (0.045, 0.33, (0.18, 0.26, 0.34, 0.26)[phase])
    label = "motorcycle" if motor else "bicycle"
    machine = [(-thick, 0), (thick, 0), (thick + 0.04, 0.6), (grip, 0.98), (grip, 1.1), (-grip, 1.1), (-grip, 0.98)]
    machine += [(-thick - 0.04, 0.6)]
    outline = [(-0.2, low), (-0.1, low), (-0.06, 0.7), (0.06, 0.7), (0.1, 0.52 - low), (0.2, 0.52 - low), (0.27, 0.8)]
    outline += [(0.2, 0.95), (0.38, 1.08), (0.27, 1.46), (0.1, 1.54), (0.14, 1.7), (0.08, 1.82), (-0.08, 1.82)]
    outline += [(-0.14, 1.7), (-0.1, 1.54), (-0.27, 1.46), (-0.38, 1.08), (-0.2, 0.95), (-0.27, 0.8)]
    parts = [
        Part(upright(machine), None, label),
        Part(bar((0, 0), (0, 0.72), 2 * thick), TIRE),
        Part(bar((-grip, 1.04), (grip, 1.04), 0.08), DARK),
    ]
    if motor:
        parts += [
            Part(upright([(-0.2, 0.5), (0.2, 0.5), (0.24, 0.9), (-0.24, 0.9)]), body),
            Part(bar((-0.5, 1.16), (-0.4, 1.16), 0.1), DARK),
            Part(bar((0.4, 1.16), (0.5, 1.16), 0.1), DARK),
        ]
    parts += [
        Part(upright(outline), _cloth(pants), "rider"),
        Part(upright([(-0.2, 0.86), (0.2, 0.86), (0.26, 1.46), (-0.26, 1.46)]), _cloth(jacket)),
        Part(bar((-0.27, 1.42), (-0.34, 1.08), 0.12), _cloth(shaded(jacket, 0.8))),
        Part(bar((0.27, 1.42), (0.34, 1.08), 0.12), _cloth(shaded(jacket, 0.8))),
        Part(disc(0, 1.68, 0.14, corners=10), helmet),
        Part(bar((-0.06, 0.76), (0.06, 0.76), 0.08), RED),
    ]
    return parts


def parked_cycle(dice: Dice, *, motor: bool) -> list[Part]:
    """Draw a bicycle or motorcycle that leans at the curb with its side to the traffic."""
    return mirrored(motorcycle_side(dice) if motor else bicycle_side(dice), dice.pick((-1, 1)))
