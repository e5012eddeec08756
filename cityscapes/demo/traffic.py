"""Vehicles, riders and pedestrians on the road of a demo street, and their motion from frame to frame."""

from collections.abc import Callable

from cityscapes.demo import people, vehicles
from cityscapes.demo.random_numbers import Dice
from cityscapes.demo.shapes import LANE, MIDDLE, Part, Thing, mirrored

LANE_MIDDLE = 3.3
"""How far the middle of the neighboring lanes is from the camera's, in meters."""

VEHICLES: dict[str, Callable[[Dice, int, bool], list[Part]]] = {
    "car": vehicles.car,
    "bus": vehicles.bus,
    "truck": vehicles.truck,
    "tram": vehicles.tram,
    "queue": vehicles.queue,
}


def walker(dice: Dice, x: float, z: float, speed: tuple[float, float], band: int) -> Thing:
    """Draw a person on the way."""
    key = dice.below(10**9)
    shapes = tuple(people.person(Dice(key), phase) for phase in range(len(people.STRIDE)))
    return Thing(shapes, x, z, band, speed, (0.7, 0.4), upright=True)


def parked_cycle(dice: Dice, x: float, z: float, band: int, *, motor: bool) -> Thing:
    """Draw a bicycle or a motorcycle that nobody rides."""
    return Thing((people.parked_cycle(dice, motor=motor),), x, z, band, shadow=(1.8, 0.5), upright=True)


def draw_traffic(dice: Callable[..., Dice], lanes: dict[int, bool], step: float, *, turn: int) -> list[Thing]:
    """Draw everything on the road; `lanes` says on which sides (-1 left, 1 right) of the camera there is another lane.

    `step` is the camera's way per frame in meters. `turn` counts the streets of a split: the large vehicles take turns
    in being near, so that few streets show all of them.
    """
    things = [*_ahead(dice("ahead"), step), *_crossing(dice("crossing"), step)]
    if lanes[-1]:
        things += _oncoming(dice("oncoming"), step, turn)
    if lanes[1]:
        things += _parked(dice("parked"), turn, tram=not lanes[-1])
    return things


def _vehicle(dice: Dice, kind: str, x: float, z: float, *, oncoming: bool, speed: float = 0.0) -> tuple[Thing, float]:
    """Draw a vehicle whose near end is at z; return its length, too."""
    parts = VEHICLES[kind](dice, -1 if x > 0 else 1, oncoming)
    length = 2 * max(point[2] for part in parts for point in part.points)
    shadow = (1.9 if kind in ("car", "queue") else 2.6, length)
    band = MIDDLE if abs(x) < 1.5 else LANE
    return Thing((parts,), x, z + length / 2, band, (0.0, speed), shadow), length


def _rider(dice: Dice, x: float, z: float, speed: tuple[float, float], *, motor: bool) -> Thing:
    """Draw a person on a bicycle, whose legs move, or on a motorcycle."""
    key, phases = dice.below(10**9), range(1 if motor else len(people.PEDALS))
    if speed[0]:
        side_views = [people.rider_side(Dice(key), phase, motor=motor) for phase in phases]
        shapes = tuple(mirrored(parts, 1 if speed[0] > 0 else -1) for parts in side_views)
        return Thing(shapes, x, z, MIDDLE, speed, (1.8, 0.5), upright=True)
    shapes = tuple(people.rider_back(Dice(key), phase, motor=motor) for phase in phases)
    return Thing(shapes, x, z, MIDDLE, speed, (0.7, 1.4), upright=True)


def _ahead(dice: Dice, step: float) -> list[Thing]:
    """Draw what drives ahead in the camera's lane: a rider near, a vehicle beyond."""
    x, z = dice.between(0.4, 1.2) * dice.pick((-1, 1)), dice.between(5.0, 8.5)
    rider = _rider(dice, x, z, (0.0, step * dice.between(0.97, 1.1)), motor=dice.chance(0.5))
    kind, z = dice.pick(("car", "bus", "truck")), dice.between(13, 22)
    vehicle, _ = _vehicle(dice, kind, dice.between(-0.3, 0.3), z, oncoming=False, speed=step * dice.between(0.95, 1.05))
    return [rider, vehicle]


def _oncoming(dice: Dice, step: float, turn: int) -> list[Thing]:
    """Fill the left lane: a tram and other large vehicles with cars between them, all coming closer."""
    things, z = [], dice.between(4, 10)
    speed = -step * dice.between(0.1, 0.35)
    for kind in _turned(["tram", "car", "bus", "car", "truck", "car"], turn) + ["queue", "car", "bus"]:
        thing, length = _vehicle(dice, kind, -LANE_MIDDLE, z, oncoming=True, speed=speed)
        things.append(thing)
        z += length + dice.between(6, 14)
    return things


def _parked(dice: Dice, turn: int, *, tram: bool) -> list[Thing]:
    """Fill the right lane: vehicles at rest, with motorcycles and bicycles between them."""
    things, z = [], dice.between(2, 7)
    first = _turned(["bus", "car", "truck", "tram", "car"] if tram else ["truck", "car", "bus", "car"], turn // 3)
    for kind in first + ["queue", "truck", "bus"]:
        for _ in range(2):
            motor, x = dice.chance(0.5), LANE_MIDDLE + dice.between(-0.5, 0.8)
            things.append(parked_cycle(dice, x, z, LANE, motor=motor))
            z += dice.between(1.8, 4.5)
        thing, length = _vehicle(dice, kind, LANE_MIDDLE + dice.between(0, 0.2), z, oncoming=dice.chance(0.3))
        things.append(thing)
        z += length + dice.between(4, 10)
    return things


def _turned(kinds: list[str], turn: int) -> list[str]:
    """Return the kinds, starting with another one each turn."""
    start = turn % len(kinds)
    return kinds[start:] + kinds[:start]


def _crossing(dice: Dice, step: float) -> list[Thing]:
    """Draw riders and people who cross the road and have left the camera's lane when it gets there."""
    things: list[Thing] = []
    for index in range(4):
        z, heading, speed = 7 + index * 6 + dice.between(0, 4), dice.pick((-1, 1)), dice.between(0.2, 0.5)
        x = heading * (dice.between(1.8, 2.4) - speed * max(z - 5, 0) / step)
        things.append(_rider(dice, x, z, (heading * speed, 0.0), motor=index % 2 == 0))
    for index in range(3):
        z, heading, speed = 9 + index * 9 + dice.between(0, 5), dice.pick((-1, 1)), dice.between(0.12, 0.25)
        x = heading * (dice.between(1.6, 2.2) - speed * max(z - 5, 0) / step)
        things.append(walker(dice, x, z, (heading * speed, 0.0), MIDDLE))
    return things
