"""What stands and moves in one street of the demo city: one street per sequence, 10 frames of driving through it.

World axes in metres: x to the right of the camera's lane, y up, z along the street; the camera starts at z 0. From the
middle outwards: the camera's lane, a lane on either side, kerbs at 5 metres, sidewalks or grass, and then buildings,
walls, fences and parks.
"""

from collections.abc import Callable
from typing import NamedTuple

from cityscapes import demo_people as people
from cityscapes import demo_places as places
from cityscapes import demo_vehicles as vehicles
from cityscapes.demo_light import Light, draw_light
from cityscapes.demo_random import Dice
from cityscapes.demo_shapes import ASPHALT, GLASS, GRASS, PAVING, Paint, Part, flat, mirrored

KERB, PATH_END, EDGE = 5.0, 7.6, 9.6
"""Distances from the middle of the street, in metres: the kerb, the end of the path beside it, the building line."""

BUILDINGS, BEHIND, BOUNDARY, BESIDE, AT_KERB, LANE, MIDDLE = range(7)
"""Bands from the outside inwards. A thing never hides one of a later band, so bands are drawn in this order."""

VIEW, FRAMES_A_STREET = 95.0, 10
"""How far things are set up, in metres, and how many frames a street lasts."""


class Thing(NamedTuple):
    """Something with a place, a speed per frame, one shape per phase of its walk and the size of its shadow."""

    shapes: tuple[list[Part], ...]
    x: float
    z: float
    band: int
    speed: tuple[float, float] = (0.0, 0.0)
    shadow: tuple[float, float] | None = None

    def place(self, frame: int) -> tuple[float, float]:
        """x and z at a frame."""
        return self.x + self.speed[0] * frame, self.z + self.speed[1] * frame


class Street(NamedTuple):
    """A street, ready to be filmed: `ground` is drawn first, `step` is the camera's way per frame in metres."""

    light: Light
    ground: list[Part]
    things: list[Thing]
    step: float
    horizon: float
    camera_x: float
    bonnet: Paint


def build_street(seed: int, split: str, sequence: int) -> Street:
    """The street of a sequence; the same for the same arguments, whatever the image size."""

    def dice(*names: int | str) -> Dice:
        return Dice(seed, split, sequence, *names)

    look = dice("look")
    light, step = draw_light(look), look.between(1.5, 2.0)
    verge = look.pick((-1, 1))
    season = look.pick(((0.2, 0.36), (0.2, 0.36), (0.06, 0.2), (0.13, 0.3)))
    ground = _ground(look, verge)
    things = [
        *_lead(dice("lead"), step),
        *_oncoming(dice("left"), step),
        *_parked(dice("right")),
        *_crossing(dice("cross")),
    ]
    for side in (-1, 1):
        things += _frontage(dice("front", side), side, season)
        things += _sidewalk(dice("walk", side), side, season)
    bonnet = Paint(look.color((0, 1), (0, 0.6), (0.1, 0.8)), GLASS, grain=0.02)
    return Street(light, ground, things, step, look.between(0.4, 0.47), look.between(-0.25, 0.25), bonnet)


def _ground(dice: Dice, verge: int) -> list[Part]:
    near, far = -10.0, 260.0
    asphalt = dice.color((0, 1), (0.0, 0.12), (0.22, 0.6))
    slabs = dice.color((-0.02, 0.12), (0.0, 0.3), (0.35, 0.8))
    grass = Paint(dice.color((0.11, 0.34), (0.25, 0.7), (0.22, 0.6)), GRASS, grain=0.35)
    paving = Paint(slabs, PAVING, dice.pick(((0.6, 0.6), (1.0, 0.5), (0.3, 0.6))), 0.1)
    stone = Paint(dice.color((0, 1), (0, 0.1), (0.45, 0.85)), PAVING, (0.3, 1.2), 0.1)
    white = Paint((230, 230, 225), grain=0.15)
    parts = [
        Part(flat(-400, 400, near, far), grass, "terrain"),
        Part(flat(-KERB, KERB, near, far), Paint(asphalt, ASPHALT, grain=0.16), "road"),
    ]
    for side in (-1, 1):
        inner, outer = (KERB + 2.2, PATH_END + 1.6) if side == verge else (KERB, PATH_END)
        low, high = sorted((side * inner, side * outer))
        parts.append(Part(flat(low, high, near, far), paving, "sidewalk"))
        low, high = sorted((side * KERB, side * (KERB + 0.25)))
        parts.append(Part(flat(low, high, near, far), stone, "sidewalk"))
    for x in (-1.65, 1.65):
        for index in range(24):
            z = near + index * 6.0
            parts.append(Part(flat(x - 0.08, x + 0.08, z, z + 3.0), white))
    parts.append(Part(flat(KERB - 0.35, KERB - 0.2, near, far), white))
    if dice.chance(0.75):
        steel = Paint((150, 150, 155))
        parts += [Part(flat(x - 0.06, x + 0.06, near, far), steel) for x in (-4.1, -2.65)]
    crossing = dice.between(8, 30)
    parts += [part._replace(points=[(x, y, z + crossing) for x, y, z in part.points]) for part in places.zebra(9.6)]
    cover = Paint((70, 70, 72), PAVING, (0.1, 0.1), 0.2)
    for index in range(5):
        x, z = dice.between(-1.2, 1.2), index * 14 + dice.between(3, 12)
        parts.append(Part(flat(x - 0.35, x + 0.35, z, z + 0.7), cover))
        patch = Paint(tuple(channel * dice.between(0.75, 0.9) for channel in asphalt), ASPHALT, grain=0.16)
        x, z = dice.between(-4, 2), z + dice.between(2, 7)
        parts.append(Part(flat(x, x + dice.between(1, 2.5), z, z + dice.between(2, 6)), patch))
    return parts


