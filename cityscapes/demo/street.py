"""One street of the demo city per sequence: cross-section, ground and frontage, objects beside the road, and light.

World axes in meters: x to the right of the camera's lane, y up, z along the street; the camera starts at z 0. From the
middle outward: the camera's lane, on some sides another lane, the curb, a path or grass, and then buildings, walls,
fences and parks. Time of day, weather and camera are one draw per sequence.
"""

from collections.abc import Callable
from typing import NamedTuple

from cityscapes.demo import people, places
from cityscapes.demo.random_numbers import Color, Dice
from cityscapes.demo.shapes import (
    ASPHALT,
    AT_CURB,
    BEHIND,
    BESIDE,
    BOUNDARY,
    BUILDINGS,
    GLASS,
    GRASS,
    PAVING,
    Paint,
    Part,
    Thing,
    flat,
    mirrored,
)
from cityscapes.demo.traffic import LANE_MIDDLE, draw_traffic, parked_cycle, walker


class Light(NamedTuple):
    """What turns the paint of a surface into the color of a pixel.

    `left`, `right`, `front` and `top` are the brightness of surfaces that face that way (seen by a camera driving along
    the street), `shadow` is the brightness in a shadow, `lit` the share of windows with light, `haze` the color of far
    things and `reach` the distance in meters at which half of it shows, `gain` the camera's white balance and exposure,
    `noise` its noise in gray levels.
    """

    left: float
    right: float
    front: float
    top: float
    shadow: float
    lit: float
    tint: Color
    zenith: Color
    haze: Color
    clouds: float
    reach: float
    gain: Color
    noise: float


def draw_light(dice: Dice, *, turn: int) -> Light:
    """Draw day with sun from one side, an overcast sky, or dusk, one in each `turn`."""
    kind = ("day", "dusk", "overcast", "day")[turn % 4]
    exposure = dice.between(0.72, 1.25)
    gain = tuple(exposure * dice.between(0.88, 1.12) for _ in range(3))
    noise = dice.between(2.0, 9.0)
    if kind == "day":
        sunny, dim = dice.between(1.0, 1.25), dice.between(0.55, 0.75)
        left, right = (sunny, dim) if dice.chance(0.5) else (dim, sunny)
        tint = (1.05, 1.0, 0.93)
        zenith = dice.color((0.55, 0.64), (0.3, 0.7), (0.55, 0.9))
        haze = dice.color((0.1, 0.6), (0.0, 0.15), (0.8, 0.98))
        return Light(
            left,
            right,
            0.85,
            1.1,
            dice.between(0.4, 0.6),
            0.03,
            tint,
            zenith,
            haze,
            dice.between(0.2, 1),
            260,
            gain,
            noise,
        )
    if kind == "overcast":
        gray = dice.between(0.6, 0.9)
        haze = dice.color((0.5, 0.7), (0.0, 0.1), (gray, gray + 0.08))
        zenith = dice.color((0.5, 0.7), (0.0, 0.15), (gray - 0.2, gray))
        return Light(
            0.85, 0.85, 0.8, 0.95, 0.75, 0.1, (0.97, 1.0, 1.03), zenith, haze, 0.5, dice.between(90, 200), gain, noise
        )
    haze = dice.color((-0.03, 0.1), (0.3, 0.65), (0.6, 0.95))
    zenith = dice.color((0.6, 0.8), (0.25, 0.6), (0.2, 0.5))
    side = dice.pick((0, 1))
    left, right = (0.85, 0.6) if side else (0.6, 0.85)
    tint = (dice.between(0.85, 1.05), 0.8, dice.between(0.75, 0.95))
    return Light(left, right, 0.65, 0.7, 0.65, 0.45, tint, zenith, haze, dice.between(0.3, 1), 200, gain, noise + 2)


CURB_NEAR, CURB_FAR = 2.5, 4.8
"""Where the curb is, in meters from the middle of the camera's lane, without and with another lane on that side."""

PATH, EDGE = 2.7, 3.6
"""Behind the curb: where the path ends and where walls and buildings begin."""

VIEW = 85.0
"""How far along the street things are set up, in meters."""

LANES = ({-1: True, 1: True}, {-1: True, 1: False}, {-1: False, 1: True})
"""The kinds of streets, in turn: on which sides (-1 left, 1 right) of the camera's lane there is another one."""

Hues = tuple[float, float]


class Street(NamedTuple):
    """A street, ready to be filmed: `ground` is drawn first, `step` is the camera's way per frame in meters.

    `horizon` is in image heights from the top, `camera_x` in meters, `hood` the camera car's paint.
    """

    light: Light
    ground: list[Part]
    things: list[Thing]
    step: float
    horizon: float
    camera_x: float
    hood: Paint


