"""Crisp complete maps (ours): half of y± goes to the pixels whose own gradient pulls that way.

A map with its biases spread knows where evidence of each sign lies, as coarsely as its layers. The
gradient through softened gates knows which pixels there the logit depends on.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dmbp_jax.engine.baselines import filter_separably, gaussian_taps, kernel_radius
from dmbp_jax.graph.graph import Graph
from dmbp_jax.graph.pieces import Piece, Pointwise, Relu
from dmbp_jax.graph.rules import Rules

_CELLS = 28  # how many widths of the blur a side has
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(8)  # of an average over N(0, 1)
_WEIGHTS /= _WEIGHTS.sum()


def refine(
    graph: Graph, image: jax.Array, label: jax.Array, coarse: jax.Array, totals: jax.Array
) -> jax.Array:
    """Both maps with half of their sums given to pixels by their gradient.

    With C± the maps of a network's layers, C their sum blurred by 1/28 of a side, and g = x ⊙ ∇F
    where every activation has the softened derivative of `soften`, all summed over colours, and
    d± = max(±g, 0) max(±C, 0), the maps are

        positive = ½ C⁺ + ½ y⁺ d⁺ / Σd⁺,    negative = ½ C⁻ + ½ y⁻ d⁻ / Σd⁻.

    Their sums stay y±. A pixel's share is divided equally between its colours. Where d± is 0
    everywhere, C± stays.

    Args:
      graph: the network.
      image: (H, W, C).
      label: whose logit is explained.
      coarse: (2, H, W, C), C⁺ and C⁻, floating point of at least 32 bits.
      totals: (2,), y⁺ and y⁻.
    """
    height, width, channels = image.shape
    gradient = jax.grad(lambda image: graph.run(image[None], Rules(piece=soften))[0, label])(image)
    pull = (gradient.astype(coarse.dtype) * image.astype(coarse.dtype)).sum(-1)
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


def soften(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
    """The value f(z) of an activation, with the derivative that it has on average beside z.

        E f′(z + sε) = E ε f(z + sε) / s,    ε ~ N(0, 1),    s² = the mean of z² over the layer,

    by eight nodes of Gauss and Hermite: of a ReLU, its gate becomes about Φ(z / s). The gradient of
    a deep network is that of noise, as gates beside each other open and shut; SmoothGrad averages
    many copies of the image against that, this average takes one pass (Dombrowski et al., NeurIPS
    2019, soften ReLUs to softplus, with their values). Where f is not finite beside z, f′(z) stays.
    """
    if not isinstance(piece, Relu | Pointwise):
        return piece(*z)
    (at,) = jax.lax.stop_gradient(z)
    value, own = jax.jvp(piece, (at,), (jnp.ones_like(at),))
    largest = abs(at).max()  # its square may not be finite
    scale = largest * jnp.sqrt(((at / jnp.where(largest > 0, largest, 1)) ** 2).mean())
    beside = [piece(at + float(node) * scale) for node in _NODES]
    weights = (_NODES * _WEIGHTS).tolist()
    total = sum(weight * f for weight, f in zip(weights, beside, strict=True))
    average = total / jnp.where(scale > 0, scale, 1)
    slope = jnp.where(jnp.isfinite(average) & (scale > 0), average, own)
    return value + slope * (z[0] - at)


def _blur_taps(size: int) -> jax.Array:
    sigma = size / _CELLS
    return jnp.asarray(gaussian_taps(sigma, kernel_radius(sigma)))
