"""RISE (Petsiuk et al., BMVC 2018): the mean probability of the label under random masks."""

import math
from typing import Any

import jax

from dmbp_jax.checks import check_count, check_number
from dmbp_jax.engine.precision import at_least_float32
from dmbp_jax.engine.sampling import sum_samples
from dmbp_jax.engine.scores import PROBABILITIES, find_activation
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import method
from dmbp_jax.methods.keys import shared_keys


@method()
def rise(
    call: Call,
    *,
    n_masks: int = 4000,
    cells: int = 7,
    keep: float = 0.5,
    activation: str | None = None,
    progress: bool = False,
) -> jax.Array:
    """The mean of random smooth masks, each weighted by the label's probability under it.

        map = 1 / (n p) Σᵢ P_c(x ⊙ mᵢ) mᵢ

    A mask is a 7 × 7 grid of independent zeros and ones, enlarged bilinearly to slightly more
    than the image and cut out at a random shift of up to one cell.

    Args:
      params, x, label, apply_fn: as in `dmbp_jax.attribute`.
      key: one random key, or one for each image, (N,); None is `jax.random.key(0)`. Mask i is
        made from `fold_in(key, i)`, of one key the same for every image: batch, position in it
        and `chunk_size` change nothing. With N keys, image n has the masks of `key[n]`. Keys of
        another kind than Threefry are made into Threefry keys (`dmbp_jax.engine.keys`).
      chunk_size: evaluations (images times masks) at once; None is as many as fit.
      n_masks: number n of masks. The paper takes 4000 for VGG16 and 8000 for ResNet50, and so
        does `dmbp evaluate`.
      cells: cells of the grid along each side.
      keep: p, the probability that a cell is kept, in (0, 1].
      activation: "softmax" or "sigmoid", what makes probabilities P out of logits; None is the
        network's own (`params.activation`), else softmax. A network trained with softmax needs
        softmax: the sigmoid of a large logit is near 1 under every mask, and the map is flat.
      progress: show a bar.

    Returns:
      (H, W) or (N, H, W), not negative, dtype of x. Not de-biased: it is P's mean over masks that
      keep the pixel, so that an image without evidence is flat, not zero.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`, and for the options above.

    Example:
      >>> import jax.numpy as jnp
      >>> from dmbp_jax.methods import rise
      >>> def network(params, x):
      ...     return 4 * x[:, :8, :8].mean((1, 2)) @ params  # reads the upper left corner
      >>> heat = rise(jnp.eye(3), jnp.ones((32, 32, 3)).at[..., 1:].set(0), 0,
      ...             apply_fn=network, n_masks=200)
      >>> bool(heat[4, 4] > heat[28, 28])
      True

    Source: Petsiuk, Das, Saenko, BMVC 2018, and the authors' code: masked pixels are zero in
    preprocessed space, and the s × s grid is enlarged to (s + 1)·⌈H/s⌉, as there. The borders
    of the enlarged grid are clamped (scikit-image mirrors them). Masks are never stored.
    """
    n = check_count(n_masks, "n_masks")
    cells, p = check_count(cells, "cells"), check_number(keep, "keep", low=0, high=1, above=True)
    chosen = find_activation(activation, call)

    def sample(
        network: TracedNetwork, image: jax.Array, label: jax.Array, i: jax.Array, key: jax.Array
    ) -> jax.Array:
        height, width, _ = image.shape
        mask = random_mask(jax.random.fold_in(key, i), height, width, cells, p, image.dtype)
        logits = at_least_float32(network.logits(image * mask[..., None]))
        return PROBABILITIES[chosen](logits)[label] * at_least_float32(mask) / (n * p)

    keys = shared_keys(call.key, len(call.images))
    heat = sum_samples(sample, call, n, keys, title="rise" if progress else None)
    return heat.astype(call.images.dtype)


def random_mask(
    key: jax.Array, height: int, width: int, cells: int, keep: float, dtype: Any
) -> jax.Array:
    """One mask (H, W) with values in [0, 1]."""
    grid_key, row_key, column_key = jax.random.split(key, 3)
    grid = jax.random.bernoulli(grid_key, keep, (cells, cells)).astype(dtype)
    cell = (math.ceil(height / cells), math.ceil(width / cells))
    enlarged = jax.image.resize(grid, ((cells + 1) * cell[0], (cells + 1) * cell[1]), "linear")
    shift = (
        jax.random.randint(row_key, (), 0, cell[0]),
        jax.random.randint(column_key, (), 0, cell[1]),
    )
    return jax.lax.dynamic_slice(enlarged, shift, (height, width))