def _vehicle(dice: Dice, kind: str, x: float, z: float, *, oncoming: bool, speed: float = 0.0) -> tuple[Thing, float]:
    """A vehicle whose near end is at z, and its length."""
    side = -1 if x > 0 else 1
    build: Callable = {"car": vehicles.car, "bus": vehicles.bus, "truck": vehicles.truck, "tram": vehicles.tram}[kind]
    parts = build(dice, side, oncoming)
    length = max(point[2] for part in parts for point in part.points) * 2
    band = MIDDLE if abs(x) < 1.5 else LANE
    width = 1.9 if kind == "car" else 2.6
    return Thing((parts,), x, z + length / 2, band, (0.0, speed), (width, length)), length


def _rider(dice: Dice, x: float, z: float, speed: tuple[float, float], *, motor: bool) -> Thing:
    if abs(speed[0]) > 0.0:
        heading = 1 if speed[0] > 0 else -1
        shapes = [people.rider_side(Dice(dice.below(10**9)), 0, motor=motor)]
        key = dice.below(10**9)
        shapes = [mirrored(people.rider_side(Dice(key), phase, motor=motor), heading) for phase in range(4)]
        return Thing(tuple(shapes), x, z, MIDDLE, speed, (1.8, 0.5))
    key = dice.below(10**9)
    shapes = [people.rider_back(Dice(key), phase, motor=motor) for phase in range(4)]
    return Thing(tuple(shapes), x, z, MIDDLE if abs(x) < 1.5 else LANE, speed, (0.7, 1.4))


def _walker(dice: Dice, x: float, z: float, speed: tuple[float, float], band: int) -> Thing:
    key = dice.below(10**9)
    return Thing(tuple(people.person(Dice(key), phase) for phase in range(4)), x, z, band, speed, (0.7, 0.4))


def _lead(dice: Dice, step: float) -> list[Thing]:
    """What drives ahead of the camera: a rider near, a vehicle beyond."""
    rider = _rider(
        dice,
        dice.between(0.4, 1.2) * dice.pick((-1, 1)),
        dice.between(5.5, 9),
        (0, step * dice.between(0.95, 1.1)),
        motor=dice.chance(0.5),
    )
    kind = dice.pick(("car", "bus", "truck", "truck", "bus"))
    ahead, _ = _vehicle(
        dice, kind, dice.between(-0.3, 0.3), dice.between(15, 26), oncoming=False, speed=step * dice.between(0.95, 1.05)
    )
    return [rider, ahead]


def _oncoming(dice: Dice, step: float) -> list[Thing]:
    """The left lane: in turn a tram and other large vehicles with cars between them."""
    things, x = [], -3.35
    slow = -step * dice.between(0.1, 0.35)
    z = dice.between(4, 10)
    large = dice.shuffled(["tram", "bus", "truck"]) if dice.chance(0.4) else ["tram", *dice.shuffled(["bus", "truck"])]
    for kind in ("car", *large, "car", "car", "tram"):
        thing, length = _vehicle(dice, kind, x, z, oncoming=True, speed=slow)
        things.append(thing)
        z += length + dice.between(4, 9)
    return things


def _parked(dice: Dice) -> list[Thing]:
    """The right lane: vehicles at rest, motorcycles and bicycles between them."""
    things, z = [], dice.between(2, 7)
    deck = dice.shuffled(["bus", "truck", "car", "car"]) + dice.shuffled(["bus", "truck", "car"])
    for kind in deck:
        for _ in range(2):
            motor = dice.chance(0.5)
            thing = Thing(
                (people.parked_cycles(dice, motor=motor),), dice.between(2.9, 4.1), z, LANE, (0, 0), (1.8, 0.5)
            )
            things.append(thing)
            z += dice.between(1.6, 3.2)
        thing, length = _vehicle(dice, kind, dice.between(3.3, 3.6), z, oncoming=dice.chance(0.3))
        things.append(thing)
        z += length + dice.between(2, 5)
    return things


