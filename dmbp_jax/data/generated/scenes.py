"""What is in a picture before it is drawn: classes, and objects and distractors with their places.

Everything random is decided here, from (seed, index, classes) alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dmbp_jax.checks import check_count
from dmbp_jax.data.generated.shapes import Floats
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.networks.class_names import find_label

SIZE = 96
MAX_OBJECTS = 4

# Neighbours (0 and 1, 2 and 3, …) are rivals: they look alike and never share a random picture,
# so that seeing one is evidence against the other.
_KINDS: dict[str, tuple[str, str]] = {
    "striped disc": ("disc", "stripes"),
    "dotted disc": ("disc", "dots"),
    "striped triangle": ("triangle", "stripes"),
    "dotted triangle": ("triangle", "dots"),
    "checked square": ("square", "checks"),
    "grid square": ("square", "grid"),
    "star": ("star", "outlined"),
    "cross": ("cross", "outlined"),
    "ring": ("ring", "plain"),
    "spiral": ("disc", "spiral"),
}
CLASSES: tuple[str, ...] = tuple(_KINDS)

# Half a class each: a right shape without its texture, or a texture on a wrong shape.
_DISTRACTORS: tuple[tuple[str, str], ...] = (
    ("disc", "plain"),
    ("triangle", "plain"),
    ("square", "plain"),
    ("hexagon", "plain"),
    ("arc", "plain"),
    ("rod", "plain"),
    ("square", "stripes"),
    ("square", "dots"),
    ("rod", "stripes"),
    ("arc", "outlined"),
    ("line", "plain"),
    ("line", "plain"),
)


def rival(label: int) -> int:
    """The class that looks like class `label` and never shares a random picture with it.

    Example:
      >>> CLASSES[rival(CLASSES.index("star"))]
      'cross'
    """
    return label ^ 1


@dataclass(frozen=True)
class Thing:
    """One drawn thing: an object of class `label`, or a distractor of no class (None)."""

    label: int | None
    shape: str
    texture: str
    x: float
    y: float
    radius: float
    angle: float
    mirrored: bool
    pitch: float  # period of the texture, in pixels
    paint: tuple[float, float, float]
    ink: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that is in a picture, before it is drawn: later things lie on earlier ones."""

    background: Floats  # (96, 96, 3) in [0, 1]
    things: tuple[Thing, ...]
    grain: Floats  # (96, 96, 3), noise of the camera


def compose(seed: int, index: int, classes: Sequence[int | str] | None = None) -> Scene:
    """Decide what picture `index` of dataset `seed` contains; arguments as for `generate`."""
    rng = np.random.default_rng(
        [check_count(seed, "seed", minimum=0), check_count(index, "index", minimum=0)]
    )
    labels = _random_labels(rng) if classes is None else _check_classes(classes)
    background, base = _background(rng)

    things: list[Thing] = []
    for label in labels:
        radius = rng.uniform(13, 20)
        things.append(_place(rng, things, base, label, _KINDS[CLASSES[label]], radius))
    objects = tuple(things)
    for _ in range(rng.integers(3, 8)):
        kind = _DISTRACTORS[rng.integers(len(_DISTRACTORS))]
        radius = rng.uniform(9, 16) if kind[0] in ("rod", "line") else rng.uniform(7, 13)
        things.append(_place(rng, things, base, None, kind, radius))

    grain = rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32) * np.float32(0.02)
    return Scene(background, tuple(things[len(objects) :]) + objects, grain)


def _check_classes(classes: Sequence[int | str]) -> list[int]:
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise InputTypeError(
            f"classes: Expected a sequence of class names or indices, got {classes!r}."
        )
    labels = [find_label(CLASSES, entry, exact=True) for entry in classes]
    if not 1 <= len(labels) <= MAX_OBJECTS or len(set(labels)) < len(labels):
        raise InputError(
            f"classes: Expected one to {MAX_OBJECTS} different classes, got {tuple(classes)}."
        )
    return labels


def _random_labels(rng: np.random.Generator) -> list[int]:
    pairs = rng.permutation(len(CLASSES) // 2)[: rng.integers(1, MAX_OBJECTS + 1)]
    return [int(2 * pair + rng.integers(2)) for pair in pairs]


def _background(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Colour noise of several scales around one base colour."""
    base = rng.uniform(0.15, 0.85, 3).astype(np.float32)
    picture = np.broadcast_to(base, (SIZE, SIZE, 3))
    for cells in (4, 11, 30):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32)
        picture = picture + np.float32(rng.uniform(0.05, 0.2) / 255) * (smooth - 127.5)
    return np.clip(picture, 0, 1), base


def _place(
    rng: np.random.Generator,
    others: Sequence[Thing],
    base: Floats,
    label: int | None,
    kind: tuple[str, str],
    radius: float,
) -> Thing:
    """Find a place that touches no other thing; the thing shrinks until there is one."""
    while True:
        places = rng.uniform(1.1 * radius, SIZE - 1.1 * radius, (24, 2))
        gap = np.full(len(places), np.inf)
        for other in others:
            away = np.hypot(places[:, 0] - other.x, places[:, 1] - other.y)
            gap = np.minimum(gap, away - 0.95 * (radius + other.radius))
        if gap.max() > 0:
            break
        radius *= 0.93
    x, y = places[np.argmax(gap > 0)]
    paint, ink = _colours(rng, base)
    return Thing(
        label=label,
        shape=kind[0],
        texture=kind[1],
        x=float(x),
        y=float(y),
        radius=radius,
        angle=rng.uniform(0, 2 * math.pi),
        mirrored=bool(rng.integers(2)),
        pitch=rng.uniform(6.5, 8.5),
        paint=paint,
        ink=ink,
    )


def _colours(
    rng: np.random.Generator, base: Floats
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Paint that stands out from the background, and ink that stands out from the paint."""
    draws = rng.random((16, 2, 3))
    luminance = draws @ (0.299, 0.587, 0.114)
    contrast = abs(luminance[:, 0] - luminance[:, 1])
    distance = np.linalg.norm(draws[:, 0] - base, axis=-1)
    good = np.minimum(contrast / 0.35, distance / 0.45)
    chosen = np.argmax(good >= 1) if (good >= 1).any() else np.argmax(good)
    paint, ink = draws[chosen].tolist()
    return tuple(paint), tuple(ink)
