"""Spearman's rank correlation of two heat maps: how alike they order the pixels.

Table 3 compares maps of a network with maps of a copy whose last layer was re-drawn.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.errors import InputError
from dmbp_jax.metrics.heatmaps import check_maps


@on_any_mesh("a")
def rank_correlation(a: Any, b: Any) -> jax.Array:
    r"""Spearman's rank correlation per image, over the pixels.

    Pearson's correlation of the ranks; pixels of equal value share the average of their ranks.

    Args:
      a: signed heat maps (H, W) or (N, H, W), or an `Attribution`.
      b: heat maps of the same shape.

    Returns:
      (N,) in [-1, 1], a scalar for single maps. **NaN** where a map is constant: it orders
      nothing, so the correlation is undefined.

    Raises:
      InputError: different shapes, not (H, W) or (N, H, W), or a value that is not finite.
      InputTypeError: not a numeric array.

    Example:
      >>> import jax.numpy as jnp
      >>> a, b = jnp.array([[1.0, 2.0, 3.0, 4.0]]), jnp.array([[9.0, 5.0, 1.0, 0.0]])
      >>> round(float(rank_correlation(a, b)), 6)
      -1.0
    """
    (first, single), (second, other_single) = check_maps(a, "a"), check_maps(b, "b")
    if first.shape != second.shape or single != other_single:
        raise InputError(f"b: Expected shape {first.shape} as a has, got {second.shape}.")
    correlations = spearman(first, second)
    return correlations[0] if single else correlations


@jax.jit
def spearman(a: jax.Array, b: jax.Array) -> jax.Array:
    """Correlations (N,) of maps (N, H, W); NaN where one is constant or not finite."""
    ranks_a, ranks_b = jax.vmap(_centred_ranks)(a), jax.vmap(_centred_ranks)(b)
    covariance = _dot(ranks_a, ranks_b)
    norm = jnp.sqrt(_dot(ranks_a, ranks_a)) * jnp.sqrt(_dot(ranks_b, ranks_b))
    defined = (norm > 0) & jnp.isfinite(a).all((1, 2)) & jnp.isfinite(b).all((1, 2))
    return jnp.where(defined, covariance / jnp.where(defined, norm, 1), jnp.nan).clip(-1, 1)


def _centred_ranks(values: jax.Array) -> jax.Array:
    """Average ranks minus their mean, over the number of pixels: between -1/2 and 1/2."""
    flat = values.ravel()
    ordered = jnp.sort(flat)
    below = jnp.searchsorted(ordered, flat, side="left", method="sort")
    not_above = jnp.searchsorted(ordered, flat, side="right", method="sort")
    # below + not_above = 2 rank - 1, whose mean is the number of pixels: exact integers
    centred = (below + not_above - flat.size).astype(values.dtype) / (2 * flat.size)
    return centred.reshape(values.shape)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Σ a b of each map; XLA's plain sum over one large map is off by 5e-6 on CPU, this by 1e-7."""
    return jnp.einsum("nij,nij->n", a, b, precision="highest")
