"""Does a map lie where the object is: its highest point, its evidence inside a mask or a cell.

The pointing game (Zhang et al. 2016) with the rules of TorchRay: a tolerance of 15 pixels, accuracy
per class, mean over classes. The grid pointing game (Böhle et al. 2021) needs no annotation: only
one cell of a mosaic shows the target. The paper shows localisation in pictures only.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.checks import check_choice, check_count, check_number
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.errors import InputError
from dmbp_jax.graph.call import check_images, check_labels
from dmbp_jax.graph.model import is_traced, plain_array
from dmbp_jax.metrics.heatmaps import check_maps, check_masks


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PointingGame:
    """Hits of the pointing game.

    Attributes:
      hit: (N,) float, a scalar for a single map: 1 hit, 0 miss, NaN where the mask is empty.
      classes: (K,) the labels that occur, ascending; (0,) without labels.
      class_accuracy: (K,) share of hits per class, NaN for a class with empty masks only.
      class_count: (K,) number of maps counted per class.
      mean: scalar: mean of `class_accuracy`, or of `hit` without labels; NaN entries left out.
    """

    hit: jax.Array
    classes: jax.Array
    class_accuracy: jax.Array
    class_count: jax.Array
    mean: jax.Array


@on_any_mesh("heatmap")
def pointing_game(
    heatmap: Any, masks: ArrayLike, label: ArrayLike | None = None, *, tolerance: float = 15
) -> PointingGame:
    r"""Whether the highest point of each heat map lies on its object, or almost.

    The point \(p = \arg\max h\) (first in row-major order) hits if it lies on the mask, or if
    some mask pixel q has \(|p - q|_2 < \) `tolerance`.

    A constant map has no highest point and counts as a miss: leaving it out would reward blank
    maps. An image whose mask is empty cannot be hit; it is NaN and left out of the means.

    Args:
      heatmap: signed, (H, W) or (N, H, W), or an `Attribution`: one map per image and class.
      masks: bool or 0/1 of the same shape: where the target class is.
      label: (N,) ints, the target class of each map, for the accuracy per class; not for a
        single map.
      tolerance: pixels; 0 demands the mask itself.

    Returns:
      `PointingGame`.

    Raises:
      InputError: shapes that differ, masks that are not 0/1, a negative tolerance.
      InputTypeError: labels that are not integers, a tolerance that is no number.

    Example:
      >>> import jax.numpy as jnp
      >>> mask = jnp.zeros((32, 32), bool).at[0, 0].set(True)
      >>> far, near = jnp.zeros((2, 32, 32)).at[0, 20, 20].set(1).at[1, 5, 5].set(1)
      >>> [float(pointing_game(heatmap, mask).hit) for heatmap in (far, near)]
      [0.0, 1.0]
    """
    maps, single = check_maps(heatmap)
    objects = check_masks(masks, maps, single)
    if is_traced(tolerance):
        raise InputError(f"tolerance: Expected a number that is known, got {tolerance}.")
    radius = check_number(plain_array(tolerance, "tolerance").tolist(), "tolerance", low=0)
    hit = _hits(maps, objects, tolerance=radius)
    if label is None or single:
        empty = jnp.zeros(0)
        return PointingGame(
            hit[0] if single else hit, empty.astype(jnp.int32), empty, empty, jnp.nanmean(hit)
        )
    if is_traced(label):
        raise InputError("label: Expected classes that are known, got traced ones. Leave them out.")
    with jax.ensure_compile_time_eval():  # of a traced map
        labels = np.asarray(check_labels(label, len(maps), 2**31 - 1, single))
    classes = np.unique(labels)
    members = jnp.asarray(labels == classes[:, None])  # (K, N)
    own = jnp.where(members, hit[None], jnp.nan)
    accuracy, count = jnp.nanmean(own, axis=-1), (~jnp.isnan(own)).sum(-1)
    return PointingGame(
        hit, jnp.asarray(classes, jnp.int32), accuracy, count, jnp.nanmean(accuracy)
    )


@partial(jax.jit, static_argnames="tolerance")
def _hits(maps: jax.Array, masks: jax.Array, *, tolerance: float) -> jax.Array:
    height, width = maps.shape[1:]

    def one(values: jax.Array, mask: jax.Array) -> jax.Array:
        row, column = jnp.divmod(values.argmax(), width)
        down, across = jnp.arange(height)[:, None] - row, jnp.arange(width)[None] - column
        squared = down**2 + across**2
        near = (squared == 0) | (squared.astype(jnp.float32) < tolerance**2)
        hit = (mask & near).any() & (values.max() > values.min())
        is_defined = mask.any() & jnp.isfinite(values).all()
        return jnp.where(is_defined, hit.astype(values.dtype), jnp.nan)

    return jax.vmap(one)(maps, masks)


@on_any_mesh("heatmap")
def attribution_inside(heatmap: Any, masks: ArrayLike, *, sign: str = "positive") -> jax.Array:
    r"""Share of the attribution of one sign that lies inside a mask.

    \(\sum_{p \in M} h_p^\pm \,/\, \sum_p h_p^\pm\), with \(h^+ = \max(h, 0)\) and
    \(h^- = \max(-h, 0)\). A uniform map scores the mask's share of the pixels.

    A map without any value of this sign scores 0: leaving it out would reward blank maps. An
    image whose mask is empty has no share; it is **NaN**, so take means with `jnp.nanmean`.

    Args:
      heatmap: signed, (H, W) or (N, H, W), or an `Attribution`: one map per image and class.
      masks: bool or 0/1 of the same shape: where the object is.
      sign: `"positive"`, evidence for the label; `"negative"`, evidence against it, which
        belongs on an object of another class.

    Returns:
      (N,) in [0, 1], a scalar for a single map; float64 for float64 maps, else float32.

    Raises:
      InputError: shapes that differ, masks that are not 0/1, a value that is not finite, or an
        unknown sign.
      InputTypeError: not a numeric array.

    Example:
      >>> import jax.numpy as jnp
      >>> heatmap = jnp.array([[3.0, 1.0], [-5.0, 0.0]])
      >>> left = jnp.array([[True, False], [True, False]])
      >>> float(attribution_inside(heatmap, left))
      0.75
      >>> float(attribution_inside(heatmap, left, sign="negative"))
      1.0
    """
    check_choice(sign, "sign", ("positive", "negative"))
    maps, single = check_maps(heatmap)
    objects = check_masks(masks, maps, single)
    shares = share_inside(maps if sign == "positive" else -maps, objects)
    shares = jnp.where(objects.any((1, 2)), shares, jnp.nan)
    return shares[0] if single else shares


@jax.jit
def share_inside(maps: jax.Array, masks: jax.Array) -> jax.Array:
    """Σ max(h, 0) inside the mask over Σ max(h, 0), (N,) of maps (N, H, W); 0 where that is 0.

    NaN of a map that is not finite.
    """
    positive = jnp.maximum(maps, 0)
    # Scaled by the maximum first, so that no sum overflows. In two steps: the reciprocal of 1e38
    # is below the normal float32 numbers, which XLA rounds to 0 on CPUs.
    largest = positive.max((1, 2), keepdims=True)
    scale = 1 / jnp.sqrt(jnp.where(largest > 0, largest, 1))
    positive = positive * scale * scale
    inside, total = jnp.where(masks, positive, 0).sum((1, 2)), positive.sum((1, 2))
    shares = jnp.where(total > 0, inside / jnp.where(total > 0, total, 1), 0).clip(0, 1)
    return jnp.where(jnp.isfinite(maps).all((1, 2)), shares, jnp.nan)


@on_any_mesh("images")
def mosaic(images: ArrayLike, n: int) -> jax.Array:
    """Lay n * n images, row by row, into one image.

    Choose images of distinct classes that the network recognises surely. A network with global
    average pooling takes the mosaic as it is; for others shrink the images first.

    Args:
      images: (n * n, H, W, C) floating point, preprocessed.
      n: images a side.

    Returns:
      (n * H, n * W, C).

    Raises:
      InputError: not n * n images.
      InputTypeError: not floating point, or `n` not an int.

    Example:
      >>> import jax.numpy as jnp
      >>> mosaic(jnp.arange(4.0).reshape(4, 1, 1, 1), 2)[..., 0].tolist()
      [[0.0, 1.0], [2.0, 3.0]]
    """
    n = check_count(n, "n")
    x, _ = check_images(images, "images")
    count, height, width, channels = x.shape
    if count != n * n:
        raise InputError(f"images: Expected n * n = {n * n} images, got {count}.")
    grid = x.reshape(n, n, height, width, channels).swapaxes(1, 2)
    return grid.reshape(n * height, n * width, channels)


@on_any_mesh("heatmap")
def grid_pointing_game(heatmap: Any, cell: ArrayLike, n: int) -> jax.Array:
    r"""Share of the positive attribution that lies inside the target's own cell.

    \(\sum_{p \in \mathrm{cell}} h_p^+ \,/\, \sum_p h_p^+\), with \(h^+ = \max(h, 0)\). A map that
    finds nothing (no positive value) scores 0, as in the authors' code: leaving it out would
    reward blank maps. A uniform map scores \(1 / n^2\).

    Args:
      heatmap: signed maps of mosaics, (n H, n W) or (N, n H, n W), or an `Attribution`.
      cell: int or (N,) ints: the target's cell, counted row by row from 0.
      n: images a side.

    Returns:
      (N,) in [0, 1], a scalar for a single map.

    Raises:
      InputError: a map that n does not divide, a cell outside [0, n * n), a wrong number of cells.
      InputTypeError: cells that are not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> heatmap = jnp.array([[3.0, 1.0], [-5.0, 0.0]])
      >>> float(grid_pointing_game(heatmap, 0, 2))
      0.75
    """
    n = check_count(n, "n")
    maps, single = check_maps(heatmap)
    if maps.shape[1] % n or maps.shape[2] % n:
        raise InputError(f"heatmap: Expected sides that {n} divides, got {maps.shape[1:]}.")
    cells = check_labels(cell, len(maps), n * n, single, "cell")
    row, column = (jnp.arange(side) // (side // n) for side in maps.shape[1:])
    own = (n * row[:, None] + column)[None] == jnp.asarray(cells)[:, None, None]
    shares = jnp.where(jnp.asarray(cells) >= 0, share_inside(maps, own), jnp.nan)
    return shares[0] if single else shares
