"""SmoothGrad (Smilkov et al. 2017): the mean gradient over copies of the image with noise."""

from typing import Any

import jax
from jax.typing import ArrayLike

from dmbp_jax.checks import check_count, check_number
from dmbp_jax.engine.meshes import on_any_mesh
from dmbp_jax.engine.sampling import sum_samples
from dmbp_jax.graph.model import ApplyFn
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import check_method_call, logit
from dmbp_jax.methods.keys import image_keys


@on_any_mesh("x")
def smoothgrad(
    params: Any,
    x: ArrayLike,
    label: ArrayLike | None = None,
    *,
    apply_fn: ApplyFn | None = None,
    key: Any = None,
    chunk_size: int | None = None,
    n_samples: int = 50,
    noise_fraction: float = 0.15,
    multiply_by_inputs: bool = True,
    progress: bool = False,
) -> jax.Array:
    """The mean of signed gradients at copies of the image with Gaussian noise, times the input.

        map = x ⊙ (1/n) Σᵢ ∂F_c/∂x (x + σ εᵢ),   εᵢ ~ N(0, 1),   σ = 0.15 · (max x − min x)

    Args:
      params, x, label, apply_fn: as in `dmbp_jax.attribute`.
      key: one random key, or one for each image, (N,); None is `jax.random.key(0)`. With one
        key, sample i of image n uses `fold_in(fold_in(key, n), i)`: neither its batch mates nor
        `chunk_size` change it, its position n in the batch does (a single image is n = 0). With
        N keys it uses `fold_in(fold_in(key[n], 0), i)`, and the position does not matter:
        image n gets the map that it gets alone with `key[n]`. `methods.keys.image_key` makes
        such keys. Keys of another kind than Threefry are made into Threefry keys
        (`dmbp_jax.engine.keys`).
      chunk_size: evaluations (images times samples) at once; None is 64.
      n_samples: number n of copies, at least 1.
      noise_fraction: σ as a fraction of the image's own range, max − min over its pixels and
        channels; 0 gives the plain gradient, and so does a constant image.
      multiply_by_inputs: False gives the mean gradient.
      progress: show a bar.

    Returns:
      Signed map, shape and dtype of x.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`, and for the options above.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dmbp_jax.methods import smoothgrad
      >>> def network(params, x):
      ...     return (x**2).sum((1, 2)) @ params
      >>> heat = smoothgrad(jnp.eye(3), jnp.ones((4, 4, 3)), 0, apply_fn=network)
      >>> [round(v, 5) for v in heat[0, 0].tolist()]
      [2.0, 0.0, 0.0]

    Source: Smilkov et al., arXiv 1706.03825; n = 50 and 15 % noise are theirs. PAIR's library
    averages **squared** gradients by default, Captum's default noise is absolute (1.0) and takes
    5 samples; here the signed mean, and noise relative to the image.
    """
    call = check_method_call(params, x, label, apply_fn, chunk_size)
    total = sum_samples(
        _smoothgrad,
        call,
        check_count(n_samples, "n_samples"),
        image_keys(key, len(call.images)),
        progress=progress,
        n_samples=n_samples,
        noise_fraction=check_number(noise_fraction, "noise_fraction", low=0),
        multiply_by_inputs=multiply_by_inputs,
    )
    return call.unbatch(total)


def _smoothgrad(
    network: TracedNetwork,
    image: jax.Array,
    label: jax.Array,
    i: jax.Array,
    key: jax.Array,
    *,
    n_samples: int,
    noise_fraction: float,
    multiply_by_inputs: bool,
) -> jax.Array:
    sigma = noise_fraction * (image.max() - image.min())
    noise = jax.random.normal(jax.random.fold_in(key, i), image.shape, image.dtype)
    g = jax.grad(logit, argnums=1)(network, image + sigma * noise, label) / n_samples
    return g * image if multiply_by_inputs else g