def _crossing(dice: Dice) -> list[Thing]:
    """Riders and people who cross the street ahead of the camera, whichever frame it is."""
    things = []
    for index in range(5):
        z, heading, speed = 9 + index * 6 + dice.between(0, 3), dice.pick((-1, 1)), dice.between(0.25, 0.6)
        meeting = max(z / 1.8 - 6.0, 0.0)
        x = dice.between(-1.0, 1.0) - heading * speed * meeting
        things.append(_rider(dice, x, z, (heading * speed, 0.0), motor=index % 2 == 0))
    for index in range(4):
        heading, z = dice.pick((-1, 1)), 12 + index * 8 + dice.between(0, 5)
        x = dice.between(-2.5, 2.5)
        things.append(_walker(dice, x, z, (heading * dice.between(0.1, 0.3), 0.0), MIDDLE))
    return things


def _frontage(dice: Dice, side: int, season: tuple[float, float]) -> list[Thing]:
    """Buildings, walls, fences and parks, one after the other, with trees and houses behind."""
    things, z = [], -12.0 + dice.between(0, 6)
    deck: list[str] = []
    while z < VIEW + 25:
        deck = deck or dice.shuffled(["building", "wall", "fence", "wall", "fence", "building", "park"])
        kind, length = deck.pop(), dice.between(8, 13)
        key = Dice(dice.below(10**9))
        edge = side * (EDGE + dice.between(-0.2, 0.6))
        if kind == "building":
            things.append(Thing((places.building(key, -side, length),), edge, z, BUILDINGS))
        else:
            if dice.chance(0.6):
                things.append(Thing((places.building(key, -side, length),), side * dice.between(19, 24), z, BUILDINGS))
            for _ in range(3):
                tree = places.tree(dice, season)
                things.append(Thing((tree,), side * dice.between(12, 16), z + dice.between(0, length), BEHIND))
        if kind in ("wall", "fence"):
            parts = places.wall(key, length) if kind == "wall" else places.fence(key, length)
            things.append(Thing((parts,), side * (PATH_END + 1.7), z, BOUNDARY))
        elif kind == "park":
            across = mirrored(places.fence_across(key, 9.0), side)
            things.append(Thing((across,), side * (PATH_END + 1.7), z + length - 0.5, BEHIND))
            things += [
                Thing((places.bush(dice, season),), side * dice.between(10, 13), z + dice.between(0, length), BEHIND)
                for _ in range(3)
            ]
        z += length
    return things


def _sidewalk(dice: Dice, side: int, season: tuple[float, float]) -> list[Thing]:
    """Poles, signs, lights, trees and guard rails at the kerb; people, cycles and bins beside it."""
    things, z = [], dice.between(4, 8)
    deck: list[str] = []
    while z < VIEW:
        deck = deck or dice.shuffled(["sign", "light", "arm", "sign", "lamp", "light", "tree", "rail"])
        kind, x = deck.pop(), side * (KERB + 0.45)
        if kind == "rail":
            things.append(Thing((places.fence(dice, 6.0, low=True),), side * (KERB + 0.2), z, AT_KERB))
            z += 6.0
        else:
            parts = {
                "sign": lambda: places.sign_post(dice),
                "light": lambda: places.traffic_light(dice, -side, arm=False),
                "arm": lambda: places.traffic_light(dice, -side, arm=True),
                "lamp": lambda: places.lamp_post(dice, -side),
                "tree": lambda: places.tree(dice, season),
            }[kind]()
            things.append(Thing((parts,), x, z, AT_KERB, shadow=(3.0, 2.0) if kind == "tree" else (0.3, 0.3)))
        z += dice.between(2.0, 4.5)
    z = dice.between(4, 8)
    while z < VIEW:
        x = side * dice.between(KERB + 0.9, PATH_END)
        kind = dice.below(8)
        if kind < 5:
            things.append(_walker(dice, x, z, (0.0, dice.pick((-1, 1)) * dice.between(0.1, 0.3)), BESIDE))
        elif kind == 5:
            things.append(Thing((people.crowd(dice),), side * 6.3, z, BESIDE))
        elif kind == 6:
            things.append(Thing((people.parked_cycles(dice, motor=dice.chance(0.3)),), x, z, BESIDE))
        else:
            parts = places.bin_or_box(dice) if dice.chance(0.6) else places.suitcase(dice)
            things.append(Thing((parts,), x, z, BESIDE))
        z += dice.between(1.5, 5.0)
    return things
