"""The generated dataset: textured objects of ten classes on clutter, with the mask of each object.

What a map of the built-in network should show is known here, pixel by pixel.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmbp_jax.checks import check_count
from dmbp_jax.errors import InputError, InputTypeError

SIZE = 96
MAX_OBJECTS = 4

Floats = NDArray[np.floating]  # float32; NumPy's types do not follow it through scalars
Shape = Callable[[Floats, Floats], Floats]  # (u, v) -> signed distance to the outline, > 0 inside
Texture = Callable[[Floats, Floats, Floats, float], Floats]  # (u, v, depth, pitch) -> same, of ink


class Sample(NamedTuple):
    """One picture: `image` (96, 96, 3) uint8, `labels` (10,) bool, `masks` (10, 96, 96) bool."""

    image: NDArray[np.uint8]
    labels: NDArray[np.bool_]
    masks: NDArray[np.bool_]


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


# --- shapes: coordinates in units of the radius ---------------------------------------------


def _disc(u: Floats, v: Floats) -> Floats:
    return 1 - np.hypot(u, v)


def _square(u: Floats, v: Floats) -> Floats:
    return 0.84 - np.maximum(abs(u), abs(v))


def _triangle(u: Floats, v: Floats) -> Floats:
    return 0.6 - np.maximum(-v, 0.5 * v + (math.sqrt(3) / 2) * abs(u))


def _hexagon(u: Floats, v: Floats) -> Floats:
    return 0.9 - np.maximum(abs(v), 0.5 * abs(v) + (math.sqrt(3) / 2) * abs(u))


def _star(u: Floats, v: Floats) -> Floats:
    fifth = 2 * math.pi / 5
    angle = abs((np.arctan2(v, u) + fifth / 2) % fifth - fifth / 2)
    tip, notch = 1.1, 0.52
    across, along = notch * math.sin(fifth / 2), tip - notch * math.cos(fifth / 2)
    rho = np.hypot(u, v)
    edge = tip * across - rho * (np.cos(angle) * across + np.sin(angle) * along)
    return np.minimum(edge / math.hypot(across, along), tip - rho)


def _cross(u: Floats, v: Floats) -> Floats:
    long, short = np.maximum(abs(u), abs(v)), np.minimum(abs(u), abs(v))
    return np.minimum(1 - long, 0.36 - short)


def _ring(u: Floats, v: Floats) -> Floats:
    return 0.23 - abs(np.hypot(u, v) - 0.77)


def _arc(u: Floats, v: Floats) -> Floats:
    return np.minimum(_ring(u, v), v + 0.1)


def _rod(u: Floats, v: Floats) -> Floats:
    return np.minimum(1 - abs(u), 0.2 - abs(v))


def _line(u: Floats, v: Floats) -> Floats:
    return np.minimum(1 - abs(u), 0.06 - abs(v))


_SHAPES: dict[str, Shape] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "hexagon": _hexagon,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "arc": _arc,
    "rod": _rod,
    "line": _line,
}


# --- textures: where the ink goes; depth is the distance to the outline ----------------------


def _plain(u: Floats, v: Floats, depth: Floats, pitch: float) -> Floats:
    return np.full_like(depth, -1)


def _outlined(u: Floats, v: Floats, depth: Floats, pitch: float) -> Floats:
    return 0.35 * pitch - depth


def _stripes(u: Floats, v: Floats, depth: Floats, pitch: float) -> Floats:
    return pitch * (0.25 - abs((v / pitch) % 1 - 0.5))


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


_TEXTURES: dict[str, Texture] = {
    "plain": _plain,
    "outlined": _outlined,
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "grid": _grid,
    "spiral": _spiral,
}

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
        things.append(_place(rng, things, base, label, *_KINDS[CLASSES[label]], radius))
    objects = tuple(things)
    for _ in range(rng.integers(3, 8)):
        shape, texture = _DISTRACTORS[rng.integers(len(_DISTRACTORS))]
        radius = rng.uniform(9, 16) if shape in ("rod", "line") else rng.uniform(7, 13)
        things.append(_place(rng, things, base, None, shape, texture, radius))

    grain = rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32) * np.float32(0.02)
    return Scene(background, tuple(things[len(objects) :]) + objects, grain)


def render(scene: Scene) -> Sample:
    """Draw a scene; the mask of an object holds its pixels that no later thing covers."""
    canvas = scene.background.copy()
    labels = np.zeros(len(CLASSES), bool)
    masks = np.zeros((len(CLASSES), SIZE, SIZE), bool)
    for thing in scene.things:
        window, cover, colour = _draw(thing)
        canvas[window] += cover[..., None] * (colour - canvas[window])
        solid = cover >= 0.5
        masks[(slice(None), *window)] &= ~solid
        if thing.label is not None:
            labels[thing.label] = True
            masks[(thing.label, *window)] |= solid
    image = np.clip((canvas + scene.grain) * 255 + 0.5, 0, 255).astype(np.uint8)
    return Sample(image, labels, masks)


def generate(seed: int, index: int, classes: Sequence[int | str] | None = None) -> Sample:
    """Picture `index` of the endless dataset `seed`.

    image = background ⊕ distractors ⊕ objects, each painted with an antialiased cover

    Between one and four objects of different classes lie on a clutter of colour noise and
    distractors (a right shape without its texture, a texture on a wrong shape). Colour, size,
    rotation and place are random and say nothing about the class. The picture depends on
    (seed, index, classes) alone: not on other pictures, not on any global random state.

    Args:
      seed: which dataset, an int >= 0.
      index: which picture of it, an int >= 0.
      classes: names or indices of one to four different classes to show, in drawing order;
        None draws them, never both of a pair of rivals.

    Returns:
      A `Sample`: `image` (96, 96, 3) uint8, `labels` (10,) bool, and `masks` (10, 96, 96) bool
      with the visible pixels of each object; masks do not overlap.

    Raises:
      InputTypeError: an argument is of a wrong type.
      InputError: a negative seed or index, an unknown class, a class named twice, no class at all
        or more than four.

    Example:
      >>> sample = generate(seed=0, index=7, classes=("star", "striped disc"))
      >>> sample.image.shape, [CLASSES[k] for k in sample.labels.nonzero()[0]]
      ((96, 96, 3), ['striped disc', 'star'])

    The dataset is ours; the paper uses none like it.
    """
    return render(compose(seed, index, classes))


@dataclass(frozen=True)
class GeneratedDataset:
    """The first `size` pictures of dataset `seed`, as a sequence of `Sample`s made on demand.

    dataset[k] = generate(seed, k)

    Args:
      seed: an int >= 0. The built-in network was trained on seed 0 and evaluated on seed 1.
      size: number of pictures, an int >= 1.

    Raises:
      InputTypeError, InputError: as for `generate`.

    Example:
      >>> dataset = GeneratedDataset(seed=1, size=10)
      >>> len(dataset), dataset[-1].image.dtype
      (10, dtype('uint8'))
    """

    seed: int
    size: int

    def __post_init__(self) -> None:
        """Check both numbers when the dataset is made, not when a picture is."""
        check_count(self.seed, "seed", minimum=0)
        check_count(self.size, "size")

    def __len__(self) -> int:
        """Number of pictures."""
        return self.size

    def __iter__(self) -> Iterator[Sample]:
        """The samples in order."""
        return (self[index] for index in range(self.size))

    def __getitem__(self, index: int) -> Sample:
        """Picture `index`; negative ones count from the end."""
        if not -self.size <= index < self.size:
            raise IndexError(f"index: Expected {-self.size} <= index < {self.size}, got {index}.")
        return generate(self.seed, index % self.size)


def _check_classes(classes: Sequence[int | str]) -> list[int]:
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise InputTypeError(
            f"classes: Expected a sequence of class names or indices, got {classes!r}."
        )
    labels = []
    for entry in classes:
        if isinstance(entry, str):
            if entry not in CLASSES:
                raise InputError(f"classes: Expected names out of {CLASSES}, got {entry!r}.")
            labels.append(CLASSES.index(entry))
        else:
            labels.append(check_count(entry, "classes", minimum=0))
            if entry >= len(CLASSES):
                raise InputError(f"classes: Expected indices < {len(CLASSES)}, got {entry}.")
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
    shape: str,
    texture: str,
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
        shape=shape,
        texture=texture,
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


def _draw(thing: Thing) -> tuple[tuple[slice, slice], Floats, Floats]:
    """Window of the picture, how far each of its pixels is covered (h, w), and colour (h, w, 3)."""
    reach = 1.2 * thing.radius + 1
    rows, columns = (
        slice(max(0, math.floor(centre - reach)), min(SIZE, math.ceil(centre + reach) + 1))
        for centre in (thing.y, thing.x)
    )
    dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(thing.y)
    dx = np.arange(columns.start, columns.stop, dtype=np.float32)[None] - np.float32(thing.x)
    cos, sin = (f(thing.angle) / thing.radius for f in (math.cos, math.sin))
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    if thing.mirrored:
        u = -u
    depth = _SHAPES[thing.shape](u, v)
    ink = _TEXTURES[thing.texture](u, v, depth, thing.pitch / thing.radius)
    cover = np.clip(depth * thing.radius + 0.5, 0, 1)
    inked = np.clip(ink * thing.radius + 0.5, 0, 1)[..., None]
    light = (1 + 0.15 * u)[..., None]  # a soft light from one side
    paint, pigment = np.array([thing.paint, thing.ink], np.float32)
    return (rows, columns), cover, light * (paint + inked * (pigment - paint))
