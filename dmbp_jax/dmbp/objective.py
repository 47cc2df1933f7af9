"""The objective (paper Eq. 10) and its variants (Table 1): value, and derivative to y⁺ and y⁻.

The loop asks an `Objective`; no variant is named anywhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

Terms = tuple[jax.Array, jax.Array, jax.Array]  # y, y⁺, y⁻


@dataclass(frozen=True)
class Objective:
    """A loss L(y, y⁺, y⁻) that the masks minimise.

    Attributes:
      value: `(y, y_positive, y_negative) -> L`.
      weights: the same arguments to `(∂L/∂y⁺, ∂L/∂y⁻)`.
      one_sided: whether one of the two weights is always zero, so that a step needs the backward
        pass of one sign only.
    """

    value: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    weights: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    one_sided: bool


def _all(y: jax.Array, y_positive: jax.Array, y_negative: jax.Array) -> jax.Array:
    return y_negative - y_positive + jnp.abs(y - y_positive - y_negative)


def _all_weights(
    y: jax.Array, y_positive: jax.Array, y_negative: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # L = max(y − 2y⁺, 2y⁻ − y): one sign has a gradient; at the kink ỹ = 0 it is y⁺.
    pull_up = y - y_positive - y_negative >= 0
    return jnp.where(pull_up, -2.0, 0.0).astype(y.dtype), jnp.where(pull_up, 0.0, 2.0).astype(
        y.dtype
    )


OBJECTIVES: dict[str, Objective] = {
    "all": Objective(_all, _all_weights, one_sided=True),
    "positive-negative": Objective(
        value=lambda y, y_positive, y_negative: y_negative - y_positive,
        weights=lambda y, y_positive, y_negative: (-jnp.ones_like(y), jnp.ones_like(y)),
        one_sided=False,
    ),
    "positive": Objective(
        value=lambda y, y_positive, y_negative: -y_positive,
        weights=lambda y, y_positive, y_negative: (-jnp.ones_like(y), jnp.zeros_like(y)),
        one_sided=True,
    ),
}
