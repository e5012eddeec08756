"""The renderer of the demo city: find the surface that covers each pixel, and shade it.

Every pixel gets the number of its surface from Pillow's polygon fill; then all pixels are shaded at once. Textures live
on the surfaces, in meters, so that they shrink with distance and stay in place while the camera moves. Only arithmetic
that every machine rounds alike is used on pixels: no sines, no powers, no sums over arrays.
"""

import numpy as np
from PIL import Image, ImageDraw

from cityscapes.demo.random_numbers import Dice
from cityscapes.demo.scene import Surfaces, View
from cityscapes.demo.shapes import (
    ASPHALT,
    FACADE,
    FOCAL,
    GLASS,
    GRASS,
    LEAVES,
    MASONRY,
    PAVING,
    SKY,
    STRIPES,
    Outline,
)
from cityscapes.demo.street import Light, Street

TILE = 512
GROUND = (ASPHALT, PAVING, GRASS)


def _noise_tile() -> np.ndarray:
    """Return float32 noise (512, 512) in -1 to 1 that repeats seamlessly, with features of 2 to 64 texels."""
    total = np.zeros((TILE, TILE), np.float32)
    for octave, weight in ((8, 0.25), (32, 0.25), (64, 0.2), (128, 0.2), (256, 0.3), (512, 0.3)):
        cells = Dice("noise", octave).bytes(octave, octave).astype(np.float32) / 127.5 - 1
        size = TILE // octave
        ramp = (np.arange(TILE) % size).astype(np.float32) / size
        ramp = ramp * ramp * (3 - 2 * ramp)
        low = np.arange(TILE) // size
        high = (low + 1) % octave
        rows = cells[low] + (cells[high] - cells[low]) * ramp[:, None]
        total += weight * (rows[:, low] + (rows[:, high] - rows[:, low]) * ramp)
    return np.clip(total, -1, 1)


NOISE = _noise_tile().ravel()
HASH = Dice("hash").bytes(1024).astype(np.float32) / 255


def paint(view: View, street: Street, *, height: int, width: int, dice: Dice) -> np.ndarray:
    """Paint a view: uint8 (height, width, 3) RGB. `dice` gives the camera's noise."""
    scale = 2 if height <= 400 else 1
    tall, wide = height * scale, width * scale
    numbers = Image.new("I", (wide, tall), 0)
    shade = Image.new("L", (wide, tall), 0)
    _fill(numbers, view.surfaces.outlines, tall)
    _fill(shade, view.shadows, tall, value=1)
    pixels = _shaded(np.asarray(numbers), np.asarray(shade), view.surfaces, street.light, street.horizon)
    pixels = np.asarray(Image.fromarray(pixels).reduce(scale)) if scale > 1 else _softened(pixels)
    return _developed(pixels, street.light, dice)


def _fill(image: Image.Image, outlines: list[Outline], tall: int, value: int | None = None) -> None:
    """Fill outlines one over the other, each with its number in the list or all with one `value`."""
    if not outlines:
        return
    draw = ImageDraw.Draw(image)
    points = np.concatenate(outlines) * tall
    points[:, 0] += image.width / 2
    numbers, end = np.floor(points).astype(np.int64).ravel().tolist(), 0
    for number, outline in enumerate(outlines):
        start, end = end, end + outline.size
        draw.polygon(numbers[start:end], fill=number if value is None else value)


def _columns(surfaces: Surfaces, light: Light) -> dict[str, np.ndarray]:
    """Return, per surface, what shading looks up per pixel."""
    _, looks, planes, axes, origins, sides, seeds = surfaces
    color, glow = looks[:, :3], looks[:, 7:] > 0
    side = np.where(sides > 0, light.right, light.left)
    bright = np.where(axes == 0, side, np.where(axes == 1, light.top, light.front))
    color = color * np.where(glow, 1.0, bright[:, None]) * np.where(glow, 1.0, light.tint)
    names = ("red", "green", "blue", "p", "q", "r", "a", "b", "across", "up", "grain", "material", "axis", "seed")
    columns = np.column_stack([color, planes, origins, looks[:, 3:7], axes, seeds]).astype(np.float32)
    return dict(zip(names, np.ascontiguousarray(columns.T), strict=True))


