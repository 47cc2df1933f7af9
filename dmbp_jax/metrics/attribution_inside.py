"""Share of the attribution that lies on an object: how well a map of one sign is localised.

The paper shows this in pictures only; the number needs a mask of the object.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from dmbp_jax.checks import check_choice
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.metrics.heatmaps import check_maps, check_masks

Sign = Literal["positive", "negative"]


@on_any_mesh("heatmap")
def attribution_inside(heatmap: Any, masks: ArrayLike, *, sign: Sign = "positive") -> jax.Array:
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
    """Σ max(h, 0) inside the mask over Σ max(h, 0), (N,) of maps (N, H, W); 0 where that is 0."""
    positive = jnp.maximum(maps, 0)
    # Scaled by the maximum first, so that no sum overflows. In two steps: the reciprocal of 1e38
    # is below the normal float32 numbers, which XLA rounds to 0 on CPUs.
    largest = positive.max((1, 2), keepdims=True)
    scale = 1 / jnp.sqrt(jnp.where(largest > 0, largest, 1))
    positive = positive * scale * scale
    inside, total = jnp.where(masks, positive, 0).sum((1, 2)), positive.sum((1, 2))
    return jnp.where(total > 0, inside / jnp.where(total > 0, total, 1), 0).clip(0, 1)
