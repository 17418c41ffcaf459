"""How a varied scene looks: light, colours of the room, patterns on table and mat, and the shades of what lies there.

The room is nearly colourless and no distractor has one of the five colours, so that a colour that is named is found,
whatever else changes.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vla_ros.instruction import Colour
from vla_ros.types import FloatArray, ImageArray

Rgb = tuple[float, float, float]
PatternKind = Literal["flat", "noise", "checker", "stripes", "wood"]
PATTERN_KINDS: tuple[PatternKind, ...] = ("flat", "noise", "checker", "stripes", "wood")
TEXTURE_SIZE = 128  # Texels; a texture covers `TEXTURE_SPAN_M`.
TEXTURE_SPAN_M = 0.6
# Hue in degrees; what a shade differs from it by at most, and the range of saturation and value.
HUE_DEG: dict[Colour, float] = {"red": 1.0, "green": 130.0, "blue": 225.0, "yellow": 51.0, "purple": 285.0}
HUE_SPREAD_DEG = 6.0
# Of the scenes. With shadows everything is drawn three times.
_SHADOW_SHARE = 0.5
_SATURATION, _VALUE, _VALUE_OF_YELLOW = (0.72, 0.95), (0.62, 0.92), (0.85, 0.98)
# Saturation of these stays below 0.5 or their hue between the five.
_DISTRACTOR_RGB: tuple[Rgb, ...] = (
    (0.55, 0.55, 0.56),  # grey
    (0.33, 0.23, 0.16),  # brown
    (0.07, 0.07, 0.08),  # black
    (0.93, 0.93, 0.92),  # white
    (0.95, 0.66, 0.76),  # pink
    (0.25, 0.76, 0.80),  # cyan
)
_BOWL_RGB: tuple[Rgb, ...] = ((0.93, 0.93, 0.91), (0.60, 0.61, 0.62), (0.45, 0.36, 0.29), (0.82, 0.78, 0.70))


@dataclass(frozen=True)
class Pattern:
    """What is printed on a surface.

    Attributes:
        kind: flat, noise, checker, stripes or wood.
        first: the main colour.
        second: the other one; flat has none.
        period_m: length after which it repeats, or the grain's size.
        turn_rad: of stripes and wood.
        seed: of what is irregular in it.
    """

    kind: PatternKind
    first: Rgb
    second: Rgb
    period_m: float
    turn_rad: float
    seed: int


@dataclass(frozen=True)
class Look:
    """Light and room.

    Attributes:
        has_shadows: whether the stronger light casts them.
        light_direction: unit vector in base, along which it shines.
        light: its strength a channel.
        fill_direction: of a second light, which never casts shadows.
        fill: its strength a channel.
        ambient: light from everywhere, a channel.
        floor: colour.
        table: what is on the table's top.
        mat: what is on the mat.
        mat_edge: colour of the mat's rim.
    """

    has_shadows: bool
    light_direction: Rgb
    light: Rgb
    fill_direction: Rgb
    fill: Rgb
    ambient: Rgb
    floor: Rgb
    table: Pattern
    mat: Pattern
    mat_edge: Rgb


def draw_look(rng: np.random.Generator) -> Look:
    """Draws light and room. A face that looks up and has no shadow gets 0.75 to 1.05 of its colour."""
    brightness, share, fill = rng.uniform(0.75, 1.05), rng.uniform(0.3, 0.6), rng.uniform(0.05, 0.15)
    light_direction, fill_direction = _draw_direction(rng, 40.0, 80.0), _draw_direction(rng, 20.0, 60.0)
    tint = 1.0 + rng.uniform(-0.04, 0.04) * np.array([1.0, 0.0, -1.0])  # From warm to cool.
    light = brightness * share / -light_direction[2]
    ambient = brightness * (1.0 - share) + fill * fill_direction[2]
    return Look(
        has_shadows=bool(rng.random() < _SHADOW_SHARE),
        light_direction=_rgb(light_direction),
        light=_rgb(light * tint),
        fill_direction=_rgb(fill_direction),
        fill=_rgb(fill * np.ones(3)),
        ambient=_rgb(ambient * np.ones(3)),
        floor=_draw_dull(rng, (0.3, 0.8)),
        table=_draw_pattern(rng, (0.45, 0.9)),
        mat=_draw_pattern(rng, (0.15, 0.85)),
        mat_edge=_draw_dull(rng, (0.2, 0.95)),
    )


def draw_shade(rng: np.random.Generator, colour: Colour) -> Rgb:
    """A shade of one of the five colours, which stays clearly that colour."""
    hue = (HUE_DEG[colour] + rng.uniform(-HUE_SPREAD_DEG, HUE_SPREAD_DEG)) / 360.0
    value = rng.uniform(*(_VALUE_OF_YELLOW if colour == "yellow" else _VALUE))
    return colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(*_SATURATION), value)


def draw_distractor_colour(rng: np.random.Generator) -> Rgb:
    """None of the five."""
    return _vary(rng, _DISTRACTOR_RGB[int(rng.integers(len(_DISTRACTOR_RGB)))])


def draw_bowl_colour(rng: np.random.Generator) -> Rgb:
    """White, grey, brown or cream."""
    return _vary(rng, _BOWL_RGB[int(rng.integers(len(_BOWL_RGB)))])


def paint_pattern(pattern: Pattern) -> ImageArray:
    """The texture of a pattern: (size, size, 3) uint8."""
    rng = np.random.default_rng(pattern.seed)
    at_m = (np.arange(TEXTURE_SIZE) + 0.5) * TEXTURE_SPAN_M / TEXTURE_SIZE
    x, y = np.meshgrid(at_m, at_m)
    along = (x * np.cos(pattern.turn_rad) + y * np.sin(pattern.turn_rad)) / pattern.period_m
    across = (y * np.cos(pattern.turn_rad) - x * np.sin(pattern.turn_rad)) / pattern.period_m
    if pattern.kind == "checker":
        share = (np.floor(along) + np.floor(across)) % 2.0
    elif pattern.kind == "stripes":
        share = np.floor(2.0 * along) % 2.0
    elif pattern.kind == "noise":
        share = _noise(rng, pattern.period_m)
    elif pattern.kind == "wood":
        share = 0.5 + 0.5 * np.sin(2.0 * np.pi * (along + 0.8 * _noise(rng, 0.15)) + across)
    else:
        share = np.zeros_like(x)
    colours = np.array(pattern.first) + share[..., None] * (np.array(pattern.second) - np.array(pattern.first))
    return np.asarray(np.clip(255.0 * colours + 0.5, 0.0, 255.0), dtype=np.uint8)


def _noise(rng: np.random.Generator, grain_m: float) -> FloatArray:
    """(size, size) in [0, 1]: random values on a grid of the grain's size, interpolated between."""
    count = max(2, round(TEXTURE_SPAN_M / grain_m))
    grid = rng.random((count + 1, count + 1))
    at = np.linspace(0.0, count, TEXTURE_SIZE, endpoint=False)
    i, part = at.astype(int), at % 1.0
    rows = grid[i] * (1.0 - part)[:, None] + grid[i + 1] * part[:, None]
    return np.asarray(rows[:, i] * (1.0 - part) + rows[:, i + 1] * part)


