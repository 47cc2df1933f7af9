"""The precision of sums and scores: at least float32, whatever that of the images is.

In bfloat16 the 257th of equal samples would change nothing, and 1 / 4000 of a probability is below
the normal numbers of float16.
"""

import jax
import jax.numpy as jnp


def at_least_float32(array: jax.Array) -> jax.Array:
    """float64 stays, everything else becomes float32."""
    return array if array.dtype == jnp.float64 else array.astype(jnp.float32)
