"""The optimisation of the masks (paper Sec. 3.2, Appendix B) of a batch: three passes a step.

Both signs' gated forwards share one batch; then one masked backward for the sign that has a
gradient. Gates, winners and the first pre-activation are frozen outside the loop.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.dmbp.decomposition import Masks, gated_logits, masked_cotangents
from dmbp_jax.engine.precision import at_least_float32
from dmbp_jax.graph.graph import Fixed, FrozenNetwork, Graph


class State(NamedTuple):
    """What a step changes, of one image, or of N with a leading N everywhere."""

    theta: Masks  # σ = sigmoid(θ)
    optimizer: Any  # its memory


def start(graph: Graph, config: DMBP, dtype: Any) -> State:
    """Every θ at its initial value."""
    theta = tuple(jnp.full(site.shape, config.init, dtype) for site in graph.masked)
    return State(theta, config.transformation().init(theta))


def advance(
    graph: Graph, fixed: Fixed, state: State, labels: jax.Array, config: DMBP, steps: int
) -> tuple[State, jax.Array]:
    """Take `steps` optimiser steps with N images.

    Returns:
      `(state, history (N, steps, 3))`: y⁺, y⁻ and ỹ of the masks before each step.
    """

    def step(fixed: Fixed, state: State, label: jax.Array) -> tuple[State, jax.Array]:
        network = FrozenNetwork(graph, fixed)
        terms, gradient = terms_and_gradient(network, state.theta, label, config)
        updates, optimizer = config.transformation().update(gradient, state.optimizer, state.theta)
        return State(optax.apply_updates(state.theta, updates), optimizer), terms

    # Not a vmapped loop: JAX would trace the step again to find what is batched in it.
    def every_image(state: State, _: None) -> tuple[State, jax.Array]:
        return jax.vmap(step)(fixed, state, labels)

    state, history = jax.lax.scan(every_image, state, None, length=steps)
    return state, history.swapaxes(0, 1)


def terms_and_gradient(
    network: FrozenNetwork, theta: Masks, label: jax.Array, config: DMBP
) -> tuple[jax.Array, Masks]:
    """(y⁺, y⁻, ỹ) and ∂L/∂θ at one point.

    With m = σ or 1 − σ for the two signs, u = m H z what an activation returns and c the cotangent
    after it, ∂y±/∂θ = ±u ⊙ c ⊙ (1 − m). 1 − m comes from θ in the precision of the masks: a
    difference of rounded values would be noise where m is near 1.
    """

    def forward(sign: jax.Array) -> tuple[jax.Array, Masks, Masks]:
        logits, gated, activations = gated_logits(network, divisors(theta, sign))
        return signed_part(network, logits, label), gated, activations

    def gradient(sign: jax.Array, weight: jax.Array, activations: Masks) -> Masks:
        """Weight ∂y±/∂θ of one sign."""
        after, before = masked_cotangents(network, divisors(theta, sign), label)
        scalars = _one_each((sign, sign * weight), len(theta))
        multiply = partial(jax.lax.platform_dependent, cpu=multiply_passed, default=multiply_after)
        return multiply(activations, after, before, theta, scalars)

    dtype = theta[0].dtype  # that of the images: a network may compute in another one
    signs = jnp.array([1.0, -1.0], dtype)
    (y_positive, y_negative), both_gated, both_activations = jax.vmap(forward)(signs)
    y = signed_part(network, network.fixed.logits, label)
    objective = config.objective()
    weights = jnp.stack(objective.derivative(y, y_positive, y_negative)).astype(dtype)
    if objective.one_sided:
        active = jnp.where(weights[0] != 0, 0, 1)
        divided = divisors(theta, signs[active])
        on_gpu = partial(index_sign, pooled=network.graph.pooled)
        read = partial(jax.lax.platform_dependent, cpu=select_sign, default=on_gpu)
        chosen = read(active, both_activations, both_gated, divided)
        pulled = gradient(signs[active], weights[active], chosen)
    else:
        per_sign = jax.vmap(gradient)(signs, weights, both_activations)
        pulled = jax.tree.map(lambda g: g.sum(0), per_sign)
    terms = jnp.stack([y_positive, y_negative, y - y_positive - y_negative]).astype(dtype)
    return terms, pulled


def multiply_after(
    activations: Masks, after: Masks, _: Any, theta: Masks, scalars: Sequence[Any]
) -> Masks:
    """∂L/∂θ = ±w u ⊙ c ⊙ (1 − m) of one sign: u are `activations`, c is `after`.

    `scalars` are for each site the sign and ±w, the sign times the weight of y± in the loss.
    """
    sites = zip(activations, after, theta, scalars, strict=True)
    return tuple(_by_cotangent_after(u, c, t, *scalar) for u, c, t, scalar in sites)


def multiply_passed(
    activations: Masks,
    after: Masks,
    before: Sequence[jax.Array | None],
    theta: Masks,
    scalars: Sequence[Any],
) -> Masks:
    """The same for a CPU: at a ReLU ±w u ⊙ d ⊙ (1 − m) / m, where d = m H ⊙ c is what it passes on.

    The update of θ then depends on everything else that reads θ, and XLA need not copy θ before it
    writes into it. d is in memory, where c may be the sum of two values. In a lower precision d
    would lose what c has.
    """
    return tuple(
        _by_cotangent_before(u, d, t, *scalar)
        if d is not None and d.dtype == t.dtype
        else _by_cotangent_after(u, c, t, *scalar)
        for u, c, d, t, scalar in zip(activations, after, before, theta, scalars, strict=True)
    )


def _by_cotangent_after(u: jax.Array, c: jax.Array, t: jax.Array, sign: Any, scale: Any) -> Any:
    return scale * (u.astype(t.dtype) * c.astype(t.dtype)) / (1 + jnp.exp(sign * t))


def _by_cotangent_before(u: jax.Array, d: jax.Array, t: jax.Array, sign: Any, scale: Any) -> Any:
    # Where (1 − m) / m is infinite, u and d are 0. u d, of the order m², is 0 in float32 below
    # m = 1e-19: a gradient that small is lost. In this order XLA needs the least memory.
    quotient = jnp.minimum(jnp.exp(-sign * t), jnp.finfo(t.dtype).max)
    return scale * (u * d) * quotient


def select_sign(active: jax.Array, both: Masks, *_: Masks) -> Masks:
    """The values of one of two signs; both are read. XLA fuses this on every device."""
    return tuple(jnp.where(active == 0, u[0], u[1]) for u in both)


def index_sign(
    active: jax.Array, both: Masks, gated: Masks, divided: Masks, pooled: Sequence[bool]
) -> Masks:
    """The same numbers for a GPU: only those of the sign are read. XLA does not fuse this on CPU.

    What is read by index has to be in memory. Else XLA computes both signs anew, reads the masks
    by index as well, and has to copy them before they are updated. Where a pool alone reads u, XLA
    does not store u, and what the convolution returned is read.

    Args:
      active: 0 or 1.
      both: u of both signs.
      gated: H ⊙ z of both signs.
      divided: 1 / σ of the active sign.
      pooled: `Graph.pooled`.
    """
    stored = iter(
        jax.lax.optimization_barrier([u for u, p in zip(both, pooled, strict=True) if not p])
    )
    indices = _one_each(active, len(both))

    def read(value: jax.Array, index: jax.Array) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(value, index, keepdims=False)

    return tuple(
        read(h, index) / d.astype(h.dtype) if by_pools else read(next(stored), index)
        for h, d, by_pools, index in zip(gated, divided, pooled, indices, strict=True)
    )


def _one_each(scalar: Any, count: int) -> list[Any]:
    """A scalar for each site, which XLA takes for different ones.

    On a GPU it merges kernels that read the same value, and the masks of merged kernels are
    copied, as they cannot be updated in place.
    """
    return jax.lax.optimization_barrier([scalar] * count)


def signed_masks(sigma: Masks, sign: jax.Array) -> Masks:
    """Σ for sign +1, 1 − Σ for sign −1."""
    return tuple(jnp.where(sign > 0, s, 1 - s) for s in sigma)


def divisors(theta: Masks, sign: jax.Array) -> Masks:
    """1 / Σ = 1 + exp(−θ) for sign +1, 1 / (1 − Σ) = 1 + exp(θ) for sign −1."""
    return tuple(1 + jnp.exp(-sign * t) for t in theta)


def signed_part(network: FrozenNetwork, logits: jax.Array, label: jax.Array) -> jax.Array:
    """F_σ(x) − F_0 of the label, in the precision of the masks."""
    output_bias = network.fixed.output_bias[label]
    return at_least_float32(logits[label]) - at_least_float32(output_bias)