def build_street(dice: Callable[..., Dice], number: int) -> Street:
    """Build the street that is `number` in its split; `dice` gives the dice for each name in it."""
    look = dice("look")
    light, step = draw_light(look, turn=number), look.between(1.5, 2.0)
    lanes = LANES[number % len(LANES)]
    curbs = {side: CURB_FAR if lanes[side] else CURB_NEAR for side in (-1, 1)}
    season = look.pick(((0.2, 0.36), (0.2, 0.36), (0.06, 0.2), (0.13, 0.3)))
    things = draw_traffic(dice, lanes, step, turn=number)
    for side, curb in curbs.items():
        things += _frontage(dice("frontage", side), side, curb, season)
        things += _curb(dice("kerb", side), side, curb, season)  # another name would be another city
        things += _path(dice("path", side), side, curb)
    hood = Paint(look.color((0, 1), (0, 0.6), (0.1, 0.8)), GLASS, grain=0.02)
    ground = _ground(dice("ground"), curbs, lanes)
    return Street(light, ground, things, step, look.between(0.4, 0.47), look.between(-0.25, 0.25), hood)


def _strip(side: int, inner: float, outer: float, paint: Paint, label: str | None = None) -> Part:
    """Draw a strip of ground along the whole street, between two distances from its middle."""
    low, high = sorted((side * inner, side * outer))
    return Part(flat(low, high, -10.0, 260.0), paint, label)


def _ground(dice: Dice, curbs: dict[int, float], lanes: dict[int, bool]) -> list[Part]:
    asphalt = dice.color((0, 1), (0.0, 0.12), (0.22, 0.6))
    slabs = dice.color((-0.02, 0.12), (0.0, 0.3), (0.3, 0.8))
    grass = Paint(dice.color((0.11, 0.34), (0.25, 0.7), (0.22, 0.6)), GRASS, grain=0.35)
    paving = Paint(slabs, PAVING, dice.pick(((0.6, 0.6), (1.0, 0.5), (0.4, 0.6))), 0.1)
    stone = Paint(dice.color((0, 1), (0, 0.1), (0.45, 0.85)), PAVING, (0.3, 1.2), 0.1)
    road = Paint(asphalt, ASPHALT, grain=0.16)
    verge = dice.pick((-1, 1, 1))
    parts = [_strip(1, -400, 400, grass, "terrain"), _strip(1, -curbs[-1], curbs[1], road, "road")]
    for side, curb in curbs.items():
        inner, outer = (1.5, PATH + 0.7) if side == verge else (0.0, PATH)
        parts.append(_strip(side, curb + inner, curb + outer, paving, "sidewalk"))
        parts.append(_strip(side, curb, curb + 0.25, stone, "sidewalk"))
    return parts + _patches(dice, asphalt) + _markings(dice, curbs, lanes)


def _patches(dice: Dice, asphalt: tuple[float, float, float]) -> list[Part]:
    """Draw mended asphalt and manhole covers."""
    parts, cover = [], Paint((70, 70, 72), PAVING, (0.1, 0.1), 0.2)
    for index in range(6):
        tone = dice.between(0.75, 0.92)
        x, z = dice.between(-1.5, 0.5), index * 12 + dice.between(3, 9)
        patch = Paint(tuple(channel * tone for channel in asphalt), ASPHALT, grain=0.16)
        parts.append(Part(flat(x, x + dice.between(0.8, 1.6), z, z + dice.between(2, 6)), patch))
        x, z = dice.between(-1.2, 1.2), z + dice.between(2, 7)
        parts.append(Part(flat(x - 0.33, x + 0.33, z, z + 0.66), cover))
    return parts


def _markings(dice: Dice, curbs: dict[int, float], lanes: dict[int, bool]) -> list[Part]:
    """Draw dashes between lanes, lines at the curbs, tram rails, pedestrian crossings."""
    white, steel = Paint((230, 230, 225), grain=0.15), Paint((150, 150, 155))
    parts = []
    for side, curb in curbs.items():
        parts.append(_strip(side, curb - 0.35, curb - 0.22, white))
        if lanes[side]:
            for index in range(24):
                z = index * 6.0 - 10
                parts.append(Part(flat(side * 1.65 - 0.08, side * 1.65 + 0.08, z, z + 3.0), white))
    rails = -1 if lanes[-1] else 1
    parts += [_strip(rails, LANE_MIDDLE + x - 0.06, LANE_MIDDLE + x + 0.06, steel) for x in (-0.72, 0.72)]
    z = dice.between(7, 14)
    while z < VIEW:
        for stripe in places.zebra(-curbs[-1] + 0.3, curbs[1] - 0.3):
            parts.append(stripe._replace(points=[(x, y, pz + z) for x, y, pz in stripe.points]))
        z += dice.between(22, 45)
    return parts


