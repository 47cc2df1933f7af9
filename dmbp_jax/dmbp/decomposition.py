"""The decomposition y = y⁺ + y⁻ + ỹ (paper Eq. 8–14) of one network at one image for given masks.

`gated_logits` is the forward form (fast), `attribution_by_backward` the paper's backward form
with the masked ReLU; both give the same numbers.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dmbp_jax.dmbp.masked_relu import mask_cotangent
from dmbp_jax.graph.graph import Graph, Rules, applying, choosing
from dmbp_jax.graph.pieces import Choice, Piece
from dmbp_jax.graph.pieces.relu import Relu

Masks = tuple[jax.Array, ...]


def mask_dtype(x: jax.Array) -> Any:
    """Masks are float32, or float64 for float64 images."""
    return jnp.promote_types(jnp.float32, jnp.result_type(x))


class Frozen(NamedTuple):
    """What one ordinary forward pass fixes: it does not change while the masks are learned."""

    gates: tuple[Choice, ...]  # per activation; of a ReLU H_l = 1[z_l > 0], bool
    winners: tuple[Choice, ...]  # per max-pool
    before_pieces: tuple[jax.Array, ...]  # the first layer's pre-activation
    logits: jax.Array  # F(x), (classes,)
    output_bias: jax.Array  # F_0, (classes,)


def freeze(graph: Graph, x: jax.Array) -> Frozen:
    """Gates, pooling winners, F(x) and F_0 of one image `x` (1, H, W, C).

    F_0 is the constant of the closed network: all masks 0, winners frozen, at x = 0. At x itself a
    path that bypasses every activation would count as a constant; Eq. 11 counts it in y⁺ and y⁻.
    """
    gates: list[Choice] = []
    winners: list[Choice] = []

    before = graph.before_pieces(x)
    logits = graph.run_from(before, Rules(choosing(gates), choosing(winners)))[0]
    closed = graph.run_closed(jnp.zeros_like(x), Rules(unmasked=applying(winners)))[0]
    return Frozen(tuple(gates), tuple(winners), before, logits, closed)


def keep_input_evidence(graph: Graph, frozen: Frozen, x: jax.Array) -> tuple[Graph, Frozen]:
    """The linear part of the frozen network: y± is then ∇ₓF±ᵀx, what the pixels carry (Eq. 11).

    With gates and winners fixed at x, F_σ(x) − F_σ(0) is a gated pass with every additive constant
    left out. The cotangents are those of F_σ itself, so a step still takes three passes.
    """
    linear = graph.without_biases()
    before = linear.before_pieces(x)
    logits = linear.run_from(before, Rules(applying(frozen.gates), applying(frozen.winners)))[0]
    return linear, frozen._replace(
        before_pieces=before, logits=logits, output_bias=jnp.zeros_like(frozen.output_bias)
    )


def gated_logits(
    graph: Graph, frozen: Frozen, divisors: Sequence[jax.Array]
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

    def masked(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
        gated.append(piece.apply(frozen.gates[index], *z))
        activations.append(gated[index] / divisors[index].astype(gated[index].dtype))
        return activations[index]

    rules = Rules(masked, applying(frozen.winners))
    logits = graph.run_from(frozen.before_pieces, rules)[0]
    return logits, tuple(gated), tuple(activations)


def masked_cotangents(
    graph: Graph, frozen: Frozen, divisors: Sequence[jax.Array], label: jax.Array
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
    divided = _divided_first(frozen, divisors)
    relus: set[int] = set()

    def logit(after: Masks, before: Masks) -> jax.Array:
        def masked(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
            if isinstance(piece, Relu):
                relus.add(index)
                z = (z[0] + before[index],)
            return divided(index, piece, *z) + after[index]

        rules = Rules(masked, applying(frozen.winners))
        return graph.run_from(frozen.before_pieces, rules)[0, label]

    zeros = tuple(jnp.zeros(site.shape, site.dtype) for site in graph.masked)
    value, pull_back = jax.vjp(logit, zeros, zeros)
    after, before = pull_back(jnp.ones_like(value))
    return after, tuple(d if index in relus else None for index, d in enumerate(before))


def _divided_first(frozen: Frozen, divisors: Sequence[jax.Array]) -> Callable[..., jax.Array]:
    """The rule σ ⊙ H ⊙ z, divided before it is gated.

    The way back then gates first, and what it returns is a division, which XLA keeps.
    """

    def rule(index: int, piece: Piece, *z: jax.Array) -> jax.Array:
        gate, divisor = frozen.gates[index], divisors[index].astype(z[0].dtype)
        if piece.has_intercept:
            return piece.apply(gate, *z) / divisor
        return piece.apply(gate, *(one / divisor for one in z))

    return rule


def masked_map(
    graph: Graph, frozen: Frozen, x: jax.Array, divisors: Sequence[jax.Array], label: jax.Array
) -> jax.Array:
    """The map ∇ₓF ⊙ x (1, H, W, C) of one sign's masks, by the masked backward pass (Eq. 7).

    Args:
      x: (1, H, W, C).
      divisors: 1 / σ_l, as in `gated_logits`.
    """
    rules = Rules(_divided_first(frozen, divisors), applying(frozen.winners))

    def logit(x: jax.Array) -> jax.Array:
        return graph.run(x, rules)[0, label]

    value, pull_back = jax.vjp(logit, x)
    return pull_back(jnp.ones_like(value))[0] * x


def bias_products(
    graph: Graph, frozen: Frozen, x: jax.Array, masks: Sequence[jax.Array], label: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """The map ∇ₓF ⊙ x and every ∇_{b_l}F ⊙ b_l of Eq. 14, for one sign's masks.

    Args:
      x: (1, H, W, C).

    Returns:
      `(map (1, H, W, C), one array per bias, in the shape of the value it is added to)`.
    """
    biases: list[jax.Array] = []

    def logit(x: jax.Array, probes: Sequence[jax.Array]) -> jax.Array:
        def bias(index: int, value: jax.Array, constant: jax.Array) -> jax.Array:
            biases.append(constant)
            return value + probes[index]

        return graph.run(x, _masked_rules(frozen, masks, bias))[0, label]

    probes = [jnp.zeros(site.shape, site.dtype) for site in graph.biases]
    _, pull_back = jax.vjp(logit, x, probes)
    gradient, bias_gradients = pull_back(jnp.ones((), frozen.logits.dtype))
    return gradient * x, multiply(bias_gradients, biases)


def output_products(
    graph: Graph, frozen: Frozen, x: jax.Array, label: jax.Array
) -> list[jax.Array]:
    """The part of `bias_products` that is F_0: of biases that reach the logit past all activations.

    Returns:
      One array per bias, in the shape of the value it is added to; their sum is F_0 of the label.
    """
    zeros = [jnp.zeros(site.shape, site.dtype) for site in graph.biases]
    biases = list(zeros)

    def logit(probes: Sequence[jax.Array]) -> jax.Array:
        def bias(index: int, value: jax.Array, constant: jax.Array) -> jax.Array:
            biases[index] = constant
            return value + probes[index]

        rules = Rules(unmasked=applying(frozen.winners), bias=bias)
        return graph.run_closed(jnp.zeros_like(x), rules)[0, label]

    _, pull_back = jax.vjp(logit, zeros)
    (gradients,) = pull_back(jnp.ones((), frozen.logits.dtype))
    return multiply(gradients, biases)


def multiply(gradients: Sequence[jax.Array], biases: Sequence[jax.Array]) -> list[jax.Array]:
    """∇b ⊙ b, 0 where no gradient arrives: −∞ that a pool or a softmax never chose adds nothing."""
    pairs = zip(gradients, biases, strict=True)
    return [jnp.where(g == 0, 0, g * b) for g, b in pairs]


def attribution_by_backward(
    graph: Graph, frozen: Frozen, x: jax.Array, masks: Sequence[jax.Array], label: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """y± and its map by the paper's backward form (Eq. 11, 14), for one sign's masks.

    y± = ∇ₓFᵀx + Σ_l ∇_{b_l}Fᵀb_l (the output bias left out), map = ∇ₓF ⊙ x.

    Args:
      x: (1, H, W, C).

    Returns:
      `(y_signed scalar, map (1, H, W, C))`.
    """
    image_map, products = bias_products(graph, frozen, x, masks, label)
    from_biases = sum(product.sum() for product in products)
    return image_map.sum() + from_biases - frozen.output_bias[label], image_map


def _masked_rules(frozen: Frozen, masks: Sequence[jax.Array], bias: Any = None) -> Rules:
    """The network frozen at x, its cotangents masked on the way back."""
    return Rules(
        applying(frozen.gates),
        applying(frozen.winners),
        bias,
        after=lambda index, value: mask_cotangent(value, masks[index]),
    )
