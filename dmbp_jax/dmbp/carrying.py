"""Crisp complete maps (ours): the biases' part of y± carried back through the gates to the pixels.

Eq. 14 adds Σ_l ∇_{b_l}Fᵀb_l to what the pixels carry. A bias's part goes to the pixels that reach
its unit, in proportion to the absolute contributions by which they do.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dmbp_jax.dmbp.decomposition import Frozen, output_products
from dmbp_jax.graph.graph import Graph, Rules
from dmbp_jax.graph.pieces import Choice, LinearPart, Piece


def carry_biases(
    graph: Graph,
    frozen: Frozen,
    x: jax.Array,
    masks: Sequence[jax.Array],
    label: jax.Array,
    image_map: jax.Array,
    products: Sequence[jax.Array],
    total: jax.Array,
) -> jax.Array:
    """The map with the biases' part added, so that it sums to `total`.

    With a_l the values of the network of |W_l|, gates and masks at |x|, a unit's part
    R = ∇b ⊙ b becomes R / a_l ⊙ (contribution of each pixel to a_l): one forward and one backward
    pass for all biases together. A unit that is constant at x (a ReLU6 above 6) is reached through
    its input. What no pixel reaches is shared equally by all.

    Args:
      x: (1, H, W, C).
      masks: of the sign.
      image_map: (1, H, W, C), ∇ₓF ⊙ x.
      products: ∇_{b_l}F ⊙ b_l of every bias, in order of evaluation.
      total: scalar, y⁺ or y⁻, without the output bias, which is not carried either.
    """
    absolute = graph.with_magnitudes()
    outside = output_products(graph, frozen, x, label)

    # The linear parts of pieces: |slope| ⊙ z. Of a frozen factor it is the factor's magnitude.
    def masked(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
        value = abs(piece.apply(frozen.gates[index], *z))
        if isinstance(piece, LinearPart):
            value = _reach_constants(piece, frozen.gates[index], value, *z)
        return value * masks[index].astype(z[0].dtype)

    def unmasked(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
        return abs(piece.apply(frozen.winners[index], *z))

    def reached(magnitude: jax.Array) -> list[jax.Array]:
        """a_l at every bias."""
        values: list[jax.Array] = []

        def bias(index: int, value: jax.Array, constant: jax.Array) -> jax.Array:
            values.append(value)
            return value

        absolute.run(magnitude, Rules(masked, unmasked, bias))
        return values

    magnitude = abs(x)
    values, pull_back = jax.vjp(reached, magnitude)
    ratios = [
        _ratio((part - out).astype(a.dtype), a)
        for part, out, a in zip(products, outside, values, strict=True)
    ]
    carried = (pull_back(ratios)[0] * magnitude).astype(image_map.dtype)
    rest = total - image_map.sum() - carried.sum()
    return image_map + carried + rest / x.size


def _reach_constants(
    piece: LinearPart, choice: Choice, value: jax.Array, *z: jax.Array
) -> jax.Array:
    """|slope| ⊙ z, or z where a unit is constant at x and not 0, as a ReLU6 above 6.

    Its intercept belongs to the pixels that reach the unit, though none moves it.
    """
    slope = piece.apply(choice, *map(jnp.ones_like, z))
    is_constant = (slope == 0) & (piece.intercept(choice, *z) != 0)
    return jnp.where(is_constant, sum(z), value)


def _ratio(part: jax.Array, magnitude: jax.Array) -> jax.Array:
    is_reached = magnitude > jnp.finfo(magnitude.dtype).tiny
    return jnp.where(is_reached, part / jnp.where(is_reached, magnitude, 1), 0)
