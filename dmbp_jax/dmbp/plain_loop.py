"""The optimisation of the masks as the paper writes it (Sec. 3.2), for one image: to be read.

`loop` computes the same in three passes a step, and holds all that makes it fast. A test keeps both
equal.
"""

import jax
import jax.numpy as jnp
import optax

from dmbp_jax.dmbp.config import DMBP
from dmbp_jax.dmbp.decomposition import Masks
from dmbp_jax.graph.graph import FrozenNetwork
from dmbp_jax.graph.pieces import Choice, Piece


def evidence(network: FrozenNetwork, masks: Masks, label: jax.Array) -> jax.Array:
    """F_σ(x) − F_0 of the label: y⁺ with masks Σ, y⁻ with 1 − Σ, y with masks of 1 (Eq. 8, 9)."""

    def masked(number: int, piece: Piece, gate: Choice, *z: jax.Array) -> jax.Array:
        return masks[number] * piece.apply(gate, *z)

    return (network.logits(masked) - network.fixed.output_bias)[label]


def terms(network: FrozenNetwork, theta: Masks, label: jax.Array) -> tuple[jax.Array, ...]:
    """y, y⁺ and y⁻ of the masks Σ = sigmoid(θ)."""
    sigma = tuple(map(jax.nn.sigmoid, theta))
    complement = tuple(1 - mask for mask in sigma)
    ones = tuple(map(jnp.ones_like, sigma))
    return tuple(evidence(network, masks, label) for masks in (ones, sigma, complement))


def step(
    network: FrozenNetwork, theta: Masks, memory: optax.OptState, label: jax.Array, config: DMBP
) -> tuple[Masks, optax.OptState, jax.Array]:
    """One step down the gradient of L = y⁻ − y⁺ + |ỹ| (Eq. 10) with respect to θ.

    Returns:
      `(θ, the optimiser's memory, (y⁺, y⁻, ỹ) before the step)`.
    """

    def loss(theta: Masks) -> jax.Array:
        return config.objective().value(*terms(network, theta, label))

    y, y_positive, y_negative = terms(network, theta, label)
    updates, memory = config.transformation().update(jax.grad(loss)(theta), memory, theta)
    before = jnp.stack([y_positive, y_negative, y - y_positive - y_negative])
    return optax.apply_updates(theta, updates), memory, before


def learn(network: FrozenNetwork, label: jax.Array, config: DMBP) -> tuple[Masks, list[jax.Array]]:
    """The learned masks Σ, and (y⁺, y⁻, ỹ) before each step."""
    theta = tuple(jnp.full(site.shape, config.init) for site in network.graph.masked)
    memory, history = config.transformation().init(theta), []
    for _ in range(config.steps):
        theta, memory, before = step(network, theta, memory, label, config)
        history.append(before)
    return tuple(map(jax.nn.sigmoid, theta)), history
