"""Crisp complete maps (ours): the biases' part of y± taken back layer by layer to the pixels.

Eq. 14 adds Σ_l ∇_{b_l}Fᵀb_l to what the pixels carry. A unit's part goes to its inputs in
proportion to what they gave it, and so on down to the pixels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dmbp_jax.dmbp.decomposition import gated_logits
from dmbp_jax.graph.graph import FrozenNetwork, Graph
from dmbp_jax.graph.operations import PRODUCTS
from dmbp_jax.graph.pieces import Piece
from dmbp_jax.graph.rules import Rules
from dmbp_jax.graph.steps import Step, after_pieces
from dmbp_jax.graph.windows import windows


def carry_biases(
    network: FrozenNetwork,
    x: jax.Array,
    image_map: jax.Array,
    products: Sequence[jax.Array],
    total: jax.Array,
) -> jax.Array:
    """The map with the biases' part added, so that it sums to `total`.

    With h the activations of the network at x (|x| at the pixels), a unit's part R_j, its own
    ∇b ⊙ b and what it got from above, goes to

        R_i = |h_i| Σ_j v_ij R_j / Σ_k |h_k| v_kj,    v = |w|.

    Where a stride reads some positions more often than others, or not at all, v is |w| averaged
    over the phases of the stride: a unit's part is known up to its stride.

    That is layer-wise relevance propagation (Bach et al. 2015) in proportion to absolute
    contributions, applied to the biases' part alone; what pixels carry stays ∇ₓF ⊙ x. The masks
    decide how much evidence a unit has, the network where it came from: with masked activations
    paths with few masks on them, strided shortcuts, would get most and draw their lattice.

    In the network of |W_l| an activation returns |h| a / a₀, with a the sum of contributions to it
    and a₀ the same number as a constant. Its gradient then is that rule: two forward passes for
    both signs, and a backward pass for each. Between activations (residual sums, scales, pools)
    contributions are summed along all paths. What no pixel reaches is shared equally by all.

    Args:
      x: (1, H, W, C).
      image_map: (1, H, W, C), ∇ₓF ⊙ x.
      products: ∇_{b_l}F ⊙ b_l of every bias, less what of it is F_0.
      total: scalar, y⁺ or y⁻, without the output bias, which is not carried either.
    """
    choices, masked = network.fixed.choices, network.graph.masked
    activations = gated_logits(network, [jnp.ones((), x.dtype)] * len(masked))[2]
    given_by = dict(zip((site.index for site in masked), activations, strict=True))

    def piece(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
        if index not in given_by:  # of a frozen factor it is the factor's magnitude
            return abs(piece.apply(choices[index], *z))
        # One input gave all of it, whatever the slope: a ReLU6 above 6 got its 6 from there.
        given = z[0] if len(z) == 1 else abs(piece.apply(choices[index], *z))
        share = jax.lax.stop_gradient(_ratio(abs(given_by[index]).astype(given.dtype), given))
        return share * given

    def reached(magnitude: jax.Array) -> list[jax.Array]:
        """Σ_k |h_k| |w_kj| at every bias."""
        values: list[jax.Array] = []

        def bias(index: int, value: jax.Array, constant: jax.Array) -> jax.Array:
            values.append(value)
            return value

        _of_magnitudes(network.graph).run(magnitude, Rules(piece, bias))
        return values

    magnitude = abs(x)
    values, pull_back = jax.vjp(reached, magnitude)
    ratios = [_ratio(part.astype(a.dtype), a) for part, a in zip(products, values, strict=True)]
    carried = (pull_back(ratios)[0] * magnitude).astype(image_map.dtype)
    rest = total - image_map.sum().astype(total.dtype) - carried.sum().astype(total.dtype)
    return (image_map + carried).astype(total.dtype) + rest / x.size


def _of_magnitudes(graph: Graph) -> Graph:
    """The linear part of the network with |w| for every weight w, and every difference a sum.

    With choices recorded on the whole network and x ≥ 0, each of its values is the sum of the
    absolute contributions of the pixels, averaged over the phases of strides. What a piece
    multiplies by is left to the rules.
    """
    linear, deep = graph.without_biases(), after_pieces(graph.program.steps)

    def rule(step: Step, operands: list[Any]) -> Sequence[Any]:
        values = [_magnitude(step, operand) for operand in operands]
        if step.name in ("sub", "neg", "scatter-sub"):
            values[-1] = -values[-1]
        values[0] = smooth_over_strides(step, values[0], deep.isdisjoint(step.operands))
        return linear.affine(step, values)

    return linear.with_affine(rule)


def _magnitude(step: Step, operand: Any) -> Any:
    """|w|. Integers are weights in a product; elsewhere they say where, and stay."""
    if not jnp.issubdtype(jnp.result_type(operand), jnp.floating):
        if step.name not in PRODUCTS:
            return operand
        operand = operand.astype(step.dtype)
    return abs(operand)


def _ratio(part: jax.Array, given: jax.Array) -> jax.Array:
    """Part / given; 0 where nothing was given.

    Below √tiny counts as nothing: a quotient of two numbers above it is finite, and so are
    products of it with what inputs gave.
    """
    is_reached = given > jnp.sqrt(jnp.finfo(given.dtype).tiny)
    return jnp.where(is_reached, part / jnp.where(is_reached, given, 1), 0)


def smooth_over_strides(step: Step, x: jax.Array, reads_pixels: bool) -> jax.Array:
    """The first operand of a strided step, averaged so that every position is read equally.

    A 1 x 1 kernel of stride 2 reads one position in four, a 3 x 3 kernel some of them four times
    and others once. A map taken back through such layers draws that lattice, not the picture.

    Along an axis of stride s, x becomes Σ_d (s − |d|) / s² x[· + d], |d| < s: the mean over the s
    phases that the stride may have, taken to both sides. Where it reads evenly x stays as it is.
    A kernel narrower than its stride that reads pixels, before the first piece, also leaves x
    alone: a pixel that is never read has no part.
    """
    found = windows(step)
    if any(window.spread > 1 for window in found.values()):
        return x
    for axis, (taps, stride, _, dilation, _) in found.items():
        phases = [
            sum(tap * dilation % stride == phase for tap in range(taps)) for phase in range(stride)
        ]
        covers = not reads_pixels or (taps - 1) * dilation + 1 >= stride
        if len(set(phases)) > 1 and covers:
            x = _average(x, axis, stride)
    return x


def _average(x: jax.Array, axis: int, stride: int) -> jax.Array:
    """Σ_d (s − |d|) / s² x[· + d] along an axis, zeros outside."""
    reach, size = stride - 1, x.shape[axis]
    padded = jnp.pad(x, [(reach, reach) if a == axis else (0, 0) for a in range(x.ndim)])
    parts = [
        (stride - abs(shift))
        / stride**2
        * jax.lax.slice_in_dim(padded, reach + shift, reach + shift + size, axis=axis)
        for shift in range(-reach, reach + 1)
    ]
    return sum(parts[1:], start=parts[0])
