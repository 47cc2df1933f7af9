"""From a scene to its pixels and to the mask of every object; a picture by seed and index."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmbp_jax.data.generated.scenes import CLASSES, SIZE, Scene, Thing, compose
from dmbp_jax.data.generated.shapes import SHAPES, TEXTURES, Floats


class Sample(NamedTuple):
    """One picture: `image` (96, 96, 3) uint8, `labels` (10,) bool, `masks` (10, 96, 96) bool."""

    image: NDArray[np.uint8]
    labels: NDArray[np.bool_]
    masks: NDArray[np.bool_]


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
      >>> from dmbp_jax.data.generated import CLASSES
      >>> sample = generate(seed=0, index=7, classes=("star", "striped disc"))
      >>> sample.image.shape, [CLASSES[k] for k in sample.labels.nonzero()[0]]
      ((96, 96, 3), ['striped disc', 'star'])

    The dataset is ours; the paper uses none like it.
    """
    return render(compose(seed, index, classes))


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
    depth = SHAPES[thing.shape](u, v)
    ink = TEXTURES[thing.texture](u, v, depth, thing.pitch / thing.radius)
    cover = np.clip(depth * thing.radius + 0.5, 0, 1)
    inked = np.clip(ink * thing.radius + 0.5, 0, 1)[..., None]
    light = (1 + 0.15 * u)[..., None]  # a soft light from one side
    paint, pigment = np.array([thing.paint, thing.ink], np.float32)
    return (rows, columns), cover, light * (paint + inked * (pigment - paint))
