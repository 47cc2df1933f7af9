"""FullGrad (Srinivas & Fleuret, NeurIPS 2019): input gradients and every layer's bias gradients."""

import jax
import jax.numpy as jnp

from dmbp_jax.engine.mapping import each_image
from dmbp_jax.engine.precision import at_least_float32
from dmbp_jax.graph.call import Call
from dmbp_jax.graph.positions import as_picture, check_positions
from dmbp_jax.graph.tracing import TracedNetwork
from dmbp_jax.methods.calling import method

EPSILON = 1e-6  # the authors', added to the range of a map before dividing by it


@method("nonaffine", "pointwise", "segments")
def fullgrad(
    call: Call, *, return_residual: bool = False
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Input × gradient and bias × gradient of every layer, each scaled to [0, 1], added up.

        map = Σ_channels ψ(∇ₓF_c ⊙ x) + Σ_layers Σ_channels upsample(ψ(∇_b F_c ⊙ b))
        F_c(x) = ∇ₓF_cᵀ x + Σ_layers ∇_b F_cᵀ b

    ψ takes absolute values and scales to [0, 1] over all positions and channels of one layer of
    one image: (a − min a) / (max a − min a + 1e-6).

    Args:
      params, x, label, apply_fn, chunk_size: as in `dmbp_jax.attribute`.
      return_residual: also return Σ of all terms − F_c(x), rounding only: () or (N,).
      nonaffine: as in `dmbp_jax.attribute`; the gradients do not flow into frozen factors, so
        that the sum stays complete.
      pointwise, segments: slope of the smooth activations, as in `DMBP`.

    Returns:
      (H, W) or (N, H, W), not negative, dtype of x; with `return_residual` the pair
      (map, residual). Zero for the terms that are constant.

    Raises:
      InputError, InputTypeError: as `dmbp_jax.attribute`.
      NoReluError, NonAffineError, ControlFlowError: the network is not supported.
      UnknownAxesError: it is not known where a layer's rows and columns are.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dmbp_jax.methods import fullgrad
      >>> def network(params, x):
      ...     return jax.nn.relu(x + 1.0).sum((1, 2)) @ params
      >>> spot = jnp.zeros((4, 4, 3)).at[1, 2, 0].set(2.0)
      >>> heat, residual = fullgrad(jnp.eye(3), spot, 0, apply_fn=network, return_residual=True)
      >>> round(float(heat[1, 2]), 3), float(abs(residual)) < 1e-4
      (2.0, True)

    Source: Srinivas, Fleuret, NeurIPS 2019, and the authors' code (scaling per layer over all
    channels, bilinear with corners aligned). A layer here is wherever the program adds a
    constant: a convolution's or BatchNorm's bias (for BatchNorm −m·w/√(v+ε) + b, together with
    the bias of a convolution right before it), folded or not. Dense layers have no positions:
    they count in the sum, not in the map, as with the authors; so does the output bias.
    """
    for site in call.network.program().biases:
        check_positions(site)
    heat, residual = each_image(_fullgrad, call)
    return (heat, residual) if return_residual else heat


def _fullgrad(
    network: TracedNetwork, image: jax.Array, label: jax.Array
) -> tuple[jax.Array, jax.Array]:
    frozen = network.graph().freeze(image[None])
    products = frozen.bias_products(image[None], label)
    image_map, terms = jax.tree.map(at_least_float32, products)
    value = at_least_float32(frozen.fixed.logits[label])
    residual = image_map.sum() + sum(term.sum() for term in terms) - value
    layers = [image_map]
    layers += [
        as_picture(term, site)
        for term, site in zip(terms, frozen.graph.biases, strict=True)
        if site.has_positions
    ]
    maps = [enlarge(scale_to_unit(layer).sum(-1)[0], image.shape[:2]) for layer in layers]
    return jnp.sum(jnp.stack(maps), 0).astype(image.dtype), residual


def scale_to_unit(layer: jax.Array) -> jax.Array:
    """ψ: absolute values, scaled to [0, 1]; a constant layer gives zeros."""
    size = abs(layer)
    size = size - size.min()
    return size / (size.max() + EPSILON)


def enlarge(heat: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Bilinear resize (h, w) → (H, W) with the corners aligned, as the authors' `interpolate`."""

    def shares(size: int, to: int) -> jax.Array:
        """(to, size): what a pixel takes of each cell, by its distance."""
        places = jnp.linspace(0, size - 1, to, dtype=heat.dtype)
        distance = abs(jnp.subtract.outer(places, jnp.arange(size, dtype=heat.dtype)))
        return jnp.maximum(0, 1 - distance)

    rows, columns = map(shares, heat.shape, shape)
    return jnp.einsum("Hh,hw,Ww->HW", rows, heat, columns, precision="highest")
