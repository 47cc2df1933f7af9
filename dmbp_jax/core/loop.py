"""The optimisation of the masks (paper Sec. 3.5) for one image: three network passes a step.

Both signs' gated forwards share one batch; then one masked backward for the sign that pulls.
Gates, winners and the first pre-activation are frozen outside the loop.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dmbp_jax.core.config import BLOCK, DMBP
from dmbp_jax.core.decomposition import Frozen, Masks, freeze, gated_logits, masked_cotangents
from dmbp_jax.core.objective import objective, pulling_sign
from dmbp_jax.core.sites import Graph


class State(NamedTuple):
    """What a step changes: σ = sigmoid(θ), the optimiser's memory, and whether it goes on."""

    theta: Masks
    optimizer: Any
    terms: jax.Array  # (3,) y⁺, y⁻, ỹ at the last step
    steps: jax.Array  # taken so far
    stopped: jax.Array  # the loss has reached its plateau


def start(graph: Graph, x: jax.Array, config: DMBP, dtype: Any) -> tuple[Frozen, State]:
    """Freeze the network at `x` (1, H, W, C) and set every θ to its initial value."""
    theta = tuple(jnp.full(site.shape, config.init, dtype) for site in graph.relus)
    state = State(
        theta=theta,
        optimizer=config.transformation().init(theta),
        terms=jnp.full((3,), jnp.inf, dtype),
        steps=jnp.int32(0),
        stopped=jnp.bool_(False),
    )
    return freeze(graph, x), state


def advance(
    graph: Graph, frozen: Frozen, state: State, label: jax.Array, config: DMBP, steps: int
) -> tuple[State, jax.Array]:
    """Take `steps` optimiser steps, fewer where the loss of the image stops changing.

    Returns:
      `(state, history (steps, 3))`: y⁺, y⁻ and ỹ of the masks before each step; after an early
      stop the last values are repeated.
    """

    def step(state: State, _: None) -> tuple[State, jax.Array]:
        terms, gradient = terms_and_gradient(graph, frozen, state.theta, label, config)
        updates, optimizer = config.transformation().update(gradient, state.optimizer, state.theta)
        theta = optax.apply_updates(state.theta, updates)
        return State(theta, optimizer, terms, state.steps + 1, state.stopped), terms

    if config.tolerance is None:
        return jax.lax.scan(step, state, None, length=steps)

    def goes_on(carry: tuple[State, jax.Array]) -> jax.Array:
        state, _ = carry
        return (state.steps < first + steps) & ~state.stopped

    def block(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        before, history = carry
        after, terms = jax.lax.scan(step, before, None, length=BLOCK)
        history = jax.lax.dynamic_update_slice(history, terms, (before.steps - first, 0))
        stopped = _on_plateau(before.terms, after.terms, config)
        return after._replace(stopped=stopped), history

    first = state.steps
    state, history = jax.lax.while_loop(
        goes_on, block, (state, jnp.zeros((steps, 3), state.terms.dtype))
    )
    taken = (jnp.arange(steps) < state.steps - first)[:, None]
    return state, jnp.where(taken, history, state.terms)


def _on_plateau(before: jax.Array, after: jax.Array, config: DMBP) -> jax.Array:
    """Whether a block changed the loss by less than `tolerance` times y (never the first block)."""

    def loss(terms: jax.Array) -> jax.Array:
        return objective(terms.sum(), terms[0], terms[1], config.loss)

    assert config.tolerance is not None
    change = jnp.abs(loss(after) - loss(before))
    return jnp.isfinite(change) & (change <= config.tolerance * jnp.abs(after.sum()))


def terms_and_gradient(
    graph: Graph, frozen: Frozen, theta: Masks, label: jax.Array, config: DMBP
) -> tuple[jax.Array, Masks]:
    """(y⁺, y⁻, ỹ) and ∂L/∂θ at one point.

    With m = σ or 1 − σ for the two signs and u = m H z, ∂y±/∂θ = ±u ⊙ c ⊙ (1 − m); Eq. 10 is
    max(y − 2y⁺, 2y⁻ − y), so ∂L/∂θ = −2 u ⊙ c ⊙ (1 − m) of the sign that pulls.
    """
    sigma = masks_of(theta)

    def forward(sign: jax.Array) -> tuple[jax.Array, Masks]:
        logits, activations = gated_logits(graph, frozen, signed_masks(sigma, sign))
        return _signed_part(frozen, logits, label), activations

    def gradient(sign: jax.Array, activations: Masks) -> Masks:
        masks = signed_masks(sigma, sign)
        cotangents = masked_cotangents(graph, frozen, masks, label)
        return tuple(
            u.astype(m.dtype) * c.astype(m.dtype) * (1 - m)
            for u, c, m in zip(activations, cotangents, masks, strict=True)
        )

    signs = jnp.array([1.0, -1.0], theta[0].dtype)
    (y_positive, y_negative), both_activations = jax.vmap(forward)(signs)
    y = _signed_part(frozen, frozen.logits, label)
    if config.loss == "positive-negative":
        scale, per_sign = -1.0, jax.vmap(gradient)(signs, both_activations)
        pulled = jax.tree.map(lambda g: g.sum(0), per_sign)
    else:
        sign = pulling_sign(y, y_positive, y_negative, config.loss)
        chosen = jax.tree.map(lambda u: jnp.where(sign > 0, u[0], u[1]), both_activations)
        scale, pulled = (-2.0 if config.loss == "all" else -1.0), gradient(sign, chosen)
    terms = jnp.stack([y_positive, y_negative, y - y_positive - y_negative])
    return terms, jax.tree.map(lambda g: scale * g, pulled)


def masks_of(theta: Masks) -> Masks:
    """Σ = sigmoid(θ)."""
    return tuple(jax.nn.sigmoid(t) for t in theta)


def signed_masks(sigma: Masks, sign: jax.Array) -> Masks:
    """Σ for sign +1, 1 − Σ for sign −1."""
    return tuple(jnp.where(sign > 0, s, 1 - s) for s in sigma)


def _signed_part(frozen: Frozen, logits: jax.Array, label: jax.Array) -> jax.Array:
    """F_σ(x) − F_0 of the label, in the precision of the masks."""
    dtype = jnp.promote_types(jnp.float32, logits.dtype)
    return logits[label].astype(dtype) - frozen.output_bias[label].astype(dtype)
