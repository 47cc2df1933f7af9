"""Pointing game (Zhang et al. 2016): does the map's highest point lie on the object?

The rules are TorchRay's: a tolerance of 15 pixels, accuracy per class, mean over classes.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.errors import InputError, InputTypeError
from dmbp_jax.graph.model import is_traced
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
      InputTypeError: labels that are not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> mask = jnp.zeros((32, 32), bool).at[0, 0].set(True)
      >>> far, near = jnp.zeros((2, 32, 32)).at[0, 20, 20].set(1).at[1, 5, 5].set(1)
      >>> [float(pointing_game(heatmap, mask).hit) for heatmap in (far, near)]
      [0.0, 1.0]
    """
    maps, single = check_maps(heatmap)
    objects = check_masks(masks, maps, single)
    if is_traced(tolerance) or not np.isfinite(tolerance) or tolerance < 0:
        raise InputError(f"tolerance: Expected a number of pixels >= 0, got {tolerance}.")
    hit = _hits(maps, objects, tolerance=float(tolerance))
    if label is None or single:
        empty = jnp.zeros(0)
        return PointingGame(
            hit[0] if single else hit, empty.astype(jnp.int32), empty, empty, jnp.nanmean(hit)
        )
    labels = _check_classes(label, maps.shape[0])
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
        return jnp.where(mask.any(), hit.astype(values.dtype), jnp.nan)

    return jax.vmap(one)(maps, masks)


def _check_classes(label: ArrayLike, batch: int) -> np.ndarray:
    labels = np.asarray(label)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputTypeError(f"label: Expected integers, got dtype {labels.dtype}.")
    if labels.shape != (batch,):
        raise InputError(f"label: Expected {batch} labels, one per map, got shape {labels.shape}.")
    return labels
