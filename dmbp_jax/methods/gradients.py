"""The gradient times the input, at the image and averaged over copies of it with noise.

Simonyan et al. 2014 (row "ND" of Table 1, "Grad" of Table 2), and SmoothGrad (Smilkov et al. 2017).
"""

import jax

from dmbp_jax.checks import check_count, check_number
from dmbp_jax.engine.mapping import each_image
from dmbp_jax.engine.precision import at_least_float32
from dmbp_jax.engine.sampling import sum_samples
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import logit, method
from dmbp_jax.methods.keys import image_keys


@method()
def gradient(call: Call, *, multiply_by_inputs: bool = True) -> jax.Array:
    """The gradient of the label's logit, times the input.

        map = ∂F_c/∂x ⊙ x

    Args:
      params, x, label, apply_fn, chunk_size: as in `dmbp_jax.attribute`.
      multiply_by_inputs: False gives the bare gradient.

    Returns:
      Signed map, shape and dtype of x. Zero where the network does not react at all.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`.

    Example:
      >>> import jax.numpy as jnp
      >>> from dmbp_jax.methods import gradient
      >>> def network(params, x):
      ...     return x.sum((1, 2)) @ params
      >>> gradient(jnp.eye(3), 2 * jnp.ones((4, 4, 3)), 0, apply_fn=network)[0, 0].tolist()
      [2.0, 0.0, 0.0]

    Source: Simonyan, Vedaldi, Zisserman, ICLR workshop 2014. They take the largest absolute
    value over channels; here the map keeps sign and channels. Needs no ReLU: any differentiable
    network will do.
    """

    def rule(network: TracedNetwork, image: jax.Array, label: jax.Array) -> jax.Array:
        g = jax.grad(logit, argnums=1)(network, image, label)
        return g * image if multiply_by_inputs else g

    return each_image(rule, call)


@method()
def smoothgrad(
    call: Call,
    *,
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
      chunk_size: evaluations (images times samples) at once; None is as many as fit.
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
    n = check_count(n_samples, "n_samples")
    share = check_number(noise_fraction, "noise_fraction", low=0)

    def sample(
        network: TracedNetwork, image: jax.Array, label: jax.Array, i: jax.Array, key: jax.Array
    ) -> jax.Array:
        sigma = share * (image.max() - image.min())
        noise = jax.random.normal(jax.random.fold_in(key, i), image.shape, image.dtype)
        g = at_least_float32(jax.grad(logit, argnums=1)(network, image + sigma * noise, label)) / n
        return g * at_least_float32(image) if multiply_by_inputs else g

    keys = image_keys(call.key, len(call.images))
    heat = sum_samples(sample, call, n, keys, title="smoothgrad" if progress else None)
    return heat.astype(call.images.dtype)
