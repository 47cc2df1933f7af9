"""Complete maps (ours): the biases' part of y± as signed maps of its layers, added to the picture.

Eq. 14 adds Σ_l ∇_{b_l}Fᵀb_l to what the pixels carry. A bias acts at a position of its layer, so
its part is a map as coarse as that layer; FullGrad draws it without its sign.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dmbp_jax.graph.positions import as_picture
from dmbp_jax.graph.program import Site


def spread_biases(
    image_map: jax.Array, products: Sequence[jax.Array], sites: Sequence[Site], total: jax.Array
) -> jax.Array:
    """The map with the biases' part added, so that it sums to `total`.

    Every layer's ∇b ⊙ b is summed over channels and resized to the picture, bilinear, each cell
    keeping its sum. Biases without positions (dense layers) are shared equally by all pixels. A
    pixel's share is divided equally between its colour channels.

    Args:
      image_map: (1, H, W, C), ∇ₓF ⊙ x.
      products: ∇_{b_l}F ⊙ b_l of every bias, less what of it is F_0.
      sites: these biases.
      total: scalar, y⁺ or y⁻.
    """
    height, width, channels = image_map.shape[1:]
    image_map = image_map.astype(total.dtype)  # sums of half precision would lose the small ones
    spread = jnp.zeros((height, width), total.dtype)
    for product, site in zip(products, sites, strict=True):
        if site.has_positions:
            layer = as_picture(product.astype(total.dtype), site)[0].sum(-1)
            spread += enlarge_sums(layer, (height, width))
    rest = total - image_map.sum() - spread.sum()
    spread += rest / (height * width)
    return image_map + spread[None, ..., None] / channels


def enlarge_sums(layer: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Bilinear resize (h, w) → (H, W) in which the share of every cell sums to its value."""
    rows, columns = (
        _shares(size, to).astype(layer.dtype) for size, to in zip(layer.shape, shape, strict=True)
    )
    return rows @ layer @ columns.T


def _shares(size: int, to: int) -> jax.Array:
    """(to, size): how a cell is shared between the pixels along one axis; columns sum to 1."""
    weights = jax.image.resize(jnp.eye(size), (to, size), "linear")
    return weights / weights.sum(0, keepdims=True)
