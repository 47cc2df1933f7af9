"""The masked ReLU (paper Eq. 8, 11, 14): the activation forwards, its cotangent times Σ backwards.

This custom derivative is the definition of the method; everything else is bookkeeping around it.
"""

import jax


@jax.custom_vjp
def mask_cotangent(value: jax.Array, mask: jax.Array) -> jax.Array:
    """The value of an activation, whose cotangent is multiplied by its mask.

    Around a ReLU frozen at the image, `mask_cotangent(H ⊙ z, σ)`, a cotangent c becomes σ ⊙ H ⊙ c.
    Inject Σ for the positive part and 1 − Σ for the negative.

    Args:
      value: what the activation returns, any shape, floating point.
      mask: in [0, 1], same shape.

    Returns:
      `value`. No gradient flows to `mask`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> z, mask = jnp.array([-1.0, 2.0]), jnp.array([0.5, 0.25])
      >>> jax.grad(lambda z: mask_cotangent(jax.nn.relu(z), mask).sum())(z).tolist()
      [0.0, 0.25]
    """
    return value


def _forward(value: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    return value, mask


def _backward(mask: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, None]:
    return cotangent * mask.astype(cotangent.dtype), None


mask_cotangent.defvjp(_forward, _backward)