def _draw_pattern(rng: np.random.Generator, value: tuple[float, float]) -> Pattern:
    kind = PATTERN_KINDS[int(rng.integers(len(PATTERN_KINDS)))]
    first = _draw_dull(rng, value)
    contrast = rng.uniform(0.06, 0.25) * (-1.0 if sum(first) > 1.5 else 1.0)
    second = _rgb(np.clip(np.array(first) + contrast, 0.05, 1.0))
    period_m = rng.uniform(0.02, 0.12)
    return Pattern(kind, first, second, period_m, rng.uniform(0.0, np.pi), int(rng.integers(2**31)))


def _draw_dull(rng: np.random.Generator, value: tuple[float, float]) -> Rgb:
    """A colour so dull that it is none of the five."""
    return colorsys.hsv_to_rgb(rng.uniform(0.0, 1.0), rng.uniform(0.0, 0.18), rng.uniform(*value))


def _vary(rng: np.random.Generator, rgb: Rgb) -> Rgb:
    return _rgb(np.clip(np.array(rgb) * rng.uniform(0.88, 1.07), 0.0, 1.0))


def _draw_direction(rng: np.random.Generator, lowest_deg: float, highest_deg: float) -> FloatArray:
    """Unit vector downwards from a point in the sky between two elevations."""
    azimuth, elevation = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(lowest_deg, highest_deg))
    horizontal = np.cos(elevation) * np.array([np.cos(azimuth), np.sin(azimuth)])
    return np.array([*horizontal, -np.sin(elevation)])


def _rgb(values: FloatArray) -> Rgb:
    r, g, b = values.tolist()
    return r, g, b