def _frontage(dice: Dice, side: int, curb: float, season: Hues) -> list[Thing]:
    """Draw buildings, walls, fences and parks, one after the other, with trees and houses behind."""
    things: list[Thing] = []
    deck: list[str] = []
    edge, z = side * (curb + EDGE), dice.between(-12, -6)
    while z < VIEW + 25:
        deck = deck or dice.shuffled(["building", "wall", "fence", "wall", "fence", "building", "park"])
        kind, length = deck.pop(), dice.between(7, 12)
        if kind == "building":
            house = places.building(dice, -side, length)
            things.append(Thing((house,), edge + side * dice.between(-0.2, 0.6), z, BUILDINGS))
        else:
            things += _behind(dice, side, curb, z, length, season)
        if kind == "wall":
            things.append(Thing((places.wall(dice, length),), edge, z, BOUNDARY))
        elif kind == "fence":
            things.append(Thing((places.fence(dice, length),), edge, z, BOUNDARY))
        elif kind == "park":
            across = mirrored(places.fence_across(dice, 9.0), side)
            things.append(Thing((across,), edge, z + length - 0.5, BEHIND))
        z += length
    return things


def _behind(dice: Dice, side: int, curb: float, z: float, length: float, season: Hues) -> list[Thing]:
    """Draw what is seen over a wall, through a fence or in a park."""
    things = []
    if dice.chance(0.6):
        x = side * (curb + dice.between(15, 20))
        things.append(Thing((places.building(dice, -side, length),), x, z, BUILDINGS))
    for _ in range(3):
        x = side * (curb + dice.between(6.5, 11))
        things.append(Thing((places.tree(dice, season),), x, z + dice.between(0, length), BEHIND))
    for _ in range(2):
        x = side * (curb + dice.between(4.8, 8))
        things.append(Thing((places.bush(dice, season),), x, z + dice.between(0, length), BEHIND))
    return things


def _curb(dice: Dice, side: int, curb: float, season: Hues) -> list[Thing]:
    """Draw poles, signs, traffic lights, trees and guard rails in a row at the curb."""
    things: list[Thing] = []
    deck: list[str] = []
    z = dice.between(3.5, 7)
    while z < VIEW:
        deck = deck or dice.shuffled(["sign", "sign", "sign", "sign", "light", "light", "arm", "lamp", "tree", "rail"])
        kind, x = deck.pop(), side * (curb + 0.45)
        if kind == "rail":
            things.append(Thing((places.fence(dice, 6.0, low=True),), side * (curb + 0.2), z, AT_CURB))
            z += 6.0
        elif kind == "tree":
            things.append(Thing((places.tree(dice, season),), x, z, AT_CURB, shadow=(3.0, 2.0)))
        elif kind == "lamp":
            things.append(Thing((places.lamp_post(dice, -side),), x, z, AT_CURB))
        elif kind == "sign":
            things.append(Thing((places.sign_post(dice),), x, z, AT_CURB, shadow=(0.4, 0.4)))
        else:
            things.append(Thing((places.traffic_light(dice, -side, arm=kind == "arm"),), x, z, AT_CURB))
        z += dice.between(1.8, 4.2)
    return things


def _path(dice: Dice, side: int, curb: float) -> list[Thing]:
    """Draw people, parked cycles, bins and suitcases on the path."""
    things: list[Thing] = []
    deck: list[str] = []
    z = dice.between(3.5, 8)
    while z < VIEW:
        deck = deck or dice.shuffled(["walker"] * 4 + ["bicycle", "motorcycle", "crowd", "static", "dynamic"])
        kind, x = deck.pop(), side * (curb + dice.between(0.9, PATH))
        if kind == "walker":
            things.append(walker(dice, x, z, (0.0, dice.pick((-1, 1)) * dice.between(0.1, 0.3)), BESIDE))
        elif kind in ("bicycle", "motorcycle"):
            things.append(parked_cycle(dice, x, z, BESIDE, motor=kind == "motorcycle"))
        elif kind == "crowd":
            things.append(Thing((people.crowd(dice),), side * (curb + 1.7), z + 12, BESIDE, upright=True))
        else:
            parts = places.bin_or_box(dice) if kind == "static" else places.suitcase(dice)
            things.append(Thing((parts,), x, z, BESIDE, shadow=(0.7, 0.4)))
        z += dice.between(1.5, 4.5)
    return things
