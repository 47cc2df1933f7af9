"""The masked ReLU (paper Eq. 8, 11, 14): ReLU forwards, mask times gate on the way back.

This custom derivative is the definition of the method; everything else is bookkeeping around it.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def masked_relu(z: jax.Array, gate: jax.Array, mask: jax.Array) -> jax.Array:
    """ReLU whose cotangent is multiplied by `gate * mask`.

    Forwards `gate ⊙ z`, which is ReLU(z) at the point where the gate was frozen; backwards
    `cotangent ⊙ gate ⊙ mask`. Inject Σ as `mask` for the positive part, 1 − Σ for the negative.

    Args:
      z: pre-activation, any shape, floating point.
      gate: boolean `z > 0`, frozen at the image; same shape.
      mask: values in [0, 1], same shape.

    Returns:
      `where(gate, z, 0)`. No gradient flows to `gate` or `mask`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> z, mask = jnp.array([-1.0, 2.0]), jnp.array([0.5, 0.25])
      >>> jax.grad(lambda z: masked_relu(z, z > 0, mask).sum())(z).tolist()
      [0.0, 0.25]
    """
    return _value(z, gate)


def _value(z: jax.Array, gate: jax.Array) -> jax.Array:
    return jnp.where(gate, z, jnp.zeros((), z.dtype))


def _forward(z: jax.Array, gate: jax.Array, mask: jax.Array) -> tuple[jax.Array, tuple]:
    return _value(z, gate), (gate, mask)


def _backward(residuals: tuple, cotangent: jax.Array) -> tuple[jax.Array, None, None]:
    gate, mask = residuals
    return _value(cotangent * mask.astype(cotangent.dtype), gate), None, None


masked_relu.defvjp(_forward, _backward)
