"""Crisp complete maps (ours): half of y± goes to the pixels whose own gradient pulls that way.

A map with its biases spread knows where evidence of each sign lies, as coarsely as its layers.
Gradients at noisy copies of the image (SmoothGrad) know which pixels there the logit depends on.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dmbp_jax.engine.baselines import filter_separably, gaussian_taps, kernel_radius
from dmbp_jax.engine.keys import THREEFRY

_PAIRS = 3  # of copies, with a noise added and subtracted: 12 passes
_NOISE = 0.1  # its standard deviation, of the range of the image
_CELLS = 28  # how many widths of the blur a side has


def refine(
    logit: Callable[[jax.Array], jax.Array], image: jax.Array, coarse: jax.Array, totals: jax.Array
) -> jax.Array:
    """Both maps with half of their sums given to pixels by their gradient.

    With C± the maps of a network's layers, C their sum blurred by 1/28 of a side, and

        g = x ⊙ 1/6 Σₖ ∇F(x + εₖ) + ∇F(x − εₖ),    εₖ ~ N(0, (max x − min x)² / 100),

    all summed over colours, and d± = max(±g, 0) max(±C, 0), the maps are

        positive = ½ C⁺ + ½ y⁺ d⁺ / Σd⁺,    negative = ½ C⁻ + ½ y⁻ d⁻ / Σd⁻.

    Their sums stay y±. A pixel's share is divided equally between its colours. Where d± is 0
    everywhere, C± stays. The noise is the same for every image.

    Args:
      logit: the label's logit of an image (H, W, C), differentiable.
      image: (H, W, C).
      coarse: (2, H, W, C), C⁺ and C⁻, floating point of at least 32 bits.
      totals: (2,), y⁺ and y⁻.
    """
    height, width, channels = image.shape
    pull = (_smooth_gradient(logit, image, coarse.dtype) * image.astype(coarse.dtype)).sum(-1)
    net = coarse.sum((0, -1))[..., None]
    rows, columns = (_blur_taps(size) for size in (height, width))
    place = filter_separably(net, rows, columns)[..., 0]
    signs = jnp.array([1, -1], coarse.dtype)[:, None, None]
    shares = jnp.maximum(signs * pull[None], 0) * jnp.maximum(signs * place[None], 0)
    # Of numbers that are neither tiny nor huge: a product of the two may be.
    largest = shares.max((1, 2), keepdims=True)
    shares = shares / jnp.where(largest > 0, largest, 1)
    whole = jnp.maximum(shares.sum((1, 2), keepdims=True), 1)
    fine = (totals[:, None, None] * shares / whole)[..., None] / channels
    return jnp.where(largest[..., None] > 0, (coarse + fine) / 2, coarse)


def _smooth_gradient(
    logit: Callable[[jax.Array], jax.Array], image: jax.Array, dtype: Any
) -> jax.Array:
    """The mean of the gradients at noisy copies, one copy after the other."""
    key = jax.random.key(0, impl=THREEFRY)
    noise = jax.random.normal(key, (_PAIRS, *image.shape), jnp.float32)
    sigma = _NOISE * (image.max() - image.min()).astype(dtype)
    copies = jnp.concatenate([noise, -noise]).astype(dtype) * sigma
    gradient = jax.grad(logit)

    def add(total: jax.Array, copy: jax.Array) -> tuple[jax.Array, None]:
        noisy = (image.astype(dtype) + copy).astype(image.dtype)
        return total + gradient(noisy).astype(dtype) / len(copies), None

    return jax.lax.scan(add, jnp.zeros(image.shape, dtype), copies)[0]


def _blur_taps(size: int) -> jax.Array:
    sigma = size / _CELLS
    return jnp.asarray(gaussian_taps(sigma, kernel_radius(sigma)))
