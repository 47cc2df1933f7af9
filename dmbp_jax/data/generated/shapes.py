"""Outlines and textures of the drawn objects, as functions of position.

An outline is a signed distance, above 0 inside; a texture is the same for the ink on the object.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]  # float32; NumPy's types do not follow it through scalars
Shape = Callable[[Floats, Floats], Floats]  # (u, v) in units of the radius -> distance
# (u, v, depth: the distance to the outline, pitch: the texture's period) -> distance
Texture = Callable[[Floats, Floats, Floats, float], Floats]

_HALF_ROOT = math.sqrt(3) / 2


def _star(u: Floats, v: Floats) -> Floats:
    fifth = 2 * math.pi / 5
    angle = abs((np.arctan2(v, u) + fifth / 2) % fifth - fifth / 2)
    tip, notch = 1.1, 0.52
    across, along = notch * math.sin(fifth / 2), tip - notch * math.cos(fifth / 2)
    rho = np.hypot(u, v)
    edge = tip * across - rho * (np.cos(angle) * across + np.sin(angle) * along)
    return np.minimum(edge / math.hypot(across, along), tip - rho)


def _ring(u: Floats, v: Floats) -> Floats:
    return 0.23 - abs(np.hypot(u, v) - 0.77)


SHAPES: dict[str, Shape] = {
    "disc": lambda u, v: 1 - np.hypot(u, v),
    "square": lambda u, v: 0.84 - np.maximum(abs(u), abs(v)),
    "triangle": lambda u, v: 0.6 - np.maximum(-v, 0.5 * v + _HALF_ROOT * abs(u)),
    "hexagon": lambda u, v: 0.9 - np.maximum(abs(v), 0.5 * abs(v) + _HALF_ROOT * abs(u)),
    "star": _star,
    "cross": lambda u, v: np.minimum(
        1 - np.maximum(abs(u), abs(v)), 0.36 - np.minimum(abs(u), abs(v))
    ),
    "ring": _ring,
    "arc": lambda u, v: np.minimum(_ring(u, v), v + 0.1),
    "rod": lambda u, v: np.minimum(1 - abs(u), 0.2 - abs(v)),
    "line": lambda u, v: np.minimum(1 - abs(u), 0.06 - abs(v)),
}


def _dots(u: Floats, v: Floats, depth: Floats, pitch: float) -> Floats:
    pitch = 1.15 * pitch
    return pitch * (0.31 - np.hypot((u / pitch) % 1 - 0.5, (v / pitch) % 1 - 0.5))


def _checks(u: Floats, v: Floats, depth: Floats, pitch: float) -> Floats:
    wave = math.pi / (0.8 * pitch)
    return np.sin(wave * u) * np.sin(wave * v) / wave


def _grid(u: Floats, v: Floats, depth: Floats, pitch: float) -> Floats:
    pitch = 1.15 * pitch
    nearest = np.minimum(abs((u / pitch) % 1 - 0.5), abs((v / pitch) % 1 - 0.5))
    return pitch * (0.15 - nearest)


def _spiral(u: Floats, v: Floats, depth: Floats, pitch: float) -> Floats:
    turn = (np.hypot(u, v) / pitch + np.arctan2(v, u) / (2 * math.pi)) % 1
    return pitch * (0.25 - abs(turn - 0.5))


TEXTURES: dict[str, Texture] = {
    "plain": lambda u, v, depth, pitch: np.full_like(depth, -1),
    "outlined": lambda u, v, depth, pitch: 0.35 * pitch - depth,
    "stripes": lambda u, v, depth, pitch: pitch * (0.25 - abs((v / pitch) % 1 - 0.5)),
    "dots": _dots,
    "checks": _checks,
    "grid": _grid,
    "spiral": _spiral,
}
