"""Which constants of a network are known to be zero: a ReLU is a maximum with one of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_zero(value: Any) -> bool:
    """Whether a value that can be looked at is zero everywhere."""
    if isinstance(value, jax.core.Tracer) or not hasattr(value, "dtype"):
        return isinstance(value, (int, float)) and value == 0
    return bool(jnp.issubdtype(value.dtype, jnp.number)) and not np.any(np.asarray(value))
