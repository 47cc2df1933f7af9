"""The objective (paper Eq. 10) and which of its terms has a gradient at a given step.

With ỹ = y − y⁺ − y⁻, Eq. 10 is L = max(y − 2y⁺, 2y⁻ − y): only one sign pulls at a time.
"""

import jax
import jax.numpy as jnp

from dmbp_jax.dmbp.config import Loss


def objective(y: jax.Array, y_positive: jax.Array, y_negative: jax.Array, loss: Loss) -> jax.Array:
    """The loss that the masks minimise, elementwise.

    L = y⁻ − y⁺ + |y − y⁺ − y⁻| for "all", y⁻ − y⁺ for "positive-negative", −y⁺ for "positive".

    Example:
      >>> float(objective(jnp.float32(3), jnp.float32(2), jnp.float32(-1), "all"))
      -1.0
    """
    if loss == "positive":
        return -y_positive
    if loss == "positive-negative":
        return y_negative - y_positive
    return y_negative - y_positive + jnp.abs(y - y_positive - y_negative)


def pulling_sign(
    y: jax.Array, y_positive: jax.Array, y_negative: jax.Array, loss: Loss
) -> jax.Array:
    """+1 where ∂L/∂σ comes from y⁺, −1 where it comes from y⁻ (losses "all" and "positive").

    "all": the sign of ỹ; at ỹ = 0, where L has a kink, y⁺ is chosen.
    """
    if loss == "positive":
        return jnp.ones_like(y)
    return jnp.where(y - y_positive - y_negative >= 0, 1.0, -1.0).astype(y.dtype)
