"""The light of a demo street: time of day, weather and camera, one draw per sequence."""

from typing import NamedTuple

from cityscapes.demo.random_numbers import Color, Dice


class Light(NamedTuple):
    """What turns the paint of a surface into the colour of a pixel.

    `left`, `right`, `front` and `top` are the brightness of surfaces that face that way (seen by a camera driving along
    the street), `shadow` is the brightness in a shadow, `lit` the share of windows with light, `haze` the colour of far
    things and `reach` the distance in metres at which half of it shows, `gain` the camera's white balance and exposure,
    `noise` its noise in grey levels.
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
    """Day with sun from one side, an overcast sky, or dusk, one in each `turn`."""
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
        grey = dice.between(0.6, 0.9)
        haze = dice.color((0.5, 0.7), (0.0, 0.1), (grey, grey + 0.08))
        zenith = dice.color((0.5, 0.7), (0.0, 0.15), (grey - 0.2, grey))
        return Light(
            0.85, 0.85, 0.8, 0.95, 0.75, 0.1, (0.97, 1.0, 1.03), zenith, haze, 0.5, dice.between(90, 200), gain, noise
        )
    haze = dice.color((-0.03, 0.1), (0.3, 0.65), (0.6, 0.95))
    zenith = dice.color((0.6, 0.8), (0.25, 0.6), (0.2, 0.5))
    side = dice.pick((0, 1))
    left, right = (0.85, 0.6) if side else (0.6, 0.85)
    tint = (dice.between(0.85, 1.05), 0.8, dice.between(0.75, 0.95))
    return Light(left, right, 0.65, 0.7, 0.65, 0.45, tint, zenith, haze, dice.between(0.3, 1), 200, gain, noise + 2)