def _noise(a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    """Return the noise tile at surface coordinates, `scale` texels a meter."""
    column = (a * np.float32(scale)).astype(np.int32) & (TILE - 1)
    row = (b * np.float32(scale)).astype(np.int32) & (TILE - 1)
    return NOISE.take(row * TILE + column)


def _shaded(numbers: np.ndarray, shade: np.ndarray, surfaces: Surfaces, light: Light, horizon: float) -> np.ndarray:
    tall, wide = numbers.shape
    columns = _columns(surfaces, light)
    ids = numbers.ravel().astype(np.intp)
    dx = (np.arange(wide, dtype=np.float32) + np.float32(0.5 - wide / 2)) / np.float32(FOCAL * tall)
    dy = (np.float32(horizon * tall - 0.5) - np.arange(tall, dtype=np.float32)) / np.float32(FOCAL * tall)
    dx, dy = np.tile(dx, tall), np.repeat(dy, wide)
    slope = columns["p"].take(ids) * dx + columns["q"].take(ids) * dy + columns["r"].take(ids)
    depth = np.float32(1) / np.maximum(slope, np.float32(1 / 2000))
    axis = columns["axis"].astype(np.int8).take(ids)
    a = np.where(axis == 0, np.float32(1), dx) * depth + columns["a"].take(ids)
    b = np.where(axis == 1, np.float32(1), dy) * depth + columns["b"].take(ids)
    seed = columns["seed"].take(ids)
    grain = columns["grain"].take(ids)
    coarse, fine = _noise(a, b + seed * np.float32(7.3), 40), _noise(b, a + seed * np.float32(3.1), 130)
    factor = 1 + grain * (coarse + fine / (1 + depth * np.float32(0.08)))
    material = columns["material"].astype(np.int8)
    pixel = depth / np.float32(FOCAL * tall)
    kinds = material.take(ids)
    here = {
        kind: np.flatnonzero(kinds == kind) for kind in (SKY, FACADE, LEAVES, GRASS, MASONRY, PAVING, STRIPES, GLASS)
    }
    for kind, pattern in (
        (MASONRY, _masonry),
        (PAVING, _masonry),
        (STRIPES, _stripes),
        (LEAVES, _leaves),
        (GRASS, _grass),
    ):
        at = here[kind]
        if len(at):
            period = columns["across"][ids[at]], columns["up"][ids[at]]
            factor[at] *= pattern(a[at], b[at], pixel[at], period, seed[at], kind)
    ground = np.isin(material, GROUND)
    ground |= (columns["axis"] == 1) & (columns["seed"] == 1)
    factor[(shade.ravel() > 0) & ground.take(ids)] *= np.float32(light.shadow)
    rgb = [columns[name].take(ids) * factor for name in ("red", "green", "blue")]
    _windows(rgb, here[FACADE], ids, columns, a, b, pixel, light)
    _glass(rgb, here[GLASS], a, b, light)
    fog = depth / (depth + np.float32(light.reach))
    fog *= fog
    rgb = [channel + (np.float32(tone) - channel) * fog for channel, tone in zip(rgb, light.haze, strict=True)]
    _sky(rgb, here[SKY], a, b, dy, light)
    out = np.empty((tall * wide, 3), np.uint8)
    for index, channel in enumerate(rgb):
        out[:, index] = np.clip(channel * np.float32(light.gain[index]) + np.float32(0.5), 0, 255).astype(np.uint8)
    return out.reshape(tall, wide, 3)


def _visible(period: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Return 1 where a pattern spans several pixels, 0 where it is finer than one, which would flicker."""
    return np.clip(period / pixel * np.float32(0.4) - np.float32(0.8), 0, 1)


def _hash(i: np.ndarray, j: np.ndarray, seed: np.ndarray) -> np.ndarray:
    return HASH[(i.astype(np.int32) * 73 + j.astype(np.int32) * 179 + seed.astype(np.int32) * 31) & 1023]


def _masonry(a, b, pixel, period, seed, kind) -> np.ndarray:
    """Draw courses of stones, every second one shifted (walls), or slabs in a grid (paving)."""
    row = np.floor(b / period[1])
    column = a / period[0]
    if kind == MASONRY:
        column = column + (row.astype(np.int32) & 1) * np.float32(0.5)
    whole = np.floor(column)
    joint = np.maximum(np.float32(0.07), pixel / period[1] * np.float32(0.7))
    gap = ((column - whole) < joint * np.float32(0.6)) | ((b / period[1] - row) < joint)
    tone = np.float32(0.82) + np.float32(0.36) * _hash(whole, row, seed)
    strength = _visible(period[1], pixel)
    return 1 + (np.where(gap, np.float32(0.62), tone) - 1) * strength


def _stripes(a, b, pixel, period, seed, kind) -> np.ndarray:
    wave = a / period[0]
    wave = np.abs(wave - np.floor(wave) - np.float32(0.5)) * 4 - 1
    return 1 + np.float32(0.2) * wave * _visible(period[0], pixel)


def _leaves(a, b, pixel, period, seed, kind) -> np.ndarray:
    offset = seed * np.float32(1.7)
    clumps, twigs = _noise(a + offset, b, 60), _noise(b + offset, a, 170)
    return np.clip(1 + np.float32(1.0) * clumps + np.float32(0.7) * twigs, np.float32(0.25), 2)


def _grass(a, b, pixel, period, seed, kind) -> np.ndarray:
    blades = _noise(a * np.float32(2.5), b * np.float32(0.8), 60)
    return 1 + np.float32(0.55) * blades / (1 + pixel * 12)


def _windows(rgb, at, ids, columns, a, b, pixel, light: Light) -> None:
    """Paint rows of windows with frames; shop windows on the ground floor; some are lit."""
    if not len(at):
        return
    across, up, seed = columns["across"][ids[at]], columns["up"][ids[at]], columns["seed"][ids[at]]
    column, row = a[at] / across, b[at] / up
    i, j = np.floor(column), np.floor(row)
    x, y = np.abs(column - i - np.float32(0.5)), np.abs(row - j - np.float32(0.52))
    shop = j < 1
    wide, tall = np.where(shop, np.float32(0.42), np.float32(0.26)), np.where(shop, np.float32(0.36), np.float32(0.3))
    inside = (x < wide) & (y < tall) & (j >= 0)
    frame = (x < wide + np.float32(0.06)) & (y < tall + np.float32(0.05)) & (j >= 0)
    bar = (x < np.float32(0.025)) & ~shop
    draw = _hash(i, j, seed)
    lit = draw < light.lit
    strength = _visible(np.minimum(across, up), pixel[at])
    for channel, glow, glass in zip(rgb, (250, 205, 120), (58, 66, 78), strict=True):
        old = channel[at]
        pane = np.where(lit, np.float32(glow), np.float32(glass * light.front) * (np.float32(0.5) + draw + y))
        new = np.where(inside & ~bar, pane, np.where(frame, np.minimum(old * np.float32(1.3) + 12, 250), old))
        channel[at] = old + (new - old) * strength


def _glass(rgb, at, a, b, light: Light) -> None:
    """Paint panes of vehicles: dark, with slanted reflections of the sky."""
    if not len(at):
        return
    band = a[at] * np.float32(0.55) + b[at]
    band = np.abs(band - np.floor(band) - np.float32(0.5)) * 2
    share = np.where(band > np.float32(0.62), np.float32(0.3), np.float32(0.08))
    for channel, tone in zip(rgb, light.haze, strict=True):
        channel[at] += (np.float32(tone * light.front) - channel[at]) * share


def _sky(rgb, at, a, b, dy, light: Light) -> None:
    """Paint a gradient from the horizon to the zenith with clouds on a plane 200 meters up."""
    if not len(at):
        return
    up = np.clip(dy[at] * np.float32(2.2), 0, 1)
    u, v = a[at] * np.float32(0.25), b[at] * np.float32(0.25)
    i, j = np.floor(u), np.floor(v)
    s, t = u - i, v - j
    i, j = i.astype(np.int32), j.astype(np.int32)
    corner = [NOISE[((j + y) & (TILE - 1)) * TILE + ((i + x) & (TILE - 1))] for y in (0, 1) for x in (0, 1)]
    top, bottom = corner[0] + (corner[1] - corner[0]) * s, corner[2] + (corner[3] - corner[2]) * s
    cloud = np.clip((top + (bottom - top) * t) * np.float32(1.6) + np.float32(0.1), 0, 1)
    cloud *= np.float32(light.clouds) * np.minimum(up * 6, 1)
    for channel, low, high in zip(rgb, light.haze, light.zenith, strict=True):
        clear = np.float32(low) + np.float32(high - low) * up
        channel[at] = clear + (np.float32(min(low * 1.05, 255)) - clear) * cloud


def _softened(pixels: np.ndarray) -> np.ndarray:
    """Blur slightly along both axes, in whole numbers: the softness of a lens."""
    wide = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge").astype(np.uint16)
    rows = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    return ((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8) >> 4).astype(np.uint8)


def _developed(pixels: np.ndarray, light: Light, dice: Dice) -> np.ndarray:
    """Return the picture with the camera's noise."""
    height, width, _ = pixels.shape
    draws = dice.bytes(2, height, width, 3).astype(np.int16)
    grains = ((draws[0] + draws[1] - 255) * int(light.noise * 16)) >> 11
    return np.clip(pixels + grains, 0, 255).astype(np.uint8)
