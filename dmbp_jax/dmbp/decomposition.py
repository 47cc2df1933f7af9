"""The decomposition y = y⁺ + y⁻ + ỹ (paper Eq. 8–14) of one network at one image for given masks.

`gated_logits` is the forward form (fast), `attribution_by_backward` the paper's backward form
with the masked ReLU; both give the same numbers.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dmbp_jax.dmbp.masked_relu import mask_cotangent
from dmbp_jax.engine.precision import at_least_float32
from dmbp_jax.graph.graph import FrozenNetwork
from dmbp_jax.graph.pieces import Choice, Piece
from dmbp_jax.graph.pieces.relu import Relu

Masks = tuple[jax.Array, ...]


def mask_dtype(x: jax.Array) -> Any:
    """Masks are float32, or float64 for float64 images."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(jnp.float32, x.dtype)


def gated_logits(
    network: FrozenNetwork, divisors: Sequence[jax.Array]
) -> tuple[jax.Array, Masks, Masks]:
    """F_σ(x), and H_l ⊙ z_l and u_l = σ_l ⊙ H_l ⊙ z_l at its activations (the forward form, Eq. 8).

    Args:
      divisors: 1 / σ_l, in [1, ∞]. A product with σ_l would be the same number, but XLA repeats a
        product in everything that reads it (on CPU, down a whole residual stage), and keeps the
        result of a division.

    Returns:
      `(logits (classes,), (H_0 ⊙ z_0, ...), (u_0, ...))`.
    """
    gated: list[jax.Array] = []
    activations: list[jax.Array] = []

    def activation(number: int, piece: Piece, gate: Choice, *z: jax.Array) -> jax.Array:
        gated.append(piece.apply(gate, *z))
        activations.append(gated[number] / divisors[number].astype(gated[number].dtype))
        return activations[number]

    return network.logits(activation), tuple(gated), tuple(activations)


def masked_cotangents(
    network: FrozenNetwork, divisors: Sequence[jax.Array], label: jax.Array
) -> tuple[Masks, tuple[jax.Array | None, ...]]:
    """The cotangents c_l of F_σ's logit after every activation: one masked backward pass.

    ∂F_σ/∂σ_l = H_l ⊙ z_l ⊙ c_l, so no double back-propagation is needed. They are read off zeros
    added there.

    Args:
      divisors: 1 / σ_l, as in `gated_logits`.

    Returns:
      `((c_0, ...), (d_0, ...))`, where d_l = σ_l ⊙ H_l ⊙ c_l is what a ReLU passes on to z_l; None
      for any other activation.
    """
    divided = _divided_first(divisors)
    relus: set[int] = set()

    def logit(after: Masks, before: Masks) -> jax.Array:
        def activation(number: int, piece: Piece, gate: Choice, *z: jax.Array) -> jax.Array:
            if isinstance(piece, Relu):
                relus.add(number)
                z = (z[0] + before[number],)
            return divided(number, piece, gate, *z) + after[number]

        return network.logits(activation)[label]

    zeros = tuple(jnp.zeros(site.shape, site.dtype) for site in network.graph.masked)
    value, pull_back = jax.vjp(logit, zeros, zeros)
    after, before = pull_back(jnp.ones_like(value))
    return after, tuple(d if number in relus else None for number, d in enumerate(before))


def _divided_first(divisors: Sequence[jax.Array]) -> Callable[..., jax.Array]:
    """The rule σ ⊙ H ⊙ z, divided before it is gated.

    The way back then gates first, and what it returns is a division, which XLA keeps.
    """

    def rule(number: int, piece: Piece, gate: Choice, *z: jax.Array) -> jax.Array:
        divisor = divisors[number].astype(z[0].dtype)
        if piece.has_intercept:
            return piece.apply(gate, *z) / divisor
        return piece.apply(gate, *(one / divisor for one in z))

    return rule


def masked_map(
    network: FrozenNetwork, x: jax.Array, divisors: Sequence[jax.Array], label: jax.Array
) -> jax.Array:
    """The map ∇ₓF ⊙ x (1, H, W, C) of one sign's masks, by the masked backward pass (Eq. 7)."""
    rules = network.rules(_divided_first(divisors))

    def logit(x: jax.Array) -> jax.Array:
        return network.graph.run(x, rules)[0, label]

    value, pull_back = jax.vjp(logit, x)
    return pull_back(jnp.ones_like(value))[0] * x


def bias_products(
    network: FrozenNetwork, x: jax.Array, masks: Sequence[jax.Array], label: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """As `FrozenNetwork.bias_products`, for one sign's masks on the cotangents."""
    return network.bias_products(
        x, label, after=lambda number, value: mask_cotangent(value, masks[number])
    )


def attribution_by_backward(
    network: FrozenNetwork, x: jax.Array, masks: Sequence[jax.Array], label: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """y± and its map (1, H, W, C) by the paper's backward form (Eq. 11, 14), for one sign's masks.

    y± = ∇ₓFᵀx + Σ_l ∇_{b_l}Fᵀb_l (the output bias left out), map = ∇ₓF ⊙ x.
    """
    found = bias_products(network, x, masks, label)
    return signed_value(network, found, label), found[0]


def signed_value(
    network: FrozenNetwork, found: tuple[jax.Array, Sequence[jax.Array]], label: jax.Array
) -> jax.Array:
    """y± of what `bias_products` found (Eq. 14), in the precision of the masks."""
    image_map, products = found
    parts = [at_least_float32(part).sum() for part in (image_map, *products)]
    return sum(parts[1:], start=parts[0]) - at_least_float32(network.fixed.output_bias[label])
